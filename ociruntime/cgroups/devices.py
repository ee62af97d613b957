"""/linux/resources/devices: an ordered list of rules, folded into a default and its exceptions. Pure.

That is the form the kernel's cgroup v1 device controller holds; the program for cgroup v2 is assembled from it too, so
both versions decide alike.

Source: runtime-spec config-linux.md#allowed-device-list; kernel Documentation/admin-guide/cgroup-v1/devices.
"""

from ociruntime.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Bits of an access, as BPF_DEVCG_ACC_* has them.
MKNOD = 1
READ = 2
WRITE = 4
ALL = 7
ANY = -1  # as a major or minor number

_BITS = {"r": READ, "w": WRITE, "m": MKNOD}
_LIMIT = 1 << 32

# Always allowed, after the rules of the config: any node may be made (not opened), and these may be used.
DEFAULT_RULES = (
    ("c", ANY, ANY, MKNOD),
    ("b", ANY, ANY, MKNOD),
    ("c", 1, 3, ALL),  # null
    ("c", 1, 5, ALL),  # zero
    ("c", 1, 7, ALL),  # full
    ("c", 1, 8, ALL),  # random
    ("c", 1, 9, ALL),  # urandom
    ("c", 5, 0, ALL),  # tty
    ("c", 5, 2, ALL),  # ptmx
    ("c", 136, ANY, ALL),  # pts/*
    ("c", 10, 200, ALL),  # net/tun
)


class Filter:
    """default_allow, and exceptions to it: (type "b" or "c", major or ANY, minor or ANY) -> access bits.

    An access is the exception's when type and numbers match and, with default deny, when the exception covers all of
    its bits; with default allow, when they overlap at all.
    """

    __slots__ = ("default_allow", "exceptions")

    def __init__(self, default_allow: bool, exceptions: "dict[tuple[str, int, int], int]") -> None:
        self.default_allow = default_allow
        self.exceptions = exceptions

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Filter)
            and self.default_allow == other.default_allow
            and self.exceptions == other.exceptions
        )

    __hash__ = None  # type: ignore[assignment]

    def allows_all(self) -> bool:
        return self.default_allow and not self.exceptions

    def text(self) -> str:
        """For messages."""
        rules = ", ".join([_line(key, bits) for key, bits in self.exceptions.items()])
        return f"{'all but' if self.default_allow else 'only'} [{rules}]"


def wanted(resources: "dict[str, Any]", pointer: str) -> Filter:
    """The filter a resources object asks for; the default rules are always added. Raises ConfigError.

    A container starts with nothing allowed. Rules apply in their order, later ones change what earlier ones said.
    """
    result = Filter(False, {})
    for index, rule in enumerate(resources.get("devices") or ()):
        _apply(result, rule, f"{pointer}/devices/{index}")
    for kind, major, minor, access in DEFAULT_RULES:
        _change(result, True, (kind, major, minor), access, "")
        if result.default_allow:
            _check_default(result, (kind, major, minor), access, resources, pointer)
    return result


def _check_default(
    target: Filter, key: "tuple[str, int, int]", access: int, resources: "dict[str, Any]", pointer: str
) -> None:
    """Refuse a wider rule that goes on denying what every container is allowed, as in _change."""
    for other, bits in target.exceptions.items():
        if bits & access and _overlap(key, other) and not _within(other, key):
            rules = resources.get("devices") or ()
            place = max(index for index, rule in enumerate(rules) if not rule["allow"] and _names(rule, other))
            raise ConfigError(
                f"denies '{_line(key, bits & access)}', which every container is allowed",
                pointer=f"{pointer}/devices/{place}",
                hint="the kernel's list holds one default and exceptions to it: deny everything, then allow the rest",
            )


def _names(rule: "dict[str, Any]", key: "tuple[str, int, int]") -> bool:
    """Whether a rule is about exactly these devices."""
    numbers = tuple(ANY if rule.get(name) is None else rule[name] for name in ("major", "minor"))
    return (rule.get("type") or "a") in ("a", key[0]) and numbers == key[1:]


def _apply(target: Filter, rule: "dict[str, Any]", pointer: str) -> None:
    """Apply one rule of the config: {"allow", "type" a|b|c, "major", "minor", "access" of r, w, m}."""
    kind = rule.get("type") or "a"
    if kind not in ("a", "b", "c"):
        hint = "a character device is c" if kind == "u" else ""
        raise ConfigError(f"'{kind}' is not a device type (a, b or c)", pointer=f"{pointer}/type", hint=hint)
    text = rule.get("access") or ""
    if not text:
        raise ConfigError("must name the access: r, w, m or several of them", pointer=f"{pointer}/access")
    access = 0
    for letter in text:
        if letter not in _BITS:
            raise ConfigError(f"'{letter}' is not an access (r, w or m)", pointer=f"{pointer}/access")
        access |= _BITS[letter]
    numbers = []
    for name in ("major", "minor"):
        number = rule.get(name)
        number = ANY if number is None else number
        if not ANY <= number < _LIMIT:
            raise ConfigError(f"{number} is not a device number", pointer=f"{pointer}/{name}")
        numbers.append(number)
    major, minor = numbers
    allow = bool(rule["allow"])
    if kind == "a" and access == ALL and major == minor == ANY:
        # Everything: starts afresh.
        target.default_allow = allow
        target.exceptions = {}
        return
    # The kernel would take any rule of type a for "everything", whatever its numbers and access are.
    for each in ("b", "c") if kind == "a" else (kind,):
        _change(target, allow, (each, major, minor), access, pointer)


