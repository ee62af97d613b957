"""--systemd-cgroup where systemd runs on cgroup v1, with cgroup2 for itself (hybrid) or without.

A machine for it: make lab LAB='--boot systemd.unified_cgroup_hierarchy=0 integration/test_systemd_v1.py', or where
this one has cgroup v1, with --namespaces instead of --boot.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.lib import host
from integration.lib.bundle import Bundle
from integration.lib.container import Container
from integration.lib.leaks import Leaks
from integration.lib.systemd import gone, show, systemctl, unit_of

pytestmark = pytest.mark.requires("systemd:v1")

MIB = 1 << 20
DENY_ALL = {"allow": False, "access": "rwm"}
KMSG = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rwm"}
LIMITED = {
    "memory": {"limit": 64 * MIB, "reservation": 32 * MIB},
    "cpu": {"quota": 33333, "period": 100000, "shares": 2048, "cpus": "0"},
    "pids": {"limit": 40},
}
FILES = {
    "memory.limit_in_bytes": str(64 * MIB),
    "memory.soft_limit_in_bytes": str(32 * MIB),
    "cpu.cfs_quota_us": "34000",
    "cpu.cfs_period_us": "100000",
    "cpu.shares": "2048",
    "cpuset.cpus": "0",
    "pids.max": "40",
}
PROPERTIES = {
    "MemoryLimit": str(64 * MIB),
    "CPUShares": "2048",
    "CPUQuotaPerSecUSec": "340ms",
    "TasksMax": "40",
}


@pytest.fixture
def container(new_managed: Callable[..., Container], bundle: Bundle) -> Container:
    """A container in a scope of its own."""
    return new_managed(bundle)


def file(container: Container, name: str) -> Path:
    """A file of the container's cgroup, in the hierarchy of its controller."""
    return Path(host.cgroup_mounts()[name.partition(".")[0]], "system.slice", unit_of(container), name)


def files(container: Container) -> dict[str, str]:
    """The files of FILES as they are."""
    return {name: file(container, name).read_text().strip() for name in FILES}


def update(container: Container, resources: dict[str, Any]) -> Any:
    """update from stdin."""
    return container.command("update", "--resources", "-", stdin=json.dumps(resources).encode())


def test_scope(container: Container, leaks: Leaks) -> None:
    """The container is in the scope's cgroup in every hierarchy, and nobody else; delete leaves nothing [D10, D11]."""
    container.begin("fork 2", "pause")
    unit = unit_of(container)
    assert show(unit, "ActiveState", "Slice", "Delegate") == {
        "ActiveState": "active", "Slice": "system.slice", "Delegate": "yes",
    }  # fmt: skip
    places = {}
    for line in Path(f"/proc/{container.pid}/cgroup").read_text().splitlines():
        _, controllers, place = line.split(":", 2)
        places.update(dict.fromkeys(controllers.split(","), place))
    mounted = host.cgroup_mounts()
    assert {name: places[name] for name in mounted} == dict.fromkeys(mounted, f"/system.slice/{unit}")
    inside = file(container, "pids.current").with_name("cgroup.procs").read_text().split()
    assert (str(container.pid) in inside, len(inside)) == (True, 3)
    assert container.execute("report").ok().replies
    container.command("pause").ok()
    assert container.state()["status"] == "paused"
    container.command("resume").ok()
    assert container.finish() == 137
    container.delete()
    assert gone(unit)
    leaks.check()


def test_limits(container: Container) -> None:
    """In the unit's properties and in the files, the quota in systemd's steps; a reload changes neither [D14, B8]."""
    container.bundle.linux(resources=LIMITED)
    container.begin("pause")
    for _ in range(2):
        assert files(container) == FILES
        assert show(unit_of(container), *PROPERTIES) == PROPERTIES
        systemctl("daemon-reload")


def test_update(container: Container) -> None:
    """All of it or nothing, and the rest stays [K13, D14]."""
    container.bundle.linux(resources=LIMITED)
    container.begin("pause")
    update(container, {"memory": {"limit": 80 * MIB}, "pids": {"limit": 50}, "cpu": {"quota": 50000}}).ok()
    changed = {"memory.limit_in_bytes": str(80 * MIB), "pids.max": "50", "cpu.cfs_quota_us": "50000"}
    for _ in range(2):
        assert files(container) == {**FILES, **changed}
        systemctl("daemon-reload")
    before = show(unit_of(container), *PROPERTIES)
    assert (before["MemoryLimit"], before["TasksMax"]) == (str(80 * MIB), "50")
    assert update(container, {"pids": {"limit": 60}, "cpu": {"cpus": "4000"}}).code != 0
    assert files(container) == {**FILES, **changed}
    assert show(unit_of(container), *PROPERTIES) == before


def test_devices(container: Container) -> None:
    """What is not listed is refused, what update allows is not; a reload changes neither [D4, D15]."""
    container.bundle.linux(devices=[{"path": "/dev/it", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}])
    container.bundle.process(
        capabilities={name: ["CAP_SYSLOG"] for name in ("bounding", "effective", "permitted", "inheritable")}
    )
    container.begin("pause")

    def can_open(path: str) -> bool:
        result = container.execute(f"open {path} r", flags=["--cap", "CAP_SYSLOG"]).ok()
        return bool(result.replies[-1]["errno"] == 0)

    for rules, expected in (([], False), ([DENY_ALL, KMSG], True), ([DENY_ALL], False)):
        if rules:
            update(container, {"devices": rules}).ok()
        for _ in range(2):
            assert can_open("/dev/it") == expected
            assert can_open("/dev/null")
            systemctl("daemon-reload")


def test_failed_create(container: Container, leaks: Leaks) -> None:
    """No unit, no cgroup [D11]."""
    container.bundle.linux(resources=LIMITED)
    container.bundle.process(args=["/no/such/program"])
    assert container.create(check=False).code != 0
    assert gone(unit_of(container))
    leaks.check()


def test_one_after_the_other(new_managed: Callable[..., Container], leaks: Leaks) -> None:
    """Nothing is left of any of them [D16]."""
    for _ in range(10):
        container = new_managed()
        container.begin("exit 0")
        container.wait()
        container.delete()
        assert gone(unit_of(container))
    leaks.check()


@pytest.mark.ours_only("lists that systemd would turn into more on cgroup v1")
@pytest.mark.parametrize(
    "rules",
    [
        [{"allow": True, "access": "rwm"}, {**KMSG, "allow": False}],
        [DENY_ALL, {"allow": True, "type": "c", "minor": 7, "access": "r"}],
    ],
)
def test_device_lists_that_cannot_be_had(container: Container, leaks: Leaks, rules: list[dict[str, object]]) -> None:
    """Refused, with the reason [D15]."""
    container.bundle.linux(resources={"devices": rules})
    result = container.create(check=False)
    assert result.code != 0
    assert "/linux/resources/devices" in result.error
    assert "cgroup v2 when systemd manages the cgroup" in result.error
    leaks.check()
