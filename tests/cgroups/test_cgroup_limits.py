"""Lowering of /linux/resources: (fragment -> writes) for both versions, and carrying the writes out."""

import errno
import math
import os
from pathlib import Path
from typing import Any

import pytest

from ociruntime.cgroups import files, limits, limits_v1, limits_v2
from ociruntime.cgroups.cgroup import NoCgroup
from ociruntime.cgroups.limits import CgroupWrite
from ociruntime.errors import ConfigError, OCIError, StepError, UnsupportedError

P = "/linux/resources"
ALL_V1 = ("cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "net_cls", "net_prio", "rdma")
ALL_V2 = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb", "rdma")
MEMSW = "memory.memsw.limit_in_bytes"


def pairs(writes: "list[CgroupWrite]") -> "list[tuple[str, str]]":
    return [(write.file, write.value) for write in writes]


# fragment, writes on v1, writes on v2; None: that version cannot do it and says so.
TABLE: "list[tuple[dict[str, Any], list[tuple[str, str]] | None, list[tuple[str, str]] | None]]" = [
    ({}, [], []),
    ({"memory": {}, "cpu": {}, "pids": {}, "blockIO": {}, "network": {}, "hugepageLimits": [], "rdma": {}}, [], []),
    # memory: B1, B2, B3
    ({"memory": {"limit": 4096}}, [("memory.limit_in_bytes", "4096")], [("memory.max", "4096")]),
    ({"memory": {"limit": 0, "swap": 0, "reservation": 0}}, [], []),
    (
        {"memory": {"limit": -1}},
        [(MEMSW, "-1"), ("memory.limit_in_bytes", "-1")],
        [("memory.swap.max", "max"), ("memory.max", "max")],
    ),
    (
        {"memory": {"limit": 4096, "swap": 8192}},
        [("memory.limit_in_bytes", "4096"), (MEMSW, "8192")],
        [("memory.swap.max", "4096"), ("memory.max", "4096")],
    ),
    (
        {"memory": {"limit": 4096, "swap": 4096}},
        [("memory.limit_in_bytes", "4096"), (MEMSW, "4096")],
        [("memory.swap.max", "0"), ("memory.max", "4096")],
    ),
    (
        {"memory": {"limit": 4096, "swap": -1}},
        [(MEMSW, "-1"), ("memory.limit_in_bytes", "4096")],
        [("memory.swap.max", "max"), ("memory.max", "4096")],
    ),
    ({"memory": {"swap": -1}}, [(MEMSW, "-1")], [("memory.swap.max", "max")]),
    (
        {"memory": {"limit": -1, "swap": 8192}},
        [("memory.limit_in_bytes", "-1"), (MEMSW, "8192")],
        [("memory.swap.max", "8192"), ("memory.max", "max")],
    ),
    ({"memory": {"reservation": 4096}}, [("memory.soft_limit_in_bytes", "4096")], [("memory.low", "4096")]),
    ({"memory": {"reservation": -1}}, [("memory.soft_limit_in_bytes", "-1")], [("memory.low", "max")]),
    ({"memory": {"swappiness": 0}}, [("memory.swappiness", "0")], None),
    ({"memory": {"disableOOMKiller": True}}, [("memory.oom_control", "1")], None),
    ({"memory": {"disableOOMKiller": False, "kernel": 5, "kernelTCP": 5, "useHierarchy": True}}, [], []),
    # cpu: B7 to B12
    ({"cpu": {"shares": 1024}}, [("cpu.shares", "1024")], [("cpu.weight", "100")]),
    ({"cpu": {"shares": 0, "quota": 0, "period": 0}}, [], []),
    (
        {"cpu": {"quota": 20000}},
        [("cpu.cfs_quota_us", "20000")],
        [("cpu.max", "20000 100000")],
    ),
    ({"cpu": {"quota": -1}}, [("cpu.cfs_quota_us", "-1")], [("cpu.max", "max 100000")]),
    ({"cpu": {"quota": -7}}, [("cpu.cfs_quota_us", "-1")], [("cpu.max", "max 100000")]),
    ({"cpu": {"period": 50000}}, [("cpu.cfs_period_us", "50000")], [("cpu.max", "max 50000")]),
    (
        {"cpu": {"quota": 20000, "period": 50000, "burst": 1000}},
        [("cpu.cfs_period_us", "50000"), ("cpu.cfs_burst_us", "1000"), ("cpu.cfs_quota_us", "20000")],
        [("cpu.max.burst", "1000"), ("cpu.max", "20000 50000")],
    ),
    ({"cpu": {"idle": 1, "shares": 512}}, [("cpu.idle", "1")], [("cpu.idle", "1")]),
    (
        {"cpu": {"idle": 0, "shares": 512}},
        [("cpu.idle", "0"), ("cpu.shares", "512")],
        [("cpu.idle", "0"), ("cpu.weight", "59")],
    ),
    (
        {"cpu": {"realtimePeriod": 1000, "realtimeRuntime": 900}},
        [("cpu.rt_period_us", "1000"), ("cpu.rt_runtime_us", "900")],
        None,
    ),
    ({"cpu": {"realtimePeriod": 0, "realtimeRuntime": 0}}, [], []),
    (
        {"cpu": {"cpus": "0-1", "mems": "0"}},
        [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
        [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
    ),
    # pids: B13
    ({"pids": {"limit": 7}}, [("pids.max", "7")], [("pids.max", "7")]),
    ({"pids": {"limit": -1}}, [("pids.max", "max")], [("pids.max", "max")]),
    ({"pids": {"limit": 0}}, [("pids.max", "1")], [("pids.max", "1")]),
    # blockIO: B14 to B16
    ({"blockIO": {"weight": 500}}, [("blkio.bfq.weight", "500")], [("io.bfq.weight", "500")]),
    ({"blockIO": {"weight": 0, "leafWeight": 0}}, [], []),
    (
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 10}]}},
        [("blkio.bfq.weight_device", "8:0 10")],
        [("io.bfq.weight", "8:0 10")],
    ),
    (
        {"blockIO": {"leafWeight": 300, "weightDevice": [{"major": 8, "minor": 16, "leafWeight": 20}]}},
        [("blkio.leaf_weight", "300"), ("blkio.leaf_weight_device", "8:16 20")],
        None,
    ),
    (
        {
            "blockIO": {
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 1, "rate": 2}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 3}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 4}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
            }
        },
        [
            ("blkio.throttle.read_bps_device", "8:0 1"),
            ("blkio.throttle.read_bps_device", "8:1 2"),
            ("blkio.throttle.write_bps_device", "8:0 3"),
            ("blkio.throttle.read_iops_device", "8:0 4"),
            ("blkio.throttle.write_iops_device", "8:0 0"),
        ],
        [
            ("io.max", "8:0 rbps=1"),
            ("io.max", "8:1 rbps=2"),
            ("io.max", "8:0 wbps=3"),
            ("io.max", "8:0 riops=4"),
            ("io.max", "8:0 wiops=max"),
        ],
    ),
    # hugepageLimits: B17
    (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 9}]},
        [("hugetlb.2MB.limit_in_bytes", "9"), ("hugetlb.2MB.rsvd.limit_in_bytes", "9")],
        [("hugetlb.2MB.max", "9"), ("hugetlb.2MB.rsvd.max", "9")],
    ),
    # network: B18
    (
        {"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]}},
        [("net_cls.classid", "1048577"), ("net_prio.ifpriomap", "eth0 5")],
        None,
    ),
    # rdma: B19
    (
        {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 0}, "m2": {"hcaObjects": 4}}},
        [("rdma.max", "mlx5_1 hca_handle=3 hca_object=0"), ("rdma.max", "m2 hca_object=4")],
        [("rdma.max", "mlx5_1 hca_handle=3 hca_object=0"), ("rdma.max", "m2 hca_object=4")],
    ),
    # unified: B20
    (
        {"unified": {"io.max": "8:0 rbps=1\n8:1 rbps=2\n", "cgroup.max.depth": "3"}, "pids": {"limit": 4}},
        None,
        [("pids.max", "4"), ("io.max", "8:0 rbps=1"), ("io.max", "8:1 rbps=2"), ("cgroup.max.depth", "3")],
    ),
    ({"unified": {}}, [], []),
    ({"unified": {"cpuset.cpus": ""}}, None, [("cpuset.cpus", "\n")]),
    ({"unified": {"memory.max": "", "io.max": "\n"}}, None, []),
]


