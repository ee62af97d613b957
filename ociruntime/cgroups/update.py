"""New limits for a cgroup that is in use: all of them, or none.

Whatever file is going to be written is read before; when a write fails, what the earlier ones changed is put back. The
allowed devices come last. On cgroup v2 one program takes the place of the other in one step. On cgroup v1 rules are
added before others are taken away; only a change of the default itself passes through a state that is neither the old
list nor the new one, and meanwhile the processes are frozen.
"""

from errno import ENODEV, ENOENT

from ociruntime.cgroups import devices, files, limits
from ociruntime.cgroups.limits import CgroupWrite
from ociruntime.cgroups.v1 import CgroupV1
from ociruntime.errors import OCIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.cgroups.cgroup import Cgroup
    from ociruntime.cgroups.devices import Filter
    from ociruntime.host import Host

# Files with a line per device or resource; a write changes one of them.
_KEYED = ("rdma.max", "misc.max", "dmem.max", "dmem.min", "dmem.low", "net_prio.ifpriomap")
_WEIGHTS = ("cpu.shares", "cpu.weight")
# It says what is enabled, and takes what is to be changed of that.
_CHANGES = "/cgroup.subtree_control"
_NO_LINE = (
    ("io.max", "rbps=max wbps=max riops=max wiops=max"),
    ("io.latency", "target=0"),
    ("blkio.throttle.", "0"),
    ("", "default"),
)


class Update:
    """One update of one cgroup. Making it refuses what is wrong in itself, before anything is changed.

    resources: of config.json's form, with only what is to be changed; devices, if there, are the whole new list.
    previous: the list of devices before, in the same form.
    Raises ConfigError, UnsupportedError with pointers into resources.
    """

    __slots__ = (
        "_announced",
        "_before",
        "_cgroup",
        "_exchanged",
        "_filter",
        "_host",
        "_old_filter",
        "_previous",
        "_resources",
        "_writes",
    )

    def __init__(
        self, cgroup: "Cgroup", resources: "dict[str, Any]", previous: "list[dict[str, Any]]", host: "Host"
    ) -> None:
        self._cgroup = cgroup
        self._host = host if _sees(host, cgroup) else None
        self._resources = resources
        self._previous: dict[str, Any] = {"devices": previous}
        self._before: list[tuple[str, str, bytes]] = []
        self._filter: Filter | None = None
        self._old_filter: Filter | None = None
        self._announced = False
        self._exchanged = False
        if self._host is not None:
            cgroup.prepare(self._host, {})
        limits_only = {name: value for name, value in resources.items() if name != "devices"}
        self._writes: list[CgroupWrite] = cgroup.lower(complete(cgroup, limits_only), "")
        if "devices" in resources:
            self._filter = devices.wanted(resources, "")
            self._old_filter = devices.wanted(self._previous, "/linux/resources")

    def apply(self) -> None:
        """Write everything. After an error, call ``restore``. Raises UnsupportedError, StepError."""
        cgroup = self._cgroup
        self._enable()
        for write in self._writes:
            # An idle cgroup has lost its weight, so that comes back after it. Source: kernel sched_group_set_idle().
            lost = [CgroupWrite("", "cpu", name, "") for name in _WEIGHTS] if write.file == "cpu.idle" else []
            for item in (*lost, write):
                before = note(item, cgroup._directory(item.controller))
                if before is not None:
                    self._before.append(before)
        limits.check_usage(self._writes, cgroup._directory)
        self._announced = True
        cgroup.announce(self._writes, self._filter if self._filter != self._old_filter else None)
        limits.perform(self._writes, cgroup._directory)
        if self._filter is not None and self._filter != self._old_filter:
            set_devices(cgroup, self._resources, self._previous, "")
            self._exchanged = True

    def restore(self) -> "list[str]":
        """Put the old values back, the devices too. Returns the paths of files for which that did not work."""
        failed = self._cgroup.retract() if self._announced else []
        if self._exchanged:
            try:
                set_devices(self._cgroup, self._previous, self._resources, "/linux/resources")
            except OCIError as error:
                failed.append(error.path or "the devices")
        return failed + put_back(self._before)

    def _enable(self) -> None:
        """On cgroup v2 a controller that nobody asked for before may have to be switched on."""
        unified = self._cgroup.paths.get("", "")
        if self._host is None or not unified:
            return
        wanted = {write.controller for write in self._writes}
        wanted = {name for name in wanted if name in self._host.controllers and name not in self._cgroup.paths}
        if wanted:
            from ociruntime.cgroups import v2

            enabled = v2.enable_controllers(unified, self._host.unified, wanted)
            if enabled and self._cgroup.delegated:
                from ociruntime.cgroups import delegation

                delegation.hand_over(self._cgroup)
            if enabled and self._cgroup.owner is not None:
                from ociruntime.cgroups import owner

                owner.give(self._cgroup, self._cgroup.owner)


