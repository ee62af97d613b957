"""exec: where the process goes, and that nobody gets at it on its way."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.conftest import Give
from integration.lib import host
from integration.lib.bundle import CGROUP_PREFIX
from integration.lib.container import Container, alive, wait_until
from integration.lib.runtime import Runtime as Tested, run


@pytest.fixture
def running(container: Container) -> Container:
    """A container that waits."""
    return container.begin("pause")


# -- cgroups [K5] --


def own_directories(container: Container) -> dict[str, Path]:
    """Controller -> directory of the container's cgroup."""
    found = {}
    for name, point in host.cgroup_mounts().items():
        path = Path(point, CGROUP_PREFIX, container.id)
        if path.exists():
            found[name] = path
    return found


@pytest.mark.requires("v1:pids", "v1:memory")
def test_sub_cgroup_v1(running: Container, give: Give) -> None:
    """--cgroup CONTROLLER:PATH puts the process there, other controllers stay; outside is refused [K5]."""
    places = own_directories(running)
    (places["pids"] / "sub").mkdir()
    give(places["pids"] / "sub")
    beside = places["pids"].parent / f"{running.id}x"
    beside.mkdir()
    try:
        report = running.execute("report", flags=["--cgroup", "pids:sub"]).ok().replies[0]
        lines = {line.split(":")[1]: line.split(":")[2] for line in report["cgroup"].splitlines()}
        assert lines["pids"].endswith(f"{running.id}/sub")
        assert lines["memory"].endswith(running.id)
        for path in ("pids:../x", f"pids:../{running.id}x", "pids:/../..", "pids:nope", "nonsense:sub"):
            if running.runtime.ours or ".." not in path:
                result = running.execute("echo ran", flags=["--cgroup", path])
                assert (result.code, result.out) == (255, b""), result
        if running.runtime.ours:
            assert running.execute("echo ran", flags=["--cgroup", "pids:sub/../../.."]).code == 255
            assert running.execute("exit 4", flags=["--cgroup", "pids:/sub/."]).code == 4
    finally:
        wait_until(lambda: not (places["pids"] / "sub" / "cgroup.procs").read_text())
        (places["pids"] / "sub").rmdir()
        beside.rmdir()


@pytest.mark.requires("v1:pids")
def test_one_sub_cgroup_for_all_v1(running: Container, give: Give) -> None:
    """--cgroup PATH without controllers is that path in every hierarchy [K5]."""
    places = [path for name, path in own_directories(running).items() if name]
    for place in dict.fromkeys(places):
        (place / "sub").mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (place / name).exists():
                (place / "sub" / name).write_text((place / name).read_text())
        give(place / "sub")
    try:
        report = running.execute("report", flags=["--cgroup", "sub"]).ok().replies[0]
        lines = [line for line in report["cgroup"].splitlines() if not line.startswith("0::") and running.id in line]
        assert lines
        assert all(line.endswith("/sub") for line in lines)
        (places[0] / "sub").rmdir()
        result = running.execute("echo ran", flags=["--cgroup", "sub"])
        assert (result.code, result.out) == (255, b"")
    finally:
        for place in places:
            if (place / "sub").exists():
                (place / "sub").rmdir()


@pytest.mark.ours_only("D4: a frozen sub-cgroup is refused; runc and crun wait for ever")
@pytest.mark.requires("v1:freezer")
def test_frozen_sub_cgroup_v1(running: Container, give: Give) -> None:
    """A process would never begin in a sub-cgroup that is frozen: exec fails at once, and says why [D4]."""
    place = own_directories(running)["freezer"] / "sub"
    place.mkdir()
    give(place)
    try:
        (place / "freezer.state").write_text("FROZEN")
        result = running.execute("echo ran", flags=["--cgroup", "freezer:sub"], timeout=20)
        assert (result.code, result.out) == (255, b"")
        assert f"frozen its cgroup '{place}'" in result.error
        assert running.execute("exit 4").code == 4
    finally:
        place.rmdir()


@pytest.mark.ours_only("D4: a frozen sub-cgroup is refused; runc and crun wait for ever")
@pytest.mark.requires("v2")
def test_frozen_sub_cgroup_v2(
    new_container: Callable[..., Container], runtime: Tested, v2_prefix: list[str], give: Give
) -> None:
    """The same on v2, also where exec follows init into a sub-cgroup [D4]."""
    container = new_container(at=runtime.within(v2_prefix))
    container.begin("pause")
    mine = Path(host.cgroup_mounts()[""], CGROUP_PREFIX, container.id)
    place = mine / "sub"
    place.mkdir()
    give(place)
    try:
        (place / "cgroup.procs").write_text(str(container.pid))
        (place / "cgroup.freeze").write_text("1")
        wait_until(lambda: "frozen 1" in (place / "cgroup.events").read_text())
        ways = [["--cgroup", "sub"]]
        controllers = (mine / "cgroup.controllers").read_text().split()
        if controllers:
            (mine / "cgroup.subtree_control").write_text(f"+{controllers[0]}")
            ways.append([])
        for flags in ways:
            result = container.execute("echo ran", flags=flags, timeout=20)
            assert (result.code, result.out) == (255, b"")
            assert "has frozen its cgroup" in result.error
    finally:
        container.delete("--force")


