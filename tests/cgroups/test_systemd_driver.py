"""The driver from create to delete, on a fake tree with a fake manager that makes and removes the scope's directory."""

import json
import os
from typing import Any

import pytest

from ociruntime.cgroups import manager, systemd
from ociruntime.cgroups.systemd import SystemdV2
from ociruntime.errors import ConfigError, OCIError, StateError, StepError, UnsupportedError
from ociruntime.host import Host
from tests.cgroups.fake_bus import JOB, SYSTEMD, RefusalError
from tests.cgroups.fake_systemd import World


def test_life(world: World) -> None:
    """choose asks only; create makes the scope and the directory in it; remove leaves nothing [D11, D16]."""
    cgroup = world.choose({"pids": {"limit": 7}, "cpu": {"shares": 2048, "quota": 33333}})
    assert isinstance(cgroup, SystemdV2)
    assert world.bus.methods() == []
    assert cgroup.paths == {"": str(world.scope / "container")}
    cgroup.check_free()
    assert cgroup.saved()["made"] == [str(world.scope / "container")]
    cgroup.create()
    sent = dict(world.bus.bodies("StartTransientUnit")[0][2])
    assert sent["PIDs"] == ("au", [4711])
    assert sent["TasksMax"] == ("t", 7)
    assert sent["CPUQuotaPerSecUSec"] == ("t", 340000)
    assert sent["DevicePolicy"] == ("s", "auto")
    cgroup.apply(cgroup._lowered[0] if cgroup._lowered else {})
    leaf = world.scope / "container"
    assert (leaf / "pids.max").read_text() == "7"
    assert (leaf / "cpu.max").read_text() == "33333 100000"
    # a weight counts among siblings: one level down there are none
    assert (world.scope / "cpu.weight").read_text() == (leaf / "cpu.weight").read_text() != ""
    cgroup.receive(os.getpid())
    again = manager.from_state(json.loads(json.dumps(cgroup.saved())))
    assert isinstance(again, SystemdV2)
    assert (again.paths, again.unit.saved()) == (cgroup.paths, cgroup.unit.saved())
    again.remove()
    assert not world.scope.exists()
    assert world.bus.methods()[-2:] == ["StopUnit", "ResetFailedUnit"]
    again.remove()


def test_the_commands_around_a_container_ask_nobody(world: World) -> None:
    """state, kill, exec of root, pause: files only."""
    cgroup = world.choose()
    cgroup.create()
    again = manager.from_state(cgroup.saved())
    before = len(world.bus.calls)
    assert again.pids() == []
    assert again.clone_directory() == str(world.scope / "container")
    again.receive(1)
    assert again.freezer_file().endswith("/container/cgroup.freeze")
    assert len(world.bus.calls) == before


def test_annotations_come_last(world: World) -> None:
    """[N1, D12]"""
    cgroup = world.choose(annotations={"org.systemd.property.TimeoutStopSec": "3", "a": "b"})
    cgroup.create()
    sent = world.bus.bodies("StartTransientUnit")[0][2]
    assert sent[-1] == ("TimeoutStopUSec", ("t", 3000000))


@pytest.mark.parametrize(
    "config", [{"cgroupsPath": "/a"}, {"annotations": {"org.systemd.property.TimeoutStopSec": "soon"}}]
)
def test_bad_configs_do_not_reach_systemd(world: World, config: "dict[str, Any]") -> None:
    with pytest.raises(ConfigError):
        world.choose(**config)
    assert world.bus.calls == []


def test_a_refused_start_leaves_nothing_and_stops_nobody(world: World) -> None:
    def refuse(_: Any) -> Any:
        raise RefusalError(f"{SYSTEMD}.UnitExists", "Unit ociruntime-web.scope already exists.")

    world.bus.answers["StartTransientUnit"] = refuse
    cgroup = world.choose()
    cgroup.check_free()
    # somebody else begins with the same unit at the same time
    leaf = world.scope / "container"
    leaf.mkdir(parents=True)
    (leaf / "cgroup.kill").write_text("")
    with pytest.raises(StepError, match="already exists"):
        cgroup.create()
    assert leaf.exists()
    cgroup.kill()
    cgroup.remove()
    assert (leaf / "cgroup.kill").read_text() == ""
    assert "StopUnit" not in world.bus.methods()


