"""Cgroup v1: one directory per hierarchy; on a hybrid host also one in cgroup v2.

Source: cgroups(7); kernel Documentation/admin-guide/cgroup-v1 (freezer-subsystem, cpusets, devices, memory).
"""

import posix
from errno import EACCES, EINVAL, ENODEV, ENOENT, EOPNOTSUPP, EPERM
from time import sleep

from ociruntime.cgroups import files
from ociruntime.cgroups.cgroup import Cgroup
from ociruntime.errors import StepError
from ociruntime.plan import FdSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.cgroups.devices import Filter
    from ociruntime.cgroups.limits import CgroupWrite
    from ociruntime.host import Host

_FREEZE_TRIES = 1000


class CgroupV1(Cgroup):
    """See Cgroup. Modes "v1" and "hybrid"."""

    __slots__ = ("_unified_controllers",)

    def __init__(self, mode: str, paths: "dict[str, str]") -> None:
        super().__init__(mode, paths)
        self._unified_controllers: tuple[str, ...] = ()

    def _process_directory(self) -> str:
        paths = self.paths
        for name in ("freezer", "pids", "devices", "memory"):
            if name in paths:
                return paths[name]
        return next(iter(paths.values()), "")

    def _directory(self, controller: str) -> str:
        return self.paths.get(controller) or self.paths.get("", "")

    # -- create

    def prepare(self, host: "Host", resources: "dict[str, Any]") -> None:
        self._unified_controllers = host.controllers
        super().prepare(host, resources)

    def lower(self, resources: "dict[str, Any]", pointer: str) -> "list[CgroupWrite]":
        from ociruntime.cgroups import limits_v1

        unified = self._unified_controllers
        if self.mode == "hybrid" and not unified:
            # Only update comes here, without a Host: what is enabled for this cgroup is what can be written.
            unified = tuple(files.read_or_empty(self.paths.get("", "") + "/cgroup.controllers").decode().split())
        return limits_v1.writes(resources, self.paths, unified, pointer=pointer)

    def _made(self, directory: str, top: str) -> None:
        if directory == self.paths.get("cpuset"):
            # A new cpuset has neither CPUs nor memory nodes, and refuses processes until it has.
            for path in self.made:
                if path.startswith(top + "/"):
                    _fill_cpuset(path, top, True)
            if directory not in self.fresh:
                _fill_cpuset(directory, top, False)
        elif directory == self.paths.get(""):
            wanted = {write.controller for write in (self._lowered or (None, []))[1]}
            wanted = {name for name in wanted if name not in self.paths}
            if wanted:
                from ociruntime.cgroups import v2

                v2.enable_controllers(directory, top, wanted)

    def _thaw_hint(self) -> str:
        return f"thaw it: echo THAWED > {self._freezer()}/freezer.state"

    def join_sources(self) -> "list[FdSource]":
        seen: dict[str, None] = {}
        for name, path in self.paths.items():
            if name:
                seen[path] = None
        return [FdSource("write", path + "/tasks") for path in seen]

    # -- limits

    def _apply_devices(self, resources: "dict[str, Any]", pointer: str) -> None:
        """Bring devices.list from what it is to the wanted rules, with as few writes as that takes."""
        from ociruntime.cgroups import devices

        target = devices.wanted(resources, pointer)
        # In a user namespace the kernel refuses every change of the list, and mknod anyway.
        if self.skip_devices:
            return
        directory = self.paths.get("devices")
        if directory is None:
            if self.rootless or target.allows_all():
                return
            from ociruntime.errors import UnsupportedError

            raise UnsupportedError(
                "the list of allowed devices",
                "the cgroup v1 controller devices, which is not mounted",
                pointer=f"{pointer}/devices",
                hint="mount it, or allow all devices in /linux/resources/devices",
            )
        self.set_devices(directory, None, target, pointer)

    def set_devices(self, directory: str, current: "Filter | None", target: "Filter", pointer: str) -> None:
        """Bring the list of a directory from current (None: what the kernel shows) to target. Raises StepError."""
        from ociruntime.cgroups import devices

        try:
            if current is None:
                data = files.read(directory + "/devices.list")
                current = devices.parse_list(data)
                if self.container_id and directory not in self.fresh:
                    self.before["devices"] = data.decode("ascii", "replace")
            for file, rules in devices.transition(current, target):
                files.write(f"{directory}/{file}", *[rule.encode("ascii") + b"\n" for rule in rules])
            got = devices.parse_list(files.read(directory + "/devices.list"))
        except OSError as error:
            if self.rootless and error.errno in (EACCES, EPERM):
                self.notes.append(
                    f"cannot set the devices of '{directory}' ({posix.strerror(error.errno).lower()}), ignoring"
                )
                return
            hint = ""
            if error.errno == EPERM:
                hint = "the parent cgroup allows fewer devices than the container asks for"
            elif error.errno == EINVAL:
                hint = "sub-cgroups prevent the change"
            raise StepError(
                "cannot set the allowed devices",
                pointer=f"{pointer}/devices",
                step="cgroup",
                errno=error.errno or 0,
                path=directory,
                hint=hint,
            ) from error
        if not devices.same_list(got, target):
            raise StepError(
                f"the kernel made '{got.text()}' of the device list '{target.text()}'",
                pointer=f"{pointer}/devices",
                step="cgroup",
                path=directory + "/devices.list",
            )

    def _release(self, directory: str) -> None:
        """Put the device list back that the directory had before create."""
        if directory != self.paths.get("devices") or "devices" not in self.before or not files.exists(directory):
            return
        from ociruntime.cgroups import devices

        before = devices.parse_list(self.before["devices"].encode("ascii"))
        self.set_devices(directory, None, before, "/linux/resources")

    # -- processes

    def _kill(self) -> None:
        unified = self.paths.get("")
        if unified:
            # All of the container is there, unless it moved a process itself.
            inside = files.pids(self._process_directory())
            astray = set(inside).difference(files.pids(unified))
            try:
                files.write(unified + "/cgroup.kill", b"1")
            except OSError as error:
                if error.errno not in (ENOENT, ENODEV, EOPNOTSUPP):
                    raise
            else:
                if not astray:
                    # SIGKILL does nothing to a frozen process until it is thawed.
                    self.thaw()
                    self.let_die()
                    return
        self._kill_frozen()
        self.let_die()

    def let_die(self) -> bool:
        """See Cgroup. What is frozen from above is moved up for it: SIGKILL does nothing before the thaw."""
        directory = self._freezer()
        if not directory:
            return False
        from ociruntime.cgroups import freezer

        try:
            return freezer.let_die(directory)
        except OSError as error:
            refusal = freezer.refusal(self.paths, self.container_id, more="; then its processes die")
            if refusal is not None:
                raise refusal from error
        return False

    def _freezer(self) -> str:
        return self.paths.get("freezer", "")

    def _freezer_is(self, state: str) -> bool:
        directory = self._freezer()
        return bool(directory) and files.read_or_empty(directory + "/freezer.state").strip() == state.encode()

    def freeze(self) -> None:
        """See Cgroup. A process that is forking may slip through: up to 1000 rounds, with a thaw now and
        then. Each process has to get the CPU for that: on a busy machine it may take seconds, so there are about ten.
        """
        directory = self._freezer()
        if not directory:
            self._freeze_unified("1", True)
            return
        path = directory + "/freezer.state"
        try:
            for count in range(_FREEZE_TRIES):
                if count % 50 == 49:
                    files.write(path, b"THAWED")
                    sleep(0.01)
                files.write(path, b"FROZEN")
                if count:
                    sleep(0.00001 if count < 25 else 0.0005 if count < 200 else 0.01)
                if self._freezer_is("FROZEN"):
                    return
            reason = "the processes cannot be frozen"
            number = 0
        except OSError as error:
            reason = "cannot freeze the cgroup"
            number = error.errno or 0
        if not files.exists(path):
            raise StepError(files.GONE, step="cgroup", errno=number, path=directory, hint=files.GONE_HINT)
        self.thaw()
        raise StepError(reason, step="cgroup", errno=number, path=path)

    def thaw(self) -> None:
        directory = self._freezer()
        if not directory:
            self._freeze_unified("0", False)
            return
        path = directory + "/freezer.state"
        try:
            if files.read(path).strip() != b"THAWED":
                files.write(path, b"THAWED")
        except OSError as error:
            if error.errno not in (ENOENT, ENODEV):
                raise StepError("cannot thaw the cgroup", step="cgroup", errno=error.errno or 0, path=path) from error

    def frozen(self) -> bool:
        directory = self._freezer()
        if not directory:
            unified = self.paths.get("")
            if not unified:
                return False
            from ociruntime.cgroups import v2

            return v2.frozen(unified)
        if files.read_or_empty(directory + "/freezer.state").strip() != b"FROZEN":
            return False
        # FROZEN may come from an ancestor; kernels that cannot tell (before 3.12) have no such file.
        return files.read_or_empty(directory + "/freezer.self_freezing").strip() != b"0"

    def _freeze_unified(self, value: str, wait: bool) -> None:
        unified = self.paths.get("")
        if unified:
            from ociruntime.cgroups import v2

            v2.set_freeze(unified, value, wait)
        elif wait:
            raise StepError("no freezer hierarchy is mounted", step="cgroup", hint="mount the cgroup v1 freezer")

    def oom_kills(self) -> int:
        directory = self.paths.get("memory")
        if directory:
            for line in files.read_or_empty(directory + "/memory.oom_control").split(b"\n"):
                if line.startswith(b"oom_kill "):
                    return int(line[9:])
        return 0


def _fill_cpuset(path: str, top: str, empty: bool) -> None:
    """Give a cpuset without CPUs or memory nodes those of its parent, whose own are filled in first.

    empty: it is known to be empty.
    """
    for name in ("cpus", "mems"):
        if not empty and _cpuset_value(path, name):
            continue
        parent = path[: path.rfind("/")]
        value = _cpuset_value(parent, name)
        if not value and len(parent) > len(top):
            _fill_cpuset(parent, top, False)
            value = _cpuset_value(parent, name)
        try:
            files.write(f"{path}/cpuset.{name}", value)
        except OSError as error:
            if error.errno != ENOENT:
                raise
            files.write(f"{path}/{name}", value)


def _cpuset_value(directory: str, name: str) -> bytes:
    try:
        return files.read(f"{directory}/cpuset.{name}").strip()
    except OSError as error:
        if error.errno != ENOENT:
            raise
        # Mounted with the option noprefix.
        return files.read(f"{directory}/{name}").strip()
