"""process.scheduler, process.ioPriority, process.execCPUAffinity, linux.personality, linux.memoryPolicy -> ops.

The ops run once the CPU affinity is what the cpuset allows and while all capabilities are there, before any seccomp
filter: after no_new_privs, before the ready sync. The numbers are those of the kernel's uapi headers.
Source: runtime-spec config.md, "Linux Process"; config-linux.md, "Personality" and "Memory policy"; sched_setattr(2),
sched(7), ioprio_set(2), personality(2), set_mempolicy(2), cpuset(7) "List format".
"""

from _struct import Struct
from errno import EBUSY, EINVAL, ENOSYS, EOPNOTSUPP, EPERM

from ociruntime import plan
from ociruntime.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.plan import Op

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
REAL_TIME = ("SCHED_FIFO", "SCHED_RR")
ISO, DEADLINE = 4, 6
RESET_ON_FORK, KEEP_POLICY, KEEP_PARAMS, UTIL_CLAMP = 0x01, 0x08, 0x10, 0x60
SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": RESET_ON_FORK,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": KEEP_POLICY,
    "SCHED_FLAG_KEEP_PARAMS": KEEP_PARAMS,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
# size, policy, flags, nice, priority, runtime, deadline, period, util_min, util_max
SCHED_ATTR = Struct("<IIQiIQQQII")

IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
DOMAINS = {"LINUX": 0x0000, "LINUX32": 0x0008}

MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
NO_NODES = ("MPOL_DEFAULT", "MPOL_LOCAL")
NODES_NEEDED = ("MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE")
MEMORY_FLAGS = {"MPOL_F_NUMA_BALANCING": 1 << 13, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_STATIC_NODES": 1 << 15}
STATIC_AND_RELATIVE = 3 << 14

CPU_LAST = 8191  # the largest kernel that can be configured; sched_setaffinity(2) drops what the machine lacks
NODE_LAST = 32766  # what set_mempolicy(2) reads at most: one page of bits, less the one it does not count


def lower(process: "dict[str, Any] | None", config: "dict[str, Any]", at: str = "/process") -> "list[Op]":
    """Lower what a process object (its JSON pointer is `at`) and the config say about scheduling and memory.

    Used for the init process and for those of exec, which take /linux from the container's config.
    Raises ConfigError at the field. execCPUAffinity is checked here, and applied by exec alone: cpu_affinity().
    """
    linux = config.get("linux") or {}
    ops = []
    if process is not None:
        if process.get("scheduler") is not None:
            ops.append(scheduler(process["scheduler"], f"{at}/scheduler"))
        if process.get("ioPriority") is not None:
            ops.append(io_priority(process["ioPriority"], f"{at}/ioPriority"))
        cpu_affinity(process, at)
    if linux.get("personality") is not None:
        ops.append(personality(linux["personality"]))
    if linux.get("memoryPolicy") is not None:
        ops.append(memory_policy(linux["memoryPolicy"]))
    if process is config.get("process") and (config.get("hooks") or {}).get("startContainer"):
        _check_forks(ops, at)
    return ops


def _check_forks(ops: "list[Op]", at: str) -> None:
    """The init process starts hooks after it got its policy; the kernel lets no SCHED_DEADLINE process fork."""
    for op in ops:
        if op.kind == "scheduler":
            _, policy, flags, *_ = SCHED_ATTR.unpack(op.strings[0])  # type: ignore[arg-type]
            if policy == DEADLINE and not flags & (RESET_ON_FORK | KEEP_POLICY):
                raise ConfigError(
                    "a SCHED_DEADLINE process cannot start the hooks of /hooks/startContainer",
                    pointer=f"{at}/scheduler/flags",
                    hint="add SCHED_FLAG_RESET_ON_FORK",
                )


def _word(table: "dict[str, int]", name: "Any", what: str, pointer: str) -> int:
    """The number of a word; ConfigError with the words that would do."""
    number = table.get(name)
    if number is None:
        text = f"unknown {what} '{name}'" if name else f"the {what} is missing"
        raise ConfigError(text, pointer=pointer, hint=f"one of {', '.join(table)}")
    return number


def _flags(table: "dict[str, int]", names: "Any", what: str, pointer: str) -> int:
    mask = 0
    for i, name in enumerate(names or ()):
        mask |= _word(table, name, what, f"{pointer}/{i}")
    return mask


# ---- process


def scheduler(section: "dict[str, Any]", at: str) -> "Op":
    """Lower process.scheduler; runtime, deadline and period are nanoseconds, numbers that are not there are 0."""
    name = section.get("policy")
    policy = _word(POLICIES, name, "scheduling policy", f"{at}/policy")
    flags = _flags(SCHED_FLAGS, section.get("flags"), "scheduling flag", f"{at}/flags")
    nice = section.get("nice") or 0
    if not -20 <= nice <= 19:
        raise ConfigError(f"{nice} is not a nice value (-20 to 19)", pointer=f"{at}/nice")
    priority = section.get("priority") or 0
    if name in REAL_TIME:
        # nothing but a kept policy or kept parameters can do without; the kernel knows which those are
        if not 1 <= priority <= 99 and (priority or not flags & (KEEP_POLICY | KEEP_PARAMS)):
            raise ConfigError(f"{name} needs a priority of 1 to 99, not {priority}", pointer=f"{at}/priority")
    elif priority:
        raise ConfigError(
            f"a priority is for {' and '.join(REAL_TIME)}, not for {name}",
            pointer=f"{at}/priority",
            hint="the other policies know nice",
        )
    runtime, deadline, period = _deadline(section, name == "SCHED_DEADLINE", flags, at)
    attr = SCHED_ATTR.pack(SCHED_ATTR.size, policy, flags, nice, priority, runtime, deadline, period, 0, 0)
    return plan.op("scheduler", at, strings=(attr,), args=(len(attr),))


def _deadline(section: "dict[str, Any]", wanted: bool, flags: int, at: str) -> "tuple[int, int, int]":
    runtime, deadline, period = (section.get(key) or 0 for key in ("runtime", "deadline", "period"))
    if not wanted:
        for key, value in (("runtime", runtime), ("deadline", deadline), ("period", period)):
            if value:
                raise ConfigError(f"{key} is for SCHED_DEADLINE, not for {section['policy']}", pointer=f"{at}/{key}")
    elif not flags & (KEEP_POLICY | KEEP_PARAMS):
        for key, value in (("runtime", runtime), ("deadline", deadline)):
            if not value:
                raise ConfigError(f"SCHED_DEADLINE needs a {key} (nanoseconds)", pointer=f"{at}/{key}")
        if runtime > deadline:
            raise ConfigError(f"the runtime {runtime} is above the deadline {deadline}", pointer=f"{at}/runtime")
        if period and deadline > period:
            raise ConfigError(f"the deadline {deadline} is above the period {period}", pointer=f"{at}/deadline")
    return runtime, deadline, period


def io_priority(section: "dict[str, Any]", at: str) -> "Op":
    """Lower process.ioPriority; a priority that is not there is 0, the highest of its class."""
    number = _word(IO_CLASSES, section.get("class"), "I/O priority class", f"{at}/class")
    priority = section.get("priority") or 0
    if not 0 <= priority <= 7:
        raise ConfigError(f"{priority} is not an I/O priority (0 to 7)", pointer=f"{at}/priority")
    return plan.op("ioprio", at, args=(number << 13 | priority,))


def cpu_affinity(process: "dict[str, Any]", at: str = "/process") -> "tuple[bytes, bytes]":
    """Lower process.execCPUAffinity to (initial mask, final mask), as sched_setaffinity(2) takes them.

    initial is for before the process joins the container's cgroup, final for afterwards. Each has 8 bytes or a
    multiple of that; b"" is one that is not given.
    """
    section = process.get("execCPUAffinity") or {}
    at = f"{at}/execCPUAffinity"
    initial, final = (_mask(section.get(key), CPU_LAST, "CPU", f"{at}/{key}") for key in ("initial", "final"))
    return initial, final


# ---- linux


def personality(section: "dict[str, Any]") -> "Op":
    """Lower linux.personality: the execution domain. The specification knows no flag for it."""
    at = "/linux/personality"
    domain = _word(DOMAINS, section.get("domain"), "execution domain", f"{at}/domain")
    if section.get("flags"):
        raise ConfigError("no flag is supported", pointer=f"{at}/flags", hint="leave the list empty")
    return plan.op("personality", at, args=(domain,))


def memory_policy(section: "dict[str, Any]") -> "Op":
    """Lower linux.memoryPolicy. nodes: a list such as "0-3,7"; the empty one is none."""
    at = "/linux/memoryPolicy"
    name = section.get("mode")
    mode = _word(MEMORY_MODES, name, "memory policy", f"{at}/mode")
    flags = _flags(MEMORY_FLAGS, section.get("flags"), "memory policy flag", f"{at}/flags")
    nodes = _mask(section.get("nodes"), NODE_LAST, "NUMA node", f"{at}/nodes")
    if nodes and name in NO_NODES:
        raise ConfigError(f"{name} takes no nodes", pointer=f"{at}/nodes", hint="leave it out or empty")
    if not nodes and name in NODES_NEEDED:
        raise ConfigError(f"{name} needs at least one node", pointer=f"{at}/nodes")
    if flags & STATIC_AND_RELATIVE == STATIC_AND_RELATIVE:
        raise ConfigError("MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other", pointer=f"{at}/flags")
    return plan.op("mempolicy", at, strings=(nodes,), args=(mode | flags, len(nodes) * 8))


def _mask(text: "str | None", last: int, what: str, pointer: str) -> bytes:
    """The bits of a list such as "0-3, 7": little endian, in whole 64-bit words; b"" for no text or a blank one.

    Blanks and empty elements are fine (",1"), a text of nothing else but commas is not.
    """
    if text is None or not text.strip():
        return b""
    bits = 0
    for item in text.split(","):
        first, dash, end = (word.strip() for word in item.partition("-"))
        if not first and not dash:
            continue
        end = end if dash else first
        if not (_number(first) and _number(end)):
            raise ConfigError(
                f"'{item.strip()}' is neither a {what} nor a range of them", pointer=pointer, hint='such as "0-3,7"'
            )
        low, high = int(first), int(end)
        if low > high:
            raise ConfigError(f"the range '{item.strip()}' is upside down", pointer=pointer)
        if high > last:
            raise ConfigError(f"{high} is not a {what} (0 to {last})", pointer=pointer)
        bits |= (1 << high + 1) - (1 << low)
    if not bits:
        raise ConfigError(f"'{text}' names no {what}", pointer=pointer)
    return bits.to_bytes((bits.bit_length() + 63) // 64 * 8, "little")


def _number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 10


# ---- what the kernel says to it


def explain(op: "Op", errno: int) -> "tuple[str, str]":
    """(reason, hint) for an op of this room that the kernel has refused."""
    if op.kind == "scheduler":
        _, policy, flags, *_ = SCHED_ATTR.unpack(op.strings[0])  # type: ignore[arg-type]
        reason = next(name for name, number in POLICIES.items() if number == policy)
        return reason, _explain_scheduler(policy, flags, errno)
    if op.kind == "ioprio" and errno == EPERM:
        return "", "the class IOPRIO_CLASS_RT needs CAP_SYS_NICE on the host"
    if op.kind == "mempolicy":
        if errno == EINVAL:
            return "", "a node that this machine or the cpuset lacks, or a mode or flag newer than this kernel"
        if errno == ENOSYS:
            return "", "this kernel has no NUMA support"
        if errno == EPERM:
            return "", "the runtime runs below a seccomp filter that forbids it"
    return "", ""


def _explain_scheduler(policy: int, flags: int, errno: int) -> str:
    if errno == EPERM and policy == DEADLINE:
        return "needs CAP_SYS_NICE on the host, and a cpuset of whole root domains"
    if errno == EPERM:
        return (
            "needs CAP_SYS_NICE on the host; a real-time policy also a cgroup with real-time time "
            "(/linux/resources/cpu/realtimeRuntime)"
        )
    if errno == EBUSY:
        return "the CPUs do not have that much time left for SCHED_DEADLINE"
    if errno == EOPNOTSUPP and flags & UTIL_CLAMP:
        return "this kernel has no utilization clamping (CONFIG_UCLAMP_TASK)"
    if errno == EINVAL and policy == ISO:
        return "the kernel reserves this number and has no such policy"
    if errno == EINVAL and policy == DEADLINE:
        return (
            "the runtime is at least 1024 ns, the period between sched_deadline_period_min_us and _max_us of "
            "/proc/sys/kernel"
        )
    return ""
