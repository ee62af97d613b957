"""Commands that are killed at any of their system calls, and calls that fail for want of something."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from integration.lib import leaks as leak_tools, strace
from integration.lib.bundle import PROBE
from integration.lib.container import Container, alive, wait_until
from integration.lib.leaks import Leaks
from integration.lib.runtime import Result
from integration.lib.strace import Call

pytestmark = [
    pytest.mark.ours_only("others leave other things in other places"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

# What a call may be refused for, on a machine that is short of it.
WANT = {
    "clone3": "EAGAIN",
    "flock": "ENOMEM",
    "memfd_create": "EMFILE",
    "mkdir": "ENOSPC",
    "mkdirat": "ENOSPC",
    "mknodat": "ENOSPC",
    "newfstatat": "ENOMEM",
    "openat": "EMFILE",
    "pidfd_open": "EMFILE",
    "pipe2": "EMFILE",
    "read": "EIO",
    "recvmsg": "ENOMEM",
    "rename": "ENOSPC",
    "renameat": "ENOSPC",
    "sendmsg": "ENOMEM",
    "setxattr": "ENOSPC",
    "signalfd4": "EMFILE",
    "socketpair": "EMFILE",
    "unlinkat": "ENOMEM",
    "write": "ENOSPC",
}

# Command: the status before it, the one after it, the flags, and the words behind the ID.
COMMANDS: dict[str, tuple[str, str, Sequence[str], Sequence[str]]] = {
    "start": ("created", "running", (), ()),
    "exec": ("running", "running", ("--detach", "--pid-file", "PID"), (PROBE, "sleep", "60000")),
    "pause": ("running", "paused", (), ()),
    "resume": ("paused", "running", (), ()),
    "update": ("running", "running", ("--pids-limit", "77"), ()),
    "kill": ("running", "stopped", (), ("KILL",)),
    "delete": ("stopped", "none", (), ()),
    "delete --force": ("running", "none", ("--force",), ()),
    "state": ("running", "running", (), ()),
}


def some(calls: Sequence[Call], count: int) -> list[Call]:
    """So many of the calls, spread evenly."""
    return [calls[index * len(calls) // count] for index in range(count)] if len(calls) > count else list(calls)


def after_start(calls: list[Call]) -> list[Call]:
    """Those after the interpreter and its modules are there, which is the same for every command."""
    loaded = [index for index, call in enumerate(calls) if ".so" in call.line]
    return calls[loaded[-1] + 1 :]


def create_words(container: Container) -> list[str]:
    """The words of create, and the config that goes with it."""
    container.bundle.config["process"]["args"] = [PROBE, "sleep", "60000"]
    container.bundle.write()
    container.used = True
    return ["create", "--bundle", str(container.bundle.path), "--pid-file", str(container.pid_file), container.id]


def status(container: Container) -> str:
    """What `state` says, which must be one of its statuses; "none" if there is no such container."""
    result = container.command("state")
    if result.code:
        assert result.code == 1, f"{result!r}"
        assert "does not exist" in result.error
        return "none"
    return str(json.loads(result.out)["status"])


def remove(container: Container, leaks: Leaks) -> None:
    """`delete --force` takes all of it away."""
    container.delete("--force")
    reap(container)
    container.pid_file.unlink(missing_ok=True)
    leaks.check()
    container.pid = 0


def reap(container: Container) -> None:
    container.reap()
    container.status = None


def refusal(result: Result, code: int = 1) -> None:
    """One line says what is wrong, and it is no bug."""
    assert result.code == code, f"{result!r}"
    assert len(result.error.splitlines()) == 1, f"{result!r}"
    assert "internal error" not in result.error


@pytest.mark.parametrize("own", ["PID namespace", "no PID namespace"])
def test_a_start_that_does_not_hear(container: Container, own: str) -> None:
    """Killed when it has let the init process go, before that says so: the container runs, as one with an init [K2]."""
    if own != "PID namespace":
        container.bundle.drop_namespace("pid")
    container.bundle.args("report", "pause")
    container.create()
    words = ["start", container.id]
    trace = container.bundle.path / "trace"
    slow = ["strace", "-qq", "-o", str(trace), "-e", "inject=write:delay_enter=700000:when=1", "-p", str(container.pid)]
    late = subprocess.Popen(slow)
    wait_until(lambda: "TracerPid:\t0\n" not in Path(f"/proc/{container.pid}/status").read_text(), what="strace")
    assert strace.at(container.runtime, Call("unlinkat", 1, ""), "signal=KILL", words).code == 128 + 9
    replies = container.wait_replies(1)
    late.terminate()
    late.wait()
    trace.unlink()
    assert status(container) == "running"
    assert replies[0]["status"]["SigIgn"] == "0" * 16
    assert "already running" in container.start(check=False).error


@pytest.mark.parametrize("view", ["container", "pure"])
def test_a_killed_create(request: pytest.FixtureRequest, leaks: Leaks, view: str) -> None:
    """Its init process dies with it, delete --force removes the rest, and the ID can be used again [K1]."""
    container: Container = request.getfixturevalue(view)
    words = create_words(container)
    calls = after_start(strace.calls(container.runtime, words, container.bundle.path / "trace"))
    remove(container, leaks)
    seen = set()
    for call in some(calls, 14):
        result = strace.at(container.runtime, call, "signal=KILL", words)
        assert result.code in (128 + 9, 0), f"KILL at {call}: {result!r}"  # 0: what the first one made is there
        wait_until(lambda: status(container) != "creating", what="the end of the init process")
        seen.add(status(container))
        remove(container, leaks)
    assert seen <= {"none", "stopped", "created"}
    container.runtime(*words).ok()
    assert status(container) == "created"


@pytest.mark.parametrize("view", ["container", "pure"])
def test_a_create_that_is_refused_something(request: pytest.FixtureRequest, leaks: Leaks, view: str) -> None:
    """Nothing is left, or it was not needed [K1, X13]."""
    container: Container = request.getfixturevalue(view)
    words = create_words(container)
    calls = after_start(strace.calls(container.runtime, words, container.bundle.path / "trace"))
    remove(container, leaks)
    for call in some([call for call in calls if call.name in WANT], 14):
        result = strace.at(container.runtime, call, f"error={WANT[call.name]}", words)
        if result.code == 0:
            assert status(container) == "created", f"{WANT[call.name]} at {call}"
            remove(container, leaks)
        else:
            refusal(result)
            assert not container.pid_file.exists()
            assert status(container) == "none"
            leaks.check()


class Victim:
    """A container, a command on it, and its way back to the status that it had before."""

    def __init__(self, container: Container, name: str, leaks: Leaks) -> None:
        self.container = container
        self.leaks = leaks
        self.before, self.after, flags, more = COMMANDS[name]
        self.exec_pid_file = Path(f"{container.pid_file}.exec")
        self.verb = name.split(" ", maxsplit=1)[0]
        flags = [str(self.exec_pid_file) if flag == "PID" else flag for flag in flags]
        self.words = [self.verb, *flags, container.id, *more]
        self.create_words = create_words(container)
        self.ready()
        self.calls = after_start(strace.calls(container.runtime, self.words, container.bundle.path / "trace"))
        self.ready()

    def ready(self) -> None:
        """Bring the container into the status that the command finds."""
        container = self.container
        self.end_executed()
        if container.pid and status(container) == self.before and alive(container.pid):
            return
        if container.pid:
            self.remove()
        container.runtime(*self.create_words).ok()
        container.pid = int(container.pid_file.read_text())
        if self.before != "created":
            container.start()
        if self.before == "paused":
            container.command("pause").ok()
        if self.before == "stopped":
            os.kill(container.pid, 9)
            container.wait_dead()

    def end_executed(self) -> None:
        """What exec has started is our child when exec is gone; the container's end would wait for us to see its."""
        self.exec_pid_file.unlink(missing_ok=True)
        for pid in leak_tools.children():
            if pid not in self.leaks.keep and pid != self.container.pid:
                os.kill(pid, 9)
                os.waitpid(pid, 0)

    def remove(self) -> None:
        """Take all of it away."""
        self.end_executed()
        remove(self.container, self.leaks)

    def again(self) -> None:
        """What was not done can be done now, and what was done is done."""
        container, now = self.container, status(self.container)
        if now == self.before or self.before == self.after:
            container.runtime(*self.words).ok()
            if self.verb == "kill":
                container.wait_dead()
            now = status(container)
        assert now == self.after
        if now == "running":
            assert container.execute("exit 7").code == 7
        if self.verb == "update":
            group = container.bundle.config["linux"]["cgroupsPath"]
            assert Path(f"/sys/fs/cgroup/pids{group}/pids.max").read_text() == "77\n"


