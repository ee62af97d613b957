"""mounts.options: (options -> attributes, propagation, parameters)."""

import pytest
from hypothesis import given, strategies as st

from ociruntime.mounts.options import ATIME, FLAGS, PROPAGATION, layers, names, parse, reduce_propagation
from ociruntime.plan import (
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
)

RO, ATIME_ALL = MOUNT_ATTR_RDONLY, MOUNT_ATTR__ATIME


@pytest.mark.parametrize(
    ("options", "set_", "clear"),
    [
        ([], 0, 0),
        (["ro"], RO, 0),
        (["rw"], 0, RO),
        (["ro", "rw"], 0, RO),
        (["rw", "ro"], RO, 0),
        (["nosuid", "nodev", "noexec"], MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 0),
        (["suid", "dev", "exec"], 0, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC),
        (["nodiratime"], MOUNT_ATTR_NODIRATIME, 0),
        (["diratime"], 0, MOUNT_ATTR_NODIRATIME),
        (["nosymfollow"], MOUNT_ATTR_NOSYMFOLLOW, 0),
        (["symfollow"], 0, MOUNT_ATTR_NOSYMFOLLOW),
        (["noatime"], MOUNT_ATTR_NOATIME, ATIME_ALL),
        (["strictatime"], MOUNT_ATTR_STRICTATIME, ATIME_ALL),
        (["relatime"], 0, ATIME_ALL),
        (["noatime", "strictatime"], MOUNT_ATTR_STRICTATIME, ATIME_ALL),
        (["strictatime", "relatime"], 0, ATIME_ALL),
        (["noatime", "atime"], 0, ATIME_ALL),
        (["strictatime", "nostrictatime"], 0, ATIME_ALL),
        (["noatime", "norelatime"], MOUNT_ATTR_NOATIME, ATIME_ALL),
        (["relatime", "norelatime"], 0, 0),
        (["defaults", "silent", "loud", "iversion", "noiversion"], 0, 0),
    ],
)
def test_attributes_of_this_mount(options: list[str], set_: int, clear: int) -> None:
    result = parse(options)
    assert (result.set, result.clear) == (set_, clear)
    assert (result.recursive_set, result.recursive_clear) == (0, 0)
    assert not result.data


@pytest.mark.parametrize(
    ("options", "recursive", "this"),
    [
        (["rro"], (RO, 0), (0, 0)),
        (["rrw"], (0, RO), (0, 0)),
        (["rnosuid", "rnodev"], (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0), (0, 0)),
        (["rsuid", "rdev", "rexec"], (0, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC), (0, 0)),
        (["rnoatime"], (MOUNT_ATTR_NOATIME, ATIME_ALL), (0, 0)),
        (["ratime"], (0, ATIME_ALL), (0, 0)),
        (["rstrictatime", "rrelatime"], (0, ATIME_ALL), (0, 0)),
        (["rrelatime", "rnorelatime"], (0, 0), (0, 0)),
        (["rnosymfollow", "rnodiratime"], (MOUNT_ATTR_NOSYMFOLLOW | MOUNT_ATTR_NODIRATIME, 0), (0, 0)),
        # recursive first, then this mount: the later option wins on this mount
        (["ro", "rro"], (RO, 0), (0, 0)),
        (["rw", "rro"], (RO, 0), (0, 0)),
        (["rro", "rw"], (RO, 0), (0, RO)),
        (["noatime", "rstrictatime"], (MOUNT_ATTR_STRICTATIME, ATIME_ALL), (0, 0)),
    ],
)
def test_recursive_attributes(options: list[str], recursive: tuple[int, int], this: tuple[int, int]) -> None:
    result = parse(options)
    assert (result.recursive_set, result.recursive_clear) == recursive
    assert (result.set, result.clear) == this
    assert not result.data


@pytest.mark.parametrize(
    ("options", "merged"),
    [
        (["rro"], (RO, 0)),
        (["rro", "rw"], (0, RO)),
        (["rnoatime"], (MOUNT_ATTR_NOATIME, ATIME_ALL)),
        (["rnoatime", "relatime"], (0, ATIME_ALL)),
        (["nosuid", "rro"], (RO | MOUNT_ATTR_NOSUID, 0)),
    ],
)
def test_a_new_file_system_is_a_tree_of_one_mount(options: list[str], merged: tuple[int, int]) -> None:
    result = parse(options)
    result.merge()
    assert (result.set, result.clear) == merged
    assert (result.recursive_set, result.recursive_clear) == (0, 0)


