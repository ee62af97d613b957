"""start: lets the waiting init process go on, and learns how its last steps went.

start                                         init process
open exec.fifo for reading            ->      its open for writing returns
                                      <-      "0"
                                      <-      a report, if a startContainer hook or execve fails
end of file: execve has closed the fifo
"""

import posix
from select import POLLIN, poll

from ociruntime import hooks
from ociruntime.cgroups import freezer
from ociruntime.errors import HookError, OCIError, StateError, StepError
from ociruntime.state import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.lifecycle.runtime import Runtime
    from ociruntime.log import Log
    from ociruntime.notify_socket import Proxy
    from ociruntime.shim.calls import Held
    from ociruntime.state.model import State
    from ociruntime.state.store import StateDir

_REFUSED = {
    status.CREATING: "cannot start a container that is being created",
    status.RUNNING: "cannot start an already running container",
    status.STOPPED: "cannot start a container that has stopped",
    status.PAUSED: "cannot start a container in the paused state",
}
_DEAD = "cannot start a container: container process is already dead"


def start(
    runtime: "Runtime",
    container_id: str,
    *,
    notify_socket: str = "",
    foreground: bool = False,
    held: "Held | None" = None,
) -> None:
    """Run the container's program. Raises StateError unless it is created; HookError, StepError when it cannot run.

    notify_socket: that of the caller's service manager. Then start ends when the program says that it is ready (or is
    dead); in the foreground a thread tells the service manager, whose main process is us and not the container's.
    held: signals that end the waiting for the program, for hooks and for the service manager's answer: SignalError.
    """
    with runtime.states.open(container_id) as directory:
        directory.lock()
        state = directory.load()
        actual, pid = status.derive(state, directory)
        if actual != status.CREATED:
            raise StateError(_REFUSED[actual], container_id=container_id, expected=(status.CREATED,), actual=actual)
        if not state.startable:
            raise StateError("the config has no process to start", container_id=container_id, actual=actual)
        paths: Any = state.cgroup.get("paths") or {}
        frozen = freezer.refusal(paths, container_id)
        if frozen is not None:
            raise frozen  # the init process would not hear of it, and nothing would take it back
        notify = _notify(runtime, directory, pid, notify_socket) if notify_socket else None
        if state.hooks:
            from ociruntime.shim import spawn as _spawn  # noqa: F401 - or fail now, before the program runs
        try:
            try:
                _release(state, directory, pid, held)
            except HookError:
                _destroy(runtime, container_id, directory)
                raise
            if state.hooks:
                _poststart(runtime, state, directory, pid, held)
            if held is not None:
                held.check()
        except BaseException:
            if notify is not None:
                notify.close()
            raise
    if notify is not None:
        if foreground:
            from _thread import start_new_thread

            start_new_thread(notify.run, (posix.getpid(),))
        else:
            notify.run(pid, held)


def _notify(runtime: "Runtime", directory: "StateDir", pid: int, service: str) -> "_Notify | None":
    """The proxy of the caller's NOTIFY_SOCKET, listening; None for a container that was created without."""
    from ociruntime import notify_socket

    if not notify_socket.prepared(directory.fd):
        runtime.log.warning("NOTIFY_SOCKET was not set when the container was created, ignoring")
        return None
    try:
        pidfd = status.pidfd(pid)
    except ProcessLookupError:
        return None  # the next step reports it
    try:
        return _Notify(notify_socket.Proxy(directory.fd, service), pidfd, runtime.log)
    except BaseException:
        posix.close(pidfd)
        raise


