"""linux.cgroupsPath and linux.resources, on v1 and hybrid machines as they are, and in a pure v2 view."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import Give, requires
from integration.lib import host, leaks as leak_tools
from integration.lib.container import Container, alive, wait_until
from integration.lib.leaks import Leaks

MIB = 1 << 20
ALLOW_ALL = [{"allow": True, "access": "rwm"}]


def v1(container: Container, controller: str, file: str) -> str:
    """Content of a file of the container's v1 cgroup."""
    group = container.bundle.config["linux"]["cgroupsPath"]
    return Path(host.cgroup_mounts()[controller] + group, file).read_text().strip()


def v2(container: Container, file: str) -> str:
    """Content of a file of the container's v2 cgroup."""
    return v1(container, "", file)


# -- placement --


@pytest.mark.requires("v1")
def test_all_hierarchies_are_joined(container: Container) -> None:
    """init is in the container's cgroup in every v1 hierarchy [D8, L20]."""
    container.create()
    group = container.bundle.config["linux"]["cgroupsPath"]
    lines = Path(f"/proc/{container.pid}/cgroup").read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controllers.split(",")[0] in host.cgroup_mounts():
            assert path == group, line


@pytest.mark.ours_only("D10: on a hybrid machine the v2 directory is joined too")
@pytest.mark.requires("v1", "v2")
def test_hybrid_joins_v2_too(container: Container) -> None:
    """On a hybrid machine the container has a v2 directory as well [D10]."""
    container.create()
    group = container.bundle.config["linux"]["cgroupsPath"]
    assert f"0::{group}" in Path(f"/proc/{container.pid}/cgroup").read_text().splitlines()


def test_children_are_in_the_cgroup(container: Container) -> None:
    """Whatever the program forks is in the cgroup [D8]."""
    container.begin("fork 3", "pause")
    top = host.cgroup_mounts().get("pids", host.cgroup_mounts().get("", ""))
    group = container.bundle.config["linux"]["cgroupsPath"]
    assert len(Path(f"{top}{group}/cgroup.procs").read_text().split()) == 4


def test_removed_on_delete(container: Container, leaks: Leaks) -> None:
    """delete removes the cgroup everywhere [D6]."""
    container.create()
    assert leak_tools.cgroups_with(container.id)
    container.delete("--force")
    assert not leak_tools.cgroups_with(container.id)


def test_nested_path(container: Container) -> None:
    """An absolute path with several parts counts from the mount point [L20]."""
    group = container.bundle.config["linux"]["cgroupsPath"] + "/a/b"
    container.bundle.linux(cgroupsPath=group)
    container.create()
    assert group in Path(f"/proc/{container.pid}/cgroup").read_text()
    container.delete("--force")
    for path in reversed(leak_tools.cgroups_with(container.id)):
        if container.runtime.ours:
            raise AssertionError(f"left: {path}")
        os.rmdir(path)


def test_dots_do_not_leave_the_mount(container: Container) -> None:
    """ ".." is taken out of the path before it is used [L20]."""
    group = container.bundle.config["linux"]["cgroupsPath"]
    container.bundle.linux(cgroupsPath=f"/../..{os.path.dirname(group)}/x/../{container.id}")
    container.create()
    assert f"{group}\n" in Path(f"/proc/{container.pid}/cgroup").read_text()


@pytest.mark.ours_only("others wait for ever, deaf to signals")
@pytest.mark.parametrize("world", ["v1", "v2"])
def test_frozen_parent(
    container: Container, leaks: Leaks, give: Give, world: str, request: pytest.FixtureRequest
) -> None:
    """A process that is cloned into a frozen cgroup does not even begin: refused before that [S4, D4]."""
    requires("v1:freezer")
    group = container.bundle.config["linux"]["cgroupsPath"]
    parent, file, values = Path(host.cgroup_mounts()["freezer"] + group), "freezer.state", ("FROZEN", "THAWED")
    if world == "v2":
        container.runtime = request.getfixturevalue("runtime_v2")
        parent, file, values = Path(host.cgroup_mounts()[""] + group), "cgroup.freeze", ("1", "0")
    container.bundle.linux(cgroupsPath=f"{group}/leaf")
    parent.mkdir()
    give(parent)
    try:
        (parent / file).write_text(values[0])
        result = container.create(check=False)
        (parent / file).write_text(values[1])
        assert result.code != 0
        assert "is frozen" in result.error
        assert "thaw it" in result.error
        assert not (parent / "leaf").exists()
        container.begin("pause")
        (parent / file).write_text(values[0])
        result = container.runtime("exec", container.id, "/probe", "report")
        (parent / file).write_text(values[1])
        assert result.code != 0
        assert "a parent of" in result.error
        container.delete("--force")
    finally:
        with contextlib.suppress(FileNotFoundError):  # delete takes the parents that create has made, in its places
            parent.rmdir()
    leaks.check()


