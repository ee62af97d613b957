"""The state root and the containers' directories below it.

    ROOT/            0700; a name that starts with a dot is no container
    ROOT/ID/         0711; flock(2) on it is the container's lock
        state.json   see ``state.model``
        config.json  the bytes that the container was created from
        exec.fifo    0622, there until the container is started

Everything below ROOT is reached through directory file descriptors; no symlink is followed.
"""

import posix
from errno import EAGAIN, EEXIST, EISDIR, ENOENT, EPERM
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock
from time import monotonic, sleep

from ociruntime.errors import ExistsError, NotFoundError, OCIError, StateError, StepError
from ociruntime.state.model import STATE_FILE, CorruptStateError, State, from_json, salvage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

ID_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+.-")
# The ID is a file name and becomes part of others: "ociruntime-ID.scope" must fit into 255 bytes.
ID_LENGTH = 238
LOCK_TIMEOUT = 10.0
STATE_LIMIT = 16 * 1024 * 1024

CONFIG_FILE = "config.json"
FIFO = "exec.fifo"
# All that a container's directory ever holds, and the type of it (inode(7)); "notify" is notify_socket's.
_NAMES = {STATE_FILE: 0o100000, f".{STATE_FILE}": 0o100000, CONFIG_FILE: 0o100000, FIFO: 0o010000, "notify": 0o040000}

_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
_ROOT = posix.O_PATH | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
_CREATE = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
_READ = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC


class InvalidIDError(StateError):
    """The container ID is not one (row G11)."""

    code = "invalid-id"


def check_id(container_id: str) -> None:
    """Refuse what is no container ID: letters, digits and ``_ + . -``, no dot at the start, 238 characters at most."""
    if not container_id:
        raise InvalidIDError("the container ID is empty")
    if container_id[0] == ".":
        raise InvalidIDError("a container ID does not start with a dot", container_id=container_id)
    if len(container_id) > ID_LENGTH:
        raise InvalidIDError(f"a container ID has at most {ID_LENGTH} characters, not {len(container_id)}")
    for character in container_id:
        if character not in ID_CHARACTERS:
            raise InvalidIDError(
                f"a container ID holds only letters, digits and _ + . -, not {character!r}", container_id=container_id
            )


def _failure(error: OSError, reason: str, path: str, hint: str = "") -> StepError:
    return StepError(reason, step="state", path=path, errno=error.errno or 0, hint=hint)


def _own_root() -> str:
    """What an ordinary user is told who cannot use a state root."""
    return "give --root a directory of your own, or set XDG_RUNTIME_DIR" if posix.geteuid() else ""


def _make_directories(path: str) -> None:
    """mkdir -p with mode 0700; an existing directory is left as it is."""
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except FileNotFoundError:
        parent = path.rstrip("/").rpartition("/")[0]
        if not parent:
            raise
        _make_directories(parent)
        try:
            posix.mkdir(path, 0o700)
        except FileExistsError:
            pass


