"""Smaller rules of the specification that the tests of the subjects do not need for themselves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from integration.lib import host
from integration.lib.container import Container, v2_directory
from integration.lib.leaks import Leaks
from integration.lib.probe import mount_at, parse
from integration.test_network import Network, devices

# The table "Linux mount options" of config.md without idmap and ridmap, by its columns.
MUST = """async atime defaults dev diratime dirsync exec iversion lazytime loud noatime nodev nodiratime noexec
noiversion nolazytime norelatime nostrictatime nosuid relatime ro rw silent strictatime suid sync""".split()
SHOULD = """nosymfollow ratime rdev rdiratime rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid
rnosymfollow rrelatime rro rrw rstrictatime rsuid rsymfollow symfollow""".split()
PROPAGATION = "private rprivate rshared rslave runbindable shared slave unbindable".split()
MAY = "mand nomand rnodev tmpcopyup".split()
ELOOP = 40


# -- mount options --


@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
@pytest.mark.parametrize("words", [MUST, SHOULD, PROPAGATION, MAY], ids=["must", "should", "propagation", "may"])
def test_every_mount_option_is_known(container: Container, tmp_path: Path, words: list[str], kind: str) -> None:
    """Each option of the specification's table is understood, and is no data of the file system [M4, M6, M7]."""
    if words is MAY and kind == "bind":
        words = [word for word in words if word != "tmpcopyup"]
    for word in words:
        if kind == "bind":
            container.bundle.mount(f"/m/{word}", str(tmp_path), "bind", word)
        else:
            container.bundle.mount(f"/m/{word}", "tmpfs", word, type="tmpfs")
    table = container.report()["mountinfo"]
    for word in words:
        assert mount_at(table, f"/m/{word}")


@pytest.mark.parametrize("option", ["sync", "dirsync", "lazytime"])
def test_flags_of_the_superblock(container: Container, option: str) -> None:
    """They are the file system's, not the mount's [M4]."""
    container.bundle.mount("/data", "tmpfs", option, type="tmpfs")
    assert option in mount_at(container.report()["mountinfo"], "/data").super_options


