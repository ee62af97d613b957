"""--systemd-cgroup: a scope per container, its properties, what is left of it. Where systemd runs, on cgroup v2."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import TOKEN, requires
from integration.lib import host
from integration.lib.bundle import Bundle
from integration.lib.container import Container, alive, wait_until
from integration.lib.runtime import Runtime, run

pytestmark = pytest.mark.requires("systemd")

MIB = 1 << 20
TOP = Path("/sys/fs/cgroup")
DENY_ALL = {"allow": False, "access": "rwm"}
KMSG = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rwm"}


class Managed(Runtime):
    """The runtime under test with --systemd-cgroup."""

    def argv(self, *words: str, options: Sequence[str] = ()) -> list[str]:
        """With the option in front."""
        return super().argv(*words, options=["--systemd-cgroup", *options])


def systemctl(*words: str) -> str:
    """What systemctl prints."""
    return run(["systemctl", "--no-pager", *words]).text


def show(unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit as systemctl shows them; of DeviceAllow the last line."""
    lines = systemctl("show", *(f"-p{name}" for name in names), unit).splitlines()
    return dict(line.split("=", 1) for line in lines)


def unit_of(container: Container) -> str:
    """The scope of a container that has the cgroupsPath of the fixture."""
    return f"it-{container.id}.scope"


def directory(container: Container) -> Path:
    """The cgroup in which the init process is."""
    line = Path(f"/proc/{container.pid}/cgroup").read_text().split("0::", 1)[1]
    return Path(f"{TOP}{line.splitlines()[0]}")


def gone(unit: str) -> bool:
    """Whether systemd knows nothing of a unit any more."""
    return show(unit, "LoadState", "ActiveState") == {"LoadState": "not-found", "ActiveState": "inactive"}


@pytest.fixture
def managed(runtime: Runtime) -> Managed:
    """The runtime with systemd as its cgroup manager."""
    return Managed(runtime.path, runtime.root)


@pytest.fixture
def new_managed(managed: Managed, new_container: Callable[..., Container]) -> Iterator[Callable[..., Container]]:
    """Make containers in scopes of system.slice."""
    units: list[str] = []

    def make(bundle: Bundle | None = None) -> Container:
        container = new_container(bundle, at=managed)
        container.bundle.linux(cgroupsPath=f"system.slice:it:{container.id}")
        container.bundle.args("pause")
        units.append(unit_of(container))
        return container

    yield make
    for unit in units:
        if not gone(unit):
            systemctl("kill", "-sKILL", unit)
            systemctl("stop", unit)
            systemctl("reset-failed", unit)


@pytest.fixture
def container(new_managed: Callable[..., Container], bundle: Bundle) -> Container:
    """A container in a scope of its own."""
    return new_managed(bundle)


# -- the scope --


def test_scope(container: Container) -> None:
    """Slice, delegation, accounting, and the init process in it [G6, D11, D12]."""
    container.begin("pause")
    found = show(
        unit_of(container), "ActiveState", "Slice", "Delegate", "Description", "ControlGroup", "CPUAccounting",
        "MemoryAccounting", "IOAccounting", "TasksAccounting", "DefaultDependencies", "Transient",
    )  # fmt: skip
    assert container.id in found.pop("Description")
    group = found.pop("ControlGroup")
    assert group == f"/system.slice/{unit_of(container)}"
    assert f"{directory(container)}/".startswith(f"{TOP}{group}/")
    assert found.pop("Slice") == "system.slice"
    assert found.pop("ActiveState") == "active"
    assert set(found.values()) == {"yes", "no"}
    assert [name for name, value in found.items() if value == "no"] == ["DefaultDependencies"]


def test_nobody_else_is_in_the_scope(container: Container) -> None:
    """What the scope began with is gone once the container is there [D12]."""
    container.create()
    top = TOP / "system.slice" / unit_of(container)
    inside = [pid for file in top.rglob("cgroup.procs") for pid in file.read_text().split()]
    inside += (top / "cgroup.procs").read_text().split()
    assert set(inside) == {str(container.pid)}


def test_default_name(container: Container, runtime: Runtime) -> None:
    """Without cgroupsPath: a prefix of the runtime, and the ID [D11]."""
    container.bundle.linux(cgroupsPath=None)
    container.create()
    unit = next(part for part in directory(container).parts if part.endswith(".scope"))
    assert unit.endswith(f"-{container.id}.scope")
    if runtime.ours:
        assert unit == f"ociruntime-{container.id}.scope"
    container.delete("--force")
    assert gone(unit)