@pytest.mark.ours_only("a cgroup's file in the way is told, and nothing is left")
@pytest.mark.parametrize("world", ["v1", "v2"])
@pytest.mark.parametrize("name", ["cgroup.procs", "pids.max", "cgroup.procs/below"])
def test_name_of_a_file(
    container: Container, leaks: Leaks, world: str, name: str, request: pytest.FixtureRequest
) -> None:
    """Every cgroup has files, whose names no cgroup can have; parents made before are removed again [L20, D7]."""
    if world == "v2":
        requires("v1")  # elsewhere the other one is it
        container.runtime = request.getfixturevalue("runtime_v2")
        if name == "pids.max":
            name = "cgroup.type"
    group = container.bundle.config["linux"]["cgroupsPath"]
    container.bundle.linux(cgroupsPath=f"{group}/{name}")
    result = container.create(check=False)
    assert result.code != 0
    assert "/linux/cgroupsPath" in result.error
    assert "choose another cgroupsPath" in result.error
    assert "warning" not in result.error
    assert not leak_tools.cgroups_with(container.id)
    leaks.check()


def removed(path: str) -> bool:
    """Whether a cgroup could be removed: not as long as a process that was in it is on its way out."""
    try:
        os.rmdir(path)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


@pytest.mark.requires("v1:freezer", "v1:pids")
@pytest.mark.ours_only("what the specification does not speak of")
def test_cgroup_that_is_gone(container: Container) -> None:
    """Somebody moves the process out and removes the cgroup: no command tells zeros, or succeeds for nothing."""
    container.begin("pause")
    group = container.bundle.config["linux"]["cgroupsPath"]
    for mount in set(host.cgroup_mounts().values()):
        Path(mount, "cgroup.procs").write_text(str(container.pid))  # elsewhere controllers may forbid it
        wait_until(functools.partial(removed, mount + group), what=f"the removal of {mount + group}")
    for verb in (["pause"], ["ps"], ["events", "--stats"]):
        result = container.command(*verb)
        assert result.code != 0, verb
        assert "cgroup has gone" in result.error
        assert not result.out
    result = container.command("update", "--pids-limit", "5")
    assert result.code != 0
    assert "/pids/limit" in result.error
    assert "cgroup has gone" in result.error
    assert "cannot open the cgroup" in container.runtime("exec", container.id, "/probe", "report").error
    container.kill("KILL", flags=["--all"])
    assert container.wait() == 137
    container.delete()


@pytest.mark.requires("v1")
def test_relative_path(container: Container) -> None:
    """A relative path always gives the same place, below a parent of the runtime's choice [L20]."""
    container.bundle.linux(cgroupsPath=f"{container.id}-relative")
    places = []
    for _ in range(2):
        container.status = None
        container.create()
        places.append(Path(f"/proc/{container.pid}/cgroup").read_text())
        assert f"{container.id}-relative" in places[-1]
        container.delete("--force")
        container.wait()
    assert places[0] == places[1]


def test_default_path(container: Container, leaks: Leaks) -> None:
    """Without cgroupsPath the cgroup bears the ID [L20]."""
    container.bundle.linux(cgroupsPath=None)
    container.create()
    assert container.id in Path(f"/proc/{container.pid}/cgroup").read_text()
    container.delete("--force")
    leaks.check()


def test_occupied_cgroup(new_container: Callable[..., Container], leaks: Leaks) -> None:
    """A cgroup that has processes in it is not taken for a second container [S4]."""
    first = new_container()
    first.create()
    second = new_container()
    second.bundle.linux(cgroupsPath=first.bundle.config["linux"]["cgroupsPath"])
    result = second.create(check=False)
    assert result.code != 0
    assert first.state()["status"] == "created"
    assert alive(first.pid)


@pytest.fixture
def frozen_cgroup(container: Container) -> Iterator[str]:
    """The container's cgroup, made and frozen before create."""
    requires("v1:freezer")
    path = host.cgroup_mounts()["freezer"] + container.bundle.config["linux"]["cgroupsPath"]
    os.mkdir(path)
    Path(path, "freezer.state").write_text("FROZEN")
    yield path
    if os.path.isdir(path):
        Path(path, "freezer.state").write_text("THAWED")
        os.rmdir(path)


