"""Fixtures of the tests on fake trees."""

import posix
from collections.abc import Iterator
from pathlib import Path

import pytest

from ociruntime.cgroups import dbus, files
from ociruntime.cgroups.systemd_scope import Unit
from tests.cgroups.fake_bus import FakeBus
from tests.cgroups.fake_systemd import FILES, World


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> "list[float]":
    """Nothing waits here; the pauses asked for are listed."""
    pauses: list[float] = []
    monkeypatch.setattr(files, "sleep", pauses.append)
    monkeypatch.setattr("ociruntime.cgroups.v1.sleep", pauses.append)
    monkeypatch.setattr("ociruntime.cgroups.v2.sleep", pauses.append)
    return pauses


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    (tmp_path / "cgroup").mkdir()
    bus = FakeBus(tmp_path / "bus")
    for name, value in bus.environ.items():
        monkeypatch.setitem(posix.environ, name.encode(), value.encode())
    for name in ("GREETING", "CALL", "JOB"):
        monkeypatch.setattr(dbus, name, 60.0)
    monkeypatch.setattr(Unit, "_make_placeholder", lambda _: 4711)
    real_mkdir, real_rmdir = posix.mkdir, posix.rmdir

    def mkdir(path: str, mode: int = 0o777) -> None:
        real_mkdir(path, mode)
        for file in FILES:
            Path(path, file).write_text("")

    def rmdir(path: str) -> None:
        if path.endswith("/container"):
            for file in Path(path).iterdir():
                file.unlink()
        real_rmdir(path)

    monkeypatch.setattr("posix.mkdir", mkdir)
    monkeypatch.setattr("posix.rmdir", rmdir)
    yield World(tmp_path / "cgroup", bus)
    bus.close()
