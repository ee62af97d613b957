"""What root of a user namespace finds there: streams, mqueue, sysfs and procfs; and words for IDs that it lacks."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.lib.container import Container
from integration.lib.leaks import Leaks
from integration.lib.probe import mount_at

pytestmark = pytest.mark.requires("userns")
FIRST = 400000


@pytest.fixture
def holder(leaks: Leaks) -> Iterator[Callable[..., str]]:
    """Make namespaces, held by a process: its /proc/PID/ns. maps: lines for its user namespace, which it needs then."""
    processes: list[subprocess.Popen[bytes]] = []

    def make(*options: str, maps: str = "") -> str:
        argv = ["unshare", *options, "setpriv", "--pdeathsig", "KILL", "sh", "-c", "echo ready; exec sleep 100000"]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        processes.append(process)
        leaks.keep.add(process.pid)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        if maps:
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{process.pid}/{name}").write_text(maps)
        return f"/proc/{process.pid}/ns"

    yield make
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def join_user(container: Container, path: str) -> None:
    """Let the container join this user namespace, whose IDs are the same as those that it would have had."""
    container.bundle.user_namespace()
    container.bundle.linux(uidMappings=None, gidMappings=None)
    container.bundle.namespace("user", path)


def errno_of_stdout(container: Container, *command: str) -> int:
    """Run the runtime with a pipe of ours as stdout: what opening /dev/stdout has come to in the container."""
    reader, writer = os.pipe()
    try:
        process = container.runtime.spawn(*command, stdout=writer)
        assert process.wait(60) == 0
    finally:
        os.close(writer)
    with os.fdopen(reader) as output:
        return int(json.loads(output.readline())["errno"])


@pytest.mark.parametrize("uid", [0, 1000])
def test_streams_can_be_opened_again(container: Container, uid: int) -> None:
    """The user of the container may open /dev/stdout, a pipe of the caller's who has no ID in there [P9, L6]."""
    container.bundle.user_namespace()
    container.bundle.process(user={"uid": uid, "gid": uid})
    container.bundle.args("open /dev/stdout w").write()
    assert errno_of_stdout(container, "run", "--bundle", str(container.bundle.path), container.id) == 0


@pytest.mark.parametrize("uid", [0, 1000])
def test_streams_of_exec_can_be_opened_again(container: Container, uid: int) -> None:
    """So may the user of another process [P9, L6]."""
    container.bundle.user_namespace()
    container.begin("pause")
    command = ["exec", "--user", str(uid), container.id, "/probe", "open", "/dev/stdout", "w"]
    assert errno_of_stdout(container, *command) == 0


@pytest.mark.ours_only("others give everything away, or copy through pipes of their own")
def test_streams_that_stay_the_callers(container: Container, tmp_path: Path) -> None:
    """A file that is only read is not given away; one that is written is [P9]."""
    container.bundle.user_namespace()
    container.bundle.args("open /dev/stdout w").write()
    read, written = tmp_path / "read", tmp_path / "written"
    read.touch()
    with read.open("rb") as stdin, written.open("wb") as stdout:
        command = ["run", "--bundle", str(container.bundle.path), container.id]
        process = container.runtime.spawn(*command, stdin=stdin.fileno(), stdout=stdout.fileno())
        assert process.wait(60) == 0
    assert json.loads(written.read_text().splitlines()[0])["errno"] == 0
    assert (read.stat().st_uid, written.stat().st_uid) == (os.getuid(), FIRST)


@pytest.mark.ours_only("others give everything away, or nothing")
def test_files_stay_the_callers_in_exec(container: Container, tmp_path: Path) -> None:
    """Who runs a command in the container does not give it the file that takes its output [P9]."""
    container.bundle.user_namespace()
    container.begin("pause")
    written = tmp_path / "written"
    with written.open("wb") as stdout:
        process = container.runtime.spawn("exec", container.id, "/probe", "stat", "/", stdout=stdout.fileno())
        assert process.wait(60) == 0
    assert written.stat().st_uid == os.getuid()
    assert written.read_bytes()


@pytest.mark.ours_only("hints")
def test_root_file_system_of_others(container: Container, leaks: Leaks) -> None:
    """A root file system that nobody has given to the container's IDs: the hint tells why root may not write [L6]."""
    container.bundle.user_namespace()
    os.chown(container.bundle.rootfs, 0, 0)
    result = container.create(check=False)
    assert result.code != 0
    assert "mkdir: '/" in result.error and "(EACCES) (hint: root of a user namespace" in result.error
    leaks.check()


