"""LISTEN_FDS: (environment -> sockets), (config -> environment of the program)."""

from typing import Any

import pytest

from ociruntime.listen_fds import passed, with_variables

PID = 77


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, "")),
        ({b"LISTEN_FDS": b"2", b"LISTEN_PID": b"77"}, (2, "")),
        ({b"LISTEN_FDS": b"2", b"LISTEN_PID": b"77", b"LISTEN_FDNAMES": b"a:\xff"}, (2, "a:\udcff")),
        ({b"LISTEN_FDS": b"2"}, (0, "")),
        ({b"LISTEN_FDS": b"2", b"LISTEN_PID": b"1", b"LISTEN_FDNAMES": b"a"}, (0, "")),
        ({b"LISTEN_FDS": b"2", b"LISTEN_PID": b"077"}, (0, "")),
        ({b"LISTEN_FDS": b"0", b"LISTEN_PID": b"77"}, (0, "")),
        ({b"LISTEN_FDS": b"-1", b"LISTEN_PID": b"77"}, (0, "")),
        ({b"LISTEN_FDS": b"2x", b"LISTEN_PID": b"77"}, (0, "")),
        ({b"LISTEN_FDS": b"", b"LISTEN_PID": b"77"}, (0, "")),
        ({b"LISTEN_FDS": b"99999999", b"LISTEN_PID": b"77"}, (0, "")),
    ],
)
def test_passed(environment: dict[bytes, bytes], expected: tuple[int, str]) -> None:
    assert passed(environment, PID) == expected


def test_variables_come_last() -> None:
    config: dict[str, Any] = {"process": {"args": ["x"], "env": ["A=1", "LISTEN_FDS=9"]}, "linux": {}}
    before = repr(config)
    changed = with_variables(config, 2, "a:b", 5)
    assert changed["process"]["env"] == ["A=1", "LISTEN_FDS=9", "LISTEN_FDS=2", "LISTEN_PID=5", "LISTEN_FDNAMES=a:b"]
    assert (changed["process"]["args"], changed["linux"]) == (["x"], {})
    assert repr(config) == before


def test_without_names_and_env() -> None:
    assert with_variables({"process": {}}, 1, "", 1)["process"]["env"] == ["LISTEN_FDS=1", "LISTEN_PID=1"]
