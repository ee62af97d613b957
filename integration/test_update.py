"""update: limits of a container that exists, all of them or none; devices without a hole."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import requires
from integration.lib import host
from integration.lib.container import Container, v2_directory
from integration.lib.leaks import Leaks

MIB = 1 << 20
DENY_ALL = {"allow": False, "access": "rwm"}
ALLOW_ALL = {"allow": True, "access": "rwm"}
KMSG = {"type": "c", "major": 1, "minor": 11}


def directory(container: Container, controller: str) -> Path:
    """The container's cgroup in a hierarchy ("" is v2)."""
    return Path(host.cgroup_mounts()[controller] + container.bundle.config["linux"]["cgroupsPath"])


def value(container: Container, controller: str, file: str) -> str:
    """What a file of the container's cgroup holds."""
    return (directory(container, controller) / file).read_text().strip()


def update(container: Container, resources: dict[str, Any], *flags: str) -> Any:
    """update with resources from stdin."""
    return container.command("update", "--resources", "-", *flags, stdin=json.dumps(resources).encode())


@pytest.fixture
def running(container: Container) -> Container:
    """A container that runs, with a limit of each kind."""
    requires("v1:memory", "v1:cpu", "v1:pids", "v1:cpuset")
    container.bundle.linux(
        resources={
            "memory": {"limit": 64 * MIB},
            "cpu": {"quota": 20000, "period": 50000, "shares": 512},
            "pids": {"limit": 40},
        }
    )
    container.create()
    return container


# -- flags and files --


@pytest.mark.parametrize(
    ("flags", "controller", "file", "expected"),
    [
        (["--memory", "128M"], "memory", "memory.limit_in_bytes", str(128 * MIB)),
        (["--memory", "134217728"], "memory", "memory.limit_in_bytes", str(128 * MIB)),
        (["--memory-reservation", "32m"], "memory", "memory.soft_limit_in_bytes", str(32 * MIB)),
        (["--cpu-share", "300"], "cpu", "cpu.shares", "300"),
        (["--cpu-quota", "30000"], "cpu", "cpu.cfs_quota_us", "30000"),
        (["--cpu-period", "40000"], "cpu", "cpu.cfs_period_us", "40000"),
        (["--cpu-quota", "-1"], "cpu", "cpu.cfs_quota_us", "-1"),
        (["--cpuset-cpus", "0"], "cpuset", "cpuset.cpus", "0"),
        (["--cpuset-mems", "0"], "cpuset", "cpuset.mems", "0"),
        (["--pids-limit", "17"], "pids", "pids.max", "17"),
        (["--pids-limit", "-1"], "pids", "pids.max", "max"),
        (["--pids-limit=17", "--cpu-share=300"], "cpu", "cpu.shares", "300"),
    ],
)
def test_flags(running: Container, flags: list[str], controller: str, file: str, expected: str) -> None:
    """Every flag reaches its file [K13]."""
    running.command("update", *flags).ok()
    assert value(running, controller, file) == expected


@pytest.mark.parametrize(
    ("flags", "file", "expected"),
    [
        (["--cpu-burst", "5000"], "cpu.cfs_burst_us", "5000"),
        (["--cpu-idle", "1"], "cpu.idle", "1"),
    ],
)
def test_newer_flags(running: Container, flags: list[str], file: str, expected: str) -> None:
    """Burst and idle [K13, B9, B10]."""
    running.command("update", *flags).ok()
    assert value(running, "cpu", file) == expected


def test_idle_and_back(running: Container) -> None:
    """idle without shares writes no weight, and idle can be left again with a weight [K13, B10]."""
    assert update(running, {"cpu": {"idle": 1}}).code == 0
    assert update(running, {"cpu": {"idle": 0, "shares": 700}}).code == 0
    assert (value(running, "cpu", "cpu.idle"), value(running, "cpu", "cpu.shares")) == ("0", "700")


