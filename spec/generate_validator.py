#!/usr/bin/python3
"""Turn config.schema.json into straight-line Python that decides, without jsonschema, whether a document fits.

    /usr/bin/python3 spec/generate_validator.py OUTPUT

writes OUTPUT (``ociruntime/config/_generated.py``) and, in the same directory, ``_schema.py``: the text of all three
schemas, for the explanation of a refused document. Both depend on nothing but the schemas.

The generated functions return None for a document that fits, else the JSON pointer (RFC 6901) of one member that does
not. Only the keywords and patterns named below are known. Any other ends the generation, so that nothing that the
schema says can be left out by accident.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Schema = dict[str, Any]

HERE = Path(__file__).resolve().parent
SCHEMAS = ("config", "state", "features")
# Name under which a document may be checked -> where its schema is in config.schema.json.
KINDS = {"config": "", "process": "process", "resources": "resources"}

REMARKS = {"$schema", "$id", "$defs", "title", "description"}
KEYWORDS = {
    "object": {"properties", "required", "propertyNames", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"enum", "pattern", "minLength", "maxLength"},
    "integer": {"minimum", "maximum"},
    "boolean": set[str](),
}

# Pattern -> expression that is true when {x}, a str, does NOT match. The hot path has no regular expressions.
PATTERNS = {
    "^/": '{x}[:1] != "/"',
    "^[^=]+=": '{x}.find("=") < 1',
    "^[rwm]*$": '{x}.strip("rwm") != ""',
    "^[0-9, -]*$": '{x}.strip("0123456789, -") != ""',
    "^[^\\n]*$": '"\\n" in {x}',
    "^MB:[^\\n]*$": '{x}[:3] != "MB:" or "\\n" in {x}',
    "^[^./][^/]*\\.[^/]*$": '{x}[:1] in {{"", "."}} or "/" in {x} or "." not in {x}',
    "^(/|(?!\\.{1,2}$)[^/]+)$": '{x} in {{"", ".", ".."}} or ("/" in {x} and {x} != "/")',
    "^[1-9][0-9]*[KMG]B$": "not _page_size({x})",
    "^(?!\\.{1,2}$)[^/: \\t\\n\\v\\f\\r]{1,15}$": "not _device_name({x})",
    "^1\\.(0|[1-9][0-9]*)\\.(0|[1-9][0-9]*)(-[0-9A-Za-z-]+(\\.[0-9A-Za-z-]+)*)?"
    "(\\+[0-9A-Za-z-]+(\\.[0-9A-Za-z-]+)*)?$": "not _oci_version({x})",
}

HEADER = '''"""Generated from spec/config.schema.json by spec/generate_validator.py: change those, not this.

Each function returns None when the value fits, else the JSON pointer, below the value, of a member that does not.
"""

_N = object()
_IDENTIFIER = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-"


def _at(items, item):
    """Pointer step of the first item that is this very object."""
    for index, other in enumerate(items):
        if other is item:
            return "/%d" % index
    return "/-"


def _name(key):
    """Pointer step of a member."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def _digits(text):
    return text.isascii() and text.isdigit()


def _page_size(text):
    return text[-2:] in {"KB", "MB", "GB"} and _digits(text[:-2]) and text[0] != "0"


def _device_name(text):
    if not 1 <= len(text) <= 15 or text in {".", ".."}:
        return False
    for character in "/: \\t\\n\\v\\f\\r":
        if character in text:
            return False
    return True


def _identifiers(text):
    for part in text.split("."):
        if not part or part.strip(_IDENTIFIER):
            return False
    return True


def _oci_version(text):
    text, plus, build = text.partition("+")
    if plus and not _identifiers(build):
        return False
    text, dash, prerelease = text.partition("-")
    if dash and not _identifiers(prerelease):
        return False
    parts = text.split(".")
    if len(parts) != 3 or parts[0] != "1":
        return False
    for part in parts:
        if not _digits(part) or (part[0] == "0" and part != "0"):
            return False
    return True
