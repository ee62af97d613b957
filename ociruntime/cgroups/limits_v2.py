"""/linux/resources -> writes to cgroup v2 files. Pure.

Source: runtime-spec config-linux.md#control-groups; kernel Documentation/admin-guide/cgroup-v2.
"""

from ociruntime.cgroups import limits
from ociruntime.cgroups.limits import CgroupWrite
from ociruntime.errors import ConfigError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

_DEFAULT_PERIOD = 100000
# Files that hold no limit. The first three take a process for a value, and not one of the container's only, or end all
# of it. What is written to the others goes with the descriptor that it was written through.
_NO_LIMITS = (
    (("cgroup.procs", "cgroup.threads", "cgroup.kill"), "is no limit: it moves or ends processes"),
    (("cgroup.freeze",), "is no limit: pause and resume write to it"),
    (
        ("cpu.pressure", "io.pressure", "irq.pressure", "memory.pressure"),
        "is no limit: a trigger lasts as long as whoever has written it keeps the file open",
    ),
    (
        ("memory.peak", "memory.swap.peak"),
        "is no limit: it is reset only for who has written to it, as long as he keeps the file open",
    ),
)
_RATES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)


def writes(
    resources: "dict[str, Any]", available: "Collection[str]", *, pointer: str = "/linux/resources"
) -> "list[CgroupWrite]":
    """Lower a resources object (devices apart). available: the controllers of this host.

    Raises ConfigError for a bad value, UnsupportedError for what cgroup v2 has no file for or whose controller is
    missing.
    """
    result: list[CgroupWrite] = []
    for section, lower in _SECTIONS:
        value = resources.get(section)
        if value:
            result += lower(value, f"{pointer}/{section}")
    limits.require(result, available, "cgroup v2")
    unified = resources.get("unified")
    return result + _unified(unified, available, f"{pointer}/unified") if unified else result


