"""Compile a seccomp section to classic BPF with libseccomp, through its Python binding. Cold path: see compile.py.

One program of two parts:
    prefix      ours, a block per architecture: a syscall newer than every one that the profile names gets ENOSYS, so
                that libraries fall back to the older call as on an older kernel, instead of being told EPERM; and the
                few syscalls with conditions that libseccomp gets wrong (conditions.py)
    libseccomp  all the rules
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
    FAIL_UNKNOWN,
    INSTRUCTION,
    MAX_INSTRUCTIONS,
    OPERATORS,
)
from ociruntime.seccomp.conditions import (
    JMP_JA,
    JMP_JEQ_K,
    JMP_JGE_K,
    JMP_JGT_K,
    LD_W_ABS,
    RET_K,
    alternatives,
    decide,
    needs_care,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ociruntime.seccomp.conditions import Alternative, Instruction

# struct seccomp_data
OFFSET_NR = 0
OFFSET_ARCH = 4

X32_BIT = 0x40000000
NO_SYSCALL = 0xFFFFFFFF
X86_64 = ARCHITECTURES["SCMP_ARCH_X86_64"]
X32 = ARCHITECTURES["SCMP_ARCH_X32"]
ARM = ARCHITECTURES["SCMP_ARCH_ARM"]
ARM_PRIVATE = 0x0F0000  # __ARM_NR_BASE: the calls private to ARM are far above all others, and not "newer"

UNKNOWN = -1  # what libseccomp calls a name it has never heard of
NUMBERS_END = 7000  # the last range is that of MIPS n32, from 6000
PSEUDO = -10000  # above: parts of socketcall and ipc; below: calls that other architectures have

ATTR_NNP = 3  # enum scmp_filter_attr
ATTR_OPTIMIZE = 8
MANY_RULES = 32  # beyond this a binary tree over the syscall numbers (optimize level 2) beats the linear list

# Default actions that let the call through, or ask somebody: there an unknown syscall needs no help.
PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY")

_instruction = Struct("=HBBI").pack


def build(section: "dict[str, Any]", *, fail_unknown: bool = False) -> bytes:
    """The BPF program of a section that compile.check() accepted: 8 bytes per instruction, native byte order.

    Raises ConfigError (program longer than the kernel takes, with fail_unknown a name that is no syscall),
    UnsupportedError (no binding, or an architecture that this libseccomp cannot add).
    """
    binding = _binding()
    architectures = _architectures(binding, section)
    rules = _Rules(binding, section, architectures)
    if fail_unknown:
        _refuse_unknown(rules, section)
    code = _prefix(rules, section) + _libseccomp(rules, section)
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
    result = [native(binding)]
    for name in section.get("architectures") or ():
        token = ARCHITECTURES[name]
        if token not in result:
            result.append(token)
    return result


class _Rules:
    """The rules by syscall. default: SECCOMP_RET_* of the default action.

    always: name -> SECCOMP_RET_* of its first rule without conditions, which is the whole answer.
    simple: name -> alternatives for libseccomp. careful: those for conditions.py.
    pointers: name -> where it is first named by a rule that changes anything.
    """

    __slots__ = ("always", "architectures", "binding", "careful", "default", "pointers", "simple")

    def __init__(self, binding: "Any", section: "dict[str, Any]", architectures: "list[int]") -> None:
        self.binding = binding
        self.architectures = architectures
        self.default = action(section["defaultAction"], section.get("defaultErrnoRet"))
        self.always: dict[str, int] = {}
        self.pointers: dict[str, str] = {}
        conditional: dict[str, list[Alternative]] = {}
        for i, rule in enumerate(section.get("syscalls") or ()):
            ret = action(rule["action"], rule.get("errnoRet"))
            if ret == self.default:
                continue  # libseccomp refuses a rule that changes nothing
            lists = alternatives(rule.get("args") or [])
            for j, name in enumerate(rule["names"]):
                if name not in self.pointers:
                    if self.number(native(binding), name) == UNKNOWN:
                        continue
                    self.pointers[name] = f"{AT}/syscalls/{i}/names/{j}"
                if lists[0]:
                    conditional.setdefault(name, []).extend([(ret, conditions) for conditions in lists])
                else:
                    self.always.setdefault(name, ret)
        self.simple: dict[str, list[Alternative]] = {}
        self.careful: dict[str, list[Alternative]] = {}
        for name, found in conditional.items():
            if name not in self.always:
                (self.careful if needs_care(found) else self.simple)[name] = found

    def number(self, token: int, name: str) -> int:
        """The number of the call; UNKNOWN; or another negative one: no (single) call of this architecture."""
        number: int = self.binding.resolve_syscall(_signed(token), name)
        return number

    def is_shared(self, token: int, name: str) -> bool:
        """Whether the call is also one of several behind one number (socketcall, ipc), which hides its arguments."""
        number = self.number(token, name)
        if number < 0:
            return number > PSEUDO and number != UNKNOWN
        return self.name(token, number) != name

    def own_number(self, token: int, name: str) -> int:
        """The number under which the call can be made directly, or -1."""
        if not self.is_shared(token, name):
            return self.number(token, name)
        # Asked by name, the binding tells the common number only.
        return next((number for number in range(NUMBERS_END) if self.name(token, number) == name), -1)

    def name(self, token: int, number: int) -> str:
        """The name of the call, "" if there is none."""
        try:
            name = self.binding.resolve_syscall(_signed(token), number)
        except ValueError:
            return ""
        return name.decode() if isinstance(name, bytes) else str(name)


def _refuse_unknown(rules: _Rules, section: "dict[str, Any]") -> None:
    for i, rule in enumerate(section.get("syscalls") or ()):
        for j, name in enumerate(rule["names"]):
            if rules.number(native(rules.binding), name) == UNKNOWN:
                raise ConfigError(
                    f"'{name}' is not a syscall that libseccomp knows",
                    pointer=f"{AT}/syscalls/{i}/names/{j}",
                    hint=f"without the annotation {FAIL_UNKNOWN} it would be ignored",
                )


def native(binding: "Any") -> int:
    """libseccomp's token of this machine."""
    return int(binding.system_arch()) & 0xFFFFFFFF


