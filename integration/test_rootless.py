"""Containers of ordinary users: what needs no privilege works, what does is refused at its field [L6, G2, D9, N3]."""

from __future__ import annotations

import os
import select
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.lib import host, rootless
from integration.lib.bundle import Bundle
from integration.lib.container import Container, wait_until
from integration.lib.leaks import Leaks
from integration.lib.probe import mount_at
from integration.lib.rootless import SUBIDS, User
from integration.lib.runtime import Runtime

pytestmark = pytest.mark.requires("userns", "file:/usr/bin/newuidmap", "file:/etc/subuid", "file:/etc/subgid")

Users = dict[str, User]


# ---- the way in


def test_spec_and_run(alice: User, runtime: Runtime, new_bundle: Callable[[], Bundle]) -> None:
    """`spec --rootless` and `run` are all it takes [K14]."""
    bundle = new_bundle()
    alice.own(bundle.path)
    alice.run(runtime.path, "spec", "--rootless", cwd=bundle.path).ok()
    file = bundle.path / "config.json"
    text = file.read_text().replace('"terminal": true', '"terminal": false')
    file.write_text(text.replace('"sh"', '"/probe", "report"'))
    report = alice.run(runtime.path, "run", "hello", cwd=bundle.path).ok().replies[0]
    assert report["uids"] == [0, 0, 0]
    assert report["uid_map"].split() == ["0", str(alice.uid), "1"]
    assert report["pid"] == 1
    for point in ("/sys", "/sys/fs/cgroup"):
        assert {"ro", "nosuid", "nodev", "noexec"} <= mount_at(report["mountinfo"], point).options


def test_single_id(single: Container, alice: User) -> None:
    """The own ID alone needs no helper; setgroups(2) is denied then [L6]. What root writes is the user's."""
    report, _ = single.probe("report", "create /made root")
    assert report["uid_map"].split() == ["0", str(alice.uid), "1"]
    assert report["gid_map"].split() == ["0", str(alice.gid), "1"]
    assert report["setgroups"] == "deny\n"
    assert report["groups"] == []
    found = (single.bundle.rootfs / "made").stat()
    assert (found.st_uid, found.st_gid) == (alice.uid, alice.gid)


def test_several_ids(mine: Container, alice: User) -> None:
    """Subordinate IDs come through newuidmap and newgidmap [L6]; both sides of the mapping are seen on the host."""
    volume = mine.bundle.path / "volume"
    volume.mkdir()
    os.chmod(volume, 0o777)
    mine.bundle.mount("/volume", str(volume), "rbind")
    mine.bundle.process(user={"uid": 1000, "gid": 2000, "additionalGids": [5, 3000]})
    report, _ = mine.probe("report", "create /volume/made user")
    assert report["uid_map"].split() == ["0", str(alice.uid), "1", "1", str(alice.first + 1), str(SUBIDS - 1)]
    assert report["uids"] == [1000, 1000, 1000]
    assert sorted(report["groups"]) == [5, 3000]
    found = (volume / "made").stat()
    assert (found.st_uid, found.st_gid) == (alice.first + 1000, alice.first + 2000)


@pytest.mark.parametrize("count", [10, 200])
def test_many_lines(mine: Container, alice: User, count: int) -> None:
    """A map of ten lines arrives as ten lines; so does one that is longer than what the kernel gives in one read."""
    lines = [{"containerID": n, "hostID": alice.first + 10 * n, "size": 3 if n == 9 else 1} for n in range(1, 10)]
    lines += [{"containerID": n, "hostID": alice.first + 10 * n, "size": 1} for n in range(20, 10 + count)]
    mine.bundle.linux(
        uidMappings=[{"containerID": 0, "hostID": alice.uid, "size": 1}, *lines],
        gidMappings=[*lines, {"containerID": 0, "hostID": alice.gid, "size": 1}],
    )
    mine.bundle.drop_mount("/dev/pts")
    report = mine.report()
    wanted = [[str(line[key]) for key in ("containerID", "hostID", "size")] for line in lines]
    for key, own in (("uid_map", alice.uid), ("gid_map", alice.gid)):
        found = sorted((line.split() for line in report[key].splitlines()), key=lambda words: int(words[0]))
        assert found == [["0", str(own), "1"], *wanted]


