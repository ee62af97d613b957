"""Chooses the kind of cgroup, once: ``choose`` for a new container, ``from_state`` for one that exists.

The commands around a running container (kill, delete, ...) only call ``from_state``: it reads nothing and loads only
what its kind of cgroup needs.
"""

from posix import urandom

from ociruntime.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.cgroups.cgroup import Cgroup
    from ociruntime.host import Host


def choose(host: "Host", config: "dict[str, Any]", container_id: str, *, driver: str = "cgroupfs") -> "Cgroup":
    """The cgroup for a new container: where it is going to be and what /linux/resources will write. Makes nothing.

    driver: "cgroupfs", "systemd", or "disabled": the container stays in the caller's cgroup and cannot have limits.
    Raises ConfigError for a bad cgroupsPath or limit, UnsupportedError for a limit whose controller this host lacks,
    StepError when systemd cannot be asked.
    """
    linux = config.get("linux") or {}
    cgroups_path = linux.get("cgroupsPath") or ""
    resources = linux.get("resources")
    if resources is None:
        resources = {}
    cgroup: Cgroup
    if driver == "systemd":
        from ociruntime.cgroups import systemd

        cgroup = systemd.choose(host, config, container_id)
    elif driver == "disabled" or host.cgroup_mode == "none":
        if driver != "disabled" and (not host.rootless or cgroups_path):
            raise UnsupportedError(
                "a container", "a mounted cgroup file system", hint="mount -t cgroup2 none /sys/fs/cgroup"
            )
        from ociruntime.cgroups.cgroup import NoCgroup

        cgroup = NoCgroup()
    else:
        from ociruntime.cgroups import paths

        places = paths.directories(host, cgroups_path, container_id)
        cgroup = _of(host.cgroup_mode, places)
        for name, place in places.items():
            cgroup.mounts[place] = host.cgroup_mounts[name] if name else host.unified
        cgroup.mark = urandom(12).hex()
    cgroup.container_id = container_id
    cgroup.explicit = bool(cgroups_path) or driver == "systemd"
    cgroup.rootless = host.rootless
    cgroup.skip_devices = host.in_userns
    try:
        annotations = config.get("annotations")
        if annotations and "run.oci.delegate-cgroup" in annotations:
            from ociruntime.cgroups import delegation

            delegation.ask(cgroup, annotations)
        cgroup.prepare(host, resources)
    except BaseException:
        cgroup.abandon()
        raise
    return cgroup


def from_state(saved: "dict[str, Any]") -> "Cgroup":
    """The cgroup of an existing container, from what Cgroup.saved() gave."""
    if "systemd" in saved:
        from ociruntime.cgroups import systemd

        cgroup = systemd.from_state(saved)
    else:
        # A rootless runtime may have gone on without any of the directories.
        cgroup = _of(saved["mode"] if saved["paths"] else "none", saved["paths"])
    cgroup.made = saved["made"] if cgroup.paths else []
    cgroup.before = saved.get("before") or {}
    cgroup.owner = saved.get("owner")
    cgroup.mark = saved.get("mark") or ""
    cgroup.delegated = saved.get("delegated") or ""
    cgroup.rootless = cgroup.skip_devices = saved["rootless"]
    return cgroup


def _of(mode: str, paths: "dict[str, str]") -> "Cgroup":
    if mode == "v2":
        from ociruntime.cgroups.v2 import CgroupV2

        return CgroupV2(mode, paths)
    if mode == "none":
        from ociruntime.cgroups.cgroup import NoCgroup

        return NoCgroup()
    from ociruntime.cgroups.v1 import CgroupV1

    return CgroupV1(mode, paths)
