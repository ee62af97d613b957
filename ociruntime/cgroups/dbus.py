"""Talking with systemd's manager over D-Bus. Every wait has an end: connecting, the greeting, each call, each job.

The messages are jeepney's; the socket is ours, because nothing may block without a deadline. Of that package only the
module for messages is imported, and ``systemd_scope.connect`` has to do that first: all the rest takes longer to load.

Source: D-Bus specification ("Authentication Protocol", "Server Addresses"); org.freedesktop.systemd1(5).
"""

import _socket
import errno
import posix
import struct
from sys import modules
from time import monotonic, sleep

from jeepney.low_level import Endianness, Header, HeaderFields, Message, MessageType, Parser

from ociruntime import files
from ociruntime.errors import StepError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Self

    from ociruntime.cgroups.systemd_properties import Property

# Seconds. Starting a scope takes milliseconds; a manager that reloads its units answers late.
GREETING = 5.0
CALL = 15.0
JOB = 30.0

_SYSTEM = "unix:path=/run/dbus/system_bus_socket"
_SYSTEMD = "org.freedesktop.systemd1"
_DBUS = "org.freedesktop.DBus"
_NO_REPLY = f"{_DBUS}.Error.NoReply"
# What a bus that does not wait for it says meanwhile: of these calls systemd has seen nothing.
_AWAY = (f"{_DBUS}.Error.ServiceUnknown", f"{_DBUS}.Error.NameHasNoOwner", f"{_DBUS}.Error.Spawn.ChildExited")
_UNIT_EXISTS = f"{_SYSTEMD}.UnitExists"
_NO_UNIT = f"{_SYSTEMD}.NoSuchUnit"
# Seconds between questions to a systemd that is about to be back, and how often a unit is looked for.
_PAUSE = 0.05
_TRIES = 100
_MATCH = f"type='signal',sender='{_SYSTEMD}',interface='{_SYSTEMD}.Manager',member='JobRemoved'"
_MAX_LINE = 4096
# What jeepney raises for a value that is not of its type, and for bytes that are no message.
_UNFIT = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, struct.error)


class _Interface:
    """An object's interface. owner: its name on the bus."""

    __slots__ = ("name", "owner", "path")

    def __init__(self, owner: str, path: str, name: str) -> None:
        self.owner = owner
        self.path = path
        self.name = name


_DRIVER = _Interface(_DBUS, "/org/freedesktop/DBus", _DBUS)
_MANAGER = _Interface(_SYSTEMD, "/org/freedesktop/systemd1", f"{_SYSTEMD}.Manager")
_PROPERTIES = f"{_DBUS}.Properties"
_MANAGER_PROPERTIES = _Interface(_SYSTEMD, _MANAGER.path, _PROPERTIES)


class _Sent:
    """A call whose answer is awaited. deadline: of the answer, by the monotonic clock. what: to send it again."""

    __slots__ = ("deadline", "method", "serial", "what")

    def __init__(self, serial: int, method: str, what: "tuple[_Interface, str, str, Sequence[Any]]") -> None:
        self.serial = serial
        self.method = method
        self.what = what
        self.deadline = monotonic() + CALL


class DBusError(StepError):
    """systemd, or the bus, has answered with an error. name: of the D-Bus error."""

    def __init__(self, reason: str, *, name: str, call: str, path: str, pointer: str, hint: str = "") -> None:
        super().__init__(reason, step="systemd", call=call, path=path, pointer=pointer, hint=hint)
        self.name = name


def address(user: bool, environ: "Mapping[str, str]") -> str:
    """The address of the user's bus or of the system's, as D-Bus writes it. Raises UnsupportedError if there is none.

    environ: DBUS_SYSTEM_BUS_ADDRESS; DBUS_SESSION_BUS_ADDRESS, else the socket "bus" in XDG_RUNTIME_DIR.
    """
    if not user:
        return environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _SYSTEM
    given = environ.get("DBUS_SESSION_BUS_ADDRESS")
    if given:
        return given
    directory = environ.get("XDG_RUNTIME_DIR")
    if not directory:
        raise UnsupportedError(
            "the systemd cgroup driver of a rootless runtime",
            "the user's D-Bus: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set",
            hint="log in through a session that systemd manages (ssh, machinectl), or use the cgroupfs driver",
        )
    return f"unix:path={directory}/bus"


