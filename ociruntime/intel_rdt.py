"""/linux/intelRdt: a class of service (CLOS) and a monitoring group of the resctrl file system.

    resctrl/             the root group, closID "/"
    resctrl/CLOS/        tasks, schemata
    resctrl/CLOS/mon_groups/ID/   tasks: what enableMonitoring makes

The class is named by closID, or by the container's ID. One that is there already is used as it is, and must be what the
config says; only a directory that create has made is ever written to, or removed. What was made is in the state, so
that delete knows.

Source: runtime-spec config-linux.md, "IntelRdt"; kernel filesystems/resctrl.rst.
"""

import posix
from errno import EEXIST, ENODEV, ENOENT

from ociruntime import files
from ociruntime.errors import ConfigError, StepError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Schemata = dict[tuple[str, int], int]

_POINTER = "/linux/intelRdt"
_ROOT_GROUP = "/"
# Resources whose values are decimal numbers; those of all others are hexadecimal bit masks.
_BANDWIDTH = ("MB", "SMBA")
_CACHE_INFO = ("cbm_mask", "min_cbm_bits", "num_closids")
_BANDWIDTH_INFO = ("bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids")


class IntelRdt:
    """The groups of one container.

    directory: of the class; named: closID gave its name, so it outlives the container; made: create has made it.
    monitor: directory of the monitoring group, "" for none; monitor_made: create has made it.
    lines: (JSON pointer, what goes into the file schemata).
    """

    __slots__ = ("directory", "lines", "made", "monitor", "monitor_made", "named", "root")

    def __init__(self, root: str, name: str, *, named: bool, monitor: str, lines: "list[tuple[str, str]]") -> None:
        self.root = root
        self.directory = root if name == _ROOT_GROUP else f"{root}/{name}"
        self.named = named
        self.monitor = f"{self.directory}/mon_groups/{monitor}" if monitor else ""
        self.lines = lines
        self.made = False
        self.monitor_made = False

    def plan(self) -> None:
        """Look at what is there; afterwards ``saved`` tells what ``create`` is going to make.

        Raises ConfigError: the class is missing and nothing says what should be in it, or it is another one.
        """
        if posix.access(self.directory, posix.F_OK):
            self._check()
        elif self.named and not self.lines:
            raise ConfigError(
                "there is no such class of service, and no schema to make one from",
                pointer=f"{_POINTER}/closID",
                path=self.directory,
                errno=ENOENT,
            )
        else:
            self.made = True
        self.monitor_made = bool(self.monitor)

    def _check(self) -> None:
        if not self.named:
            raise ConfigError(
                "there is a class of service of this container's ID already",
                pointer=_POINTER,
                path=self.directory,
                hint="set closID to share it, or remove its directory",
            )
        if self.lines:
            compare(self.lines, _read(f"{self.directory}/schemata"), self._granularity(), path=self.directory)

    def create(self) -> None:
        """Make the directories and fill in the class. ``made`` and ``monitor_made`` tell the truth at any moment."""
        planned, self.made, self.monitor_made = self.made, False, False
        if planned:
            try:
                _mkdir(self.directory)
                self.made = True
            except OSError as error:
                if error.errno != EEXIST:
                    raise _failed("cannot make the class of service", error, pointer=f"{_POINTER}/closID") from None
                self._check()  # somebody else has just made it
        if self.made:
            for pointer, text in self.lines:
                _write_schema(self.directory, self.root, pointer, text)
        if self.monitor:
            try:
                _mkdir(self.monitor)
                self.monitor_made = True
            except OSError as error:
                raise _failed(
                    "cannot make the monitoring group", error, pointer=f"{_POINTER}/enableMonitoring"
                ) from None

    def _granularity(self) -> "dict[str, int]":
        """Steps of the bandwidth resources, to which the kernel rounds up."""
        steps = {}
        for name in _BANDWIDTH:
            text = _read(f"{self.root}/info/{name}/bandwidth_gran").strip()
            if text.isdigit() and int(text):
                steps[name] = int(text)
        return steps

    def saved(self) -> "dict[str, object]":
        """What the state remembers, for ``join`` and ``remove``."""
        return {
            "directory": self.directory,
            "named": self.named,
            "made": self.made,
            "monitor": self.monitor,
            "monitorMade": self.monitor_made,
        }

    def undo(self) -> None:
        """Remove all that was made, for a create that fails."""
        remove(self.saved(), failed=True)


