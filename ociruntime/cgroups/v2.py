"""Cgroup v2: one directory.

Source: kernel Documentation/admin-guide/cgroup-v2; cgroups(7).
"""

import posix
from errno import EACCES, ENODEV, ENOENT, EOPNOTSUPP, EPERM
from time import monotonic, sleep

from ociruntime.cgroups import files
from ociruntime.cgroups.cgroup import POINTER, RESOURCES, Cgroup
from ociruntime.errors import StepError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from ociruntime.cgroups.limits import CgroupWrite
    from ociruntime.host import Host

_FREEZE_SECONDS = 10.0
# Controllers that cannot work in a threaded cgroup.
_DOMAIN_CONTROLLERS = ("memory", "io", "hugetlb", "rdma", "misc")


class CgroupV2(Cgroup):
    """See Cgroup. Mode "v2"."""

    __slots__ = ("_available",)

    def __init__(self, mode: str, paths: "dict[str, str]") -> None:
        super().__init__(mode, paths)
        self._available: tuple[str, ...] | None = None

    def _process_directory(self) -> str:
        # Empty in a rootless create that went on without a cgroup.
        return self.paths.get("", "")

    def _directory(self, controller: str) -> str:
        return self.paths.get("", "")

    # -- create

    def prepare(self, host: "Host", resources: "dict[str, Any]") -> None:
        self._available = host.controllers
        super().prepare(host, resources)

    def lower(self, resources: "dict[str, Any]", pointer: str) -> "list[CgroupWrite]":
        from ociruntime.cgroups import limits_v2

        available = self._available
        if available is None:
            # Only update comes here, without a Host: what is enabled for this cgroup is what can be written.
            available = tuple(files.read_or_empty(self.paths[""] + "/cgroup.controllers").decode().split())
        return limits_v2.writes(resources, available, pointer=pointer)

    def _made(self, directory: str, top: str) -> None:
        """Make every controller of the host available in the cgroup; settle domain or threaded."""
        self._enable(directory, top)
        self._settle(directory, top)
        if self.delegated:
            from ociruntime.cgroups import delegation

            delegation.make(self, top)

    def _settle(self, directory: str, top: str) -> None:
        kind = files.read_or_empty(directory + "/cgroup.type").strip()
        if kind in (b"domain", b""):
            return
        wanted = {write.controller for write in (self._lowered or (None, []))[1]}
        needs_domain = [name for name in _DOMAIN_CONTROLLERS if name in wanted]
        if needs_domain:
            raise UnsupportedError(
                f"a limit of the controller {needs_domain[0]}",
                f"a cgroup of type domain, and '{directory}' is '{kind.decode('ascii', 'replace')}'",
                pointer=POINTER if self.explicit else RESOURCES,
                hint="a parent cgroup holds processes or is threaded: choose another cgroupsPath",
            )
        for path in _levels(directory, top)[1:]:
            if files.read_or_empty(path + "/cgroup.type").strip() == b"domain invalid":
                files.write(path + "/cgroup.type", b"threaded")

    def _enable(self, directory: str, top: str) -> None:
        enable_controllers(directory, top, self._available or ())

    def _thaw_hint(self) -> str:
        return f"thaw it: echo 0 > {self.paths['']}/cgroup.freeze"

    # -- limits

    def _apply_devices(self, resources: "dict[str, Any]", pointer: str) -> None:
        """Attach the device filter. The new program is in force before an older one is taken off."""
        from ociruntime.cgroups import devices

        target = devices.wanted(resources, pointer)
        directory = self._process_directory()
        if not directory or (target.allows_all() and directory in self.fresh):
            return
        from ociruntime.cgroups import device_program

        try:
            device_program.install(directory, target, directory in self.fresh)
        except (OSError, StepError) as error:
            # Only privilege can attach a filter. Without it, or where nothing is filtered, its lack is no hole: in a
            # user namespace no device node that was made there works anyway.
            refused = error.errno in (EACCES, EPERM)
            if refused and (self.rootless or self.skip_devices or target.allows_all()):
                self.notes.append(f"cannot filter devices ({posix.strerror(error.errno or 0).lower()}), ignoring")
                return
            raise StepError(
                "cannot attach the device filter",
                pointer=f"{pointer}/devices",
                step="cgroup",
                call="bpf",
                errno=error.errno or 0,
                path=directory,
                hint="CAP_SYS_ADMIN (or CAP_BPF and CAP_NET_ADMIN) is needed" if refused else "",
            ) from error

    # -- processes

    def _kill(self) -> None:
        directory = self._process_directory()
        if not directory:
            return
        try:
            files.write(directory + "/cgroup.kill", b"1")
        except OSError as error:
            if error.errno == ENODEV:
                return
            # Before Linux 5.14 there is no such file; a threaded cgroup refuses it.
            if error.errno not in (ENOENT, EOPNOTSUPP):
                raise
            self._kill_frozen()
            return
        # SIGKILL has reached frozen processes too; but a container that is dead must not go on looking paused.
        if files.read_or_empty(directory + "/cgroup.freeze").strip() == b"1":
            self.thaw()

    def freeze(self) -> None:
        set_freeze(self.paths[""], "1", True)

    def thaw(self) -> None:
        set_freeze(self.paths[""], "0", False)

    def frozen(self) -> bool:
        return frozen(self.paths[""])

    def oom_kills(self) -> int:
        for line in files.read_or_empty(self.paths[""] + "/memory.events").split(b"\n"):
            if line.startswith(b"oom_kill "):
                return int(line[9:])
        return 0

    def _release(self, directory: str) -> None:
        from ociruntime.cgroups import device_program, owner

        if "owner" in self.before:
            owner.give_back(directory, self.before["owner"])

        try:
            device_program.detach_all(directory)
        except (OSError, StepError) as error:
            if error.errno not in (EACCES, EPERM, ENOENT, ENODEV):
                raise StepError(
                    "cannot take the device filter off",
                    step="cgroup",
                    call="bpf",
                    errno=error.errno or 0,
                    path=directory,
                ) from error


