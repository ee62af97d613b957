"""process.scheduler, ioPriority, execCPUAffinity, linux.personality, memoryPolicy: read back from inside."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from integration.conftest import requires
from integration.lib.container import Container
from integration.lib.leaks import Leaks
from integration.lib.runtime import Runtime

OTHER, FIFO, RR, BATCH, IDLE, DEADLINE = 0, 1, 2, 3, 5, 6
RT_TIME = "/sys/fs/cgroup/cpu/cpu.rt_runtime_us"


def treatment(container: Container) -> dict[str, Any]:
    """What the kernel says about the container's process."""
    return container.probe("treatment")[0]


def refused(container: Container, leaks: Leaks, pointer: str, *words: str) -> None:
    """create fails, names the field (ours), and leaves nothing."""
    result = container.create(check=False)
    assert result.code != 0, result
    if container.runtime.ours:
        assert pointer in result.error
        for word in words:
            assert word in result.error
    leaks.check()


# -- scheduler [U12] --


def test_untouched(container: Container) -> None:
    """Without any of these fields the process is treated as any other."""
    found = treatment(container)
    assert (found["policy"], found["nice"], found["flags"], found["ioprio"]) == (OTHER, 0, 0, 0)
    assert (found["personality"], found["mempolicy"], found["nodes"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ({"policy": "SCHED_OTHER", "nice": 5}, {"policy": OTHER, "nice": 5, "flags": 0}),
        ({"policy": "SCHED_OTHER", "nice": -20}, {"policy": OTHER, "nice": -20}),
        ({"policy": "SCHED_BATCH", "nice": 19}, {"policy": BATCH, "nice": 19}),
        ({"policy": "SCHED_IDLE"}, {"policy": IDLE}),
        ({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, {"policy": OTHER, "flags": 1}),
        ({"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_KEEP_POLICY"], "nice": 3}, {"policy": OTHER, "nice": 3}),
        (
            {"policy": "SCHED_DEADLINE", "runtime": 2000000, "deadline": 20000000, "period": 30000000},
            {"policy": DEADLINE, "runtime": 2000000, "deadline": 20000000, "period": 30000000, "flags": 0},
        ),
        (
            {
                "policy": "SCHED_DEADLINE",
                "runtime": 2000000,
                "deadline": 20000000,
                "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"],
            },
            {"policy": DEADLINE, "period": 20000000, "flags": 7},
        ),
    ],
)
def test_scheduler(container: Container, scheduler: dict[str, Any], expected: dict[str, int]) -> None:
    """The process has this policy, these parameters and flags; numbers that are not given are 0 [U12]."""
    container.bundle.process(scheduler=scheduler, user={"uid": 1000, "gid": 1000})
    found = treatment(container)
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(("name", "policy"), [("SCHED_FIFO", FIFO), ("SCHED_RR", RR)])
def test_real_time(new_container: Callable[..., Container], runtime_v2: Runtime, name: str, policy: int) -> None:
    """A real-time policy with its priority, where no cpu cgroup of v1 holds real-time time back [U12]."""
    container = new_container(at=runtime_v2)
    container.bundle.process(scheduler={"policy": name, "priority": 10, "flags": ["SCHED_FLAG_RESET_ON_FORK"]})
    found = treatment(container)
    assert (found["policy"], found["priority"], found["flags"]) == (policy, 10, 1)


@pytest.mark.ours_only("the hint tells what the kernel's EPERM means")
def test_real_time_in_a_cgroup_without_time(container: Container, leaks: Leaks) -> None:
    """The cpu controller of v1 gives no real-time time unless asked: EPERM with the reason [U12]."""
    requires(f"file:{RT_TIME}")
    container.bundle.process(scheduler={"policy": "SCHED_FIFO", "priority": 10})
    refused(container, leaks, "/process/scheduler", "operation not permitted", "realtimeRuntime")


