"""Where a container's cgroup is made, by whom it is owned, and places that are not as they should be."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.conftest import Give, requires
from integration.lib import host
from integration.lib.container import Container, alive, v2_directory, wait_until
from integration.lib.leaks import Leaks

MIB = 1 << 20
LISTED = Path("/sys/kernel/cgroup/delegate")


# -- the owner --


def writable(container: Container) -> None:
    """A cgroup namespace of its own, and cgroups mounted writable."""
    container.bundle.namespace("cgroup")
    container.bundle.mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", type="cgroup")


def owners(directory: Path) -> dict[str, int]:
    """Owner of the directory ("") and of each of its files."""
    found = {path.name: path.stat().st_uid for path in directory.iterdir() if path.is_file()}
    return {"": directory.stat().st_uid, **found}


@pytest.mark.ours_only("L21: the owner is changed with every driver")
@pytest.mark.parametrize(("user", "mapped"), [(1000, False), (0, True), (5, True)])
def test_owner(pure: Container, leaks: Leaks, user: int, mapped: bool) -> None:
    """Who sees its cgroup writable owns it, and the files that the kernel lists, and no others; it can make
    sub-cgroups, which go with it [L21].
    """
    writable(pure)
    pure.bundle.process(user={"uid": user, "gid": user})
    if mapped:
        requires("userns")
        pure.bundle.user_namespace(100000)
    pure.bundle.args(
        "mkdir /sys/fs/cgroup/below",
        "write /sys/fs/cgroup/below/cgroup.procs 1",
        "write /sys/fs/cgroup/cgroup.freeze 0",
        "pause",
    )
    pure.create()
    expected = user + 100000 if mapped else user
    delegated = {"", *LISTED.read_text().split()}
    found = owners(v2_directory(pure))
    assert {name for name, uid in found.items() if uid == expected} == delegated & set(found)
    assert set(found.values()) == {0, expected}
    pure.start()
    made, moved, freeze = pure.wait_replies(4)[:3]
    assert (made["errno"], moved["errno"], freeze["errno"]) == (0, 0, 13)
    assert (v2_directory(pure) / "below").is_dir()
    pure.delete("--force")
    pure.wait()
    leaks.check()


@pytest.mark.ours_only("L21: others do not look at it again")
@pytest.mark.requires("v2:memory")
def test_owner_of_what_update_enables(pure: Container) -> None:
    """A controller that update switches on brings files: those of the kernel's list go to the owner, too [L21]."""
    writable(pure)
    pure.bundle.process(user={"uid": 1000, "gid": 1000})
    pure.begin("pause")
    directory = v2_directory(pure)
    before = owners(directory)
    assert before["memory.oom.group"] == 1000
    (directory.parent / "cgroup.subtree_control").write_text("-memory")
    assert not (directory / "memory.oom.group").exists()
    pure.runtime("update", "--memory", "64M", pure.id).ok()
    assert owners(directory) == before


@pytest.mark.ours_only("L21, D17: what was there before is given back")
def test_owner_of_a_cgroup_that_was_there(pure: Container) -> None:
    """delete gives a cgroup that it does not remove back to its owner [L21, D17]."""
    writable(pure)
    pure.bundle.process(user={"uid": 1000, "gid": 1000})
    directory = v2_directory(pure)
    directory.mkdir()
    try:
        before = owners(directory)
        pure.create()
        assert owners(directory)["cgroup.procs"] == 1000
        pure.delete("--force")
        pure.wait()
        assert owners(directory) == before
    finally:
        directory.rmdir()


