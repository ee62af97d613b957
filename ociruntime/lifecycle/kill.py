"""kill: a signal to the init process, or SIGKILL to all of a container without a PID namespace of its own."""

import posix
from time import sleep

from ociruntime.cgroups import freezer
from ociruntime.errors import StateError, StepError
from ociruntime.state import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cgroups.cgroup import Cgroup
    from ociruntime.lifecycle.runtime import Runtime
    from ociruntime.state.model import State

SIGKILL = 9
# As long as SIGKILL waits for the end of a container that something else freezes, each of them 10 ms.
DYING_ROUNDS = 100


def kill(runtime: "Runtime", container_id: str, signal: int, *, everything: bool = False) -> None:
    """Send signal (0: only probe) to the container. everything: to every process in its cgroup.

    Raises StateError "container not running" when there is nobody to get it, StepError for what the kernel refuses.
    """
    with runtime.states.open(container_id) as directory:
        state = directory.load()
        actual, pid = status.derive(state, directory)
    this_boot = state.boot_id == status.boot_id()  # otherwise the cgroup of that name is a stranger's
    if everything:
        # Processes of a PID namespace end with it: others in the cgroup then belong to somebody else.
        if this_boot and not (actual == status.STOPPED and state.private_pid_ns) and not _signal_all(state, signal):
            _signal_init(runtime, state, pid, signal)
        return
    if signal == SIGKILL and not state.private_pid_ns and this_boot and _kill_cgroup(state):
        return
    if not pid:
        raise _not_running(container_id, actual)
    held = signal == SIGKILL and freezer.may_keep_alive(state.freezer)
    send(pid, state, signal)
    if signal == SIGKILL and actual == status.PAUSED:
        cgroup_of(state).thaw()  # on v1 a frozen process does not even die
    if held:
        _see_it_die(state, pid)


def _see_it_die(state: "State", pid: int) -> None:
    """Something above or below the container's cgroup is frozen. The first of a PID namespace ends after all others."""
    cgroup = cgroup_of(state)
    for _round in range(DYING_ROUNDS):
        if not cgroup.let_die() or not status.alive(pid, state.start_time, state.boot_id):
            return
        sleep(0.01)


def send(pid: int, state: "State", signal: int) -> None:
    """Signal the init process through a pidfd, so that a reused PID is never hit. Source: man pidfd_send_signal(2)."""
    from _signal import pidfd_send_signal

    try:
        pidfd = status.pidfd(pid)
    except ProcessLookupError:
        raise _not_running(state.container_id, status.STOPPED) from None
    try:
        if not status.alive(pid, state.start_time, state.boot_id):
            raise _not_running(state.container_id, status.STOPPED)
        pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        raise _not_running(state.container_id, status.STOPPED) from None
    except OSError as error:
        raise StepError(f"signal {signal}", call="pidfd_send_signal", errno=error.errno or 0) from None
    finally:
        posix.close(pidfd)


def _not_running(container_id: str, actual: str) -> StateError:
    return StateError(
        "container not running",
        container_id=container_id,
        expected=(status.CREATED, status.RUNNING, status.PAUSED),
        actual=actual,
    )


def cgroup_of(state: "State") -> "Cgroup":
    from ociruntime.cgroups import manager

    return manager.from_state(state.cgroup)


def _kill_cgroup(state: "State") -> bool:
    """Kill all of the cgroup; False when there is none (any more)."""
    cgroup = cgroup_of(state)
    if not cgroup.exists():
        return False
    cgroup.kill()
    return True


def _signal_all(state: "State", signal: int) -> bool:
    """Signal all of the cgroup; False when there is none (any more)."""
    cgroup = cgroup_of(state)
    if not cgroup.exists():
        return False
    if signal == SIGKILL:
        cgroup.kill()
    else:
        cgroup.signal_all(signal)
    return True


def _signal_init(runtime: "Runtime", state: "State", pid: int, signal: int) -> None:
    """Without a cgroup nothing tells the other processes; those of a PID namespace end with its first."""
    if not pid:
        return
    if signal != SIGKILL or not state.private_pid_ns:
        runtime.log.warning("the container has no cgroup that tells its processes: only the first gets the signal")
    send(pid, state, signal)