@pytest.mark.parametrize(("fragment", "v1", "v2"), TABLE)
def test_table(fragment: "dict[str, Any]", v1: Any, v2: Any) -> None:
    for lower, available, expected in ((limits_v1.writes, ALL_V1, v1), (limits_v2.writes, ALL_V2, v2)):
        if expected is None:
            with pytest.raises(UnsupportedError) as caught:
                lower(fragment, available)
            assert caught.value.pointer.startswith(f"{P}/")
            continue
        assert pairs(lower(fragment, available)) == expected
        if expected and not any(file.startswith("cgroup.") for file, _value in expected):
            # Without any controller the same fragment is refused, and the field is named.
            with pytest.raises(UnsupportedError, match="does not offer") as caught:
                lower(fragment, ())
            assert caught.value.pointer.startswith(f"{P}/")


REFUSED: "list[tuple[dict[str, Any], str]]" = [
    ({"memory": {"limit": 8192, "swap": 4096}}, "/memory/swap"),
    ({"memory": {"limit": -2}}, "/memory/limit"),
    ({"memory": {"swappiness": 101}}, "/memory/swappiness"),
    ({"blockIO": {"weight": 9}}, "/blockIO/weight"),
    ({"blockIO": {"weight": 1}}, "/blockIO/weight"),
    ({"blockIO": {"weight": 1001}}, "/blockIO/weight"),
    ({"blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}}, "/blockIO/weightDevice/0"),
    ({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 5}]}}, "/blockIO/weightDevice/0/weight"),
    ({"hugepageLimits": [{"pageSize": "2M", "limit": 1}]}, "/hugepageLimits/0/pageSize"),
    ({"hugepageLimits": [{"pageSize": "../../x2MB", "limit": 1}]}, "/hugepageLimits/0/pageSize"),
    ({"hugepageLimits": [{"pageSize": "MB", "limit": 1}]}, "/hugepageLimits/0/pageSize"),
    ({"rdma": {"a/b": {}}}, "/rdma/a~1b"),
    ({"rdma": {"a b": {"hcaHandles": 1}}}, "/rdma/a b"),
]


