"""exec: exit codes, streams, and what callers are told."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.lib import leaks as leak_tools
from integration.lib.container import Container, wait_until
from integration.lib.probe import chain
from integration.lib.runtime import Result, Runtime as Tested


@pytest.fixture
def running(container: Container) -> Container:
    """A container that waits."""
    return container.begin("pause")


# -- exit codes [K4, G10] --


@pytest.mark.parametrize("status", [0, 1, 2, 42, 126, 127, 137, 255])
def test_exit_status(running: Container, status: int) -> None:
    """The exit status is the program's [K4]."""
    assert running.execute(f"exit {status}").code == status


@pytest.mark.parametrize("number", [9, 15, 6, 11, 34])
def test_ended_by_a_signal(running: Container, number: int) -> None:
    """128 + n for a program that signal n has ended [K4]."""
    assert running.execute(f"raise {number}").code == 128 + number


def test_failures_of_the_runtime(running: Container, tmp_path: Path) -> None:
    """Whatever goes wrong before the program runs is 255, with a message [K4]."""
    (running.bundle.rootfs / "plain").write_text("no program")
    (running.bundle.rootfs / "tmp").mkdir()
    call = running.runtime
    failures = [
        call("exec", running.id, "/no/such/program"),
        call("exec", running.id, "no-such-program"),
        call("exec", running.id, "/plain"),
        call("exec", running.id, "/tmp"),
        call("exec", "--cwd", "/no/such/directory", running.id, "/probe", "report"),
        call("exec", "--process", str(tmp_path / "missing.json"), running.id),
        call("exec", "no-such-container", "/probe", "report"),
        call("exec", "../bad", "/probe", "report"),
        call("exec", running.id),
    ]
    for result in failures:
        assert result.code == 255, result
        assert result.err, result


def test_usage_errors(running: Container) -> None:
    """A wrong command line is 1, in exec too, with the usage on stdout [G10]."""
    for words in (["--no-such-flag", running.id, "/probe"], []):
        result = running.runtime("exec", *words)
        assert result.code == 1, result
        assert "exec" in result.text


@pytest.mark.ours_only("the message names what is missing")
def test_what_is_wrong_with_the_program(running: Container) -> None:
    """The message says whether the program, its interpreter or its machine is at fault, and names it [K4]."""
    rootfs = running.bundle.rootfs

    def put(name: str, data: bytes, mode: int = 0o755) -> None:
        (rootfs / name).write_bytes(data)
        (rootfs / name).chmod(mode)

    probe = (rootfs / "probe").read_bytes()
    loader = b"/lib64/ld-of-nowhere.so.9\0"
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    name_at = 64 + 56
    entry = struct.pack("<IIQQQQQQ", 3, 4, name_at, 0, 0, len(loader), len(loader), 1)
    put("dynamic", head + entry + loader)
    put("script", b"#! /no/interpreter -x\nhi\n")
    put("refused", b"#!/plain\n")
    put("plain", b"hi there\n", 0o644)
    put("text", b"hi there\n")
    put("empty", b"")
    put("foreign", probe[:18] + struct.pack("<H", 183 if probe[18] == 62 else 62) + probe[20:])
    put("big", probe[:5] + b"\2" + probe[6:18] + struct.pack(">H", 22) + probe[20:])
    table = {
        "/gone": ("'/gone'", "no such file or directory"),
        "gone": ("'gone'", "executable file not found in $PATH"),
        "/plain": ("'/plain'", "permission denied"),
        "/script": ("'/script'", "its interpreter '/no/interpreter'", "no such file or directory"),
        "/refused": ("'/refused'", "its interpreter '/plain'", "permission denied"),
        "/dynamic": ("'/dynamic'", "its interpreter '/lib64/ld-of-nowhere.so.9'", "no such file or directory"),
        "/text": ("'/text'", "exec format error", "nor a script"),
        "/empty": ("'/empty'", "exec format error"),
        "/foreign": ("'/foreign'", "built for another machine (", "exec format error"),
        "/big": ("'/big'", "(s390x)"),
    }
    for program, words in table.items():
        result = running.runtime("exec", running.id, program)
        assert result.code == 255
        for word in words:
            assert word in result.error, result


@pytest.mark.ours_only("the message names what is missing")
def test_missing_interpreter_at_start(container: Container) -> None:
    """start says the same of the container's own program [U1]."""
    (container.bundle.rootfs / "script").write_text("#!/no/interpreter\n")
    (container.bundle.rootfs / "script").chmod(0o755)
    container.bundle.process(args=["/script"])
    container.create()
    assert "its interpreter '/no/interpreter'" in container.start(check=False).error


