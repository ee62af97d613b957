"""A UTS namespace that is joined: a create that fails gives it the host and domain name back that it had.

They are others' too. What they are is known inside only, and nobody may set them any more once the init process has the
user's identity: so a process of its own, joined before, waits for how it ends. It is dropped when all went well; else,
the end of the runtime included, it sets them back, unless somebody has changed them meanwhile.
"""

import posix

from ociruntime.lifecycle.child import Child
from ociruntime.plan import CLONE_NEWUSER, CLONE_NEWUTS, SYNC_NAMES, op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ociruntime.errors import OCIError
    from ociruntime.log import Log
    from ociruntime.shim.sync import Message

# What has to be joined for it: the user namespace, because its root may set the names of a UTS namespace of its own.
KINDS = CLONE_NEWUTS | CLONE_NEWUSER


class Guard:
    """The process that waits. joins: (CLONE_NEW* flag, fd) of the UTS namespace, and of a user namespace that is joined
    with it; closed by the caller. describe: an error from its report.
    """

    __slots__ = ("child",)

    def __init__(
        self,
        log: "Log",
        config: "dict[str, Any]",
        joins: "Sequence[tuple[int, int]]",
        describe: "Callable[[Message], OCIError]",
    ) -> None:
        self.child = child = Child(log, what="process that keeps the host's name")
        try:
            child.spawn(0)
            child.channel.send_boot(joins=joins, intermediate=True)
            child.await_init(describe)
            child.send_plan(
                [op("guard_names", "/hostname", strings=(config.get("hostname") or "", config.get("domainname") or ""))]
            )
            child.converse(lambda message: message.value == SYNC_NAMES)
        except BaseException:
            child.kill()
            child.close()
            raise

    def drop(self) -> None:
        """All went well: the names stay as they are."""
        self.child.channel.go()
        self.restore()

    def restore(self) -> None:
        """Give back what was set since. Returns when that is done."""
        self.child.close()
        pidfd = self.child.take_pidfd()
        if pidfd >= 0:
            try:
                posix.waitpid(self.child.pid, 0)
            except ChildProcessError:
                pass  # the caller ignores SIGCHLD: nobody is left to wait for
            posix.close(pidfd)
