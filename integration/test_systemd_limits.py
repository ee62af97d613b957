"""--systemd-cgroup: limits and devices, in the unit's properties and in the files. Where systemd runs, on cgroup v2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import requires
from integration.lib.bundle import Bundle
from integration.lib.container import Container, wait_until
from integration.lib.systemd import TOP, directory, show, systemctl, unit_of

pytestmark = pytest.mark.requires("systemd")

MIB = 1 << 20
DENY_ALL = {"allow": False, "access": "rwm"}
KMSG = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rwm"}


@pytest.fixture
def container(new_managed: Callable[..., Container], bundle: Bundle) -> Container:
    """A container in a scope of its own."""
    return new_managed(bundle)


# -- limits --


@pytest.fixture
def limited(container: Container) -> Container:
    """A container with a limit of each kind."""
    requires("v2:memory", "v2:cpu", "v2:pids", "v2:cpuset")
    container.bundle.linux(
        resources={
            "devices": [DENY_ALL],
            "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
            "cpu": {"quota": 33333, "period": 100000, "shares": 2048, "cpus": "0"},
            "pids": {"limit": 40},
        }
    )
    return container


LIMITS = ("MemoryMax", "MemoryLow", "TasksMax", "CPUQuotaPerSecUSec", "CPUWeight", "AllowedCPUs")
EXPECTED = {
    "MemoryMax": str(64 * MIB),
    "MemoryLow": str(32 * MIB),
    "TasksMax": "40",
    "CPUQuotaPerSecUSec": "340ms",
    "CPUWeight": "171",
    "AllowedCPUs": "0",
}


def files(container: Container) -> dict[str, str]:
    """The limits in the container's own cgroup."""
    group = directory(container)
    names = ("memory.max", "memory.low", "pids.max", "cpu.max", "cpuset.cpus")
    return {name: (group / name).read_text().strip() for name in names}


def test_limits(limited: Container) -> None:
    """The same in the unit's properties and in the files; the CPU quota rounded up to 10 ms in the unit [D13]."""
    limited.begin("pause")
    found = show(unit_of(limited), *LIMITS)
    assert {**found, "CPUWeight": ""} == {**EXPECTED, "CPUWeight": ""}
    # runtimes convert shares by different formulas
    assert 50 <= int(found["CPUWeight"]) <= 200
    inside = files(limited)
    assert inside.pop("cpu.max") in ("33333 100000", "34000 100000")
    assert inside == {
        "memory.max": str(64 * MIB), "memory.low": str(32 * MIB), "pids.max": "40", "cpuset.cpus": "0",
    }  # fmt: skip


def test_weight_counts_among_siblings(limited: Container) -> None:
    """The weight is that of the scope, whose siblings are the other scopes of its slice [D13]."""
    limited.begin("pause")
    scope = TOP / "system.slice" / unit_of(limited)
    assert (scope / "cpu.weight").read_text().strip() == show(unit_of(limited), "CPUWeight")["CPUWeight"]


def test_limits_survive_a_reload(limited: Container) -> None:
    """daemon-reload changes neither files nor properties [D13]."""
    limited.begin("pause")
    before = files(limited), show(unit_of(limited), *LIMITS)
    systemctl("daemon-reload")
    assert (files(limited), show(unit_of(limited), *LIMITS)) == before


def test_unified_and_a_reload(limited: Container) -> None:
    """What has no property is in the files, and stays there [D13]."""
    limited.bundle.linux(resources={"unified": {"memory.high": "50331648", "memory.oom.group": "1"}})
    limited.begin("pause")
    assert show(unit_of(limited), "MemoryHigh") == {"MemoryHigh": "50331648"}
    systemctl("daemon-reload")
    group = directory(limited)
    assert (group / "memory.high").read_text() == "50331648\n"
    assert (group / "memory.oom.group").read_text() == "1\n"


def update(container: Container, resources: dict[str, Any]) -> Any:
    """update with resources from stdin."""
    return container.command("update", "--resources", "-", stdin=json.dumps(resources).encode())


def test_update(limited: Container) -> None:
    """Properties and files, and a reload later still [K13, D13]."""
    limited.begin("pause")
    update(limited, {"memory": {"limit": 80 * MIB, "swap": 96 * MIB}, "pids": {"limit": 50}}).ok()
    for _ in range(2):
        assert show(unit_of(limited), "MemoryMax", "TasksMax") == {"MemoryMax": str(80 * MIB), "TasksMax": "50"}
        assert files(limited)["memory.max"] == str(80 * MIB)
        assert files(limited)["pids.max"] == "50"
        systemctl("daemon-reload")


@pytest.mark.ours_only("others write it one level below the scope only, or lose it")
@pytest.mark.requires("v2:cpu")
@pytest.mark.parametrize("nice", [-20, -3, 7, 19])
def test_nice_weight_counts_among_siblings(container: Container, nice: int) -> None:
    """The other form of the weight, too, and systemd knows it [B20, D13]."""
    container.bundle.linux(resources={"unified": {"cpu.weight.nice": f"{nice}"}})
    container.begin("pause")
    scope = TOP / "system.slice" / unit_of(container)
    for _ in range(2):
        assert (scope / "cpu.weight.nice").read_text() == f"{nice}\n"
        assert (scope / "cpu.weight").read_text().strip() == show(unit_of(container), "CPUWeight")["CPUWeight"]
        systemctl("daemon-reload")