@pytest.mark.ours_only("D17: others remove the cgroup")
@pytest.mark.parametrize("rules", [[], ["deny a", "allow c 1:3 rwm", "allow c 1:5 rw", "allow b 7:1 r"]])
@pytest.mark.requires("v1:devices")
def test_device_list_of_a_cgroup_that_was_there(container: Container, rules: list[str]) -> None:
    """delete leaves a v1 cgroup that create has not made, with the device list that it had [D17]."""
    directory = Path(host.cgroup_mounts()["devices"] + container.bundle.config["linux"]["cgroupsPath"])
    directory.mkdir()
    try:
        for word in rules:
            verb, _, rule = word.partition(" ")
            (directory / f"devices.{verb}").write_text(rule)
        before = set((directory / "devices.list").read_text().split("\n"))
        container.create()
        assert "c 1:9 rwm" in (directory / "devices.list").read_text()
        container.delete("--force")
        container.wait()
        assert set((directory / "devices.list").read_text().split("\n")) == before
    finally:
        directory.rmdir()


# -- threaded cgroups --


@pytest.fixture
def threaded(pure: Container, give: Give) -> Iterator[Container]:
    """A container whose cgroup would be below a parent with a threaded child: in a place that is "domain invalid"."""
    parent = v2_directory(pure)
    (parent / "other").mkdir(parents=True)
    (parent / "other/cgroup.type").write_text("threaded")
    give(parent)
    assert (parent / "cgroup.type").read_text() == "domain threaded\n"
    pure.bundle.linux(cgroupsPath=pure.bundle.config["linux"]["cgroupsPath"] + "/mine")
    yield pure
    pure.destroy()
    pure.reap()
    wait_until(lambda: not (parent / "mine").exists(), "the end of the container's cgroup")
    (parent / "other").rmdir()
    parent.rmdir()


@pytest.mark.ours_only("D7: a threaded place is used as it is")
def test_below_a_threaded_parent(threaded: Container) -> None:
    """Without limits that only a domain has, the cgroup becomes threaded; exec, pause and kill work in it [D7]."""
    threaded.begin("fork 3", "pause")
    directory = v2_directory(threaded)
    assert (directory / "cgroup.type").read_text() == "threaded\n"
    assert len((directory / "cgroup.threads").read_text().split()) == 4
    assert threaded.state()["status"] == "running"
    assert threaded.command("events", "--stats").ok().json["data"]["pids"]["current"] == 4
    threaded.command("pause").ok()
    assert threaded.state()["status"] == "paused"
    threaded.command("resume").ok()
    assert threaded.execute("report").ok().replies
    assert threaded.finish() == 137
    threaded.delete()
    assert not directory.exists()


@pytest.mark.ours_only("D7: a threaded place is used as it is")
def test_without_pid_namespace_below_a_threaded_parent(threaded: Container) -> None:
    """cgroup.kill is not to be had in a threaded cgroup: all processes end even so [D5, D7]."""
    threaded.bundle.drop_namespace("pid")
    threaded.begin("fork 3", "orphan", "pause")
    members = [int(word) for word in (v2_directory(threaded) / "cgroup.threads").read_text().split()]
    assert len(members) >= 5
    threaded.kill("KILL")
    wait_until(lambda: not any(alive(pid) for pid in members), "end of all processes")


@pytest.mark.ours_only("D7: the error names the reason")
@pytest.mark.parametrize(
    ("controller", "resources"),
    [
        ("memory", {"memory": {"limit": 64 * MIB}}),
        ("hugetlb", {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}),
    ],
)
def test_limits_below_a_threaded_parent(
    threaded: Container, leaks: Leaks, controller: str, resources: dict[str, object]
) -> None:
    """A limit of a controller that knows no threads cannot be had there [D7]."""
    requires(f"v2:{controller}")
    threaded.bundle.linux(resources=resources)
    result = threaded.create(check=False)
    assert result.code != 0
    assert controller in result.error
    assert "domain" in result.error
    assert not v2_directory(threaded).exists()


# -- read-only cgroups --


@pytest.fixture
def read_only(container: Container, leaks: Leaks) -> Iterator[Container]:
    """A container in a world where no cgroup file system may be written to."""
    points = " ".join(sorted(set(host.cgroup_mounts().values())))
    script = f"for p in {points}; do mount -o remount,bind,ro $p || exit 1; done; echo ready; exec sleep 1000"
    holder = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", script], stdout=subprocess.PIPE)
    leaks.keep.add(holder.pid)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n"
    container.runtime = container.runtime.within(["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"])
    yield container
    container.destroy()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    leaks.keep.discard(holder.pid)


