"""A small JSON reader and writer for the runtime's own documents (state, features, log lines).

``json`` itself costs several milliseconds to import; this module loads the C half of it (``_json``) only when a text
really needs it. What is written here is plain ASCII and equals ``json.dumps``.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def quote(text: str) -> str:
    r"""Return text as a JSON string. Lone surrogates (bytes that are not UTF-8) become ``\udcXX``."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    from _json import encode_basestring_ascii

    return encode_basestring_ascii(text)


def _write(value: object, out: "list[str]", pad: str, step: str, comma: str, colon: str) -> None:
    if isinstance(value, str):
        out.append(quote(value))
    elif value is None:
        out.append("null")
    elif value is True:
        out.append("true")
    elif value is False:
        out.append("false")
    elif isinstance(value, int):
        out.append(str(value))
    elif isinstance(value, dict):
        if not value:
            out.append("{}")
            return
        inner = pad + step
        mark = "{" + inner
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a JSON object key is a string, not {key!r}")
            out.append(mark)
            out.append(quote(key))
            out.append(colon)
            _write(item, out, inner, step, comma, colon)
            mark = comma + inner
        out.append(pad + "}")
    elif isinstance(value, (list, tuple)):
        if not value:
            out.append("[]")
            return
        inner = pad + step
        mark = "[" + inner
        for item in value:
            out.append(mark)
            _write(item, out, inner, step, comma, colon)
            mark = comma + inner
        out.append(pad + "]")
    elif isinstance(value, float) and value - value == 0:
        out.append(repr(value))
    else:
        raise TypeError(f"not a JSON value: {value!r}")


def dumps(value: object, indent: int = 0) -> str:
    """Return value as JSON text. indent: spaces per level; 0 puts everything on one line without blanks.

    Raises TypeError for what JSON cannot say (other types, keys that are not strings, NaN, infinity).
    """
    out: list[str] = []
    if indent:
        _write(value, out, "\n", " " * indent, ",", ": ")
    else:
        _write(value, out, "", "", ",", ":")
    return "".join(out)


def _refuse(word: str) -> "Any":
    raise ValueError(f"{word} is not JSON")


class _ScannerSettings:
    """What ``_json.make_scanner`` reads from the object it is given (json.decoder.JSONDecoder has these names)."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse)


def decode(data: bytes) -> str:
    """data as text. Raises ValueError where it is not UTF-8, but never asks for the codecs of the standard library.

    A decoder that is to raise an error looks for the handler "strict" among them. Where only the core of the
    interpreter runs there are none, and one that has looked in vain can not be completed any more.
    """
    text = data.decode("utf-8", "ignore")
    if not data.isascii() and len(text.encode("utf-8")) != len(data):
        raise ValueError("not UTF-8")
    return text


def loads(data: bytes) -> object:
    """Read one JSON value that fills all of data (UTF-8). For the runtime's own files; config.json has its own reader.

    Raises ValueError for anything else: torn, empty, too deeply nested.
    """
    from _json import make_scanner

    try:
        text = decode(data).strip(" \t\r\n")
        scan: Any = make_scanner
        value, end = scan(_ScannerSettings)(text, 0)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except StopIteration:
        raise ValueError("not JSON") from None
    except Exception as error:  # noqa: BLE001 - the scanner's own errors have many types
        # The scanner imports json.decoder to describe an error: that may fail by itself where only the core
        # of the interpreter runs, with whatever exception that import meets.
        raise ValueError(f"not JSON: {error}" if isinstance(error, ValueError) else "not JSON") from None
    if end != len(text):
        raise ValueError(f"not JSON: more text at offset {end}")
    result: object = value
    return result
