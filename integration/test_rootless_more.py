"""Containers of ordinary users: id-mapped file systems, `ns`, what happens after a seccomp filter [L6, M10, L1]."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.lib import host, rootless
from integration.lib.bundle import CGROUP_PREFIX, Bundle
from integration.lib.container import Container, last_descendant
from integration.lib.leaks import Leaks
from integration.lib.probe import mount_at
from integration.lib.rootless import User
from integration.lib.runtime import Result, Runtime

pytestmark = [
    pytest.mark.requires("userns", "file:/usr/bin/newuidmap", "file:/etc/subuid", "file:/etc/subgid"),
    pytest.mark.ours_only("goes beyond the specification"),
]

Lists = dict[str, list[dict[str, int]]]


def lists(*ranges: tuple[int, int, int]) -> Lists:
    """uidMappings and gidMappings of a mount."""
    entries = [{"containerID": first, "hostID": outside, "size": size} for first, outside, size in ranges]
    return {"uidMappings": entries, "gidMappings": entries}


# ---- id-mapped mounts


@pytest.mark.requires("kernel:6.3")
@pytest.mark.parametrize("how", ["lists", "option", "relative"])
def test_id_mapped_tmpfs(mine: Container, alice: User, how: str) -> None:
    """A new file system of the container's own user namespace: its ID 0 is user 7 in there [M10, X15]."""
    outside = alice.first + 7
    options, more = {
        "lists": ([], lists((0, outside, 2))),
        "option": ([f"idmap=uids=0-{outside}-2;gids=0-{outside}-2"], {}),
        "relative": (["idmap=uids=@0-7-2;gids=@0-7-2"], {}),
    }[how]
    mine.bundle.mount("/data", "tmpfs", "mode=755", "size=1m", "nosuid", *options, type="tmpfs", **more)
    mine.bundle.process(user={"uid": 7, "gid": 7})
    top, create, made, report = mine.probe("stat /data", "create /data/new x", "stat /data/new", "report")
    assert (top["uid"], top["gid"], create["errno"], made["uid"], made["gid"]) == (7, 7, 0, 7, 7)
    mount = mount_at(report["mountinfo"], "/data")
    assert {"idmapped", "nosuid"} <= mount.options
    assert "size=1024k" in mount.super_options


@pytest.mark.requires("kernel:6.3")
def test_who_has_no_id_there(mine: Container, alice: User) -> None:
    """The container's root has none: it cannot make files, and sees those of others as nobody's [M10]."""
    mine.bundle.mount("/data", "tmpfs", "mode=777", type="tmpfs", **lists((5, alice.first + 5, 1)))
    top, create = mine.probe("stat /data", "create /data/new x")
    assert (top["uid"], top["gid"]) == (65534, 65534)
    assert create["errno"] == 75  # EOVERFLOW