'''


class UnknownKeywordError(Exception):
    """The schema says something that this generator cannot express."""


def quoted(text: str) -> str:
    """Python string literal, always in double quotes."""
    return json.dumps(text)


def step(name: str) -> str:
    """JSON pointer step of a member, as a literal."""
    return quoted("/" + name.replace("~", "~0").replace("/", "~1"))


def joined(*parts: str) -> str:
    """Sum of string expressions, the empty ones left out, neighbouring literals made one."""
    kept: list[str] = []
    for part in parts:
        if part == '""':
            continue
        if kept and part.startswith('"') and kept[-1].startswith('"'):
            kept[-1] = quoted(json.loads(kept[-1]) + json.loads(part))
        else:
            kept.append(part)
    return " + ".join(kept) or '""'


class Generator:
    """Emits one function per object or array of objects in $defs; what is smaller is written in place."""

    def __init__(self, schema: Schema) -> None:
        self.root = schema
        self.definitions: Schema = schema.get("$defs", {})
        self.done: dict[str, list[str]] = {}
        self.used = set(KINDS.values())

    def resolve(self, schema: Schema) -> tuple[str, Schema]:
        """Follow $ref: (name of the last definition, "" if none; the schema itself)."""
        name = ""
        while "$ref" in schema:
            if set(schema) - REMARKS != {"$ref"}:
                raise UnknownKeywordError(f"$ref beside other keywords: {schema}")
            prefix, _, name = schema["$ref"].rpartition("/")
            if prefix != "#/$defs" or name not in self.definitions:
                raise UnknownKeywordError(f"$ref {schema['$ref']!r}")
            self.used.add(name)
            schema = self.definitions[name]
        return name, schema

    def kind(self, schema: Schema, where: str) -> str:
        """The one type of a schema, after a check that all its keywords are known for it."""
        kind = schema.get("type")
        if not isinstance(kind, str) or kind not in KEYWORDS:
            raise UnknownKeywordError(f"{where}: type {kind!r}")
        unknown = set(schema) - REMARKS - {"type"} - KEYWORDS[kind]
        if unknown:
            raise UnknownKeywordError(f"{where}: {sorted(unknown)} with type {kind!r}")
        return kind

    def function(self, name: str) -> str:
        """Name of the function for the definition, which is emitted when first asked for."""
        label = "_check" if not name else "_" + "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
        if label not in self.done:
            self.done[label] = []  # a definition that holds itself finds its name here
            schema = self.root if not name else self.definitions[name]
            body = [f"def {label}(v, _N=_N):"]
            body += ["    " + line for line in self.value(schema, "v", '""', name or "#", depth=0)]
            body.append("    return None")
            self.done[label] = body
        return label

    def scalar(self, schema: Schema, x: str, where: str) -> str:
        """Expression that is true when x is not what a string, integer or boolean schema wants."""
        kind = self.kind(schema, where)
        if kind == "boolean":
            return f"type({x}) is not bool"
        if kind == "integer":
            low, high = schema.get("minimum"), schema.get("maximum")
            if type(low) is not int or type(high) is not int:
                raise UnknownKeywordError(f"{where}: an integer needs minimum and maximum")
            return f"type({x}) is not int or not {low} <= {x} <= {high}"
        return " or ".join([f"type({x}) is not str", *self.string(schema, x, where)])

    def string(self, schema: Schema, x: str, where: str) -> Iterator[str]:
        """Expressions, each true when x, known to be a str, breaks one keyword."""
        if "enum" in schema:
            words = schema["enum"]
            if not words or not all(isinstance(word, str) for word in words):
                raise UnknownKeywordError(f"{where}: enum of something else than strings")
            yield f"{x} not in {{{', '.join(map(quoted, words))}}}"
        if "pattern" in schema:
            if schema["pattern"] not in PATTERNS:
                raise UnknownKeywordError(f"{where}: pattern {schema['pattern']!r}")
            yield PATTERNS[schema["pattern"]].format(x=x)
        if "minLength" in schema:
            yield f"not {x}" if schema["minLength"] == 1 else f"len({x}) < {int(schema['minLength'])}"
        if "maxLength" in schema:
            yield f"len({x}) > {int(schema['maxLength'])}"

    def value(self, schema: Schema, x: str, pointer: str, where: str, depth: int) -> Iterator[str]:
        """Lines that return the pointer of a failure in variable x, and fall through when it fits."""
        name, schema = self.resolve(schema)
        kind = self.kind(schema, where)
        if kind not in {"object", "array"}:
            yield f"if {self.scalar(schema, x, where)}:"
            yield f"    return {pointer}"
        elif name and depth and self.worth_a_function(schema):
            yield f"e = {self.function(name)}({x})"
            yield "if e is not None:"
            yield f"    return {joined(pointer, 'e')}"
        elif kind == "object":
            yield from self.object(schema, x, pointer, where, depth)
        else:
            yield from self.array(schema, x, pointer, where, depth)

    def worth_a_function(self, schema: Schema) -> bool:
        """Whether a named definition holds objects: arrays and maps of scalars are cheaper in place."""
        if schema["type"] == "object":
            return True
        return self.resolve(schema["items"])[1]["type"] in {"object", "array"}

    def object(self, schema: Schema, x: str, pointer: str, where: str, depth: int) -> Iterator[str]:
        yield f"if type({x}) is not dict:"
        yield f"    return {pointer}"
        properties: Schema = schema.get("properties", {})
        required: list[str] = schema.get("required", [])
        if not set(required) <= set(properties):
            raise UnknownKeywordError(f"{where}: required members without a schema")
        if "additionalProperties" in schema or "propertyNames" in schema:
            if properties:
                raise UnknownKeywordError(f"{where}: both named members and a map")
            yield from self.map(schema, x, pointer, where, depth)
            return
        member = f"m{depth}"
        if properties:
            yield f"g{depth} = {x}.get"
        for key, sub in properties.items():
            place = joined(pointer, step(key))
            yield f"{member} = g{depth}({quoted(key)}, _N)"
            if key in required:
                yield f"if {member} is _N:"
                yield f"    return {place}"
                yield from self.value(sub, member, place, f"{where}.{key}", depth + 1)
                continue
            resolved = self.resolve(sub)[1]
            if self.kind(resolved, f"{where}.{key}") in {"object", "array"}:
                yield f"if {member} is not _N:"
                for line in self.value(sub, member, place, f"{where}.{key}", depth + 1):
                    yield "    " + line
            else:
                yield f"if {member} is not _N and ({self.scalar(resolved, member, f'{where}.{key}')}):"
                yield f"    return {place}"

    def map(self, schema: Schema, x: str, pointer: str, where: str, depth: int) -> Iterator[str]:
        values = schema.get("additionalProperties")
        names = schema.get("propertyNames", {})
        if not isinstance(values, dict) or set(names) - KEYWORDS["string"]:
            raise UnknownKeywordError(f"{where}: additionalProperties {values!r}, propertyNames {names!r}")
        key, item = f"k{depth}", f"i{depth}"
        yield f"for {key}, {item} in {x}.items():"
        place = joined(pointer, f"_name({key})")
        for wrong in self.string(names, key, where):
            yield f"    if {wrong}:"
            yield f"        return {place}"
        for line in self.value(values, item, place, f"{where}[]", depth + 1):
            yield "    " + line

    def array(self, schema: Schema, x: str, pointer: str, where: str, depth: int) -> Iterator[str]:
        yield f"if type({x}) is not list:"
        yield f"    return {pointer}"
        if "minItems" in schema:
            yield f"if len({x}) < {int(schema['minItems'])}:"
            yield f"    return {pointer}"
        if "maxItems" in schema:
            yield f"if len({x}) > {int(schema['maxItems'])}:"
            yield f"    return {pointer}"
        if "items" not in schema:
            raise UnknownKeywordError(f"{where}: array without items")
        item = f"i{depth}"
        yield f"for {item} in {x}:"
        for line in self.value(schema["items"], item, joined(pointer, f"_at({x}, {item})"), f"{where}[]", depth + 1):
            yield "    " + line

    def module(self) -> str:
        """Text of the whole module."""
        for keyword in set(self.root) - REMARKS - {"type"} - KEYWORDS["object"]:
            raise UnknownKeywordError(f"#: {keyword}")
        checks = {kind: self.function(name) for kind, name in KINDS.items()}
        unused = set(self.definitions) - self.used
        if unused:
            raise UnknownKeywordError(f"definitions that nothing refers to: {sorted(unused)}")
        parts = [HEADER]
        parts += ["\n".join(body) + "\n" for body in self.done.values()]
        rows = "".join(f"    {quoted(kind)}: {label},\n" for kind, label in checks.items())
        parts.append(f"CHECKS = {{\n{rows}}}\n")
        return "\n\n".join(parts)


def schema_module(schemas: dict[str, Schema]) -> str:
    """Text of the module that carries the schemas themselves, one JSON text each."""
    rows = "".join(
        f"    {quoted(name)}: {json.dumps(schema, separators=(',', ':'))!r},\n" for name, schema in schemas.items()
    )
    return (
        '"""Generated from spec/*.schema.json by spec/generate_validator.py: change those, not this."""\n\n'
        f"SCHEMAS = {{\n{rows}}}\n"
    )


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: generate_validator.py OUTPUT", file=sys.stderr)
        return 2
    output = Path(arguments[0])
    schemas = {name: json.loads((HERE / f"{name}.schema.json").read_text("utf-8")) for name in SCHEMAS}
    try:
        text = Generator(schemas["config"]).module()
    except UnknownKeywordError as error:
        print(f"generate_validator.py: config.schema.json: {error}", file=sys.stderr)
        return 1
    compile(text, str(output), "exec")
    output.write_text(text, "utf-8")
    output.with_name("_schema.py").write_text(schema_module(schemas), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
