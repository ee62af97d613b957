"""linux.devices and what is always in /dev."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import requires
from integration.lib.container import Container
from integration.lib.leaks import Leaks
from integration.lib.probe import mounts

DEFAULTS = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


def test_default_devices(container: Container) -> None:
    """The six devices every container has: numbers, mode 0666, owner root [L9]."""
    for reply in container.probe(*(f"stat /dev/{name}" for name in DEFAULTS)):
        name = reply["path"].rpartition("/")[2]
        assert reply["type"] == "c"
        assert (reply["major"], reply["minor"]) == DEFAULTS[name]
        assert (reply["mode"], reply["uid"], reply["gid"]) == (0o666, 0, 0)


def test_default_devices_work(container: Container) -> None:
    """They can be opened and do what they are for [L9, D1]."""
    replies = container.probe(*(f"open /dev/{name} rw" for name in DEFAULTS if name != "tty"), "open /dev/ptmx rw")
    assert [reply["errno"] for reply in replies] == [0] * 6


def test_symlinks(container: Container) -> None:
    """The links in /dev [L9]."""
    for reply in container.probe(*(f"stat /dev/{name}" for name in LINKS)):
        name = reply["path"].rpartition("/")[2]
        assert reply["type"] == "l"
        assert reply["target"].removeprefix("/dev/") == LINKS[name]


def test_nothing_else_in_dev(container: Container) -> None:
    """/dev holds the defaults and nothing of the host [L9]."""
    names = set(container.probe("ls /dev")[0]["names"])
    assert names - {"core", "console"} == set(DEFAULTS) | set(LINKS) | {"pts", "shm", "mqueue"}


def test_listed_devices(container: Container) -> None:
    """type, path, major, minor, fileMode, uid and gid are honoured; missing directories are made [L8]."""
    container.bundle.linux(
        devices=[
            {"path": "/dev/sub/dir/chr", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4},
            {"path": "/dev/blk", "type": "b", "major": 7, "minor": 200, "fileMode": 0o600},
            {"path": "/dev/fifo", "type": "p", "fileMode": 0o622},
            {"path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 3},
            {"path": "/other/place", "type": "c", "major": 1, "minor": 5},
        ]
    )
    chr_, blk, fifo, unbuffered, other = container.probe(
        "stat /dev/sub/dir/chr", "stat /dev/blk", "stat /dev/fifo", "stat /dev/unbuffered", "stat /other/place"
    )
    assert (chr_["type"], chr_["major"], chr_["minor"]) == ("c", 10, 229)
    assert (chr_["mode"], chr_["uid"], chr_["gid"]) == (0o640, 3, 4)
    assert (blk["type"], blk["major"], blk["minor"], blk["mode"]) == ("b", 7, 200, 0o600)
    assert (fifo["type"], fifo["mode"]) == ("p", 0o622)
    assert (unbuffered["type"], unbuffered["major"], unbuffered["minor"]) == ("c", 1, 3)
    assert (other["type"], other["minor"]) == ("c", 5)


def test_mode_does_not_depend_on_the_umask(container: Container) -> None:
    """fileMode is exact, whatever the caller's umask [L8]."""
    container.bundle.linux(devices=[{"path": "/dev/x", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666}])
    replies = container.probe("stat /dev/x", "stat /dev/null", preexec_fn=lambda: os.umask(0o077))
    assert [reply["mode"] for reply in replies] == [0o666, 0o666]


def test_default_mode(container: Container) -> None:
    """Without fileMode, uid and gid: 0666, root, root [L8]."""
    container.bundle.linux(devices=[{"path": "/dev/x", "type": "c", "major": 1, "minor": 5}])
    stat = container.probe("stat /dev/x")[0]
    assert (stat["mode"], stat["uid"], stat["gid"]) == (0o666, 0, 0)


def test_type_bits_in_the_mode_are_stripped(container: Container) -> None:
    """A fileMode with the bits of a file type in it is taken without them [L8]."""
    container.bundle.linux(devices=[{"path": "/dev/x", "type": "c", "major": 1, "minor": 5, "fileMode": 0o020660}])
    stat = container.probe("stat /dev/x")[0]
    assert (stat["type"], stat["mode"]) == ("c", 0o660)


