"""linux.seccomp: filters as engines write them."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from integration.lib.container import Container
from integration.lib.leaks import Leaks

DOCKER = Path(__file__).resolve().parent.parent / "tests" / "data" / "docker-config.json"
EPERM, ENOSYS, EACCES = 1, 38, 13
# x86_64
GETPID, TIMES, MKDIR, PERSONALITY, KEYCTL, UNSHARE, GETCPU, CLONE3 = 39, 100, 83, 135, 250, 272, 309, 435
NEWEST = 10000  # no kernel has it


@pytest.fixture(autouse=True)
def _x86() -> None:
    import os

    if os.uname().machine != "x86_64":
        pytest.skip("numbers of system calls are those of x86_64")


@pytest.fixture
def docker_profile() -> dict[str, Any]:
    """Docker's default profile, as docker writes it into config.json."""
    if not DOCKER.exists():
        pytest.skip("no tests/data/docker-config.json")
    profile: dict[str, Any] = json.loads(DOCKER.read_text())["linux"]["seccomp"]
    return profile


def deny(*names: str, **fields: Any) -> dict[str, Any]:
    """A profile that allows everything but these calls."""
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_ERRNO", **fields}],
    }


def test_filter_is_loaded(container: Container) -> None:
    """With a profile the container runs under a filter [Q1]."""
    container.bundle.linux(seccomp=deny("times"))
    assert container.report()["status"]["Seccomp"] == "2"


def test_no_profile(container: Container) -> None:
    """Without a profile there is no filter [Q1]."""
    assert container.report()["status"]["Seccomp"] == "0"


@pytest.mark.parametrize("nnp", [True, False, None])
@pytest.mark.parametrize("caps", [["CAP_SYS_ADMIN"], []])
def test_errno(container: Container, nnp: bool | None, caps: list[str]) -> None:
    """ERRNO gives EPERM, with and without no_new_privs, with and without CAP_SYS_ADMIN [Q2, Q3, U8]."""
    container.bundle.linux(seccomp=deny("times"))
    container.bundle.process(
        noNewPrivileges=nnp, capabilities=dict.fromkeys(("bounding", "effective", "permitted"), caps)
    )
    reply, other = container.probe(f"syscall {TIMES}", f"syscall {GETPID}")
    assert (reply["result"], reply["errno"]) == (-1, EPERM)
    assert other["result"] == 1


def test_filter_for_a_user(container: Container) -> None:
    """The filter is in force for a user without privileges as well [O9]."""
    container.bundle.linux(seccomp=deny("times"))
    container.bundle.process(noNewPrivileges=False, user={"uid": 1000, "gid": 1000})
    assert container.probe(f"syscall {TIMES}")[0]["errno"] == EPERM


def test_errno_ret(container: Container) -> None:
    """errnoRet chooses the number [Q3]."""
    container.bundle.linux(seccomp=deny("times", errnoRet=EACCES))
    assert container.probe(f"syscall {TIMES}")[0]["errno"] == EACCES


def test_kill(container: Container) -> None:
    """KILL ends the process with SIGSYS [Q2]."""
    profile = deny("times")
    profile["syscalls"][0]["action"] = "SCMP_ACT_KILL_PROCESS"
    container.bundle.linux(seccomp=profile)
    container.bundle.args(f"syscall {TIMES}")
    assert container.run().code == 128 + 31


def test_arguments(container: Container) -> None:
    """A rule with conditions hits only the calls that meet them [Q8]."""
    container.bundle.linux(seccomp=deny("personality", args=[{"index": 0, "value": 0xFFFFFFFF, "op": "SCMP_CMP_EQ"}]))
    hit, miss = container.probe(f"syscall {PERSONALITY} 0xffffffff", f"syscall {PERSONALITY} 0")
    assert hit["errno"] == EPERM
    assert miss["errno"] == 0


def test_masked_argument(container: Container) -> None:
    """MASKED_EQ: value is the mask, valueTwo what must be under it [Q8]."""
    condition = {"index": 0, "value": 0x10000000, "valueTwo": 0x10000000, "op": "SCMP_CMP_MASKED_EQ"}
    container.bundle.linux(seccomp=deny("unshare", args=[condition], errnoRet=EACCES))
    hit, miss = container.probe(f"syscall {UNSHARE} 0x10000000", f"syscall {UNSHARE} 0x200")
    assert hit["errno"] == EACCES
    assert miss["errno"] != EACCES


def test_unknown_names_are_ignored(container: Container) -> None:
    """Names of calls that do not exist are passed over [Q4]."""
    container.bundle.linux(seccomp=deny("no_such_call", "times", "neither_this"))
    assert container.probe(f"syscall {TIMES}")[0]["errno"] == EPERM