def test_the_rest_stays(running: Container) -> None:
    """What is not named is not changed [K13]."""
    running.command("update", "--memory", "100M").ok()
    assert value(running, "memory", "memory.limit_in_bytes") == str(100 * MIB)
    assert value(running, "cpu", "cpu.cfs_quota_us") == "20000"
    assert value(running, "cpu", "cpu.cfs_period_us") == "50000"
    assert value(running, "cpu", "cpu.shares") == "512"
    assert value(running, "pids", "pids.max") == "40"


@pytest.mark.parametrize("status", ["created", "running", "paused"])
def test_statuses(running: Container, status: str) -> None:
    """A container that has not stopped can be updated [K13]."""
    if status != "created":
        running.bundle.args("pause")
        running.delete("--force")
        running.wait()
        running.status = None
        running.begin("pause")
    if status == "paused":
        running.command("pause").ok()
    running.command("update", "--pids-limit", "33").ok()
    assert value(running, "pids", "pids.max") == "33"
    assert running.state()["status"] == status
    if status == "paused":
        running.command("resume").ok()


def test_stopped(running: Container) -> None:
    """A stopped container is refused [K13]."""
    running.finish()
    result = running.command("update", "--pids-limit", "33")
    assert result.code != 0
    assert "running" in result.error


def test_resources_from_a_file(running: Container, tmp_path: Path) -> None:
    """--resources takes a file, and wins over the other flags [K13]."""
    path = tmp_path / "resources.json"
    path.write_text(json.dumps({"pids": {"limit": 21}, "memory": {"limit": 96 * MIB}}))
    running.command("update", "-r", str(path), "--pids-limit", "99", "--cpu-share", "99").ok()
    assert value(running, "pids", "pids.max") == "21"
    assert value(running, "memory", "memory.limit_in_bytes") == str(96 * MIB)
    assert value(running, "cpu", "cpu.shares") == "512"


def test_resources_from_stdin(running: Container) -> None:
    """- is stdin [K13]."""
    update(running, {"cpu": {"quota": 25000}}).ok()
    assert value(running, "cpu", "cpu.cfs_quota_us") == "25000"


def test_nothing(running: Container) -> None:
    """An empty update changes nothing and succeeds, as engines expect."""
    update(running, {}).ok()
    update(running, {"cpu": {}, "memory": {}, "blockIO": {}}).ok()
    assert value(running, "pids", "pids.max") == "40"


def test_no_values(running: Container) -> None:
    """An empty value, and null for the document, name no limit, as callers write what they do not have [K13]."""
    if running.runtime.name == "crun":
        pytest.skip("refuses empty values")
    running.command("update", "--cpu-share=", "--cpu-quota", "", "--memory", "", "--cpuset-cpus=").ok()
    running.command("update", "-r", "-", stdin=b"null\n").ok()
    assert value(running, "cpu", "cpu.shares") == "512"
    assert value(running, "pids", "pids.max") == "40"


@pytest.mark.ours_only("a file that is not named is an error")
def test_no_file(running: Container) -> None:
    """An empty --resources is a mistake, not an update without limits [K13]."""
    result = running.command("update", "--resources=")
    assert result.code != 0
    assert "--resources needs" in result.error


def test_unlimited_memory_lifts_swap(running: Container) -> None:
    """memory -1 alone means no limit for swap either [K13, B2]."""
    if not (directory(running, "memory") / "memory.memsw.limit_in_bytes").exists():
        pytest.skip("no swap accounting")
    update(running, {"memory": {"limit": 64 * MIB, "swap": 96 * MIB}}).ok()
    assert value(running, "memory", "memory.memsw.limit_in_bytes") == str(96 * MIB)
    running.command("update", "--memory", "-1").ok()
    assert int(value(running, "memory", "memory.limit_in_bytes")) > 1 << 60
    assert int(value(running, "memory", "memory.memsw.limit_in_bytes")) > 1 << 60


