import json

import pytest
from hypothesis import given, settings, strategies as st

from ociruntime import jsontext

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_writes_what_json_writes(value: object) -> None:
    assert jsontext.dumps(value, 2) == json.dumps(value, indent=2)
    assert jsontext.dumps(value) == json.dumps(value, separators=(",", ":"))


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_reads_what_it_writes(value: object) -> None:
    assert jsontext.loads(jsontext.dumps(value).encode("ascii")) == value


def test_bytes_that_are_no_utf8_survive() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert jsontext.dumps(name) == '"caf\\udce9"'
    assert jsontext.loads(b'"caf\\udce9"') == name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, {"a": object()}, b"x"])
def test_refuses_what_json_cannot_say(value: object) -> None:
    with pytest.raises(TypeError):
        jsontext.dumps(value)


@pytest.mark.parametrize(
    "data", [b"", b"  ", b"{", b'{"a":', b'{"a":1} x', b"nul", b"NaN", b"[1,]", b"\xff", b'"a', b"[" * 100000]
)
def test_refuses_what_is_not_json(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|nested"):
        jsontext.loads(data)


def test_an_error_that_cannot_be_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where json.decoder cannot be imported: nothing of the interpreter's inside is told."""

    def scanner(settings: object) -> object:
        def scan(text: str, at: int) -> object:
            raise SystemError("<scanner at 0x7f> returned NULL without setting an exception")

        return scan

    monkeypatch.setattr("_json.make_scanner", scanner)
    with pytest.raises(ValueError, match="^not JSON$"):
        jsontext.loads(b"{")


@pytest.mark.parametrize("text", ["", "a", "\u00e9", "\uffff", "\U0001f600", "\ufffd"])
def test_decode(text: str) -> None:
    assert jsontext.decode(text.encode()) == text


@pytest.mark.parametrize(
    "data", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xc3\xa9\x80"]
)
def test_decode_refuses_what_is_not_utf8(data: bytes) -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        jsontext.decode(data)
