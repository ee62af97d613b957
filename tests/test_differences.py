"""integration/DIFFERENCES.md and integration/ROOTLESS.md: every row is about a test that there is."""

import subprocess
import sys
from pathlib import Path

import pytest

from integration.lib.differences import Difference, load, load_rootless

TOP = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def names() -> set[str]:
    """All integration tests as file::test[parameters]."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", "integration"]
    result = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True)
    lines = [line for line in result.stdout.splitlines() if "::" in line]
    return {line[line.rfind("/", 0, line.find("::")) + 1 :] for line in lines}


@pytest.mark.parametrize("row", [*load(), *load_rootless()], ids=lambda row: f"{row.runtime}-{row.pattern}")
def test_rows_name_tests(names: set[str], row: Difference) -> None:
    """A row that no test matches is stale: it would excuse nothing, and the test it was for is run."""
    assert any(row.matches(row.runtime, name) for name in names)
