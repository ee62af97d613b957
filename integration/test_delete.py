"""delete: nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.conftest import Give
from integration.lib import leaks as leak_tools
from integration.lib.bundle import CGROUP_PREFIX
from integration.lib.container import Container, alive, wait_until
from integration.lib.leaks import Leaks
from integration.lib.runtime import Runtime


def test_stopped(container: Container, leaks: Leaks) -> None:
    """delete of a stopped container removes state and cgroups, and says nothing [K7]."""
    container.begin("exit 0")
    container.wait()
    assert leak_tools.cgroups_with(container.id)
    result = container.delete()
    assert (result.out, result.err) == (b"", b"")
    leaks.check()
    assert "does not exist" in container.command("state").error


@pytest.mark.parametrize("flags", [[], ["--force"]])
def test_created(container: Container, leaks: Leaks, flags: list[str]) -> None:
    """A created container is killed and removed, with and without --force [K7]."""
    container.create()
    container.delete(*flags)
    assert container.wait() == 137
    leaks.check()


def test_running(container: Container) -> None:
    """A running container is not deleted; the text names it [K7]."""
    container.begin("pause")
    result = container.delete(check=False)
    assert result.code != 0
    assert container.id in result.error
    if container.runtime.name != "crun":
        assert "that is not stopped" in result.error
    assert container.state()["status"] == "running"
    assert alive(container.pid)


@pytest.mark.parametrize("flag", ["--force", "-f"])
def test_force_running(container: Container, leaks: Leaks, flag: str) -> None:
    """--force kills a running container first [K7]."""
    container.begin("trap 15 0")
    container.delete(flag)
    assert container.wait() == 137
    leaks.check()


def test_force_with_a_forked_crowd(container: Container, leaks: Leaks) -> None:
    """All processes of the container are gone with it [K7]."""
    container.begin("fork 20", "pause")
    container.wait_replies(2)
    container.delete("--force")
    leaks.check()


def test_leftovers_without_a_pid_namespace(container: Container, leaks: Leaks) -> None:
    """Processes that outlive init in the cgroup are killed before the cgroup is removed [K7]."""
    container.bundle.drop_namespace("pid")
    container.begin("orphan", "trap 10 0")
    container.wait_replies(2)
    container.kill("USR1")
    container.wait()
    container.delete("--force")
    leaks.check()


def test_missing(runtime: Runtime) -> None:
    """Unknown ID: an error without --force, none with it [K7]."""
    result = runtime("delete", "nosuch")
    assert result.code != 0
    assert "does not exist" in result.error
    assert runtime("delete", "--force", "nosuch").code == 0


def test_twice(container: Container) -> None:
    """A second delete finds nothing [K7]."""
    container.begin("exit 0")
    container.wait()
    container.delete()
    assert container.delete(check=False).code != 0


def test_id_is_free_again(container: Container) -> None:
    """After delete the ID can be used again [K1, K7]."""
    for status in (5, 6):
        container.status = None
        container.begin(f"exit {status}")
        assert container.wait() == status
        container.delete()


@pytest.mark.parametrize("flags", [[], ["--force"]])
def test_directory_without_state(runtime: Runtime, leaks: Leaks, give: Give, flags: list[str]) -> None:
    """A state directory without a state file is removed; without --force that is still an error [K7]."""
    runtime.root.mkdir(parents=True, exist_ok=True)
    (runtime.root / "hollow").mkdir(0o711)
    give(runtime.root / "hollow")
    result = runtime("delete", *flags, "hollow")
    assert (result.code == 0) == bool(flags)
    if not flags:
        assert "does not exist" in result.error
    leaks.check()


@pytest.mark.ours_only("K7: what no container of ours has is not removed, whatever --root says")
@pytest.mark.parametrize("flags", [[], ["--force"]])
@pytest.mark.parametrize("name", ["letter", "status", "state.json"])
def test_directory_of_somebody_else(runtime: Runtime, tmp_path: Path, name: str, flags: list[str]) -> None:
    """--root may lead anywhere: a user's directory, or a container of another runtime, stays as it is [K7]."""
    other = runtime.elsewhere(tmp_path / "home")
    mine = tmp_path / "home" / "alice"
    (mine / "below").mkdir(parents=True)
    (mine / name).write_text('{"id": "alice", "init_process_pid": 1}')
    if name == "state.json":
        (mine / "below").rmdir()
    result = other("delete", *flags, "alice")
    # force is content with a container that does not exist; one of another runtime does
    assert result.code == int(not flags or name == "state.json")
    assert (mine / name).exists()
    if result.code:
        assert str(mine) in result.error or name in result.error


