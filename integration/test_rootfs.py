"""root, hostname, domainname, rootfsPropagation, sysctl, annotations."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.lib import host
from integration.lib.container import Container
from integration.lib.leaks import Leaks
from integration.lib.probe import mount_at


def test_root_is_the_rootfs(container: Container) -> None:
    """The container sees the root file system of the bundle and nothing above it [F2]."""
    root, above, ls = container.probe("stat /", "stat /../../..", "ls /")
    assert root["ino"] == above["ino"] == container.bundle.rootfs.stat().st_ino
    assert set(ls["names"]) == {"dev", "proc", "sys", "probe"}


def test_absolute_root_path(container: Container, tmp_path: Path) -> None:
    """root.path may be absolute [F2]."""
    moved = tmp_path / "elsewhere"
    container.bundle.rootfs.rename(moved)
    container.bundle.merge({"root": {"path": str(moved)}})
    assert container.report()["pid"] == 1


@pytest.mark.parametrize("path", ["./rootfs", "rootfs/", "rootfs/../rootfs"])
def test_relative_root_paths(container: Container, path: str) -> None:
    """A relative root.path counts from the bundle, also from another working directory [F2]."""
    container.bundle.merge({"root": {"path": path}})
    assert container.report(cwd="/")["pid"] == 1


def test_root_path_dot(container: Container) -> None:
    """The bundle itself can be the root [F2]."""
    (container.bundle.rootfs / "probe").rename(container.bundle.path / "probe")
    container.bundle.merge({"root": {"path": "."}})
    assert "config.json" in container.probe("ls /")[0]["names"]


@pytest.mark.parametrize("root", [None, {}, {"path": ""}, {"path": "nosuch"}, {"path": "config.json"}, {"path": 5}])
def test_bad_root(container: Container, leaks: Leaks, root: object) -> None:
    """A missing root, a missing path, and a path that is no directory are refused [F2]."""
    container.bundle.config.pop("root")
    if root is not None:
        container.bundle.config["root"] = root
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert "/root" in result.error
    leaks.check()


@pytest.mark.parametrize("readonly", [True, False])
def test_readonly(container: Container, readonly: bool) -> None:
    """root.readonly makes / read-only, and only in the container [F3]."""
    container.bundle.merge({"root": {"readonly": readonly}})
    create, report = container.probe("create /new x", "report")
    assert create["errno"] == (30 if readonly else 0)
    assert ("ro" in mount_at(report["mountinfo"], "/").options) == readonly
    (container.bundle.rootfs / "outside").write_text("still writable")


def test_readonly_root_with_mounts(container: Container, tmp_path: Path) -> None:
    """With a read-only root the mounts stay as they were asked for, and missing mount points are made [F3]."""
    container.bundle.merge({"root": {"readonly": True}})
    container.bundle.mount("/data", str(tmp_path), "bind")
    data, dev = container.probe(["create", "/data/x", "y"], ["create", "/dev/shm/x", "y"])
    assert (data["errno"], dev["errno"]) == (0, 0)


def test_read_only_source_of_the_root(container: Container, tmp_path: Path, leaks: Leaks) -> None:
    """A root file system on a read-only mount works when all mount points are there [F3]."""
    for name in ("proc", "sys", "dev"):
        (container.bundle.rootfs / name).mkdir()
    host.mount(str(container.bundle.rootfs), str(container.bundle.rootfs), "", host.MS_BIND)
    host.mount("none", str(container.bundle.rootfs), "", host.MS_BIND | host.MS_RDONLY | 0x20)
    try:
        container.bundle.merge({"root": {"readonly": True}})
        assert container.probe("create /new x")[0]["errno"] == 30
    finally:
        host.umount(str(container.bundle.rootfs))


def test_hostname(container: Container) -> None:
    """hostname is set in the new namespace, and the host keeps its own [F5]."""
    before = socket.gethostname()
    container.bundle.merge({"hostname": "a-name.example"})
    assert container.report()["hostname"] == "a-name.example"
    assert socket.gethostname() == before


def test_no_hostname(container: Container) -> None:
    """Without the field the name of the host is copied by the kernel [F5]."""
    container.bundle.merge({"hostname": None})
    assert container.report()["hostname"] == socket.gethostname()


def test_domainname(container: Container) -> None:
    """domainname is set [F5]."""
    container.bundle.merge({"domainname": "example.org"})
    assert container.report()["domainname"] == "example.org"


@pytest.mark.parametrize("field", ["hostname", "domainname"])
def test_names_need_a_uts_namespace(container: Container, leaks: Leaks, field: str) -> None:
    """Without a UTS namespace of its own the container may not rename the host [F5]."""
    before = (socket.gethostname(), Path("/proc/sys/kernel/domainname").read_text())
    container.bundle.drop_namespace("uts")
    container.bundle.merge({"hostname": None})
    container.bundle.merge({field: "evil"})
    try:
        result = container.create(check=False)
        assert result.code != 0
        if container.runtime.ours:
            assert f"/{field}" in result.error
    finally:
        now = (socket.gethostname(), Path("/proc/sys/kernel/domainname").read_text())
        if now != before:
            socket.sethostname(before[0])
            Path("/proc/sys/kernel/domainname").write_text(before[1])
    assert now == before
    leaks.check()


def test_hostname_too_long(container: Container, leaks: Leaks) -> None:
    """What the kernel refuses fails create [F5]."""
    container.bundle.merge({"hostname": "x" * 65})
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert "/hostname" in result.error
    leaks.check()


@pytest.mark.parametrize(
    ("value", "tag"),
    [("private", ""), ("rprivate", ""), ("shared", "shared:"), ("rshared", "shared:"), ("slave", None),
     ("rslave", "master:"), ("unbindable", "unbindable"), ("runbindable", "unbindable"), (None, "master:"),
     ("", "master:")],
)  # fmt: skip
def test_rootfs_propagation(container: Container, value: str | None, tag: str | None) -> None:
    """rootfsPropagation decides the propagation of the container's root [L11]."""
    host.mount(str(container.bundle.rootfs), str(container.bundle.rootfs), "", host.MS_BIND)
    host.mount("none", str(container.bundle.rootfs), "", host.MS_SHARED)
    try:
        container.bundle.linux(rootfsPropagation=value)
        tags = mount_at(container.report()["mountinfo"], "/").tags
        if tag:
            assert any(word.startswith(tag) for word in tags), tags
        elif tag == "":
            assert not tags
        if tag != "shared:":
            assert not any(word.startswith("shared:") for word in tags)
    finally:
        host.umount(str(container.bundle.rootfs))