@pytest.mark.ours_only("S4: a frozen cgroup is refused before anything is made")
def test_frozen_cgroup(container: Container, frozen_cgroup: str) -> None:
    """A frozen cgroup would hold init for ever: refused [S4]."""
    result = container.create(check=False)
    assert result.code != 0
    assert "frozen" in result.error


# -- limits on v1 --


@pytest.mark.requires("v1:memory")
def test_v1_memory(container: Container) -> None:
    """memory.limit and memory.reservation [B1, B3]."""
    container.bundle.linux(resources={"memory": {"limit": 64 * MIB, "reservation": 32 * MIB}})
    container.create()
    assert v1(container, "memory", "memory.limit_in_bytes") == str(64 * MIB)
    assert v1(container, "memory", "memory.soft_limit_in_bytes") == str(32 * MIB)


@pytest.mark.requires("v1:memory")
def test_v1_memory_and_swap(container: Container) -> None:
    """memory.swap is memory plus swap, and raising both above what was there works [B2]."""
    top = host.cgroup_mounts()["memory"]
    if not os.path.exists(f"{top}/memory.memsw.limit_in_bytes"):
        pytest.skip("no swap accounting")
    container.bundle.linux(resources={"memory": {"limit": 64 * MIB, "swap": 96 * MIB}})
    container.create()
    assert v1(container, "memory", "memory.limit_in_bytes") == str(64 * MIB)
    assert v1(container, "memory", "memory.memsw.limit_in_bytes") == str(96 * MIB)


@pytest.mark.parametrize("limit", [-1, 0, None])
@pytest.mark.requires("v1:memory")
def test_v1_no_memory_limit(container: Container, limit: int | None) -> None:
    """-1 is no limit; 0 and absent leave it alone [B1]."""
    container.bundle.linux(resources={"memory": {} if limit is None else {"limit": limit}})
    container.create()
    assert int(v1(container, "memory", "memory.limit_in_bytes")) > 1 << 60


@pytest.mark.requires("v1:memory")
def test_v1_memory_is_enforced(container: Container) -> None:
    """A program above its limit is killed [B1]."""
    container.bundle.linux(resources={"memory": {"limit": 16 * MIB, "swap": 16 * MIB}})
    container.bundle.args("alloc 64", "exit 0")
    assert container.run().code == 137


@pytest.mark.requires("v1:cpu")
def test_v1_cpu(container: Container) -> None:
    """cpu.shares, quota and period [B7, B8]."""
    container.bundle.linux(resources={"cpu": {"shares": 512, "quota": 20000, "period": 50000}})
    container.create()
    assert v1(container, "cpu", "cpu.shares") == "512"
    assert v1(container, "cpu", "cpu.cfs_quota_us") == "20000"
    assert v1(container, "cpu", "cpu.cfs_period_us") == "50000"


@pytest.mark.requires("v1:cpu")
def test_v1_cpu_quota_alone(container: Container) -> None:
    """A quota without a period: the kernel's period stays [B8]."""
    container.bundle.linux(resources={"cpu": {"quota": 30000}})
    container.create()
    assert v1(container, "cpu", "cpu.cfs_quota_us") == "30000"
    assert v1(container, "cpu", "cpu.cfs_period_us") == "100000"


@pytest.mark.requires("v1:cpu")
def test_v1_cpu_shares_out_of_range(container: Container, leaks: Leaks) -> None:
    """Shares the kernel does not take as they are fail create [B7]."""
    container.bundle.linux(resources={"cpu": {"shares": 1 << 40}})
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert "/linux/resources/cpu/shares" in result.error
    leaks.check()


@pytest.mark.parametrize(("limit", "expected"), [(17, "17"), (-1, "max")])
@pytest.mark.requires("v1:pids")
def test_v1_pids(container: Container, limit: int, expected: str) -> None:
    """pids.limit; negative is no limit [B13]."""
    container.bundle.linux(resources={"pids": {"limit": limit}})
    container.create()
    assert v1(container, "pids", "pids.max") == expected


@pytest.mark.requires("v1:pids")
def test_v1_pids_is_enforced(container: Container) -> None:
    """fork fails beyond the limit [B13]."""
    container.bundle.linux(resources={"pids": {"limit": 8}})
    reply = container.probe("fork 20")[0]
    assert (reply["made"], reply["errno"]) == (7, 11)


