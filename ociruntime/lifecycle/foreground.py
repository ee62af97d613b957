"""Staying with a process until it ends: signals are passed on, a terminal is relayed, the exit status is ours."""

import posix

from ociruntime.shim import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

SIGCHLD = 17
SIGURG = 23
SIGWINCH = 28
# Not passed on: they are about this process (children, terminal, its runtime), not about the container.
OWN = (SIGCHLD, SIGURG, SIGWINCH)
FAILED = 255


class Signals:
    """All signals blocked, so that those that arrive are taken one by one; a context manager.

    later: not before block() is called; until then a signal ends the caller, as if nothing were going on.
    """

    __slots__ = ("_later", "_old", "all")

    def __init__(self, *, later: bool = False) -> None:
        self.all: set[int] = set()
        self._later = later
        self._old: set[int] | None = None

    def __enter__(self) -> "Self":
        if not self._later:
            self.block()
        return self

    def block(self) -> None:
        from _signal import SIG_BLOCK, SIG_DFL, SIG_IGN, getsignal, pthread_sigmask, signal, valid_signals

        if getsignal(SIGCHLD) == SIG_IGN:
            try:
                # Whoever ignores it is told nothing of children, not even their status.
                signal(SIGCHLD, SIG_DFL)
            except ValueError:
                pass  # not the main thread: left to the program that we are part of
        self.all = valid_signals()
        self._old = pthread_sigmask(SIG_BLOCK, self.all)

    def blocked(self) -> int:
        """Those that would have come, had they not been blocked here: bit n-1 is signal n."""
        return sum(1 << signal - 1 for signal in self.all - (self._old or set()))

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        from _signal import SIG_SETMASK, pthread_sigmask, sigtimedwait

        if self._old is None:
            return
        # Those that came for a process that had ended by then must not end us now, before its status is told.
        while sigtimedwait(self.all, 0) is not None:
            pass
        pthread_sigmask(SIG_SETMASK, self._old)
        self._old = None


def wait(pid: int, pidfd: int, master: int, signals: Signals) -> int:
    """Wait for a child of ours: its exit status, 128 + signal. master: of its terminal, relayed meanwhile; -1: none.

    signals: blocked by now.
    """
    if master >= 0:
        forward = 0
        for signal in signals.all:
            if signal not in OWN:
                forward |= 1 << signal - 1
        return code_of(calls.relay(master, pid, pidfd, host_terminal(), forward))
    return _wait(pid, pidfd, signals.all)


def adopt(master: int) -> None:
    """Make a terminal that nobody else takes ready for wait(), before the program can write to it or ask its size."""
    calls.prepare_terminal(master, host_terminal())


def host_terminal() -> int:
    """The caller's terminal, whose size is followed: the first of stderr, stdout, stdin that is one; -1 if none is."""
    for fd in (2, 1, 0):
        if posix.isatty(fd):
            return fd
    return -1


def code_of(status: int) -> int:
    """A wait status as a shell's exit status."""
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF


def _wait(pid: int, pidfd: int, signals: "set[int]") -> int:
    from _signal import pidfd_send_signal, sigwaitinfo

    code = _reap(pid)
    while code is None:
        signal = sigwaitinfo(signals).si_signo
        if signal == SIGCHLD:
            code = _reap(pid)
        elif signal not in OWN:
            try:
                pidfd_send_signal(pidfd, signal)
            except ProcessLookupError:
                pass
    return code


def _reap(pid: int) -> "int | None":
    """Collect children that have ended; the exit status of pid if it was among them."""
    code = None
    while True:
        try:
            child, status = posix.waitpid(-1, posix.WNOHANG)
        except ChildProcessError:
            return FAILED if code is None else code
        if child == 0:
            return code
        if child == pid:
            code = code_of(status)
