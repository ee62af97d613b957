"""Tests of this working copy inside the lab: what is sent in, how pytest is run, what comes back."""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import tarfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from integration.lab.machine import Guest, LabError, Sink
from integration.lib import probe

TOP = Path(__file__).resolve().parent.parent.parent
WORK = TOP / "build" / "lab"
INSTALLED = WORK / "install"
PREFIX = "/usr/local"
# where the tests are in the guest
TESTS = "/opt/ociruntime"
REPORT = "/run/lab-report.xml"
# Everything is about twenty times slower in there: what must end in time here may take longer there.
ENVIRONMENT = {
    "OCI_RUNTIME": f"{PREFIX}/bin/ociruntime",
    "PYTHONPATH": f"{PREFIX}/lib/ociruntime:{PREFIX}/lib/ociruntime/site",
    "IT_CACHE": f"{TESTS}/cache",
    "IT_TIMEOUT": "300",
    "IT_CYCLES": "10",
}

# What needs the lab: real controllers of cgroup v2, systemd, AppArmor.
FILES = [
    "test_apparmor.py",
    "test_cgroup_places.py",
    "test_cgroups.py",
    "test_delegation.py",
    "test_events.py",
    "test_limits.py",
    "test_pause.py",
    "test_podman_systemd.py",
    "test_systemd.py",
    "test_systemd_limits.py",
    "test_update.py",
]
# Of these files only some tests.
CHOSEN = {
    "test_cgroup_places.py": ["test_owner_of_what_update_enables", "test_limits_below_a_threaded_parent"],
    "test_delegation.py": ["test_below_a_scope", "test_bad_subgroups", "test_limits_stay_above"],
}
# Left out: cgroup v1; cases for "machine" and for "v2" are the same ones here; refusals that need no machine; what
# counts to hundreds or measures time.
LEFT_OUT = "v1 machine bad_device_rules two_hundred cpu_quota"
# make test has no time for all of them: of these files it takes some tests only, and make lab the rest.
SAMPLE = {
    "test_cgroups.py": [],
    "test_delegation.py": ["test_below_a_scope[delegated]", "test_limits_stay_above"],
    "test_pause.py": [],
    "test_podman_systemd.py": ["test_life"],
    "test_systemd.py": [
        "test_scope",
        "test_slices",
        "test_exec",
        "test_failed_create",
        "test_name_used_again",
        "test_user_bus",
    ],
    "test_systemd_limits.py": [
        "test_limits",
        "test_limits_survive_a_reload",
        "test_update",
        "test_update_that_fails",
        "test_devices",
        "test_devices_after_update",
    ],
}


def selection(chosen: Mapping[str, Sequence[str]]) -> list[str]:
    """Arguments of pytest: FILES; chosen: file -> the only tests of it."""
    places = []
    for file in FILES:
        places += [f"{file}::{test}" for test in chosen[file]] if file in chosen else [file]
    return ["-q", *(f"integration/{place}" for place in places), "-k", f"not ({' or '.join(LEFT_OUT.split())})"]


# seconds for all of them
TIMEOUT = float(os.environ.get("IT_LAB_TIMEOUT", "2400"))


@dataclass
class Case:
    """One test. outcome: passed, failed, skipped or xfailed; text: why."""

    file: str
    name: str
    outcome: str
    text: str
    seconds: float


@dataclass
class Report:
    """What pytest said in the guest. status: its exit status; None when it had to be stopped."""

    status: int | None
    cases: list[Case] = field(default_factory=list)
    output: str = ""

    def counts(self) -> dict[str, int]:
        """How many tests ended how."""
        return dict(Counter(case.outcome for case in self.cases))

    def reasons(self) -> dict[str, int]:
        """Why tests were skipped, and how many."""
        return dict(sorted(Counter(case.text for case in self.cases if case.outcome == "skipped").items()))

    def lines(self) -> list[str]:
        """The counts in words, then the reasons of what was skipped."""
        words = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.counts().items()))
        seconds = sum(case.seconds for case in self.cases)
        first = f"{words or 'no tests'} in {seconds:.0f} s (status {self.status})"
        return [first, *(f"{count:4} skipped: {reason}" for reason, count in self.reasons().items())]


# of this process; their counts are shown at its end
reports: list[Report] = []


def install() -> None:
    """Put what `make install` installs below build/lab."""
    command = ["make", "--no-print-directory", "install", f"DESTDIR={INSTALLED}", f"PREFIX={PREFIX}"]
    # other flags of a make that called us are not for this one
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(command, cwd=TOP, capture_output=True, timeout=600, env=env, check=False)
    if done.returncode:
        raise LabError(f"make install: {(done.stdout + done.stderr).decode(errors='replace')[-3000:]}")


def archive() -> bytes:
    """What is unpacked at the guest's root: the installed project, the tests and their helper."""
    helper = probe.build(Path(os.environ.get("IT_CACHE", "/tmp/ociruntime-it-cache")))

    def rooted(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        info.uid = info.gid = 0
        info.uname = info.gname = "root"
        return info

    def source(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if info.name.endswith("__pycache__") else rooted(info)

    block = io.BytesIO()
    with tarfile.open(fileobj=block, mode="w") as tar:
        tar.add(INSTALLED / PREFIX.strip("/"), PREFIX.strip("/"), filter=rooted)
        tar.add(TOP / "integration", f"{TESTS}/integration".strip("/"), filter=source)
        tar.add(TOP / "pyproject.toml", f"{TESTS}/pyproject.toml".strip("/"), filter=rooted)
        tar.add(helper, f"{ENVIRONMENT['IT_CACHE']}/{helper.name}".strip("/"), filter=rooted)
    return block.getvalue()


def prepare(machine: Guest) -> None:
    """Install the project and the tests in the guest."""
    WORK.mkdir(parents=True, exist_ok=True)
    with open(WORK / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        install()
        block = archive()
    machine.put(block)


def run(machine: Guest, arguments: Sequence[str], *, timeout: float, sink: Sink | None = None) -> Report:
    """pytest with these arguments, in the directory of the tests."""
    output: list[bytes] = []

    def keep(kind: str, data: bytes) -> None:
        output.append(data)
        if sink:
            sink(kind, data)

    command = ["python3", "-m", "pytest", "-p", "no:cacheprovider", "-o", "junit_family=xunit1"]
    command += [f"--junitxml={REPORT}", *arguments]
    done = machine.run(command, env=ENVIRONMENT, cwd=TESTS, timeout=timeout, sink=keep)
    report = Report(done.status, output=b"".join(output).decode(errors="replace"))
    if done.status in (0, 1):
        report.cases = read(machine.get(REPORT))
    reports.append(report)
    return report


def read(document: bytes) -> list[Case]:
    """The test cases of a JUnit document, as pytest's xunit1 family writes it."""
    cases = []
    for element in ET.fromstring(document).iter("testcase"):
        outcome, text = "passed", ""
        for child in element:
            if child.tag in ("failure", "error"):
                outcome, text = "failed", (child.text or child.get("message") or "").strip()
            elif child.tag == "skipped" and outcome == "passed":
                outcome = "xfailed" if child.get("type") == "pytest.xfail" else "skipped"
                text = (child.get("message") or "").strip()
        file, name = element.get("file") or "", element.get("name") or ""
        cases.append(Case(file.rpartition("/")[2], name, outcome, text, float(element.get("time") or 0)))
    return cases
