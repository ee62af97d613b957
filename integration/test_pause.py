"""pause and resume: the freezer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.conftest import requires
from integration.lib import host
from integration.lib.bundle import CGROUP_PREFIX
from integration.lib.container import Container, wait_until
from integration.lib.runtime import Runtime as Tested


def ticks(container: Container) -> None:
    """Wait until what the container prints has grown."""
    before = len(container.output)
    wait_until(lambda: len(container.output) > before, "what it prints")


def silent(container: Container) -> bool:
    """Whether the container prints nothing for a while."""
    before = len(container.output)
    time.sleep(0.2)
    return len(container.output) == before


def tick(container: Container) -> None:
    """Start it; it prints for as long as any test takes."""
    container.bundle.args("report", *(word for _ in range(6000) for word in ("sleep 20", "echo x")))
    container.create()
    container.start()
    container.wait_replies(1)


@pytest.mark.requires("v1:freezer")
def test_pause_and_resume(container: Container) -> None:
    """Paused: status, nothing runs; resumed: it goes on [K11]."""
    tick(container)
    ticks(container)
    container.command("pause").ok()
    assert container.state()["status"] == "paused"
    assert silent(container)
    container.command("resume").ok()
    assert container.state()["status"] == "running"
    ticks(container)


@pytest.mark.requires("v2")
def test_on_v2(new_container: Callable[..., Container], runtime: Tested, v2_prefix: list[str]) -> None:
    """The same on cgroup v2 [K11]."""
    container = new_container(at=runtime.within(v2_prefix))
    tick(container)
    container.command("pause").ok()
    assert container.state()["status"] == "paused"
    events = Path(host.cgroup_mounts()[""], CGROUP_PREFIX, container.id, "cgroup.events").read_text()
    assert "frozen 1" in events
    assert silent(container)
    result = container.execute("exit 3")
    assert result.code != 3
    assert "paused" in result.error
    container.command("resume").ok()
    assert container.state()["status"] == "running"
    ticks(container)


@pytest.mark.requires("v1:freezer")
def test_created_container(container: Container) -> None:
    """A created container can be paused; it is created again after resume, and starts [K11]."""
    container.bundle.args("exit 4")
    container.create()
    container.command("pause").ok()
    assert container.state()["status"] == "paused"
    container.command("resume").ok()
    assert container.state()["status"] == "created"
    container.start()
    assert container.wait() == 4


@pytest.mark.requires("v1:freezer")
def test_wrong_status(container: Container) -> None:
    """pause wants a created or running container, resume a paused one [K11]."""
    container.bundle.args("trap 15 0")
    container.create()
    container.start()
    container.wait_replies(1)
    result = container.command("resume")
    assert result.code != 0
    assert "not paused" in result.error
    container.command("pause").ok()
    result = container.command("pause")
    if container.runtime.ours:
        assert result.code == 1
        assert "not running" in result.error
    container.command("resume").ok()
    container.kill("TERM")
    container.wait_dead()
    for verb in ("pause", "resume"):
        result = container.command(verb)
        assert result.code != 0
    result = container.runtime("pause", "no-such-container")
    assert result.code != 0
    assert "does not exist" in result.error


@pytest.mark.requires("v1:freezer")
def test_kill_and_delete_a_paused_container(container: Container) -> None:
    """SIGKILL and delete --force work on a paused one [K6, K7, K11]."""
    tick(container)
    container.command("pause").ok()
    container.kill("KILL", check=False)
    if container.runtime.ours:
        assert container.wait() == 137  # dead, and not only told
    container.delete("--force")
    wait_until(lambda: not container.runtime.root.joinpath(container.id).exists())


@pytest.mark.ours_only("D17: runc says that the first is paused, and its resume lets the second go on")
@pytest.mark.parametrize("own", ["pid namespace", "no namespace"])
def test_paused_in_the_place_of_another(
    container: Container, new_container: Callable[..., Container], own: str
) -> None:
    """A container that has ended is stopped, also when another one has its cgroup now and is paused [K11, D17]."""
    if host.cgroup_mode() != "v2":
        requires("v1:freezer")
    if own == "no namespace":
        container.bundle.drop_namespace("pid")
    container.begin("exit 0")
    container.wait()
    second = new_container()
    second.bundle.linux(cgroupsPath=container.bundle.config["linux"]["cgroupsPath"])
    second.begin("pause")
    second.command("pause").ok()
    assert container.state()["status"] == "stopped"
    assert "not paused" in container.command("resume").error
    assert "not running" in container.runtime("update", "--pids-limit", "3", container.id).error
    container.delete()
    assert second.state()["status"] == "paused"
    second.command("resume").ok()
    second.delete("--force")


@pytest.mark.requires("v1:freezer")
def test_all_processes(container: Container) -> None:
    """Processes that exec and the program itself have added are frozen too [K11]."""
    container.begin("fork 2", "pause")
    container.command("pause").ok()
    path = Path(host.cgroup_mounts()["freezer"], CGROUP_PREFIX, container.id)
    pids = (path / "cgroup.procs").read_text().split()
    assert len(pids) == 3
    for pid in pids:
        assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "DS"
    assert (path / "freezer.state").read_text() == "FROZEN\n"
    container.command("resume").ok()
    assert (path / "freezer.state").read_text() == "THAWED\n"


@pytest.mark.requires("v1:freezer")
def test_many_times(container: Container) -> None:
    """A busy container is paused and resumed again and again [K11]."""
    tick(container)
    for _ in range(15):
        container.command("pause").ok()
        assert container.state()["status"] == "paused"
        container.command("resume").ok()
