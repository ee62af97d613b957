"""Id-mapped mounts: the files of a host keep their owners, the container sees others."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.lib import host
from integration.lib.bundle import Bundle
from integration.lib.container import Container
from integration.lib.leaks import Leaks
from integration.lib.probe import mount_at

pytestmark = pytest.mark.requires("userns", "kernel:5.12")

OPTION = "idmap=uids={0}-{1}-{2};gids={0}-{1}-{2}"
OURS = "crun 1.8 and runc 1.1 do not know the fields"


def lists(*ranges: tuple[int, int, int]) -> dict[str, Any]:
    """uidMappings and gidMappings of a mount."""
    entries = [{"containerID": first, "hostID": outside, "size": size} for first, outside, size in ranges]
    return {"uidMappings": entries, "gidMappings": entries}


def owner(path: Path) -> tuple[int, int]:
    facts = path.lstat()
    return facts.st_uid, facts.st_gid


def seen(reply: dict[str, Any]) -> tuple[int, int]:
    """Owner in a reply of the probe."""
    assert reply["errno"] == 0, reply
    return reply["uid"], reply["gid"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory of the host whose files belong to root and to user 5."""
    if subprocess.run(["unshare", "-U", "true"], check=False).returncode:
        pytest.skip("no user namespaces")
    (tmp_path / "root").write_text("x")
    (tmp_path / "five").write_text("x")
    os.chown(tmp_path / "five", 5, 5)
    return tmp_path


def test_with_a_user_namespace(container: Container, data: Path) -> None:
    """idmap alone: IDs in the container are those on disk, though it runs as others [M10]."""
    container.bundle.user_namespace()
    container.bundle.mount("/data", str(data), "bind", "idmap")
    replies = container.probe("stat /data/root", "stat /data/five", "create /data/new x", "stat /data/new")
    assert [seen(reply) for reply in (replies[0], replies[1], replies[3])] == [(0, 0), (5, 5), (0, 0)]
    assert (owner(data / "root"), owner(data / "five"), owner(data / "new")) == ((0, 0), (5, 5), (0, 0))


def test_without_idmap_they_are_nobody(container: Container, data: Path) -> None:
    """What the mapping is good for: without it files of the host's root belong to nobody in the container [M10]."""
    container.bundle.user_namespace()
    container.bundle.mount("/data", str(data), "bind")
    assert seen(container.probe("stat /data/root")[0]) == (65534, 65534)


def test_mapping_in_the_option(container: Container, data: Path) -> None:
    """idmap=uids=...;gids=...: ID on disk, host ID, count; without a user namespace of the container [M10]."""
    container.bundle.mount("/data", str(data), "bind", OPTION.format(0, 1000, 10))
    container.bundle.process(user={"uid": 1000, "gid": 1000})
    replies = container.probe("stat /data/root", "stat /data/five", "create /data/new x", "stat /data/new")
    assert [seen(reply) for reply in (replies[0], replies[1], replies[3])] == [(1000, 1000), (1005, 1005), (1000, 1000)]
    assert owner(data / "new") == (0, 0)


def test_relative_mapping(container: Container, data: Path) -> None:
    """uids=@...: the second number counts in the container's user namespace [M10]."""
    container.bundle.user_namespace()
    container.bundle.mount("/data", str(data), "bind", "idmap=uids=@0-1000-10;gids=@0-1000-10")
    assert seen(container.probe("stat /data/five")[0]) == (1005, 1005)


@pytest.mark.ours_only(OURS)
@pytest.mark.parametrize("option", ["idmap", None])
def test_lists_without_a_user_namespace(container: Container, data: Path, option: str | None) -> None:
    """uidMappings and gidMappings; the option may be missing [M10]."""
    options = ["bind", *([option] if option else [])]
    container.bundle.mount("/data", str(data), *options, **lists((0, 3000, 1), (5, 4000, 1)))
    container.bundle.process(user={"uid": 4000, "gid": 4000})
    os.chmod(data, 0o777)
    replies = container.probe("stat /data/root", "stat /data/five", "create /data/new x")
    assert [seen(reply) for reply in replies[:2]] == [(3000, 3000), (4000, 4000)]
    assert owner(data / "new") == (5, 5)


