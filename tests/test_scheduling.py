"""scheduling: (process, linux fragment -> ops), (fragment -> error pointer), and words for the kernel's refusals."""

import errno
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ociruntime import scheduling
from ociruntime.errors import ConfigError
from ociruntime.plan import Op, op
from ociruntime.scheduling import SCHED_ATTR

SCHEMA = json.loads((Path(__file__).parents[1] / "spec" / "config.schema.json").read_text())["$defs"]


def lower(process: dict[str, Any] | None = None, **config: Any) -> list[Op]:
    """As create does: the process is the config's."""
    config["process"] = process or {}
    return scheduling.lower(config["process"], config)


def attr(got: Op) -> tuple[int, ...]:
    """policy, flags, nice, priority, runtime, deadline, period"""
    data = got.strings[0]
    assert isinstance(data, bytes)
    size, *rest, util_min, util_max = SCHED_ATTR.unpack(data)
    assert size == len(data) == got.args[0] == 56
    assert (util_min, util_max) == (0, 0)
    return tuple(rest)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"policy": "SCHED_OTHER"}, (0, 0, 0, 0, 0, 0, 0)),
        ({"policy": "SCHED_OTHER", "nice": -20}, (0, 0, -20, 0, 0, 0, 0)),
        ({"policy": "SCHED_OTHER", "nice": None, "priority": 0, "flags": None}, (0, 0, 0, 0, 0, 0, 0)),
        ({"policy": "SCHED_FIFO", "priority": 1}, (1, 0, 0, 1, 0, 0, 0)),
        ({"policy": "SCHED_RR", "priority": 99, "nice": 19}, (2, 0, 19, 99, 0, 0, 0)),
        ({"policy": "SCHED_BATCH", "nice": 19, "runtime": 0}, (3, 0, 19, 0, 0, 0, 0)),
        ({"policy": "SCHED_ISO"}, (4, 0, 0, 0, 0, 0, 0)),
        ({"policy": "SCHED_IDLE"}, (5, 0, 0, 0, 0, 0, 0)),
        (
            {"policy": "SCHED_DEADLINE", "runtime": 2048, "deadline": 4096, "period": 2**63 - 1},
            (6, 0, 0, 0, 2048, 4096, 2**63 - 1),
        ),
        ({"policy": "SCHED_DEADLINE", "runtime": 2048, "deadline": 2048}, (6, 0, 0, 0, 2048, 2048, 0)),
        ({"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_KEEP_PARAMS"]}, (6, 0x10, 0, 0, 0, 0, 0)),
        ({"policy": "SCHED_FIFO", "flags": ["SCHED_FLAG_KEEP_POLICY"]}, (1, 8, 0, 0, 0, 0, 0)),
        ({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK"] * 2}, (0, 1, 0, 0, 0, 0, 0)),
        ({"policy": "SCHED_OTHER", "flags": list(scheduling.SCHED_FLAGS)}, (0, 0x7F, 0, 0, 0, 0, 0)),
    ],
)
def test_scheduler(section: dict[str, Any], expected: tuple[int, ...]) -> None:
    (got,) = lower({"scheduler": section})
    assert (got.kind, got.pointer) == ("scheduler", "/process/scheduler")
    assert attr(got) == expected


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ({"class": "IOPRIO_CLASS_RT"}, 1 << 13),
        ({"class": "IOPRIO_CLASS_RT", "priority": 7}, 1 << 13 | 7),
        ({"class": "IOPRIO_CLASS_BE", "priority": 4}, 2 << 13 | 4),
        ({"class": "IOPRIO_CLASS_IDLE", "priority": None}, 3 << 13),
    ],
)
def test_io_priority(section: dict[str, Any], value: int) -> None:
    assert lower({"ioPriority": section}) == [op("ioprio", "/process/ioPriority", args=(value,))]


@pytest.mark.parametrize(("domain", "value"), [("LINUX", 0), ("LINUX32", 8)])
@pytest.mark.parametrize("flags", [{}, {"flags": []}, {"flags": None}])
def test_personality(domain: str, value: int, flags: dict[str, Any]) -> None:
    got = lower(linux={"personality": {"domain": domain, **flags}})
    assert got == [op("personality", "/linux/personality", args=(value,))]