@pytest.mark.parametrize(("count", "pointer"), [(400, "/linux/uidMappings/340"), (330, "/linux/uidMappings")])
def test_too_many_lines(mine: Container, alice: User, count: int, pointer: str) -> None:
    """The kernel takes 340 lines, and less than a page: all or an error, never a part."""
    lines = [{"containerID": n, "hostID": alice.first + 2 * n, "size": 1} for n in range(count)]
    mine.bundle.linux(uidMappings=lines)
    result = mine.create(check=False)
    assert result.code != 0
    if mine.runtime.ours:
        assert pointer + ":" in result.error


# ---- who may have which IDs


@pytest.mark.parametrize("missing", ["newuidmap", "newgidmap"])
def test_missing_helper(mine: Container, missing: str) -> None:
    """A helper that is not there is named, with the field that needs it."""
    script = f'mount --bind /etc/hostname /usr/bin/{missing} && exec "$@"'
    mine.runtime.prefix = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *mine.runtime.prefix]
    result = mine.create(check=False)
    assert result.code != 0
    if mine.runtime.ours:
        assert missing in result.error
        assert f"/linux/{missing[3:6]}Mappings" in result.error


@pytest.mark.ours_only("G2: how to have it right is said")
@pytest.mark.parametrize("helper", ["newuidmap", "newgidmap"])
def test_helper_without_privilege(mine: Container, tmp_path: Path, helper: str) -> None:
    """A helper that is installed without its privilege writes no map: it, the field and the cure are named [L6]."""
    copy = tmp_path / helper
    shutil.copyfile(f"/usr/bin/{helper}", copy)
    copy.chmod(0o755)
    script = f'mount --bind {copy} /usr/bin/{helper} && exec "$@"'
    mine.runtime.prefix = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *mine.runtime.prefix]
    result = mine.create(check=False)
    assert result.code != 0
    assert f"/linux/{helper[3:6]}Mappings: '/usr/bin/{helper}': has not written the map" in result.error
    assert "setuid root" in result.error


@pytest.mark.ours_only("others leave a half-made container for delete to remove")
@pytest.mark.parametrize("helper", ["newuidmap", "newgidmap"])
def test_helper_that_takes_its_time(mine: Container, alice: User, leaks: Leaks, tmp_path: Path, helper: str) -> None:
    """A signal that asks create to give up ends a helper that waits (for a directory service, say), too [K1, L6]."""
    copy, mark = tmp_path / helper, alice.home / "mark"
    copy.write_text(f"#!/bin/sh\necho x >{mark}\nexec sleep 60\n")
    copy.chmod(0o755)
    script = f'mount --bind {copy} /usr/bin/{helper} && exec "$@"'
    mine.runtime.prefix = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *mine.runtime.prefix]
    mine.bundle.write()
    process = mine.runtime.spawn("create", "--bundle", str(mine.bundle.path), mine.id, stderr=subprocess.PIPE)
    try:
        wait_until(mark.exists, what="the helper")
        process.terminate()
        error = process.communicate(timeout=30)[1]
        assert process.returncode == 128 + signal.SIGTERM and b"interrupted by signal 15" in error
    finally:
        process.kill()
        mark.unlink(missing_ok=True)
    leaks.check()


@pytest.mark.parametrize("name", ["alice", "carol"])
def test_ids_that_are_not_granted(
    users: Users, name: str, runtime: Runtime, new_bundle: Callable[[], Bundle], new_container: Callable[..., Container]
) -> None:
    """Not granted in /etc/subuid: the mapping is named, and what is missing."""
    user = users[name]
    bundle = rootless.bundle(new_bundle(), user)
    start = user.first + SUBIDS - 10 if user.granted else user.first
    bundle.config["linux"]["uidMappings"][1] = {"containerID": 1, "hostID": start, "size": 20}
    result = new_container(bundle, at=user.runtime(runtime)).create(check=False)
    assert result.code != 0
    if runtime.ours:
        assert f"/linux/uidMappings/1: {start} to {start + 19}: not granted to user {user.uid}" in result.error
        assert f"the own ID ({user.uid})" in result.error


