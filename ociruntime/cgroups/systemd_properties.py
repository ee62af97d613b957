"""Properties of the container's unit: what systemd is told about its limits, devices and parents. Pure.

They are derived from the writes to cgroup files that the limits were lowered to, so that unit and files agree. systemd
writes them again with each daemon-reload; what has no property is in the files only, which it does not touch then.

Source: org.freedesktop.systemd1(5), systemd.resource-control(5).
"""

from ociruntime.cgroups import devices, gvariant
from ociruntime.cgroups.limits_v2 import io_weight
from ociruntime.cgroups.systemd_unit import Unit
from ociruntime.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ociruntime.cgroups.limits import CgroupWrite

ANNOTATION = "org.systemd.property."
INFINITY = (1 << 64) - 1
_QUOTA_STEP = 10000
_SIZES = {"K": 10, "M": 20, "G": 30, "T": 40}
# What decides where the container is cannot come from an annotation.
_OWN = ("Delegate", "PIDs", "Slice")
_BYTES_V2 = {
    "memory.max": "MemoryMax",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "memory.zswap.max": "MemoryZSwapMax",
}
_NUMBERS_V1 = {
    "memory.limit_in_bytes": "MemoryLimit",
    "cpu.shares": "CPUShares",
    "blkio.weight": "BlockIOWeight",
    "blkio.bfq.weight": "BlockIOWeight",
}
_RATES = {
    "rbps": "IOReadBandwidthMax",
    "wbps": "IOWriteBandwidthMax",
    "riops": "IOReadIOPSMax",
    "wiops": "IOWriteIOPSMax",
}
# The kernel's weights of the nice values from -20 to 19, where 1024 is the default (kernel/sched/core.c).
_NICE = (
    *(88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916),
    *(9548, 7620, 6100, 4904, 3906, 3121, 2501, 1991, 1586, 1277),
    *(1024, 820, 655, 526, 423, 335, 272, 215, 172, 137),
    *(110, 87, 70, 56, 45, 36, 29, 23, 18, 15),
)
# Below these releases systemd refuses the property.
_SINCE = {
    "AllowedCPUs": 244,
    "AllowedMemoryNodes": 244,
    "CPUQuotaPeriodUSec": 242,
    "IODeviceLatencyTargetUSec": 240,
    "MemoryZSwapMax": 253,
}
_IDLE_SINCE = 252
_ANY_MAJOR_SINCE = 240


class Property:
    """One property of a unit. signature, value: its D-Bus type and content. pointer: the field it comes from."""

    __slots__ = ("name", "pointer", "signature", "value")

    def __init__(self, name: str, signature: str, value: "Any", pointer: str = "") -> None:
        self.name = name
        self.signature = signature
        self.value = value
        self.pointer = pointer

    def __repr__(self) -> str:
        return f"<{self.name} {self.signature} {self.value!r} {self.pointer}>"


def major_release(version: str) -> int:
    """The number in front of systemd's version ("252.39-1~deb12u1", "v255 (255.4)"); 0 if there is none."""
    digits = ""
    for letter in version.lstrip("v"):
        if not letter.isdigit():
            break
        digits += letter
    return int(digits or "0")


def base(unit: Unit, description: str, pid: int, *, v2: bool) -> "list[Property]":
    """What every unit gets. pid: the process a scope starts with; a slice has none."""
    result = [Property("Description", "s", description)]
    if unit.is_slice():
        result.append(Property("Wants", "as", [unit.slice]))
    else:
        result.append(Property("Slice", "s", unit.slice))
        result.append(Property("Delegate", "b", True))
        result.append(Property("PIDs", "au", [pid]))
    for name in ("CPU", "Memory", "IO" if v2 else "BlockIO", "Tasks"):
        result.append(Property(f"{name}Accounting", "b", True))
    result.append(Property("DefaultDependencies", "b", False))
    return result


def from_annotations(annotations: "dict[str, str]") -> "list[Property]":
    """The annotations org.systemd.property.NAME: GVariant text each. Raises ConfigError.

    NAME ends in Sec: a number of seconds for the property NAME in microseconds (...USec).
    """
    result = []
    for key, text in annotations.items():
        if not key.startswith(ANNOTATION):
            continue
        pointer = f"/annotations/{key.replace('~', '~0').replace('/', '~1')}"
        name = key[len(ANNOTATION) :]
        if len(name) < 3 or not name.isascii() or not name.isalpha():
            raise ConfigError(f"'{name}' is not the name of a unit's property", pointer=pointer)
        if name in _OWN:
            raise ConfigError(f"'{name}' is set by the runtime itself", pointer=pointer)
        try:
            signature, value = gvariant.parse(text)
        except ValueError as error:
            raise ConfigError(
                f"{error}", pointer=pointer, hint="the value is GVariant text: 'word' in quotes, true, 5, uint64 5"
            ) from None
        if len(name) > 3 and name.endswith("Sec") and name[-4].islower():
            if signature not in tuple("ynqiuxtd"):
                raise ConfigError(f"a number of seconds is expected for '{name}'", pointer=pointer)
            signature, value = "t", _microseconds(value, pointer)
            name = name[:-3] + "USec"
        result.append(Property(name, signature, value, pointer))
    return result


