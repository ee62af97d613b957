"""Writing the cache of compiled seccomp programs. Only reached after a compilation; a failure here stops nothing."""

import posix
from time import monotonic_ns, time

from ociruntime.seccomp.compile import CACHE_FILES, open_cache, pack

STALE_SECONDS = 60


def store(cache_directory: str, name: str, code: bytes) -> None:
    """Put code into the cache as name: made 0600 under another name, then renamed; old files go."""
    try:
        posix.mkdir(cache_directory, 0o700)
    except OSError:
        pass  # it exists, or open_cache finds out
    directory = open_cache(cache_directory)
    if directory < 0:
        return
    try:
        _write(directory, name, pack(code))
        prune(directory)
    except OSError:
        pass
    finally:
        posix.close(directory)


def _write(directory: int, name: str, data: bytes) -> None:
    temporary = f".{name}.{posix.getpid()}.{monotonic_ns()}"
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
    fd = posix.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        try:
            written = 0
            while written < len(data):
                written += posix.write(fd, data[written:])
        finally:
            posix.close(fd)
        posix.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        posix.unlink(temporary, dir_fd=directory)
        raise


def prune(directory: int, keep: int = CACHE_FILES) -> None:
    """Remove all but the newest `keep` programs, and what an interrupted store() left behind."""
    now = time()
    programs = []
    for name in posix.listdir(directory):
        try:
            changed = posix.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
            if not name.startswith("."):
                programs.append((changed, name))
            elif changed < now - STALE_SECONDS:
                posix.unlink(name, dir_fd=directory)
        except OSError:
            continue  # another runtime was faster
    programs.sort(reverse=True)
    for _, name in programs[keep:]:
        try:
            posix.unlink(name, dir_fd=directory)
        except OSError:
            continue
