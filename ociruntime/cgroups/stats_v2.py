"""Usage by cgroup v2. See ``stats``."""

from ociruntime.cgroups import stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_IO = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}


def sections(directory: str, sizes: "list[str]") -> "list[tuple[str, Callable[[], dict[str, Any]]]]":
    """(key, what reads it). sizes: of huge pages."""
    return [
        ("cpu", lambda: cpu(directory)),
        ("cpuset", lambda: stats.cpuset(lambda name: stats.read(f"{directory}/cpuset.{name}"))),
        ("memory", lambda: memory(directory)),
        ("pids", lambda: pids(directory)),
        ("blkio", lambda: io(directory)),
        ("hugetlb", lambda: hugetlb(directory, sizes)),
    ]


def cpu(directory: str) -> "dict[str, Any]":
    """cpu from cpu.stat, whose times are in us."""
    found = stats.pairs(stats.read(directory + "/cpu.stat"))
    return {
        "usage": {
            **stats.nonzero(total=found.get("usage_usec", 0) * 1000),
            "kernel": found.get("system_usec", 0) * 1000,
            "user": found.get("user_usec", 0) * 1000,
        },
        "throttling": stats.nonzero(
            periods=found.get("nr_periods"),
            throttledPeriods=found.get("nr_throttled"),
            throttledTime=found.get("throttled_usec", 0) * 1000,
        ),
        **stats.nonzero(psi=stats.pressure(directory + "/cpu.pressure")),
    }


def memory(directory: str) -> "dict[str, Any]":
    """memory. swap is memory and swap together, as cgroup v1 counts it; its peak is not known."""
    raw = stats.pairs(stats.read(directory + "/memory.stat"))
    limit = stats.number(directory + "/memory.max", stats.UNLIMITED)
    usage = stats.number(directory + "/memory.current")
    events = stats.pairs(stats.read(directory + "/memory.events"))
    swap_limit = stats.number(directory + "/memory.swap.max", stats.UNLIMITED)
    swap_usage = stats.number(directory + "/memory.swap.current")
    if usage:
        swap_limit = stats.UNLIMITED if stats.UNLIMITED in (limit, swap_limit) else limit + swap_limit
    return {
        **stats.nonzero(cache=raw.get("file")),
        "usage": stats.entry(limit, usage, stats.number(directory + "/memory.peak"), events.get("max", 0)),
        "swap": stats.entry(swap_limit, usage + swap_usage),
        "kernel": stats.entry(usage=raw.get("kernel", 0)),
        "kernelTCP": stats.entry(usage=raw.get("sock", 0)),
        **stats.nonzero(raw=raw, psi=stats.pressure(directory + "/memory.pressure")),
    }


def pids(directory: str) -> "dict[str, Any]":
    """pids; without the controller the processes are counted."""
    if not stats.read(directory + "/pids.current"):
        return stats.nonzero(current=stats.processes(directory))
    return stats.nonzero(current=stats.number(directory + "/pids.current"), limit=stats.number(directory + "/pids.max"))


def io(directory: str) -> "dict[str, Any]":
    """blkio from io.stat."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in stats.read(directory + "/io.stat").decode("ascii", "replace").split("\n"):
        words = line.split()
        where = stats.device(words[0]) if words else None
        if where is None:
            continue
        for word in words[1:]:
            name, _equals, value = word.partition("=")
            if name in _IO and value.isdigit():
                member, op = _IO[name]
                found.setdefault(member, []).append(stats.block(where, op, int(value)))
    return {**found, **stats.nonzero(psi=stats.pressure(directory + "/io.pressure"))}


def hugetlb(directory: str, sizes: "list[str]") -> "dict[str, Any]":
    """hugetlb per page size: reservations where they are counted, faults where not; failcnt counts both."""
    result = {}
    for size in sizes:
        prefix = f"{directory}/hugetlb.{size}."
        if not stats.read(prefix + "current"):
            continue
        events = stats.pairs(stats.read(prefix + "events"))
        usage = stats.number(prefix + ("rsvd.current" if stats.read(prefix + "rsvd.current") else "current"))
        result[size] = {**stats.nonzero(usage=usage), "failcnt": events.get("max", 0)}
    return result
