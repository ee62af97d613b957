"""The option table: /mounts/N/options -> attributes, propagation, file system parameters.

Where an option goes decides how it is applied:

    attributes    of one mount, set with mount_setattr(2): ro nosuid nodev noexec noatime ... and their opposites
    recursive     the same names with an "r" before them: the whole tree
    propagation   shared slave private unbindable and r*, applied in order once the mount is attached
    file system   everything else, known or not, is a parameter for fsconfig(2): the kernel is the judge

The last option that names an attribute wins, clearing ones included. The two attribute words are meant to be applied
recursive first, then this mount, so that this holds for `rro,rw` as well as for `rw,rro`.
Source: runtime-spec config.md, "Linux mount options"; mount_setattr(2); mount(8).
"""

from ociruntime import plan
from ociruntime.plan import MS_PRIVATE, MS_REC, MS_SHARED, MS_SLAVE, MS_UNBINDABLE

# name -> (attribute, whether the option sets it). nodiratime is a flag; the others about atime are one enumeration.
FLAGS = {
    "ro": (plan.MOUNT_ATTR_RDONLY, True),
    "rw": (plan.MOUNT_ATTR_RDONLY, False),
    "nosuid": (plan.MOUNT_ATTR_NOSUID, True),
    "suid": (plan.MOUNT_ATTR_NOSUID, False),
    "nodev": (plan.MOUNT_ATTR_NODEV, True),
    "dev": (plan.MOUNT_ATTR_NODEV, False),
    "noexec": (plan.MOUNT_ATTR_NOEXEC, True),
    "exec": (plan.MOUNT_ATTR_NOEXEC, False),
    "nodiratime": (plan.MOUNT_ATTR_NODIRATIME, True),
    "diratime": (plan.MOUNT_ATTR_NODIRATIME, False),
    "nosymfollow": (plan.MOUNT_ATTR_NOSYMFOLLOW, True),
    "symfollow": (plan.MOUNT_ATTR_NOSYMFOLLOW, False),
}

# The enumeration: relatime is the kernel's default, so it is also what "not noatime" and "not strictatime" mean.
ATIME = {
    "relatime": plan.MOUNT_ATTR_RELATIME,
    "atime": plan.MOUNT_ATTR_RELATIME,
    "nostrictatime": plan.MOUNT_ATTR_RELATIME,
    "noatime": plan.MOUNT_ATTR_NOATIME,
    "strictatime": plan.MOUNT_ATTR_STRICTATIME,
}
NORELATIME = "norelatime"  # takes back an earlier relatime, and nothing else

PROPAGATION = {
    "shared": MS_SHARED,
    "slave": MS_SLAVE,
    "private": MS_PRIVATE,
    "unbindable": MS_UNBINDABLE,
    "rshared": MS_SHARED | MS_REC,
    "rslave": MS_SLAVE | MS_REC,
    "rprivate": MS_PRIVATE | MS_REC,
    "runbindable": MS_UNBINDABLE | MS_REC,
}

# Superblock flags that fsconfig(2) knows by name (fs/fs_context.c). A bind has no superblock of its own: ignored there.
SUPERBLOCK = ("sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime")

# Without any effect on a mount made with the mount API: log noise of the kernel, and a counter that file systems
# having it always keep.
IGNORED = ("defaults", "silent", "loud", "iversion", "noiversion")

# Meant for the runtime.
RUNTIME = ("bind", "rbind", "remount", "tmpcopyup", "src-nofollow", "dest-nofollow", "copy-symlink")
ID_MAPPED = ("idmap", "ridmap")

# Labels are written with quotes round them for mount(2), where commas separate options; fsconfig(2) takes them bare.
LABELS = ("context", "fscontext", "defcontext", "rootcontext")


class Options:
    """What the options of one mount mean.

    set, clear: MOUNT_ATTR_* of this mount; recursive_set, recursive_clear: of the tree.
    propagation: MS_* values, in order. superblock: names of flags. data: (key, value, index of the option); value ""
    is a flag. flags: the names of RUNTIME that are there. idmap: the last of idmap, ridmap as (name, mappings or "",
    index of the option).
    """

    __slots__ = (
        "clear",
        "data",
        "flags",
        "idmap",
        "propagation",
        "recursive_clear",
        "recursive_set",
        "set",
        "superblock",
    )

    def __init__(self) -> None:
        self.set = 0
        self.clear = 0
        self.recursive_set = 0
        self.recursive_clear = 0
        self.propagation: list[int] = []
        self.superblock: list[str] = []
        self.data: list[tuple[str, str, int]] = []
        self.flags: set[str] = set()
        self.idmap: tuple[str, str, int] | None = None

    def attr(self) -> int:
        """Attributes of this mount, as an op carries them."""
        return plan.attr(self.set, self.clear)

    def recursive_attr(self) -> int:
        """Attributes of the tree, as an op carries them."""
        return plan.attr(self.recursive_set, self.recursive_clear)

    def merge(self) -> None:
        """Put the recursive attributes into those of this mount: a new file system is a tree of one mount."""
        named = self.set | self.clear
        self.set |= self.recursive_set & ~named
        self.clear |= self.recursive_clear & ~named
        self.recursive_set = self.recursive_clear = 0

    def value(self, key: str) -> "str | None":
        """The last value given for a file system parameter; None when it is not there."""
        for name, value, _ in reversed(self.data):
            if name == key:
                return value
        return None


