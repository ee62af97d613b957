"""The plan: a flat, ordered list of ops, each carrying the JSON pointer of the field it came from.

Rooms build ops with ``op()``; ``shim.encode`` turns the list into the block that the init process executes.
What args, strings and flags mean is said once, per op kind, in cffi_build/include/shim.h; a test compares the numbers.

An op's ``fd`` is None or an FdSource: a description of what the parent opens just before it sends the op's batch.
So rooms stay pure: nothing is opened while lowering.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Ranges = tuple[tuple[int, int, int], ...]

# plan_op.flags (shim.h, OPF_*)
RECURSIVE = 1
STDOUT = 1
STDERR = 2
PROGRAM_ENV = 4
SAME = 1
FILE = 2
PLAIN_DIR = 4
NO_PIVOT = 8
KEEP = 8
BIND_CONSOLE = 8
NO_PROCFS = 8
RETRY = 16
IN_PROC = 16
HOME = 32
KEEP_GROUPS = 64
PINNED = 64
MAPPED = 32
NO_PROCESS = 128
INIT = 1
COPYUP = 256
INHERIT_MODE = 512
OPTIONAL = 1024
PROCFS_SOURCE = 2048
HOST_TREE = 4096
NO_FOLLOW = 8192
NO_BIND = 16384
SOURCE_NO_FOLLOW = 32768

# From mount_setattr(2):
MOUNT_ATTR_RDONLY = 0x00000001
MOUNT_ATTR_NOSUID = 0x00000002
MOUNT_ATTR_NODEV = 0x00000004
MOUNT_ATTR_NOEXEC = 0x00000008
MOUNT_ATTR__ATIME = 0x00000070
MOUNT_ATTR_RELATIME = 0x00000000
MOUNT_ATTR_NOATIME = 0x00000010
MOUNT_ATTR_STRICTATIME = 0x00000020
MOUNT_ATTR_NODIRATIME = 0x00000080
MOUNT_ATTR_IDMAP = 0x00100000
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000

# Propagation types of mount(2)
MS_REC = 0x4000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

# Namespaces of clone(2)
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# enum sync_point
SYNC_MAPS = 1
SYNC_HOOKS = 2
SYNC_READY = 3
SYNC_SECCOMP = 4
SYNC_CREATED = 5
SYNC_CONSOLE = 7
SYNC_LISTENER = 6
SYNC_NAMES = 8


class IdMap:
    """The mapping of an id-mapped mount. uids, gids: (ID in the file system, host ID, size), or an ID of the
    container's user namespace where the mapping is a child of it; both empty: those of that namespace. recursive: for
    every mount of the tree.
    """

    __slots__ = ("gids", "recursive", "uids")

    def __init__(self, uids: "Ranges" = (), gids: "Ranges" = (), recursive: bool = False) -> None:
        self.uids = uids
        self.gids = gids
        self.recursive = recursive

    def __repr__(self) -> str:
        return f"{'ridmap' if self.recursive else 'idmap'}={self.uids};{self.gids}"


class FdSource:
    """What the parent opens for an op. kind: "tree" (open_tree CLONE; path may be a symlink unless nofollow),
    "filesystem" (a new one of the type path, detached; parameters: (key, value), value "" is a flag), "userns" (a child
    of the container's user namespace with the maps of idmap, for a new file system of the type path), "write"
    (O_WRONLY, an existing file), "append" (a log: made with mode 0700 if missing), "path" (O_PATH).
    recursive: for trees. idmap: for trees and file systems.
    """

    __slots__ = ("idmap", "kind", "nofollow", "parameters", "path", "recursive")

    def __init__(
        self,
        kind: str,
        path: str,
        recursive: bool = False,
        nofollow: bool = False,
        idmap: "IdMap | None" = None,
        parameters: "Sequence[tuple[str, str]]" = (),
    ) -> None:
        self.kind = kind
        self.path = path
        self.recursive = recursive
        self.nofollow = nofollow
        self.idmap = idmap
        self.parameters = parameters

    def __repr__(self) -> str:
        extra = (", recursive" if self.recursive else "") + (", nofollow" if self.nofollow else "")
        extra += "".join(f", {key}={value}" for key, value in self.parameters)
        if self.idmap is not None:
            extra += f", {self.idmap!r}"
        return f"<{self.kind} {self.path!r}{extra}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FdSource) and repr(self) == repr(other)

    __hash__ = None  # type: ignore[assignment]


class Op:
    """One operation.

    kind: lower-case name of shim.h's enum op_kind without "OP_"; pointer: JSON pointer ("" for ours).
    """

    __slots__ = ("args", "fd", "flags", "kind", "pointer", "strings")

    def __init__(
        self,
        kind: str,
        pointer: str,
        strings: "Sequence[str | bytes]",
        args: "Sequence[int]",
        flags: int,
        fd: "FdSource | None",
    ) -> None:
        self.kind = kind
        self.pointer = pointer
        self.strings = strings
        self.args = args
        self.flags = flags
        self.fd = fd

    def __repr__(self) -> str:
        words = [self.kind, self.pointer or "-", *(repr(s) for s in self.strings), *(hex(a) for a in self.args)]
        if self.flags:
            words.append(f"flags={self.flags}")
        if self.fd is not None:
            words.append(repr(self.fd))
        return f"<{' '.join(words)}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Op) and repr(self) == repr(other)

    __hash__ = None  # type: ignore[assignment]


def op(
    kind: str,
    pointer: str = "",
    *,
    strings: "Sequence[str | bytes]" = (),
    args: "Sequence[int]" = (),
    flags: int = 0,
    fd: "FdSource | None" = None,
) -> Op:
    """Make an op. strings: at most 4, str (encoded with surrogateescape) or bytes; args: at most 4 unsigned 64-bit."""
    return Op(kind, pointer, strings, args, flags, fd)


def pack_list(items: "Sequence[str]") -> bytes:
    """A string list as the C side reads it: each item NUL-terminated, the count goes into an arg."""
    if not items:
        return b""
    return "\0".join(items).encode("utf-8", "surrogateescape") + b"\0"


def attr(attr_set: int, attr_clr: int = 0) -> int:
    """attr_set and attr_clr of mount_setattr in one arg."""
    return attr_set | attr_clr << 32