def weight_of_shares(shares: int) -> int:
    """cpu.shares (2..262144) -> cpu.weight (1..10000), so that the default 1024 becomes the default 100.

    weight = ceil(10 ** ((l*l + 125*l) / 612 - 7/34)) with l = log2(shares).
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = _log2(shares)
    power: float = 10.0 ** ((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0)
    whole = int(power)
    return whole if whole == power else whole + 1


def _log2(number: int) -> float:
    """Base 2 logarithm of a number between 2 and 2**18, by bisection: the math module is not among the builtin ones."""
    exponent = number.bit_length() - 1
    if number == 1 << exponent:
        return float(exponent)
    low, high = float(exponent), exponent + 1.0
    while True:
        middle = (low + high) / 2.0
        if middle in (low, high):
            return low
        if 2.0**middle < number:
            low = middle
        else:
            high = middle


def io_weight(weight: int) -> int:
    """blkio weight (10..1000) -> io.weight (1..10000), linear."""
    return 1 + (weight - 10) * 9999 // 990


def swap_max(limit: int, swap: int, pointer: str) -> str:
    """memory.limit and memory.swap (memory and swap together) -> memory.swap.max (swap alone); "" = leave alone."""
    if swap < 0 or (limit < 0 and not swap):
        return "max"
    if not swap:
        return ""
    if not limit:
        raise ConfigError(
            "a limit for memory and swap together needs a memory limit",
            pointer=f"{pointer}/swap",
            hint="set memory.limit too: cgroup v2 limits swap alone",
        )
    return str(swap if limit < 0 else swap - limit)


def _memory(memory: "dict[str, Any]", pointer: str) -> "list[CgroupWrite]":
    limits.check_memory(memory, pointer)
    result = []
    limit = memory.get("limit") or 0
    swap = memory.get("swap") or 0
    value = swap_max(limit, swap, pointer)
    if value:
        # Without swap support the file is missing; then there is nothing to forbid either.
        result.append(
            CgroupWrite(
                f"{pointer}/{'swap' if swap else 'limit'}",
                "memory",
                "memory.swap.max",
                value,
                missing_ok=value in ("0", "max"),
            )
        )
    if limit:
        usage = "memory.current" if memory.get("checkBeforeUpdate") else ""
        result.append(CgroupWrite(f"{pointer}/limit", "memory", "memory.max", _number(limit), usage=usage))
    if memory.get("reservation"):
        value = _number(memory["reservation"])
        result.append(CgroupWrite(f"{pointer}/reservation", "memory", "memory.low", value))
    if memory.get("swappiness") is not None and memory["swappiness"] >= 0:
        raise UnsupportedError("'swappiness'", "cgroup v1", pointer=f"{pointer}/swappiness")
    if memory.get("disableOOMKiller"):
        raise UnsupportedError("'disableOOMKiller'", "cgroup v1", pointer=f"{pointer}/disableOOMKiller")
    return result


def _number(value: int) -> str:
    return "max" if value < 0 else str(value)


def _cpu(cpu: "dict[str, Any]", pointer: str) -> "list[CgroupWrite]":
    result = []
    for name in ("realtimeRuntime", "realtimePeriod"):
        if cpu.get(name):
            raise UnsupportedError(f"'{name}'", "cgroup v1", pointer=f"{pointer}/{name}")
    idle = cpu.get("idle")
    if idle is not None:
        # An idle cgroup refuses a weight, so one that stops being idle says so first.
        result.append(CgroupWrite(f"{pointer}/idle", "cpu", "cpu.idle", str(idle), missing_ok=not idle))
    if cpu.get("shares") and idle != 1:
        value = str(weight_of_shares(cpu["shares"]))
        result.append(CgroupWrite(f"{pointer}/shares", "cpu", "cpu.weight", value))
    burst = cpu.get("burst")
    if burst is not None:
        # A burst above the old quota is refused until the new quota is there.
        result.append(
            CgroupWrite(f"{pointer}/burst", "cpu", "cpu.max.burst", str(burst), defer=True, missing_ok=not burst)
        )
    quota = cpu.get("quota") or 0
    period = cpu.get("period") or 0
    if quota or period:
        value = f"{quota if quota > 0 else 'max'} {period or _DEFAULT_PERIOD}"
        result.append(CgroupWrite(f"{pointer}/{'quota' if quota else 'period'}", "cpu", "cpu.max", value))
    for name in ("cpus", "mems"):
        if cpu.get(name):
            result.append(CgroupWrite(f"{pointer}/{name}", "cpuset", f"cpuset.{name}", cpu[name]))
    return result


def _block_io(block_io: "dict[str, Any]", pointer: str) -> "list[CgroupWrite]":
    result = []
    weight = block_io.get("weight")
    if weight:
        limits.check_weight(weight, f"{pointer}/weight")
        result.append(
            CgroupWrite(
                f"{pointer}/weight", "io", "io.bfq.weight", str(weight), fallback=("io.weight", str(io_weight(weight)))
            )
        )
    if block_io.get("leafWeight"):
        raise UnsupportedError("'leafWeight'", "cgroup v1", pointer=f"{pointer}/leafWeight")
    entries = block_io.get("weightDevice") or []
    limits.check_weight_devices(entries, f"{pointer}/weightDevice")
    for index, entry in enumerate(entries):
        place = f"{pointer}/weightDevice/{index}"
        if entry.get("leafWeight"):
            raise UnsupportedError("'leafWeight'", "cgroup v1", pointer=f"{place}/leafWeight")
        device = f"{entry['major']}:{entry['minor']}"
        fallback = ("io.weight", f"{device} {io_weight(entry['weight'])}")
        result.append(
            CgroupWrite(f"{place}/weight", "io", "io.bfq.weight", f"{device} {entry['weight']}", fallback=fallback)
        )
    for field, key in _RATES:
        for index, entry in enumerate(block_io.get(field) or ()):
            value = f"{entry['major']}:{entry['minor']} {key}={entry['rate'] or 'max'}"
            result.append(CgroupWrite(f"{pointer}/{field}/{index}", "io", "io.max", value))
    return result


def _hugetlb(entries: "list[dict[str, Any]]", pointer: str) -> "list[CgroupWrite]":
    return limits.hugetlb(entries, pointer, "max")


def _network(network: "dict[str, Any]", pointer: str) -> "list[CgroupWrite]":
    for name in ("classID", "priorities"):
        if network.get(name):
            raise UnsupportedError(f"'{name}'", "cgroup v1", pointer=f"{pointer}/{name}")
    return []


def _unified(unified: "dict[str, str]", available: "Collection[str]", pointer: str) -> "list[CgroupWrite]":
    """Files named by the config itself; they come last, so they override the rest. Each line is a write of its own."""
    result = []
    for file, value in unified.items():
        place = f"{pointer}/{limits.escape(file)}"
        if "/" in file:
            raise ConfigError(f"'{file}' must be a file name, not a path", pointer=place)
        controller, dot, rest = file.partition(".")
        if not controller or not dot or not rest:
            raise ConfigError(f"'{file}' is not in the form controller.parameter", pointer=place)
        for names, reason in _NO_LIMITS:
            if file in names:
                raise ConfigError(f"'{file}' {reason}", pointer=place)
        found = [CgroupWrite(place, controller, file, line) for line in value.split("\n") if line]
        # Empty, it resets what cpuset.cpus and its like hold. Elsewhere nothing is written: memory.max would take it
        # for 0, and so kill the container.
        if not found and controller == "cpuset":
            found = [CgroupWrite(place, controller, file, "\n")]
        limits.require(found, available, "cgroup v2")
        result += found
    return result


_SECTIONS = (
    ("memory", _memory),
    ("blockIO", _block_io),
    ("cpu", _cpu),
    ("pids", limits.pids),
    ("hugepageLimits", _hugetlb),
    ("network", _network),
    ("rdma", limits.rdma),
)
