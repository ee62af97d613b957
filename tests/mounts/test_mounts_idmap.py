"""mounts.idmap: the mapping of a mount, and who makes it."""

from typing import Any

import pytest

from ociruntime.errors import ConfigError, UnsupportedError
from ociruntime.mounts.options import parse
from ociruntime.plan import INHERIT_MODE, MAPPED, FdSource, IdMap, Op
from tests.mounts.conftest import Lower, v2_host

BIND = {"destination": "/d", "type": "bind", "source": "/srv/data"}
TMPFS = {"destination": "/d", "type": "tmpfs", "source": "tmpfs"}
OWN = IdMap()


def lists(*ranges: tuple[int, int, int]) -> dict[str, Any]:
    entries = [{"containerID": first, "hostID": outside, "size": size} for first, outside, size in ranges]
    return {"uidMappings": entries, "gidMappings": entries}


def made(lowered: Lower, entry: dict[str, Any], userns: bool = False, **more: Any) -> Op:
    """The op of one mount."""
    kinds = ("mount", "user") if userns else ("mount",)
    return lowered({"mounts": [entry], **more}, kinds=kinds).setup[0]


@pytest.mark.parametrize(
    ("more", "userns", "mapping"),
    [
        ({"options": ["idmap"]}, True, OWN),
        ({"options": ["ridmap"]}, True, IdMap(recursive=True)),
        ({"options": ["ridmap", "idmap"]}, True, OWN),
        ({"options": ["idmap", "ridmap"]}, True, IdMap(recursive=True)),
        (lists((0, 100000, 65536)), True, OWN),
        (lists((0, 7, 2)), True, IdMap(((0, 7, 2),), ((0, 7, 2),))),
        ({"options": ["ridmap"], **lists((0, 7, 2), (9, 1, 1))}, False, IdMap(*[((0, 7, 2), (9, 1, 1))] * 2, True)),
        ({"options": ["idmap=uids=0-1-10#10-11-20;gids=0-100-10"]}, False,
         IdMap(((0, 1, 10), (10, 11, 20)), ((0, 100, 10),))),
        ({"options": ["idmap=gids=3-0-1;uids=@5-1000-10"]}, True, IdMap(((5, 101000, 10),), ((3, 0, 1),))),
        ({"options": ["ridmap=uids=0-0-1;gids=0-0-1"]}, True, IdMap(((0, 0, 1),), ((0, 0, 1),), True)),
    ],
)  # fmt: skip
def test_mappings(lowered: Lower, more: dict[str, Any], userns: bool, mapping: IdMap) -> None:
    for entry in (BIND, TMPFS):
        source = made(lowered, {**entry, **more}, userns).fd
        assert source is not None
        assert repr(source.idmap) == repr(mapping)


def test_without(lowered: Lower) -> None:
    assert made(lowered, {**TMPFS, "uidMappings": [], "gidMappings": []}).fd is None
    source = made(lowered, BIND, True).fd
    assert source is not None
    assert source.idmap is None


def test_relative_mappings_are_cut_where_the_containers_are(lowered: Lower) -> None:
    maps = lists((0, 1000, 1), (1, 200000, 9), (10, 500, 5))
    option = "idmap=uids=@0-0-12;gids=@4-9-1"
    linux = {"namespaces": [{"type": "mount"}, {"type": "user"}], **maps}
    source = made(lowered, {**BIND, "options": [option]}, linux=linux).fd
    assert source is not None
    assert source.idmap is not None
    assert source.idmap.uids == ((0, 1000, 1), (1, 200000, 9), (10, 500, 2))
    assert source.idmap.gids == ((4, 200008, 1),)


def test_a_new_file_system_comes_from_the_parent(lowered: Lower) -> None:
    """The parameters go with its source; what the init process adds stays in the op."""
    entry = {**TMPFS, "options": ["idmap", "nosuid", "size=1m", "uid=77777", "noswap"]}
    found = made(lowered, entry, True)
    assert found.fd == FdSource(
        "filesystem",
        "tmpfs",
        idmap=OWN,
        parameters=[("source", "tmpfs"), ("size", "1m"), ("uid", "77777"), ("noswap", "")],
    )
    assert (found.strings, found.args, found.flags) == (("tmpfs", "/d", "tmpfs", b""), (2, 0, 0, 0), INHERIT_MODE)


def test_a_joined_user_namespace_may_have_any_mapping(lowered: Lower) -> None:
    linux: dict[str, Any] = {"namespaces": [{"type": "mount"}, {"type": "user", "path": "/proc/1/ns/user"}]}
    source = made(lowered, {**BIND, "options": ["idmap"]}, linux=linux).fd
    assert source is not None
    assert repr(source.idmap) == repr(OWN)
    with pytest.raises(ConfigError, match="'@' needs the mappings"):
        made(lowered, {**BIND, "options": ["idmap=uids=@0-0-1;gids=@0-0-1"]}, linux=linux)


UID_LIST = [{"containerID": 0, "hostID": 1, "size": 1}]


