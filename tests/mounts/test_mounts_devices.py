"""mounts.devices: (devices -> ops) and (device -> error pointer)."""

from typing import Any

import pytest

from ociruntime import plan
from ociruntime.errors import ConfigError
from ociruntime.mounts import devices, paths
from ociruntime.plan import OPTIONAL, Op, op

CHR, BLK, FIFO = 0o020000, 0o060000, 0o010000


def run(entries: list[dict[str, Any]], mounted: tuple[str, ...] = ("/dev", "/dev/pts"), **more: Any) -> list[Op]:
    arguments: dict[str, Any] = {"dev_is_bind": False, "by_bind": False, "exists": lambda path: False}
    arguments |= {"host_node": lambda path, kind, number: path, **more}
    return devices.lower(entries, mounted, **arguments)


def node(path: str, mode: int, major: int, minor: int, pointer: str = "", owner: int = 0, kind: str = "device") -> Op:
    strings = (path, path) if kind == "device_bind" else (path,)
    return op(kind, pointer, strings=strings, args=(mode, major << 32 | minor, owner), flags=OPTIONAL)


DEFAULT_NODES = [
    node("/dev/null", CHR | 0o666, 1, 3),
    node("/dev/zero", CHR | 0o666, 1, 5),
    node("/dev/full", CHR | 0o666, 1, 7),
    node("/dev/random", CHR | 0o666, 1, 8),
    node("/dev/urandom", CHR | 0o666, 1, 9),
    node("/dev/tty", CHR | 0o666, 5, 0),
]
LINKS = [
    op("symlink", strings=("/dev/fd", "/proc/self/fd"), flags=OPTIONAL),
    op("symlink", strings=("/dev/stdin", "/proc/self/fd/0"), flags=OPTIONAL),
    op("symlink", strings=("/dev/stdout", "/proc/self/fd/1"), flags=OPTIONAL),
    op("symlink", strings=("/dev/stderr", "/proc/self/fd/2"), flags=OPTIONAL),
]
CORE = op("symlink", strings=("/dev/core", "/proc/kcore"), flags=OPTIONAL)
PTMX = op("symlink", strings=("/dev/ptmx", "pts/ptmx"))


def test_what_every_container_gets() -> None:
    assert run([]) == [*DEFAULT_NODES, *LINKS, PTMX]
    assert run([], exists=lambda path: path == "/proc/kcore") == [*DEFAULT_NODES, *LINKS, CORE, PTMX]


def test_ptmx_without_a_devpts() -> None:
    """It is there, as the specification wants, but leaves what the image or the config has at its place."""
    optional = op("symlink", strings=("/dev/ptmx", "pts/ptmx"), flags=plan.OPTIONAL)
    assert run([], mounted=("/dev",)) == [*DEFAULT_NODES, *LINKS, optional]
    ptmx = {"type": "c", "path": "/dev/ptmx", "major": 5, "minor": 2}
    assert optional not in run([ptmx], mounted=("/dev",))


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ({"type": "c", "path": "/dev/a", "major": 10, "minor": 229}, node("/dev/a", CHR | 0o666, 10, 229)),
        ({"type": "u", "path": "/dev/a", "major": 0, "minor": 0}, node("/dev/a", CHR | 0o666, 0, 0)),
        (
            {"type": "b", "path": "/dev/a", "major": 8, "minor": 1048575, "fileMode": 0o600},
            node("/dev/a", BLK | 0o600, 8, 1048575),
        ),
        # the type in fileMode is not the type of the device
        (
            {"type": "c", "path": "/dev/a", "major": 1, "minor": 1, "fileMode": 0o100640},
            node("/dev/a", CHR | 0o640, 1, 1),
        ),
        ({"type": "c", "path": "/dev/a", "major": 1, "minor": 1, "fileMode": 0}, node("/dev/a", CHR, 1, 1)),
        ({"type": "p", "path": "/dev/a"}, node("/dev/a", FIFO | 0o666, 0, 0)),
        ({"type": "p", "path": "/dev/a", "major": 8, "minor": 666}, node("/dev/a", FIFO | 0o666, 0, 0)),
        (
            {"type": "c", "path": "/x/../dev//a/", "major": 1, "minor": 1, "uid": 7, "gid": 9},
            node("/dev/a", CHR | 0o666, 1, 1, owner=7 << 32 | 9),
        ),
    ],
)
def test_one_device(device: dict[str, Any], expected: Op) -> None:
    expected.pointer = "/linux/devices/0"
    assert run([device])[0] == expected


