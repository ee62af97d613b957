"""The annotation org.ociruntime.init: a minimal init beside the program."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from integration.lib.container import Container, wait_until
from integration.lib.leaks import Leaks
from integration.lib.probe import capability_names, parse

pytestmark = pytest.mark.ours_only("an annotation of this runtime")


@pytest.fixture
def container(container: Container) -> Container:
    """A container with an init."""
    container.bundle.merge({"annotations": {"org.ociruntime.init": "true"}})
    return container


def children(pid: int) -> list[int]:
    """Children of a process, zombies too."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def orphan_of(container: Container) -> int:
    """The child of the init that is not its program: it leads a session of its own."""

    def found() -> list[int]:
        return [pid for pid in children(container.pid) if os.getsid(pid) == pid]

    wait_until(lambda: len(children(container.pid)) == 2 and found(), what="an orphan and the program")
    return found()[0]


def status(pid: int, key: str) -> str:
    """A line of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{key}:"))


@pytest.mark.parametrize("value", ["true", "1"])
def test_program_is_a_child(container: Container, value: str) -> None:
    """The program is not PID 1; all it has is what it would have otherwise."""
    container.bundle.merge({"annotations": {"org.ociruntime.init": value}})
    report = container.report()
    assert (report["ppid"], report["pid"] > 1) == (1, True)
    assert report["pgid"] == report["pid"]
    assert set(report["fds"]) == {"0", "1", "2"}
    assert report["dumpable"] == 1


@pytest.mark.parametrize("value", ["false", "0", "", "no"])
def test_other_values(container: Container, value: str) -> None:
    """Any other value leaves the program PID 1."""
    container.bundle.merge({"annotations": {"org.ociruntime.init": value}})
    assert container.report()["pid"] == 1


@pytest.mark.parametrize("code", [0, 1, 42, 127, 128, 255])
def test_exit_code(container: Container, code: int) -> None:
    """The exit code of the container is the program's."""
    container.bundle.args(f"exit {code}")
    assert container.run().code == code


@pytest.mark.parametrize("number", [6, 9, 11, 15])
def test_death_by_a_signal(container: Container, number: int) -> None:
    """A program that signal n ends gives 128 + n: it is not the first process, no signal is ignored for it."""
    container.bundle.args(f"raise {number}")
    assert container.run().code == 128 + number


@pytest.mark.parametrize("number", [1, 2, 3, 10, 12, 15, 28, 34, 64])
def test_signals_are_forwarded(container: Container, number: int) -> None:
    """What is sent to the container reaches the program."""
    container.begin(f"trap {number} 7")
    container.kill(str(number))
    assert container.wait() == 7


def test_unhandled_term_ends_it(container: Container) -> None:
    """SIGTERM ends a program that does nothing about it: the point of an init."""
    container.begin("pause")
    container.kill("TERM")
    assert container.wait() == 128 + signal.SIGTERM


def test_signals_once_and_in_number(container: Container) -> None:
    """Each is forwarded once; SIGCHLD is about the init itself."""
    container.begin("signals")
    for number in ("HUP", "USR1", "CHLD", "USR2"):
        container.kill(number)
        time.sleep(0.05)
    container.kill("TERM")
    assert container.wait() == 0
    assert [reply["number"] for reply in container.replies if reply["cmd"] == "signal"] == [1, 10, 12, 15]


def test_signal_from_inside(container: Container) -> None:
    """A process of the container can send signals to PID 1 that reach the program."""
    container.bundle.process(user={"uid": 0, "gid": 0})
    container.begin("trap 10 5")
    container.command("exec")  # no command: refused, and nothing has happened to the container
    container.runtime("exec", container.id, "/probe", "kill", "1", "10").ok()
    assert container.wait() == 5