@pytest.mark.requires("v1:pids", "v1:freezer")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command(container: Container, leaks: Leaks, name: str) -> None:
    """It is done or can be repeated; the container is what it was, and delete --force removes it [K2 to K7]."""
    victim = Victim(container, name, leaks)
    for call in some(victim.calls[:-1], 5):
        result = strace.at(container.runtime, call, "signal=KILL", victim.words)
        assert result.code == 128 + 9, f"KILL at {call}: {result!r}"
        assert status(container) in (victim.before, victim.after, "stopped"), f"KILL at {call}"
        if victim.before != "running" or status(container) != "stopped":
            victim.again()
        victim.ready()
    victim.remove()


@pytest.mark.requires("v1:pids", "v1:freezer")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_refused_something(container: Container, leaks: Leaks, name: str) -> None:
    """The container is what it was, and the command works the next time [K2 to K7]."""
    victim = Victim(container, name, leaks)
    for call in some([call for call in victim.calls if call.name in WANT], 5):
        result = strace.at(container.runtime, call, f"error={WANT[call.name]}", victim.words)
        if result.code:
            refusal(result, 255 if victim.verb == "exec" else 1)
            assert status(container) == victim.before or victim.verb in ("start", "delete"), f"at {call}: {result!r}"
            assert not victim.exec_pid_file.exists()
            if status(container) == victim.before:
                victim.again()
        else:
            wait_until(lambda: status(container) == victim.after, what=f"{victim.after} after {call}")
        victim.ready()
    victim.remove()


