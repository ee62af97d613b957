"""Terminals: consoles of containers and of exec, in the foreground and handed to somebody else."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.kit import busybox
from integration.lib.container import Container, wait_until
from integration.lib.leaks import Leaks
from integration.lib.probe import chain, parse

pexpect = pytest.importorskip("pexpect")

PROMPT = r"# "
APPLETS = ("sh", "stty", "sleep", "cat", "seq", "printf", "tty", "ls")


@pytest.fixture
def shell(container: Container) -> Container:
    """A container whose root has a shell; its own program is that shell, on a terminal."""
    directory = container.bundle.rootfs / "bin"
    directory.mkdir()
    shutil.copy(busybox(), directory / "busybox")
    for name in APPLETS:
        (directory / name).symlink_to("busybox")
    container.bundle.process(args=["/bin/sh"], terminal=True, env=["PATH=/bin", "PS1=# ", "TERM=dumb"])
    return container


@pytest.fixture
def waiting(shell: Container) -> Container:
    """The same without a terminal: it waits."""
    shell.bundle.process(terminal=False)
    return shell.begin("pause")


def spawn(container: Container, *words: str, **how: Any) -> Any:
    """A command of the runtime on a terminal of its own."""
    container.bundle.write()
    container.used = True
    argv = container.runtime.argv(*words)
    child = pexpect.spawn(argv[0], argv[1:], timeout=60, echo=False, **how)
    # kept open, so that its modes can be looked at afterwards
    number = struct.unpack("i", fcntl.ioctl(child.fileno(), 0x80045430, b"\0\0\0\0"))[0]
    child.slave = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY)
    child.modes = termios.tcgetattr(child.slave)
    return child


def foreground(container: Container, **how: Any) -> Any:
    """run, on a terminal."""
    container.bundle.write()
    return spawn(container, "run", "--bundle", str(container.bundle.path), container.id, **how)


def rest(child: Any) -> bytes:
    """All that comes until its end."""
    text = b""
    end = time.monotonic() + 60
    while True:
        assert time.monotonic() < end, text
        try:
            text += child.read_nonblocking(65536, timeout=0.05)
        except pexpect.TIMEOUT:
            pass
        except pexpect.EOF:  # it has ended, and there is nothing to read
            return text


def finish(child: Any) -> int:
    """Wait for the end; the terminal must be as it was. The exit status as a shell has it."""
    rest(child)
    assert termios.tcgetattr(child.slave) == child.modes
    os.close(child.slave)
    child.close()
    return int(child.exitstatus) if child.exitstatus is not None else 128 + int(child.signalstatus)


def command(child: Any, text: str, answer: str) -> None:
    """Type a line, expect an answer and the next prompt."""
    child.sendline(text)
    child.expect(answer)
    child.expect(PROMPT)


def session(child: Any, status: int) -> None:
    """What one does in a shell."""
    child.expect(PROMPT)
    command(child, "echo $((6 * 7))", "42\r\n")
    command(child, "stty size", "24 80\r\n")
    child.setwinsize(50, 132)
    command(child, "stty size", "50 132\r\n")
    command(child, "tty", r"/dev/(pts/\d+|console)\r\n")
    # once the program says something it is in the foreground, and keys are for it
    child.sendline("sh -c 'echo up$((1+1)); exec sleep 1000'")
    child.expect("up2\r\n")
    child.sendintr()
    child.expect(PROMPT)
    command(child, "echo status=$?", "status=130\r\n")
    child.sendline("sh -c 'echo up$((1+2)); exec sleep 1000'")
    child.expect("up3\r\n")
    child.send("\x1a")
    child.expect("Stopped")
    child.expect(PROMPT)
    command(child, "jobs", "Stopped.*sleep 1000")
    child.sendline("kill %1; fg; echo over=$?")
    child.expect(r"over=\d+")
    child.expect(PROMPT)
    child.sendline("echo up$((1+3)); cat; echo end=$?")
    child.expect("up4\r\n")
    child.sendline("typed")
    child.expect("typed\r\n.*typed\r\n")
    child.sendeof()
    child.expect("end=0\r\n")
    child.expect(PROMPT)
    child.sendline(f"exit {status}")


def test_shell_of_run(shell: Container, leaks: Leaks) -> None:
    """An interactive shell: sizes, Ctrl-C, Ctrl-Z, jobs, Ctrl-D, exit status; the terminal is as before [P3]."""
    child = foreground(shell, dimensions=(24, 80))
    session(child, 5)
    assert finish(child) == 5
    leaks.check()


def test_shell_of_exec(waiting: Container) -> None:
    """The same with exec -t [P3, K4]."""
    child = spawn(waiting, "exec", "-t", waiting.id, "/bin/sh", dimensions=(24, 80))
    session(child, 6)
    assert finish(child) == 6


def test_restored_after_sigkill(shell: Container, leaks: Leaks) -> None:
    """When the container is killed, the terminal is as before and the status is 137 [P3]."""
    child = foreground(shell)
    child.expect(PROMPT)
    assert termios.tcgetattr(child.slave) != child.modes
    shell.kill("KILL")
    assert finish(child) == 137
    leaks.check()


def test_restored_after_sigkill_of_exec(waiting: Container) -> None:
    """The same for exec -t [P3]."""
    child = spawn(waiting, "exec", "-t", waiting.id, "/bin/sh")
    child.expect(PROMPT)
    waiting.kill("KILL")
    assert finish(child) == 137


def test_restored_after_a_failure(waiting: Container) -> None:
    """When the program cannot be run, too [P3]."""
    child = spawn(waiting, "exec", "-t", waiting.id, "/nope")
    assert finish(child) == 255


def test_line_ends(waiting: Container) -> None:
    """No stray carriage returns: the inner terminal adds none, the caller's adds one [P3]."""
    child = spawn(waiting, "exec", "-t", waiting.id, "/bin/printf", "a\\nb\\n")
    text = rest(child)
    assert text == b"a\r\nb\r\n"
    assert finish(child) == 0


