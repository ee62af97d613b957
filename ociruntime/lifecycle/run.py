"""run: create and start; in the foreground also wait, pass signals on, and delete."""

import posix

from ociruntime.lifecycle import create, delete, foreground, start
from ociruntime.shim import calls
from ociruntime.state import pidfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.lifecycle.request import CreateRequest
    from ociruntime.lifecycle.runtime import Runtime


def run(runtime: "Runtime", request: "CreateRequest", *, keep: bool, subreaper: bool) -> int:
    """Create and start a container. Returns 0 when detached, else the program's exit status (128 + signal).

    keep: do not delete it afterwards. subreaper: orphans of a container without a PID namespace come to us.
    """
    if request.detach:
        _detached(runtime, request)
        return 0
    if subreaper:
        calls.set_subreaper(True)
    with foreground.Signals() as signals:
        request.also_held = signals.blocked()
        created = create.create(runtime, request)
        try:
            _start(runtime, request, created)
            code = foreground.wait(created.pid, created.pidfd, created.master, signals)
        finally:
            posix.close(created.pidfd)
            if created.master >= 0:
                posix.close(created.master)
        if not keep:
            delete.delete(runtime, request.container_id, force=True)
        else:
            from ociruntime.lifecycle import wait

            wait.remember(runtime, created.state, code)
        return code


def _detached(runtime: "Runtime", request: "CreateRequest") -> None:
    held = calls.Held() if request.interruptible else None
    done = False
    try:
        created = create.create(runtime, request, held)
        posix.close(created.pidfd)
        _start(runtime, request, created, held)
        done = True
    finally:
        if held is not None and not (done and request.final):
            held.close()


def _start(
    runtime: "Runtime",
    request: "CreateRequest",
    created: "create.Created",
    held: "calls.Held | None" = None,
) -> None:
    container_id = request.container_id
    try:
        start.start(
            runtime, container_id, notify_socket=request.notify_socket, foreground=not request.detach, held=held
        )
    except BaseException:
        if created.pid_file:
            pidfile.remove(created.pid_file)
        delete.delete(runtime, container_id, force=True)
        raise