@pytest.mark.requires("v1:freezer")
def test_a_kill_that_cannot_know_what_is_frozen(container: Container, leaks: Leaks) -> None:
    """What a signal takes is asked before it is sent: an error says that nothing was done [K5]."""
    victim = Victim(container, "kill", leaks)
    for call in victim.calls:
        if call.name == "openat" and "freezer.state" in call.line:
            refusal(strace.at(container.runtime, call, "error=EMFILE", victim.words))
            assert status(container) == "running", f"at {call}"
    victim.remove()


def test_a_start_that_is_killed_when_it_has_let_the_program_go(container: Container, leaks: Leaks) -> None:
    """The fifo is still there, the program runs all the same: a second start says so, and waits for nothing [K2]."""
    words = ["start", container.id]
    container.bundle.args("sleep 60000")
    container.create()
    calls = strace.calls(container.runtime, words, container.bundle.path / "trace")
    remove(container, leaks)
    container.create()
    removal = next(call for call in calls if call.name.startswith("unlink") and "exec.fifo" in call.line)
    assert strace.at(container.runtime, removal, "signal=KILL", words).code == 128 + 9
    assert (container.runtime.root / container.id / "exec.fifo").exists()
    wait_until(lambda: status(container) == "running", what="the program")
    began = time.monotonic()
    refusal(container.start(check=False, timeout=8))
    assert time.monotonic() - began < 5
    assert status(container) == "running"


def test_a_create_that_cannot_know_the_boot(container: Container, leaks: Leaks) -> None:
    """Without the boot's ID it would be taken for one of another boot: stopped, its process forgotten [S2]."""
    words = create_words(container)
    calls = strace.calls(container.runtime, words, container.bundle.path / "trace")
    remove(container, leaks)
    call = next(call for call in calls if call.name == "openat" and "boot_id" in call.line)
    result = strace.at(container.runtime, call, "error=EMFILE", words)
    refusal(result)
    assert "'/proc/sys/kernel/random/boot_id': cannot read: too many open files (EMFILE)" in result.error
    leaks.check()


@pytest.mark.parametrize(("name", "error"), [("pipe2", "EMFILE"), ("memfd_create", "EMFILE"), ("poll", "ENOMEM")])
def test_a_poststart_hook_that_cannot_be_run(container: Container, leaks: Leaks, name: str, error: str) -> None:
    """It counts as one that has failed: the container is stopped and removed [H4]."""
    hook = {"path": str(container.bundle.probe), "args": ["probe", "exit", "0"]}
    container.bundle.merge({"hooks": {"poststart": [hook]}})
    words = ["start", container.id]
    container.create()
    calls = strace.calls(container.runtime, words, container.bundle.path / "trace")
    remove(container, leaks)
    container.create()
    call = [call for call in calls if call.name == name][-1]
    result = strace.at(container.runtime, call, f"error={error}", words)
    refusal(result)
    assert "/hooks/poststart/0" in result.error
    assert status(container) == "none"
    reap(container)
    leaks.check()


@pytest.mark.requires("file:/usr/bin/python3")
def test_an_init_process_that_is_killed_during_create(container: Container, leaks: Leaks) -> None:
    """By a hook, say: create tells that, and nothing is left [K1]."""
    script = "import json, os, sys; os.kill(json.load(sys.stdin)['pid'], 9)"
    hook = {"path": "/usr/bin/python3", "args": ["python3", "-I", "-c", script]}
    container.bundle.merge({"hooks": {"createRuntime": [hook]}})
    result = container.create(check=False)
    refusal(result)
    assert "the init process died: killed by signal 9" in result.error
    assert not container.pid_file.exists()
    leaks.check()