class _Notify:
    """A proxy, the process it is for (pidfd: ours), and where its warnings go."""

    __slots__ = ("log", "pidfd", "proxy")

    def __init__(self, proxy: "Proxy", pidfd: int, log: "Log") -> None:
        self.proxy = proxy
        self.pidfd = pidfd
        self.log = log

    def run(self, main_pid: int, held: "Held | None" = None) -> None:
        """Until the program is ready or dead. main_pid: whom the service manager is to watch."""
        try:
            self.proxy.relay(self.pidfd, main_pid, self.log, held)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of it."""
        self.proxy.close()
        posix.close(self.pidfd)


def _release(state: "State", directory: "StateDir", pid: int, held: "Held | None") -> None:
    """The handshake over exec.fifo."""
    try:
        pidfd = status.pidfd(pid)
    except ProcessLookupError:
        raise StateError(_DEAD, container_id=state.container_id, actual=status.STOPPED) from None
    fifo = -1
    try:
        # Before the fifo: once that is open a short program may be over by the next line.
        if not status.alive(pid, state.start_time, state.boot_id):
            raise StateError(_DEAD, container_id=state.container_id, actual=status.STOPPED)
        fifo = directory.open_fifo(posix.O_RDONLY | posix.O_NONBLOCK)
        # That has let the init process go, whatever happens to us now: the container is not "created" any more.
        try:
            directory.remove_fifo()
        except OSError:
            pass  # the status does not depend on it
        report = _read_to_end(fifo, pid, pidfd, held)
    except OSError as error:
        reason = "cannot open the start fifo" if fifo < 0 else "cannot hear from the program, which may run by now"
        raise StepError(reason, path=f"{directory.path}/exec.fifo", errno=error.errno or 0) from None
    finally:
        posix.close(pidfd)
        if fifo >= 0:
            posix.close(fifo)
    if not report:
        # A start before us may have been killed when it had let the init process go.
        if status.alive(pid, state.start_time, state.boot_id):
            actual = status.RUNNING
            raise StateError(
                _REFUSED[actual], container_id=state.container_id, expected=(status.CREATED,), actual=actual
            )
        raise StateError(_DEAD, container_id=state.container_id, actual=status.STOPPED)
    if len(report) > 1:
        raise _failure(state, report[1:])


def _read_to_end(fifo: int, pid: int, pidfd: int, held: "Held | None") -> bytes:
    """All that comes through the fifo until its writer closes it, or dies before it has opened it."""
    data = b""
    try:
        data = posix.read(fifo, 4096)
        if not data and not status.waits(pid):
            data = posix.read(fifo, 4096)
            if not data:
                return data  # what was to come has been said before we could hear it
    except BlockingIOError:
        pass  # the writer is there
    waiting = poll()
    waiting.register(fifo, POLLIN)
    waiting.register(pidfd, POLLIN)
    if held is not None:
        waiting.register(held.fd, POLLIN)
    while True:
        ready = [fd for fd, _ in waiting.poll()]
        if held is not None:
            held.check()
        dead = pidfd in ready
        if fifo in ready or dead:
            try:
                more = posix.read(fifo, 4096)
            except BlockingIOError:
                if dead:
                    return data  # somebody else holds the fifo open
                continue
            if not more:
                return data
            data += more


def _failure(state: "State", report: bytes) -> OCIError:
    """What the init process could not do after it was released."""
    from ociruntime.shim.sync import MESSAGE, decode

    if len(report) != MESSAGE.size:
        return StepError("the init process left no usable report", step="exec")
    message = decode(report)
    names = state.hooks.get("startContainer") or []
    if 0 <= message.op < len(names):  # type: ignore[arg-type]
        return hooks.error_from_message(message, "startContainer", message.op, names[message.op]["path"])  # type: ignore[index]
    from ociruntime.lifecycle import program

    return program.failure(message, "/process/args/0")


def _poststart(runtime: "Runtime", state: "State", directory: "StateDir", pid: int, held: "Held | None") -> None:
    """Hooks after the program runs; one that fails stops the container (runtime.md, "Lifecycle")."""
    try:
        hooks.run(state.hooks, "poststart", state.hook_document(status.RUNNING, pid), state.bundle, held)
    except HookError:
        _destroy(runtime, state.container_id, directory)
        raise


def _destroy(runtime: "Runtime", container_id: str, directory: "StateDir") -> None:
    """Stop the container and undo its creation, poststop hooks included."""
    from ociruntime.lifecycle import delete

    delete.destroy(runtime, container_id, directory)