def test_user_entry_wins(container: Container) -> None:
    """A listed device at a default path takes its place [L9]."""
    container.bundle.linux(
        devices=[{"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o600, "uid": 5, "gid": 6}]
    )
    stat = container.probe("stat /dev/full")[0]
    assert (stat["mode"], stat["uid"], stat["gid"]) == (0o600, 5, 6)


@pytest.mark.parametrize(
    ("device", "pointer"),
    [
        ({"path": "/dev/x", "type": "z", "major": 1, "minor": 3}, "/linux/devices/0/type"),
        ({"path": "/dev/x", "major": 1, "minor": 3}, "/linux/devices/0"),
        ({"type": "c", "major": 1, "minor": 3}, "/linux/devices/0"),
        ({"path": "/dev/x", "type": "c"}, "/linux/devices/0"),
        ({"path": "/dev/x", "type": "b", "major": 1}, "/linux/devices/0"),
        ({"path": "dev/x", "type": "c", "major": 1, "minor": 3}, "/linux/devices/0/path"),
    ],
)
def test_bad_devices(container: Container, leaks: Leaks, device: dict[str, Any], pointer: str) -> None:
    """An unknown type, or a device without path, type or numbers, is refused [L8]."""
    container.bundle.linux(devices=[device])
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert pointer in result.error
    leaks.check()


@pytest.mark.parametrize("what", ["file", "other", "block", "fifo", "symlink"])
def test_existing_node_that_differs(container: Container, leaks: Leaks, what: str) -> None:
    """Something else already at the path of a device is refused, and not touched [L8, X1]."""
    path = container.bundle.rootfs / "place"
    if what == "file":
        path.write_text("mine")
    elif what == "other":
        os.mknod(path, 0o20644, os.makedev(1, 9))
    elif what == "block":
        os.mknod(path, 0o60644, os.makedev(1, 5))
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/probe")
    before = os.lstat(path)
    container.bundle.linux(devices=[{"path": "/place", "type": "c", "major": 1, "minor": 5}])
    result = container.create(check=False)
    after = os.lstat(path)
    assert (before.st_mode, before.st_rdev, before.st_ino) == (after.st_mode, after.st_rdev, after.st_ino)
    assert result.code != 0
    if container.runtime.ours:
        assert "/linux/devices/0" in result.error
    leaks.check()


@pytest.mark.ours_only("others make, or follow, what the image has there")
def test_a_link_in_the_place_of_a_bound_device(container: Container, leaks: Leaks) -> None:
    """In a user namespace, too: nothing is bound onto a symlink of the image, nor where it leads [L8, X1]."""
    requires("userns", "file:/dev/zero")
    (container.bundle.rootfs / "canary").write_text("here")
    (container.bundle.rootfs / "dev").mkdir()
    (container.bundle.rootfs / "dev" / "zero").symlink_to("/canary")
    container.bundle.drop_mount("/dev")
    container.bundle.user_namespace()
    container.bundle.linux(devices=[{"path": "/dev/zero", "type": "c", "major": 1, "minor": 5}])
    result = container.create(check=False)
    assert result.code != 0
    assert "/linux/devices/0: open: '/dev/zero'" in result.error
    assert (container.bundle.rootfs / "canary").read_text() == "here"
    leaks.check()


def test_a_bound_device_in_procfs(container: Container, leaks: Leaks) -> None:
    """What is looked up in /proc, by us or by programs, is its own: no device is bound over it [L8, X1]."""
    requires("userns", "file:/dev/zero")
    container.bundle.user_namespace()
    container.bundle.linux(devices=[{"path": "/proc/version", "type": "c", "major": 1, "minor": 5}])
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert "/linux/devices/0" in result.error
    leaks.check()


@pytest.mark.ours_only("runc and crun take what is there")
def test_existing_file_in_the_place_of_a_fifo(container: Container, leaks: Leaks) -> None:
    """A FIFO has no number to tell it by: its type does [L8]."""
    path = container.bundle.rootfs / "place"
    path.write_text("mine")
    container.bundle.linux(devices=[{"path": "/place", "type": "p"}])
    result = container.create(check=False)
    assert result.code != 0
    assert "/linux/devices/0" in result.error
    assert path.read_text() == "mine"
    leaks.check()


def test_existing_node_that_is_right(container: Container) -> None:
    """A node that is already there and is the right one is used [L8, L9]."""
    os.mknod(container.bundle.rootfs / "place", 0o20600, os.makedev(1, 5))
    container.bundle.linux(devices=[{"path": "/place", "type": "c", "major": 1, "minor": 5}])
    stat = container.probe("stat /place")[0]
    assert (stat["type"], stat["major"], stat["minor"]) == ("c", 1, 5)


def test_without_a_dev_mount(container: Container) -> None:
    """Without a mount on /dev the devices are made in the root file system [L9]."""
    container.bundle.drop_mount("/dev")
    (container.bundle.rootfs / "dev").mkdir()
    null, link = container.probe("stat /dev/null", "stat /dev/fd")
    assert (null["type"], null["major"], null["minor"]) == ("c", 1, 3)
    assert link["target"] == "/proc/self/fd"
    # and once more, with everything already there
    assert container.probe("stat /dev/null")[0]["type"] == "c"


def test_bound_dev_is_left_alone(container: Container, tmp_path: Any) -> None:
    """When /dev is a bind mount, nothing is made in it [L8]."""
    container.bundle.drop_mount("/dev")
    (tmp_path / "only").write_text("x")
    container.bundle.mount("/dev", str(tmp_path), "bind")
    if not container.runtime.ours:
        os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))  # it opens /dev/null for its own use
    container.probe("report")
    assert set(os.listdir(tmp_path)) - {"null"} == {"only"}


