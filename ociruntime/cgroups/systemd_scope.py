"""The unit of one container at systemd's: what begins it, changes it, ends it, and how to know it again.

A name alone does not tell whose unit it is: when a container has ended its unit has, too, and another container or
service may have taken the name since. So its cgroup's inode number, which is not used again, is kept with the state.

Source: systemd.scope(5), org.freedesktop.systemd1(5).
"""

import posix

from ociruntime.cgroups import files, systemd_unit
from ociruntime.cgroups.cgroup import POINTER, RESOURCES
from ociruntime.errors import StepError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.cgroups.dbus import Systemd
    from ociruntime.cgroups.devices import Filter
    from ociruntime.cgroups.limits import CgroupWrite
    from ociruntime.cgroups.systemd_properties import Property
    from ociruntime.shim.sync import Channel

# Tasks that a scope has room for while a container begins: the placeholder, an intermediate, the init process.
_ROOM = 4
# How long the placeholder may take to move itself.
_MOVE_MS = 2000
# Errors of the bus itself: systemd may well have done what it was asked for.
_NO_WORD = ("NoReply", "Timeout", "TimedOut", "Disconnected")


class Unit:
    """The unit of one container, and the calls that make, change and end it.

    name: with its suffix. user: it belongs to the user's manager. release: of systemd. directory: its cgroup (v2; the
    first of v1). inode: of that directory, 0 as long as create has not come so far: with a name alone nobody can tell
    our unit from the next one of that name. description: what we have called it. top: the mount point. extra:
    properties from annotations. v2: which properties it knows. started: whether there may be something to stop.
    pending: between begin() and finish().
    """

    __slots__ = (
        "_bus",
        "_channel",
        "_late",
        "_moving",
        "_old",
        "_pid",
        "_pidfd",
        "description",
        "directory",
        "extra",
        "inode",
        "name",
        "names",
        "pending",
        "release",
        "started",
        "top",
        "user",
        "v2",
    )

    def __init__(self, name: str, *, user: bool, release: int, directory: str, top: str, v2: bool) -> None:
        self.name = name
        self.user = user
        self.release = release
        self.directory = directory
        self.top = top
        self.v2 = v2
        self.inode = 0
        self.description = ""
        # The rest is known to create only.
        self.names: systemd_unit.Unit | None = None
        self.extra: list[Property] = []
        self.started = True
        self.pending = False
        self._bus: Systemd | None = None
        self._channel: Channel | None = None
        self._moving = False
        self._pid = 0
        self._pidfd = -1
        self._old: list[Property] = []
        self._late: list[Property] = []

    def saved(self) -> "dict[str, Any]":
        """What from_state() needs; fit for JSON."""
        return {
            "unit": self.name,
            "user": self.user,
            "release": self.release,
            "directory": self.directory,
            "inode": self.inode,
            "description": self.description,
            "top": self.top,
            "v2": self.v2,
        }

    def connect(self, pointer: str = "") -> "Systemd":
        """A connection to its manager. Raises StepError."""
        return connect(self.name, user=self.user, pointer=pointer)

    # -- create

    def begin_placeholder(self, procs: str) -> None:
        """Start the placeholder, and let it write itself into cgroup.procs of the cgroup it is in: procs; "": nowhere.

        The first process that is moved after an idle moment waits 10 ms and more for an RCU grace period; those of the
        next ten milliseconds do not. So the kernel waits while we load the D-Bus library, and systemd need not.
        Source: kernel/cgroup/cgroup.c, cgroup_procs_write_start; kernel/rcu/sync.c.
        """
        if self.names is None or self.names.is_slice():
            return
        self._make_placeholder()
        if procs and self._channel is not None:
            try:
                self._moving = _move_itself(self._channel, procs)
            except (OSError, StepError):
                self.release_placeholder()  # it was for speed only: begin() makes another one

    def _moved(self) -> None:
        """Wait until the placeholder has moved itself: later, it would leave the scope again. Else have another one."""
        self._moving = False
        if self._channel is None:
            return
        try:
            message = self._channel.receive(_MOVE_MS)
        except StepError:
            message = None
        if message is None:
            self.release_placeholder()

    def keep(self, systemd: "Systemd") -> None:
        """A connection that begin() is to use: making one takes systemd and the bus longer than a call."""
        self._bus = systemd

    def abandon(self) -> None:
        """There will be no container: end the placeholder and the connection. Repeating it is fine."""
        self.release_placeholder()
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.close()

    def begin(self, writes: "list[CgroupWrite]", wanted: "Filter | None") -> None:
        """Ask systemd to make it, with all its limits. Raises StepError."""
        from ociruntime.cgroups import systemd_properties

        if self.names is None:
            raise StepError("a unit that exists already cannot be started", step="systemd", path=self.name)
        if self._moving:
            self._moved()
        pid = self._pid
        if not pid and not self.names.is_slice():
            pid = self._make_placeholder()
        properties = systemd_properties.base(self.names, self.description, pid, v2=self.v2)
        properties += self._leave_room(self._limits(writes, wanted)) + self.extra
        self.started = False
        if self._bus is None:
            self._bus = self.connect(POINTER)
        self._bus.check_pid()
        # A job that fails or takes too long may still have made something.
        self.started = True
        self._bus.begin_start(properties)
        self.pending = True

    def finish(self) -> None:
        """Wait until it is made. Raises StepError."""
        bus, self._bus = self._bus, None
        self.pending = False
        if bus is None:
            raise StepError("a unit that nobody has asked for", step="systemd", path=self.name)
        from ociruntime.cgroups.dbus import DBusError

        with bus:
            try:
                bus.end_start()
            except DBusError as error:
                # Refused: a unit of this name is not ours.
                self.started = error.name.rpartition(".")[2] in _NO_WORD
                raise

    def _leave_room(self, limits: "list[Property]") -> "list[Property]":
        """A limit of tasks so small that nothing could begin is set when the placeholder is gone."""
        from ociruntime.cgroups.systemd_properties import Property

        self._late = [item for item in limits if item.name == "TasksMax" and item.value < _ROOM]
        return [Property(item.name, item.signature, _ROOM) if item in self._late else item for item in limits]

    def _limits(self, writes: "list[CgroupWrite]", wanted: "Filter | None") -> "list[Property]":
        from ociruntime.cgroups import systemd_properties

        lower = systemd_properties.limits_v2 if self.v2 else systemd_properties.limits_v1
        result = lower(writes, self.release)
        if wanted is not None:
            result += systemd_properties.device_policy(wanted, self.release, RESOURCES)
        return result

    def _make_placeholder(self, cgroup: int = -1) -> int:
        from ociruntime.shim import spawn
        from ociruntime.shim.sync import Channel

        channel = Channel()
        try:
            self._pid, self._pidfd = spawn.spawn_init(channel, 0, cgroup_fd=cgroup)
        except BaseException:
            channel.close()
            raise
        self._channel = channel
        return self._pid

    def note_directory(self) -> None:
        """Remember which directory it has. Raises OSError."""
        self.inode = posix.stat(self.directory).st_ino

    def is_another(self) -> bool:
        """Whether a unit of this name has been started since ours ended. Its cgroup is a stranger's, too."""
        try:
            return bool(self.inode) and posix.stat(self.directory).st_ino != self.inode
        except OSError:
            return False

    def place(self) -> str:
        """Where systemd has put the placeholder on cgroup v2, as /proc has it; "" without one."""
        if not self._pid:
            return ""
        return own_cgroup(files.read(f"/proc/{self._pid}/cgroup"))

    def move_placeholder(self, directory: str) -> None:
        """From the unit's cgroup into one below: controllers can only be enabled there once it is empty.

        Raises StepError, OSError.
        """
        if not self._pid:
            return
        if self.user:
            # From the session that we are in, nobody may be cloned into the unit.
            files.add_process(directory, self._pid)
            return
        # Another one that is born there: to move a process the kernel waits for every other processor.
        first = self._channel, self._pid, self._pidfd
        target = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            self._make_placeholder(target)
        finally:
            posix.close(target)
            if self._pid != first[1]:
                _end(*first)

    def begun(self) -> None:
        """The init process is in the cgroup: end the placeholder, set what had to wait for that. Raises StepError."""
        self.release_placeholder()
        late, self._late = self._late, []
        if late:
            with self.connect(POINTER) as systemd:
                systemd.set_properties(late)

    def release_placeholder(self) -> None:
        """End it: the container is in the cgroup, or there will be none. Repeating it is fine."""
        placeholder = self._channel, self._pid, self._pidfd
        self._channel, self._pid, self._pidfd = None, 0, -1
        _end(*placeholder)

    # -- update

    def change(self, writes: "list[CgroupWrite]", wanted: "Filter | None") -> None:
        """Set the properties for new limits, after noting the old ones. Raises StepError."""
        new = self._limits(writes, wanted)
        if not new:
            return
        from ociruntime.cgroups.systemd_properties import Property

        with self.connect(RESOURCES) as systemd:
            found = systemd.properties()
            for item in new:
                if item.name in found and not (item.name == "DeviceAllow" and not item.value):
                    signature, value = found[item.name]
                    if signature[0] == "a":
                        self._old.append(Property(item.name, signature, b"" if signature == "ay" else []))
                    if value or signature[0] != "a":
                        self._old.append(Property(item.name, signature, value))
            systemd.set_properties(new)

    def change_back(self) -> None:
        """The old properties again. Raises StepError."""
        old, self._old = self._old, []
        if old:
            with self.connect(RESOURCES) as systemd:
                systemd.set_properties(old)

    # -- delete

    def stop(self, *, ended: bool = False) -> None:
        """Let systemd forget it. ended: its cgroup is gone, so only a failure can be left of it. Raises StepError."""
        self.release_placeholder()
        if not self.started:
            return
        with self.connect() as systemd:
            if self.is_another():
                pass  # it ended a moment ago, and the name is in use again
            elif ended:
                systemd.reset_failed()
            elif self.inode or systemd.description() == self.description:
                systemd.stop()
        self.started = False