def layers(lowerdir: str) -> "list[tuple[str, str]]":
    """The lower layers of an overlay: (what is before it, directory).

    Before the first one is "", before others ":", before those for data only "::"; after a backslash is no separator.
    Source: kernel filesystems/overlayfs.rst.
    """
    found = []
    separator, name = "", ""
    characters = iter(lowerdir)
    for character in characters:
        if character == "\\":
            name += next(characters, "")
        elif character != ":":
            name += character
        elif separator == ":" and not name:
            separator = "::"
        else:
            found.append((separator, name))
            separator, name = ":", ""
    return [*found, (separator, name)]


def parse(options: "list[str]") -> Options:
    """Sort options into what they mean. Never fails: unknown ones are parameters of the file system."""
    result = Options()
    for index, option in enumerate(options):
        if option in FLAGS:
            _flag(result, *FLAGS[option])
        elif option in PROPAGATION:
            result.propagation.append(PROPAGATION[option])
        elif option in ATIME:
            _atime(result, ATIME[option])
        elif option in ID_MAPPED or option.startswith(("idmap=", "ridmap=")):
            name, _, value = option.partition("=")
            result.idmap = (name, value, index)
        elif option in RUNTIME:
            result.flags.add(option)
        elif option[:1] == "r" and _recursive(result, option[1:]):
            pass
        elif option == NORELATIME:
            if result.clear & plan.MOUNT_ATTR__ATIME and not result.set & plan.MOUNT_ATTR__ATIME:
                result.clear &= ~plan.MOUNT_ATTR__ATIME
        elif option in SUPERBLOCK:
            result.superblock.append(option)
        elif option and option not in IGNORED:
            key, _, value = option.partition("=")
            if key in LABELS and len(value) > 1 and value[0] == value[-1] == '"':
                value = value[1:-1]
            result.data.append((key, value, index))
    result.propagation = reduce_propagation(result.propagation)
    return result


def _flag(result: Options, bit: int, on: bool) -> None:
    if on:
        result.set |= bit
        result.clear &= ~bit
    else:
        result.set &= ~bit
        result.clear |= bit


def _atime(result: Options, value: int) -> None:
    # mount_setattr(2): a change of the enumeration has to clear all of its bits
    result.set = result.set & ~plan.MOUNT_ATTR__ATIME | value
    result.clear |= plan.MOUNT_ATTR__ATIME


def _recursive(result: Options, name: str) -> bool:
    """Take name as one that was written with an "r" before it. What it says about the tree includes this mount."""
    if name in FLAGS:
        bit, on = FLAGS[name]
        if on:
            result.recursive_set |= bit
            result.recursive_clear &= ~bit
        else:
            result.recursive_set &= ~bit
            result.recursive_clear |= bit
    elif name in ATIME:
        bit = plan.MOUNT_ATTR__ATIME
        result.recursive_set = result.recursive_set & ~bit | ATIME[name]
        result.recursive_clear |= bit
    elif name == NORELATIME:
        bit = plan.MOUNT_ATTR__ATIME
        if result.recursive_clear & bit and not result.recursive_set & bit:
            result.recursive_clear &= ~bit
        return True
    else:
        return False
    result.set &= ~bit
    result.clear &= ~bit
    return True


def reduce_propagation(values: "list[int]") -> "list[int]":
    """Drop the values that later ones make void; at most two are left.

    Private and unbindable undo whatever was before them on the mounts they reach; the same value twice is once.
    Of a longer sequence the last two count: a slave that is shared again is the only pair with a meaning of its own.
    """
    if len(values) < 2:
        return values
    kept: list[int] = []
    for value in values:
        if value & (MS_PRIVATE | MS_UNBINDABLE):
            kept = [] if value & MS_REC else [old for old in kept if old & MS_REC]
        kept = [old for old in kept if old != value]
        kept.append(value)
    return kept[-2:]


def names() -> "list[str]":
    """Every option this runtime knows, sorted: `mountOptions` of the features document."""
    attributes = [*FLAGS, *ATIME, NORELATIME]
    every = {
        *attributes,
        *("r" + name for name in attributes),
        *PROPAGATION,
        *SUPERBLOCK,
        *IGNORED,
        *RUNTIME,
        *ID_MAPPED,
    }
    return sorted(every)