@pytest.mark.parametrize("nnp", [True, False])
def test_docker_profile(container: Container, docker_profile: dict[str, Any], nnp: bool) -> None:
    """An ordinary program runs under docker's default profile; what the profile forbids is refused [Q2]."""
    container.bundle.linux(seccomp=docker_profile)
    container.bundle.process(noNewPrivileges=nnp)
    report, ls, keyctl, unshare, mount, ordinary = container.probe(
        "report", "ls /", f"syscall {KEYCTL} 0", f"syscall {UNSHARE} 0x10000000", "mount none / tmpfs", "syscall 39"
    )
    assert report["status"]["Seccomp"] == "2"
    assert "probe" in ls["names"]
    assert [reply["errno"] for reply in (keyctl, unshare, mount)] == [EPERM] * 3
    assert ordinary["result"] == 1


def test_docker_profile_lets_libc_fall_back(container: Container, docker_profile: dict[str, Any]) -> None:
    """clone3 and calls newer than the profile answer ENOSYS, so that a libc uses the older way [Q5]."""
    container.bundle.linux(seccomp=docker_profile)
    clone3, newest = container.probe(f"syscall {CLONE3} 0 0", f"syscall {NEWEST}")
    assert clone3["errno"] == ENOSYS
    assert newest["errno"] == ENOSYS


@pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"])
def test_enosys_stub(container: Container, default: str) -> None:
    """Calls newer than the newest one of the profile answer ENOSYS; older ones get the default action [Q5]."""
    profile: dict[str, Any] = {
        "defaultAction": default,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {
                "names": (
                    "read write open openat close fstat lstat stat mmap mprotect munmap brk rt_sigaction exit "
                    "exit_group rt_sigprocmask ioctl execve arch_prctl set_tid_address set_robust_list rseq "
                    "prlimit64 readlink getrandom newfstatat futex prctl capset capget setgid setuid setgroups "
                    "setresuid setresgid fchown chdir getcwd getdents64 fcntl umask epoll_ctl epoll_pwait "
                    "epoll_create1 pipe2 close_range faccessat2 nanosleep gettid getpid tgkill sigaltstack "
                    "sched_yield madvise dup3 sendto recvfrom sendmsg recvmsg statfs fstatfs getppid uname lseek "
                    "writev fadvise64 access faccessat getuid getgid geteuid getegid keyctl getsockname poll "
                    "ppoll clone wait4 kill rt_sigreturn clock_gettime sched_getaffinity eventfd2 setitimer "
                    "timer_create timer_settime timer_delete getpgid getsid setsid pread64 seccomp"
                ).split(),
                "action": "SCMP_ACT_ALLOW",
            }
        ],
    }
    container.bundle.linux(seccomp=profile)
    (newest,) = container.probe(f"syscall {NEWEST}")
    assert newest["errno"] == ENOSYS
    container.bundle.args(f"syscall {MKDIR} 0")
    result = container.run()
    if default == "SCMP_ACT_ERRNO":
        assert result.ok().replies[0]["errno"] == EPERM
    else:
        assert result.code == 128 + 31


def test_other_architectures(container: Container) -> None:
    """Several architectures in the list are fine; the native one counts in any case [Q6]."""
    profile = deny("times")
    profile["architectures"] = ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"]
    container.bundle.linux(seccomp=profile)
    assert container.probe(f"syscall {TIMES}")[0]["errno"] == EPERM


@pytest.mark.parametrize("flags", [[], ["SECCOMP_FILTER_FLAG_LOG"], ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
                                   ["SECCOMP_FILTER_FLAG_TSYNC"]])  # fmt: skip