def test_orphans_are_reaped(container: Container) -> None:
    """A process whose parent is gone goes to the init, and no zombie of it stays."""
    container.begin("orphan", "pause")
    orphan = orphan_of(container)
    os.kill(orphan, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{orphan}").exists(), what="the end of the orphan")
    assert len(children(container.pid)) == 1
    assert container.state()["status"] == "running"


def test_orphans_end_with_the_program(container: Container, leaks: Leaks) -> None:
    """The container ends with the program, whoever is left."""
    container.bundle.args("orphan", "exit 3")
    assert container.run().code == 3
    leaks.check()


def test_orphans_without_a_pid_namespace(container: Container) -> None:
    """There too they go to the init, and it is no reason to stay."""
    container.bundle.drop_namespace("pid")
    container.begin("orphan", "trap 15 4")
    orphan = orphan_of(container)
    os.kill(orphan, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{orphan}").exists(), what="the end of the orphan")
    container.kill("TERM")
    assert container.wait() == 4


def test_program_dies_with_its_init(container: Container) -> None:
    """Without a PID namespace as well."""
    container.bundle.drop_namespace("pid")
    container.begin("pause")
    (program,) = children(container.pid)
    os.kill(container.pid, signal.SIGKILL)
    assert container.wait() == 137
    wait_until(lambda: not Path(f"/proc/{program}").exists() or status(program, "State")[0] in "ZX")


def test_what_the_init_has(container: Container) -> None:
    """It has the streams and no other descriptor, the program's user and filters, no capability but the one to signal
    it, and nobody may look at it."""
    container.bundle.process(user={"uid": 1000, "gid": 1001, "additionalGids": [1002]})
    container.begin("pause")
    (program,) = children(container.pid)
    assert sorted(os.listdir(f"/proc/{container.pid}/fd"), key=int) == ["0", "1", "2"]
    for key in ("Uid", "Gid", "Groups", "CapBnd", "NoNewPrivs", "Seccomp"):
        assert status(container.pid, key) == status(program, key), key
    for key, names in (("CapInh", set()), ("CapPrm", {"CAP_KILL"}), ("CapEff", {"CAP_KILL"}), ("CapAmb", set())):
        assert capability_names(status(container.pid, key)) == names, key
    owner = os.stat(f"/proc/{container.pid}/mem")
    assert (owner.st_uid, owner.st_gid) == (0, 0)  # not dumpable: its files are the superuser's
    assert os.stat(f"/proc/{program}/mem").st_uid == 1000
    assert Path(f"/proc/{container.pid}/environ").read_bytes() == b""
    assert os.readlink(f"/proc/{container.pid}/exe").startswith("/memfd:")
    assert "/memfd:plan" not in Path(f"/proc/{container.pid}/maps").read_text()


def test_terminal(container: Container) -> None:
    """The terminal belongs to the program's process group: a key that interrupts reaches it once."""
    container.bundle.process(terminal=True)
    container.bundle.args("tty", "signals")
    container.bundle.write()
    container.used = True
    master, slave = os.openpty()
    data = b""
    with container.runtime.spawn(
        "run", "--bundle", str(container.bundle.path), container.id,
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(slave)
        for wanted, then in ((b'"cmd":"signals"', b"\x03"), (b'"number":2', b"\x1c"), (b'"number":3', b"")):
            while wanted not in data:
                data += os.read(master, 4096)
            os.write(master, then)
        time.sleep(0.1)
        container.kill("TERM")
        with contextlib.suppress(OSError):
            while more := os.read(master, 4096):
                data += more
        assert process.wait(60) == 0
    os.close(master)
    replies = parse(data.replace(b"^C", b"").replace(b"^\\", b""))
    assert replies[0]["foreground"] == replies[0]["pgid"] > 1
    assert replies[0]["session"] == 1
    assert [reply["number"] for reply in replies if reply["cmd"] == "signal"] == [2, 3, 15]


def test_preserved_descriptors(container: Container, tmp_path: Path) -> None:
    """Preserved descriptors are the program's alone."""
    (tmp_path / "x").write_text("x")
    fd = os.open(tmp_path / "x", os.O_RDONLY)

    def prepare() -> None:
        os.dup2(fd, 3)
        os.set_inheritable(3, True)

    container.bundle.args("report", "pause")
    try:
        container.create("--preserve-fds", "1", preexec_fn=prepare, close_fds=False)
    finally:
        os.close(fd)
    container.start()
    assert set(container.wait_replies(1)[0]["fds"]) == {"0", "1", "2", "3"}
    assert sorted(os.listdir(f"/proc/{container.pid}/fd"), key=int) == ["0", "1", "2"]


def test_listen_pid_is_the_programs(container: Container, tmp_path: Path) -> None:
    """LISTEN_PID=1 means the program, and it has another PID here [P7]."""
    container.bundle.config["process"]["env"] += ["LISTEN_FDS=0", "LISTEN_PID=1", "OTHER_PID=1"]
    report = container.report()
    assert f"LISTEN_PID={report['pid']}" in report["env"]
    assert "OTHER_PID=1" in report["env"]


@pytest.mark.parametrize(("text", "words"), [("", "Exec format error"), ("#!/no/such\n", "/no/such")])
def test_program_that_cannot_be_executed(container: Container, text: str, words: str, leaks: Leaks) -> None:
    """start still reports why, and the container is over."""
    program = container.bundle.rootfs / "program"
    program.write_text(text)
    program.chmod(0o755)
    container.bundle.process(args=["/program"])
    container.create()
    result = container.start(check=False)
    assert result.code == 1
    assert words.lower() in result.error.lower()
    container.wait()
    assert container.state()["status"] == "stopped"
    container.delete()
    leaks.check()


def test_start_hooks_run_before(container: Container) -> None:
    """startContainer hooks are the init's children, before the program."""
    container.bundle.merge(
        {"hooks": {"startContainer": [{"path": "/probe", "args": ["/probe", "create", "/hooked", "yes"]}]}}
    )
    container.bundle.args("read /hooked")
    assert container.probe()[0]["data"] == "yes"


def test_exec_is_not_changed(container: Container) -> None:
    """Processes of exec have no init of their own; their orphans go to the container's."""
    container.begin("pause")
    result = container.runtime("exec", container.id, "/probe", "report").ok()
    assert set(result.replies[0]["fds"]) == {"0", "1", "2"}
    assert container.runtime("exec", container.id, "/probe", "exit", "9").code == 9
    container.runtime("exec", container.id, "/probe", "orphan").ok()
    wait_until(lambda: len(children(container.pid)) == 2, what="the orphan of exec")


def test_under_a_filter(container: Container) -> None:
    """The init works under the container's seccomp filter, with and without noNewPrivileges."""
    container.bundle.linux(
        seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO"}]}
    )
    container.begin("trap 15 6")
    (program,) = children(container.pid)
    assert status(container.pid, "Seccomp") == status(program, "Seccomp") == "2"
    container.kill("TERM")
    assert container.wait() == 6


def test_user_namespace(container: Container) -> None:
    """The same in a user namespace, exec included."""
    container.bundle.user_namespace()
    container.begin("trap 15 6")
    assert container.runtime("exec", container.id, "/probe", "report").ok().replies
    container.kill("TERM")
    assert container.wait() == 6


def test_features_name_it(container: Container) -> None:
    """The annotation changes what the runtime does: features lists it [N9]."""
    document = container.runtime("features").ok().json
    assert "org.ociruntime.init" in document["potentiallyUnsafeConfigAnnotations"]
