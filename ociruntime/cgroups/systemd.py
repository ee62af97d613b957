"""Cgroups that systemd makes: a transient scope (or a slice) per container, with limits in the unit and in the files.

    cgroup v2   UNIT.scope/container    the scope is systemd's, delegated to us: it holds the properties and systemd's
                                        own device filter. The container, its exact limits and our filter are one level
                                        below, where neither a daemon-reload nor a new property undoes anything. An
                                        annotation gives that level another name, or leaves it out (``delegation``).
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
from ociruntime.cgroups.cgroup import POINTER, RESOURCES, Cgroup, NoCgroup
from ociruntime.cgroups.systemd_scope import Unit, connect, own_cgroup
from ociruntime.cgroups.v1 import CgroupV1
from ociruntime.cgroups.v2 import CgroupV2, enable_controllers
from ociruntime.errors import OCIError, StateError, StepError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.cgroups.devices import Filter
    from ociruntime.cgroups.limits import CgroupWrite
    from ociruntime.host import Host

LEAF = "container"
# Files that weigh a cgroup against its siblings (io.latency too: a target is kept at the cost of siblings that have a
# higher one), or that take from a quota above it: of no use one level down only.
_RELATIVE = (
    "cpu.weight",
    "cpu.weight.nice",
    "cpu.idle",
    "cpu.max.burst",
    "io.weight",
    "io.bfq.weight",
    "io.latency",
)


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

    def begin(self) -> None:
        from ociruntime.cgroups import devices

        resources: Any
        resources, writes = self._lowered or ({}, [])
        wanted = None if self.rootless or self.skip_devices else devices.wanted(resources, RESOURCES)
        try:
            self.unit.begin(writes, wanted)
        except BaseException:
            self._not_started()
            raise

    def _finish(self) -> None:
        """Wait for what begin() has asked for."""
        if not self.unit.pending:
            self.begin()
        try:
            self.unit.finish()
        except BaseException:
            self._not_started()
            raise

    def _not_started(self) -> None:
        """Nothing of the container is there yet: what is in that place belongs to somebody else."""
        self.paths, self.made = {}, []
        self.undo()

    def abandon(self) -> None:
        self.unit.abandon()

    def undo(self) -> None:
        self.unit.release_placeholder()
        super().undo()
        self._stop()

    def _unfinished(self) -> bool:
        """Whether this is what a killed create has left, so early that no process of the container was ever here."""
        return not self.unit.inode and self.unit.names is None

    def exists(self) -> bool:
        return not self._unfinished() and super().exists()

    def _known(self) -> None:
        """Until systemd has answered, nobody knows whose unit has the name."""
        if self.unit.pending:
            try:
                self._finish()
            except OCIError as error:
                self.warnings.append(f"{error}, ignoring")

    def kill(self) -> None:
        self._known()
        if not self._unfinished():
            super().kill()

    def remove(self) -> None:
        self._known()
        if self._unfinished():
            self.undo()
            return
        self.unit.release_placeholder()
        ended = not files.exists(self.unit.directory)
        super().remove()
        self._stop(ended)

    def _stop(self, ended: bool = False) -> None:
        """An empty scope ends by itself, so a manager that does not answer keeps no container from being deleted."""
        try:
            self.unit.stop(ended=ended)
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
        self._notes: list[tuple[str, str, bytes]] = []

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
        self._finish()
        self._locate()
        super().create()
        self.unit.note_directory()

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
        self.unit.begun()

    def add_process(self, pid: int) -> None:
        try:
            super().add_process(pid)
        except StepError as error:
            if error.errno not in (EACCES, EPERM) or not self.unit.user:
                raise
            with self.unit.connect(POINTER) as systemd:
                # create moves the init process on by itself
                place = self.paths[""] if self.unit.names is not None else self.home()
                systemd.attach(place[len(self.unit.directory) :], [pid])

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
        # Not all of them have a property that puts them back.
        from ociruntime.cgroups import update

        for write in writes:
            if write.file in _RELATIVE:
                note = update.note(write, self.unit.directory)
                if note is not None:
                    self._notes.append(note)
        self._weigh(writes)

    def retract(self) -> "list[str]":
        failed = super().retract()
        notes, self._notes = self._notes, []
        if notes:
            from ociruntime.cgroups import update

            failed += update.put_back(notes)
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
        self._finish()
        super().create()
        self.unit.note_directory()

    def receive(self, pid: int) -> None:
        # It joins by itself later on, when the placeholder that keeps the scope alive is gone.
        self.add_process(pid)
        self.unit.begun()

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
    if wanted is not None and any(major == -1 != minor for _, major, minor in wanted.exceptions):
        raise UnsupportedError(
            "a minor number without its major number in a list of devices",
            "cgroup v2 when systemd manages the cgroup: on cgroup v1 it would allow every minor number",
            pointer=f"{RESOURCES}/devices",
            hint="name the major numbers, or use the cgroupfs driver",
        )


def choose(host: "Host", config: "dict[str, Any]", container_id: str) -> Cgroup:
    """The cgroup for a new container; see ``manager.choose``. Asks the manager for its version, starts the placeholder.

    Raises ConfigError for a bad cgroupsPath or annotation, StepError when systemd cannot be asked.
    """
    user = host.rootless and (host.euid != 0 or host.in_userns)
    if host.cgroup_mode == "none" or (user and host.cgroup_mode != "v2"):
        raise UnsupportedError(
            "the systemd cgroup driver",
            "cgroup v2 for a rootless runtime" if user else "a mounted cgroup file system",
            hint="use --cgroup-manager cgroupfs or disabled",
        )
    path = (config.get("linux") or {}).get("cgroupsPath") or ""
    names = systemd_unit.unit(path, container_id, "user.slice" if user else "system.slice")
    unit = Unit(names.name, user=user, release=0, directory="", top=host.unified, v2=host.cgroup_mode == "v2")
    unit.names = names
    unit.description = f"ociruntime container {container_id}"
    unit.started = False
    own = host.own_cgroups.get("", "/..") if host.unified else "/.."
    try:
        unit.begin_placeholder(f"{host.unified}{own.rstrip('/')}/cgroup.procs" if not own.startswith("/..") else "")
        return _choose(host, config, unit, names)
    except BaseException:
        unit.abandon()
        raise


def _choose(host: "Host", config: "dict[str, Any]", unit: Unit, names: systemd_unit.Unit) -> Cgroup:
    from ociruntime.cgroups import systemd_properties

    annotations = config.get("annotations") or {}
    unit.extra = systemd_properties.from_annotations(annotations)
    for item in unit.extra:
        if item.name == "Description":
            unit.description = str(item.value)
    leaf = _leaf(annotations, unit.v2 and not names.is_slice())
    if not unit.v2:
        from ociruntime.cgroups import devices

        _check_v1(devices.wanted((config.get("linux") or {}).get("resources") or {}, RESOURCES))
    systemd = connect(names.name, user=unit.user, pointer=POINTER)
    unit.keep(systemd)
    version, root = systemd.facts()
    path = root + names.path
    if unit.v2:
        places = {"": host.unified + path}
    else:
        places = {name: point + path for name, point in host.cgroup_mounts.items()}
        if host.unified:
            places[""] = host.unified + path
    unit.release = systemd_properties.major_release(version)
    unit.directory = directory = places.get("name=systemd") or places.get("") or next(iter(places.values()))
    if unit.v2:
        result: Cgroup = SystemdV2("v2", {"": f"{directory}/{leaf}" if leaf else directory}, unit)
    else:
        result = SystemdV1(host.cgroup_mode, places, unit)
    for name, place in result.paths.items():
        result.mounts[place] = host.cgroup_mounts[name] if name else host.unified
    return result


def _leaf(annotations: "dict[str, str]", possible: bool) -> str:
    """The name of the container's cgroup below its unit's; "" if they are the same."""
    from ociruntime.cgroups import delegation

    if delegation.SUBGROUP not in annotations:
        return LEAF if possible else ""
    name = delegation.path(annotations, delegation.SUBGROUP)
    if name and not possible:
        raise UnsupportedError(
            "a sub-cgroup of the container's unit",
            "a scope on cgroup v2",
            pointer=f"/annotations/{delegation.SUBGROUP}",
        )
    return name


def from_state(saved: "dict[str, Any]") -> Cgroup:
    """See ``manager.from_state``. A container whose unit has ended, and its name been used again, has no cgroup."""
    facts = saved["systemd"]
    unit = Unit(
        facts["unit"],
        user=facts["user"],
        release=facts["release"],
        directory=facts["directory"],
        top=facts["top"],
        v2=facts["v2"],
    )
    unit.inode = facts["inode"]
    unit.description = facts["description"]
    if unit.is_another():
        return NoCgroup()
    kind = SystemdV2 if facts["v2"] else SystemdV1
    return kind(saved["mode"], saved["paths"], unit)
