"""Fake trees: plain directories and files stand for the kernel's cgroups."""

from pathlib import Path
from typing import Any

from ociruntime.cgroups import manager
from ociruntime.cgroups.cgroup import Cgroup
from ociruntime.host import Host


def v1_host(tmp_path: Path, *, unified: bool = True, rootless: bool = False) -> Host:
    mounts = {}
    for name in ("cpu,cpuacct", "cpuset", "memory", "freezer", "pids"):
        (tmp_path / name).mkdir()
        for controller in name.split(","):
            mounts[controller] = str(tmp_path / name)
    (tmp_path / "cpuset" / "cpuset.cpus").write_text("0-3\n")
    (tmp_path / "cpuset" / "cpuset.mems").write_text("0\n")
    if unified:
        (tmp_path / "unified").mkdir()
    return Host(
        cgroup_mode="hybrid" if unified else "v1",
        cgroup_mounts=mounts,
        unified=str(tmp_path / "unified") if unified else "",
        own_cgroups=dict.fromkeys([*mounts, ""], "/"),
        rootless=rootless,
    )


def v2_host(tmp_path: Path, *, rootless: bool = False, controllers: "tuple[str, ...]" = ("cpu", "pids")) -> Host:
    (tmp_path / "cgroup.controllers").write_text(" ".join(controllers))
    return Host(
        cgroup_mode="v2",
        unified=str(tmp_path),
        own_cgroups={"": "/me/session"},
        rootless=rootless,
        controllers=controllers,
    )


def choose(host: Host, path: str = "/a/web", resources: "dict[str, Any] | None" = None) -> Cgroup:
    return manager.choose(host, {"linux": {"cgroupsPath": path, "resources": resources}}, "web")


def tree(tmp_path: Path) -> "set[str]":
    return {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_dir()}


def created(host: Host) -> Cgroup:
    cgroup = choose(host)
    cgroup.check_free()
    cgroup.create()
    return cgroup