def note(write: CgroupWrite, directory: str) -> "tuple[str, str, bytes] | None":
    """What is in a file now: (path, key of the line or "", what to write to get it back); None for no value."""
    file, value = write.file, write.value
    if write.fallback is not None and not files.exists(f"{directory}/{file}"):
        file, value = write.fallback
    key = value.split()[0] if file in _KEYED or _is_device(value) else ""
    path = f"{directory}/{file}"
    try:
        return path, key, old_value(file, key, files.read(path))
    except OSError:
        return None  # missing: the write will say so; not readable: it is a command and not a value


def put_back(notes: "list[tuple[str, str, bytes]]") -> "list[str]":
    """Write old values, the last one first. Returns the paths of files for which that did not work."""
    # A value may be refused until another one is back: twice.
    left = [item for item in reversed(notes) if not _put_back(*item)]
    return [path for path, key, value in left if not _put_back(path, key, value)]


def _sees(host: "Host", cgroup: "Cgroup") -> bool:
    unified = cgroup.paths.get("", "")
    return bool(unified and host.unified) and unified.startswith(host.unified.rstrip("/") + "/")


def _is_device(value: str) -> bool:
    major, colon, minor = (value.split() or [""])[0].partition(":")
    return bool(colon) and major.isdigit() and minor.isdigit()


def old_value(file: str, key: str, content: bytes) -> bytes:
    """What to write to a file to get back what it holds. key: the line it is about, "" for a file of one value."""
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    if key:
        for line in lines:
            if line.split()[:1] == [key]:
                return line.strip().encode("utf-8", "surrogateescape")
        word = next(word for prefix, word in _NO_LINE if file.startswith(prefix))
        return f"{key} {word}".encode("utf-8", "surrogateescape")
    line = lines[0].strip()
    if file == "memory.oom_control":
        line = line.rpartition(" ")[2]
    return line.encode("utf-8", "surrogateescape") or b"\n"


def _put_back(path: str, key: str, value: bytes) -> bool:
    """Write an old value, unless it is there already."""
    try:
        now = old_value(path[path.rfind("/") + 1 :], key, files.read(path))
        if now != value:
            files.write(path, changes(now, value) if path.endswith(_CHANGES) else value)
    except OSError as error:
        # A cgroup that has ended meanwhile has no values at all.
        return error.errno in (ENOENT, ENODEV)
    return True


def changes(now: bytes, before: bytes) -> bytes:
    """What to write to a list of controllers that is enabled, or not any more, to get back to what it was."""
    there, wanted = now.split(), before.split()
    words = [b"+" + name for name in wanted if name not in there]
    return b" ".join(words + [b"-" + name for name in there if name not in wanted])


def complete(cgroup: "Cgroup", resources: "dict[str, Any]") -> "dict[str, Any]":
    """Add what cgroup v2 keeps in one file, or counts from another, and what the update leaves as it is.

    Quota and period are one file; memory and swap together are counted from the limit of memory alone.
    """
    unified = cgroup.paths.get("", "")
    result = dict(resources)
    cpu = resources.get("cpu") or {}
    if unified and bool(cpu.get("quota")) != bool(cpu.get("period")):
        now = files.read_or_empty(unified + "/cpu.max").decode("ascii", "replace").split()
        if len(now) == 2 and "cpu" not in cgroup.paths:
            quota = -1 if now[0] == "max" else int(now[0])
            result["cpu"] = {**cpu, "quota": cpu.get("quota") or quota, "period": cpu.get("period") or int(now[1])}
    memory = resources.get("memory") or {}
    if unified and "memory" not in cgroup.paths and (memory.get("swap") or 0) > 0 and not memory.get("limit"):
        limit = files.read_or_empty(unified + "/memory.max").strip()
        if limit:
            result["memory"] = {**memory, "limit": -1 if limit == b"max" else int(limit)}
    return result


def set_devices(cgroup: "Cgroup", resources: "dict[str, Any]", previous: "dict[str, Any]", pointer: str) -> None:
    """Exchange the list of allowed devices. previous: the one before, which is in force again after an error."""
    directory = cgroup.paths.get("devices", "")
    if not isinstance(cgroup, CgroupV1) or not directory or cgroup.skip_devices:
        cgroup.apply({"devices": resources.get("devices") or []}, pointer=pointer)
        return
    target = devices.wanted(resources, pointer)
    current = devices.parse_list(files.read(directory + "/devices.list"))
    old = devices.wanted(previous, "/linux/resources")
    if current.default_allow and old.default_allow:
        current = old  # the kernel does not show the exceptions then
    frozen = current.default_allow != target.default_allow and not cgroup.frozen()
    if frozen:
        cgroup.freeze()
    try:
        try:
            cgroup.set_devices(directory, current, target, pointer)
        except OCIError:
            now = devices.parse_list(files.read(directory + "/devices.list"))
            if now.default_allow and target.default_allow:
                now = target
            cgroup.set_devices(directory, now, current, pointer)
            raise
    finally:
        if frozen:
            cgroup.thaw()