@pytest.mark.parametrize(
    ("scheduler", "field"),
    [
        ({"nice": 1}, ""),
        ({"policy": "SCHED_EXT"}, "/policy"),
        ({"policy": ""}, "/policy"),
        ({"policy": "SCHED_OTHER", "nice": 20}, "/nice"),
        ({"policy": "SCHED_OTHER", "nice": -21}, "/nice"),
        ({"policy": "SCHED_OTHER", "priority": 10}, "/priority"),
        ({"policy": "SCHED_FIFO", "priority": 100}, "/priority"),
        ({"policy": "SCHED_RR"}, "/priority"),
        ({"policy": "SCHED_OTHER", "runtime": 1000000}, "/runtime"),
        ({"policy": "SCHED_BATCH", "deadline": 1000000}, "/deadline"),
        ({"policy": "SCHED_IDLE", "period": 1000000}, "/period"),
        ({"policy": "SCHED_DEADLINE"}, "/runtime"),
        ({"policy": "SCHED_DEADLINE", "runtime": 30000000, "deadline": 20000000, "period": 20000000}, "/runtime"),
        ({"policy": "SCHED_DEADLINE", "runtime": 10000000, "deadline": 30000000, "period": 20000000}, "/deadline"),
        ({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_X"]}, "/flags/0"),
        # the kernel's own refusals
        ({"policy": "SCHED_ISO"}, ""),
        ({"policy": "SCHED_DEADLINE", "runtime": 1000, "deadline": 1000000}, ""),
        ({"policy": "SCHED_DEADLINE", "runtime": 10000, "deadline": 2**62}, ""),
    ],
)
def test_bad_scheduler(container: Container, leaks: Leaks, scheduler: dict[str, Any], field: str) -> None:
    """Unknown words, numbers out of range, parameters of another policy, and what the kernel refuses [U12]."""
    container.bundle.process(scheduler=scheduler)
    refused(container, leaks, f"/process/scheduler{field}")


@pytest.mark.ours_only("the hint tells what the kernel's EINVAL means")
def test_iso_has_a_hint(container: Container, leaks: Leaks) -> None:
    """No Linux has SCHED_ISO [U12]."""
    container.bundle.process(scheduler={"policy": "SCHED_ISO"})
    refused(container, leaks, "/process/scheduler: sched_setattr: SCHED_ISO: invalid argument", "no such policy")


@pytest.mark.requires("userns")
def test_user_namespace(container: Container) -> None:
    """Root of a user namespace may be nicer [U12]."""
    container.bundle.user_namespace()
    container.bundle.process(scheduler={"policy": "SCHED_BATCH", "nice": 7})
    found = treatment(container)
    assert (found["policy"], found["nice"]) == (BATCH, 7)


@pytest.mark.requires("userns")
def test_user_namespace_without_the_right(container: Container, leaks: Leaks) -> None:
    """Its capabilities do not count where the CPUs are shared with everybody [U12]."""
    container.bundle.user_namespace()
    container.bundle.process(scheduler={"policy": "SCHED_OTHER", "nice": -1})
    refused(container, leaks, "/process/scheduler", "CAP_SYS_NICE")


@pytest.mark.ours_only("a decision: other runtimes fail at start")
def test_deadline_and_hooks_that_fork(container: Container, leaks: Leaks) -> None:
    """A SCHED_DEADLINE process cannot fork, so not start a hook either: said at create, by name [U12]."""
    container.bundle.process(scheduler={"policy": "SCHED_DEADLINE", "runtime": 2000000, "deadline": 20000000})
    container.bundle.config["hooks"] = {"startContainer": [{"path": "/probe", "args": ["probe", "echo", "x"]}]}
    refused(container, leaks, "/process/scheduler/flags", "SCHED_FLAG_RESET_ON_FORK")
    container.bundle.process(
        scheduler={
            "policy": "SCHED_DEADLINE",
            "runtime": 2000000,
            "deadline": 20000000,
            "flags": ["SCHED_FLAG_RESET_ON_FORK"],
        }
    )
    assert treatment(container)["policy"] == DEADLINE


# -- ioPriority [U13] --


@pytest.mark.parametrize(
    ("priority", "value"),
    [
        ({"class": "IOPRIO_CLASS_RT", "priority": 3}, 1 << 13 | 3),
        ({"class": "IOPRIO_CLASS_BE", "priority": 7}, 2 << 13 | 7),
        ({"class": "IOPRIO_CLASS_BE"}, 2 << 13),
        ({"class": "IOPRIO_CLASS_IDLE"}, 3 << 13),
    ],
)
def test_io_priority(container: Container, priority: dict[str, Any], value: int) -> None:
    """The process has this I/O priority, whoever its user is [U13]."""
    container.bundle.process(ioPriority=priority, user={"uid": 1000, "gid": 1000})
    assert treatment(container)["ioprio"] == value


@pytest.mark.parametrize(
    ("priority", "field"),
    [
        ({"priority": 1}, ""),
        ({"class": "IOPRIO_CLASS_NONE"}, "/class"),
        ({"class": "BE"}, "/class"),
        ({"class": "IOPRIO_CLASS_BE", "priority": 8}, "/priority"),
        ({"class": "IOPRIO_CLASS_BE", "priority": -1}, "/priority"),
    ],
)
def test_bad_io_priority(container: Container, leaks: Leaks, priority: dict[str, Any], field: str) -> None:
    """Unknown class, priority out of range [U13]."""
    container.bundle.process(ioPriority=priority)
    refused(container, leaks, f"/process/ioPriority{field}")


# -- execCPUAffinity [U14] --


def test_exec_cpu_affinity_is_for_exec(container: Container) -> None:
    """It says nothing about the container's first process, which has all CPUs [U14]."""
    container.bundle.process(execCPUAffinity={"initial": "0", "final": "0-1"})
    assert container.report()["cpus"] == os.sysconf("SC_NPROCESSORS_ONLN")


@pytest.mark.parametrize("key", ["initial", "final"])
@pytest.mark.parametrize("text", ["a", "0-", "-1", "3-1", "1-2-3", "1 2", ",", "0,x"])
def test_bad_exec_cpu_affinity(container: Container, leaks: Leaks, key: str, text: str) -> None:
    """What is no list of CPUs is refused before it is ever used [U14]."""
    container.bundle.process(execCPUAffinity={key: text})
    refused(container, leaks, f"/process/execCPUAffinity/{key}")


# -- personality [L17] --


@pytest.mark.parametrize(("domain", "value"), [("LINUX", 0), ("LINUX32", 8)])
def test_personality(container: Container, domain: str, value: int) -> None:
    """The execution domain, as uname(2) shows it [L17]."""
    container.bundle.linux(personality={"domain": domain})
    found = treatment(container)
    machine = os.uname().machine
    if value:
        machine = {"x86_64": "i686", "aarch64": "armv8l"}.get(machine, machine)
    assert (found["personality"], found["machine"]) == (value, machine)


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_personality_before_seccomp(container: Container, no_new_privileges: bool) -> None:
    """A filter that forbids the call to the container does not forbid it to the runtime [L17, O9]."""
    container.bundle.process(noNewPrivileges=no_new_privileges)
    calls = ["personality", "set_mempolicy", "ioprio_set", "sched_setattr"]
    container.bundle.linux(
        personality={"domain": "LINUX32"},
        memoryPolicy={"mode": "MPOL_BIND", "nodes": "0"},
        seccomp={
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64" if os.uname().machine == "x86_64" else "SCMP_ARCH_AARCH64"],
            "syscalls": [{"names": calls, "action": "SCMP_ACT_ERRNO"}],
        },
    )
    container.bundle.process(scheduler={"policy": "SCHED_BATCH"}, ioPriority={"class": "IOPRIO_CLASS_IDLE"})
    found = container.probe("report", "treatment")
    assert "i686" in found[1]["machine"] or "arm" in found[1]["machine"]
    assert found[1]["policy"] == BATCH
    assert found[1]["ioprio"] == 3 << 13


@pytest.mark.parametrize(
    ("personality", "field"),
    [({}, ""), ({"domain": "BSD"}, "/domain"), ({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}, "/flags")],
)
def test_bad_personality(container: Container, leaks: Leaks, personality: dict[str, Any], field: str) -> None:
    """Unknown domain; any flag, as the specification supports none [L17]."""
    container.bundle.linux(personality=personality)
    refused(container, leaks, f"/linux/personality{field}")


# -- memoryPolicy [L19] --

NUMA = pytest.mark.requires("file:/sys/devices/system/node/node0")
STATIC, BALANCING = 1 << 15, 1 << 13


@NUMA
@pytest.mark.parametrize(
    ("policy", "mode", "nodes"),
    [
        ({"mode": "MPOL_DEFAULT"}, 0, 0),
        ({"mode": "MPOL_DEFAULT", "nodes": ""}, 0, 0),
        ({"mode": "MPOL_PREFERRED", "nodes": "0"}, 1, 1),
        ({"mode": "MPOL_PREFERRED"}, 4, 0),
        ({"mode": "MPOL_BIND", "nodes": "0"}, 2, 1),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, 2 | STATIC, 1),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}, 2 | BALANCING, 1),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0-0"}, 3, 1),
        ({"mode": "MPOL_LOCAL"}, 4, 0),
    ],
)
def test_memory_policy(container: Container, policy: dict[str, Any], mode: int, nodes: int) -> None:
    """The process allocates by this policy from these nodes [L19]."""
    container.bundle.linux(memoryPolicy=policy)
    found = treatment(container)
    assert (found["mempolicy_errno"], found["mempolicy"], found["nodes"]) == (0, mode, nodes)