def test_flags(container: Container, flags: list[str]) -> None:
    """The known flags are accepted [Q7]."""
    profile = deny("times")
    profile["flags"] = flags
    container.bundle.linux(seccomp=profile)
    assert container.probe(f"syscall {TIMES}")[0]["errno"] == EPERM


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"defaultAction": "SCMP_ACT_NOSUCH"}, "/linux/seccomp/defaultAction"),
        ({"architectures": ["SCMP_ARCH_NOSUCH"]}, "/linux/seccomp/architectures/0"),
        ({"flags": ["SECCOMP_FILTER_FLAG_NOSUCH"]}, "/linux/seccomp/flags/0"),
        ({"syscalls": [{"names": ["times"], "action": "SCMP_ACT_NOSUCH"}]}, "/linux/seccomp/syscalls/0/action"),
        ({"syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]}, "/linux/seccomp/syscalls/0/names"),
        (
            {"syscalls": [{"names": ["times"], "action": "SCMP_ACT_ERRNO",
                           "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]},
            "/linux/seccomp/syscalls/0/args/0/index",
        ),
        (
            {"syscalls": [{"names": ["times"], "action": "SCMP_ACT_ERRNO",
                           "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_NOSUCH"}]}]},
            "/linux/seccomp/syscalls/0/args/0/op",
        ),
    ],
)  # fmt: skip
def test_bad_profiles(container: Container, leaks: Leaks, change: dict[str, Any], pointer: str) -> None:
    """Unknown words and indexes are refused [Q2, Q4, Q6, Q7, Q8]."""
    container.bundle.linux(seccomp={**deny("times"), **change})
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert pointer in result.error
    leaks.check()


def test_filter_cannot_be_escaped_by_a_child(container: Container) -> None:
    """Children of the program are under the filter too [Q2]."""
    container.bundle.linux(seccomp=deny("times"))
    container.bundle.args("exec /probe")
    container.bundle.process(args=["/probe", "exec", "/probe", "syscall", str(TIMES)])
    assert container.run().ok().replies[0]["errno"] == EPERM


@pytest.mark.parametrize("name", ["write", "openat", "close", "prctl", "execve", "sendmsg", "fchown", "capset"])
def test_harsh_profiles(container: Container, leaks: Leaks, name: str) -> None:
    """A profile that forbids what a runtime itself needs ends in a clear result, never in a hang [SECURITY D.10]."""
    container.bundle.linux(seccomp=deny(name))
    container.bundle.args("exit 0")
    result = container.run()
    assert result.code in range(256)
    leaks.check()


def test_second_create_is_the_same(container: Container, docker_profile: dict[str, Any]) -> None:
    """A compiled profile taken from a cache has the same effect [Q10]."""
    container.bundle.linux(seccomp=docker_profile)
    for _ in range(2):
        reply, ordinary = container.probe(f"syscall {KEYCTL} 0", f"syscall {GETPID}")
        assert (reply["errno"], ordinary["result"]) == (EPERM, 1)


def verdicts(container: Container, *commands: str) -> list[tuple[int, int]]:
    """(result, errno) of each call of the probe."""
    return [(reply["result"], reply["errno"]) for reply in container.probe(*(f"syscall {words}" for words in commands))]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("SCMP_ACT_KILL", 128 + 31),
        ("SCMP_ACT_KILL_THREAD", 128 + 31),
        ("SCMP_ACT_KILL_PROCESS", 128 + 31),
        ("SCMP_ACT_TRAP", 128 + 31),
        ("SCMP_ACT_ERRNO", EPERM),
        ("SCMP_ACT_TRACE", ENOSYS),
        ("SCMP_ACT_LOG", 0),
        ("SCMP_ACT_ALLOW", 0),
    ],
)
def test_actions_of_rules(container: Container, action: str, expected: int) -> None:
    """Each action does what seccomp(2) says: without a tracer TRACE is ENOSYS, LOG lets the call run [Q2]."""
    profile = deny("times")
    profile["syscalls"][0]["action"] = action
    container.bundle.linux(seccomp=profile)
    container.bundle.args(f"syscall {TIMES}")
    result = container.run()
    if expected > 128:
        assert result.code == expected
    else:
        assert result.ok().replies[0]["errno"] == expected


