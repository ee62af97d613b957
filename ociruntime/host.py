"""Facts about this kernel and this caller, read once per command and passed in everywhere, so that tests can fake them.

``probe()`` is on the path of every create: it reads two or three files of /proc and imports nothing.
"""

import posix
from errno import EACCES, ENOENT, ENOTDIR

from ociruntime import files
from ociruntime.errors import OCIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    CgroupMode = Literal["v1", "hybrid", "v2", "none"]

_V2_PLACE = "/sys/fs/cgroup"


class Host:
    """What the rooms may ask about the machine.

    euid: effective user ID of the runtime. in_userns: the runtime is not in the initial user namespace.
    egid: effective group ID, looked up only where it matters: when euid is not 0. groups_denied: in_userns, and in that
    namespace setgroups(2) is denied for good.
    rootless: cgroup and device failures that only privilege could avoid are tolerated (global option --rootless).
    kernel: (major, minor). arch: machine name of uname(2).
    cgroup_mode: "v1" (no cgroup2 mount), "hybrid" (both), "v2" (only cgroup2), "none" (nothing mounted).
    cgroup_mounts: cgroup v1 controller ("memory", "name=systemd") -> mount point; empty in mode v2.
    unified: mount point of cgroup2, "" if there is none. controllers: what cgroup.controllers lists there.
    own_cgroups: controller ("" = v2) -> the runtime's own cgroup as seen below that mount point ("/" is its top).
    """

    __slots__ = (
        "arch",
        "cgroup_mode",
        "cgroup_mounts",
        "controllers",
        "egid",
        "euid",
        "groups_denied",
        "in_userns",
        "kernel",
        "own_cgroups",
        "rootless",
        "unified",
    )

    def __init__(
        self,
        *,
        euid: int = 0,
        egid: int = 0,
        groups_denied: bool = False,
        in_userns: bool = False,
        rootless: bool = False,
        kernel: "tuple[int, int]" = (5, 12),
        arch: str = "x86_64",
        cgroup_mode: "CgroupMode" = "none",
        cgroup_mounts: "dict[str, str] | None" = None,
        unified: str = "",
        controllers: "tuple[str, ...]" = (),
        own_cgroups: "dict[str, str] | None" = None,
    ) -> None:
        self.euid = euid
        self.egid = egid
        self.groups_denied = groups_denied
        self.in_userns = in_userns
        self.rootless = rootless
        self.kernel = kernel
        self.arch = arch
        self.cgroup_mode: CgroupMode = cgroup_mode
        self.cgroup_mounts = cgroup_mounts if cgroup_mounts is not None else {}
        self.unified = unified
        self.controllers = controllers
        self.own_cgroups = own_cgroups if own_cgroups is not None else {}


class CgroupMount:
    """One visible cgroup mount. version: 1 or 2; root: the directory of the hierarchy that is mounted; options: of the
    super block, which for version 1 name the controllers."""

    __slots__ = ("options", "point", "root", "version")

    def __init__(self, version: int, root: str, point: str, options: "tuple[str, ...]") -> None:
        self.version = version
        self.root = root
        self.point = point
        self.options = options

    def __repr__(self) -> str:
        return f"<cgroup v{self.version} {self.root!r} on {self.point!r} {','.join(self.options)}>"


def probe(rootless: "bool | None" = None) -> Host:
    """Read the facts. rootless: the caller's choice; None decides by euid and user namespace.

    Source: proc_pid_mountinfo(5), proc_pid_cgroup(5), user_namespaces(7), cgroups(7).
    """
    euid = posix.geteuid()
    uname = posix.uname()
    in_userns = not _initial_userns(_read("/proc/self/uid_map"))
    own = parse_self_cgroup(_read("/proc/self/cgroup"))
    host = Host(
        euid=euid,
        egid=posix.getegid() if euid else 0,
        groups_denied=in_userns and _read("/proc/self/setgroups").startswith(b"deny"),
        in_userns=in_userns,
        rootless=(euid != 0 or in_userns) if rootless is None else rootless,
        kernel=parse_release(uname.release),
        arch=uname.machine,
    )
    # A machine with thousands of mounts pays milliseconds for mountinfo. The usual v2 layout is recognised without it,
    # unless a bind mount of a part of the hierarchy may hide where our own cgroup is.
    controllers = _controllers(_V2_PLACE)
    if controllers is not None and _is_directory(_V2_PLACE + own.get("", "/")):
        host.cgroup_mode = "v2"
        host.unified = _V2_PLACE
        host.own_cgroups = {"": own.get("", "/")}
    else:
        place(host, parse_mountinfo(_read("/proc/self/mountinfo")), own)
        if host.unified:
            controllers = _controllers(host.unified)
    host.controllers = controllers or ()
    return host


def place(host: Host, mounts: "list[CgroupMount]", own: "dict[str, str]") -> None:
    """Fill in the cgroup fields of host from the visible cgroup mounts and the raw paths of /proc/self/cgroup."""
    chosen: dict[str, CgroupMount] = {}
    for mount in mounts:
        # /proc/self/cgroup says which options are controllers and which ("xattr", "noprefix") are not.
        names = [""] if mount.version == 2 else [name for name in mount.options if name in own]
        for name in names:
            if name not in chosen or _rank(mount) < _rank(chosen[name]):
                chosen[name] = mount
    for name, mount in chosen.items():
        host.own_cgroups[name] = below_root(own.get(name, "/"), mount.root)
        if name:
            host.cgroup_mounts[name] = mount.point
        else:
            host.unified = mount.point
    if host.cgroup_mounts:
        host.cgroup_mode = "hybrid" if host.unified else "v1"
    else:
        host.cgroup_mode = "v2" if host.unified else "none"


