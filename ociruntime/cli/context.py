"""What a command is given besides its own words: global options, log, output, and the library object."""

import posix

from ociruntime.cli.parser import Options, boolean
from ociruntime.errors import OCIError, StepError, UsageError
from ociruntime.files import clean, read
from ociruntime.log import Log, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ociruntime.lifecycle.runtime import Runtime

DEFAULT_ROOT = "/run/ociruntime"
_USES_CRIU = ("create", "run", "checkpoint", "restore")


def absolute(path: str) -> str:
    """Return path made absolute by the current directory, without ``.``, ``..`` and ``//``.

    ``..`` behind a symlink leads where the kernel goes. Raises StepError when the current directory is gone.
    """
    if path[:1] != "/":
        try:
            path = f"{posix.getcwd()}/{path}"
        except OSError as error:
            reason = "the current directory cannot be named"
            raise StepError(reason, path=path, errno=error.errno or 0, hint="give an absolute path") from None
    if "/.." in path:
        path = _climbed(path)
    return clean(path)


def _climbed(path: str) -> str:
    """The path with what ends in its last ".." as the kernel sees it; as it is where there is no such directory."""
    start = f"{path}/".rfind("/../") + len("/..")
    if start < len("/.."):
        return path
    try:
        fd = posix.open(path[:start], posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError:
        return path
    try:
        return posix.readlink(f"/proc/self/fd/{fd}") + path[start:]
    except OSError:
        return path
    finally:
        posix.close(fd)


def in_user_namespace() -> bool:
    """Tell whether this process is in another user namespace than the machine's first. Source: user_namespaces(7)."""
    try:
        return read("/proc/self/uid_map").split() != [b"0", b"0", b"4294967295"]
    except OSError:
        return False


def user_root(environment: "Mapping[bytes, bytes]", euid: int) -> str:
    """Return the state root of a user, "" when the system's is used.

    A user's root is below $XDG_RUNTIME_DIR. That includes root of a user namespace, unless $USER says root.
    """
    runtime_directory = environment.get(b"XDG_RUNTIME_DIR", b"").decode("utf-8", "surrogateescape")
    if not runtime_directory:
        return ""
    if euid == 0 and (environment.get(b"USER") == b"root" or not in_user_namespace()):
        return ""
    return absolute(f"{runtime_directory}/ociruntime")


def prepare_user_root(path: str) -> None:
    """Make a user's state root, 0700 with the sticky bit: that keeps clean-up tools from removing it."""
    try:
        try:
            posix.mkdir(path, 0o700)
        except FileExistsError:
            pass
        fd = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
        try:
            if not posix.fstat(fd).st_mode & 0o1000:
                posix.fchmod(fd, 0o1700)
        finally:
            posix.close(fd)
    except OSError as error:
        raise StepError(
            "cannot make the state root", step="state", path=path, errno=error.errno or 0, hint="see XDG_RUNTIME_DIR"
        ) from None


class Context:
    """One command line's surroundings. verb, container_id: for messages, "" until they are known."""

    __slots__ = ("container_id", "log", "options", "verb")

    def __init__(self, log: Log) -> None:
        self.log = log
        self.options = Options()
        self.verb = ""
        self.container_id = ""

    def prefix(self) -> str:
        """What a message about this command begins with."""
        if self.container_id:
            return f"{self.verb} '{self.container_id}': "
        return f"{self.verb}: " if self.verb else ""

    def check_options(self) -> None:
        """Refuse wrong global options, whether or not the command uses them. Raises UsageError, OCIError."""
        options = self.options
        self.rootless()
        self.cgroup_manager()
        if options.given("root") and self.explicit_root() == "/":
            raise OCIError("--root is '/'" if options.text("root") else "--root is empty")
        if options.given("criu") and self.verb in _USES_CRIU:
            self.log.warning("--criu has no effect: criu is searched for in fixed places, ignoring")

    def explicit_root(self) -> str:
        """The absolute path of --root, "" when it was not given; an empty one counts as '/'."""
        if not self.options.given("root"):
            return ""
        text = self.options.text("root")
        return absolute(text) if text else "/"

    def root(self) -> str:
        """The state root; a user's own is made on the way."""
        root = self.explicit_root()
        if root:
            return root
        root = user_root(posix.environ, posix.geteuid())
        if root:
            prepare_user_root(root)
            return root
        return DEFAULT_ROOT

    def rootless(self) -> "bool | None":
        """--rootless: None is auto."""
        text = self.options.text("rootless")
        if text in ("", "auto"):
            return None
        value = boolean(text)
        if value is None:
            raise UsageError(f"--rootless is true, false or auto, not '{text}'")
        return value

    def cgroup_manager(self) -> str:
        """Return "cgroupfs", "systemd" or "disabled"."""
        text = self.options.text("cgroup-manager") or "cgroupfs"
        if text not in ("cgroupfs", "systemd", "disabled"):
            raise UsageError(f"--cgroup-manager is cgroupfs, systemd or disabled, not '{text}'")
        return "systemd" if self.options.flag("systemd-cgroup") else text

    def runtime(self, log: "Log | None" = None) -> "Runtime":
        """The library object that the command is a skin of. log: another one than the command's."""
        from ociruntime.lifecycle.runtime import Runtime

        rootless = self.rootless()
        return Runtime(
            self.root(),
            rootless="auto" if rootless is None else rootless,
            cgroup_manager=self.cgroup_manager(),
            log=log or self.log,
        )

    def listen_fds(self) -> "tuple[int, str]":
        """(number, names) of the sockets that the caller's service manager has passed, for create and run (row P7)."""
        if self.verb not in ("create", "run") or b"LISTEN_FDS" not in posix.environ:
            return 0, ""
        from ociruntime.listen_fds import passed

        return passed(posix.environ, posix.getpid())

    def notify_socket(self) -> str:
        """The caller's NOTIFY_SOCKET, "" if there is none (row P8)."""
        return posix.environ.get(b"NOTIFY_SOCKET", b"").decode("utf-8", "surrogateescape")

    def output(self, text: str) -> int:
        """Write a command's result to stdout; return the exit status 0. Raises StepError (a full disk, say)."""
        try:
            write_all(1, text)
        except OSError as error:
            raise StepError("cannot write to stdout", errno=error.errno or 0) from None
        return 0