def test_a_failure_before_systemd_has_answered(world: World) -> None:
    """What has been asked for is waited for, and undone [D11]."""
    cgroup = world.choose()
    cgroup.check_free()
    cgroup.begin()
    cgroup.kill()
    cgroup.remove()
    assert world.bus.methods()[-2:] == ["StopUnit", "ResetFailedUnit"]
    assert not world.scope.exists()


def test_a_failure_before_systemd_has_refused(world: World) -> None:
    """Until the answer nobody knows whose place it is: somebody else's is left alone [D11]."""

    def refuse(_: Any) -> Any:
        leaf.mkdir(parents=True)
        (leaf / "cgroup.kill").write_text("")
        raise RefusalError("org.freedesktop.DBus.Error.AccessDenied", "No.")

    leaf = world.scope / "container"
    world.bus.answers["StartTransientUnit"] = refuse
    cgroup = world.choose()
    cgroup.check_free()
    cgroup.begin()
    cgroup.kill()
    cgroup.remove()
    assert (leaf / "cgroup.kill").read_text() == ""
    assert "StopUnit" not in world.bus.methods()
    assert "StartTransientUnit" in cgroup.warnings[0]


def test_a_bus_of_another_pid_namespace(world: World) -> None:
    """There our placeholder's process ID is somebody else's: nothing is started, and nobody stopped [D11]."""
    world.bus.answers["GetConnectionUnixProcessID"] = lambda _: ("u", (7,))
    with pytest.raises(StepError, match="another PID namespace"):
        world.choose().create()
    assert world.bus.methods() == []


def test_no_word_about_the_start(world: World) -> None:
    """The bus lost the answer: what systemd has made is stopped, if it is ours."""

    def lose(body: Any) -> Any:
        if not world.scope.exists():
            world.start(body)
        raise RefusalError("org.freedesktop.DBus.Error.NoReply", "Message recipient disconnected")

    world.bus.answers["StartTransientUnit"] = lose
    with pytest.raises(StepError):
        world.choose().create()
    assert not world.scope.exists()


def test_the_name_was_used_again(world: World) -> None:
    """delete, kill and the others leave a unit alone that has our name and is not ours [D16]."""
    cgroup = world.choose()
    cgroup.check_free()
    cgroup.create()
    saved = json.loads(json.dumps(cgroup.saved()))
    old = world.scope.rename(world.top / "old")
    body = world.bus.bodies("StartTransientUnit")[0]
    world.start(body)
    (world.scope / "container").mkdir()
    again = manager.from_state(saved)
    assert not again.exists()
    assert again.made == []
    again.kill()
    again.remove()
    assert (world.scope / "container").exists()
    assert "StopUnit" not in world.bus.methods()
    assert old.exists()


def test_the_name_is_used_again_during_delete(world: World) -> None:
    """Looked at once more when systemd is about to be asked [D16]."""
    cgroup = world.choose()
    cgroup.create()
    again: Any = manager.from_state(cgroup.saved())
    old = world.scope.rename(world.top / "old")
    world.start(world.bus.bodies("StartTransientUnit")[0])
    again.unit.stop()
    assert "StopUnit" not in world.bus.methods()
    assert world.scope.exists()
    assert old.exists()


def test_a_unit_that_has_ended_is_not_stopped(world: World) -> None:
    """There may be a failure to forget; a unit that begins right now is somebody else's [D16]."""
    cgroup = world.choose()
    cgroup.create()
    world.stop(None)
    manager.from_state(cgroup.saved()).remove()
    assert world.bus.methods()[-1] == "ResetFailedUnit"
    assert "StopUnit" not in world.bus.methods()


