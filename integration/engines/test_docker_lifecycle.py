"""docker: stop, kill, pause, restart and its policies, health checks, update, memory, the daemon's own restart."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from integration.engines.docker import Docker
from integration.engines.image import IMAGE
from integration.engines.sandbox import Sandbox, Watch
from integration.lib.container import wait_until

FOREVER = ["sleep", "1000"]


def test_stop(docker: Docker, leaks: Watch) -> None:
    """stop sends SIGTERM, which the program handles."""
    name = docker.loop("trap 'echo bye; exit 5' TERM")
    docker("stop", name).ok()
    assert docker.state(name)["ExitCode"] == 5
    assert "bye" in docker("logs", name).text
    docker("rm", name).ok()
    leaks.check()


def test_stop_then_kill(docker: Docker) -> None:
    """What ignores SIGTERM is killed when the time is over."""
    name = docker.loop("trap '' TERM")
    docker("stop", "-t", "1", name).ok()
    assert docker.state(name)["ExitCode"] == 137


def test_stop_signal(docker: Docker) -> None:
    """--stop-signal decides what stop sends."""
    name = docker.loop("trap 'exit 6' USR2", "--stop-signal", "USR2")
    docker("stop", name).ok()
    assert docker.state(name)["ExitCode"] == 6


def test_kill(docker: Docker) -> None:
    """kill with a signal by name and by number; the container goes on after those it handles."""
    name = docker.loop("trap 'echo one' USR1; trap 'echo two' USR2")
    docker("kill", "-s", "USR1", name).ok()
    docker.wait_logs(name, "one")
    docker("kill", "-s", "12", name).ok()
    docker.wait_logs(name, "two")
    assert docker.state(name)["Running"]
    docker("kill", name).ok()
    assert docker("wait", name).ok().text.strip() == "137"


def test_kill_of_the_dead(docker: Docker) -> None:
    """An error that names the state."""
    name = docker.detached("true")
    docker.wait_status(name, "exited")
    result = docker("kill", name)
    assert result.code == 1 and "is not running" in result.error
    docker("stop", name).ok()


def test_killed_from_outside(docker: Docker, leaks: Watch) -> None:
    """When init is killed behind docker's back, docker learns of it, and rm works."""
    name = docker.detached(*FOREVER)
    docker.sandbox.run(["kill", "-9", str(docker.state(name)["Pid"])]).ok()
    assert docker("wait", name).ok().text.strip() == "137"
    docker("rm", name).ok()
    leaks.check()


def test_pause(docker: Docker) -> None:
    """pause freezes every process, unpause lets them go on; stop and kill work on a frozen one."""
    name = docker.detached("sh", "-c", "while :; do echo >>/tmp/beat; sleep 0.05; done")
    wait_until(lambda: docker("exec", name, "cat", "/tmp/beat").code == 0, "the file")
    docker("pause", name).ok()
    assert docker.state(name)["Status"] == "paused"
    result = docker("exec", name, "true")
    assert result.code == 1 and "paused" in result.error
    docker("unpause", name).ok()
    assert docker.state(name)["Status"] == "running"
    before = docker.sh_exec(name, "wc -c </tmp/beat")
    wait_until(lambda: docker.sh_exec(name, "wc -c </tmp/beat") != before, "another beat")
    docker("pause", name).ok()
    docker("rm", "-f", name).ok()


def test_rm_of_a_running_container(docker: Docker, leaks: Watch) -> None:
    """rm refuses a running container, rm -f takes it away."""
    name = docker.detached(*FOREVER)
    assert docker("rm", name).code == 1
    docker("rm", "-f", name).ok()
    leaks.check()


