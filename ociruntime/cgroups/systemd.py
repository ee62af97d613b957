"""Cgroups that systemd makes: a transient scope (or a slice) per container, with limits in the unit and in the files.

    cgroup v2   UNIT.scope/container    the scope is systemd's, delegated to us: it holds the properties and systemd's
                                        own device filter. The container, its exact limits and our filter are one level
                                        below, where neither a daemon-reload nor a new property undoes anything.
    cgroup v1   UNIT.scope              one directory; the files are written after the properties.
    a slice     UNIT.slice              as v1: systemd does not delegate slices.

A scope begins with a process and ends with its last one, but the limits have to be in place before the container's
first process is. So it begins with a placeholder: our own sealed executable, which waits for orders that never come and
ends with this process at the latest. Once the init process is in the cgroup, before it has got its plan, the
placeholder is ended. Nothing of the container ever runs outside of its limits.

D-Bus is asked by create, update, delete and a rootless exec only; all else works on the files.

Source: systemd.scope(5), org.freedesktop.systemd1(5), systemd's CGROUP_DELEGATION document.
"""

import posix
from errno import EACCES, EPERM

from ociruntime.cgroups import files, systemd_unit
from ociruntime.cgroups.cgroup import POINTER, RESOURCES, Cgroup
from ociruntime.cgroups.v1 import CgroupV1
from ociruntime.cgroups.v2 import CgroupV2, enable_controllers
from ociruntime.errors import OCIError, StateError, StepError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.cgroups.dbus import Systemd
    from ociruntime.cgroups.devices import Filter
    from ociruntime.cgroups.limits import CgroupWrite
    from ociruntime.cgroups.systemd_properties import Property
    from ociruntime.host import Host
    from ociruntime.shim.sync import Channel

LEAF = "/container"
# Files that weigh a cgroup against its siblings, or that take from a quota above it: of no use one level down only.
_RELATIVE = ("cpu.weight", "cpu.idle", "cpu.max.burst", "io.weight", "io.bfq.weight")