@pytest.mark.ours_only("K7: crun removes what is in a directory without a container")
@pytest.mark.parametrize("flags", [[], ["--force"]])
@pytest.mark.parametrize("name", ["config.json", "notify/data", "state.json/data", "exec.fifo", ""])
def test_directory_with_names_of_ours(runtime: Runtime, tmp_path: Path, name: str, flags: list[str]) -> None:
    """A bundle has a config.json, too; what looks like a container's by name alone stays as it is [K7]."""
    other = runtime.elsewhere(tmp_path / "home")
    mine = tmp_path / "home" / "alice" / name
    mine.parent.mkdir(parents=True)
    if name:
        mine.parent.parent.chmod(0o711)
        mine.parent.chmod(0o711)
        mine.write_text("{}")
    else:
        mine.mkdir()
    other("delete", *flags, "alice")
    assert mine.exists()


@pytest.mark.ours_only("K7, S1: a torn state file is cleaned by delete --force")
@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b'{"version": 999}', b"\xff\xfe"])
def test_torn_state(container: Container, leaks: Leaks, give: Give, content: bytes) -> None:
    """Whatever state.json holds, delete --force removes the container's directory and says no traceback [K7]."""
    container.begin("exit 0")
    container.wait()
    container.delete()
    directory = container.runtime.root / container.id
    directory.mkdir(0o711)
    (directory / "state.json").touch(0o600)
    (directory / "state.json").write_bytes(content)
    give(directory)
    result = container.delete("--force")
    assert "Traceback" not in result.error
    assert ("are left" in result.error) == (not content.endswith(b"}"))
    leaks.check()


def test_sub_cgroups_are_removed(container: Container, leaks: Leaks, give: Give) -> None:
    """Cgroups made below the container's own are removed with it [D6]."""
    container.begin("pause")
    for path in leak_tools.cgroups_with(container.id):
        os.makedirs(os.path.join(path, "below", "deeper"))
        give(os.path.join(path, "below"))
    container.finish()
    container.delete()
    leaks.check()


@pytest.mark.ours_only("D6: a container that may make sub-cgroups cannot keep itself from being deleted")
@pytest.mark.parametrize(("depth", "name"), [(1200, "a"), (20, "n" * 220)])
def test_sub_cgroups_deeper_than_any_path(container: Container, leaks: Leaks, depth: int, name: str) -> None:
    """More levels than a recursion survives, longer together than a path may be [D6, L21]."""
    container.begin("pause")
    fd = os.open(leak_tools.cgroups_with(container.id)[-1], os.O_RDONLY)
    owner = os.fstat(fd)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.fchown(below, owner.st_uid, owner.st_gid)  # as if the container had made it
        os.close(fd)
        fd = below
    os.close(fd)
    container.command("ps").ok()
    container.delete("--force")
    leaks.check()


@pytest.mark.parametrize("flags", [[], ["--force"]])
def test_cgroup_that_another_container_uses_now(
    container: Container, new_container: Callable[..., Container], flags: list[str]
) -> None:
    """The second one was made in the empty cgroup of the first, which had ended: its delete kills nobody [D17]."""
    container.begin("exit 0")
    container.wait()
    second = new_container()
    second.bundle.linux(cgroupsPath=container.bundle.config["linux"]["cgroupsPath"])
    second.begin("pause")
    if container.runtime.ours:
        container.kill("KILL", flags=["--all"], check=False)
    container.delete(*flags, check=False)
    assert alive(second.pid)
    assert second.state()["status"] == "running"
    second.delete("--force")
    container.delete("--force", check=False)


# A create that is killed: argv is the state root, the bundle, the ID, and at which step.
KILLED = """
import os, sys
from ociruntime import Runtime
from ociruntime.cgroups.cgroup import Cgroup

def die(*_):
    os.kill(os.getpid(), 9)

setattr(Cgroup, sys.argv[4], die)
Runtime(sys.argv[1]).create(sys.argv[2], sys.argv[3])
"""