def test_start_and_restart(docker: Docker, leaks: Watch) -> None:
    """One container, started three times: what it wrote is there, and each start is a new create of the same id."""
    name = docker.name()
    script = "echo run >>/root/runs; cat /root/runs; exec sleep 1000"
    docker("create", "--network", "none", "--name", name, IMAGE, "sh", "-c", script).ok()
    assert docker.state(name)["Status"] == "created"
    docker("start", name).ok()
    docker("stop", "-t", "0", name).ok()
    docker("start", name).ok()
    docker("restart", "-t", "0", name).ok()
    wait_until(lambda: docker("logs", name).text.count("run") == 1 + 2 + 3, "the third start")
    docker("rm", "-f", name).ok()
    leaks.check()


def test_start_attached(docker: Docker) -> None:
    """start --attach: output and status of the program."""
    name = docker.name()
    docker("create", "--network", "none", "--name", name, IMAGE, "sh", "-c", "echo attached; exit 8").ok()
    result = docker("start", "--attach", name)
    assert (result.code, result.out) == (8, b"attached\n")


def test_restart_on_failure(docker: Docker) -> None:
    """--restart on-failure:2: three runs, then it stays as it is."""
    name = docker.detached("sh", "-c", "echo run; exit 3", options=["--restart", "on-failure:2"])
    wait_until(lambda: docker("logs", name).text.count("run") == 3, "three runs")
    docker.wait_status(name, "exited")
    found = docker.inspect(name)
    assert (found["RestartCount"], found["State"]["ExitCode"]) == (2, 3)


def test_restart_always(docker: Docker) -> None:
    """--restart always: also after a success and when killed from outside; not after stop."""
    name = docker.detached(*FOREVER, options=["--restart", "always"])
    first = docker.state(name)["Pid"]
    docker.sandbox.run(["kill", "-9", str(first)]).ok()
    wait_until(lambda: docker.state(name)["Pid"] not in (0, first), "another process")
    docker("stop", "-t", "0", name).ok()
    assert docker.state(name)["Status"] == "exited"


def test_health(docker: Docker) -> None:
    """A health check is an exec every interval: starting, healthy, unhealthy."""
    options = [
        "--health-cmd", "test -e /tmp/fine || { echo not yet; exit 1; }", "--health-interval", "200ms",
        "--health-retries", "2",
    ]  # fmt: skip
    name = docker.detached(*FOREVER, options=options)
    wait_until(lambda: docker.state(name)["Health"]["Status"] == "unhealthy", "unhealthy")
    assert docker.state(name)["Health"]["Log"][0]["Output"] == "not yet\n"
    docker.sh_exec(name, "touch /tmp/fine")
    wait_until(lambda: docker.state(name)["Health"]["Status"] == "healthy", "healthy")


def test_health_timeout(docker: Docker, leaks: Watch) -> None:
    """A check that takes too long counts as a failure, and its process is killed."""
    options = [
        "--health-cmd", "exec sleep 999", "--health-interval", "200ms", "--health-timeout", "300ms",
        "--health-retries", "1",
    ]  # fmt: skip
    name = docker.detached(*FOREVER, options=options)
    wait_until(lambda: docker.state(name)["Health"]["Status"] == "unhealthy", "unhealthy")
    docker("rm", "-f", name).ok()
    leaks.check()


def test_update(docker: Docker) -> None:
    """update changes the cgroup of a running container."""
    name = docker.detached(*FOREVER, options=["-m", "64m", "--memory-swap", "64m", "--cpus", "0.5"])
    docker("update", "-m", "96m", "--memory-swap", "96m", "--cpus", "0.25", "--pids-limit", "33", name).ok()
    read = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max"
    assert docker.sh_exec(name, read).split() == [str(96 << 20), "25000", "33"]


def test_update_that_fails(docker: Docker) -> None:
    """A limit below what is in use is an error; the old one stays."""
    name = docker.loop(
        "dd if=/dev/zero of=/dev/shm/fill bs=1M count=40 2>/dev/null", "-m", "64m", "--memory-swap", "64m"
    )
    result = docker("update", "-m", "8m", "--memory-swap", "8m", name)
    assert result.code == 1, result
    assert "memory" in result.error
    assert docker.sh_exec(name, "cat /sys/fs/cgroup/memory/memory.limit_in_bytes") == str(64 << 20)
    assert docker.state(name)["Running"]