class Unit:
    """The unit of one container, and the calls that make, change and end it.

    name: with its suffix. user: it belongs to the user's manager. release: of systemd. directory: its cgroup (v2; the
    first of v1). top: the mount point. extra: properties from annotations. v2: which properties it knows. started:
    whether there may be something to stop.
    """

    __slots__ = (
        "_channel",
        "_old",
        "_pid",
        "_pidfd",
        "directory",
        "extra",
        "name",
        "names",
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
        # The rest is known to create only.
        self.names: systemd_unit.Unit | None = None
        self.extra: list[Property] = []
        self.started = True
        self._channel: Channel | None = None
        self._pid = 0
        self._pidfd = -1
        self._old: list[Property] = []

    def saved(self) -> "dict[str, Any]":
        """What from_state() needs; fit for JSON."""
        return {
            "unit": self.name,
            "user": self.user,
            "release": self.release,
            "directory": self.directory,
            "top": self.top,
            "v2": self.v2,
        }

    def connect(self, pointer: str = "") -> "Systemd":
        """A connection to its manager. Raises StepError."""
        return connect(self.name, user=self.user, pointer=pointer)

    # -- create

    def start(self, container_id: str, writes: "list[CgroupWrite]", wanted: "Filter | None") -> None:
        """Let systemd make it, with all its limits. Raises StepError."""
        from ociruntime.cgroups import systemd_properties

        if self.names is None:
            raise StepError("a unit that exists already cannot be started", step="systemd", path=self.name)
        pid = 0
        if not self.names.is_slice():
            pid = self._make_placeholder()
        properties = systemd_properties.base(self.names, container_id, pid, v2=self.v2)
        properties += self._limits(writes, wanted) + self.extra
        self.started = False
        with self.connect(POINTER) as systemd:
            # A job that fails or takes too long may still have made something.
            self.started = True
            from ociruntime.cgroups.dbus import DBusError

            try:
                systemd.start(properties)
            except DBusError:
                self.started = False  # refused; a unit of this name is not ours
                raise

    def _limits(self, writes: "list[CgroupWrite]", wanted: "Filter | None") -> "list[Property]":
        from ociruntime.cgroups import systemd_properties

        lower = systemd_properties.limits_v2 if self.v2 else systemd_properties.limits_v1
        result = lower(writes, self.release)
        if wanted is not None:
            result += systemd_properties.device_policy(wanted, self.release, RESOURCES)
        return result

    def _make_placeholder(self) -> int:
        from ociruntime.shim import spawn
        from ociruntime.shim.sync import Channel

        self._channel = channel = Channel()
        self._pid, self._pidfd = spawn.spawn_init(channel, 0)
        return self._pid

    def place(self) -> str:
        """Where systemd has put the placeholder on cgroup v2, as /proc has it; "" without one."""
        if not self._pid:
            return ""
        return own_cgroup(files.read(f"/proc/{self._pid}/cgroup"))

    def move_placeholder(self, directory: str) -> None:
        """From the unit's cgroup into one below: controllers can only be enabled there once it is empty."""
        if self._pid:
            files.add_process(directory, self._pid)

    def release_placeholder(self) -> None:
        """End it: the container is in the cgroup, or there will be none. Repeating it is fine."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._pidfd < 0:
            return
        from _signal import pidfd_send_signal

        try:
            pidfd_send_signal(self._pidfd, 9)
        except ProcessLookupError:
            pass
        try:
            posix.waitpid(self._pid, 0)
        except ChildProcessError:
            pass  # the caller ignores SIGCHLD
        posix.close(self._pidfd)
        self._pid, self._pidfd = 0, -1

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

    def stop(self) -> None:
        """Let systemd forget it. Raises StepError."""
        self.release_placeholder()
        if not self.started:
            return
        with self.connect() as systemd:
            systemd.stop()
        self.started = False


class _Managed(Cgroup):
    """What SystemdV1 and SystemdV2 share; ``unit`` is theirs."""

    __slots__ = ()
    unit: Unit

    def saved(self) -> "dict[str, Any]":
        return {**super().saved(), "systemd": self.unit.saved()}

    def check_free(self) -> None:
        super().check_free()
        found = files.pids(self.unit.directory)
        if found:
            raise StateError(
                f"the container's cgroup '{self.unit.directory}' is not empty: {len(found)} process(es) found",
                container_id=self.container_id,
                hint=f"stop the unit '{self.unit.name}', or choose another cgroupsPath",
            )

    def _start(self) -> None:
        from ociruntime.cgroups import devices

        resources: Any
        resources, writes = self._lowered or ({}, [])
        wanted = None if self.rootless or self.skip_devices else devices.wanted(resources, RESOURCES)
        try:
            self.unit.start(self.container_id, writes, wanted)
        except BaseException:
            self.undo()
            raise

    def undo(self) -> None:
        self.unit.release_placeholder()
        super().undo()
        self._stop()

    def remove(self) -> None:
        self.unit.release_placeholder()
        super().remove()
        self._stop()

    def _stop(self) -> None:
        """An empty scope ends by itself, so a manager that does not answer keeps no container from being deleted."""
        try:
            self.unit.stop()
        except OCIError as error:
            self.warnings.append(f"{error}, ignoring")

    def retract(self) -> "list[str]":
        try:
            self.unit.change_back()
        except OCIError:
            return [self.unit.name]
        return []


class SystemdV2(_Managed, CgroupV2):
    """See Cgroup. Mode "v2"."""

    __slots__ = ("_notes", "unit")

    def __init__(self, mode: str, paths: "dict[str, str]", unit: Unit) -> None:
        super().__init__(mode, paths)
        self.unit = unit
        self._notes: list[tuple[str, bytes]] = []

    def _will_make(self, directory: str) -> None:
        # Slice and scope are systemd's to make and to remove.
        if directory != self.unit.directory:
            self.made.append(directory)

    def lower(self, resources: "dict[str, Any]", pointer: str) -> "list[CgroupWrite]":
        writes = super().lower(resources, pointer)
        if self.unit.directory == self.paths[""]:
            _round_quota(writes)
        return writes

    def create(self) -> None:
        self._start()
        self._locate()
        super().create()

    def _locate(self) -> None:
        """Follow systemd's idea of where the unit is, if it is another than ours."""
        expected = self.unit.directory
        place = self.unit.place()
        if not place or self.unit.top + place == expected:
            return
        found = self.unit.top + place
        if place.startswith("/..") or not files.exists(found):
            self.undo()
            raise StepError(
                f"systemd has put it into '{place}', which is not visible below '{self.unit.top}'",
                pointer=POINTER,
                step="systemd",
                path=self.unit.name,
            )
        self.unit.directory = found
        leaf = found + self.paths[""][len(expected) :]
        self.mounts = {leaf: self.unit.top}
        self.paths = {"": leaf}

    def _enable(self, directory: str, top: str) -> None:
        """Whatever systemd has delegated is enabled in the scope; above it only what a limit asks for."""
        unit = self.unit
        if directory != unit.directory:
            unit.move_placeholder(directory)
            there = files.read(unit.directory + "/cgroup.controllers").decode().split()
            enable_controllers(directory, unit.directory, there)
        writes = self._lowered[1] if self._lowered is not None else []
        wanted = {write.controller for write in writes}
        enable_controllers(directory, top, [name for name in self._available or () if name in wanted])

    def clone_directory(self) -> str:
        """None for a rootless caller outside of what systemd has delegated to its user: receive() asks systemd."""
        return self.paths[""] if not self.unit.user or self._reachable() else ""

    def _reachable(self) -> bool:
        """Moving a process takes write access to the nearest cgroup that holds both places. Source: cgroups(7)."""
        own = (self.unit.top + own_cgroup(files.read("/proc/self/cgroup"))).split("/")
        common = []
        for mine, other in zip(own, self.paths[""].split("/"), strict=False):
            if mine != other:
                break
            common.append(mine)
        return posix.access("/".join(common) + "/cgroup.procs", posix.W_OK)

    def receive(self, pid: int) -> None:
        if not self.clone_directory():
            self.add_process(pid)
        self.unit.release_placeholder()

    def add_process(self, pid: int) -> None:
        try:
            super().add_process(pid)
        except StepError as error:
            if error.errno not in (EACCES, EPERM) or not self.unit.user:
                raise
            with self.unit.connect(POINTER) as systemd:
                systemd.attach(self.paths[""][len(self.unit.directory) :], [pid])

    def apply(self, resources: "dict[str, Any]", *, pointer: str = RESOURCES, devices: bool = True) -> None:
        super().apply(resources, pointer=pointer, devices=devices)
        if self._lowered is not None and self._lowered[0] is resources:
            self._weigh(self._lowered[1])

    def _weigh(self, writes: "list[CgroupWrite]") -> None:
        directory = self.unit.directory
        relative = [write for write in writes if write.file in _RELATIVE]
        if relative and directory != self.paths[""]:
            from ociruntime.cgroups import limits

            limits.perform(relative, lambda _: directory)

    def announce(self, writes: "list[CgroupWrite]", wanted: "Filter | None") -> None:
        self.unit.change(writes, None if self.rootless or self.skip_devices else wanted)
        if self.unit.directory == self.paths[""]:
            return
        # Whatever has a property is put back by it.
        path = self.unit.directory + "/cpu.max.burst"
        if any(write.file == "cpu.max.burst" for write in writes):
            self._notes = [(path, files.read_or_empty(path).strip())]
        self._weigh(writes)

    def retract(self) -> "list[str]":
        failed = super().retract()
        for path, value in self._notes:
            try:
                if value:
                    files.write(path, value)
            except OSError:
                failed.append(path)
        return failed


class SystemdV1(_Managed, CgroupV1):
    """See Cgroup. Modes "v1" and "hybrid"."""

    __slots__ = ("unit",)

    def __init__(self, mode: str, paths: "dict[str, str]", unit: Unit) -> None:
        super().__init__(mode, paths)
        self.unit = unit

    def lower(self, resources: "dict[str, Any]", pointer: str) -> "list[CgroupWrite]":
        """The quota is what systemd counts in, and needs its period: the unit has one property for both."""
        cpu = resources.get("cpu") or {}
        directory = self.paths.get("cpu", "")
        if directory and bool(cpu.get("quota")) != bool(cpu.get("period")) and files.exists(directory):
            quota = files.read_or_empty(directory + "/cpu.cfs_quota_us").strip()
            period = files.read_or_empty(directory + "/cpu.cfs_period_us").strip()
            if quota and period:
                now = {"quota": int(quota), "period": int(period)}
                now.update({name: cpu[name] for name in now if cpu.get(name)})
                resources = {**resources, "cpu": {**cpu, **now}}
        writes = super().lower(resources, pointer)
        _round_quota(writes)
        return writes

    def create(self) -> None:
        self._start()
        super().create()

    def receive(self, pid: int) -> None:
        # It joins by itself later on, when the placeholder that keeps the scope alive is gone.
        self.add_process(pid)
        self.unit.release_placeholder()

    def _release(self, directory: str) -> None:
        """The directory and its device list are systemd's, and go with the unit."""

    def announce(self, writes: "list[CgroupWrite]", wanted: "Filter | None") -> None:
        """systemd denies everything for a moment when it sets a list of devices: nothing may run then."""
        _check_v1(wanted)
        frozen = wanted is not None and not self.frozen()
        if frozen:
            self.freeze()
        try:
            self.unit.change(writes, wanted)
        finally:
            if frozen:
                self.thaw()


def _round_quota(writes: "list[CgroupWrite]") -> None:
    if any("cpu." in write.file for write in writes):
        from ociruntime.cgroups import systemd_properties

        systemd_properties.round_quota(writes)


def _check_v1(wanted: "Filter | None") -> None:
    if wanted is not None and wanted.default_allow and wanted.exceptions:
        raise UnsupportedError(
            "a list of devices that are denied",
            "cgroup v2 when systemd manages the cgroup: on cgroup v1 it would allow them again",
            pointer=f"{RESOURCES}/devices",
            hint="list the devices that are allowed, or use the cgroupfs driver",
        )


def choose(host: "Host", config: "dict[str, Any]", container_id: str) -> Cgroup:
    """The cgroup for a new container; see ``manager.choose``. Asks the manager for its version, makes nothing.

    Raises ConfigError for a bad cgroupsPath or annotation, StepError when systemd cannot be asked.
    """
    user = host.rootless and (host.euid != 0 or host.in_userns)
    if host.cgroup_mode == "none" or (user and host.cgroup_mode != "v2"):
        raise UnsupportedError(
            "the systemd cgroup driver",
            "cgroup v2 for a rootless runtime" if user else "a mounted cgroup file system",
            hint="use --cgroup-manager cgroupfs or disabled",
        )
    from ociruntime.cgroups import systemd_properties

    linux = config.get("linux") or {}
    names = systemd_unit.unit(linux.get("cgroupsPath") or "", container_id, "user.slice" if user else "system.slice")
    extra = systemd_properties.from_annotations(config.get("annotations") or {})
    with connect(names.name, user=user, pointer=POINTER) as systemd:
        version, root = systemd.facts()
    v2 = host.cgroup_mode == "v2"
    path = root + names.path
    if v2:
        places = {"": host.unified + path}
    else:
        places = {name: point + path for name, point in host.cgroup_mounts.items()}
        if host.unified:
            places[""] = host.unified + path
    directory = places.get("name=systemd") or places.get("") or next(iter(places.values()))
    unit = Unit(
        names.name,
        user=user,
        release=systemd_properties.major_release(version),
        directory=directory,
        top=host.unified,
        v2=v2,
    )
    unit.names = names
    unit.extra = extra
    unit.started = False
    if not v2:
        from ociruntime.cgroups import devices

        _check_v1(devices.wanted(linux.get("resources") or {}, RESOURCES))
        result: Cgroup = SystemdV1(host.cgroup_mode, places, unit)
    else:
        result = SystemdV2("v2", {"": directory if names.is_slice() else directory + LEAF}, unit)
    for name, place in result.paths.items():
        result.mounts[place] = host.cgroup_mounts[name] if name else host.unified
    return result


def from_state(saved: "dict[str, Any]") -> Cgroup:
    """See ``manager.from_state``."""
    facts = saved["systemd"]
    unit = Unit(
        facts["unit"],
        user=facts["user"],
        release=facts["release"],
        directory=facts["directory"],
        top=facts["top"],
        v2=facts["v2"],
    )
    kind = SystemdV2 if facts["v2"] else SystemdV1
    return kind(saved["mode"], saved["paths"], unit)


def connect(unit: str, *, user: bool, pointer: str = "") -> "Systemd":
    """A connection for calls about a unit. Raises StepError, or UnsupportedError without the D-Bus library."""
    from ociruntime.fullpython import full_interpreter

    full_interpreter()
    try:
        import jeepney  # noqa: F401
    except ImportError as error:
        raise UnsupportedError(
            "the systemd cgroup driver",
            f"the Python package jeepney ({error})",
            pointer=pointer,
            hint="install it (Debian: python3-jeepney), or use the cgroupfs driver",
        ) from None
    from ociruntime.cgroups.dbus import Systemd

    return Systemd(unit, user=user, pointer=pointer)


def own_cgroup(data: bytes) -> str:
    """The cgroup v2 path of a /proc/PID/cgroup file; "" if it has none."""
    for line in data.split(b"\n"):
        if line.startswith(b"0::"):
            return line[3:].decode("utf-8", "surrogateescape").rstrip("/")
    return ""