@pytest.mark.ours_only("hints")
def test_map_without_the_right_to_it(container: Container, leaks: Leaks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root without the capability for other IDs is told which one it takes [L6]."""
    container.bundle.user_namespace()
    without = [*container.runtime.prefix, "setpriv", "--bounding-set=-setuid"]
    monkeypatch.setattr(container.runtime, "prefix", without)
    result = container.create(check=False)
    assert result.code != 0
    assert "/linux/uidMappings: write: " in result.error and "takes CAP_SETUID" in result.error
    leaks.check()


def test_owner_of_mqueue(container: Container) -> None:
    """The directory of the message queues belongs to the container's root [L6, M13]."""
    container.bundle.user_namespace()
    (found,) = container.probe("stat /dev/mqueue")
    assert (found["uid"], found["gid"]) == (0, 0)


@pytest.mark.ours_only("others bind by the path alone, or make a node that cannot be opened")
@pytest.mark.parametrize("path", ["/dev/other", "/dev/sub/zero", "/elsewhere"])
def test_device_with_another_name(container: Container, path: str) -> None:
    """A device that the host has under another name than the container is bound from there [L8]."""
    container.bundle.user_namespace()
    container.bundle.linux(devices=[{"path": path, "type": "c", "major": 1, "minor": 5}])
    found, opened = container.probe(f"stat {path}", f"open {path} rw")
    assert (found["type"], found["major"], found["minor"], opened["errno"]) == ("c", 1, 5, 0)


@pytest.mark.parametrize("joined", [False, True])
def test_network_that_is_not_the_containers(container: Container, holder: Callable[..., str], joined: bool) -> None:
    """There is no new sysfs for a network namespace of others: the host's is bound [M13]."""
    if joined:
        join_user(container, holder("-U", maps=f"0 {FIRST} 65536\n") + "/user")
    else:
        container.bundle.user_namespace()
    container.bundle.namespace("network", holder("-n") + "/net")
    assert mount_at(container.report()["mountinfo"], "/sys").type == "sysfs"


@pytest.mark.parametrize(("kind", "point"), [("network", "/sys"), ("pid", "/proc")])
def test_no_namespace_beside_a_joined_one(
    container: Container, holder: Callable[..., str], kind: str, point: str
) -> None:
    """With the host's network, or its PIDs, in a user namespace that is joined: the host's is bound [M2, M13]."""
    join_user(container, holder("-U", maps=f"0 {FIRST} 65536\n") + "/user")
    container.bundle.drop_namespace(kind)
    mount = mount_at(container.report()["mountinfo"], point)
    assert mount.type == {"/sys": "sysfs", "/proc": "proc"}[point]


def test_sysctl_with_the_pids_of_the_host(container: Container) -> None:
    """A sysctl can be set where no new procfs can be had, as toolboxes ask for it [L13]."""
    container.bundle.user_namespace()
    container.bundle.drop_namespace("pid")
    container.bundle.drop_mount("/proc")
    container.bundle.mount("/proc", "/proc", "rbind")
    container.bundle.linux(sysctl={"net.ipv4.ping_group_range": "0 7"}, maskedPaths=None, readonlyPaths=None)
    (read,) = container.probe("read /proc/sys/net/ipv4/ping_group_range")
    assert read["data"].split() == ["0", "7"]


@pytest.mark.ours_only("pointer and words of the error")
@pytest.mark.parametrize(
    ("user", "field", "number"),
    [
        ({"uid": 70000, "gid": 0}, "uid", 70000),
        ({"uid": 0, "gid": 70000}, "gid", 70000),
        ({"uid": 0, "gid": 0, "additionalGids": [5, 70000]}, "additionalGids/1", 70000),
    ],
)
def test_ids_that_a_joined_namespace_lacks(
    container: Container, leaks: Leaks, holder: Callable[..., str], user: dict[str, int], field: str, number: int
) -> None:
    """An ID without a mapping is refused at its field, where the config does not tell the mappings, too [L6, U4]."""
    join_user(container, holder("-U", maps=f"0 {FIRST} 65536\n") + "/user")
    container.bundle.process(user=user)
    result = container.create(check=False)
    assert result.code != 0
    assert f"/process/user/{field}: {number} is not mapped in the process's user namespace" in result.error
    leaks.check()


@pytest.mark.ours_only("pointer and words of the error")
@pytest.mark.parametrize("maps", ["", f"1 {FIRST} 10\n"])
def test_joined_namespace_without_root(
    container: Container, leaks: Leaks, holder: Callable[..., str], maps: str
) -> None:
    """A user namespace in which nobody can be root is named as such [L6]."""
    join_user(container, holder("-U", maps=maps) + "/user")
    number = next(i for i, n in enumerate(container.bundle.config["linux"]["namespaces"]) if n["type"] == "user")
    result = container.create(check=False)
    assert result.code != 0
    assert f"/linux/namespaces/{number}/path: " in result.error
    assert "maps no root (0), or nothing yet" in result.error
    leaks.check()
