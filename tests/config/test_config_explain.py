"""config/explain.py: the place, the words and the hint of an error; types.py and the other two schemas."""

import json
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ociruntime.config import explain, load, types, validate
from ociruntime.config.default import default_config
from ociruntime.errors import ConfigError

CONFIG = """{
  "ociVersion": "1.3.0",
  "root": {"path": "rootfs"},
  "process": {
    "arg": ["sh"],
    "cwd": "/",
    "rlimits": [
      {"type": "nofile", "soft": 1.0, "hard": "5"}
    ]
  },
  "annotations": {"ok": "", "": "x"},
  "linux": {"namespaces": [{"type": "pid"},
\t{"type": "mnt"}], "sysctl": {"a/b~c": 5}}
}
"""


def errors_of(text: str) -> list[ConfigError]:
    data = text.encode()
    return explain.all_errors(load.parse(data, "c.json"), data, "c.json")


def test_all_errors_in_the_order_of_the_file() -> None:
    found = [(error.line, error.column, error.pointer, error.reason) for error in errors_of(CONFIG)]
    assert found == [
        (4, 14, "/process/args", "is required"),
        (8, 16, "/process/rlimits/0/type", "'nofile' is not a value the specification knows"),
        (8, 34, "/process/rlimits/0/soft", "must be an integer, not the number 1.0"),
        (8, 47, "/process/rlimits/0/hard", "must be an integer, not the string '5'"),
        (11, 29, "/annotations/", "the name '' must not be empty"),
        (
            13,
            11,
            "/linux/namespaces/1/type",
            "'mnt' is not one of pid, network, mount, ipc, uts, user, cgroup, time",
        ),
        (13, 40, "/linux/sysctl/a~1b~0c", "must be a string, not the number 5"),
    ]


def test_the_first_one_is_raised() -> None:
    data = CONFIG.encode()
    with pytest.raises(ConfigError) as caught:
        validate.check(load.parse(data, "c.json"), data, "c.json")
    assert str(caught.value) == (
        "line 4 column 14: /process/args: 'c.json': is required "
        "(hint: there is 'arg', which is not known: a misspelling?)"
    )


def test_hints() -> None:
    hints = {error.pointer: error.hint for error in errors_of(CONFIG)}
    assert hints["/process/rlimits/0/type"] == "did you mean 'RLIMIT_NOFILE'?"
    assert hints["/process/rlimits/0/soft"] == "write 1, without a fraction or exponent"
    assert hints["/process/rlimits/0/hard"] == "write 5, without quotes"
    assert hints["/linux/namespaces/1/type"] == "did you mean 'mount'?"
    assert hints["/linux/sysctl/a~1b~0c"] == ""


def test_values_are_shown_short_and_printable() -> None:
    text = CONFIG.replace("1.3.0", "9" * 100 + "\\u001b")
    assert errors_of(text)[0].reason == f"'{'9' * 57}...' must be a version of the specification, 1.x.y"
    assert errors_of(CONFIG.replace("1.3.0", "\\u001b[m"))[0].reason.startswith("'\N{REPLACEMENT CHARACTER}[m'")


def test_characters_count_in_columns_not_bytes() -> None:
    text = '{"ociVersion": "1.0.0", "\u00e9\U0001f600": 1, "root": 5}'
    error = errors_of(text)[0]
    assert (error.line, error.column) == (1, text.index("5}") + 1)


def test_number_of_errors_is_bounded() -> None:
    many = json.dumps({"ociVersion": "1.0.0", "root": {"path": "/"}, "process": {"args": [0] * 3000, "cwd": "/"}})
    assert len(errors_of(many)) == explain.MAX_ERRORS


def test_without_jsonschema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    cases = {
        '"arg": ["sh"]': ("/process/args", "is required", 4),
        '"args": [5]': ("/process/args/0", "must be a string", 5),
        '"args": ["x"]': (
            "/process/rlimits/0/type",
            "must be one of RLIMIT_AS, RLIMIT_CORE",
            8,
        ),
        '"args": ["x"], "cwd2": 1, "oomScoreAdj": 2000': ("/process/rlimits/0/type", "must be one of", 8),
        '"args": ["x"], "env": ["="]': ("/process/env/0", "must have the form NAME=value", 5),
    }
    for text, (pointer, reason, line) in cases.items():
        data = CONFIG.replace('"arg": ["sh"]', text).encode()
        with pytest.raises(ConfigError) as caught:
            validate.check(load.parse(data, "c.json"), data, "c.json")
        error = caught.value
        assert (error.pointer, error.line) == (pointer, line)
        assert error.reason.startswith(reason)
    fits = default_config(rootless=False, cgroup_v2=False, euid=0, egid=0)
    assert explain.all_errors(fits, b"", "x") == []
    assert explain.all_errors({**fits, "root": {"path": ""}}, b"", "x")[0].pointer == "/root/path"