@pytest.mark.ours_only("B13: a limit of 0 is a real one, rounded up to the one process there is")
@pytest.mark.requires("v1:pids")
def test_v1_pids_zero(container: Container) -> None:
    """0 becomes 1: no fork at all [B13]."""
    container.bundle.linux(resources={"pids": {"limit": 0}})
    assert container.probe("fork 3")[0]["made"] == 0


def test_swap_below_memory(container: Container, leaks: Leaks) -> None:
    """memory plus swap cannot be less than memory [B2]."""
    container.bundle.linux(resources={"memory": {"limit": 64 * MIB, "swap": 32 * MIB}})
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert "/linux/resources/memory/" in result.error
    leaks.check()


# -- devices --


@pytest.mark.parametrize("world", ["machine", "v2"])
def test_devices_are_denied(container: Container, world: str, request: pytest.FixtureRequest) -> None:
    """With deny-all only the default devices can be opened; others cannot, though the nodes are there [D1-D3]."""
    if world == "v2":
        container.runtime = request.getfixturevalue("runtime_v2")
    container.bundle.linux(
        devices=[
            {"path": "/dev/mem", "type": "c", "major": 1, "minor": 1},
            {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11},
            {"path": "/dev/loop9", "type": "b", "major": 7, "minor": 9},
        ]
    )
    container.bundle.process(
        capabilities={name: ["CAP_MKNOD", "CAP_SYS_RAWIO", "CAP_DAC_OVERRIDE"]
                      for name in ("bounding", "effective", "permitted")}
    )  # fmt: skip
    mem, kmsg, loop, null, zero, made, opened = container.probe(
        "open /dev/mem r", "open /dev/kmsg r", "open /dev/loop9 r", "open /dev/null rw", "open /dev/zero r",
        "mknod /dev/own c 1 11", "open /dev/own r",
    )  # fmt: skip
    assert [reply["errno"] for reply in (mem, kmsg, loop)] == [1, 1, 1]
    assert [reply["errno"] for reply in (null, zero)] == [0, 0]
    assert made["errno"] == 0  # making a node is allowed by default, using it is not
    assert opened["errno"] == 1


@pytest.mark.parametrize("world", ["machine", "v2"])
def test_devices_are_allowed(container: Container, world: str, request: pytest.FixtureRequest) -> None:
    """A rule lets its device through, for the access it names [D2, D3]."""
    if world == "v2":
        container.runtime = request.getfixturevalue("runtime_v2")
    container.bundle.linux(
        devices=[{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}],
        resources={
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"},
            ]
        },
    )
    container.bundle.process(capabilities={name: ["CAP_SYSLOG"] for name in ("bounding", "effective", "permitted")})
    read, write = container.probe("open /dev/kmsg r", "open /dev/kmsg w")
    assert (read["errno"], write["errno"]) == (0, 1)


@pytest.mark.parametrize("world", ["machine", "v2"])
def test_all_devices_allowed(container: Container, world: str, request: pytest.FixtureRequest) -> None:
    """A rule for everything lets everything through [D2, D3]."""
    if world == "v2":
        container.runtime = request.getfixturevalue("runtime_v2")
    container.bundle.linux(
        devices=[{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}], resources={"devices": ALLOW_ALL}
    )
    container.bundle.process(capabilities={name: ["CAP_SYSLOG"] for name in ("bounding", "effective", "permitted")})
    assert container.probe("open /dev/kmsg rw")[0]["errno"] == 0


@pytest.mark.requires("v1:devices")
def test_v1_devices_list(container: Container) -> None:
    """The list the kernel shows is the default list and the rules [D1, D2]."""
    container.bundle.linux(
        resources={
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "b", "major": 7, "minor": 5, "access": "rw"},
                {"allow": True, "type": "c", "major": 10, "access": "r"},
            ]
        }
    )
    container.create()
    lines = set(v1(container, "devices", "devices.list").splitlines())
    assert {"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm",
            "c 5:2 rwm", "c 136:* rwm"} <= lines  # fmt: skip
    assert "b 7:5 rw" in lines
    assert "c 10:* r" in lines
    assert "a *:* rwm" not in lines


@pytest.mark.parametrize(
    ("rule", "pointer"),
    [
        ({"allow": True, "access": ""}, "/linux/resources/devices/1/access"),
        ({"allow": True, "access": "rx"}, "/linux/resources/devices/1/access"),
        ({"allow": True, "type": "z", "access": "r"}, "/linux/resources/devices/1/type"),
    ],
)
def test_bad_device_rules(container: Container, leaks: Leaks, rule: dict[str, Any], pointer: str) -> None:
    """Unknown types and accesses are refused [D1]."""
    container.bundle.linux(resources={"devices": [{"allow": False, "access": "rwm"}, rule]})
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert pointer in result.error
    leaks.check()


