"""The questions that lowering asks of the host's file system.

Resolution inside the container's root is the init process's business alone: nothing here looks into the rootfs.
"""

import errno
import posix

_NO_SUCH = (errno.ENOENT, errno.ENOTDIR)
_TYPE_MASK = 0o170000
_TYPE_DIRECTORY = 0o040000


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
