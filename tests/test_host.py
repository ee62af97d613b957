"""host.py: facts from the text of /proc files."""

import pytest

from ociruntime import host
from ociruntime.host import Host, below_root, parse_mountinfo, parse_release, parse_self_cgroup, place

BASE = b"""\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
28 22 0:25 / /sys rw,nosuid - sysfs sysfs rw
"""
TMPFS = b"31 28 0:28 / /sys/fs/cgroup ro,nosuid shared:4 - tmpfs tmpfs ro,mode=755\n"
V1 = (
    BASE
    + TMPFS
    + b"""\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,xattr,cpu,cpuacct
33 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset,noprefix
34 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/systemd/agent,name=systemd
"""
)
HYBRID = V1 + b"41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
V2 = BASE + b"31 28 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
OWN = b"""\
9:name=systemd:/user.slice
4:memory:/process/abc
3:cpuset:/
1:cpu,cpuacct:/system.slice/ssh.service
0::/user.slice/session:1
"""


def facts(mountinfo: bytes, own: bytes = OWN) -> Host:
    result = Host()
    place(result, parse_mountinfo(mountinfo), parse_self_cgroup(own))
    return result


def test_v1_controllers_are_found_by_the_names_in_the_own_cgroup_file() -> None:
    result = facts(V1)
    assert result.cgroup_mode == "v1"
    assert result.unified == ""
    assert result.cgroup_mounts == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuset": "/sys/fs/cgroup/cpuset",
        "memory": "/sys/fs/cgroup/memory",
        "name=systemd": "/sys/fs/cgroup/systemd",
    }
    assert result.own_cgroups["cpuacct"] == "/system.slice/ssh.service"
    assert result.own_cgroups["memory"] == "/process/abc"


def test_hybrid_has_both() -> None:
    result = facts(HYBRID)
    assert result.cgroup_mode == "hybrid"
    assert result.unified == "/sys/fs/cgroup/unified"
    assert result.own_cgroups[""] == "/user.slice/session:1"


def test_v2() -> None:
    result = facts(V2, b"0::/a/b\n")
    assert (result.cgroup_mode, result.unified, result.cgroup_mounts) == ("v2", "/sys/fs/cgroup", {})
    assert result.own_cgroups == {"": "/a/b"}


def test_nothing_mounted() -> None:
    assert facts(BASE).cgroup_mode == "none"


def test_a_mount_over_the_tmpfs_hides_the_hierarchies_below() -> None:
    over = b"90 31 0:38 / /sys/fs/cgroup rw - cgroup2 none rw\n"
    result = facts(HYBRID + over)
    assert (result.cgroup_mode, result.unified) == ("v2", "/sys/fs/cgroup")


def test_a_new_sysfs_hides_all() -> None:
    assert facts(HYBRID + b"90 28 0:99 / /sys rw - sysfs sysfs rw\n").cgroup_mode == "none"


def test_the_later_of_two_mounts_in_one_place_counts() -> None:
    over = b"91 34 0:32 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    result = facts(V1 + over, b"4:memory:/docker/x/y\n")
    assert result.own_cgroups["memory"] == "/y"


def test_the_customary_place_and_the_widest_view_are_preferred() -> None:
    more = (
        b"91 22 0:32 / /mnt/memory rw - cgroup cgroup rw,memory\n"
        b"92 31 0:32 /part /sys/fs/cgroup/memory.part rw - cgroup cgroup rw,memory\n"
    )
    assert facts(V1 + more).cgroup_mounts["memory"] == "/sys/fs/cgroup/memory"
    assert facts(more + V1).cgroup_mounts["memory"] == "/sys/fs/cgroup/memory"
    assert facts(BASE + TMPFS + more).cgroup_mounts["memory"] == "/sys/fs/cgroup/memory.part"


def test_octal_escapes() -> None:
    line = rb"91 22 0:32 /a\040b /mnt/c\011d\134e\012\303\244 rw - cgroup2 none rw" + b"\n"
    (mount,) = parse_mountinfo(BASE + line)
    assert (mount.root, mount.point) == ("/a b", "/mnt/c\td\\e\nä")


