"""start: let the program run."""

from __future__ import annotations

import json
from collections.abc import Callable

from integration.lib.container import Container, wait_until
from integration.lib.runtime import Runtime


def test_start_runs_the_program(container: Container) -> None:
    """start lets init execute the program of the config; the PID stays [K2]."""
    container.bundle.args("report", "pause")
    container.create()
    container.start()
    container.wait_replies(2)
    state = container.state()
    assert (state["status"], state["pid"]) == ("running", container.pid)


def test_start_prints_nothing(container: Container) -> None:
    """A successful start says nothing on either stream [K2]."""
    container.create()
    result = container.start()
    assert (result.out, result.err) == (b"", b"")


def test_start_of_a_running_container(container: Container) -> None:
    """Only a created container can be started; the text callers know for a running one [K2]."""
    container.begin("pause")
    result = container.start(check=False)
    assert result.code != 0
    assert container.state()["status"] == "running"
    assert "cannot start an already running container" in result.error


def test_start_of_a_stopped_container(container: Container) -> None:
    """A stopped container is not started again; the text callers know [K2]."""
    container.begin("exit 0")
    container.wait()
    result = container.start(check=False)
    assert result.code != 0
    assert "cannot start a container that has stopped" in result.error


def test_start_of_a_missing_container(runtime: Runtime) -> None:
    """start of an unknown ID fails with "does not exist" [K2, A2]."""
    result = runtime("start", "nosuch")
    assert result.code != 0
    assert "does not exist" in result.error


def test_start_of_a_deleted_container(container: Container) -> None:
    """After delete the ID is unknown again [K2]."""
    container.create()
    container.start()
    container.wait()
    container.delete()
    assert "does not exist" in container.start(check=False).error


def test_start_does_not_wait_for_the_end(container: Container) -> None:
    """start returns while the program runs [K2]."""
    container.bundle.args("pause")
    container.create()
    container.start()
    assert container.state()["status"] == "running"


def test_startcontainer_hook_runs_before_the_program(container: Container) -> None:
    """startContainer hooks run at start, in the container, before its program [K2, H3]."""
    container.bundle.args("read /log")
    container.bundle.merge(
        {"hooks": {"startContainer": [{"path": "/probe", "args": ["probe", "hook", "/log", "startContainer"]}]}}
    )
    container.create()
    log = container.bundle.rootfs / "log"
    assert not log.exists()
    container.start()
    assert container.wait() == 0
    seen = json.loads(container.replies[0]["data"])
    assert seen["name"] == "startContainer"


def test_failing_startcontainer_hook_is_reported(container: Container) -> None:
    """When a startContainer hook fails, start fails and the program never runs [H3]."""
    container.bundle.args(["create", "/ran", "x"])
    container.bundle.merge({"hooks": {"startContainer": [{"path": "/probe", "args": ["probe", "exit", "3"]}]}})
    container.create()
    result = container.start(check=False)
    container.wait()
    assert not (container.bundle.rootfs / "ran").exists()
    assert result.code != 0


def test_program_that_vanishes_before_start(container: Container) -> None:
    """When the program cannot be executed at start, the container ends; ours says why [X21]."""
    container.bundle.args("report")
    copy = container.bundle.rootfs / "copy"
    copy.write_bytes(container.bundle.probe.read_bytes())
    copy.chmod(0o755)
    container.bundle.process(args=["/copy", "report"])
    container.create()
    copy.unlink()
    result = container.start(check=False)
    assert container.wait() != 0
    assert container.replies == []
    wait_until(lambda: container.runtime("state", container.id).json["status"] == "stopped")
    if container.runtime.ours:
        assert result.code != 0
        assert "no such file or directory" in result.error.lower()


def test_many_containers_at_once(new_container: Callable[..., Container]) -> None:
    """Containers of one root do not disturb each other [S5]."""
    containers = [new_container() for _ in range(5)]
    for number, one in enumerate(containers):
        one.bundle.args(f"exit {number}")
        one.create()
    for one in reversed(containers):
        one.start()
    assert [one.wait() for one in containers] == [0, 1, 2, 3, 4]
