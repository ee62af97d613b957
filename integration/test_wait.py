"""wait: the exit status of a container, for anybody who asks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from integration.conftest import requires
from integration.lib.container import Container, wait_until
from integration.lib.leaks import Leaks

pytestmark = pytest.mark.ours_only("X13: a command that other runtimes do not have")


@contextlib.contextmanager
def waiting(container: Container) -> Iterator[subprocess.Popen[bytes]]:
    """A wait that has begun."""
    argv = container.runtime.argv("wait", container.id)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        links = f"/proc/{process.pid}/fd"
        wait_until(lambda: any("pidfd" in link for link in _links(links)) or process.poll() is not None)
        yield process
        process.kill()


def _links(directory: str) -> list[str]:
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"{directory}/{name}"))
    return found


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_waits_for_the_end(container: Container, status: int) -> None:
    """wait blocks until the program ends, prints its exit code and exits with 0 [X13]."""
    requires("kernel:6.15")
    container.begin(f"trap 10 {status}")
    with waiting(container) as process:
        time.sleep(0.05)
        assert process.poll() is None
        container.kill("USR1")
        assert container.wait() == status  # and it is collected, by its parent
        out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == (b"%d\n" % status, b"", 0)


def test_killed(container: Container) -> None:
    """A signal is told as 128 + its number [X13]."""
    requires("kernel:6.15")
    container.begin("pause")
    with waiting(container) as process:
        container.kill("KILL")
        container.wait()
        assert process.communicate(timeout=60) == (b"137\n", b"")


def test_while_created(container: Container) -> None:
    """One can wait before start, too [X13]."""
    requires("kernel:6.15")
    container.bundle.args("exit 6")
    container.create()
    with waiting(container) as process:
        container.start()
        assert container.wait() == 6
        assert process.communicate(timeout=60) == (b"6\n", b"")


def test_zombie(container: Container) -> None:
    """A status that nobody has collected yet can be asked for at any time, on any kernel [X13]."""
    container.begin("exit 9")
    container.wait_dead()
    assert container.command("wait").ok().text == "9\n"
    assert container.wait() == 9


def test_it_is_kept(container: Container) -> None:
    """Once told, the status stays until delete [X13]."""
    container.begin("exit 9")
    container.wait_dead()
    container.command("wait").ok()
    container.wait()
    assert container.command("wait").ok().text == "9\n"
    assert container.state()["status"] == "stopped"
    container.delete()
    assert container.command("wait").code == 1


def test_kept_by_run(container: Container) -> None:
    """run --keep has waited itself [X13]."""
    container.bundle.args("exit 11")
    assert container.run("--keep").code == 11
    assert container.command("wait").ok().text == "11\n"


def test_too_late(container: Container) -> None:
    """When nobody has waited and the process is collected, the status is unknown: that is said, not made up [X13]."""
    container.begin("exit 9")
    container.wait()
    result = container.command("wait")
    assert (result.code, result.text) == (1, "")
    assert "unknown" in result.error


def test_several(container: Container) -> None:
    """Any number may wait [X13]."""
    requires("kernel:6.15")
    container.begin("trap 10 3")
    with waiting(container) as first, waiting(container) as second, waiting(container) as third:
        container.kill("USR1")
        container.wait()
        assert [process.communicate(timeout=60)[0] for process in (first, second, third)] == [b"3\n"] * 3


def test_deleted_meanwhile(container: Container, leaks: Leaks) -> None:
    """delete does not wait for those who wait, and they still learn the status [X13]."""
    requires("kernel:6.15")
    container.begin("pause")
    with waiting(container) as process:
        container.delete("--force")
        container.reap()
        assert process.communicate(timeout=60) == (b"137\n", b"")
    leaks.check()


def test_no_such_container(container: Container) -> None:
    """An unknown ID is an error [X13]."""
    result = container.command("wait")
    assert result.code == 1
    assert "does not exist" in result.error


def test_foreground_run(container: Container) -> None:
    """A run in the foreground collects at once; who waits beside it learns the status [X13]."""
    requires("kernel:6.15")
    container.bundle.args("trap 10 8")
    container.bundle.write()
    container.used = True
    with container.runtime.spawn(
        "run", "--bundle", str(container.bundle.path), container.id, stdout=subprocess.DEVNULL
    ) as process:
        wait_until((container.runtime.root / container.id / "state.json").exists)
        wait_until(lambda: container.command("state").json["status"] == "running")
        time.sleep(0.1)
        with waiting(container) as waiter:
            container.kill("USR1")
            assert waiter.communicate(timeout=60) == (b"8\n", b"")
        assert process.wait(60) == 8


def test_library(container: Container, caller: AbstractContextManager[None]) -> None:
    """Runtime.pidfd is for event loops, Runtime.wait gives the status of a child without taking it away [X13]."""
    pytest.importorskip("ociruntime.shim._native", reason="the compiled module is not built for this Python")
    from ociruntime import Runtime

    library = Runtime(str(container.runtime.root))
    container.bundle.args("sleep 100", "exit 12")
    container.bundle.write()
    container.used = True
    with caller:
        container.pid = library.create(str(container.bundle.path), container.id)

    async def story() -> bool:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        fd = library.pidfd(container.id)
        loop.add_reader(fd, ended.set)
        await asyncio.sleep(0.05)
        early = ended.is_set()
        library.start(container.id)
        await asyncio.wait_for(ended.wait(), 10)
        loop.remove_reader(fd)
        os.close(fd)
        return early

    with caller:
        assert asyncio.run(story()) is False
        assert [library.wait(container.id), library.wait(container.id)] == [12, 12]
    assert container.wait() == 12
    with caller:
        library.delete(container.id)
