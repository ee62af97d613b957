"""Device rules: folding, the v1 transition, the v2 program; all measured against the kernel's v1 controller."""

import struct
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ociruntime.cgroups import devices
from ociruntime.cgroups.device_program import assemble
from ociruntime.cgroups.devices import ALL, ANY, MKNOD, READ, WRITE, Filter, parse_list, same_list, transition, wanted
from ociruntime.errors import ConfigError

DEFAULT = {(kind, major, minor): access for kind, major, minor, access in devices.DEFAULT_RULES}
DENY_ALL = {"allow": False, "access": "rwm"}


def fold(*rules: "dict[str, Any]") -> Filter:
    return wanted({"devices": list(rules)}, "/r")


def decide(filter_: Filter, kind: str, major: int, minor: int, access: int) -> bool:
    """Reference: security/device_cgroup.c, match_exception and match_exception_partial."""
    for (k, ma, mi), bits in filter_.exceptions.items():
        if k != kind or ma not in (ANY, major) or mi not in (ANY, minor):
            continue
        if filter_.default_allow:
            if access & bits:
                return False
        elif access & ~bits == 0:
            return True
    return filter_.default_allow


# -- folding


def test_nothing_said_means_the_default_list_only() -> None:
    empty: list[dict[str, Any]] = [{}, {"devices": None}, {"devices": []}, {"devices": [DENY_ALL]}]
    for resources in empty:
        found = wanted(resources, "/r")
        assert (found.default_allow, found.exceptions) == (False, DEFAULT)
    assert decide(found, "c", 1, 3, READ | WRITE)
    assert decide(found, "b", 8, 0, MKNOD)
    assert not decide(found, "b", 8, 0, READ)
    assert not decide(found, "c", 5, 1, READ)


def test_allow_all_starts_afresh() -> None:
    found = fold(
        DENY_ALL, {"allow": True, "type": "c", "major": 9, "minor": 9, "access": "r"}, {**DENY_ALL, "allow": True}
    )
    assert found.allows_all()
    assert fold({**DENY_ALL, "allow": True}, DENY_ALL).exceptions == DEFAULT


def test_rules_apply_in_order() -> None:
    found = fold(
        DENY_ALL,
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
        {"allow": True, "type": "b", "major": 8, "access": "r"},
        {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "w"},
    )
    assert found.exceptions[("c", 10, 229)] == READ | MKNOD
    assert found.exceptions[("b", 8, ANY)] == READ


def test_a_wider_rule_takes_narrower_ones_back() -> None:
    found = fold(
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": False, "type": "c", "major": 10, "minor": -1, "access": "w"},
    )
    assert found.exceptions[("c", 10, 229)] == READ


def test_a_hole_in_a_wider_rule_cannot_be_said() -> None:
    with pytest.raises(ConfigError, match="wider rule 'c 10:\\* rw'") as caught:
        fold(
            {"allow": True, "type": "c", "major": 10, "access": "rw"},
            {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "w"},
        )
    assert caught.value.pointer == "/r/devices/1"


@pytest.mark.parametrize(
    ("rules", "line", "place"),
    [
        ([{"type": "c", "major": 1, "access": "w"}], "c 1:3 w", 1),
        ([{"type": "c", "access": "rw"}, {"type": "b", "access": "w"}], "c 1:3 rw", 1),
        ([{"type": "b", "access": "w"}, {"access": "w"}], "c 1:3 w", 2),
        ([{"type": "c", "minor": 200, "access": "r"}], "c 136:* r", 1),
    ],
)
def test_what_every_container_has_is_not_denied_by_a_wider_rule(
    rules: "list[dict[str, Any]]", line: str, place: int
) -> None:
    """Neither the v1 list nor the filter made of it can say so: without the refusal /dev/null would not work."""
    with pytest.raises(ConfigError) as caught:
        fold({"allow": True, "access": "rwm"}, *({"allow": False, **rule} for rule in rules))
    assert caught.value.pointer == f"/r/devices/{place}"
    assert f"'{line}'" in caught.value.reason


@pytest.mark.parametrize("rule", [{"type": "c", "access": "m"}, {"type": "b", "access": "rwm"}])
def test_wide_rules_that_take_nothing_of_it(rule: "dict[str, Any]") -> None:
    found = fold({"allow": True, "access": "rwm"}, {"allow": False, **rule})
    assert decide(found, "c", 1, 3, READ | WRITE)
    assert decide(found, "b", 8, 0, MKNOD)


def test_type_a_with_numbers_or_partial_access_is_not_everything() -> None:
    found = fold({"allow": True, "type": "a", "major": 9, "minor": 9, "access": "rwm"})
    assert not found.default_allow
    assert found.exceptions[("b", 9, 9)] == found.exceptions[("c", 9, 9)] == ALL
    found = fold({"allow": True, "access": "r"})
    assert found.exceptions[("b", ANY, ANY)] == MKNOD | READ
    assert not decide(found, "b", 8, 0, READ | WRITE)


