"""The stream of events: what wakes it, how long it waits, what it tells; with a clock and a poll of ours."""

import os
from collections.abc import Callable, Iterator
from errno import ENODEV
from pathlib import Path
from typing import Any

import pytest

from ociruntime.cgroups import v1, v2
from ociruntime.errors import StepError
from ociruntime.lifecycle import events
from ociruntime.state.model import State

MEMORY = "low 0\nhigh {}\nmax 0\noom 0\noom_kill {}\n"
Step = tuple[float, Callable[[], object]]


class World:
    """A cgroup in a directory, and what happens to it: each wait of the stream takes the next step.

    A step is how many seconds the wait lasts, and what happens meanwhile. waits: the milliseconds given to poll(2).
    """

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.now = 1000.0
        self.steps: list[Step] = []
        self.waits: list[int] = []
        self.watched: set[int] = set()
        self.alive = True
        self.pidfd = -1
        self.code: int | None = 0
        world = self

        class Poll:
            def register(self, fd: int, _mask: int) -> None:
                world.watched.add(fd)

            def unregister(self, fd: int) -> None:
                world.watched.remove(fd)

            def poll(self, milliseconds: int) -> "list[tuple[int, int]]":
                world.waits.append(milliseconds)
                for fd in world.watched:
                    os.fstat(fd)  # one that is closed would wake at once, for ever
                seconds, happens = world.steps.pop(0)
                world.now += seconds
                happens()
                return [] if world.alive or world.pidfd not in world.watched else [(world.pidfd, 1)]

        def open_pidfd(_state: State) -> int:
            if not self.alive:
                raise ProcessLookupError
            self.pidfd = os.open("/dev/null", os.O_RDONLY)
            return self.pidfd

        monkeypatch.setattr(events, "poll", Poll)
        monkeypatch.setattr(events, "monotonic", lambda: self.now)
        monkeypatch.setattr(events, "_collect", lambda _state: {})
        monkeypatch.setattr("ociruntime.lifecycle.wait.open_pidfd", open_pidfd)
        monkeypatch.setattr("ociruntime.lifecycle.wait.ended", lambda _fd, _state: self.code)
        monkeypatch.setattr("ociruntime.lifecycle.wait.remember", lambda *_arguments: None)

    def records(self, mode: str = "v2", controller: str = "", interval: float = 3600.0) -> "Iterator[dict[str, Any]]":
        paths = {controller: str(self.directory)} if mode != "none" else {}
        cgroup = {"mode": mode, "paths": paths, "made": [], "rootless": False}
        return events._records(None, State("c", bundle="/b", cgroup=cgroup), interval)  # type: ignore[arg-type]

    def write(self, name: str, text: str) -> "Callable[[], object]":
        return lambda: (self.directory / name).write_text(text)

    def ends(self, code: "int | None" = 0, *, empty: bool = True) -> "Callable[[], object]":
        def end() -> None:
            self.alive, self.code = False, code
            if empty:
                self.write("cgroup.events", "populated 0\n")()

        return end


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    (tmp_path / "memory.events").write_text(MEMORY.format(0, 0))
    (tmp_path / "cgroup.events").write_text("populated 1\n")
    return World(tmp_path, monkeypatch)


def nothing() -> None:
    pass


def high(count: int) -> "dict[str, Any]":
    return {"type": "memory.high", "id": "c", "data": {"count": count}}


def test_memory_high_once_a_second(world: World) -> None:
    """The first is told at once, what comes within a second of it together when that is over, the rest at the end."""
    world.steps = [
        (5.0, world.write("memory.events", MEMORY.format(4, 0))),
        (0.25, world.write("memory.events", MEMORY.format(6, 0))),
        (0.25, world.write("memory.events", MEMORY.format(7, 0))),
        (0.5, nothing),
        (0.25, world.write("memory.events", MEMORY.format(9, 0))),
        (0.25, world.ends()),
    ]
    records = list(world.records())
    assert records[:-1] == [high(4), high(3), high(2)]
    assert records[-1]["type"] == "exit"
    # so long until the next may be told, and no waiting for that when there is nothing to tell
    assert world.waits[1] > 3_000_000
    assert world.waits[2:4] == [751, 501]
    assert world.waits[4] > 3_000_000
    assert world.waits[5] == 751


@pytest.mark.parametrize("code", [137, 143])
def test_oom_and_the_end_at_once(world: World, code: int) -> None:
    """The kill is told before the end that it is the reason of."""

    def both() -> None:
        world.write("memory.events", MEMORY.format(0, 2))()
        world.ends(code)()

    world.steps = [(1.0, both)]
    first, second = world.records()
    assert first == {"type": "oom", "id": "c"}
    assert second["data"]["reason"] == ("oom" if code == 137 else "signal")


def test_what_was_before_is_not_told(world: World) -> None:
    """Counts from before the stream are others' news."""
    world.write("memory.events", MEMORY.format(8, 3))()
    world.steps = [(1.0, nothing), (1.0, world.ends(137))]
    assert [record["data"]["reason"] for record in world.records()] == ["signal"]


