"""Known differences of other runtimes, read from DIFFERENCES.md: the table there is the only place that lists them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "DIFFERENCES.md"
ROOTLESS = Path(__file__).resolve().parent.parent / "ROOTLESS.md"


class Difference:
    """One row: what this runtime does at these tests. how: "fails" (run it, a failure is expected) or "skip"."""

    def __init__(self, runtime: str, pattern: str, how: str, row: str, text: str) -> None:
        self.runtime = runtime
        self.pattern = pattern
        self.how = how
        self.row = row
        self.text = text

    @property
    def reason(self) -> str:
        """For the summary."""
        return f"{self.runtime}: {self.text} ({self.row})"

    def matches(self, runtime: str, name: str) -> bool:
        """name: file::test[parameters]; brackets in a pattern are plain characters, * and ? are wild."""
        pattern = self.pattern.replace("[", "[[]")
        return self.runtime == runtime and fnmatchcase(name, pattern)


def load(table: Path = TABLE) -> list[Difference]:
    """All rows whose first column is a runtime."""
    rows = []
    for line in table.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 5 and cells[2] in ("fails", "skip"):
            rows.append(Difference(cells[0], cells[1].strip("`"), cells[2], cells[3], cells[4]))
    return rows


def load_rootless(table: Path = ROOTLESS) -> list[Difference]:
    """What needs the host's root: rows of (test pattern, why)."""
    rows = []
    for line in table.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| `") and len(cells) == 2:
            rows.append(Difference("rootless", cells[0].strip("`"), "skip", "", cells[1]))
    return rows
