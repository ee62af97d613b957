"""events: usage, and what happens to a container."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import requires
from integration.lib import host
from integration.lib.container import Container, v2_directory, wait_until
from integration.lib.runtime import Runtime

MIB = 1 << 20


class Listener:
    """`events` in the background: records with the time at which they came."""

    def __init__(self, container: Container, *flags: str) -> None:
        self.records: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.start = time.monotonic()
        self.process = container.runtime.spawn(
            "events", *flags, container.id, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE
        )
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.times.append(time.monotonic() - self.start)
            self.records.append(json.loads(line))

    def types(self) -> list[str]:
        """The types so far."""
        return [record["type"] for record in self.records]

    def end(self) -> int:
        """Wait for its end."""
        code = self.process.wait(60)
        self.thread.join(60)
        return code

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.thread.join(60)
        for stream in (self.process.stdout, self.process.stderr, self.process.stdin):
            if stream is not None:
                stream.close()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    """Start `events`."""
    made: list[Listener] = []

    def start(container: Container, *flags: str) -> Listener:
        made.append(Listener(container, *flags))
        return made[-1]

    yield start
    for listener in made:
        listener.close()


def usage(container: Container) -> dict[str, Any]:
    """events --stats."""
    result = container.command("events", "--stats").ok()
    assert result.text.count("\n") == 1
    record = result.json
    assert set(record) == {"type", "id", "data"}
    assert (record["type"], record["id"]) == ("stats", container.id)
    data: dict[str, Any] = record["data"]
    return data


# -- stats --


@pytest.mark.requires("v1:memory", "v1:cpu", "v1:pids")
def test_stats(container: Container) -> None:
    """--stats prints one record: usage and limits [K12, J4]."""
    container.bundle.linux(
        resources={"memory": {"limit": 64 * MIB}, "cpu": {"quota": 50000, "period": 100000}, "pids": {"limit": 50}}
    )
    container.begin("fork 3", "alloc 8", "pause")
    data = usage(container)
    assert data["pids"] == {"current": 4, "limit": 50}
    assert data["memory"]["usage"]["limit"] == 64 * MIB
    assert data["memory"]["usage"]["usage"] > 8 * MIB
    assert data["memory"]["usage"]["failcnt"] == 0
    assert data["memory"]["raw"]["rss"] > 7 * MIB  # the kernel sums it up later
    assert data["cpu"]["usage"]["total"] > 0
    assert {"kernel", "user"} <= set(data["cpu"]["usage"])
    assert data["network_interfaces"] is None
    assert data["intel_rdt"] == {}
    assert all(type(number) is int for number in data["cpuset"]["cpus"])


def _structure(value: Any, path: str = "") -> set[str]:
    """The paths of all members; entries of lists are one."""
    if isinstance(value, dict):
        found = {path}
        for name, member in value.items():
            found |= _structure(member, f"{path}/{name}")
        return found
    if isinstance(value, list):
        return {path}.union(*(_structure(member, f"{path}/*") for member in value))
    return {path}


@pytest.fixture
def runc(work: Path) -> Runtime:
    """runc, which set the form of these records."""
    path = shutil.which("runc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if path is None:
        pytest.skip("no runc to compare with")
    root = work / "runc-state"
    root.mkdir(exist_ok=True)
    return Runtime(path, root)


@pytest.mark.ours_only("compares with runc")
@pytest.mark.parametrize("world", ["machine", "v2"])
def test_same_keys_as_runc(
    container: Container,
    new_container: Callable[..., Container],
    runc: Runtime,
    world: str,
    request: pytest.FixtureRequest,
) -> None:
    """The same cgroup described by both: runc's keys are all there, and values are the same within noise [J4]."""
    if world == "v2":
        prefix = request.getfixturevalue("v2_prefix")
        container.runtime = container.runtime.within(prefix)
        runc = runc.within(prefix)
    theirs = new_container(at=runc)
    for each in (container, theirs):
        if world == "machine":
            requires("v1:memory", "v1:cpu", "v1:pids")
            each.bundle.linux(
                resources={
                    "memory": {"limit": 64 * MIB},
                    "cpu": {"quota": 50000, "period": 100000},
                    "pids": {"limit": 50},
                }
            )
        each.begin("fork 3", "alloc 8", "pause")
    # Ours of runc's container: the same counters, read by both.
    mine, other = usage(container), usage(theirs)
    ours_only = {"/hugetlb/1GB", "/hugetlb/2MB", "/hugetlb/64KB", "/hugetlb/32MB"}
    extra = {path for path in _structure(mine) - _structure(other) if "psi" not in path}
    extra = {path for path in extra if not any(path == key or path.startswith(key + "/") for key in ours_only)}
    # Counters that are zero are left out, so they may be there by chance.
    chance = {"/memory/cache", "/cpu/throttling/throttledPeriods", "/cpu/throttling/throttledTime"}
    chance |= {path for path in extra if path.startswith("/blkio")} | {"/cpu/throttling/periods"}
    chance |= {"/memory/kernelTCP/usage", "/memory/kernel/usage", "/memory/kernel/max", "/memory/usage/max"}
    assert extra <= chance
    missing = {path for path in _structure(other) - _structure(mine) if not path.startswith("/blkio/")}
    assert missing <= chance
    assert mine["pids"] == other["pids"]
    assert mine["cpuset"] == other["cpuset"]
    for name in ("usage", "swap", "kernel", "kernelTCP"):
        assert mine["memory"][name]["limit"] == other["memory"][name]["limit"], name
    if world == "machine":
        assert abs(mine["memory"]["usage"]["usage"] - other["memory"]["usage"]["usage"]) < 8 * MIB
        assert len(mine["cpu"]["usage"]["percpu"]) == len(other["cpu"]["usage"]["percpu"])


