"""Small calls on cgroup directories, shared by cgroup v1 and v2. They raise OSError; the callers name the step."""

import posix
from errno import EACCES, EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, ENOTDIR, ENOTEMPTY, EOPNOTSUPP, EPERM, EROFS, ESRCH
from time import sleep

from ociruntime import files
from ociruntime.errors import StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_REMOVE_TRIES = 10
_S_IFDIR = 0o040000
# Of a container that runs: nobody but somebody else can have done it.
GONE = "the container's cgroup has gone"
GONE_HINT = "its processes were moved elsewhere, and it was removed: only killing and deleting the container are left"
# Where the mark of leave_parent() is: only privilege writes and sees the first.
_PARENT_MARKS = ("trusted.ociruntime.parent", "user.ociruntime.parent")
_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC


def read(path: str, directory: "int | None" = None) -> bytes:
    """The whole file. directory: an fd that a relative path counts from."""
    return files.read(path, directory=directory)


def read_or_empty(path: str) -> bytes:
    """The whole file; b"" when it, or the cgroup it belongs to, is gone."""
    try:
        return read(path)
    except OSError as error:
        if error.errno in (ENOENT, ENODEV):
            return b""
        raise


def write(path: str, *values: bytes) -> None:
    """Give each value to the file in a write of its own. The OSError of a refused value carries the path."""
    fd = posix.open(path, posix.O_WRONLY | posix.O_TRUNC | posix.O_CLOEXEC)
    try:
        for value in values:
            posix.write(fd, value)
    except OSError as error:
        error.filename = path
        raise
    finally:
        posix.close(fd)


def exists(path: str) -> bool:
    return posix.access(path, posix.F_OK)


def make(path: str, top: str, made: "list[str]") -> bool:
    """mkdir path and what is missing between top (the mount point) and it; new directories are appended to made.

    Returns whether path itself is new. A parent that another runtime removes meanwhile is made again.
    """
    for last in (False, False, False, False, True):
        try:
            posix.mkdir(path, 0o755)
        except OSError as error:
            if error.errno == EEXIST:
                if not posix.stat(path).st_mode & _S_IFDIR:  # every cgroup has files, which are names that are taken
                    raise OSError(ENOTDIR, posix.strerror(ENOTDIR), path) from None
                return False
            parent = path[: path.rfind("/")]
            if error.errno != ENOENT or last or len(parent) <= len(top):
                raise
            make(parent, top, made)
        else:
            made.append(path)
            return True
    return False


def children(path: str) -> "list[str]":
    """The sub-cgroups of a directory; none if it is gone."""
    try:
        with posix.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno in (ENOENT, ENODEV):
            return []
        raise


def pids(path: str, frozen: bool = False) -> "list[int]":
    """Process IDs in a cgroup and all its sub-cgroups, each once; none if it is gone.

    frozen: only of those that the v1 freezer has frozen, or is about to.
    """
    found: dict[int, None] = {}

    def enter(fd: int) -> "list[str]":
        if frozen and _read_at("freezer.state", fd).strip() in (b"", b"THAWED"):
            return _inner(fd)
        try:
            data = _read_at("cgroup.procs", fd)
        except OSError as error:
            # A threaded cgroup does not list processes; its threads are enough to see and to signal them.
            if error.errno != EOPNOTSUPP:
                raise
            data = _read_at("cgroup.threads", fd)
        for pid in data.split():
            found[int(pid)] = None
        return _inner(fd)

    _walk(path, enter, lambda fd, name: None)
    # A process outside of our PID namespace reads as 0.
    found.pop(0, None)
    return list(found)


def _walk(path: str, enter: "Callable[[int], list[str]]", leave: "Callable[[int, str], None]") -> None:
    """Visit a cgroup and those below it, parents first; what is gone is left out.

    enter: gets the directory's fd, returns the names below it to go on with. leave: gets the parent's fd and a name
    whose visit is over. A container may be allowed to make sub-cgroups, thousands deep and with names that no path has
    room for: so there is no recursion, no path, and one descriptor at a time.
    """
    try:
        fd = posix.open(path, _DIRECTORY)
    except OSError as error:
        if error.errno in (ENOENT, ENODEV):
            return
        raise
    try:
        names: list[str] = []
        pending = [enter(fd)]
        while True:
            if pending[-1]:
                name, up = pending[-1].pop(), False
            elif names:
                pending.pop()
                name, up = "..", True
            else:
                return
            try:
                other = posix.open(name, _DIRECTORY, dir_fd=fd)
            except OSError as error:
                if error.errno not in (ENOENT, ENODEV) or up:
                    raise
                continue
            posix.close(fd)
            fd = other
            if up:
                leave(fd, names.pop())
            else:
                names.append(name)
                pending.append(enter(fd))
    finally:
        posix.close(fd)


