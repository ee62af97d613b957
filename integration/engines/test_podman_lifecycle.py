"""podman run -d, create, start, ps, inspect, logs, stop, kill, wait, restart, rm."""

from __future__ import annotations

from integration.engines.engines import Podman
from integration.engines.image import IMAGE
from integration.engines.sandbox import Sandbox, Watch
from integration.lib.container import wait_until

FOREVER = ["sleep", "1000"]
TRAP = "trap 'echo got-term; exit 5' TERM; echo ready; while :; do sleep 0.05; done"


def test_detached(podman: Podman, sandbox: Sandbox, leaks: Watch) -> None:
    """run -d, ps, inspect, logs, stop, rm, as a user does it."""
    name = podman.detached("sh", "-c", TRAP)
    podman.wait_logs(name, "ready")
    listed = podman("ps", "--format", "json").ok().json
    assert [(entry["Names"], entry["State"]) for entry in listed] == [([name], "running")]
    state = podman.inspect(name)["State"]
    assert (state["Status"], state["Running"], state["ExitCode"]) == ("running", True, 0)
    assert "trap" in sandbox.read(f"/proc/{state['Pid']}/cmdline")
    found = podman.inspect(name)
    assert int(sandbox.read(found["PidFile"])) == state["Pid"]
    assert found["OCIRuntime"] == podman.runtime
    podman("stop", "-t", "60", name).ok()
    assert "got-term" in podman("logs", name).ok().text
    state = podman.inspect(name)["State"]
    assert (state["Status"], state["Running"], state["ExitCode"]) == ("exited", False, 5)
    assert podman("ps", "-q").ok().text == ""
    podman("rm", name).ok()
    assert podman("ps", "-aq").ok().text == ""
    leaks.check()


def test_stop_of_the_deaf(podman: Podman) -> None:
    """A program that ignores SIGTERM is killed when the time is over."""
    name = podman.detached("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    podman.wait_logs(name, "ready")
    podman("stop", "-t", "1", name).ok()
    assert podman.inspect(name)["State"]["ExitCode"] == 137
    podman("rm", name).ok()


def test_stop_signal(podman: Podman) -> None:
    """--stop-signal decides what stop sends."""
    script = "trap 'exit 6' USR2; echo ready; while :; do sleep 0.05; done"
    name = podman.detached("sh", "-c", script, options=["--stop-signal", "USR2"])
    podman.wait_logs(name, "ready")
    podman("stop", "-t", "60", name).ok()
    assert podman.inspect(name)["State"]["ExitCode"] == 6


def test_stop_twice(podman: Podman) -> None:
    """Stopping what is stopped, and killing it, end as podman wants it: 0, and an error that names the state."""
    name = podman.detached("true")
    wait_until(lambda: podman.inspect(name)["State"]["Status"] == "exited", "the end")
    podman("stop", name).ok()
    result = podman("kill", name)
    assert result.code == 125
    assert "can only kill running containers" in result.error


def test_kill(podman: Podman) -> None:
    """kill with a signal by name and by number; the container goes on after those it handles."""
    script = "trap 'echo one' USR1; trap 'echo two' USR2; echo ready; while :; do sleep 0.05; done"
    name = podman.detached("sh", "-c", script)
    podman.wait_logs(name, "ready")
    podman("kill", "-s", "USR1", name).ok()
    podman.wait_logs(name, "one")
    podman("kill", "-s", "12", name).ok()
    podman.wait_logs(name, "two")
    assert podman.inspect(name)["State"]["Running"]
    podman("kill", name).ok()
    assert podman("wait", name).ok().text.strip() == "137"


def test_wait(podman: Podman) -> None:
    """wait gives the exit status of a container that ends by itself."""
    name = podman.detached("sh", "-c", "sleep 0.3; exit 11")
    assert podman("wait", name).ok().text.strip() == "11"


def test_create_start_restart(podman: Podman, leaks: Watch) -> None:
    """One container, started three times: each start is a new create with the same id."""
    name = podman.name()
    podman("create", "--name", name, IMAGE, "sh", "-c", "echo run >>/root/runs; cat /root/runs; exec sleep 1000").ok()
    assert podman.inspect(name)["State"]["Status"] == "created"
    for count in (1, 2, 3):
        podman(
            "restart" if count == 3 else "start", "-t0" if count == 3 else name, *([name] if count == 3 else [])
        ).ok()
        # The logs hold what earlier starts said: 1, 2 and 3 lines.
        wait_until(lambda: podman("logs", name).text.count("run") == sum(range(count + 1)), "the logs")  # noqa: B023
        if count == 1:
            podman("stop", "-t", "0", name).ok()
            assert podman.inspect(name)["State"]["ExitCode"] == 137
    podman("rm", "-f", "-t", "0", name).ok()
    leaks.check()


def test_start_attached(podman: Podman) -> None:
    """start --attach: output and status of the program."""
    name = podman.name()
    podman("create", "--name", name, IMAGE, "sh", "-c", "echo attached; exit 8").ok()
    result = podman("start", "--attach", name)
    assert (result.code, result.out) == (8, b"attached\n")


def test_rm_of_a_running_container(podman: Podman, leaks: Watch) -> None:
    """rm refuses a running container, rm -f takes it away."""
    name = podman.detached(*FOREVER)
    assert podman("rm", name).code != 0
    podman("rm", "-f", "-t", "0", name).ok()
    leaks.check()


def test_rm_of_a_created_container(podman: Podman, leaks: Watch) -> None:
    """init: the container exists for the runtime but has not been started; rm takes it away."""
    name = podman.name()
    podman("create", "--name", name, IMAGE, *FOREVER).ok()
    podman("init", name).ok()
    assert podman.inspect(name)["State"]["Status"] == "initialized"
    podman("rm", "-f", name).ok()
    leaks.check()


def test_init_then_start(podman: Podman) -> None:
    """init and start as two commands are the runtime's create and start."""
    name = podman.name()
    podman("create", "--name", name, IMAGE, "sh", "-c", "echo started; sleep 1000").ok()
    podman("init", name).ok()
    assert podman("logs", name).ok().text == ""
    podman("start", name).ok()
    podman.wait_logs(name, "started")


def test_same_name(podman: Podman) -> None:
    """A second container of this name is refused, the first one goes on."""
    name = podman.detached(*FOREVER)
    assert podman("run", "-d", "--name", name, IMAGE, *FOREVER).code == 125
    assert podman.inspect(name)["State"]["Running"]


def test_killed_behind_podmans_back(podman: Podman, sandbox: Sandbox) -> None:
    """When init is killed from outside, podman learns of it, and rm works."""
    name = podman.detached(*FOREVER)
    pid = podman.inspect(name)["State"]["Pid"]
    sandbox.run(["kill", "-9", str(pid)]).ok()
    assert podman("wait", name).ok().text.strip() == "137"
    podman("rm", name).ok()


def test_runtime_state_lost(podman: Podman, sandbox: Sandbox, leaks: Watch) -> None:
    """When the runtime has forgotten a stopped container, rm of podman succeeds all the same."""
    name = podman.name()
    podman("create", "--name", name, IMAGE, *FOREVER).ok()
    podman("init", name).ok()
    full = podman.inspect(name)["Id"]
    sandbox.run([podman.runtime, "delete", "--force", full]).ok()
    podman("rm", "-f", "-t", "0", name).ok()
    leaks.check()
