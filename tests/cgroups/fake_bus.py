"""A D-Bus daemon with a systemd manager behind it, as far as the driver uses them: a real socket, scripted answers."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jeepney import (
    DBusAddress,
    HeaderFields,
    Message,
    MessageType,
    Parser,
    new_error,
    new_method_return,
    new_signal,
)

SYSTEMD = "org.freedesktop.systemd1"
MANAGER = DBusAddress("/org/freedesktop/systemd1", SYSTEMD, f"{SYSTEMD}.Manager")
JOB = "/org/freedesktop/systemd1/job/7"

Answer = "tuple[str, tuple[object, ...]]"


class RefusalError(Exception):
    """An answer that is an error: name, text."""


class FakeBus:
    """Serves one connection after the other until it is closed.

    calls: (method, body) of all that came. answers: method -> function of the body that gives (signature, body), or
    raises RefusalError; None: silence. result: how jobs end; None: they never do. greeting: what SASL is answered with.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.calls: list[tuple[str, Any]] = []
        self.answers: dict[str, Callable[[Any], Any] | None] = {}
        self.result: str | None = "done"
        self.greeting: bytes | None = b"OK 0123\r\n"
        self.said = b""
        self.hang_up = ""
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self.path)
        self._server.listen(4)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def environ(self) -> dict[str, str]:
        """The variables that lead here."""
        address = f"unix:path={self.path}"
        return {"DBUS_SYSTEM_BUS_ADDRESS": address, "DBUS_SESSION_BUS_ADDRESS": address}

    def methods(self) -> list[str]:
        """The methods called, but for those of connecting."""
        asked = ("Hello", "AddMatch", "Get", "GetConnectionUnixProcessID")
        return [name for name, _ in self.calls if name not in asked]

    def bodies(self, method: str) -> list[Any]:
        """What a method was called with, each time."""
        return [body for name, body in self.calls if name == method]

    def close(self) -> None:
        """The end."""
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                try:
                    self._talk(connection)
                except OSError:
                    continue

    def _talk(self, connection: socket.socket) -> None:
        line = b""
        while not line.endswith(b"\r\n"):
            line += connection.recv(1)
        self.said = line
        if self.greeting is None:
            connection.recv(1)
            return
        connection.sendall(self.greeting)
        begin = b""
        while not begin.endswith(b"BEGIN\r\n"):
            data = connection.recv(1)
            if not data:
                return
            begin += data
        parser = Parser()
        while True:
            message = parser.get_next_message()
            if message is None:
                data = connection.recv(4096)
                if not data:
                    return
                parser.add_data(data)
            elif not self._answer(connection, message):
                return

    def _answer(self, connection: socket.socket, message: Message) -> bool:
        method = message.header.fields[HeaderFields.member]
        self.calls.append((method, message.body))
        if method == self.hang_up:
            return False
        answer = self.answers.get(method, default(method))
        if answer is None:
            return True
        starts = method in ("StartTransientUnit", "StopUnit")
        try:
            signature, body = answer(message.body)
        except RefusalError as refusal:
            reply = new_error(message, refusal.args[0], "s", (refusal.args[1],))
            starts = False
        else:
            reply = new_method_return(message, signature, body)
        if starts and self.result is not None:
            # The signal may well come before the answer.
            for job, result in (("/other", "failed"), (JOB, self.result)):
                signal = new_signal(MANAGER, "JobRemoved", "uoss", (7, job, message.body[0], result))
                assert signal.header.message_type is MessageType.signal
                connection.sendall(signal.serialise(serial=8))
        connection.sendall(reply.serialise(serial=9))
        return True


def default(method: str) -> Callable[[Any], Any]:
    """What a method is answered with when nothing else is said."""
    if method == "Get":
        return lambda body: ("v", (("s", "252.39-1~deb12u2" if body[1] == "Version" else ""),))
    if method in ("StartTransientUnit", "StopUnit"):
        return lambda _: ("o", (JOB,))
    if method == "GetUnit":
        return lambda _: ("o", ("/org/freedesktop/systemd1/unit/x",))
    if method == "GetConnectionUnixProcessID":
        return lambda _: ("u", (os.getpid(),))
    if method == "Hello":
        return lambda _: ("s", (":1.5",))
    return lambda _: ("", ())