@pytest.mark.parametrize("action", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"])
def test_a_rule_of_the_default_action_changes_nothing(container: Container, action: str) -> None:
    """Such a rule is passed over [Q2]."""
    profile = deny("times")
    profile["defaultAction"] = action
    profile["syscalls"].append({"names": ["getpid"], "action": action})
    container.bundle.linux(seccomp=profile)
    assert verdicts(container, str(TIMES), str(GETPID)) == [(-1, EPERM), (1, 0)]


@pytest.mark.parametrize(
    ("op", "hits"),
    [
        ("SCMP_CMP_NE", {4, 6, 13, 5 + 2**32}),
        ("SCMP_CMP_LT", {4}),
        ("SCMP_CMP_LE", {4, 5}),
        ("SCMP_CMP_EQ", {5}),
        ("SCMP_CMP_GE", {5, 6, 13, 5 + 2**32}),
        ("SCMP_CMP_GT", {6, 13, 5 + 2**32}),
        ("SCMP_CMP_MASKED_EQ", {5, 13, 5 + 2**32}),
    ],
)
def test_operators(container: Container, op: str, hits: set[int]) -> None:
    """The comparisons, of 64 bits; MASKED_EQ has the mask in value [Q8]."""
    condition = {"index": 0, "value": 5, "op": op}
    if op == "SCMP_CMP_MASKED_EQ":
        condition.update(value=7, valueTwo=5)
    container.bundle.linux(seccomp=deny("getpid", args=[condition]))
    values = [4, 5, 6, 13, 5 + 2**32]
    got = verdicts(container, *(f"{GETPID} {value:#x}" for value in values))
    assert {value for value, (_, error) in zip(values, got, strict=True) if error == EPERM} == hits


def test_conditions_on_all_arguments(container: Container) -> None:
    """Six conditions on six arguments have to hold together [Q8]."""
    conditions = [{"index": i, "value": i + 10, "op": "SCMP_CMP_EQ"} for i in range(6)]
    container.bundle.linux(seccomp=deny("getpid", args=conditions))
    all_six, five = verdicts(container, f"{GETPID} 10 11 12 13 14 15", f"{GETPID} 10 11 12 13 14 16")
    assert (all_six[1], five) == (EPERM, (1, 0))


def test_an_argument_named_twice(container: Container) -> None:
    """As soon as an index comes twice, each condition is a rule of its own [Q8]."""
    conditions = [
        {"index": 0, "value": 10, "op": "SCMP_CMP_EQ"},
        {"index": 0, "value": 20, "op": "SCMP_CMP_EQ"},
        {"index": 1, "value": 30, "op": "SCMP_CMP_EQ"},
    ]
    container.bundle.linux(seccomp=deny("getpid", args=conditions))
    got = verdicts(container, f"{GETPID} 10 0", f"{GETPID} 20 0", f"{GETPID} 0 30", f"{GETPID} 0 0")
    assert [error for _, error in got] == [EPERM, EPERM, EPERM, 0]


@pytest.mark.ours_only("runc takes it for EPERM, others for a number")
@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"defaultErrnoRet": 1}, "/linux/seccomp/defaultErrnoRet"),
        (
            {"syscalls": [{"names": ["times"], "action": "SCMP_ACT_LOG", "errnoRet": 1}]},
            "/linux/seccomp/syscalls/0/errnoRet",
        ),
        (
            {"syscalls": [{"names": ["times"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096}]},
            "/linux/seccomp/syscalls/0/errnoRet",
        ),
    ],
)
def test_errno_where_there_is_none(container: Container, leaks: Leaks, change: dict[str, Any], pointer: str) -> None:
    """An errno for an action that returns none, or one out of range, is refused [Q3]."""
    container.bundle.linux(seccomp={**deny("times"), **change})
    assert pointer in container.create(check=False).error
    leaks.check()


def test_default_errno_ret(container: Container, docker_profile: dict[str, Any]) -> None:
    """defaultErrnoRet is for all calls that no rule names [Q3]."""
    names = [name for name in docker_profile["syscalls"][0]["names"] if name != "times"]
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EACCES, "architectures": ["SCMP_ARCH_X86_64"]}
    profile["syscalls"] = [{"names": [*names, "arch_prctl"], "action": "SCMP_ACT_ALLOW"}]
    container.bundle.linux(seccomp=profile)
    assert verdicts(container, str(TIMES)) == [(-1, EACCES)]


# ---- annotations

FAIL_UNKNOWN, BPF_DATA = "run.oci.seccomp_fail_unknown_syscall", "run.oci.seccomp_bpf_data"


@pytest.mark.ours_only("an annotation of crun")
def test_unknown_names_as_errors(container: Container, leaks: Leaks) -> None:
    """With the annotation a name that libseccomp does not know is an error, with "0" it is not [N7]."""
    container.bundle.linux(seccomp=deny("times", "no_such_call"))
    container.bundle.merge({"annotations": {FAIL_UNKNOWN: "1"}})
    result = container.create(check=False)
    assert result.code != 0
    assert "/linux/seccomp/syscalls/0/names/1" in result.error
    leaks.check()
    container.bundle.merge({"annotations": {FAIL_UNKNOWN: "0"}})
    assert verdicts(container, str(TIMES)) == [(-1, EPERM)]


@pytest.mark.parametrize("section", [False, True])
def test_a_given_program(container: Container, section: bool) -> None:
    """A program in the annotation takes the place of the rules, if there are any [N7]."""
    code = [(0x20, 0, 0, 0), (0x15, 0, 1, TIMES), (0x06, 0, 0, 0x50000 | EACCES), (0x06, 0, 0, 0x7FFF0000)]
    data = b"".join(struct.pack("=HBBI", *one) for one in code)
    container.bundle.merge({"annotations": {BPF_DATA: base64.b64encode(data).decode()}})
    if section:
        container.bundle.linux(seccomp=deny("getpid"))
    assert verdicts(container, str(TIMES), str(GETPID)) == [(-1, EACCES), (1, 0)]


@pytest.mark.ours_only("an annotation of crun")
@pytest.mark.parametrize("text", ["", "!", "QUJD", base64.b64encode(b"\xff" * 8).decode()])
def test_a_given_program_that_is_none(container: Container, leaks: Leaks, text: str) -> None:
    """What is no base64, no program, or not one for the kernel is refused [N7]."""
    container.bundle.merge({"annotations": {BPF_DATA: text}})
    result = container.create(check=False)
    assert result.code != 0
    assert f"/annotations/{BPF_DATA}" in result.error
    leaks.check()
