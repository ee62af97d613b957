"""The integration tests that need the lab, run in it. Each file is one test here; its failures are told in full.

IT_LAB=all runs them all, any other value those for which make test has the time.
"""

from __future__ import annotations

import os

import pytest

from integration.lab import stage
from integration.lab.machine import Image, Machine

CHOSEN = stage.CHOSEN | ({} if os.environ.get("IT_LAB") == "all" else stage.SAMPLE)


@pytest.fixture(scope="module")
def report(built: Image) -> stage.Report:
    """One run of all of them, in one machine."""
    with Machine(built) as machine:
        stage.prepare(machine)
        return stage.run(machine, stage.selection(CHOSEN), timeout=stage.TIMEOUT)


@pytest.mark.parametrize("file", [file for file in stage.FILES if CHOSEN.get(file, True)])
def test_in_the_lab(report: stage.Report, file: str) -> None:
    """All tests of this file pass in the guest, and some ran."""
    if report.status not in (0, 1):
        pytest.fail(f"pytest in the guest: {report.status}\n{report.output[-4000:]}", pytrace=False)
    cases = [case for case in report.cases if case.file == file]
    failed = [f"{case.file}::{case.name}\n{case.text}" for case in cases if case.outcome == "failed"]
    if failed:
        pytest.fail("\n\n".join([f"{len(failed)} in the guest failed", *failed]), pytrace=False)
    assert any(case.outcome == "passed" for case in cases)
