"""exec: another process in a running container, sealed, filtered, limited and placed as the init process is.

The exec process is cloned by an intermediate that has joined all namespaces through one pidfd of the init process; it
runs the starred part of the order in lower.py and ends in execve, whose success is the end of file on the sync socket.
"""

import posix
from errno import EBUSY, ENOENT, EOPNOTSUPP, EPIPE

from ociruntime import capabilities, host, process
from ociruntime.cgroups import freezer, manager
from ociruntime.cgroups.files import exists
from ociruntime.errors import ConfigError, OCIError, StateError, StepError, UnsupportedError, from_oserror
from ociruntime.files import read_if_possible
from ociruntime.lifecycle.child import Child
from ociruntime.lifecycle.sockets import FdSocket, check_console
from ociruntime.lifecycle.treatment import scheduling_ops
from ociruntime.namespaces import FLAGS
from ociruntime.plan import (
    KEEP_GROUPS,
    NO_BIND,
    NO_PROCFS,
    SYNC_CONSOLE,
    SYNC_CREATED,
    SYNC_LISTENER,
    SYNC_READY,
    FdSource,
    op,
)
from ociruntime.seccomp import compile as seccomp
from ociruntime.state import pidfile, status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ociruntime.cgroups.cgroup import Cgroup
    from ociruntime.lifecycle.runtime import Runtime
    from ociruntime.plan import Op
    from ociruntime.shim.sync import Message
    from ociruntime.state.model import State


# How long the init process of a container may take to die after the first of its other processes did.
END_MS = 300


class ExecRequest:
    """What exec is asked for.

    process: a whole process object (--process), or None: the config's with the changes below. at: JSON pointer of it.
    user: (uid, gid or None) or None. tty: None takes what `process` says. cgroups: (controller or "", relative path).
    """

    __slots__ = (
        "additional_gids",
        "apparmor",
        "args",
        "at",
        "capabilities",
        "cgroups",
        "console_socket",
        "container_id",
        "cwd",
        "detach",
        "env",
        "ignore_paused",
        "no_new_privs",
        "pid_file",
        "pidfd_socket",
        "preserve_fds",
        "process",
        "process_label",
        "tty",
        "user",
    )

    def __init__(
        self,
        container_id: str,
        *,
        process: "dict[str, Any] | None" = None,
        args: "list[str] | None" = None,
        cwd: str = "",
        env: "list[str] | None" = None,
        user: "tuple[int, int | None] | None" = None,
        additional_gids: "list[int] | None" = None,
        capabilities: "list[str] | None" = None,
        no_new_privs: "bool | None" = None,
        apparmor: str = "",
        process_label: str = "",
        tty: bool = False,
        detach: bool = False,
        pid_file: str = "",
        console_socket: str = "",
        pidfd_socket: str = "",
        preserve_fds: int = 0,
        cgroups: "list[tuple[str, str]] | None" = None,
        ignore_paused: bool = False,
    ) -> None:
        self.container_id = container_id
        self.process = process
        self.at = "" if process is not None else "/process"
        self.args = args or []
        self.cwd = cwd
        self.env = env or []
        self.user = user
        self.additional_gids = additional_gids or []
        self.capabilities = capabilities or []
        self.no_new_privs = no_new_privs
        self.apparmor = apparmor
        self.process_label = process_label
        self.tty = tty
        self.detach = detach
        self.pid_file = pid_file
        self.console_socket = console_socket
        self.pidfd_socket = pidfd_socket
        self.preserve_fds = preserve_fds
        self.cgroups = cgroups or []
        self.ignore_paused = ignore_paused


def process_of(request: ExecRequest, config: "dict[str, Any]") -> "dict[str, Any]":
    """The process object to run: row K4 of what is taken from where.

    From a --process object comes everything but what only the container's config can say: umask, and, where absent,
    capabilities, labels, scheduling. Otherwise the config's process, with the command line's changes.
    """
    base: dict[str, Any] = config.get("process") or {}
    if request.process is not None:
        result = dict(request.process)
        for key in ("capabilities", "selinuxLabel", "scheduler", "ioPriority", "execCPUAffinity"):
            if result.get(key) is None and base.get(key) is not None:
                result[key] = base[key]
        user = dict(result.get("user") or {})
    else:
        result = dict(base)
        result["args"] = request.args
        result["terminal"] = request.tty
        result.pop("consoleSize", None)
        result.setdefault("cwd", "/")
        user = dict(base.get("user") or {})
        _change(result, user, request)
    umask = (base.get("user") or {}).get("umask")
    user.pop("umask", None)
    if umask is not None:
        user["umask"] = umask
    result["user"] = user
    return result


