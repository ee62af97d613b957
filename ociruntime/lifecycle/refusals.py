"""Words for what the kernel refuses about namespaces and mounts: its errno does not say which rule it was."""

from errno import EINVAL, ENOENT, ENOSPC, EOVERFLOW, EPERM, EXDEV

from ociruntime.errors import ConfigError
from ociruntime.files import read_if_possible
from ociruntime.namespaces import host_id, parse_map
from ociruntime.plan import RECURSIVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.errors import StepError
    from ociruntime.host import Host
    from ociruntime.namespaces import Namespaces
    from ociruntime.plan import Op

# What a new mount of a type shows, and whose owner may make one. Source: mount_capable() of the kernel, fs/super.c.
OWNERS = {
    "proc": "the PID namespace",
    "sysfs": "the network namespace",
    "mqueue": "the IPC namespace",
    "cgroup": "the cgroup namespace",
    "cgroup2": "the cgroup namespace",
}

# File systems that say themselves that user namespaces may mount them (FS_USERNS_MOUNT): an EPERM of these is another.
FOR_USERS = ("tmpfs", "ramfs", "devpts", "overlay", "fuse", "binder", "bpf")

LIMIT = "a limit of user.max_*_namespaces (or of nesting) is reached"


def of_clone(error: "StepError", host: "Host", spaces: "Namespaces") -> "StepError":
    """The error of a start of the init process, with a pointer and a hint when it was about namespaces."""
    if error.call == "clone3" and not error.pointer:
        error.step, error.pointer = "namespaces", "/linux/namespaces"
        if error.errno == ENOSPC:
            error.hint = LIMIT
        elif error.errno == EPERM and spaces.new("user"):
            error.hint = (
                "a caller in a chroot, or whose own IDs are not mapped, cannot have a user namespace; some machines "
                "forbid it, too"
            )
        elif error.errno == EPERM and host.euid:
            error.hint = "an unprivileged runtime needs a new user namespace in /linux/namespaces"
    return error


def hint(op: "Op", call: str, errno: int) -> str:
    """What to tell about an op that failed in this call, a mount most often; "" if there is nothing to tell."""
    if op.kind == "unshare":
        return LIMIT if errno == ENOSPC else ""
    if op.kind == "remount":
        if call == "fspick" and errno == EINVAL:
            return "nothing is mounted there"
        return (
            ""
            if errno == EINVAL
            else "options of a file system are for the owner of the user namespace it was mounted in"
        )
    if op.kind == "mount" and errno == EPERM:
        return _new(str(op.strings[0]), call)
    if op.kind == "mount" and call == "fchmod" and errno == EOVERFLOW:
        return "its own directory belongs to 0 in the file system, and the mapping of the mount has no ID for that"
    if op.kind in ("bind", "attr", "readonly", "mask") and call == "mount_setattr" and errno == EPERM:
        return (
            "locked flags: a user namespace may not take ro, nosuid, nodev or noexec from the host's mounts, nor "
            "change their atime, see mount_namespaces(7)"
        )
    if op.kind in ("bind", "pin") and call == "open_tree" and errno == EINVAL:
        if op.flags & RECURSIVE or (op.fd is not None and op.fd.recursive):
            return "the mount that holds it is unbindable, see mount_namespaces(7)"
        return "locked mounts: alone, the directory would show what is hidden by the mounts inside it; use rbind"
    return ""


def no_rights(pid: int) -> str:
    """What to tell about EACCES in the init process pid, which is root; "" when no user namespace is the cause."""
    if read_if_possible(f"/proc/{pid}/uid_map").split() == [b"0", b"0", b"4294967295"]:
        return ""
    return (
        "root of a user namespace has no rights over files of IDs that are not mapped there: does the root file "
        "system belong to one that is?"
    )


def unmapped(op: "Op", call: str, number: str, pid: int) -> ConfigError:
    """The error of credentials with an ID that the user namespace of process pid does not have.

    call: what said EINVAL; number: the ID, "" for a list of groups.
    """
    key = {"setgroups": "additionalGids", "setresgid": "gid"}.get(call, "uid")
    pointer = f"{op.pointer}/{key}"
    if call == "setgroups":
        number = "one of the groups"
        ranges = parse_map(read_if_possible(f"/proc/{pid}/gid_map").decode("ascii"))
        packed = op.strings[0]
        assert isinstance(packed, bytes)
        for index in range(op.args[1]):
            group = int.from_bytes(packed[4 * index : 4 * index + 4], "little")
            if host_id(ranges, group) is None:
                number, pointer = str(group), f"{pointer}/{index}"
                break
    return ConfigError(f"{number} is not mapped in the process's user namespace", pointer=pointer)


def device(call: str, errno: int) -> "tuple[str, str]":
    """Reason and hint of a device that could not be made or bound."""
    if errno == EXDEV:
        return "a symlink of the image leads into another mount", ""
    if call == "existing node":
        return "another kind of file is there already", "remove it, or mount a tmpfs on its directory"
    if call == "verify device":
        return (
            "the host has something else at this path",
            "in a user namespace a device is bound from the host: type, major and minor must be the same there",
        )
    if errno == ENOENT and call == "open":
        return "", "in a user namespace a device is bound from the host, which has it neither at this path nor in /dev"
    return "", ""


def _new(kind: str, call: str) -> str:
    if call == "fsmount":
        return (
            f"mount too revealing: the caller's own {kind} is masked or read-only in parts, and a new one would show "
            f"all; bind '/{'sys' if kind == 'sysfs' else 'proc'}' instead"
        )
    if kind in OWNERS:
        return (
            f"a new {kind} is for the owner of {OWNERS[kind]}: the container needs one of its own beside its user "
            "namespace, or a bind of the host's"
        )
    if call == "fsopen" or (call == "fsconfig" and kind not in FOR_USERS):
        return f"the kernel does not let a user namespace mount the file system type '{kind}'"
    return ""