@pytest.mark.parametrize(("fragment", "pointer"), REFUSED)
def test_bad_values_are_refused_by_both_versions(fragment: "dict[str, Any]", pointer: str) -> None:
    for lower, available in ((limits_v1.writes, ALL_V1), (limits_v2.writes, ALL_V2)):
        with pytest.raises(ConfigError) as caught:
            lower(fragment, available)
        assert caught.value.pointer == P + pointer


@pytest.mark.parametrize(
    ("fragment", "pointer"),
    [
        ({"memory": {"swap": 4096}}, "/memory/swap"),
        ({"unified": {"a/b.c": "1"}}, "/unified/a~1b.c"),
        ({"unified": {"nodot": "1"}}, "/unified/nodot"),
        ({"unified": {".hidden": "1"}}, "/unified/.hidden"),
        ({"unified": {"cgroup.procs": "1"}}, "/unified/cgroup.procs"),
        ({"unified": {"cgroup.threads": "1"}}, "/unified/cgroup.threads"),
        ({"unified": {"cgroup.kill": "1"}}, "/unified/cgroup.kill"),
        ({"unified": {"cgroup.freeze": "1"}}, "/unified/cgroup.freeze"),
        ({"unified": {"memory.pressure": "some 150000 1000000"}}, "/unified/memory.pressure"),
        ({"unified": {"memory.peak": "0"}}, "/unified/memory.peak"),
    ],
)
def test_bad_values_of_v2(fragment: "dict[str, Any]", pointer: str) -> None:
    with pytest.raises(ConfigError) as caught:
        limits_v2.writes(fragment, ALL_V2)
    assert caught.value.pointer == P + pointer


