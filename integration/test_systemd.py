"""--systemd-cgroup: a scope per container, what is left of it, and the bus. Where systemd runs, on cgroup v2."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from integration.conftest import TOKEN
from integration.lib import host
from integration.lib.bundle import Bundle
from integration.lib.container import Container, alive, wait_until
from integration.lib.leaks import Leaks
from integration.lib.runtime import Runtime, run
from integration.lib.systemd import TOP, Managed, directory, gone, show, systemctl, unit_of

pytestmark = pytest.mark.requires("systemd")

MIB = 1 << 20


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
    wait_until(lambda: gone(unit_of(container)))


def test_stopped(container: Container) -> None:
    """The scope ends with the last process; delete has no trouble with that [D16]."""
    container.begin("pause")
    container.finish()
    wait_until(lambda: show(unit_of(container), "ActiveState")["ActiveState"] != "active")
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
    container.wait()
    container.delete("--force")
    assert gone(unit_of(container))


def test_failed_create(container: Container, tmp_path: Path) -> None:
    """A hook that fails late: no unit, no cgroup [D11]."""
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\nexit 3\n")
    hook.chmod(0o755)
    container.bundle.merge({"hooks": {"createRuntime": [{"path": str(hook)}]}})
    assert container.create(check=False).code != 0
    wait_until(lambda: gone(unit_of(container)))


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
        wait_until(lambda: gone(unit_of(container)))


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
    wait_until(lambda: gone(unit))


@pytest.mark.ours_only("a unit is known by more than its name")
def test_name_used_again(container: Container, new_managed: Callable[..., Container]) -> None:
    """The container has ended, and its unit; another one has the name: delete and kill leave it alone [D16, D17]."""
    container.begin("pause")
    container.finish()
    wait_until(lambda: gone(unit_of(container)))
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


def test_name_of_a_failed_unit(container: Container) -> None:
    """What is left of an earlier failure is reset [D11]."""
    unit = unit_of(container)
    run(["systemd-run", "--quiet", "--scope", f"--unit={unit}", "-pRuntimeMaxSec=1", "sleep", "100"])
    wait_until(lambda: show(unit, "ActiveState")["ActiveState"] == "failed")
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


@pytest.mark.ours_only("what systemd was asked in that moment is lost, and they do not ask again")
def test_daemon_reexec(new_managed: Callable[..., Container], leaks: Leaks) -> None:
    """systemd executes itself anew, as with each of its updates: a create and a delete right then do not fail [D11]."""
    for _ in range(3):
        container = new_managed()
        with subprocess.Popen(["systemctl", "daemon-reexec"]):
            container.begin("pause")
            assert f"/{unit_of(container)}/" in f"{directory(container)}/"
        with subprocess.Popen(["systemctl", "daemon-reexec"]):
            assert container.finish() == 137
            container.delete()
        wait_until(partial(gone, unit_of(container)), "the end of the unit")
    leaks.check()


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
    try:
        result = container.create(check=False)
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert result.code != 0
    assert "no greeting within 5 s" in result.error
    assert gone(unit_of(container))


@pytest.mark.ours_only("a manager that does not answer keeps no container from being deleted")
def test_delete_without_a_bus(container: Container) -> None:
    """The processes and the cgroup go, and systemd sees that the scope is empty [D16]."""
    container.begin("pause")
    environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/run/nobody-listens"}
    result = container.delete("--force", env=environment)
    assert "ENOENT" in result.error
    wait_until(lambda: gone(unit_of(container)))


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
