"""linux.namespaces: new ones, inherited ones, joined ones."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.conftest import requires
from integration.lib.container import Container
from integration.lib.leaks import Leaks
from integration.lib.runtime import run

FILES = {
    "pid": "pid",
    "network": "net",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
    "time": "time",
}
UNSHARE = {
    "pid": ["-p", "-f"],
    "network": ["-n"],
    "mount": ["-m"],
    "ipc": ["-i"],
    "uts": ["-u"],
    "user": ["-U", "-r"],
    "cgroup": ["-C"],
    "time": ["-T", "-f"],
}


def host_namespace(kind: str) -> str:
    """The link of our own namespace of this type."""
    return os.readlink(f"/proc/self/ns/{FILES[kind]}")


@pytest.fixture
def holder(leaks: Leaks) -> Iterator[Callable[..., str]]:
    """Make a namespace, held by a process, and return its path."""
    processes: list[subprocess.Popen[bytes]] = []

    def make(kind: str, *more: str) -> str:
        process = subprocess.Popen(
            ["unshare", *UNSHARE[kind], *more, "sh", "-c", "echo ready; exec sleep 100000"], stdout=subprocess.PIPE
        )
        processes.append(process)
        leaks.keep.add(process.pid)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        pid = process.pid
        if "-f" in UNSHARE[kind]:
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        return f"/proc/{pid}/ns/{FILES[kind]}"

    yield make
    for process in processes:
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), 9)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        leaks.keep.discard(process.pid)


def test_defaults_are_new(container: Container) -> None:
    """Every listed type is a new namespace, every other one the caller's [L1]."""
    found = container.report()["namespaces"]
    for kind in ("pid", "network", "ipc", "uts", "mount"):
        assert found[FILES[kind]] != host_namespace(kind), kind
    for kind in ("user", "cgroup"):
        assert found[FILES[kind]] == host_namespace(kind), kind


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "pid"])
def test_absent_is_inherited(container: Container, kind: str) -> None:
    """A type that is not listed is inherited from the runtime [L1, L7]."""
    container.bundle.drop_namespace(kind)
    if kind == "uts":
        container.bundle.merge({"hostname": None})
    if kind == "ipc":
        container.bundle.drop_mount("/dev/mqueue")
    if kind == "network":
        container.bundle.drop_mount("/sys")
        container.bundle.mount("/sys", "/sys", "rbind", "ro")
    assert container.report()["namespaces"][FILES[kind]] == host_namespace(kind)


def test_no_mount_namespace(container: Container, leaks: Leaks) -> None:
    """Without a mount namespace the root is changed by chroot, and the caller's mounts stay as they are [L7].

    The runtime gets a mount namespace of its own here: a runtime that does it wrong can harm nobody else.
    """
    container.bundle.drop_namespace("mount")
    container.bundle.no_mount_rules()
    container.bundle.config["mounts"] = []
    (container.bundle.rootfs / "dev").mkdir()
    script = (
        'before=$(cat /proc/self/mountinfo); "$@"; code=$?; '
        'test "$before" = "$(cat /proc/self/mountinfo)" || exit 99; exit $code'
    )
    container.runtime = container.runtime.within(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh"]
    )
    names = container.probe("ls /")[0]["names"]
    assert "probe" in names
    assert "usr" not in names
    leaks.check()


@pytest.mark.parametrize("field", ["maskedPaths", "readonlyPaths"])
def test_path_rules_need_a_mount_namespace(container: Container, leaks: Leaks, field: str) -> None:
    """maskedPaths and readonlyPaths without a mount namespace are refused [L7]."""
    container.bundle.drop_namespace("mount")
    container.bundle.no_mount_rules()
    container.bundle.config["mounts"] = []
    container.bundle.linux(**{field: ["/proc/kcore"]})
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert f"/linux/{field}" in result.error
    leaks.check()


def test_new_pid_namespace(container: Container) -> None:
    """The program is PID 1 inside; the caller gets the host's PID [L2]."""
    container.bundle.args("report", "pause")
    container.create()
    container.start()
    assert container.wait_replies(2)[0]["pid"] == 1
    assert container.pid != 1
    assert os.readlink(f"/proc/{container.pid}/ns/pid") == container.replies[0]["namespaces"]["pid"]


def test_loopback_is_up(container: Container) -> None:
    """A new network namespace has lo, up, and nothing else that is [L3]."""
    up = container.probe("net")[0]["up"]
    assert up["lo"] == 1
    assert [name for name, flag in up.items() if flag] == ["lo"]


