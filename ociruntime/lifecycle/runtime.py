"""The library: what the command line calls, and what a Python program can call as well.

    import ociruntime
    runtime = ociruntime.Runtime("/run/my-containers")
    runtime.create("/path/to/bundle", "web")
    runtime.start("web")
    runtime.state("web")["status"]        # "running"
    runtime.kill("web", 15)
    runtime.delete("web", force=True)

Safe in threads: no global state, nothing is forked but the C child.
"""

import posix

from ociruntime.errors import UnsupportedError, UsageError
from ociruntime.state.store import StateRoot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TypedDict, Unpack

    from ociruntime.lifecycle.exec import ExecRequest
    from ociruntime.lifecycle.ns import Report
    from ociruntime.lifecycle.request import CreateRequest
    from ociruntime.log import Log

    class CreateOptions(TypedDict, total=False):
        """Options of create() and run().

        pid_file: gets the pid in decimal, without a newline. config_file: instead of the bundle's config.json.
        The fds 3.. go to the container: listen_fds sockets, which it is told of as man sd_listen_fds(3) says
        (listen_names: their names, with colons between), then preserve_fds others.
        no_pivot: move the root instead of pivot_root(2). no_new_keyring: keep the caller's session keyring.
        console_socket, pidfd_socket: AF_UNIX sockets that get the terminal's master, a pidfd of the init process.
        notify_socket: the service manager's, see start(); for create it only matters that there is one.
        interruptible: HUP, INT and TERM of the calling thread are held back until create is done or, when one comes,
        undone: SignalError. Without it they do what they do; what an exception of a handler interrupts is undone, too.
        With detach, run() is meant in place of create: it is done when start() is, and a signal deletes the container.
        final: the caller ends right after; those that come when all is done stay blocked, so that its exit tells that.
        """

        pid_file: str | None
        preserve_fds: int
        no_pivot: bool
        no_new_keyring: bool
        console_socket: str | None
        pidfd_socket: str | None
        config_file: str | None
        listen_fds: int
        listen_names: str
        notify_socket: str
        interruptible: bool
        final: bool


CGROUP_MANAGERS = ("cgroupfs", "systemd", "disabled")