def lower(config: "dict[str, Any]", container_id: str, root: "str | None" = None) -> "IntelRdt | None":
    """Lower /linux/intelRdt. root: mount point of resctrl; None looks for it. Changes nothing.

    Raises UnsupportedError without resctrl, and what ``IntelRdt.plan`` raises.
    """
    section = (config.get("linux") or {}).get("intelRdt")
    if section is None:
        return None
    if root is None:
        root = mount_point()
    if not root:
        raise UnsupportedError(
            "a class of service",
            "a mounted resctrl file system",
            pointer=_POINTER,
            hint="mount -t resctrl resctrl /sys/fs/resctrl",
        )
    name = section.get("closID") or ""
    result = IntelRdt(
        root,
        name or container_id,
        named=bool(name),
        monitor=container_id if section.get("enableMonitoring") else "",
        lines=schema_lines(section),
    )
    result.plan()
    return result


def schema_lines(section: "dict[str, Any]") -> "list[tuple[str, str]]":
    """(pointer, text) of what goes into schemata: l3CacheSchema, memBwSchema, schemata, in this order.

    Lines of l3CacheSchema that begin with MB: are left out when there is a memBwSchema.
    """
    cache, bandwidth = section.get("l3CacheSchema") or "", section.get("memBwSchema") or ""
    parts = [line for line in cache.split("\n") if line and not (bandwidth and line.lstrip().startswith("MB:"))]
    lines = []
    if parts:
        lines.append((f"{_POINTER}/l3CacheSchema", "\n".join(parts)))
    if bandwidth:
        lines.append((f"{_POINTER}/memBwSchema", bandwidth))
    for index, line in enumerate(section.get("schemata") or ()):
        if line:
            lines.append((f"{_POINTER}/schemata/{index}", line))
    return lines


def parse(text: str) -> "Schemata":
    """Lines such as "L3:0=ff;1=f0" as (resource, domain) to number. Raises ValueError for anything else."""
    found: dict[tuple[str, int], int] = {}
    for line in text.split("\n"):
        if not line.strip():
            continue
        resource, colon, domains = line.partition(":")
        resource = resource.strip()
        if not colon or not resource:
            raise ValueError(f"'{line.strip()}' names no resource")
        base = 10 if resource in _BANDWIDTH else 16
        for item in domains.split(";"):
            number, equals, value = item.partition("=")
            if not equals:
                raise ValueError(f"'{item.strip()}' is not of the form domain=value")
            found[resource, int(number)] = int(value, base)
    return found


def compare(lines: "list[tuple[str, str]]", actual: str, steps: "dict[str, int]", *, path: str = "") -> None:
    """Refuse a class that differs from what the config would write: every line, numbers as numbers, in any order.

    actual: its file schemata. steps: granularity of bandwidth resources. A domain that the config does not name may
    have any value, as it would keep it when written. Raises ConfigError at the member that differs.
    """
    try:
        present = parse(actual)
    except ValueError:
        present = {}
    wanted: dict[tuple[str, int], tuple[str, int]] = {}
    for pointer, text in lines:
        try:
            for key, value in parse(text).items():
                wanted[key] = (pointer, value)
        except ValueError as error:
            raise ConfigError(f"{error}", pointer=pointer) from None
    for (resource, domain), (pointer, value) in wanted.items():
        has = present.get((resource, domain))
        step = steps.get(resource, 1)
        if has is None or has not in (value, -(-value // step) * step):
            there = "nothing" if has is None else f"{has}" if resource in _BANDWIDTH else f"{has:x}"
            raise ConfigError(
                f"the class of service exists, with {there} for domain {domain} of {resource}",
                pointer=pointer,
                path=path,
            )


def _write_schema(directory: str, root: str, pointer: str, text: str) -> None:
    """One write to schemata. Raises StepError with what the kernel says about it."""
    path = f"{directory}/schemata"
    try:
        _write(path, text + "\n")
    except OSError as error:
        said = _read(f"{root}/info/last_cmd_status").strip()
        hint = f"the kernel says: {said}" if said and said != "ok" else ""
        raise StepError(
            "cannot write the schema",
            step="intelRdt",
            pointer=pointer,
            errno=error.errno or 0,
            path=path,
            hint=hint,
        ) from None


def change(saved: "dict[str, Any]", lines: "list[tuple[str, str]]") -> str:
    """Write lines (see ``schema_lines``) to the class of a container. Returns what was in it, for ``change_back``.

    Raises UnsupportedError when the container has no class; StepError, and then the class is as it was.
    """
    directory = saved.get("directory") or ""
    if not directory:
        raise UnsupportedError(
            "a schema", "a class of service, and the container has none", pointer=lines[0][0], hint="see intelRdt"
        )
    before = _read(f"{directory}/schemata")
    try:
        for pointer, text in lines:
            _write_schema(directory, _root_of(directory), pointer, text)
    except StepError:
        change_back(saved, before)
        raise
    return before


def change_back(saved: "dict[str, Any]", before: str) -> None:
    """Put back what ``change`` returned."""
    text = "\n".join([line.strip() for line in before.split("\n") if line.strip()])
    if text:
        _write_schema(saved["directory"], _root_of(saved["directory"]), _POINTER, text)


def _root_of(directory: str) -> str:
    """The mount point, for a class: its directory is right below."""
    return directory if posix.access(f"{directory}/info", posix.F_OK) else directory.rpartition("/")[0]


def stats(saved: "dict[str, Any]") -> "dict[str, object]":
    """What the class allows and what its monitoring has counted, for `events`; {} for a container without a class.

    l3_cache_info, mem_bw_info: of the machine; l3_cache_schema, mem_bw_schema, and the same of the root group;
    mbm_stats, cmt_stats: one entry per domain, in bytes. What there is none of is left out.
    """
    directory = saved.get("directory") or ""
    if not directory:
        return {}
    root = _root_of(directory)
    result: dict[str, object] = {}
    described: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        ("l3_cache", "L3", _CACHE_INFO),
        ("mem_bw", "MB", _BANDWIDTH_INFO),
    )
    for name, resource, wanted in described:
        info: dict[str, object] = {}
        for file in wanted:
            text = _read(f"{root}/info/{resource}/{file}").strip()
            if text:
                info[file] = text if file == "cbm_mask" or not text.isdigit() else int(text)
        if info:
            result[f"{name}_info"] = info
        for key, group in ((f"{name}_schema_root", root), (f"{name}_schema", directory)):
            for line in _read(f"{group}/schemata").split("\n"):
                if line.strip().startswith(resource + ":"):
                    result[key] = line.strip()
    monitored = f"{saved.get('monitor') or directory}/mon_data"
    try:
        domains = sorted(name for name in posix.listdir(monitored) if name.startswith("mon_L3_"))
    except OSError:
        domains = []
    monitoring: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("mbm_stats", ("mbm_total_bytes", "mbm_local_bytes")),
        ("cmt_stats", ("llc_occupancy",)),
    )
    for key, counters in monitoring:
        entries = []
        for domain in domains:
            texts = {file: _read(f"{monitored}/{domain}/{file}").strip() for file in counters}
            numbers = {file: int(text) for file, text in texts.items() if text.isdigit()}
            if numbers:
                entries.append(numbers)
        if entries:
            result[key] = entries
    return result