@pytest.mark.ours_only("S1: the state of a killed create knows what is its own")
@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("step", ["create", "_leave_mark"])
def test_killed_create_whose_cgroup_another_container_has(
    container: Container, new_container: Callable[..., Container], leaks: Leaks, step: str, private: bool
) -> None:
    """It was killed before it had made its cgroup, or right then: its delete kills nobody in there [S1, D17]."""
    pytest.importorskip("ociruntime.shim._native", reason="the compiled module is not built for this Python")
    if not private:
        container.bundle.drop_namespace("pid")
    container.bundle.write()
    container.used = True
    words = [sys.executable, "-c", KILLED, str(container.runtime.root), str(container.bundle.path), container.id, step]
    killed = subprocess.run([*container.runtime.prefix, *words], timeout=60, check=False)
    assert killed.returncode == -9
    assert container.state()["status"] == "stopped"
    second = new_container()
    second.bundle.linux(cgroupsPath=container.bundle.config["linux"]["cgroupsPath"])
    second.begin("pause")
    assert container.kill("KILL", check=False).code != 0
    container.kill("KILL", flags=["--all"])
    second.command("pause").ok()
    assert container.state()["status"] == "stopped"
    second.command("resume").ok()
    if step == "create":
        container.delete("--force")
    assert alive(second.pid)
    assert second.execute("report").ok().replies
    second.delete("--force")
    second.wait()
    container.delete("--force")
    leaks.check()


@pytest.mark.ours_only("D17: the place belongs to the one that uses it")
def test_next_container_in_the_same_cgroup(container: Container, new_container: Callable[..., Container]) -> None:
    """Without a PID namespace, too, kill and delete of one that has ended reach nobody of the next one in its cgroup,
    whose delete then removes what the first one has made [D17, K6].
    """
    path = f"/{container.bundle.config['linux']['cgroupsPath'].strip('/')}-top/leaf"
    second = new_container()
    for one in (container, second):
        one.bundle.linux(cgroupsPath=path).drop_namespace("pid")
    container.begin("exit 0")
    container.wait()
    second.begin("pause")
    assert container.kill("KILL", check=False).code != 0
    container.kill("KILL", flags=["--all"])
    container.delete()
    assert alive(second.pid)
    second.delete("--force")
    second.wait()


@pytest.mark.ours_only("D17: a cgroup that was there before create is kept")
def test_existing_cgroup_is_kept(container: Container, give: Give) -> None:
    """delete removes only what create has made [D17]."""
    group = os.path.dirname(container.bundle.config["linux"]["cgroupsPath"]) + f"/{container.id}-own"
    tops = leak_tools.hierarchies()
    for top in tops:
        os.mkdir(top + group)
        give(top + group)
    try:
        container.bundle.linux(cgroupsPath=group)
        container.begin("exit 0")
        container.wait()
        container.delete()
        for top in tops:
            assert os.path.isdir(top + group)
    finally:
        for top in tops:
            if os.path.isdir(top + group):
                os.rmdir(top + group)


@pytest.mark.ours_only("D17: parents made by create go with it, if empty")
def test_made_parents_are_removed(container: Container, leaks: Leaks) -> None:
    """Parents of the cgroup that create had to make are gone after delete [D17]."""
    container.bundle.linux(cgroupsPath=f"/{container.id}-top/middle/leaf")
    container.begin("exit 0")
    container.wait()
    container.delete()
    leaks.check()


@pytest.mark.ours_only("D17: parents made by create go with the last container below them")
def test_shared_parents_are_removed(new_container: Callable[..., Container], leaks: Leaks) -> None:
    """Parents that one container made, and left because another one was there, go with that one [D6, D17]."""
    first, second, third = (new_container() for _ in range(3))
    for number, container in enumerate((first, second, third)):
        middle = "middle" if number < 2 else "other"
        container.bundle.linux(cgroupsPath=f"/{CGROUP_PREFIX}/{first.id}-top/{middle}/{container.id}")
        container.begin("pause")
    for container in (first, third):
        container.delete("--force")
    assert alive(second.pid)
    second.delete("--force")
    for container in (first, second, third):
        container.wait()
    leaks.check()


def test_bundle_and_root_stay(container: Container) -> None:
    """The bundle is not the runtime's: delete leaves every file of it [D17]."""
    (container.bundle.rootfs / "data").write_text("mine")
    container.begin("exit 0")
    container.wait()
    container.delete()
    assert (container.bundle.rootfs / "data").read_text() == "mine"
    assert (container.bundle.path / "config.json").exists()
    assert container.runtime.root.exists()


def test_bundle_may_be_gone(container: Container, leaks: Leaks) -> None:
    """delete works when the bundle has already been removed [K7]."""
    import shutil

    container.begin("exit 0")
    container.wait()
    shutil.rmtree(container.bundle.path)
    container.delete()
    leaks.check()


def test_force_is_quick(container: Container) -> None:
    """--force does not wait longer than the processes need to die [K7]."""
    lengths = []
    for _ in range(5):
        container.status = None
        container.begin("pause")
        began = time.monotonic()
        container.delete("--force")
        lengths.append(time.monotonic() - began)
        wait_until(lambda: not alive(container.pid))
        container.wait()
    assert min(lengths) < 3  # a pause of its own would be in each