def test_in_a_user_namespace(container: Container) -> None:
    """In a user namespace, where nodes cannot be made, the host's devices are bound [L8]."""
    requires("userns")
    container.bundle.user_namespace()
    null, report, opened = container.probe("stat /dev/null", "report", "open /dev/null rw")
    assert (null["type"], null["major"], null["minor"]) == ("c", 1, 3)
    assert opened["errno"] == 0
    found = [mount for mount in mounts(report["mountinfo"]) if mount.point == "/dev/null"]
    assert len(found) == 1
    if container.runtime.ours:
        assert not found[0].tags  # no peer group of the host's, not even its number


def nodes_elsewhere(container: Container, made: bool) -> Path:
    """/nodes of the image is a symlink, through another one; made: its target is there."""
    root = container.bundle.rootfs
    (root / "var").mkdir()
    (root / "run").symlink_to("/var/run/.")
    (root / "nodes").symlink_to("run/nodes")
    if made:
        (root / "var" / "run" / "nodes").mkdir(parents=True)
    return root


@pytest.mark.parametrize("made", [True, False])
def test_device_below_a_symlink(container: Container, made: bool) -> None:
    """A directory of the image may be a symlink, relative, absolute or dangling: its target is in the image [L8]."""
    nodes_elsewhere(container, made)
    container.bundle.linux(devices=[{"path": "/nodes/five", "type": "c", "major": 1, "minor": 5}])
    for reply in container.probe("stat /nodes/five", "stat /var/run/nodes/five"):
        assert (reply["type"], reply["major"], reply["minor"]) == ("c", 1, 5)


@pytest.mark.ours_only("L8: others want /dev to be a directory")
@pytest.mark.parametrize("user_namespace", [False, True])
@pytest.mark.parametrize("made", [True, False])
def test_dev_is_a_symlink(container: Container, made: bool, user_namespace: bool) -> None:
    """So may /dev, for default devices and links, and those that are bound [L8, L9]."""
    (nodes_elsewhere(container, made) / "dev").symlink_to("nodes/")
    container.bundle.drop_mount("/dev")
    if user_namespace:
        requires("userns")
        container.bundle.user_namespace()
    for reply in container.probe("stat /dev/full", "stat /var/run/nodes/full"):
        assert (reply["type"], reply["major"], reply["minor"]) == ("c", 1, 7)


@pytest.mark.ours_only("L8: others make the node there")
@pytest.mark.parametrize("target", ["volume", "missing/../volume/new", "volume/new"])
@pytest.mark.parametrize("user_namespace", [False, True])
def test_device_in_a_volume(
    container: Container, leaks: Leaks, tmp_path: Path, user_namespace: bool, target: str
) -> None:
    """No symlink of the image, dangling or not, brings a node or directory into a directory of the host [L8, X1]."""
    container.bundle.mount("/volume", str(tmp_path), "bind")
    (container.bundle.rootfs / "nodes").symlink_to(target)
    container.bundle.linux(devices=[{"path": "/nodes/null", "type": "c", "major": 1, "minor": 3}])
    if user_namespace:
        requires("userns")
        container.bundle.user_namespace()
        container.bundle.linux(devices=[{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}])
        container.bundle.drop_mount("/dev")
        (container.bundle.rootfs / "dev").symlink_to(target)
    result = container.create(check=False)
    assert result.code != 0
    assert "a symlink of the image leads into another mount" in result.error
    assert os.listdir(tmp_path) == []
    leaks.check()


@pytest.mark.ours_only("L8: others bind whatever has the path")
@pytest.mark.parametrize(("kind", "minor"), [("c", 77), ("b", 3)])
def test_other_devices_of_the_host(container: Container, leaks: Leaks, kind: str, minor: int) -> None:
    """What is bound in a user namespace is the device that the config means, or nothing [L8]."""
    requires("userns")
    container.bundle.user_namespace()
    container.bundle.linux(devices=[{"path": "/dev/null", "type": kind, "major": 1, "minor": minor}])
    result = container.create(check=False)
    assert result.code != 0
    assert "/linux/devices/0: verify device: '/dev/null': the host has something else" in result.error
    leaks.check()


def test_the_hosts_devices_are_untouched(container: Container) -> None:
    """Owner and mode of the host's devices stay as they are, also with /dev/null as stdio and another user [P9]."""
    names = [f"/dev/{name}" for name in DEFAULTS]
    before = [(os.stat(name).st_mode, os.stat(name).st_uid, os.stat(name).st_gid) for name in names]
    container.bundle.process(user={"uid": 1000, "gid": 1000})
    with open("/dev/null", "rb") as null:
        container.report(stdin=null)
    assert before == [(os.stat(name).st_mode, os.stat(name).st_uid, os.stat(name).st_gid) for name in names]
