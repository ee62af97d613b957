"""The file of ``--pid-file``."""

import posix

from ociruntime.errors import StepError

_FLAGS = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC


def write(path: str, pid: int) -> None:
    """Write pid to path: decimal, no newline, complete or not at all (a temporary ``.NAME`` beside it, then rename).

    A ``.NAME`` left by a killed command is replaced. Raises StepError.
    """
    slash = path.rfind("/") + 1
    temporary = f"{path[:slash]}.{path[slash:]}"
    try:
        try:
            fd = posix.open(temporary, _FLAGS, 0o644)
        except FileExistsError:
            posix.unlink(temporary)
            fd = posix.open(temporary, _FLAGS, 0o644)
        try:
            posix.write(fd, b"%d" % pid)
        finally:
            posix.close(fd)
        try:
            posix.rename(temporary, path)
        except OSError:
            posix.unlink(temporary)
            raise
    except OSError as error:
        raise StepError("cannot write the pid file", step="pid file", path=path, errno=error.errno or 0) from None