def test_unknown_propagation(container: Container, leaks: Leaks) -> None:
    """Another word is refused [L11]."""
    container.bundle.linux(rootfsPropagation="sideways")
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert "/linux/rootfsPropagation" in result.error
    leaks.check()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.ipv4.ip_forward", "1"),
        ("net/ipv4/ip_default_ttl", "77"),
        ("net.ipv4.conf.lo.rp_filter", "2"),
        ("net.ipv4.ping_group_range", "0 5"),
        ("kernel.msgmax", "9000"),
        ("kernel.sem", "100 2000 10 100"),
        ("kernel.shm_rmid_forced", "1"),
        ("fs.mqueue.msg_max", "20"),
    ],
)
def test_sysctl(container: Container, name: str, value: str) -> None:
    """A namespaced sysctl has the value inside and not outside [L13]."""
    path = "/proc/sys/" + (name if "/" in name.split(".", maxsplit=1)[0] else name.replace(".", "/"))
    before = Path(path).read_text()
    container.bundle.linux(sysctl={name: value})
    assert container.probe(["read", path])[0]["data"].split() == value.split()
    assert Path(path).read_text() == before


def test_sysctl_domainname(container: Container) -> None:
    """kernel.domainname belongs to the UTS namespace [L13]."""
    container.bundle.linux(sysctl={"kernel.domainname": "from.sysctl"})
    assert container.report()["domainname"] == "from.sysctl"


@pytest.mark.parametrize(
    ("name", "inherit"),
    [
        ("kernel.core_pattern", ""),
        ("vm.swappiness", ""),
        ("fs.file-max", ""),
        ("net/../kernel/core_pattern", ""),
        ("net.ipv4.ip_forward", "network"),
        ("kernel.msgmax", "ipc"),
        ("fs.mqueue.msg_max", "ipc"),
        ("kernel.hostname", ""),
    ],
)
def test_sysctl_of_the_host(container: Container, leaks: Leaks, name: str, inherit: str) -> None:
    """A sysctl that is not the container's own is refused [L13]."""
    if inherit:
        container.bundle.drop_namespace(inherit)
        container.bundle.drop_mount("/dev/mqueue")
        container.bundle.drop_mount("/sys")
    container.bundle.linux(sysctl={name: "1"})
    core = Path("/proc/sys/kernel/core_pattern").read_text()
    result = container.create(check=False)
    assert Path("/proc/sys/kernel/core_pattern").read_text() == core
    assert result.code != 0
    if container.runtime.ours:
        assert "/linux/sysctl/" in result.error
    leaks.check()


def test_bad_sysctl_value(container: Container, leaks: Leaks) -> None:
    """A value the kernel refuses fails create [L13]."""
    container.bundle.linux(sysctl={"net.ipv4.ip_default_ttl": "100000"})
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert "/linux/sysctl/net.ipv4.ip_default_ttl" in result.error
    leaks.check()


def test_symlinked_rootfs(container: Container, tmp_path: Path) -> None:
    """A root.path that goes through a symlink of the host either works or is refused, never half [F2]."""
    (tmp_path / "link").symlink_to(container.bundle.rootfs)
    container.bundle.merge({"root": {"path": str(tmp_path / "link")}})
    result = container.run()
    assert result.code != 0 or result.replies[0]["pid"] == 1


@pytest.mark.ours_only("F1: another major version is refused")
@pytest.mark.parametrize("version", [None, "", "2.0.0", "0.9.0", "1", "x", 1])
def test_bad_version(container: Container, leaks: Leaks, version: object) -> None:
    """ociVersion is there, is a semantic version, and has a major number we know [F1]."""
    container.bundle.merge({"ociVersion": version})
    result = container.create(check=False)
    assert result.code != 0
    assert "ociVersion" in result.error
    leaks.check()


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.2.1", "1.3.0", "1.9.0"])
def test_good_versions(container: Container, version: str) -> None:
    """Every 1.x is accepted [F1]."""
    container.bundle.merge({"ociVersion": version})
    assert container.report()["pid"] == 1


def test_unknown_keys_are_ignored(container: Container) -> None:
    """Unknown keys, and the sections of other platforms, have no effect [F7]."""
    container.bundle.merge(
        {"x": 1, "windows": {"layerFolders": ["y"]}, "solaris": {}, "process": {"y": [1]}, "linux": {"z": 2}}
    )
    assert container.report()["pid"] == 1


def test_oom_of_the_bundle_path(new_container: Callable[..., Container], work: Path) -> None:
    """Blanks, quotes and other letters in the path of the bundle are fine [F2]."""
    first = new_container()
    odd = work / 'ä b"c\\d,e:f'
    os.rename(first.bundle.path, odd)
    first.bundle.path = odd
    first.bundle.rootfs = odd / "rootfs"
    first.create()
    assert first.state()["bundle"] == str(odd)
    first.start()
    assert first.wait() == 0
    first.destroy()
    os.rename(odd, work / "b0")