def test_new_cgroup_namespace(container: Container) -> None:
    """The root of a new cgroup namespace is the container's own cgroup [L4]."""
    container.bundle.namespace("cgroup")
    report = container.report()
    assert report["namespaces"]["cgroup"] != host_namespace("cgroup")
    for line in report["cgroup"].splitlines():
        assert line.split(":", 2)[2] == "/", report["cgroup"]


@pytest.mark.requires("userns")
def test_new_user_namespace(container: Container) -> None:
    """A new user namespace has exactly the maps of the config [L6]."""
    container.bundle.user_namespace()
    container.bundle.args("report", "stat /probe", "statf /dev/null")
    report, *_ = container.probe("report")
    assert report["namespaces"]["user"] != host_namespace("user")
    assert report["uid_map"].split() == ["0", "400000", "65536"]
    assert report["gid_map"].split() == ["0", "400000", "65536"]
    assert report["uids"] == [0, 0, 0]


@pytest.mark.requires("userns")
def test_several_mapping_lines(container: Container) -> None:
    """All lines of the maps are written [L6]."""
    container.bundle.user_namespace()
    lines = [{"containerID": n * 1000, "hostID": 400000 + n * 1000, "size": 1000} for n in range(12)]
    container.bundle.linux(uidMappings=lines, gidMappings=lines)
    report = container.report()
    assert len(report["uid_map"].splitlines()) == 12
    assert len(report["gid_map"].splitlines()) == 12


@pytest.mark.requires("userns")
def test_user_in_a_user_namespace(container: Container) -> None:
    """uid, gid and groups are those of the namespace [L6, U4]."""
    container.bundle.user_namespace()
    container.bundle.process(user={"uid": 7, "gid": 8, "additionalGids": [9]})
    container.bundle.args("report", "pause")
    container.create()
    container.start()
    report = container.wait_replies(2)[0]
    assert (report["uids"], report["gids"]) == ([7] * 3, [8] * 3)
    status = Path(f"/proc/{container.pid}/status").read_text()
    assert "\nUid:\t400007\t" in status


@pytest.mark.requires("userns")
def test_unmapped_user(container: Container, leaks: Leaks) -> None:
    """A user without a mapping is refused [U4]."""
    container.bundle.user_namespace(size=1000)
    container.bundle.process(user={"uid": 5000, "gid": 0})
    assert container.create(check=False).code != 0
    leaks.check()


@pytest.mark.requires("userns")
def test_user_namespace_without_maps(container: Container, leaks: Leaks) -> None:
    """A new user namespace needs maps [L6]."""
    container.bundle.user_namespace()
    container.bundle.linux(uidMappings=None, gidMappings=None)
    result = container.create(check=False)
    assert result.code != 0
    leaks.check()


@pytest.mark.requires("timens")
def test_new_time_namespace(container: Container) -> None:
    """timeOffsets move the clocks of a new time namespace [L5]."""
    container.bundle.namespace("time")
    container.bundle.linux(
        timeOffsets={"monotonic": {"secs": 100000, "nanosecs": 0}, "boottime": {"secs": 200000, "nanosecs": 5}}
    )
    import time

    report, clock = container.probe("report", "clock")
    assert report["namespaces"]["time"] != host_namespace("time")
    assert abs(clock["monotonic"] - time.clock_gettime(time.CLOCK_MONOTONIC) - 100000) < 60
    assert abs(clock["boottime"] - time.clock_gettime(time.CLOCK_BOOTTIME) - 200000) < 60


@pytest.mark.requires("timens")
@pytest.mark.ours_only("L5: offsets without a new time namespace are refused")
@pytest.mark.parametrize("joined", [False, True])
def test_offsets_without_a_new_time_namespace(
    container: Container, leaks: Leaks, holder: Callable[..., str], joined: bool
) -> None:
    """timeOffsets need a new time namespace [L5]."""
    container.bundle.linux(timeOffsets={"monotonic": {"secs": 1, "nanosecs": 0}})
    if joined:
        container.bundle.namespace("time", holder("time"))
    result = container.create(check=False)
    assert result.code != 0
    assert "/linux/timeOffsets" in result.error


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "pid", "mount", "cgroup"])
def test_join_by_path(container: Container, holder: Callable[..., str], kind: str) -> None:
    """A namespace given by path is joined, not made [L1]."""
    requires("root")
    path = holder(kind)
    container.bundle.namespace(kind, path)
    if kind == "uts":
        container.bundle.merge({"hostname": None})
    if kind == "ipc":
        container.bundle.drop_mount("/dev/mqueue")
    report = container.report()
    assert report["namespaces"][FILES[kind]] == os.readlink(path)
    if kind == "pid":
        assert report["pid"] != 1


