"""mounts.lower: goldens of two whole configs, then (fragment -> ops) and (fragment -> error pointer)."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from ociruntime import namespaces, plan
from ociruntime.config.default import default_config
from ociruntime.errors import ConfigError, OCIError
from ociruntime.mounts import lower, paths
from ociruntime.mounts.lower import PROC_FILES, Mounts
from ociruntime.plan import (
    COPYUP,
    FILE,
    HOST_TREE,
    INHERIT_MODE,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
    NO_BIND,
    NO_FOLLOW,
    NO_PIVOT,
    PLAIN_DIR,
    PROCFS_SOURCE,
    RECURSIVE,
    SAME,
    FdSource,
    Op,
    attr,
    op,
)
from tests.mounts.conftest import Lower, is_dir, v2_host

DATA = Path(__file__).parent.parent / "data"
RO = 1
NOT_HERE = 0xE  # nosuid nodev noexec


def mount(
    at: str, kind: str, place: str, source: str, data: bytes, args: tuple[int, int, int, int], flags: int = 0
) -> Op:
    return op("mount", at, strings=(kind, place, source, data), args=args, flags=flags)


def whole(config: Any) -> Mounts:
    facts = v2_host()
    return lower.lower(config, facts, namespaces.lower(config, facts), bundle="/bundle", is_dir=is_dir)


def words(ops: list[Op]) -> list[str]:
    return [f"{entry.kind} {entry.strings[0]!s}" for entry in ops]


def test_golden_default_config() -> None:
    config = default_config(rootless=False, cgroup_v2=True, euid=0, egid=0)
    result = whole(config)
    assert result.warnings == []
    assert result.propagation == [op("propagation", args=(MS_SLAVE | MS_REC,))]
    assert result.rootfs == [op("rootfs", "/root/path", strings=("/bundle/rootfs",), args=(0, 0))]
    assert result.setup[:7] == [
        mount("/mounts/0", "proc", "/proc", "proc", b"", (0, 0, 0, 0), PLAIN_DIR),
        mount("/mounts/1", "tmpfs", "/dev", "tmpfs", b"mode\x00755\x00size\x0065536k\x00", (0x22, 0, 0, 2)),
        mount(
            "/mounts/2",
            "devpts",
            "/dev/pts",
            "devpts",
            b"newinstance\x00\x00ptmxmode\x000666\x00mode\x000620\x00gid\x005\x00",
            (0xA, 0, 0, 4),
        ),
        mount("/mounts/3", "tmpfs", "/dev/shm", "shm", b"mode\x001777\x00size\x0065536k\x00", (NOT_HERE, 0, 0, 2)),
        mount("/mounts/4", "mqueue", "/dev/mqueue", "mqueue", b"", (NOT_HERE, 0, 0, 0)),
        mount("/mounts/5", "sysfs", "/sys", "sysfs", b"", (NOT_HERE | RO, 0, 0, 0), PLAIN_DIR),
        mount("/mounts/6", "cgroup2", "/sys/fs/cgroup", "cgroup", b"", (NOT_HERE | RO, 0, 0, 0)),
    ]
    assert words(result.setup[7:]) == [
        *("device /dev/" + name for name in ("null", "zero", "full", "random", "urandom", "tty")),
        *("symlink /dev/" + name for name in ("fd", "stdin", "stdout", "stderr", "core", "ptmx")),
    ]
    assert result.pivot == [op("pivot")]
    assert result.final == [op("attr", "/root/readonly", strings=("",), args=(RO,))]
    assert words(result.readonly) == [f"readonly {path}" for path in config["linux"]["readonlyPaths"]]
    assert words(result.masked) == [f"mask {path}" for path in config["linux"]["maskedPaths"]]
    assert result.masked[2] == op("mask", "/linux/maskedPaths/2", strings=(config["linux"]["maskedPaths"][2],))


def test_golden_docker_config() -> None:
    result = whole(json.loads((DATA / "docker-config.json").read_text()))
    assert result.warnings == []
    assert [(entry.pointer, *entry.strings[:2], hex(entry.args[0]), entry.flags) for entry in result.setup[:7]] == [
        ("/mounts/0", "proc", "/proc", "0xe", PLAIN_DIR),
        ("/mounts/1", "tmpfs", "/dev", "0x22", 0),
        ("/mounts/2", "devpts", "/dev/pts", "0xa", 0),
        ("/mounts/3", "sysfs", "/sys", "0xf", PLAIN_DIR),
        ("/mounts/4", "cgroup2", "/sys/fs/cgroup", "0xf", 0),
        ("/mounts/5", "mqueue", "/dev/mqueue", "0xe", 0),
        ("/mounts/6", "tmpfs", "/dev/shm", "0xe", 0),
    ]
    assert result.final == []
    assert len(result.masked) == 12
    assert len(result.readonly) == 5


def test_golden_rootless_config() -> None:
    result = whole(default_config(rootless=True, cgroup_v2=True, euid=1000, egid=1000))
    assert result.setup[5] == op(
        "bind",
        "/mounts/5",
        strings=("", "/sys"),
        args=(NOT_HERE | RO, 0, 0, 0),
        flags=HOST_TREE,
        fd=FdSource("tree", "/sys", True),
    )
    assert words(result.setup[7:13]) == [
        "device_bind /dev/" + name for name in ("null", "zero", "full", "random", "urandom", "tty")
    ]


def one(lowered: Lower, entry: dict[str, Any], **more: Any) -> Op:
    """The single op of a single mount."""
    found = [each for each in lowered({"mounts": [entry]}, **more).setup if each.pointer]
    assert len(found) == 1
    assert found[0].pointer == "/mounts/0"
    return found[0]


def bound(place: str, source: str, args: tuple[int, ...] = (0, 0, 0, 0), flags: int = HOST_TREE, **tree: bool) -> Op:
    return op("bind", "/mounts/0", strings=("", place), args=args, flags=flags, fd=FdSource("tree", source, **tree))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"type": "bind", "source": "/srv/data"}, bound("/d", "/srv/data")),
        ({"type": "ext4", "source": "/srv/data", "options": ["bind"]}, bound("/d", "/srv/data")),
        ({"source": "/srv/data", "options": ["rbind"]}, bound("/d", "/srv/data", recursive=True)),
        ({"source": "data", "options": ["bind"]}, bound("/d", "/bundle/data")),
        ({"source": "file", "options": ["bind"]}, bound("/d", "/bundle/file", flags=HOST_TREE | FILE)),
        (
            {"source": "/etc/resolv.conf", "options": ["rbind", "rprivate", "ro"]},
            bound("/d", "/etc/resolv.conf", (RO, 0, MS_PRIVATE | MS_REC, 0), HOST_TREE | FILE, recursive=True),
        ),
        ({"source": "/srv/data", "options": ["bind", "rw"]}, bound("/d", "/srv/data", (attr(0, RO), 0, 0, 0))),
        ({"source": "/srv/data", "options": ["rbind", "rro"]}, bound("/d", "/srv/data", (0, RO, 0, 0), recursive=True)),
        (
            {"source": "/srv/data", "options": ["bind", "noatime"]},
            bound("/d", "/srv/data", (attr(0x10, 0x70), 0, 0, 0)),
        ),
        (
            {"source": "/srv/data", "options": ["bind", "slave", "shared"]},
            bound("/d", "/srv/data", (0, 0, MS_SLAVE, MS_SHARED)),
        ),
        (
            {"source": "/srv/data", "options": ["bind", "src-nofollow", "dest-nofollow"]},
            bound("/d", "/srv/data", flags=HOST_TREE | NO_FOLLOW, nofollow=True),
        ),
        # superblock flags and empty words say nothing about a bind
        ({"source": "/srv/data", "options": ["bind", "sync", "defaults", "silent"]}, bound("/d", "/srv/data")),
    ],
)
def test_binds(lowered: Lower, entry: dict[str, Any], expected: Op) -> None:
    assert one(lowered, {"destination": "/d", **entry}) == expected


LINKS = {"/srv/link": "../data", "/bundle/link": "/gone", "/srv/dirlink": "/srv/data"}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        # a symlink is copied, dangling or not; what else the options say is void
        (
            {"source": "/srv/link", "options": ["rbind", "copy-symlink", "ro", "x=1"]},
            op("symlink", "/mounts/0", strings=("/d", "../data"), flags=SAME),
        ),
        (
            {"source": "link", "options": ["bind", "copy-symlink"]},
            op("symlink", "/mounts/0", strings=("/d", "/gone"), flags=SAME),
        ),
        ({"source": "/srv/data", "options": ["bind", "copy-symlink"]}, bound("/d", "/srv/data")),
        # the link itself is no directory, wherever it leads
        (
            {"source": "/srv/dirlink", "options": ["bind", "src-nofollow"]},
            bound("/d", "/srv/dirlink", flags=HOST_TREE | FILE, nofollow=True),
        ),
        (
            {"source": "/bundle/link", "options": ["bind", "src-nofollow"]},
            bound("/d", "/bundle/link", flags=HOST_TREE | FILE, nofollow=True),
        ),
    ],
)
def test_symlinks_as_sources(lowered: Lower, entry: dict[str, Any], expected: Op) -> None:
    result = lowered({"mounts": [{"destination": "/d", **entry}]}, read_link=LINKS.get)
    assert result.setup[0] == expected
    assert result.warnings == []


def test_read_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("a/b")
    (tmp_path / "file").write_text("")
    names = ("link", "file", "gone", "file/x", ".")
    assert [paths.read_link(f"{tmp_path}/{name}") for name in names] == ["a/b", None, None, None, None]
    with pytest.raises(OSError, match="too long"):
        paths.read_link("x" * 5000)


def test_file_system_options_of_a_bind_are_reported_and_dropped(lowered: Lower) -> None:
    entry = {"destination": "/d", "source": "/srv/data", "options": ["bind", "size=1k"]}
    result = lowered({"mounts": [entry]})
    assert result.setup[0] == bound("/d", "/srv/data")
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith("/mounts/0/options/1: 'size'")


@pytest.mark.parametrize(
    ("entry", "data", "args", "flags"),
    [
        ({"type": "tmpfs"}, b"", (0, 0, 0, 0), INHERIT_MODE),
        ({"type": "tmpfs", "options": ["mode=755"]}, b"mode\x00755\x00", (0, 0, 0, 1), 0),
        ({"type": "tmpfs", "options": ["tmpcopyup"]}, b"", (0, 0, 0, 0), INHERIT_MODE | COPYUP),
        ({"type": "tmpfs", "options": ["dest-nofollow", "mode=1"]}, b"mode\x001\x00", (0, 0, 0, 1), NO_FOLLOW),
        # only the set bits matter on a new mount
        ({"type": "mqueue", "options": ["rw", "suid", "relatime"]}, b"", (0, 0, 0, 0), 0),
        ({"type": "mqueue", "options": ["noatime", "rnosuid"]}, b"", (0x12, 0, 0, 0), 0),
        ({"type": "sysfs", "options": ["ro"]}, b"", (RO, 0, 0, 0), PLAIN_DIR),
        ({"type": "mqueue", "options": ["rro"]}, b"", (RO, 0, 0, 0), 0),
        ({"type": "ext4", "source": "/dev/vda", "options": ["ro"]}, b"ro\x00\x00", (RO, 0, 0, 1), 0),
        ({"type": "mqueue", "options": ["sync", "async", "x=1"]}, b"sync\0\0async\0\0x\x001\x00", (0, 0, 0, 3), 0),
        ({"type": "mqueue", "options": ["rslave", "shared"]}, b"", (0, 0, MS_SHARED, 0), 0),
        (
            {"type": "overlay", "options": ["lowerdir=/a:/b", "userxattr"]},
            b"lowerdir\0/a:/b\0userxattr\0\0",
            (0, 0, 0, 2),
            0,
        ),
    ],
)
def test_new_file_systems(
    lowered: Lower, entry: dict[str, Any], data: bytes, args: tuple[int, int, int, int], flags: int
) -> None:
    expected = mount("/mounts/0", entry["type"], "/d", entry.get("source", ""), data, args, flags)
    assert one(lowered, {"destination": "/d", **entry}) == expected


@pytest.mark.parametrize(
    ("entry", "at_once"),
    [
        ({"destination": "/t", "type": "tmpfs", "options": ["ro", "nosuid"]}, 2),
        ({"destination": "/t", "type": "tmpfs", "options": ["rro"]}, 0),
        ({"destination": "/dev/", "type": "devtmpfs", "options": ["ro"]}, 0),
        ({"destination": "/dev", "source": "/dev", "options": ["bind", "ro", "nosuid"]}, 2),
    ],
)
def test_mount_points_are_made_inside_before_it_is_read_only(
    lowered: Lower, entry: dict[str, Any], at_once: int
) -> None:
    result = lowered({"mounts": [entry], "root": {"path": "rootfs", "readonly": True}})
    place = entry["destination"].rstrip("/")
    assert result.setup[0].args[0] == at_once
    assert result.final == [
        op("attr", "/mounts/0", strings=(place,), args=(RO,)),
        op("attr", "/root/readonly", strings=("",), args=(RO,)),
    ]


def test_a_read_only_tmpfs_that_is_covered_later_is_read_only_at_once(lowered: Lower) -> None:
    tmpfs = {"destination": "/t", "type": "tmpfs", "options": ["ro"]}
    result = lowered({"mounts": [tmpfs, {"destination": "/t", "type": "bind", "source": "/srv/data"}]})
    assert result.setup[0].args[0] == RO
    assert result.final == []


def test_remount_changes_what_is_there(lowered: Lower) -> None:
    entry = {"destination": "/d", "options": ["remount", "bind", "rro", "nosuid"]}
    ops = [each for each in lowered({"mounts": [entry]}).setup if each.pointer]
    assert ops == [
        op("attr", "/mounts/0", strings=("/d",), args=(RO,), flags=RECURSIVE),
        op("attr", "/mounts/0", strings=("/d",), args=(2,)),
    ]


def test_remount_with_file_system_options(lowered: Lower) -> None:
    entry = {"destination": "/d", "type": "tmpfs", "options": ["remount", "size=1m", "sync", "nosuid"]}
    ops = [each for each in lowered({"mounts": [entry]}).setup if each.pointer]
    assert ops == [
        op("remount", "/mounts/0", strings=("", "/d", "", b"sync\0\0size\x001m\0"), args=(0, 0, 0, 2)),
        op("attr", "/mounts/0", strings=("/d",), args=(2,)),
    ]
    result = lowered({"mounts": [{"destination": "/d", "options": ["remount", "bind", "size=1m"]}]})
    assert not [each for each in result.setup if each.pointer]
    assert result.warnings == ["/mounts/0/options/2: 'size' means nothing to a bind mount, ignoring"]


@pytest.mark.parametrize("kind", [None, "none", "proc", "tmpfs"])
def test_remount_of_proc_brings_nothing_onto_it(lowered: Lower, kind: str | None) -> None:
    entry = {"destination": "/proc", "options": ["remount", "ro"]} | ({"type": kind} if kind else {})
    assert op("attr", "/mounts/0", strings=("/proc",), args=(RO,)) in lowered({"mounts": [entry]}).setup


@pytest.mark.parametrize(
    ("destination", "place"),
    [("//a/./b/../c/", "/a/c"), ("/../..", None), ("a/b", "/a/b"), ("/", None), ("", None), ("/x/..", None)],
)
def test_destinations_are_cleaned_lexically(lowered: Lower, destination: str, place: str | None) -> None:
    config = {"mounts": [{"destination": destination, "type": "tmpfs"}]}
    if place is None:
        with pytest.raises(ConfigError) as caught:
            lowered(config)
        assert caught.value.pointer == "/mounts/0/destination"
        return
    result = lowered(config)
    assert result.setup[0].strings[1] == place
    assert bool(result.warnings) is not destination.startswith("/")


@pytest.mark.parametrize("path", PROC_FILES)
def test_emulated_proc_files(lowered: Lower, path: str) -> None:
    assert one(lowered, {"destination": path, "type": "bind", "source": "/bundle/file"}).strings[1] == path


@pytest.mark.parametrize(
    "entry",
    [
        {"destination": "/proc", "type": "tmpfs"},
        {"destination": "/x/../proc/", "type": "sysfs"},
        {"destination": "/proc/self", "type": "bind", "source": "/srv/data"},
        {"destination": "/proc/sys", "type": "bind", "source": "/srv/data"},
        {"destination": "/proc/attr", "type": "tmpfs"},
        {"destination": "/proc/./stat/x", "type": "tmpfs"},
        {"destination": "/proc/net/dev", "type": "bind", "source": "/bundle/file"},
        {"destination": "/proc/self/attr", "options": ["remount", "ro"]},
    ],
)
def test_nothing_else_goes_onto_proc(lowered: Lower, entry: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        lowered({"mounts": [entry]})
    assert caught.value.pointer == "/mounts/0/destination"


def test_a_bind_over_proc_must_be_procfs(lowered: Lower) -> None:
    assert one(lowered, {"destination": "/proc", "source": "/proc", "options": ["rbind"]}) == bound(
        "/proc", "/proc", flags=HOST_TREE | PROCFS_SOURCE | PLAIN_DIR, recursive=True
    )
    assert one(lowered, {"destination": "/proc", "type": "proc"}).flags == PLAIN_DIR


@pytest.mark.parametrize(
    ("entry", "error", "pointer", "number"),
    [
        ({"type": "bind"}, ConfigError, "source", 0),
        ({"type": "bind", "source": "/missing"}, ConfigError, "source", errno.ENOENT),
        ({"source": "missing", "options": ["rbind"]}, ConfigError, "source", errno.ENOENT),
        ({"type": "bind", "source": "/forbidden/x"}, ConfigError, "source", errno.EACCES),
        ({"source": "/srv/data"}, ConfigError, "type", 0),
        ({"type": "bind", "source": "/srv/data", "options": ["tmpcopyup"]}, ConfigError, "options", 0),
        ({"type": "sysfs", "options": ["tmpcopyup"]}, ConfigError, "options", 0),
        ({"type": "tmpfs", "options": ["remount", "size=" + "1" * 256]}, ConfigError, "options/1", 0),
        ({"type": "tmpfs", "options": ["remount", "=1"]}, ConfigError, "options/1", 0),
    ],
)
def test_refused_mounts(
    lowered: Lower, entry: dict[str, Any], error: type[OCIError], pointer: str, number: int
) -> None:
    with pytest.raises(error) as caught:
        lowered({"mounts": [{"destination": "/a", "type": "tmpfs"}, {"destination": "/d", **entry}]})
    assert caught.value.pointer == f"/mounts/1/{pointer}"
    assert caught.value.errno == number


def test_a_missing_source_is_named(lowered: Lower) -> None:
    with pytest.raises(ConfigError) as caught:
        lowered({"mounts": [{"destination": "/d", "type": "bind", "source": "gone"}]})
    assert caught.value.path == "/bundle/gone"
    assert "no such file or directory" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "after", "host_tree"),
    [
        ("", None, HOST_TREE),
        ("shared", MS_SHARED, 0),
        ("rshared", MS_SHARED | MS_REC, 0),
        ("slave", MS_SLAVE, HOST_TREE),
        ("rslave", MS_SLAVE | MS_REC, HOST_TREE),
        ("private", MS_PRIVATE, HOST_TREE),
        ("rprivate", MS_PRIVATE, HOST_TREE),
        ("unbindable", MS_UNBINDABLE, HOST_TREE),
        ("runbindable", MS_UNBINDABLE | MS_REC, HOST_TREE),
    ],
)
def test_rootfs_propagation(lowered: Lower, name: str, after: int | None, host_tree: int) -> None:
    config: dict[str, Any] = {"mounts": [{"destination": "/d", "type": "bind", "source": "/srv/data"}]}
    if name:
        config["linux"] = {"rootfsPropagation": name}
    result = lowered(config)
    # the host is out of reach in any case
    assert result.propagation == [op("propagation", args=(MS_SLAVE | MS_REC,))]
    expected = [op("pivot")]
    if after is not None:
        expected.append(op("root_attr_propagation", "/linux/rootfsPropagation", args=(after,)))
    # from an unbindable root nothing could be bound for masked and read-only paths any more
    assert result.pivot + result.last == expected
    assert bool(result.last) == ("unbindable" in name)
    private = MS_PRIVATE | MS_REC if name in ("private", "rprivate") else 0
    assert result.setup[0] == bound("/d", "/srv/data", (0, 0, private, 0), host_tree)


def test_a_user_namespace_has_no_peers_on_the_host(lowered: Lower) -> None:
    spaces = [{"type": "mount"}, {"type": "user"}]
    mapping = [{"containerID": 0, "hostID": 1000, "size": 1}]
    linux = {"rootfsPropagation": "shared", "namespaces": spaces, "uidMappings": mapping, "gidMappings": mapping}
    result = lowered({"mounts": [{"destination": "/d", "type": "bind", "source": "/srv/data"}], "linux": linux})
    assert result.setup[0] == bound("/d", "/srv/data", (0, 0, 0, 0), HOST_TREE)


def test_a_bind_keeps_the_propagation_it_asks_for(lowered: Lower) -> None:
    entry = {"destination": "/d", "type": "bind", "source": "/srv/data", "options": ["rslave"]}
    result = lowered({"mounts": [entry], "linux": {"rootfsPropagation": "private"}})
    assert result.setup[0].args[2:] == (MS_SLAVE | MS_REC, 0)


@pytest.mark.parametrize("option", [":", ":=/etc", "::=/etc", ":a=/etc", "=/etc", "="])
def test_options_that_the_plan_has_for_itself(lowered: Lower, option: str) -> None:
    """They would be opened, and their fd be the value of the next one."""
    entry = {"destination": "/d", "type": "tmpfs", "options": [option, "size=1m"]}
    with pytest.raises(ConfigError, match="is no option of any file system") as caught:
        lowered({"mounts": [entry]})
    assert caught.value.pointer == "/mounts/0/options/0"


def test_unknown_propagation(lowered: Lower) -> None:
    with pytest.raises(ConfigError) as caught:
        lowered({"linux": {"rootfsPropagation": "loud"}})
    assert caught.value.pointer == "/linux/rootfsPropagation"


def test_no_pivot(lowered: Lower) -> None:
    assert lowered({}, no_pivot=True).pivot == [op("pivot", flags=NO_PIVOT)]
    with pytest.raises(ConfigError) as caught:
        lowered({"linux": {"rootfsPropagation": "rprivate"}}, no_pivot=True)
    assert caught.value.pointer == "/linux/rootfsPropagation"


def test_the_rootfs(lowered: Lower) -> None:
    result = lowered({"root": {"path": "/srv/data"}}, root_id=(8 << 32 | 1, 77))
    assert result.rootfs == [op("rootfs", "/root/path", strings=("/srv/data",), args=(8 << 32 | 1, 77))]


def test_without_a_mount_namespace(lowered: Lower) -> None:
    result = lowered({"mounts": [{"destination": "/proc", "type": "proc"}]}, kinds=())
    assert not result.mount_namespace
    assert result.propagation == []
    assert result.rootfs == [op("rootfs", "/root/path", strings=("/bundle/rootfs",), args=(0, 0), flags=NO_BIND)]
    assert result.pivot == [op("chroot", "/root/path", strings=("/bundle/rootfs",))]
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith("/mounts: ")


@pytest.mark.parametrize(
    ("fragment", "pointer"),
    [
        ({"linux": {"maskedPaths": ["/proc/kcore"]}}, "/linux/maskedPaths"),
        ({"linux": {"readonlyPaths": ["/proc/sys"]}}, "/linux/readonlyPaths"),
        ({"root": {"path": "x", "readonly": True}}, "/root/readonly"),
        ({"linux": {"rootfsPropagation": "shared"}}, "/linux/rootfsPropagation"),
    ],
)
def test_what_needs_a_mount_namespace(lowered: Lower, fragment: dict[str, Any], pointer: str) -> None:
    lowered(fragment)
    with pytest.raises(ConfigError) as caught:
        lowered(fragment, kinds=("pid",))
    assert caught.value.pointer == pointer
    assert "mount namespace" in caught.value.reason


@pytest.mark.parametrize(
    ("fragment", "pointer"),
    [
        ({"maskedPaths": ["/a", "proc/kcore"]}, "/linux/maskedPaths/1"),
        ({"readonlyPaths": ["a"]}, "/linux/readonlyPaths/0"),
        ({"maskedPaths": ["/a/.."]}, "/linux/maskedPaths/0"),
    ],
)
def test_refused_paths(lowered: Lower, fragment: dict[str, Any], pointer: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lowered({"linux": fragment})
    assert caught.value.pointer == pointer


def test_paths_once_each_and_empty_lists(lowered: Lower) -> None:
    result = lowered({"linux": {"maskedPaths": ["/a", "/b", "//a/", "/c/../b"], "readonlyPaths": []}})
    assert result.masked == [
        op("mask", "/linux/maskedPaths/0", strings=("/a",)),
        op("mask", "/linux/maskedPaths/1", strings=("/b",)),
    ]
    assert lowered({"linux": {"maskedPaths": []}}, kinds=()).masked == []


def test_dev_as_a_bind_is_left_alone(lowered: Lower) -> None:
    for destination in ("/dev", "/dev/", "//dev/."):
        entry = {"destination": destination, "source": "/dev", "options": ["rbind"]}
        result = lowered({"mounts": [entry]})
        assert [each.kind for each in result.setup] == ["bind"]
    assert len(lowered({"mounts": [{"destination": "/dev", "type": "tmpfs"}]}).setup) > 1


@pytest.mark.parametrize("host", [v2_host(in_userns=True), v2_host()])
def test_devices_where_nodes_cannot_be_made(lowered: Lower, host: Any) -> None:
    kinds = ("mount",) if host.in_userns else ("mount", "user")
    assert lowered({}, host=host, kinds=kinds).setup[0].kind == "device_bind"


def test_sysfs_of_a_network_namespace_that_is_not_the_containers(lowered: Lower) -> None:
    entry = {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "ro"]}
    assert one(lowered, entry, kinds=("mount", "user")) == bound(
        "/sys", "/sys", (3, 3, 0, 0), HOST_TREE | PLAIN_DIR, recursive=True
    )
    assert one(lowered, entry, kinds=("mount", "user", "network=/n")).kind == "bind"
    assert one(lowered, entry, kinds=("mount", "user=/u")).kind == "bind"
    own = tuple(f"{kind}=/proc/self/ns/{name}" for kind, name in (("user", "user"), ("network", "net")))
    assert one(lowered, entry, kinds=("mount", *own)).kind == "mount"
    assert one(lowered, entry, kinds=("mount", "user=/u", "network=/n")).kind == "mount"
    assert one(lowered, entry, kinds=("mount", "user", "network")).kind == "mount"
    assert one(lowered, entry, kinds=("mount",)).kind == "mount"


def test_procfs_of_a_pid_namespace_that_is_not_the_containers(lowered: Lower) -> None:
    entry = {"destination": "/proc", "type": "proc", "source": "proc"}
    assert one(lowered, entry, kinds=("mount", "user")) == bound(
        "/proc", "/proc", (0, 0, 0, 0), HOST_TREE | PLAIN_DIR | PROCFS_SOURCE, recursive=True
    )
    assert one(lowered, entry, kinds=("mount", "user=/u")).kind == "bind"
    assert one(lowered, entry, kinds=("mount", "user", "pid")).kind == "mount"
    assert one(lowered, entry, kinds=("mount",)).kind == "mount"


@pytest.mark.parametrize(("kind", "option"), [("devpts", "gid=5"), ("tmpfs", "uid=70000"), ("tmpfs", "gid=70000")])
def test_ids_of_options_must_be_mapped(lowered: Lower, kind: str, option: str) -> None:
    entry = {"destination": "/d", "type": kind, "options": ["nosuid", option]}
    ids = [{"containerID": 0, "hostID": 1000, "size": 1}]
    linux = {"uidMappings": ids, "gidMappings": ids}
    with pytest.raises(ConfigError) as caught:
        lowered({"mounts": [entry], "linux": linux}, kinds=("mount", "user"))
    assert caught.value.pointer == "/mounts/0/options/1"
    lowered({"mounts": [entry]})


def test_mount_label(lowered: Lower) -> None:
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    entries: list[dict[str, Any]] = [
        {"destination": f"/{kind}", "type": kind} for kind in ("tmpfs", "ext4", "proc", "sysfs", "mqueue")
    ]
    entries.append({"destination": "/own", "type": "tmpfs", "options": ["context=x"]})
    config = {"mounts": entries, "linux": {"mountLabel": label}}
    data = [each.strings[3] for each in lowered(config, selinux=True).setup[:6]]
    packed = f"context\0{label}\0".encode()
    assert data == [packed, packed, b"", b"", b"", b"context\0x\0"]
    assert lowered(config).setup[0].strings[3] == b""


def test_args_and_flags_fit_the_plan(lowered: Lower) -> None:
    entry = {"destination": "/d", "source": "/srv/data", "options": ["rbind", "rrw", "rstrictatime", "rw", "noatime"]}
    for each in lowered({"mounts": [entry]}).setup:
        assert len(each.args) <= 4
        assert len(each.strings) <= 4
        assert all(0 <= number < 1 << 64 for number in each.args)
        assert 0 <= each.flags < 1 << 16


def test_is_dir(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert paths.is_dir(str(tmp_path)) is True
    assert paths.is_dir(str(tmp_path / "file")) is False
    assert paths.is_dir(str(tmp_path / "missing")) is None
    assert paths.is_dir(str(tmp_path / "file" / "below")) is None
    with pytest.raises(OSError, match="too long"):
        paths.is_dir("/" + "x" * 5000)


def test_flag_numbers_are_the_plans() -> None:
    assert lower.RDONLY == plan.MOUNT_ATTR_RDONLY == RO
