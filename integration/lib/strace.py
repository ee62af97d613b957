"""Commands of the runtime under strace: their system calls, one by one, and what happens at a chosen one."""

from __future__ import annotations

import collections
import copy
import re
from collections.abc import Sequence
from pathlib import Path

from integration.lib.runtime import Result, Runtime


class Call:
    """A system call of a command: the number-th of its name. line: as strace shows it."""

    def __init__(self, name: str, number: int, line: str) -> None:
        self.name = name
        self.number = number
        self.line = line

    def __repr__(self) -> str:
        return f"{self.name} number {self.number} ({self.line[:120]})"


def _traced(runtime: Runtime, *options: str) -> Runtime:
    """The runtime below strace, which is below all that is put before its commands."""
    traced = copy.copy(runtime)
    traced.prefix = [*runtime.prefix, "strace", "-qq", *options]
    return traced


def calls(runtime: Runtime, words: Sequence[str], trace: Path, status: int = 0) -> list[Call]:
    """Run a command, which must end with status, and return the system calls that it makes, in order."""
    result = _traced(runtime, "-o", str(trace))(*words)
    assert result.code == status, f"{result!r}"
    seen: collections.Counter[str] = collections.Counter()
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        if match := re.match(r"([a-z0-9_]+)\(", line):
            seen[match[1]] += 1
            found.append(Call(match[1], seen[match[1]], line))
    trace.unlink()
    return found


def at(runtime: Runtime, call: Call, what: str, words: Sequence[str]) -> Result:
    """Run a command to which this happens at a call: signal=NAME in front of it, or error=NAME instead of it."""
    options = ["-o", "/dev/null", "-e", f"inject={call.name}:{what}:when={call.number}"]
    return _traced(runtime, *options)(*words)
