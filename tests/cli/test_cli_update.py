"""Flags of update and events: units, precedence, durations."""

from typing import Any

import pytest

from ociruntime.cli.commands import events, update
from ociruntime.cli.parser import parse_command
from ociruntime.cli.table import COMMANDS
from ociruntime.errors import UsageError


def flags(*words: str) -> "dict[str, Any]":
    options, _ = parse_command("update", [*words, "id"], COMMANDS["update"])
    return update.resources(options)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), {}),
        (("--memory", "64M"), {"memory": {"limit": 64 << 20}}),
        (("--memory=-1", "--memory-swap=-1"), {"memory": {"limit": -1, "swap": -1}}),
        (("--memory", "0"), {}),
        (("--memory-reservation", "1g"), {"memory": {"reservation": 1 << 30}}),
        (("--kernel-memory", "5", "--kernel-memory-tcp", "6"), {"memory": {"kernel": 5, "kernelTCP": 6}}),
        (("--cpu-quota", "-1", "--cpu-period", "5000"), {"cpu": {"quota": -1, "period": 5000}}),
        (("--cpu-share", "0"), {}),
        (("--cpu-share", "9", "--cpu-idle", "0", "--cpu-burst", "0"), {"cpu": {"shares": 9, "idle": 0, "burst": 0}}),
        (("--cpu-rt-period", "8", "--cpu-rt-runtime", "7"), {"cpu": {"realtimePeriod": 8, "realtimeRuntime": 7}}),
        (("--cpuset-cpus", "0-1", "--cpuset-mems", "0"), {"cpu": {"cpus": "0-1", "mems": "0"}}),
        (("--blkio-weight", "300"), {"blockIO": {"weight": 300}}),
        (("--pids-limit", "7"), {"pids": {"limit": 7}}),
        (("--pids-limit", "-1"), {"pids": {"limit": -1}}),
        (("--pids-limit", "0"), {}),
        (("--cpu-share=", "--cpu-quota", "", "--memory=", "--cpuset-cpus="), {}),
    ],
)
def test_flags(words: "tuple[str, ...]", expected: "dict[str, Any]") -> None:
    assert flags(*words) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0), ("67108864", 64 << 20), ("64k", 64 << 10), ("64K", 64 << 10), ("64kb", 64 << 10),
        ("64KiB", 64 << 10), ("64b", 64), ("1.5g", 3 << 29), ("2T", 2 << 40), ("1p", 1 << 50), ("64 M", 64 << 20),
        ("-1", -1),
    ],
)  # fmt: skip
def test_sizes(text: str, expected: int) -> None:
    assert update.size(text, "memory") == expected


@pytest.mark.parametrize("text", ["", "x", "-2", "M", "1.M", "64Q", "64MM", "1e3", "٣", "0x10", "i", "b"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="--memory"):
        update.size(text, "memory")


@pytest.mark.parametrize("text", ["", "x", "1.5", "--1", "٣", "1" * 20])
def test_bad_numbers(text: str) -> None:
    with pytest.raises(UsageError):
        update.number(text, "cpu-quota")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1), ("100ms", 0.1), ("1m30s", 90), ("1.5h", 5400), ("2us", 2e-6), ("2µs", 2e-6), ("5ns", 5e-9), ("0", 0),
        ("-1s", -1), ("+1s", 1), (".5s", 0.5), ("1.s", 1),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert events.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "s", "1x", "1 s", "1.2.3s", ".s", "-", "1s2", "٣s"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(UsageError):
        events.duration(text)
