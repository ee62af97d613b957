"""Limits of a running container: properties and files."""

from typing import Any

import pytest

from ociruntime.cgroups import manager
from ociruntime.cgroups.update import Update
from ociruntime.errors import StepError
from tests.cgroups.fake_systemd import ALLOW_ALL, CONTROLLERS, World


@pytest.fixture
def running(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    cgroup = world.choose({"pids": {"limit": 7}})
    cgroup.create()
    cgroup.apply(cgroup._lowered[0])
    monkeypatch.setattr("ociruntime.cgroups.v2.CgroupV2._apply_devices", lambda *_: None)
    again: Any = manager.from_state(cgroup.saved())
    leaf = world.scope / "container"
    (leaf / "cgroup.controllers").write_text(" ".join(CONTROLLERS))
    (leaf / "memory.max").write_text("max\n")
    (leaf / "memory.current").write_text("5000\n")
    world.settings["MemoryMax"] = ("t", (1 << 64) - 1)
    return again


def test_update(world: World, running: Any) -> None:
    """Properties and files [D13]."""
    Update(running, {"memory": {"limit": 8192}, "pids": {"limit": 9}}, [], world.host).apply()
    body = world.bus.bodies("SetUnitProperties")[0]
    assert body[:2] == ("ociruntime-web.scope", True)
    assert dict(body[2])["MemoryMax"] == ("t", 8192)
    assert dict(body[2])["TasksMax"] == ("t", 9)
    assert (world.scope / "container" / "memory.max").read_text() == "8192"


def test_update_of_devices(world: World, running: Any) -> None:
    """The empty list comes first [D15]."""
    Update(running, {"devices": [{"allow": False, "access": "rwm"}]}, ALLOW_ALL, world.host).apply()
    sent = world.bus.bodies("SetUnitProperties")[0][2]
    assert [name for name, _ in sent] == ["DevicePolicy", "DeviceAllow", "DeviceAllow"]
    assert sent[0][1] == ("s", "strict")
    assert sent[1][1][1] == []


def test_an_update_that_fails_is_taken_back(world: World, running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Properties too [K13]."""
    change = Update(running, {"memory": {"limit": 8192}, "pids": {"limit": 9}}, [], world.host)
    leaf = world.scope / "container"

    def perform(*_: object) -> None:
        (leaf / "memory.max").write_text("8192")
        raise StepError("no", step="cgroup")

    monkeypatch.setattr("ociruntime.cgroups.limits.perform", perform)
    with pytest.raises(StepError):
        change.apply()
    assert change.restore() == []
    assert world.settings["MemoryMax"] == ("t", (1 << 64) - 1)
    assert world.settings["TasksMax"] == ("t", 7)
    assert (leaf / "memory.max").read_text() == "max"


def test_what_has_no_property_is_taken_back_in_the_scope(
    world: World, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that count among siblings are written there, too [D13, K13]."""
    leaf = world.scope / "container"
    old = {"cpu.max.burst": "700\n", "cpu.weight.nice": "3\n", "io.latency": "8:0 target=5\n"}
    new = {"cpu.max.burst": "9", "cpu.weight.nice": "-2", "io.latency": "8:16 target=6"}
    for directory in (leaf, world.scope):
        for name, text in old.items():
            (directory / name).write_text(text)
    monkeypatch.setattr(world.host, "controllers", (*CONTROLLERS, "io"))
    change = Update(running, {"unified": new, "pids": {"limit": 9}}, [], world.host)
    change.apply()
    for directory in (leaf, world.scope):
        assert {name: (directory / name).read_text() for name in new} == new
    assert dict(world.bus.bodies("SetUnitProperties")[0][2])["IODeviceLatencyTargetUSec"][1] == [("/dev/block/8:16", 6)]
    assert change.restore() == []
    taken_back = {"cpu.max.burst": "700", "cpu.weight.nice": "3", "io.latency": "8:16 target=0"}
    for directory in (leaf, world.scope):
        assert {name: (directory / name).read_text() for name in new} == taken_back


def test_check_before_update_comes_before_the_property(world: World, running: Any) -> None:
    """[B6]"""
    change = Update(running, {"memory": {"limit": 4096, "checkBeforeUpdate": True}}, [], world.host)
    with pytest.raises(StepError, match="not above what is in use"):
        change.apply()
    change.restore()
    assert "SetUnitProperties" not in world.bus.methods()


def test_a_limit_without_a_property_asks_nobody(world: World, running: Any) -> None:
    before = len(world.bus.calls)
    Update(running, {"unified": {"memory.current": "1"}}, [], world.host).apply()
    assert len(world.bus.calls) == before