@pytest.mark.parametrize(
    ("fragment", "pointer"),
    [
        ({"memory": {"swappiness": 0}}, "/memory/swappiness"),
        ({"memory": {"disableOOMKiller": True}}, "/memory/disableOOMKiller"),
        ({"cpu": {"realtimePeriod": 1000}}, "/cpu/realtimePeriod"),
        ({"cpu": {"realtimeRuntime": 1000}}, "/cpu/realtimeRuntime"),
        ({"blockIO": {"leafWeight": 10}}, "/blockIO/leafWeight"),
        (
            {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 10}]}},
            "/blockIO/weightDevice/0/leafWeight",
        ),
        ({"network": {"classID": 1}}, "/network/classID"),
        ({"network": {"priorities": [{"name": "lo", "priority": 1}]}}, "/network/priorities"),
    ],
)
def test_each_field_that_v2_has_no_file_for(fragment: "dict[str, Any]", pointer: str) -> None:
    """Refused, and never passed over in silence, whatever stands beside it [X3]."""
    with pytest.raises(UnsupportedError, match="needs cgroup v1") as caught:
        limits_v2.writes(fragment, ALL_V2)
    assert caught.value.pointer == P + pointer
    assert limits_v1.writes(fragment, ALL_V1)


def test_net_prio_name_cannot_smuggle_a_second_line() -> None:
    with pytest.raises(ConfigError) as caught:
        limits_v1.writes({"network": {"priorities": [{"name": "a\nb", "priority": 1}]}}, ALL_V1)
    assert caught.value.pointer == f"{P}/network/priorities/0/name"


def test_pointers_and_flags() -> None:
    found = limits_v1.writes({"memory": {"limit": 1, "swap": 2}, "cpu": {"shares": 3}}, ALL_V1, pointer="/r")
    assert found == [
        CgroupWrite("/r/cpu/shares", "cpu", "cpu.shares", "3", verify=True),
        CgroupWrite("/r/memory/limit", "memory", "memory.limit_in_bytes", "1", defer=True),
        CgroupWrite("/r/memory/swap", "memory", MEMSW, "2"),
    ]
    (found_one,) = limits_v2.writes({"memory": {"limit": 1, "checkBeforeUpdate": True}}, ALL_V2)
    assert found_one.usage == "memory.current"
    swap = {value: limits_v2.writes({"memory": {"limit": 4, "swap": value}}, ALL_V2)[0] for value in (4, -1, 5)}
    assert [swap[value].missing_ok for value in (4, -1, 5)] == [True, True, False]
    assert found != [1]


def test_hybrid_takes_from_v2_what_v1_does_not_offer() -> None:
    fragment = {"hugepageLimits": [{"pageSize": "2MB", "limit": 9}], "pids": {"limit": 3}}
    found = limits_v1.writes(fragment, ("pids",), ("hugetlb",))
    assert pairs(found) == [("pids.max", "3"), ("hugetlb.2MB.max", "9"), ("hugetlb.2MB.rsvd.max", "9")]
    with pytest.raises(UnsupportedError):
        limits_v1.writes(fragment, ("pids",), ())


