"""The integration tests that need the lab, run in it. Each file is one test here; its failures are told in full."""

from __future__ import annotations

import pytest

from integration.lab import stage
from integration.lab.machine import Image, Machine


@pytest.fixture(scope="module")
def report(built: Image) -> stage.Report:
    """One run of all of them, in one machine."""
    with Machine(built) as machine:
        stage.prepare(machine)
        return stage.run(machine, stage.SELECTION, timeout=stage.TIMEOUT)


@pytest.mark.parametrize("file", stage.FILES)
def test_in_the_lab(report: stage.Report, file: str) -> None:
    """All tests of this file pass in the guest, and some ran."""
    if report.status not in (0, 1):
        pytest.fail(f"pytest in the guest: {report.status}\n{report.output[-4000:]}", pytrace=False)
    cases = [case for case in report.cases if case.file == file]
    failed = [f"{case.file}::{case.name}\n{case.text}" for case in cases if case.outcome == "failed"]
    if failed:
        pytest.fail("\n\n".join([f"{len(failed)} in the guest failed", *failed]), pytrace=False)
    assert any(case.outcome == "passed" for case in cases)