def test_unknown_members() -> None:
    document = json.loads(CONFIG)
    document["windows"] = {"a": {"b": 1}}
    document["linux"]["seccomp"] = {"syscalls": [{"names": ["x"], "acton": "SCMP_ACT_LOG"}]}
    document["linux"]["netDevices"] = {"eth0": {"nam": "x"}}
    assert explain.unknown_members(document) == [
        ("/process/arg", "args"),
        ("/linux/seccomp/syscalls/0/acton", "action"),
        ("/linux/netDevices/eth0/nam", "name"),
        ("/windows", ""),
    ]
    assert explain.unknown_members(json.loads((Path(__file__).parents[1] / "data/full-config.json").read_text())) == []


def typed_dict_of(schema: dict[str, Any], hint: Any, root: dict[str, Any], where: str, seen: set[str]) -> None:
    """Compare one schema with the type that stands for it, down to the leaves."""
    schema = explain._follow(schema, root)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if schema["type"] == "array":
        assert origin is list, where
        typed_dict_of(schema["items"], arguments[0], root, f"{where}[]", seen)
    elif schema["type"] == "object" and "additionalProperties" in schema:
        assert (origin, arguments[0]) == (dict, str), where
        typed_dict_of(schema["additionalProperties"], arguments[1], root, f"{where}{{}}", seen)
    elif schema["type"] == "object":
        assert typing.is_typeddict(hint), where
        seen.add(hint.__name__)
        hints = typing.get_type_hints(hint)
        assert set(hints) == set(schema["properties"]), where
        assert hint.__required_keys__ == set(schema.get("required", [])), where
        for name, member in schema["properties"].items():
            typed_dict_of(member, hints[name], root, f"{where}/{name}", seen)
    elif origin is typing.Literal:
        assert set(arguments) == set(schema["enum"]), where
    else:
        assert hint is {"string": str, "integer": int, "boolean": bool}[schema["type"]], where


def test_types_say_what_the_schema_says() -> None:
    schema = explain.schema_of("config")
    seen: set[str] = set()
    typed_dict_of(schema, types.Config, schema, "", seen)
    assert seen == {name for name, value in vars(types).items() if typing.is_typeddict(value)}


@pytest.mark.parametrize("name", ["config", "state", "features"])
def test_schemas_are_schemas(name: str, root: Path) -> None:
    Draft202012Validator.check_schema(json.loads((root / "spec" / f"{name}.schema.json").read_text()))


STATE = {
    "ociVersion": "1.3.0",
    "id": "c1",
    "status": "running",
    "pid": 4422,
    "bundle": "/b",
    "annotations": {"a": ""},
    "rootfs": "/b/rootfs",
    "created": "2026-01-02T03:04:05.123456789Z",
    "owner": "root",
}


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({}, []),
        ({"pid": 0, "status": "stopped"}, []),
        ({"status": "paused"}, []),
        ({"status": "dead"}, ["/status"]),
        ({"pid": -1}, ["/pid"]),
        ({"pid": True}, ["/pid"]),
        ({"bundle": "b"}, ["/bundle"]),
        ({"created": "2026-01-02 03:04:05"}, ["/created"]),
        ({"id": ""}, ["/id"]),
        ({"annotations": {"a": 1}}, ["/annotations/a"]),
    ],
)
def test_state_schema(change: dict[str, Any], pointers: list[str]) -> None:
    assert [error.pointer for error in explain.all_errors({**STATE, **change}, b"", "x", "state")] == pointers


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        ({"ociVersionMin": "1.0.0", "ociVersionMax": "1.3.0"}, []),
        ({"ociVersionMin": "1.0.0"}, ["/ociVersionMax"]),
        ({"ociVersionMin": "1.0.0", "ociVersionMax": "1.3.0", "extra": 1}, ["/extra"]),
        ({"ociVersionMin": "1.0.0", "ociVersionMax": "1.3.0", "hooks": ["prestop"]}, ["/hooks/0"]),
        ({"ociVersionMin": "1.0.0", "ociVersionMax": "1.3.0", "mountOptions": ["ro", "ro"]}, ["/mountOptions"]),
        ({"ociVersionMin": "1.0.0", "ociVersionMax": "1.3.0", "linux": {"cgroup": {"v1": 1}}}, ["/linux/cgroup/v1"]),
        ({"ociVersionMin": "1.0.0", "ociVersionMax": "1.3.0", "linux": {"capabilities": ["CAP_KILL"]}}, []),
    ],
)
def test_features_schema(document: dict[str, Any], pointers: list[str]) -> None:
    assert [error.pointer for error in explain.all_errors(document, b"", "x", "features")] == pointers
