"""Files of the machine's configuration, read and replaced below a prefix that no symlink leads out of."""

import errno
import os
import secrets
import stat

from ociruntime.errors import StepError

_MAX_LINKS = 40
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Places:
    """The tree below prefix. Paths begin with "/" and count from it; so do the symlinks that are met on the way."""

    def __init__(self, prefix: str = "/") -> None:
        self.prefix = prefix.rstrip("/")
        self.made: list[tuple[int, str]] = []
        try:
            self.root = os.open(prefix, _DIRECTORY)
        except OSError as error:
            raise StepError("cannot open", path=prefix, errno=error.errno or 0) from None

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self.root)
        for fd, _ in self.made:
            os.close(fd)
        self.made = []

    def shown(self, path: str) -> str:
        """The path as the caller knows it."""
        return self.prefix + path

    def read(self, path: str) -> "bytes | None":
        """Content of a regular file, None when there is none. Raises StepError."""
        try:
            found = self._find(path)
            if found is None:
                return None
            try:
                return _read(*found)
            finally:
                os.close(found[0])
        except OSError as error:
            raise self._failed("cannot read", path, error) from None

    def names(self, directory: str) -> "list[str]":
        """Names in a directory, sorted; none when there is no such directory."""
        try:
            found = self._find(f"{directory}/.")
            if found is None:
                return []
            try:
                return sorted(os.listdir(found[0]))
            finally:
                os.close(found[0])
        except OSError as error:
            raise self._failed("cannot list", directory, error) from None

    def replace(self, path: str, before: "bytes | None", after: "bytes | None") -> None:
        """Let path hold `after` instead of `before` (None: no file), in one step; owner, mode and attributes stay.

        Missing directories are made. Raises StepError, when somebody else has changed the file too; then nothing is
        left behind.
        """
        try:
            found = self._find(path, make=after is not None)
            if found is None:
                return
            directory, name = found
            try:
                if _read(directory, name) != before:
                    raise StepError("somebody else has changed it meanwhile", path=self.shown(path), hint="try again")
                if after is None:
                    os.unlink(name, dir_fd=directory)
                else:
                    _write(directory, name, after)
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            self._unmake()
            raise self._failed("cannot write", path, error) from None
        except StepError:
            self._unmake()
            raise

    def _failed(self, reason: str, path: str, error: OSError) -> StepError:
        return StepError(reason, path=self.shown(path), errno=error.errno or 0)

    def _unmake(self) -> None:
        """Remove the directories that were made, as far as they are still empty."""
        while self.made:
            fd, name = self.made.pop()
            try:
                os.rmdir(name, dir_fd=fd)
            except OSError:
                pass
            os.close(fd)

    def _find(self, path: str, *, make: bool = False) -> "tuple[int, str] | None":
        """(descriptor of the directory, name of the file) of a path, or None when its directory is missing.

        The file need not exist; the descriptor is the caller's. make: make missing directories, 0755.
        """
        stack = [os.dup(self.root)]
        parts = path.split("/")
        links = 0
        try:
            while True:
                part = parts.pop(0)
                if part == "..":
                    if len(stack) > 1:
                        os.close(stack.pop())
                elif part not in ("", "."):
                    target = _link(stack[-1], part)
                    if target is not None:
                        links += 1
                        if links > _MAX_LINKS:
                            raise OSError(errno.ELOOP, "too many symlinks")
                        if target[:1] == "/":
                            while len(stack) > 1:
                                os.close(stack.pop())
                        parts = target.split("/") + parts
                    elif parts:
                        if not self._enter(stack, part, make):
                            return None
                    else:
                        return stack.pop(), part
                if not parts:
                    return stack.pop(), "."
        finally:
            for fd in stack:
                os.close(fd)

    def _enter(self, stack: "list[int]", name: str, make: bool) -> bool:
        """Push the directory of this name; False when there is none and none is to be made."""
        try:
            stack.append(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=stack[-1]))
        except FileNotFoundError:
            if not make:
                return False
            os.mkdir(name, 0o755, dir_fd=stack[-1])
            self.made.append((os.dup(stack[-1]), name))
            stack.append(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=stack[-1]))
            os.fchmod(stack[-1], 0o755)
        return True


def _link(directory: int, name: str) -> "str | None":
    """Where a symlink points, None for anything else."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _open(directory: int, name: str) -> int:
    """A regular file for reading; -1 when there is none."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return -1
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EISDIR if name == "." else errno.EINVAL, "not a regular file")
    return fd


def _read(directory: int, name: str) -> "bytes | None":
    fd = _open(directory, name)
    if fd < 0:
        return None
    with open(fd, "rb") as file:
        return file.read()


def _write(directory: int, name: str, data: bytes) -> None:
    """Write beside the file and rename over it."""
    scratch = f".{name}.{secrets.token_hex(8)}"
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            old = _open(directory, name)
            if old < 0:
                os.fchmod(fd, 0o644)
            else:
                try:
                    _resemble(fd, old)
                finally:
                    os.close(old)
            file.flush()
            os.fsync(fd)
        os.rename(scratch, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(scratch, dir_fd=directory)
        raise


def _resemble(fd: int, old: int) -> None:
    """Owner, mode and extended attributes (an SELinux label, say) of the old file."""
    was, now = os.fstat(old), os.fstat(fd)
    if (was.st_uid, was.st_gid) != (now.st_uid, now.st_gid):
        os.fchown(fd, was.st_uid, was.st_gid)
    os.fchmod(fd, stat.S_IMODE(was.st_mode))
    try:
        for name in os.listxattr(old):
            os.setxattr(fd, name, os.getxattr(old, name))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