def _environ() -> "Mapping[str, str]":
    """The caller's environment: of a program that has the os module, with what it has changed there."""
    if "os" in modules:
        environ: Mapping[str, str] = modules["os"].environ
        return environ
    return {
        name.decode("utf-8", "surrogateescape"): value.decode("utf-8", "surrogateescape")
        for name, value in posix.environ.items()
    }


def _places(address: str) -> "list[str]":
    """Where the sockets of an address are. Raises RuntimeError, ValueError."""
    path = address.removeprefix("unix:path=")
    if path != address and not {",", ";", "%"}.intersection(path):
        return [path]  # as nearly every address is
    from jeepney.bus import get_connectable_addresses

    return list(get_connectable_addresses(address))


def outside_uid(uid: int, uid_map: bytes) -> int:
    """The caller's user ID as it is outside of its user namespace. uid_map: of /proc/self/uid_map."""
    for line in uid_map.splitlines():
        inside, outside, count = (int(word) for word in line.split())
        if inside <= uid < inside + count:
            return outside + uid - inside
    return uid


class Systemd:
    """One connection to a systemd manager.

    user: the user's manager instead of the system's. unit, pointer: what the errors name.
    Raises StepError or UnsupportedError; each names bus, unit and method.

    A round trip takes two processes besides this one, so what can be sent together is: a call waits in ``_unsent``
    until somebody needs an answer.
    """

    def __init__(self, unit: str, *, user: bool, pointer: str = "", environ: "Mapping[str, str] | None" = None) -> None:
        self._bus = "user bus" if user else "system bus"
        self._unit = unit
        self._pointer = pointer
        self._parser = Parser()
        self._serial = 0
        self._signals: list[Message] = []
        self._replies: dict[int, Message] = {}
        self._unsent = b""
        self._name = ""
        self._lost = False
        self._own_pid: _Sent | None = None
        self._starting: tuple[_Sent, tuple[object, ...], Sequence[Property]] | None = None
        self._address = address(user, _environ() if environ is None else environ)
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            self._connect()
            self._greeting = [self._post(_DRIVER, "Hello"), self._post(_DRIVER, "AddMatch", "s", (_MATCH,))]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection up."""
        self._socket.close()

    def __del__(self) -> None:
        """The end of a connection that was kept for a start that never came."""
        if hasattr(self, "_socket"):
            self.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the manager's methods

    def facts(self) -> "tuple[str, str]":
        """The manager's version, and the cgroup below which it keeps its units ("" is the top)."""
        names = ("Version", "ControlGroup")
        asked = [self._post(_MANAGER_PROPERTIES, "Get", "ss", (_MANAGER.name, name)) for name in names]
        self._greeted()
        self._own_pid = self._post(_DRIVER, "GetConnectionUnixProcessID", "s", (self._name,))
        version, root = [self._answer(sent)[0][1] for sent in asked]
        return str(version), str(root).rstrip("/")

    def check_pid(self) -> None:
        """Refuse a bus of another PID namespace: a process ID that we send would mean some other process there."""
        self._greeted()
        sent = self._own_pid or self._post(_DRIVER, "GetConnectionUnixProcessID", "s", (self._name,))
        self._own_pid = None
        sent.deadline = monotonic() + CALL  # nobody has waited until now
        pid = self._answer(sent)[0]
        if pid != posix.getpid():
            raise self._failure(
                "GetConnectionUnixProcessID",
                f"systemd is in another PID namespace: it knows process {posix.getpid()} as {pid}",
            )

    def start(self, properties: "Sequence[Property]") -> None:
        """StartTransientUnit, and wait until that is done: begin_start(), end_start()."""
        self.begin_start(properties)
        self.end_start()

    def begin_start(self, properties: "Sequence[Property]") -> None:
        """Send StartTransientUnit."""
        body: tuple[object, ...] = (
            self._unit,
            "replace",
            [(item.name, (item.signature, item.value)) for item in properties],
            [],
        )
        sent = self._post(_MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", body)
        self._starting = sent, body, properties
        self._flush(sent)

    def end_start(self) -> None:
        """Wait until what begin_start() has asked for is done. A unit of this name that has failed before is reset.

        What systemd was asked when it executed itself anew it has done or not: asked again, it says that it has.
        Raises DBusError with the name org.freedesktop.systemd1.UnitExists for one that lives.
        """
        assert self._starting is not None
        sent, body, properties = self._starting
        lost = False
        try:
            job = self._answer(sent)[0]
        except DBusError as error:
            lost = error.name == _NO_REPLY
            if not lost and error.name != _UNIT_EXISTS:
                self._blame(error, properties)
                raise
            if lost:
                self._version()  # once this is answered it is back
            else:
                self.reset_failed()
            try:
                job = self._call(_MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", body)[0]
            except DBusError as second:
                if lost and second.name == _UNIT_EXISTS and self._has_begun(properties):
                    return
                raise
        self._wait(job, "StartTransientUnit")

    def _has_begun(self, properties: "Sequence[Property]") -> bool:
        """Whether the process that the unit is to begin with is in it, or comes into it soon; a slice has none."""
        pids = [pid for item in properties if item.name == "PIDs" for pid in item.value]
        if not pids:
            return [item.value for item in properties if item.name == "Description"] == [self.description()]
        for _ in range(_TRIES):
            try:
                unit = self._call(_MANAGER, "GetUnit", "s", (self._unit,))
                if all(self._call(_MANAGER, "GetUnitByPID", "u", (pid,)) == unit for pid in pids):
                    return True
            except DBusError as error:
                if error.name not in (_NO_UNIT, f"{_SYSTEMD}.NoUnitForPID"):
                    raise
            sleep(_PAUSE)
        return False

    def set_properties(self, properties: "Sequence[Property]") -> None:
        """SetUnitProperties until the next boot, and wait until systemd has written them to the cgroup."""
        if not properties:
            return
        body = (self._unit, True, [(item.name, (item.signature, item.value)) for item in properties])
        try:
            self._call(_MANAGER, "SetUnitProperties", "sba(sv)", body)
        except DBusError as error:
            self._blame(error, properties)
            raise
        # The files are written after the answer, and before the next message is looked at.
        self._version()

    def _version(self) -> None:
        self._call(_MANAGER_PROPERTIES, "Get", "ss", (_MANAGER.name, "Version"))

    def properties(self) -> "dict[str, tuple[str, Any]]":
        """All properties of the unit's own type: name -> (signature, value)."""
        path = self._call(_MANAGER, "GetUnit", "s", (self._unit,))[0]
        kind = self._unit.rpartition(".")[2].capitalize()
        unit = _Interface(_SYSTEMD, path, _PROPERTIES)
        return dict(self._call(unit, "GetAll", "s", (f"{_SYSTEMD}.{kind}",))[0])

    def description(self) -> str:
        """What the unit is called; "" if there is no such unit."""
        try:
            path = self._call(_MANAGER, "GetUnit", "s", (self._unit,))[0]
            unit = _Interface(_SYSTEMD, path, _PROPERTIES)
            return str(self._call(unit, "Get", "ss", (f"{_SYSTEMD}.Unit", "Description"))[0][1])
        except DBusError as error:
            if error.name not in (_NO_UNIT, "org.freedesktop.DBus.Error.UnknownObject"):
                raise
            return ""

    def attach(self, subgroup: str, pids: "Sequence[int]") -> None:
        """AttachProcessesToUnit: systemd moves processes into the unit's cgroup, or one below it ("/name")."""
        self._call(_MANAGER, "AttachProcessesToUnit", "ssau", (self._unit, subgroup, list(pids)))

    def stop(self) -> None:
        """StopUnit, wait for the end, and forget a failure. A unit that is gone is fine."""
        try:
            job = self._call(_MANAGER, "StopUnit", "ss", (self._unit, "replace"))[0]
        except DBusError as error:
            if error.name != _NO_UNIT:
                raise
        else:
            self._wait(job, "StopUnit")
        self.reset_failed()

    def reset_failed(self) -> None:
        """ResetFailedUnit. A unit that is gone is fine."""
        try:
            self._call(_MANAGER, "ResetFailedUnit", "s", (self._unit,))
        except DBusError as error:
            if error.name != _NO_UNIT:
                raise

    # -- messages

    def _wait(self, job: str, method: str) -> None:
        """Wait for the signal that a job has ended, and look how."""
        deadline = monotonic() + JOB
        while True:
            while self._signals:
                header = self._signals.pop(0)
                fields = header.header.fields
                if fields.get(HeaderFields.member) == "JobRemoved" and header.body[1] == job:
                    result = header.body[3]
                    if result not in ("done", "skipped"):
                        raise self._failure(method, f"the job for unit '{self._unit}' ended with '{result}'")
                    return
            message = self._receive(deadline, method, f"the job for unit '{self._unit}' did not end within {JOB:g} s")
            if message.header.message_type is MessageType.signal:
                self._signals.append(message)

    def _call(self, target: _Interface, method: str, signature: str = "", body: "Sequence[Any]" = ()) -> "Any":
        """Send a call and wait for its answer."""
        sent = self._post(target, method, signature, body)
        self._greeted()
        return self._answer(sent)

    def _post(self, target: _Interface, method: str, signature: str = "", body: "Sequence[Any]" = ()) -> _Sent:
        """Make a call that goes with the next one whose answer is needed."""
        self._serial += 1
        fields = {
            HeaderFields.path: target.path,
            HeaderFields.destination: target.owner,
            HeaderFields.interface: target.name,
            HeaderFields.member: method,
        }
        if signature:
            fields[HeaderFields.signature] = signature
        header = Header(Endianness.little, MessageType.method_call, 0, 1, -1, -1, fields)
        try:
            self._unsent += Message(header, tuple(body)).serialise(serial=self._serial)
        except _UNFIT as error:
            raise self._failure(method, f"the message cannot be made: {error}") from None
        return _Sent(self._serial, method, (target, method, signature, body))

    def _flush(self, sent: _Sent) -> None:
        data, self._unsent = self._unsent, b""
        if data:
            self._send(data, sent.deadline, sent.method)

    def _greeted(self) -> None:
        """Wait for the end of what a connection begins with."""
        greeting, self._greeting = self._greeting, []
        for sent in greeting:
            body = self._answer(sent)
            if sent.method == "Hello":
                self._name = str(body[0])

    def _answer(self, sent: _Sent) -> "Any":
        """The answer to a call.

        systemd drops its connection, and what it has been asked, when it executes itself anew (daemon-reexec, as each
        of its updates does): until it is back it is asked again, unless the same twice is not the same as once.
        """
        while True:
            try:
                return self._once(sent)
            except DBusError as error:
                self._lost = self._lost or error.name == _NO_REPLY
                again = sent.method != "StartTransientUnit" if error.name == _NO_REPLY else error.name in _AWAY
                if not self._lost or not again or monotonic() > sent.deadline:
                    raise
            sleep(_PAUSE)
            deadline, sent = sent.deadline, self._post(*sent.what)
            sent.deadline = deadline

    def _once(self, sent: _Sent) -> "Any":
        """Wait for the answer to a call; what else comes before it is kept."""
        self._flush(sent)
        method, late = sent.method, f"no answer about unit '{self._unit}' within {CALL:g} s"
        while sent.serial not in self._replies:
            message = self._receive(sent.deadline, method, late)
            if message.header.message_type is MessageType.signal:
                self._signals.append(message)
            else:
                self._replies[message.header.fields.get(HeaderFields.reply_serial, 0)] = message
        reply = self._replies.pop(sent.serial)
        if reply.header.message_type is MessageType.error:
            name = str(reply.header.fields.get(HeaderFields.error_name, ""))
            text = str(reply.body[0]) if reply.body else name
            raise DBusError(
                f"unit '{self._unit}': {text[:1].lower() + text[1:].rstrip('.')}",
                name=name,
                call=method,
                path=self._bus,
                pointer=self._pointer,
                hint=_HINTS.get(name, ""),
            )
        return reply.body

    def _send(self, data: bytes, deadline: float, method: str) -> None:
        try:
            self._socket.settimeout(max(deadline - monotonic(), 0.001))
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise self._closed(method) from None
        except OSError as error:
            raise self._broken(method, error, "the message was not taken in time") from None

    def _receive(self, deadline: float, method: str, late: str) -> "Message":
        while True:
            try:
                message = self._parser.get_next_message()
            except _UNFIT as error:
                raise self._failure(method, f"an answer that cannot be read: {error}") from None
            if message is not None:
                return message
            self._parser.add_data(self._read(deadline, method, late))

    def _read(self, deadline: float, method: str, late: str) -> bytes:
        try:
            left = deadline - monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            data = self._socket.recv(65536)
        except ConnectionResetError:
            data = b""  # closed with something of ours unread
        except OSError as error:
            raise self._broken(method, error, late) from None
        if not data:
            raise self._closed(method)
        return data

    def _connect(self) -> None:
        """Connect to the first address that answers, and authenticate by user ID (SASL EXTERNAL)."""
        deadline = monotonic() + GREETING
        try:
            places = _places(self._address)
        except (RuntimeError, ValueError) as error:
            raise self._failure("connect", f"'{self._address}' is no usable D-Bus address: {error}") from None
        problem: OSError | None = None
        for place in places:
            try:
                self._socket.settimeout(max(deadline - monotonic(), 0.001))
                self._socket.connect(place)
                break
            except OSError as error:
                problem = error
        else:
            raise self._broken(
                "connect", problem or OSError(errno.ENOENT, ""), f"no connection within {GREETING:g} s", self._address
            )
        late = f"no greeting within {GREETING:g} s"
        uid = outside_uid(posix.geteuid(), files.read("/proc/self/uid_map"))
        self._send(b"\0AUTH EXTERNAL " + str(uid).encode().hex().encode() + b"\r\n", deadline, "authenticate")
        line = b""
        while not line.endswith(b"\r\n"):
            line += self._read(deadline, "authenticate", late)
            if len(line) > _MAX_LINE:
                break
        if not line.startswith(b"OK "):
            answer = line[:80].decode("ascii", "replace").strip()
            raise self._failure("authenticate", f"user ID {uid} is refused: '{answer}'")
        self._unsent = b"BEGIN\r\n"

    # -- errors

    def _closed(self, method: str) -> StepError:
        return self._failure(method, f"the connection was closed while waiting for unit '{self._unit}'")

    def _broken(self, method: str, error: OSError, late: str, path: str = "") -> StepError:
        if isinstance(error, TimeoutError):
            return self._failure(method, late, number=errno.ETIMEDOUT)
        reason = f"cannot reach systemd for unit '{self._unit}'"
        return self._failure(method, f"{path}: {reason}" if path else reason, number=error.errno or 0)

    def _failure(self, method: str, reason: str, *, number: int = 0) -> StepError:
        hint = "is the D-Bus daemon running? the cgroupfs driver needs none" if number else ""
        return StepError(
            reason, step="systemd", call=method, path=self._bus, pointer=self._pointer, errno=number, hint=hint
        )

    def _blame(self, error: DBusError, properties: "Sequence[Property]") -> None:
        """Name the field of the property that the answer is about.

        A value of a type that systemd does not expect is refused without a name: only annotations can bring one.
        """
        words = error.reason.replace(",", " ").replace("'", " ").replace("=", " ").split()
        given = [item.pointer for item in properties if item.pointer.startswith("/annotations/")]
        named = [item.pointer for item in properties if item.pointer and item.name in words]
        if named:
            error.pointer = named[-1]
        elif given and error.name not in _HINTS:
            error.pointer = given[0] if len(given) == 1 else "/annotations"


_HINTS = {
    _UNIT_EXISTS: "another container or service uses this name: choose another cgroupsPath",
    "org.freedesktop.DBus.Error.ServiceUnknown": "systemd does not run, or not on this bus",
    "org.freedesktop.DBus.Error.AccessDenied": "only root may ask the system's manager",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": "only root may ask the system's manager",
}
