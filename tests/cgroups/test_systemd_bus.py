"""Calls on a manager that answers, refuses, dawdles or hangs up: each ends in time, and its error names what it was."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from ociruntime.cgroups import dbus
from ociruntime.cgroups.dbus import DBusError, Systemd
from ociruntime.cgroups.systemd_properties import Property
from ociruntime.errors import StepError, UnsupportedError
from tests.cgroups import fake_bus
from tests.cgroups.fake_bus import JOB, SYSTEMD, FakeBus, RefusalError

UNIT = "web.scope"
PROPERTIES = [Property("Description", "s", "x"), Property("TasksMax", "t", 5, "/linux/resources/pids/limit")]


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[FakeBus]:
    server = FakeBus(tmp_path / "bus")
    yield server
    server.close()


@pytest.fixture
def hurry(bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short deadlines for what never comes; whatever does come has the usual time, however busy the machine is."""
    patient, answer = dbus.CALL, Systemd._answer

    def hurried(self: Systemd, sent: Any) -> Any:
        silent = bus.answers.get(sent.method, sent.method) is None
        monkeypatch.setattr(dbus, "CALL", 0.1 if silent else patient)
        if silent:
            sent.deadline = monotonic() + 0.1
        return answer(self, sent)

    monkeypatch.setattr(Systemd, "_answer", hurried)


def connect(bus: FakeBus, *, user: bool = False) -> Systemd:
    return Systemd(UNIT, user=user, pointer="/linux/cgroupsPath", environ=bus.environ)


def test_facts(bus: FakeBus) -> None:
    with connect(bus) as systemd:
        assert systemd.facts() == ("252.39-1~deb12u2", "")


def test_authentication_is_by_uid(bus: FakeBus) -> None:
    connect(bus).close()
    assert bus.said == b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n"


@pytest.mark.parametrize(
    ("uid", "uid_map", "expected"),
    [
        (0, b"         0          0 4294967295\n", 0),
        (0, b"0 1000 1\n1 100000 65536\n", 1000),
        (5, b"0 1000 1\n1 100000 65536\n", 100004),
        (7, b"", 7),
    ],
)
def test_uid_outside_of_the_user_namespace(uid: int, uid_map: bytes, expected: int) -> None:
    """The daemon sees the socket's peer with the IDs of its own namespace [D11]."""
    assert dbus.outside_uid(uid, uid_map) == expected


