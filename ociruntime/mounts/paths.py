"""The questions that lowering asks of the host's file system.

Resolution inside the container's root is the init process's business alone: nothing here looks into the rootfs.
"""

import errno
import posix

from ociruntime.files import read_if_possible

_NO_SUCH = (errno.ENOENT, errno.ENOTDIR)
_TYPE_MASK = 0o170000
_TYPE_DIRECTORY = 0o040000
_TYPE_BLOCK = 0o060000
# linux/nsfs.h: the user namespace that owns one, and the parent of that. Each is a new descriptor.
_NS_GET_USERNS = 0xB701
_NS_GET_PARENT = 0xB702


def join(base: str, path: str) -> str:
    """path itself when absolute, else path below base."""
    return path if path.startswith("/") else f"{base}/{path}"


def read_link(path: str) -> "str | None":
    """The target of a symlink; None when path is something else or not there. Raises OSError."""
    try:
        return posix.readlink(path)
    except OSError as error:
        if error.errno in (*_NO_SUCH, errno.EINVAL):
            return None
        raise


def is_dir(path: str) -> "bool | None":
    """Whether path, its symlinks followed, is a directory; None when there is no such file. Raises OSError."""
    try:
        status = posix.stat(path)
    except OSError as error:
        if error.errno in _NO_SUCH:
            return None
        raise
    return status.st_mode & _TYPE_MASK == _TYPE_DIRECTORY


def host_node(path: str, kind: int, number: int) -> str:
    """Where the host has the device of this file type and number (major << 32 | minor).

    That is path, or else where the kernel itself has put it; path when it is in neither place.
    Source: kernel Documentation/ABI, /sys/dev; the variable DEVNAME of uevents.
    """
    if _is_node(path, kind, number):
        return path
    name = f"{'block' if kind == _TYPE_BLOCK else 'char'}/{number >> 32}:{number & 0xFFFFFFFF}"
    for line in read_if_possible(f"/sys/dev/{name}/uevent").split(b"\n"):
        if line.startswith(b"DEVNAME="):
            found = "/dev/" + line[len(b"DEVNAME=") :].decode("utf-8", "surrogateescape")
            if _is_node(found, kind, number):
                return found
    return path


def _is_node(path: str, kind: int, number: int) -> bool:
    try:
        facts = posix.lstat(path)
    except OSError:
        return False
    device = posix.major(facts.st_rdev) << 32 | posix.minor(facts.st_rdev)
    return facts.st_mode & _TYPE_MASK == kind and device == number


def owns(user: str, path: str) -> bool:
    """Whether the namespace at path belongs to the user namespace at user, or to one below that.

    True when it cannot be told: whoever uses them hears of it. Source: ioctl_ns(2).
    """
    from fcntl import ioctl

    fds: list[int] = []
    try:
        wanted = posix.stat(user)
        fds.append(posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC))
        ask = _NS_GET_USERNS
        while True:
            fds.append(ioctl(fds[-1], ask))
            found = posix.fstat(fds[-1])
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
            ask = _NS_GET_PARENT
    except OSError as error:
        return error.errno != errno.EPERM  # no more of them are below our own
    finally:
        for fd in fds:
            posix.close(fd)
