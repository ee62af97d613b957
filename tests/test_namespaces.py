"""namespaces.lower: (namespaces, mappings, offsets -> flags, joins, texts) and (fragment -> error pointer)."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from ociruntime import namespaces
from ociruntime.errors import ConfigError
from ociruntime.host import Host
from ociruntime.namespaces import Namespaces, check_joined, host_id, map_text, names, parse_map
from ociruntime.plan import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    op,
)


def mapping(container: int, outside: int, size: int) -> dict[str, int]:
    return {"containerID": container, "hostID": outside, "size": size}


SOME = [mapping(0, 100000, 65536)]
MAPS = {"uidMappings": SOME, "gidMappings": SOME}
USER = {"namespaces": [{"type": "user"}]}


def lower(linux: dict[str, Any], euid: int = 0) -> Namespaces:
    return namespaces.lower({"linux": linux}, Host(euid=euid, egid=euid and euid + 1))


def kinds(*entries: str) -> dict[str, Any]:
    """kinds("pid", "network=/path")."""
    parts = [entry.partition("=") for entry in entries]
    return {"namespaces": [{"type": kind, "path": path} if path else {"type": kind} for kind, _, path in parts]}


@pytest.mark.parametrize(
    ("linux", "flags", "cgroup", "time"),
    [
        ({}, 0, False, False),
        ({"namespaces": []}, 0, False, False),
        (kinds("mount"), CLONE_NEWNS, False, False),
        (
            kinds("pid", "network", "ipc", "uts", "mount"),
            CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS,
            False,
            False,
        ),
        ({**kinds("user", "pid"), **MAPS}, CLONE_NEWUSER | CLONE_NEWPID, False, False),
        (kinds("cgroup", "mount"), CLONE_NEWNS, True, False),
        (kinds("time", "mount"), CLONE_NEWNS, False, True),
        (kinds("cgroup=/c", "time=/t", "pid=/p", "uts"), CLONE_NEWUTS, False, False),
        ({"namespaces": [{"type": "ipc", "path": ""}]}, CLONE_NEWIPC, False, False),
    ],
)
def test_new_namespaces(linux: dict[str, Any], flags: int, cgroup: bool, time: bool) -> None:
    result = lower(linux)
    assert (result.clone_flags, result.unshare_cgroup, result.new_time) == (flags, cgroup, time)
    assert result.warnings == []


@pytest.mark.parametrize(
    ("euid", "outside", "later"), [(0, 1000, True), (0, 0, False), (1000, 1000, False), (1000, 5000, True)]
)
def test_ipc_is_made_by_the_containers_root(euid: int, outside: int, later: bool) -> None:
    maps = [mapping(0, outside, 10)]
    linux = {**kinds("user", "ipc"), "uidMappings": maps, "gidMappings": maps}
    result = namespaces.lower({"linux": linux}, Host(euid=euid, egid=euid))
    assert result.unshare_ipc == later
    assert bool(result.clone_flags & CLONE_NEWIPC) != later


def test_joined_ones_come_with_the_user_namespace_last() -> None:
    every = ("user", "mount", "time", "pid", "network", "uts", "ipc", "cgroup")
    result = lower(kinds(*(f"{kind}=/ns/{kind}" for kind in every)))
    assert result.joins == [
        (CLONE_NEWCGROUP, "/ns/cgroup", "/linux/namespaces/7/path"),
        (CLONE_NEWIPC, "/ns/ipc", "/linux/namespaces/6/path"),
        (CLONE_NEWUTS, "/ns/uts", "/linux/namespaces/5/path"),
        (CLONE_NEWNET, "/ns/network", "/linux/namespaces/4/path"),
        (CLONE_NEWPID, "/ns/pid", "/linux/namespaces/3/path"),
        (CLONE_NEWTIME, "/ns/time", "/linux/namespaces/2/path"),
        (CLONE_NEWNS, "/ns/mount", "/linux/namespaces/1/path"),
        (CLONE_NEWUSER, "/ns/user", "/linux/namespaces/0/path"),
    ]
    assert (result.clone_flags, result.unshare_cgroup, result.new_time) == (0, False, False)


def test_questions() -> None:
    result = lower(kinds("pid", "network=/n"))
    assert [(result.has(k), result.new(k), result.joined(k)) for k in ("pid", "network", "uts")] == [
        (True, True, ""),
        (True, False, "/n"),
        (False, False, ""),
    ]


@pytest.mark.parametrize(
    ("linux", "pointer"),
    [
        (kinds("pid", "uts", "pid"), "/linux/namespaces/2/type"),
        (kinds("pid", "pid=/p"), "/linux/namespaces/1/type"),
        (kinds("pid", "magic"), "/linux/namespaces/1/type"),
        (kinds("pid", "uts=proc/1/ns/uts"), "/linux/namespaces/1/path"),
        (USER, "/linux/uidMappings"),
        ({**USER, "uidMappings": SOME}, "/linux/gidMappings"),
        ({**USER, "uidMappings": SOME, "gidMappings": []}, "/linux/gidMappings"),
        ({**USER, **MAPS, "uidMappings": [mapping(0, 0, 0)]}, "/linux/uidMappings/0/size"),
        ({**USER, **MAPS, "gidMappings": [mapping(0, 1 << 31, (1 << 31) - 1), mapping(1 << 31, 0, 1)]}, None),
        ({**USER, **MAPS, "gidMappings": [mapping(0, 1 << 31, 1 << 31)]}, "/linux/gidMappings/0/hostID"),
        (
            {**USER, **MAPS, "gidMappings": [mapping(0, 0, 1), mapping((1 << 32) - 1, 1, 1)]},
            "/linux/gidMappings/1/containerID",
        ),
        ({**USER, **MAPS, "gidMappings": [mapping(1, 1 << 32, 1)]}, "/linux/gidMappings/0/hostID"),
        ({**USER, **MAPS, "gidMappings": [mapping(2, 1, (1 << 32) - 1)]}, "/linux/gidMappings/0/containerID"),
        ({**USER, **MAPS, "uidMappings": [mapping(0, 10, 5), mapping(4, 20, 1)]}, "/linux/uidMappings/1/containerID"),
        ({**USER, **MAPS, "uidMappings": [mapping(4, 20, 1), mapping(0, 10, 5)]}, "/linux/uidMappings/1/containerID"),
        ({**USER, **MAPS, "uidMappings": [mapping(0, 10, 5), mapping(5, 14, 1)]}, "/linux/uidMappings/1/hostID"),
        ({**USER, **MAPS, "uidMappings": [mapping(n, n, 1) for n in range(340)]}, None),
        ({**USER, **MAPS, "uidMappings": [mapping(n, n, 1) for n in range(341)]}, "/linux/uidMappings/340"),
        ({"timeOffsets": {"monotonic": {"secs": 1}}}, "/linux/timeOffsets"),
        ({**kinds("time=/t"), "timeOffsets": {"monotonic": {"secs": 1}}}, "/linux/timeOffsets"),
        ({**kinds("time"), "timeOffsets": {"realtime": {"secs": 1}}}, "/linux/timeOffsets"),
        ({**kinds("time"), "timeOffsets": {"boottime": {"nanosecs": 10**9}}}, "/linux/timeOffsets/boottime/nanosecs"),
        ({**kinds("time"), "timeOffsets": {"monotonic": {"secs": 1 << 62}}}, "/linux/timeOffsets/monotonic/secs"),
        ({**kinds("time"), "timeOffsets": {}}, None),
        ({"timeOffsets": {}}, None),
    ],
)
def test_refused(linux: dict[str, Any], pointer: str | None) -> None:
    if pointer is None:
        lower(linux)
        return
    with pytest.raises(ConfigError) as caught:
        lower(linux)
    assert caught.value.pointer == pointer


def test_maps_of_a_new_user_namespace() -> None:
    result = lower({**USER, "uidMappings": [mapping(0, 1000, 1), mapping(1, 100000, 9)], "gidMappings": SOME})
    assert map_text(result.uid_ranges or ()) == "0 1000 1\n1 100000 9\n"
    assert map_text(result.gid_ranges or ()) == "0 100000 65536\n"
    assert result.container_root() == (1000, 100000)
    assert result.maps("uid", 9)
    assert not result.maps("uid", 10)
    assert result.maps("gid", 65535)


@pytest.mark.parametrize(
    ("euid", "gids", "deny"),
    [
        (0, [mapping(0, 0, 1)], False),
        (1000, [mapping(0, 1001, 1)], True),
        (1000, [mapping(0, 1000, 1)], False),  # not the own group: newgidmap writes it
        (1000, SOME, False),
    ],
)
def test_setgroups_is_denied_only_for_an_unprivileged_single_id(
    euid: int, gids: list[dict[str, int]], deny: bool
) -> None:
    result = lower({**USER, "uidMappings": SOME, "gidMappings": gids}, euid)
    assert (result.deny_setgroups, result.groups_denied) == (deny, deny)


def test_groups_stay_denied_below_a_user_namespace_that_denies_them() -> None:
    host = Host(in_userns=True, groups_denied=True)
    for linux in ({**USER, "uidMappings": SOME, "gidMappings": SOME}, kinds("pid")):
        result = namespaces.lower({"linux": linux}, host)
        assert (result.deny_setgroups, result.groups_denied) == (False, True)


def test_a_map_of_a_page_or_more_is_refused() -> None:
    """user_namespaces(7): one write of less than a page, whatever the number of lines."""
    long = [mapping(0, 0, 1), *(mapping(1000000000 + n, 2000000000 + n, 1) for n in range(200))]
    for key in ("uidMappings", "gidMappings"):
        with pytest.raises(ConfigError, match="less than a page") as caught:
            lower({**USER, **MAPS, key: long})
        assert caught.value.pointer == f"/linux/{key}"
    assert len(lower({**USER, **MAPS, "uidMappings": long[:150]}).uid_ranges or ()) == 150


def test_mappings_without_a_user_namespace_are_reported() -> None:
    result = lower({**kinds("pid"), **MAPS})
    assert [text.split(":")[0] for text in result.warnings] == ["/linux/uidMappings", "/linux/gidMappings"]
    assert result.uid_ranges is None
    assert result.container_root() == (0, 0)


def test_mappings_beside_a_path() -> None:
    result = lower({**kinds("user=/u"), **MAPS})
    assert not result.new("user")
    same = "         0     100000      65536\n"
    assert len(check_joined(result, same, same)) == 2
    for uids, gids, pointer in (("0 0 1\n", same, "/linux/uidMappings"), (same, "", "/linux/gidMappings")):
        with pytest.raises(ConfigError) as caught:
            check_joined(result, uids, gids)
        assert caught.value.pointer == pointer
    joined = lower(kinds("user=/u"))
    assert check_joined(joined, same, same) == []
    assert joined.container_root() == (None, None)


def test_time_offsets() -> None:
    linux = {**kinds("time"), "timeOffsets": {"monotonic": {"secs": -5, "nanosecs": 7}, "boottime": {"secs": 86400}}}
    assert lower(linux).time_offsets == b"monotonic -5 7\nboottime 86400 0\n"
    assert lower(kinds("time")).time_offsets == b""


def test_names() -> None:
    config = {"hostname": "web", "domainname": "example.org"}
    for linux in (kinds("uts"), kinds("uts=/u")):
        assert names(config, lower(linux)) == [
            op("hostname", "/hostname", strings=("web",)),
            op("domainname", "/domainname", strings=("example.org",)),
        ]
    assert names({"hostname": ""}, lower({})) == []


@pytest.mark.parametrize(
    ("config", "linux", "pointer"),
    [
        ({"hostname": "web"}, kinds("pid"), "/hostname"),
        ({"domainname": "web"}, {}, "/domainname"),
        ({"hostname": "x" * 65}, kinds("uts"), "/hostname"),
        ({"hostname": "x" * 64, "domainname": "ü" * 33}, kinds("uts"), "/domainname"),
    ],
)
def test_refused_names(config: dict[str, Any], linux: dict[str, Any], pointer: str) -> None:
    with pytest.raises(ConfigError) as caught:
        names(config, lower(linux))
    assert caught.value.pointer == pointer


RANGE = st.tuples(st.integers(1, 60), st.integers(0, 60), st.integers(1, 20))


@given(st.lists(RANGE, min_size=1, max_size=5))
def test_accepted_mappings_are_one_to_one(ranges: list[tuple[int, int, int]]) -> None:
    """The kernel takes a map when no ID is in two lines, on either side; so do we, and host_id follows the lines."""
    inside = [container + n for container, _, size in ranges for n in range(size)]
    outside = [host + n for _, host, size in ranges for n in range(size)]
    fits = len(set(inside)) == len(inside) and len(set(outside)) == len(outside)
    ranges = [(0, 1000, 1), *ranges]  # the container's root must be there
    entries = [mapping(*each) for each in ranges]
    linux = {**USER, "uidMappings": entries, "gidMappings": entries}
    if not fits:
        with pytest.raises(ConfigError):
            lower(linux)
        return
    result = lower(linux)
    assert result.uid_ranges == tuple(ranges) == parse_map(map_text(result.uid_ranges or ()))
    pairs = dict(zip(inside, outside, strict=True))
    for number in range(1, 100):
        assert host_id(result.uid_ranges, number) == pairs.get(number)
