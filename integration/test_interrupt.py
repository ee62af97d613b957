"""Signals that ask create to give up: nothing is left then."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.lib import strace
from integration.lib.bundle import PROBE
from integration.lib.container import Container, wait_until
from integration.lib.leaks import Leaks

pytestmark = pytest.mark.ours_only("others leave a half-made container for delete to remove")

ASKING = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM]


@contextlib.contextmanager
def started(
    container: Container, verb: str = "create", *flags: str, **how: object
) -> Iterator[subprocess.Popen[bytes]]:
    """The runtime, making the container."""
    container.bundle.write()
    container.used = True
    words = [verb, "--bundle", str(container.bundle.path), "--pid-file", str(container.pid_file), *flags, container.id]
    with container.output_file.open("wb") as out, container.error_file.open("wb") as error:
        process = container.runtime.spawn(*words, stdin=subprocess.PIPE, stdout=out, stderr=error, **how)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def waiting_hook(container: Container, kind: str, mark: Path) -> None:
    """A hook that leaves a mark and then takes its time. mark: below the rootfs, as both sides can see it."""
    inside = f"/{mark.relative_to(container.bundle.rootfs)}"
    outer = kind in ("prestart", "createRuntime")
    path = str(container.bundle.probe) if outer else str(container.bundle.rootfs / PROBE[1:])
    args = ["probe", "create", str(mark) if kind != "startContainer" else inside, "x", ";;", "sleep", "60000"]
    container.bundle.merge({"hooks": {kind: [{"path": path, "args": args}]}})


@pytest.mark.parametrize("number", ASKING)
@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_while_a_hook_runs(container: Container, leaks: Leaks, kind: str, number: int) -> None:
    """The hook is ended, everything is undone, and the exit status tells the signal [K1, X13]."""
    mark = container.bundle.rootfs / "mark"
    waiting_hook(container, kind, mark)
    with started(container) as process:
        wait_until(mark.exists, what="the hook")
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    assert f"interrupted by signal {number}" in container.error_file.read_text()
    assert not container.pid_file.exists()
    leaks.check()


def test_poststop_hooks_still_run(container: Container, leaks: Leaks) -> None:
    """They undo what the interrupted hook may have done [H5]."""
    mark, after = container.bundle.rootfs / "mark", container.bundle.path / "after"
    waiting_hook(container, "createRuntime", mark)
    probe = str(container.bundle.probe)
    container.bundle.merge({"hooks": {"poststop": [{"path": probe, "args": ["probe", "create", str(after), "x"]}]}})
    with started(container) as process:
        wait_until(mark.exists, what="the hook")
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert after.exists()
    leaks.check()


def test_run_in_the_foreground(container: Container, leaks: Leaks) -> None:
    """Before the container is there, run gives up as well; afterwards signals are the container's [K2]."""
    mark = container.bundle.rootfs / "mark"
    waiting_hook(container, "createContainer", mark)
    with started(container, "run") as process:
        wait_until(mark.exists, what="the hook")
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    leaks.check()


def test_ignored_signals_stay_ignored(container: Container) -> None:
    """Under nohup, and with a signal that the caller has blocked, create goes on [K1]."""
    mark = container.bundle.rootfs / "mark"
    waiting_hook(container, "createRuntime", mark)
    container.bundle.config["hooks"]["createRuntime"][0]["args"][-1] = "300"

    def before() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    with started(container, preexec_fn=before) as process:
        wait_until(mark.exists, what="the hook")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    container.pid = int(container.pid_file.read_text())
    assert container.state()["status"] == "created"


def test_at_any_moment(container: Container, leaks: Leaks) -> None:
    """Either the container is there, or nothing of it is [K1]."""
    interrupted = made = 0
    for round in range(30):
        with started(container) as process:
            time.sleep(0.0006 * round)
            process.terminate()
            code = process.wait(60)
        if code == 0:
            made += 1
            container.pid = int(container.pid_file.read_text())
            assert container.state()["status"] == "created"
            container.delete("--force")
            with contextlib.suppress(ChildProcessError):
                os.waitpid(container.pid, 0)
            container.pid_file.unlink()
        else:
            interrupted += 1
            assert code in (128 + signal.SIGTERM, -signal.SIGTERM)
            assert not container.pid_file.exists()
            assert not (container.runtime.root / container.id).exists()
    leaks.check()
    assert interrupted


def took_place(container: Container) -> None:
    """The command says that there is a container now: there is, and it is removed."""
    container.pid = int(container.pid_file.read_text())
    assert container.state()["id"] == container.id
    container.delete("--force")
    with contextlib.suppress(ChildProcessError):
        os.waitpid(container.pid, 0)
    container.pid_file.unlink()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(("verb", "flags"), [("create", ()), ("run", ("--detach",))])
def test_at_every_system_call(container: Container, leaks: Leaks, verb: str, flags: tuple[str, ...]) -> None:
    """A signal in front of any of the last calls, or of every fifth before: all of it was done, or nothing is left."""
    container.bundle.config["process"]["args"] = [PROBE, "sleep", "60000"]
    container.bundle.write()
    files = ["--bundle", str(container.bundle.path), "--pid-file", str(container.pid_file)]
    words = [verb, *files, *flags, container.id]
    calls = strace.calls(container.runtime, words, container.bundle.path / "trace")
    took_place(container)
    codes = set()
    for call in calls[:-60:5] + calls[-60:]:
        result = strace.at(container.runtime, call, "signal=TERM", words)
        codes.add(result.code)
        where = f"TERM at {call} of {len(calls)} calls: {result!r}"
        if result.code == 0:
            took_place(container)
        else:
            assert result.code == 128 + signal.SIGTERM, where
            assert not container.pid_file.exists(), where
            assert not (container.runtime.root / container.id).exists(), where
            leaks.check()
    assert codes == {0, 128 + signal.SIGTERM}