def _libseccomp(rules: _Rules, section: "dict[str, Any]") -> bytes:
    """libseccomp's program."""
    syscalls = rules.binding.SyscallFilter(_signed(rules.default))
    syscalls.set_attr(ATTR_NNP, 0)  # no_new_privs is the config's own decision
    for token in rules.architectures[1:]:
        _add_architecture(syscalls, section, token)
    for name, ret in rules.always.items():
        _add_rule(syscalls, ret, name, [], rules.pointers[name])
    lists = rules.simple
    for name, found in rules.careful.items():
        if any(rules.is_shared(token, name) for token in rules.architectures):
            lists = {**lists, name: found}
    count = len(rules.always)
    for name, found in lists.items():
        for ret, conditions in found:
            arguments = [_argument(rules.binding, condition) for condition in conditions]
            _add_rule(syscalls, ret, name, arguments, rules.pointers[name])
            count += 1
    if count > MANY_RULES:
        try:
            syscalls.set_attr(ATTR_OPTIMIZE, 2)
        except (OSError, RuntimeError):
            pass  # libseccomp before 2.5: a slower program, but the same
    return _export(syscalls)


def _argument(binding: "Any", condition: "dict[str, Any]") -> "Any":
    return binding.Arg(
        condition["index"], OPERATORS[condition["op"]], condition["value"], condition.get("valueTwo") or 0
    )


def _add_rule(syscalls: "Any", ret: int, name: str, arguments: "list[Any]", pointer: str) -> None:
    try:
        syscalls.add_rule(_signed(ret), name, *arguments)
    except (OSError, RuntimeError) as error:
        number = _number(error)
        if number != errno.EEXIST:  # the same conditions again: the first rule stands
            raise StepError("refused", pointer=pointer, call="seccomp_rule_add", errno=number, path=name) from error


def _add_architecture(syscalls: "Any", section: "dict[str, Any]", token: int) -> None:
    try:
        syscalls.add_arch(_signed(token))
    except (OSError, RuntimeError, ValueError) as error:
        i = [ARCHITECTURES[name] for name in section["architectures"]].index(token)
        name, pointer = section["architectures"][i], f"{AT}/architectures/{i}"
        # the binding's own word for an architecture it has no name for
        number = errno.EINVAL if isinstance(error, ValueError) else _number(error)
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


# ---- what comes before libseccomp's program


def _prefix(rules: _Rules, section: "dict[str, Any]") -> bytes:
    last: dict[int, int] = {}
    if section["defaultAction"] not in PERMISSIVE and rules.default != _enosys():
        names = {name for rule in section.get("syscalls") or () for name in rule["names"]}
        last = newest(rules.number, names, rules.architectures)
    decisions: dict[int, list[Instruction]] = {}
    for token in rules.architectures:
        for name, found in rules.careful.items():
            number = rules.own_number(token, name)
            if number >= 0:
                decisions.setdefault(token, []).extend(decide(number, found, rules.default))
    return prefix(rules.architectures, last, decisions)


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


def prefix(architectures: "list[int]", last: "dict[int, int]", decisions: "dict[int, list[Instruction]]") -> bytes:
    """The program start: per architecture the ENOSYS stub above its newest number, then its decisions. What it lets
    through falls on to the instruction after it.

    x32 shares its AUDIT_ARCH with x86_64, its numbers have bit 30 set. Where the filter has no x32, such numbers are
    left to libseccomp, which treats them as a foreign architecture; so is -1, which is no syscall at all.
    """
    blocks: dict[int, list[Instruction]] = {}
    for token in architectures:
        body: list[Instruction] = []
        if token in last:
            limit = X32_BIT if token == X86_64 else ARM_PRIVATE if token == ARM else NO_SYSCALL
            body += _below(limit, last[token])
        body += decisions.get(token, ())
        if body:
            blocks.setdefault(X86_64 if token == X32 else token, []).extend(body)
    if not blocks:
        return b""
    # Jumps over and out of a block are of 32 bits: conditional ones reach 255 instructions.
    code: list[Instruction] = [(LD_W_ABS, 0, 0, OFFSET_ARCH)]
    rest = sum(len(body) + 4 for body in blocks.values())
    for token, body in blocks.items():
        rest -= len(body) + 4
        code += [
            (JMP_JEQ_K, 1, 0, token),
            (JMP_JA, 0, 0, len(body) + 2),
            (LD_W_ABS, 0, 0, OFFSET_NR),
            *body,
            (JMP_JA, 0, 0, rest),
        ]
    return b"".join([_instruction(*one) for one in code])


def _enosys() -> int:
    return ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS


def _below(limit: int, number: int) -> "list[Instruction]":
    """ENOSYS for a number (in the accumulator) above `number` and below `limit`; else on to the next instruction."""
    return [(JMP_JGE_K, 2, 0, limit), (JMP_JGT_K, 0, 1, number), (RET_K, 0, 0, _enosys())]
