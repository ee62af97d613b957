"""config/load.py and position.py: what counts as JSON, and where it stops being it."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from ociruntime.config import load, position
from ociruntime.errors import ConfigError


def refused(data: bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load.parse(data, "config.json")
    return caught.value


BAD = [
    # (data, line, column, a part of the reason)
    (b"", 1, 1, "empty"),
    (b" \n \t", 2, 3, "empty"),
    (b"{", 1, 2, "ends too early"),
    (b'{"a":', 1, 6, "ends too early"),
    (b"[1", 1, 3, "ends too early"),
    (b"[1,", 1, 4, "ends too early"),
    (b"-", 1, 2, "ends too early"),
    (b"{}\n{}", 2, 1, "follows the end"),
    (b"[] x", 1, 4, "follows the end"),
    (b'\xef\xbb\xbf{"a": 1}', 1, 1, "byte order mark"),
    (b'{"a":1,\n "a":2}', 2, 2, "'a' is given twice, first in line 1"),
    (b'{"a":1,\n "\\u0061":2}', 2, 2, "'a' is given twice"),
    (b'{"x": {"a": null, "a": 1}}', 1, 19, "given twice"),
    (b'{"a":\n"\xff"}', 2, 2, "byte 0xff at offset 7"),
    ('{"\u00e9": "'.encode() + b"\xed\xa0\x80", 1, 8, "not UTF-8"),
    (b'{"a": NaN}', 1, 7, "'NaN'"),
    (b'{"a": Infinity}', 1, 7, "'Infinity'"),
    (b'{"a": -Infinity}', 1, 7, "'-Infinity'"),
    (b'{"a": 18446744073709551616}', 1, 7, "64 bits"),
    (b'{"a": -9223372036854775809}', 1, 7, "64 bits"),
    (b"[" + b"1" * 5000 + b"]", 1, 2, "64 bits"),
    (b'{"a": "x\\u0000y"}', 1, 9, "NUL"),
    (b'{"x\\u0000": 1}', 1, 4, "NUL"),
    (b'"\\ud800"', 1, 2, "surrogate"),
    (b'"\\uDC00"', 1, 2, "surrogate"),
    (b'"\\ud83dx"', 1, 2, "surrogate"),
    (b'"\\ud83d\\u0041"', 1, 2, "surrogate"),
    (b'"a\nb"', 1, 3, "control character U+000A"),
    (b'"\x00"', 1, 2, "control character U+0000"),
    (b'"\\x41"', 1, 2, "not an escape"),
    (b'"\\u12g4"', 1, 2, "four hexadecimal"),
    (b'"abc', 1, 1, "without an end"),
    (b"{'a': 1}", 1, 2, "member name"),
    (b"{a: 1}", 1, 2, "member name"),
    (b'{"a" 1}', 1, 6, "':' after the member name 'a'"),
    (b'{"a": 1 "b": 2}', 1, 9, "',' or '}'"),
    (b'{"a": 1,}', 1, 8, "comma before '}'"),
    (b"[1,]", 1, 3, "comma before ']'"),
    (b"[,1]", 1, 2, "a value"),
    (b"[01]", 1, 2, "leading zeros"),
    (b"[1.]", 1, 4, "a digit"),
    (b"[.5]", 1, 2, "a value"),
    (b"[1e]", 1, 4, "a digit"),
    (b"[+1]", 1, 2, "a value"),
    (b"[True]", 1, 2, "'True'"),
    (b"[nul]", 1, 2, "a value"),
    (b"[1] // x", 1, 5, "follows the end"),
    (b"[1, // x\n2]", 1, 5, "a value"),
    (b"[" * 101 + b"]" * 101, 1, 101, "deeper than 100"),
    (b'{"a":' * 101 + b"1" + b"}" * 101, 1, 501, "deeper than 100"),
    (b"[" * 300000, 1, 101, "deeper than 100"),
]


@pytest.mark.parametrize(("data", "line", "column", "reason"), BAD)
def test_refused_text(data: bytes, line: int, column: int, reason: str) -> None:
    error = refused(data)
    assert reason in error.reason
    assert (error.line, error.column) == (line, column)
    # what is wrong inside a value names that value, too
    assert error.pointer == ("/a" if b'"a": "x' in data else "")
    where = f"{error.pointer}: " if error.pointer else ""
    assert str(error).startswith(f"line {line} column {column}: {where}'config.json': ")


@pytest.mark.parametrize(
    ("data", "document"),
    [
        (b' \t\r\n{"a": [1, -0, 2.5, true, false, "x"]}\n', {"a": [1, 0, 2.5, True, False, "x"]}),
        (b'{"a": 18446744073709551615, "b": -9223372036854775808}', {"a": 2**64 - 1, "b": -(2**63)}),
        (b'"\\ud83d\\ude00 \\\\u0000 \\\\ud800"', "\U0001f600 \\u0000 \\ud800"),
        ('"\u00e9\U0001f600"'.encode(), "\u00e9\U0001f600"),
        (b"[" * 100 + b"]" * 100, json.loads("[" * 100 + "]" * 100)),
        (b'["' + b"[" * 200 + b'"]', ["[" * 200]),
        (b"[" + b"{}," * 500 + b"{}]", [{}] * 501),
    ],
)
def test_accepted_text(data: bytes, document: object) -> None:
    assert load.parse(data, "config.json") == document


def test_integers_and_other_numbers_keep_apart() -> None:
    document: Any = load.parse(b"[1, 1.0, 1e3, 10]", "x")
    assert [type(item) for item in document] == [int, float, float, int]


def test_null_member_is_absent_but_null_item_stays() -> None:
    assert load.parse(b'{"a": null, "b": {"c": null}, "d": [null]}', "x") == {"b": {}, "d": [None]}


def test_hints() -> None:
    assert "double quotes" in refused(b"{'a': 1}").hint
    assert "no comments" in refused(b"[1, # x\n2]").hint
    assert "493" in refused(b"[0755]").hint
    assert "write true" in refused(b"[True]").hint


@pytest.mark.parametrize("text", ['{"a": 1 x}', "{", "", '"a', "[1,]", "{'a': 1}", "[" * 5000])
def test_syntax_errors_without_json_imported(root: Path, text: str) -> None:
    """The C scanner raises an exception that json.decoder defines; nothing has imported that here."""
    script = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from ociruntime.config import load\n"
        "from ociruntime.errors import ConfigError\n"
        "assert 'json.decoder' not in sys.modules\n"
        f"try: load.parse({text.encode()!r}, 'x')\n"
        "except ConfigError as error: print(error.line, error.reason)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"1 {refused(text.encode()).reason}\n"


def test_read_does_not_wait_for_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="not a regular file"):
        load.read(str(tmp_path / "config.json"))


def test_read_waits_for_who_writes_to_a_fifo(tmp_path: Path) -> None:
    """Also when it is opened for writing only later, and closed before we read."""
    fifo = tmp_path / "process.json"
    os.mkfifo(fifo)

    def write() -> None:
        time.sleep(0.05)
        writer = os.open(fifo, os.O_WRONLY)  # waits for a reader, without whom the data would be lost
        os.write(writer, b"{}")
        os.close(writer)

    with ThreadPoolExecutor() as pool:
        writing = pool.submit(write)
        assert load.read(str(fifo), pipe=True) == b"{}"
        writing.result()


def test_read_from_a_pipe() -> None:
    """Where one is allowed it is read to its end, which may come later."""
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "wb") as stream:
        late = threading.Timer(0.1, lambda: (stream.write(b"{}"), stream.close()))
        late.start()
        assert load.read(f"/proc/self/fd/{reader}", pipe=True) == b"{}"
        late.join()


def test_read_refuses_what_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a regular file"):
        load.read(str(tmp_path))
    with pytest.raises(ConfigError, match="no such file or directory") as caught:
        load.read(str(tmp_path / "none"))
    assert caught.value.path == str(tmp_path / "none")
    (tmp_path / "link").symlink_to("/dev/null")
    with pytest.raises(ConfigError, match="not a regular file"):
        load.read(str(tmp_path / "link"))


def test_size_limit(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    with file.open("wb") as out:
        out.truncate(load.MAX_SIZE + 1)
    with pytest.raises(ConfigError, match="larger than 16 MiB"):
        load.load(str(file))
    with pytest.raises(ConfigError, match="larger than 16 MiB"):
        load.parse(b" " * (load.MAX_SIZE + 1), "x")
    file.write_bytes(b" " * load.MAX_SIZE)
    with pytest.raises(ConfigError, match="empty"):
        load.load(str(file))


def test_read_leaves_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = os.listdir("/proc/self/fd")
    load.read(str(tmp_path / "config.json"))
    for bad in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError):
            load.read(str(bad))
    assert os.listdir("/proc/self/fd") == before


def test_load_returns_document_and_bytes(data: Path) -> None:
    document, raw = load.load(str(data / "full-config.json"))
    assert raw == (data / "full-config.json").read_bytes()
    assert document == json.loads(raw)


UNWELCOME = {
    "argparse", "collections", "contextlib", "dataclasses", "enum", "functools", "json", "json.decoder", "jsonschema",
    "logging", "ociruntime.config.explain", "ociruntime.config.position", "ociruntime.config._schema", "pathlib", "re",
    "subprocess", "typing",
}  # fmt: skip


def test_accepting_imports_nothing_heavy(root: Path, data: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from ociruntime.config import load\n"
        f"load.load({str(data / 'docker-config.json')!r})\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert UNWELCOME & set(done.stdout.split()) == set()


def test_places() -> None:
    text = '{\n  "a/b": [10,\n    {"~": "x"}]\n}'
    places = position.scan(text)
    assert {pointer: position.line_and_column(text, at) for pointer, at in places.values.items()} == {
        "": (1, 1),
        "/a~1b": (2, 10),
        "/a~1b/0": (2, 11),
        "/a~1b/1": (3, 5),
        "/a~1b/1/~0": (3, 11),
    }
    assert position.line_and_column(text, places.names["/a~1b/1/~0"]) == (3, 6)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
PIECES = st.sampled_from([*'{}[],:"\\ue.-+0123 \n\tx/', "null", "true", "NaN", '"a":', "\\ud800", "\\u0000", "\x00"])


@st.composite
def nearly_json(draw: st.DrawFn) -> str:
    text = json.dumps(draw(JSON), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(PIECES | st.just("")) + text[at + draw(st.integers(0, 2)) :]
    return text


@settings(max_examples=500, deadline=None)
@given(nearly_json())
def test_fast_parser_and_slow_scanner_agree(text: str) -> None:
    expected = accepted = True
    try:
        position.scan(text)
    except position.TextError:
        expected = False
    error = None
    try:
        load.parse(text.encode("utf-8", "surrogatepass"), "x")
    except ConfigError as caught:
        accepted = False
        error = caught
    assert error is None or (error.line >= 1 and error.column >= 1 and error.reason != "not understood as JSON")
    # json.dumps can write half a surrogate pair, which no UTF-8 can
    if text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text):
        assert accepted == expected


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_bytes_give_a_config_error_and_always_the_same(data: bytes) -> None:
    verdicts = []
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        for _ in range(2):
            with pytest.raises(ConfigError) as caught:  # no 40 bytes hold a whole config
                load.load(file.name)
            error = caught.value
            verdicts.append((error.reason, error.pointer, error.line, error.column))
    assert verdicts[0] == verdicts[1]
