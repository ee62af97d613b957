"""spec/config.schema.json through config/validate.py: which values each member may have, and what the error says."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from ociruntime.config import load, validate
from ociruntime.errors import ConfigError

ABSENT = object()
DATA = Path(__file__).resolve().parents[1] / "data"
FULL = json.loads((DATA / "full-config.json").read_text())


def changed(pointer: str, value: Any) -> dict[str, Any]:
    """The full config with one member replaced, added or (ABSENT) taken out."""
    document: dict[str, Any] = copy.deepcopy(FULL)
    parent: Any = document
    *path, last = [step.replace("~1", "/") for step in pointer.split("/")[1:]]
    for step in path:
        parent = parent[int(step)] if isinstance(parent, list) else parent[step]
    key = int(last) if isinstance(parent, list) else last
    if value is ABSENT:
        del parent[key]
    elif isinstance(parent, list) and key == len(parent):
        parent.append(value)
    else:
        parent[key] = value
    return document


def refused(document: Any, kind: str = "config") -> ConfigError:
    data = json.dumps(document, indent=1).encode()
    with pytest.raises(ConfigError) as caught:
        validate.check(load.parse(data, "config.json"), data, "config.json", kind)
    return caught.value


def accepted(document: Any, kind: str = "config") -> None:
    data = json.dumps(document).encode()
    validate.check(load.parse(data, "config.json"), data, "config.json", kind)


INT64 = (-(2**63) - 1, 2**63)
UINT64 = (-1, 2**64)
UINT32 = (-1, 2**32)
RES = "/linux/resources"
RULE = "/linux/seccomp/syscalls/0"

# Integers: pointer -> (largest too small, smallest too large)
INTEGERS = {
    "/process/consoleSize/height": UINT64,
    "/process/consoleSize/width": UINT64,
    "/process/user/uid": UINT32,
    "/process/user/gid": UINT32,
    "/process/user/umask": (-1, 0o1000),
    "/process/user/additionalGids/0": UINT32,
    "/process/rlimits/0/soft": UINT64,
    "/process/rlimits/0/hard": UINT64,
    "/process/oomScoreAdj": (-1001, 1001),
    "/process/scheduler/nice": (-21, 20),
    "/process/scheduler/priority": (-(2**31) - 1, 2**31),
    "/process/scheduler/runtime": UINT64,
    "/process/scheduler/deadline": UINT64,
    "/process/scheduler/period": UINT64,
    "/process/ioPriority/priority": (-1, 8),
    "/mounts/1/uidMappings/0/containerID": UINT32,
    "/mounts/1/gidMappings/0/size": (0, 2**32),
    "/hooks/createRuntime/0/timeout": (0, 2**63),
    "/linux/uidMappings/0/containerID": UINT32,
    "/linux/uidMappings/0/hostID": UINT32,
    "/linux/gidMappings/0/size": (0, 2**32),
    "/linux/timeOffsets/monotonic/secs": INT64,
    "/linux/timeOffsets/monotonic/nanosecs": (-1, 10**9),
    "/linux/devices/0/major": INT64,
    "/linux/devices/0/minor": INT64,
    "/linux/devices/0/fileMode": UINT32,
    "/linux/devices/0/uid": UINT32,
    "/linux/devices/0/gid": UINT32,
    f"{RES}/devices/1/major": INT64,
    f"{RES}/devices/1/minor": INT64,
    f"{RES}/memory/limit": INT64,
    f"{RES}/memory/reservation": INT64,
    f"{RES}/memory/swap": INT64,
    f"{RES}/memory/kernel": INT64,
    f"{RES}/memory/kernelTCP": INT64,
    f"{RES}/memory/swappiness": UINT64,
    f"{RES}/cpu/shares": UINT64,
    f"{RES}/cpu/quota": INT64,
    f"{RES}/cpu/burst": UINT64,
    f"{RES}/cpu/period": UINT64,
    f"{RES}/cpu/realtimeRuntime": INT64,
    f"{RES}/cpu/realtimePeriod": UINT64,
    f"{RES}/cpu/idle": (-1, 2),
    f"{RES}/pids/limit": INT64,
    f"{RES}/blockIO/weight": (-1, 1001),
    f"{RES}/blockIO/leafWeight": (-1, 1001),
    f"{RES}/blockIO/weightDevice/0/weight": (-1, 1001),
    f"{RES}/blockIO/weightDevice/0/leafWeight": (-1, 1001),
    f"{RES}/blockIO/weightDevice/0/major": INT64,
    f"{RES}/blockIO/throttleReadBpsDevice/0/rate": UINT64,
    f"{RES}/blockIO/throttleWriteBpsDevice/0/minor": INT64,
    f"{RES}/blockIO/throttleReadIOPSDevice/0/rate": UINT64,
    f"{RES}/blockIO/throttleWriteIOPSDevice/0/rate": UINT64,
    f"{RES}/hugepageLimits/0/limit": UINT64,
    f"{RES}/network/classID": UINT32,
    f"{RES}/network/priorities/0/priority": UINT32,
    f"{RES}/rdma/mlx5_1/hcaHandles": UINT32,
    f"{RES}/rdma/mlx5_1/hcaObjects": UINT32,
    "/linux/seccomp/defaultErrnoRet": (-1, 2**16),
    f"{RULE}/errnoRet": (-1, 2**16),
    f"{RULE}/args/0/index": (-1, 6),
    f"{RULE}/args/0/value": UINT64,
    f"{RULE}/args/0/valueTwo": UINT64,
}


@pytest.mark.parametrize("pointer", INTEGERS)
def test_integer_range(pointer: str) -> None:
    low, high = INTEGERS[pointer]
    for fits in (low + 1, high - 1):
        accepted(changed(pointer, fits))
    for value, reason in ((low, f"{low} must be at least {low + 1}"), (high, f"{high} must be at most {high - 1}")):
        document = changed(pointer, value)
        with pytest.raises(ConfigError) as caught:
            validate.check(document, b"", "config.json")
        assert (caught.value.pointer, caught.value.reason, caught.value.line) == (pointer, reason, 0)
        if not -(2**63) <= value < 2**64:
            assert "beyond 64 bits" in refused(document).reason


@pytest.mark.parametrize("pointer", INTEGERS)
@pytest.mark.parametrize("value", [True, 1.0, 1e3, "1", [], {}])
def test_integer_type(pointer: str, value: object) -> None:
    error = refused(changed(pointer, value))
    assert error.pointer == pointer
    assert error.reason.startswith("must be an integer, not ")


# Words: pointer -> (every word there is, one that is close to but not a word)
WORDS = {
    "/process/rlimits/0/type": (
        "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK",
        "RLIMIT_",
    ),
    "/process/scheduler/policy": ("OTHER FIFO RR BATCH ISO IDLE DEADLINE", "SCHED_"),
    "/process/scheduler/flags/0": (
        "RESET_ON_FORK RECLAIM DL_OVERRUN KEEP_POLICY KEEP_PARAMS UTIL_CLAMP_MIN UTIL_CLAMP_MAX",
        "SCHED_FLAG_",
    ),
    "/process/ioPriority/class": ("RT BE IDLE", "IOPRIO_CLASS_"),
    "/linux/namespaces/0/type": ("pid network mount ipc uts user cgroup time", ""),
    "/linux/rootfsPropagation": (
        "shared slave private unbindable rshared rslave rprivate runbindable",
        "",
    ),
    "/linux/devices/0/type": ("c b u p", ""),
    f"{RES}/devices/1/type": ("a b c", ""),
    "/linux/seccomp/defaultAction": ("KILL KILL_PROCESS KILL_THREAD TRAP ERRNO TRACE ALLOW LOG NOTIFY", "SCMP_ACT_"),
    f"{RULE}/action": ("KILL KILL_PROCESS KILL_THREAD TRAP ERRNO TRACE ALLOW LOG NOTIFY", "SCMP_ACT_"),
    f"{RULE}/args/0/op": ("NE LT LE EQ GE GT MASKED_EQ", "SCMP_CMP_"),
    "/linux/seccomp/flags/0": ("TSYNC LOG SPEC_ALLOW WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_"),
    "/linux/seccomp/architectures/0": (
        "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X "
        "PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB",
        "SCMP_ARCH_",
    ),
    "/linux/memoryPolicy/mode": (
        "DEFAULT BIND INTERLEAVE WEIGHTED_INTERLEAVE PREFERRED PREFERRED_MANY LOCAL",
        "MPOL_",
    ),
    "/linux/memoryPolicy/flags/0": ("NUMA_BALANCING RELATIVE_NODES STATIC_NODES", "MPOL_F_"),
    "/linux/personality/domain": ("LINUX LINUX32", ""),
}


@pytest.mark.parametrize("pointer", WORDS)
def test_words(pointer: str) -> None:
    words, prefix = WORDS[pointer]
    for word in words.split():
        accepted(changed(pointer, prefix + word))
    for wrong in (prefix + words.split()[0] + "_", (prefix + words.split()[0]).swapcase(), "\u00e9"):
        error = refused(changed(pointer, wrong))
        assert error.pointer == pointer
        assert error.reason.startswith(f"'{wrong}' is not ")
    assert refused(changed(pointer, 1)).pointer == pointer


# Other texts: pointer, values that fit, values that do not, words of the reason
TEXTS: list[tuple[str, list[str], list[str], str]] = [
    (
        "/ociVersion",
        ["1.0.0", "1.0.2-dev", "1.3.0", "1.99.0-rc.1+build.5", "1.2.3--", "1.0.0+001"],
        ["", "1", "1.0", "2.0.0", "0.5.0-dev", "01.0.0", "1.00.0", "1.0.0-", "1.0.0+", "1.0.0-a..b", "1.0.0\n"],
        "must be a version",
    ),
    ("/root/path", ["rootfs", "/srv", "."], [""], "must not be empty"),
    ("/hostname", ["", "a" * 64], ["a" * 65], "at most 64"),
    ("/domainname", ["", "(none)"], ["a" * 65], "at most 64"),
    ("/mounts/0/destination", ["/x", "x"], [""], "must not be empty"),
    ("/process/cwd", ["/", "/x y"], ["", "x", "./x", " /"], "absolute path"),
    ("/process/env/0", ["A=", "A=b", "A B=c\n"], ["", "A", "=", "=b"], "NAME=value"),
    ("/process/execCPUAffinity/initial", ["", "0", "0-3, 7"], ["a", "0;1", "0\n"], "list of CPUs"),
    ("/process/execCPUAffinity/final", ["", "0"], ["x"], "list of CPUs"),
    ("/hooks/prestart/0/path", ["/x"], ["", "x"], "absolute path"),
    ("/hooks/createRuntime/0/env/0", ["A=b"], ["A"], "NAME=value"),
    ("/linux/namespaces/1/path", ["/proc/1/ns/net"], ["", "ns/net"], "absolute path"),
    ("/linux/devices/0/path", ["/dev/x"], ["", "dev/x"], "absolute path"),
    ("/linux/maskedPaths/0", ["/"], ["", "proc"], "absolute path"),
    ("/linux/readonlyPaths/0", ["/"], ["", "proc"], "absolute path"),
    (
        "/linux/netDevices/eth0/name",
        ["a", "a" * 15, "eth%d"],
        ["", "a" * 16, ".", "..", "a/b", "a:b", "a b", "a\n"],
        "device name",
    ),
    (f"{RES}/devices/0/access", ["", "r", "mwr"], ["x", "rwx", "rw\n"], "r, w and m"),
    (
        f"{RES}/hugepageLimits/0/pageSize",
        ["64KB", "2MB", "1GB"],
        ["64kB", "0MB", "2M", "MB", "02MB", "2MB\n", "\u0662MB"],
        "page size",
    ),
    ("/linux/intelRdt/closID", ["/", "a", "..."], ["", ".", "..", "a/b", "/a"], "directory"),
    ("/linux/intelRdt/schemata/0", ["", "L3:0=f"], ["a\nb", "a\n"], "one line"),
    ("/linux/intelRdt/memBwSchema", ["MB:", "MB:0=1"], ["", "L3:0", "MB:0=1\n"], "MB:"),
]  # fmt: skip


@pytest.mark.parametrize(("pointer", "good", "bad", "reason"), TEXTS)
def test_texts(pointer: str, good: list[str], bad: list[str], reason: str) -> None:
    for value in good:
        accepted(changed(pointer, value))
    for value in bad:
        error = refused(changed(pointer, value))
        assert (error.pointer, reason in error.reason) == (pointer, True), (value, error.reason)
    assert refused(changed(pointer, 5)).reason == "must be a string, not the number 5"


NAMES = [
    # (map, names that fit, names that do not)
    ("/annotations", ["a", "org.opencontainers.x"], [""]),
    ("/linux/sysctl", ["kernel.x"], [""]),
    ("/linux/timeOffsets", ["monotonic", "boottime"], ["realtime", "", "Monotonic"]),
    ("/linux/netDevices", ["a", "a" * 15], ["", ".", "..", "a" * 16, "a~/b", "a\tb"]),
    (f"{RES}/unified", ["memory.high", "a."], ["", "memory", ".x", "a/b.c", "../x.y", "cgroup"]),
]


@pytest.mark.parametrize(("pointer", "good", "bad"), NAMES)
def test_member_names(pointer: str, good: list[str], bad: list[str]) -> None:
    value: object = "x" if pointer.endswith(("annotations", "sysctl", "unified")) else {}
    for name in good:
        accepted(changed(pointer, {name: value}))
    for name in bad:
        error = refused(changed(pointer, {name: value}))
        escaped = name.replace("~", "~0").replace("/", "~1")
        assert error.pointer == f"{pointer}/{escaped}"
        assert error.reason.startswith(f"the name '{name}' ".replace("\t", "\N{REPLACEMENT CHARACTER}"))
        assert error.line > 1


REQUIRED = [
    "/ociVersion", "/root", "/root/path", "/process/args", "/process/cwd", "/process/consoleSize/height",
    "/process/consoleSize/width", "/process/rlimits/0/type", "/process/rlimits/0/soft", "/process/rlimits/0/hard",
    "/process/scheduler/policy", "/process/ioPriority/class", "/mounts/0/destination", "/mounts/1/uidMappings/0/size",
    "/hooks/prestart/0/path", "/linux/uidMappings/0/containerID", "/linux/gidMappings/0/hostID",
    "/linux/namespaces/0/type", "/linux/devices/0/type", "/linux/devices/0/path", f"{RES}/devices/0/allow",
    f"{RES}/blockIO/weightDevice/0/major", f"{RES}/blockIO/throttleReadBpsDevice/0/rate",
    f"{RES}/hugepageLimits/0/pageSize", f"{RES}/hugepageLimits/0/limit", f"{RES}/network/priorities/0/name",
    f"{RES}/network/priorities/0/priority", f"{RULE}/names", f"{RULE}/action", f"{RULE}/args/0/index",
    f"{RULE}/args/0/value", f"{RULE}/args/0/op", "/linux/memoryPolicy/mode", "/linux/personality/domain",
]  # fmt: skip


@pytest.mark.parametrize("pointer", REQUIRED)
def test_required(pointer: str) -> None:
    for value in (ABSENT, None):
        error = refused(changed(pointer, value))
        assert (error.pointer, error.reason) == (pointer, "is required")


OPTIONAL = [
    "/process", "/hostname", "/domainname", "/mounts", "/hooks", "/annotations", "/linux", "/root/readonly",
    "/process/terminal", "/process/consoleSize", "/process/user", "/process/user/uid", "/process/user/gid",
    "/process/user/umask", "/process/env", "/process/capabilities", "/process/capabilities/ambient",
    "/process/rlimits", "/process/oomScoreAdj", "/process/scheduler", "/process/ioPriority",
    "/process/ioPriority/priority",
    "/process/execCPUAffinity", "/mounts/1/type", "/mounts/1/source", "/mounts/1/options", "/hooks/prestart",
    "/hooks/createRuntime/0/args", "/hooks/createRuntime/0/env", "/hooks/createRuntime/0/timeout", "/linux/namespaces",
    "/linux/namespaces/1/path", "/linux/uidMappings", "/linux/timeOffsets/monotonic/secs", "/linux/devices",
    "/linux/devices/0/major", "/linux/devices/0/fileMode", "/linux/netDevices", "/linux/netDevices/eth0/name",
    "/linux/cgroupsPath", RES, f"{RES}/devices", f"{RES}/memory", f"{RES}/memory/limit", f"{RES}/cpu", f"{RES}/pids",
    f"{RES}/pids/limit", f"{RES}/blockIO", f"{RES}/hugepageLimits", f"{RES}/network", f"{RES}/rdma", f"{RES}/unified",
    "/linux/rootfsPropagation", "/linux/sysctl", "/linux/seccomp", "/linux/seccomp/defaultAction",
    "/linux/seccomp/syscalls", f"{RULE}/errnoRet", f"{RULE}/args", "/linux/maskedPaths", "/linux/readonlyPaths",
    "/linux/mountLabel", "/linux/intelRdt", "/linux/memoryPolicy", "/linux/memoryPolicy/nodes", "/linux/personality",
    "/linux/personality/flags",
]  # fmt: skip


@pytest.mark.parametrize("pointer", OPTIONAL)
def test_optional_and_null(pointer: str) -> None:
    accepted(changed(pointer, ABSENT))
    accepted(changed(pointer, None))


CONTAINERS = [
    ("/process", "an object"), ("/root", "an object"), ("/mounts", "an array"), ("/mounts/0", "an object"),
    ("/hooks", "an object"), ("/hooks/poststop", "an array"), ("/annotations", "an object"), ("/linux", "an object"),
    ("/process/args", "an array"), ("/process/env", "an array"), ("/process/capabilities", "an object"),
    ("/process/capabilities/bounding", "an array"), ("/process/capabilities/effective", "an array"),
    ("/process/capabilities/inheritable", "an array"), ("/process/capabilities/permitted", "an array"),
    ("/process/capabilities/ambient", "an array"), ("/linux/namespaces", "an array"), ("/linux/devices", "an array"),
    ("/linux/netDevices", "an object"), ("/linux/netDevices/eth0", "an object"), ("/linux/timeOffsets", "an object"),
    ("/linux/sysctl", "an object"), (RES, "an object"), (f"{RES}/unified", "an object"), (f"{RES}/rdma", "an object"),
    ("/linux/seccomp", "an object"), (RULE, "an object"), (f"{RULE}/names", "an array"),
    ("/linux/intelRdt", "an object"),
    ("/linux/maskedPaths", "an array"), ("/linux/intelRdt/schemata", "an array"),
]  # fmt: skip


@pytest.mark.parametrize(("pointer", "kind"), CONTAINERS)
def test_container_type(pointer: str, kind: str) -> None:
    values: list[Any] = ["x", 5, True, [] if kind == "an object" else {}]
    for value in values:
        error = refused(changed(pointer, value))
        assert (error.pointer, error.reason.startswith(f"must be {kind}, not ")) == (pointer, True)


@pytest.mark.parametrize(
    "pointer",
    ["/root/readonly", "/process/terminal", "/process/noNewPrivileges", f"{RES}/devices/0/allow",
     f"{RES}/memory/disableOOMKiller", f"{RES}/memory/useHierarchy", f"{RES}/memory/checkBeforeUpdate",
     "/linux/intelRdt/enableMonitoring"],
)  # fmt: skip
def test_boolean_type(pointer: str) -> None:
    values: list[Any] = [0, 1, "true", [], 1.0]
    for value in values:
        error = refused(changed(pointer, value))
        assert error.pointer == pointer
        assert error.reason.startswith("must be true or false, not ")


@pytest.mark.parametrize(
    "pointer",
    ["/process/args/0", "/process/env/0", "/process/capabilities/bounding/0", "/mounts/1/options/0", "/mounts/0/type",
     "/mounts/0/source", "/annotations/com.example.key", "/linux/sysctl/net.ipv4.ip_forward", "/linux/cgroupsPath",
     "/linux/mountLabel", f"{RULE}/names/0", "/linux/seccomp/listenerPath", "/linux/seccomp/listenerMetadata",
     "/process/apparmorProfile", "/process/selinuxLabel", f"{RES}/cpu/cpus", f"{RES}/cpu/mems",
     f"{RES}/unified/memory.high", f"{RES}/network/priorities/0/name", "/linux/memoryPolicy/nodes",
     "/linux/intelRdt/l3CacheSchema", "/hooks/createRuntime/0/args/0"],
)  # fmt: skip
def test_string_type(pointer: str) -> None:
    values: list[Any] = [0, True, [], {}]
    for value in values:
        assert refused(changed(pointer, value)).pointer == pointer


@pytest.mark.parametrize(
    ("pointer", "value", "reason"),
    [
        ("/process/args", [], "must have at least 1 item"),
        (f"{RULE}/names", [], "must have at least 1 item"),
        ("/linux/personality/flags", ["ADDR_NO_RANDOMIZE"], "must be empty"),
        ("/process/args/0", None, "must be a string, not null"),
        ("/mounts/0", None, "must be an object, not null"),
    ],
)
def test_lengths_and_null_items(pointer: str, value: object, reason: str) -> None:
    error = refused(changed(pointer, value))
    assert (error.pointer, reason in error.reason) == (pointer, True)


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/unknown", {"a": [1.5, None]}),
        ("/windows", "ignored"),
        ("/solaris", 1),
        ("/freebsd", {}),
        ("/vm", []),
        ("/zos", {"namespaces": [{"type": "x"}]}),
        ("/process/commandLine", 5),
        ("/process/user/username", 5),
        ("/linux/unknown", 1.5),
        ("/linux/intelRdt/enableCMT", "x"),
        ("/process/capabilities/bounding/0", "CAP_NOT_KNOWN"),
        (f"{RULE}/names/0", "not_a_system_call"),
        ("/linux/seccomp", {"defaultAction": ""}),
        ("/linux/seccomp", {}),
    ],
)
def test_ignored_and_tolerated(pointer: str, value: object) -> None:
    accepted(changed(pointer, value))


@pytest.mark.parametrize("name", ["docker-config.json", "full-config.json"])
def test_samples_fit(name: str) -> None:
    load.load(str(DATA / name))


def test_parts_of_config() -> None:
    accepted(FULL["process"], "process")
    accepted(FULL["linux"]["resources"], "resources")
    assert refused({"args": ["sh"], "cwd": "x"}, "process").pointer == "/cwd"
    assert refused({"cpu": {"shares": "1"}}, "resources").pointer == "/cpu/shares"
    assert refused([], "process").pointer == ""


def test_document_that_is_no_object() -> None:
    documents: list[Any] = [[], "x", 5, True, None]
    for document in documents:
        error = refused(document)
        assert error.pointer == ""
        assert error.reason.startswith("must be an object, not ")
