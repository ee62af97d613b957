"""The status is derived from processes, files and the freezer, never from a stored word (row S2)."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ociruntime.state import status
from ociruntime.state.model import State
from ociruntime.state.store import StateDir, StateRoot


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def waiting() -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like an init process before start."""
    process = subprocess.Popen(["ociruntime-init", "60"], executable="/bin/sleep")
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def directory(root: StateRoot) -> Iterator[StateDir]:
    root.reserve("web").close()
    with root.open("web") as opened:
        yield opened


def state_of(pid: int, **changes: object) -> State:
    state = State("web", bundle="/b", phase="created", pid=pid, boot_id=status.boot_id())
    state.start_time = status.process_stat(pid)[1]
    for name, value in changes.items():
        setattr(state, name, value)
    return state


def test_process_stat() -> None:
    letter, started = status.process_stat(os.getpid())
    assert letter in "RS"
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert started == int(fields[19])
    assert status.process_stat(2**22 + 1) == ("", 0)


def test_process_stat_with_a_nasty_name(child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 ("
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "60"])
    try:
        letter, started = status.process_stat(process.pid)
        assert letter in "RSD"
        assert started >= status.process_stat(child.pid)[1]
    finally:
        process.kill()
        process.wait()


def test_dying(child: subprocess.Popen[bytes]) -> None:
    """Neither whoever runs or is stopped; but who has ended, also before anybody has waited, or is told to."""
    assert not status.dying(os.getpid())
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    assert not status.dying(child.pid)
    child.kill()
    # For an instant the signal is neither pending any more nor obeyed yet.
    assert status.dying(child.pid) or status.dying(child.pid) or status.dying(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert status.dying(child.pid)
    child.wait()
    assert status.dying(child.pid)


def test_the_main_thread_ends_alone() -> None:
    """Others of the process run: it is dying only when it is told to."""
    script = (
        "import ctypes, platform, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print(flush=True)\n"
        "ctypes.CDLL(None).syscall(60 if platform.machine() == 'x86_64' else 93, 0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            while status.process_stat(process.pid)[0] != "Z":
                assert process.poll() is None
            assert not status.dying(process.pid)
        finally:
            process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert status.dying(process.pid)


@pytest.mark.parametrize(("script", "expected"), [("exit 7", 7 << 8), ("exit 0", 0), ("kill -15 $$", 15)])
def test_zombie_status(script: str, expected: int) -> None:
    process = subprocess.Popen(["sh", "-c", script])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    started = status.process_stat(process.pid)[1]
    assert status.zombie_status(process.pid, started) == expected
    assert status.zombie_status(process.pid, started + 1) is None
    process.wait()
    assert status.zombie_status(process.pid, started) is None


def test_zombie_status_of_the_living_and_of_others(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert status.zombie_status(child.pid, status.process_stat(child.pid)[1]) is None
    # what a caller sees that may not look into the process: 0 where the exit status would be
    line = b"5 (x) Z " + b" ".join(b"100" if field == 22 else b"0" for field in range(4, 53))
    monkeypatch.setattr(status, "read_if_possible", lambda path: line)
    assert status.zombie_status(5, 100) is None
    shown = line.split()
    shown[34], shown[51] = b"1", b"256"
    monkeypatch.setattr(status, "read_if_possible", lambda path: b" ".join(shown))
    assert status.zombie_status(5, 100) == 256


def test_boot_id() -> None:
    assert status.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_running(child: subprocess.Popen[bytes], directory: StateDir) -> None:
    assert status.derive(state_of(child.pid), directory) == ("running", child.pid)


def test_created_while_the_fifo_is_there(directory: StateDir, waiting: subprocess.Popen[bytes]) -> None:
    directory.make_fifo(os.geteuid(), os.getegid())
    assert status.derive(state_of(waiting.pid), directory) == ("created", waiting.pid)
    directory.remove_fifo()
    assert status.derive(state_of(waiting.pid), directory) == ("running", waiting.pid)


def test_running_when_a_start_was_killed_before_it_removed_the_fifo(
    child: subprocess.Popen[bytes], directory: StateDir
) -> None:
    directory.make_fifo(os.geteuid(), os.getegid())
    assert status.derive(state_of(child.pid), directory) == ("running", child.pid)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"ociruntime-init\x007\0", True),
        (b"ociruntime-init\x0012\0", True),
        (b"ociruntime-init\0\0\0", False),  # what start leaves of it
        (b"/bin/sh\0", False),
        (b"ociruntime-init7\0", False),
        (b"", True),  # hidden from us
    ],
)
def test_who_waits_for_start(monkeypatch: pytest.MonkeyPatch, line: bytes, expected: bool) -> None:
    monkeypatch.setattr(status, "read_if_possible", lambda path, limit: line)
    assert status.waits(5) is expected