def test_kernel_memory_is_a_warning(running: Container) -> None:
    """Obsolete limits are told and ignored [K13, B5]."""
    result = running.command("update", "--kernel-memory", "64M", "--kernel-memory-tcp", "1M")
    if running.runtime.ours:
        assert result.code == 0
        assert "/memory/kernel:" in result.error
        assert "/memory/kernelTCP:" in result.error


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--memory", "much"], "--memory"),
        (["--cpu-quota", "x"], "--cpu-quota"),
        (["--cpuset-cpus", "0-99999"], "cpus"),
        (["--blkio-weight", "5"], "weight"),
        (["--l3-cache-schema", "L3:0=f"], ""),
        (["--nonsense", "1"], "nonsense"),
    ],
)
def test_bad_flags(running: Container, flags: list[str], words: str) -> None:
    """Nonsense is refused [K13]."""
    result = running.command("update", *flags)
    assert result.code != 0
    if running.runtime.ours:
        assert words in result.error


@pytest.mark.ours_only("the form of the file is checked, and errors name the field")
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "line 1"),
        (b'{"pids": {"limit": "x"}}', "/pids/limit"),
        (b'{"memory": {"limit": 67108864, "swap": 1000}}', "/memory/swap"),
        (b'{"unified": {"memory.max": "1"}}', "/unified"),
        (b'{"rdma": {"mlx5_1": {"hcaHandles": 3}}}', "/rdma/mlx5_1"),
        (b'{"devices": [{"allow": true, "access": ""}]}', "/devices/0/access"),
        (b'{"linux": {"resources": {"pids": {"limit": 3}}}}', "no limit is named"),
    ],
)
def test_bad_files(running: Container, data: bytes, words: str) -> None:
    """Wrong resources are refused with pointers into them, and change nothing [K13, X3]."""
    before = value(running, "memory", "memory.limit_in_bytes")
    result = running.command("update", "-r", "-", stdin=data)
    assert result.code != 0
    assert words in result.error
    assert value(running, "memory", "memory.limit_in_bytes") == before


@pytest.mark.ours_only("B8: runc and crun write in one order only")
def test_period_and_quota_below_a_parents(container: Container) -> None:
    """Either may be refused until the other is there; the two together are not [B8, K13]."""
    requires("v1:cpu")
    group = container.bundle.config["linux"]["cgroupsPath"]
    container.bundle.linux(cgroupsPath=f"{group}/leaf", resources={"cpu": {"quota": 40000, "period": 100000}})
    container.create()
    parent = Path(host.cgroup_mounts()["cpu"] + group)
    (parent / "cpu.cfs_quota_us").write_text("50000")
    for quota, period in ((4000, 10000), (40000, 100000), (400000, 1000000), (2000, 5000)):
        update(container, {"cpu": {"quota": quota, "period": period}}).ok()
        assert value(container, "cpu", "cpu.cfs_quota_us") == str(quota)
        assert value(container, "cpu", "cpu.cfs_period_us") == str(period)
    assert "/cpu/quota" in update(container, {"cpu": {"quota": 6000, "period": 10000}}).error
    assert value(container, "cpu", "cpu.cfs_period_us") == "5000"