@pytest.mark.ours_only("L6: the field is named")
@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([(0, 0, 2)], "/linux/uidMappings/0/hostID: 0 to 1: the runtime's own user namespace"),
        ([(0, 0, 1), (1, 5, 1)], "/linux/uidMappings/1/hostID: 5: the runtime's own user namespace"),
    ],
)
def test_ids_that_the_own_namespace_lacks(single: Container, lines: list[tuple[int, int, int]], words: str) -> None:
    """Root of a user namespace gives what it has; of the rest the kernel says EPERM, and we say which [L6]."""
    single.runtime.prefix = [*single.runtime.prefix, "unshare", "--user", "--map-root-user"]
    names = ("containerID", "hostID", "size")
    single.bundle.config["linux"]["uidMappings"] = [dict(zip(names, line, strict=True)) for line in lines]
    single.bundle.config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 0, "size": 1}]
    result = single.create(check=False)
    assert result.code != 0
    assert words in result.error


@pytest.mark.ours_only("L6: the field is named")
def test_more_than_the_own_id(mine: Container, alice: User) -> None:
    """A range that begins with the own ID is no map of the own ID: the rest has to be granted [L6]."""
    mine.bundle.config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": alice.uid, "size": 2}]
    result = mine.create(check=False)
    assert result.code != 0
    assert f"/linux/uidMappings/0: {alice.uid} to {alice.uid + 1}: not granted" in result.error


@pytest.mark.ours_only("L6: the field is named")
@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"process": {"user": {"uid": 1, "gid": 0}}}, "/process/user/uid"),
        ({"process": {"user": {"uid": 0, "gid": 7}}}, "/process/user/gid"),
        ({"process": {"user": {"uid": 0, "gid": 0, "additionalGids": [0]}}}, "/process/user/additionalGids"),
        ({"linux": {"uidMappings": [{"containerID": 1, "hostID": 47001, "size": 1}]}}, "/linux/uidMappings"),
    ],
)
def test_ids_that_are_not_mapped(single: Container, change: dict[str, object], pointer: str) -> None:
    """What the namespace does not have is refused before anything is made [U4]."""
    single.bundle.merge(change)
    result = single.create(check=False)
    assert result.code != 0
    assert pointer + ":" in result.error


@pytest.mark.parametrize("kind", ["tmpfs", "devpts"])
def test_owner_options_that_are_not_mapped(single: Container, kind: str) -> None:
    """uid= and gid= of a new file system are IDs of the container [M13]."""
    single.bundle.mount("/data", kind, "gid=5", type=kind)
    result = single.create(check=False)
    assert result.code != 0
    if single.runtime.ours:
        assert f"/mounts/{len(single.bundle.config['mounts']) - 1}/options/0" in result.error


def test_owner_of_files_made_for_the_container(mine: Container, alice: User) -> None:
    """tmpfs options, a FIFO of /linux/devices: IDs of the container, seen as such inside."""
    mine.bundle.mount("/data", "tmpfs", "uid=7", "gid=8", "mode=0750", type="tmpfs")
    mine.bundle.linux(devices=[{"type": "p", "path": "/pipe", "uid": 9, "gid": 10, "fileMode": 0o640}])
    data, pipe = mine.probe("stat /data", "stat /pipe")
    assert (data["uid"], data["gid"], data["mode"]) == (7, 8, 0o750)
    assert (pipe["uid"], pipe["gid"], pipe["mode"], pipe["type"]) == (9, 10, 0o640, "p")
    found = (mine.bundle.rootfs / "pipe").stat()
    assert (found.st_uid, found.st_gid) == (alice.first + 9, alice.first + 10)


# ---- groups


def test_access_through_a_group(mine: Container, alice: User, tmp_path: Path) -> None:
    """A bind source that only a supplementary group of the caller reaches; inside, the group is given up [U4]."""
    closed = tmp_path / "closed"
    (closed / "inner").mkdir(parents=True)
    (closed / "inner" / "file").write_text("x")
    os.chown(closed, 0, 47999)
    closed.chmod(0o750)
    mine.runtime.prefix = alice.prefix(groups="47999")
    mine.bundle.mount("/data", str(closed / "inner"), "rbind")
    read, report = mine.probe("read /data/file", "report")
    assert read["data"] == "x"
    assert report["groups"] == []


