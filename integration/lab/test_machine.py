"""The lab itself: what its client promises, and that the guest is what the tests in it need."""

from __future__ import annotations

import time

import pytest

from integration.lab import stage
from integration.lab.machine import AgentError, Image, LabError, Machine


def test_streams_and_status(machine: Machine) -> None:
    """Both streams, standard input, the environment and the status come through as they are."""
    script = 'cat; echo "$WORD" >&2; pwd; exit 7'
    done = machine.run(["sh", "-c", script], stdin=b"\0\n\xff" * 5000, env={"WORD": "a b"}, cwd="/usr")
    assert (done.status, done.stdout, done.stderr) == (7, b"\0\n\xff" * 5000 + b"/usr\n", b"a b\n")
    assert machine.run(["sh", "-c", "kill -9 $$"]).status == 137


def test_timeout_and_what_stays(machine: Machine) -> None:
    """A command that does not end is killed; a process that it leaves behind does not hold the channel."""
    assert machine.run(["sleep", "1000"], timeout=1).status is None
    assert machine.run(["sh", "-c", "sleep 1000 & echo started"]).stdout == b"started\n"


def test_no_command(machine: Machine) -> None:
    """What cannot be run is an error of its own, and the next command runs."""
    with pytest.raises(AgentError, match="FileNotFoundError"):
        machine.run(["/not/there"])
    with pytest.raises(LabError, match="No such file"):
        machine.get("/not/there")
    assert machine.run(["true"]).status == 0


def test_clock(machine: Machine) -> None:
    """The guest's clock is the host's, though its state is older."""
    assert abs(float(machine.run(["date", "+%s.%N"]).stdout) - time.time()) < 60


def test_guest(machine: Machine) -> None:
    """systemd runs and has no failed unit; cgroup v2 alone, with its controllers; AppArmor; a session of the user."""
    script = """
        systemctl is-system-running; systemctl --failed --no-legend; stat -f -c %T /sys/fs/cgroup
        cat /sys/fs/cgroup/cgroup.controllers; aa-enabled
        cat /sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/cgroup.controllers"""
    lines = machine.run(["sh", "-c", script]).stdout.decode().splitlines()
    system = {"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"}
    assert (lines[:2], lines[3]) == (["running", "cgroup2fs"], "Yes")
    assert set(lines[2].split()) >= system
    assert set(lines[4].split()) >= {"cpuset", "cpu", "io", "memory", "pids"}


def test_forgets(machine: Machine, built: Image) -> None:
    """Each machine begins as the image is. One whose kernel fails ends at once, with the kernel's words."""
    machine.run(["touch", "/root/trace"])
    with Machine(built) as other:
        assert other.run(["test", "-e", "/root/trace"]).status == 1
        with pytest.raises(LabError, match="(?s)the machine is gone.*Kernel panic"):
            other.run(["sh", "-c", "echo c >/proc/sysrq-trigger"])
    assert machine.run(["test", "-e", "/root/trace"]).status == 0


DOCUMENT = b"""<?xml version="1.0"?><testsuites><testsuite>
<testcase file="integration/test_a.py" name="test_1" time="0.5" />
<testcase file="integration/test_a.py" name="test_2[x]" time="1"><failure message="m">trace</failure></testcase>
<testcase file="integration/test_a.py" name="test_2[x]" time="1"><error message="left">left</error></testcase>
<testcase file="integration/test_b.py" name="test_3"><skipped type="pytest.skip" message="no v1">x</skipped></testcase>
<testcase file="integration/test_b.py" name="test_4"><skipped type="pytest.xfail" message="known" /></testcase>
</testsuite></testsuites>"""


def test_report() -> None:
    """What comes back: counts, reasons, the text of failures."""
    report = stage.Report(1, stage.read(DOCUMENT))
    assert report.counts() == {"passed": 1, "failed": 2, "skipped": 1, "xfailed": 1}
    assert report.reasons() == {"no v1": 1}
    assert [(case.file, case.name, case.text) for case in report.cases if case.outcome == "failed"] == [
        ("test_a.py", "test_2[x]", "trace"),
        ("test_a.py", "test_2[x]", "left"),
    ]