def test_modes_and_owner(waiting: Container) -> None:
    """0, 1, 2 are one terminal: controlling, in the foreground, the user's, without ONLCR; no other fds [P3, P4]."""
    child = spawn(
        waiting,
        "exec",
        "-t",
        "--user",
        "1000:1000",
        waiting.id,
        "/probe",
        *chain(["tty", "report"]),
        dimensions=(33, 99),
    )
    output = rest(child)
    assert finish(child) == 0
    tty, report = parse(output.replace(b"\r\n", b"\n"))
    assert tty["isatty"] == [1, 1, 1]
    assert tty["session"] == report["sid"]
    assert tty["foreground"] == tty["pgid"] == report["pid"]
    assert (tty["owner"], tty["onlcr"]) == (1000, 0)
    assert tty["size"] == [33, 99]
    assert set(report["fds"]) == {"0", "1", "2"}


def test_signals_are_forwarded(waiting: Container) -> None:
    """SIGTERM to the runtime goes to the program on the terminal [K3, K4]."""
    child = spawn(waiting, "exec", "-t", waiting.id, "/probe", *chain(["trap 15 7"]))
    child.expect("trap")
    child.kill(signal.SIGTERM)
    assert finish(child) == 7


def run_piped(container: Container, *words: str, **how: Any) -> subprocess.CompletedProcess[bytes]:
    """exec -t with neither stream a terminal."""
    argv = container.runtime.argv("exec", "-t", container.id, *words)
    return subprocess.run(argv, capture_output=True, timeout=60, check=False, **how)


@pytest.mark.ours_only("runc wants a terminal of the caller's, crun's modes differ")
def test_slow_reader_gets_everything(waiting: Container) -> None:
    """Output of a terminal to a pipe that is read late: every byte of it, also after the program's end [P3]."""
    argv = waiting.runtime.argv("exec", "-t", waiting.id, "/bin/seq", "200000")
    expected = b"".join(b"%d\n" % number for number in range(1, 200001))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        time.sleep(0.3)
        assert process.stdout is not None
        assert process.stdout.read() == expected
        assert process.wait(60) == 0
    # little enough to be written before anybody reads: the program has ended long ago
    for count in (1, 100, 10000):
        argv[-1] = str(count)
        reader, writer = os.pipe()
        fcntl.fcntl(writer, 1031, 4096)  # F_SETPIPE_SZ
        with subprocess.Popen(argv, stdout=writer, stdin=subprocess.PIPE) as process:
            os.close(writer)
            time.sleep(0.2)
            with open(reader, "rb") as stream:
                assert stream.read() == b"".join(b"%d\n" % number for number in range(1, count + 1))
            assert process.wait(60) == 0


