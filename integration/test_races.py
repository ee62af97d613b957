"""Many at once, many in a row, and death at any moment. --slow (IT_SLOW=1) runs the full counts."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.lib.container import Container, alive
from integration.lib.leaks import Leaks
from integration.lib.runtime import Runtime


def test_parallel_creates_of_one_id(container: Container, runtime: Runtime, leaks: Leaks, work: Path) -> None:
    """Of 50 creates of one ID at the same time exactly one wins; the others say that it exists [K1, S5]."""
    count = 50
    container.bundle.write()
    container.used = True
    outputs = [(work / f"race{n}.err").open("w+b") for n in range(count)]
    with open(work / "race.in", "w+b") as empty:
        processes = [
            runtime.spawn(
                "create", "--bundle", str(container.bundle.path), "--pid-file", str(work / f"race{n}.pid"),
                container.id, stdin=empty, stdout=empty, stderr=outputs[n],
            )
            for n in range(count)
        ]  # fmt: skip
        codes = [process.wait(60) for process in processes]
    texts = []
    for output in outputs:
        output.seek(0)
        texts.append(output.read().decode())
        output.close()
    winners = [n for n, code in enumerate(codes) if code == 0]
    assert len(winners) == 1, [text for text in texts if text]
    container.pid = container.state()["pid"]
    assert (work / f"race{winners[0]}.pid").read_text() == str(container.pid)
    for number in range(count):
        if number not in winners:
            assert not (work / f"race{number}.pid").exists()
            if runtime.ours:
                assert "container with given ID already exists" in texts[number]
    assert container.state()["status"] == "created"
    container.start()
    assert container.wait() == 0
    container.delete()
    for path in work.glob("race*"):
        path.unlink()
    leaks.check()


def test_many_cycles(new_container: Callable[..., Container], leaks: Leaks, slow: bool, runtime: Runtime) -> None:
    """1,000 times create, start, delete (100 without --slow): no mount, cgroup, process, zombie or state is left."""
    count = 1000 if slow else int(os.environ.get("IT_CYCLES", "100"))
    container = new_container()
    container.bundle.args("exit 0")
    for _ in range(count):
        container.status = None
        container.create()
        container.start()
        container.wait()
        container.delete()
    leaks.check()


def test_parallel_containers(new_container: Callable[..., Container], leaks: Leaks, runtime: Runtime) -> None:
    """Eight whole lives at the same time do not disturb each other [S5]."""
    import threading

    containers = [new_container() for _ in range(8)]
    failures: list[str] = []

    def live(one: Container, status: int) -> None:
        try:
            one.bundle.args(f"exit {status}")
            one.create()
            one.start()
            if one.wait() != status:
                failures.append(f"{one.id}: {one.status}")
            one.delete()
        except (AssertionError, OSError) as error:
            failures.append(f"{one.id}: {error}")

    threads = [threading.Thread(target=live, args=(one, n + 1)) for n, one in enumerate(containers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    leaks.check()


def test_shared_mount_point(new_container: Callable[..., Container], leaks: Leaks) -> None:
    """Eight creates at once on one rootfs with the same missing mount points all succeed [SECURITY A]."""
    containers = [new_container() for _ in range(8)]
    processes = []
    with open("/proc/self/stat", "rb") as harmless:
        for one in containers:
            one.bundle.merge({"root": {"path": str(containers[0].bundle.rootfs)}})
            one.bundle.mount("/shared/deep/place", "tmpfs", type="tmpfs")
            one.bundle.mount("/shared/file", "/etc/passwd", "bind")
            one.bundle.write()
            one.used = True
            processes.append(
                one.runtime.spawn(
                    "create",
                    "--bundle",
                    str(one.bundle.path),
                    "--pid-file",
                    str(one.pid_file),
                    one.id,
                    stdin=harmless,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        codes = [process.wait(60) for process in processes]
    for one in containers:
        if one.pid_file.exists():
            one.pid = int(one.pid_file.read_text())
    assert codes == [0] * 8


def test_killed_create(
    new_container: Callable[..., Container], runtime: Runtime, leaks: Leaks, slow: bool, work: Path
) -> None:
    """The runtime is killed at random moments of create; delete --force then leaves nothing [S1, K7]."""
    random.seed(7)
    typical = new_container()
    began = time.monotonic()
    typical.create()
    length = time.monotonic() - began
    typical.delete("--force")
    typical.wait()
    rounds = 100 if slow else 20
    stuck = []
    for number in range(rounds):
        one = new_container()
        one.bundle.write()
        one.used = True
        moment = random.random() * length * 1.1
        with open(work / "killed.in", "w+b") as empty:
            process = runtime.spawn(
                "create", "--bundle", str(one.bundle.path), one.id, stdin=empty, stdout=empty, stderr=empty
            )
            time.sleep(moment)
            process.kill()
            process.wait(60)
        state = runtime("state", one.id)
        if state.code == 0:
            assert state.json["status"] in ("creating", "created", "stopped")
        result = one.delete("--force", check=False)
        assert result.code == 0, (number, moment, result)
        left = leaks.found()
        if left:
            stuck.append((round(moment * 1000, 1), left[:3]))
            leaks.repair()
        # the ID is free again
        one.create()
        one.delete("--force")
        one.wait()
    (work / "killed.in").unlink()
    assert not stuck, f"{len(stuck)} of {rounds}: {stuck}"
    leaks.check()


def test_two_starts(container: Container, runtime: Runtime) -> None:
    """Of two starts at the same time one succeeds [S5]."""
    container.bundle.args("pause")
    container.create()
    processes = [
        runtime.spawn("start", container.id, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(5)
    ]
    codes = []
    for process in processes:
        process.communicate(timeout=60)
        codes.append(process.returncode)
    assert codes.count(0) == 1
    assert container.state()["status"] == "running"


def test_two_deletes(container: Container, runtime: Runtime, leaks: Leaks) -> None:
    """Several forced deletes at once all end well, and nothing is left [S5]."""
    container.begin("pause")
    processes = [
        runtime.spawn(
            "delete", "--force", container.id, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(5)
    ]
    codes = []
    for process in processes:
        process.communicate(timeout=60)
        codes.append(process.returncode)
    assert 0 in codes
    if runtime.ours:
        assert codes == [0] * 5
    container.wait()
    leaks.check()


def test_list_and_state_during_changes(
    new_container: Callable[..., Container], runtime: Runtime, tmp_path: Path
) -> None:
    """list works while containers come and go [K9, S5]."""
    steady = new_container().begin("pause")
    busy = new_container()
    busy.bundle.args("exit 0")
    stop = time.monotonic() + 2
    failures = []
    listed = tmp_path / "listed"
    with listed.open("wb") as output:
        lister = subprocess.Popen(
            ["sh", "-c", 'while :; do "$@" list -q || echo FAILED; done', "sh", *runtime.argv()],
            stdout=output, stderr=subprocess.PIPE,
        )  # fmt: skip
    try:
        while time.monotonic() < stop or not listed.stat().st_size:
            busy.status = None
            busy.create()
            busy.start()
            busy.wait()
            busy.delete()
    finally:
        lister.kill()
        lister.communicate()  # the list that was still running, too
    names = listed.read_text().split()
    for line in names:
        if line not in (steady.id, busy.id):
            failures.append(line)
    assert steady.id in names
    if runtime.ours:
        assert not failures
    assert steady.state()["status"] == "running"


def test_kill_against_the_end(new_container: Callable[..., Container]) -> None:
    """A signal sent while the program ends is delivered or reported, and never hits another process [K6]."""
    container = new_container()
    container.bundle.args("sleep 5", "exit 0")
    for _ in range(10):
        container.status = None
        container.create()
        container.start()
        result = container.kill("KILL", check=False)
        if result.code != 0 and container.runtime.ours:
            assert "container not running" in result.error
        assert container.wait() in (0, 137)
        container.delete()
        assert not alive(container.pid)


@pytest.mark.parametrize("verb", ["state", "kill", "delete"])
def test_killed_reader(container: Container, runtime: Runtime, verb: str) -> None:
    """Killing state, kill or delete at any moment leaves a container that can be deleted [S5]."""
    for _ in range(5):
        container.status = None
        container.begin("pause")
        words = ["delete", "--force"] if verb == "delete" else [verb]
        process = runtime.spawn(
            *words, container.id, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        time.sleep(random.random() * 0.02)
        process.kill()
        process.communicate()
        container.delete("--force")
        container.wait()