def test_stats_go_on_with_the_last_process(world: World) -> None:
    """Every interval, also after the end of the first process; not when the cgroup is empty."""
    world.steps = [
        (2.0, nothing),
        (1.0, nothing),
        (1.5, world.ends(3, empty=False)),
        (0.5, nothing),
        (2.0, world.write("cgroup.events", "populated 0\n")),
    ]
    records = list(world.records(interval=2.0))
    assert [record["type"] for record in records] == ["stats", "exit", "stats"]
    assert world.waits == [2001, 2001, 1001, 2001, 1501]


def test_without_a_cgroup(world: World) -> None:
    """The network is told of, and the end; the cgroup is always empty."""
    world.steps = [(2.0, nothing), (2.0, world.ends(1))]
    records = list(world.records("none", interval=2.0))
    assert [record["type"] for record in records] == ["stats", "exit"]


def test_moved_elsewhere(world: World) -> None:
    """An empty cgroup has nothing to count; the end of the first process is told all the same."""
    world.write("cgroup.events", "populated 0\n")()
    world.steps = [(2.0, nothing), (2.0, nothing), (1.0, world.ends(4))]
    assert [record["type"] for record in world.records(interval=2.0)] == ["exit"]


@pytest.mark.parametrize("last", ["gone", "empty"])
def test_v1_is_looked_at_after_the_end(world: World, monkeypatch: pytest.MonkeyPatch, last: str) -> None:
    """Nothing tells there when the last process goes: ten times a second; a cgroup that is gone is empty."""
    answers: list[list[int]] = [[5], [5], []]

    def pids(_self: object) -> "list[int]":
        found = answers.pop(0)
        if not found and last == "gone":
            raise StepError("cannot list the processes of the cgroup", errno=ENODEV)
        return found

    monkeypatch.setattr(v1.CgroupV1, "pids", pids)
    world.steps = [(1.0, world.ends(0)), (0.1, nothing)]
    (record,) = world.records("v1", "pids")
    assert record["data"] == {"status": 0, "reason": "exited"}
    assert world.waits[0] > 3_000_000
    assert world.waits[1] == 101
    assert answers == []


def test_v1_that_tells_of_no_kill(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel takes no eventfd its count is looked at once a second."""
    monkeypatch.setattr(v1.CgroupV1, "pids", lambda _self: [] if not world.alive else [5])
    world.write("memory.oom_control", "oom_kill 1\n")()
    world.steps = [
        (1.0, world.write("memory.oom_control", "oom_kill 2\n")),
        (1.0, nothing),
        (0.5, world.ends(137)),
    ]
    records = list(world.records("v1", "memory"))
    assert [record["type"] for record in records] == ["oom", "exit"]
    assert records[-1]["data"]["reason"] == "oom"
    assert world.waits == [1001, 1001, 1001]


def test_a_process_that_is_gone_already(world: World) -> None:
    """Nobody can tell how it ended: the stream ends with the last of the others."""
    world.alive = False
    world.steps = [(1.0, nothing), (1.0, world.write("cgroup.events", "populated 0\n"))]
    assert list(world.records()) == []
    assert world.waits[0] > 3_000_000


def test_a_cgroup_that_goes_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files cannot be read any more: it is empty, and no count has become smaller or greater."""
    real = os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        if not world.alive:
            raise OSError(ENODEV, "gone")
        return real(fd, size, offset)

    monkeypatch.setattr("posix.pread", pread)
    world.write("memory.events", MEMORY.format(3, 1))()
    world.steps = [(1.0, world.ends(0, empty=False))]
    assert [record["type"] for record in world.records()] == ["exit"]


@pytest.mark.parametrize("name", ["memory.events", "cgroup.events", "memory.oom_control"])
def test_files_that_are_missing_or_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path
) -> None:
    """A file that is not there is not watched; one that is refused is an error, and nothing stays open."""
    mode, controller = ("v1", "memory") if name == "memory.oom_control" else ("v2", "")
    (tmp_path / name).unlink(missing_ok=True)
    monkeypatch.setattr(v2.CgroupV2, "pids", lambda _self: [] if not world.alive else [5])
    monkeypatch.setattr(v1.CgroupV1, "pids", lambda _self: [] if not world.alive else [5])
    world.steps = [(1.0, world.ends(0, empty=name != "cgroup.events"))]
    before = len(os.listdir("/proc/self/fd"))
    assert [record["type"] for record in world.records(mode, controller)] == ["exit"]
    assert len(os.listdir("/proc/self/fd")) == before
    real = os.open

    def refuse(path: str, flags: int, **more: Any) -> int:
        if path.endswith(name):
            raise PermissionError(13, "no", path)
        return real(path, flags, **more)

    monkeypatch.setattr("posix.open", refuse)
    with pytest.raises(PermissionError):
        next(world.records(mode, controller))
    assert len(os.listdir("/proc/self/fd")) == before
