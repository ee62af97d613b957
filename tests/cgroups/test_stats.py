"""Usage of a container from fake cgroup trees."""

from pathlib import Path
from typing import Any

import pytest

from ociruntime.cgroups import manager, stats
from ociruntime.errors import StepError


def tree(top: Path, files: "dict[str, str]") -> None:
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(content)


V1 = {
    "cpu/cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 900\nnr_bursts 0\n",
    "cpuacct/cpuacct.usage": "5000\n",
    "cpuacct/cpuacct.usage_percpu": "3000 2000 \n",
    "cpuacct/cpuacct.usage_all": "cpu user system\n0 1000 2000\n1 500 1500\n",
    "cpuacct/cpuacct.stat": "user 3\nsystem 4\n",
    "cpuset/cpuset.cpus": "0-2,5\n",
    "cpuset/cpuset.mems": "0\n",
    "cpuset/cpuset.sched_load_balance": "1\n",
    "cpuset/cpuset.sched_relax_domain_level": "-1\n",
    "memory/memory.stat": "cache 4096\nrss 0\n",
    "memory/memory.usage_in_bytes": "8192\n",
    "memory/memory.max_usage_in_bytes": "16384\n",
    "memory/memory.limit_in_bytes": "65536\n",
    "memory/memory.failcnt": "7\n",
    "memory/memory.memsw.limit_in_bytes": "131072\n",
    "pids/pids.current": "3\n",
    "pids/pids.max": "max\n",
    "blkio/blkio.bfq.io_serviced_recursive": "",
    "blkio/blkio.throttle.io_serviced_recursive": "8:0 Read 3\n8:0 Write 0\n8:0 Total 3\nTotal 3\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": "8:0 Read 512\nTotal 512\n",
    "hugetlb/hugetlb.2MB.usage_in_bytes": "0\n",
    "hugetlb/hugetlb.2MB.max_usage_in_bytes": "0\n",
    "hugetlb/hugetlb.2MB.failcnt": "1\n",
    "hugetlb/hugetlb.2MB.rsvd.usage_in_bytes": "2097152\n",
    "hugetlb/hugetlb.2MB.rsvd.max_usage_in_bytes": "4194304\n",
    "hugetlb/hugetlb.2MB.rsvd.failcnt": "6\n",
    "pages/hugepages-2048kB/x": "",
    "pages/hugepages-1048576kB/x": "",
}
V2 = {
    "cpu.stat": "usage_usec 50\nuser_usec 20\nsystem_usec 30\nnr_periods 4\nnr_throttled 1\nthrottled_usec 9\n",
    "cpu.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "cpuset.cpus": "\n",
    "memory.stat": "anon 10\nfile 4096\nsock 5\nkernel 300\n",
    "memory.current": "8192\n",
    "memory.peak": "9000\n",
    "memory.max": "65536\n",
    "memory.swap.current": "100\n",
    "memory.swap.max": "1000\n",
    "memory.events": "low 0\nhigh 0\nmax 11\noom 1\noom_kill 1\n",
    "pids.current": "3\n",
    "pids.max": "50\n",
    "io.stat": "8:0 rbytes=512 wbytes=0 rios=3 wios=0 dbytes=9 dios=9\n",
    "hugetlb.2MB.current": "0\n",
    "hugetlb.2MB.events": "max 4\n",
    "hugetlb.2MB.rsvd.current": "2097152\n",
    "pages/hugepages-2048kB/x": "",
}


def collect(top: Path, mode: str, *, rootless: bool = False) -> "dict[str, Any]":
    names = ("cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb")
    paths = {"": str(top)} if mode == "v2" else {name: str(top / name) for name in names if (top / name).exists()}
    cgroup = manager.from_state({"mode": mode, "paths": paths, "made": [], "rootless": rootless})
    return stats.collect(cgroup, str(top / "pages"))


def test_v1(tmp_path: Path) -> None:
    tree(tmp_path, V1)
    data = collect(tmp_path, "v1")
    assert data["cpu"] == {
        "usage": {
            "total": 5000,
            "percpu": [3000, 2000],
            "percpu_kernel": [2000, 1500],
            "percpu_user": [1000, 500],
            "kernel": 40_000_000,
            "user": 30_000_000,
        },
        "throttling": {"periods": 5, "throttledPeriods": 2, "throttledTime": 900},
    }
    assert data["cpuset"] == {
        "cpus": [0, 1, 2, 5],
        "mems": [0],
        "cpu_exclusive": 0,
        "mem_hardwall": 0,
        "mem_exclusive": 0,
        "memory_migrate": 0,
        "memory_spread_page": 0,
        "memory_spread_slab": 0,
        "memory_pressure": 0,
        "sched_load_balance": 1,
        "sched_relax_domain_level": -1,
    }
    assert data["memory"] == {
        "cache": 4096,
        "usage": {"limit": 65536, "usage": 8192, "max": 16384, "failcnt": 7},
        "swap": {"limit": 131072, "failcnt": 0},
        "kernel": {"limit": 0, "failcnt": 0},
        "kernelTCP": {"limit": 0, "failcnt": 0},
        "raw": {"cache": 4096, "rss": 0},
    }
    assert data["pids"] == {"current": 3}
    assert data["blkio"] == {
        "ioServicedRecursive": [
            {"major": 8, "op": "Read", "value": 3},
            {"major": 8, "op": "Write"},
            {"major": 8, "op": "Total", "value": 3},
        ],
        "ioServiceBytesRecursive": [{"major": 8, "op": "Read", "value": 512}],
    }
    assert data["hugetlb"] == {"2MB": {"usage": 2097152, "max": 4194304, "failcnt": 6}}