@pytest.mark.ours_only("an update is all or nothing")
def test_update_that_fails(limited: Container) -> None:
    """The unit keeps its properties [K13]."""
    limited.begin("pause")
    before = files(limited), show(unit_of(limited), *LIMITS)
    assert update(limited, {"pids": {"limit": 50}, "cpu": {"cpus": "4000"}}).code != 0
    assert (files(limited), show(unit_of(limited), *LIMITS)) == before


@pytest.mark.ours_only("an update is all or nothing")
def test_update_that_fails_without_limits_before(container: Container) -> None:
    """A unit that had none of the limits has none again, and nothing of the update is left at systemd's [K13]."""
    requires("v2:memory", "v2:cpu", "v2:pids", "v2:cpuset", "v2:io")
    container.begin("pause")
    unit = unit_of(container)
    names = (*LIMITS, "MemorySwapMax", "CPUQuotaPeriodUSec", "IOWeight", "DevicePolicy")
    group = directory(container)
    scope = {file.name: file.read_text() for file in group.parent.glob("*.max") if "hugetlb" not in file.name}

    def seen() -> tuple[object, ...]:
        allowed = sorted(systemctl("show", "-pDeviceAllow", unit).splitlines())
        return files(container), show(unit, *names), allowed

    before = seen()
    result = update(
        container,
        {
            "memory": {"limit": 80 * MIB, "swap": 96 * MIB, "reservation": MIB},
            "pids": {"limit": 50},
            "blockIO": {"weight": 300},
            "devices": [DENY_ALL, KMSG],
            "cpu": {"quota": 20000, "period": 50000, "shares": 2048, "cpus": "4000"},
        },
    )
    assert result.code != 0
    assert "old value" not in result.error
    assert seen() == before
    assert {file: (group.parent / file).read_text() for file in scope} == scope
    container.delete("--force")
    assert not list(Path("/run/systemd").rglob(f"*{unit}*"))


@pytest.mark.ours_only("checkBeforeUpdate is checked before systemd is told")
def test_check_before_update(limited: Container) -> None:
    """[B6]"""
    limited.begin("pause")
    wait_until(lambda: int((directory(limited) / "memory.current").read_text()) > 0)
    assert update(limited, {"memory": {"limit": 1, "checkBeforeUpdate": True}}).code != 0
    assert show(unit_of(limited), "MemoryMax")["MemoryMax"] == str(64 * MIB)


@pytest.mark.requires("v2:pids")
@pytest.mark.parametrize("limit", [1, 2])
def test_very_few_tasks(container: Container, limit: int) -> None:
    """What the scope begins with takes nothing from the container's limit [B13, D13]."""
    container.bundle.linux(resources={"pids": {"limit": limit}})
    container.begin("pause")
    assert show(unit_of(container), "TasksMax") == {"TasksMax": f"{limit}"}
    assert (directory(container) / "pids.max").read_text() == f"{limit}\n"


# -- devices --


def can_open(container: Container, path: str = "/dev/it") -> bool:
    """Whether a process of the container can open a device node."""
    result = container.execute(f"open {path} r", flags=["--cap", "CAP_SYSLOG"]).ok()
    return bool(result.replies[-1]["errno"] == 0)


@pytest.fixture
def with_node(container: Container) -> Container:
    """A container with a node for /dev/kmsg, which its rules do not allow."""
    container.bundle.linux(devices=[{"path": "/dev/it", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}])
    container.bundle.process(
        capabilities={name: ["CAP_SYSLOG"] for name in ("bounding", "effective", "permitted", "inheritable")}
    )
    return container


def test_devices(with_node: Container) -> None:
    """What is not listed is refused, also after a reload; the default devices work [D15]."""
    with_node.begin("pause")
    for _ in range(2):
        assert not can_open(with_node)
        assert can_open(with_node, "/dev/null")
        systemctl("daemon-reload")


def test_devices_in_the_unit(with_node: Container) -> None:
    """DevicePolicy and DeviceAllow say at least what the filter lets through [D15]."""
    with_node.begin("pause")
    assert show(unit_of(with_node), "DevicePolicy") == {"DevicePolicy": "strict"}
    lines = systemctl("show", "-pDeviceAllow", unit_of(with_node))
    assert "/dev/char/1:3 rwm" in lines
    assert "1:11" not in lines


def test_devices_after_update(with_node: Container) -> None:
    """A device that update allows works at once, and after a reload [D15, D16]."""
    with_node.begin("pause")
    assert not can_open(with_node)
    update(with_node, {"devices": [DENY_ALL, KMSG]}).ok()
    for _ in range(2):
        assert can_open(with_node)
        systemctl("daemon-reload")
    update(with_node, {"devices": [DENY_ALL]}).ok()
    for _ in range(2):
        assert not can_open(with_node)
        systemctl("daemon-reload")


@pytest.mark.ours_only("exceptions to all devices")
def test_denied_devices(with_node: Container) -> None:
    """Everything but one: systemd cannot say it, our own filter can [D15]."""
    with_node.bundle.linux(
        resources={"devices": [{"allow": True, "access": "rwm"}, {**KMSG, "allow": False, "access": "rw"}]}
    )
    with_node.begin("pause")
    for _ in range(2):
        assert not can_open(with_node)
        assert can_open(with_node, "/dev/null")
        systemctl("daemon-reload")