@pytest.mark.requires("timens")
def test_join_time_by_path(container: Container, holder: Callable[..., str]) -> None:
    """A time namespace is joined by path [L1, L5]."""
    path = holder("time")
    container.bundle.namespace("time", path)
    assert container.report()["namespaces"]["time"] == os.readlink(path)


@pytest.mark.requires("userns")
def test_join_user_by_path(container: Container, holder: Callable[..., str]) -> None:
    """A user namespace is joined by path; the container is root in it [L1, L6]."""
    path = holder("user")
    container.bundle.namespace("user", path)
    container.bundle.process(capabilities=None)
    # gid 5 of devpts has no mapping in a namespace of one id
    container.bundle.drop_mount("/dev/pts")
    container.bundle.mount("/dev/pts", "devpts", "newinstance", "ptmxmode=0666", "mode=0620", type="devpts")
    report = container.report()
    assert report["namespaces"]["user"] == os.readlink(path)
    assert report["uids"] == [0, 0, 0]
    assert report["uid_map"].split() == ["0", "0", "1"]


@pytest.mark.requires("userns")
def test_oom_score_in_a_joined_user_namespace(new_container: Callable[..., Container]) -> None:
    """oomScoreAdj in a container that joins the user namespace of another, as in a pod [L6, U9]."""
    first = new_container()
    first.bundle.user_namespace()
    first.begin("pause")
    second = new_container()
    second.bundle.user_namespace()
    second.bundle.linux(uidMappings=None, gidMappings=None)
    second.bundle.namespace("user", f"/proc/{first.pid}/ns/user")
    second.bundle.process(oomScoreAdj=300)
    report = second.report()
    assert report["oom_score_adj"] == "300\n"
    assert report["uid_map"].split() == ["0", "400000", "65536"]


def test_join_several(container: Container, holder: Callable[..., str]) -> None:
    """Several namespaces are joined together, as in a pod [L1]."""
    paths = {kind: holder(kind) for kind in ("network", "ipc", "uts")}
    for kind, path in paths.items():
        container.bundle.namespace(kind, path)
    container.bundle.merge({"hostname": None})
    container.bundle.drop_mount("/dev/mqueue")
    found = container.report()["namespaces"]
    for kind, path in paths.items():
        assert found[FILES[kind]] == os.readlink(path), kind
    assert found["mnt"] != host_namespace("mount")


def test_join_the_namespaces_of_a_container(
    new_container: Callable[..., Container], holder: Callable[..., str]
) -> None:
    """A second container joins network, ipc, uts and pid of a first one; the first is not disturbed [L1]."""
    first = new_container().begin("pause")
    second = new_container()
    for kind in ("network", "ipc", "uts", "pid"):
        second.bundle.namespace(kind, f"/proc/{first.pid}/ns/{FILES[kind]}")
    second.bundle.merge({"hostname": None})
    second.bundle.drop_mount("/dev/mqueue")
    found = second.report()["namespaces"]
    for kind in ("network", "ipc", "uts", "pid"):
        assert found[FILES[kind]] == os.readlink(f"/proc/{first.pid}/ns/{FILES[kind]}")
    assert first.state()["status"] == "running"


def test_joined_namespaces_survive(container: Container, holder: Callable[..., str]) -> None:
    """delete leaves a joined namespace alone [D17]."""
    path = holder("network")
    before = os.readlink(path)
    container.bundle.namespace("network", path)
    container.begin("exit 0")
    container.wait()
    container.delete()
    assert os.readlink(path) == before


@pytest.mark.parametrize("kind", ["pid", "mount", "uts", "ipc", "network"])
def test_duplicate_type(container: Container, leaks: Leaks, kind: str) -> None:
    """A type listed twice is refused [L1]."""
    container.bundle.config["linux"]["namespaces"].append({"type": kind})
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert "/linux/namespaces/5" in result.error
    leaks.check()


def test_unknown_type(container: Container, leaks: Leaks) -> None:
    """An unknown type is refused [L1]."""
    container.bundle.config["linux"]["namespaces"].append({"type": "galaxy"})
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert "/linux/namespaces/5/type" in result.error
    leaks.check()