@pytest.mark.ours_only(OURS)
def test_users_and_groups_apart(container: Container, data: Path) -> None:
    """uidMappings are for users, and gidMappings for groups [M10]."""
    entries = {
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "gidMappings": [{"containerID": 0, "hostID": 3000, "size": 10}],
    }
    container.bundle.mount("/data", str(data), "bind", **entries)
    container.bundle.mount("/option", str(data), "bind", "idmap=uids=0-1000-10;gids=0-3000-10")
    replies = container.probe("stat /data/five", "stat /option/five")
    if container.runtime.ours:
        assert [seen(reply) for reply in replies] == [(1005, 3005)] * 2
    else:
        assert seen(replies[0]) == (1005, 3005)


def test_lists_with_a_user_namespace(container: Container, data: Path) -> None:
    """Lists count on the host: what they give the container's root is root in there [M10]."""
    container.bundle.user_namespace()
    container.bundle.mount("/data", str(data), "bind", **lists((5, 400000, 1)))
    os.chown(data, 5, 5)
    replies = container.probe("stat /data/root", "stat /data/five", "create /data/new x")
    assert [seen(reply) for reply in replies[:2]] == [(65534, 65534), (0, 0)]
    assert owner(data / "new") == (5, 5)


@pytest.mark.ours_only(OURS)
def test_ids_outside_the_mapping(container: Container, data: Path) -> None:
    """Who has no ID in the file system cannot make files there [M10]."""
    container.bundle.mount("/data", str(data), "bind", **lists((0, 1000, 1)))
    os.chmod(data, 0o777)
    stat, create = container.probe("stat /data/five", "create /data/new x")
    assert seen(stat) == (65534, 65534)
    assert create["errno"] == 75  # EOVERFLOW
    assert not (data / "new").exists()


@pytest.fixture
def tree(data: Path) -> Iterator[Path]:
    """data with another file system mounted in it."""
    (data / "sub").mkdir()
    host.mount("tmpfs", str(data / "sub"), "tmpfs")
    try:
        (data / "sub" / "five").write_text("x")
        os.chown(data / "sub" / "five", 5, 5)
        yield data
    finally:
        host.umount(str(data / "sub"))


@pytest.mark.requires("kernel:6.3")
@pytest.mark.ours_only("crun 1.8 has no ridmap")
@pytest.mark.parametrize(("option", "below"), [("idmap", 65534), ("ridmap", 5)])
def test_recursive(container: Container, tree: Path, option: str, below: int) -> None:
    """ridmap maps what is mounted below as well, idmap this mount alone [M10]."""
    container.bundle.user_namespace()
    container.bundle.mount("/data", str(tree), "rbind", option)
    replies = container.probe("stat /data/five", "stat /data/sub/five")
    assert [seen(reply) for reply in replies] == [(5, 5), (below, below)]


@pytest.mark.requires("kernel:6.3")
@pytest.mark.ours_only("M10, X15: new file systems too")
@pytest.mark.parametrize("userns", [True, False])
def test_tmpfs(container: Container, userns: bool) -> None:
    """A new tmpfs is mapped as a bind is: its root directory belongs to whom its ID 0 is mapped to [X15]."""
    if userns:
        container.bundle.user_namespace()
    base = 400000 if userns else 0
    container.bundle.mount("/data", "tmpfs", "mode=755", "size=1m", type="tmpfs", **lists((0, base + 7, 2)))
    container.bundle.process(user={"uid": 7, "gid": 7})
    replies = container.probe("stat /data", "create /data/new x", "stat /data/new", "report")
    assert [seen(replies[0]), seen(replies[2])] == [(7, 7), (7, 7)]
    mount = mount_at(replies[3]["mountinfo"], "/data")
    assert mount.type == "tmpfs"
    assert "size=1024k" in mount.super_options
    assert "idmapped" in mount.options