def test_status_of_the_container(container: Container) -> None:
    """exec is for created and running containers; a stopped one is refused with known words [K4, A2]."""
    container.bundle.args("trap 15 0")
    container.create()
    assert container.execute("exit 7").code == 7
    container.start()
    container.wait_replies(1)
    assert container.execute("exit 8").code == 8
    container.kill("TERM")
    container.wait_dead()
    result = container.execute("exit 9")
    assert result.code == 255
    assert "container not running" in result.error or not container.runtime.ours
    assert "stopped" in result.error


@pytest.mark.requires("v1:freezer")
def test_paused_container(running: Container) -> None:
    """A paused container is refused; with --ignore-paused the process waits until the container goes on [K4, K11]."""
    running.command("pause").ok()
    result = running.execute("exit 5")
    assert result.code == 255
    assert "paused" in result.error
    process = running.runtime.spawn("exec", "--ignore-paused", running.id, "/probe", "exit", "5")
    time.sleep(0.3)
    assert process.poll() is None or not running.runtime.ours
    running.command("resume").ok()
    assert process.wait(60) == 5


def new_orphans(known: list[int]) -> list[int]:
    """Collect those of our children that are dead and not known; the live ones of them."""
    left = [child for child in leak_tools.children() if child not in known]
    for child in list(left):
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(child, os.WNOHANG)[0]:
                left.remove(child)
    return left


@pytest.mark.ours_only("until the program runs, signals end exec")
@pytest.mark.requires("v1:freezer")
def test_giving_up(running: Container) -> None:
    """An exec that waits can be ended by a signal, and its process goes with it [K4]."""
    running.command("pause").ok()
    known = leak_tools.children()
    process = running.runtime.spawn("exec", "--ignore-paused", running.id, "/probe", "exit", "5")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 5
    running.command("resume").ok()
    # An orphan, ours to collect: the container's PID namespace cannot end before it.
    wait_until(lambda: not new_orphans(known), what="the end of the process")
    assert json.loads(running.command("ps", "-f", "json").out) == [running.pid]


def test_caller_ignores_signals(running: Container) -> None:
    """Ignored or blocked signals of the caller do not matter: status known, process starts with none of it [D7]."""

    def ignore() -> None:
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGCHLD})

    result = running.execute("report", "exit 9", preexec_fn=ignore)
    assert result.code == 9
    report = result.replies[0]["status"]
    assert (int(report["SigIgn"], 16), int(report["SigBlk"], 16)) == (0, 0)


# -- how it is told about: files and sockets [P1, P2, P5, A3] --


def test_detached(running: Container, tmp_path: Path) -> None:
    """--detach: returns when it runs; pid file without newline; the process is the subreaper's child [K4, A3]."""
    pid_file = tmp_path / "pid"
    with (tmp_path / "out").open("wb") as out:
        running.execute("report", "trap 15 6", flags=["--detach", "--pid-file", str(pid_file)], stdout=out).ok()
    pid = int(pid_file.read_text())
    assert pid_file.read_text() == str(pid)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert int(fields[1]) == os.getpid()
    wait_until(lambda: (tmp_path / "out").read_bytes().count(b"\n") == 2)
    os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)
    assert os.WEXITSTATUS(status) == 6


def test_pid_file_of_a_failure(running: Container, tmp_path: Path) -> None:
    """No pid file stays behind when the program cannot be run [P1]."""
    (running.bundle.rootfs / "text").write_text("no program")
    (running.bundle.rootfs / "text").chmod(0o755)
    for program in ("/nope", "/text"):
        result = running.runtime("exec", "--pid-file", str(tmp_path / "pid"), running.id, program)
        assert result.code == 255
        assert not (tmp_path / "pid").exists() or not running.runtime.ours