@pytest.mark.parametrize(
    ("entry", "pointer", "words"),
    [
        ({"options": ["idmap"]}, "options/0", "needs mappings"),
        ({"options": ["ro", "ridmap"]}, "options/1", "needs mappings"),
        ({"uidMappings": UID_LIST}, "uidMappings", "must come with gidMappings"),
        ({"options": ["idmap"], "gidMappings": UID_LIST}, "gidMappings", "must come with uidMappings"),
        ({"options": ["idmap=uids=0-0-1;gids=0-0-1"], **lists((0, 1, 1))}, "options/0", "in the option and"),
        ({"options": ["idmap=uids=0-0-1"]}, "options/0", "come together"),
        ({"options": ["idmap=uids=0-0-1;uids=0-0-1"]}, "options/0", "'uids=0-0-1' is no mapping"),
        ({"options": ["idmap=pids=0-0-1"]}, "options/0", "'pids=0-0-1' is no mapping"),
        ({"options": ["idmap=uids=;gids="]}, "options/0", "'' is no mapping"),
        ({"options": ["idmap=uids=0-0-1-;gids=0-0-1"]}, "options/0", "'0-0-1-' is no mapping"),
        ({"options": ["idmap=uids=0-+0-1;gids=0-0-1"]}, "options/0", "is no mapping"),
        ({"options": ["idmap=uids=0-0-0;gids=0-0-1"]}, "options/0", "uids: mapping 0/size: a mapping must hold"),
        ({"options": ["idmap=uids=0-0-1;gids=@0-0-1"]}, "options/0", "'@' needs"),
        ({"options": [f"idmap=uids={1 << 32}-0-1;gids=0-0-1"]}, "options/0", "beyond 32 bits"),
        (lists((0, 1, 2), (1, 9, 1)), "uidMappings/1/containerID", "overlaps with mapping 0"),
        ({"options": ["remount"], **lists((0, 1, 1))}, "uidMappings", "there already"),
        *(({"type": kind, **lists((0, 1, 1))}, "uidMappings", f"'{kind}'") for kind in ("proc", "sysfs", "cgroup")),
    ],
)
def test_refused(lowered: Lower, entry: dict[str, Any], pointer: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        made(lowered, {**TMPFS, **entry})
    assert caught.value.pointer == f"/mounts/0/{pointer}"


def test_relative_mappings_must_be_mapped(lowered: Lower) -> None:
    with pytest.raises(ConfigError, match="65536 is not mapped") as caught:
        made(lowered, {**BIND, "options": ["idmap=uids=@0-65530-10;gids=@0-0-1"]}, True)
    assert caught.value.pointer == "/mounts/0/options/0"


USER = v2_host(euid=1000)


def test_binds_of_ordinary_users_are_for_the_kernel_to_refuse(lowered: Lower) -> None:
    """The parent tries, and names the file system."""
    found = lowered({"mounts": [{**BIND, "options": ["idmap"]}]}, kinds=("mount", "user"), host=USER).setup[0]
    assert repr(found.fd) == repr(made(lowered, {**BIND, "options": ["idmap"]}, True).fd)


@pytest.mark.parametrize("more", [{"options": ["idmap"]}, lists((0, 100000, 65536))])
def test_new_file_systems_of_ordinary_users_have_the_containers_ids(lowered: Lower, more: dict[str, Any]) -> None:
    found = lowered({"mounts": [{**TMPFS, **more}]}, kinds=("mount", "user"), host=USER).setup[0]
    assert (found.fd, found.flags & MAPPED) == (None, 0)


def test_mappings_of_new_file_systems_of_ordinary_users(lowered: Lower) -> None:
    """They become the container's IDs: the mapping is a child of its user namespace."""
    linux = {"namespaces": [{"type": "mount"}, {"type": "user"}], **lists((0, 1000, 1), (1, 200000, 9))}
    entry = {**TMPFS, "options": ["size=1m"], **lists((3, 200004, 2), (7, 1000, 1))}
    found = lowered({"mounts": [entry], "linux": linux}, host=USER).setup[0]
    ranges = ((3, 5, 2), (7, 0, 1))
    assert found.fd == FdSource("userns", "tmpfs", idmap=IdMap(ranges, ranges))
    assert (found.strings[3], found.flags) == (b"size\x001m\0", INHERIT_MODE | MAPPED)
    for more, pointer in (
        (lists((0, 1000, 1), (5, 200009, 1)), "uidMappings/1/hostID"),
        ({"options": ["ro", "idmap=uids=0-1000-1;gids=0-5-1"]}, "options/1"),
    ):
        with pytest.raises(ConfigError, match="is not a host ID of|is not mapped in") as caught:
            lowered({"mounts": [{**TMPFS, **more}], "linux": linux}, host=USER)
        assert caught.value.pointer == f"/mounts/0/{pointer}"


@pytest.mark.parametrize("known", [{}, lists((0, 1000, 1), (1, 200000, 9))])
def test_mappings_in_a_joined_user_namespace_of_ordinary_users(lowered: Lower, known: dict[str, Any]) -> None:
    """Also with the mappings that it has: who is root there could reach the process that makes another one."""
    linux = {"namespaces": [{"type": "mount"}, {"type": "user", "path": "/proc/1/ns/user"}], **known}
    with pytest.raises(UnsupportedError) as caught:
        lowered({"mounts": [{**TMPFS, **lists((0, 1, 1))}], "linux": linux}, host=USER)
    assert caught.value.pointer == "/mounts/0/uidMappings"
    assert lowered({"mounts": [{**TMPFS, "options": ["idmap"]}], "linux": linux}, host=USER).setup[0].fd is None


def test_the_last_option_counts() -> None:
    assert parse(["idmap=uids=1", "rbind", "ridmap=uids=2"]).idmap == ("ridmap", "uids=2", 2)
    assert parse(["bind"]).idmap is None
