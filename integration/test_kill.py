"""kill: signals for init."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.lib import host
from integration.lib.container import Container, alive, wait_until
from integration.lib.runtime import Runtime


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("TERM", 15), ("SIGTERM", 15), ("15", 15), ("term", 15), ("sigterm", 15),
        ("HUP", 1), ("USR1", 10), ("10", 10), ("SIGUSR2", 12), ("WINCH", 28), ("CONT", 18), ("34", 34), ("64", 64),
    ],
)  # fmt: skip
def test_names_and_numbers(container: Container, word: str, number: int) -> None:
    """A signal is a number or a name, with or without SIG, in any case [K6]."""
    container.begin(f"trap {number} 7")
    container.kill(word)
    assert container.wait() == 7


@pytest.mark.ours_only("K6: real time signals by name")
@pytest.mark.parametrize(("word", "number"), [("SIGRTMIN", 34), ("RTMIN+3", 37), ("SIGRTMAX", 64), ("RTMAX-1", 63)])
def test_real_time_names(container: Container, word: str, number: int) -> None:
    """SIGRTMIN+n and SIGRTMAX-n are names too [K6]."""
    container.begin(f"trap {number} 7")
    container.kill(word)
    assert container.wait() == 7


def test_default_is_term(container: Container) -> None:
    """Without a signal it is SIGTERM [K6]."""
    container.begin("trap 15 9")
    container.kill()
    assert container.wait() == 9


def test_signal_0_probes(container: Container) -> None:
    """Signal 0 only asks whether init is there [K6]."""
    container.begin("pause")
    container.kill("0")
    assert container.state()["status"] == "running"
    container.finish()
    assert container.kill("0", check=False).code != 0


@pytest.mark.parametrize("word", ["NOSUCH", "SIGNOSUCH", "-1", "65", "1000", "1x", ""])
def test_unknown_signals(container: Container, word: str) -> None:
    """Anything else is refused and nothing is sent [K6]."""
    container.begin("signals")
    assert container.kill(word, check=False).code != 0
    assert container.state()["status"] == "running"
    assert [reply["cmd"] for reply in container.replies] == ["signals"]


def test_stopped_container(container: Container) -> None:
    """A stopped container cannot be signalled; callers look for "container not running" [K6, A2, A5]."""
    container.begin("exit 0")
    container.wait()
    for word in ("TERM", "KILL"):
        result = container.kill(word, check=False)
        assert result.code != 0
        if container.runtime.name == "crun":
            assert "not running" in result.error or "open pidfd" in result.error or "kill" in result.error
        else:
            assert "container not running" in result.error


def test_all_on_a_stopped_container(container: Container) -> None:
    """With --all a stopped container is no error [K6]."""
    container.begin("exit 0")
    container.wait()
    container.kill("KILL", flags=["--all"])


def test_missing_container(runtime: Runtime) -> None:
    """An unknown ID: "does not exist" [A2]."""
    result = runtime("kill", "nosuch", "KILL")
    assert result.code != 0
    assert "does not exist" in result.error


def test_created_container(container: Container) -> None:
    """A created container can be killed; then it is stopped [K6]."""
    container.create()
    container.kill("KILL")
    assert container.wait() == 137
    assert container.state()["status"] == "stopped"


def test_kill_from_inside_reaches_only_the_container(container: Container) -> None:
    """In its PID namespace the container cannot name processes of the host [L2]."""
    reply = container.probe(f"kill {os.getpid()} 9")[0]
    assert reply["errno"] == 3


@pytest.mark.parametrize("flags", [[], ["--all"]])
def test_without_a_pid_namespace_everything_dies(container: Container, flags: list[str]) -> None:
    """SIGKILL of a container without a private PID namespace ends all processes of its cgroup [K6]."""
    container.bundle.drop_namespace("pid")
    container.bundle.args("orphan", "fork 3", "pause")
    container.begin()
    container.wait_replies(3)
    members = _members(container)
    assert len(members) >= 5
    container.kill("KILL", flags=flags)
    wait_until(lambda: not any(alive(pid) for pid in members), "end of all processes")


@pytest.mark.ours_only("K6: what the container has frozen itself")
@pytest.mark.requires("v1:freezer")
@pytest.mark.parametrize(
    ("command", "pid_namespace"),
    [(["kill", "{}", "KILL"], True), (["kill", "{}", "KILL"], False), (["kill", "--all", "{}", "KILL"], False),
     (["delete", "--force", "{}"], True), (["delete", "--force", "{}"], False)],
)  # fmt: skip
def test_frozen_sub_cgroup(container: Container, command: list[str], pid_namespace: bool) -> None:
    """A process frozen by cgroup v1 does not die before it is thawed; a container that may make cgroups can freeze a
    part of itself, and ends all the same [K6, D4, D5].
    """
    if not pid_namespace:
        container.bundle.drop_namespace("pid")
    container.begin("fork 1", "pause")
    members = _members(container)
    own = Path(host.cgroup_mounts()["freezer"] + container.bundle.config["linux"]["cgroupsPath"])
    below = own / "below"
    below.mkdir()
    user = (own / "freezer.state").stat()
    os.chown(below / "freezer.state", user.st_uid, user.st_gid)
    (below / "cgroup.procs").write_text(str(next(pid for pid in members if pid != container.pid)))
    (below / "freezer.state").write_text("FROZEN")
    try:
        container.runtime(*(word.format(container.id) for word in command)).ok()
        wait_until(lambda: not any(alive(pid) for pid in members), "end of all processes", 5)
    finally:
        if below.exists():
            (below / "freezer.state").write_text("THAWED")


@pytest.mark.ours_only("D17: a container below another one")
@pytest.mark.requires("v1:freezer")
@pytest.mark.parametrize("command", [["kill", "{}", "KILL"], ["delete", "--force", "{}"]])
def test_frozen_container_below(
    container: Container, new_container: Callable[..., Container], command: list[str]
) -> None:
    """What is frozen below the container's cgroup and does not die with it stays frozen: another container [D17]."""
    container.begin("pause")
    other = new_container()
    other.bundle.linux(cgroupsPath=container.bundle.config["linux"]["cgroupsPath"] + "/below")
    other.begin("pause")
    other.command("pause").ok()
    container.runtime(*(word.format(container.id) for word in command))
    assert container.wait() == 137
    assert other.state()["status"] == "paused"
    other.delete("--force")


