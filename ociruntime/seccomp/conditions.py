"""Argument conditions that libseccomp cannot be trusted with, compiled by us. Cold path: see build.py.

libseccomp (2.5.4 and others) merges the alternatives of a syscall into one tree over the halves of its arguments. With
several arguments, or values beyond 32 bits, the tree can let through what no rule names (example: a0 <= 0, or a0 >= 2,
or a0 <= 1 and a1 != 2, lets (1, 2) pass). Which of two matching rules with different actions wins is not defined
either. So such a syscall is decided before libseccomp's program is reached: its rules in the order of the config, the
first that matches wins, else the default action. Simple rules stay with libseccomp.
Source: seccomp(2), struct seccomp_data; runtime-spec config-linux.md, "Seccomp", args.
"""

from sys import byteorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Instruction = tuple[int, int, int, int]  # code, jt, jf, k of struct sock_filter
    Alternative = tuple[int, list[dict[str, Any]]]  # SECCOMP_RET_*, conditions that all have to hold

LD_W_ABS = 0x20
AND_K = 0x54
JMP_JA = 0x05
JMP_JEQ_K = 0x15
JMP_JGT_K = 0x25
JMP_JGE_K = 0x35
RET_K = 0x06

OFFSET_ARGS = 16
LOW, HIGH = (0, 4) if byteorder == "little" else (4, 0)
MASK32 = 0xFFFFFFFF


def alternatives(args: "list[dict[str, Any]]") -> "list[list[dict[str, Any]]]":
    """The condition lists of one rule: it matches when all conditions of any list hold. An empty list always does.

    As soon as one argument is named twice, each condition is an alternative of its own: that is how the callers'
    profiles write "one of these values".
    """
    if len({condition["index"] for condition in args}) == len(args):
        return [[condition for condition in args if not _always(condition)]]
    lists = [[condition] for condition in args if not _always(condition)]
    return lists if len(lists) == len(args) else [[]]


def _always(condition: "dict[str, Any]") -> bool:
    """A mask of 0: libseccomp, too, treats this as no condition."""
    return condition["op"] == "SCMP_CMP_MASKED_EQ" and not condition["value"]


def needs_care(rules: "list[Alternative]") -> bool:
    """Whether these alternatives of one syscall have to be decided here."""
    if len(rules) < 2 or not all(conditions for _, conditions in rules):
        return False  # one list of conditions is no tree; and a rule without conditions is the whole answer
    if len({ret for ret, _ in rules}) > 1:
        return True
    return any(
        len(conditions) > 1 or conditions[0]["value"] > MASK32 or (conditions[0].get("valueTwo") or 0) > MASK32
        for _, conditions in rules
    )


def decide(number: int, rules: "list[Alternative]", default: int) -> "list[Instruction]":
    """Instructions that, with the syscall number in the accumulator, return the verdict on syscall `number`; any other
    number falls through, still in the accumulator.
    """
    body: list[Instruction] = []
    for ret, conditions in rules:
        code: list[Instruction] = [(RET_K, 0, 0, ret)]
        for condition in reversed(conditions):
            code = _condition(condition, len(code)) + code
        body += code
    body.append((RET_K, 0, 0, default))
    # The jump over the body is one of 32 bits: conditional ones reach 255 instructions.
    return [(JMP_JEQ_K, 1, 0, number), (JMP_JA, 0, 0, len(body)), *body]


def _condition(condition: "dict[str, Any]", after: int) -> "list[Instruction]":
    """One comparison of 64 unsigned bits. True: on to the next instruction; false: `after` instructions further."""
    at = OFFSET_ARGS + 8 * int(condition["index"])
    high = (LD_W_ABS, 0, 0, at + HIGH)
    low = (LD_W_ABS, 0, 0, at + LOW)
    value = int(condition["value"])
    value_high, value_low = value >> 32, value & MASK32
    word = condition["op"]
    if word == "SCMP_CMP_MASKED_EQ":
        two = int(condition.get("valueTwo") or 0) & value  # man seccomp_rule_add(3): the masked datum
        return [
            high,
            (AND_K, 0, 0, value_high),
            (JMP_JEQ_K, 0, after + 3, two >> 32),
            low,
            (AND_K, 0, 0, value_low),
            (JMP_JEQ_K, 0, after, two & MASK32),
        ]
    if word == "SCMP_CMP_EQ":
        return [high, (JMP_JEQ_K, 0, after + 2, value_high), low, (JMP_JEQ_K, 0, after, value_low)]
    if word == "SCMP_CMP_NE":
        return [high, (JMP_JEQ_K, 0, 2, value_high), low, (JMP_JEQ_K, after, 0, value_low)]
    compare = JMP_JGT_K if word in ("SCMP_CMP_GT", "SCMP_CMP_LE") else JMP_JGE_K
    if word in ("SCMP_CMP_GT", "SCMP_CMP_GE"):
        return [
            high,
            (JMP_JGT_K, 3, 0, value_high),
            (JMP_JEQ_K, 0, after + 2, value_high),
            low,
            (compare, 0, after, value_low),
        ]
    return [  # LT is "not GE", LE is "not GT"
        high,
        (JMP_JGT_K, after + 3, 0, value_high),
        (JMP_JEQ_K, 0, 2, value_high),
        low,
        (compare, after, 0, value_low),
    ]