def test_slices(container: Container) -> None:
    """A slice's name is its place; -.slice is the top [D11]."""
    container.bundle.linux(cgroupsPath=f"it-{TOKEN}.slice:it:{container.id}")
    try:
        container.create()
        assert f"{TOP}/it.slice/it-{TOKEN}.slice/it-{container.id}.scope" in f"{directory(container)}"
        container.delete("--force")
    finally:
        systemctl("stop", f"it-{TOKEN}.slice", "it.slice")


def test_root_slice(container: Container) -> None:
    """-.slice is the top [D11]."""
    container.bundle.linux(cgroupsPath=f"-.slice:it:{container.id}")
    container.create()
    assert f"{directory(container)}/".startswith(f"{TOP}/{unit_of(container)}/")


@pytest.mark.parametrize("path", ["/a/b", "a:b", "system.slice:a:b:c", "system:it:x", "sys/tem.slice:it:x"])
def test_bad_paths(container: Container, runtime: Runtime, path: str) -> None:
    """Other forms are refused, and leave nothing [D11]."""
    container.bundle.linux(cgroupsPath=path)
    result = container.create(check=False)
    assert result.code != 0
    if runtime.ours:
        assert "/linux/cgroupsPath" in result.error


def test_annotations(container: Container) -> None:
    """org.systemd.property.NAME [N1]."""
    prefix = "org.systemd.property."
    container.bundle.merge(
        {"annotations": {f"{prefix}TimeoutStopUSec": "uint64 7000000", f"{prefix}CollectMode": "'inactive-or-failed'"}}
    )
    container.create()
    found = show(unit_of(container), "TimeoutStopUSec", "CollectMode")
    assert found == {"TimeoutStopUSec": "7s", "CollectMode": "inactive-or-failed"}


@pytest.mark.ours_only("the field's pointer is in the error")
@pytest.mark.parametrize(("name", "value"), [("TasksMax", "many"), ("TasksMax", "'many'"), ("Nonsense", "1")])
def test_bad_annotations(container: Container, name: str, value: str) -> None:
    """Refused by us or by systemd: the error names the annotation, and no unit is left [N1]."""
    container.bundle.merge({"annotations": {f"org.systemd.property.{name}": value}})
    result = container.create(check=False)
    assert result.code != 0
    assert f"/annotations/org.systemd.property.{name}" in result.error
    assert gone(unit_of(container))


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


# -- exec, pause, the end --


def test_exec(container: Container) -> None:
    """The exec process is where the container is [D16, K4]."""
    container.begin("pause")
    holder = container.runtime.spawn("exec", container.id, "/probe", "pause")
    try:
        group = directory(container)
        wait_until(lambda: len((group / "cgroup.procs").read_text().split()) == 2)
        container.delete("--force")
    finally:
        holder.kill()
        holder.wait()
    assert gone(unit_of(container))


def test_pause(container: Container) -> None:
    """Freezing is of the container's own cgroup [D4]."""
    container.begin("pause")
    container.command("pause").ok()
    assert container.state()["status"] == "paused"
    systemctl("daemon-reload")
    assert container.state()["status"] == "paused"
    container.command("resume").ok()
    assert container.state()["status"] == "running"


def test_other_commands_need_no_option(container: Container, runtime: Runtime) -> None:
    """Which manager it is, is remembered [G6]."""
    container.begin("pause")
    runtime("kill", container.id, "KILL").ok()
    container.wait()
    runtime("delete", container.id).ok()
    wait_until(lambda: gone(unit_of(container)), 5)


def test_stopped(container: Container) -> None:
    """The scope ends with the last process; delete has no trouble with that [D16]."""
    container.begin("pause")
    container.finish()
    wait_until(lambda: show(unit_of(container), "ActiveState")["ActiveState"] != "active", 5)
    assert container.state()["status"] == "stopped"
    container.delete()
    assert gone(unit_of(container))


@pytest.mark.requires("v2:memory")
def test_a_failed_scope_is_forgotten(container: Container) -> None:
    """A scope whose process the kernel killed for want of memory is failed until delete [D16]."""
    container.bundle.linux(resources={"memory": {"limit": 16 * MIB, "swap": 16 * MIB}})
    container.bundle.args("alloc 64", "pause")
    container.create()
    container.start()
    container.wait(20)
    container.delete("--force")
    assert gone(unit_of(container))


def test_failed_create(container: Container, tmp_path: Path) -> None:
    """A hook that fails late: no unit, no cgroup [D11]."""
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\nexit 3\n")
    hook.chmod(0o755)
    container.bundle.merge({"hooks": {"createRuntime": [{"path": str(hook)}]}})
    assert container.create(check=False).code != 0
    wait_until(lambda: gone(unit_of(container)), 5)


