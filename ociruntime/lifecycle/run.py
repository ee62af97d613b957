"""run: create and start; in the foreground also wait, pass signals on, and delete."""

import posix

from ociruntime.lifecycle import create, delete, start
from ociruntime.shim import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.lifecycle.runtime import Runtime

SIGCHLD = 17
SIGURG = 23
SIGWINCH = 28
SIGKILL = 9
SIGSTOP = 19
# Not passed on: they are about this process (children, terminal), not about the container.
OWN = (SIGCHLD, SIGURG, SIGWINCH)


def run(runtime: "Runtime", request: "create.CreateRequest", *, detach: bool, keep: bool, subreaper: bool) -> int:
    """Create and start a container. Returns 0 when detached, else the program's exit status (128 + signal).

    keep: do not delete it afterwards. subreaper: orphans of the container's own PID-less processes come to us.
    """
    if detach:
        created = create.create(runtime, request)
        posix.close(created.pidfd)
        _start(runtime, request.container_id)
        return 0
    from _signal import SIG_BLOCK, SIG_SETMASK, pthread_sigmask, valid_signals

    if subreaper:
        calls.set_subreaper(True)
    # Blocked from here on: what arrives is taken one by one below and passed on, none is lost meanwhile.
    old = pthread_sigmask(SIG_BLOCK, valid_signals())
    try:
        created = create.create(runtime, request)
        try:
            _start(runtime, request.container_id)
            code = _wait(created.pid, created.pidfd, valid_signals())
        finally:
            posix.close(created.pidfd)
        if not keep:
            delete.delete(runtime, request.container_id, force=True)
        return code
    finally:
        pthread_sigmask(SIG_SETMASK, old)


def _start(runtime: "Runtime", container_id: str) -> None:
    try:
        start.start(runtime, container_id)
    except BaseException:
        delete.delete(runtime, container_id, force=True)
        raise


def _wait(pid: int, pidfd: int, signals: "set[int]") -> int:
    """Wait for the init process, forward signals to it, reap what else falls to us."""
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
            return 255 if code is None else code
        if child == 0:
            return code
        if child == pid:
            code = 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF
