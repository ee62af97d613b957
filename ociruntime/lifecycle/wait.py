"""wait: until the container's init process has ended, and how it did.

The process is a child of whoever called create: its exit status is not ours to collect. There are three ways to learn
it, and it is kept in the state once it is known:

it is a child of ours                        waitid, without collecting
it has ended and nobody has collected it     /proc/PID/stat
it has been collected                        its pidfd knows (Linux 6.15), if it was opened before
"""

import posix
from errno import ESRCH
from select import POLLIN, poll

from ociruntime.errors import OCIError, StateError
from ociruntime.lifecycle.foreground import code_of
from ociruntime.shim import calls
from ociruntime.state import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.lifecycle.runtime import Runtime
    from ociruntime.state.model import State

COLLECTED_MS = 1000


class UnknownStatusError(StateError):
    """The init process has ended, and nobody can tell any more how."""

    code = "unknown-status"


def wait(runtime: "Runtime", container_id: str) -> int:
    """Wait for the end of the init process. Returns its exit status, 128 + signal if one ended it.

    Raises NotFoundError, StateError while it is being created, UnknownStatusError.
    """
    state = runtime.states.load(container_id)
    if state.exit_status >= 0:
        return state.exit_status
    try:
        fd = open_pidfd(state)
    except ProcessLookupError:
        raise _unknown(state) from None
    try:
        code = ended(fd, state)
    finally:
        posix.close(fd)
    if code is None:
        raise _unknown(state)
    remember(runtime, state, code)
    return code


def open_pidfd(state: "State") -> int:
    """A pidfd of the init process, which may be a zombie. Raises ProcessLookupError when it is gone, StateError."""
    if not state.pid:
        raise StateError("the container is being created", container_id=state.container_id, actual=status.CREATING)
    if state.boot_id != status.boot_id():
        raise ProcessLookupError(ESRCH, "of another boot")
    fd = status.pidfd(state.pid)
    if status.process_stat(state.pid)[1] == state.start_time:
        return fd
    posix.close(fd)  # somebody else has the PID now
    raise ProcessLookupError(ESRCH, "a PID used again")


def pidfd(runtime: "Runtime", container_id: str) -> int:
    """A pidfd of the container's init process. Raises StateError when it is gone."""
    state = runtime.states.load(container_id)
    try:
        return open_pidfd(state)
    except ProcessLookupError:
        raise StateError(
            "container not running", container_id=container_id, expected=(status.RUNNING,), actual=status.STOPPED
        ) from None


def remember(runtime: "Runtime", state: "State", code: int) -> None:
    """Keep the exit status in the state of the container, if that is still there."""
    try:
        with runtime.states.open(state.container_id) as directory:
            directory.lock()
            latest = directory.load()
            if (latest.pid, latest.start_time) == (state.pid, state.start_time) and latest.exit_status != code:
                latest.exit_status = code
                directory.save(latest)
    except OCIError as error:
        runtime.log.debug(f"cannot keep the exit status: {error}, ignoring")


def ended(fd: int, state: "State") -> "int | None":
    """Wait for the end of the init process, whose pidfd this is; its exit status, None if nobody tells."""
    waiting = poll()
    waiting.register(fd, POLLIN)
    waiting.poll()
    try:
        result = posix.waitid(posix.P_PIDFD, fd, posix.WEXITED | posix.WNOWAIT | posix.WNOHANG)
    except ChildProcessError:
        result = None  # not our child
    if result is not None:
        return result.si_status if result.si_code == posix.CLD_EXITED else 128 + result.si_status
    found = calls.pidfd_exit(fd)
    if found is None:
        found = status.zombie_status(state.pid, state.start_time)
    if found is None:
        # Collected a moment ago, or a zombie that we may not look at: then that is still to come.
        waiting.modify(fd, 0)
        waiting.poll(COLLECTED_MS)
        found = calls.pidfd_exit(fd)
    return None if found is None else code_of(found)


def _unknown(state: "State") -> UnknownStatusError:
    return UnknownStatusError(
        "the exit status is unknown: the process was gone before anybody waited for it",
        container_id=state.container_id,
        actual=status.STOPPED,
        hint="wait while it runs; that also needs Linux 6.15, or a parent that leaves its zombie for a moment",
    )
