"""create: from a bundle to an init process that waits for start.

The order is about time as much as about safety: the init process is cloned as soon as its namespaces are known, and
the rest of the lowering, the limits and the seccomp program are made while it starts and mounts.
"""

import posix
from errno import ENOTDIR
from time import time_ns

from ociruntime import hooks, host, namespaces, process
from ociruntime.cgroups import manager
from ociruntime.config import load
from ociruntime.errors import ConfigError, OCIError, StepError, UnsupportedError, from_oserror
from ociruntime.jsontext import dumps
from ociruntime.lifecycle import lower as lowering
from ociruntime.lifecycle.undo import STATE, Undo
from ociruntime.log import rfc3339
from ociruntime.plan import SAME, SYNC_CREATED, SYNC_HOOKS, SYNC_LISTENER, SYNC_READY
from ociruntime.shim import calls, spawn
from ociruntime.shim.encode import encode
from ociruntime.shim.sync import Channel
from ociruntime.state import pidfile, status
from ociruntime.state.model import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.cgroups.cgroup import Cgroup
    from ociruntime.lifecycle.extras import Extras
    from ociruntime.lifecycle.runtime import Runtime
    from ociruntime.namespaces import Namespaces
    from ociruntime.plan import FdSource, Op
    from ociruntime.shim.sync import Message
    from ociruntime.state.store import StateDir

FD_BATCH = 64
SECCOMP_CACHE = ".seccomp"
MINIMUM_KERNEL = (5, 12)


class CreateRequest:
    """What create is asked for. bundle: absolute path. config_file: "" means config.json of the bundle.

    pid_file: path or "". preserve_fds: how many fds from 3 on go to the container. trace: collect the time of each op.
    fail_op, fail_errno: fault injection for tests, see shim.encode.
    """

    __slots__ = (
        "bundle",
        "config_file",
        "container_id",
        "fail_errno",
        "fail_op",
        "no_new_keyring",
        "no_pivot",
        "pid_file",
        "preserve_fds",
        "trace",
    )

    def __init__(
        self,
        bundle: str,
        container_id: str,
        *,
        config_file: str = "",
        pid_file: str = "",
        preserve_fds: int = 0,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        trace: bool = False,
        fail_op: int = -1,
        fail_errno: int = 5,
    ) -> None:
        self.bundle = bundle
        self.container_id = container_id
        self.config_file = config_file
        self.pid_file = pid_file
        self.preserve_fds = preserve_fds
        self.no_pivot = no_pivot
        self.no_new_keyring = no_new_keyring
        self.trace = trace
        self.fail_op = fail_op
        self.fail_errno = fail_errno


class Created:
    """The result. pidfd: the init process, the caller's to close. trace: (op, start ns, end ns) if asked for."""

    __slots__ = ("pid", "pidfd", "state", "trace")

    def __init__(self, state: State, pidfd: int, trace: "list[tuple[Op, int, int]]") -> None:
        self.state = state
        self.pid = state.pid
        self.pidfd = pidfd
        self.trace = trace


def create(runtime: "Runtime", request: CreateRequest) -> Created:
    """Create a container. On any failure nothing is left: process, cgroup, mount, state directory, pid file."""
    config, data = load.load(request.config_file or f"{request.bundle}/config.json")
    facts = host.probe(runtime.rootless)
    if facts.kernel < MINIMUM_KERNEL:
        raise UnsupportedError("a container", "Linux 5.12 or later (mount_setattr)")
    rootfs = _rootfs(config, request.bundle)
    _refuse_terminal(config)
    spaces = namespaces.lower(config, facts)
    extras = _extras(config, facts, spaces, request.container_id)
    cgroup = manager.choose(facts, config, request.container_id, driver=runtime.cgroup_manager)
    undo = Undo()
    directory = runtime.states.reserve(request.container_id)
    undo.add(STATE, directory.remove)
    try:
        creation = _Creation(runtime, request, config, facts, spaces, cgroup, directory, undo, rootfs, extras)
        return creation.run(data)
    except BaseException:
        undo.run(runtime.log)
        raise
    finally:
        directory.close()


def _rootfs(config: "dict[str, Any]", bundle: str) -> "tuple[str, tuple[int, int]]":
    """The root file system, which must be a directory: (absolute path, its device and inode for the init process)."""
    path: str = config["root"]["path"]
    if not path.startswith("/"):
        path = f"{bundle}/{path}" if path != "." else bundle
    try:
        facts = posix.stat(path)
    except OSError as error:
        raise ConfigError("the root file system", pointer="/root/path", path=path, errno=error.errno or 0) from None
    if facts.st_mode & 0o170000 != 0o040000:
        raise ConfigError("the root file system", pointer="/root/path", path=path, errno=ENOTDIR)
    device = facts.st_dev
    return path, (posix.major(device) << 32 | posix.minor(device), facts.st_ino)