def test_out_of_memory(docker: Docker) -> None:
    """A program that takes too much is killed, and docker knows why."""
    script = "dd if=/dev/zero of=/dev/null bs=200M count=1"
    name = docker.detached("sh", "-c", script, options=["-m", "24m", "--memory-swap", "24m"])
    docker.wait_status(name, "exited")
    state = docker.state(name)
    assert state["ExitCode"] in (1, 137)
    if not docker.unmounted:  # containerd then gets no notice of it from the cgroup
        assert state["OOMKilled"]


def test_init(docker: Docker) -> None:
    """--init: PID 1 is docker's, and collects orphans."""
    zombies = "while ps -o stat,comm | grep '^Z' >&2; do sleep 0.05; done"
    script = f"(sleep 0.1 & ); sleep 0.4; cat /proc/1/comm; {zombies}; echo 0"
    assert docker.sh(script, "--init").split() == ["docker-init", "0"]


def test_init_passes_signals_on(docker: Docker) -> None:
    """stop reaches the program below it."""
    name = docker.loop("trap 'exit 5' TERM", "--init")
    docker("stop", name).ok()
    assert docker.state(name)["ExitCode"] == 5


def test_children_die_with_the_container(docker: Docker, leaks: Watch) -> None:
    """Nothing survives the end of PID 1."""
    name = docker.detached("sh", "-c", "for i in 1 2 3; do sleep 1000 & done; echo ready; read line", options=["-i"])
    docker.wait_logs(name, "ready")
    docker("kill", name).ok()
    docker("rm", name).ok()
    leaks.check()


def test_children_in_the_hosts_pid_namespace(docker: Docker, leaks: Watch) -> None:
    """--pid host: there the runtime ends what is in the cgroup."""
    name = docker.detached(
        "sh", "-c", "for i in 1 2 3; do sleep 1000 & done; echo ready; sleep 1000", options=["--pid", "host"]
    )
    docker.wait_logs(name, "ready")
    docker("rm", "-f", name).ok()
    leaks.check()


def test_live_restore(docker_sandbox: Sandbox, docker: Docker, tmp_path: Path) -> None:
    """Containers live on while the daemon is away; the next one finds them, and their exit status."""
    other = Docker(docker_sandbox, tmp_path, docker.runtime, "live", ["--live-restore", "--bridge", "none"])
    try:
        other.load(docker.tree)
        name = other.loop("trap 'exit 5' USR1; trap 'exit 6' USR2")
        second = other.loop("trap 'exit 7' USR1")
        pid, its = other.state(name)["Pid"], other.state(second)["Pid"]
        other.end(9)
        docker_sandbox.run(["kill", "-USR1", str(its)]).ok()
        docker_sandbox.run(["kill", "-0", str(pid)]).ok()
        other.begin()
        assert (other.state(name)["Status"], other.state(name)["Pid"]) == ("running", pid)
        other.wait_status(second, "exited")
        assert other.sh_exec(name, "echo alive") == "alive"
        other("kill", "-s", "USR2", name).ok()
        assert other("wait", name).ok().text.strip() == "6"
    finally:
        other.clear()
        other.end()


def test_fifty(docker: Docker, leaks: Watch, slow: bool) -> None:
    """Fifty containers at the same time, and all gone again."""
    if not slow:
        pytest.skip("IT_SLOW=1 runs it")
    with ThreadPoolExecutor(10) as pool:
        names = list(pool.map(lambda _: docker.detached(*FOREVER), range(50)))
        assert all(docker.state(name)["Running"] for name in names)
        list(pool.map(lambda name: docker("rm", "-f", name, timeout=120).ok(), names))
    leaks.check()