# -- pure v2 --


def test_v2_placement(pure: Container) -> None:
    """init is in the container's cgroup [L20, D7]."""
    pure.create()
    group = pure.bundle.config["linux"]["cgroupsPath"]
    assert f"0::{group}" in Path(f"/proc/{pure.pid}/cgroup").read_text().splitlines()


def test_v2_life(pure: Container, leaks: Leaks) -> None:
    """create, start, kill, delete in the v2 world, and nothing is left [D5, D6]."""
    pure.begin("fork 5", "pause")
    assert pure.state()["status"] == "running"
    assert pure.finish() == 137
    pure.delete()
    leaks.check()


def test_v2_cgroup_namespace(pure: Container) -> None:
    """The cgroup namespace's root is the container's cgroup, and a cgroup mount shows it [L4, M11]."""
    pure.bundle.namespace("cgroup")
    pure.bundle.mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev", "relatime", type="cgroup")
    report, procs, create = pure.probe("report", "read /sys/fs/cgroup/cgroup.procs", "mkdir /sys/fs/cgroup/x")
    assert "0::/\n" in report["cgroup"]
    assert procs["data"].split() == ["1"]
    assert create["errno"] == 30


def test_v2_kill_of_everything(pure: Container) -> None:
    """Without a PID namespace SIGKILL with --all ends every process of the cgroup [D5, K6]."""
    pure.bundle.drop_namespace("pid")
    pure.begin("orphan", "fork 3", "pause")
    pure.wait_replies(3)
    group = host.cgroup_mounts()[""] + pure.bundle.config["linux"]["cgroupsPath"]
    members = [int(word) for word in Path(group, "cgroup.procs").read_text().split()]
    assert len(members) >= 5
    pure.kill("KILL", flags=["--all"])
    wait_until(lambda: not any(alive(pid) for pid in members), "end of all processes")


@pytest.mark.parametrize(
    ("need", "resources", "file", "expected"),
    [
        ("memory", {"memory": {"limit": 64 * MIB}}, "memory.max", str(64 * MIB)),
        ("memory", {"memory": {"limit": -1}}, "memory.max", "max"),
        ("memory", {"memory": {"limit": 64 * MIB, "swap": 96 * MIB}}, "memory.swap.max", str(32 * MIB)),
        ("memory", {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}}, "memory.swap.max", "0"),
        ("memory", {"memory": {"reservation": 32 * MIB}}, "memory.low", str(32 * MIB)),
        ("cpu", {"cpu": {"shares": 1024}}, "cpu.weight", "100"),
        ("cpu", {"cpu": {"shares": 2}}, "cpu.weight", "1"),
        ("cpu", {"cpu": {"quota": 20000, "period": 50000}}, "cpu.max", "20000 50000"),
        ("cpu", {"cpu": {"quota": 20000}}, "cpu.max", "20000 100000"),
        ("cpu", {"cpu": {"quota": -1}}, "cpu.max", "max 100000"),
        ("pids", {"pids": {"limit": 17}}, "pids.max", "17"),
        ("pids", {"pids": {"limit": -1}}, "pids.max", "max"),
        ("hugetlb", {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}, "hugetlb.2MB.max", str(4 * MIB)),
    ],
)
def test_v2_limits(pure: Container, need: str, resources: dict[str, Any], file: str, expected: str) -> None:
    """Limits are converted to their v2 files [B1, B2, B3, B7, B8, B13, B17]."""
    requires(f"v2:{need}")
    pure.bundle.linux(resources=resources)
    pure.create()
    assert v2(pure, file) == expected


@pytest.mark.ours_only("L20: relative: below the parent of the runtime's own cgroup on v2")
def test_v2_relative_path(pure: Container) -> None:
    """A relative path gives the same place every time [L20]."""
    pure.bundle.linux(cgroupsPath=f"{pure.id}-relative")
    pure.create()
    assert f"{pure.id}-relative" in Path(f"/proc/{pure.pid}/cgroup").read_text()


def test_v2_missing_controller(pure: Container, leaks: Leaks) -> None:
    """A limit whose controller is not there fails create and names it [B1]."""
    if "memory" in host.v2_controllers():
        pytest.skip("cgroup2 has the memory controller here")
    pure.bundle.linux(resources={"memory": {"limit": 64 * MIB}})
    result = pure.create(check=False)
    assert result.code != 0
    assert "memory" in result.error
    leaks.check()
