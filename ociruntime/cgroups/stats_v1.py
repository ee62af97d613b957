"""Usage by cgroup v1; on a hybrid host, what only cgroup v2 counts from there. See ``stats``."""

import posix

from ociruntime.cgroups import stats, stats_v2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Which files say it depends on the I/O scheduler and on the kernel: the first set whose first file has entries.
_BLKIO_ALL = (
    ("sectors_recursive", "sectorsRecursive"),
    ("io_service_time_recursive", "ioServiceTimeRecursive"),
    ("io_wait_time_recursive", "ioWaitTimeRecursive"),
    ("io_merged_recursive", "ioMergedRecursive"),
    ("io_queued_recursive", "ioQueueRecursive"),
    ("time_recursive", "ioTimeRecursive"),
    ("io_serviced_recursive", "ioServicedRecursive"),
    ("io_service_bytes_recursive", "ioServiceBytesRecursive"),
)
_BLKIO_TWO = _BLKIO_ALL[-2:]
_BLKIO_FLAT = (("io_serviced", "ioServicedRecursive"), ("io_service_bytes", "ioServiceBytesRecursive"))
_BLKIO = (
    ("blkio.bfq.", _BLKIO_ALL),
    ("blkio.bfq.", _BLKIO_TWO),
    ("blkio.", _BLKIO_ALL),
    ("blkio.throttle.", _BLKIO_TWO),
    ("blkio.throttle.", _BLKIO_FLAT),
)
_MEMORY = (
    ("usage", "memory."),
    ("swap", "memory.memsw."),
    ("kernel", "memory.kmem."),
    ("kernelTCP", "memory.kmem.tcp."),
)


def sections(paths: "dict[str, str]", sizes: "list[str]") -> "list[tuple[str, Callable[[], dict[str, Any]]]]":
    """(key, what reads it) for every controller there is. paths: see ``Cgroup``; sizes: of huge pages."""
    unified = paths.get("", "")
    found: list[tuple[str, Callable[[], dict[str, Any]]]] = []
    if "cpuacct" in paths or "cpu" in paths:
        found.append(("cpu", lambda: cpu(paths.get("cpuacct", ""), paths.get("cpu", ""))))
    if "cpuset" in paths:
        found.append(("cpuset", lambda: stats.cpuset(_cpuset_reader(paths["cpuset"]))))
    if "memory" in paths:
        found.append(("memory", lambda: memory(paths["memory"])))
    if "pids" in paths:
        found.append(("pids", lambda: pids(paths["pids"])))
    elif unified:
        found.append(("pids", lambda: stats_v2.pids(unified)))
    if "blkio" in paths:
        found.append(("blkio", lambda: blkio(paths["blkio"])))
    if "hugetlb" in paths:
        found.append(("hugetlb", lambda: hugetlb(paths["hugetlb"], sizes)))
    elif unified:
        found.append(("hugetlb", lambda: stats_v2.hugetlb(unified, sizes)))
    return found


def cpu(accounting: str, quota: str) -> "dict[str, Any]":
    """cpu from cpuacct.* and the controller cpu's cpu.stat; a directory may be ""."""
    user: list[int] = []
    kernel: list[int] = []
    for line in stats.read(accounting + "/cpuacct.usage_all").split(b"\n")[1:]:
        words = line.split()
        if len(words) == 3:
            user.append(int(words[1]))
            kernel.append(int(words[2]))
    ticks = stats.pairs(stats.read(accounting + "/cpuacct.stat"))
    nanoseconds = 1_000_000_000 // posix.sysconf("SC_CLK_TCK")
    throttled = stats.pairs(stats.read(quota + "/cpu.stat"))
    return {
        "usage": {
            **stats.nonzero(
                total=stats.number(accounting + "/cpuacct.usage"),
                percpu=[int(word) for word in stats.read(accounting + "/cpuacct.usage_percpu").split()],
                percpu_kernel=kernel,
                percpu_user=user,
            ),
            "kernel": ticks.get("system", 0) * nanoseconds,
            "user": ticks.get("user", 0) * nanoseconds,
        },
        "throttling": stats.nonzero(
            periods=throttled.get("nr_periods"),
            throttledPeriods=throttled.get("nr_throttled"),
            throttledTime=throttled.get("throttled_time"),
        ),
    }


def _cpuset_reader(directory: str) -> "Callable[[str], bytes]":
    """Reads a file of cpuset by its short name, which is all of it where the hierarchy is mounted with noprefix."""
    return lambda name: stats.read(f"{directory}/cpuset.{name}") or stats.read(f"{directory}/{name}")


def memory(directory: str) -> "dict[str, Any]":
    """memory from memory.stat and four sets of files."""
    raw = stats.pairs(stats.read(directory + "/memory.stat"))
    result: dict[str, Any] = stats.nonzero(cache=raw.get("cache"))
    for name, prefix in _MEMORY:
        result[name] = stats.entry(
            stats.number(f"{directory}/{prefix}limit_in_bytes"),
            stats.number(f"{directory}/{prefix}usage_in_bytes"),
            stats.number(f"{directory}/{prefix}max_usage_in_bytes"),
            stats.number(f"{directory}/{prefix}failcnt"),
        )
    result.update(stats.nonzero(raw=raw))
    return result


def pids(directory: str) -> "dict[str, Any]":
    """pids from its two files; no limit is 0, which is left out."""
    return stats.nonzero(current=stats.number(directory + "/pids.current"), limit=stats.number(directory + "/pids.max"))


def blkio(directory: str) -> "dict[str, Any]":
    """blkio from the first set of files that has entries."""
    for prefix, members in _BLKIO:
        found: dict[str, list[dict[str, Any]]] = {}
        for file, member in members:
            entries = _block_entries(stats.read(f"{directory}/{prefix}{file}"))
            if not entries and not found:
                break
            found[member] = entries
        if found:
            return stats.nonzero(**found)
    return {}


def _block_entries(data: bytes) -> "list[dict[str, Any]]":
    """Lines "8:0 Read 512" or "8:0 512"; the grand total at the end has no device."""
    entries = []
    for line in data.decode("ascii", "replace").split("\n"):
        words = line.split()
        where = stats.device(words[0]) if words else None
        if where and len(words) in (2, 3) and words[-1].isdigit():
            entries.append(stats.block(where, words[1] if len(words) == 3 else "", int(words[-1])))
    return entries


def hugetlb(directory: str, sizes: "list[str]") -> "dict[str, Any]":
    """hugetlb per page size: reservations where they are counted, faults where not."""
    result = {}
    for size in sizes:
        prefix = f"{directory}/hugetlb.{size}."
        if not stats.read(prefix + "usage_in_bytes"):
            continue
        if stats.read(prefix + "rsvd.usage_in_bytes"):
            prefix += "rsvd."
        result[size] = {
            **stats.nonzero(
                usage=stats.number(prefix + "usage_in_bytes"), max=stats.number(prefix + "max_usage_in_bytes")
            ),
            "failcnt": stats.number(prefix + "failcnt"),
        }
    return result