def _extras(
    config: "dict[str, Any]", facts: "host.Host", spaces: "Namespaces", container_id: str
) -> "Extras | None":
    linux = config.get("linux") or {}
    if linux.get("intelRdt") is None and not linux.get("netDevices"):
        return None
    from ociruntime.lifecycle import extras

    return extras.lower(config, facts, spaces, container_id)


def _refuse_terminal(config: "dict[str, Any]") -> None:
    if (config.get("process") or {}).get("terminal") is True:
        raise UnsupportedError(
            "process.terminal", "a later version of ociruntime", pointer="/process/terminal", hint="set it to false"
        )


class _Creation:
    """One create in progress."""

    __slots__ = (
        "cgroup",
        "channel",
        "config",
        "directory",
        "extras",
        "facts",
        "log",
        "lowered",
        "pid",
        "pidfd",
        "request",
        "root_id",
        "rootfs",
        "runtime",
        "sources",
        "spaces",
        "state",
        "trace",
        "undo",
    )

    def __init__(
        self,
        runtime: "Runtime",
        request: CreateRequest,
        config: "dict[str, Any]",
        facts: "host.Host",
        spaces: "Namespaces",
        cgroup: "Cgroup",
        directory: "StateDir",
        undo: Undo,
        rootfs: "tuple[str, tuple[int, int]]",
        extras: "Extras | None",
    ) -> None:
        self.runtime = runtime
        self.log = runtime.log
        self.request = request
        self.config = config
        self.facts = facts
        self.spaces = spaces
        self.cgroup = cgroup
        self.directory = directory
        self.undo = undo
        self.rootfs, self.root_id = rootfs
        self.extras = extras
        self.pid = 0
        self.pidfd = -1
        self.trace: list[tuple[Op, int, int]] = []
        self.sources: list[FdSource] = []

    def run(self, data: bytes) -> Created:
        """The sequence. Every step that makes something registers its removal at once."""
        request, cgroup = self.request, self.cgroup
        cgroup.check_free()
        self.state = self._first_state()
        # Written before any cgroup or process exists: a create that is killed leaves something delete can clean.
        self.directory.save_config(data)
        self.directory.save(self.state)
        self._make_fifo()
        self.undo.add("the cgroup", self._remove_cgroup)
        cgroup.create()
        if self.extras is not None:
            self.extras.make(self.state, self.directory, self.undo)
        self.channel = Channel()
        try:
            self._spawn()
            if self.extras is not None:
                self.extras.attach(self.pid)
            self.lowered = lowering.lower(
                self.config,
                self.facts,
                self.spaces,
                cgroup,
                root_id=self.root_id,
                bundle=request.bundle,
                container_id=request.container_id,
                fifo=f"{self.directory.path}/exec.fifo",
                hook_states=self._hook_states_inside(),
                no_pivot=request.no_pivot,
                no_new_keyring=request.no_new_keyring,
            )
            for text in self.lowered.warnings:
                self.log.warning(text)
            # On v1 the device list must be whole before the init process joins; it joins with the first op.
            cgroup.apply(((self.config.get("linux") or {}).get("resources")) or {})
            self._send_plan()
            self._converse()
        finally:
            self.channel.close()
        for text in cgroup.warnings:
            self.log.warning(text)
        self.undo.forget()
        return Created(self.state, self.pidfd, self.trace)

    def _first_state(self) -> State:
        linux = self.config.get("linux") or {}
        return State(
            self.request.container_id,
            bundle=self.request.bundle,
            rootfs=self.rootfs,
            created=rfc3339(time_ns(), True),
            boot_id=status.boot_id(),
            owner=posix.geteuid(),
            cgroup=self.cgroup.saved(),
            freezer=self.cgroup.freezer_file(),
            namespaces={item["type"]: item.get("path") or "" for item in linux.get("namespaces") or ()},
            rootless=self.facts.rootless,
            systemd=self.runtime.cgroup_manager == "systemd",
            private_pid_ns=self.spaces.new("pid"),
            annotations=self.config.get("annotations") or {},
            hooks=hooks.later(self.config),
            startable=self.config.get("process") is not None,
        )

    def _make_fifo(self) -> None:
        uid, gid = self.spaces.container_root()
        self.directory.make_fifo(posix.geteuid() if uid is None else uid, posix.getegid() if gid is None else gid)

    # -- the init process

    def _spawn(self) -> None:
        """Clone the init process, directly or through an intermediate; write the id maps of a new user namespace."""
        spaces, channel = self.spaces, self.channel
        cgroup_fd = self._cgroup_fd()
        joins = self._open_joins()
        # An execve after clone would cost a user namespace's first process its capabilities: its ids are not mapped yet.
        intermediate = bool(joins) or spaces.new_time or spaces.new("user")
        try:
            if intermediate:
                # Root of a joined user namespace may not write to the cgroup: there the intermediate is in it already.
                first = cgroup_fd if spaces.joined("user") else -1
                self.pid, self.pidfd = spawn.spawn_init(
                    channel, 0, cgroup_fd=first, preserve_fds=self.request.preserve_fds
                )
                self.undo.add("the intermediate process", self._kill)
                channel.send_boot(
                    joins=joins,
                    clone_flags=spaces.clone_flags,
                    time=spaces.new_time,
                    offsets=spaces.time_offsets,
                    cgroup_fd=-1 if first >= 0 else cgroup_fd,
                    intermediate=True,
                    keep_groups=process.keeps_groups(self.config),
                )
                self._await_init()
            else:
                self.pid, self.pidfd = spawn.spawn_init(
                    channel, spaces.clone_flags, cgroup_fd=cgroup_fd, preserve_fds=self.request.preserve_fds
                )
                self.undo.add("the init process", self._kill)
                channel.send_boot()
        except StepError as error:
            raise self._spawn_error(error) from None
        finally:
            if cgroup_fd >= 0:
                posix.close(cgroup_fd)
            for _, fd in joins:
                posix.close(fd)
        if spaces.uid_map:
            self._write_maps()

    def _cgroup_fd(self) -> int:
        path = self.cgroup.clone_directory()
        if not path:
            return -1
        try:
            return posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except OSError as error:
            raise from_oserror(error, "cannot open the cgroup", pointer="/linux/cgroupsPath", step="cgroup") from None

    def _open_joins(self) -> "list[tuple[int, int]]":
        """Open every namespace to join before any is joined, and check that each is of the type it is said to be."""
        joins: list[tuple[int, int]] = []
        try:
            for flag, path, pointer in self.spaces.joins:
                try:
                    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
                except OSError as error:
                    raise ConfigError(
                        "cannot open the namespace", pointer=pointer, path=path, errno=error.errno or 0
                    ) from None
                joins.append((flag, fd))
                try:
                    actual = calls.namespace_type(fd)
                except StepError:
                    actual = 0
                if actual != flag:
                    what = "a namespace of another type" if actual else "no namespace"
                    raise ConfigError(f"the path leads to {what}", pointer=pointer, path=path)
        except BaseException:
            for _, fd in joins:
                posix.close(fd)
            raise
        return joins

    def _await_init(self) -> None:
        """The intermediate hands over the init process it cloned, and exits."""
        message = self.channel.receive()
        if message is None or message.kind != "init" or len(message.fds) != 1:
            if message is not None and message.kind == "error":
                raise self._boot_error(message)
            raise StepError("the intermediate process died", step="namespaces")
        intermediate, intermediate_fd = self.pid, self.pidfd
        self.pid, self.pidfd = message.value, message.fds[0]
        posix.close(intermediate_fd)
        try:
            posix.waitpid(intermediate, 0)
        except ChildProcessError:
            pass  # the caller ignores SIGCHLD: the kernel has reaped it
        if self.spaces.joined("user"):
            maps = [status.read_file(f"/proc/{self.pid}/{name}", 1 << 16) for name in ("uid_map", "gid_map")]
            for text in namespaces.check_joined(self.spaces, *(text.decode("ascii") for text in maps)):
                self.log.warning(text)

    def _boot_error(self, message: "Message") -> OCIError:
        pointer = "/linux/namespaces"
        if message.call == "setns" and message.value < len(self.spaces.joins):
            _, path, pointer = self.spaces.joins[message.value]
            return StepError("cannot join the namespace", pointer=pointer, call="setns", errno=message.errno, path=path)
        if "timens" in message.detail or message.detail == "time":
            pointer = "/linux/timeOffsets"
        return StepError("", step="namespaces", pointer=pointer, call=message.call, errno=message.errno, path=message.detail)

    def _remove_cgroup(self) -> None:
        """The cgroup was empty before: whatever is in it (a hook's daemon, say) came with this container."""
        self.cgroup.kill()
        self.cgroup.remove()

    def _spawn_error(self, error: StepError) -> OCIError:
        if error.call == "clone3" and not error.pointer:
            error.step, error.pointer = "namespaces", "/linux/namespaces"
            if error.errno == 28:  # ENOSPC
                error.hint = "a limit of user.max_*_namespaces (or of nesting) is reached"
            elif error.errno == 1 and self.facts.euid:
                error.hint = "an unprivileged runtime needs a new user namespace in /linux/namespaces"
        return error

    def _write_maps(self) -> None:
        """The parent writes the maps; the init process waits for its plan meanwhile. Source: user_namespaces(7)."""
        files = [("uid_map", self.spaces.uid_map, "/linux/uidMappings"), ("gid_map", self.spaces.gid_map, "/linux/gidMappings")]
        if self.spaces.deny_setgroups:
            files.insert(0, ("setgroups", "deny", "/linux/gidMappings"))
        for name, text, pointer in files:
            path = f"/proc/{self.pid}/{name}"
            try:
                fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
                try:
                    posix.write(fd, text.encode("ascii"))
                finally:
                    posix.close(fd)
            except OSError as error:
                raise StepError(
                    "cannot write the id map", pointer=pointer, call="write", errno=error.errno or 0, path=path
                ) from None

    def _kill(self) -> None:
        if self.pidfd >= 0:
            _kill_and_reap(self.pid, self.pidfd)
            self.pidfd = -1

    def _hook_states_inside(self) -> "tuple[str, str]":
        """The state for hooks in the container's namespaces, at create and at start: with the pid as it is in there."""
        if not self.config.get("hooks"):
            return "", ""
        pid = 1 if self.spaces.new("pid") else self.pid
        if self.spaces.joined("pid"):
            for line in status.read_file(f"/proc/{self.pid}/status").split(b"\n"):
                if line.startswith(b"NSpid:"):
                    pid = int(line.split()[-1])
        document = self.state.hook_document
        return dumps(document("creating", pid)), dumps(document("created", pid))

    # -- the conversation

    def _send_plan(self) -> None:
        request = self.request
        block, self.sources = encode(
            self.lowered.ops,
            preserve_fds=request.preserve_fds,
            trace=request.trace or self.log.debugging,
            fail_op=request.fail_op,
            fail_errno=request.fail_errno,
        )
        block_fd = spawn.sealed_block("plan", block)
        fds: list[int] = []
        try:
            fds = self._open_batch(0)
            self.channel.send_plan(block_fd, fds)
        except StepError as error:
            raise self._died(error) from None
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
        try:
            if source.kind == "tree":
                return calls.open_tree(path, recursive=source.recursive, nofollow=source.nofollow)
            if source.kind == "append":
                return hooks.open_output(path)
            flags = posix.O_WRONLY if source.kind == "write" else posix.O_PATH
            return posix.open(path, flags | posix.O_CLOEXEC)
        except (OSError, StepError) as error:
            for op in self.lowered.ops:
                if op.fd is source:
                    raise StepError(
                        "cannot open the source", step=op.kind, pointer=op.pointer, errno=error.errno or 0, path=path
                    ) from None
            raise

    def _converse(self) -> None:
        """Answer the init process until it waits for start."""
        channel = self.channel
        while True:
            message = channel.receive()
            if message is None:
                raise self._died(None)
            kind = message.kind
            if kind == "sync":
                if self._answer(message):
                    return
            elif kind == "error":
                raise self._op_error(message)
            elif kind == "warning":
                self.log.warning(f"{self._op_error(message)}, ignoring")
            elif kind == "trace":
                op = self.lowered.ops[message.op]
                self.trace.append((op, message.value, message.value2))
                if self.log.debugging:
                    self.log.debug(f"{op!r}: {(message.value2 - message.value) // 1000} us")
            elif kind == "fds":
                fds = self._open_batch(message.value)
                try:
                    channel.send_fds(message.value, fds)
                finally:
                    for fd in fds:
                        posix.close(fd)
            else:
                raise StepError(f"unexpected {kind}", step="conversation")

    def _answer(self, message: "Message") -> bool:
        """One stop of the init process; True at the last one."""
        point = message.value
        if point == SYNC_HOOKS:
            self._run_hooks()
            self.channel.go()
        elif point == SYNC_READY:
            self._rlimits()
            self._send_ready()
        elif point == SYNC_LISTENER:
            self._hand_over(message.value2)
        elif point == SYNC_CREATED:
            self._commit()
            self.channel.go()
            return True
        else:
            raise StepError(f"unexpected stop {point}", step="conversation")
        return False

    def _run_hooks(self) -> None:
        document = self.state.hook_document("creating", self.pid)
        self.undo.add_first("what poststop hooks remove", self._poststop)
        for kind in lowering.RUNTIME_HOOKS:
            hooks.run(self.config["hooks"], kind, document, self.request.bundle)

    def _poststop(self) -> None:
        """A create that fails after its first hook: everything else is gone by now."""
        document = self.state.hook_document("stopped", 0)
        for error in hooks.run_all(self.config["hooks"], "poststop", document, self.request.bundle):
            self.log.warning(f"{error}, ignoring")

    def _rlimits(self) -> None:
        """By the parent, because root of a user namespace could not raise any."""
        for pointer, resource, soft, hard in self.lowered.process.rlimits:
            ret = calls.prlimit(self.pid, resource, soft, hard)
            if ret < 0:
                hint = "raising a hard limit needs CAP_SYS_RESOURCE" if ret == -1 else ""
                raise StepError("cannot set the limit", pointer=pointer, call="prlimit", errno=-ret, hint=hint)

    def _send_ready(self) -> None:
        request = self.lowered.seccomp
        if request is None:
            self.channel.go()
            return
        from ociruntime.seccomp import compile as seccomp

        program = seccomp.program(request, self.runtime.seccomp_cache())
        fd = spawn.sealed_block("seccomp", program)
        try:
            self.channel.go([fd])
        finally:
            posix.close(fd)

    def _hand_over(self, number: int) -> None:
        """The listener of the seccomp filter, which will be this fd of the init process, goes to the agent."""
        request = self.lowered.seccomp
        if request is None:
            raise StepError("a listener without a filter", step="conversation")
        from ociruntime.seccomp import notify

        message = notify.document(request, self.pid, self.state.hook_document("creating", self.pid))
        notify.hand_over(request, self.channel, self.pidfd, number, message, self._broken)

    def _broken(self, message: "Message | None") -> OCIError:
        return self._died(None) if message is None else self._op_error(message)

    def _commit(self) -> None:
        state = self.state
        state.pid = self.pid
        state.start_time = status.process_stat(self.pid)[1]
        state.phase = "created"
        state.cgroup = self.cgroup.saved()  # rootless, some of it may not have come about
        state.freezer = self.cgroup.freezer_file()
        self.directory.save(state)
        if self.request.pid_file:
            path = self.request.pid_file
            pidfile.write(path, self.pid)
            self.undo.add("the pid file", lambda: posix.unlink(path))

    # -- what went wrong

    def _op_error(self, message: "Message") -> OCIError:
        """A report of the init process in words: which field, which call, which object."""
        if message.op < 0 or message.op >= len(self.lowered.ops):
            return StepError("", step="init", call=message.call, errno=message.errno, path=message.detail)
        op = self.lowered.ops[message.op]
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
        if op.kind == "mount" and message.errno == 19:  # ENODEV
            hint = "this kernel does not know the file system type"
        elif op.kind == "device" and message.call == "existing node":
            reason = "another kind of file is there already"
        elif op.kind in ("scheduler", "ioprio", "personality", "mempolicy"):
            from ociruntime import scheduling

            reason, hint = scheduling.explain(op, message.errno)
        elif op.kind == "symlink" and message.errno == 17 and op.flags & SAME:  # EEXIST
            reason = "something else than this symlink is there already"
        elif op.kind == "seccomp" and message.errno == 13:  # EACCES
            hint = "set noNewPrivileges, or give the runtime CAP_SYS_ADMIN"
        elif op.kind == "seccomp" and message.errno == 16:  # EBUSY
            hint = "the runtime itself is under a filter with a listener"
        return StepError(
            reason, step=op.kind, pointer=op.pointer, call=message.call, errno=message.errno, path=path, hint=hint
        )

    def _died(self, error: "StepError | None") -> OCIError:
        """The init process is gone without a word: killed."""
        # It may have reported before our message could not be delivered.
        if error is not None:
            try:
                message = self.channel.receive(0)
                while message is not None:
                    if message.kind == "error":
                        return self._op_error(message)
                    message = self.channel.receive(0)
            except StepError:
                return error  # nothing was said: it lives, and our message was at fault
        outcome = ""
        if self.pidfd >= 0:
            _, code = _kill_and_reap(self.pid, self.pidfd)
            self.pidfd = -1
            outcome = f": {hooks.outcome(code)}"
        if self.cgroup.oom_kills():
            return StepError("container init was OOM-killed (memory limit too low?)", pointer="/linux/resources/memory/limit")
        return StepError(f"the init process died{outcome}", step="init")


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
