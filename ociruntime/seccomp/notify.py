"""Handing the listener of a filter with SCMP_ACT_NOTIFY over to the agent that answers for it.

        parent                                   init process                            agent
        ------                                   ------------                            -----
                                             <-  SYNC listener: it will be fd n
        connects to listenerPath     --------------------------------------------->      accepts
        GO                           ->          loads the filter: fd n is there
        takes fd n by pidfd_getfd                reads: may be a call that waits for
        sends it with the state      --------------------------------------------->      answers, from here on
        GO                           ->          closes fd n, goes on

Once the filter is in force any call of the init process may wait for the agent, so the parent needs no word from it
before the agent can answer: every call may be in the rules, and NOTIFY may be the default action.
Source: runtime-spec config-linux.md, "Seccomp", "The Container Process State"; man seccomp_unotify(2), pidfd_getfd(2).
"""

import posix
from errno import EBADF, EPERM, ETIMEDOUT
from time import monotonic, sleep

from ociruntime.errors import StepError
from ociruntime.jsontext import dumps
from ociruntime.seccomp.compile import AT
from ociruntime.shim import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ociruntime.errors import OCIError
    from ociruntime.seccomp.compile import SeccompRequest
    from ociruntime.shim.sync import Channel, Message

PATIENCE = 10.0  # seconds, for an agent that does not accept, and for loading a filter
FIRST_LOOKS = 8  # loading takes some 0.1 ms
STEP = "seccomp listener"


def document(request: "SeccompRequest", pid: int, state: "dict[str, object]") -> bytes:
    """The message for the agent. pid: the process that loads the filter, as the runtime sees it; state: state document.

    Source: runtime-spec config-linux.md, "The Container Process State".
    """
    message: dict[str, object] = {"ociVersion": state["ociVersion"], "fds": ["seccompFd"], "pid": pid}
    if request.listener_metadata:
        message["metadata"] = request.listener_metadata
    message["state"] = state
    return dumps(message).encode("ascii")


def hand_over(
    request: "SeccompRequest",
    channel: "Channel",
    pidfd: int,
    number: int,
    message: bytes,
    broken: "Callable[[Message | None], OCIError]",
) -> None:
    """Answer SYNC_LISTENER: let the process load its filter, take the listener, give it to the agent, let it go on.

    pidfd: the process; number: of the fd it announced; message: document(); broken: an error from what the process
    says instead (None: it died). Raises StepError at listenerPath when the agent cannot be reached.
    """
    try:
        agent = calls.connect_unix(request.listener_path, int(PATIENCE * 1000))
    except StepError as error:
        raise _of_agent(error, "cannot connect to the seccomp agent", request) from None
    try:
        channel.go(value2=1 if calls.pidfd_getfd(pidfd, number) == -EPERM else 0)
        listener = _take(channel, pidfd, number, broken)
        try:
            calls.send_stream(agent, message, listener)
        except StepError as error:
            raise _of_agent(error, "cannot send the listener to the seccomp agent", request) from None
        finally:
            posix.close(listener)
    finally:
        posix.close(agent)
    channel.go()


def _of_agent(error: StepError, reason: str, request: "SeccompRequest") -> StepError:
    return StepError(
        reason,
        step=STEP,
        pointer=f"{AT}/listenerPath",
        call=error.call,
        errno=error.errno,
        path=request.listener_path,
        hint="the agent has to listen there before the container is created",
    )


def _take(channel: "Channel", pidfd: int, number: int, broken: "Callable[[Message | None], OCIError]") -> int:
    """A copy of the listener, as soon as the process has it."""
    start = monotonic()
    looks = 0
    while True:
        fd = calls.pidfd_getfd(pidfd, number)
        if fd >= 0:
            return fd
        waited = monotonic() - start
        if fd == -EPERM and waited > PATIENCE / 5:  # it has been told to become dumpable, so this may take a moment
            hint = "needs the right to ptrace the container's process (CAP_SYS_PTRACE, kernel.yama.ptrace_scope)"
            raise StepError("", step=STEP, pointer=AT, call="pidfd_getfd", errno=EPERM, hint=hint)
        looks += 1
        if looks <= FIRST_LOOKS and fd in (-EBADF, -EPERM):
            sleep(0.00005)
            continue
        try:
            said = channel.receive(1)
        except StepError as error:
            if error.errno != ETIMEDOUT or waited > PATIENCE:
                raise
        else:
            raise broken(said)