@pytest.mark.parametrize(
    ("device", "pointer"),
    [
        ({"type": "a", "path": "/dev/a", "major": 1, "minor": 1}, "type"),
        ({"type": "c", "path": "dev/a", "major": 1, "minor": 1}, "path"),
        ({"type": "c", "path": "/dev/a", "minor": 1}, "major"),
        ({"type": "b", "path": "/dev/a", "major": 1}, "minor"),
        ({"type": "c", "path": "/dev/a", "major": -1, "minor": 1}, "major"),
        ({"type": "c", "path": "/dev/a", "major": 4096, "minor": 1}, "major"),
        ({"type": "c", "path": "/dev/a", "major": 1, "minor": 1048576}, "minor"),
    ],
)
def test_refused(device: dict[str, Any], pointer: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run([{"type": "p", "path": "/dev/first"}, device])
    assert caught.value.pointer == f"/linux/devices/1/{pointer}"


def test_one_path_twice() -> None:
    fuse = {"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229}
    assert len(run([fuse, {**fuse, "path": "/dev/./fuse"}])) == len(run([fuse]))
    with pytest.raises(ConfigError) as caught:
        run([fuse, {**fuse, "minor": 1}])
    assert caught.value.pointer == "/linux/devices/1/path"


def test_the_configs_entry_wins_over_a_default() -> None:
    null = {"type": "c", "path": "/dev/null", "major": 1, "minor": 3, "fileMode": 0o600}
    ops = run([null, {"type": "p", "path": "/dev/stdin"}])
    assert ops[0] == node("/dev/null", CHR | 0o600, 1, 3, "/linux/devices/0")
    assert [entry.strings[0] for entry in ops].count("/dev/null") == 1
    assert [entry.strings[0] for entry in ops].count("/dev/stdin") == 1


def test_a_mount_on_a_default_path_is_left_alone() -> None:
    places = [entry.strings[0] for entry in run([], mounted=("/dev/null", "/dev/fd", "/dev/ptmx", "/dev/pts"))]
    assert not {"/dev/null", "/dev/fd", "/dev/ptmx"} & set(places)


def test_dev_from_elsewhere_is_left_alone() -> None:
    entries = [
        {"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229},
        {"type": "c", "path": "/srv/null", "major": 1, "minor": 3},
    ]
    assert run(entries, dev_is_bind=True) == [node("/srv/null", CHR | 0o666, 1, 3, "/linux/devices/1")]


def test_ptmx_of_the_config_gives_way_to_the_containers_devpts() -> None:
    ptmx = {"type": "c", "path": "/dev/ptmx", "major": 5, "minor": 2}
    assert PTMX in run([ptmx])
    assert node("/dev/ptmx", CHR | 0o666, 5, 2, "/linux/devices/0") in run([ptmx], mounted=("/dev",))


def test_in_a_user_namespace_nodes_are_bound_and_fifos_made() -> None:
    ops = run(
        [{"type": "p", "path": "/dev/pipe"}, {"type": "b", "path": "/dev/sda", "major": 8, "minor": 0}], by_bind=True
    )
    assert ops[0].kind == "device"
    assert ops[1] == node("/dev/sda", BLK | 0o666, 8, 0, "/linux/devices/1", kind="device_bind")
    assert [entry.kind for entry in ops[2:8]] == ["device_bind"] * 6
    assert {entry.kind for entry in ops[8:]} == {"symlink"}


def test_the_hosts_node_may_have_another_name() -> None:
    entry = {"type": "c", "path": "/dev/none", "major": 1, "minor": 3}
    (found, *_) = run([entry], by_bind=True, host_node=lambda path, kind, number: f"{path} {kind:o} {number:x}")
    assert found.strings == ("/dev/none", "/dev/none 20000 100000003")


@pytest.mark.parametrize(
    ("path", "kind", "major", "minor", "found"),
    [
        ("/dev/null", CHR, 1, 3, "/dev/null"),
        ("/dev/other", CHR, 1, 3, "/dev/null"),
        ("/dev/zero", CHR, 1, 3, "/dev/null"),
        ("/dev/null", BLK, 1, 0xFFFFF, "/dev/null"),
        ("/dev/other", CHR, 1, 0xFFFFF, "/dev/other"),
    ],
)
def test_where_the_host_has_a_node(path: str, kind: int, major: int, minor: int, found: str) -> None:
    assert paths.host_node(path, kind, major << 32 | minor) == found


def test_numbers_fit_the_args() -> None:
    for entry in run([]):
        assert all(0 <= number < 1 << 64 for number in entry.args)
    assert plan.OPTIONAL == OPTIONAL
