"""The process a scope begins with: its start, its move, its end."""

import contextlib
import os
import time
from pathlib import Path

import pytest

from ociruntime.cgroups import systemd_scope, systemd_unit
from ociruntime.cgroups.systemd_scope import Unit
from ociruntime.errors import OCIError
from tests.cgroups.fake_systemd import World


def test_the_placeholder_moves_itself(tmp_path: Path) -> None:
    """It is there from the beginning, and no refusal of the cgroup ends it; abandon() does [D12]."""
    procs = tmp_path / "cgroup.procs"
    procs.write_text("")
    names = systemd_unit.unit("", "web", "system.slice")
    for path in (str(procs), "/dev/full", str(tmp_path / "none"), ""):
        unit = Unit(names.name, user=False, release=252, directory="", top="", v2=True)
        unit.names = names
        unit.begin_placeholder(path)
        try:
            if path == str(procs):
                end = time.monotonic() + 10
                while procs.read_text() != "0" and time.monotonic() < end:
                    time.sleep(0.01)
                assert procs.read_text() == "0"
            time.sleep(0.1)
            assert os.waitpid(unit._pid, os.WNOHANG) == (0, 0)
            pid = unit._pid
        finally:
            unit.abandon()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_placeholder_has_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before systemd is asked: later it would leave the scope again. One that takes too long is ended [D12]."""
    procs, full = tmp_path / "cgroup.procs", tmp_path / "full"
    procs.write_text("")
    os.mkfifo(full)
    fd = os.open(full, os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, b"x" * 4096)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, b"x")
    names = systemd_unit.unit("", "web", "system.slice")
    for path in (procs, full):
        unit = Unit(names.name, user=False, release=252, directory="", top="", v2=True)
        unit.names = names
        unit.begin_placeholder(str(path))
        pid = unit._pid
        monkeypatch.setattr(systemd_scope, "_MOVE_MS", 60_000 if path == procs else 100)
        unit._moved()
        assert unit._pid == (pid if path == procs else 0)
        assert procs.read_text() == "0"
        unit.abandon()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    os.close(fd)


def test_a_bad_limit_leaves_no_placeholder(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """choose() fails after it has begun [D11]."""
    ended = []
    monkeypatch.setattr(Unit, "release_placeholder", lambda unit: ended.append(unit.name))
    with pytest.raises(OCIError):
        world.choose({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]})
    assert ended == ["ociruntime-web.scope"]


def test_room_for_the_placeholder(world: World) -> None:
    """A limit of one task would let nothing begin: it is set when the placeholder is gone [B13, D13]."""
    cgroup = world.choose({"pids": {"limit": 1}})
    cgroup.create()
    assert dict(world.bus.bodies("StartTransientUnit")[0][2])["TasksMax"] == ("t", 4)
    cgroup.receive(os.getpid())
    assert world.settings["TasksMax"] == ("t", 1)