def test_keep_original_groups(mine: Container, alice: User, tmp_path: Path) -> None:
    """The annotation keeps the caller's groups, in exec too: what only they open can be used inside [N3]."""
    shared = tmp_path / "shared"
    shared.write_text("for the group")
    os.chown(shared, 0, 47999)
    shared.chmod(0o640)
    mine.runtime.prefix = alice.prefix(groups="47999")
    mine.bundle.merge({"annotations": {"run.oci.keep_original_groups": "1"}})
    mine.bundle.mount("/shared", str(shared), "bind")
    mine.begin("read /shared", "pause")
    assert mine.replies[0]["data"] == "for the group"
    assert mine.execute("read /shared").replies[0]["data"] == "for the group"


# ---- files that the container's root cannot reach


def test_private_places(mine: Container, alice: User) -> None:
    """The bundle and bind sources may be below directories of the user that nobody else enters."""
    place = alice.home / mine.id
    (place / "secret").mkdir(parents=True)
    (place / "secret" / "file").write_text("mine")
    os.link(mine.bundle.probe, place / "probe")
    alice.own(place)
    for path, mode in ((place / "secret", 0o700), (place / "secret" / "file", 0o644), (place, 0o700)):
        path.chmod(mode)
    # the container's root is a subordinate ID: to it, all of that is closed
    for key in ("uidMappings", "gidMappings"):
        mine.bundle.config["linux"][key] = [{"containerID": 0, "hostID": alice.first, "size": SUBIDS}]
    rootfs = place / "rootfs"
    rootfs.mkdir()
    for name in ("proc", "dev", "sys", "data"):
        (rootfs / name).mkdir()
    (rootfs / "file").touch()
    os.link(mine.bundle.probe, rootfs / "probe")
    mine.bundle.merge({"root": {"path": str(rootfs)}})
    mine.bundle.mount("/file", str(place / "secret" / "file"), "bind")
    read, report = mine.probe("read /file", "report")
    assert read["data"] == "mine"
    assert report["uid_map"].split() == ["0", str(alice.first), str(SUBIDS)]


def test_places_closed_to_the_root_of_the_namespace(container: Container, alice: User, tmp_path: Path) -> None:
    """As root, with a user namespace: rootfs, directories and files below directories of others [L6, M3]."""
    closed = tmp_path / "closed"
    (closed / "inner").mkdir(parents=True)
    (closed / "inner" / "file").write_text("inner")
    (closed / "file").write_text("file")
    (closed / "bundle").mkdir()
    container.bundle.user_namespace()
    container.bundle.rootfs.rename(closed / "bundle" / "rootfs")
    container.bundle.merge({"root": {"path": str(closed / "bundle" / "rootfs")}})
    container.bundle.mount("/data", str(closed / "inner"), "rbind")
    container.bundle.mount("/file", str(closed / "file"), "bind")
    os.chown(closed, alice.uid, alice.gid)
    closed.chmod(0o700)
    first, second = container.probe("read /data/file", "read /file")
    assert (first["data"], second["data"]) == ("inner", "file")


# ---- what the kernel refuses in user namespaces


def test_flags_of_the_host_stay(single: Container, tmp_path: Path) -> None:
    """A bind keeps what its source has and a user namespace may not take away, unless the config asks for it."""
    place = tmp_path / "locked"
    place.mkdir()
    host.mount("tmpfs", str(place), "tmpfs", 0, "mode=755")
    host.mount("none", str(place), "", 32 | host.MS_BIND | host.MS_RDONLY | 2 | 4 | 8 | 1024)
    try:
        single.bundle.mount("/data", str(place), "rbind")
        options = mount_at(single.report()["mountinfo"], "/data").options
        assert {"ro", "nosuid", "nodev", "noexec", "noatime"} <= options
        if single.runtime.ours:
            single.bundle.config["mounts"][-1]["options"] = ["rbind", "rw"]
            result = single.create(check=False)
            assert result.code != 0
            assert f"/mounts/{len(single.bundle.config['mounts']) - 1}" in result.error
            assert "locked" in result.error
    finally:
        host.umount(str(place))


def test_part_of_a_tree(single: Container, tmp_path: Path) -> None:
    """A bind without what is mounted inside it would uncover what that hides: the kernel refuses, rbind is told of."""
    place = tmp_path / "tree"
    (place / "inner").mkdir(parents=True)
    host.mount("tmpfs", str(place / "inner"), "tmpfs", 0, "mode=755")
    try:
        single.bundle.mount("/data", str(place), "bind")
        result = single.create(check=False)
        assert result.code != 0
        if single.runtime.ours:
            assert f"/mounts/{len(single.bundle.config['mounts']) - 1}" in result.error
            assert "rbind" in result.error
        single.bundle.config["mounts"][-1]["options"] = ["rbind"]
        single.probe("statfs /data/inner")
    finally:
        host.umount(str(place / "inner"))