@pytest.mark.parametrize(
    ("options", "errno"), [(["nosymfollow"], ELOOP), (["nosymfollow", "symfollow"], 0)], ids=["no", "yes"]
)
def test_nosymfollow(container: Container, tmp_path: Path, options: list[str], errno: int) -> None:
    """Symlinks on such a mount are not followed [M4]."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    container.bundle.mount("/data", str(tmp_path), "bind", *options)
    assert container.probe("read /data/link")[0]["errno"] == errno


@pytest.mark.parametrize(
    ("option", "flag"),
    [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnoatime", "noatime"),
        ("rnodiratime", "nodiratime"),
        ("rnosymfollow", "nosymfollow"),
        ("rrelatime", "relatime"),
    ],
)
def test_recursive_options(container: Container, tmp_path: Path, option: str, flag: str) -> None:
    """An option with an r in front is for the mounts below as well [M7]."""
    (tmp_path / "sub").mkdir()
    host.mount("tmpfs", str(tmp_path / "sub"), "tmpfs")
    try:
        container.bundle.mount("/data", str(tmp_path), "rbind", option)
        table = container.report()["mountinfo"]
        for point in ("/data", "/data/sub"):
            assert flag in mount_at(table, point).options
    finally:
        host.umount(str(tmp_path / "sub"))


@pytest.mark.parametrize(
    ("option", "flag", "number"),
    [
        ("rrw", "ro", 1),
        ("rsuid", "nosuid", 2),
        ("rdev", "nodev", 4),
        ("rexec", "noexec", 8),
        ("ratime", "noatime", 1024),
        ("rstrictatime", "noatime", 1024),
        ("rdiratime", "nodiratime", 2048),
        ("rsymfollow", "nosymfollow", 256),
    ],
)
def test_recursive_options_that_clear(
    container: Container, tmp_path: Path, option: str, flag: str, number: int
) -> None:
    """They take back what a mount below has on the host [M7]."""
    (tmp_path / "sub").mkdir()
    host.mount("tmpfs", str(tmp_path / "sub"), "tmpfs", number)
    try:
        container.bundle.mount("/kept", str(tmp_path), "rbind")
        container.bundle.mount("/data", str(tmp_path), "rbind", option)
        table = container.report()["mountinfo"]
        assert flag in mount_at(table, "/kept/sub").options
        assert flag not in mount_at(table, "/data/sub").options
    finally:
        host.umount(str(tmp_path / "sub"))


def test_remount(container: Container) -> None:
    """remount changes what an earlier entry has mounted there, and mounts nothing [M4]."""
    container.bundle.mount("/data", "tmpfs", "nosuid", type="tmpfs")
    container.bundle.mount("/data", "tmpfs", "remount", "nosuid", "ro", type="tmpfs")
    report, write = container.probe("report", "create /data/x y")
    found = [line for line in report["mountinfo"].splitlines() if line.split()[4] == "/data"]
    assert len(found) == 1
    assert write["errno"] == 30


def test_remount_with_file_system_options(container: Container) -> None:
    """Options of the file system reach it; those that are not named stay as they are [M4]."""
    container.bundle.mount("/data", "tmpfs", "size=64k", "nr_inodes=50", "nosuid", "noexec", type="tmpfs")
    container.bundle.mount("/data", "tmpfs", "remount", "size=128k", "nosuid", "noexec", type="tmpfs")
    mount = mount_at(container.report()["mountinfo"], "/data")
    assert {"size=128k", "nr_inodes=50"} <= mount.super_options
    assert {"nosuid", "noexec", "rw"} <= mount.options


@pytest.mark.ours_only("the errors say which entry, and why")
@pytest.mark.parametrize(
    ("destination", "option", "words"),
    [
        ("/data", "size=much", "cannot remount '/data'"),
        ("/data", "no-such-option", "no-such-option"),
        ("/sub", "size=1m", "nothing is mounted there"),
    ],
)
def test_remount_that_fails(container: Container, leaks: Leaks, destination: str, option: str, words: str) -> None:
    """The kernel judges the options; what is no mount cannot be remounted [M4]."""
    (container.bundle.rootfs / "sub").mkdir()
    container.bundle.mount("/data", "tmpfs", type="tmpfs")
    container.bundle.mount(destination, "tmpfs", "remount", option, type="tmpfs")
    result = container.create(check=False)
    assert result.code != 0
    assert f"/mounts/{len(container.bundle.config['mounts']) - 1}: " in result.error
    assert words in result.error
    leaks.check()


@pytest.mark.ours_only("L9: others take it for a bind, and then make no devices")
@pytest.mark.parametrize("options", [["remount", "bind", "nosuid", "noexec"], ["bind", "remount", "ro"]])
def test_remount_of_dev(container: Container, tmp_path: Path, options: list[str]) -> None:
    """It is no bind of another /dev: the default devices are made there [M4, L9]."""
    container.bundle.mount("/dev", str(tmp_path), *options)
    null, report, create = container.probe("stat /dev/null", "report", "create /dev/new x")
    assert (null["errno"], null.get("type")) == (0, "c")
    (found,) = [line for line in report["mountinfo"].splitlines() if line.split()[4] == "/dev"]
    assert set(options) - {"bind", "remount"} <= set(found.split()[5].split(","))
    assert create["errno"] == (30 if "ro" in options else 0)


@pytest.mark.ours_only("X5: others have an error number only")
def test_the_kernels_own_words(container: Container) -> None:
    """What the file system says of an option it does not know is in the error [X5]."""
    container.bundle.mount("/data", "tmpfs", "nosuchoption=1", type="tmpfs")
    error = container.create(check=False).error
    assert "/mounts/6" in error
    assert "Unknown parameter 'nosuchoption'" in error


# -- process, hooks --


def test_console_size_without_a_terminal(container: Container) -> None:
    """consoleSize means nothing then, and there is no console [U5, L9]."""
    container.bundle.process(consoleSize={"height": 11, "width": 22})
    tty, console = container.probe("tty", "stat /dev/console")
    assert tty["isatty"] == [0, 0, 0]
    assert console["errno"] == 2


@pytest.mark.ours_only("H3, X21: others say nothing of it at start, and leave the rest to delete")
def test_failing_startcontainer_hook_ends_the_container(container: Container, leaks: Leaks) -> None:
    """A startContainer hook that fails: start fails, the container is destroyed, poststop hooks run [H3]."""
    log = container.bundle.path / "poststop.log"
    after = {"path": str(container.bundle.probe), "args": ["probe", "hook", str(log), "poststop"]}
    fails = {"path": "/probe", "args": ["probe", "exit", "3"]}
    container.bundle.merge({"hooks": {"startContainer": [fails], "poststop": [after]}})
    container.bundle.args("pause")
    container.create()
    result = container.start(check=False)
    assert result.code != 0
    assert "/hooks/startContainer/0" in result.error
    assert [record["name"] for record in parse(log.read_bytes())] == ["poststop"]
    assert container.command("state").code != 0
    container.reap()
    leaks.check()


# -- cgroups --


def test_unified_writes_any_file(pure: Container) -> None:
    """What the runtime does not know is written all the same [B20]."""
    pure.bundle.linux(resources={"unified": {"cgroup.max.depth": "3", "cgroup.max.descendants": "5"}})
    pure.create()
    directory = v2_directory(pure)
    assert (directory / "cgroup.max.depth").read_text() == "3\n"
    assert (directory / "cgroup.max.descendants").read_text() == "5\n"


@pytest.mark.parametrize("name", ["nosuch.max", "memory.nosuch"])
def test_unified_without_a_controller(pure: Container, leaks: Leaks, name: str) -> None:
    """A controller that is not there, or a file that it does not have, is an error [B20]."""
    pure.bundle.linux(resources={"unified": {name: "1"}})
    result = pure.create(check=False)
    assert result.code != 0
    if pure.runtime.ours:
        assert f"/linux/resources/unified/{name}" in result.error
    leaks.check()


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"network": {"classID": 5}}, "network/classID"),
        ({"cpu": {"realtimeRuntime": 900}}, "cpu/realtimeRuntime"),
        ({"memory": {"swappiness": 5}}, "memory/swappiness"),
        ({"blockIO": {"leafWeight": 100}}, "blockIO/leafWeight"),
    ],
    ids=["network", "realtime", "swappiness", "leafWeight"],
)
def test_what_v2_cannot_express(pure: Container, leaks: Leaks, change: dict[str, Any], pointer: str) -> None:
    """A limit of v1 that has no like in v2 is an error, whatever its controller [B4, B11, B15, B18, X3]."""
    pure.bundle.linux(resources=change)
    result = pure.create(check=False)
    assert result.code != 0
    if pure.runtime.ours:
        assert f"/linux/resources/{pointer}" in result.error
    leaks.check()


@pytest.mark.requires("v1:cpu")
@pytest.mark.ours_only("B9: others that are at hand here do not know the field")
@pytest.mark.parametrize(("burst", "works"), [(20000, True), (20001, False)])
def test_burst_and_quota(container: Container, leaks: Leaks, burst: int, works: bool) -> None:
    """A burst is at most the quota: the kernel refuses more, and that is an error [B9]."""
    container.bundle.linux(resources={"cpu": {"quota": 20000, "period": 100000, "burst": burst}})
    result = container.create(check=False)
    if works:
        result.ok()
        directory = host.cgroup_mounts()["cpu"] + container.bundle.config["linux"]["cgroupsPath"]
        assert Path(directory, "cpu.cfs_burst_us").read_text() == f"{burst}\n"
        return
    assert result.code != 0
    assert "/linux/resources/cpu/" in result.error
    leaks.check()


def test_owner_of_v1_cgroups(container: Container) -> None:
    """The cgroups of v1 stay the runtime's, whoever the user is [L21]."""
    container.bundle.namespace("cgroup")
    container.bundle.process(user={"uid": 1000, "gid": 1000})
    container.bundle.mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", type="cgroup")
    container.begin("report", "pause")
    group = container.bundle.config["linux"]["cgroupsPath"]
    for name, mount in host.cgroup_mounts().items():
        if name and os.path.isdir(mount + group):
            for path in (mount + group, f"{mount}{group}/cgroup.procs"):
                assert os.stat(path).st_uid == 0, path


