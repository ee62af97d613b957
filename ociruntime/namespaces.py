"""/linux/namespaces, id mappings and time offsets -> what to create, what to join, what the parent writes.

Also the host and domain name, which need a UTS namespace that is not the runtime's.
Source: runtime-spec config-linux.md, "Namespaces", "User namespace mappings", "Offset for Time Namespace";
user_namespaces(7), time_namespaces(7).
"""

import posix
from errno import EINVAL
from itertools import pairwise

from ociruntime import plan
from ociruntime.errors import ConfigError, StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.host import Host
    from ociruntime.plan import Op

    Ranges = tuple[tuple[int, int, int], ...]

# The order is the join order: the user namespace last, because entering it gives up the rights that joining the
# others takes; those that only its owner may join are tried again after it (shim).
FLAGS = {
    "cgroup": plan.CLONE_NEWCGROUP,
    "ipc": plan.CLONE_NEWIPC,
    "uts": plan.CLONE_NEWUTS,
    "network": plan.CLONE_NEWNET,
    "pid": plan.CLONE_NEWPID,
    "time": plan.CLONE_NEWTIME,
    "mount": plan.CLONE_NEWNS,
    "user": plan.CLONE_NEWUSER,
}

MAPPING_LINES = 340  # user_namespaces(7): lines in a map file
ID_COUNT = 1 << 32
PAGE = 4096  # the smallest of all machines
CLOCKS = ("monotonic", "boottime")
NAME_SIZE = 64  # sethostname(2): __NEW_UTS_LEN
_SECONDS_MAX = 9223372036  # kernel KTIME_SEC_MAX


class Namespaces:
    """What the namespaces of one config come to.

    clone_flags: CLONE_NEW* of the new ones, without cgroup (unshare_cgroup: after the final cgroup is joined), without
    time (new_time: unshared by the intermediate, which writes time_offsets before anyone lives in it) and, where the
    root of a new user namespace is another ID than the caller, without ipc (unshare_ipc: by that root, to whom the
    directory of its mqueue belongs then).
    joins: (CLONE_NEW* flag, path, pointer) in join order.
    uid_ranges, gid_ranges: the mappings as (container ID, host ID, size); None when the config has none.
    deny_setgroups: an unprivileged writer must first write "deny" to /proc/PID/setgroups. groups_denied: nobody in the
    container may setgroups(2), for that reason or because the runtime's own user namespace is such a one.
    """

    __slots__ = (
        "clone_flags",
        "deny_setgroups",
        "gid_ranges",
        "groups_denied",
        "joins",
        "new_time",
        "paths",
        "time_offsets",
        "uid_ranges",
        "unshare_cgroup",
        "unshare_ipc",
        "warnings",
    )

    def __init__(self) -> None:
        self.clone_flags = 0
        self.unshare_cgroup = False
        self.unshare_ipc = False
        self.new_time = False
        self.joins: list[tuple[int, str, str]] = []
        self.time_offsets = b""
        self.uid_ranges: Ranges | None = None
        self.gid_ranges: Ranges | None = None
        self.deny_setgroups = False
        self.groups_denied = False
        self.paths: dict[str, str] = {}
        self.warnings: list[str] = []

    def has(self, kind: str) -> bool:
        """Whether the container has a namespace of this type that the config names, new or joined."""
        return kind in self.paths

    def new(self, kind: str) -> bool:
        """Whether a namespace of this type is created."""
        return self.paths.get(kind) == ""

    def joined(self, kind: str) -> str:
        """The path of the namespace of this type that is joined, else ""."""
        return self.paths.get(kind, "")

    def container_root(self) -> "tuple[int | None, int | None]":
        """Host uid and gid of the container's root; None where the mappings leave 0 out or are not known (joined)."""
        if self.joined("user") and self.uid_ranges is None:
            return None, None
        return host_id(self.uid_ranges, 0), host_id(self.gid_ranges, 0)

    def maps(self, kind: str, number: int) -> bool:
        """Whether the container has this ID, as far as the config tells. kind: "uid" or "gid"."""
        return host_id(self.uid_ranges if kind == "uid" else self.gid_ranges, number) is not None

    def ranges(self, entries: "list[dict[str, Any]]", at: str) -> "Ranges":
        """Mappings found elsewhere in the config, at this pointer, checked as the container's own are."""
        return _ranges(entries, at)