@pytest.mark.requires("kernel:6.3")
@pytest.mark.ours_only("M10, X15: new file systems too")
def test_tmpfs_options_hold(container: Container) -> None:
    """Mode of the hidden directory, its content, flags and ro are as without a mapping [M8, M9, X15]."""
    place = container.bundle.rootfs / "data"
    place.mkdir()
    (place / "file").write_text("x")
    os.chown(place / "file", 400003, 400003)
    container.bundle.user_namespace()
    os.chown(place / "file", 400003, 400003)
    os.chmod(place, 0o751)
    container.bundle.mount("/data", "tmpfs", "idmap", "tmpcopyup", "ro", "nosuid", "noexec", type="tmpfs")
    stat, file, write, report = container.probe("stat /data", "stat /data/file", "create /data/new x", "report")
    assert (stat["mode"] & 0o7777, seen(stat), seen(file), write["errno"]) == (0o751, (0, 0), (3, 3), 30)
    assert {"ro", "nosuid", "noexec", "idmapped"} <= mount_at(report["mountinfo"], "/data").options


def test_flags_hold(container: Container, data: Path) -> None:
    """The other options of the mount still count [M4, M10]."""
    container.bundle.user_namespace()
    container.bundle.mount("/data", str(data), "bind", "ro", "nodev", "idmap")
    write, report = container.probe("create /data/new x", "report")
    assert write["errno"] == 30
    assert {"ro", "nodev", "idmapped"} <= mount_at(report["mountinfo"], "/data").options


@pytest.mark.ours_only(OURS)
def test_joined_user_namespace(new_container: Callable[..., Container], data: Path) -> None:
    """idmap alone in a container that joins a user namespace: that one's mappings [M10]."""
    first, second = new_container(), new_container()
    first.bundle.user_namespace()
    first.begin("pause")
    second.bundle.user_namespace()
    second.bundle.linux(uidMappings=None, gidMappings=None)
    second.bundle.namespace("user", f"/proc/{first.pid}/ns/user")
    second.bundle.mount("/data", str(data), "bind", "idmap")
    assert seen(second.probe("stat /data/five")[0]) == (5, 5)