def test_sysfs_of_the_host(single: Container) -> None:
    """Without a network namespace of its own there is no new sysfs: the host's is bound, its flags kept [M13]."""
    single.bundle.drop_namespace("network")
    options = mount_at(single.report()["mountinfo"], "/sys").options
    assert {"ro", "nosuid", "nodev", "noexec"} <= options


def test_proc_of_the_host(single: Container) -> None:
    """Without a PID namespace of its own there is no new procfs: the host's is bound, with what is on it [M2]."""
    single.bundle.drop_namespace("pid")
    report = single.report()
    assert report["pid"] != 1
    assert mount_at(report["mountinfo"], "/proc").type == "proc"


@pytest.mark.ours_only("hints")
@pytest.mark.parametrize(
    ("section", "value", "pointer", "words"),
    [
        (
            "devices",
            {"path": "/dev/no-such", "type": "c", "major": 1, "minor": 77},
            "/linux/devices/0",
            "from the host",
        ),
        ("mounts", {"type": "ext4", "source": "/dev/no-such", "destination": "/data"}, "/mounts/", "'ext4'"),
        ("oomScoreAdj", -900, "/process/oomScoreAdj", "CAP_SYS_RESOURCE"),
    ],
)
def test_what_users_cannot_have(single: Container, section: str, value: object, pointer: str, words: str) -> None:
    """The error says whose right it is [A4]."""
    if section == "devices":
        single.bundle.linux(devices=[value])
    elif section == "mounts":
        single.bundle.config["mounts"].append(value)
    else:
        single.bundle.process(**{section: value})
    result = single.create(check=False)
    assert result.code != 0
    assert pointer in result.error
    assert words in result.error.partition("(hint: ")[2]


