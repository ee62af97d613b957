"""One engine, several runtimes: run the engine's tests with each and print what each made of every check.

    python3 integration/engines/table.py podman
    python3 integration/engines/table.py containerd docker cri
    python3 integration/engines/table.py --runtime runc --runtime crun podman -k restart

The first runtime is the one under test ($OCI_RUNTIME, or build/ociruntime), the others are the reference; a reference
that is not installed is left out. Words that are not known here go to pytest. A file test_ENGINE.py or test_ENGINE_*.py
belongs to its engine (test_ctr.py and test_ctr_*.py to containerd).

Exit status 1 when the runtime under test fails where a reference does not, or when pytest itself could not work; what
fails with every reference too has its reason in the engine or in the machine, and is shown as such. Below the table:
the messages that tests of failures have recorded, side by side.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
PREFIXES = {"podman": "podman", "containerd": "ctr", "docker": "docker", "cri": "cri"}
WORST = ["FAIL", "differs", "ok", "skip"]  # a test with two outcomes (its own, and its clean-up's) has the worse one


def files(engine: str) -> list[Path]:
    """The test files of an engine."""
    prefix = PREFIXES[engine]
    return sorted({*HERE.glob(f"test_{prefix}.py"), *HERE.glob(f"test_{prefix}_*.py")})


def outcomes(report: Path) -> dict[str, tuple[str, str]]:
    """A JUnit report: file::test -> (ok, FAIL, differs: a failure that is known, skip; and the reason)."""
    found: dict[str, tuple[str, str]] = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}.py::{case.get('name')}"
        result = ("ok", "")
        for kind in ("failure", "error", "skipped"):
            child = case.find(kind)
            if child is None:
                continue
            message = child.get("message", "")
            if kind != "skipped":
                result = ("FAIL", message)
                break
            result = ("differs" if child.get("type") == "pytest.xfail" else "skip", message)
        before = found.get(name, result)
        found[name] = min(before, result, key=lambda one: WORST.index(one[0]))
    return found


def messages(report: Path) -> dict[str, str]:
    """What tests have recorded as "message": file::test -> what the engine's user reads."""
    return {
        f"{case.get('classname', '').rpartition('.')[2]}.py::{case.get('name')}": entry.get("value", "")
        for case in ET.parse(report).getroot().iter("testcase")
        for entry in case.iter("property")
        if entry.get("name") == "message"
    }


def run(engine: str, runtime: str, more: list[str], into: Path) -> dict[str, tuple[str, str]]:
    """All tests of the engine with this runtime; the output goes to a file. Empty: pytest could not work."""
    report, log = into / f"{engine}-{Path(runtime).name}.xml", into / f"{engine}-{Path(runtime).name}.log"
    report.unlink(missing_ok=True)
    begin = time.monotonic()
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *more, *map(str, files(engine))]
    with log.open("wb") as output:
        code = subprocess.run(
            [sys.executable, *words],
            cwd=TOP, env={**os.environ, "OCI_RUNTIME": runtime}, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT,
        ).returncode  # fmt: skip
    print(f"{engine} on {runtime}: {time.monotonic() - begin:.0f} s, output in {log}", flush=True)
    return outcomes(report) if code in (0, 1) and report.exists() else {}


def own_failures(results: list[dict[str, tuple[str, str]]]) -> list[str]:
    """Checks that the first runtime fails and that not every other one fails as well."""
    first, others = results[0], results[1:]
    found = []
    for name, (outcome, _) in first.items():
        elsewhere = {other[name][0] for other in others if name in other} - {"skip"}
        if outcome == "FAIL" and not (elsewhere and elsewhere <= {"FAIL", "differs"}):
            found.append(name)
    return found


def show(engine: str, names: list[str], results: list[dict[str, tuple[str, str]]]) -> None:
    """The table, the counts, and why what failed or differs did."""
    checks = list(dict.fromkeys(name for result in results for name in result))
    width = max([len(name) for name in checks] + [5])
    columns = [max(len(name), 7) for name in names]

    def row(first: str, cells: list[str]) -> str:
        return f"{first:{width}}" + "".join(f"  {cell:{size}}" for cell, size in zip(cells, columns, strict=True))

    print(f"\n{engine}\n" + row("check", names))
    for check in checks:
        print(row(check, [result.get(check, ("-", ""))[0] for result in results]))
    counts = [Counter(outcome for outcome, _ in result.values()) for result in results]
    for outcome in ("ok", "FAIL", "differs", "skip"):
        print(row(outcome, [str(count[outcome]) for count in counts]))
    for name, result in zip(names, results, strict=True):
        for check, (outcome, reason) in result.items():
            if outcome in ("FAIL", "differs"):
                print(f"{name}: {outcome}: {check}: {reason.splitlines()[0] if reason else ''}")
    reasons = Counter(reason for outcome, reason in results[0].values() if outcome == "skip")
    for reason, count in reasons.items():
        print(f"{names[0]}: skip: {count}: {reason}")


def show_messages(names: list[str], said: list[dict[str, str]]) -> None:
    """Messages of the engine, runtime under runtime."""
    for check in said[0]:
        print(f"\n{check}")
        for name, found in zip(names, said, strict=True):
            print(f"  {name:12} {found.get(check, '-')}")


def main() -> int:
    """Each engine asked for, with each runtime."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("engine", nargs="+", choices=sorted(PREFIXES))
    parser.add_argument("--runtime", action="append", help="a reference (default: runc and crun)")
    parser.add_argument("--output", type=Path, default=TOP / "build" / "engines", help="where reports and logs go")
    known, more = parser.parse_known_args()
    given = os.environ.get("OCI_RUNTIME") or str(TOP / "build" / "ociruntime")
    first = shutil.which(given) or given
    first = os.path.abspath(first)
    references = [path for path in map(shutil.which, known.runtime or ["runc", "crun"]) if path and path != first]
    runtimes = [first, *references]
    known.output.mkdir(parents=True, exist_ok=True)
    status = 0
    for engine in known.engine:
        if not files(engine):
            print(f"{engine}: no tests")
            continue
        results = [run(engine, runtime, more, known.output) for runtime in runtimes]
        names = [Path(runtime).name for runtime in runtimes]
        show(engine, names, results)
        reports = [known.output / f"{engine}-{name}.xml" for name in names]
        show_messages(names, [messages(report) if report.exists() else {} for report in reports])
        own = own_failures(results)
        print(f"{engine}: {len(own)} failures of {Path(first).name} that the others do not have", *own, sep="\n  ")
        if own or not all(results):
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
