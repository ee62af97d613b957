"""create: from a bundle to an init process that waits for start.

The order is about time as much as about safety: the init process is cloned as soon as its namespaces are known, and
the rest of the lowering, the limits and the seccomp program are made while it starts and mounts.
"""

import posix
from errno import ENOTDIR
from time import monotonic_ns, time_ns

from ociruntime import hooks, host, namespaces, process
from ociruntime.cgroups import manager
from ociruntime.config import load, validate
from ociruntime.errors import ConfigError, OCIError, StepError, UnsupportedError, from_oserror
from ociruntime.files import read_if_possible
from ociruntime.jsontext import dumps
from ociruntime.lifecycle import lower as lowering
from ociruntime.lifecycle.child import Child
from ociruntime.lifecycle.sockets import FdSocket, check_console
from ociruntime.lifecycle.undo import STATE, Undo
from ociruntime.log import rfc3339
from ociruntime.plan import SYNC_CONSOLE, SYNC_CREATED, SYNC_HOOKS, SYNC_LISTENER, SYNC_READY
from ociruntime.shim import calls
from ociruntime.state import pidfile, status
from ociruntime.state.model import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.cgroups.cgroup import Cgroup
    from ociruntime.lifecycle.extras import Extras
    from ociruntime.lifecycle.names import Guard
    from ociruntime.lifecycle.request import CreateRequest
    from ociruntime.lifecycle.runtime import Runtime
    from ociruntime.namespaces import Namespaces
    from ociruntime.plan import Op
    from ociruntime.shim.sync import Message
    from ociruntime.state.store import StateDir

MINIMUM_KERNEL = (5, 12)


class Created:
    """The result. pidfd: the init process; master: its terminal's, or -1: the caller's to close.
    pid_file: "", or a file that was made and goes with the container if the command fails later.
    trace: (op, start ns, end ns) if asked for. phases: (what the parent had done, ns); both by CLOCK_MONOTONIC.
    """

    __slots__ = ("master", "phases", "pid", "pid_file", "pidfd", "state", "trace")

    def __init__(
        self,
        state: State,
        pidfd: int,
        master: int,
        pid_file: str,
        trace: "list[tuple[Op, int, int]]",
        phases: "list[tuple[str, int]]",
    ) -> None:
        self.state = state
        self.pid = state.pid
        self.pidfd = pidfd
        self.master = master
        self.pid_file = pid_file
        self.trace = trace
        self.phases = phases


def create(runtime: "Runtime", request: "CreateRequest", held: "calls.Held | None" = None) -> Created:
    """Create a container. On any failure nothing is left: process, cgroup, mount, state directory, pid file.

    held: the caller's, who also lets them go; else they are held here if request.interruptible.
    """
    phases = [("begin", monotonic_ns())]
    config, data = load.load(request.config_file or f"{request.bundle}/config.json")
    validate.name_ignored(config, runtime.log)
    phases.append(("config read and validated", monotonic_ns()))
    facts = host.probe(runtime.rootless)
    if facts.kernel < MINIMUM_KERNEL:
        raise UnsupportedError("a container", "Linux 5.12 or later (mount_setattr)")
    rootfs = _rootfs(config, request.bundle)
    terminal = (config.get("process") or {}).get("terminal") is True
    check_console(terminal, request.detach, request.console_socket)
    spaces = namespaces.lower(config, facts)
    extras = _extras(config, facts, spaces, request.container_id)
    cgroup = manager.choose(facts, config, request.container_id, driver=runtime.cgroup_manager)
    undo = Undo()
    own = held is None and request.interruptible
    done = False
    try:
        if own:
            held = calls.Held(request.also_held)
        directory = runtime.states.reserve(request.container_id)
        undo.add(STATE, directory.remove)
        try:
            creation = _Creation(
                runtime, request, config, facts, spaces, cgroup, directory, undo, rootfs, extras, phases, held
            )
            created = creation.run(data)
            done = True
            return created
        except BaseException:
            undo.run(runtime.log)
            raise
        finally:
            directory.close()
    finally:
        cgroup.abandon()
        # Of a signal that is let through now the caller dies, as if nothing had been made.
        if held is not None and own and not (done and request.final):
            held.close()


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


def _extras(config: "dict[str, Any]", facts: "host.Host", spaces: "Namespaces", container_id: str) -> "Extras | None":
    linux = config.get("linux") or {}
    if linux.get("intelRdt") is None and not linux.get("netDevices"):
        return None
    from ociruntime.lifecycle import extras

    return extras.lower(config, facts, spaces, container_id)