def test_other_mounts_that_look_alike_are_left_out() -> None:
    data = b"91 22 0:32 / /mnt/x rw - tmpfs cgroup rw\n92 22 0:33 / /mnt/y rw - cgroupish none rw\nbroken - cgroup2\n"
    assert parse_mountinfo(BASE + data) == []
    assert parse_mountinfo(b"") == []


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/a/b", "/", "/a/b"),
        ("/a/b", "/a", "/b"),
        ("/a/b", "/a/b", "/"),
        ("/a/bc", "/a/b", "/"),
        ("/x", "/a", "/"),
        ("/../x", "/", "/"),
        ("/", "/..", "/"),
    ],
)
def test_own_cgroup_below_the_root_of_the_mount(path: str, root: str, expected: str) -> None:
    assert below_root(path, root) == expected


@pytest.mark.parametrize(
    ("release", "expected"),
    [("6.1.0-18-amd64", (6, 1)), ("5.15-rc1", (5, 15)), ("6.18.44-x", (6, 18)), ("7", (7, 0)), ("4.19+", (4, 19))],
)
def test_kernel_release(release: str, expected: tuple[int, int]) -> None:
    assert parse_release(release) == expected


@pytest.mark.parametrize(
    ("uid_map", "expected"),
    [
        (b"         0          0 4294967295\n", False),
        (b"", False),
        (b"         0       1000          1\n", True),
        (b"         0          0       1000\n", True),
        (b"0 1000 1\n1 100000 65536\n", True),
    ],
)
def test_user_namespace_is_seen_by_the_id_map(uid_map: bytes, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    real = host._read
    monkeypatch.setattr(host, "_read", lambda path: uid_map if path == "/proc/self/uid_map" else real(path))
    monkeypatch.setattr("posix.geteuid", lambda: 0)
    found = host.probe()
    assert found.in_userns is expected
    assert found.rootless is expected
    assert host.probe(rootless=not expected).rootless is not expected


def test_rootless_without_user_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posix.geteuid", lambda: 1000)
    assert host.probe().rootless is True
    assert host.probe(rootless=False).rootless is False


def test_probe_on_this_machine() -> None:
    found = host.probe()
    assert found.cgroup_mode in ("v1", "hybrid", "v2", "none")
    assert found.kernel >= (3, 0)
    assert found.arch
    assert set(found.own_cgroups) == {*found.cgroup_mounts, *([""] if found.unified else [])}


def test_usual_v2_layout_needs_no_mountinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"/proc/self/uid_map": b"0 0 4294967295\n", "/proc/self/cgroup": b"0::/a/b\n"}
    monkeypatch.setattr(host, "_read", texts.__getitem__)
    monkeypatch.setattr(host, "_controllers", lambda path: ("cpu", "memory"))
    monkeypatch.setattr(host, "_is_directory", lambda path: path == "/sys/fs/cgroup/a/b")
    found = host.probe()
    assert (found.cgroup_mode, found.unified, found.own_cgroups) == ("v2", "/sys/fs/cgroup", {"": "/a/b"})
    assert found.controllers == ("cpu", "memory")
    texts["/proc/self/cgroup"] = b"0::/elsewhere\n"
    with pytest.raises(KeyError, match="mountinfo"):
        host.probe()


def test_a_second_view_over_the_first() -> None:
    """A tmpfs over the cgroup directory, with mounts of its own: those count, the ones below it do not."""
    lines = [
        "20 1 0:5 / / rw - ext4 /dev/vda rw",
        "31 20 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw",
        "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
        "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
        "40 31 0:50 / /sys/fs/cgroup rw - tmpfs tmpfs rw",
        "41 40 0:29 /a /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
    ]
    found = parse_mountinfo("\n".join([*lines, ""]).encode())
    assert [(mount.root, mount.point) for mount in found] == [("/a", "/sys/fs/cgroup/cpu")]


def test_a_mount_on_the_same_directory_covers() -> None:
    lines = [
        "31 20 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw",
        "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
        "33 32 0:40 / /sys/fs/cgroup/cpu rw - tmpfs tmpfs rw",
        "34 31 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids",
    ]
    found = parse_mountinfo("\n".join([*lines, ""]).encode())
    assert [mount.point for mount in found] == ["/sys/fs/cgroup/pids"]
