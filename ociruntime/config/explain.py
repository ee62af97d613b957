"""Why a JSON document was refused, in words, with pointer, line and column. Never on the way of an accepted one.

Verdicts come from jsonschema over the same schema that the fast validator was generated from. Without jsonschema the
pointer of the fast validator is explained by what the schema wants there.
"""

import json
import re

from ociruntime.config._generated import CHECKS
from ociruntime.config._schema import SCHEMAS
from ociruntime.config.position import Places, TextError, escape, line_and_column, scan
from ociruntime.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Schema = dict[str, Any]

# Where the schema of a kind is: file, name below $defs ("" is the whole file).
KINDS = {
    "config": ("config", ""),
    "process": ("config", "process"),
    "resources": ("config", "resources"),
    "state": ("state", ""),
    "features": ("features", ""),
}

MAX_ERRORS = 1000
# An enum with more words than this is not listed when one of them is close enough to be suggested.
_LONG_LIST = 10

PATTERN_WORDS = {
    "^/": "must be an absolute path",
    "^[^=]+=": "must have the form NAME=value",
    "^[rwm]*$": "must be made of r, w and m",
    "^[0-9, -]*$": "must be a list of CPUs such as 0-3,7",
    "^[^\\n]*$": "must be one line",
    "^MB:[^\\n]*$": "must start with MB: and be one line",
    "^[^./][^/]*\\.[^/]*$": "must be the name of a cgroup v2 file, such as memory.high",
    "^(/|(?!\\.{1,2}$)[^/]+)$": "must be the name of a directory, or / alone",
    "^[1-9][0-9]*[KMG]B$": "must be a page size such as 64KB, 2MB or 1GB",
    "^(?!\\.{1,2}$)[^/: \\t\\n\\v\\f\\r]{1,15}$": "must be a network device name of at most 15 characters",
}
_VERSION = "^1\\."
_TYPE_WORDS = {
    "object": "an object",
    "array": "an array",
    "string": "a string",
    "integer": "an integer",
    "boolean": "true or false",
}
_IDEAS = {
    "mnt": "mount",
    "net": "network",
    "netns": "network",
    "userns": "user",
    "hostname": "uts",
    "rbind": "rprivate",
    "rec": "rprivate",
}


class Fault:
    """One thing that is wrong. pointer: the member; missing members and bad names have a pointer too.

    keyword: of the schema. place: pointer whose position in the file is shown. at_name: show where its name starts.
    """

    __slots__ = ("at_name", "hint", "keyword", "place", "pointer", "reason")

    def __init__(
        self, pointer: str, keyword: str, reason: str, *, hint: str = "", place: str = "", at_name: bool = False
    ) -> None:
        self.pointer = pointer
        self.keyword = keyword
        self.reason = reason
        self.hint = hint
        self.place = place or pointer
        self.at_name = at_name


