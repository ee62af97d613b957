"""A seccomp agent: takes the listener that a runtime sends to listenerPath and answers for the container's calls."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

RECV = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV
SEND = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND
CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
NOTIFICATION = struct.Struct("=QIIiIQ6Q")
RESPONSE = struct.Struct("=QqiI")

# (number of the call, its arguments) -> (value, errno), or None: let the kernel run the call
Answer = Callable[[int, tuple[int, ...]], "tuple[int, int] | None"]


def carry_on(number: int, arguments: tuple[int, ...]) -> tuple[int, int] | None:
    """Let every call run."""
    return None


class Agent:
    """Listens at path from the moment it is made. A context manager; keeps what it has seen.

    answer: says what the agent answers. quit_after: so many answers after the first message it leaves.
    messages: the documents received; fds: how many fds came with each first part; numbers: of the calls asked about;
    pids: of the processes that made them.
    """

    def __init__(self, path: Path | str, answer: Answer = carry_on, *, quit_after: int | None = None) -> None:
        self.answer = answer
        self.quit_after = quit_after
        self.messages: list[dict[str, Any]] = []
        self.fds: list[int] = []
        self.numbers: list[int] = []
        self.pids: list[int] = []
        self.error: BaseException | None = None
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        directory = os.open(os.path.dirname(path), os.O_PATH)
        try:  # a path may be longer than a socket's name
            self._server.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
            os.chmod(f"/proc/self/fd/{directory}/{os.path.basename(path)}", 0o777)
        finally:
            os.close(directory)
        self._server.listen(8)
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Go away, with all listeners. Raises what went wrong."""
        with contextlib.suppress(OSError):
            os.write(self._waker, b"x")
        self._thread.join(60)
        assert not self._thread.is_alive()
        os.close(self._waker)
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        waiting = select.poll()
        waiting.register(self._server, select.POLLIN)
        waiting.register(self._wake, select.POLLIN)
        listeners: list[int] = []
        try:
            while True:
                for fd, event in waiting.poll():
                    if fd == self._wake:
                        return
                    if fd == self._server.fileno():
                        for listener in self._accept():
                            listeners.append(listener)
                            waiting.register(listener, select.POLLIN)
                    elif event & select.POLLIN:
                        self._reply(fd)
                    else:  # nobody is under that filter any more
                        waiting.unregister(fd)
                        listeners.remove(fd)
                        os.close(fd)
                    if self.messages and self.quit_after is not None and len(self.numbers) >= self.quit_after:
                        return
        except BaseException as error:
            self.error = error
        finally:
            self._server.close()
            os.close(self._wake)
            for fd in listeners:
                os.close(fd)

    def _accept(self) -> list[int]:
        connection, _ = self._server.accept()
        with connection:
            part, fds, _, _ = socket.recv_fds(connection, 65536, 4, socket.MSG_CMSG_CLOEXEC)
            data = part
            while part:  # not all runtimes close the connection at once: a whole document is enough
                with contextlib.suppress(ValueError):
                    document = json.loads(data)
                    self.fds.append(len(fds))
                    self.messages.append(document)  # at last: others wait for it
                    break
                part = connection.recv(1 << 20)
                data += part
        return fds

    def _reply(self, listener: int) -> None:
        buffer = bytearray(NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, RECV, buffer)
            key, pid, _, number, _, _, *arguments = NOTIFICATION.unpack(buffer)
            self.pids.append(pid)
            self.numbers.append(number)
            answer = self.answer(number, tuple(arguments))
            value, error, flags = (0, 0, CONTINUE) if answer is None else (*answer, 0)
            fcntl.ioctl(listener, SEND, bytearray(RESPONSE.pack(key, value, -error, flags)))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINTR):  # the process was killed meanwhile
                raise
