"""Where things are in a JSON text: a scanner that is strict, slow and keeps places. For refused files only.

It applies the rules listed in ``load``, and accepts exactly what ``load.parse`` accepts.
"""

from ociruntime.config.load import MAX_DEPTH

_SPACE = " \t\n\r"
_DIGITS = "0123456789"
_HEX = "0123456789abcdefABCDEF"
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_WORDS = {"true": True, "false": False, "null": None}
_FOREIGN_WORDS = {
    "True": "true",
    "False": "false",
    "None": "null",
    "NaN": "",
    "Infinity": "",
    "-Infinity": "",
    "undefined": "null",
}
_NOT_HERE = "JSON has no such value"


class TextError(ValueError):
    """The text breaks a rule at offset (in characters), in the value at pointer if it is inside one.

    hint: what to do.
    """

    def __init__(self, offset: int, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason
        self.hint = hint
        self.pointer = ""


class Places:
    """Offsets in characters by JSON pointer. values: where each value starts; names: where its member name starts."""

    __slots__ = ("names", "values")

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.names: dict[str, int] = {}


def escape(name: str) -> str:
    """A member name as a step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """1-based line (ended by LF) and column, in characters."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def scan(text: str) -> Places:
    """Places of every value and member name of a JSON text. Raises TextError at the first thing that is wrong."""
    scanner = _Scanner(text)
    start = scanner.space(0)
    if start == len(text):
        raise TextError(start, "the file is empty")
    if text.startswith("\ufeff"):
        raise TextError(0, "the file starts with a byte order mark", "save it as UTF-8 without one")
    end = scanner.space(scanner.value(start, "", 0))
    if end != len(text):
        raise TextError(end, "text follows the end of the document")
    return scanner.places


class _Scanner:
    """Recursive descent. Each method takes an offset and returns the one after what it read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.places = Places()

    def space(self, at: int) -> int:
        text = self.text
        while at < len(text) and text[at] in _SPACE:
            at += 1
        return at

    def value(self, at: int, pointer: str, depth: int) -> int:
        text = self.text
        if at >= len(text):
            raise self.end()
        self.places.values[pointer] = at
        character = text[at]
        if character in "{[":
            if depth >= MAX_DEPTH:
                raise TextError(at, f"nested deeper than {MAX_DEPTH} levels")
            return self.object(at, pointer, depth + 1) if character == "{" else self.array(at, pointer, depth + 1)
        if character == '"':
            try:
                return self.string(at)[1]
            except TextError as refused:
                refused.pointer = pointer
                raise
        for word in _WORDS:
            if text.startswith(word, at):
                return at + len(word)
        for word, ours in _FOREIGN_WORDS.items():
            if text.startswith(word, at):
                raise TextError(at, f"'{word}' is not JSON", f"write {ours}" if ours else _NOT_HERE)
        if character in "-" + _DIGITS:
            return self.number(at)
        raise self.unexpected(at, "a value")

    def object(self, at: int, pointer: str, depth: int) -> int:
        text = self.text
        seen: dict[str, int] = {}
        at = self.space(at + 1)
        if text[at : at + 1] == "}":
            return at + 1
        while True:
            if text[at : at + 1] != '"':
                raise self.unexpected(at, "a member name in double quotes")
            place = at
            name, at = self.string(at)
            if name in seen:
                line = line_and_column(text, seen[name])[0]
                raise TextError(place, f"member '{name}' is given twice, first in line {line}")
            seen[name] = place
            step = f"{pointer}/{escape(name)}"
            self.places.names[step] = place
            at = self.space(at)
            if text[at : at + 1] != ":":
                raise self.unexpected(at, f"':' after the member name '{name}'")
            at = self.space(self.value(self.space(at + 1), step, depth))
            if text[at : at + 1] == "}":
                return at + 1
            at = self.comma(at, "}")

    def array(self, at: int, pointer: str, depth: int) -> int:
        at = self.space(at + 1)
        if self.text[at : at + 1] == "]":
            return at + 1
        index = 0
        while True:
            at = self.space(self.value(at, f"{pointer}/{index}", depth))
            if self.text[at : at + 1] == "]":
                return at + 1
            at = self.comma(at, "]")
            index += 1

    def comma(self, at: int, closing: str) -> int:
        """Step over the comma and the space after it."""
        if self.text[at : at + 1] != ",":
            raise self.unexpected(at, f"',' or '{closing}'")
        after = self.space(at + 1)
        if self.text[after : after + 1] == closing:
            raise TextError(at, f"a comma before '{closing}'", "JSON allows no comma after the last one: take it away")
        return after

    def number(self, at: int) -> int:
        text = self.text
        start = at
        if text[at] == "-":
            at += 1
        first = at
        at = self.digits(at)
        if at == first:
            raise self.unexpected(at, "a digit")
        if text[first] == "0" and at > first + 1:
            raise TextError(start, "a number with leading zeros", "JSON numbers are decimal, 0755 is written 493")
        whole = True
        if text[at : at + 1] == ".":
            whole = False
            at = self.digits(at + 1, needed=True)
        if text[at : at + 1] in {"e", "E"}:
            whole = False
            at += 1
            if text[at : at + 1] in {"+", "-"}:
                at += 1
            at = self.digits(at, needed=True)
        if whole and (at - start > 20 or not -(1 << 63) <= int(text[start:at]) < 1 << 64):
            raise TextError(start, "an integer beyond 64 bits")
        return at

    def digits(self, at: int, needed: bool = False) -> int:
        start = at
        while self.text[at : at + 1] and self.text[at] in _DIGITS:
            at += 1
        if needed and at == start:
            raise self.unexpected(at, "a digit")
        return at

    def string(self, at: int) -> tuple[str, int]:
        """(the string, offset after its closing quote)."""
        text = self.text
        start = at
        at += 1
        parts = []
        while True:
            quote = text.find('"', at)
            if quote < 0:
                raise TextError(start, "a string without an end")
            backslash = text.find("\\", at, quote)
            chunk = text[at : quote if backslash < 0 else backslash]
            if chunk and min(chunk) < " ":
                for index, character in enumerate(chunk):
                    if character < " ":
                        reason = f"control character U+{ord(character):04X} in a string"
                        raise TextError(at + index, reason, "write it as an escape, such as \\n")
            parts.append(chunk)
            if backslash < 0:
                return "".join(parts), quote + 1
            character, at = self.escaped(backslash)
            parts.append(character)

    def escaped(self, at: int) -> tuple[str, int]:
        """Character of the escape at the backslash, two of them if it is half of a pair."""
        letter = self.text[at + 1 : at + 2]
        if letter in _ESCAPES and letter:
            return _ESCAPES[letter], at + 2
        if letter != "u":
            raise TextError(at, f"'\\{letter}' is not an escape of JSON", "a backslash itself is written \\\\")
        unit = self.unit(at)
        if unit == 0:
            raise TextError(at, "a NUL in a string", "no path, argument or name of the kernel can hold one")
        if not 0xD800 <= unit <= 0xDFFF:
            return chr(unit), at + 6
        if unit <= 0xDBFF and self.text[at + 6 : at + 8] == "\\u":
            low = self.unit(at + 6)
            if 0xDC00 <= low <= 0xDFFF:
                return chr(0x10000 + (unit - 0xD800) * 0x400 + (low - 0xDC00)), at + 12
        raise TextError(at, f"half of a surrogate pair, \\u{unit:04x}, in a string")

    def unit(self, at: int) -> int:
        """The four hexadecimal digits after \\u."""
        digits = self.text[at + 2 : at + 6]
        if len(digits) != 4 or any(digit not in _HEX for digit in digits):
            raise TextError(at, "'\\u' without four hexadecimal digits")
        return int(digits, 16)

    def end(self) -> TextError:
        return TextError(len(self.text), "the file ends too early")

    def unexpected(self, at: int, wanted: str) -> TextError:
        text = self.text
        if at >= len(text):
            return self.end()
        found = text[at]
        hint = ""
        if found == "'":
            hint = "strings are in double quotes"
        elif text.startswith(("//", "/*"), at) or found == "#":
            hint = "JSON has no comments"
        return TextError(at, f"expected {wanted}, found {found!r}", hint)