@pytest.mark.parametrize("ours", [True, False])
def test_what_a_killed_create_has_left(world: World, ours: bool) -> None:
    """Its state has the name only: nothing is killed, and the unit stopped if it is called as we call it [D11]."""
    cgroup = world.choose()
    cgroup.check_free()
    saved = cgroup.saved()
    cgroup.create()
    if not ours:
        world.description = "a database"
    again = manager.from_state(json.loads(json.dumps(saved)))
    kill = world.scope / "container" / "cgroup.kill"
    kill.write_text("")
    assert not again.exists()
    again.kill()
    assert kill.read_text() == ""
    kill.unlink()
    again.remove()
    assert ("StopUnit" in world.bus.methods()) == ours
    assert world.scope.exists() != ours


def test_a_start_that_fails_late_is_undone(world: World) -> None:
    """The job's end says no: what it may have made is stopped."""
    world.bus.result = "failed"
    cgroup = world.choose()
    with pytest.raises(StepError, match="ended with 'failed'"):
        cgroup.create()
    assert "StopUnit" in world.bus.methods()
    assert not world.scope.exists()


def test_a_directory_that_cannot_be_made(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def mkdir(path: str, mode: int = 0o777) -> None:
        raise PermissionError(13, "no", path)

    cgroup = world.choose()
    monkeypatch.setattr("posix.mkdir", mkdir)
    world.description = cgroup.unit.description
    world.bus.answers["StartTransientUnit"] = lambda _: (os.makedirs(world.scope), ("o", (JOB,)))[1]
    with pytest.raises(OCIError):
        cgroup.create()
    assert "StopUnit" in world.bus.methods()


def test_an_occupied_unit(world: World) -> None:
    """Processes anywhere in the scope: it is somebody else's [D11]."""
    cgroup = world.choose()
    world.scope.mkdir(parents=True)
    (world.scope / "cgroup.procs").write_text("77\n")
    with pytest.raises(StateError, match="is not empty") as caught:
        cgroup.check_free()
    assert "ociruntime-web.scope" in caught.value.hint


def test_delete_without_a_manager(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files go, and a warning says what could not be done."""
    cgroup = world.choose()
    cgroup.create()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
    again = manager.from_state(cgroup.saved())
    again.remove()
    assert not (world.scope / "container").exists()
    assert "ociruntime-web.scope" in again.warnings[0] and "ENOENT" in again.warnings[0]


def test_rootless_joins_through_systemd(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller outside of what is delegated to its user cannot move processes there itself [D16]."""
    world.host.rootless = True
    world.host.euid = 1000
    moved: list[int] = []
    cgroup = world.choose()
    assert cgroup.paths[""].startswith(str(world.top / "user.slice"))
    assert cgroup.unit.user
    cgroup.unit.keep(None)
    monkeypatch.setattr(SystemdV2, "_reachable", lambda _: False)

    def refuse(path: str, pid: int) -> None:
        moved.append(pid)
        raise PermissionError(13, "no", path)

    monkeypatch.setattr("ociruntime.cgroups.files.add_process", refuse)
    assert cgroup.clone_directory() == ""
    cgroup.receive(88)
    assert world.bus.bodies("AttachProcessesToUnit") == [("ociruntime-web.scope", "/container", [88])]
    assert moved == [88]


def test_rootless_needs_v2() -> None:
    host = Host(cgroup_mode="v1", cgroup_mounts={"memory": "/m"}, rootless=True, euid=1000)
    with pytest.raises(UnsupportedError, match="cgroup v2 for a rootless runtime"):
        manager.choose(host, {}, "web", driver="systemd")


def test_no_cgroups_at_all() -> None:
    with pytest.raises(UnsupportedError, match="mounted cgroup file system"):
        manager.choose(Host(), {}, "web", driver="systemd")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jeepney", None)
    with pytest.raises(UnsupportedError, match="jeepney"):
        systemd.connect("x.scope", user=False)