def lower(config: "dict[str, Any]", host: "Host") -> Namespaces:
    """Lower /linux/namespaces, /linux/uidMappings, /linux/gidMappings and /linux/timeOffsets.

    Raises ConfigError: a type twice or unknown, a path that is not absolute, a new user namespace without mappings,
    mappings the kernel would refuse, time offsets without a new time namespace.
    """
    linux = config.get("linux") or {}
    result = Namespaces()
    pointers: dict[str, str] = {}
    for index, entry in enumerate(linux.get("namespaces") or ()):
        at = f"/linux/namespaces/{index}"
        kind, path = entry["type"], entry.get("path") or ""
        if kind not in FLAGS:
            raise ConfigError(f"unknown namespace type '{kind}'", pointer=f"{at}/type")
        if kind in pointers:
            raise ConfigError(f"namespace type '{kind}' is there twice", pointer=f"{at}/type")
        if path and not path.startswith("/"):
            raise ConfigError("a namespace path must be absolute", pointer=f"{at}/path", path=path)
        pointers[kind] = at
        result.paths[kind] = path
    for kind, flag in FLAGS.items():
        if result.joined(kind):
            result.joins.append((flag, result.paths[kind], pointers[kind] + "/path"))
        elif not result.new(kind):
            continue
        elif kind == "cgroup":
            result.unshare_cgroup = True
        elif kind == "time":
            result.new_time = True
        else:
            result.clone_flags |= flag
    _mappings(result, linux, pointers, host)
    if result.new("user") and result.new("ipc") and result.container_root() != (host.euid, host.egid):
        result.unshare_ipc = True
        result.clone_flags &= ~plan.CLONE_NEWIPC
    result.time_offsets = _time_offsets(result, linux.get("timeOffsets") or {})
    return result


def _mappings(result: Namespaces, linux: "dict[str, Any]", pointers: "dict[str, str]", host: "Host") -> None:
    uids = linux.get("uidMappings") or []
    gids = linux.get("gidMappings") or []
    result.groups_denied = host.groups_denied
    if not result.has("user"):
        for key, entries in (("uidMappings", uids), ("gidMappings", gids)):
            if entries:
                result.warnings.append(f"/linux/{key}: no user namespace in /linux/namespaces, ignoring")
        return
    if result.new("user"):
        for key, entries in (("uidMappings", uids), ("gidMappings", gids)):
            if not entries:
                raise ConfigError(
                    "a new user namespace needs ID mappings",
                    pointer=f"/linux/{key}",
                    hint=f"required by {pointers['user']}",
                )
    if uids:
        result.uid_ranges = _ranges(uids, "/linux/uidMappings")
    if gids:
        result.gid_ranges = _ranges(gids, "/linux/gidMappings")
    if result.new("user"):
        for key, ranges in (("uidMappings", result.uid_ranges or ()), ("gidMappings", result.gid_ranges or ())):
            _check_new(ranges, f"/linux/{key}")
        own = len(gids) == 1 and (gids[0]["hostID"], gids[0]["size"]) == (host.egid, 1)
        result.deny_setgroups = host.euid != 0 and own
        result.groups_denied = result.groups_denied or result.deny_setgroups


def _ranges(entries: "list[dict[str, Any]]", at: str) -> "Ranges":
    """Check a list of mappings the way the kernel does, but with the place of what is wrong."""
    if len(entries) > MAPPING_LINES:
        raise ConfigError(f"the kernel takes at most {MAPPING_LINES} mappings", pointer=f"{at}/{MAPPING_LINES}")
    ranges = []
    for index, entry in enumerate(entries):
        container, outside, size = entry["containerID"], entry["hostID"], entry["size"]
        if size < 1:
            raise ConfigError("a mapping must hold at least one ID", pointer=f"{at}/{index}/size")
        for key, first in (("containerID", container), ("hostID", outside)):
            if first < 0 or first + size >= ID_COUNT:  # the last of all stands for "no ID"
                raise ConfigError(f"{first} + {size} is beyond 32 bits", pointer=f"{at}/{index}/{key}")
        ranges.append((container, outside, size))
    for side, key in ((0, "containerID"), (1, "hostID")):
        order = sorted(range(len(ranges)), key=lambda n: ranges[n][side])
        for before, after in pairwise(order):
            if ranges[before][side] + ranges[before][2] > ranges[after][side]:
                first, second = sorted((before, after))
                raise ConfigError(f"overlaps with mapping {first}", pointer=f"{at}/{second}/{key}")
    return tuple(ranges)


def _check_new(ranges: "Ranges", at: str) -> None:
    """What a map must be for the kernel to take it in its one write, and for a container to come about in it."""
    size = len(map_text(ranges))
    if size >= PAGE and size >= posix.sysconf("SC_PAGESIZE"):
        raise ConfigError(
            f"{len(ranges)} mappings are {size} bytes of text: the kernel takes less than a page of them", pointer=at
        )
    if host_id(ranges, 0) is None:
        raise ConfigError("the container's root (0) is not mapped", pointer=at)