def test_weight_formula() -> None:
    assert [limits_v2.weight_of_shares(s) for s in (1, 2, 3, 1024, 262143, 262144, 10**9)] == [
        1,
        1,
        2,
        100,
        10000,
        10000,
        10000,
    ]
    for shares in [*range(3, 5000), *range(5000, 262144, 97)]:
        log = math.log2(shares)
        exact = 10.0 ** ((log * log + 125 * log) / 612.0 - 7.0 / 34.0)
        assert limits_v2.weight_of_shares(shares) == math.ceil(exact), shares
    assert [limits_v2.io_weight(w) for w in (10, 500, 1000)] == [1, 4950, 10000]


# Worked out with 60 digits.
WEIGHTS = {
    0: 1, 1: 1, 2: 1, 3: 2, 4: 2, 10: 4, 50: 10, 64: 12, 100: 17, 128: 21, 200: 29, 256: 35, 307: 40, 500: 58, 512: 59,
    700: 75, 819: 84, 1000: 99, 1024: 100, 1025: 101, 1500: 136, 2000: 170, 2048: 174, 4096: 303, 5000: 356, 8192: 532,
    10240: 639, 16384: 942, 32768: 1681, 65536: 3023, 100000: 4340, 131072: 5478, 200000: 7899, 262143: 10000,
    262144: 10000,
}  # fmt: skip
IO_WEIGHTS = {10: 1, 11: 11, 20: 102, 100: 910, 300: 2930, 500: 4950, 505: 5000, 999: 9989, 1000: 10000}


def test_known_pairs() -> None:
    assert {shares: limits_v2.weight_of_shares(shares) for shares in WEIGHTS} == WEIGHTS
    assert {weight: limits_v2.io_weight(weight) for weight in IO_WEIGHTS} == IO_WEIGHTS


@pytest.mark.parametrize(
    ("cpu", "v1", "v2"),
    [
        ({"quota": 1000}, ("1000", None), "1000 100000"),
        ({"quota": 150000, "period": 100000}, ("150000", "100000"), "150000 100000"),
        ({"quota": -1, "period": 0}, ("-1", None), "max 100000"),
        ({"quota": 0, "period": 1000}, (None, "1000"), "max 1000"),
        ({"period": 1000000}, (None, "1000000"), "max 1000000"),
        ({"quota": 0, "period": 0}, (None, None), None),
    ],
)
def test_quotas(cpu: "dict[str, int]", v1: "tuple[str | None, str | None]", v2: "str | None") -> None:
    found = dict(pairs(limits_v1.writes({"cpu": cpu}, ALL_V1)))
    assert (found.get("cpu.cfs_quota_us"), found.get("cpu.cfs_period_us")) == v1
    assert dict(pairs(limits_v2.writes({"cpu": cpu}, ALL_V2))).get("cpu.max") == v2


def test_obsolete_fields_are_told() -> None:
    told = limits.memory_warnings({"kernel": 1, "kernelTCP": 0, "useHierarchy": True, "limit": 3}, "/m")
    assert [text.split(":")[0] for text in told] == ["/m/kernel", "/m/useHierarchy"]


# -- perform


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("memory.limit_in_bytes", MEMSW, "cpu.shares", "pids.max", "blkio.weight", "memory.current"):
        (tmp_path / name).write_text("")
    return tmp_path


def perform(tree: Path, *writes: CgroupWrite) -> None:
    limits.perform(writes, lambda controller: str(tree))


def test_writes_reach_their_files(tree: Path) -> None:
    perform(tree, CgroupWrite("/p", "pids", "pids.max", "5"))
    assert (tree / "pids.max").read_text() == "5"


def test_missing_file_is_an_error_that_names_it(tree: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"hugetlb\.2MB\.max") as caught:
        perform(tree, CgroupWrite("/p", "hugetlb", "hugetlb.2MB.max", "5"))
    assert caught.value.pointer == "/p"
    (tree / "cgroup.controllers").write_text("cpu pids\n")
    with pytest.raises(UnsupportedError, match="controller memory"):
        perform(tree, CgroupWrite("/p", "memory", "memory.max", "5"))
    with pytest.raises(UnsupportedError, match="kernel"):
        perform(tree, CgroupWrite("/p", "pids", "pids.other", "5"))
    with pytest.raises(UnsupportedError, match="kernel"):
        perform(tree, CgroupWrite("/p", "cgroup", "cgroup.other", "5"))
    perform(tree, CgroupWrite("/p", "memory", "memory.swap.max", "0", missing_ok=True))
    assert not (tree / "memory.swap.max").exists()


