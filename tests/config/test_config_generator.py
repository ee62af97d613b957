"""spec/generate_validator.py: what it generates decides as jsonschema does, and what it cannot express stops it."""

import copy
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from ociruntime.config import _generated, explain
from ociruntime.config.default import default_config
from ociruntime.config.position import escape

ROOT = Path(__file__).resolve().parents[2]
GENERATOR = ROOT / "spec" / "generate_validator.py"
MODULE = runpy.run_path(str(GENERATOR))
SCHEMA = json.loads((ROOT / "spec" / "config.schema.json").read_text())


def walk(value: object, pointer: str = "") -> Iterator[tuple[str, object]]:
    """Every value of a document with its pointer, outermost first."""
    yield pointer, value
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from walk(item, f"{pointer}/{escape(str(key))}")


def keyword_values(keyword: str) -> list[Any]:
    """What the keyword is set to anywhere in the schema."""
    return [value[keyword] for _, value in walk(SCHEMA) if isinstance(value, dict) and keyword in value]


PATTERNS = sorted({value for value in keyword_values("pattern") if isinstance(value, str)})
ENUM_WORDS = sorted({word for words in keyword_values("enum") if isinstance(words, list) for word in words})
MEMBERS = sorted({name for members in keyword_values("properties") for name in members if isinstance(members, dict)})

BASES: list[Any] = [
    json.loads((ROOT / "tests" / "data" / "full-config.json").read_text()),
    default_config(rootless=False, cgroup_v2=True, euid=0, egid=0),
    default_config(rootless=True, cgroup_v2=False, euid=1000, egid=1000),
    {"ociVersion": "1.0.0", "root": {"path": "r"}},
]
EDGES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 8, 511, 512, 1000, 1001, -1000, -1001, 0.0, 1.0, 1e3, -1.0, 1.5, float("inf"),
    2**16, 2**16 - 1, 2**31, 2**32, 2**32 - 1, 2**63, 2**63 - 1, -(2**63), -(2**63) - 1, 2**64, 2**64 - 1, 10**9, "",
    "/", "/x", "x", "a=b", "=", "=a", ".", "..", "a.b", "1.0.0", "1.0.0\n", "2MB", "2MB\n", "rw\n", "0-1", "MB:\n",
    "x" * 64, "x" * 65, [], {}, [""], ["/"], [{}], [[]], {"": ""}, {"a": {}}, {"a.b": ""}, [None], {"monotonic": {}},
]  # fmt: skip
SCALARS = (
    st.sampled_from(EDGES)
    | st.sampled_from(ENUM_WORDS)
    | st.integers(-(2**65), 2**65)
    | st.text("/=.-+0123456789rwmKMGB:, \naA\u00e9\u0660", max_size=8)
    | st.sampled_from(PATTERNS).flatmap(st.from_regex)
)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A valid config with up to three members deleted, replaced or added, anywhere."""
    document = copy.deepcopy(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.integers(0, 3))):
        places = [value for _, value in walk(document) if isinstance(value, (dict, list))]
        if not places:
            break
        place: Any = draw(st.sampled_from(places))
        value = copy.deepcopy(draw(SCALARS))
        action = draw(st.sampled_from(["replace", "replace", "delete", "add", "root"]))
        if isinstance(place, list):
            at = draw(st.integers(0, len(place)))
            if action == "add" or at == len(place):
                place.insert(at, value)
            elif action == "delete":
                del place[at]
            else:
                place[at] = value
        elif action == "add" or not place:
            place[draw(st.sampled_from(MEMBERS) | st.sampled_from(["", "x", "a/b", "realtime", ".."]))] = value
        else:
            key = draw(st.sampled_from(sorted(place)))
            if action == "delete":
                del place[key]
            else:
                place[key] = value
    return document


@settings(max_examples=400, deadline=None)
@given(mutated(), st.sampled_from(["config", "config", "process", "resources"]))
def test_generated_validator_agrees_with_jsonschema(document: Any, kind: str) -> None:
    part = document
    if kind != "config":
        for name in ["process"] if kind == "process" else ["linux", "resources"]:
            part = part.get(name, {}) if isinstance(part, dict) else {}
    pointer = _generated.CHECKS[kind](part)
    pointers = {error.pointer for error in explain.all_errors(part, b"", "x", kind)}
    if pointer is None:
        assert pointers == set()
    else:
        assert pointer in pointers


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_pattern_is_expressed_exactly(pattern: str) -> None:
    wrong = eval(f"lambda text: {MODULE['PATTERNS'][pattern].format(x='text')}", vars(_generated))
    ecma = re.compile(pattern.replace("$", r"\Z"))

    @settings(max_examples=300, deadline=None)
    @given(st.from_regex(pattern) | st.text("/=.-+0123456789rwmKMGB:, \n\taA\u00e9\u0660", max_size=17))
    def agrees(text: str) -> None:
        assert bool(wrong(text)) != bool(ecma.search(text))

    agrees()


def test_every_pattern_has_words() -> None:
    described = set(explain.PATTERN_WORDS) | {pattern for pattern in PATTERNS if pattern.startswith("^1\\.")}
    assert set(PATTERNS) <= described
    assert set(explain.PATTERN_WORDS) <= set(PATTERNS)


def test_output_depends_on_the_schema_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        output = str(tmp_path / name / "_generated.py")
        environment = {"PYTHONHASHSEED": "1" if name == "a" else "2"}
        subprocess.run([sys.executable, str(GENERATOR), output], check=True, env=environment, cwd=tmp_path)
    for name in ("_generated.py", "_schema.py"):
        first = (tmp_path / "a" / name).read_bytes()
        assert first == (tmp_path / "b" / name).read_bytes()
        assert first == (ROOT / "ociruntime" / "config" / name).read_bytes()
        assert str(tmp_path).encode() not in first


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string", "format": "uri"}}},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "^unheard of$"}}},
        {"type": "object", "properties": {"a": {"type": ["string", "null"]}}},
        {"type": "object", "properties": {"a": {"type": "number"}}},
        {"type": "object", "properties": {"a": {"type": "integer"}}},
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 1, "multipleOf": 1}}},
        {"type": "object", "properties": {"a": {"enum": ["a"]}}},
        {"type": "object", "properties": {"a": {"type": "string", "enum": ["a", 1]}}},
        {"type": "object", "properties": {"a": {"type": "array"}}},
        {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True, "items": {"type": "string"}}}},
        {"type": "object", "additionalProperties": False},
        {"type": "object", "properties": {"a": {"type": "boolean"}}, "additionalProperties": {"type": "string"}},
        {"type": "object", "required": ["a"]},
        {"type": "object", "anyOf": []},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}},
        {"type": "object", "properties": {"a": {"$ref": "other.json"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/process", "minLength": 1}}},
    ],
)
def test_what_cannot_be_expressed_stops_the_generator(schema: dict[str, Any]) -> None:
    schema["$defs"] = {"process": {"type": "object"}, "resources": {"type": "object"}}
    with pytest.raises(MODULE["UnknownKeywordError"]):
        MODULE["Generator"](schema).module()


def test_an_unused_definition_stops_the_generator() -> None:
    schema = {"type": "object", "$defs": {"process": {"type": "object"}, "resources": {"type": "object"}}}
    MODULE["Generator"](schema).module()
    schema["$defs"]["more"] = {"type": "string"}  # type: ignore[index]
    with pytest.raises(MODULE["UnknownKeywordError"]):
        MODULE["Generator"](schema).module()
