"""The driver from create to delete, on a fake tree with a fake manager that makes and removes the scope's directory."""

import contextlib
import json
import os
import posix
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ociruntime.cgroups import dbus, manager, systemd, systemd_scope, systemd_unit
from ociruntime.cgroups.delegation import DELEGATE, SUBGROUP
from ociruntime.cgroups.systemd import SystemdV1, SystemdV2
from ociruntime.cgroups.systemd_scope import Unit
from ociruntime.cgroups.update import Update
from ociruntime.errors import ConfigError, OCIError, StateError, StepError, UnsupportedError
from ociruntime.host import Host
from tests.cgroups.fake_bus import JOB, SYSTEMD, FakeBus, RefusalError

ALLOW_ALL = [{"allow": True, "access": "rwm"}]
CONTROLLERS = ("cpu", "memory", "pids")
FILES = ("memory.max", "memory.current", "pids.max", "cpu.weight", "cpu.max", "cpu.max.burst", "cgroup.procs")


class World:
    """A host with cgroup v2 in a directory, and the manager for it. fails: which cgroup files cannot be written."""

    def __init__(self, top: Path, bus: FakeBus) -> None:
        self.top = top
        self.bus = bus
        self.host = Host(cgroup_mode="v2", unified=str(top), own_cgroups={"": "/me"}, controllers=CONTROLLERS)
        self.pid = 0
        self.settings: dict[str, Any] = {}
        self.description = ""
        (top / "cgroup.controllers").write_text(" ".join(CONTROLLERS))
        bus.answers.update(
            {
                "StartTransientUnit": self.start,
                "StopUnit": self.stop,
                "Get": self.get,
                "GetAll": lambda _: ("a{sv}", (self.settings,)),
                "SetUnitProperties": self.set,
            }
        )

    @property
    def scope(self) -> Path:
        return self.top / "system.slice" / "ociruntime-web.scope"

    def get(self, body: Any) -> Any:
        known = {"Version": "252.39-1~deb12u2", "Description": self.description}
        return "v", (("s", known.get(body[1], "")),)

    def start(self, body: Any) -> Any:
        properties = body[2]
        self.description = dict(properties)["Description"][1]
        self.pid = dict(properties)["PIDs"][1][0]
        self.scope.mkdir(parents=True)
        for file in FILES:
            (self.scope / file).write_text("")
        (self.scope / "cgroup.controllers").write_text(" ".join(CONTROLLERS))
        self.settings = {name: value for name, value in properties if name not in ("PIDs", "Slice", "Description")}
        return "o", (JOB,)

    def set(self, body: Any) -> Any:
        self.settings.update(dict(body[2]))
        return "", ()

    def stop(self, _: Any) -> Any:
        if not self.scope.exists():
            raise RefusalError(f"{SYSTEMD}.NoSuchUnit", "Unit not loaded.")
        for path in sorted(self.scope.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        self.scope.rmdir()
        return "o", (JOB,)

    def choose(self, resources: "dict[str, Any] | None" = None, **config: Any) -> Any:
        linux = {"cgroupsPath": config.pop("cgroupsPath", ""), "resources": {"devices": ALLOW_ALL, **(resources or {})}}
        return manager.choose(self.host, {"linux": linux, **config}, "web", driver="systemd")


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


def test_a_bus_of_another_pid_namespace(world: World) -> None:
    """There our placeholder's process ID is somebody else's: nothing is started, and nobody stopped [D11]."""
    world.bus.answers["GetConnectionUnixProcessID"] = lambda _: ("u", (7,))
    with pytest.raises(StepError, match="another PID namespace"):
        world.choose().create()
    assert world.bus.methods() == []


def test_no_word_about_the_start(world: World) -> None:
    """The bus lost the answer: what systemd has made is stopped, if it is ours."""

    def lose(body: Any) -> Any:
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


def test_room_for_the_placeholder(world: World) -> None:
    """A limit of one task would let nothing begin: it is set when the placeholder is gone [B13, D13]."""
    cgroup = world.choose({"pids": {"limit": 1}})
    cgroup.create()
    assert dict(world.bus.bodies("StartTransientUnit")[0][2])["TasksMax"] == ("t", 4)
    cgroup.receive(os.getpid())
    assert world.settings["TasksMax"] == ("t", 1)


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


# -- update


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


# -- rootless


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


# -- sub-cgroups


@pytest.mark.parametrize(
    ("annotations", "own", "home"),
    [
        ({SUBGROUP: "mine"}, "mine", "mine"),
        ({SUBGROUP: "a/b"}, "a/b", "a/b"),
        ({SUBGROUP: ""}, "", ""),
        ({DELEGATE: "payload"}, "container", "container/payload"),
        ({SUBGROUP: "mine", DELEGATE: "payload"}, "mine", "mine/payload"),
        ({SUBGROUP: "", DELEGATE: "payload"}, "", "payload"),
        ({DELEGATE: ""}, "container", "container"),
    ],
)
def test_sub_cgroups(world: World, annotations: "dict[str, str]", own: str, home: str) -> None:
    """The container's own cgroup has its limits, and one below it, if that is wanted, its processes [N6]."""
    cgroup = world.choose({"pids": {"limit": 7}}, annotations=annotations)
    assert cgroup.paths == {"": str(world.scope / own)}
    assert cgroup.home() == str(world.scope / home)
    cgroup.check_free()
    cgroup.create()
    assert (world.scope / home).is_dir()
    again = manager.from_state(json.loads(json.dumps(cgroup.saved())))
    assert (again.paths, again.home()) == (cgroup.paths, cgroup.home())


@pytest.mark.parametrize(
    ("annotations", "cgroups_path", "refusal"),
    [
        ({SUBGROUP: ".."}, "", ConfigError),
        ({SUBGROUP: "a/../b"}, "", ConfigError),
        ({SUBGROUP: "a"}, "::a-b.slice", UnsupportedError),
        ({DELEGATE: "../a"}, "", ConfigError),
    ],
)
def test_bad_sub_cgroups(
    world: World, annotations: "dict[str, str]", cgroups_path: str, refusal: "type[OCIError]"
) -> None:
    with pytest.raises(refusal) as caught:
        world.choose(annotations=annotations, cgroupsPath=cgroups_path)
    assert caught.value.pointer == f"/annotations/{next(iter(annotations))}"
    assert world.bus.methods() == []


@pytest.mark.parametrize(
    ("key", "name", "fine"), [(SUBGROUP, "a", False), (SUBGROUP, "", True), (DELEGATE, "a", False)]
)
def test_sub_cgroups_on_v1(world: World, tmp_path: Path, key: str, name: str, fine: bool) -> None:
    """v2 only [N6]."""
    world.host = v1(tmp_path)
    if fine:
        world.choose(annotations={key: name})
        return
    with pytest.raises(UnsupportedError, match="cgroup v2") as caught:
        world.choose(annotations={key: name})
    assert caught.value.pointer == f"/annotations/{key}"


# -- a slice, v1


def test_a_slice_of_its_own(world: World) -> None:
    """No process to begin with, and no level below [D11]."""
    cgroup = world.choose(cgroupsPath="::a-b.slice")
    assert cgroup.paths == {"": str(world.top / "a.slice" / "a-b.slice")}
    cgroup.check_free()
    assert cgroup.saved()["made"] == []


def v1(tmp_path: Path) -> Host:
    mounts = {name: str(tmp_path / name) for name in ("name=systemd", "memory", "freezer", "cpu")}
    for path in mounts.values():
        Path(path).mkdir()
    return Host(cgroup_mode="v1", cgroup_mounts=mounts, own_cgroups=dict.fromkeys(mounts, "/"))


def test_v1(world: World, tmp_path: Path) -> None:
    """One directory per hierarchy, and properties of v1 [D14]."""
    world.host = v1(tmp_path)
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
    world.host = v1(tmp_path)
    rules = [*ALLOW_ALL, {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "rwm"}]
    with pytest.raises(UnsupportedError, match="denied") as caught:
        world.choose({"devices": rules})
    assert caught.value.pointer == "/linux/resources/devices"


def test_v1_minor_numbers_of_any_device(world: World, tmp_path: Path) -> None:
    """systemd has no words for them: at its next reload it would allow all numbers [D15]."""
    world.host = v1(tmp_path)
    with pytest.raises(UnsupportedError, match="minor number") as caught:
        world.choose({"devices": [{"allow": True, "type": "c", "minor": 5, "access": "rw"}]})
    assert caught.value.pointer == "/linux/resources/devices"


def test_v1_update_of_the_quota_keeps_the_period(world: World, tmp_path: Path) -> None:
    world.host = v1(tmp_path)
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
    from ociruntime.cgroups import devices

    note: Callable[[str], Callable[..., Any]] = lambda word: lambda *_: events.append(word)  # noqa: E731
    monkeypatch.setattr(SystemdV1, "frozen", lambda _: frozen)
    monkeypatch.setattr(SystemdV1, "freeze", note("freeze"))
    monkeypatch.setattr(SystemdV1, "thaw", note("thaw"))
    monkeypatch.setattr(Unit, "change", note("change"))
    cgroup.announce([], None)
    cgroup.announce([], devices.wanted({}, ""))
    assert events == (["change", "change"] if frozen else ["change", "freeze", "change", "thaw"])


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jeepney", None)
    with pytest.raises(UnsupportedError, match="jeepney"):
        systemd.connect("x.scope", user=False)
