"""/linux/resources -> writes to cgroup v1 files. Pure.

Source: runtime-spec config-linux.md#control-groups; kernel Documentation/admin-guide/cgroup-v1.
"""

from ociruntime.cgroups import limits
from ociruntime.cgroups.limits import CgroupWrite
from ociruntime.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

RATES = (
    ("throttleReadBpsDevice", "read_bps"),
    ("throttleWriteBpsDevice", "write_bps"),
    ("throttleReadIOPSDevice", "read_iops"),
    ("throttleWriteIOPSDevice", "write_iops"),
)


def writes(
    resources: "dict[str, Any]",
    mounted: "Collection[str]",
    unified: "Collection[str]" = (),
    *,
    pointer: str = "/linux/resources",
) -> "list[CgroupWrite]":
    """Lower a resources object (devices apart). mounted: the v1 controllers there are; unified: on a hybrid host, the
    controllers of cgroup v2, used for what no v1 hierarchy offers.

    Raises ConfigError for a bad value, UnsupportedError for a limit whose controller is missing.
    """
    result: list[CgroupWrite] = []
    for section, controller, unified_controller, lower in _SECTIONS:
        value = resources.get(section)
        if not value:
            continue
        place = f"{pointer}/{section}"
        if controller not in mounted and unified_controller in unified:
            from ociruntime.cgroups import limits_v2

            result += limits_v2.writes({section: value}, unified, pointer=pointer)
            continue
        found = lower(value, place)
        limits.require(found, mounted, "cgroup v1")
        result += found
    if resources.get("unified"):
        raise UnsupportedError(
            "'unified'", "cgroup v2", pointer=f"{pointer}/unified", hint="this host has cgroup v1 controllers"
        )
    return result


def _memory(memory: "dict[str, Any]", pointer: str) -> "list[CgroupWrite]":
    limits.check_memory(memory, pointer)
    result = []
    limit = memory.get("limit") or 0
    swap = memory.get("swap") or 0
    # memory.limit_in_bytes <= memory.memsw.limit_in_bytes must hold all the time. Lowering works in this order; when
    # both are raised the first write is refused (EINVAL) and done again after the second.
    memsw = "memory.memsw.limit_in_bytes"
    if swap < 0 or (limit < 0 and not swap):
        result.append(CgroupWrite(f"{pointer}/{'swap' if swap else 'limit'}", "memory", memsw, "-1", missing_ok=True))
    if limit:
        result.append(CgroupWrite(f"{pointer}/limit", "memory", "memory.limit_in_bytes", str(limit), defer=True))
    if swap > 0:
        result.append(CgroupWrite(f"{pointer}/swap", "memory", memsw, str(swap)))
    if memory.get("reservation"):
        value = str(memory["reservation"])
        result.append(CgroupWrite(f"{pointer}/reservation", "memory", "memory.soft_limit_in_bytes", value))
    if memory.get("disableOOMKiller"):
        result.append(CgroupWrite(f"{pointer}/disableOOMKiller", "memory", "memory.oom_control", "1"))
    swappiness = memory.get("swappiness")
    if swappiness is not None and swappiness >= 0:
        result.append(CgroupWrite(f"{pointer}/swappiness", "memory", "memory.swappiness", str(swappiness)))
    return result


