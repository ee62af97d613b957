"""Fakes of the mounts room: host, namespaces, and the files of a host that never has to exist."""

from collections.abc import Callable
from typing import Any

import pytest

from ociruntime import namespaces
from ociruntime.host import Host
from ociruntime.mounts import lower
from ociruntime.mounts.lower import Mounts

DIRECTORIES = {"/", "/sys", "/srv/data", "/bundle/data", "/proc", "/dev"}
FILES = {"/etc/resolv.conf", "/bundle/file", "/proc/kcore"}


def is_dir(path: str) -> bool | None:
    if path.startswith("/forbidden"):
        raise PermissionError(13, "permission denied", path)
    return True if path in DIRECTORIES else False if path in FILES else None


def hybrid_host(**changes: Any) -> Host:
    facts: dict[str, Any] = {
        "cgroup_mode": "hybrid",
        "cgroup_mounts": {
            "cpu": "/sys/fs/cgroup/cpu,cpuacct",
            "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
            "memory": "/sys/fs/cgroup/memory",
            "name=systemd": "/sys/fs/cgroup/systemd",
        },
        "unified": "/sys/fs/cgroup/unified",
        "own_cgroups": {"cpu": "/", "cpuacct": "/", "memory": "/own", "name=systemd": "/", "": "/me"},
    }
    return Host(**{**facts, **changes})


def v2_host(**changes: Any) -> Host:
    return Host(cgroup_mode="v2", unified="/sys/fs/cgroup", own_cgroups={"": "/me"}, **changes)


Lower = Callable[..., Mounts]


@pytest.fixture
def lowered() -> Lower:
    """lowered(config, host=..., kinds=...): Mounts of a config.

    kinds: its namespaces ("pid", "network=/path"), when it names none itself.
    """

    def run(
        config: dict[str, Any], *, host: Host | None = None, kinds: tuple[str, ...] = ("mount",), **more: Any
    ) -> Mounts:
        spaces = [{"type": kind, "path": path} for kind, _, path in (entry.partition("=") for entry in kinds)]
        linux = {"namespaces": spaces, **config.get("linux", {})}
        if "user" in kinds and "uidMappings" not in linux:
            linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        config = {"root": {"path": "rootfs"}, **config, "linux": linux}
        facts = host or v2_host()
        return lower.lower(config, facts, namespaces.lower(config, facts), bundle="/bundle", is_dir=is_dir, **more)

    return run