@pytest.mark.ours_only("S5: what is locked, and how")
@pytest.mark.requires("v1:pids")
def test_waits_for_its_turn(running: Container) -> None:
    """One command at a time changes a container: update waits for the lock that another one holds [K13, S5]."""
    before = value(running, "pids", "pids.max")
    other = os.open(running.runtime.root / running.id, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        process = running.runtime.spawn("update", "--pids-limit", "77", running.id)
        time.sleep(0.5)
        assert process.poll() is None
        assert value(running, "pids", "pids.max") == before
    finally:
        os.close(other)
    assert process.wait(60) == 0
    assert value(running, "pids", "pids.max") == "77"


# -- all or nothing --


@pytest.mark.ours_only("X4: a failed update changes nothing")
def test_failure_changes_nothing(running: Container) -> None:
    """A write that the kernel refuses: the ones before it are taken back [K13, X4]."""
    files = [
        ("memory", "memory.limit_in_bytes"),
        ("memory", "memory.soft_limit_in_bytes"),
        ("cpu", "cpu.cfs_quota_us"),
        ("cpu", "cpu.cfs_period_us"),
        ("cpu", "cpu.shares"),
        ("pids", "pids.max"),
        ("cpuset", "cpuset.cpus"),
    ]
    before = [value(running, *file) for file in files]
    result = update(
        running,
        {
            "memory": {"limit": 128 * MIB, "reservation": 64 * MIB},
            "cpu": {"quota": 30000, "period": 60000, "shares": 100, "cpus": "0"},
            "pids": {"limit": 7},
            "blockIO": {"throttleReadBpsDevice": [{"major": 4095, "minor": 99, "rate": 1000}]},
        },
    )
    assert result.code != 0
    assert "/blockIO/throttleReadBpsDevice/0" in result.error
    assert [value(running, *file) for file in files] == before


@pytest.mark.ours_only("X4: a failed update changes nothing")
@pytest.mark.requires("v1:cpu", "v1:blkio")
def test_failure_leaves_the_weight(running: Container) -> None:
    """The kernel forgets the weight of a cgroup that becomes idle: it is put back, too [K13, B10]."""
    throttle = [{"major": 4095, "minor": 99, "rate": 1000}]
    result = update(running, {"cpu": {"idle": 1}, "blockIO": {"throttleReadBpsDevice": throttle}})
    assert result.code != 0
    assert (value(running, "cpu", "cpu.idle"), value(running, "cpu", "cpu.shares")) == ("0", "512")


@pytest.mark.ours_only("X4: other members of resources count too")
@pytest.mark.requires("v2:hugetlb")
def test_hugetlb_on_a_hybrid_host(running: Container) -> None:
    """A limit of a controller that only v2 has, and that nobody has asked for before [X4, B17]."""
    update(running, {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}).ok()
    assert value(running, "", "hugetlb.2MB.max") == str(4 * MIB)
    result = update(
        running,
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 8 * MIB}, {"pageSize": "64GB", "limit": 0}]},
    )
    assert result.code != 0
    assert value(running, "", "hugetlb.2MB.max") == str(4 * MIB)


# -- devices --


@pytest.fixture(params=["machine", "v2"])
def with_kmsg(container: Container, request: pytest.FixtureRequest) -> Container:
    """A container that has the node of a device that it may not use."""
    if request.param == "v2":
        container.runtime = request.getfixturevalue("runtime_v2")
    else:
        requires("v1:devices")
    container.bundle.linux(
        devices=[{"path": "/dev/kmsg", **KMSG}, {"path": "/dev/null2", "type": "c", "major": 1, "minor": 3}]
    )
    container.bundle.process(
        capabilities={name: ["CAP_SYSLOG"] for name in ("bounding", "effective", "permitted", "inheritable")}
    )
    container.begin("pause")
    return container


def errno_of_open(container: Container, mode: str = "r", path: str = "/dev/kmsg") -> int:
    """errno of opening a device in the container."""
    result = container.execute(f"open {path} {mode}", flags=["--cap", "CAP_SYSLOG"])
    number: int = result.replies[0]["errno"]
    return number


@pytest.mark.ours_only("X4: devices can be updated")
def test_devices(with_kmsg: Container) -> None:
    """A device that is not allowed gets EPERM, and is allowed after update; and back [X4]."""
    assert errno_of_open(with_kmsg) == 1
    update(with_kmsg, {"devices": [DENY_ALL, {"allow": True, **KMSG, "access": "r"}]}).ok()
    assert errno_of_open(with_kmsg) == 0
    assert errno_of_open(with_kmsg, "w") == 1
    update(with_kmsg, {"devices": [ALLOW_ALL]}).ok()
    assert errno_of_open(with_kmsg, "w") == 0
    # Exceptions to "all": those of the update before go, though cgroup v1 does not show them.
    update(with_kmsg, {"devices": [ALLOW_ALL, {"allow": False, **KMSG, "access": "w"}]}).ok()
    assert (errno_of_open(with_kmsg, "r"), errno_of_open(with_kmsg, "w")) == (0, 1)
    update(with_kmsg, {"devices": [ALLOW_ALL, {"allow": False, **KMSG, "access": "r"}]}).ok()
    assert (errno_of_open(with_kmsg, "r"), errno_of_open(with_kmsg, "w")) == (1, 0)
    update(with_kmsg, {"devices": [DENY_ALL]}).ok()
    assert (errno_of_open(with_kmsg, "r"), errno_of_open(with_kmsg, "w")) == (1, 1)
    assert errno_of_open(with_kmsg, "rw", "/dev/null2") == 0
    assert with_kmsg.state()["status"] == "running"


