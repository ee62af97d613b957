"""System calls that Python has no name for: a value (fds are the caller's, CLOEXEC), or StepError."""

import posix

from ociruntime.errors import SignalError, StepError
from ociruntime.plan import MOUNT_ATTR_IDMAP
from ociruntime.shim._native import ffi, lib
from ociruntime.shim.sync import check

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def open_tree(path: str, *, recursive: bool = False, nofollow: bool = False, dirfd: int = AT_FDCWD) -> int:
    """A detached copy of what is mounted at path. Source: man open_tree(2), OPEN_TREE_CLONE."""
    flags = _tree_flags(recursive, nofollow)
    return check(lib.shim_open_tree(dirfd, path.encode("utf-8", "surrogateescape"), flags), "open_tree", path)


def open_tree_apart(path: str, *, recursive: bool = False, nofollow: bool = False) -> int:
    """The same, with unbindable mounts; all of the tree are slaves of the mounts they are copies of."""
    name = path.encode("utf-8", "surrogateescape")
    return check(lib.shim_open_tree_apart(name, _tree_flags(recursive, nofollow)), "open_tree", path)


def _tree_flags(recursive: bool, nofollow: bool) -> int:
    return OPEN_TREE_CLONE | (AT_RECURSIVE if recursive else 0) | (AT_SYMLINK_NOFOLLOW if nofollow else 0)


def set_idmap(fd: int, userns: int, *, recursive: bool = False) -> None:
    """Give a detached mount (recursive: every mount of the tree) the mapping of a user namespace.

    Source: man mount_setattr(2), "ID-mapped mounts".
    """
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    check(lib.shim_mount_setattr(fd, b"", flags, MOUNT_ATTR_IDMAP, 0, 0, userns), "mount_setattr", "MOUNT_ATTR_IDMAP")


def new_userns(uid_map: str, gid_map: str, inside: int = -1) -> int:
    """A user namespace without a process, with these maps. inside: in this one instead of the caller's.

    call says what failed: clone3, uid_map, gid_map, open or setns.
    """
    failed = ffi.new("int *")
    ret = lib.shim_new_userns(uid_map.encode("ascii"), gid_map.encode("ascii"), inside, failed)
    return check(ret, ("clone3", "uid_map", "gid_map", "open", "setns")[failed[0]])


def new_filesystem(kind: str, parameters: "Sequence[tuple[str, str]]") -> int:
    """A new file system, mounted nowhere. parameters: (key, value) for fsconfig(2), value "" is a flag.

    Raises StepError with the kernel's own words, if it has any.
    """
    packed = "".join(f"{key}\0{value}\0" for key, value in parameters).encode("utf-8", "surrogateescape")
    message = ffi.new("char[]", 512)
    ret: int = lib.shim_new_filesystem(kind.encode("utf-8"), packed, len(parameters), message, 512)
    if ret >= 0:
        return ret
    what, words = ffi.buffer(message)[:].decode("utf-8", "replace").split("\0")[:2]
    call, _, path = what.partition(" ")
    raise StepError("", call=call, errno=-ret, path=words.strip() or path)


def may_clone_mounts() -> bool:
    """Whether this process may open_tree(2) with OPEN_TREE_CLONE: CAP_SYS_ADMIN over its own mount namespace."""
    fd: int = lib.shim_open_tree(AT_FDCWD, b"/", OPEN_TREE_CLONE)
    if fd < 0:
        return False
    posix.close(fd)
    return True


def prlimit(pid: int, resource: int, soft: int, hard: int) -> int:
    """Set a resource limit of pid: 0 or -errno. Source: man prlimit(2)."""
    ret: int = lib.shim_prlimit(pid, resource, soft, hard)
    return ret


class Held:
    """HUP, INT and TERM of the calling thread, held back; those that are ignored, or blocked already, are left alone.

    also: bit n-1: signal n too, though it is blocked. fd: readable when one has come. Source: man signalfd(2).
    """

    __slots__ = ("_blocked", "fd")

    def __init__(self, also: int = 0) -> None:
        blocked = ffi.new("uint64_t *")
        self.fd: int = check(lib.shim_hold_signals(also, blocked), "signalfd")
        self._blocked: int = blocked[0]

    def check(self) -> None:
        """Raise SignalError if one has come."""
        signal = lib.shim_held_signal(self.fd)
        if signal:
            raise SignalError(signal)

    def close(self) -> None:
        """Let them do what they do; one that was not asked for comes now."""
        fd, self.fd = self.fd, -1
        posix.close(fd)
        lib.shim_unblock_signals(self._blocked)


def set_subreaper(on: bool) -> None:
    """Become (or stop being) the one that orphans of our descendants go to. Source: man prctl(2)."""
    check(lib.shim_set_subreaper(on), "prctl", "PR_SET_CHILD_SUBREAPER")


def namespace_type(fd: int) -> int:
    """CLONE_NEW* of a namespace fd; raises StepError (ENOTTY) when it is none. Source: man ioctl_ns(2)."""
    return check(lib.shim_nstype(fd), "ioctl", "NS_GET_NSTYPE")


def pidfd_getfd(pidfd: int, number: int) -> int:
    """A copy of fd `number` of another process, or -errno (EBADF: it has none). Source: man pidfd_getfd(2)."""
    fd: int = lib.shim_pidfd_getfd(pidfd, number)
    return fd


def pidfd_exit(pidfd: int) -> "int | None":
    """The wait status of the process of a pidfd that was opened before its end; None: there is none (yet).

    Told from Linux 6.15 on, and only once the process has been collected by its parent. Source: linux/pidfd.h.
    """
    status = ffi.new("int *")
    return status[0] if lib.shim_pidfd_exit(pidfd, status) == 0 else None


def connect_unix(path: str, timeout_ms: int) -> int:
    """A stream socket connected to the socket file at path; what is sent waits at most timeout_ms, too."""
    return check(lib.shim_connect_unix(path.encode("utf-8", "surrogateescape"), timeout_ms), "connect", path)


def send_stream(socket: int, data: bytes, fd: int = -1) -> None:
    """All of data, and fd (SCM_RIGHTS) with its first byte. Source: man unix(7)."""
    check(lib.shim_send_stream(socket, data, len(data), fd), "sendmsg")


def prepare_terminal(master: int, tty: int) -> None:
    """Before a program runs on a pty that relay() will serve: no ONLCR, the window size of our terminal (-1: none)."""
    check(lib.shim_prepare_terminal(master, tty), "tcsetattr", "terminal")


def relay(master: int, pid: int, pidfd: int, tty: int, forward: int) -> int:
    """Copy between our 0 and 1 and a pty until the child pid ends: its wait status. Source: man pty(7), termios(3).

    tty: our terminal, raw meanwhile (-1: none). forward: bit n-1 set: signal n goes to pidfd. All signals are blocked.
    """
    request = {"master": master, "tty": tty, "input": 0, "output": 1, "pid": pid, "pidfd": pidfd, "forward": forward}
    status = ffi.new("int *")
    check(lib.shim_relay(ffi.new("struct relay_request *", request), status), "relay", "terminal")
    found: int = status[0]
    return found