class StateRoot:
    """The directory that holds one directory per container. path: absolute."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def _open(self, create: bool = False) -> int:
        """Return an O_PATH fd of the root after checking whom it belongs to. Raises FileNotFoundError, OCIError."""
        path = self.path
        try:
            try:
                fd = posix.open(path, _ROOT)
            except FileNotFoundError:
                if not create:
                    raise
                _make_directories(path)
                fd = posix.open(path, _ROOT)
        except FileNotFoundError:
            raise
        except NotADirectoryError as error:
            raise _failure(error, "the state root must be a directory and not a symlink", path) from None
        except OSError as error:
            raise _failure(error, "cannot open the state root", path, _own_root()) from None
        facts = posix.fstat(fd)
        # Whoever can write here decides what we signal and remove. A group of one's own, as an umask of 002 makes
        # directories writable for, holds nobody else.
        wrong = ""
        if facts.st_uid not in (posix.geteuid(), 0):
            wrong = f"belongs to user {facts.st_uid}"
        elif facts.st_mode & 0o002:
            wrong = "is writable by everyone"
        elif facts.st_mode & 0o020 and facts.st_gid not in (posix.getegid(), 0):
            wrong = f"is writable by group {facts.st_gid}"
        if wrong:
            posix.close(fd)
            hint = "give --root a directory of your own"
            raise OCIError(f"the state root {wrong}", step="state", path=path, hint=hint)
        return fd

    def exists(self) -> bool:
        """Tell whether there is a state root."""
        try:
            posix.close(self._open())
        except FileNotFoundError:
            return False
        return True

    def ids(self) -> "list[str]":
        """Return the IDs that have a directory, sorted; [] when there is no root."""
        try:
            path_fd = self._open()
        except FileNotFoundError:
            return []
        try:
            fd = posix.open(".", _DIRECTORY, dir_fd=path_fd)
        except OSError as error:
            raise _failure(error, "cannot read the state root", self.path, _own_root()) from None
        finally:
            posix.close(path_fd)
        try:
            names = posix.listdir(fd)
        finally:
            posix.close(fd)
        return sorted(name for name in names if name[:1] != "." and ID_CHARACTERS.issuperset(name))

    def reserve(self, container_id: str) -> "StateDir":
        """Take an ID: make its directory, lock it. mkdir(2) decides between several that try.

        Raises ExistsError when the ID is taken, InvalidIDError, StepError.
        """
        check_id(container_id)
        try:
            root_fd = self._open(create=True)
        except FileNotFoundError as error:
            raise _failure(error, "cannot make the state root", self.path) from None
        directory = StateDir(f"{self.path}/{container_id}", container_id, root_fd)
        try:
            posix.mkdir(container_id, 0o711, dir_fd=root_fd)
        except OSError as error:
            directory.close()
            if error.errno == EEXIST:
                raise ExistsError(container_id) from None
            raise _failure(error, "cannot make the container's directory", directory.path, _own_root()) from None
        try:
            directory.fd = posix.open(container_id, _DIRECTORY, dir_fd=root_fd)
            directory.lock()
            posix.fchmod(directory.fd, 0o711)  # whatever the umask
        except (NotFoundError, FileNotFoundError):
            directory.close()
            reason = "the container was deleted while it was being created"
            raise StateError(reason, container_id=container_id) from None
        except BaseException as error:
            try:
                posix.rmdir(container_id, dir_fd=root_fd)
            except OSError:
                pass
            directory.close()
            if isinstance(error, OSError):
                raise _failure(error, "cannot open the container's directory", directory.path) from None
            raise
        return directory

    def open(self, container_id: str) -> "StateDir":
        """Open a container's directory, without locking it. Raises NotFoundError, InvalidIDError, StepError."""
        check_id(container_id)
        try:
            root_fd = self._open()
        except FileNotFoundError:
            raise NotFoundError(container_id) from None
        directory = StateDir(f"{self.path}/{container_id}", container_id, root_fd)
        try:
            directory.fd = posix.open(container_id, _DIRECTORY, dir_fd=root_fd)
        except FileNotFoundError:
            directory.close()
            raise NotFoundError(container_id) from None
        except OSError as error:
            directory.close()
            raise _failure(error, "cannot open the container's directory", directory.path) from None
        return directory

    def load(self, container_id: str) -> State:
        """Read a container's state. Raises NotFoundError, CorruptStateError, InvalidIDError, StepError."""
        with self.open(container_id) as directory:
            return directory.load()