def _microseconds(seconds: "int | float", pointer: str) -> int:
    # Not a number, and infinite ones, are below no bound.
    if not 0 <= seconds < INFINITY / 1000000:
        raise ConfigError(f"{seconds} is not a number of seconds", pointer=pointer)
    return int(seconds * 1000000)


# -- limits


def limits_v2(writes: "Iterable[CgroupWrite]", release: int) -> "list[Property]":
    """The properties for writes to cgroup v2 files; a later write to the same file wins. release: of systemd."""
    found: dict[str, Property] = {}
    rates: dict[str, dict[str, tuple[int, str]]] = {}
    for write in writes:
        file, value, pointer = write.file, write.value.strip(), write.pointer
        if file in _BYTES_V2:
            _put(found, _BYTES_V2[file], "t", _bytes(value), pointer)
        elif file == "pids.max":
            _put(found, "TasksMax", "t", _bytes(value), pointer)
        elif file == "cpu.weight":
            _put(found, "CPUWeight", "t", _bytes(value), pointer)
        elif file == "cpu.weight.nice":
            _put(found, "CPUWeight", "t", weight_of_nice(value), pointer)
        elif file == "cpu.idle":
            if value == "1" and release >= _IDLE_SINCE:
                _put(found, "CPUWeight", "t", 0, pointer)
            elif value == "0":
                _put(found, "CPUWeight", "t", 100, pointer)
        elif file == "cpu.max":
            _cpu_max(found, value, pointer)
        elif file == "cpuset.cpus":
            _put(found, "AllowedCPUs", "ay", bitmask(value), pointer)
        elif file == "cpuset.mems":
            _put(found, "AllowedMemoryNodes", "ay", bitmask(value), pointer)
        elif file in ("io.weight", "io.bfq.weight"):
            _io_weight(found, rates, write)
        elif file == "io.max":
            _io_max(rates, value, pointer)
        elif file == "io.latency":
            _io_latency(rates, value, pointer)
    for name, entries in rates.items():
        pairs = [(device, number) for device, (number, _) in entries.items()]
        found[name] = Property(name, "a(st)", pairs, next(iter(entries.values()))[1])
    return _known(found, release)


def limits_v1(writes: "Iterable[CgroupWrite]", release: int) -> "list[Property]":
    """The properties for writes to cgroup v1 files."""
    found: dict[str, Property] = {}
    quota, period, pointer = 0, 0, ""
    for write in writes:
        file, value = write.file, write.value.strip()
        if file in _NUMBERS_V1:
            _put(found, _NUMBERS_V1[file], "t", _bytes(value), write.pointer)
        elif file == "pids.max":
            _put(found, "TasksMax", "t", _bytes(value), write.pointer)
        elif file == "cpuset.cpus":
            _put(found, "AllowedCPUs", "ay", bitmask(value), write.pointer)
        elif file == "cpuset.mems":
            _put(found, "AllowedMemoryNodes", "ay", bitmask(value), write.pointer)
        elif file in ("cpu.cfs_quota_us", "cpu.cfs_period_us") and value.lstrip("-").isdigit():
            pointer = write.pointer
            if file == "cpu.cfs_quota_us":
                quota = int(value)
            else:
                period = int(value)
    if quota or period:
        _cpu_max(found, f"{quota if quota > 0 else 'max'} {period or 100000}", pointer)
    return _known(found, release)


def _known(found: "dict[str, Property]", release: int) -> "list[Property]":
    return [item for name, item in found.items() if release >= _SINCE.get(name, 0)]


def _put(found: "dict[str, Property]", name: str, signature: str, value: "Any", pointer: str) -> None:
    # A value in a form that is not understood here is left to the kernel's file.
    if value is not None:
        found[name] = Property(name, signature, value, pointer)


def _bytes(text: str) -> "int | None":
    """ "max", -1, "4096", "10M" -> a number."""
    if text in ("max", "-1"):
        return INFINITY
    shift = _SIZES.get(text[-1:].upper(), 0)
    digits = text[:-1] if shift else text
    return int(digits) << shift if digits.isascii() and digits.isdigit() else None


def weight_of_nice(text: str) -> "int | None":
    """cpu.weight.nice -> cpu.weight, as the kernel shows it; None for what is no nice value."""
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or not -20 <= int(text) < 20:
        return None
    return (_NICE[int(text) + 20] * 100 + 512) // 1024