@pytest.mark.requires("v2")
def test_sub_cgroup_v2(
    new_container: Callable[..., Container], runtime: Tested, v2_prefix: list[str], give: Give
) -> None:
    """v2: --cgroup PATH below the container's; default the container's own, or where init is [K5]."""
    container = new_container(at=runtime.within(v2_prefix))
    container.begin("pause")
    mine = Path(host.cgroup_mounts()[""], CGROUP_PREFIX, container.id)

    def place(*flags: str) -> str:
        text = container.execute("report", flags=flags).ok().replies[0]["cgroup"]
        return next(line for line in str(text).splitlines() if line.startswith("0::"))

    assert place().endswith(f"/{container.id}")
    (mine / "sub").mkdir()
    give(mine / "sub")
    try:
        assert place("--cgroup", "sub").endswith(f"/{container.id}/sub")
        assert place("--cgroup", "/sub").endswith(f"/{container.id}/sub")
        for path in ("..", "../..", f"../{container.id}", "nope", "sub/../.."):
            result = container.execute("echo ran", flags=["--cgroup", path])
            assert (result.code, result.out) == (255, b""), result
        (mine / "sub" / "cgroup.procs").write_text(str(container.pid))
        controllers = (mine / "cgroup.controllers").read_text().split()
        if controllers:
            # a cgroup that hands out controllers takes no processes: exec goes where init is
            (mine / "cgroup.subtree_control").write_text(f"+{controllers[0]}")
            assert place().endswith(f"/{container.id}/sub")
            if runtime.ours:
                assert container.execute("echo ran", flags=["--cgroup", "/"]).code == 255
            (mine / "cgroup.subtree_control").write_text(f"-{controllers[0]}")
        (mine / "cgroup.procs").write_text(str(container.pid))
    finally:
        (mine / "sub").rmdir()


# -- other containers --


def test_user_namespace(container: Container) -> None:
    """exec in a container with a user namespace: its ids, its capabilities [K4, L6]."""
    container.bundle.user_namespace()
    container.bundle.process(user={"uid": 5, "gid": 6, "additionalGids": [7]})
    container.bundle.args("pause")
    container.create()
    container.start()
    container.wait_replies(1)
    report = container.execute("report").ok().replies[0]
    assert (report["uids"], report["gids"], report["groups"]) == ([5, 5, 5], [6, 6, 6], [7])
    assert report["uid_map"].split() == ["0", "400000", "65536"]
    assert os.readlink(f"/proc/{container.pid}/ns/user") == report["namespaces"]["user"]
    if container.runtime.ours:
        assert container.execute("echo x", flags=["--user", "65536"]).code == 255


@pytest.mark.parametrize("score", [0, 300])
def test_oom_score_in_a_user_namespace(container: Container, tmp_path: Path, score: int) -> None:
    """oomScoreAdj of a --process file, in a container with a user namespace: engines always send one [K4, U9]."""
    container.bundle.user_namespace()
    container.bundle.process(oomScoreAdj=score)
    container.begin("pause")
    path = tmp_path / "process.json"
    path.write_text(json.dumps({**container.bundle.config["process"], "args": ["/probe", "report"]}))
    report = container.runtime("exec", "--process", str(path), container.id).ok().replies[0]
    assert report["oom_score_adj"] == f"{score}\n"


@pytest.mark.parametrize("kind", ["pid", "mount", "network", "uts", "ipc"])
def test_missing_namespace(container: Container, kind: str) -> None:
    """exec in a container that shares this namespace with the host [K4, L1]."""
    container.bundle.drop_namespace(kind)
    if kind == "mount":
        container.bundle.no_mount_rules()
        container.bundle.config["mounts"] = []
    if kind == "network":
        container.bundle.drop_mount("/sys")
    if kind == "ipc":
        container.bundle.drop_mount("/dev/mqueue")
    if kind == "uts":
        container.bundle.merge({"hostname": None})
    container.begin("pause")
    result = container.execute("report", "exit 3")
    assert result.code == 3
    if kind != "mount":
        name = "net" if kind == "network" else kind
        assert result.replies[0]["namespaces"][name] == os.readlink(f"/proc/self/ns/{name}")
    else:
        assert result.replies[0]["cwd"] == "/"
        assert container.execute("stat /probe").ok().replies[0]["errno"] == 0
        assert container.execute("stat /etc/passwd").ok().replies[0]["errno"] == 2


