"""NOTIFY_SOCKET: a container's program tells the runtime's service manager that it is ready.

    create    makes the directory notify of the state, binds it to /run/notify, sets NOTIFY_SOCKET
    start     binds the socket in there; when READY=1 comes, tells the service manager:

        program                     start                              service manager
        READY=1\\nSTATUS=..    ->    READY=1                       ->
                                    MAINPID=n                     ->
                                    BARRIER=1 and a pipe          ->    closes the pipe when all that is dealt with

Source: man sd_notify(3), sd_notify_barrier(3).
"""

import posix
from select import POLLIN, poll

from ociruntime.errors import StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.log import Log
    from ociruntime.shim.calls import Held

DIRECTORY = "notify"
SOCKET = "notify.sock"
INSIDE = "/run/notify"
BARRIER_MS = 30_000
_NOFOLLOW = posix.O_PATH | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC


def prepare(state_fd: int) -> None:
    """Make the directory that the container sees. state_fd: of the container's state directory. Raises OSError."""
    posix.mkdir(DIRECTORY, 0o755, dir_fd=state_fd)
    posix.chmod(DIRECTORY, 0o755, dir_fd=state_fd)  # whatever the umask


def prepared(state_fd: int) -> bool:
    """Tell whether create has made the directory."""
    try:
        posix.stat(DIRECTORY, dir_fd=state_fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def with_socket(config: "dict[str, Any]", state_path: str) -> "dict[str, Any]":
    """A copy of config with the directory bound to /run/notify, after all other mounts, and the variable set."""
    mount = {
        "destination": INSIDE,
        "type": "bind",
        "source": f"{state_path}/{DIRECTORY}",
        "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
    }
    changed = {**config, "mounts": [*(config.get("mounts") or ()), mount]}
    if config.get("process") is not None:
        process = dict(config["process"])
        process["env"] = [*(process.get("env") or ()), f"NOTIFY_SOCKET={INSIDE}/{SOCKET}"]
        changed["process"] = process
    return changed


def ready_line(datagram: bytes) -> bytes:
    """The line of a notification that says READY=..., without its newline; b"" when there is none."""
    for line in datagram.split(b"\n"):
        if line.startswith(b"READY="):
            return line
    return b""


def _address(text: str) -> "str | bytes":
    """The socket address that NOTIFY_SOCKET means: a path, or with @ an abstract name. Raises StepError."""
    if text[:1] not in ("/", "@") or len(text) < len("/x"):
        raise StepError("NOTIFY_SOCKET: neither an absolute path nor an abstract socket", step="notify", path=text)
    return b"\0" + text[1:].encode("utf-8", "surrogateescape") if text[0] == "@" else text


class Proxy:
    """The socket in the container's state, and the connection to the service manager. Ours until close()."""

    __slots__ = ("_fd", "_inside", "_outside")

    def __init__(self, state_fd: int, service: str) -> None:
        """Connect to the service manager (service: the runtime's NOTIFY_SOCKET) and bind. Raises StepError, OSError."""
        from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, socket

        address = _address(service)
        self._fd = posix.open(DIRECTORY, _NOFOLLOW, dir_fd=state_fd)
        self._outside = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
        self._inside = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
        try:
            try:
                self._outside.connect(address)
            except OSError as error:
                raise StepError(
                    "NOTIFY_SOCKET: cannot connect", step="notify", path=service, errno=error.errno or 0
                ) from None
            self._unlink()
            # By descriptor: the path of a state directory may be longer than a socket address.
            self._inside.bind(f"/proc/self/fd/{self._fd}/{SOCKET}")
            posix.chmod(SOCKET, 0o777, dir_fd=self._fd)
        except BaseException:
            self.close()
            raise
        self._inside.setblocking(False)

    def _unlink(self) -> None:
        try:
            posix.unlink(SOCKET, dir_fd=self._fd)
        except FileNotFoundError:
            pass

    def close(self) -> None:
        """Nobody listens any more."""
        self._inside.close()
        self._outside.close()
        if self._fd >= 0:
            posix.close(self._fd)
            self._fd = -1

    def relay(self, pidfd: int, main_pid: int, log: "Log", held: "Held | None" = None) -> None:
        """Wait until the program is ready, or the process of pidfd has ended; tell the service manager.

        main_pid: whom the service manager is to watch from then on. held: signals that end the waiting: SignalError.
        """
        line = self._await_ready(pidfd, held)
        if not line:
            log.warning("the container has ended before it said that it is ready")
            return
        try:
            self._outside.send(line + b"\n")
            self._outside.send(b"MAINPID=%d\n" % main_pid)
            self._barrier(log, held)
        except OSError as error:
            log.warning(f"NOTIFY_SOCKET: cannot tell that the container is ready: {error}, ignoring")

    def _await_ready(self, pidfd: int, held: "Held | None") -> bytes:
        waiting = poll()
        waiting.register(self._inside.fileno(), POLLIN)
        waiting.register(pidfd, POLLIN)
        if held is not None:
            waiting.register(held.fd, POLLIN)
        while True:
            ended = pidfd in [fd for fd, _ in waiting.poll()]
            if held is not None:
                held.check()
            while True:
                try:
                    line = ready_line(self._inside.recv(4096))
                except BlockingIOError:
                    break
                if line:
                    return line
            if ended:
                return b""

    def _barrier(self, log: "Log", held: "Held | None") -> None:
        """Stay until the service manager has read all of that, at most 30 s or until a signal comes: it watches us."""
        from _socket import SCM_RIGHTS, SOL_SOCKET
        from _struct import pack

        reader, writer = posix.pipe2(posix.O_CLOEXEC)
        try:
            try:
                self._outside.sendmsg([b"BARRIER=1"], [(SOL_SOCKET, SCM_RIGHTS, pack("i", writer))])
            finally:
                posix.close(writer)
            waiting = poll()
            waiting.register(reader, 0)  # POLLHUP comes unasked
            if held is not None:
                waiting.register(held.fd, POLLIN)
            if not waiting.poll(BARRIER_MS):
                log.warning("the service manager does not answer BARRIER=1, ignoring")
        finally:
            posix.close(reader)