def _change(result: "dict[str, Any]", user: "dict[str, Any]", request: ExecRequest) -> None:
    """Apply the command line to the config's process."""
    if request.cwd:
        result["cwd"] = request.cwd
    if request.env:
        result["env"] = [*(result.get("env") or []), *request.env]
    if request.user is not None:
        user["uid"] = request.user[0]
        if request.user[1] is not None:
            user["gid"] = request.user[1]
    if request.additional_gids:
        user["additionalGids"] = [*(user.get("additionalGids") or []), *request.additional_gids]
    if request.no_new_privs is not None:
        result["noNewPrivileges"] = request.no_new_privs
    if request.apparmor:
        result["apparmorProfile"] = request.apparmor
    if request.process_label:
        result["selinuxLabel"] = request.process_label
    if request.capabilities:
        sets = {name: list(names) for name, names in (result.get("capabilities") or {}).items()}
        for name in ("bounding", "effective", "permitted"):
            sets[name] = [*sets.get(name, []), *request.capabilities]
        # ambient needs inheritable, which exec never widens
        inheritable = sets.get("inheritable") or []
        sets["ambient"] = [
            *(sets.get("ambient") or []),
            *(name for name in request.capabilities if name in inheritable),
        ]
        result["capabilities"] = sets


class Executed:
    """A process that runs. pidfd: the caller's to close. master: of its terminal, -1 if it has none here."""

    __slots__ = ("master", "pid", "pidfd")

    def __init__(self, pid: int, pidfd: int, master: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.master = master


def execute(runtime: "Runtime", request: ExecRequest, ready: "Callable[[], None] | None" = None) -> Executed:
    """Start a process in a container. ready: called when everything is done but execve.

    Raises StateError unless the container runs, ConfigError, StepError: nothing is left then.
    """
    from ociruntime.config import load

    with runtime.states.open(request.container_id) as directory:
        state = directory.load()
        actual, pid = status.derive(state, directory)
        _check_status(request, actual)
        data = directory.load_config()
        where = f"{directory.path}/config.json"
    config: Any = load.parse(data, where)
    return _Execution(runtime, request, state, config, pid, ready).run()


def _check_status(request: ExecRequest, actual: str) -> None:
    if actual == status.PAUSED and request.ignore_paused:
        return
    if actual in (status.RUNNING, status.CREATED):
        return
    reasons = {
        status.STOPPED: "cannot exec in a stopped container: container not running",
        status.PAUSED: "cannot exec in a paused container",
        status.CREATING: "cannot exec in a container that is being created",
    }
    hint = "resume it, or use --ignore-paused" if actual == status.PAUSED else ""
    raise StateError(
        reasons[actual], container_id=request.container_id, expected=(status.RUNNING,), actual=actual, hint=hint
    )


class _Execution:
    """One exec in progress."""

    __slots__ = (
        "cgroup",
        "child",
        "config",
        "console",
        "facts",
        "filters",
        "init_pid",
        "log",
        "master",
        "pid_file",
        "pidfd_socket",
        "process",
        "ready",
        "request",
        "runtime",
        "state",
        "who",
    )

    def __init__(
        self,
        runtime: "Runtime",
        request: ExecRequest,
        state: "State",
        config: "dict[str, Any]",
        init_pid: int,
        ready: "Callable[[], None] | None",
    ) -> None:
        self.ready = ready
        self.runtime = runtime
        self.log = runtime.log
        self.request = request
        self.state = state
        self.config = config
        self.init_pid = init_pid
        self.process = process_of(request, config)
        self.facts = host.Host(euid=posix.geteuid(), kernel=host.parse_release(posix.uname().release))
        self.cgroup: Cgroup = manager.from_state(state.cgroup)
        self.console: FdSocket | None = None
        self.pidfd_socket: FdSocket | None = None
        self.master = -1
        self.pid_file = ""
        self.who = process.lower_process(
            self.process,
            config,
            self.facts,
            at=request.at,
            host_bounding=capabilities.bounding_of_self(read_if_possible("/proc/self/status")),
            keep_groups=self._groups_denied(),
        )
        self.filters = seccomp.lower(config, self.facts)

    def _groups_denied(self) -> bool:
        return bool(self.state.namespaces.get("user") is not None) and (
            read_if_possible(f"/proc/{self.init_pid}/setgroups").strip() == b"deny"
        )

    def run(self) -> Executed:
        request = self.request
        # What the container's own config says was told at create already.
        tell = self.log.warning if request.process is not None or request.capabilities else self.log.debug
        for pointer, text in self.who.warnings:
            tell(f"{pointer}: {text}")
        terminal = self.process.get("terminal") is True
        check_console(terminal, request.detach, request.console_socket)
        self.child = child = Child(self.log, what="exec process")
        try:
            if request.console_socket:
                self.console = FdSocket("--console-socket", request.console_socket, self.state.bundle)
            if request.pidfd_socket:
                self.pidfd_socket = FdSocket("--pidfd-socket", request.pidfd_socket, self.state.bundle)
            self._spawn()
            child.send_plan(self._ops(terminal), preserve_fds=request.preserve_fds)
            child.converse(self._answer)
            child.until_exec()
        except BaseException as error:
            told = child.lost(error) if isinstance(error, StepError) else error
            child.kill()
            if self.master >= 0:
                posix.close(self.master)
            if self.pid_file:
                pidfile.remove(self.pid_file)
            if isinstance(error, StepError) and self._ended(error):
                raise self._gone() from error
            if told is not error:
                raise told from None
            raise
        finally:
            child.channel.close()
            for socket in (self.console, self.pidfd_socket):
                if socket is not None:
                    socket.close()
        return Executed(child.pid, child.take_pidfd(), self.master)

    # -- into the container

    def _spawn(self) -> None:
        """The intermediate is born in the cgroup (v2), joins all namespaces through the init's pidfd, clones on."""
        flags = 0
        for kind in self.state.namespaces:
            flags |= FLAGS[kind]
        try:
            pidfd = status.pidfd(self.init_pid)
        except ProcessLookupError:
            raise self._gone() from None
        try:
            if not self._alive():
                raise self._gone()
            self._clone_into_cgroup()
            self.cgroup.receive(self.child.pid)
            self.child.channel.send_boot(
                joins=[(flags, pidfd)] if flags else [],
                intermediate=True,
                keep_groups=process.keeps_groups(self.config),
                keep_saved_id="user" in self.state.namespaces and bool(self.cgroup.join_sources()),
                oom_score_adj=process.early_score(self.process, "user" in self.state.namespaces),
            )
            self.child.await_init(self._boot_error)
        finally:
            posix.close(pidfd)

    def _alive(self) -> bool:
        return status.alive(self.init_pid, self.state.start_time, self.state.boot_id)

    def _ended(self, error: StepError) -> bool:
        """Whether the end of the container is behind a failure. It kills our process before its own init is dead."""
        if error.step in ("init", "namespaces") or error.errno == EPIPE:
            try:
                pidfd = status.pidfd(self.init_pid)
            except ProcessLookupError:
                return True
            from select import POLLIN, poll

            waiting = poll()
            waiting.register(pidfd, POLLIN)
            waiting.poll(END_MS)
            posix.close(pidfd)
        return not self._alive() or status.dying(self.init_pid)

    def _gone(self) -> StateError:
        return StateError(
            "cannot exec in a stopped container: container not running",
            container_id=self.request.container_id,
            expected=(status.RUNNING,),
            actual=status.STOPPED,
        )

    def _clone_into_cgroup(self) -> None:
        """v2: into the container's cgroup; if that takes no processes (it has sub-cgroups), where the init is now."""
        if not self.request.ignore_paused:
            self.cgroup.check_thawed()
        candidates = self._v2_candidates()
        if not candidates:
            self.child.spawn(0, preserve_fds=self.request.preserve_fds)
            return
        failure: OCIError | None = None
        for path in candidates:
            self._check_thawed(path, b"frozen 1" in read_if_possible(path + "/cgroup.events").split(b"\n"))
            try:
                fd = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
            except OSError as error:
                failure = from_oserror(
                    error,
                    "cannot open the cgroup",
                    step="cgroup",
                    hint="somebody else has removed it" if error.errno == ENOENT else "",
                )
                continue
            try:
                self.child.spawn(0, cgroup_fd=fd, preserve_fds=self.request.preserve_fds)
                return
            except StepError as error:
                if error.errno not in (EBUSY, ENOENT, EOPNOTSUPP):
                    raise
                failure = StepError("cannot join the cgroup", step="cgroup", errno=error.errno, path=path)
            finally:
                posix.close(fd)
        if failure is not None:
            raise failure

    def _check_thawed(self, path: str, frozen: bool) -> None:
        """Refuse a sub-cgroup that the container has frozen itself: the process would never begin."""
        if frozen and not self.request.ignore_paused:
            raise StateError(
                f"the container has frozen its cgroup '{path}'",
                container_id=self.request.container_id,
                hint="thaw it, or choose another one with --cgroup",
            )

    def _v2_candidates(self) -> "list[str]":
        own = self.cgroup.clone_directory()
        if not own:
            if any(controller == "" for controller, _ in self.request.cgroups) and self.cgroup.mode in ("v2", "none"):
                raise UnsupportedError("--cgroup", "a container's cgroup that this user may move processes into")
            return []
        for controller, path in self.request.cgroups:
            if controller == "" and (self.cgroup.mode == "v2" or exists(below(own, path, must_exist=False))):
                return [below(own, path)]
        home = self.cgroup.home()
        if self.cgroup.mode != "v2":
            return [home]
        for line in read_if_possible(f"/proc/{self.init_pid}/cgroup").split(b"\n"):
            if line.startswith(b"0::"):
                inside = line[3:].decode("utf-8", "surrogateescape")
                # the container's own path ends the same way in the host's view
                top = own[: own.rfind(inside)] if inside != "/" and own.endswith(inside) else _unified_top(own, inside)
                return [home] if not top else list(dict.fromkeys((home, top + inside)))
        return [home]

    def _joins(self) -> "list[Op]":
        """v1: the files through which the exec process joins by itself; a path without controllers is for all."""
        chosen = {controller: path for controller, path in self.request.cgroups if controller}
        everywhere = [path for controller, path in self.request.cgroups if not controller]
        for controller in chosen:
            if controller not in self.cgroup.paths:
                raise ConfigError(f"--cgroup: the container has no cgroup of controller '{controller}'")
        ops = []
        for source in self.cgroup.join_sources():
            directory = source.path.rpartition("/")[0]
            paths = everywhere + [
                path for controller, path in chosen.items() if self.cgroup.paths[controller] == directory
            ]
            if paths:
                place = below(directory, paths[-1])
                self._check_thawed(place, freezer.keeps_alive(place + "/freezer.state"))
                source = FdSource("write", place + "/tasks")
            ops.append(op("cgroup_join", fd=source))
        return ops

    def _affinity(self, joins: "list[Op]") -> "list[Op]":
        """The way into the cgroups, with the CPUs that execCPUAffinity gives before it and after it.

        Without it the caller's CPUs are forgotten. On v2 the process is born in its cgroup: nothing is before.
        """
        if self.process.get("execCPUAffinity") is None:
            return [*joins, op("affinity")]
        from ociruntime import scheduling

        at = f"{self.request.at}/execCPUAffinity"
        initial, final = scheduling.cpu_affinity(self.process, self.request.at)
        ops = list(joins)
        if initial and joins:
            ops.insert(0, op("affinity", f"{at}/initial", strings=(initial,), args=(len(initial),)))
        if final:
            ops.append(op("affinity", f"{at}/final", strings=(final,), args=(len(final),)))
        return ops

    def _boot_error(self, message: "Message") -> OCIError:
        if message.detail == "oom_score_adj":
            pointer = f"{self.request.at}/oomScoreAdj"
            return StepError("", step="oom_score_adj", pointer=pointer, call=message.call, errno=message.errno)
        return StepError(
            "cannot join the container's namespaces",
            step="namespaces",
            call=message.call,
            errno=message.errno,
            path=message.detail,
        )

    def _ops(self, terminal: bool) -> "list[Op]":
        """The plan of an exec process: no mounts, no hooks, no waiting."""
        who, at = self.who, self.request.at
        joins = self._joins()
        if joins and "user" in self.state.namespaces:
            joins.append(op("become_root", flags=KEEP_GROUPS))  # the saved id has been kept for the cgroups
        ops = self._affinity(joins)
        if "user" not in self.state.namespaces:
            ops += who.early
        ops.append(op("setsid"))
        if not self.state.no_new_keyring:
            ops.append(op("keyring", strings=(f"_ses.{self.request.container_id}",)))
        root = "/" if "mount" in self.state.namespaces else self.state.rootfs
        ops.append(op("rootfs", strings=(root,), flags=NO_BIND | NO_PROCFS))
        ops.append(op("chroot", strings=(root,)))
        if terminal:
            ops.append(op("console", f"{at}/terminal", args=(process.console_size(self.process, at),)))
        ops += who.umask
        ops += who.apparmor
        ops += who.no_new_privs
        ops += scheduling_ops(self.process, self.config, at)
        ops.append(op("sync", args=(SYNC_READY,)))
        ops += who.selinux
        ops += who.directory
        if self.filters is not None and not who.no_new_privileges:
            ops.append(self.filters.op())
        ops += who.identity
        ops.append(op("no_pdeathsig"))
        if self.filters is not None and who.no_new_privileges:
            ops.append(self.filters.op())
        ops.append(op("sync", args=(SYNC_CREATED,)))
        ops += who.execute
        return ops

    def _answer(self, message: "Message") -> bool:
        point, child, request = message.value, self.child, self.request
        if point == SYNC_READY:
            if self.state.intel_rdt:
                from ociruntime import intel_rdt

                intel_rdt.join(self.state.intel_rdt, child.pid)
            if self.facts.euid == 0 and "user" in self.state.namespaces:
                from ociruntime.lifecycle import stdio

                # A file is given once, when the container is made, and not with each command that looks at something.
                stdio.give(self.process, child.pid, pipes_only=True)
            child.ready(self.who, self.filters, self.runtime.seccomp_cache())
        elif point == SYNC_CONSOLE:
            self.master = message.fds[0]
            if self.console is not None:
                self.console.send(b"/dev/pts/ptmx", self.master)
                posix.close(self.master)
                self.master = -1
            else:
                from ociruntime.lifecycle import foreground

                foreground.adopt(self.master)
            child.channel.go()
        elif point == SYNC_LISTENER:
            document = self.state.hook_document(status.RUNNING, self.init_pid)
            child.hand_over(self.filters, message.value2, document)
        elif point == SYNC_CREATED:
            if self.ready is not None:
                self.ready()
            if self.pidfd_socket is not None:
                self.pidfd_socket.send(b"setns", child.pidfd)
            if request.pid_file and pidfile.write(request.pid_file, child.pid):
                self.pid_file = request.pid_file
            child.channel.go()
            return True
        else:
            raise StepError(f"unexpected stop {point}", step="conversation")
        return False


def below(directory: str, path: str, *, must_exist: bool = True) -> str:
    """A cgroup below the container's: whole components are compared, so neither ".." nor a longer name gets out."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            raise ConfigError(f"--cgroup: '{path}' leads out of the container's cgroup")
        if part not in ("", "."):
            parts.append(part)
    found = "/".join([directory, *parts])
    if must_exist and not exists(found):
        raise StepError("--cgroup: no such cgroup in the container", step="cgroup", errno=ENOENT, path=found)
    return found


def _unified_top(own: str, inside: str) -> str:
    """The hierarchy's mount point, given the container's directory and the path that its init process has in it."""
    parts = inside.split("/")
    while parts:
        tail = "/".join(parts)
        if tail and own.endswith(tail):
            return own[: -len(tail)]
        parts.pop()
    return ""
