"""spec/CONFORMANCE.md and integration/DIFFERENCES.md name things that exist: rooms, tests, rules."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
TABLE = TOP / "spec" / "CONFORMANCE.md"
DIFFERENCES = TOP / "integration" / "DIFFERENCES.md"

REFERENCE = r"(?:(?:tests|integration)/[\w/]+\.py)?::test_\w+"
REFERENCES = re.compile(rf"{REFERENCE}(?:, {REFERENCE})*")
REASON = re.compile(rf"reason: \S.{{10,}}?(?:\. See (?P<see>{REFERENCE}(?:, {REFERENCE})*))?")
ROW = re.compile(r"[ABDEFGHJKLMNPQSUX][1-9]\d?")


class Line:
    """One line of a table. level: MUST, SHOULD, or "" beyond the specification."""

    def __init__(self, number: int, cells: list[str]) -> None:
        self.number = number
        self.level = cells.pop(0) if len(cells) == 5 else ""
        self.requirement, self.room, self.tests, self.rows = cells

    @property
    def references(self) -> list[str]:
        """Its tests as they are written: file::test, or ::test of the file before."""
        if not self.tests.startswith("reason:"):
            return self.tests.split(", ")
        match = REASON.fullmatch(self.tests)
        return (match["see"] or "").split(", ") if match and match["see"] else []


def cells_of(text: str) -> list[str]:
    return [cell.strip() for cell in text.strip().removeprefix("|").removesuffix("|").split(" | ")]


@cache
def lines() -> list[Line]:
    """All lines of all tables, without their heads."""
    found = []
    width = 0
    for number, text in enumerate(TABLE.read_text().splitlines(), 1):
        if not text.startswith("|"):
            width = 0
        elif not width:
            width = len(cells_of(text))
        elif not text.startswith("|---"):
            cells = cells_of(text)
            assert len(cells) == width, f"line {number}: {len(cells)} cells"
            found.append(Line(number, cells))
    return found


@cache
def names_in(file: str) -> frozenset[str]:
    """Names of the tests in a file."""
    path = TOP / file
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_the_table_is_there() -> None:
    assert len(lines()) > 200
    assert {line.level for line in lines()} == {"MUST", "SHOULD", ""}


def test_rooms_exist() -> None:
    wrong = [(line.number, line.room) for line in lines() if not (TOP / line.room.strip("`")).is_file()]
    assert not wrong


def test_tests_exist() -> None:
    wrong = []
    for line in lines():
        file = ""
        for reference in line.references:
            named, _, name = reference.partition("::")
            file = named or file
            if name not in names_in(file):
                wrong.append((line.number, f"{file}::{name}"))
    assert not wrong


def test_every_line_has_a_test_or_a_reason() -> None:
    wrong = [
        (line.number, line.tests)
        for line in lines()
        if not (REASON if line.tests.startswith("reason:") else REFERENCES).fullmatch(line.tests)
        or line.tests.startswith("::")
    ]
    assert not wrong


def test_no_line_comes_twice() -> None:
    seen: dict[str, int] = {}
    twice = []
    for line in lines():
        words = " ".join(re.findall(r"\w+", line.requirement.lower()))
        if words in seen:
            twice.append((line.number, seen[words]))
        seen[words] = line.number
    assert not twice


def test_numbers_of_requirements() -> None:
    wrong = [(line.number, line.rows) for line in lines() if not all(map(ROW.fullmatch, line.rows.split(", ")))]
    assert not wrong


def test_every_mount_option_has_its_line() -> None:
    from ociruntime.mounts.options import names

    words = {word for line in lines() for word in re.findall(r"`([\w-]+)`", line.requirement)}
    assert not {*names(), "idmap", "ridmap"} - words


def test_rules_of_differences_are_explained() -> None:
    used: set[str] = set()
    explained: list[str] = []
    for text in DIFFERENCES.read_text().splitlines():
        cells = cells_of(text) if text.startswith("| ") else []
        if len(cells) == 5 and cells[2] in ("fails", "skip"):
            used.update(cells[3].split(", "))
        elif len(cells) == 3 and ROW.fullmatch(cells[0]):
            explained.append(cells[0])
            assert len(cells[1]) > 3, text
            assert len(cells[2]) > 10, text
    assert all(ROW.fullmatch(rule) for rule in used)
    assert len(explained) == len(set(explained))
    assert used == set(explained)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("tests/test_x.py::test_a", True),
        ("tests/a/test_x.py::test_a, ::test_b, integration/test_y.py::test_c", True),
        ("tests/test_x.py", False),
        ("none", False),
        ("", False),
        ("reason: the kernel is the judge", True),
        ("reason: the kernel is the judge. See tests/test_x.py::test_a", True),
        ("reason: ", False),
    ],
)
def test_form_of_the_test_column(text: str, good: bool) -> None:
    pattern = REASON if text.startswith("reason:") else REFERENCES
    assert bool(pattern.fullmatch(text)) is good