def _values(value: Any, path: str = "") -> dict[str, Any]:
    """Path to value, of all that is no object or list of objects."""
    if isinstance(value, dict):
        return {key: item for name in value for key, item in _values(value[name], f"{path}/{name}").items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {key: item for n, entry in enumerate(value) for key, item in _values(entry, f"{path}/{n}").items()}
    return {path: value}


@pytest.mark.ours_only("compares with runc")
@pytest.mark.parametrize("world", ["machine", "v2"])
def test_same_values_as_runc(
    new_container: Callable[..., Container], runc: Runtime, world: str, request: pytest.FixtureRequest
) -> None:
    """A container of runc that is paused, so that nothing counts on: both say the same of the same cgroup [J4]."""
    pytest.importorskip("ociruntime.shim._native", reason="the compiled module is not built for this Python")
    from ociruntime.cgroups import manager, stats

    mounts = {name: point for name, point in host.cgroup_mounts().items() if world == "machine" or not name}
    if world == "v2":
        runc = runc.within(request.getfixturevalue("v2_prefix"))
    theirs = new_container(at=runc)
    controllers = set(mounts) if world == "machine" else host.v2_controllers()
    wanted = {"memory": {"limit": 64 * MIB}, "cpu": {"quota": 50000, "period": 100000}, "pids": {"limit": 50}}
    theirs.bundle.linux(resources={name: limit for name, limit in wanted.items() if name in controllers})
    theirs.begin("fork 3", "alloc 8", "pause")
    theirs.command("pause").ok()
    group = theirs.bundle.config["linux"]["cgroupsPath"]
    paths = {name: point + group for name, point in mounts.items() if os.path.isdir(point + group)}
    mode = "v2" if set(mounts) == {""} else "hybrid" if "" in mounts else "v1"
    saved = {"mode": mode, "paths": paths, "made": [], "rootless": False}

    def collect() -> dict[str, Any]:
        return _values(json.loads(json.dumps(stats.collect(manager.from_state(saved)))))

    def periods(values: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key.startswith("/cpu/throttling/")}

    mine: dict[str, Any] = {}
    other: dict[str, Any] = {}

    def at_rest() -> bool:
        """The kernel counts the period that was going on when it paused, too, at its end."""
        nonlocal mine, other
        mine, other = collect(), _values(usage(theirs))
        return periods(mine) == periods(collect())

    wait_until(at_rest, what="the end of the period")
    theirs.command("resume").ok()
    # Left out by versions of runc that do not know them; and sums that are counted up later by the kernel.
    ours_only: tuple[str, ...] = ("psi", "/hugetlb/", "/memory/usage/max", "/blkio/")
    if mode == "v2":
        ours_only += ("/memory/kernel/usage", "/memory/kernelTCP/usage")  # from memory.stat
    assert not [key for key in other if key not in mine and not key.startswith(("/intel_rdt", "/network_interfaces"))]
    assert not [key for key in mine if key not in other and not any(word in key for word in ours_only)]
    assert len(mine) > 30
    for key, mine_now in mine.items():
        if key not in other or "/psi/" in key or key.startswith("/memory/raw/"):
            continue
        if key.startswith("/memory") and isinstance(mine_now, int) and mine_now < 1 << 40:
            assert abs(mine_now - other[key]) <= 2 * MIB, key
        elif key.startswith("/cpu/"):
            continue
        else:
            assert mine_now == other[key], key
    for key in ("/cpu/usage/total", "/cpu/usage/kernel", "/cpu/usage/user"):
        assert abs(mine.get(key, 0) - other.get(key, 0)) <= 20_000_000, key


@pytest.mark.ours_only("K12: runc tells as of 1.2, crun does not")
@pytest.mark.requires("file:/proc/pressure/cpu")
def test_pressure(pure: Container) -> None:
    """Pressure on cpu, memory and I/O, with runc's keys and the values of the kernel's files [K12, J4]."""
    files = {"cpu": "cpu.pressure", "memory": "memory.pressure", "blkio": "io.pressure"}
    pure.begin("pause")

    def total(member: str, kind: str) -> int:
        lines = [line.split() for line in (v2_directory(pure) / files[member]).read_text().splitlines()]
        return int({words[0]: words[-1] for words in lines}[kind].removeprefix("total="))

    kinds = [(member, kind) for member in files for kind in ("some", "full")]
    before = [total(*which) for which in kinds]
    found = usage(pure)
    after = [total(*which) for which in kinds]
    for (member, kind), low, high in zip(kinds, before, after, strict=True):
        psi = found[member]["psi"]
        assert set(psi) == {"some", "full"}
        assert set(psi[kind]) == {"avg10", "avg60", "avg300", "total"}
        assert low <= psi[kind]["total"] <= high
        assert all(0 <= psi[kind][name] <= 100 for name in ("avg10", "avg60", "avg300"))


@pytest.mark.parametrize("world", ["machine", "v2"])
def test_stats_of_a_created_and_a_paused_container(
    container: Container, world: str, request: pytest.FixtureRequest
) -> None:
    """Whatever has processes has usage [K12]."""
    if world == "v2":
        container.runtime = request.getfixturevalue("runtime_v2")
    container.create()
    if container.runtime.ours:  # others are threaded programs until start
        assert usage(container)["pids"]["current"] == 1
    container.bundle.args("pause")
    container.delete("--force")
    container.wait()
    container.status = None
    container.begin("pause")
    container.command("pause").ok()
    assert usage(container)["pids"]["current"] == 1
    container.command("resume").ok()


def test_stopped(container: Container) -> None:
    """A stopped container has neither [K12]."""
    container.create()
    container.finish()
    for flags in (["--stats"], []):
        result = container.command("events", *flags)
        assert result.code != 0
        assert "is not running" in result.error


@pytest.mark.ours_only("interfaces of the container's network namespace are described")
def test_network_interfaces(container: Container) -> None:
    """Interfaces other than lo, with what they have moved."""
    container.begin("pause")
    made = subprocess.run(
        ["nsenter", f"--net=/proc/{container.pid}/ns/net", "ip", "link", "add", "it0", "type", "veth"],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("no veth devices here")
    found = usage(container)["network_interfaces"]
    assert {entry["Name"] for entry in found} == {"it0", "veth0"}
    assert set(found[0]) == {
        "Name", "RxBytes", "RxPackets", "RxErrors", "RxDropped", "TxBytes", "TxPackets", "TxErrors", "TxDropped",
    }  # fmt: skip


# -- the stream --


@pytest.mark.parametrize("interval", ["0", "0s", "-1s", "x", "1", "1x", "1.2.3s"])
def test_bad_intervals(container: Container, interval: str) -> None:
    """An interval is a duration greater than 0 [K12]."""
    container.create()
    assert container.command("events", f"--interval={interval}").code != 0


@pytest.mark.parametrize("interval", ["1000h", "2562047h"])
def test_long_intervals(container: Container, listen: Callable[..., Listener], interval: str) -> None:
    """Whoever only wants to hear of other things than usage gives an interval that never passes [K12]."""
    container.begin("pause")
    listener = listen(container, f"--interval={interval}")
    time.sleep(0.3)
    assert listener.process.poll() is None
    container.delete("--force")
    assert listener.end() == 0
    assert "stats" not in listener.types()


def test_interval(container: Container, listen: Callable[..., Listener]) -> None:
    """The first record comes after one interval, then one per interval [K12]."""
    container.begin("pause")
    listener = listen(container, "--interval", "400ms")
    wait_until(lambda: len(listener.records) >= 3, "three records")
    assert listener.types()[:3] == ["stats"] * 3
    assert all(record["id"] == container.id for record in listener.records)
    # none can be early; how late they come, and how late we look at them, is the machine's business
    for number, moment in enumerate(listener.times[:3], 1):
        assert moment > 0.4 * number - 0.05


@pytest.mark.ours_only("X12: ends by itself, with an exit record")
@pytest.mark.parametrize("world", ["machine", "v2"])
@pytest.mark.parametrize(
    ("program", "signal", "data"),
    [
        ("exit 7", "", {"status": 7, "reason": "exited"}),
        ("pause", "KILL", {"status": 137, "signal": 9, "reason": "signal"}),
        ("pause", "TERM", {"status": 143, "signal": 15, "reason": "signal"}),
    ],
)
def test_exit(
    container: Container,
    listen: Callable[..., Listener],
    world: str,
    program: str,
    signal: str,
    data: dict[str, Any],
    request: pytest.FixtureRequest,
) -> None:
    """The end of the init process is told with its status and reason, and is the end of events [K12, X12]."""
    if world == "v2":
        container.runtime = request.getfixturevalue("runtime_v2")
    if signal == "TERM":
        container.bundle.drop_namespace("pid")
    container.bundle.args(program)
    container.create()
    listener = listen(container, "--interval=100ms")
    wait_until(lambda: listener.records, "a record")
    container.start()
    if signal:
        container.kill(signal)
    assert listener.end() == 0
    assert listener.records[-1] == {"type": "exit", "id": container.id, "data": data}
    assert set(listener.types()[:-1]) == {"stats"}


@pytest.mark.ours_only("X12: reasons")
def test_exit_by_seccomp(container: Container, listen: Callable[..., Listener]) -> None:
    """A process that its filter kills [X12]."""
    container.bundle.linux(
        seccomp={
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}],
        }
    )
    container.bundle.args("mkdir /x")
    container.create()
    listener = listen(container, "--interval=100ms")
    wait_until(lambda: listener.records, "a record")
    container.start()
    assert listener.end() == 0
    assert listener.records[-1]["data"] == {"status": 159, "signal": 31, "reason": "seccomp"}


