"""The process that a plan is for: an init process (create) or an exec process (exec). Starting it, and talking with it.

What is asked at its stops is answered by whoever made it; what every plan needs is here: fds, limits, seccomp program,
and the words for what failed.
"""

import posix
from errno import EACCES, EINVAL, ENOSPC, EPERM, EPIPE

from ociruntime import hooks
from ociruntime.errors import ConfigError, OCIError, StepError
from ociruntime.files import read_if_possible
from ociruntime.plan import HOST_TREE, SAME
from ociruntime.shim import calls, spawn
from ociruntime.shim.encode import encode
from ociruntime.shim.sync import Channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ociruntime.cgroups.cgroup import Cgroup
    from ociruntime.lifecycle.idmaps import IdMaps
    from ociruntime.log import Log
    from ociruntime.plan import FdSource, Op
    from ociruntime.process import Process
    from ociruntime.seccomp.compile import SeccompRequest
    from ociruntime.shim.sync import Message

FD_BATCH = 64
# Kinds of ops whose EPERM, EACCES, EINVAL and ENOSPC refusals knows.
_EXPLAINED = ("mount", "remount", "bind", "pin", "attr", "readonly", "mask", "unshare")


class Child:
    """One process on its way into a container.

    pid, pidfd: as the caller sees it; the pidfd is ours until somebody takes it. ops: its plan. trace: (op, start ns,
    end ns) if asked for. unbindable: whether the caller has such mounts, once that was asked. cgroup: to tell whether
    want of memory killed it. what: its name in messages.
    """

    __slots__ = ("cgroup", "channel", "idmaps", "log", "ops", "pid", "pidfd", "sources", "trace", "unbindable", "what")

    def __init__(self, log: "Log", cgroup: "Cgroup | None" = None, what: str = "init process") -> None:
        self.log = log
        self.cgroup = cgroup
        self.what = what
        self.channel = Channel()
        self.pid = 0
        self.pidfd = -1
        self.ops: Sequence[Op] = ()
        self.sources: list[FdSource] = []
        self.trace: list[tuple[Op, int, int]] = []
        self.idmaps: IdMaps | None = None
        self.unbindable: bool | None = None

    def spawn(self, clone_flags: int, *, cgroup_fd: int = -1, preserve_fds: int = 0) -> None:
        """Start the sealed executable. Raises StepError (clone3)."""
        self.pid, self.pidfd = spawn.spawn_init(
            self.channel, clone_flags, cgroup_fd=cgroup_fd, preserve_fds=preserve_fds
        )

    def await_init(self, describe: "Callable[[Message], OCIError]") -> None:
        """The intermediate hands over the process it has cloned, and exits. describe: an error from its report."""
        message = self.channel.receive()
        if message is None or message.kind != "init" or len(message.fds) != 1:
            if message is not None and message.kind == "error":
                raise describe(message)
            raise StepError("the intermediate process died", step="namespaces")
        intermediate, intermediate_fd = self.pid, self.pidfd
        self.pid, self.pidfd = message.value, message.fds[0]
        posix.close(intermediate_fd)
        try:
            posix.waitpid(intermediate, 0)
        except ChildProcessError:
            pass  # the caller ignores SIGCHLD: the kernel has reaped it

    def kill(self) -> None:
        """SIGKILL and reap, if it is still ours."""
        if self.pidfd >= 0:
            pidfd, self.pidfd = self.pidfd, -1
            _kill_and_reap(self.pid, pidfd)

    def take_pidfd(self) -> int:
        """The pidfd, from now on the caller's."""
        pidfd, self.pidfd = self.pidfd, -1
        return pidfd

    def close(self) -> None:
        """End the conversation."""
        self.channel.close()
        if self.idmaps is not None:
            self.idmaps.close()

    # -- the conversation

    def send_plan(
        self, ops: "Sequence[Op]", *, preserve_fds: int = 0, trace: bool = False, fail_op: int = -1, fail_errno: int = 5
    ) -> None:
        """Let it run ops. fail_op, fail_errno: fault injection, see shim.encode."""
        self.ops = ops
        block, self.sources = encode(
            ops,
            preserve_fds=preserve_fds,
            trace=trace or self.log.debugging,
            fail_op=fail_op,
            fail_errno=fail_errno,
        )
        if any(source.kind == "userns" for source in self.sources):
            self._maps().hold()  # before the plan begins
        block_fd = spawn.sealed_block("plan", block)
        fds: list[int] = []
        try:
            fds = self._open_batch(0)
            self.channel.send_plan(block_fd, fds)
        except StepError as error:
            raise self.died(error) from None
        finally:
            posix.close(block_fd)
            for fd in fds:
                posix.close(fd)

    def _open_batch(self, batch: int) -> "list[int]":
        """Open what the ops of one batch need. Paths are the config's, resolved by the host, before any root change."""
        fds: list[int] = []
        try:
            for index in range(batch * FD_BATCH, min(len(self.sources), (batch + 1) * FD_BATCH)):
                fds.append(self._open(self.sources[index]))
        except BaseException:
            for fd in fds:
                posix.close(fd)
            raise
        return fds

    def _open(self, source: "FdSource") -> int:
        path = source.path
        if source.idmap is not None:
            return self._id_mapped(source)
        try:
            if source.kind == "tree":
                open_tree = calls.open_tree_apart if self._apart(source) else calls.open_tree
                return open_tree(path, recursive=source.recursive, nofollow=source.nofollow)
            if source.kind == "append":
                return hooks.open_output(path)
            flags = posix.O_WRONLY if source.kind == "write" else posix.O_PATH
            return posix.open(path, flags | posix.O_CLOEXEC)
        except (OSError, StepError) as error:
            for op in self.ops:
                if op.fd is source:
                    from ociruntime.lifecycle import refusals

                    number = error.errno or 0
                    raise StepError(
                        "cannot open the source",
                        step=op.kind,
                        pointer=op.pointer,
                        errno=number,
                        path=path,
                        hint=refusals.hint(op, "open_tree", number) if source.kind == "tree" else "",
                    ) from None
            raise

    def _apart(self, source: "FdSource") -> bool:
        """Whether a tree is taken from a copy of our mount namespace, as the init process would: where some mount is
        unbindable, it would be missing here, or its place could not be opened. Not when binds stay peers of the host's.
        """
        if self.unbindable is None:
            self.unbindable = b" unbindable " in read_if_possible("/proc/self/mountinfo")
        if not self.unbindable:
            return False
        return all(op.kind != "bind" or op.flags & HOST_TREE for op in self.ops if op.fd is source)

    def _maps(self) -> "IdMaps":
        from ociruntime.lifecycle import idmaps

        if self.idmaps is None:
            self.idmaps = idmaps.IdMaps(self.pid)
        return self.idmaps

    def _id_mapped(self, source: "FdSource") -> int:
        try:
            return self._maps().mount(source)
        except StepError as error:
            for op in self.ops:
                if op.fd is source:
                    error.step, error.pointer = op.kind, op.pointer + error.pointer
            raise

    def converse(self, answer: "Callable[[Message], bool]") -> None:
        """Listen until answer() says that a stop was the last one. Raises what the process reports."""
        while True:
            message = self.channel.receive()
            if message is None:
                raise self.died(None)
            if message.kind == "sync":
                if answer(message):
                    return
            else:
                self._hear(message)

    def until_exec(self) -> None:
        """Listen until execve has closed the process's end. Raises what it reports instead."""
        message = self.channel.receive()
        while message is not None:
            self._hear(message)
            message = self.channel.receive()

    def _hear(self, message: "Message") -> None:
        """Any message but a stop."""
        kind = message.kind
        if kind == "error":
            raise self.op_error(message)
        if kind == "warning":
            self.log.warning(f"{self.op_error(message)}, ignoring")
        elif kind == "trace":
            op = self.ops[message.op]
            self.trace.append((op, message.value, message.value2))
            if self.log.debugging:
                self.log.debug(f"{op!r}: {(message.value2 - message.value) // 1000} us")
        elif kind == "fds":
            fds = self._open_batch(message.value)
            try:
                self.channel.send_fds(message.value, fds)
            finally:
                for fd in fds:
                    posix.close(fd)
        else:
            raise StepError(f"unexpected {kind}", step="conversation")

    # -- answers that every plan needs

    def ready(self, process: "Process", filters: "SeccompRequest | None", cache: str) -> None:
        """Answer SYNC_READY: limits (by the parent, because root of a user namespace could not raise any), program."""
        for pointer, resource, soft, hard in process.rlimits:
            ret = calls.prlimit(self.pid, resource, soft, hard)
            if ret < 0:
                hint = "raising a hard limit needs CAP_SYS_RESOURCE" if ret == -1 else ""
                raise StepError("cannot set the limit", pointer=pointer, call="prlimit", errno=-ret, hint=hint)
        if filters is None:
            self.channel.go()
            return
        from ociruntime.seccomp import compile as seccomp

        fd = spawn.sealed_block("seccomp", seccomp.program(filters, cache))
        try:
            self.channel.go([fd])
        finally:
            posix.close(fd)

    def hand_over(self, filters: "SeccompRequest | None", number: int, state: "dict[str, object]") -> None:
        """Answer SYNC_LISTENER: the listener of the filter, which will be its fd `number`, goes to the agent."""
        if filters is None:
            raise StepError("a listener without a filter", step="conversation")
        from ociruntime.seccomp import notify

        message = notify.document(filters, self.pid, state)
        notify.hand_over(filters, self.channel, self.pidfd, number, message, self._broken)

    def _broken(self, message: "Message | None") -> OCIError:
        return self.died(None) if message is None else self.op_error(message)

    # -- what went wrong

    def op_error(self, message: "Message") -> OCIError:
        """A report of the init process in words: which field, which call, which object."""
        if message.op < 0 or message.op >= len(self.ops):
            return StepError("", step="init", call=message.call, errno=message.errno, path=message.detail)
        op = self.ops[message.op]
        if op.kind == "hook" and op.strings:
            _, _, kind, index = op.pointer.split("/")
            return hooks.error_from_message(message, kind, int(index), str(op.strings[0]))
        reason, hint, path = "", "", message.detail
        if message.call == "ordinary directory":
            return ConfigError(f"'{path}' must be mounted on ordinary directory", pointer=op.pointer, path=path)
        if op.kind == "lookup" and message.call != "fault injection":
            if message.call == "PATH search":
                reason = "executable file not found in $PATH"
                return StepError(
                    reason, step="exec", pointer=op.pointer, path=path, errno=0 if message.errno == 2 else message.errno
                )
            return StepError("cannot execute", step="exec", pointer=op.pointer, path=path, errno=message.errno)
        if op.kind == "exec" and message.call in ("execve", "interpreter", "machine"):
            from ociruntime.lifecycle import program

            return program.failure(message, f"{op.pointer}/0")
        if op.kind == "mount" and message.call == "id mapping":
            from ociruntime.lifecycle import idmaps

            failure = StepError("", call="mount_setattr", errno=message.errno)
            failure = idmaps.refused(failure, str(op.strings[0]), path=path)
            failure.step, failure.pointer = op.kind, op.pointer
            return failure
        if op.kind in ("mount", "remount") and message.call in ("fsopen", "fsconfig", "fsmount"):
            reason = f"cannot {op.kind} '{op.strings[1]!s}'"  # the object of these calls is a type or an option
        if message.errno in (EPERM, EACCES, EINVAL, ENOSPC) and op.kind in _EXPLAINED:
            from ociruntime.lifecycle import refusals

            known = message.errno != EACCES
            hint = refusals.hint(op, message.call, message.errno) if known else refusals.no_rights(self.pid)
        elif op.kind == "mount" and message.errno == 19:  # ENODEV
            hint = "this kernel does not know the file system type"
        elif op.kind in ("device", "device_bind"):
            from ociruntime.lifecycle import refusals

            reason, hint = refusals.device(message.call, message.errno)
        elif op.kind == "credentials" and message.errno == EINVAL:
            from ociruntime.lifecycle import refusals

            return refusals.unmapped(op, message.call, path, self.pid)
        elif op.kind == "oom_score_adj" and message.errno == 13:  # EACCES
            hint = "less than the caller's own score needs CAP_SYS_RESOURCE on the host"
        elif op.kind in ("scheduler", "ioprio", "personality", "mempolicy"):
            from ociruntime import scheduling

            reason, hint = scheduling.explain(op, message.errno)
        elif op.kind == "symlink" and message.errno == 17 and op.flags & SAME:  # EEXIST
            reason = "something else than this symlink is there already"
        elif op.kind == "wait_start" and message.errno == 24:  # EMFILE
            hint = "RLIMIT_NOFILE leaves no file descriptor to wait for start with"
        elif op.kind == "wait_start" and message.call == "open":
            hint = "a seccomp profile must let the program be started: read, write, openat, close, execve"
        elif op.kind == "seccomp" and message.errno == 13:  # EACCES
            hint = "set noNewPrivileges, or give the runtime CAP_SYS_ADMIN"
        elif op.kind == "seccomp" and message.errno == 16:  # EBUSY
            hint = "the runtime itself is under a filter with a listener"
        return StepError(
            reason, step=op.kind, pointer=op.pointer, call=message.call, errno=message.errno, path=path, hint=hint
        )

    def lost(self, error: StepError) -> OCIError:
        """What is behind the failure of a call: the end of the process, if nobody was there to hear us."""
        return self.died(error) if error.errno == EPIPE and error.call == "sendmsg" else error

    def died(self, error: "StepError | None") -> OCIError:
        """The init process is gone without a word: killed."""
        # It may have reported before our message could not be delivered.
        if error is not None:
            try:
                message = self.channel.receive(0)
                while message is not None:
                    if message.kind == "error":
                        return self.op_error(message)
                    message = self.channel.receive(0)
            except StepError:
                return error  # nothing was said: it lives, and our message was at fault
        outcome = hint = ""
        if self.pidfd >= 0:
            _, code = _kill_and_reap(self.pid, self.take_pidfd())
            outcome = f": {hooks.outcome(code)}"
            if code == 1 << 8:
                hint = "it had no memory to say why: see the limit of its cgroup, and disableOOMKiller"
        if self.cgroup is not None and self.cgroup.oom_kills():
            return StepError(
                "container init was OOM-killed (memory limit too low?)", pointer="/linux/resources/memory/limit"
            )
        return StepError(f"the {self.what} died{outcome}", step="init", hint=hint)


def _kill_and_reap(pid: int, pidfd: int) -> "tuple[int, int]":
    """SIGKILL by pidfd and wait: (pid, wait status)."""
    from _signal import pidfd_send_signal

    try:
        pidfd_send_signal(pidfd, 9)
    except ProcessLookupError:
        pass
    try:
        return posix.waitpid(pid, 0)
    except ChildProcessError:
        return pid, 0
    finally:
        posix.close(pidfd)