def test_stopped_when_the_process_is_gone(child: subprocess.Popen[bytes], directory: StateDir) -> None:
    state = state_of(child.pid)
    directory.make_fifo(os.geteuid(), os.getegid())
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert status.process_stat(child.pid)[0] == "Z"
    assert status.derive(state, directory) == ("stopped", 0)
    child.wait()
    assert status.derive(state, directory) == ("stopped", 0)


def test_stopped_when_the_pid_belongs_to_another(child: subprocess.Popen[bytes], directory: StateDir) -> None:
    state = state_of(child.pid)
    state.start_time += 1
    assert status.derive(state, directory) == ("stopped", 0)


def test_stopped_after_a_reboot(child: subprocess.Popen[bytes], directory: StateDir) -> None:
    assert status.derive(state_of(child.pid, boot_id="another"), directory) == ("stopped", 0)


def test_creating_while_the_creator_holds_the_lock(root: StateRoot, child: subprocess.Popen[bytes]) -> None:
    with root.reserve("web"), root.open("web") as directory:
        assert status.derive(State("web", bundle="/b"), directory) == ("creating", 0)
        assert status.derive(state_of(child.pid, phase="creating"), directory) == ("creating", child.pid)


def test_an_abandoned_create_is_stopped(directory: StateDir, child: subprocess.Popen[bytes]) -> None:
    assert status.derive(State("web", bundle="/b"), directory) == ("stopped", 0)
    assert status.derive(state_of(child.pid, phase="creating"), directory) == ("creating", child.pid)


def test_abandoned_is_seen_with_the_lock_held_too(directory: StateDir, root: StateRoot) -> None:
    directory.lock()
    assert status.derive(State("web", bundle="/b"), directory) == ("stopped", 0)
    with root.open("web") as other:
        assert other.busy()


@pytest.mark.parametrize(
    ("name", "files", "frozen"),
    [
        ("cgroup.freeze", {"cgroup.freeze": "1\n"}, True),
        ("cgroup.freeze", {"cgroup.freeze": "0\n"}, False),
        ("cgroup.freeze", {}, False),
        ("freezer.state", {"freezer.state": "FROZEN\n", "freezer.self_freezing": "1\n"}, True),
        ("freezer.state", {"freezer.state": "FROZEN\n", "freezer.self_freezing": "0\n"}, False),
        ("freezer.state", {"freezer.state": "FREEZING\n", "freezer.self_freezing": "1\n"}, False),
        ("freezer.state", {"freezer.state": "THAWED\n", "freezer.self_freezing": "0\n"}, False),
        ("freezer.state", {}, False),
    ],
)
def test_paused(
    name: str, files: dict[str, str], frozen: bool, tmp_path: Path, child: subprocess.Popen[bytes], directory: StateDir
) -> None:
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    freezer = str(tmp_path / name)
    assert status.frozen(freezer) is frozen
    expected = "paused" if frozen else "running"
    assert status.derive(state_of(child.pid, freezer=freezer), directory) == (expected, child.pid)


@pytest.mark.parametrize(
    ("private", "boot", "expected"), [(False, "", "paused"), (True, "", "stopped"), (False, "another", "stopped")]
)
def test_frozen_and_init_is_dead(private: bool, boot: str, expected: str, tmp_path: Path, directory: StateDir) -> None:
    (tmp_path / "cgroup.freeze").write_text("1\n")
    state = State("web", bundle="/b", phase="created", pid=2**22 + 1, freezer=str(tmp_path / "cgroup.freeze"))
    state.private_pid_ns = private
    state.boot_id = boot or status.boot_id()
    assert status.derive(state, directory) == (expected, 0)


def test_no_freezer() -> None:
    assert status.frozen("") is False