def syntax_error(data: bytes, path: str) -> ConfigError:
    """The error for bytes that are not JSON by the rules of ``load``."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        line, column = line_and_column(before, len(before))
        reason = f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
        return ConfigError(reason, path=path, line=line, column=column)
    try:
        scan(text)
    except TextError as refused:
        line, column = line_and_column(text, refused.offset)
        return ConfigError(
            refused.reason, pointer=refused.pointer, path=path, line=line, column=column, hint=refused.hint
        )
    return ConfigError("not understood as JSON", path=path)


def explain(document: object, data: bytes, path: str, kind: str, pointer: str) -> ConfigError:
    """The first of all_errors. pointer: what the fast validator named, used if jsonschema should find nothing."""
    errors = all_errors(document, data, path, kind)
    return errors[0] if errors else ConfigError("is not what the schema allows", pointer=pointer, path=path)


def all_errors(document: object, data: bytes, path: str, kind: str = "config") -> list[ConfigError]:
    """What the schema refuses in the document, in the order of the file; empty if it fits.

    data: the bytes the document came from, b"" if there are none. At most MAX_ERRORS are looked for; only one is
    found when jsonschema is missing.
    """
    schema = schema_of(kind)
    faults: dict[tuple[str, str], Fault] = {}
    try:
        for fault in _faults(document, schema):
            faults[fault.pointer, fault.keyword] = fault
            if len(faults) >= MAX_ERRORS:
                break
    except ImportError:
        pointer = CHECKS[kind](document)
        if pointer is not None:
            faults["", ""] = _guess(document, schema, pointer)
    text, places = _places(data)
    located = []
    for fault in faults.values():
        offset = _offset(places, fault)
        line, column = line_and_column(text, offset) if text else (0, 0)
        error = ConfigError(fault.reason, pointer=fault.pointer, path=path, line=line, column=column, hint=fault.hint)
        located.append((offset, fault.pointer, error))
    return [error for _, _, error in sorted(located, key=lambda entry: entry[:2])]


def unknown_members(document: object, kind: str = "config") -> list[tuple[str, str]]:
    """Members that no schema names, which are ignored: (pointer, the known name it resembles or "")."""
    schema = schema_of(kind)
    return list(_unknown(document, schema, schema, ""))


def schema_of(kind: str) -> "Schema":
    """Schema of a kind, complete with its $defs."""
    file, name = KINDS[kind]
    schema: Schema = json.loads(SCHEMAS[file])
    schema.pop("$id", None)  # references are within the file; an identifier would only send resolvers looking
    return {"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]} if name else schema


def _places(data: bytes) -> tuple[str, Places]:
    try:
        text = data.decode("utf-8")
        return text, scan(text)
    except ValueError:
        return "", Places()


def _offset(places: Places, fault: Fault) -> int:
    """Offset of the fault, or of the nearest member around it that the file has."""
    if fault.at_name and fault.place in places.names:
        return places.names[fault.place]
    place = fault.place
    while place not in places.values and place:
        place = place.rpartition("/")[0]
    return places.values.get(place, 0)


def _faults(document: object, schema: "Schema") -> "Iterator[Fault]":
    """What jsonschema finds, with integers as the decoders of engines see them: 1.0 is not one."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend

    def integer(_checker: object, value: object) -> bool:
        return type(value) is int

    def pattern(_validator: object, expression: str, value: object, _schema: object) -> "Iterator[ValidationError]":
        # $ is the very end, as in ECMA 262; in Python it is also before a last newline.
        if isinstance(value, str) and not re.search(expression.replace("$", r"\Z"), value):
            yield ValidationError("pattern")

    checker = Draft202012Validator.TYPE_CHECKER.redefine("integer", integer)
    validator = extend(  # type: ignore[no-untyped-call,unused-ignore]
        Draft202012Validator, {"pattern": pattern}, type_checker=checker
    )
    for error in validator(schema).iter_errors(document):
        yield from _translated(error)


def _translated(error: "Any") -> "Iterator[Fault]":
    """Faults of one ValidationError."""
    pointer = "".join("/" + escape(str(step)) for step in error.absolute_path)
    keyword, wanted, value = error.validator, error.validator_value, error.instance
    if keyword == "required":
        # jsonschema makes one error per missing member, but names it in its message only; so each error makes them all
        for name in wanted:
            if name not in value:
                hint = _resembling(name, [key for key in value if key not in error.schema.get("properties", {})])
                yield Fault(f"{pointer}/{escape(name)}", keyword, "is required", hint=hint, place=pointer)
    elif "propertyNames" in error.absolute_schema_path:
        reason, hint = _words(keyword, wanted, value)
        member = f"{pointer}/{escape(value)}"
        yield Fault(member, keyword, f"the name {_shown(value)} {reason}", hint=hint, at_name=True)
    elif keyword == "additionalProperties":
        for name in value:
            if name not in error.schema["properties"]:
                yield Fault(f"{pointer}/{escape(name)}", keyword, "is not a member the schema knows", at_name=True)
    else:
        reason, hint = _words(keyword, wanted, value)
        subject = "" if keyword in {"type", "minItems", "maxItems", "minLength", "uniqueItems"} else _shown(value) + " "
        yield Fault(pointer, keyword, subject + reason, hint=hint)


