"""integration/engines/table.py: reading reports, and what counts as a failure of our own."""

from pathlib import Path

from integration.engines import table

REPORT = """<testsuites><testsuite>
<testcase classname="engines.test_podman_run" name="test_a[x.y]" time="1"/>
<testcase classname="engines.test_podman_run" name="test_b"><failure message="no"/><properties><property
name="message" value="125: no such thing"/></properties></testcase>
<testcase classname="engines.test_podman_run" name="test_c"/>
<testcase classname="engines.test_podman_run" name="test_c"><error message="left behind"/></testcase>
<testcase classname="engines.test_podman_run" name="test_d"><skipped type="pytest.skip" message="s"/></testcase>
<testcase classname="engines.test_podman_run" name="test_e"><skipped type="pytest.xfail" message="k"/></testcase>
</testsuite></testsuites>
"""


def test_outcomes(tmp_path: Path) -> None:
    """Names as pytest takes them; the worse of a test's own outcome and its clean-up's."""
    tmp_path.joinpath("report.xml").write_text(REPORT)
    assert table.outcomes(tmp_path / "report.xml") == {
        "test_podman_run.py::test_a[x.y]": ("ok", ""),
        "test_podman_run.py::test_b": ("FAIL", "no"),
        "test_podman_run.py::test_c": ("FAIL", "left behind"),
        "test_podman_run.py::test_d": ("skip", "s"),
        "test_podman_run.py::test_e": ("differs", "k"),
    }


def test_messages(tmp_path: Path) -> None:
    """What a test has recorded."""
    tmp_path.joinpath("report.xml").write_text(REPORT)
    assert table.messages(tmp_path / "report.xml") == {"test_podman_run.py::test_b": "125: no such thing"}


def test_own_failures() -> None:
    """A failure is ours unless every other runtime that ran the check failed as well."""
    cases = [
        ("FAIL", "FAIL", "FAIL", False),
        ("FAIL", "differs", "FAIL", False),
        ("FAIL", "skip", "FAIL", False),
        ("FAIL", "skip", "skip", True),
        ("FAIL", "ok", "FAIL", True),
        ("ok", "FAIL", "FAIL", False),
        ("skip", "ok", "ok", False),
    ]
    for ours, second, third, expected in cases:
        results = [{"check": (outcome, "")} for outcome in (ours, second, third)]
        assert bool(table.own_failures(results)) == expected, (ours, second, third)
    assert table.own_failures([{"check": ("FAIL", "")}, {}, {}]) == ["check"]


def test_every_engine_test_has_an_engine() -> None:
    """Each file of the folder belongs to one engine."""
    found = [path.name for engine in table.PREFIXES for path in table.files(engine)]
    assert sorted(found) == sorted(path.name for path in table.HERE.glob("test_*.py"))
