"""JSON files: read once, parsed strictly, checked against the schema.

The only room that knows file syntax. What is accepted is accepted by the C scanner of ``_json`` and the generated
validator. What is refused is read again, slowly, to say where and why (``position``, ``explain``).

Stricter than JSON (RFC 8259) where two readers of one file could understand it differently, or where a value could not
reach the kernel: a member given twice, NaN and Infinity, integers beyond 64 bits, NUL in a string, half a surrogate
pair, a byte order mark, invalid UTF-8, nesting deeper than MAX_DEPTH, more than MAX_SIZE bytes.

A member whose value is null counts as absent, as in the decoders that engines use: it is dropped here, so no room
meets None. null as an item of an array stays, and no schema allows it.
"""

import _json
import posix

from ociruntime import files
from ociruntime.errors import ConfigError
from ociruntime.fullpython import full_interpreter
from ociruntime.jsontext import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

MAX_SIZE = 16 * 1024 * 1024
MAX_DEPTH = 100

_SPACE = " \t\n\r"
_TYPE_MASK = 0o170000
_REGULAR = 0o100000
_FIFO = 0o010000
# Everything but brackets: what is left after deleting these shows the nesting.
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def load(path: str, kind: str = "config") -> "tuple[dict[str, Any], bytes]":
    """Read, parse and check one JSON file.

    kind: which schema: "config", or a part of it that callers send by itself: "process" (exec --process), "resources"
    (update --resources).
    Returns the document and the bytes it came from (what is kept as the container's own copy).
    Raises ConfigError, with line and column when the file could be read.
    """
    from ociruntime.config.validate import check  # here, because state files are parsed without it

    data = read(path, pipe=kind != "config")
    document = parse(data, path)
    check(document, data, path, kind)
    return document, data  # type: ignore[return-value]  # check refuses what is not an object


def read(path: str, *, pipe: bool = False) -> bytes:
    """Bytes of a regular file of at most MAX_SIZE, read through one descriptor; a FIFO cannot make it wait.

    pipe: a FIFO will do as well, and is waited for: what a shell makes of <(COMMAND).
    Raises ConfigError.
    """
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY)
    except OSError as error:
        raise ConfigError("cannot be opened", path=path, errno=error.errno or 0) from None
    try:
        kind = posix.fstat(fd).st_mode & _TYPE_MASK
        if pipe and kind == _FIFO:
            from select import POLLIN, poll

            waiting = poll()
            waiting.register(fd, POLLIN)
            waiting.poll()  # a read takes it for ended while nobody has opened it to write yet
            posix.set_blocking(fd, True)
        elif kind != _REGULAR:
            raise ConfigError("is not a regular file", path=path)
        data = files.rest(fd, MAX_SIZE + 1)
    except OSError as error:
        raise ConfigError("cannot be read", path=path, errno=error.errno or 0) from None
    finally:
        posix.close(fd)
    if len(data) > MAX_SIZE:
        raise _too_large(path)
    return data


def parse(data: bytes, path: str) -> object:
    """Document in data, by the rules at the top of this module. path: for messages only.

    Integers become int, other numbers float; members that are null are dropped.
    Raises ConfigError with line and column (1-based, in characters).
    """
    if len(data) > MAX_SIZE:
        raise _too_large(path)
    try:
        text = decode(data)
        if _may_be_deep(data) or "\\u0000" in text or "\\ud" in text or "\\uD" in text:
            _scan_slowly(text)
        start = len(text) - len(text.lstrip(_SPACE))
        scanner = _json.make_scanner(_CONTEXT)  # type: ignore[arg-type]  # it takes any object with these attributes
        document, end = scanner(text, start)
        if text[end:].strip(_SPACE):
            raise ValueError
    except (ValueError, StopIteration, RecursionError, ImportError, SystemError):
        # The scanner finds its own exception in json.decoder. Where that is not imported, 3.11 raises none at
        # all, which is a SystemError, and later versions try to import it.
        _refuse(data, path)
    return document


def _too_large(path: str) -> ConfigError:
    return ConfigError(f"is larger than {MAX_SIZE // 1024 // 1024} MiB", path=path)


def _may_be_deep(data: bytes) -> bool:
    """Whether nesting beyond MAX_DEPTH is possible. Brackets within strings can make it say yes too often."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False
    brackets = data.translate(None, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        peeled = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(peeled) == len(brackets):
            break
        brackets = peeled
    return bool(brackets)


def _scan_slowly(text: str) -> None:
    """Raise position.TextError (a ValueError) if text breaks a rule that the C scanner does not know."""
    full_interpreter()
    from ociruntime.config.position import scan

    scan(text)


def _refuse(data: bytes, path: str) -> "NoReturn":
    full_interpreter()
    from ociruntime.config.explain import syntax_error

    raise syntax_error(data, path)


def _members(pairs: "list[tuple[str, object]]") -> "dict[str, object]":
    """One object: each name once, null dropped."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    if None in members.values():
        return {name: value for name, value in members.items() if value is not None}
    return members


def _integer(text: str) -> int:
    """An integer that fits in 64 bits, signed or unsigned."""
    if len(text) > 20:
        raise ValueError
    value = int(text)
    if not -0x8000000000000000 <= value <= 0xFFFFFFFFFFFFFFFF:
        raise ValueError
    return value


def _constant(text: str) -> "NoReturn":
    """NaN, Infinity, -Infinity: not JSON."""
    raise ValueError


class _Context:
    """What the scanner of _json reads its settings from."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_members)
    parse_float = float
    parse_int = staticmethod(_integer)
    parse_constant = staticmethod(_constant)


_CONTEXT = _Context()
