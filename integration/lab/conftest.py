"""The machine as a fixture, and its counts at the end of the output."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from integration.lab import image, stage
from integration.lab.machine import Image, Machine


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What ran in the guest: tests in there are not among those that pytest counts here."""
    for report in stage.reports:
        terminalreporter.section("in the lab")
        for line in report.lines():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def built() -> Image:
    """The image, built if need be; skips where there can be none."""
    if os.environ.get("IT_LAB", "") in ("", "0"):
        pytest.skip("the lab is for make test, or with IT_LAB=1")
    why = image.lacking()
    if why:
        pytest.skip(f"no lab: {why}")
    try:
        return image.build()
    except image.NoArchiveError as error:
        pytest.skip(f"no lab: {error}")


@pytest.fixture(scope="module")
def machine(built: Image, kept_children: set[int]) -> Iterator[Machine]:
    """A fresh machine for the tests of a module."""
    with Machine(built) as machine:
        kept_children.add(machine.process.pid)
        yield machine
    kept_children.discard(machine.process.pid)