@pytest.mark.parametrize("case", ["no mount", "read-only", "no namespace"])
def test_owner_of_v2_cgroups(pure: Container, case: str) -> None:
    """Without a cgroup namespace and a writable cgroup mount, nothing of the cgroup changes its owner [L21]."""
    if case != "no namespace":
        pure.bundle.namespace("cgroup")
    if case != "no mount":
        options = ["nosuid", "noexec", "nodev", *(["ro"] if case == "read-only" else [])]
        pure.bundle.mount("/sys/fs/cgroup", "cgroup", *options, type="cgroup")
    pure.bundle.process(user={"uid": 1000, "gid": 1000})
    pure.begin("report", "pause")
    directory = v2_directory(pure)
    assert {os.lstat(path).st_uid for path in (directory, *directory.iterdir())} == {0}


# -- others --


@pytest.mark.ours_only("L10: others that are at hand here do not know the field")
def test_net_devices_stay(container: Container) -> None:
    """delete moves no device out of the namespace, which others may go on using [L10]."""
    mine, joined = Network(), Network()
    try:
        mine.veth("dev0")
        container.runtime = container.runtime.within(["nsenter", f"--net={mine.path}"])
        container.bundle.namespace("network", joined.path)
        container.bundle.linux(netDevices={"dev0": {}})
        container.begin("pause")
        container.finish()
        container.delete()
        assert "dev0" in devices(joined.path)
        assert "dev0" not in devices(mine.path)
    finally:
        container.destroy()
        mine.close()
        joined.close()


