"""The options idmap and ridmap, and uidMappings and gidMappings of a mount -> its mapping.

A mapping says which host ID (hostID) stands for which ID of the file system (containerID): the text of a user
namespace's map, as mount_setattr(2) wants it. Without one of its own a mount takes that of the container's user
namespace: IDs in the container then are those in the file system.

Only who has CAP_SYS_ADMIN in the user namespace that a file system was mounted in may map its IDs. For a runtime
without privileges that is none of the host's. A new one it lets the init process mount in the container's user
namespace: there IDs are the container's anyway, and a mapping of its own is a child of that namespace.
Source: runtime-spec config.md, "Mounts" and "Linux mount options"; mount_setattr(2), "ID-mapped mounts"; for mappings
in the option: man crun(1).
"""

from ociruntime.errors import ConfigError, UnsupportedError
from ociruntime.plan import IdMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.host import Host
    from ociruntime.mounts.options import Options
    from ociruntime.namespaces import Namespaces
    from ociruntime.plan import Ranges

# They show what belongs to a namespace or to the kernel itself; none has an ID mapping, and the parent could not make
# the container's.
OF_THE_KERNEL = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2", "devpts", "bpf", "binfmt_misc")

SYNTAX = "as in idmap=uids=0-1000-1#1-2000-9;gids=0-1000-10: ID in the file system, host ID, count"


def made_inside(kind: str, options: "Options", namespaces: "Namespaces", host: "Host") -> bool:
    """Whether this is a new file system that the init process must mount, in the container's user namespace."""
    is_bind = kind == "bind" or options.flags & {"bind", "rbind"}
    return host.euid != 0 and namespaces.has("user") and not is_bind


def lower(
    mount: "dict[str, Any]", options: "Options", at: str, namespaces: "Namespaces", host: "Host"
) -> "IdMap | None":
    """Lower what makes /mounts/N (at) an id-mapped mount; None: IDs are to be what they are without a mapping.

    Raises ConfigError, UnsupportedError.
    """
    name, text, index = options.idmap or ("idmap", "", -1)
    place = f"{at}/options/{index}" if index >= 0 else f"{at}/uidMappings"
    lists = {key: mount.get(key) or [] for key in ("uidMappings", "gidMappings")}
    for key, other in (("uidMappings", "gidMappings"), ("gidMappings", "uidMappings")):
        if lists[key] and not lists[other]:
            raise ConfigError(f"{key} must come with {other}", pointer=f"{at}/{key}")
    if "remount" in options.flags:
        raise ConfigError("a mount that is there already cannot be id-mapped", pointer=place, hint="drop remount")
    kind = mount.get("type") or ""
    if kind in OF_THE_KERNEL and not options.flags & {"bind", "rbind"}:
        raise ConfigError(f"the kernel has no ID mapping for file systems of type '{kind}'", pointer=place)
    recursive = name == "ridmap"
    if text:
        if lists["uidMappings"]:
            raise ConfigError("mappings in the option and in uidMappings", pointer=place)
        uids, gids = _option(text, place, namespaces)
    elif lists["uidMappings"]:
        uids = namespaces.ranges(lists["uidMappings"], f"{at}/uidMappings")
        gids = namespaces.ranges(lists["gidMappings"], f"{at}/gidMappings")
    elif namespaces.has("user"):
        return None if made_inside(kind, options, namespaces, host) else IdMap(recursive=recursive)
    else:
        raise ConfigError(
            "an id-mapped mount needs mappings",
            pointer=place,
            hint="uidMappings and gidMappings of the mount, or a user namespace in /linux/namespaces",
        )
    own = namespaces.uid_ranges, namespaces.gid_ranges
    if made_inside(kind, options, namespaces, host):
        return (
            None if own == (uids, gids) else _within(uids, gids, namespaces, at, "" if lists["uidMappings"] else place)
        )
    if namespaces.new("user") and own == (uids, gids):
        return IdMap(recursive=recursive)
    return IdMap(uids, gids, recursive)


def _within(uids: "Ranges", gids: "Ranges", namespaces: "Namespaces", at: str, place: str) -> IdMap:
    """A mapping whose host IDs become the container's. place: of the option that has it, "": the mount's lists.

    To make it, a process of the runtime's joins the user namespace, and is in reach of who is root there. In a new one
    that is nobody yet; in one that is joined it may be another container, which would reach the caller's files.
    """
    if namespaces.joined("user"):
        raise UnsupportedError(
            "an id-mapped file system in a user namespace that is joined",
            "a runtime that runs as root",
            pointer=place or f"{at}/uidMappings",
        )
    found = []
    for key, ranges, mapped in (
        ("uidMappings", uids, namespaces.uid_ranges or ()),
        ("gidMappings", gids, namespaces.gid_ranges or ()),
    ):
        pieces: list[tuple[int, int, int]] = []
        inverse = tuple((outside, first, size) for first, outside, size in mapped)
        for index, entry in enumerate(ranges):
            pieces += _outside(entry, inverse, place or f"{at}/{key}/{index}/hostID", "a host ID of")
        found.append(tuple(pieces))
    return IdMap(found[0], found[1])


def _option(text: str, place: str, namespaces: "Namespaces") -> "tuple[Ranges, Ranges]":
    """uids=A-B-N#...;gids=...; "@" before the first A: B counts in the container's user namespace."""
    found: dict[str, Ranges] = {}
    for part in text.split(";"):
        key, _, value = part.partition("=")
        if key not in ("uids", "gids") or key in found:
            raise ConfigError(f"'{part}' is no mapping", pointer=place, hint=SYNTAX)
        relative = value[:1] == "@"
        entries = []
        for triple in value[relative:].split("#"):
            numbers = triple.split("-")
            if len(numbers) != 3 or not all(number.isdecimal() and number.isascii() for number in numbers):
                raise ConfigError(f"'{triple}' is no mapping", pointer=place, hint=SYNTAX)
            entries.append((int(numbers[0]), int(numbers[1]), int(numbers[2])))
        if relative:
            own = namespaces.uid_ranges if key == "uids" else namespaces.gid_ranges
            if own is None:
                raise ConfigError("'@' needs the mappings of a user namespace in /linux", pointer=place)
            entries = [piece for entry in entries for piece in _outside(entry, own, place)]
        try:
            found[key] = namespaces.ranges(
                [{"containerID": first, "hostID": host, "size": size} for first, host, size in entries], ""
            )
        except ConfigError as error:
            raise ConfigError(f"{key}: mapping {error.pointer[1:]}: {error.reason}", pointer=place) from None
    if len(found) != 2:
        raise ConfigError("uids and gids must come together", pointer=place, hint=SYNTAX)
    return found["uids"], found["gids"]


def _outside(
    entry: "tuple[int, int, int]", own: "Ranges", place: str, what: str = "mapped in"
) -> "list[tuple[int, int, int]]":
    """An entry whose host IDs are IDs of the container, cut where the container's mappings are."""
    first, inside, size = entry
    pieces = []
    while size > 0:
        for container, outside, length in own:
            if container <= inside < container + length:
                count = min(size, container + length - inside)
                pieces.append((first, outside + inside - container, count))
                break
        else:
            raise ConfigError(f"{inside} is not {what} the container's user namespace", pointer=place)
        first, inside, size = first + count, inside + count, size - count
    return pieces or [(first, inside, size)]