def test_deny_list() -> None:
    found = fold(
        {**DENY_ALL, "allow": True},
        {"allow": False, "type": "b", "major": 8, "access": "w"},
        {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "w"},
    )
    # The default list wins over the last rule, for null must work.
    assert (found.default_allow, found.exceptions) == (True, {("b", 8, ANY): WRITE})
    assert not decide(found, "b", 8, 1, READ | WRITE)
    assert decide(found, "b", 8, 1, READ)


@pytest.mark.parametrize(
    ("rule", "pointer"),
    [
        ({"allow": True, "type": "c"}, "/r/devices/1/access"),
        ({"allow": True, "type": "c", "access": ""}, "/r/devices/1/access"),
        ({"allow": True, "type": "c", "access": "rx"}, "/r/devices/1/access"),
        ({"allow": True, "type": "u", "access": "r"}, "/r/devices/1/type"),
        ({"allow": True, "type": "p", "access": "r"}, "/r/devices/1/type"),
        ({"allow": True, "type": "c", "major": -2, "access": "r"}, "/r/devices/1/major"),
        ({"allow": True, "type": "c", "minor": 1 << 32, "access": "r"}, "/r/devices/1/minor"),
    ],
)
def test_refused_rules(rule: "dict[str, Any]", pointer: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fold(DENY_ALL, rule)
    assert caught.value.pointer == pointer


# -- cgroup v1


class KernelList:
    """devices.allow, devices.deny and devices.list as the kernel does them."""

    def __init__(self) -> None:
        self.filter = Filter(True, {})
        self.denied_everything = False

    def write(self, file: str, rule: str) -> None:
        allow = file == "devices.allow"
        words = rule.split()
        if words[0] == "a":
            self.filter = Filter(allow, {})
            self.denied_everything |= not allow
            return
        ((key, bits),) = parse_list(rule.encode()).exceptions.items()
        exceptions = self.filter.exceptions
        if allow == self.filter.default_allow:
            exceptions[key] = exceptions.get(key, 0) & ~bits
            if not exceptions[key]:
                del exceptions[key]
        else:
            exceptions[key] = exceptions.get(key, 0) | bits

    def bring(self, target: Filter) -> None:
        for file, rules in transition(parse_list(self.list()), target):
            assert rules
            for rule in rules:
                self.write(file, rule)

    def list(self) -> bytes:
        if self.filter.default_allow:
            return b"a *:* rwm\n"
        lines = []
        for (kind, major, minor), bits in self.filter.exceptions.items():
            access = "".join(letter for letter, bit in (("r", READ), ("w", WRITE), ("m", MKNOD)) if bits & bit)
            lines.append(f"{kind} {'*' if major == ANY else major}:{'*' if minor == ANY else minor} {access}\n")
        return "".join(lines).encode()


def test_transition_of_a_new_cgroup() -> None:
    kernel = KernelList()
    target = fold(DENY_ALL)
    steps = transition(parse_list(kernel.list()), target)
    assert steps[0] == ("devices.deny", ["a"])
    assert steps[1][0] == "devices.allow"
    assert steps[1][1] == [
        "c *:* m",
        "b *:* m",
        "c 1:3 rwm",
        "c 1:5 rwm",
        "c 1:7 rwm",
        "c 1:8 rwm",
        "c 1:9 rwm",
        "c 5:0 rwm",
        "c 5:2 rwm",
        "c 136:* rwm",
        "c 10:200 rwm",
    ]
    assert len(steps) == 2
    assert transition(Filter(True, {}), fold({**DENY_ALL, "allow": True})) == []


def test_transition_between_allow_lists_denies_nothing_both_have() -> None:
    kernel = KernelList()
    kernel.bring(fold({"allow": True, "type": "b", "major": 8, "minor": 0, "access": "rw"}))
    kernel.denied_everything = False
    target = fold({"allow": True, "type": "b", "major": 8, "minor": 0, "access": "rm"})
    steps = transition(parse_list(kernel.list()), target)
    assert steps == [("devices.allow", ["b 8:0 m"]), ("devices.deny", ["b 8:0 w"])]
    kernel.bring(target)
    assert not kernel.denied_everything
    assert same_list(parse_list(kernel.list()), target)
    assert transition(parse_list(kernel.list()), target) == []


def test_difference_of_the_list_is_seen() -> None:
    target = fold(DENY_ALL)
    assert not same_list(Filter(True, {}), target)
    assert not same_list(Filter(False, {**target.exceptions, ("c", 9, 9): READ}), target)
    assert "c 1:3 rwm" in target.text()


NUMBERS = st.sampled_from([ANY, 1, 3, 8])
RULES = st.lists(
    st.fixed_dictionaries(
        {"allow": st.booleans(), "access": st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm"])},
        optional={"type": st.sampled_from(["a", "b", "c"]), "major": NUMBERS, "minor": NUMBERS},
    ),
    max_size=6,
)


def folded(rules: "list[dict[str, Any]]") -> "Filter | None":
    try:
        return fold(*rules)
    except ConfigError:
        return None


@given(RULES, RULES)
def test_the_kernel_ends_up_with_the_wanted_list(one: "list[dict[str, Any]]", two: "list[dict[str, Any]]") -> None:
    kernel = KernelList()
    for rules in (one, two):
        target = folded(rules)
        if target is not None:
            unseen = dict(kernel.filter.exceptions) if kernel.filter.default_allow else {}
            kernel.bring(target)
            assert same_list(parse_list(kernel.list()), target)
            if not (target.default_allow and unseen):
                assert kernel.filter == target


# -- cgroup v2


def run(program: bytes, kind: str, major: int, minor: int, access: int) -> int:
    """Interpret the subset of BPF the assembler uses; anything else, or running off the end, is an error."""
    context = struct.pack("<III", {"b": 1, "c": 2}[kind] | access << 16, major, minor)
    code = [struct.unpack_from("<BBhi", program, at) for at in range(0, len(program), 8)]
    registers: dict[int, int] = {}
    at = 0
    while True:
        opcode, regs, offset, immediate = code[at]
        dst, src = regs & 15, regs >> 4
        low = registers.get(dst, 0) & 0xFFFFFFFF
        unsigned = immediate & 0xFFFFFFFF
        at += 1
        if opcode == 0x61:
            assert src == 1
            assert 1 not in registers, "the context is gone"
            registers[dst] = struct.unpack_from("<I", context, offset)[0]
        elif opcode == 0xB7:
            registers[dst] = immediate
        elif opcode == 0xBF:
            registers[dst] = registers[src]
        elif opcode in (0x54, 0x74, 0x16, 0x56, 0x36):
            assert dst in registers
            if opcode == 0x54:
                registers[dst] = low & unsigned
            elif opcode == 0x74:
                registers[dst] = low >> unsigned
            elif (opcode == 0x16 and low == unsigned) or (opcode == 0x56 and low != unsigned) or opcode == 0x36:
                at += offset
        elif opcode == 0x95:
            return registers[0]
        else:
            raise AssertionError(f"opcode {opcode:#x}")


def reachable(program: bytes) -> bool:
    """The verifier refuses instructions that no path leads to, and jumps backwards."""
    code = [struct.unpack_from("<BBhi", program, at) for at in range(0, len(program), 8)]
    seen: set[int] = set()
    pending = [0]
    while pending:
        at = pending.pop()
        if at in seen:
            continue
        seen.add(at)
        opcode, _regs, offset, _immediate = code[at]
        if opcode == 0x95:
            continue
        pending.append(at + 1)
        if opcode in (0x16, 0x56, 0x36):
            assert offset >= 0
            pending.append(at + 1 + offset)
    return seen == set(range(len(code)))


@given(RULES)
def test_program_decides_like_the_v1_controller(rules: "list[dict[str, Any]]") -> None:
    target = folded(rules)
    if target is None:
        return
    program = assemble(target)
    assert reachable(program)
    for kind in "bc":
        for major in (0, 1, 3, 5, 8, 136):
            for minor in (0, 1, 3, 8, 200):
                for access in range(1, 8):
                    expected = decide(target, kind, major, minor, access)
                    assert run(program, kind, major, minor, access) == int(expected)


FILTERS = st.builds(
    Filter,
    st.booleans(),
    st.dictionaries(
        st.tuples(
            st.sampled_from("bc"),
            st.sampled_from([ANY, 0, 1, 0xFFF, 0xFFFFFFFF]),
            st.sampled_from([ANY, 0, 7, 0xFFFFF]),
        ),
        st.integers(1, 7),
        max_size=8,
    ),
)


@given(FILTERS, st.sampled_from("bc"), st.sampled_from([0, 1, 0xFFF, 0xFFFFFFFF]), st.sampled_from([0, 7, 0xFFFFF]))
def test_program_of_any_filter(target: Filter, kind: str, major: int, minor: int) -> None:
    program = assemble(target)
    assert reachable(program)
    for access in range(1, 8):
        assert run(program, kind, major, minor, access) == int(decide(target, kind, major, minor, access))


def test_a_denied_bit_spoils_the_whole_access() -> None:
    program = assemble(Filter(True, {("b", 8, 0): READ}))
    assert run(program, "b", 8, 0, READ | WRITE) == 0
    assert run(program, "b", 8, 0, WRITE) == 1


def test_program_size() -> None:
    assert len(assemble(fold(DENY_ALL))) // 8 == 30
    many = Filter(False, {("c", n, m): READ for n in range(100) for m in range(100)})
    with pytest.raises(ConfigError, match="too many"):
        assemble(many)