@pytest.mark.ours_only("the errors say which rule")
@pytest.mark.parametrize(
    ("entry", "pointer", "words"),
    [
        ({"options": ["bind", "idmap"]}, "options/1", "needs mappings"),
        ({"options": ["bind"], "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}, "uidMappings", "gidMapp"),
        ({"options": ["bind", "idmap=uids=0-1-1"]}, "options/1", "uids and gids"),
        ({"options": ["bind", "idmap=uids=0-1;gids=0-1-1"]}, "options/1", "'0-1' is no mapping"),
        ({"options": ["bind"], **lists((0, 1, 2), (1, 7, 1))}, "uidMappings/1/containerID", "overlaps"),
        ({"type": "proc", "options": ["idmap"], **lists((0, 1, 1))}, "options/0", "'proc'"),
        ({"type": "overlay", "options": ["lowerdir={data}:/"], **lists((0, 1, 1))}, "", "'overlay'"),
        ({"source": "/proc", "options": ["bind"], **lists((0, 1, 1))}, "", "'proc'"),
        ({"source": "/nowhere", "options": ["bind"], **lists((0, 1, 1))}, "source", "no such file"),
        ({"type": "tmpfs", "options": ["size=much"], **lists((0, 1, 1))}, "", "size"),
        ({"type": "nofs", **lists((0, 1, 1))}, "", "nofs"),
    ],
)
def test_refused(
    container: Container, data: Path, leaks: Leaks, entry: dict[str, Any], pointer: str, words: str
) -> None:
    """What cannot be mapped is refused, by field and by file system, and nothing is left [M10]."""
    full = {"destination": "/data", "type": "none", "source": str(data), **entry}
    full["options"] = [option.format(data=data) for option in full.get("options", [])]
    container.bundle.config["mounts"].append(full)
    result = container.create(check=False)
    assert result.code != 0
    assert "/mounts/6" + (f"/{pointer}" if pointer else "") + ":" in result.error, result
    assert words in result.error, result
    leaks.check()


@pytest.mark.ours_only("the errors say which rule")
def test_part_of_a_tree_that_has_no_mapping(container: Container, data: Path, leaks: Leaks) -> None:
    """ridmap is all or nothing, and the error names the mount that is in the way [M10]."""
    (data / "sub dir").mkdir()
    host.mount("proc", str(data / "sub dir"), "proc")
    try:
        container.bundle.user_namespace()
        container.bundle.mount("/data", str(data), "rbind", "ridmap")
        result = container.create(check=False)
        assert result.code != 0
        assert "/mounts/6:" in result.error
        assert f"'{data}/sub dir': the kernel has no ID mapping for this file system of type 'proc'" in result.error
    finally:
        host.umount(str(data / "sub dir"))
    leaks.check()


@pytest.mark.ours_only("the errors say which rule")
def test_mapped_already(container: Container, data: Path, leaks: Leaks) -> None:
    """The kernel maps a mount once; the error says that it was [M10]."""
    pytest.importorskip("ociruntime.shim._native", reason="the compiled module is not built for this Python")
    from ociruntime.shim import calls

    (data / "sub").mkdir()
    tree, userns = calls.open_tree(str(data)), calls.new_userns("0 7 10\n", "0 7 10\n")
    calls.set_idmap(tree, userns)
    moved = ctypes.CDLL(None).syscall(429, tree, b"", -100, os.fsencode(data / "sub"), 4)  # move_mount(2)
    os.close(tree)
    os.close(userns)
    assert moved == 0
    try:
        assert owner(data / "sub" / "five") == (12, 12)
        container.bundle.mount("/data", str(data / "sub"), "bind", **lists((0, 1, 9)))
        result = container.create(check=False)
        assert result.code != 0
        assert "/mounts/6:" in result.error
        assert "is id-mapped already" in result.error
    finally:
        host.umount(str(data / "sub"))
    leaks.check()


@pytest.mark.ours_only("no other runtime is a Python library")
def test_failures_and_fds(container: Container, bundle: Bundle, data: Path, leaks: Leaks, runtime: Any) -> None:
    """Each op made to fail leaves nothing; fds stay as many, also when mounts share a mapping [M10, X13]."""
    pytest.importorskip("ociruntime.shim._native", reason="the compiled module is not built for this Python")
    from ociruntime import Runtime
    from ociruntime.errors import OCIError
    from ociruntime.lifecycle.create import create
    from ociruntime.lifecycle.request import CreateRequest
    from ociruntime.log import Log

    library = Runtime(str(runtime.root), log=Log(level=40))
    container.bundle.user_namespace()
    for number in range(3):
        container.bundle.mount(f"/data{number}", str(data), "bind", **lists((0, 400000 + number // 2, 1)))
    container.bundle.mount("/tmp", "tmpfs", "idmap", type="tmpfs")
    container.bundle.write()
    made = create(library, CreateRequest(str(container.bundle.path), container.id, trace=True))
    kinds = [op.kind for op, _, _ in made.trace]
    os.close(made.pidfd)
    library.delete(container.id, force=True)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(made.pid, 0)
    before = sorted(os.listdir("/proc/self/fd"))
    mapped = [index for index, kind in enumerate(kinds) if kind in ("mount", "bind")]
    assert len(mapped) >= 10
    for index in mapped:
        with pytest.raises(OCIError):
            create(library, CreateRequest(str(container.bundle.path), container.id, fail_op=index))
    assert sorted(os.listdir("/proc/self/fd")) == before
    leaks.check()


@pytest.mark.ours_only("counts our own fds")
def test_nothing_is_open_in_the_container(container: Container, data: Path) -> None:
    """Neither user namespace nor mount is an open file of the container's [M10]."""
    container.bundle.user_namespace()
    container.bundle.mount("/data", str(data), "bind", **lists((0, 400000, 1)))
    container.bundle.mount("/tmp", "tmpfs", "idmap", type="tmpfs")
    container.begin("pause")
    assert sorted(os.listdir(f"/proc/{container.pid}/fd")) == ["0", "1", "2"]