def _move_itself(channel: "Channel", procs: str) -> bool:
    """Have the process at the other end write "0" into cgroup.procs, if it may, tell so, and wait for ever.

    Returns False when it is not asked to. Raises OSError, StepError.
    """
    from ociruntime import plan
    from ociruntime.shim import encode, spawn

    ops = [
        plan.op("cgroup_join", flags=plan.OPTIONAL, fd=plan.FdSource("write", procs)),
        plan.op("sync", args=(plan.SYNC_CREATED,)),
    ]
    try:
        fd = posix.open(procs, posix.O_WRONLY | posix.O_CLOEXEC)
    except OSError:
        return False  # not ours to write: the kernel waits later
    try:
        block = spawn.sealed_block("plan", encode.encode(ops)[0])
        try:
            channel.send_boot()
            channel.send_plan(block, [fd])
        finally:
            posix.close(block)
    finally:
        posix.close(fd)
    return True


def _end(channel: "Channel | None", pid: int, pidfd: int) -> None:
    """End a placeholder, if there is one."""
    if channel is not None:
        channel.close()
    if pidfd < 0:
        return
    from _signal import pidfd_send_signal

    try:
        pidfd_send_signal(pidfd, 9)
    except ProcessLookupError:
        pass
    try:
        posix.waitpid(pid, 0)
    except ChildProcessError:
        pass  # the caller ignores SIGCHLD
    posix.close(pidfd)