def _change(target: Filter, allow: bool, key: "tuple[str, int, int]", access: int, pointer: str) -> None:
    exceptions = target.exceptions
    if allow != target.default_allow:
        exceptions[key] = exceptions.get(key, 0) | access
        return
    # Back to the default: only an exception for exactly these numbers can be taken back.
    left = exceptions.get(key, 0) & ~access
    if left:
        exceptions[key] = left
    else:
        exceptions.pop(key, None)
    if not pointer:
        return
    for other, bits in exceptions.items():
        if other != key and bits & access and _overlap(key, other) and not _within(other, key):
            verb = "denied" if target.default_allow else "allowed"
            raise ConfigError(
                f"cannot be taken out of the wider rule '{_line(other, bits)}' that is {verb} before",
                pointer=pointer,
                hint="the kernel's list holds one default and exceptions to it: write the rules that way",
            )
    for other in [other for other in exceptions if other != key and _within(other, key)]:
        left = exceptions[other] & ~access
        if left:
            exceptions[other] = left
        else:
            del exceptions[other]


def _overlap(one: "tuple[str, int, int]", two: "tuple[str, int, int]") -> bool:
    """Whether some device matches both."""
    return one[0] == two[0] and all(a == b or ANY in (a, b) for a, b in zip(one[1:], two[1:], strict=True))


def _within(inner: "tuple[str, int, int]", outer: "tuple[str, int, int]") -> bool:
    """Whether every device of inner is one of outer."""
    return inner[0] == outer[0] and all(b in (a, ANY) for a, b in zip(inner[1:], outer[1:], strict=True))


# -- cgroup v1


def parse_list(data: bytes) -> Filter:
    """devices.list -> Filter. With default allow the kernel does not show the exceptions."""
    exceptions: dict[tuple[str, int, int], int] = {}
    for line in data.decode("ascii", "replace").split("\n"):
        words = line.split()
        if len(words) != 3:
            continue
        if words[0] == "a":
            return Filter(True, {})
        major, _colon, minor = words[1].partition(":")
        key = (words[0], ANY if major == "*" else int(major), ANY if minor == "*" else int(minor))
        access = 0
        for letter in words[2]:
            access |= _BITS.get(letter, 0)
        exceptions[key] = exceptions.get(key, 0) | access
    return Filter(False, exceptions)


def transition(current: Filter, target: Filter) -> "list[tuple[str, list[str]]]":
    """What to write to get from one list to the other: (devices.allow or devices.deny, rules), in this order.

    Nothing that both allow is denied in between, except by a change from default allow to default deny, for which the
    kernel knows no other way; the change back allows everything for a moment. The kernel does not show exceptions to
    default allow: those that current does not name stay.
    """
    if target.default_allow:
        if not current.default_allow:
            denied = [_line(key, bits) for key, bits in target.exceptions.items()]
            return [("devices.allow", ["a"]), ("devices.deny", denied)] if denied else [("devices.allow", ["a"])]
        less = _difference(target.exceptions, current.exceptions)
        more = _difference(current.exceptions, target.exceptions)
        return ([("devices.deny", less)] if less else []) + ([("devices.allow", more)] if more else [])
    result = []
    have: dict[tuple[str, int, int], int] = {}
    if current.default_allow:
        result.append(("devices.deny", ["a"]))
    else:
        have = current.exceptions
    more = _difference(target.exceptions, have)
    less = _difference(have, target.exceptions)
    if more:
        result.append(("devices.allow", more))
    if less:
        result.append(("devices.deny", less))
    return result


def _difference(one: "dict[tuple[str, int, int], int]", two: "dict[tuple[str, int, int], int]") -> "list[str]":
    """The rules of one without what two has."""
    return [_line(key, bits & ~two.get(key, 0)) for key, bits in one.items() if bits & ~two.get(key, 0)]


def same_list(got: Filter, target: Filter) -> bool:
    """Whether devices.list reads as it has to for target."""
    return got == (Filter(True, {}) if target.default_allow else target)


def _line(key: "tuple[str, int, int]", bits: int) -> str:
    kind, major, minor = key
    access = "".join([letter for letter, bit in _BITS.items() if bits & bit])
    return f"{kind} {'*' if major == ANY else major}:{'*' if minor == ANY else minor} {access}"