def test_fallback_file(tree: Path) -> None:
    perform(tree, CgroupWrite("/p", "blkio", "blkio.bfq.weight", "5", fallback=("blkio.weight", "6")))
    assert (tree / "blkio.weight").read_text() == "6"


def test_neither_file(tree: Path) -> None:
    """A limit that goes nowhere is an error, and not silence."""
    (tree / "blkio.weight").unlink(missing_ok=True)
    with pytest.raises(UnsupportedError, match="blkio.bfq.weight") as caught:
        perform(tree, CgroupWrite("/p", "blkio", "blkio.bfq.weight", "5", fallback=("blkio.weight", "6")))
    assert caught.value.pointer == "/p"
    perform(tree, CgroupWrite("/p", "x", "x.a", "5", fallback=("x.b", "6"), missing_ok=True))


def test_read_back(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    perform(tree, CgroupWrite("/p", "cpu", "cpu.shares", "1024", verify=True))
    monkeypatch.setattr(files, "read", lambda path: b"262144\n")
    with pytest.raises(StepError, match="the maximum is 262144"):
        perform(tree, CgroupWrite("/p", "cpu", "cpu.shares", "999999", verify=True))
    with pytest.raises(StepError, match="the minimum is 262144"):
        perform(tree, CgroupWrite("/p", "cpu", "cpu.shares", "1", verify=True))


def test_limit_below_usage_is_refused(tree: Path) -> None:
    (tree / "memory.current").write_text("5000\n")
    write = CgroupWrite("/p", "memory", "memory.limit_in_bytes", "5000", usage="memory.current")
    with pytest.raises(StepError, match="5000 bytes"):
        perform(tree, write)
    assert (tree / "memory.limit_in_bytes").read_text() == ""


class Kernel:
    """memory.limit_in_bytes must not exceed memory.memsw.limit_in_bytes at any time."""

    def __init__(self, limit: int, memsw: int) -> None:
        self.values = {"memory.limit_in_bytes": limit, MEMSW: memsw}

    def write(self, path: str, *values: bytes) -> None:
        new = dict(self.values)
        new[os.path.basename(path)] = int(values[0]) if values[0] != b"-1" else 1 << 62
        if new["memory.limit_in_bytes"] > new[MEMSW]:
            raise OSError(errno.EINVAL, "no", path)
        self.values = new


@pytest.mark.parametrize("before", [(100, 200), (1 << 62, 1 << 62), (5, 6), (50, 1 << 62), (1000, 1000)])
@pytest.mark.parametrize("after", [(100, 200), (300, 400), (10, 20), (300, 300), (300, -1), (150, 180)])
def test_memory_and_swap_change_in_an_order_the_kernel_takes(
    before: "tuple[int, int]", after: "tuple[int, int]", monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(*before)
    monkeypatch.setattr(files, "write", kernel.write)
    found = limits_v1.writes({"memory": {"limit": after[0], "swap": after[1]}}, ALL_V1)
    limits.perform(found, lambda controller: "/x")
    assert kernel.values == {"memory.limit_in_bytes": after[0], MEMSW: after[1] if after[1] > 0 else 1 << 62}


@pytest.mark.parametrize(
    ("number", "controller", "hint"),
    [
        (errno.EBUSY, "memory", "5000 bytes are in use"),
        (errno.EACCES, "pids", "delegated"),
        (errno.EINVAL, "cpu", "out of range"),
        (errno.ENODEV, "blkio", "no such device"),
        (errno.EOPNOTSUPP, "memory", "threaded"),
        (errno.EINVAL, "cpuset", "the parent cgroup has cpus 0-3"),
        (errno.EBUSY, "cpuset", "a sub-cgroup"),
    ],
)
def test_refusals_carry_a_hint(
    tree: Path, monkeypatch: pytest.MonkeyPatch, number: int, controller: str, hint: str
) -> None:
    (tree / "memory.current").write_text("5000\n")
    (tree / "cpuset.cpus").write_text("0-3\n")
    (tree / "leaf").mkdir()
    if controller == "memory":
        (tree / "leaf" / "memory.current").write_text("5000\n")

    def refuse(path: str, *values: bytes) -> None:
        raise OSError(number, "no", path)

    monkeypatch.setattr(files, "write", refuse)
    with pytest.raises(StepError) as caught:
        limits.perform([CgroupWrite("/p", controller, "the.file", "7")], lambda name: str(tree / "leaf"))
    error: OCIError = caught.value
    assert (error.pointer, error.errno) == ("/p", number)
    assert error.path.endswith("/leaf/the.file")
    assert hint in error.hint


@pytest.mark.parametrize(
    ("file", "number", "hint"),
    [
        ("memory.limit_in_bytes", errno.EINVAL, "memory.memsw.limit_in_bytes is 900: change swap too"),
        ("memory.memsw.limit_in_bytes", errno.EINVAL, "memory.limit_in_bytes is 500: change limit too"),
        ("memory.swappiness", errno.EINVAL, "out of range"),
        ("cgroup.subtree_control", errno.EBUSY, "holds processes"),
        ("cgroup.type", errno.EOPNOTSUPP, ""),
    ],
)
def test_hints_of_one_file(tree: Path, monkeypatch: pytest.MonkeyPatch, file: str, number: int, hint: str) -> None:
    (tree / "memory.limit_in_bytes").write_text("500\n")
    (tree / "memory.memsw.limit_in_bytes").write_text("900\n")

    def refuse(path: str, *values: bytes) -> None:
        raise OSError(number, "no", path)

    monkeypatch.setattr(files, "write", refuse)
    with pytest.raises(StepError) as caught:
        perform(tree, CgroupWrite("/p", file.partition(".")[0], file, "7"))
    assert hint in caught.value.hint
    assert bool(hint) == bool(caught.value.hint)


def test_without_swap_accounting_no_file_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, *values: bytes) -> None:
        raise OSError(errno.EINVAL, "no", path)

    monkeypatch.setattr(files, "write", refuse)
    with pytest.raises(StepError) as caught:
        perform(tree, CgroupWrite("/p", "memory", "memory.limit_in_bytes", "7"))
    assert caught.value.hint.startswith("out of range")


def test_a_cgroup_that_has_gone(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="cgroup has gone") as caught:
        perform(tmp_path / "gone", CgroupWrite("/pids/limit", "pids", "pids.max", "5"))
    assert (caught.value.pointer, caught.value.errno) == ("/pids/limit", errno.ENOENT)
    assert caught.value.hint


def test_page_sizes_that_there_are(tree: Path) -> None:
    for name in ("hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "hugetlb.1GB.max", "hugetlb.1GB.events"):
        (tree / name).write_text("0")
    with pytest.raises(UnsupportedError) as caught:
        perform(tree, *limits.hugetlb([{"pageSize": "3MB", "limit": 1}], "/h", "max"))
    assert "pages of this machine: 1GB, 2MB" in caught.value.hint


@pytest.mark.parametrize("resources", [{"pids": {"limit": 5}}, {"unified": {"cgroup.max.depth": "3"}}])
def test_limits_without_a_cgroup(resources: "dict[str, Any]") -> None:
    with pytest.raises(UnsupportedError, match="a limit needs a cgroup, and the container has none") as caught:
        NoCgroup().lower(resources, P)
    assert caught.value.pointer.startswith(f"{P}/{next(iter(resources))}/")
    assert NoCgroup().lower({"pids": {}}, P) == []