@NUMA
@pytest.mark.requires("kernel:6.9")
@pytest.mark.parametrize(("name", "mode"), [("MPOL_PREFERRED_MANY", 5), ("MPOL_WEIGHTED_INTERLEAVE", 6)])
def test_newer_memory_policies(container: Container, name: str, mode: int) -> None:
    """Modes that came with Linux 5.15 and 6.9 [L19]."""
    container.bundle.linux(memoryPolicy={"mode": name, "nodes": "0"})
    found = treatment(container)
    assert (found["mempolicy"], found["nodes"]) == (mode, 1)


@NUMA
@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({"nodes": "0"}, ""),
        ({"mode": "MPOL_BEST"}, "/mode"),
        ({"mode": "MPOL_DEFAULT", "nodes": "0"}, "/nodes"),
        ({"mode": "MPOL_LOCAL", "nodes": "0"}, "/nodes"),
        ({"mode": "MPOL_BIND"}, "/nodes"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": ""}, "/nodes"),
        ({"mode": "MPOL_PREFERRED_MANY"}, "/nodes"),
        ({"mode": "MPOL_WEIGHTED_INTERLEAVE"}, "/nodes"),
        ({"mode": "MPOL_BIND", "nodes": "x"}, "/nodes"),
        ({"mode": "MPOL_BIND", "nodes": "1-0"}, "/nodes"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_X"]}, "/flags/0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}, "/flags"),
        # no kernel has these nodes; the mask itself is fine
        ({"mode": "MPOL_BIND", "nodes": "1023"}, ""),
        ({"mode": "MPOL_BIND", "nodes": "2000"}, ""),
    ],
)
def test_bad_memory_policy(container: Container, leaks: Leaks, policy: dict[str, Any], field: str) -> None:
    """Unknown words, nodes where none may be or none where some must be, nodes that are not there [L19]."""
    container.bundle.linux(memoryPolicy=policy)
    refused(container, leaks, f"/linux/memoryPolicy{field}")


@NUMA
@pytest.mark.ours_only("the hint tells what the kernel's EINVAL means")
def test_memory_policy_hint(container: Container, leaks: Leaks) -> None:
    """A node that is not there [L19]."""
    container.bundle.linux(memoryPolicy={"mode": "MPOL_BIND", "nodes": "2000"})
    refused(container, leaks, "/linux/memoryPolicy: set_mempolicy: invalid argument", "a node that this machine")