@pytest.mark.ours_only("D: the stream ends when the last process has gone, by itself")
@pytest.mark.parametrize("world", ["machine", "v2"])
def test_ends_with_the_last_process(
    container: Container, listen: Callable[..., Listener], world: str, request: pytest.FixtureRequest
) -> None:
    """Without a PID namespace others may outlive init: usage goes on until they end too [K12]."""
    if world == "v2":
        container.runtime = request.getfixturevalue("runtime_v2")
    container.bundle.drop_namespace("pid")
    container.begin("fork 2", "pause")
    listener = listen(container, "--interval=100ms")
    wait_until(lambda: listener.records, "a record")
    os.kill(container.pid, 9)
    wait_until(lambda: "exit" in listener.types(), "the exit record")
    wait_until(lambda: listener.types()[-1] == "stats", "a record after it")
    container.kill("KILL", flags=["--all"])
    assert listener.end() == 0


def test_oom(container: Container, listen: Callable[..., Listener]) -> None:
    """A program that passes its limit of memory: oom, and the reason of its end [K12, X12]."""
    if "memory" not in host.cgroup_mounts():
        requires("v2:memory")
    container.bundle.linux(resources={"memory": {"limit": 16 * MIB, "swap": 16 * MIB}})
    container.bundle.args("alloc 64", "exit 0")
    container.create()
    listener = listen(container, "--interval=200ms")
    wait_until(lambda: listener.records, "a record")
    container.start()
    wait_until(lambda: "oom" in listener.types(), "the oom record")
    assert next(record for record in listener.records if record["type"] == "oom") == {
        "type": "oom",
        "id": container.id,
    }
    if container.runtime.ours:
        assert listener.end() == 0
        assert listener.records[-1]["data"] == {"status": 137, "signal": 9, "reason": "oom"}


