"""Files and paths without the os module: reading to the end, and paths as text."""

import posix
from errno import EIO, EMFILE, ENFILE, ENOMEM

from ociruntime.errors import StepError

# of a file of the kernel; a mountinfo of 100,000 mounts has 20 MiB
LIMIT = 64 << 20

# These say something about the machine, or about us, and nothing about the file.
_TROUBLE = (EIO, EMFILE, ENFILE, ENOMEM)


def rest(fd: int, limit: int = LIMIT) -> bytes:
    """What is left in fd, at most limit bytes. Raises OSError.

    Until a read gives nothing: the kernel gives its files in whole lines, so a short part need not be the last one.
    """
    parts = []
    while limit > 0:
        part = posix.read(fd, min(limit, 65536))
        if not part:
            break
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def read(path: str, limit: int = LIMIT, *, directory: "int | None" = None) -> bytes:
    """The file, at most limit bytes. directory: an fd that a relative path counts from. Raises OSError."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=directory)
    try:
        return rest(fd, limit)
    except OSError as error:
        error.filename = path
        raise
    finally:
        posix.close(fd)


def read_if_possible(path: str, limit: int = LIMIT) -> bytes:
    """The file, at most limit bytes; b"" when it is not there or not for us. Raises StepError when nobody can know."""
    try:
        return read(path, limit)
    except OSError as error:
        if error.errno in _TROUBLE:
            raise StepError("cannot read", path=path, errno=error.errno) from None
        return b""


def clean(path: str) -> str:
    """The absolute path without empty, "." and ".." components; ".." at the root stays there.

    Lexical on purpose: what is compared with "/proc" or "/dev" must not depend on an image's symlinks.
    """
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)
