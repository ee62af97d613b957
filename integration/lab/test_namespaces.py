"""systemd on cgroup v1 or a hybrid machine, where this one is such: in namespaces, which take no time to start."""

from __future__ import annotations

import pytest

from integration.lab import namespaces, stage
from integration.lab.machine import Image
from integration.lab.namespaces import Namespaces


def test_systemd_v1(built: Image) -> None:
    """The tests of systemd's cgroups there pass, and some ran [D10, D14]."""
    why = namespaces.lacking()
    if why:
        pytest.skip(why)
    with Namespaces(built) as machine:
        stage.prepare(machine)
        report = stage.run(machine, ["-q", "integration/test_systemd_v1.py"], timeout=stage.TIMEOUT)
    assert report.status == 0, report.output[-4000:]
    assert report.counts().get("passed")