def _rank(mount: CgroupMount) -> "tuple[bool, int]":
    """Which of several mounts of one hierarchy to use: in the customary place first, then the one that shows most."""
    return not (mount.point + "/").startswith("/sys/fs/cgroup/"), len(mount.root)


def below_root(path: str, root: str) -> str:
    """Our cgroup path as seen below a mount whose root field is root; "/" when it lies outside of it."""
    if root == "/":
        return "/" if path.startswith("/..") else path
    if path == root or path.startswith(root + "/"):
        return path[len(root) :] or "/"
    return "/"


def parse_self_cgroup(data: bytes) -> "dict[str, str]":
    """/proc/self/cgroup -> {controller: path}; "" is cgroup v2, co-mounted v1 controllers get one entry each."""
    paths = {}
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        parts = line.split(":", 2)
        if len(parts) == 3:
            for name in parts[1].split(","):
                paths[name] = parts[2]
    return paths


def parse_mountinfo(data: bytes) -> "list[CgroupMount]":
    """The visible cgroup mounts of a mountinfo file, in its order.

    A mount is hidden when a path to it ends up in another one.
    Only the lines of cgroup mounts and of mounts on their directories or above are looked at.
    """
    found: list[tuple[bytes, bytes, bytes, CgroupMount]] = []
    above: set[bytes] = set()
    at = data.find(b" - cgroup")
    while at >= 0:
        start = data.rfind(b"\n", 0, at) + 1
        end = data.find(b"\n", at)
        if end < 0:
            end = len(data)
        fields = data[start:at].split(b" ")
        kind, _source, options = [*data[at + 3 : end].split(b" "), b"", b""][:3]
        if len(fields) >= 6 and kind in (b"cgroup", b"cgroup2"):
            point = fields[4]
            names = tuple(options.decode("utf-8", "surrogateescape").split(","))
            mount = CgroupMount(2 if kind == b"cgroup2" else 1, _text(fields[3]), _text(point), names)
            found.append((fields[0], fields[1], point, mount))
            above.add(point)
            cut = point.rfind(b"/")
            while cut > 0:
                above.add(point[:cut])
                cut = point.rfind(b"/", 0, cut)
        at = data.find(b" - cgroup", end)
    if not found:
        return []
    places = {ident: (parent, point) for ident, parent, point, _mount in found}
    for point in above:
        _mounts_on(data, point, places)
    return [mount for ident, _parent, point, mount in found if not _hidden(ident, point, places)]


def _mounts_on(data: bytes, point: bytes, places: "dict[bytes, tuple[bytes, bytes]]") -> None:
    """Add the mounts whose mount point is point to places."""
    needle = b" " + point + b" "
    at = data.find(needle)
    while at >= 0:
        start = data.rfind(b"\n", 0, at) + 1
        fields = data[start : at + len(needle)].split(b" ")
        if len(fields) == 6:
            places[fields[0]] = (fields[1], point)
        at = data.find(needle, at + 1)


def _hidden(ident: bytes, point: bytes, places: "dict[bytes, tuple[bytes, bytes]]") -> bool:
    """Whether a path to this mount ends up in another one.

    Two mounts on one parent compete at their mount points: the path enters the one that is nearer to the root. What is
    mounted on a mount's own root covers it.
    """
    chain = [ident]
    while chain[-1] in places and places[chain[-1]][0] not in chain:
        chain.append(places[chain[-1]][0])
    for other, (parent, place) in places.items():
        if other in chain or parent not in chain:
            continue
        below = chain[chain.index(parent) - 1] if parent != ident else ident
        ours = places[below][1]
        if ours == place or (parent != ident and ours.startswith(place + b"/")):
            return True
    return False


def _text(field: bytes) -> str:
    """A field of mountinfo with its octal escapes (space, tab, newline, backslash) resolved."""
    if b"\\" in field:
        first, *rest = field.split(b"\\")
        field = first + b"".join(bytes((int(part[:3], 8),)) + part[3:] for part in rest)
    return field.decode("utf-8", "surrogateescape")


def parse_release(release: str) -> "tuple[int, int]":
    """uname release ("6.1.0-18-amd64", "5.15-rc1") -> (major, minor)."""
    numbers = []
    for part in release.split(".")[:2]:
        digits = part
        while digits and not digits.isdigit():
            digits = digits[:-1]
        numbers.append(int(digits or "0"))
    return numbers[0], numbers[1] if len(numbers) > 1 else 0


def _initial_userns(uid_map: bytes) -> bool:
    # A kernel without user namespaces has no such file.
    return not uid_map or uid_map.split() == [b"0", b"0", b"4294967295"]


def _controllers(directory: str) -> "tuple[str, ...] | None":
    """The controllers a cgroup2 directory lists; None if it is not one."""
    try:
        return tuple(files.read(directory + "/cgroup.controllers").decode("ascii", "replace").split())
    except OSError as error:
        if error.errno not in (ENOENT, ENOTDIR, EACCES):
            raise OCIError("cannot read", path=directory, errno=error.errno or 0) from error
        return None


def _is_directory(path: str) -> bool:
    try:
        return posix.stat(path).st_mode & 0o170000 == 0o040000
    except OSError:
        return False


def _read(path: str) -> bytes:
    """The whole file; b"" if this kernel has none of that name."""
    try:
        return files.read(path)
    except OSError as error:
        if error.errno in (ENOENT, ENOTDIR) and path != "/proc/self/mountinfo":
            return b""
        hint = "a mounted /proc is needed" if error.errno in (ENOENT, ENOTDIR) else ""
        raise OCIError("cannot read", path=path, errno=error.errno or 0, hint=hint) from error