@pytest.mark.ours_only("others have no procfs without a PID namespace of their own")
def test_the_host_is_not_above_proc(single: Container) -> None:
    """The waiting init keeps a directory of the host's procfs then; nothing is above it, whoever keeps the old root."""
    single.bundle.drop_namespace("pid")
    probe = str(single.bundle.probe)
    mark = single.bundle.path / "hook.pid"
    script = f"{probe} sleep 1000000 >/dev/null 2>&1 </dev/null & echo $! >{mark}"
    single.bundle.merge({"hooks": {"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}})
    single.create()
    keeper = os.pidfd_open(int(mark.read_text()))
    try:
        directory = f"/proc/{single.pid}/fd"
        opened = single.execute(f"ls {directory}").ok().replies[0]
        assert opened["errno"] == 0
        for number in opened["names"]:
            for above in ("..", "../..", "../../.."):
                read = single.execute(f"ls {directory}/{number}/{above}").replies[0]
                assert "etc" not in read["names"], read["path"]
    finally:
        signal.pidfd_send_signal(keeper, signal.SIGKILL)
        select.select([keeper], [], [], 60)
        os.close(keeper)


# ---- the whole life


def test_life(mine: Container, alice: User) -> None:
    """Every command works for the user; exec already in a created container."""
    runtime = mine.runtime
    mine.create()
    assert mine.state()["status"] == "created"
    created = mine.execute("report").ok().replies[0]
    assert created["uid_map"].split()[:3] == ["0", str(alice.uid), "1"]
    assert created["namespaces"]["pid"] == os.readlink(f"/proc/{mine.pid}/ns/pid")
    mine.start()
    assert mine.id in runtime("list", "-q").ok().text.split()
    mine.wait()
    assert mine.state()["status"] == "stopped"
    mine.delete()


def test_commands_on_a_running_container(mine: Container) -> None:
    """ps, exec, kill and delete --force of a process that has another ID than the user."""
    mine.bundle.process(user={"uid": 1000, "gid": 1000})
    mine.begin("report", "pause")
    assert mine.execute("report").ok().replies[0]["uids"] == [1000, 1000, 1000]
    mine.kill("KILL")
    assert mine.wait() == 128 + 9
    mine.delete("--force")


def test_oom_score_of_exec(mine: Container) -> None:
    """Raising it needs no rights, but inside, the file of an exec process is somebody else's [U9, K4]."""
    mine.bundle.process(oomScoreAdj=300)
    mine.begin("report", "pause")
    assert mine.replies[0]["oom_score_adj"] == "300\n"
    assert mine.execute("report").ok().replies[0]["oom_score_adj"] == "300\n"


def test_oom_score_of_exec_for_root(container: Container) -> None:
    """The same with root as the caller."""
    container.bundle.user_namespace()
    container.bundle.process(oomScoreAdj=300)
    container.begin("report", "pause")
    assert container.execute("report").ok().replies[0]["oom_score_adj"] == "300\n"


def test_another_users_container(mine: Container, users: Users) -> None:
    """A second user neither sees nor reaches it, and is told so."""
    mine.begin("report", "pause")
    bob = users["bob"]
    theirs = bob.runtime(mine.runtime)
    assert theirs("list", "-q").text.split() == []
    theirs.root = mine.runtime.root
    for words in (("state", mine.id), ("kill", mine.id, "KILL"), ("delete", "--force", mine.id),
                  ("exec", mine.id, "/probe", "report"), ("list",)):  # fmt: skip
        result = theirs(*words)
        if words[0] != "delete" or mine.runtime.ours:
            assert result.code != 0, words
        if mine.runtime.ours:
            assert "permission denied" in result.error, words
            assert "--root" in result.error, words
    assert mine.state()["status"] == "running"


def test_default_state_root(mine: Container, alice: User) -> None:
    """Without --root it is $XDG_RUNTIME_DIR/ociruntime, closed to others and not to be cleaned away [G2]."""
    mine.runtime.bare("list").ok()
    if mine.runtime.ours:
        found = (alice.xdg / "ociruntime").stat()
        assert stat.S_IMODE(found.st_mode) == 0o1700
        assert found.st_uid == alice.uid


# ---- cgroups


def test_no_cgroup_is_fine(mine: Container) -> None:
    """Neither path nor limits asked for: the container runs in the caller's cgroup; with own PIDs, silently [D9]."""
    result = mine.run(check=True)
    if mine.runtime.ours:
        assert result.error == ""
        mine.bundle.drop_namespace("pid")
        assert "cannot create the cgroup" in mine.run(check=True).error


@pytest.mark.ours_only("runc and crun have other words, or none")
def test_kill_all_without_a_cgroup(mine: Container) -> None:
    """No cgroup tells whom: the first process gets the signal, and with it all of a PID namespace end; ps says so."""
    mine.begin("signals")
    result = mine.command("ps")
    assert result.code != 0
    assert "needs a cgroup" in result.error
    assert "only the first" in mine.kill("USR1", flags=["--all"]).error
    mine.wait_replies(2)
    assert mine.kill("KILL", flags=["--all"]).error == ""
    assert mine.wait() == 137


@pytest.mark.parametrize(
    ("linux", "pointer"),
    [
        ({"cgroupsPath": "/no/rights"}, "/linux/cgroupsPath"),
        ({"resources": {"pids": {"limit": 10}}}, "cgroup"),
        ({"resources": {"memory": {"limit": 1 << 26}}}, "cgroup"),
    ],
)
def test_cgroup_that_is_asked_for(mine: Container, linux: dict[str, object], pointer: str) -> None:
    """A path or a limit that cannot be had is an error with a hint; rules for devices alone are ignored [D9]."""
    mine.bundle.linux(**linux)
    result = mine.create(check=False)
    assert result.code != 0
    if mine.runtime.ours:
        assert pointer in result.error
        assert "delegated" in result.error
    mine.bundle.linux(cgroupsPath=None, resources=None)
    mine.bundle.linux(resources={"devices": [{"allow": False, "access": "rwm"}]})
    mine.run(check=True)


# ---- in user namespaces of others


def test_nested(mine: Container, alice: User, new_bundle: Callable[[], Bundle]) -> None:
    """A container of an ordinary user runs the runtime, which makes a container: three levels of PIDs."""
    rootless.inside(mine.runtime, mine.bundle)
    rootless.innermost(mine.bundle, new_bundle(), "report", "read /proc/self/status")
    alice.own(mine.bundle.path)
    report, status = mine.run(check=True).replies
    assert report["pid"] == 1
    assert report["uid_map"].split() == ["0", "1000", "1", "1", "2000", "100"]
    assert status["errno"] == 0
