"""Compile a seccomp section to classic BPF with libseccomp, through its Python binding. Cold path: see compile.py.

Two parts, one after the other in one program:
    stub       ours: a syscall newer than every one that the profile names gets ENOSYS, so that libraries fall back to
               the older call as they would on an older kernel, instead of being told EPERM. One block per architecture.
    libseccomp the rules themselves.
Source: runtime-spec config-linux.md, "Seccomp"; seccomp(2); seccomp_rule_add(3), seccomp_attr_set(3).
"""

import errno
import posix
from _struct import Struct

from ociruntime.errors import ConfigError, StepError, UnsupportedError
from ociruntime.seccomp.compile import (
    ACTIONS,
    ARCHITECTURES,
    AT,
    EPERM,
    INSTRUCTION,
    MAX_INSTRUCTIONS,
    OPERATORS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

# classic BPF (linux/bpf_common.h)
LD_W_ABS = 0x20
JMP_JA = 0x05
JMP_JEQ_K = 0x15
JMP_JGT_K = 0x25
JMP_JGE_K = 0x35
RET_K = 0x06

# struct seccomp_data
OFFSET_NR = 0
OFFSET_ARCH = 4

X32_BIT = 0x40000000
NO_SYSCALL = 0xFFFFFFFF
X86_64 = ARCHITECTURES["SCMP_ARCH_X86_64"]
X32 = ARCHITECTURES["SCMP_ARCH_X32"]
ARM = ARCHITECTURES["SCMP_ARCH_ARM"]
ARM_PRIVATE = 0x0F0000  # __ARM_NR_BASE: the calls private to ARM are far above all others, and not "newer"

ATTR_NNP = 3  # enum scmp_filter_attr
ATTR_OPTIMIZE = 8
MANY_RULES = 32  # beyond this a binary tree over the syscall numbers (optimize level 2) beats the linear list

# Default actions that let the call through: there an unknown syscall needs no help.
PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")

_instruction = Struct("=HBBI").pack


def build(section: "dict[str, Any]") -> bytes:
    """The BPF program of a section that compile.check() accepted: 8 bytes per instruction, native byte order.

    Raises ConfigError (contradicting rules, program longer than the kernel takes), UnsupportedError (no binding, or
    an architecture that this libseccomp cannot add).
    """
    binding = _binding()
    architectures = _architectures(binding, section)
    code = _stub(binding, section, architectures) + _rules(binding, section, architectures)
    count = len(code) // INSTRUCTION
    if count > MAX_INSTRUCTIONS:
        raise ConfigError(
            f"the filter has {count} instructions, the kernel takes {MAX_INSTRUCTIONS}",
            pointer=f"{AT}/syscalls",
            hint="name fewer syscalls or architectures",
        )
    return code


def action(word: str, number: "int | None") -> int:
    """SECCOMP_RET_* with its data; number: errnoRet, EPERM if it is not given."""
    code = ACTIONS[word]
    if word in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return code | (EPERM if number is None else number)
    return code


def _binding() -> "Any":
    from ociruntime.fullpython import full_interpreter

    full_interpreter()
    try:
        import seccomp

        return seccomp
    except ImportError:
        pass
    try:
        import pyseccomp

        return pyseccomp
    except (ImportError, RuntimeError, OSError) as error:
        raise UnsupportedError(
            "linux.seccomp",
            "libseccomp and its Python binding",
            pointer=AT,
            hint="install Debian's python3-seccomp, or pyseccomp from PyPI",
        ) from error


def _number(error: Exception) -> int:
    """The errno of a failed call: Debian's binding has it only in the text."""
    if isinstance(error, OSError):
        return error.errno or 0
    digits = str(error).rpartition("-")[2].rstrip(")")
    return int(digits) if digits.isdigit() else 0


def _signed(number: int) -> int:
    """A 32-bit token or action as the C int that Debian's binding takes."""
    return number - (1 << 32) if number >> 31 else number


# ---- the rules


def _architectures(binding: "Any", section: "dict[str, Any]") -> "list[int]":
    """The tokens of the filter, the native one first (it is always there)."""
    result = [binding.system_arch() & 0xFFFFFFFF]
    for name in section.get("architectures") or ():
        token = ARCHITECTURES[name]
        if token not in result:
            result.append(token)
    return result


def _rules(binding: "Any", section: "dict[str, Any]", architectures: "list[int]") -> bytes:
    default = action(section["defaultAction"], section.get("defaultErrnoRet"))
    syscalls = binding.SyscallFilter(_signed(default))
    syscalls.set_attr(ATTR_NNP, 0)  # no_new_privs is the config's own decision
    for token in architectures[1:]:
        _add_architecture(syscalls, section, token)
    known: dict[str, bool] = {}
    compared: dict[tuple[str, int], _Compared] = {}
    rules = 0
    for i, rule in enumerate(section.get("syscalls") or ()):
        ret = action(rule["action"], rule.get("errnoRet"))
        if ret == default:
            continue  # libseccomp refuses a rule that changes nothing
        alternatives = list(_alternatives(binding, rule.get("args") or ()))
        for j, name in enumerate(rule["names"]):
            if name not in known:
                known[name] = binding.resolve_syscall(binding.Arch.NATIVE, name) != -1
            if not known[name]:
                continue
            for condition in rule.get("args") or ():
                key = (name, condition["index"])
                compared.setdefault(key, _Compared()).add(condition, f"{AT}/syscalls/{i}/names/{j}")
            for conditions in alternatives:
                _add_rule(syscalls, ret, name, conditions, f"{AT}/syscalls/{i}/names/{j}")
                rules += 1
    if rules > MANY_RULES:
        try:
            syscalls.set_attr(ATTR_OPTIMIZE, 2)
        except (OSError, RuntimeError):
            pass  # libseccomp before 2.5: a slower program, but the same
    return _export(syscalls)


class _Compared:
    """The comparisons of one argument of one syscall, over all rules.

    libseccomp (2.5.4 and others) merges alternatives into one tree of high and low halves, and loses its way where
    "less than" meets values beyond 32 bits: the filter then lets through what no rule names. Rather no filter than a
    wrong one. Profiles in use have no such values.
    """

    __slots__ = ("count", "large", "less")

    def __init__(self) -> None:
        self.count = 0
        self.large = self.less = False

    def add(self, condition: "dict[str, Any]", pointer: str) -> None:
        self.count += 1
        self.less |= condition["op"] in ("SCMP_CMP_LT", "SCMP_CMP_LE")
        self.large |= condition["value"] >> 32 != 0
        if self.count > 1 and self.less and self.large:
            raise UnsupportedError(
                "SCMP_CMP_LT or SCMP_CMP_LE as one of several conditions on an argument, with a value beyond 32 bits,",
                "a libseccomp that does not confuse them",
                pointer=pointer,
                hint="allow the syscall with one condition on this argument, or use values of 32 bits",
            )


def _alternatives(binding: "Any", args: "Any") -> "Iterator[list[Any]]":
    """The condition lists of a rule: any of them makes it match.

    Conditions on different arguments all have to hold. As soon as one argument is named twice, each condition is an
    alternative of its own: that is how the callers' profiles write "one of these values".
    """
    conditions = [
        binding.Arg(c["index"], OPERATORS[c["op"]], c.get("value") or 0, c.get("valueTwo") or 0) for c in args
    ]
    if len({c["index"] for c in args}) == len(conditions):
        yield conditions
    else:
        for condition in conditions:
            yield [condition]


def _add_rule(syscalls: "Any", ret: int, name: str, conditions: "list[Any]", pointer: str) -> None:
    try:
        syscalls.add_rule(_signed(ret), name, *conditions)
    except (OSError, RuntimeError) as error:
        number = _number(error)
        if number == errno.EEXIST:
            raise ConfigError(f"the rule for '{name}' contradicts an earlier one", pointer=pointer) from error
        raise StepError("rule refused", pointer=pointer, call="seccomp_rule_add", errno=number, path=name) from error


def _add_architecture(syscalls: "Any", section: "dict[str, Any]", token: int) -> None:
    try:
        syscalls.add_arch(_signed(token))
    except (OSError, RuntimeError) as error:
        i = [ARCHITECTURES[name] for name in section["architectures"]].index(token)
        name, pointer = section["architectures"][i], f"{AT}/architectures/{i}"
        number = _number(error)
        if number == errno.EDOM:
            raise UnsupportedError(f"{name} in one filter", "a host of the same byte order", pointer=pointer) from error
        if number == errno.EINVAL:
            raise UnsupportedError(name, "a newer libseccomp", pointer=pointer) from error
        raise StepError("refused", pointer=pointer, call="seccomp_arch_add", errno=number, path=name) from error


class _File:
    """What export_bpf() asks of a file."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd


def _export(syscalls: "Any") -> bytes:
    fd = posix.memfd_create("seccomp", posix.MFD_CLOEXEC)
    try:
        syscalls.export_bpf(_File(fd))
        return posix.pread(fd, posix.fstat(fd).st_size, 0)
    except (OSError, RuntimeError) as error:
        raise StepError("not compiled", pointer=AT, call="seccomp_export_bpf", errno=_number(error)) from error
    finally:
        posix.close(fd)


# ---- the stub


def _stub(binding: "Any", section: "dict[str, Any]", architectures: "list[int]") -> bytes:
    """The ENOSYS blocks, or nothing where the default action makes them pointless."""
    default = section["defaultAction"]
    if default in PERMISSIVE or action(default, section.get("defaultErrnoRet")) == _enosys():
        return b""

    def resolve(token: int, name: str) -> int:
        number: int = binding.resolve_syscall(_signed(token), name)
        return number

    names = {name for rule in section.get("syscalls") or () for name in rule["names"]}
    return stub(newest(resolve, names, architectures))


def newest(resolve: "Callable[[int, str], int]", names: "set[str]", architectures: "list[int]") -> "dict[int, int]":
    """Token -> the largest syscall number that the profile names there; without any name the token is left out."""
    result: dict[int, int] = {}
    for token in architectures:
        limit = ARM_PRIVATE if token == ARM else NO_SYSCALL
        # negative: unknown to libseccomp, or no syscall of this architecture
        numbers = [number for number in (resolve(token, name) for name in names) if 0 <= number < limit]
        if numbers:
            result[token] = max(numbers)
    return result


def stub(last: "dict[int, int]") -> bytes:
    """The program start for {token: newest number}; what it lets through falls on to the instruction after it.

    x32 shares its AUDIT_ARCH with x86_64, its numbers have bit 30 set. Where the filter has no x32, such numbers are
    left to libseccomp, which treats them as a foreign architecture; so is -1, which is no syscall at all.
    """
    blocks = []
    for token, number in last.items():
        if token == X86_64:
            blocks.append((token, [*_below(X32_BIT, number), *_x32(last)]))
        elif token == ARM:
            blocks.append((token, _below(ARM_PRIVATE, number)))
        elif token == X32:
            if X86_64 not in last:
                blocks.append((X86_64, _x32(last)))
        else:
            blocks.append((token, _below(NO_SYSCALL, number)))
    if not blocks:
        return b""
    # Each block is left at its end by a jump over all that follows: 32 bits wide, so no number of blocks is too many.
    code = [(LD_W_ABS, 0, 0, OFFSET_ARCH)]
    rest = sum(len(body) + 3 for _, body in blocks)
    for token, body in blocks:
        rest -= len(body) + 3
        code += [
            (JMP_JEQ_K, 0, len(body) + 2, token),
            (LD_W_ABS, 0, 0, OFFSET_NR),
            *body,
            (JMP_JA, 0, 0, rest),
        ]
    return b"".join([_instruction(*one) for one in code])


def _enosys() -> int:
    return ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS


def _below(limit: int, number: int) -> "list[tuple[int, int, int, int]]":
    """ENOSYS for a number (in the accumulator) above `number` and below `limit`; else on to the next instruction."""
    return [(JMP_JGE_K, 2, 0, limit), (JMP_JGT_K, 0, 1, number), (RET_K, 0, 0, _enosys())]


def _x32(last: "dict[int, int]") -> "list[tuple[int, int, int, int]]":
    return _below(NO_SYSCALL, last[X32]) if X32 in last else []