def test_unknown_annotations(container: Container) -> None:
    """Keys that nobody knows, reserved ones and those of an image included, change nothing [F6, N10]."""
    container.bundle.merge(
        {
            "annotations": {
                "org.opencontainers.image.stopSignal": "SIGQUIT",
                "org.opencontainers.image.os": "plan9",
                "org.opencontainers.unheard.of": "1",
                "com.example.key": "",
            }
        }
    )
    assert container.probe("report")[0]["cmd"] == "report"


def test_device_outside_of_dev(container: Container) -> None:
    """A device may be anywhere in the root file system [L8]."""
    entry = {"path": "/srv/deep/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o644}
    container.bundle.linux(devices=[entry])
    node, data = container.probe("stat /srv/deep/zero", "open /srv/deep/zero r")
    assert node["mode"] & 0o7777 == 0o644
    assert data["errno"] == 0


def test_mapping_changes_no_owner(container: Container, tmp_path: Path) -> None:
    """A user namespace is no reason to change who owns the files of the root or of a bind [L6]."""
    (tmp_path / "file").write_text("x")
    os.chown(tmp_path / "file", 7, 8)
    container.bundle.user_namespace(host_id=100000)
    container.bundle.mount("/data", str(tmp_path), "bind")
    paths = [container.bundle.rootfs, container.bundle.rootfs / "probe", tmp_path, tmp_path / "file"]
    before = [(os.lstat(path).st_uid, os.lstat(path).st_gid) for path in paths]
    assert container.probe("read /data/file")[0]["data"] == "x"
    assert [(os.lstat(path).st_uid, os.lstat(path).st_gid) for path in paths] == before
