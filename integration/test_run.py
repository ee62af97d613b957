"""run: create, start, forward, wait, delete."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from integration.lib.container import Container
from integration.lib.leaks import Leaks


@pytest.mark.parametrize("status", [0, 1, 2, 42, 125, 126, 127, 128, 137, 255])
def test_exit_status(container: Container, status: int) -> None:
    """The exit status of run is the program's [K3]."""
    container.bundle.args(f"exit {status}")
    assert container.run().code == status


@pytest.mark.parametrize("number", [9, 15, 6])
def test_killed_by_a_signal(container: Container, leaks: Leaks, number: int) -> None:
    """A program that dies by signal n gives 128+n [K3]."""
    container.bundle.drop_namespace("pid")  # the init of a PID namespace is immune to its own signals
    container.bundle.args(f"raise {number}")
    assert container.run().code == 128 + number
    leaks.check()


def test_crash(container: Container) -> None:
    """A segmentation fault is 139 [K3]."""
    container.bundle.args("crash")
    assert container.run().code == 139


def test_deletes_afterwards(container: Container, leaks: Leaks) -> None:
    """After the end nothing of the container is left [K3]."""
    container.bundle.args("exit 3")
    assert container.run().code == 3
    leaks.check()
    assert container.command("state").code != 0


def test_keep(container: Container) -> None:
    """--keep: the stopped container stays until delete [K3]."""
    container.bundle.args("exit 3")
    assert container.run("--keep").code == 3
    assert container.state()["status"] == "stopped"
    container.delete()


@pytest.mark.parametrize("flag", ["--detach", "-d"])
def test_detach(container: Container, flag: str) -> None:
    """--detach: returns 0 at once, the container runs on [K3]."""
    container.bundle.args("report", "trap 15 4")
    with container.output_file.open("wb") as out:
        container.run(flag, "--pid-file", str(container.pid_file), stdout=out).ok()
    container.pid = int(container.pid_file.read_text())
    container.wait_replies(2)
    assert container.state()["status"] == "running"
    container.kill("TERM")
    assert container.wait() == 4
    container.delete()


def test_pid_file(container: Container) -> None:
    """run writes a pid file too [K3, P1]."""
    container.bundle.args("exit 0")
    container.run("--pid-file", str(container.pid_file)).ok()
    assert container.pid_file.read_text().isdigit()