@pytest.mark.requires("kernel:6.3")
def test_several_with_one_mapping(mine: Container, alice: User) -> None:
    """Mappings are made once each; the init process keeps none of them, nor does the runtime [M10]."""
    for number in range(3):
        mine.bundle.mount(f"/data{number}", "tmpfs", type="tmpfs", **lists((0, alice.first + 3 + number // 2, 1)))
    mine.bundle.args("stat /data0", "stat /data1", "stat /data2", "pause")
    mine.create()
    mine.start()
    assert [reply["uid"] for reply in mine.wait_replies(3)[:3]] == [3, 3, 4]
    assert sorted(os.listdir(f"/proc/{mine.pid}/fd")) == ["0", "1", "2"]


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_the_containers_own_mapping(mine: Container, option: str) -> None:
    """Without mappings of its own: IDs in the container are those of the file system, as they are anyway [M10]."""
    mine.bundle.mount("/data", "tmpfs", "mode=750", "uid=7", option, type="tmpfs")
    top = mine.probe("stat /data")[0]
    assert (top["uid"], top["gid"], top["mode"]) == (7, 0, 0o750)


@pytest.mark.parametrize(
    ("entry", "pointer", "words"),
    [
        ({"options": ["bind", "idmap"]}, "", "CAP_SYS_ADMIN in the user namespace that this file system of type '"),
        ({"options": ["rbind"], "map": (0, 47001, 1)}, "", "CAP_SYS_ADMIN in the user namespace that this file system"),
        ({"source": "/nowhere", "options": ["bind", "idmap"]}, "/source", "no such file"),
        ({"type": "ramfs", "map": (0, 47001, 1)}, "", "no ID mapping for this file system of type 'ramfs'"),
        ({"type": "overlay", "options": ["lowerdir={data}/a:{data}/b"], "map": (0, 47001, 1)}, "", "type 'overlay'"),
        ({"type": "proc", "map": (0, 47001, 1)}, "/uidMappings", "file systems of type 'proc'"),
        ({"type": "ext4", "map": (0, 47001, 1)}, "", "does not let a user namespace mount the file system type 'ext4'"),
        ({"type": "tmpfs", "map": (0, 46000, 1)}, "/uidMappings/0/hostID", "46000 is not a host ID of the container"),
        ({"type": "tmpfs", "options": ["idmap=uids=0-46000-1;gids=0-47002-1"]}, "/options/0", "46000 is not a host ID"),
        ({"type": "tmpfs", "options": ["size=much"], "map": (0, 47001, 1)}, "", "size"),
    ],
)
def test_refused_id_mapping(
    mine: Container, alice: User, leaks: Leaks, tmp_path: Path, entry: dict[str, Any], pointer: str, words: str
) -> None:
    """What the kernel does not map for an ordinary user is refused at its mount; nothing is left [M10]."""
    full = {"destination": "/data", "type": "none", "source": str(tmp_path), **entry}
    for name in "ab":
        (tmp_path / name).mkdir()
    full["options"] = [option.format(data=tmp_path) for option in full.get("options", [])]
    if mapping := full.pop("map", None):
        full |= {"uidMappings": [dict(zip(("containerID", "hostID", "size"), mapping, strict=True))]}
        full["gidMappings"] = [{"containerID": 0, "hostID": alice.gid, "size": 1}]
    mine.bundle.config["mounts"].append(full)
    result = mine.create(check=False)
    assert result.code != 0
    assert f"/mounts/{len(mine.bundle.config['mounts']) - 1}{pointer}:" in result.error
    assert words in result.error
    leaks.check()


def test_features(runtime: Runtime, alice: User) -> None:
    """`features` says whose file systems can be mapped [E8]."""
    for who, binds in ((runtime, "true"), (alice.runtime(runtime), "false")):
        document = who.bare("features").ok().json
        assert document["linux"]["mountExtensions"]["idmap"]["enabled"] is True
        assert document["annotations"]["org.ociruntime.idmap.binds"] == binds


# ---- what the kernel refuses


def nested(container: Container, script: str, *options: str) -> None:
    """From now on the runtime runs as root of a user namespace of the user's own, if script has worked there."""
    runtime = container.runtime
    runtime.prefix = [*runtime.prefix, "unshare", "-U", "-r", *options, "sh", "-c", f'{script} && exec "$@"', "sh"]
    container.bundle.linux(
        uidMappings=[{"containerID": 0, "hostID": 0, "size": 1}],
        gidMappings=[{"containerID": 0, "hostID": 0, "size": 1}],
    )


@pytest.mark.parametrize(("size", "words"), [(100, "several lines"), (70000, "does not have all of them")])
def test_mapping_across_lines(mine: Container, leaks: Leaks, size: int, words: str) -> None:
    """Two lines of the own map cannot become one mapping: the error says at which one, and what can be mapped [L6]."""
    nested(mine, "true", "--map-auto")
    entries = [{"containerID": 0, "hostID": 0, "size": size}]
    mine.bundle.linux(uidMappings=entries, gidMappings=entries)
    result = mine.create(check=False)
    assert result.code != 0
    assert f"/linux/uidMappings/0/hostID: 0 to {size - 1}: " in result.error and words in result.error
    assert ("make it 2 mappings, of 0, 1 to 99" in result.error) == (size == 100)
    leaks.check()


@pytest.mark.parametrize(
    ("limit", "script"),
    [
        ("user", "echo 0 >/proc/sys/user/max_user_namespaces"),
        ("network", "echo 0 >/proc/sys/user/max_net_namespaces"),
    ],
)
def test_limits_of_namespaces(single: Container, leaks: Leaks, limit: str, script: str) -> None:
    """What clone(2) calls "no space left on device" is a limit of the user's namespaces [A4]."""
    nested(single, script)
    result = single.create(check=False)
    assert result.code != 0
    assert "/linux/namespaces: clone3: no space left" in result.error
    assert "user.max_*_namespaces" in result.error
    leaks.check()


def test_ids_that_the_caller_does_not_have(single: Container, leaks: Leaks) -> None:
    """Who has no ID in his own user namespace cannot make another one [A4]."""
    single.runtime.prefix = [*single.runtime.prefix, "unshare", "-U"]
    result = single.create(check=False)
    assert result.code != 0
    assert "/linux/namespaces: clone3: operation not permitted" in result.error
    assert "not mapped" in result.error
    leaks.check()


@pytest.mark.parametrize(
    ("point", "hidden", "kind"), [("/proc", "/proc/version", "proc"), ("/sys", "/sys/kernel/uevent_seqnum", "sysfs")]
)
def test_mount_too_revealing(single: Container, leaks: Leaks, point: str, hidden: str, kind: str) -> None:
    """Where the caller's own is hidden in part there is no new one: the rule is named. A bind of it works [M2, M13]."""
    nested(single, f"mount --bind /dev/null {hidden}", "-m", "-p", "-f", "--mount-proc")
    number = next(i for i, mount in enumerate(single.bundle.config["mounts"]) if mount["destination"] == point)
    result = single.create(check=False)
    assert result.code != 0
    assert f"/mounts/{number}:" in result.error
    assert f"mount too revealing: the caller's own {kind} is masked" in result.error
    leaks.check()
    single.bundle.drop_namespace("pid" if kind == "proc" else "network")
    single.bundle.args("report", f"stat {hidden}")
    report, facts = single.run(check=True).replies
    assert mount_at(report["mountinfo"], point).type == kind
    assert (facts["major"], facts["minor"]) == (1, 3)  # what hides the file came along


# ---- ns


def namespaces(container: Container) -> dict[str, Any]:
    """What `ns` tells: the same in JSON and as text, and nothing is unknown."""
    report: dict[str, Any] = container.command("ns", "-f", "json").ok().json
    assert all(entry["same"] is not None and entry["inode"] for entry in report["namespaces"])
    assert "?" not in container.command("ns").ok().text
    return report


@pytest.mark.parametrize(("uid", "init"), [(0, "false"), (1000, "false"), (1000, "true")])
def test_ns(mine: Container, alice: User, uid: int, init: str) -> None:
    """Namespaces, PIDs and who is who, as soon as it is created, and exec, with an init of ours too [L1, L6]."""
    mine.bundle.process(user={"uid": uid, "gid": uid})
    mine.bundle.merge({"annotations": {"org.ociruntime.init": init}})
    mine.bundle.args("pause")
    mine.create()
    for status in ("created", "running"):
        report = namespaces(mine)
        assert report["status"] == status
        for entry in report["namespaces"]:
            name = {"mount": "mnt", "network": "net"}.get(entry["type"], entry["type"])
            inside, outside = (os.readlink(f"/proc/{pid}/ns/{name}") for pid in (mine.pid, "self"))
            assert (f"{name}:[{entry['inode']}]", f"{name}:[{entry['callerInode']}]") == (inside, outside)
            assert entry["same"] is (inside == outside)
        assert report["pids"] == [mine.pid, 1]
        assert f"root in the container is uid {alice.uid}, gid {alice.gid} outside" in report["words"]
        assert f"you, uid {alice.uid}, are uid 0 in the container" in report["words"]
        assert mine.execute("report").ok().replies[0]["uids"] == [uid] * 3
        if status == "created":
            mine.start()
            mine.wait_replies(1)


def test_ns_with_one_id(single: Container, alice: User) -> None:
    """Whoever has no other ID is told so [L6]."""
    single.create()
    report = namespaces(single)
    assert report["uidMappings"] == [{"containerID": 0, "hostID": alice.uid, "size": 1}]
    assert f"uid 0 in the container is {alice.uid} outside" in report["words"]


def test_ns_of_joined_namespaces(single: Container, alice: User) -> None:
    """Three levels of PID namespaces of the user's own, joined with their user namespace: every PID is told [L1]."""
    deeper = ["unshare", "-p", "-f", "--kill-child"]
    command = [*alice.prefix(), "unshare", "-U", "-r", "-p", "-f", "--kill-child", *deeper, "sleep", "1000"]
    with subprocess.Popen(command) as outer:
        try:
            deepest = last_descendant(outer.pid, "sleep")
            single.bundle.linux(uidMappings=None, gidMappings=None)
            for kind in ("user", "pid"):
                single.bundle.namespace(kind, f"/proc/{deepest}/ns/{kind}")
            single.bundle.args("pause")
            single.create()
            for status in ("created", "running"):
                report = namespaces(single)
                assert (report["status"], len(report["pids"]), report["pids"][0]) == (status, 3, single.pid)
                if status == "created":
                    single.start()
            paths = {entry["type"]: entry.get("path") for entry in report["namespaces"]}
            assert (paths["user"], paths["pid"]) == tuple(f"/proc/{deepest}/ns/{kind}" for kind in ("user", "pid"))
            single.finish()
        finally:
            outer.kill()


@pytest.mark.requires("v1:pids")
def test_joined_user_namespace_on_cgroup_v1(
    mine: Container, alice: User, new_bundle: Callable[[], Bundle], new_container: Callable[..., Container]
) -> None:
    """Whose root is another ID than the caller: exec and a second container get into their cgroups, with limits. Of the
    caller's own ID, which that takes, nothing is left [L6, D9].
    """
    places = {name: os.path.join(top, CGROUP_PREFIX, "alice") for name, top in host.cgroup_mounts().items()}
    for place in set(places.values()):
        os.mkdir(place)
        rootless.delegate(place, alice)
    begin = f"echo 0 >{places['']}/cgroup.procs; " if "" in places else ""
    runtime = Runtime(
        mine.runtime.path, alice.home / "state", ["/bin/sh", "-c", f'{begin}exec "$@"', "sh", *alice.prefix()]
    )
    first, second = (
        new_container(bundle, at=runtime) for bundle in (mine.bundle, rootless.bundle(new_bundle(), alice))
    )
    mapping = [{"containerID": 0, "hostID": alice.first, "size": 1000}]
    first.bundle.linux(uidMappings=mapping, gidMappings=mapping)
    uids = {"Uid:\t" + "\t".join([str(alice.first + uid)] * 4) for uid in (0, 5)}

    def check(container: Container, pid: int) -> None:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        assert f"/{CGROUP_PREFIX}/alice/{container.id}" in {
            line.split(":")[2] for line in lines if line.split(":")[1] == "pids"
        }
        assert Path(places["pids"], container.id, "pids.max").read_text() == "50\n"
        assert uids & set(Path(f"/proc/{pid}/status").read_text().splitlines())

    try:
        for container in (first, second):
            path = f"/{CGROUP_PREFIX}/alice/{container.id}"
            container.bundle.linux(cgroupsPath=path, resources={"pids": {"limit": 50}})
            container.bundle.process(user={"uid": 5, "gid": 5})
            container.bundle.rootfs.chmod(0o777)  # its owner has no ID in there
            container.pid_file = alice.home / f"{container.id}.pid"
            container.begin("pause")
            check(container, container.pid)
            pid_file = alice.home / "exec.pid"
            container.execute("pause", flags=["--detach", "--user", "0", "--pid-file", str(pid_file)]).ok()
            pid = int(pid_file.read_text())
            check(container, pid)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            second.bundle.linux(uidMappings=None, gidMappings=None)
            second.bundle.namespace("user", f"/proc/{first.pid}/ns/user")
        for container in (second, first):
            container.destroy()
    finally:
        for place in set(places.values()):
            os.rmdir(place)


def test_ns_in_a_container(mine: Container, alice: User, new_bundle: Callable[[], Bundle]) -> None:
    """A container in a container: three levels of PIDs on the host, and inside all that can be known there [L1, L6]."""
    rootless.inside(mine.runtime, mine.bundle)
    rootless.innermost(mine.bundle, new_bundle(), "pause")
    alice.own(mine.bundle.path)
    mine.begin("pause")

    def inside(*words: str) -> Result:
        return mine.runtime("exec", mine.id, "/runtime", "--root", "/state", *words).ok()

    inside("create", "--bundle", "/inner", "inner")
    (pid,) = Path(f"/proc/{mine.pid}/task/{mine.pid}/children").read_text().split()
    levels = levels_of(int(pid))
    assert len(levels) == 3
    for expected in ("created", "running"):
        report = inside("ns", "-f", "json", "inner").json
        assert (report["status"], report["pids"]) == (expected, levels[1:])
        same = {entry["type"] for entry in report["namespaces"] if entry["same"]}
        assert not same & {"pid", "user", "mount", "ipc", "uts"}
        for entry in report["namespaces"]:
            name = {"mount": "mnt", "network": "net"}.get(entry["type"], entry["type"])
            assert f"{name}:[{entry['inode']}]" == os.readlink(f"/proc/{pid}/ns/{name}")
        assert "root in the container is uid 1000, gid 1000 outside" in report["words"]
        if expected == "created":
            inside("start", "inner")
    inside("delete", "--force", "inner")
    assert namespaces(mine)["pids"] == levels_of(mine.pid)


def levels_of(pid: int) -> list[int]:
    """NSpid of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return [int(word) for word in status.partition("NSpid:")[2].splitlines()[0].split()]


# ---- after the filter

# What the init process of a container uses before the filter, and a static program does not need to start and end.
BEFORE_THE_FILTER = (
    "prctl fcntl sendmsg recvmsg statx openat2 mount_setattr move_mount open_tree close_range capset capget getcwd "
    "chdir setresuid setresgid setgroups setsid clone clone3 wait4 kill dup3 pread64 lseek faccessat faccessat2 seccomp"
).split()


def test_calls_after_the_filter(mine: Container) -> None:
    """A profile that kills for whatever else the runtime does: create, exec and start work [SECURITY D.10]."""
    killed = {"names": BEFORE_THE_FILTER, "action": "SCMP_ACT_KILL_PROCESS"}
    mine.bundle.linux(seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [killed]})
    mine.bundle.process(noNewPrivileges=True)
    mine.bundle.args("syscall 39", "syscall 157 3")
    mine.create()
    assert mine.execute("syscall 39").ok().replies[0]["errno"] == 0
    assert namespaces(mine)["status"] == "created"
    mine.start()
    assert mine.wait() == 128 + signal.SIGSYS  # the profile is in force
    assert mine.replies[0]["result"] == 1
