"""mounts: kinds, options, places."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.lib import host
from integration.lib.container import Container
from integration.lib.leaks import Leaks
from integration.lib.probe import mount_at, mounts

PROC_MAGIC, TMPFS_MAGIC, SYSFS_MAGIC, DEVPTS_MAGIC, MQUEUE_MAGIC = 0x9FA0, 0x01021994, 0x62656572, 0x1CD1, 0x19800202


def test_default_mounts(container: Container) -> None:
    """The mounts of an ordinary config are there, with their types and flags [M3, M4]."""
    table = container.report()["mountinfo"]
    wanted = {
        "/proc": ("proc", set()),
        "/dev": ("tmpfs", {"nosuid"}),
        "/dev/pts": ("devpts", {"nosuid", "noexec"}),
        "/dev/shm": ("tmpfs", {"nosuid", "nodev", "noexec"}),
        "/dev/mqueue": ("mqueue", {"nosuid", "nodev", "noexec"}),
        "/sys": ("sysfs", {"nosuid", "nodev", "noexec", "ro"}),
    }
    for point, (kind, flags) in wanted.items():
        mount = mount_at(table, point)
        assert mount.type == kind, mount
        assert flags <= mount.options, mount
    assert mount_at(table, "/dev/shm").super_options >= {"size=65536k"}
    assert mount_at(table, "/dev/pts").super_options >= {"gid=5", "mode=620", "ptmxmode=666"}


def test_nothing_of_the_host_is_visible(container: Container) -> None:
    """Apart from what the config asks for, the container's table holds no mount of the host [L12]."""
    report = container.report()
    table = mounts(report["mountinfo"])
    allowed = {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys"}
    if report["uid_map"].split() != ["0", "0", "4294967295"]:  # a user namespace makes no nodes
        allowed |= {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")}
    extra = [m for m in table if m.point not in allowed and not m.point.startswith(("/proc/", "/sys/firmware"))]
    assert not extra
    assert len([m for m in table if m.point == "/"]) == 1


def test_proc_is_of_the_new_pid_namespace(container: Container) -> None:
    """The new procfs shows the container's processes [M2]."""
    assert [name for name in container.probe("ls /proc")[0]["names"] if name.isdigit()] == ["1"]


@pytest.mark.parametrize("option", ["bind", "rbind"])
def test_bind_directory(container: Container, tmp_path: Path, option: str) -> None:
    """A bind mount shows the directory of the host, read-write [M3]."""
    (tmp_path / "file").write_text("from outside")
    container.bundle.mount("/data", str(tmp_path), option)
    read, create = container.probe("read /data/file", ["create", "/data/new", "from inside"])
    assert read["data"] == "from outside"
    assert create["errno"] == 0
    assert (tmp_path / "new").read_text() == "from inside"


def test_bind_file(container: Container, tmp_path: Path) -> None:
    """A bind of a file makes the missing destination as a file [M1, M3]."""
    source = tmp_path / "file"
    source.write_text("content")
    container.bundle.mount("/etc/deep/name", str(source), "bind", "ro")
    read, write = container.probe("read /etc/deep/name", "write /etc/deep/name x")
    assert read["data"] == "content"
    assert write["errno"] == 30
    made = container.bundle.rootfs / "etc" / "deep" / "name"
    assert made.is_file()
    assert made.read_bytes() == b""


@pytest.mark.parametrize("ignored", ["none", "ext4", "bind", ""])
def test_type_is_ignored_for_binds(container: Container, tmp_path: Path, ignored: str) -> None:
    """With the option bind the type does not count [M3]."""
    (tmp_path / "file").write_text("x")
    entry = container.bundle.mount("/data", str(tmp_path), "bind")
    entry["type"] = ignored
    assert container.probe("read /data/file")[0]["data"] == "x"


def test_relative_bind_source(container: Container) -> None:
    """A relative source counts from the bundle [M3]."""
    (container.bundle.path / "beside").mkdir()
    (container.bundle.path / "beside" / "file").write_text("x")
    container.bundle.mount("/data", "beside", "bind")
    assert container.probe("read /data/file")[0]["data"] == "x"


def test_missing_bind_source(container: Container, leaks: Leaks) -> None:
    """A missing source of a bind fails create [M3]."""
    container.bundle.mount("/data", "/no/such/source", "bind")
    result = container.create(check=False)
    assert result.code != 0
    assert "no such file or directory" in result.error.lower()
    if container.runtime.ours:
        assert "/mounts/6" in result.error
    leaks.check()


def test_rbind_takes_submounts_and_bind_does_not(container: Container, tmp_path: Path, leaks: Leaks) -> None:
    """rbind is recursive, bind is not [M3]."""
    (tmp_path / "sub").mkdir()
    host.mount("tmpfs", str(tmp_path / "sub"), "tmpfs")
    try:
        (tmp_path / "sub" / "file").write_text("x")
        container.bundle.mount("/one", str(tmp_path), "bind")
        container.bundle.mount("/all", str(tmp_path), "rbind")
        one, every = container.probe("ls /one/sub", "ls /all/sub")
        assert (one["names"], every["names"]) == ([], ["file"])
    finally:
        host.umount(str(tmp_path / "sub"))


def test_read_only_bind(container: Container, tmp_path: Path) -> None:
    """ro on a bind mount makes it read-only inside, and only there [M5]."""
    container.bundle.mount("/data", str(tmp_path), "bind", "ro")
    write, report = container.probe("create /data/x y", "report")
    assert write["errno"] == 30
    assert "ro" in mount_at(report["mountinfo"], "/data").options
    (tmp_path / "still").write_text("writable outside")


@pytest.mark.parametrize(
    ("options", "present", "absent"),
    [
        (["nosuid", "nodev", "noexec"], {"nosuid", "nodev", "noexec"}, set()),
        (["ro", "rw"], {"rw"}, {"ro"}),
        (["rw", "ro"], {"ro"}, {"rw"}),
        (["noexec", "exec"], set(), {"noexec"}),
        (["nosuid", "suid"], set(), {"nosuid"}),
        (["nodev", "dev"], set(), {"nodev"}),
        (["noatime"], {"noatime"}, set()),
        (["nodiratime"], {"nodiratime"}, set()),
        (["strictatime"], set(), {"relatime", "noatime"}),
        (["relatime"], {"relatime"}, set()),
    ],
)
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_flags(
    container: Container, tmp_path: Path, kind: str, options: list[str], present: set[str], absent: set[str]
) -> None:
    """Flags are set and cleared in the order of the list: the later word wins [M4]."""
    if kind == "bind":
        container.bundle.mount("/data", str(tmp_path), "bind", *options)
    else:
        container.bundle.mount("/data", "tmpfs", *options, type="tmpfs")
    mount = mount_at(container.report()["mountinfo"], "/data")
    assert present <= mount.options, mount
    assert not absent & mount.options, mount


@pytest.mark.ours_only("M4: defaults sets nothing and is no data of the file system")
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_defaults_option(container: Container, tmp_path: Path, kind: str) -> None:
    """The option "defaults" does nothing [M4]."""
    container.bundle.mount("/data", str(tmp_path), "defaults", *(["bind"] if kind == "bind" else []), type=kind)
    assert mount_at(container.report()["mountinfo"], "/data")


def test_tmpfs_data(container: Container) -> None:
    """Other words are data for the file system [M15]."""
    container.bundle.mount("/data", "tmpfs", "size=1m", "mode=0710", "uid=5", "gid=6", type="tmpfs")
    stat, report = container.probe("stat /data", "report")
    assert (stat["mode"], stat["uid"], stat["gid"]) == (0o710, 5, 6)
    assert "size=1024k" in mount_at(report["mountinfo"], "/data").super_options


@pytest.mark.parametrize("user_namespace", [False, True])
@pytest.mark.parametrize(("count", "length"), [(3, 120), (40, 12), (2, 230)])
def test_overlay_with_long_names(
    container: Container, leaks: Leaks, tmp_path: Path, count: int, length: int, user_namespace: bool
) -> None:
    """An overlay of directories whose names, alone or together, are longer than fsconfig(2) takes [M3]."""
    if user_namespace:
        container.bundle.user_namespace()
    place = tmp_path / ("x" * length)
    layers = [place / f"{number:02}" / ("y" * length) for number in range(count)]
    upper, work = place / "upper" / ("u" * length), place / "work" / ("w" * length)
    for directory in (*layers, upper, work):
        directory.mkdir(parents=True)
    for number, layer in enumerate(layers):
        (layer / "file").write_text(f"layer {number}")
        (layer / f"only-{number:02}").touch()
    options = ["lowerdir=" + ":".join(map(str, layers)), f"upperdir={upper}", f"workdir={work}"]
    container.bundle.mount("/data", "overlay", *options, type="overlay")
    read, listed, *_ = container.probe("read /data/file", "ls /data", "create /data/new written", "report")
    assert read["data"] == "layer 0"
    assert sorted(listed["names"]) == ["file", *(f"only-{number:02}" for number in range(count))]
    container.delete("--force")
    leaks.check()


def test_bad_data(container: Container, leaks: Leaks) -> None:
    """What the file system refuses fails create [M15]."""
    container.bundle.mount("/data", "tmpfs", "nosuchoption=1", type="tmpfs")
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert "/mounts/6" in result.error
        assert "cannot mount '/data'" in result.error
        assert "\n" not in result.error.strip()
    leaks.check()


def test_unknown_type(container: Container, leaks: Leaks) -> None:
    """A file system the kernel does not have fails create [M3]."""
    container.bundle.mount("/data", "x", type="nosuchfs")
    result = container.create(check=False)
    assert result.code != 0
    leaks.check()


@pytest.mark.parametrize(("mode", "expected"), [(0o700, 0o700), (0o1777, 0o1777)])
def test_tmpfs_takes_the_mode_of_what_it_hides(container: Container, mode: int, expected: int) -> None:
    """Without mode= a tmpfs over a directory has that directory's mode [M9]."""
    (container.bundle.rootfs / "data").mkdir()
    (container.bundle.rootfs / "data").chmod(mode)
    container.bundle.mount("/data", "tmpfs", type="tmpfs")
    assert container.probe("stat /data")[0]["mode"] == expected


@pytest.mark.parametrize("options", [["ro"], ["ro", "mode=755"]])
def test_read_only_tmpfs(container: Container, options: list[str]) -> None:
    """A tmpfs can be read-only, also /dev, which is filled before [M9]."""
    container.bundle.drop_mount("/dev")
    container.bundle.mount("/dev", "tmpfs", *options, "nosuid", type="tmpfs")
    null, create = container.probe("stat /dev/null", "create /dev/x y")
    assert null["type"] == "c"
    assert create["errno"] == 30


def test_tmpcopyup(container: Container) -> None:
    """tmpcopyup fills the tmpfs with what it hides [M8]."""
    data = container.bundle.rootfs / "data"
    (data / "sub").mkdir(parents=True)
    (data / "sub" / "file").write_text("kept")
    (data / "link").symlink_to("sub/file")
    os.chown(data / "sub" / "file", 5, 6)
    (data / "sub" / "file").chmod(0o644)
    container.bundle.mount("/data", "tmpfs", "tmpcopyup", type="tmpfs")
    read, stat, link, fs, create = container.probe(
        "read /data/link", "stat /data/sub/file", "stat /data/link", "statfs /data", "create /data/new x"
    )
    assert read["data"] == "kept"
    assert (stat["mode"], stat["uid"], stat["gid"]) == (0o644, 5, 6)
    assert link["target"] == "sub/file"
    assert fs["type"] == TMPFS_MAGIC
    assert create["errno"] == 0
    assert not (data / "new").exists()


@pytest.mark.parametrize(
    ("options", "tag"),
    [(["rprivate"], ""), (["private"], ""), (["shared"], "shared:"), (["rshared"], "shared:"),
     (["unbindable"], "unbindable"), (["slave"], "master:"), (["rslave"], "master:")],
)  # fmt: skip
def test_propagation(container: Container, tmp_path: Path, options: list[str], tag: str) -> None:
    """Propagation words are applied to the mount [M6]."""
    host.mount("tmpfs", str(tmp_path), "tmpfs")
    host.mount("none", str(tmp_path), "", host.MS_SHARED)
    try:
        if tag == "master:":
            container.bundle.linux(rootfsPropagation="rslave")
        container.bundle.mount("/data", str(tmp_path), "rbind", *options)
        mount = mount_at(container.report()["mountinfo"], "/data")
        if tag:
            assert any(word.startswith(tag) for word in mount.tags), mount
        else:
            assert not mount.tags, mount
    finally:
        host.umount(str(tmp_path))


@pytest.mark.parametrize("option", ["bind", "rbind"])
@pytest.mark.parametrize("user_namespace", [False, True])
@pytest.mark.parametrize("where", ["", "sub"], ids=["top", "sub"])
def test_unbindable_sources(
    container: Container, tmp_path: Path, where: str, user_namespace: bool, option: str
) -> None:
    """What the host has made unbindable is so for the host; a container has a copy of its mounts [M3, L6]."""
    places = [tmp_path / "tree", tmp_path / "tree" / "sub"]
    try:
        for place in places:
            place.mkdir()
            host.mount("tmpfs", str(place), "tmpfs")
            (place / "file").touch()
        host.mount("none", str(places[0] / where), "", host.MS_UNBINDABLE)
        if user_namespace:
            container.bundle.user_namespace()
        container.bundle.mount("/data", str(places[0]), option)
        listed = container.probe("ls /data", "ls /data/sub")
        assert [reply["names"] for reply in listed] == [["file", "sub"], ["file"] if option == "rbind" else []]
    finally:
        for place in reversed(places):
            host.umount(str(place))


def test_slave_sees_new_mounts_of_the_host(container: Container, tmp_path: Path) -> None:
    """rslave: a mount made later on the host appears in the container; one made inside does not get out [M6]."""
    shared = tmp_path / "shared"
    shared.mkdir()
    host.mount("tmpfs", str(shared), "tmpfs")
    host.mount("none", str(shared), "", host.MS_SHARED)
    try:
        (shared / "later").mkdir()
        (shared / "inner").mkdir()
        container.bundle.linux(rootfsPropagation="rslave")
        container.bundle.mount("/data", str(shared), "rbind", "rslave")
        container.bundle.process(capabilities={"bounding": ["CAP_SYS_ADMIN"], "effective": ["CAP_SYS_ADMIN"],
                                               "permitted": ["CAP_SYS_ADMIN"]})  # fmt: skip
        container.begin("trap 10 0")
        host.mount("tmpfs", str(shared / "later"), "tmpfs")
        table = Path(f"/proc/{container.pid}/mountinfo").read_text()
        assert " /data/later " in table
        container.finish()
        assert not any("inner" in line for line in host.own_mountinfo())
    finally:
        host.umount(str(shared / "later"))
        host.umount(str(shared))


@pytest.mark.parametrize("propagation", [None, "rslave"])
def test_slave_of_the_mount_that_holds_the_root(container: Container, tmp_path: Path, propagation: str | None) -> None:
    """The same for a source that is no mount, but a directory of the file system on which the bundle is [M6]."""
    later = tmp_path / "source" / "later"
    later.mkdir(parents=True)
    assert later.stat().st_dev == container.bundle.rootfs.stat().st_dev
    container.bundle.linux(rootfsPropagation=propagation)
    container.bundle.mount("/data", str(tmp_path / "source"), "rbind", "rslave")
    container.begin("report", "pause")
    assert any(word.startswith("master:") for word in mount_at(container.replies[0]["mountinfo"], "/data").tags)
    host.mount("tmpfs", str(later), "tmpfs")
    try:
        assert " /data/later " in Path(f"/proc/{container.pid}/mountinfo").read_text()
    finally:
        host.umount(str(later))


def test_user_namespace_mounts_nothing_on_the_host(container: Container, tmp_path: Path) -> None:
    """Its root may mount, but whatever the config says of propagation: in the container only [M6, L11]."""
    shared = tmp_path / "shared"
    shared.mkdir()
    host.mount("tmpfs", str(shared), "tmpfs")
    host.mount("none", str(shared), "", host.MS_SHARED)
    try:
        (shared / "inner").mkdir()
        container.bundle.user_namespace()
        container.bundle.linux(rootfsPropagation="rshared")
        container.bundle.mount("/data", str(shared), "rbind", "rshared")
        container.bundle.process(capabilities={name: ["CAP_SYS_ADMIN"] for name in
                                               ("bounding", "effective", "permitted")})  # fmt: skip
        container.begin("report", "mount tmpfs /data/inner tmpfs", "pause")
        assert container.replies[1]["errno"] == 0
        assert not any("inner" in line for line in host.own_mountinfo())
        assert any(word.startswith("master:") for word in mount_at(container.replies[0]["mountinfo"], "/data").tags)
    finally:
        host.umount(str(shared))


def test_order_of_mounts(container: Container, tmp_path: Path) -> None:
    """Mounts are made in the listed order, one over the other [M1]."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("bind")
    container.bundle.mount("/a", "tmpfs", type="tmpfs")
    container.bundle.mount("/a/b", "tmpfs", type="tmpfs")
    container.bundle.mount("/a/b/c", str(tmp_path), "bind")
    table, read = container.probe("report", "read /a/b/c/inner/file")
    points = [m.point for m in mounts(table["mountinfo"])]
    assert points.index("/a") < points.index("/a/b") < points.index("/a/b/c")
    assert read["data"] == "bind"


def test_over_one_another(container: Container, tmp_path: Path) -> None:
    """Two mounts on one place: the later one is seen [M1]."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
        container.bundle.mount("/a", str(tmp_path / name), "bind")
    assert container.probe("read /a/name")[0]["data"] == "two"


def test_missing_destination_is_made(container: Container) -> None:
    """A missing directory is made with mode 0755 [M1]."""
    container.bundle.mount("/very/deep/place", "tmpfs", type="tmpfs")
    container.probe("stat /very/deep/place")
    made = container.bundle.rootfs / "very" / "deep"
    assert made.stat().st_mode & 0o7777 == 0o755


def test_relative_destination(container: Container) -> None:
    """A relative destination counts from the root [M1]."""
    container.bundle.mount("data", "tmpfs", "mode=0711", type="tmpfs")
    assert container.probe("stat /data")[0]["mode"] == 0o711


def test_dots_in_the_destination(container: Container) -> None:
    """ ".." never leaves the root [M1]."""
    container.bundle.mount("/../../x/../data", "tmpfs", "mode=0711", type="tmpfs")
    assert container.probe("stat /data")[0]["mode"] == 0o711


def test_symlink_inside_the_root_is_followed(container: Container) -> None:
    """A symlink in the image is resolved within the root file system [M1]."""
    rootfs = container.bundle.rootfs
    (rootfs / "real").mkdir()
    (rootfs / "link").symlink_to("/real")
    container.bundle.mount("/link", "tmpfs", type="tmpfs")
    assert mount_at(container.report()["mountinfo"], "/real").type == "tmpfs"


@pytest.mark.parametrize("where", ["/proc", "/sys"])
def test_symlinked_proc_and_sys(container: Container, leaks: Leaks, where: str) -> None:
    """/proc and /sys of the image must be ordinary directories [M2]."""
    rootfs = container.bundle.rootfs
    (rootfs / "elsewhere").mkdir()
    (rootfs / where[1:]).symlink_to("/elsewhere")
    result = container.create(check=False)
    assert result.code != 0
    assert "must be mounted on ordinary directory" in result.error
    leaks.check()


@pytest.mark.parametrize(
    ("destination", "kind"),
    [
        ("/proc", "bind"),
        ("/proc/self", "bind"),
        ("/proc/sys", "bind"),
        ("/proc/attr", "tmpfs"),
        ("/proc/sys/x", "bind"),
    ],
)
def test_nothing_over_proc(container: Container, leaks: Leaks, tmp_path: Path, destination: str, kind: str) -> None:
    """Nothing but a procfs may be mounted on /proc, and below it only a few files [M2]."""
    if kind == "bind":
        container.bundle.mount(destination, str(tmp_path), "bind")
    else:
        container.bundle.mount(destination, "tmpfs", type="tmpfs")
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert "/mounts/6" in result.error
    leaks.check()


@pytest.mark.parametrize("name", ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg"])
def test_lxcfs_files(container: Container, tmp_path: Path, name: str) -> None:
    """The files that lxcfs replaces can be bound over [M2]."""
    (tmp_path / "fake").write_text("fake\n")
    container.bundle.mount(f"/proc/{name}", str(tmp_path / "fake"), "bind")
    assert container.probe(f"read /proc/{name}")[0]["data"] == "fake\n"


def test_proc_of_the_host_may_be_bound(container: Container) -> None:
    """A procfs may be bound on /proc, as rootless setups do [M2]."""
    container.bundle.drop_mount("/proc")
    container.bundle.drop_namespace("pid")
    container.bundle.config["mounts"].insert(
        0, {"destination": "/proc", "source": "/proc", "type": "bind", "options": ["rbind"]}
    )
    container.bundle.linux(maskedPaths=[], readonlyPaths=[])
    assert container.probe("statfs /proc")[0]["type"] == PROC_MAGIC


@pytest.mark.parametrize("entry", [{"source": "x", "type": "tmpfs"}, {"destination": 5}, {"destination": "/a\0b"}])
def test_bad_entries(container: Container, leaks: Leaks, entry: dict[str, Any]) -> None:
    """A mount without a destination, or with one of the wrong kind, is refused [F7]."""
    if not container.runtime.ours and "destination" not in entry:
        pytest.skip(f"{container.runtime.name}: takes an empty destination (F7)")
    container.bundle.config["mounts"].append(entry)
    assert container.create(check=False).code != 0
    leaks.check()


def test_devpts_is_a_new_instance(container: Container) -> None:
    """The container's devpts holds no terminal of the host [M13]."""
    names, magic = container.probe("ls /dev/pts", "statfs /dev/pts")
    assert names["names"] == ["ptmx"]
    assert magic["type"] == DEVPTS_MAGIC


def test_sysfs_is_of_the_new_network(container: Container) -> None:
    """The new sysfs shows the container's network devices [M13]."""
    assert "eth0" not in container.probe("ls /sys/class/net")[0]["names"]


def test_cgroup_mount(container: Container) -> None:
    """A cgroup mount shows the container's own groups, read-only when asked [M11, M12]."""
    container.bundle.namespace("cgroup")
    container.bundle.mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev", "relatime", type="cgroup")
    report, names, create = container.probe("report", "ls /sys/fs/cgroup", "mkdir /sys/fs/cgroup/memory/x")
    assert create["errno"] in (30, 13, 1)
    assert names["names"]
    for mount in mounts(report["mountinfo"]):
        if mount.point.startswith("/sys/fs/cgroup/") and mount.type.startswith("cgroup"):
            assert mount.root == "/", mount
            assert "ro" in mount.options, mount


def test_many_mounts(container: Container, tmp_path: Path) -> None:
    """100 bind mounts work, also with few descriptors allowed [P10]."""
    import resource

    for number in range(100):
        (tmp_path / str(number)).mkdir()
        container.bundle.mount(f"/m/{number}", str(tmp_path / str(number)), "bind", "ro")
    report = container.report(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 4096)))
    assert sum(m.point.startswith("/m/") for m in mounts(report["mountinfo"])) == 100


def test_user_namespace_binds(container: Container, tmp_path: Path) -> None:
    """In a user namespace binds, also of directories its root may not enter, work [M3]."""
    closed = tmp_path / "closed"
    (closed / "inner").mkdir(parents=True)
    (closed / "inner" / "file").write_text("x")
    closed.chmod(0o700)
    container.bundle.user_namespace()
    container.bundle.mount("/data", str(closed / "inner"), "bind")
    assert container.probe("read /data/file")[0]["data"] == "x"


@pytest.mark.requires("kernel:5.12")
@pytest.mark.ours_only("M7: recursive attributes on every kind of mount")
def test_recursive_read_only(container: Container, tmp_path: Path) -> None:
    """rro makes submounts read-only too [M7]."""
    (tmp_path / "sub").mkdir()
    host.mount("tmpfs", str(tmp_path / "sub"), "tmpfs")
    try:
        container.bundle.mount("/all", str(tmp_path), "rbind", "rro")
        one, two = container.probe("create /all/x y", "create /all/sub/x y")
        assert (one["errno"], two["errno"]) == (30, 30)
    finally:
        host.umount(str(tmp_path / "sub"))


def test_shared_rootfs(new_container: Callable[..., Container]) -> None:
    """Two containers can use one root file system, also with a missing mount point [M1]."""
    first = new_container()
    second = new_container()
    for one in (first, second):
        one.bundle.merge({"root": {"path": str(first.bundle.rootfs)}})
        one.bundle.mount("/new/place", "tmpfs", type="tmpfs")
        one.begin("pause")
    assert first.state()["status"] == second.state()["status"] == "running"