def words(*bits: int) -> bytes:
    mask = sum(1 << bit for bit in bits)
    return mask.to_bytes((max(bits) // 64 + 1) * 8, "little")


@pytest.mark.parametrize(
    ("section", "mode", "nodes"),
    [
        ({"mode": "MPOL_DEFAULT"}, 0, b""),
        ({"mode": "MPOL_DEFAULT", "nodes": ""}, 0, b""),
        ({"mode": "MPOL_LOCAL", "nodes": " "}, 4, b""),
        ({"mode": "MPOL_PREFERRED"}, 1, b""),
        ({"mode": "MPOL_PREFERRED", "nodes": "0"}, 1, words(0)),
        ({"mode": "MPOL_BIND", "nodes": "0-2,7", "flags": ["MPOL_F_STATIC_NODES"]}, 2 | 1 << 15, words(0, 1, 2, 7)),
        ({"mode": "MPOL_BIND", "nodes": "1", "flags": ["MPOL_F_NUMA_BALANCING"]}, 2 | 1 << 13, words(1)),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "63,64", "flags": ["MPOL_F_RELATIVE_NODES"]}, 3 | 1 << 14, words(63, 64)),
        ({"mode": "MPOL_PREFERRED_MANY", "nodes": "0,0-1, 1 ,", "flags": []}, 5, words(0, 1)),
        ({"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "1024,2047"}, 6, words(1024, 2047)),
        ({"mode": "MPOL_BIND", "nodes": "32766"}, 2, words(32766)),
    ],
)
def test_memory_policy(section: dict[str, Any], mode: int, nodes: bytes) -> None:
    got = lower(linux={"memoryPolicy": section})
    assert got == [op("mempolicy", "/linux/memoryPolicy", strings=(nodes,), args=(mode, len(nodes) * 8))]


@pytest.mark.parametrize(
    ("section", "initial", "final"),
    [
        (None, b"", b""),
        ({}, b"", b""),
        ({"initial": "", "final": None}, b"", b""),
        ({"initial": "0"}, words(0), b""),
        ({"final": "0-3,63"}, b"", words(0, 1, 2, 3, 63)),
        ({"initial": "1 - 2", "final": ",64"}, words(1, 2), words(64)),
        ({"initial": "1000-1030", "final": "8191"}, words(*range(1000, 1031)), words(8191)),
    ],
)
def test_cpu_affinity(section: Any, initial: bytes, final: bytes) -> None:
    assert scheduling.cpu_affinity({"execCPUAffinity": section}) == (initial, final)
    assert lower({"execCPUAffinity": section}) == []


def test_order_and_pointers_of_a_process_file() -> None:
    process = {"ioPriority": {"class": "IOPRIO_CLASS_BE"}, "scheduler": {"policy": "SCHED_IDLE"}}
    linux = {"memoryPolicy": {"mode": "MPOL_LOCAL"}, "personality": {"domain": "LINUX"}}
    got = scheduling.lower(process, {"linux": linux}, "")
    pointers = ["/scheduler", "/ioPriority", "/linux/personality", "/linux/memoryPolicy"]
    assert [o.kind for o in got] == ["scheduler", "ioprio", "personality", "mempolicy"]
    assert [o.pointer for o in got] == pointers
    assert [o.kind for o in scheduling.lower(None, {"linux": linux})] == ["personality", "mempolicy"]
    assert lower() == []


S, IO, C = "scheduler", "ioPriority", "execCPUAffinity"
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({S: {}}, {}, "/process/scheduler/policy"),
    ({S: {"policy": "SCHED_EXT"}}, {}, "/process/scheduler/policy"),
    ({S: {"policy": "SCHED_OTHER", "nice": 20}}, {}, "/process/scheduler/nice"),
    ({S: {"policy": "SCHED_BATCH", "nice": -21}}, {}, "/process/scheduler/nice"),
    ({S: {"policy": "SCHED_OTHER", "priority": 1}}, {}, "/process/scheduler/priority"),
    ({S: {"policy": "SCHED_IDLE", "priority": -1}}, {}, "/process/scheduler/priority"),
    ({S: {"policy": "SCHED_DEADLINE", "priority": 1, "runtime": 1, "deadline": 1}}, {}, "/process/scheduler/priority"),
    ({S: {"policy": "SCHED_FIFO"}}, {}, "/process/scheduler/priority"),
    ({S: {"policy": "SCHED_RR", "priority": 100}}, {}, "/process/scheduler/priority"),
    (
        {S: {"policy": "SCHED_RR", "priority": -1, "flags": ["SCHED_FLAG_KEEP_PARAMS"]}},
        {},
        "/process/scheduler/priority",
    ),
    ({S: {"policy": "SCHED_OTHER", "runtime": 1}}, {}, "/process/scheduler/runtime"),
    ({S: {"policy": "SCHED_FIFO", "priority": 1, "deadline": 1}}, {}, "/process/scheduler/deadline"),
    ({S: {"policy": "SCHED_ISO", "period": 1}}, {}, "/process/scheduler/period"),
    ({S: {"policy": "SCHED_DEADLINE"}}, {}, "/process/scheduler/runtime"),
    ({S: {"policy": "SCHED_DEADLINE", "runtime": 2000}}, {}, "/process/scheduler/deadline"),
    ({S: {"policy": "SCHED_DEADLINE", "runtime": 3, "deadline": 2}}, {}, "/process/scheduler/runtime"),
    ({S: {"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 3, "period": 2}}, {}, "/process/scheduler/deadline"),
    ({S: {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RECLAIM", "X"]}}, {}, "/process/scheduler/flags/1"),
    (
        {S: {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 2000}},
        {"hooks": {"startContainer": [{"path": "/x"}]}},
        "/process/scheduler/flags",
    ),
    ({IO: {}}, {}, "/process/ioPriority/class"),
    ({IO: {"class": "IOPRIO_CLASS_NONE"}}, {}, "/process/ioPriority/class"),
    ({IO: {"class": "IOPRIO_CLASS_BE", "priority": 8}}, {}, "/process/ioPriority/priority"),
    ({IO: {"class": "IOPRIO_CLASS_BE", "priority": -1}}, {}, "/process/ioPriority/priority"),
    ({C: {"initial": "a"}}, {}, "/process/execCPUAffinity/initial"),
    ({C: {"initial": "3-1"}}, {}, "/process/execCPUAffinity/initial"),
    ({C: {"initial": "0-"}}, {}, "/process/execCPUAffinity/initial"),
    ({C: {"final": "-1"}}, {}, "/process/execCPUAffinity/final"),
    ({C: {"final": "1-2-3"}}, {}, "/process/execCPUAffinity/final"),
    ({C: {"final": "1 2"}}, {}, "/process/execCPUAffinity/final"),
    ({C: {"final": ","}}, {}, "/process/execCPUAffinity/final"),
    ({C: {"initial": "0", "final": "8192"}}, {}, "/process/execCPUAffinity/final"),
    ({C: {"initial": "0-99999999999999999999"}}, {}, "/process/execCPUAffinity/initial"),
    ({}, {"linux": {"personality": {}}}, "/linux/personality/domain"),
    ({}, {"linux": {"personality": {"domain": "BSD"}}}, "/linux/personality/domain"),
    ({}, {"linux": {"personality": {"domain": "LINUX", "flags": ["X"]}}}, "/linux/personality/flags"),
    ({}, {"linux": {"memoryPolicy": {}}}, "/linux/memoryPolicy/mode"),
    ({}, {"linux": {"memoryPolicy": {"mode": "MPOL_MAX"}}}, "/linux/memoryPolicy/mode"),
    ({}, {"linux": {"memoryPolicy": {"mode": "MPOL_LOCAL", "flags": ["X"]}}}, "/linux/memoryPolicy/flags/0"),
    *(
        ({}, {"linux": {"memoryPolicy": {"mode": mode, "nodes": "0"}}}, "/linux/memoryPolicy/nodes")
        for mode in ("MPOL_DEFAULT", "MPOL_LOCAL")
    ),
    *(
        ({}, {"linux": {"memoryPolicy": {"mode": mode, "nodes": ""}}}, "/linux/memoryPolicy/nodes")
        for mode in ("MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE")
    ),
    ({}, {"linux": {"memoryPolicy": {"mode": "MPOL_BIND"}}}, "/linux/memoryPolicy/nodes"),
    ({}, {"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "all"}}}, "/linux/memoryPolicy/nodes"),
    ({}, {"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "32767"}}}, "/linux/memoryPolicy/nodes"),
    (
        {},
        {
            "linux": {
                "memoryPolicy": {
                    "mode": "MPOL_BIND",
                    "nodes": "0",
                    "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"],
                }
            }
        },
        "/linux/memoryPolicy/flags",
    ),
]


@pytest.mark.parametrize(("process", "config", "pointer"), REFUSED)
def test_refused(process: dict[str, Any], config: dict[str, Any], pointer: str) -> None:
    with pytest.raises(ConfigError) as error:
        lower(process, **config)
    assert error.value.pointer == pointer
    if not pointer.endswith(("nice", "runtime", "deadline", "period", "initial", "final", "nodes", "priority")):
        assert error.value.hint or "exclude" in error.value.reason


def test_a_deadline_process_with_hooks_that_fork_resets_on_fork() -> None:
    section = {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 2000, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    hooks = {"startContainer": [{"path": "/x"}]}
    assert lower({"scheduler": section}, hooks=hooks)
    # an exec process starts none
    assert scheduling.lower({"scheduler": {**section, "flags": []}}, {"hooks": hooks}, "")


@pytest.mark.parametrize(
    ("table", "schema"),
    [
        (scheduling.POLICIES, SCHEMA["scheduler"]["properties"]["policy"]["enum"]),
        (scheduling.SCHED_FLAGS, SCHEMA["scheduler"]["properties"]["flags"]["items"]["enum"]),
        (scheduling.IO_CLASSES, SCHEMA["ioPriority"]["properties"]["class"]["enum"]),
        (scheduling.DOMAINS, SCHEMA["personality"]["properties"]["domain"]["enum"]),
        (scheduling.MEMORY_MODES, SCHEMA["memoryPolicy"]["properties"]["mode"]["enum"]),
        (scheduling.MEMORY_FLAGS, SCHEMA["memoryPolicy"]["properties"]["flags"]["items"]["enum"]),
    ],
)
def test_every_word_of_the_schema_has_a_number(table: dict[str, int], schema: list[str]) -> None:
    assert sorted(table) == sorted(schema)


def test_numbers_are_those_of_the_kernel_headers() -> None:
    header = Path("/usr/include/linux/sched.h")
    if not header.exists():
        pytest.skip("no kernel headers")
    found = dict(re.findall(r"#define\s+(SCHED_\w+)\s+(0x[0-9a-f]+|\d+)\b", header.read_text()))
    found["SCHED_OTHER"] = found["SCHED_NORMAL"]
    for name, number in {**scheduling.POLICIES, **scheduling.SCHED_FLAGS}.items():
        assert int(found.get(name, "4"), 0) == number  # SCHED_ISO is a comment there


@pytest.mark.parametrize(
    ("process", "linux", "number", "word"),
    [
        ({S: {"policy": "SCHED_ISO"}}, {}, errno.EINVAL, "no such policy"),
        ({S: {"policy": "SCHED_FIFO", "priority": 1}}, {}, errno.EPERM, "realtimeRuntime"),
        ({S: {"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 1}}, {}, errno.EINVAL, "1024 ns"),
        ({S: {"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 1}}, {}, errno.EPERM, "root domains"),
        ({S: {"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 1}}, {}, errno.EBUSY, "time left"),
        ({S: {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_UTIL_CLAMP_MIN"]}}, {}, errno.EOPNOTSUPP, "UCLAMP"),
        ({IO: {"class": "IOPRIO_CLASS_RT"}}, {}, errno.EPERM, "CAP_SYS_NICE"),
        ({}, {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "9"}}, errno.EINVAL, "node"),
        ({}, {"memoryPolicy": {"mode": "MPOL_LOCAL"}}, errno.ENOSYS, "NUMA"),
    ],
)
def test_hints(process: dict[str, Any], linux: dict[str, Any], number: int, word: str) -> None:
    (got,) = lower(process, linux=linux)
    assert word in scheduling.explain(got, number)[1]
    assert scheduling.explain(got, errno.EIO)[1] == ""
