"""The file of ``--pid-file``."""

import posix

from ociruntime.errors import StepError

_FLAGS = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
# These mean what the caller has open, files too.
_OWN_FDS = ("/proc/", "/dev/fd/", "/dev/std")
_REPLACED = (0o100000, 0o040000)
_IN_PLACE = posix.O_WRONLY | posix.O_APPEND | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC


def write(path: str, pid: int) -> bool:
    """Write pid to path: decimal, no newline, complete or not at all (a temporary ``.NAME`` beside it, then rename).

    A ``.NAME`` left by a killed command is replaced. What is no file but a name for something else (``/dev/stdout``, a
    device, a FIFO that somebody reads) is written to and never replaced. Returns whether path is ours to remove when
    the command fails later. Raises StepError.
    """
    try:
        if _is_special(path) and _put_in_place(path, pid):
            return False
        slash = path.rfind("/") + 1
        temporary = f"{path[:slash]}.{path[slash:]}"
        try:
            fd = posix.open(temporary, _FLAGS, 0o644)
        except FileExistsError:
            posix.unlink(temporary)
            fd = posix.open(temporary, _FLAGS, 0o644)
        try:
            _put(fd, pid)
            posix.rename(temporary, path)
        except OSError:
            posix.unlink(temporary)
            raise
    except OSError as error:
        raise StepError("cannot write the pid file", step="pid file", path=path, errno=error.errno or 0) from None
    return True


def remove(path: str) -> None:
    """Take back what write() has made; absent is fine."""
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass


def _is_special(path: str) -> bool:
    if path.startswith(_OWN_FDS):
        return True
    try:
        return posix.stat(path).st_mode & 0o170000 not in _REPLACED
    except OSError:
        return False


def _put_in_place(path: str, pid: int) -> bool:
    """Whether that was done: somebody may have put a link to a file of others in its place meanwhile."""
    fd = posix.open(path, _IN_PLACE)
    if not path.startswith(_OWN_FDS) and posix.fstat(fd).st_mode & 0o170000 in _REPLACED:
        posix.close(fd)
        return False
    _put(fd, pid)
    return True


def _put(fd: int, pid: int) -> None:
    try:
        posix.write(fd, b"%d" % pid)
    finally:
        posix.close(fd)