class Runtime:
    """Operations on the containers of one state root.

    root: absolute path of the state root, made when first needed. rootless: True, False, or "auto" (by euid and user
    namespace). cgroup_manager: "cgroupfs", "systemd", or "disabled" (the container stays in the caller's cgroups).
    log: where warnings go (default: stderr). Raises UsageError for anything else.
    """

    __slots__ = ("cgroup_manager", "log", "rootless", "states")

    def __init__(
        self,
        root: str = "/run/ociruntime",
        *,
        rootless: "bool | str" = "auto",
        cgroup_manager: str = "cgroupfs",
        log: "Log | None" = None,
    ) -> None:
        if log is None:
            from ociruntime.log import Log

            log = Log()
        if root[:1] != "/" or not root.strip("/"):
            raise UsageError(f"root is an absolute path of a directory below '/', not '{root}'")
        if rootless not in (True, False, "auto"):
            raise UsageError(f"rootless is True, False or 'auto', not '{rootless}'")
        if cgroup_manager not in CGROUP_MANAGERS:
            raise UsageError(f"cgroup_manager is one of {', '.join(CGROUP_MANAGERS)}, not '{cgroup_manager}'")
        self.log = log
        self.states = StateRoot(root)
        self.rootless: bool | None = None if rootless == "auto" else bool(rootless)
        self.cgroup_manager = cgroup_manager

    def create(
        self,
        bundle: str,
        container_id: str,
        **options: "Unpack[CreateOptions]",
    ) -> int:
        """Create a container from a bundle directory; its process waits for start(). Returns the pid.

        options: see CreateOptions.
        Raises ConfigError, UnsupportedError, ExistsError, StepError, HookError: nothing is left behind then.
        Source: runtime-spec runtime.md, "Create".
        """
        from ociruntime.lifecycle import create

        request = _request(bundle, container_id, options)
        created = create.create(self, request)
        posix.close(created.pidfd)
        return created.pid

    def start(self, container_id: str, *, notify_socket: str = "") -> None:
        """Run the program of a created container. Source: runtime-spec runtime.md, "Start".

        notify_socket: a socket as in man sd_notify(3), the value of NOTIFY_SOCKET. Then start returns when the program
        has said through its own NOTIFY_SOCKET that it is ready, and that has been passed on; or when it is dead.
        """
        from ociruntime.lifecycle import start

        start.start(self, container_id, notify_socket=notify_socket)

    def run(
        self,
        bundle: str,
        container_id: str,
        *,
        detach: bool = False,
        keep: bool = False,
        no_subreaper: bool = False,
        **options: "Unpack[CreateOptions]",
    ) -> int:
        """create() and start(); unless detach, wait for the program and delete the container (unless keep).

        Returns the program's exit status, 128 + signal if one ended it; 0 with detach. In the foreground all signals of
        the calling thread are passed on, and children of the caller are reaped: meant for a program of its own.
        """
        from ociruntime.lifecycle import run

        request = _request(bundle, container_id, options)
        request.detach = detach
        return run.run(self, request, keep=keep, subreaper=not no_subreaper)

    def exec(self, request: "ExecRequest") -> int:
        """Run another process in a container: its exit status (128 + signal), or 0 at once if request.detach.

        request: ociruntime.ExecRequest, which takes what the command's flags do.
        Raises StateError unless the container runs; ConfigError, StepError when the process cannot be run.
        """
        from ociruntime.lifecycle import exec as executing, foreground

        if request.detach:
            posix.close(executing.execute(self, request).pidfd)
            return 0
        # Blocked just before the process runs: until then the caller may still give up by any signal.
        with foreground.Signals(later=True) as signals:
            done = executing.execute(self, request, signals.block)
            try:
                return foreground.wait(done.pid, done.pidfd, done.master, signals)
            finally:
                posix.close(done.pidfd)
                if done.master >= 0:
                    posix.close(done.master)

    def pause(self, container_id: str) -> None:
        """Freeze the processes of a created or running container."""
        from ociruntime.lifecycle import pause

        pause.pause(self, container_id)

    def resume(self, container_id: str) -> None:
        """Let a paused container go on."""
        from ociruntime.lifecycle import pause

        pause.resume(self, container_id)

    def update(
        self,
        container_id: str,
        resources: "dict[str, Any]",
        *,
        l3_cache_schema: str = "",
        mem_bw_schema: str = "",
    ) -> None:
        """Change limits of a container that has not stopped: all that is asked for, or nothing.

        resources: in the form of linux.resources of config.json; what it does not name stays as it is. devices is the
        whole new list; it replaces the old one without a moment in which more is allowed than one of the two allows.
        l3_cache_schema, mem_bw_schema: for schemata of the container's class of service.
        Raises ConfigError, UnsupportedError, StepError, their pointers counted from resources; StateError.
        """
        from ociruntime.lifecycle import update

        update.update(self, container_id, resources, l3_cache_schema=l3_cache_schema, mem_bw_schema=mem_bw_schema)

    def stats(self, container_id: str) -> "dict[str, Any]":
        """How much a container uses: cpu (ns), cpuset, memory (bytes), pids, blkio, hugetlb, intel_rdt, interfaces.

        Members that are zero are mostly left out. Raises StateError unless it is created, running or paused,
        UnsupportedError if it has no cgroup.
        """
        from ociruntime.lifecycle import events

        return events.stats(self, container_id)

    def events(self, container_id: str, interval: float = 5.0) -> "Iterator[dict[str, Any]]":
        """What happens to a container, until its last process has ended; each record has type, id and, mostly, data.

        "stats" every interval (seconds), as stats() gives it; "oom" when the kernel has found no memory for it;
        "memory.high" (count: how often, told once a second at most) when it was slowed down for passing that limit
        (cgroup v2); "exit" (status, signal, and reason: exited, signal, oom, seccomp or unknown) when its init process
        has ended. Close the iterator to stop. Raises UsageError, StateError unless it is created, running or paused.
        """
        from ociruntime.lifecycle import events

        return events.events(self, container_id, interval)

    def pids(self, container_id: str) -> "list[int]":
        """The host pids of all processes in the container's cgroup, sub-cgroups included; [] once they are gone.

        Raises UnsupportedError where no cgroup tells the processes of a container that is there, StepError where there
        is no such cgroup any more.
        """
        from ociruntime.cgroups import manager
        from ociruntime.state import status

        state = self.states.load(container_id)
        cgroup = manager.from_state(state.cgroup)
        if cgroup.exists():
            return cgroup.pids()
        if status.alive(state.pid, state.start_time, state.boot_id):
            cgroup.check_there()
            raise UnsupportedError("listing its processes", "a cgroup, and the container has none")
        return []

    def namespaces(self, container_id: str) -> "Report":
        """The container's namespaces beside the caller's, its PIDs at each level, and its ID maps seen from here.

        Raises StateError unless it is created, running or paused.
        """
        from ociruntime.lifecycle import ns

        return ns.namespaces(self, container_id)

    def wait(self, container_id: str) -> int:
        """Wait until the container's init process ends: its exit status, 128 + signal if one ended it.

        Anybody may wait, not only its parent; the zombie stays its parent's. Raises StateError "unknown" when the
        process was gone before anybody waited.
        """
        from ociruntime.lifecycle import wait

        return wait.wait(self, container_id)

    def pidfd(self, container_id: str) -> int:
        """A pidfd of the container's init process, the caller's to close; it is readable once the process has ended.

        For event loops: loop.add_reader(fd, ...), then wait(), which returns at once.
        """
        from ociruntime.lifecycle import wait

        return wait.pidfd(self, container_id)

    def kill(self, container_id: str, signal: int = 15, *, all: bool = False) -> None:
        """Send a signal to the container's process (all: to every process). Source: runtime-spec runtime.md, "Kill"."""
        from ociruntime.lifecycle import kill

        kill.kill(self, container_id, signal, everything=all)

    def delete(self, container_id: str, *, force: bool = False) -> None:
        """Delete a stopped or created container; force: any, after SIGKILL, and none is fine.

        Source: runtime-spec runtime.md, "Delete".
        """
        from ociruntime.lifecycle import delete

        delete.delete(self, container_id, force=force)

    def state(self, container_id: str) -> "dict[str, object]":
        """The state document: ociVersion, id, status, pid, bundle, rootfs, created, annotations, owner.

        Source: runtime-spec runtime.md, "State".
        """
        from ociruntime.state import status

        with self.states.open(container_id) as directory:
            state = directory.load()
            actual, pid = status.derive(state, directory)
        return state.report(actual, pid)

    def list(self) -> "list[dict[str, object]]":
        """The state documents of all containers, by ID, each with its owner's name.

        Unusable ones are logged and left out.
        """
        from ociruntime.lifecycle import listing

        return listing.listing(self)

    def seccomp_cache(self) -> str:
        """The directory of compiled seccomp programs; "" when it cannot be used."""
        path = f"{self.states.path}/.seccomp"
        try:
            posix.mkdir(path, 0o700)
        except FileExistsError:
            pass
        except OSError:
            return ""
        return path


def _request(bundle: str, container_id: str, options: "CreateOptions") -> "CreateRequest":
    """What create is asked for: a bundle made absolute, options that are None left out."""
    from ociruntime.lifecycle.request import CreateRequest

    cwd = "" if bundle[:1] == "/" else posix.getcwd()
    if cwd:
        bundle = cwd if bundle in ("", ".") else f"{cwd}/{bundle}"
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    activation = given.pop("listen_fds", 0), given.pop("listen_names", ""), given.pop("notify_socket", "")
    request = CreateRequest(bundle, container_id, **given)
    request.add_activation(request.preserve_fds, *activation)
    return request
