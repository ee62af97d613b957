"""What a filter answers: a classic BPF interpreter; and what the section says, word by word."""

import errno
import struct
from typing import Any

import pytest

from ociruntime.seccomp import compile as compiler

try:
    import seccomp as binding
except ImportError:
    binding = pytest.importorskip("pyseccomp")

NATIVE = binding.system_arch() & 0xFFFFFFFF
X86_64, X86, X32 = (compiler.ARCHITECTURES[f"SCMP_ARCH_{n}"] for n in ("X86_64", "X86", "X32"))
X32_BIT = 0x40000000
MASK64 = 2**64 - 1

KILL, TRAP, LOG, PERMIT = 0, 0x30000, 0x7FFC0000, 0x7FFF0000
ENOSYS = 0x50000 | errno.ENOSYS
EPERM = 0x50000 | errno.EPERM

needs_x86_64 = pytest.mark.skipif(NATIVE != X86_64, reason="syscall numbers of x86_64")


# ---- a classic BPF interpreter, as seccomp(2) runs it


def run(program: bytes, arch: int, nr: int, args: Any = (), steps: list[int] | None = None) -> int:
    args = list(args) + [0] * (6 - len(args))
    data = struct.pack("=IIQ6Q", nr & 0xFFFFFFFF, arch, 0, *args)
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    a = x = pc = 0
    memory = [0] * 16
    while True:
        op, jt, jf, k = code[pc]
        pc += 1
        if steps is not None:
            steps.append(pc)
        if op == 0x20:  # ld [k]
            assert k % 4 == 0
            a = int(struct.unpack_from("=I", data, k)[0])
        elif op == 0x06:  # ret k
            return k
        elif op == 0x05:  # ja
            pc += k
        elif op in (0x15, 0x25, 0x35, 0x45):  # jeq jgt jge jset
            taken = {0x15: a == k, 0x25: a > k, 0x35: a >= k, 0x45: bool(a & k)}[op]
            pc += jt if taken else jf
        elif op == 0x54:  # and k
            a &= k
        elif op == 0x02:  # st
            memory[k] = a
        elif op == 0x60:  # ld M[k]
            a = memory[k]
        elif op == 0x07:  # tax
            x = a
        elif op == 0x87:  # txa
            a = x
        else:
            raise AssertionError(f"instruction {op:#x}")


# ---- what the section says, word by word


def holds(condition: dict[str, Any], args: list[int], mask: int) -> bool:
    """mask: libseccomp compares 32 bits on 32-bit architectures and on x32."""
    value, actual = condition["value"] & mask, args[condition["index"]] & mask
    result: bool = {
        "SCMP_CMP_NE": actual != value,
        "SCMP_CMP_LT": actual < value,
        "SCMP_CMP_LE": actual <= value,
        "SCMP_CMP_EQ": actual == value,
        "SCMP_CMP_GE": actual >= value,
        "SCMP_CMP_GT": actual > value,
        "SCMP_CMP_MASKED_EQ": actual & value == condition.get("valueTwo", 0) & value,
    }[condition["op"]]
    return result


def code_of(word: str, number: int | None) -> int:
    base = {
        "SCMP_ACT_KILL": KILL,
        "SCMP_ACT_KILL_THREAD": KILL,
        "SCMP_ACT_KILL_PROCESS": 0x80000000,
        "SCMP_ACT_TRAP": TRAP,
        "SCMP_ACT_ERRNO": 0x50000,
        "SCMP_ACT_TRACE": 0x7FF00000,
        "SCMP_ACT_LOG": LOG,
        "SCMP_ACT_ALLOW": PERMIT,
    }[word]
    return base | (1 if number is None else number) if word in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else base


def number_of(token: int, name: str) -> int:
    return int(binding.resolve_syscall(token - 2**32 if token >> 31 else token, name))


def expected(section: dict[str, Any], arch: int, nr: int, args: list[int], mask: int = MASK64) -> int:
    tokens = {NATIVE} | {compiler.ARCHITECTURES[n] for n in section.get("architectures") or ()}
    token = X32 if arch == X86_64 and nr & X32_BIT and nr != 0xFFFFFFFF else arch
    if token not in tokens:
        return KILL
    default = code_of(section["defaultAction"], section.get("defaultErrnoRet"))
    conditional = []
    named = []
    for rule in section["syscalls"]:
        numbers = [number_of(token, name) for name in rule["names"]]
        named += [n for n in numbers if n >= 0]
        ret = code_of(rule["action"], rule.get("errnoRet"))
        if nr not in numbers or ret == default:
            continue
        conditions = rule.get("args") or []
        repeated = len({c["index"] for c in conditions}) < len(conditions)
        always = [c["op"] == "SCMP_CMP_MASKED_EQ" and c["value"] == 0 for c in conditions]
        if (any if repeated else all)(always):
            return ret  # without conditions a rule is the whole answer
        if (any if repeated else all)(holds(c, args, mask) for c in conditions):
            conditional.append(ret)
    if conditional:
        return conditional[0]
    permissive = section["defaultAction"] in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
    if named and max(named) < nr != 0xFFFFFFFF and not permissive:
        return ENOSYS
    return default