@pytest.mark.parametrize(
    ("user", "environ", "expected"),
    [
        (False, {}, "unix:path=/run/dbus/system_bus_socket"),
        (False, {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/x"}, "unix:path=/x"),
        (True, {"XDG_RUNTIME_DIR": "/run/user/7"}, "unix:path=/run/user/7/bus"),
        (True, {"XDG_RUNTIME_DIR": "/r", "DBUS_SESSION_BUS_ADDRESS": "unix:abstract=y"}, "unix:abstract=y"),
    ],
)
def test_address(user: bool, environ: "dict[str, str]", expected: str) -> None:
    assert dbus.address(user, environ) == expected


def test_no_user_bus() -> None:
    with pytest.raises(UnsupportedError, match="XDG_RUNTIME_DIR") as caught:
        dbus.address(True, {})
    assert "cgroupfs" in caught.value.hint


def test_start_waits_for_its_job(bus: FakeBus) -> None:
    with connect(bus) as systemd:
        systemd.start(PROPERTIES)
    body = bus.bodies("StartTransientUnit")[0]
    assert body == (UNIT, "replace", [("Description", ("s", "x")), ("TasksMax", ("t", 5))], [])


def test_a_start_is_waited_for_later(bus: FakeBus) -> None:
    """There is work to do while systemd does its own."""
    waiting = threading.Event()

    def start(_: object) -> object:
        waiting.wait(10)
        return "o", (JOB,)

    bus.answers["StartTransientUnit"] = start
    with connect(bus) as systemd:
        systemd.facts()
        systemd.begin_start(PROPERTIES)
        waiting.set()
        systemd.end_start()
    assert bus.methods() == ["StartTransientUnit"]


@pytest.mark.parametrize("method", ["Get", "SetUnitProperties", "StopUnit", "ResetFailedUnit"])
def test_a_manager_that_executes_itself_anew(bus: FakeBus, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """What it was asked in that moment is lost, and asked again [D11]."""
    monkeypatch.setattr(dbus, "_PAUSE", 0)
    usual, lost = bus.answers.get(method, fake_bus.default(method)), [1, 2]
    assert usual

    def lose(body: Any) -> Any:
        if lost:
            lost.pop()
            raise RefusalError("org.freedesktop.DBus.Error.NoReply", "Message recipient disconnected")
        return usual(body)

    bus.answers[method] = lose
    with connect(bus) as systemd:
        assert systemd.facts() == ("252.39-1~deb12u2", "")
        systemd.set_properties(PROPERTIES)
        systemd.stop()
    assert len(bus.bodies(method)) == {"Get": 5}.get(method, 3)
    assert len({repr(body) for body in bus.bodies(method)}) == {"Get": 2}.get(method, 1)


@pytest.mark.parametrize("error", ["ServiceUnknown", "NameHasNoOwner", "Spawn.ChildExited"])
@pytest.mark.parametrize("lost", [True, False])
def test_a_manager_that_is_away_meanwhile(
    bus: FakeBus, monkeypatch: pytest.MonkeyPatch, error: str, lost: bool
) -> None:
    """Not every bus waits for it to be back. Where it has not been before, nobody waits for it [D11]."""
    monkeypatch.setattr(dbus, "_PAUSE", 0)
    errors = [error, error, *(["NoReply"] if lost else [])]

    def lose(_: Any) -> Any:
        if errors:
            raise RefusalError(f"org.freedesktop.DBus.Error.{errors.pop()}", "No.")
        return "o", (JOB,)

    bus.answers["StopUnit"] = lose
    with connect(bus) as systemd:
        if lost:
            systemd.stop()
        else:
            with pytest.raises(DBusError) as caught:
                systemd.stop()
            assert caught.value.name.endswith(error)
    assert len(bus.bodies("StopUnit")) == (4 if lost else 1)


def test_a_manager_that_does_not_come_back(bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start is asked for once more, and all else not for ever [D11]."""

    def lose(_: Any) -> Any:
        raise RefusalError("org.freedesktop.DBus.Error.NoReply", "Message recipient disconnected")

    monkeypatch.setattr(dbus, "_PAUSE", 0)
    bus.answers["StartTransientUnit"] = bus.answers["StopUnit"] = lose
    with connect(bus) as systemd:
        with pytest.raises(DBusError, match="recipient disconnected"):
            systemd.start(PROPERTIES)
        assert len(bus.bodies("StartTransientUnit")) == 2
        monkeypatch.setattr(dbus, "CALL", 0.1)
        with pytest.raises(StepError):
            systemd.stop()
    assert len(bus.bodies("StopUnit")) > 1


@pytest.mark.parametrize(
    ("made", "units", "begun"),
    [
        (False, [], True),
        (True, ["web", "web"], True),
        (True, ["mine", "web"], True),
        (True, ["", "web"], True),
        (True, ["mine"] * 3, False),
    ],
)
def test_a_start_that_was_lost(
    bus: FakeBus, monkeypatch: pytest.MonkeyPatch, made: bool, units: "list[str]", begun: bool
) -> None:
    """It is made now, or it was: with our process in it, which others of this name do not have [D11]."""
    answers = iter(["NoReply", "UnitExists" if made else ""])
    places = iter(units)

    def start(_: Any) -> Any:
        answer = next(answers)
        if answer:
            domain = "org.freedesktop.DBus.Error" if answer == "NoReply" else SYSTEMD
            raise RefusalError(f"{domain}.{answer}", "No.")
        return "o", (JOB,)

    def unit_of(_: Any) -> Any:
        place = next(places)
        if not place:
            raise RefusalError(f"{SYSTEMD}.NoUnitForPID", "No.")
        return "o", (f"/{place}",)

    bus.answers.update(StartTransientUnit=start, GetUnitByPID=unit_of, GetUnit=lambda _: ("o", ("/web",)))
    monkeypatch.setattr(dbus, "_PAUSE", 0)
    monkeypatch.setattr(dbus, "_TRIES", 3)
    properties = [*PROPERTIES, Property("PIDs", "au", [4711])]
    with connect(bus) as systemd:
        if begun:
            systemd.start(properties)
        else:
            with pytest.raises(DBusError) as caught:
                systemd.start(properties)
            assert caught.value.name == f"{SYSTEMD}.UnitExists"
    assert all(body == (4711,) for body in bus.bodies("GetUnitByPID"))


@pytest.mark.parametrize(("description", "ours"), [("box web", True), ("a stranger", False)])
def test_a_slice_whose_start_was_lost(bus: FakeBus, description: str, ours: bool) -> None:
    """It has no process to tell it by, but its description [D11]."""
    answers = iter([("org.freedesktop.DBus.Error", "NoReply"), (SYSTEMD, "UnitExists")])

    def start(_: Any) -> Any:
        raise RefusalError(".".join(next(answers)), "No.")

    def get(body: Any) -> Any:
        return "v", (("s", description if body[1] == "Description" else "252"),)

    bus.answers.update(StartTransientUnit=start, GetUnit=lambda _: ("o", ("/web",)), Get=get)
    with connect(bus) as systemd:
        properties = [Property("Description", "s", "box web")]
        if ours:
            systemd.start(properties)
        else:
            with pytest.raises(DBusError, match="UnitExists|another container"):
                systemd.start(properties)


@pytest.mark.parametrize("result", ["failed", "canceled", "timeout", "dependency"])
def test_a_job_that_ends_badly(bus: FakeBus, result: str) -> None:
    bus.result = result
    with connect(bus) as systemd, pytest.raises(StepError, match=f"'web.scope' ended with '{result}'") as caught:
        systemd.start(PROPERTIES)
    assert (caught.value.step, caught.value.call, caught.value.path) == (
        "systemd",
        "StartTransientUnit",
        "system bus",
    )


def test_a_unit_that_had_failed_is_reset_once(bus: FakeBus) -> None:
    """UnitExists: ResetFailedUnit, and a second try [D11]."""
    tries: list[int] = []

    def start(_: object) -> object:
        tries.append(1)
        if len(tries) == 1:
            raise RefusalError(f"{SYSTEMD}.UnitExists", "Unit web.scope already exists.")
        return "o", ("/org/freedesktop/systemd1/job/7",)

    bus.answers["StartTransientUnit"] = start
    with connect(bus) as systemd:
        systemd.start(PROPERTIES)
    assert bus.methods() == ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]


def test_a_unit_that_lives_is_not_touched(bus: FakeBus) -> None:
    def start(_: object) -> object:
        raise RefusalError(f"{SYSTEMD}.UnitExists", "Unit web.scope already exists.")

    bus.answers["StartTransientUnit"] = start
    with connect(bus) as systemd, pytest.raises(DBusError, match="already exists") as caught:
        systemd.start(PROPERTIES)
    assert caught.value.pointer == "/linux/cgroupsPath"
    assert "StopUnit" not in bus.methods()


def test_a_refused_property_is_named_by_its_field(bus: FakeBus) -> None:
    def start(_: object) -> object:
        raise RefusalError("org.freedesktop.DBus.Error.InvalidArgs", "Value specified in TasksMax is out of range.")

    bus.answers["StartTransientUnit"] = start
    with connect(bus) as systemd, pytest.raises(DBusError, match="TasksMax") as caught:
        systemd.start(PROPERTIES)
    assert caught.value.pointer == "/linux/resources/pids/limit"


@pytest.mark.parametrize(
    ("names", "pointer"),
    [
        (["CollectMode"], "/annotations/org.systemd.property.CollectMode"),
        (["CollectMode", "Foo"], "/annotations"),
        ([], "/linux/cgroupsPath"),
    ],
)
def test_a_type_that_systemd_does_not_expect(bus: FakeBus, names: "list[str]", pointer: str) -> None:
    """It does not say which property: only annotations have types of their own [N1]."""

    def start(_: object) -> object:
        raise RefusalError("System.Error.ENXIO", "Unexpected message contents")

    bus.answers["StartTransientUnit"] = start
    given = [Property(name, "i", 5, f"/annotations/org.systemd.property.{name}") for name in names]
    with connect(bus) as systemd, pytest.raises(DBusError) as caught:
        systemd.start(PROPERTIES + given)
    assert caught.value.pointer == pointer


@pytest.mark.parametrize("gone", ["StopUnit", "ResetFailedUnit"])
def test_stopping_a_unit_that_is_gone(bus: FakeBus, gone: str) -> None:
    def refuse(_: object) -> object:
        raise RefusalError(f"{SYSTEMD}.NoSuchUnit", "Unit web.scope not loaded.")

    bus.answers[gone] = refuse
    with connect(bus) as systemd:
        systemd.stop()
    assert bus.methods() == ["StopUnit", "ResetFailedUnit"]


def test_properties_and_attach(bus: FakeBus) -> None:
    bus.answers["GetAll"] = lambda _: ("a{sv}", ({"TasksMax": ("t", 9)},))
    with connect(bus) as systemd:
        assert systemd.properties() == {"TasksMax": ("t", 9)}
        systemd.set_properties(PROPERTIES)
        systemd.attach("/container", [4, 5])
    assert bus.bodies("GetAll") == [(f"{SYSTEMD}.Scope",)]
    assert bus.bodies("SetUnitProperties")[0][:2] == (UNIT, True)
    assert bus.bodies("AttachProcessesToUnit") == [(UNIT, "/container", [4, 5])]


def test_a_value_of_a_wrong_type_is_no_crash(bus: FakeBus) -> None:
    with connect(bus) as systemd, pytest.raises(StepError, match="cannot be made"):
        systemd.start([Property("TasksMax", "t", "five")])


# -- deadlines


def test_no_greeting(bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    bus.greeting = None
    monkeypatch.setattr(dbus, "GREETING", 0.1)
    with pytest.raises(StepError, match="no greeting within 0.1 s") as caught:
        connect(bus)
    assert caught.value.call == "authenticate"
    assert "ETIMEDOUT" in str(caught.value)


def test_refused_user(bus: FakeBus) -> None:
    bus.greeting = b"REJECTED EXTERNAL\r\n"
    with pytest.raises(StepError, match="is refused: 'REJECTED EXTERNAL'"):
        connect(bus)


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    "method", ["Hello", "AddMatch", "Get", "StartTransientUnit", "SetUnitProperties", "StopUnit", "ResetFailedUnit"]
)
def test_a_silent_method(bus: FakeBus, method: str) -> None:
    """Every call has a deadline, and the error names bus, unit and method [D11]."""
    bus.answers[method] = None
    with pytest.raises(StepError, match="no answer about unit 'web.scope' within 0.1 s") as caught:
        everything(bus)
    assert (caught.value.call, caught.value.path) == (method, "system bus")
    assert "cgroupfs driver" in caught.value.hint


def test_a_job_without_end(bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    bus.result = None
    monkeypatch.setattr(dbus, "JOB", 0.1)
    with connect(bus) as systemd, pytest.raises(StepError, match="the job for unit 'web.scope' did not end within 0.1"):
        systemd.start(PROPERTIES)


@pytest.mark.parametrize("method", ["Hello", "Get", "StartTransientUnit", "StopUnit"])
def test_a_connection_that_breaks(bus: FakeBus, method: str) -> None:
    bus.hang_up = method
    with pytest.raises(StepError, match="the connection was closed") as caught:
        everything(bus)
    assert caught.value.call == method


def everything(bus: FakeBus) -> None:
    with connect(bus) as systemd:
        systemd.facts()
        systemd.start(PROPERTIES)
        systemd.set_properties(PROPERTIES)
        systemd.stop()


@pytest.mark.parametrize("user", [False, True])
def test_no_daemon(tmp_path: Path, user: bool) -> None:
    environ = dict.fromkeys(("DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS"), f"unix:path={tmp_path}/none")
    with pytest.raises(StepError, match=r"none.*(ENOENT)") as caught:
        Systemd(UNIT, user=user, environ=environ)
    assert caught.value.path == ("user bus" if user else "system bus")
    assert UNIT in caught.value.reason


@pytest.mark.parametrize("address", ["tcp:host=x,port=1", "nonsense", "unix:"])
def test_addresses_that_lead_nowhere(address: str) -> None:
    with pytest.raises(StepError, match="no usable D-Bus address"):
        Systemd(UNIT, user=False, environ={"DBUS_SYSTEM_BUS_ADDRESS": address})
