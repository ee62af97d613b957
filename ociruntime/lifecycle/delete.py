"""delete: removes what create has made, and only that."""

import posix
from select import POLLIN, poll
from time import monotonic

from ociruntime import hooks
from ociruntime.errors import NotFoundError, StateError, StepError
from ociruntime.lifecycle.kill import SIGKILL, cgroup_of, send
from ociruntime.state import status
from ociruntime.state.model import CorruptStateError, ForeignStateError, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.lifecycle.runtime import Runtime
    from ociruntime.state.store import StateDir

KILL_TIMEOUT = 10.0
LOOK_MS = 100


def delete(runtime: "Runtime", container_id: str, *, force: bool = False) -> None:
    """Delete a stopped or created container; with force one in any status, after SIGKILL.

    Raises StateError for a running or paused one, NotFoundError (with force: nothing to do).
    """
    try:
        with runtime.states.open(container_id) as directory:
            directory.lock()
            _delete(runtime, container_id, directory, force)
    except NotFoundError:
        if not force:
            raise


def _delete(runtime: "Runtime", container_id: str, directory: "StateDir", force: bool) -> None:
    try:
        state = directory.load()
    except NotFoundError:
        # A directory without a state: a create was killed right at its start, and has made nothing else.
        foreign = directory.foreign()
        if foreign:
            raise NotFoundError(container_id, hint=f"'{foreign}' is not removed: it is no container's") from None
        directory.remove()
        raise
    except CorruptStateError:
        if not force:
            raise
        salvaged = directory.salvage()
        if salvaged is None:
            foreign = directory.foreign()
            if foreign:
                raise ForeignStateError(container_id, foreign) from None
            directory.remove()
            runtime.log.warning(
                f"the state of container {container_id} told nothing: processes and cgroups, if it has any, are left"
            )
            return
        state = salvaged
    actual, _ = status.derive(state, directory)
    if not force and actual not in (status.STOPPED, status.CREATED):
        raise StateError(
            f"cannot delete container {container_id} that is not stopped: {actual}",
            container_id=container_id,
            expected=(status.STOPPED, status.CREATED),
            actual=actual,
            hint="kill it first, or use delete --force",
        )
    remove(runtime, state, directory)


def destroy(runtime: "Runtime", container_id: str, directory: "StateDir") -> None:
    """Delete whatever the status; the caller holds the lock."""
    _delete(runtime, container_id, directory, True)


def remove(runtime: "Runtime", state: State, directory: "StateDir") -> None:
    """Kill what is left, remove cgroup and state, run poststop hooks (a failing one is a warning)."""
    if status.alive(state.pid, state.start_time, state.boot_id):
        _kill_init(state)
    elif state.pid and status.process_stat(state.pid) == ("Z", state.start_time):
        _reap(state.pid)
    if state.cgroup and state.boot_id == status.boot_id():
        from ociruntime.cgroups import manager

        cgroup = manager.from_state(state.cgroup)
        # Processes of a PID namespace end with it. Others in the cgroup then belong to somebody else: another container
        # may have been made in it since this one ended.
        everybody = not state.private_pid_ns or state.phase == status.CREATING or not state.pid
        if everybody:
            cgroup.kill()
        try:
            cgroup.remove()
        except StepError:
            if everybody:
                cgroup.kill()  # an exec'd process may outlive the init process for a moment
            cgroup.remove()
        for text in cgroup.warnings:
            runtime.log.warning(text)
    if state.intel_rdt and state.boot_id == status.boot_id():
        from ociruntime import intel_rdt

        intel_rdt.remove(state.intel_rdt, failed=state.phase == status.CREATING)
    directory.remove()
    if state.hooks:
        document = state.hook_document(status.STOPPED, 0)
        for error in hooks.run_all(state.hooks, "poststop", document, state.bundle):
            runtime.log.warning(f"{error}, ignoring")


def _kill_init(state: State) -> None:
    """SIGKILL and wait until the process is really gone."""
    try:
        pidfd = status.pidfd(state.pid)
    except ProcessLookupError:
        return
    try:
        try:
            send(state.pid, state, SIGKILL)
        except StateError:
            return
        waiting = poll()
        waiting.register(pidfd, POLLIN)
        deadline = monotonic() + KILL_TIMEOUT
        if status.frozen(state.freezer):
            cgroup_of(state).thaw()
        while not waiting.poll(LOOK_MS):
            # Something else may freeze it; and the first process of a PID namespace ends after all others.
            if state.cgroup:
                cgroup_of(state).let_die()
            if monotonic() >= deadline:
                raise StepError(f"process {state.pid} is still alive 10 s after SIGKILL", step="kill")
    finally:
        posix.close(pidfd)
    _reap(state.pid)


def _reap(pid: int) -> None:
    """The library's caller is the init process's parent: nobody can ask for its status after delete."""
    try:
        posix.waitpid(pid, posix.WNOHANG)
    except ChildProcessError:
        pass
