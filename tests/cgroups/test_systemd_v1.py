"""The driver on cgroup v1: one directory per hierarchy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ociruntime.cgroups import devices
from ociruntime.cgroups.systemd import SystemdV1
from ociruntime.cgroups.systemd_scope import Unit
from ociruntime.errors import UnsupportedError
from tests.cgroups.fake_bus import JOB
from tests.cgroups.fake_systemd import ALLOW_ALL, World, v1_host


def test_v1(world: World, tmp_path: Path) -> None:
    """One directory per hierarchy, and properties of v1 [D14]."""
    world.host = v1_host(tmp_path)
    started: list[Any] = []
    world.bus.answers["StartTransientUnit"] = lambda body: (started.append(body), ("o", (JOB,)))[1]
    cgroup = world.choose({"memory": {"limit": 4096}})
    assert isinstance(cgroup, SystemdV1)
    assert cgroup.paths["memory"] == str(tmp_path / "memory/system.slice/ociruntime-web.scope")
    cgroup.check_free()
    cgroup.create()
    assert dict(started[0][2])["MemoryLimit"] == ("t", 4096)
    assert Path(cgroup.paths["memory"]).is_dir()


def test_v1_denied_devices(world: World, tmp_path: Path) -> None:
    """systemd would allow everything again at its next reload [D15]."""
    world.host = v1_host(tmp_path)
    rules = [*ALLOW_ALL, {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "rwm"}]
    with pytest.raises(UnsupportedError, match="denied") as caught:
        world.choose({"devices": rules})
    assert caught.value.pointer == "/linux/resources/devices"


def test_v1_minor_numbers_of_any_device(world: World, tmp_path: Path) -> None:
    """systemd has no words for them: at its next reload it would allow all numbers [D15]."""
    world.host = v1_host(tmp_path)
    with pytest.raises(UnsupportedError, match="minor number") as caught:
        world.choose({"devices": [{"allow": True, "type": "c", "minor": 5, "access": "rw"}]})
    assert caught.value.pointer == "/linux/resources/devices"


def test_v1_update_of_the_quota_keeps_the_period(world: World, tmp_path: Path) -> None:
    world.host = v1_host(tmp_path)
    directory = tmp_path / "cpu" / "x"
    directory.mkdir()
    (directory / "cpu.cfs_quota_us").write_text("20000\n")
    (directory / "cpu.cfs_period_us").write_text("50000\n")
    unit = Unit("x.scope", user=False, release=252, directory=str(directory), top="", v2=False)
    cgroup = SystemdV1("v1", {"cpu": str(directory)}, unit)
    files = {write.file: write.value for write in cgroup.lower({"cpu": {"quota": 30000}}, "")}
    assert files == {"cpu.cfs_quota_us": "30000", "cpu.cfs_period_us": "50000"}


@pytest.mark.parametrize("frozen", [False, True])
def test_v1_freezes_around_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool) -> None:
    """systemd denies everything for a moment [D4]."""
    events: list[str] = []
    unit = Unit("x.scope", user=False, release=252, directory=str(tmp_path), top="", v2=False)
    cgroup = SystemdV1("v1", {"freezer": str(tmp_path)}, unit)
    note: Callable[[str], Callable[..., Any]] = lambda word: lambda *_: events.append(word)  # noqa: E731
    monkeypatch.setattr(SystemdV1, "frozen", lambda _: frozen)
    monkeypatch.setattr(SystemdV1, "freeze", note("freeze"))
    monkeypatch.setattr(SystemdV1, "thaw", note("thaw"))
    monkeypatch.setattr(Unit, "change", note("change"))
    cgroup.announce([], None)
    cgroup.announce([], devices.wanted({}, ""))
    assert events == (["change", "change"] if frozen else ["change", "freeze", "change", "thaw"])