@pytest.mark.ours_only("what the scope began with ends with the runtime")
def test_killed_create(container: Container) -> None:
    """A runtime that dies in the middle leaves a scope that ends by itself, and delete cleans up [D11, D16]."""
    container.bundle.write()
    container.used = True
    for milliseconds in (60, 90, 120, 150, 180, 210):
        process = container.runtime.spawn(
            "create", "--bundle", str(container.bundle.path), container.id, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(milliseconds / 1000)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        container.delete("--force", check=False)
        wait_until(lambda: gone(unit_of(container)), 10)


def test_same_name_twice(container: Container, new_managed: Callable[..., Container]) -> None:
    """The second one is refused, and the first one does not notice [D11]."""
    container.begin("pause")
    second = new_managed()
    second.bundle.linux(cgroupsPath=container.bundle.config["linux"]["cgroupsPath"])
    result = second.create(check=False)
    assert result.code != 0
    assert container.state()["status"] == "running"
    assert show(unit_of(container), "ActiveState") == {"ActiveState": "active"}


def test_name_of_a_foreign_unit(container: Container, runtime: Runtime) -> None:
    """A scope that is not ours is neither joined nor stopped [D11]."""
    unit = unit_of(container)
    holder = subprocess.Popen(
        ["systemd-run", "--quiet", "--scope", f"--unit={unit}", "sleep", "100"], stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: show(unit, "ActiveState")["ActiveState"] == "active")
        result = container.create(check=False)
        assert result.code != 0
        assert alive(holder.pid)
        assert show(unit, "ActiveState")["ActiveState"] == "active"
        if runtime.ours:
            assert unit in result.error
    finally:
        holder.kill()
        holder.wait()
    wait_until(lambda: gone(unit), 5)


@pytest.mark.ours_only("a unit is known by more than its name")
def test_name_used_again(container: Container, new_managed: Callable[..., Container]) -> None:
    """The container has ended, and its unit; another one has the name: delete and kill leave it alone [D16, D17]."""
    container.begin("pause")
    container.finish()
    wait_until(lambda: gone(unit_of(container)), 5)
    second = new_managed()
    second.bundle.linux(cgroupsPath=container.bundle.config["linux"]["cgroupsPath"])
    second.begin("pause")
    container.kill("KILL", flags=["--all"], check=False)
    container.delete("--force")
    assert alive(second.pid)
    assert second.state()["status"] == "running"
    assert show(unit_of(container), "ActiveState") == {"ActiveState": "active"}


@pytest.mark.ours_only("of two that begin at once the refused one does not harm the other")
def test_same_name_at_once(container: Container, new_managed: Callable[..., Container]) -> None:
    """One of several creates gets the unit, and keeps it [D11]."""
    several = [container, *(new_managed() for _ in range(3))]
    for one in several:
        one.bundle.linux(cgroupsPath=container.bundle.config["linux"]["cgroupsPath"])
        one.bundle.write()
        one.used = True
    begun = [
        one.runtime.spawn("create", "--bundle", str(one.bundle.path), one.id, stderr=subprocess.DEVNULL)
        for one in several
    ]
    codes = [process.wait() for process in begun]
    assert codes.count(0) == 1
    winner = several[codes.index(0)]
    assert winner.state()["status"] == "created"
    assert alive(winner.state()["pid"])
    assert show(unit_of(container), "ActiveState") == {"ActiveState": "active"}


@pytest.mark.requires("v2:pids")
@pytest.mark.parametrize("limit", [1, 2])
def test_very_few_tasks(container: Container, limit: int) -> None:
    """What the scope begins with takes nothing from the container's limit [B13, D13]."""
    container.bundle.linux(resources={"pids": {"limit": limit}})
    container.begin("pause")
    assert show(unit_of(container), "TasksMax") == {"TasksMax": f"{limit}"}
    assert (directory(container) / "pids.max").read_text() == f"{limit}\n"


def test_name_of_a_failed_unit(container: Container) -> None:
    """What is left of an earlier failure is reset [D11]."""
    unit = unit_of(container)
    run(["systemd-run", "--quiet", "--scope", f"--unit={unit}", "-pRuntimeMaxSec=1", "sleep", "100"])
    wait_until(lambda: show(unit, "ActiveState")["ActiveState"] == "failed", 5)
    container.create()
    assert show(unit, "ActiveState")["ActiveState"] == "active"


def test_one_after_the_other(new_managed: Callable[..., Container], slow: bool) -> None:
    """Made and removed, 20 of them, 200 with --slow: nothing is left [D16]."""
    first = new_managed()
    for _ in range(200 if slow else 20):
        first.create()
        first.delete("--force")
        first.reap()
        first.status = None
    left = systemctl("list-units", "--all", "--plain", "--no-legend", "--type=scope")
    assert f"it-{TOKEN}" not in left
    assert first.id not in left


# -- without the bus --


@pytest.mark.ours_only("every call of D-Bus has a deadline, and its error says what was asked")
def test_no_bus(container: Container) -> None:
    """An address where nobody listens [D11]."""
    environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/run/nobody-listens"}
    result = container.create(check=False, env=environment)
    assert result.code != 0
    for word in ("systemd", "connect", "system bus", unit_of(container), "/run/nobody-listens", "ENOENT"):
        assert word in result.error
    assert gone(unit_of(container))


@pytest.mark.ours_only("a process ID means another process there")
def test_bus_of_another_pid_namespace(container: Container) -> None:
    """A runtime in a PID namespace, with the bus of the machine: refused, and no stranger is in a scope [D11]."""
    inside = ["unshare", "--pid", "--fork", "--mount-proc", *container.runtime.prefix]
    container.runtime = Managed(container.runtime.path, container.runtime.root, inside)
    result = container.create(check=False)
    assert result.code != 0
    assert "another PID namespace" in result.error
    assert gone(unit_of(container))


@pytest.mark.ours_only("every call of D-Bus has a deadline, and its error says what was asked")
def test_silent_bus(container: Container) -> None:
    """A daemon that does not answer: an error in time, and nothing is left [D11]."""
    daemon = int(show("dbus.service", "MainPID")["MainPID"])
    os.kill(daemon, signal.SIGSTOP)
    begin = time.monotonic()
    try:
        result = container.create(check=False, timeout=60)
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert result.code != 0
    assert "no greeting within 5 s" in result.error
    assert time.monotonic() - begin < 50
    assert gone(unit_of(container))


@pytest.mark.ours_only("a manager that does not answer keeps no container from being deleted")
def test_delete_without_a_bus(container: Container) -> None:
    """The processes and the cgroup go, and systemd sees that the scope is empty [D16]."""
    container.begin("pause")
    environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/run/nobody-listens"}
    result = container.delete("--force", env=environment)
    assert "ENOENT" in result.error
    wait_until(lambda: gone(unit_of(container)), 5)


# -- the user's manager --


@pytest.mark.requires("systemd:user")
def test_user_bus(container: Container, runtime: Runtime, tmp_path: Path) -> None:
    """A rootless runtime asks the manager of its user [D11, D16]."""
    uid = host.systemd_user()
    root = tmp_path / "state"
    root.mkdir()
    os.chown(root, uid, uid)
    os.chown(container.bundle.rootfs, uid, uid)
    mapping = [{"containerID": 0, "hostID": uid, "size": 1}]
    container.bundle.linux(
        cgroupsPath=f"user.slice:it:{container.id}",
        uidMappings=mapping,
        gidMappings=mapping,
        namespaces=[{"type": name} for name in ("user", "pid", "ipc", "uts", "mount", "cgroup")],
        resources={},
    )
    container.bundle.config["mounts"] = [
        mount for mount in container.bundle.config["mounts"] if mount["type"] not in ("devpts", "mqueue", "sysfs")
    ]
    container.bundle.write()
    prefix = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]
    environment = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": f"/run/user/{uid}", "HOME": "/"}
    command = [*prefix, runtime.path, "--root", str(root), "--systemd-cgroup"]
    begin = [*command, "run", "--detach", "--bundle", str(container.bundle.path), container.id]
    run(begin, env=environment).ok()
    try:
        state = run([*command, "state", container.id], env=environment).ok().json
        group = Path(f"/proc/{state['pid']}/cgroup").read_text().split("0::", 1)[1].strip()
        assert f"/user@{uid}.service/user.slice/{unit_of(container)}" in group
        done = run([*command, "exec", container.id, "/probe", "read", "/proc/self/cgroup"], env=environment).ok()
        assert "0::/" in done.text
        user = [*prefix, "systemctl", "--user", "show", "-pActiveState", unit_of(container)]
        assert "ActiveState=active" in run(user, env=environment).text
    finally:
        run([*command, "delete", "--force", container.id], env=environment).ok()
    assert "ActiveState=inactive" in run(user, env=environment).text