def _levels(directory: str, top: str) -> "list[str]":
    """top, and every directory from there down to directory."""
    levels = [directory]
    while len(levels[-1]) > len(top):
        levels.append(levels[-1][: levels[-1].rfind("/")])
    levels.reverse()
    return levels


def enable_controllers(directory: str, top: str, wanted: "Collection[str]") -> bool:
    """Make the wanted controllers available in directory, by enabling them in each level above it.

    Returns whether there was anything to do: files of a controller that is enabled now are new, and the runtime's.
    What cannot be enabled is left out: who writes to a file of it then gets the error, with the field's name.
    """
    # Usually an earlier container has done it all: one read, and no write, which would take the kernel's big lock.
    there = files.read_or_empty(directory + "/cgroup.controllers").decode().split()
    missing = [name for name in wanted if name not in there]
    if not missing:
        return False
    for level in _levels(directory, top)[:-1]:
        path = level + "/cgroup.subtree_control"
        try:
            files.write(path, (" ".join([f"+{name}" for name in missing])).encode())
        except OSError:
            for name in missing:
                try:
                    files.write(path, f"+{name}".encode())
                except OSError:
                    continue
    return True


def set_freeze(directory: str, value: str, wait: bool) -> None:
    """Write cgroup.freeze; wait: until cgroup.events says frozen, at most 10 s, else thaw again. Raises StepError."""
    path = directory + "/cgroup.freeze"
    try:
        files.write(path, value.encode())
        if not wait:
            return
        pause = 0.0001
        end = monotonic() + _FREEZE_SECONDS
        while not _events_frozen(directory):
            if monotonic() > end:
                files.write(path, b"0")
                raise StepError("the processes cannot be frozen", step="cgroup", path=path)
            sleep(pause)
            pause = min(pause * 2, 0.05)
    except OSError as error:
        if not wait and error.errno in (ENOENT, ENODEV):
            return
        if not files.exists(directory):
            raise StepError(
                files.GONE, step="cgroup", errno=error.errno or 0, path=directory, hint=files.GONE_HINT
            ) from error
        hint = "freezing needs Linux 5.2" if error.errno == ENOENT else ""
        reason = "cannot freeze the cgroup" if wait else "cannot thaw the cgroup"
        raise StepError(reason, step="cgroup", errno=error.errno or 0, path=path, hint=hint) from error


def frozen(directory: str) -> bool:
    """Whether this cgroup, by its own setting and not only an ancestor's, is frozen."""
    return files.read_or_empty(directory + "/cgroup.freeze").strip() == b"1" and _events_frozen(directory)


def _events_frozen(directory: str) -> bool:
    return b"frozen 1" in files.read_or_empty(directory + "/cgroup.events").split(b"\n")