def _inner(fd: int) -> "list[str]":
    """The names of the sub-cgroups."""
    try:
        with posix.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno in (ENOENT, ENODEV):
            return []
        raise


def _read_at(name: str, directory: int) -> bytes:
    try:
        return read(name, directory)
    except OSError as error:
        if error.errno in (ENOENT, ENODEV):
            return b""
        raise


def signal_all(path: str, signal: int) -> int:
    """Send a signal to every process of a cgroup and its sub-cgroups; returns how many there were."""
    targets = pids(path)
    for pid in targets:
        try:
            posix.kill(pid, signal)
        except OSError as error:
            if error.errno != ESRCH:
                raise
    return len(targets)


def add_process(path: str, pid: int) -> None:
    """Move a process. EINVAL: it has only just been forked (TASK_NEW), so it is tried 5 times, 30 ms apart."""
    for tries_left in (4, 3, 2, 1, 0):
        try:
            write(path + "/cgroup.procs", b"%d" % pid)
            return
        except OSError as error:
            if error.errno != EINVAL or not tries_left:
                raise
        sleep(0.03)


def remove_tree(path: str, keep_top: bool) -> bool:
    """One try at removing a cgroup, its sub-cgroups first. keep_top: only the sub-cgroups. False: something is busy."""
    if not keep_top and _rmdir(path):
        return True
    seen = busy = False

    def enter(fd: int) -> "list[str]":
        nonlocal seen
        names = _inner(fd)
        seen = seen or bool(names)
        return [name for name in names if not _rmdir(name, fd)]

    def leave(fd: int, name: str) -> None:
        nonlocal busy
        busy = not _rmdir(name, fd) or busy

    _walk(path, enter, leave)
    if keep_top:
        return not busy
    return seen and not busy and _rmdir(path)


def _rmdir(path: str, directory: "int | None" = None) -> bool:
    """Whether it is gone now; False: it has sub-cgroups or processes."""
    try:
        if directory is None:
            posix.rmdir(path)
        else:
            posix.rmdir(path, dir_fd=directory)
    except OSError as error:
        if error.errno in (EBUSY, ENOTEMPTY):
            return False
        if error.errno not in (ENOENT, ENODEV):
            raise
    return True


def try_rmdir(path: str) -> bool:
    """Whether it is gone now; False: it is in use, or not ours to remove."""
    try:
        posix.rmdir(path)
    except OSError as error:
        if error.errno in (EBUSY, ENOTEMPTY, EACCES, EPERM, EROFS):
            return False
        if error.errno not in (ENOENT, ENODEV):
            raise
    return True


def leave_parent(path: str) -> None:
    """Mark what create() has made for a container that goes, and others use: the last of them removes it."""
    for name in _PARENT_MARKS:
        try:
            posix.setxattr(path, name, b"1")
        except OSError:
            continue
        # The last of them may have gone meanwhile, and has not seen the mark.
        try_rmdir(path)
        return


def remove_parents(path: str) -> None:
    """Remove the parents of a cgroup that is gone, as far up as they are empty and have been left to us."""
    while "/" in path:
        path = path[: path.rfind("/")]
        if not _left_to_us(path) or not try_rmdir(path):
            return


def _left_to_us(path: str) -> bool:
    for name in _PARENT_MARKS:
        try:
            posix.getxattr(path, name)
            # Who owns the directory may have written the second mark: it counts when that is us.
            return name == _PARENT_MARKS[0] or posix.stat(path).st_uid == posix.geteuid()
        except OSError as error:
            if error.errno in (ENOENT, ENODEV):
                return True
    return False


def remove(paths: "Sequence[tuple[str, bool]]") -> None:
    """Remove cgroups: (directory, keep_top) each. A process that has just died may keep a cgroup busy for a moment, so
    busy ones are tried 10 times with pauses that double from 1 ms.

    Raises StepError when one stays busy.
    """
    pending = list(paths)
    pause = 0.001
    for attempt in range(_REMOVE_TRIES + 1):
        if attempt:
            sleep(pause)
            pause *= 2
        try:
            pending = [(path, keep) for path, keep in pending if not remove_tree(path, keep)]
        except OSError as error:
            path = error.filename
            raise StepError(
                "cannot remove the cgroup",
                step="cgroup",
                call="rmdir",
                errno=error.errno or 0,
                path=path if isinstance(path, str) else "",
            ) from error
        if not pending:
            return
    path = pending[0][0]
    raise StepError(
        "cannot remove the cgroup",
        step="cgroup",
        call="rmdir",
        errno=EBUSY,
        path=path,
        hint=f"processes in it: {named(pids(path))}",
    )


def named(found: "list[int]") -> str:
    """Process IDs for a message, at most ten."""
    if not found:
        return "none (or not visible from this PID namespace)"
    text = ", ".join([str(pid) for pid in found[:10]])
    return f"{text} and {len(found) - 10} more" if len(found) > 10 else text