def _words(keyword: str, wanted: "Any", value: "Any") -> tuple[str, str]:
    """(what is wrong, hint) in our words; the value itself is named by the caller."""
    if keyword == "type":
        return f"must be {_TYPE_WORDS[wanted]}, not {_kind(value)}", _type_hint(wanted, value)
    if keyword == "enum":
        words = [word for word in wanted if word]
        idea = _IDEAS.get(value, "") if isinstance(value, str) else ""
        hint = f"did you mean '{idea}'?" if idea in words else _resembling(value, words, ask=True)
        if hint and len(words) > _LONG_LIST:
            return "is not a value the specification knows", hint
        return f"is not one of {', '.join(words)}", hint
    if keyword == "pattern":
        if wanted.startswith(_VERSION):
            hint = "this runtime knows major version 1" if re.match(r"[0-9]+\.[0-9]+\.[0-9]+", value) else ""
            return "must be a version of the specification, 1.x.y", hint
        return PATTERN_WORDS.get(wanted, f"must match {wanted}"), ""
    if keyword == "minimum":
        return f"must be at least {wanted}", ""
    if keyword == "maximum":
        return f"must be at most {wanted}", ""
    if keyword == "minItems":
        return f"must have at least {wanted} item{'s' if wanted > 1 else ''}", ""
    if keyword == "maxItems":
        return ("must be empty: there is no value yet" if not wanted else f"must have at most {wanted} items"), ""
    if keyword == "minLength":
        return "must not be empty", ""
    if keyword == "maxLength":
        return f"must be at most {wanted} characters long", ""
    if keyword == "uniqueItems":
        return "must not hold one item twice", ""
    return f"breaks the rule {keyword} of the schema", ""


def _kind(value: object) -> str:
    """A value as the reader of the file would call it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the string {_shown(value)}"
    return "an array" if isinstance(value, list) else "an object"


def _type_hint(wanted: str, value: object) -> str:
    if wanted == "integer" and isinstance(value, float) and value.is_integer() and abs(value) < 1 << 64:
        return f"write {int(value)}, without a fraction or exponent"
    if wanted == "integer" and isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        return f"write {int(value)}, without quotes"
    if wanted == "boolean" and isinstance(value, str) and value in {"true", "false"}:
        return f"write {value}, without quotes"
    if wanted == "array" and isinstance(value, str):
        return "put it in an array"
    return ""


def _shown(value: object) -> str:
    """A value in quotes, cut to one short line."""
    text = value if isinstance(value, str) else json.dumps(value)
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"'{text}'" if isinstance(value, str) else text


def _resembling(name: object, names: "list[str]", *, ask: bool = False) -> str:
    """Hint that names what was probably meant. names: for a value the allowed ones (ask), else those that are there."""
    if not isinstance(name, str) or not names:
        return ""
    from difflib import get_close_matches

    lower = {word.lower(): word for word in names}
    found = get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    if not found and ask:
        # SCMP_ACT_ALLOW for allow, RLIMIT_NOFILE for nofile
        found = [low for low in lower if low.endswith("_" + name.lower())]
    if not found:
        return ""
    word = lower[found[0]]
    return f"did you mean '{word}'?" if ask else f"there is '{word}', which is not known: a misspelling?"


def _follow(schema: "Schema", root: "Schema") -> "Schema":
    """The schema a $ref leads to."""
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _unknown(value: object, schema: "Schema", root: "Schema", pointer: str) -> "Iterator[tuple[str, str]]":
    schema = _follow(schema, root)
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _unknown(item, schema["items"], root, f"{pointer}/{index}")
    elif isinstance(value, dict):
        known = schema.get("properties", {})
        others = schema.get("additionalProperties")
        for name, item in value.items():
            place = f"{pointer}/{escape(name)}"
            if name in known:
                yield from _unknown(item, known[name], root, place)
            elif isinstance(others, dict):
                yield from _unknown(item, others, root, place)
            elif known:
                from difflib import get_close_matches

                missing = {word.lower(): word for word in known if word not in value}
                close = get_close_matches(name.lower(), missing, n=1, cutoff=0.75)
                yield place, missing[close[0]] if close else ""


def _guess(document: object, root: "Schema", pointer: str) -> Fault:
    """The fault at a pointer of the fast validator, without jsonschema: say what the schema wants there."""
    schema = _follow(root, root)
    value: Any = document
    missing = False
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list):
            value, schema = value[int(name)], schema["items"]
        else:
            missing = name not in value
            value = value.get(name)
            schema = schema.get("properties", {}).get(name) or schema["additionalProperties"]
        schema = _follow(schema, root)
    if missing:
        return Fault(pointer, "required", "is required", place=pointer.rpartition("/")[0])
    wants = f"must be {_TYPE_WORDS[schema['type']]}"
    if "enum" in schema:
        wants = "must be one of " + ", ".join(word for word in schema["enum"] if word)
    elif "pattern" in schema:
        wants = _words("pattern", schema["pattern"], value)[0]
    elif "minimum" in schema:
        wants += f" from {schema['minimum']} to {schema['maximum']}"
    return Fault(pointer, "", wants)