@pytest.mark.parametrize(("kind", "path"), [("network", "/proc/self/ns/uts"), ("uts", "/proc/self/ns/net"),
                                            ("ipc", "/etc/passwd"), ("network", "/no/such/file")])  # fmt: skip
def test_wrong_path(container: Container, leaks: Leaks, kind: str, path: str) -> None:
    """A path that is not a namespace of this type is refused [L1]."""
    container.bundle.namespace(kind, path)
    container.bundle.merge({"hostname": None})
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert "/linux/namespaces/4/path" in result.error
    leaks.check()


@pytest.mark.ours_only("L1: a relative path is refused")
def test_relative_path(container: Container, leaks: Leaks) -> None:
    """Namespace paths are absolute [L1]."""
    container.bundle.namespace("network", "proc/self/ns/net")
    result = container.create(check=False, cwd="/")
    assert result.code != 0
    assert "/linux/namespaces/4/path" in result.error


def test_namespaces_are_there_in_created(container: Container) -> None:
    """Already the created container is in its namespaces, so that engines can set up its network [K1]."""
    container.create()
    for kind in ("pid", "network", "ipc", "uts", "mount"):
        assert os.readlink(f"/proc/{container.pid}/ns/{FILES[kind]}") != host_namespace(kind)


def names(pid: str, *more: str) -> list[str]:
    """Host and domain name in the UTS namespace of a process."""
    words = [
        ["nsenter", "-t", pid, "-u", *more, "cat", f"/proc/sys/kernel/{name}"] for name in ("hostname", "domainname")
    ]
    return [run(command).ok().text.strip() for command in words]


@pytest.mark.parametrize("more", [[], ["-U", "-r"]], ids=["uts", "user"])
@pytest.mark.ours_only("other runtimes leave the names of a container that failed")
def test_names_of_a_joined_namespace(
    container: Container, holder: Callable[..., str], leaks: Leaks, more: list[str]
) -> None:
    """A create that fails gives a UTS namespace of others its names back; one that succeeds sets them [L1, F5, K1]."""
    path = holder("uts", *more)
    pid = path.split("/")[2]
    if more:
        container.bundle.namespace("user", f"/proc/{pid}/ns/user")
        for mount in container.bundle.config["mounts"]:
            mount["options"] = [option for option in mount.get("options", ()) if option != "gid=5"]
    container.bundle.namespace("uts", path)
    container.bundle.merge({"hostname": "new", "domainname": "new.example"})
    container.bundle.process(args=["/no/such/program"])
    before = names(pid)
    result = container.create(check=False)
    assert result.code != 0
    assert "/no/such/program" in result.error
    assert names(pid) == before
    leaks.check()
    container.bundle.args("pause")
    container.create()
    assert names(pid) == ["new", "new.example"]
    assert container.delete("--force").code == 0


@pytest.mark.ours_only("the process is made through the library")
@pytest.mark.parametrize("renamed", [False, True])
def test_names_after_the_end_of_the_runtime(holder: Callable[..., str], renamed: bool) -> None:
    """A runtime that is killed leaves no names either; those that somebody else has set meanwhile stay [L1, F5, K1]."""
    pytest.importorskip("ociruntime.shim._native", reason="the compiled module is not built for this Python")
    path = holder("uts")
    pid = path.split("/")[2]
    inside = ["nsenter", "-t", pid, "-u", "hostname"]
    before = names(pid)
    ours, theirs = os.pipe()
    runtime = os.fork()
    if runtime == 0:
        from ociruntime.lifecycle.names import Guard
        from ociruntime.log import Log
        from ociruntime.plan import CLONE_NEWUTS

        guard = Guard(
            Log(), {"hostname": "new"}, [(CLONE_NEWUTS, os.open(path, os.O_RDONLY))], lambda message: OSError()
        )  # type: ignore[arg-type, return-value]
        run([*inside, "newer" if renamed else "new"]).ok()
        os.kill(guard.child.pid, signal.SIGINT)  # as what ends a whole process group does
        os.kill(guard.child.pid, signal.SIGTERM)
        os.write(theirs, str(guard.child.pid).encode())
        os.kill(os.getpid(), 9)
    guard_pid = int(os.read(ours, 20))
    os.waitpid(runtime, 0)
    os.waitpid(guard_pid, 0)
    os.close(ours)
    os.close(theirs)
    assert names(pid) == (["newer", before[1]] if renamed else before)