@pytest.mark.ours_only("G7: the error names the reason")
@pytest.mark.parametrize("path", [True, False])
def test_read_only_cgroups(read_only: Container, leaks: Leaks, path: bool) -> None:
    """Without the right to make a cgroup there is no container [G7]."""
    if not path:
        read_only.bundle.linux(cgroupsPath=None)
    result = read_only.create(check=False)
    assert result.code != 0
    assert "cgroups are mounted read-only here" in result.error
    leaks.check()


@pytest.mark.ours_only("D9: others do not say it")
def test_read_only_cgroups_of_a_rootless_runtime(read_only: Container, leaks: Leaks) -> None:
    """With --rootless a container that asks for no cgroup and no limit does without one; a limit or a path is an error
    that names it [D9, G7].
    """
    rootless = ["--rootless", "true"]
    result = read_only.create(check=False, options=rootless)
    assert result.code != 0
    assert "/linux/cgroupsPath" in result.error
    read_only.bundle.linux(cgroupsPath=None, resources={"cpu": {"shares": 300}})
    result = read_only.create(check=False, options=rootless)
    assert result.code != 0
    assert "/linux/resources/cpu/shares" in result.error
    assert "read-only" in result.error
    leaks.check()
    read_only.bundle.linux(resources={"cpu": None})
    result = read_only.create(options=rootless)
    assert "warn" not in result.error
    assert Path(f"/proc/{read_only.pid}/cgroup").read_text() == Path("/proc/self/cgroup").read_text()
    result = read_only.execute("report", flags=["--cgroup", "below"])
    assert result.code != 0
    assert "--cgroup" in result.error
    result = read_only.command("pause")
    assert result.code != 0
    assert "no cgroup" in result.error
    result = read_only.command("events", "--stats")
    assert (result.code, result.out) == (1, b"")
    assert "counting what a container uses needs a cgroup, and the container has none" in result.error
    result = read_only.runtime("update", "--cpu-share", "10", read_only.id)
    assert result.code != 0
    assert "/cpu/shares: a limit needs a cgroup, and the container has none" in result.error
    result = read_only.execute("report", flags=["--cgroup", "sub"])
    assert result.code == 255
    assert "--cgroup needs a container's cgroup" in result.error
    assert read_only.finish() == 137
    read_only.delete()


@pytest.mark.ours_only("K12: runc prints zeros")
def test_events_without_a_cgroup(read_only: Container) -> None:
    """Nobody counts there: that is said, and the records have what is known, instead of zeros [K12, D9]."""
    read_only.bundle.linux(cgroupsPath=None).args("pause")
    read_only.create(options=["--rootless", "true"])
    read_only.start()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    events = read_only.runtime.spawn("events", "--interval", "50ms", read_only.id, **pipes)
    first = events.stdout.readline()
    assert read_only.finish() == 137
    out, errors = events.communicate(timeout=60)
    assert events.returncode == 0
    assert f"container {read_only.id} has no cgroup: its records tell of its network and end only" in errors.decode()
    *stats, last = [json.loads(line) for line in (first + out).splitlines()]
    assert {record["type"] for record in stats} == {"stats"}
    assert {key for record in stats for key in record["data"]} <= {"intel_rdt", "network_interfaces"}
    assert last["type"] == "exit"
    read_only.delete()


@pytest.mark.ours_only("D9: others do not say it")
def test_no_cgroup_and_no_pid_namespace(read_only: Container) -> None:
    """Then nothing holds the container's processes together, which is a warning [D9]."""
    read_only.bundle.linux(cgroupsPath=None).drop_namespace("pid")
    result = read_only.create(options=["--rootless", "true"])
    assert "cannot create the cgroup (read-only file system), going on without one" in result.error
    assert os.getpid() != read_only.pid
    read_only.finish()