@pytest.mark.ours_only("the reader's end is the end of events")
def test_reader_goes_away(container: Container) -> None:
    """Nobody reads any more: no message, no error."""
    container.begin("pause")
    process = container.runtime.spawn(
        "events", "--interval=50ms", container.id, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.ours_only("no other runtime is a Python library")
def test_library(container: Container, caller: AbstractContextManager[None]) -> None:
    """Runtime.stats, events and update [K12, K13]."""
    pytest.importorskip("ociruntime.shim._native", reason="the compiled module is not built for this Python")
    requires("v1:pids")
    from ociruntime import Runtime as Library
    from ociruntime.errors import StateError, UsageError

    library = Library(str(container.runtime.root))
    container.begin("pause")
    open_before = len(os.listdir("/proc/self/fd"))
    with caller:
        library.update(container.id, {"pids": {"limit": 23}})
        assert library.stats(container.id)["pids"] == {"current": 1, "limit": 23}
        with pytest.raises(UsageError):
            library.events(container.id, 0)
        stream = library.events(container.id, 0.05)
        assert next(stream)["type"] == "stats"
        stream.close()  # type: ignore[attr-defined]
        library.events(container.id)
        assert len(os.listdir("/proc/self/fd")) == open_before
        stream = library.events(container.id, 0.05)
        next(stream)
    container.kill("KILL")
    with caller:
        records = list(stream)
    assert records[-1]["type"] == "exit"
    assert records[-1]["data"]["reason"] == "signal"
    with caller, pytest.raises(StateError):
        library.stats(container.id)


@pytest.mark.ours_only("X12: memory.high")
def test_memory_high(container: Container, listen: Callable[..., Listener]) -> None:
    """Passing memory.high is told, with a count, once a second at most [X12]."""
    if "memory" not in host.v2_controllers() or host.cgroup_mode() != "v2":
        pytest.skip("cgroup2 has no memory controller here")
    container.bundle.linux(resources={"unified": {"memory.high": str(8 * MIB)}})
    container.bundle.args("alloc 24", "pause")
    container.create()
    listener = listen(container, "--interval=1h")
    time.sleep(0.5)
    container.start()
    wait_until(lambda: "memory.high" in listener.types(), "the record")
    assert listener.records[0]["data"]["count"] > 0