def _members(container: Container) -> list[int]:
    top = host.cgroup_mounts().get("pids", host.cgroup_mounts().get("", ""))
    found = []
    for directory, _, _ in os.walk(top + container.bundle.config["linux"]["cgroupsPath"]):
        with open(f"{directory}/cgroup.procs") as file:
            found += [int(line) for line in file]
    return found


def test_leftovers_of_a_dead_init(container: Container) -> None:
    """When init is dead but its cgroup is not empty, SIGKILL succeeds and ends the rest [K6]."""
    container.bundle.drop_namespace("pid")
    container.begin("orphan", "trap 10 0")
    container.wait_replies(2)
    container.kill("USR1")
    container.wait()
    left = _members(container)
    assert left
    container.kill("KILL")
    wait_until(lambda: not any(alive(pid) for pid in left), "end of the leftovers")


def test_signal_goes_to_init_only(container: Container) -> None:
    """Another signal than SIGKILL reaches init, not its children [K6]."""
    container.begin("fork 2", "signals")
    container.kill("USR1")
    container.wait_replies(3)
    assert container.replies[2]["number"] == 10
    members = _members(container)
    assert len(members) == 3
    container.kill("TERM")
    assert container.wait() == 0


def test_two_containers(new_container: Callable[..., Container]) -> None:
    """A signal reaches the named container and no other [K6]."""
    first, second = new_container().begin("pause"), new_container().begin("pause")
    first.finish()
    assert second.state()["status"] == "running"