@pytest.mark.ours_only("X4: devices can be updated")
def test_devices_after_a_failure(with_kmsg: Container) -> None:
    """When something else of the update fails, the old filter is in force [X4]."""
    for rules in ([DENY_ALL, {"allow": True, **KMSG, "access": "r"}], [ALLOW_ALL]):
        bad = {"devices": rules, "blockIO": {"throttleReadBpsDevice": [{"major": 4095, "minor": 99, "rate": 1000}]}}
        assert update(with_kmsg, bad).code != 0
        assert errno_of_open(with_kmsg) == 1
    update(with_kmsg, {"pids": {"limit": -1}})
    assert errno_of_open(with_kmsg) == 1


@pytest.fixture
def hammer(with_kmsg: Container) -> Iterator[Callable[[], tuple[int, int]]]:
    """A process in the container's cgroup that opens two devices without a pause. Calling it ends it, and returns how
    often it could open the forbidden one, and could not open the allowed one.
    """
    group = with_kmsg.bundle.config["linux"]["cgroupsPath"]
    nodes = [str(with_kmsg.bundle.path / name) for name in ("forbidden", "allowed")]
    os.mknod(nodes[0], 0o20600, os.makedev(1, 12))
    os.mknod(nodes[1], 0o20600, os.makedev(1, 3))
    reader, writer = os.pipe()
    wait_go, go = os.pipe()
    pid = os.fork()
    if not pid:
        ended: list[int] = []
        signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
        opened = refused = 0
        os.read(wait_go, 1)  # in the container's cgroup from here on
        os.write(writer, b"!")
        while not ended:
            try:
                os.close(os.open(nodes[0], os.O_RDONLY))
                opened += 1
            except PermissionError:
                pass
            except OSError:
                opened += 1  # past the filter: there is no such device
            try:
                os.close(os.open(nodes[1], os.O_RDONLY))
            except PermissionError:
                refused += 1
        os.write(writer, b"%d %d" % (opened, refused))
        os._exit(0)
    for point in {point for name, point in host.cgroup_mounts().items() if name in ("devices", "freezer", "")}:
        if Path(point + group).is_dir():
            Path(point + group, "cgroup.procs").write_text(str(pid))
    os.write(go, b"g")
    assert os.read(reader, 1) == b"!"

    def end() -> tuple[int, int]:
        os.kill(pid, signal.SIGTERM)
        opened, refused = os.read(reader, 100).split()
        return int(opened), int(refused)

    yield end
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for fd in (reader, writer, wait_go, go):
        os.close(fd)


@pytest.mark.ours_only("X4: devices can be updated")
def test_no_hole_between_two_filters(with_kmsg: Container, hammer: Callable[[], tuple[int, int]]) -> None:
    """While filters change, what none of them allows is never allowed, and what all allow is never refused [X4]."""
    forbidden = {"allow": False, "type": "c", "major": 1, "minor": 12, "access": "rwm"}
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        update(with_kmsg, {"devices": [DENY_ALL, {"allow": True, **KMSG, "access": "r"}]}).ok()
        update(with_kmsg, {"devices": [ALLOW_ALL, forbidden]}).ok()
        update(with_kmsg, {"devices": [ALLOW_ALL, forbidden, {"allow": False, **KMSG, "access": "rw"}]}).ok()
        update(with_kmsg, {"devices": [DENY_ALL]}).ok()
    assert hammer() == (0, 0)


# -- cgroup v2 --


