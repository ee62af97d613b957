"""The interface every kind of cgroup offers, and what cgroup v1 and v2 have in common.

Order of use in create: ``check_free()`` (nothing is made yet), ``saved()`` into state.json, ``begin()``, ``create()``,
``apply()``, then the init process joins: v1 by itself through ``join_sources()``, v2 by being cloned into
``clone_directory()``. So ``create()`` and ``apply()`` never write cgroup.procs or tasks: on an idle machine the first
such write by another process than the one that moves waits 10 ms or more for an RCU grace period.
"""

import posix
from errno import EACCES, EINVAL, ENODEV, ENOENT, ENOTDIR, EPERM, EROFS

from ociruntime.cgroups import files
from ociruntime.errors import ConfigError, StateError, StepError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ociruntime.cgroups.devices import Filter
    from ociruntime.cgroups.limits import CgroupWrite
    from ociruntime.host import Host
    from ociruntime.plan import FdSource

POINTER = "/linux/cgroupsPath"
RESOURCES = "/linux/resources"
REFUSED = (EACCES, EPERM, EROFS)
SIGKILL = 9
# Where the mark of create() is: only privilege writes and sees the first; the second is what there is without it.
_MARKS = ("trusted.ociruntime", "user.ociruntime")


class Cgroup:
    """A container's cgroup.

    mode: "v1", "hybrid", "v2" or "none". paths: controller ("" = cgroup v2) -> absolute directory; co-mounted v1
    controllers share one. made: directories create() made (before it: the ones it is going to make), parents first.
    rootless: what only privilege could do is tolerated. warnings: what was tolerated, for the log; notes: the same, but
    nothing that was asked for is missing. before: what remove() puts back in directories that were there before, and
    how it was: "devices", the list of cgroup v1; "owner", a UID. owner: the UID it was given to. mark: what create()
    writes into an extended attribute: a path alone does not tell whose cgroup it is. "" for none. delegated: see
    ``delegation``; a path below the cgroup v2 directory, "" for none.
    """

    __slots__ = (
        "_lowered",
        "before",
        "container_id",
        "delegated",
        "explicit",
        "fresh",
        "made",
        "mark",
        "mode",
        "mounts",
        "notes",
        "owner",
        "paths",
        "rootless",
        "skip_devices",
        "warnings",
    )

    def __init__(self, mode: str, paths: "dict[str, str]") -> None:
        self.mode = mode
        self.paths = paths
        self.made: list[str] = []
        self.rootless = False
        self.skip_devices = False
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.before: dict[str, Any] = {}
        self.owner: int | None = None
        self.mark = ""
        self.delegated = ""
        # The rest is known to create only.
        self.container_id = ""
        self.explicit = False
        self.fresh: set[str] = set()
        self.mounts: dict[str, str] = {}
        self._lowered: tuple[object, list[CgroupWrite]] | None = None

    # -- where it is

    def directories(self) -> "list[str]":
        """The directories of all hierarchies, each once."""
        return list(dict.fromkeys(self.paths.values()))

    def _process_directory(self) -> str:
        """One directory in which all processes of the container are found; "" if there is none."""
        raise NotImplementedError

    def saved(self) -> "dict[str, Any]":
        """What from_state() needs to find this cgroup again; fit for JSON."""
        result = {"mode": self.mode, "paths": self.paths, "made": self.made, "rootless": self.rootless}
        if self.before:
            result["before"] = self.before
        if self.owner is not None:
            result["owner"] = self.owner
        if self.mark:
            result["mark"] = self.mark
        if self.delegated:
            result["delegated"] = self.delegated
        return result

    def exists(self) -> bool:
        directory = self._process_directory()
        return bool(directory) and files.exists(directory) and self.is_ours()

    def check_there(self) -> None:
        """Refuse a cgroup that the container had once. Raises StepError."""
        directory = self._process_directory()
        if directory and not files.exists(directory):
            raise StepError(files.GONE, step="cgroup", errno=ENOENT, path=directory, hint=files.GONE_HINT)

    def is_ours(self) -> bool:
        """False when the cgroup in this place is one that our create() has not finished: it was killed before, or
        another container has the place now.
        """
        # Who owns the cgroup might change the mark.
        if not self.mark or self.owner is not None:
            return True
        directory = self._process_directory()
        for name in _MARKS:
            try:
                return posix.getxattr(directory, name).rpartition(b" ")[0] == self.mark.encode("ascii")
            except OSError as error:
                if error.errno in (ENOENT, ENODEV):
                    return True
        return False

    # -- create

    def prepare(self, host: "Host", resources: "dict[str, Any]") -> None:
        """Lower /linux/resources now, so that create() knows what it needs and a bad value fails before all else."""
        writes: list[CgroupWrite] = []
        if _has_limits(resources):
            from ociruntime.cgroups import limits

            writes = self.lower(resources, RESOURCES)
            self.warnings += limits.memory_warnings(resources.get("memory") or {}, RESOURCES + "/memory")
        self._lowered = (resources, writes)

    def check_free(self) -> None:
        """Refuse a cgroup that holds processes or is frozen; note which directories create() will make.

        Raises StateError with a hint how to clean up; ConfigError when the path is not a cgroup.
        """
        self.made = []
        found_any = False
        for directory in self.directories():
            if not files.exists(directory):
                self._will_make(directory)
                continue
            try:
                present = bool(files.read(directory + "/cgroup.procs")) or bool(files.children(directory))
            except OSError as error:
                if error.errno == ENODEV:
                    self._will_make(directory)
                    continue
                if error.errno == ENOTDIR:
                    raise ConfigError("not a cgroup", pointer=POINTER, path=directory) from error
                # A threaded cgroup, or a directory that is no cgroup at all: look closer.
                present = True
            found_any = True
            found = files.pids(directory) if present else []
            if found:
                raise StateError(
                    f"the container's cgroup '{directory}' is not empty: {len(found)} process(es) found",
                    container_id=self.container_id,
                    hint=f"end the processes {files.named(found)} and remove the cgroup with rmdir, "
                    "or choose another cgroupsPath",
                )
        if found_any and self.frozen():
            raise StateError(
                f"the container's cgroup '{self._process_directory()}' is frozen",
                container_id=self.container_id,
                hint=self._thaw_hint(),
            )

    def _will_make(self, directory: str) -> None:
        top = self.mounts.get(directory, "")
        missing = [directory]
        parent = directory[: directory.rfind("/")]
        while len(parent) > len(top) and parent not in self.made and not files.exists(parent):
            missing.append(parent)
            parent = parent[: parent.rfind("/")]
        self.made.extend(reversed(missing))

    def _thaw_hint(self) -> str:
        raise NotImplementedError

    def begin(self) -> None:
        """Hook of create: ask for what create() then waits for. Raises StepError."""

    def abandon(self) -> None:
        """Hook of create: it has ended, or failed; what choosing this has begun is of no use any more."""

    def create(self) -> None:
        """Make the directories, in every hierarchy. On error those made are removed again.

        A rootless runtime without cgroupsPath and without limits goes on without the hierarchies it may not write to.
        Raises StepError.
        """
        self.made = []
        refused: dict[str, OSError] = {}
        try:
            for directory in self.directories():
                top = self.mounts[directory]
                try:
                    if files.make(directory, top, self.made):
                        self.fresh.add(directory)
                    self._made(directory, top)
                except OSError as error:
                    if not self._dispensable(directory, error):
                        raise
                    refused[directory] = error
            if refused:
                self._forget(refused)
            self.check_thawed()
            self._leave_mark()
        except OSError as error:
            self.undo()
            raise self._create_error(error) from error
        except BaseException:
            self.undo()
            raise

    def check_thawed(self) -> None:
        """Refuse what an ancestor freezes: a process would be cloned there, and our wait for it never end.

        Raises StateError.
        """
        from ociruntime.cgroups import freezer

        refusal = freezer.refusal(
            self.paths, self.container_id, more=", or choose another cgroupsPath" if self.container_id else ""
        )
        if refusal is not None:
            raise refusal

    def _made(self, directory: str, top: str) -> None:
        """Hook of create(): make a new or found directory fit for processes."""

    def _leave_mark(self) -> None:
        """The last thing before a process can be in it. Where there are no marks, the path has to be enough.

        Behind the mark: how many levels of the path we have made.
        """
        directory = self._process_directory()
        if self.mark and directory:
            if directory not in self.fresh:
                self._take_over(directory)
            levels = len([path for path in self.made if f"{directory}/".startswith(f"{path}/")])
            left = False
            for name in _MARKS:
                try:
                    posix.setxattr(directory, name, f"{self.mark} {levels}".encode("ascii"))
                    left = True
                except OSError:
                    continue
            if left:
                return
        self.mark = ""

    def _take_over(self, directory: str) -> None:
        """What a container that has ended has made, and we use from now on, is ours to remove.

        Who owns the directory may have written the second mark: it counts when that is us.
        """
        for name in _MARKS if posix.stat(directory).st_uid == posix.geteuid() else _MARKS[:1]:
            try:
                levels = int(posix.getxattr(directory, name).rpartition(b" ")[2])
            except (OSError, ValueError):
                continue
            for path in self.directories():
                missing = []
                for _ in range(min(levels, path.count("/"))):
                    if path not in self.made:
                        missing.append(path)
                    path = path[: path.rfind("/")]
                self.made += reversed(missing)
            return

    def _take_mark(self, directory: str) -> None:
        if self.mark and directory == self._process_directory():
            for name in _MARKS:
                try:
                    posix.removexattr(directory, name)
                except OSError:
                    continue

    def _dispensable(self, directory: str, error: OSError) -> bool:
        asked_for = self.explicit or self.delegated or self._needed(directory)
        return self.rootless and error.errno in REFUSED and not asked_for

    def _needed(self, directory: str) -> bool:
        """Whether a limit asked for has to be written there."""
        writes = self._lowered[1] if self._lowered is not None else []
        return any(self._directory(write.controller) == directory for write in writes)

    def _forget(self, refused: "dict[str, OSError]") -> None:
        reason = posix.strerror(next(iter(refused.values())).errno or 0).lower()
        which = ", ".join([name or "cgroup v2" for name, path in self.paths.items() if path in refused])
        self.notes.append(f"cannot create the cgroup ({reason}), going on without one: {which}")
        self.paths = {name: path for name, path in self.paths.items() if path not in refused}
        for directory in refused:
            inner = [path for path in self.made if path == directory or directory.startswith(path + "/")]
            for path in reversed(inner):
                files.try_rmdir(path)
                self.made.remove(path)

    def _create_error(self, error: OSError) -> StepError:
        hint = ""
        pointer = POINTER if self.explicit else ""
        if not pointer and self._lowered is not None and self._lowered[1]:
            # Only a limit makes a refusal an error to a rootless runtime: say which.
            pointer = self._lowered[1][0].pointer
        if error.errno in (EACCES, EPERM) and self.rootless:
            hint = "a rootless runtime needs a cgroup that is delegated to its user"
        elif error.errno == EROFS:
            hint = "cgroups are mounted read-only here"
        elif error.errno in (EACCES, EPERM) and posix.geteuid():
            hint = "--rootless true lets a container that asks for no cgroup do without one"
        elif error.errno in (ENOENT, EPERM, EACCES):
            hint = "another mount may hide the cgroup file system"
        elif error.errno == EINVAL:
            hint = "a parent cgroup may be in an unfit state"
        elif error.errno == ENOTDIR:
            hint = "every cgroup has a file of this name: choose another cgroupsPath"
        path = error.filename
        return StepError(
            "cannot create the cgroup",
            pointer=pointer,
            step="cgroup",
            errno=error.errno or 0,
            path=path if isinstance(path, str) else "",
            hint=hint,
        )

    def undo(self) -> None:
        """Remove what create() made and tell nothing: the way out of another error."""
        for path in reversed(self.made):
            files.try_rmdir(path)

    # -- joining

    def join_sources(self) -> "list[FdSource]":
        """The files into which a process writes "0" to join, one per v1 hierarchy."""
        return []

    def clone_directory(self) -> str:
        """The cgroup v2 directory for CLONE_INTO_CGROUP; "" if there is none."""
        return self.paths.get("", "")

    def home(self) -> str:
        """The cgroup v2 directory in which its processes live once it has begun; "" if there is none."""
        directory = self.paths.get("", "")
        return f"{directory}/{self.delegated}" if directory and self.delegated else directory

    def add_process(self, pid: int) -> None:
        """Move another process into every hierarchy. Raises StepError."""
        for directory in self.directories():
            try:
                files.add_process(directory, pid)
            except OSError as error:
                raise StepError(
                    f"cannot move process {pid} into the cgroup",
                    step="cgroup",
                    call="write",
                    errno=error.errno or 0,
                    path=directory + "/cgroup.procs",
                ) from error

    def receive(self, pid: int) -> None:
        """Hook of create and exec: this process exists, and waits for its plan. It is in the v2 cgroup it was cloned
        into, if that was possible."""

    def settled(self, config: "dict[str, Any]", host_uid: "Callable[[int], int | None]") -> None:
        """Hook of create: the init process is where it stays, and its program has not begun."""
        if self.delegated:
            from ociruntime.cgroups import delegation, owner

            delegation.hand_over(self)
            owner.give_to_user(self, config, host_uid)

    # -- limits

    def lower(self, resources: "dict[str, Any]", pointer: str) -> "list[CgroupWrite]":
        """The writes a resources object asks for, in order."""
        raise NotImplementedError

    def _directory(self, controller: str) -> str:
        """Where the files of a controller are; "" if there is no such hierarchy."""
        raise NotImplementedError

    def apply(self, resources: "dict[str, Any]", *, pointer: str = RESOURCES, devices: bool = True) -> None:
        """Put a resources object into force: devices first, then the limits.

        devices: false leaves the device filter as it is (update). Best before the init process joins, so that on v1 it
        never meets a half-written device list.
        Raises ConfigError, UnsupportedError or StepError, each with the pointer of the field.
        """
        if self._lowered is not None and self._lowered[0] is resources:
            writes = self._lowered[1]
        else:
            writes = self.lower(resources, pointer) if _has_limits(resources) else []
        if devices:
            self._apply_devices(resources, pointer)
        if writes:
            from ociruntime.cgroups import limits

            limits.perform(writes, self._directory)

    def _apply_devices(self, resources: "dict[str, Any]", pointer: str) -> None:
        raise NotImplementedError

    def announce(self, writes: "list[CgroupWrite]", wanted: "Filter | None") -> None:
        """Hook of update: these writes, and this filter if it is not None, are about to be put into force."""

    def retract(self) -> "list[str]":
        """Hook of update: undo what announce() has done. Returns the names of what could not be undone."""
        return []

    # -- processes

    def pids(self) -> "list[int]":
        """Process IDs of the container, those in sub-cgroups too. Raises StepError."""
        directory = self._process_directory()
        if not directory:
            return []
        try:
            return files.pids(directory)
        except OSError as error:
            raise _failed("cannot list the processes of the cgroup", error) from error

    def signal_all(self, signal: int) -> None:
        """Send a signal to every process; SIGKILL reaches frozen ones and those being forked too. Raises StepError."""
        if signal == SIGKILL:
            self.kill()
            return
        directory = self._process_directory()
        if directory and self.is_ours():
            try:
                files.signal_all(directory, signal)
            except OSError as error:
                raise _failed(f"cannot send signal {signal} to the cgroup", error) from error

    def kill(self) -> None:
        """SIGKILL for every process, also of a frozen cgroup. None left, or no cgroup, is fine. Raises StepError."""
        if not self.is_ours():
            return
        try:
            self._kill()
        except OSError as error:
            raise _failed("cannot kill the processes of the cgroup", error) from error

    def _kill(self) -> None:
        raise NotImplementedError

    def _kill_frozen(self) -> None:
        """Without cgroup.kill: freeze, so that nothing is forked meanwhile, signal, and thaw in any case."""
        directory = self._process_directory()
        if not directory or not files.exists(directory):
            return
        try:
            try:
                self.freeze()
            except StepError:
                # It cannot be frozen (no freezer, a process in D state): repeat until nothing new turns up.
                for _round in range(8):
                    if not files.signal_all(directory, SIGKILL):
                        break
            files.signal_all(directory, SIGKILL)
        finally:
            self.thaw()

    def freeze(self) -> None:
        """Stop all processes and wait until they are stopped; on failure they run again. Raises StepError."""
        raise NotImplementedError

    def thaw(self) -> None:
        """Let them run again. No cgroup, or none frozen, is fine. Raises StepError."""
        raise NotImplementedError

    def let_die(self) -> bool:
        """Hook of kill() and of what else has sent SIGKILL: see to it that frozen processes die of it.

        Returns whether there were any: who waits for them calls it again. Raises StateError when that cannot be.
        """
        return False

    def freezer_file(self) -> str:
        """The file that says whether the container is frozen, for the state; "" if there is none."""
        if "freezer" in self.paths:
            return self.paths["freezer"] + "/freezer.state"
        return self.paths[""] + "/cgroup.freeze" if "" in self.paths else ""

    def frozen(self) -> bool:
        """Whether this very cgroup (not only an ancestor) is frozen."""
        raise NotImplementedError

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory; 0 if that is not known."""
        return 0

    # -- end

    def remove(self) -> None:
        """Remove the container's directories, sub-cgroups first, and the parents that create() made, if empty: its own,
        or an earlier one's that could not remove them.

        A directory that was there before create() stays; only its sub-cgroups go. Gone ones are fine. Of a cgroup that
        is not ours only what is empty goes.
        Raises StepError when a cgroup stays busy.
        """
        if not self.is_ours():
            self.undo()
            return
        leaves = self.directories()
        made = set(self.made)
        files.remove([(path, path not in made) for path in leaves])
        for path in leaves:
            if path not in made:
                self._release(path)
                self._take_mark(path)
        for path in reversed(self.made):
            if path not in leaves and not files.try_rmdir(path):
                # Another container lives below it by now.
                files.leave_parent(path)
        for path in leaves:
            files.remove_parents(path)

    def _release(self, directory: str) -> None:
        """Hook of remove(): take our filter off a directory that stays, and give it back to its owner."""


class NoCgroup(Cgroup):
    """The container has no cgroup of its own: a rootless runtime on a host where none can be had."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("none", {})

    def _process_directory(self) -> str:
        return ""

    def _directory(self, controller: str) -> str:
        return ""

    def _thaw_hint(self) -> str:
        return ""

    def lower(self, resources: "dict[str, Any]", pointer: str) -> "list[CgroupWrite]":
        from ociruntime.cgroups import limits_v2

        try:
            writes = limits_v2.writes(resources, (), pointer=pointer)
            where = writes[0].pointer if writes else ""
        except UnsupportedError as error:
            where = error.pointer
        if where:
            raise UnsupportedError("a limit", "a cgroup, and the container has none", pointer=where)
        return []

    def _apply_devices(self, resources: "dict[str, Any]", pointer: str) -> None:
        from ociruntime.cgroups import devices

        devices.wanted(resources, pointer)

    def _kill(self) -> None:
        pass

    def freeze(self) -> None:
        raise StepError("the container has no cgroup", step="cgroup", hint="pausing needs one")

    def thaw(self) -> None:
        pass

    def frozen(self) -> bool:
        return False


def _has_limits(resources: "dict[str, Any]") -> bool:
    # Devices apart, many a container has no limit at all: then the modules that know them are not even loaded.
    return any(value for name, value in resources.items() if name != "devices")


def _failed(reason: str, error: OSError) -> StepError:
    path = error.filename
    return StepError(reason, step="cgroup", errno=error.errno or 0, path=path if isinstance(path, str) else "")
