"""pause, stats, top, update, inspect, health checks, restart policies, cp, commit, diff."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from integration.engines.engines import Podman
from integration.engines.image import IMAGE
from integration.engines.sandbox import Sandbox, Watch
from integration.lib.container import wait_until

FOREVER = ["sleep", "1000"]
COUNT = "while :; do echo tick; sleep 0.05; done"


def ticks(podman: Podman, name: str) -> int:
    """How often the program has written."""
    return podman("logs", name).ok().text.count("tick")


# ---- pause ----


def test_pause(podman: Podman, sandbox: Sandbox) -> None:
    """What is paused does nothing, the runtime says so too, and afterwards it goes on."""
    sandbox.limit("freezer", "", "") if not sandbox.only_v2 else None
    name = podman.detached("sh", "-c", COUNT)
    podman.wait_logs(name, "tick")
    podman("pause", name).ok()
    found = podman.inspect(name)
    assert (found["State"]["Status"], found["State"]["Paused"]) == ("paused", True)
    assert sandbox.run([podman.runtime, "state", found["Id"]]).ok().json["status"] == "paused"
    before = -1

    def silent() -> bool:
        """What had been written before may arrive later; nothing more comes, though it wrote every 50 ms."""
        nonlocal before
        old, before = before, ticks(podman, name)
        time.sleep(0.3)
        return old == before

    wait_until(silent, "silence")
    podman("unpause", name).ok()
    assert podman.inspect(name)["State"]["Status"] == "running"
    wait_until(lambda: ticks(podman, name) > before, "a tick")


def test_stop_while_paused(podman: Podman, leaks: Watch) -> None:
    """rm -f takes a paused container away."""
    name = podman.detached(*FOREVER)
    podman("pause", name).ok()
    assert podman("exec", name, "true").code != 0
    podman("rm", "-f", "-t", "0", name).ok()
    leaks.check()


def test_pause_twice(podman: Podman) -> None:
    """The second pause is refused; unpause of what runs, too."""
    name = podman.detached(*FOREVER)
    assert podman("unpause", name).code == 125
    podman("pause", name).ok()
    assert podman("pause", name).code == 125
    podman("unpause", name).ok()


# ---- what is going on ----


def test_top(podman: Podman) -> None:
    """top: the processes with the container's PIDs, and with the host's."""
    name = podman.detached("sh", "-c", "sleep 900 & exec sleep 1000")
    wait_until(lambda: podman("top", name, "comm").text.split().count("sleep") == 2, "two programs")
    rows = [
        line.strip().split(None, 3)
        for line in podman("top", name, "pid", "hpid", "user", "args").ok().text.splitlines()
    ]
    assert rows[0][:2] == ["PID", "HPID"]
    assert {row[3] for row in rows[1:]} == {"sleep 900", "sleep 1000"}
    assert {row[0] for row in rows[1:] if row[3] == "sleep 1000"} == {"1"}
    assert {row[1] for row in rows[1:] if row[3] == "sleep 1000"} == {str(podman.inspect(name)["State"]["Pid"])}


def test_stats(podman: Podman, sandbox: Sandbox) -> None:
    """stats: one line a container, with what the kernel counts."""
    for controller in ("memory", "pids", "cpuacct" if not sandbox.only_v2 else "cpu"):
        sandbox.limit(controller, "", "")
    name = podman.detached("sh", "-c", "sleep 900 & sleep 901 & wait")
    wait_until(lambda: podman("top", name, "comm").text.split().count("sleep") == 2, "two programs")
    found = podman("stats", "--no-stream", "--format", "json", name).ok().json
    assert [entry["name"] for entry in found] == [name]
    assert found[0]["pids"] == "3"
    assert not found[0]["mem_usage"].startswith("0B")


def test_inspect(podman: Podman, sandbox: Sandbox) -> None:
    """inspect: state, limits and paths as they are."""
    name = podman.detached(*FOREVER, options=["--memory", "64m"] if "memory" in sandbox.controllers else [])
    found = podman.inspect(name)
    assert found["State"]["Status"] == "running"
    assert found["State"]["ConmonPid"] > 0
    assert found["HostConfig"]["Memory"] == (64 << 20 if "memory" in sandbox.controllers else 0)
    assert found["State"]["OciVersion"]
    state = sandbox.run([podman.runtime, "state", found["Id"]]).ok().json
    assert (state["pid"], state["bundle"], state["status"]) == (
        found["State"]["Pid"], str(Path(found["OCIConfigPath"]).parent), "running",
    )  # fmt: skip


def test_events(podman: Podman) -> None:
    """events: the end of a container with its status."""
    name = podman.name()
    podman("run", "--name", name, IMAGE, "sh", "-c", "exit 23")
    lines = podman("events", "--stream=false", "--filter", f"container={name}", "--format", "{{.Status}}").ok().text
    words = lines.split()
    assert [word for word in ("create", "start", "died") if word in words] == ["create", "start", "died"]


def test_logs(podman: Podman) -> None:
    """logs with --tail, --follow and both streams."""
    name = podman.detached("sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done; echo wrong >&2; sleep 0.5; echo end")
    followed = podman("logs", "--follow", name).ok()
    assert followed.text.splitlines() == [*(f"line {number}" for number in range(1, 6)), "end"]
    assert followed.error.strip() == "wrong"
    assert podman("logs", "--tail", "1", name).ok().text == "end\n"


# ---- update ----


def test_update(podman: Podman, sandbox: Sandbox) -> None:
    """update: the limits of a running container, read back from its cgroup inside."""
    if "cpu" not in sandbox.controllers or "memory" not in sandbox.controllers:
        pytest.skip("no cpu or memory controller")
    name = podman.detached(*FOREVER, options=["--memory", "64m"])
    podman("update", "--memory", "48m", "--cpus", "0.25", name).ok()
    path = sandbox.limit("memory", "memory.limit_in_bytes", "memory.max")
    assert podman("exec", name, "cat", path).ok().text.strip() == str(48 << 20)
    path = sandbox.limit("cpu", "cpu.cfs_quota_us", "cpu.max")
    assert podman("exec", name, "cat", path).ok().text.split()[0] == "25000"


def test_update_pids(podman: Podman, sandbox: Sandbox) -> None:
    """update --cpu-shares and --pids-limit, where this podman has it."""
    path = sandbox.limit("cpu", "cpu.shares", "cpu.weight")
    name = podman.detached(*FOREVER)
    podman("update", "--cpu-shares", "512", name).ok()
    assert podman("exec", name, "cat", path).ok().text.strip() == ("20" if sandbox.only_v2 else "512")


def test_update_refused(podman: Podman, sandbox: Sandbox) -> None:
    """A limit that the kernel refuses: an error, the container goes on as before."""
    path = sandbox.limit("cpuset", "cpuset.cpus", "cpuset.cpus")
    name = podman.detached(*FOREVER, options=["--cpuset-cpus", "0"])
    result = podman("update", "--cpuset-cpus", "4000", name)
    assert result.code != 0, repr(result)
    assert podman("exec", name, "cat", path).ok().text.strip() == "0"


# ---- health checks and restarts ----


def test_health(podman: Podman) -> None:
    """A health check is an exec: healthy, then not."""
    options = ["--health-cmd", "test -e /root/fine", "--health-interval", "disable", "--health-retries", "1"]
    name = podman.detached("sh", "-c", "touch /root/fine; exec sleep 1000", options=options)
    wait_until(lambda: podman("healthcheck", "run", name).code == 0, "health")
    state = podman.inspect(name)["State"]
    assert (state.get("Health") or state["Healthcheck"])["Status"] == "healthy"
    podman("exec", name, "rm", "/root/fine").ok()
    assert podman("healthcheck", "run", name).code == 1
    state = podman.inspect(name)["State"]
    assert (state.get("Health") or state["Healthcheck"])["Status"] == "unhealthy"


def test_restart_policy(podman: Podman, leaks: Watch) -> None:
    """--restart=on-failure:2: run three times, and then no more."""
    name = podman.detached(
        "sh", "-c", "echo run >>/root/runs; cat /root/runs; exit 3", options=["--restart=on-failure:2"]
    )
    wait_until(
        lambda: (found := podman.inspect(name))["RestartCount"] == 2 and found["State"]["Status"] == "exited",
        "the last end",
    )
    assert podman.inspect(name)["State"]["ExitCode"] == 3
    assert podman("logs", name).ok().text.count("run") == 1 + 2 + 3
    podman("rm", name).ok()
    leaks.check()


def test_restart_always(podman: Podman, sandbox: Sandbox, leaks: Watch) -> None:
    """--restart=always: killed from outside, it is there again, under another PID, until it is stopped."""
    name = podman.detached(*FOREVER, options=["--restart=always"])
    first = podman.inspect(name)["State"]["Pid"]
    sandbox.run(["kill", "-9", str(first)]).ok()
    wait_until(lambda: podman.inspect(name)["State"]["Pid"] not in (0, first), "the second life")
    podman("stop", "-t", "0", name).ok()
    assert not podman.inspect(name)["State"]["Running"]
    podman("rm", name).ok()
    leaks.check()


# ---- its files ----


def test_copy(podman: Podman, tmp_path: Path) -> None:
    """cp to and from a running container, also into a volume."""
    name = podman.detached(*FOREVER, options=["--tmpfs", "/scratch"])
    tmp_path.joinpath("given").write_text("from outside\n")
    podman("cp", str(tmp_path / "given"), f"{name}:/root/given").ok()
    assert podman("exec", name, "cat", "/root/given").ok().text == "from outside\n"
    podman("exec", name, "sh", "-c", "echo from inside >/root/made").ok()
    podman("cp", f"{name}:/root/made", str(tmp_path / "made")).ok()
    assert tmp_path.joinpath("made").read_text() == "from inside\n"


def test_commit_and_diff(podman: Podman) -> None:
    """A container is paused, becomes an image, and that image can be run."""
    name = podman.detached("sh", "-c", "echo kept >/root/kept; sleep 1000")
    wait_until(lambda: podman("exec", name, "test", "-e", "/root/kept").code == 0, "the file")
    assert "A /root/kept" in podman("diff", name).ok().text.splitlines()
    podman("commit", "-q", "--pause", name, f"localhost/{name}").ok()
    assert podman("run", "--rm", f"localhost/{name}", "cat", "/root/kept").ok().text == "kept\n"
    podman("rm", "-f", "-t", "0", name).ok()
    podman("rmi", f"localhost/{name}").ok()


def test_mount_from_outside(podman: Podman, sandbox: Sandbox) -> None:
    """mount: the root file system of a running container, as the host sees it."""
    name = podman.detached("sh", "-c", "echo seen >/root/seen; sleep 1000")
    wait_until(lambda: podman("exec", name, "test", "-e", "/root/seen").code == 0, "the file")
    place = podman("mount", name).ok().text.strip()
    assert sandbox.read(f"{place}/root/seen") == "seen"
    podman("unmount", name).ok()