def test_foreground_pid_file(running: Container, tmp_path: Path) -> None:
    """In the foreground the file has the host's pid of the process [P1]."""
    process = running.runtime.spawn(
        "exec", "--pid-file", str(tmp_path / "pid"), running.id, "/probe", *chain(["trap 15 4"]), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    pid = int((tmp_path / "pid").read_text())
    assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{running.pid}/ns/pid")
    os.kill(pid, signal.SIGTERM)
    assert process.wait(60) == 4
    process.stdout.close()


def receive(server: socket.socket, replies: list[tuple[bytes, list[int]]]) -> None:
    """One connection, one message, its fds."""
    connection, _ = server.accept()
    with connection:
        message, fds, _, _ = socket.recv_fds(connection, 4096, 4)
        replies.append((message, fds))
        assert connection.recv(1) == b""


@contextlib.contextmanager
def receiver(path: Path) -> Any:
    """Somebody who takes a descriptor at this socket; gives [(payload, fds)]."""
    replies: list[tuple[bytes, list[int]]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        path.chmod(0o777)
        server.listen(1)
        server.settimeout(60)
        thread = threading.Thread(target=receive, args=(server, replies))
        thread.start()
        yield replies
        thread.join(60)


@pytest.mark.ours_only("not in runc 1.1 and crun 1.8")
def test_pidfd_socket(running: Container, tmp_path: Path) -> None:
    """--pidfd-socket gets a pidfd of the process with the word "setns" [P5]."""
    with receiver(tmp_path / "s") as replies:
        running.execute("trap 15 3", flags=["-d", "--pidfd-socket", str(tmp_path / "s"),
                                            "--pid-file", str(tmp_path / "pid")]).ok()  # fmt: skip
    payload, (pidfd,) = replies[0]
    pid = int((tmp_path / "pid").read_text())
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    assert payload == b"setns"
    assert f"Pid:\t{pid}\n" in text
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    os.waitpid(pid, 0)


@pytest.mark.ours_only("not in runc 1.1 and crun 1.8")
@pytest.mark.parametrize("flag", ["--pidfd-socket", "--console-socket"])
def test_bad_sockets(running: Container, tmp_path: Path, flag: str) -> None:
    """A socket that is not there, is no socket, or is not wanted: refused, nothing runs [P2, P5]."""
    (tmp_path / "plain").write_text("")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.bind(str(tmp_path / "deaf"))  # nobody listens
        for name in ("missing", "plain", "deaf"):
            extra = ["-t", "-d"] if flag == "--console-socket" else []
            result = running.execute("echo ran", flags=[*extra, flag, str(tmp_path / name)])
            assert (result.code, result.out) == (255, b"")
            assert name in result.error
    if flag == "--console-socket":
        for extra in ([], ["-t"], ["-d"]):
            assert running.execute("echo ran", flags=[*extra, flag, str(tmp_path / "x")]).code == 255
        assert running.execute("echo ran", flags=["-t", "-d"]).code == 255


# -- streams --


def test_streams_are_byte_exact(running: Container) -> None:
    """100 MB of every byte value pass through stdin and stdout unchanged [P9]."""
    data = random.Random(2).randbytes(1_000_000) * 100
    process = running.runtime.spawn(
        "exec", running.id, "/probe", "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = process.communicate(data, timeout=300)
    assert (process.returncode, err) == (0, b"")
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


def test_streams_stay_apart(running: Container) -> None:
    """stdout and stderr, and a reader that sees the end when exec has ended [P9]."""
    result = running.execute("echo out", "echoerr err", "cat", stdin=b"in").ok()
    assert (result.out, result.err) == (b"out\nin", b"err\n")


def test_null_device_stays_as_it_is(running: Container) -> None:
    """The host's /dev/null keeps its owner [P9]."""
    if running.runtime.name == "crun":
        pytest.skip("gives it to the user")
    before = os.stat("/dev/null")
    with open("/dev/null", "r+b") as null:
        running.execute("report", flags=["--user", "1000:1000"], stdin=null, stdout=null).ok()
    after = os.stat("/dev/null")
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (before.st_uid, before.st_gid, 0o666)


@pytest.mark.parametrize("number", [1, 2, 3, 10, 12, 15])
def test_signals_are_forwarded(running: Container, number: int) -> None:
    """Signals to exec in the foreground go to the process [K4]."""
    process = running.runtime.spawn(
        "exec", running.id, "/probe", *chain([f"trap {number} 7"]), stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    assert process.wait(60) == 7
    process.stdout.close()
    assert process.stdin is not None
    process.stdin.close()


def test_end_of_the_container(running: Container) -> None:
    """When the container is killed, exec in the foreground ends with 137 [K4]."""
    process = running.runtime.spawn("exec", running.id, "/probe", "pause", stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    running.kill("KILL")
    assert process.wait(60) == 137
    process.stdout.close()


def test_many_at_once(running: Container) -> None:
    """200 execs in parallel: each has its own exit code and its own output [K4]."""
    outcomes: dict[int, Result] = {}

    def work(first: int) -> None:
        for number in range(first, 200, 20):
            outcomes[number] = running.execute(f"echo n{number}", f"exit {number}", timeout=60)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 200
    for number, result in outcomes.items():
        assert (result.code, result.out.split(b"\n")[0]) == (number, f"n{number}".encode()), result
    pids = json.loads(running.command("ps", "--format", "json").out)
    assert pids == [running.pid]


def test_race_with_the_end(new_container: Callable[..., Container], runtime: Tested) -> None:
    """execs while the container is killed either run or say that it is not running; nothing hangs, nothing stays."""
    for delay in (0, 1, 2, 3, 5, 8):
        container = new_container().begin("pause")
        processes = [
            runtime.spawn(
                "exec",
                container.id,
                "/probe",
                "pause",
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                stdin=subprocess.PIPE,
            )
            for _ in range(3)
        ]
        time.sleep(delay / 1000)
        container.kill("KILL")
        for process in processes:
            _, error = process.communicate(timeout=60)
            assert process.returncode in (255, 137), error
            if runtime.ours and process.returncode == 255:
                assert b"not running" in error, error
        container.delete("--force")