def map_text(ranges: "Ranges") -> str:
    """The lines of /proc/PID/uid_map or gid_map."""
    return "".join(f"{container} {outside} {size}\n" for container, outside, size in ranges)


def parse_map(text: str) -> "Ranges":
    """What /proc/PID/uid_map or gid_map holds, as (container ID, host ID, size)."""
    lines = [line.split() for line in text.splitlines()]
    return tuple((int(words[0]), int(words[1]), int(words[2])) for words in lines if len(words) == 3)


def host_id(ranges: "Ranges | None", number: int) -> "int | None":
    """The host ID of a container's ID; None when it is not mapped. ranges None: no user namespace, the ID itself."""
    if ranges is None:
        return number
    for container, outside, size in ranges:
        if container <= number < container + size:
            return outside + number - container
    return None


def not_joined(join: "tuple[int, str, str]", errno: int) -> StepError:
    """The error of an entry of ``Namespaces.joins`` that setns(2) has refused."""
    flag, path, pointer = join
    hint = "the runtime is in this user namespace already" if flag == plan.CLONE_NEWUSER and errno == EINVAL else ""
    return StepError("cannot join the namespace", pointer=pointer, call="setns", errno=errno, path=path, hint=hint)


def no_root(joins: "list[tuple[int, str, str]]") -> ConfigError:
    """The error of a user namespace, among the entries of ``Namespaces.joins``, in which nobody can become root."""
    _, path, pointer = joins[-1]  # the user namespace is the last of all
    return ConfigError("the user namespace to join maps no root (0), or nothing yet", pointer=pointer, path=path)


def check_joined(namespaces: Namespaces, uid_text: str, gid_text: str) -> "list[str]":
    """Compare the config's mappings with the map files of the user namespace that was joined. Returns warnings.

    uid_text, gid_text: the files of a process inside, read from the runtime's user namespace. Mappings beside a path
    can change nothing: the same ones are a warning, others a ConfigError.
    """
    warnings = []
    for key, wanted, text in (
        ("uidMappings", namespaces.uid_ranges, uid_text),
        ("gidMappings", namespaces.gid_ranges, gid_text),
    ):
        if wanted is None:
            continue
        if sorted(wanted) != sorted(parse_map(text)):
            raise ConfigError(
                "the user namespace to join has other mappings",
                pointer=f"/linux/{key}",
                path=namespaces.joined("user"),
            )
        warnings.append(f"/linux/{key}: the user namespace is joined by path, ignoring")
    return warnings


def _time_offsets(result: Namespaces, offsets: "dict[str, Any]") -> bytes:
    """Lines of /proc/PID/timens_offsets: clock, seconds, nanoseconds."""
    if not offsets:
        return b""
    if not result.has("time"):
        raise ConfigError("time offsets need a time namespace in /linux/namespaces", pointer="/linux/timeOffsets")
    if result.joined("time"):
        raise ConfigError(
            "time offsets can only be set in a new time namespace, not in one joined by path",
            pointer="/linux/timeOffsets",
        )
    text = ""
    for clock, offset in offsets.items():
        at = f"/linux/timeOffsets/{clock}"
        if clock not in CLOCKS:
            raise ConfigError(f"unknown clock '{clock}'", pointer="/linux/timeOffsets", hint="monotonic or boottime")
        seconds, nanoseconds = offset.get("secs") or 0, offset.get("nanosecs") or 0
        if not -_SECONDS_MAX <= seconds <= _SECONDS_MAX:
            raise ConfigError("out of the kernel's range", pointer=f"{at}/secs")
        if not 0 <= nanoseconds < 1_000_000_000:
            raise ConfigError("must be less than a second", pointer=f"{at}/nanosecs")
        text += f"{clock} {seconds} {nanoseconds}\n"
    return text.encode("ascii")


def names(config: "dict[str, Any]", namespaces: Namespaces) -> "list[Op]":
    """Lower /hostname and /domainname. Raises ConfigError without a UTS namespace: the host would be renamed."""
    ops = []
    for key in ("hostname", "domainname"):
        name = config.get(key)
        if not name:
            continue
        if not namespaces.has("uts"):
            raise ConfigError("needs a uts namespace in /linux/namespaces", pointer=f"/{key}")
        if len(name.encode("utf-8", "surrogateescape")) > NAME_SIZE:
            raise ConfigError(f"longer than {NAME_SIZE} bytes", pointer=f"/{key}")
        ops.append(plan.op(key, f"/{key}", strings=(name,)))
    return ops