def test_v2(tmp_path: Path) -> None:
    tree(tmp_path, V2)
    data = collect(tmp_path, "v2")
    zero = {"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 0}
    assert data["cpu"] == {
        "usage": {"total": 50_000, "kernel": 30_000, "user": 20_000},
        "throttling": {"periods": 4, "throttledPeriods": 1, "throttledTime": 9000},
        "psi": {"some": {**zero, "avg10": 1.5, "total": 77}, "full": zero},
    }
    assert "cpus" not in data["cpuset"]
    assert data["memory"] == {
        "cache": 4096,
        "usage": {"limit": 65536, "usage": 8192, "max": 9000, "failcnt": 11},
        "swap": {"limit": 66536, "usage": 8292, "failcnt": 0},
        "kernel": {"limit": 0, "usage": 300, "failcnt": 0},
        "kernelTCP": {"limit": 0, "usage": 5, "failcnt": 0},
        "raw": {"anon": 10, "file": 4096, "sock": 5, "kernel": 300},
    }
    assert data["pids"] == {"current": 3, "limit": 50}
    assert data["blkio"] == {
        "ioServiceBytesRecursive": [{"major": 8, "op": "Read", "value": 512}, {"major": 8, "op": "Write"}],
        "ioServicedRecursive": [{"major": 8, "op": "Read", "value": 3}, {"major": 8, "op": "Write"}],
    }
    assert data["hugetlb"] == {"2MB": {"usage": 2097152, "failcnt": 4}}


def test_v2_without_limits(tmp_path: Path) -> None:
    """max is 2**64 - 1, as engines expect."""
    tree(tmp_path, {"memory.current": "1\n", "memory.max": "max\n", "memory.swap.max": "0\n", "pids.max": "max\n"})
    (tmp_path / "cgroup.procs").write_text("5\n6\n")
    data = collect(tmp_path, "v2")
    assert data["memory"]["usage"]["limit"] == data["memory"]["swap"]["limit"] == (1 << 64) - 1
    assert data["pids"] == {"current": 2}


def test_nothing_is_there(tmp_path: Path) -> None:
    """What is not counted here is left out; the document keeps its form."""
    assert collect(tmp_path, "v2") == stats.empty()
    assert collect(tmp_path, "v1") == stats.empty()


def test_v2_counts_what_no_v1_hierarchy_does(tmp_path: Path) -> None:
    tree(tmp_path, {f"unified/{name}": content for name, content in V2.items()})
    (tmp_path / "unified/pages").rename(tmp_path / "pages")
    cgroup = manager.from_state(
        {"mode": "hybrid", "paths": {"": str(tmp_path / "unified")}, "made": [], "rootless": False}
    )
    data = stats.collect(cgroup, str(tmp_path / "pages"))
    assert data["hugetlb"] == {"2MB": {"usage": 2097152, "failcnt": 4}}
    assert data["pids"] == {"current": 3, "limit": 50}
    assert data["cpu"] == stats.empty()["cpu"]


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error is one, except for a rootless runtime: that goes without."""
    tree(tmp_path, V2)

    def refuse(path: str) -> bytes:
        if path.endswith("memory.stat"):
            raise PermissionError(13, "", path)
        return Path(path).read_bytes() if Path(path).exists() else b""

    monkeypatch.setattr("ociruntime.cgroups.files.read", refuse)
    with pytest.raises(StepError, match="memory"):
        collect(tmp_path, "v2")
    assert collect(tmp_path, "v2", rootless=True)["memory"] == stats.empty()["memory"]


@pytest.mark.parametrize(("text", "expected"), [("0-2,5", [0, 1, 2, 5]), ("", []), ("7", [7]), ("1-1", [1])])
def test_lists(text: str, expected: "list[int]") -> None:
    assert stats.numbers(text) == expected


def test_page_sizes(tmp_path: Path) -> None:
    for kilobytes in (64, 2048, 1048576, 16777216):
        (tmp_path / f"hugepages-{kilobytes}kB").mkdir()
    assert sorted(stats.page_sizes(str(tmp_path))) == ["16GB", "1GB", "2MB", "64KB"]
    assert stats.page_sizes(str(tmp_path / "none")) == []