@pytest.mark.ours_only("X3: the same rule as for create")
def test_v2_refuses_what_it_cannot_say(container: Container, runtime_v2: Any) -> None:
    """What create refuses on cgroup v2, update refuses too [X3]."""
    container.runtime = runtime_v2
    container.create()
    for resources, pointer in (
        ({"cpu": {"realtimeRuntime": 1000}}, "/cpu/realtimeRuntime"),
        ({"memory": {"swappiness": 10}}, "/memory/swappiness"),
        ({"memory": {"disableOOMKiller": True}}, "/memory/disableOOMKiller"),
        ({"blockIO": {"leafWeight": 100}}, "/blockIO/leafWeight"),
        ({"network": {"classID": 5}}, "/network/classID"),
        ({"unified": {"nonsense.max": "1"}}, "/unified/nonsense.max"),
    ):
        result = update(container, resources)
        assert result.code != 0, resources
        assert pointer in result.error


@pytest.mark.requires("v2:hugetlb")
def test_v2_empty_values(container: Container, runtime_v2: Any) -> None:
    """An empty value of unified is none: the kernel would take it for 0, and kill what is above that [B20]."""
    container.runtime = runtime_v2
    container.bundle.merge({"linux": {"resources": {"unified": {"hugetlb.2MB.max": ""}}}})
    container.create()
    before = value(container, "", "hugetlb.2MB.max")
    assert before != "0"
    update(container, {"unified": {"hugetlb.2MB.max": ""}}).ok()
    assert value(container, "", "hugetlb.2MB.max") == before


@pytest.mark.ours_only("X4: other members of resources count too")
@pytest.mark.requires("v2:hugetlb")
def test_v2_unified_and_hugetlb(container: Container, runtime_v2: Any) -> None:
    """Files by name, and hugetlb, all or none [X4, B17, B20]."""
    container.runtime = runtime_v2
    container.create()
    update(container, {"unified": {"hugetlb.2MB.max": str(6 * MIB)}}).ok()
    assert value(container, "", "hugetlb.2MB.max") == str(6 * MIB)
    bad = {
        "hugepageLimits": [{"pageSize": "2MB", "limit": 2 * MIB}],
        "unified": {"hugetlb.1GB.max": "nonsense"},
    }
    result = update(container, bad)
    assert result.code != 0
    assert "/unified/hugetlb.1GB.max" in result.error
    assert value(container, "", "hugetlb.2MB.max") == str(6 * MIB)


@pytest.mark.ours_only("X4: a failed update changes nothing")
@pytest.mark.requires("v2:hugetlb")
def test_v2_enabled_controllers(pure: Container) -> None:
    """cgroup.subtree_control takes changes: a failed update makes the opposite ones [X4, B20]."""
    pure.bundle.merge({"annotations": {"run.oci.delegate-cgroup": "payload"}})
    pure.create()
    file = v2_directory(pure) / "cgroup.subtree_control"
    before = file.read_text()
    assert "hugetlb" in before
    change = {"cgroup.subtree_control": "-hugetlb"}
    result = update(pure, {"unified": {**change, "hugetlb.2MB.max": "nonsense"}})
    assert result.code != 0
    assert "/unified/hugetlb.2MB.max" in result.error
    assert "cannot put" not in result.error
    assert file.read_text() == before
    update(pure, {"unified": change}).ok()
    assert "hugetlb" not in file.read_text()


@pytest.mark.ours_only("B20: what is no limit is refused")
@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("memory.pressure", "some 150000 1000000", "keeps the file open"),
        ("cgroup.freeze", "1", "pause and resume"),
    ],
)
def test_v2_files_without_limits(pure: Container, leaks: Leaks, file: str, text: str, words: str) -> None:
    """A trigger would be gone with the command; a frozen container would not be created [B20]."""
    pure.bundle.linux(resources={"unified": {file: text}})
    result = pure.create(check=False)
    assert result.code != 0
    assert f"/linux/resources/unified/{file}" in result.error
    assert words in result.error
    leaks.check()
    del pure.bundle.config["linux"]["resources"]["unified"]
    pure.create()
    result = update(pure, {"unified": {file: text}})
    assert result.code != 0
    assert f"/unified/{file}" in result.error