def connect(unit: str, *, user: bool, pointer: str = "") -> "Systemd":
    """A connection for calls about a unit. Raises StepError, or UnsupportedError without the D-Bus library."""
    try:
        _load_library()
    except ImportError as error:
        raise UnsupportedError(
            "the systemd cgroup driver",
            f"the Python package jeepney ({error})",
            pointer=pointer,
            hint="install it (Debian: python3-jeepney), or use the cgroupfs driver",
        ) from None
    from ociruntime.cgroups.dbus import Systemd

    return Systemd(unit, user=user, pointer=pointer)


def _load_library() -> None:
    """Import what makes and reads messages. Raises ImportError.

    In the installed command it is frozen, and comes without the rest of its package, which takes as long again: nobody
    has asked for the package then. Else both need the rest of the interpreter.
    """
    from sys import modules

    try:
        import _ociruntime_launcher  # noqa: F401  # where it is, there is one thread
    except ImportError:
        import jeepney.low_level

        return
    if "jeepney" not in modules:
        package = modules["jeepney"] = type(posix)("jeepney")
        package.__path__ = []
        try:
            import jeepney.low_level

            return
        except ImportError:
            pass
        finally:
            del modules["jeepney"]
        from ociruntime.fullpython import full_interpreter

        full_interpreter()
    import jeepney.low_level  # noqa: F401


def own_cgroup(data: bytes) -> str:
    """The cgroup v2 path of a /proc/PID/cgroup file; "" if it has none."""
    for line in data.split(b"\n"):
        if line.startswith(b"0::"):
            return line[3:].decode("utf-8", "surrogateescape").rstrip("/")
    return ""