def _cpu_max(found: "dict[str, Property]", text: str, pointer: str) -> None:
    """quota and period in microseconds -> microseconds of CPU time per second, in whole steps of 10 ms, upwards."""
    words = text.split()
    if not words or not all(word == "max" or word.isdigit() for word in words):
        return
    period = int(words[1]) if len(words) > 1 else 100000
    quota = INFINITY if words[0] == "max" else rounded_quota(int(words[0]), period)
    _put(found, "CPUQuotaPerSecUSec", "t", quota, pointer)
    _put(found, "CPUQuotaPeriodUSec", "t", period, pointer)


def rounded_quota(quota: int, period: int) -> int:
    """Microseconds of CPU time per second, rounded up to the 10 ms that systemd counts in."""
    per_second = quota * 1000000 // max(period, 1)
    return -(-per_second // _QUOTA_STEP) * _QUOTA_STEP


def round_quota(writes: "list[CgroupWrite]") -> None:
    """Let the quota in the files be what systemd makes of it, where it writes to the same files."""
    periods = [int(write.value) for write in writes if write.file == "cpu.cfs_period_us" and write.value.isdigit()]
    for write in writes:
        words = write.value.split()
        if write.file not in ("cpu.max", "cpu.cfs_quota_us") or not words or not words[0].isdigit():
            continue
        period = int(words[1]) if len(words) > 1 else (*periods, 100000)[0]
        quota = -(-rounded_quota(int(words[0]), period) * period // 1000000)
        write.value = " ".join([str(quota), *words[1:]])


def bitmask(text: str) -> "bytes | None":
    """A list like "0-3,6" -> one bit for each number, lowest first; None for what is no such list."""
    mask = 0
    for part in text.split(","):
        if not part.strip():
            continue
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            return None
        low, high = int(first), int(last or first)
        if high < low or high > 1 << 16:
            return None
        mask |= ((1 << (high - low + 1)) - 1) << low
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def _io_weight(
    found: "dict[str, Property]", rates: "dict[str, dict[str, tuple[int, str]]]", write: "CgroupWrite"
) -> None:
    words = write.value.split()
    number = _bytes(words[-1]) if words else None
    if number is None:
        return
    if write.file == "io.bfq.weight":
        number = io_weight(number)
    device = words[0] if len(words) == 2 else "default"
    if device == "default":
        _put(found, "IOWeight", "t", number, write.pointer)
    else:
        rates.setdefault("IODeviceWeight", {})[f"/dev/block/{device}"] = (number, write.pointer)


def _io_max(rates: "dict[str, dict[str, tuple[int, str]]]", text: str, pointer: str) -> None:
    device, *settings = text.split() or [""]
    for setting in settings:
        key, _, value = setting.partition("=")
        number = _bytes(value)
        if key in _RATES and number is not None:
            rates.setdefault(_RATES[key], {})[f"/dev/block/{device}"] = (number, pointer)


def _io_latency(rates: "dict[str, dict[str, tuple[int, str]]]", text: str, pointer: str) -> None:
    device, _, setting = text.partition(" ")
    number = _bytes(setting.strip().removeprefix("target="))
    if number is not None:
        rates.setdefault("IODeviceLatencyTargetUSec", {})[f"/dev/block/{device}"] = (number, pointer)


# -- devices


def device_policy(wanted: "devices.Filter", release: int, pointer: str) -> "list[Property]":
    """DevicePolicy and DeviceAllow: never less than wanted, whose exact form our own filter puts into force.

    What systemd cannot say (any major number with one minor number, exceptions to "everything") is wider there. The
    empty list first takes away what the unit had.
    """
    entries: dict[str, int] = {}
    if not wanted.default_allow:
        for (kind, major, minor), access in wanted.exceptions.items():
            word = "char" if kind == "c" else "block"
            if major == devices.ANY:
                specifier = f"{word}-*"
            elif minor == devices.ANY:
                specifier = f"{word}-{major}" if release >= _ANY_MAJOR_SINCE else f"{word}-*"
            else:
                specifier = f"/dev/{word}/{major}:{minor}"
            entries[specifier] = entries.get(specifier, 0) | access
    place = f"{pointer}/devices"
    result = [
        Property("DevicePolicy", "s", "auto" if wanted.default_allow else "strict", place),
        Property("DeviceAllow", "a(ss)", [], place),
    ]
    if entries:
        pairs = [(specifier, _access(access)) for specifier, access in entries.items()]
        result.append(Property("DeviceAllow", "a(ss)", pairs, place))
    return result


def _access(bits: int) -> str:
    names = ((devices.READ, "r"), (devices.WRITE, "w"), (devices.MKNOD, "m"))
    return "".join([letter for bit, letter in names if bits & bit])