def join(saved: "dict[str, Any]", pid: int) -> None:
    """Put a process into the groups of a container. It must have one thread: resctrl counts tasks."""
    for key in ("directory", "monitor"):
        if saved.get(key):
            path = f"{saved[key]}/tasks"
            try:
                _write(path, f"{pid}\n")
            except OSError as error:
                raise StepError(
                    "cannot join the class of service",
                    step="intelRdt",
                    pointer=_POINTER,
                    errno=error.errno or 0,
                    path=path,
                ) from None


def remove(saved: "dict[str, Any]", *, failed: bool = False) -> None:
    """Remove the monitoring group, and the class if create made it for this container alone.

    failed: the create has not come to its end, so a class that closID names goes too, unless others are in it by now.
    Repeating it, and a resctrl that is gone, are no errors.
    """
    if saved.get("monitorMade"):
        _rmdir(saved["monitor"])
    if saved.get("made") and (not saved.get("named") or (failed and not _used(saved["directory"]))):
        _rmdir(saved["directory"])


def _used(directory: str) -> bool:
    return bool(_read(f"{directory}/tasks").strip())


def mount_point(mountinfo: "str | None" = None) -> str:
    """Where resctrl is mounted, "" if it is not. Source: proc_pid_mountinfo(5)."""
    if mountinfo is None:
        mountinfo = _read("/proc/self/mountinfo")
    for line in mountinfo.split("\n"):
        before, dash, after = line.partition(" - ")
        if dash and after.startswith("resctrl "):
            point = before.split(" ")[4]
            for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                point = point.replace(code, character)
            return point
    return ""


def _failed(reason: str, error: OSError, *, pointer: str) -> StepError:
    path = error.filename
    return StepError(
        reason, step="intelRdt", pointer=pointer, errno=error.errno or 0, path=path if isinstance(path, str) else ""
    )


def _read(path: str) -> str:
    """The text of a file, "" when it is not there or cannot be read."""
    return files.read_if_possible(path).decode("utf-8", "surrogateescape")


def _write(path: str, text: str) -> None:
    """One write: the kernel takes a command per call."""
    fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(fd, text.encode("utf-8", "surrogateescape"))
    finally:
        posix.close(fd)


def _mkdir(path: str) -> None:
    posix.mkdir(path, 0o755)


def _rmdir(path: str) -> None:
    try:
        posix.rmdir(path)
    except OSError as error:
        if error.errno not in (ENOENT, ENODEV):
            raise _failed("cannot remove the group", error, pointer=_POINTER) from None
