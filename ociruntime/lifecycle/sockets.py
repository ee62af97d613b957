"""Sockets of callers that take a descriptor: console, pidfd. One connection, one message with one fd, closed."""

import posix
from errno import ENOENT

from ociruntime.errors import ConfigError, StepError
from ociruntime.shim import calls

PATIENCE_MS = 10_000


class FdSocket:
    """A caller's AF_UNIX stream socket, connected before anything is made, so that a wrong path costs nothing.

    option: its command line name. path: relative ones belong to directory (the bundle).
    """

    __slots__ = ("_fd", "_option", "path")

    def __init__(self, option: str, path: str, directory: str) -> None:
        self._option = option
        self.path = path if path.startswith("/") else f"{directory}/{path}"
        try:
            mode = posix.stat(self.path).st_mode
        except OSError as error:
            raise StepError(f"{option}: no such socket", path=self.path, errno=error.errno or ENOENT) from None
        if mode & 0o170000 != 0o140000:
            raise StepError(f"{option}: not a socket", path=self.path)
        try:
            self._fd = calls.connect_unix(self.path, PATIENCE_MS)
        except StepError as error:
            raise StepError(f"{option}: cannot connect", path=self.path, errno=error.errno) from None

    def send(self, payload: bytes, fd: int) -> None:
        """Send one message with fd, and close the connection."""
        try:
            calls.send_stream(self._fd, payload, fd)
        except StepError as error:
            raise StepError(f"{self._option}: cannot send", path=self.path, errno=error.errno) from None
        finally:
            self.close()

    def close(self) -> None:
        if self._fd >= 0:
            posix.close(self._fd)
            self._fd = -1


def check_console(terminal: bool, detach: bool, socket: str) -> None:
    """A console socket is needed exactly when there is a terminal and nobody stays to hold it (row P2)."""
    if socket and not (terminal and detach):
        reason = "needs a detached process" if terminal else "needs terminal: true"
        raise ConfigError(f"--console-socket {reason}", pointer="/process/terminal")
    if terminal and detach and not socket:
        raise ConfigError(
            "a terminal needs --console-socket, or a command that stays in the foreground", pointer="/process/terminal"
        )