def test_streams_are_byte_exact(container: Container) -> None:
    """100 MB of every byte value pass through stdin and stdout unchanged, in the foreground [K3, P9]."""
    data = random.Random(1).randbytes(1_000_000) * 100
    container.bundle.args("cat")
    container.bundle.write()
    container.used = True
    process = container.runtime.spawn(
        "run",
        "--bundle",
        str(container.bundle.path),
        container.id,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = process.communicate(data, timeout=300)
    assert (process.returncode, err) == (0, b"")
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


def test_both_streams(container: Container) -> None:
    """stdout and stderr stay apart [P9]."""
    container.bundle.args("echo out", "echoerr err")
    result = container.run().ok()
    assert (result.out, result.err) == (b"out\n", b"err\n")


def test_output_ends_when_the_container_ends(container: Container) -> None:
    """A reader of stdout sees the end of file when run has ended: nobody keeps the pipe [P9]."""
    container.bundle.args("echo x")
    container.bundle.write()
    container.used = True
    process = container.runtime.spawn(
        "run", "--bundle", str(container.bundle.path), container.id,
        stdin=subprocess.DEVNULL if container.runtime.ours else subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.read() == b"x\n"
    assert process.wait(60) == 0
    process.stdout.close()
    if process.stdin:
        process.stdin.close()


def test_stdin_end_reaches_the_container(container: Container) -> None:
    """The end of the caller's stdin is the end of the container's [P9]."""
    container.bundle.args("cat", "echo end")
    assert container.run(stdin=b"few words ").ok().out == b"few words end\n"


def in_foreground(container: Container) -> subprocess.Popen[bytes]:
    """A run that goes on, with an empty file as stdin, once the program says something."""
    container.bundle.write()
    container.used = True
    words = ("run", "--bundle", str(container.bundle.path), container.id)
    with container.output_file.open("wb") as out, tempfile.TemporaryFile() as empty:
        process = container.runtime.spawn(*words, stdout=out, stdin=empty)
    container.wait_replies(1)
    return process


@pytest.mark.parametrize("number", [1, 2, 3, 10, 12, 15])
def test_signals_are_forwarded(container: Container, number: int) -> None:
    """In the foreground the signals of the caller go to init [K3]."""
    container.bundle.args(f"trap {number} 7")
    process = in_foreground(container)
    process.send_signal(number)
    assert process.wait(60) == 7


def test_chatter_signals_are_not_forwarded(container: Container) -> None:
    """SIGCHLD, SIGURG and SIGWINCH of the caller are not the container's business [K3]."""
    container.bundle.args("signals")
    process = in_foreground(container)
    for number in (signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGUSR1):
        process.send_signal(number)
    container.wait_replies(2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert [reply["number"] for reply in container.replies[1:]] == [10, 15]


def test_failure_is_not_silent(container: Container, leaks: Leaks) -> None:
    """When the container cannot be made, run fails with a message and leaves nothing [K3]."""
    container.bundle.process(args=["/no/such/program"])
    result = container.run("--pid-file", str(container.pid_file))
    assert result.code not in (0, 125 if container.runtime.ours else 0)
    assert "no such file or directory" in result.error.lower() or "not found" in result.error.lower()
    leaks.check()
    assert not container.pid_file.exists() or container.runtime.name == "crun"


@pytest.mark.ours_only("H4: a failed poststart hook ends the container; R and C log it")
@pytest.mark.parametrize("flags", [(), ("--detach",)])
def test_poststart_hook_fails(container: Container, leaks: Leaks, flags: tuple[str, ...]) -> None:
    """The container ran already, and a pid file told of it: both are gone when run fails [K3, H4]."""
    container.bundle.args("pause")
    container.bundle.merge({"hooks": {"poststart": [{"path": "/bin/false"}]}})
    result = container.run(*flags, "--pid-file", str(container.pid_file))
    assert result.code == 1
    assert "/hooks/poststart/0" in result.error
    leaks.check()
    assert not container.pid_file.exists()


def test_state_while_running(container: Container) -> None:
    """A container of run is an ordinary one: state and kill work from elsewhere [K3]."""
    container.bundle.args("trap 15 8")
    process = in_foreground(container)
    assert container.state()["status"] == "running"
    container.kill("TERM")
    assert process.wait(60) == 8
    assert container.command("state").code != 0


def test_orphans_do_not_keep_run(container: Container, leaks: Leaks) -> None:
    """run ends with init, and what init has left in the cgroup is killed [K3, K7]."""
    container.bundle.drop_namespace("pid")
    container.bundle.args("orphan", "exit 5")
    assert container.run().code == 5
    leaks.check()


def test_no_subreaper(container: Container) -> None:
    """--no-subreaper is accepted [K3, A1]."""
    container.bundle.args("exit 6")
    assert container.run("--no-subreaper").code == 6


def test_created_containers_keep_our_streams(container: Container, tmp_path: Path) -> None:
    """With create the container inherits fds 0, 1 and 2 untouched [P9]."""
    names = [tmp_path / name for name in ("in", "out", "err")]
    names[0].write_text("")
    container.bundle.args("pause")
    with names[0].open("rb") as stdin, names[1].open("wb") as stdout, names[2].open("wb") as stderr:
        container.create(stdin=stdin, stdout=stdout, stderr=stderr)
    for number, path in enumerate(names):
        assert os.path.samestat(os.stat(f"/proc/{container.pid}/fd/{number}"), path.stat())


def test_killing_run_does_not_need_cleaning_by_hand(container: Container, leaks: Leaks) -> None:
    """When run itself is killed, delete --force removes the container [S1]."""
    container.bundle.args("pause")
    process = in_foreground(container)
    process.kill()
    process.wait()
    container.delete("--force")
    leaks.check()
