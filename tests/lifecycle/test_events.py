"""What the files of a cgroup say about memory, and how the end of a container is told."""

import os
from pathlib import Path
from typing import Any

import pytest

from ociruntime.lifecycle import events
from ociruntime.state.model import State


class Quiet(events._Watch):
    """A watch without a process."""

    __slots__ = ()

    def __init__(self, directory: Path, mode: str = "v2", controller: str = "") -> None:
        cgroup = {"mode": mode, "paths": {controller: str(directory)}, "made": [], "rootless": False}
        state = State("c", bundle="/b", cgroup=cgroup)
        super().__init__(None, state)  # type: ignore[arg-type]


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "events._Watch":
    (tmp_path / "memory.events").write_text("low 0\nhigh 2\nmax 0\noom 0\noom_kill 0\n")
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 0\n")

    def gone(_state: State) -> int:
        raise ProcessLookupError

    class Poll:
        def register(self, *_arguments: object) -> None:
            pass

    monkeypatch.setattr("ociruntime.lifecycle.wait.open_pidfd", gone)
    monkeypatch.setattr(events, "poll", Poll)
    return Quiet(tmp_path)


def test_memory_events(watch: "events._Watch", tmp_path: Path) -> None:
    """Differences since the last look: OOM kills, and times above memory.high."""
    assert watch.memory() == (0, 0)
    (tmp_path / "memory.events").write_text("low 0\nhigh 7\nmax 3\noom 1\noom_kill 1\n")
    assert watch.memory() == (1, 5)
    assert watch.memory() == (0, 0)
    watch.close()
    watch.close()


def test_eventfd_of_v1(watch: "events._Watch", tmp_path: Path) -> None:
    """It wakes for an OOM, and for the end of the cgroup, which is none."""
    watch.close()
    (tmp_path / "memory.oom_control").write_text("oom_kill 0\n")
    (tmp_path / "cgroup.event_control").write_text("")
    own = Quiet(tmp_path, "v1", "memory")
    assert not own.blind
    assert (tmp_path / "cgroup.event_control").read_text() == f"{own.eventfd} {own.oom_control}"
    assert own.ooms() == 0
    os.eventfd_write(own.eventfd, 3)
    assert (own.ooms(), own.ooms()) == (1, 0)
    os.eventfd_write(own.eventfd, 1)
    (tmp_path / "memory.oom_control").unlink()
    assert own.ooms() == 0
    own.close()


def test_v1_without_an_eventfd(watch: "events._Watch", tmp_path: Path) -> None:
    """A kernel that takes none: the count is looked at."""
    watch.close()
    (tmp_path / "memory.oom_control").write_text("oom_kill 2\n")
    own = Quiet(tmp_path, "v1", "memory")
    assert own.blind
    assert own.ooms() == 0
    (tmp_path / "memory.oom_control").write_text("oom_kill 4\n")
    assert (own.ooms(), own.ooms()) == (1, 0)
    own.close()


def test_empty(watch: "events._Watch", tmp_path: Path) -> None:
    assert not watch.empty()
    (tmp_path / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    assert watch.empty()
    watch.close()


@pytest.mark.parametrize(
    ("code", "killed", "data"),
    [
        (0, False, {"status": 0, "reason": "exited"}),
        (3, True, {"status": 3, "reason": "exited"}),
        (137, False, {"status": 137, "signal": 9, "reason": "signal"}),
        (137, True, {"status": 137, "signal": 9, "reason": "oom"}),
        (143, True, {"status": 143, "signal": 15, "reason": "signal"}),
        (159, False, {"status": 159, "signal": 31, "reason": "seccomp"}),
        (None, True, {"reason": "unknown"}),
    ],
)
def test_reasons(
    watch: "events._Watch", code: "int | None", killed: bool, data: "dict[str, Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ociruntime.lifecycle.wait.ended", lambda _fd, _state: code)
    monkeypatch.setattr("ociruntime.lifecycle.wait.remember", lambda *_arguments: None)
    assert watch.exit(killed) == {"type": "exit", "id": "c", "data": data}
    watch.close()


def test_descriptors_are_closed(watch: "events._Watch") -> None:
    count = len(os.listdir("/proc/self/fd"))
    watch.close()
    assert len(os.listdir("/proc/self/fd")) == count - 2