def test_everything_unknown_is_a_parameter_of_the_file_system() -> None:
    result = parse(["size=64k", "newinstance", "lowerdir=/a:/b=c", "relatimes", "rsync", "", "defaults"])
    assert result.data == [
        ("size", "64k", 0),
        ("newinstance", "", 1),
        ("lowerdir", "/a:/b=c", 2),
        ("relatimes", "", 3),
        ("rsync", "", 4),
    ]


def test_superblock_flags_and_words_for_the_runtime() -> None:
    result = parse(["sync", "nolazytime", "rbind", "tmpcopyup", "dest-nofollow", "copy-symlink"])
    assert result.superblock == ["sync", "nolazytime"]
    assert result.flags == {"rbind", "tmpcopyup", "dest-nofollow", "copy-symlink"}
    assert result.data == []


@pytest.mark.parametrize("key", ["context", "fscontext", "defcontext", "rootcontext"])
def test_labels_lose_the_quotes_that_only_a_comma_list_needs(key: str) -> None:
    assert parse([f'{key}="a:b:c:s0:c1,c2"']).data == [(key, "a:b:c:s0:c1,c2", 0)]
    assert parse([f"{key}=a:b"]).data == [(key, "a:b", 0)]


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ([], []),
        (["rprivate"], [MS_PRIVATE | MS_REC]),
        (["slave", "shared"], [MS_SLAVE, MS_SHARED]),
        (["shared", "private"], [MS_PRIVATE]),
        (["rshared", "private"], [MS_SHARED | MS_REC, MS_PRIVATE]),
        (["rshared", "rprivate"], [MS_PRIVATE | MS_REC]),
        (["rslave", "unbindable", "rslave"], [MS_UNBINDABLE, MS_SLAVE | MS_REC]),
        (["shared", "shared"], [MS_SHARED]),
        (["rshared", "rslave", "shared"], [MS_SLAVE | MS_REC, MS_SHARED]),
    ],
)
def test_propagation_in_order_without_what_later_values_undo(values: list[str], left: list[int]) -> None:
    assert parse(values).propagation == left


OPTION = st.sampled_from([*FLAGS, *ATIME, *("r" + name for name in (*FLAGS, *ATIME))])


@given(st.lists(OPTION, max_size=8))
def test_the_last_option_about_an_attribute_decides(options: list[str]) -> None:
    """Against the plain model: apply one option after the other to a top mount and to a mount below it."""
    start = MOUNT_ATTR_NOEXEC | MOUNT_ATTR_STRICTATIME | RO
    top = below = start
    for option in options:
        recursive = option[1:] in FLAGS or option[1:] in ATIME
        name = option[1:] if recursive else option
        bits, value = (ATIME_ALL, ATIME[name]) if name in ATIME else (FLAGS[name][0], FLAGS[name][0] * FLAGS[name][1])
        top = top & ~bits | value
        if recursive:
            below = below & ~bits | value
    result = parse(options)
    seen_below = start & ~result.recursive_clear | result.recursive_set
    assert seen_below == below
    assert seen_below & ~result.clear | result.set == top
    # mount_setattr(2) wants all or nothing of the enumeration in attr_clr
    for clear in (result.clear, result.recursive_clear):
        assert clear & ATIME_ALL in (0, ATIME_ALL)
    result.merge()
    assert start & ~result.clear | result.set == top


@given(st.lists(st.sampled_from(sorted(PROPAGATION.values())), max_size=6))
def test_at_most_two_propagation_values_and_the_last_is_kept(values: list[int]) -> None:
    kept = reduce_propagation(values)
    assert len(kept) <= 2
    assert kept[-1:] == values[-1:]


def test_the_names_for_the_features_document() -> None:
    known = names()
    assert known == sorted(set(known))
    assert {"ro", "rro", "rbind", "rnosymfollow", "rshared", "tmpcopyup", "defaults", "nolazytime"} <= set(known)
    assert {"idmap", "ridmap"} <= set(known)
    for name in known:
        assert parse([name]).data == [], name


@pytest.mark.parametrize(
    ("lowerdir", "expected"),
    [
        ("/a", [("", "/a")]),
        ("/a:/b", [("", "/a"), (":", "/b")]),
        ("/a:/b::/c::/d", [("", "/a"), (":", "/b"), ("::", "/c"), ("::", "/d")]),
        ("/a\\:b\\\\:/c\\", [("", "/a:b\\"), (":", "/c")]),
        (":/a", [("", ""), (":", "/a")]),
        ("", [("", "")]),
    ],
)
def test_layers(lowerdir: str, expected: "list[tuple[str, str]]") -> None:
    assert layers(lowerdir) == expected