class _Creation:
    """One create in progress."""

    __slots__ = (
        "cgroup",
        "child",
        "config",
        "console",
        "directory",
        "extras",
        "facts",
        "held",
        "log",
        "lowered",
        "master",
        "phases",
        "pid_file",
        "pidfd_socket",
        "request",
        "root_id",
        "rootfs",
        "runtime",
        "spaces",
        "state",
        "undo",
    )

    def __init__(
        self,
        runtime: "Runtime",
        request: "CreateRequest",
        config: "dict[str, Any]",
        facts: "host.Host",
        spaces: "Namespaces",
        cgroup: "Cgroup",
        directory: "StateDir",
        undo: Undo,
        rootfs: "tuple[str, tuple[int, int]]",
        extras: "Extras | None",
        phases: "list[tuple[str, int]]",
        held: "calls.Held | None",
    ) -> None:
        self.phases = phases
        self.held = held
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
        self.master = -1
        self.pid_file = ""
        self.console: FdSocket | None = None
        self.pidfd_socket: FdSocket | None = None

    def _phase(self, name: str) -> None:
        self.phases.append((name, monotonic_ns()))

    def run(self, data: bytes) -> Created:
        """The sequence. Every step that makes something registers its removal at once."""
        request, cgroup = self.request, self.cgroup
        cgroup.check_free()
        if request.console_socket:
            self.console = FdSocket("--console-socket", request.console_socket, request.bundle)
            self.undo.add("the console socket's connection", self.console.close)
        if request.pidfd_socket:
            self.pidfd_socket = FdSocket("--pidfd-socket", request.pidfd_socket, request.bundle)
            self.undo.add("the pidfd socket's connection", self.pidfd_socket.close)
        self.state = self._first_state()
        # Written before any cgroup or process exists: a create that is killed leaves something delete can clean.
        self.directory.save_config(data)
        self.directory.save(self.state)
        self._phase("host facts, state directory, state written")
        self.undo.add("the cgroup", self._remove_cgroup)
        cgroup.begin()
        self._make_fifo()
        if request.notify_socket:
            self._offer_notify_socket()
        cgroup.create()
        if "systemd" in self.state.cgroup or cgroup.mark != self.state.cgroup.get("mark", ""):
            self.state.cgroup = cgroup.saved()  # only now it is known how to tell ours from the next one of that name
            self.directory.save(self.state)
        self._phase("cgroups made")
        if self.extras is not None:
            self.extras.make(self.state, self.directory, self.undo)
        guard = self._guard_names()
        self.child = child = Child(self.log, cgroup)
        if self.held is not None:
            child.channel.held = self.held.fd
        self.undo.add("the init process", child.kill)
        try:
            self._spawn()
            cgroup.receive(child.pid)
            self._phase("init process cloned, its executable running")
            if self.extras is not None:
                self.extras.attach(child.pid)
            if request.listen_fds and self.config.get("process") is not None:
                from ociruntime import listen_fds

                self.config = listen_fds.with_variables(
                    self.config, request.listen_fds, request.listen_names, self._pid_inside()
                )
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
                may_clone_mounts=not self.spaces.has("user") or calls.may_clone_mounts(),
            )
            for text in self.lowered.warnings:
                self.log.warning(text)
            self._phase("the rest lowered")
            # On v1 the device list must be whole before the init process joins; it joins with the first op.
            cgroup.apply(((self.config.get("linux") or {}).get("resources")) or {})
            if cgroup.mode == "v2" and self.spaces.unshare_cgroup and not cgroup.delegated:
                from ociruntime.cgroups import owner

                owner.give_to_user(cgroup, self.config, self._host_uid)
            self._phase("limits and device list written")
            child.send_plan(
                self.lowered.ops,
                preserve_fds=request.preserve_fds,
                trace=request.trace,
                fail_op=request.fail_op,
                fail_errno=request.fail_errno,
            )
            self._phase("plan encoded and sent")
            child.converse(self._answer)
            self._phase("init process ready, state and pid file written")
        except StepError as error:
            raise child.lost(error) from None
        finally:
            child.close()
            for socket in (self.console, self.pidfd_socket):
                if socket is not None:
                    socket.close()
        if self.held is not None:
            self.held.check()
        if guard is not None:
            guard.drop()
        for text in cgroup.warnings:
            self.log.warning(text)
        for text in cgroup.notes:
            # Without a PID namespace only a cgroup knows all processes.
            (self.log.debug if self.spaces.new("pid") else self.log.warning)(text)
        self.undo.forget()
        master, self.master = self.master, -1
        if self.log.debugging:
            for (_, start), (name, end) in zip(self.phases, self.phases[1:], strict=False):
                self.log.debug(f"{name}: {(end - start) // 1000} us")
        return Created(self.state, child.take_pidfd(), master, self.pid_file, child.trace, self.phases)

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
            no_new_keyring=self.request.no_new_keyring,
        )

    def _make_fifo(self) -> None:
        uid, gid = self.spaces.container_root()
        if self.facts.euid or self.facts.in_userns:
            uid = gid = None  # not ours to give away, and everybody may write to it
        self.directory.make_fifo(posix.geteuid() if uid is None else uid, posix.getegid() if gid is None else gid)

    def _offer_notify_socket(self) -> None:
        from ociruntime import notify_socket

        if not self.spaces.new("mount"):
            self.log.warning("NOTIFY_SOCKET: the container has no mount namespace of its own, ignoring")
            return
        try:
            notify_socket.prepare(self.directory.fd)
        except OSError as error:
            raise from_oserror(error, "cannot make the directory of the notify socket", step="state") from None
        self.config = notify_socket.with_socket(self.config, self.directory.path)

    # -- the init process

    def _spawn(self) -> None:
        """Clone the init process, directly or through an intermediate; write the id maps of a new user namespace."""
        spaces, child = self.spaces, self.child
        cgroup_fd = self._cgroup_fd()
        joins = self._open_joins()
        # An execve after clone would cost a user namespace's first process its capabilities: its ids are not
        # mapped yet.
        intermediate = bool(joins) or spaces.new_time or spaces.new("user")
        try:
            if intermediate:
                # Root of a joined user namespace may not write to the cgroup: there the intermediate is in it already.
                first = cgroup_fd if spaces.joined("user") else -1
                child.spawn(0, cgroup_fd=first, preserve_fds=self.request.preserve_fds)
                child.channel.send_boot(
                    joins=joins,
                    clone_flags=spaces.clone_flags,
                    time=spaces.new_time,
                    offsets=spaces.time_offsets,
                    cgroup_fd=-1 if first >= 0 else cgroup_fd,
                    intermediate=True,
                    keep_groups=process.keeps_groups(self.config),
                    keep_saved_id=bool(spaces.joined("user") and self.cgroup.join_sources()),
                    oom_score_adj=process.early_score(self.config.get("process") or {}, bool(spaces.joined("user"))),
                )
                child.await_init(self._boot_error)
                self._check_joined()
            else:
                child.spawn(spaces.clone_flags, cgroup_fd=cgroup_fd, preserve_fds=self.request.preserve_fds)
                child.channel.send_boot()
        except StepError as error:
            from ociruntime.lifecycle import refusals

            raise refusals.of_clone(error, self.facts, self.spaces) from None
        finally:
            if cgroup_fd >= 0:
                posix.close(cgroup_fd)
            for _, fd in joins:
                posix.close(fd)
        if spaces.new("user"):
            from ociruntime.lifecycle import user_maps

            user_maps.write(child.pid, spaces, self.facts, self.held)

    def _cgroup_fd(self) -> int:
        path = self.cgroup.clone_directory()
        if not path:
            return -1
        try:
            return posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except OSError as error:
            raise from_oserror(error, "cannot open the cgroup", pointer="/linux/cgroupsPath", step="cgroup") from None

    def _guard_names(self) -> "Guard | None":
        """What gives a UTS namespace of others its names back, if this create fails after it has set them."""
        if not self.spaces.joined("uts") or not (self.config.get("hostname") or self.config.get("domainname")):
            return None
        from ociruntime.lifecycle import names

        joins = self._open_joins(names.KINDS)
        try:
            guard = names.Guard(self.log, self.config, joins, lambda message: self._boot_error(message, names.KINDS))
        finally:
            for _, fd in joins:
                posix.close(fd)
        self.undo.add("the new names of the UTS namespace", guard.restore)
        return guard

    def _open_joins(self, kinds: int = -1) -> "list[tuple[int, int]]":
        """Open every namespace to join before any is joined, and check that each is of the type it is said to be.

        kinds: CLONE_NEW* of those that are wanted.
        """
        joins: list[tuple[int, int]] = []
        try:
            for flag, path, pointer in self.spaces.joins:
                if not flag & kinds:
                    continue
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

    def _check_joined(self) -> None:
        """Mappings beside the path of a user namespace must be those it has."""
        if self.spaces.joined("user"):
            maps = [read_if_possible(f"/proc/{self.child.pid}/{name}") for name in ("uid_map", "gid_map")]
            for text in namespaces.check_joined(self.spaces, *(text.decode("ascii") for text in maps)):
                self.log.warning(text)

    def _boot_error(self, message: "Message", kinds: int = -1) -> OCIError:
        pointer = "/linux/namespaces"
        if message.detail == "oom_score_adj":
            pointer = "/process/oomScoreAdj"
            return StepError("", step="oom_score_adj", pointer=pointer, call=message.call, errno=message.errno)
        joins = [entry for entry in self.spaces.joins if entry[0] & kinds]
        if message.call == "setns":
            return namespaces.not_joined(joins[message.value], message.errno)
        if message.call == "setresuid":
            return namespaces.no_root(joins)
        if "timens" in message.detail or message.detail == "time":
            pointer = "/linux/timeOffsets"
        if message.call == "clone3":
            pointer = ""  # that is refusals.of_clone()'s
        return StepError(
            "", step="namespaces", pointer=pointer, call=message.call, errno=message.errno, path=message.detail
        )

    def _host_uid(self, uid: int) -> "int | None":
        ranges = self.spaces.uid_ranges
        if self.spaces.joined("user"):
            ranges = namespaces.parse_map(read_if_possible(f"/proc/{self.child.pid}/uid_map").decode("ascii"))
        return namespaces.host_id(ranges, uid)

    def _remove_cgroup(self) -> None:
        """The cgroup was empty before: whatever is in it (a hook's daemon, say) came with this container."""
        self.cgroup.kill()
        self.cgroup.remove()

    def _hook_states_inside(self) -> "tuple[str, str]":
        """The state for hooks in the container's namespaces, at create and at start: with the pid as it is in there."""
        if not self.config.get("hooks"):
            return "", ""
        pid = self._pid_inside()
        document = self.state.hook_document
        return dumps(document("creating", pid)), dumps(document("created", pid))

    def _pid_inside(self) -> int:
        """The PID of the init process as it sees itself."""
        if self.spaces.joined("pid"):
            for line in read_if_possible(f"/proc/{self.child.pid}/status").split(b"\n"):
                if line.startswith(b"NSpid:"):
                    return int(line.split()[-1])
        return 1 if self.spaces.new("pid") else self.child.pid

    # -- the conversation

    def _answer(self, message: "Message") -> bool:
        """One stop of the init process; True at the last one."""
        point = message.value
        if point == SYNC_HOOKS:
            self._run_hooks()
            self.child.channel.go()
        elif point == SYNC_READY:
            self._phase("mounts, devices, root: done by the init process")
            if self.facts.euid == 0 and self.spaces.has("user"):
                from ociruntime.lifecycle import stdio

                stdio.give(self.config.get("process") or {}, self.child.pid)
            self.child.ready(self.lowered.process, self.lowered.seccomp, self.runtime.seccomp_cache())
        elif point == SYNC_LISTENER:
            self.child.hand_over(self.lowered.seccomp, message.value2, self._document("creating"))
        elif point == SYNC_CONSOLE:
            self._take_console(message.fds[0])
        elif point == SYNC_CREATED:
            self._commit()
            self.child.channel.go()
            return True
        else:
            raise StepError(f"unexpected stop {point}", step="conversation")
        return False

    def _take_console(self, master: int) -> None:
        """The terminal's master goes to the console socket, or stays here for a command in the foreground."""
        self.master = master
        if self.console is not None:
            self.console.send(b"/dev/pts/ptmx", master)
            self._drop_master()
        else:
            self.undo.add("the terminal", self._drop_master)
            from ociruntime.lifecycle import foreground

            foreground.adopt(master)
        self.child.channel.go()

    def _drop_master(self) -> None:
        if self.master >= 0:
            posix.close(self.master)
            self.master = -1

    def _document(self, actual: str) -> "dict[str, object]":
        """The state as hooks and agents outside see it."""
        return self.state.hook_document(actual, self.child.pid)

    def _run_hooks(self) -> None:
        document = self._document("creating")
        self.undo.add_first("what poststop hooks remove", self._poststop)
        for kind in lowering.RUNTIME_HOOKS:
            hooks.run(self.config["hooks"], kind, document, self.request.bundle, self.held)

    def _poststop(self) -> None:
        """A create that fails after its first hook: everything else is gone by now."""
        document = self.state.hook_document("stopped", 0)
        for error in hooks.run_all(self.config["hooks"], "poststop", document, self.request.bundle):
            self.log.warning(f"{error}, ignoring")

    def _commit(self) -> None:
        state = self.state
        state.pid = self.child.pid
        state.start_time = status.process_stat(state.pid)[1]
        if self.pidfd_socket is not None:
            self.pidfd_socket.send(b"standard", self.child.pidfd)
        self.cgroup.settled(self.config, self._host_uid)
        state.phase = "created"
        state.cgroup = self.cgroup.saved()  # rootless, some of it may not have come about
        state.freezer = self.cgroup.freezer_file()
        self.directory.save(state)
        path = self.request.pid_file
        if path and pidfile.write(path, state.pid):
            self.pid_file = path
            self.undo.add("the pid file", lambda: pidfile.remove(path))
