"""seccomp.build: the program's verdicts, by a classic BPF interpreter and by this kernel, against the section."""

import ctypes
import errno
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from ociruntime.errors import ConfigError, UnsupportedError
from ociruntime.seccomp import build as builder, compile as compiler
from tests.seccomp.verdicts import (
    ENOSYS,
    EPERM,
    KILL,
    LOG,
    MASK64,
    NATIVE,
    PERMIT,
    TRAP,
    X32,
    X32_BIT,
    X86,
    X86_64,
    binding,
    expected,
    needs_x86_64,
    number_of,
    run,
)

# ---- tables


def section(*rules: Any, default: str = "SCMP_ACT_ERRNO", **more: Any) -> dict[str, Any]:
    return {
        "defaultAction": default,
        "syscalls": [{"names": names.split(), "action": action, **extra} for names, action, extra in rules],
        **more,
    }


def compile_(value: dict[str, Any]) -> bytes:
    assert compiler.check(value, (6, 1)) is not None
    return builder.build(value)


ALLOW = "SCMP_ACT_ALLOW"
READ, WRITE, OPENAT2 = 0, 1, 437


@needs_x86_64
def test_actions() -> None:
    value = section(
        ("read", ALLOW, {}),
        ("write", "SCMP_ACT_KILL_PROCESS", {}),
        ("open", "SCMP_ACT_KILL", {}),
        ("close", "SCMP_ACT_TRAP", {}),
        ("stat", "SCMP_ACT_ERRNO", {"errnoRet": 13}),
        ("fstat", "SCMP_ACT_TRACE", {"errnoRet": 7}),
        ("lstat", "SCMP_ACT_LOG", {}),
        ("poll", "SCMP_ACT_TRACE", {}),
        ("lseek", "SCMP_ACT_KILL_THREAD", {}),
        ("openat2", ALLOW, {}),
    )
    program = compile_(value)
    got = [run(program, X86_64, nr) for nr in range(10)]
    assert got == [PERMIT, 0x80000000, KILL, TRAP, 0x5000D, 0x7FF00007, LOG, 0x7FF00001, KILL, EPERM]
    assert run(program, X86, 3) == KILL  # an architecture that is not in the filter


@needs_x86_64
def test_default_errno() -> None:
    assert run(compile_(section(("read", ALLOW, {}), ("openat2", ALLOW, {}), defaultErrnoRet=5)), X86_64, 2) == 0x50005


@needs_x86_64
def test_notify_is_compiled() -> None:
    value = section(("mkdir", "SCMP_ACT_NOTIFY", {}), ("openat2", ALLOW, {}), listenerPath="/s")
    assert run(compile_(value), X86_64, 83) == 0x7FC00000


@needs_x86_64
def test_rules_equal_to_the_default_are_skipped() -> None:
    value = section(("read", "SCMP_ACT_ERRNO", {"errnoRet": 1}), ("write openat2", ALLOW, {}), defaultErrnoRet=1)
    program = compile_(value)
    assert [run(program, X86_64, nr) for nr in (READ, WRITE)] == [EPERM, PERMIT]


@needs_x86_64
def test_unknown_names_are_ignored() -> None:
    program = compile_(section(("no_such_call read openat2", ALLOW, {})))
    assert run(program, X86_64, READ) == PERMIT
    assert len(program) == len(compile_(section(("read openat2", ALLOW, {}))))


@needs_x86_64
def test_conditions_on_different_arguments_are_anded() -> None:
    args = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 5, "op": "SCMP_CMP_GT"}]
    program = compile_(section(("read", ALLOW, {"args": args}), ("openat2", ALLOW, {})))
    assert [run(program, X86_64, READ, a) for a in ([1, 0, 6], [1, 0, 5], [2, 0, 6])] == [PERMIT, EPERM, EPERM]