def test_joined_namespaces(container: Container, new_container: Callable[..., Container]) -> None:
    """exec in a container that has joined namespaces of another one [K4, L1]."""
    container.begin("pause")
    other = new_container()
    for kind, name in (("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")):
        other.bundle.namespace(kind, f"/proc/{container.pid}/ns/{name}")
    other.bundle.merge({"hostname": None})
    other.begin("pause")
    report = other.execute("report").ok().replies[0]
    for name in ("net", "ipc", "uts", "pid"):
        assert report["namespaces"][name] == os.readlink(f"/proc/{container.pid}/ns/{name}")
    assert report["namespaces"]["mnt"] == os.readlink(f"/proc/{other.pid}/ns/mnt")


@pytest.mark.requires("timens")
@pytest.mark.ours_only("not in runc 1.1 and crun 1.8")
def test_time_namespace(container: Container) -> None:
    """exec sees the container's clocks [L5]."""
    container.bundle.namespace("time")
    container.bundle.linux(timeOffsets={"boottime": {"secs": 5000000}})
    container.begin("pause")
    assert container.execute("clock").ok().replies[0]["boottime"] > 5000000


def test_no_pivot(container: Container) -> None:
    """exec in a container made with --no-pivot sees its root, not the host's [K1]."""
    container.bundle.args("pause")
    container.create("--no-pivot")
    container.start()
    container.wait_replies(1)
    assert container.execute("stat /probe").ok().replies[0]["errno"] == 0
    assert container.execute("stat /etc/passwd").ok().replies[0]["errno"] == 2


def test_no_proc(container: Container) -> None:
    """exec in a container that has nothing at /proc [K4]."""
    container.bundle.drop_mount("/proc")
    container.bundle.no_mount_rules()
    container.bundle.process(oomScoreAdj=100)
    container.begin("pause")
    assert container.execute("exit 3").code == 3


def test_keyring(running: Container, new_container: Callable[..., Container]) -> None:
    """All processes of a container share its session keyring; not without one of its own [U15]."""
    names = [running.execute("keyring").ok().replies[0] for _ in range(2)]
    assert names[0]["name"].rpartition(";")[2] == f"_ses.{running.id}"
    assert names[0]["serial"] == names[1]["serial"]
    other = new_container()
    other.bundle.args("keyring", "pause")
    other.create("--no-new-keyring")
    other.start()
    other.wait_replies(2)
    if other.runtime.ours:
        assert other.execute("keyring").ok().replies[0]["serial"] == other.replies[0]["serial"]


# -- nobody inside may look at it on its way in [B: CVE-2016-9962, CVE-2019-5736] --


def test_binary_is_out_of_reach(running: Container) -> None:
    """A program that is /proc/self/exe runs the sealed copy or nothing, and the runtime's file stays as it is."""
    before = hashlib.sha256(Path(running.runtime.path).read_bytes()).digest()
    (running.bundle.rootfs / "self").symlink_to("/proc/self/exe")
    script = running.bundle.rootfs / "script"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    for program in ("/self", "/script"):
        run(running.runtime.argv("exec", running.id, program))
    assert hashlib.sha256(Path(running.runtime.path).read_bytes()).digest() == before


def test_nobody_inside_can_trace_it(container: Container) -> None:
    """A container that tries to open /proc/PID/{root,cwd,fd,mem,exe} of whatever appears gets nothing of the host."""
    container.begin("pause")
    watch = container.runtime.spawn("exec", container.id, "/probe", "watch", "40", "300000", stdout=subprocess.PIPE)
    while watch.poll() is None:
        container.execute("exit 0")
    assert watch.stdout is not None
    out = watch.stdout.read()
    assert watch.returncode == 0
    watch.stdout.close()
    reply = json.loads(out.splitlines()[-1])
    assert reply["seen"] >= 40, reply
    assert reply["opened"] == 0, reply
    assert reply["attached"] == 0


def test_live_process_is_not_left(running: Container) -> None:
    """kill -9 of a waiting exec ends nothing in the container but leaves no half-made process [A3]."""
    process = running.runtime.spawn("exec", running.id, "/probe", "pause", stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    pids = [pid for pid in json.loads(running.command("ps", "--format", "json").out) if pid != running.pid]
    process.kill()
    process.wait()
    process.stdout.close()
    assert all(alive(pid) for pid in pids)
    running.kill("KILL")
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
