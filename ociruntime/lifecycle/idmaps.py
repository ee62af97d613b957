"""Id-mapped mounts, made by the parent: only who owns the file system's user namespace may map its IDs.

A mapping is a user namespace's. The container's own is taken where that is meant; any other is made, once for all
mounts that have the same mapping, and lives as long as one of them.
Source: man mount_setattr(2), "ID-mapped mounts".
"""

import posix
from errno import EINVAL, ENOSYS, EPERM

from ociruntime.errors import StepError, from_oserror
from ociruntime.files import read_if_possible
from ociruntime.namespaces import map_text
from ociruntime.shim import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ociruntime.plan import FdSource, IdMap


class IdMaps:
    """The mappings of one container. pid: its init process, whose maps are written already."""

    __slots__ = ("_container", "_namespaces", "_pid")

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._container = -1
        self._namespaces: dict[tuple[str, str], int] = {}

    def hold(self) -> None:
        """Open the container's user namespace: as soon as its root is there, no unprivileged process can.

        Raises OCIError.
        """
        if self._container < 0:
            self._container = _of(self._pid)

    def close(self) -> None:
        """Close the namespaces; mounts that were made stay mapped."""
        while self._namespaces:
            posix.close(self._namespaces.popitem()[1])
        if self._container >= 0:
            posix.close(self._container)
            self._container = -1

    def mount(self, source: "FdSource") -> int:
        """The detached, id-mapped mount (tree) of source, or the user namespace to map with: its fd.

        Raises StepError, its pointer counted from the op's.
        """
        idmap = source.idmap
        assert idmap is not None
        if source.kind == "userns":
            self.hold()
            return posix.dup(self._userns(idmap, self._container))
        fd = _unmapped(source)
        try:
            userns = self._userns(idmap)
            try:
                calls.set_idmap(fd, userns, recursive=idmap.recursive)
            except StepError as error:
                raise _explained(error, source, userns) from None
        except BaseException:
            posix.close(fd)
            raise
        return fd

    def _userns(self, idmap: "IdMap", inside: int = -1) -> int:
        key = map_text(idmap.uids), map_text(idmap.gids)
        fd = self._namespaces.get(key)
        if fd is None:
            fd = self._namespaces[key] = _new(*key, inside) if idmap.uids else _of(self._pid)
        return fd


def _unmapped(source: "FdSource") -> int:
    if source.kind != "tree":
        return calls.new_filesystem(source.path, source.parameters)
    try:
        return calls.open_tree(source.path, recursive=source.recursive, nofollow=source.nofollow)
    except StepError as error:
        found = _mounts(source) if error.errno == EPERM else []
        if found:  # for want of rights over the mount namespace, let alone the file system
            raise refused(error, *found[0]) from None
        raise


def _of(pid: int) -> int:
    path = f"/proc/{pid}/ns/user"
    try:
        return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        raise from_oserror(error, "cannot open the container's user namespace") from None


def _new(uid_map: str, gid_map: str, inside: int) -> int:
    try:
        return calls.new_userns(uid_map, gid_map, inside)
    except StepError as error:
        if error.call in ("uid_map", "gid_map"):
            error.reason, error.pointer = "cannot write the ID map", "/uidMappings"
            if error.errno == EPERM:
                error.hint = "an ID is not mapped in the runtime's own user namespace"
        elif error.call == "clone3":
            error.reason, error.hint = "cannot make a user namespace", "user.max_user_namespaces limits their number"
        raise


def _explained(error: StepError, source: "FdSource", userns: int) -> StepError:
    """Which rule of the kernel refuses, and for which mount of the tree."""
    if error.errno == ENOSYS:
        return StepError("this kernel has no id-mapped mounts", errno=ENOSYS)
    if source.kind != "tree":
        return refused(error, source.path)
    for kind, options, path in _mounts(source):
        try:
            probe = calls.open_tree(path, nofollow=source.nofollow)
        except StepError:
            continue
        try:
            calls.set_idmap(probe, userns)
        except StepError as found:
            return refused(found, kind, options, path)
        finally:
            posix.close(probe)
    error.reason, error.path = "cannot map the IDs", source.path
    return error


def refused(error: StepError, kind: str, options: "Sequence[str]" = (), path: str = "") -> StepError:
    """Which rule of the kernel lets the IDs of a file system of this type not be mapped."""
    what = f"file system of type '{kind}'"
    if error.errno == EINVAL:
        reason = f"the kernel has no ID mapping for this {what}"
    elif error.errno == EPERM and "idmapped" in options:
        reason = f"this mount of a {what} is id-mapped already"
    elif error.errno == EPERM:
        reason = f"the runtime lacks CAP_SYS_ADMIN in the user namespace that this {what} was mounted in"
    else:
        reason = f"cannot map the IDs of this {what}"
    return StepError(reason, call=error.call, errno=error.errno, path=path)


def _mounts(source: "FdSource") -> "list[tuple[str, list[str], str]]":
    """The mounts that a tree was to be made of: file system type, mount options, path.

    Source: man proc_pid_mountinfo(5).
    """
    assert source.idmap is not None
    try:
        fd = posix.open(source.path, posix.O_PATH | posix.O_CLOEXEC | (posix.O_NOFOLLOW if source.nofollow else 0))
    except OSError:
        return []
    try:
        top = posix.readlink(f"/proc/self/fd/{fd}")
        fields = dict(line.split(b":", 1) for line in read_if_possible(f"/proc/self/fdinfo/{fd}").splitlines())
    finally:
        posix.close(fd)
    number = fields[b"mnt_id"].strip()
    first, others = [], []
    for line in read_if_possible("/proc/self/mountinfo").splitlines():
        words = line.split(b" ")
        path = words[4].decode("utf-8", "surrogateescape")
        for code in ("\\040", "\\011", "\\012", "\\134"):
            path = path.replace(code, chr(int(code[1:], 8)))
        entry = (
            words[words.index(b"-") + 1].decode("utf-8", "replace"),
            words[5].decode("ascii", "replace").split(","),
        )
        if words[0] == number:
            first.append((*entry, top))
        elif source.recursive and source.idmap.recursive and path.startswith(f"{top.rstrip('/')}/"):
            others.append((*entry, path))
    return first + others
