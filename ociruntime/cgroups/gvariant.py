"""The text form of a D-Bus value, as it stands in an annotation: "'a'", "uint64 5", "[('x', true)]". Pure.

Of the GVariant text format everything that D-Bus can carry is read: without a type, a number is an int32, or a double
if it has a point or an exponent; "@t 5" and "uint64 5" name one. Byte strings (b'..') and the maybe type are not D-Bus.

Source: GLib reference, "GVariant Text Format"; D-Bus specification, "Type System".
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Value = tuple[str, Any]

# Keyword, D-Bus type, lowest and highest value.
_INTEGERS = (
    ("byte", "y", 0, 255),
    ("int16", "n", -(1 << 15), (1 << 15) - 1),
    ("uint16", "q", 0, (1 << 16) - 1),
    ("int32", "i", -(1 << 31), (1 << 31) - 1),
    ("uint32", "u", 0, (1 << 32) - 1),
    ("int64", "x", -(1 << 63), (1 << 63) - 1),
    ("uint64", "t", 0, (1 << 64) - 1),
)
_KEYWORDS = {keyword: code for keyword, code, _, _ in _INTEGERS}
_KEYWORDS.update({"boolean": "b", "double": "d", "string": "s", "objectpath": "o", "signature": "g"})
_BOUNDS = {code: (low, high) for _, code, low, high in _INTEGERS}
_BASIC = "bynqiuxtdsog"
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_DEPTH = 32


def parse(text: str) -> "Value":
    """The text of one value -> (D-Bus signature, Python value as jeepney takes it).

    Variants are (signature, value), structures tuples, dictionaries dict. Raises ValueError with a reason.
    """
    reader = _Reader(text)
    tree = reader.value(0)
    reader.space()
    if reader.at < len(text):
        raise ValueError(f"'{text[reader.at :]}' is left over")
    signature = _infer(tree)
    return signature, _build(tree, signature)


class _Node:
    """One value as read: kind "number", "string", "bool", "array", "tuple", "dict", "variant"; declared: its type."""

    __slots__ = ("declared", "items", "kind", "text")

    def __init__(self, kind: str, text: str = "", items: "list[_Node] | None" = None) -> None:
        self.kind = kind
        self.text = text
        self.items = items or []
        self.declared = ""


class _Reader:
    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t\n\r":
            self.at += 1

    def peek(self) -> str:
        self.space()
        return self.text[self.at : self.at + 1]

    def expect(self, letter: str) -> None:
        found = self.peek()
        if found != letter:
            raise ValueError(f"'{letter}' is missing" if not found else f"'{letter}' is expected instead of '{found}'")
        self.at += 1

    def word(self) -> str:
        start = self.at
        while self.at < len(self.text) and (self.text[self.at].isalnum() or self.text[self.at] in "+-."):
            self.at += 1
        return self.text[start : self.at]

    def value(self, depth: int) -> _Node:
        if depth > _DEPTH:
            raise ValueError("it is nested too deeply")
        letter = self.peek()
        if not letter:
            raise ValueError("a value is missing")
        if letter == "@":
            self.at += 1
            return self.typed(self.signature(), depth)
        if letter in "'\"":
            return _Node("string", self.string(letter))
        if letter == "[":
            return _Node("array", items=self.several("]", depth))
        if letter == "(":
            return _Node("tuple", items=self.several(")", depth))
        if letter == "{":
            return self.dictionary(depth)
        if letter == "<":
            self.at += 1
            inner = self.value(depth + 1)
            self.expect(">")
            return _Node("variant", items=[inner])
        word = self.word()
        if word in ("true", "false"):
            return _Node("bool", word)
        if word in _KEYWORDS:
            return self.typed(_KEYWORDS[word], depth)
        if word and word[0] in "+-.0123456789":
            return _Node("number", word)
        raise ValueError(f"'{word or letter}' is not a value")

    def typed(self, signature: str, depth: int) -> _Node:
        node = self.value(depth + 1)
        if node.declared and node.declared != signature:
            raise ValueError(f"it is of type {node.declared} and of type {signature}")
        node.declared = signature
        return node

    def signature(self) -> str:
        start = self.at
        self.at = type_end(self.text, start)
        return self.text[start : self.at]

    def several(self, closing: str, depth: int) -> "list[_Node]":
        self.at += 1
        items: list[_Node] = []
        while self.peek() != closing:
            if items:
                self.expect(",")
                if self.peek() == closing:
                    break
            items.append(self.value(depth + 1))
        self.at += 1
        return items

    def dictionary(self, depth: int) -> _Node:
        self.at += 1
        items: list[_Node] = []
        while self.peek() != "}":
            if items:
                self.expect(",")
            items.append(self.value(depth + 1))
            self.expect(":")
            items.append(self.value(depth + 1))
        self.at += 1
        return _Node("dict", items=items)

    def string(self, quote: str) -> str:
        self.at += 1
        parts: list[str] = []
        while True:
            if self.at >= len(self.text):
                raise ValueError("a string has no end")
            letter = self.text[self.at]
            self.at += 1
            if letter == quote:
                return "".join(parts)
            if letter != "\\":
                parts.append(letter)
                continue
            letter = self.text[self.at : self.at + 1]
            self.at += 1
            width = {"u": 4, "U": 8}.get(letter)
            if width is None:
                parts.append(_ESCAPES.get(letter, letter))
                continue
            digits = self.text[self.at : self.at + width]
            self.at += width
            try:
                parts.append(chr(int(digits, 16)))
            except (ValueError, OverflowError):
                raise ValueError(f"'\\{letter}{digits}' is not a character") from None


def type_end(text: str, start: int, depth: int = 0) -> int:
    """Where the one complete D-Bus type that begins at start ends. Raises ValueError."""
    letter = text[start : start + 1]
    if depth > _DEPTH:
        raise ValueError("its type is nested too deeply")
    if letter and letter in _BASIC + "v":
        return start + 1
    if letter == "a":
        if text[start + 1 : start + 2] != "{":
            return type_end(text, start + 1, depth + 1)
        if text[start + 2 : start + 3] not in tuple(_BASIC):
            raise ValueError("the key of a dictionary has a basic type")
        end = type_end(text, start + 3, depth + 1)
        if text[end : end + 1] != "}":
            raise ValueError("a dictionary type has a key and a value")
        return end + 1
    if letter == "(":
        end = start + 1
        while text[end : end + 1] not in (")", ""):
            end = type_end(text, end, depth + 1)
        if end == start + 1 or not text[end : end + 1]:
            raise ValueError("a structure type has members, and an end")
        return end + 1
    raise ValueError(f"'{letter}' is not a D-Bus type")


def _infer(node: _Node) -> str:
    """The type of a value: the declared one, or what its form says."""
    if node.declared:
        return node.declared
    if node.kind == "number":
        return "d" if _is_double(node.text) else "i"
    if node.kind in ("string", "bool"):
        return node.kind[0]
    if node.kind == "variant":
        return "v"
    if node.kind == "tuple":
        if not node.items:
            raise ValueError("D-Bus has no empty structure")
        return f"({''.join([_infer(item) for item in node.items])})"
    if not node.items:
        raise ValueError("the type of an empty array has to be given, like @as []")
    if node.kind == "array":
        return "a" + _common(node.items)
    key = _common(node.items[0::2])
    if key not in tuple(_BASIC):
        raise ValueError("the key of a dictionary has a basic type")
    return f"a{{{key}{_common(node.items[1::2])}}}"


def _common(nodes: "list[_Node]") -> str:
    """One type for all elements: a declared one, or one with a number that is a double, decides for the others."""
    found = [_infer(node) for node in nodes]
    declared = [node.declared for node in nodes if node.declared]
    if declared:
        return declared[0]
    return "d" if set(found) == {"i", "d"} else found[0]


def _is_double(text: str) -> bool:
    return not text.lower().lstrip("+-").startswith("0x") and any(letter in text for letter in ".eE")


def _build(node: _Node, signature: str) -> "Any":
    """The Python value of a node as the type it shall have. Raises ValueError where it cannot."""
    if node.declared and node.declared != signature:
        raise ValueError(f"a value of type {node.declared} stands where {signature} is expected")
    code = signature[0]
    if node.kind == "number" and code in _BOUNDS:
        return _integer(node.text, code)
    if node.kind == "number" and code == "d":
        try:
            return float(node.text)
        except ValueError:
            raise ValueError(f"'{node.text}' is not a number") from None
    if node.kind == "bool" and code == "b":
        return node.text == "true"
    if node.kind == "string" and code in "sog":
        return _text(node.text, code)
    if node.kind == "variant" and code == "v":
        inner = _infer(node.items[0])
        return inner, _build(node.items[0], inner)
    if node.kind == "tuple" and code == "(":
        members = _members(signature)
        if len(members) == len(node.items):
            return tuple([_build(item, member) for item, member in zip(node.items, members, strict=True)])
    if node.kind == "array" and code == "a" and signature[1] != "{":
        values = [_build(item, signature[1:]) for item in node.items]
        return bytes(values) if signature == "ay" else values
    if node.kind == "dict" and signature[:2] == "a{":
        pairs = zip(node.items[0::2], node.items[1::2], strict=True)
        return {_build(key, signature[2]): _build(value, signature[3:-1]) for key, value in pairs}
    raise ValueError(f"a value of kind {node.kind} is not of type {signature}")


def _integer(text: str, code: str) -> int:
    try:
        digits = text.lstrip("+-")
        number = int(text, 8 if len(digits) > 1 and digits.isdigit() and digits[0] == "0" else 0)
    except ValueError:
        raise ValueError(f"'{text}' is not a whole number") from None
    low, high = _BOUNDS[code]
    if not low <= number <= high:
        raise ValueError(f"{number} does not fit type {code} ({low} to {high})")
    return number


def _text(text: str, code: str) -> str:
    if "\0" in text:
        raise ValueError("a string cannot contain NUL")
    if code == "o":
        parts = text.split("/")
        fine = text == "/" or (parts[0] == "" and all(part.replace("_", "a").isalnum() for part in parts[1:]))
        if not fine or not text.isascii():
            raise ValueError(f"'{text}' is not an object path")
    if code == "g":
        at = 0
        while at < len(text):
            at = type_end(text, at)
    return text


def _members(signature: str) -> "list[str]":
    """(as(tt)u) -> as, (tt), u"""
    members = []
    at = 1
    while signature[at] != ")":
        end = type_end(signature, at)
        members.append(signature[at:end])
        at = end
    return members