@needs_x86_64
def test_one_repeated_argument_makes_every_condition_an_alternative() -> None:
    args = [
        {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
        {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"},
        {"index": 2, "value": 5, "op": "SCMP_CMP_GT"},
    ]
    program = compile_(section(("read", ALLOW, {"args": args}), ("openat2", ALLOW, {})))
    got = [run(program, X86_64, READ, a) for a in ([1, 0, 0], [2, 0, 0], [3, 0, 6], [3, 0, 5])]
    assert got == [PERMIT, PERMIT, PERMIT, EPERM]


def compare(index: int, word: str, value: int) -> dict[str, Any]:
    return {"index": index, "op": f"SCMP_CMP_{word}", "value": value}


@needs_x86_64
@pytest.mark.parametrize(
    ("rules", "denied"),
    [
        ([[compare(5, "GE", 2**32)], [compare(5, "LE", 0)]], [0, 0, 0, 0, 0, 1]),
        ([[compare(0, "LE", 0)], [compare(0, "GE", 2)], [compare(0, "LE", 1), compare(1, "NE", 2)]], [1, 2]),
    ],
)
def test_alternatives_that_libseccomp_confuses(rules: Any, denied: list[int]) -> None:
    """libseccomp alone lets these calls through (2.5.4)."""
    value = section(*[("read", ALLOW, {"args": args}) for args in rules], ("openat2", ALLOW, {}))
    assert run(compile_(value), X86_64, READ, denied) == EPERM
    permissive = section(
        *[("close", "SCMP_ACT_ERRNO", {"errnoRet": 77, "args": args}) for args in rules], default=ALLOW
    )
    assert run(compile_(permissive), X86_64, 3, denied) == PERMIT
    assert in_child(compile_(permissive), [(3, *denied)]) != [77]


@needs_x86_64
def test_the_first_of_several_matching_rules_wins() -> None:
    above, below = {"args": [compare(0, "GT", 3)]}, {"args": [compare(0, "LT", 5)]}
    for first, second in ((above, below), (below, above)):
        value = section(("read", ALLOW, first), ("read", "SCMP_ACT_TRAP", second), ("openat2", ALLOW, {}))
        assert run(compile_(value), X86_64, READ, [4]) == PERMIT
        assert run(compile_(value), X86_64, READ, [9 if first is below else 0]) == TRAP


@needs_x86_64
def test_a_rule_without_conditions_is_the_whole_answer() -> None:
    args = {"args": [compare(0, "EQ", 2**40), compare(0, "LT", 2)]}
    value = section(("read", "SCMP_ACT_TRAP", args), ("read", ALLOW, {}), ("openat2", ALLOW, {}))
    assert [run(compile_(value), X86_64, READ, [a]) for a in (0, 5, 2**40)] == [PERMIT] * 3


@needs_x86_64
def test_calls_behind_socketcall_stay_with_libseccomp() -> None:
    """podman's rules for socket: several arguments, two actions, and 32-bit x86 in the same filter."""
    value = section(
        ("socket", "SCMP_ACT_ERRNO", {"errnoRet": 22, "args": [compare(0, "EQ", 16), compare(2, "EQ", 9)]}),
        ("socket", ALLOW, {"args": [compare(2, "NE", 9)]}),
        ("socket", ALLOW, {"args": [compare(0, "NE", 16)]}),
        ("openat2", ALLOW, {}),
        architectures=["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    )
    program = compile_(value)
    for kernel, nr in ((X86_64, 41), (X86_64, X32_BIT | 41), (X86, 359)):
        got = [run(program, kernel, nr, a) for a in ([16, 0, 9], [16, 0, 8], [2, 0, 9], [2, 0, 0])]
        assert got == [0x50016, PERMIT, PERMIT, PERMIT], (hex(kernel), nr)
    assert run(program, X86, 102, [1]) == PERMIT


@needs_x86_64
def test_masked_equal() -> None:
    """value is the mask, valueTwo what has to remain; a missing valueTwo is 0 (docker's rule for clone)."""
    args = [{"index": 0, "value": 0x7E020000, "op": "SCMP_CMP_MASKED_EQ"}]
    two = [{"index": 0, "value": 0xF0, "valueTwo": 0x30, "op": "SCMP_CMP_MASKED_EQ"}]
    program = compile_(
        section(("clone", ALLOW, {"args": args}), ("read", ALLOW, {"args": two}), ("openat2", ALLOW, {}))
    )
    assert [run(program, X86_64, 56, [a]) for a in (0, 0x11, 0x10000000, 0x20000)] == [PERMIT, PERMIT, EPERM, EPERM]
    assert [run(program, X86_64, READ, [a]) for a in (0x3F, 0x30, 0x40, 0xF0)] == [PERMIT, PERMIT, EPERM, EPERM]


@needs_x86_64
@pytest.mark.parametrize("beside", [[], [compare(1, "EQ", 7)]])
def test_masked_equal_with_bits_outside_the_mask(beside: list[dict[str, Any]]) -> None:
    """They do not matter, whether libseccomp decides (one list of conditions) or we do (several lists)."""
    args = [{"index": 0, "value": 0xF0, "valueTwo": 0x13F, "op": "SCMP_CMP_MASKED_EQ"}, *beside]
    rules: list[Any] = [("read", ALLOW, {"args": args}), ("openat2", ALLOW, {})]
    if beside:
        rules.insert(1, ("read", ALLOW, {"args": [compare(2, "EQ", 1), compare(3, "EQ", 1)]}))
    program = compile_(section(*rules))
    assert [run(program, X86_64, READ, [a, 7, 0, 0]) for a in (0x3F, 0x30, 0x40)] == [PERMIT, PERMIT, EPERM]


@needs_x86_64
def test_64_bit_values() -> None:
    args = [{"index": 5, "value": MASK64, "op": "SCMP_CMP_EQ"}]
    program = compile_(section(("read", ALLOW, {"args": args}), ("openat2", ALLOW, {})))
    rest = [0] * 5
    assert [run(program, X86_64, READ, [*rest, a]) for a in (MASK64, 2**32 - 1, 2**63)] == [PERMIT, EPERM, EPERM]


@needs_x86_64
def test_of_contradicting_rules_the_first_stands() -> None:
    args = {"args": [compare(0, "EQ", 1)]}
    value = section(("read", ALLOW, args), ("write read", "SCMP_ACT_TRAP", args), ("openat2", ALLOW, {}))
    assert [run(compile_(value), X86_64, READ, [a]) for a in (1, 2)] == [PERMIT, EPERM]
    value = section(("read", "SCMP_ACT_TRAP", {}), ("read", ALLOW, {}), ("openat2", ALLOW, {}))
    assert run(compile_(value), X86_64, READ) == TRAP


def test_program_too_long() -> None:
    args = [{"index": 0, "value": v, "op": "SCMP_CMP_EQ"} for v in range(4200)]
    with pytest.raises(ConfigError, match=r"instructions, the kernel takes 4096") as error:
        compile_(section(("read", ALLOW, {"args": args})))
    assert error.value.pointer == "/linux/seccomp/syscalls"


@needs_x86_64
def test_architecture_of_the_other_byte_order() -> None:
    with pytest.raises(UnsupportedError) as error:
        compile_(section(("read", ALLOW, {}), architectures=["SCMP_ARCH_X86", "SCMP_ARCH_S390X"]))
    assert error.value.pointer == "/linux/seccomp/architectures/1"


@needs_x86_64
@pytest.mark.parametrize("name", ["LOONGARCH64", "M68K", "SH", "SHEB"])
def test_architecture_of_newer_libseccomps(name: str) -> None:
    try:
        compile_(section(("read", ALLOW, {}), architectures=["SCMP_ARCH_X86", f"SCMP_ARCH_{name}"]))
    except UnsupportedError as error:
        assert error.pointer == "/linux/seccomp/architectures/1"


@needs_x86_64
def test_architectures_of_one_byte_order() -> None:
    names = ["X86_64", "X86", "X32", "ARM", "AARCH64", "MIPSEL", "MIPSEL64", "MIPSEL64N32", "PPC64LE", "RISCV64"]
    program = compile_(section(("read openat2", ALLOW, {}), architectures=[f"SCMP_ARCH_{n}" for n in names]))
    for name in names:
        token = compiler.ARCHITECTURES[f"SCMP_ARCH_{name}"]
        kernel = X86_64 if token == X32 else token
        assert run(program, kernel, number_of(token, "read")) == PERMIT
        assert run(program, kernel, number_of(token, "openat2") + 1) == ENOSYS
        assert run(program, kernel, number_of(token, "openat2") - 2) == EPERM


@needs_x86_64
def test_many_rules_make_a_tree() -> None:
    names = [f"{n}" for n in (number_name(nr) for nr in range(300)) if n]
    steps: list[int] = []
    assert run(compile_(section((" ".join(names), ALLOW, {}))), X86_64, 299, steps=steps) == PERMIT
    assert len(steps) < 60


def number_name(nr: int) -> str:
    try:
        name = binding.resolve_syscall(X86_64 - 2**32, nr)
    except ValueError:
        return ""
    return name.decode() if isinstance(name, bytes) else str(name)


# ---- the ENOSYS stub


@needs_x86_64
@pytest.mark.parametrize(
    ("default", "number", "newer"),
    [
        ("SCMP_ACT_ERRNO", None, ENOSYS),
        ("SCMP_ACT_ERRNO", errno.ENOSYS, ENOSYS),
        ("SCMP_ACT_KILL_PROCESS", None, ENOSYS),
        ("SCMP_ACT_TRAP", None, ENOSYS),
        ("SCMP_ACT_ALLOW", None, PERMIT),
        ("SCMP_ACT_LOG", None, LOG),
        ("SCMP_ACT_TRACE", 3, 0x7FF00003),
    ],
)
def test_newer_syscalls(default: str, number: int | None, newer: int) -> None:
    value = section(("openat2", "SCMP_ACT_ERRNO", {"errnoRet": 9}), default=default)
    if number is not None:
        value["defaultErrnoRet"] = number
    program = compile_(value)
    assert run(program, X86_64, OPENAT2) == 0x50009
    assert run(program, X86_64, OPENAT2 + 1) == newer
    assert run(program, X86_64, OPENAT2 - 1) == (newer if number == errno.ENOSYS else expected(value, X86_64, 436, []))


@needs_x86_64
def test_no_stub_where_it_changes_nothing() -> None:
    def has_stub(**more: Any) -> bool:
        value = section(("read", "SCMP_ACT_TRAP", {}), **more)
        return builder._prefix(builder._Rules(binding, value, [X86_64]), value) != b""

    assert has_stub() and has_stub(default="SCMP_ACT_KILL")
    for default in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"):
        assert not has_stub(default=default)
    assert not has_stub(defaultErrnoRet=errno.ENOSYS)


@needs_x86_64
def test_names_of_rules_equal_to_the_default_count_for_the_stub() -> None:
    program = compile_(section(("read", ALLOW, {}), ("openat2", "SCMP_ACT_ERRNO", {})))
    assert [run(program, X86_64, nr) for nr in (OPENAT2, OPENAT2 + 1)] == [EPERM, ENOSYS]


@needs_x86_64
def test_x32_numbers() -> None:
    without = compile_(section(("openat2", ALLOW, {})))
    assert run(without, X86_64, X32_BIT | OPENAT2) == KILL
    assert run(without, X86_64, X32_BIT | 5000) == KILL
    listed = compile_(section(("openat2", ALLOW, {}), architectures=["SCMP_ARCH_X32"]))
    assert run(listed, X86_64, X32_BIT | OPENAT2) == PERMIT
    assert run(listed, X86_64, X32_BIT | OPENAT2 + 1) == ENOSYS
    assert run(listed, X86_64, OPENAT2 + 1) == ENOSYS
    assert run(listed, X86_64, OPENAT2) == PERMIT
    assert run(listed, X86_64, X32_BIT | 3) == EPERM


@needs_x86_64
def test_per_architecture() -> None:
    value = section(("socketcall", ALLOW, {}), ("openat2", ALLOW, {}), architectures=["SCMP_ARCH_X86"])
    program = compile_(value)
    assert run(program, X86, 102) == PERMIT
    assert run(program, X86, 438) == ENOSYS
    only = compile_(section(("socketcall", ALLOW, {}), architectures=["SCMP_ARCH_X86"]))
    assert run(only, X86, 103) == ENOSYS  # newest named on X86
    assert run(only, X86_64, 1000) == EPERM  # nothing is named on x86_64: no stub there


def test_stub_blocks_of_every_architecture() -> None:
    """Each block answers for its own architecture only, in any number and order."""
    last = {token: 100 for token in compiler.ARCHITECTURES.values() if token != X32}
    last[X32] = X32_BIT | 50
    for order in (list(last), list(reversed(last))):
        program = builder.prefix(order, last, {}) + struct.pack("=HBBI", 6, 0, 0, PERMIT)
        for token in order:
            if token != X32:
                assert run(program, token, 100) == PERMIT
                assert run(program, token, 101) == ENOSYS
                assert run(program, token, -1) == PERMIT
        assert run(program, X86_64, X32_BIT | 50) == PERMIT
        assert run(program, X86_64, X32_BIT | 51) == ENOSYS
        assert run(program, 0x12345678, 101) == PERMIT
    alone = builder.prefix([X32], {X32: X32_BIT | 50}, {}) + struct.pack("=HBBI", 6, 0, 0, PERMIT)
    assert [run(alone, X86_64, nr) for nr in (9999, X32_BIT | 50, X32_BIT | 51)] == [PERMIT, PERMIT, ENOSYS]
    assert builder.prefix([X86_64], {}, {}) == b""


def test_private_calls_of_arm_are_not_newer() -> None:
    """set_tls and its like have numbers far above every other call; naming them must not switch the stub off."""
    arm = compiler.ARCHITECTURES["SCMP_ARCH_ARM"]
    numbers = {"read": 3, "openat2": 437, "set_tls": 0xF0005, "unknown": -1, "pseudo": -10060}
    last = builder.newest(lambda token, name: numbers[name], set(numbers), [arm])
    assert last == {arm: 437}
    program = builder.prefix([arm], last, {}) + struct.pack("=HBBI", 6, 0, 0, PERMIT)
    assert [run(program, arm, nr) for nr in (437, 438, 0xEFFFF, 0xF0000, 0xF0005)] == [
        PERMIT,
        ENOSYS,
        ENOSYS,
        PERMIT,
        PERMIT,
    ]
    assert builder.newest(lambda token, name: -1, {"x"}, [arm]) == {}


# ---- every verdict, against the words

NAMES = ["read", "write", "personality", "clone", "openat2"]
VALUES = st.sampled_from([0, 1, 2, 0x20000, 0xFFFFFFFF, 2**32, 2**32 + 1, 2**63, MASK64 - 1, MASK64])
CONDITION = st.builds(
    lambda index, op, value, two: {"index": index, "op": op, "value": value, "valueTwo": two & value},
    st.sampled_from([0, 1, 5]),
    st.sampled_from(sorted(compiler.OPERATORS)),
    VALUES,
    VALUES,
)
ACTION = st.sampled_from(
    [
        ("SCMP_ACT_ALLOW", None),
        ("SCMP_ACT_ERRNO", None),
        ("SCMP_ACT_ERRNO", 38),
        ("SCMP_ACT_ERRNO", 13),
        ("SCMP_ACT_TRAP", None),
        ("SCMP_ACT_KILL_PROCESS", None),
        ("SCMP_ACT_LOG", None),
        ("SCMP_ACT_TRACE", 2),
    ]
)


@st.composite
def sections(draw: st.DrawFn) -> dict[str, Any]:
    """Few names, so that several rules meet."""
    rules = []
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=12)):
        word, number = draw(ACTION)
        rule: dict[str, Any] = {"names": [name], "action": word}
        if number is not None:
            rule["errnoRet"] = number
        conditions = draw(st.one_of(st.none(), st.lists(CONDITION, max_size=3)))
        if conditions is not None:
            rule["args"] = conditions
        rules.append(rule)
    word, number = draw(ACTION)
    value: dict[str, Any] = {"defaultAction": word, "syscalls": rules}
    if number is not None:
        value["defaultErrnoRet"] = number
    value["architectures"] = draw(st.lists(st.sampled_from(["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"]), unique=True))
    if draw(st.booleans()):  # beyond 32 rules
        filler = [n for n in (number_name(nr) for nr in range(100, 150)) if n and n not in NAMES]
        rules.append({"names": filler, "action": "SCMP_ACT_ALLOW"})
    return value


@needs_x86_64
@settings(max_examples=200, deadline=None)
@given(sections(), st.lists(st.lists(VALUES, min_size=6, max_size=6), min_size=1, max_size=8))
def test_verdicts(value: dict[str, Any], arguments: list[list[int]]) -> None:
    program = compile_(value)
    # on x32 libseccomp compares 32 bits only
    small = all(c["value"] < 2**32 for rule in value["syscalls"] for c in rule.get("args") or ())
    numbers = [number_of(X86_64, name) for name in NAMES] + [7, 120, 440, 1000, 0x3FFFFFFF, 0xFFFFFFFF]
    for nr in numbers + [X32_BIT | nr for nr in numbers[:-2]]:
        for args in arguments:
            want = expected(value, X86_64, nr, args)
            if not nr & X32_BIT or (small and want == expected(value, X86_64, nr, args, 0xFFFFFFFF)):
                assert run(program, X86_64, nr, args) == want, (hex(nr), args)
    assert run(program, X86, 3) == KILL


# ---- docker's profile, and the kernel


def docker() -> dict[str, Any]:
    config = json.loads((Path(__file__).parents[1] / "data" / "docker-config.json").read_text())
    found: dict[str, Any] = config["linux"]["seccomp"]
    return found


@needs_x86_64
def test_docker_profile() -> None:
    value = docker()
    program = compile_(value)
    for nr in [*range(470), 5000]:
        for args in ([0] * 6, [40, 0, 0, 0, 0, 0], [8, 1, 0, 0, 0, 0], [0x10000000, 0, 0, 0, 0, 0]):
            assert run(program, X86_64, nr, args) == expected(value, X86_64, nr, args), (nr, args)
            x32 = nr | X32_BIT
            assert run(program, X86_64, x32, args) == expected(value, X86_64, x32, args), (x32, args)
    newest = max(number_of(X86, name) for rule in value["syscalls"] for name in rule["names"])
    assert run(program, X86, newest + 1) == ENOSYS
    assert run(program, X86, 3) == PERMIT


class Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def in_child(program: bytes, calls: list[tuple[int, ...]], flags: int = 4) -> list[int]:
    """Load program in a forked child; errno (0: none) of each call made there."""
    libc = ctypes.CDLL(None, use_errno=True)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        result = b"failed"
        try:
            buffer = ctypes.create_string_buffer(program, len(program))
            fprog = Filter(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
            number = number_of(NATIVE, "seccomp")
            if libc.prctl(38, 1, 0, 0, 0) == 0 and libc.syscall(number, 1, flags, ctypes.byref(fprog)) == 0:
                errors = []
                for call in calls:
                    ctypes.set_errno(0)
                    errors.append(ctypes.get_errno() if libc.syscall(*map(ctypes.c_long, call)) == -1 else 0)
                result = json.dumps(errors).encode()
        finally:
            os.write(writer, result)
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    got: list[int] = json.loads(answer)
    return got


@needs_x86_64
def test_the_kernel_takes_dockers_profile() -> None:
    getpid, mount, clone3 = 39, 165, 435
    personality, socket = 135, 41
    got = in_child(
        compile_(docker()),
        [
            (getpid,),
            (mount, 0, 0, 0, 0, 0),
            (clone3, 0, 0),
            (1000,),
            (personality, 0xFFFFFFFF),
            (personality, 0x123),
            (socket, 40, 1, 0),  # AF_VSOCK
        ],
    )
    assert got == [0, errno.EPERM, errno.ENOSYS, errno.ENOSYS, 0, errno.EPERM, errno.EPERM]


@needs_x86_64
def test_the_kernel_compares_arguments() -> None:
    args = [{"index": 0, "value": 1000, "op": "SCMP_CMP_GE"}]
    value = section(
        ("close", "SCMP_ACT_ERRNO", {"errnoRet": 77, "args": args}), ("getppid", "SCMP_ACT_ERRNO", {}), default=ALLOW
    )
    assert in_child(compile_(value), [(3, 1000), (3, 999), (110,)], flags=0) == [77, errno.EBADF, errno.EPERM]


def test_without_a_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "seccomp", None)
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    with pytest.raises(UnsupportedError) as error:
        builder.build(section(("read", ALLOW, {})))
    assert error.value.pointer == "/linux/seccomp"
    assert "python3-seccomp" in error.value.hint


def test_unknown_names_as_errors() -> None:
    value = section(("read", ALLOW, {}), ("write no_such_call", "SCMP_ACT_TRAP", {}))
    assert builder.build(value)
    with pytest.raises(ConfigError) as error:
        builder.build(value, fail_unknown=True)
    assert error.value.pointer == "/linux/seccomp/syscalls/1/names/1"


@needs_x86_64
@pytest.mark.parametrize("nr", [1, 39, 9999])
def test_notify_as_default_action(nr: int) -> None:
    """The listener is asked about calls newer than the profile, too."""
    program = compile_(section(("read", ALLOW, {}), default="SCMP_ACT_NOTIFY", listenerPath="/s"))
    assert run(program, X86_64, nr) == 0x7FC00000
    assert run(program, X86_64, READ) == PERMIT