class StateDir:
    """One container's directory, by file descriptor. Closing it releases the lock. Use as a context manager."""

    __slots__ = ("container_id", "fd", "locked", "path", "root_fd")

    def __init__(self, path: str, container_id: str, root_fd: int, fd: int = -1) -> None:
        self.path = path
        self.container_id = container_id
        self.root_fd = root_fd
        self.fd = fd
        self.locked = False

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close both fds; may be called twice."""
        self.locked = False
        if self.fd >= 0:
            posix.close(self.fd)
            self.fd = -1
        if self.root_fd >= 0:
            posix.close(self.root_fd)
            self.root_fd = -1

    def lock(self, timeout: float = LOCK_TIMEOUT, shared: bool = False) -> None:
        """Take the container's lock, waiting up to timeout seconds.

        Raises NotFoundError when the container went away meanwhile, StateError when another command keeps the lock.
        """
        wanted = (LOCK_SH if shared else LOCK_EX) | LOCK_NB
        pause = 0.0005
        deadline = 0.0
        while True:
            try:
                flock(self.fd, wanted)
                break
            except OSError as error:
                if error.errno != EAGAIN:
                    raise _failure(error, "cannot lock the container", self.path) from None
            now = monotonic()
            deadline = deadline or now + timeout
            if now >= deadline:
                raise StateError(
                    "another command is busy with the container",
                    container_id=self.container_id,
                    hint=f"it has kept the lock for more than {timeout:g} s",
                )
            sleep(pause)
            pause = min(pause * 2, 0.02)
        # The directory may have been removed, and even made anew, between opening and locking it.
        try:
            there = posix.stat(self.container_id, dir_fd=self.root_fd, follow_symlinks=False)
        except FileNotFoundError:
            raise NotFoundError(self.container_id) from None
        here = posix.fstat(self.fd)
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            raise NotFoundError(self.container_id)
        self.locked = True

    def busy(self) -> bool:
        """Tell whether somebody else holds the lock: a create in progress, say."""
        if self.locked:
            return False
        try:
            flock(self.fd, LOCK_SH | LOCK_NB)
        except OSError:
            return True
        flock(self.fd, LOCK_UN)
        return False

    def load(self) -> State:
        """Read the state. Raises NotFoundError when there is no state file (yet, or any more), or CorruptStateError."""
        return from_json(self.container_id, self._read(STATE_FILE))

    def salvage(self) -> "State | None":
        """Read what is left of an unusable state file; None when that is nothing. Never raises CorruptStateError."""
        try:
            return salvage(self.container_id, self._read(STATE_FILE))
        except (NotFoundError, CorruptStateError):
            return None

    def save(self, state: State) -> None:
        """Write the state: complete or not at all (temporary file, then rename). Only with the lock held.

        There is no fsync: after a crash of the machine the state means nothing anyway.
        """
        temporary = f".{STATE_FILE}"
        try:
            self._write(temporary, state.to_json())
            posix.rename(temporary, STATE_FILE, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            raise _failure(error, "cannot write the state", f"{self.path}/{STATE_FILE}") from None

    def save_config(self, data: bytes) -> None:
        """Keep the bytes of the config: what happens to the bundle's file afterwards has no effect."""
        try:
            self._write(CONFIG_FILE, data)
        except OSError as error:
            raise _failure(error, "cannot save the config", f"{self.path}/{CONFIG_FILE}") from None

    def load_config(self) -> bytes:
        """Return the saved config. Raises CorruptStateError when it is gone."""
        try:
            return self._read(CONFIG_FILE)
        except NotFoundError:
            raise CorruptStateError(self.container_id, "the saved config.json is missing") from None

    def make_fifo(self, uid: int, gid: int) -> None:
        """Make exec.fifo, 0622 whatever the umask, owned by the container's root (host IDs)."""
        try:
            posix.mkfifo(FIFO, 0o622, dir_fd=self.fd)
            posix.chmod(FIFO, 0o622, dir_fd=self.fd)
            if uid != posix.geteuid() or gid != posix.getegid():
                posix.chown(FIFO, uid, gid, dir_fd=self.fd, follow_symlinks=False)
        except OSError as error:
            raise _failure(error, "cannot make the start fifo", f"{self.path}/{FIFO}") from None

    def has_fifo(self) -> bool:
        """Tell whether exec.fifo is there: the container has not been started."""
        try:
            posix.stat(FIFO, dir_fd=self.fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def open_fifo(self, flags: int) -> int:
        """Open exec.fifo (O_PATH for the init process, O_RDONLY | O_NONBLOCK to start it). Raises OSError."""
        return posix.open(FIFO, flags | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=self.fd)

    def remove_fifo(self) -> None:
        """Remove exec.fifo; absent is fine."""
        try:
            posix.unlink(FIFO, dir_fd=self.fd)
        except FileNotFoundError:
            pass

    def foreign(self) -> str:
        """The path of something in the directory that no container has; "" if there is none.

        The state root may be any directory that somebody has named, one with bundles say: what is not ours is not
        removed from it. A name alone says little: others can list no directory and read no file of ours.
        """
        if posix.fstat(self.fd).st_mode & 0o066:
            return self.path
        for name in sorted(posix.listdir(self.fd)):
            mode = posix.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mode
            kind = mode & 0o170000
            if kind != _NAMES.get(name) or (kind == 0o100000 and mode & 0o077) or self._is_full(name, kind):
                return f"{self.path}/{name}"
        return ""

    def _is_full(self, name: str, kind: int) -> bool:
        """Whether this is a directory with more than a socket in it."""
        if kind != 0o040000:
            return False
        fd = posix.open(name, _DIRECTORY, dir_fd=self.fd)
        try:
            for below in posix.listdir(fd):
                if posix.stat(below, dir_fd=fd, follow_symlinks=False).st_mode & 0o170000 != 0o140000:
                    return True
            return False
        finally:
            posix.close(fd)

    def remove(self) -> None:
        """Remove the directory and all below it. The state file goes last: a killed removal can be repeated."""
        try:
            _empty(self.fd, keep=STATE_FILE)
            try:
                posix.unlink(STATE_FILE, dir_fd=self.fd)
            except FileNotFoundError:
                pass
            posix.rmdir(self.container_id, dir_fd=self.root_fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _failure(error, "cannot remove the container's directory", self.path) from None

    def _read(self, name: str) -> bytes:
        path = f"{self.path}/{name}"
        try:
            fd = posix.open(name, _READ, dir_fd=self.fd)
        except OSError as error:
            if error.errno == ENOENT:
                raise NotFoundError(self.container_id) from None
            raise _failure(error, "cannot open the file", path) from None
        try:
            size = posix.fstat(fd).st_size
            if size > STATE_LIMIT:
                raise CorruptStateError(self.container_id, f"{name} has {size} bytes")
            data = posix.read(fd, size + 1)
            while len(data) < size:
                more = posix.read(fd, size - len(data))
                if not more:
                    break
                data += more
            return data
        except OSError as error:
            raise _failure(error, "cannot read the file", path) from None
        finally:
            posix.close(fd)

    def _write(self, name: str, data: bytes) -> None:
        try:
            fd = posix.open(name, _CREATE, 0o600, dir_fd=self.fd)
        except FileExistsError:
            # Left by a command that was killed while it wrote; we hold the lock now.
            posix.unlink(name, dir_fd=self.fd)
            fd = posix.open(name, _CREATE, 0o600, dir_fd=self.fd)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[posix.write(fd, rest) :]
        except BaseException:
            posix.unlink(name, dir_fd=self.fd)
            raise
        finally:
            posix.close(fd)


def _empty(fd: int, keep: str = "") -> None:
    """Remove all entries of a directory but one. Raises OSError."""
    for name in posix.listdir(fd):
        if name == keep:
            continue
        try:
            posix.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (EISDIR, EPERM):
                raise
            below = posix.open(name, _DIRECTORY, dir_fd=fd)
            try:
                _empty(below)
            finally:
                posix.close(below)
            posix.rmdir(name, dir_fd=fd)