def _cpu(cpu: "dict[str, Any]", pointer: str) -> "list[CgroupWrite]":
    result = []
    idle = cpu.get("idle")
    if idle is not None:
        # An idle cgroup refuses a weight, so one that stops being idle says so first.
        result.append(CgroupWrite(f"{pointer}/idle", "cpu", "cpu.idle", str(idle), missing_ok=not idle))
    if cpu.get("shares") and idle != 1:
        result.append(CgroupWrite(f"{pointer}/shares", "cpu", "cpu.shares", str(cpu["shares"]), verify=True))
    for name, file in (("realtimePeriod", "cpu.rt_period_us"), ("realtimeRuntime", "cpu.rt_runtime_us")):
        if cpu.get(name):
            result.append(CgroupWrite(f"{pointer}/{name}", "cpu", file, str(cpu[name]), defer=True))
    # A shorter period with the old quota may be more than the parent allows, and a burst more than the old quota.
    if cpu.get("period"):
        result.append(CgroupWrite(f"{pointer}/period", "cpu", "cpu.cfs_period_us", str(cpu["period"]), defer=True))
    burst = cpu.get("burst")
    if burst is not None:
        result.append(
            CgroupWrite(f"{pointer}/burst", "cpu", "cpu.cfs_burst_us", str(burst), defer=True, missing_ok=not burst)
        )
    if cpu.get("quota"):
        result.append(
            CgroupWrite(f"{pointer}/quota", "cpu", "cpu.cfs_quota_us", str(max(cpu["quota"], -1)), defer=True)
        )
    for name in ("cpus", "mems"):
        if cpu.get(name):
            value = cpu[name]
            # The file is called "cpus" where the hierarchy is mounted with the option noprefix.
            result.append(CgroupWrite(f"{pointer}/{name}", "cpuset", f"cpuset.{name}", value, fallback=(name, value)))
    return result


def _block_io(block_io: "dict[str, Any]", pointer: str) -> "list[CgroupWrite]":
    result = []
    weight = block_io.get("weight")
    if weight:
        limits.check_weight(weight, f"{pointer}/weight")
        value = str(weight)
        result.append(
            CgroupWrite(f"{pointer}/weight", "blkio", "blkio.bfq.weight", value, fallback=("blkio.weight", value))
        )
    if block_io.get("leafWeight"):
        limits.check_weight(block_io["leafWeight"], f"{pointer}/leafWeight")
        value = str(block_io["leafWeight"])
        result.append(CgroupWrite(f"{pointer}/leafWeight", "blkio", "blkio.leaf_weight", value))
    entries = block_io.get("weightDevice") or []
    limits.check_weight_devices(entries, f"{pointer}/weightDevice")
    for index, entry in enumerate(entries):
        place = f"{pointer}/weightDevice/{index}"
        device = f"{entry['major']}:{entry['minor']}"
        if entry.get("weight"):
            value = f"{device} {entry['weight']}"
            result.append(
                CgroupWrite(
                    f"{place}/weight",
                    "blkio",
                    "blkio.bfq.weight_device",
                    value,
                    fallback=("blkio.weight_device", value),
                )
            )
        if entry.get("leafWeight"):
            value = f"{device} {entry['leafWeight']}"
            result.append(CgroupWrite(f"{place}/leafWeight", "blkio", "blkio.leaf_weight_device", value))
    for field, rate in RATES:
        for index, entry in enumerate(block_io.get(field) or ()):
            value = f"{entry['major']}:{entry['minor']} {entry['rate']}"
            result.append(CgroupWrite(f"{pointer}/{field}/{index}", "blkio", f"blkio.throttle.{rate}_device", value))
    return result


def _hugetlb(entries: "list[dict[str, Any]]", pointer: str) -> "list[CgroupWrite]":
    return limits.hugetlb(entries, pointer, "limit_in_bytes")


def _network(network: "dict[str, Any]", pointer: str) -> "list[CgroupWrite]":
    result = []
    if network.get("classID"):
        result.append(CgroupWrite(f"{pointer}/classID", "net_cls", "net_cls.classid", str(network["classID"])))
    for index, entry in enumerate(network.get("priorities") or ()):
        place = f"{pointer}/priorities/{index}"
        value = f"{limits.word(entry['name'], place + '/name')} {entry['priority']}"
        result.append(CgroupWrite(place, "net_prio", "net_prio.ifpriomap", value))
    return result


_SECTIONS = (
    ("cpu", "cpu", "cpu", _cpu),
    ("memory", "memory", "memory", _memory),
    ("pids", "pids", "pids", limits.pids),
    ("blockIO", "blkio", "io", _block_io),
    ("hugepageLimits", "hugetlb", "hugetlb", _hugetlb),
    ("network", "net_cls", "net_cls", _network),
    ("rdma", "rdma", "rdma", limits.rdma),
)