@pytest.mark.ours_only("runc wants a terminal of the caller's")
def test_reader_that_went_away(waiting: Container) -> None:
    """A reader that closes the pipe does not stop the program, nor does a SIGPIPE reach it [P3]."""
    argv = waiting.runtime.argv("exec", "-t", waiting.id, "/bin/sh", "-c", "seq 100000; exit 9")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(60) == 9


def _name(pid: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


@pytest.mark.ours_only("runc wants a terminal of the caller's")
def test_stuck_reader_and_a_signal(waiting: Container) -> None:
    """The program has ended and nobody reads: a signal ends the runtime [P3]."""
    argv = waiting.runtime.argv("exec", "-t", waiting.id, "/bin/seq", "3000000")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until(lambda: any(_name(pid) == "seq" for pid in children.read_text().split()), what="the program")
        time.sleep(0.5)  # everything fills up
        process.send_signal(signal.SIGTERM)  # the program's
        wait_until(lambda: process.poll() is not None or not children.read_text().strip(), what="its end")
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        assert process.stdout is not None


@pytest.mark.ours_only("runc wants a terminal of the caller's")
def test_terminal_that_is_closed_and_opened_again(waiting: Container) -> None:
    """A program may close all of its terminal and open it again later [P3]."""
    script = "exec </dev/null >/dev/null 2>&1; sleep 0.2; echo back >/dev/tty; sleep 0.1; exit 3"
    done = run_piped(waiting, "/bin/sh", "-c", script, input=b"")
    assert (done.returncode, done.stdout) == (3, b"back\n")


@pytest.mark.ours_only("runc makes the caller's terminal raw even then")
def test_keys_of_the_caller(waiting: Container) -> None:
    """Input from a pipe: the caller's terminal is not raw, so that its Ctrl-C still means something [P3]."""
    words = " ".join(waiting.runtime.argv("exec", "-t", waiting.id, "/probe", *chain(["signals"])))
    child = pexpect.spawn("/bin/sh", ["-c", f"sleep 100 | {words.replace(';;', chr(39) + ';;' + chr(39))}"], timeout=60)
    child.expect("signals")
    child.sendintr()
    child.expect('"number":2')
    pids = json.loads(waiting.command("ps", "-f", "json").out)
    for pid in pids:
        if pid != waiting.pid:
            os.kill(pid, signal.SIGTERM)
    child.close(force=True)


# -- handed to somebody else [P2] --


class Receiver:
    """Holds a console socket, and then the terminal."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        here = os.getcwd()
        os.chdir(path.parent)
        self.server.bind(path.name)
        os.chmod(path.name, 0o777)
        os.chdir(here)
        self.server.listen(1)
        self.server.settimeout(60)
        self.payload = b""
        self.closed = False
        self.master = -1
        self.output = b""
        self.thread = threading.Thread(target=self._take)
        self.thread.start()

    def _take(self) -> None:
        try:
            connection, _ = self.server.accept()
        except OSError:
            return
        with connection:
            self.payload, fds, _, _ = socket.recv_fds(connection, 4096, 4)
            assert len(fds) <= 1
            self.master = fds[0] if fds else -1
            self.closed = connection.recv(1) == b""

    def until(self, pattern: str, seconds: float = 60.0) -> str:
        """Read the terminal until this is there."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.output.decode("utf-8", "replace"), re.S):
            assert time.monotonic() < end, self.output
            ready, _, _ = select.select([self.master], [], [], 0.1)
            if ready:
                self.output += os.read(self.master, 65536)
        return self.output.decode("utf-8", "replace")

    def send(self, text: str) -> None:
        """Type."""
        os.write(self.master, text.encode())

    def close(self) -> None:
        """Give everything back."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as waker:
            waker.connect(self.path)
        self.thread.join(60)
        self.server.close()
        if self.master >= 0:
            os.close(self.master)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """Somebody at a console socket."""
    made = Receiver(tmp_path / "console")
    yield made
    made.close()


def resize(master: int, rows: int, columns: int) -> None:
    """TIOCSWINSZ."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_console_socket_of_create(shell: Container, receiver: Receiver) -> None:
    """create: one message with one fd, then closed; /dev/console is the terminal; consoleSize [P2, P4, U5]."""
    shell.bundle.process(consoleSize={"height": 31, "width": 77})
    shell.create("--console-socket", receiver.path)
    receiver.thread.join(60)
    assert receiver.master >= 0
    assert 1 <= len(receiver.payload) < 4096
    assert receiver.closed
    shell.start()
    receiver.until(PROMPT)
    receiver.send("stty size; echo to-console >/dev/console; ls -l /dev/console; exit 4\n")
    text = receiver.until(r" 136, +\d+ .*dev/console\r?\n")
    assert "31 77" in text
    assert text.count("to-console") >= 2
    assert re.search(r"crw.* 136, ", text)
    assert shell.wait() == 4


def test_console_socket_of_run(shell: Container, receiver: Receiver) -> None:
    """run --detach [P2]."""
    shell.run("--detach", "--pid-file", str(shell.pid_file), "--console-socket", receiver.path).ok()
    shell.pid = int(shell.pid_file.read_text())
    receiver.thread.join(60)
    receiver.until(PROMPT)
    receiver.send("exit 3\n")
    assert shell.wait() == 3


def test_console_socket_of_exec(waiting: Container, receiver: Receiver, tmp_path: Path) -> None:
    """exec -t -d: the receiver sees a resize through to the program; its hangup is the program's [P2, K4]."""
    pid_file = tmp_path / "pid"
    waiting.execute(
        "tty", "winch", "exit 3",
        flags=["-t", "-d", "--pid-file", str(pid_file), "--console-socket", receiver.path],
    ).ok()  # fmt: skip
    receiver.thread.join(60)
    assert receiver.closed
    receiver.until('"winch"')
    resize(receiver.master, 44, 55)
    receiver.until(r'"size":\[44,55\]')
    _, status = os.waitpid(int(pid_file.read_text()), 0)
    assert os.WEXITSTATUS(status) == 3


def test_hangup(waiting: Container, receiver: Receiver, tmp_path: Path) -> None:
    """When the receiver closes the terminal, the program gets SIGHUP [P2]."""
    pid_file = tmp_path / "pid"
    flags = ["-t", "-d", "--pid-file", str(pid_file), "--console-socket", receiver.path]
    waiting.execute("tty", "pause", flags=flags).ok()
    receiver.thread.join(60)
    receiver.until('"tty"')
    os.close(receiver.master)
    receiver.master = -1
    _, status = os.waitpid(int(pid_file.read_text()), 0)
    assert os.WTERMSIG(status) == signal.SIGHUP


@pytest.mark.ours_only("other runtimes count from the caller's directory, and know 108 bytes")
def test_long_and_relative_socket_paths(shell: Container, tmp_path: Path) -> None:
    """A relative path counts from the bundle; a path may be longer than an address holds [P2]."""
    relative = Receiver(shell.bundle.path / "here")
    shell.create("--console-socket", "here")
    relative.thread.join(60)
    assert relative.master >= 0
    shell.delete("--force")
    relative.close()
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    distant = Receiver(deep / "s")
    shell.create("--console-socket", distant.path)
    distant.thread.join(60)
    assert distant.master >= 0
    distant.close()


def test_wrong_combinations(shell: Container, leaks: Leaks, tmp_path: Path) -> None:
    """A socket is needed exactly when there is a terminal and nobody stays [P2]."""
    for verb in ("create", "run"):
        flags = ["--detach"] if verb == "run" else []
        shell.bundle.process(terminal=True)
        for socket_flags in ([], ["--console-socket", str(tmp_path / "missing")]):
            how = shell.create if verb == "create" else shell.run
            result = how(*flags, *socket_flags, check=False)
            assert result.code not in (0, 139), result
            leaks.check()
    shell.bundle.process(terminal=False)
    taker = Receiver(tmp_path / "s")
    result = shell.create("--console-socket", taker.path, check=False)
    assert result.code != 0
    taker.close()
    leaks.check()


@pytest.mark.ours_only("a terminal is opened in a true devpts only")
@pytest.mark.parametrize("plant", ["nothing", "file", "link", "directory link", "null"])
def test_false_devpts(shell: Container, leaks: Leaks, tmp_path: Path, plant: str) -> None:
    """/dev/pts/ptmx of the image is no terminal: refused, and nothing of the host is touched [CVE-2025-52565]."""
    canary = tmp_path / "canary"
    canary.write_text("as it was")
    shell.bundle.drop_mount("/dev")
    pts = shell.bundle.rootfs / "dev" / "pts"
    pts.mkdir(parents=True)
    if plant == "file":
        (pts / "ptmx").write_text("")
    elif plant == "link":
        (pts / "ptmx").symlink_to(f"/../../../..{canary}")
    elif plant == "directory link":
        pts.rmdir()
        pts.symlink_to("/proc")
    elif plant == "null":
        os.mknod(pts / "ptmx", 0o20666, os.makedev(5, 2))
    child = foreground(shell)
    assert finish(child) == 1
    assert canary.read_text() == "as it was"
    leaks.check()


@pytest.mark.ours_only("the console is bound to a plain file or device only")
@pytest.mark.parametrize("plant", ["link", "dangling"])
def test_false_console(shell: Container, leaks: Leaks, tmp_path: Path, plant: str) -> None:
    """/dev/console of the image is a symlink: refused, nothing is made outside [crun CVE-2026-88264]."""
    canary = tmp_path / "canary"
    if plant == "link":
        canary.write_text("as it was")
    entry = {"destination": "/dev", "type": "bind", "source": str(tmp_path / "dev"), "options": ["rbind"]}
    (tmp_path / "dev" / "pts").mkdir(parents=True)
    (tmp_path / "dev" / "console").symlink_to(f"/../../../..{canary}")
    mounts = [m for m in shell.bundle.config["mounts"] if not m["destination"].startswith("/dev")]
    pts = [m for m in shell.bundle.config["mounts"] if m["destination"] == "/dev/pts"]
    shell.bundle.config["mounts"] = [*mounts, entry, *pts]
    assert finish(foreground(shell)) == 1
    assert canary.exists() == (plant == "link")
    leaks.check()


def test_user_namespace(shell: Container, receiver: Receiver) -> None:
    """A terminal in a user namespace, its owner mapped; exec gets one too [P4, L6]."""
    shell.bundle.user_namespace()
    pts = next(entry for entry in shell.bundle.config["mounts"] if entry["destination"] == "/dev/pts")
    pts["options"] = [option for option in pts["options"] if not option.startswith("gid=")]
    shell.create("--console-socket", receiver.path)
    shell.start()
    receiver.thread.join(60)
    receiver.until(PROMPT)
    child = spawn(shell, "exec", "-t", shell.id, "/probe", "tty")
    output = rest(child)
    assert finish(child) == 0
    assert parse(output.replace(b"\r\n", b"\n"))[0]["owner"] == 0
    receiver.send("exit 0\n")
    assert shell.wait() == 0


def test_no_descriptor_is_left(shell: Container, receiver: Receiver) -> None:
    """A created container with a terminal holds it three times and nothing else of it [P10]."""
    shell.create("--console-socket", receiver.path)
    receiver.thread.join(60)
    links = {name: os.readlink(f"/proc/{shell.pid}/fd/{name}") for name in os.listdir(f"/proc/{shell.pid}/fd")}
    terminals = [name for name, target in links.items() if "pts" in target or "ptmx" in target]
    assert sorted(terminals) == ["0", "1", "2"], links
