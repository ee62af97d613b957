"""linux.seccomp with SCMP_ACT_NOTIFY: the listener goes to an agent, which answers for the container."""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from integration.lib.container import Container, alive, wait_until
from integration.lib.leaks import Leaks
from integration.lib.seccomp_agent import Agent, carry_on

# x86_64
NUMBERS = {
    "read": 0, "write": 1, "close": 3, "fcntl": 72, "chdir": 80, "mkdir": 83, "prctl": 157, "sendmsg": 46,
    "recvmsg": 47, "execve": 59, "times": 100, "capset": 126, "openat": 257, "fchownat": 260, "setresuid": 117,
    "exit_group": 231, "seccomp": 317,
}  # fmt: skip
TIMES, MKDIR = NUMBERS["times"], NUMBERS["mkdir"]
# What runc refuses or waits for until the end of time is no problem here.
EVERY = ["sendmsg", "write", "read", "openat", "close", "prctl", "execve", "capset", "recvmsg", "exit_group"]


@pytest.fixture(autouse=True)
def _x86() -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("numbers of system calls are those of x86_64")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the agent listens."""
    return tmp_path / "agent.sock"


def ask(path: Path | str, *names: str, **more: Any) -> dict[str, Any]:
    """A profile that allows everything, but asks about these calls."""
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "listenerPath": str(path),
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_NOTIFY"}],
        **more,
    }


def test_message(container: Container, path: Path) -> None:
    """The agent is sent one document with the listener, in the spec's shape, while the container is being created
    [Q9, J6].
    """
    container.bundle.merge({"annotations": {"org.example.key": "value"}})
    container.bundle.linux(seccomp=ask(path, "times", listenerMetadata="some \u00e9 words"))
    container.bundle.args("exit 0")
    with Agent(path) as agent:
        container.create()
        wait_until(lambda: agent.messages, what="message")
        document = agent.messages[0]
        assert agent.fds == [1]
        state = document["state"]
        version = document["ociVersion"]
        assert document == {
            "ociVersion": version,
            "fds": ["seccompFd"],
            "pid": container.pid,
            "metadata": "some \u00e9 words",
            "state": state,
        }
        assert state == {
            "ociVersion": version,
            "id": container.id,
            "status": "creating",
            "pid": container.pid,
            "bundle": str(container.bundle.path),
            "annotations": {"org.example.key": "value"},
        }
        container.start()
        assert container.wait() == 0
    assert len(agent.messages) == 1


def test_no_metadata_no_key(container: Container, path: Path) -> None:
    """Without listenerMetadata the document has no such key [J6]."""
    container.bundle.linux(seccomp=ask(path, "times"))
    container.bundle.args("exit 0")
    with Agent(path) as agent:
        container.run(check=True)
    assert not agent.messages[0].get("metadata")


def test_the_agent_answers(container: Container, path: Path) -> None:
    """What the agent says is what the program gets [Q2, Q9]."""
    container.bundle.linux(seccomp=ask(path, "times", "mkdir"))

    def answer(number: int, arguments: tuple[int, ...]) -> tuple[int, int] | None:
        return {TIMES: (4711, 0), MKDIR: (-1, errno.EXDEV)}.get(number)

    with Agent(path, answer) as agent:
        times, mkdir, getpid = container.probe(f"syscall {TIMES}", f"syscall {MKDIR}", "syscall 39")
    assert times["result"] == 4711
    assert mkdir["errno"] == errno.EXDEV
    assert getpid["result"] == 1
    assert agent.numbers == [TIMES, MKDIR]


@pytest.mark.parametrize("nnp", [True, False])
@pytest.mark.parametrize("name", EVERY)
def test_any_call(container: Container, path: Path, name: str, nnp: bool) -> None:
    """Any call may be in the rules, those that the runtime itself makes too [Q9, X7]."""
    container.bundle.linux(seccomp=ask(path, name))
    container.bundle.process(noNewPrivileges=nnp)
    container.bundle.args("syscall 39", "exit 3")
    with Agent(path) as agent:
        container.create()
        container.start()
        assert container.wait() == 3
    assert container.replies[0]["result"] == 1
    if name not in ("sendmsg", "recvmsg", "prctl", "capset"):  # of these nobody makes one
        assert NUMBERS[name] in agent.numbers


@pytest.mark.parametrize("nnp", [True, False])
def test_default_action(container: Container, path: Path, nnp: bool) -> None:
    """NOTIFY may be the default action [Q9, X7]."""
    profile = ask(path, "times")
    profile["defaultAction"], profile["syscalls"][0]["action"] = "SCMP_ACT_NOTIFY", "SCMP_ACT_ERRNO"
    container.bundle.linux(seccomp=profile)
    container.bundle.process(noNewPrivileges=nnp)
    with Agent(path) as agent:
        times, getpid, unknown = container.probe(f"syscall {TIMES}", "syscall 39", "syscall 10000")
    assert (times["errno"], getpid["result"], unknown["errno"]) == (errno.EPERM, 1, errno.ENOSYS)
    assert {NUMBERS["execve"], 39, 10000} < set(agent.numbers)
    assert TIMES not in agent.numbers


@pytest.mark.parametrize("name", ["sendmsg", "write", "openat", "close", "prctl", "execve"])
def test_no_agent(container: Container, leaks: Leaks, path: Path, name: str) -> None:
    """Without an agent nothing is created, and the error says what is missing [Q9]."""
    container.bundle.linux(seccomp=ask(path, name))
    result = container.create(check=False)
    assert result.code != 0
    assert str(path) in result.error or not container.runtime.ours
    if container.runtime.ours:
        assert "/linux/seccomp/listenerPath" in result.error
        assert "(ENOENT)" in result.error
    leaks.check()


def test_nobody_listens(container: Container, leaks: Leaks, path: Path) -> None:
    """A socket file that an agent has left behind is not enough [Q9]."""
    with Agent(path):
        pass
    container.bundle.linux(seccomp=ask(path, "times"))
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert "/linux/seccomp/listenerPath" in result.error
        assert "(ECONNREFUSED)" in result.error
    leaks.check()


def test_no_rule_no_listener(container: Container, path: Path) -> None:
    """Without a NOTIFY rule listenerPath is of no interest [Q9]."""
    profile = ask(path, "times", listenerMetadata="x")
    profile["syscalls"][0]["action"] = "SCMP_ACT_ERRNO"
    container.bundle.linux(seccomp=profile)
    assert container.probe(f"syscall {TIMES}")[0]["errno"] == errno.EPERM


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"listenerPath": ""}, "/linux/seccomp/listenerPath"),
        ({"listenerPath": None, "listenerMetadata": "x"}, "/linux/seccomp/listenerMetadata"),
        (
            {"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
             "syscalls": [{"names": ["times"], "action": "SCMP_ACT_ERRNO"}]},
            "/linux/seccomp/flags/0",
        ),
    ],
)  # fmt: skip
def test_bad_listeners(container: Container, leaks: Leaks, path: Path, change: dict[str, Any], pointer: str) -> None:
    """A listener without a path, metadata without a listener, a listener's flag without one are refused [Q7, Q9]."""
    profile = {name: value for name, value in {**ask(path, "times"), **change}.items() if value is not None}
    container.bundle.linux(seccomp=profile)
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert pointer in result.error
    leaks.check()


@pytest.mark.parametrize(
    "flags",
    [
        ["SECCOMP_FILTER_FLAG_TSYNC"],
        ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
        pytest.param(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], marks=pytest.mark.requires("kernel:5.19")),
    ],
)
def test_flags_with_a_listener(container: Container, path: Path, flags: list[str]) -> None:
    """All flags go together with a listener [Q7]."""
    container.bundle.linux(seccomp=ask(path, "times", "execve", flags=flags))
    with Agent(path, lambda number, _: (7, 0) if number == TIMES else None):
        assert container.probe(f"syscall {TIMES}")[0]["result"] == 7


def test_long_path(container: Container, tmp_path: Path) -> None:
    """listenerPath may be longer than the 108 bytes of a socket address [Q9]."""
    directory = tmp_path / ("d" * 100)
    directory.mkdir()
    path = directory / ("s" * 60)
    container.bundle.linux(seccomp=ask(path, "times"))
    with Agent(path, lambda *_: (7, 0)):
        assert container.probe(f"syscall {TIMES}")[0]["result"] == 7


def test_long_metadata(container: Container, path: Path) -> None:
    """All of the metadata arrives, however long, and the listener with its first part [J6]."""
    text = "0123456789abcdef" * 40000
    container.bundle.linux(seccomp=ask(path, "times", listenerMetadata=text))
    with Agent(path, lambda *_: (7, 0)) as agent:
        assert container.probe(f"syscall {TIMES}")[0]["result"] == 7
    assert agent.fds == [1]
    assert agent.messages[0]["metadata"] == text


def test_user_namespace(container: Container, path: Path) -> None:
    """In a user namespace as well [Q9]."""
    container.bundle.user_namespace()
    container.bundle.linux(seccomp=ask(path, "times", "getpid"))
    with Agent(path, lambda number, _: (7, 0) if number == TIMES else None):
        assert container.probe(f"syscall {TIMES}")[0]["result"] == 7


def test_ordinary_user(container: Container, path: Path) -> None:
    """For a user without privileges, who could not load a filter himself [Q9, O9]."""
    container.bundle.linux(seccomp=ask(path, "times", "getpid"))
    container.bundle.process(user={"uid": 1000, "gid": 1000}, noNewPrivileges=False)
    with Agent(path, lambda number, _: (7, 0) if number == TIMES else None):
        assert container.probe(f"syscall {TIMES}")[0]["result"] == 7


def test_the_container_has_no_listener(container: Container, path: Path) -> None:
    """Neither the waiting init process nor the program holds its own listener."""
    container.bundle.linux(seccomp=ask(path, "times"))
    container.bundle.args("pause")
    with Agent(path):
        container.create()
        for _ in range(2):
            fds = Path(f"/proc/{container.pid}/fd")
            links = [os.readlink(fds / name) for name in os.listdir(fds)]
            assert not [link for link in links if "seccomp" in link]
            if Path(f"/proc/{container.pid}/comm").read_text().strip() != "probe":
                container.start()
        container.finish()


@pytest.mark.parametrize(
    ("names", "nnp", "answers", "said"),
    [
        (("capset",), False, 0, "capset"),
        (("close", "prctl"), False, 1, "prctl"),
        (("write",), True, 0, ""),
        (("close", "write"), True, 1, ""),
    ],
)
def test_agent_that_leaves(
    container: Container, leaks: Leaks, path: Path, names: tuple[str, ...], nnp: bool, answers: int, said: str
) -> None:
    """An agent that goes away with the listener in its hands is an error, not a hang [Q9]."""
    container.bundle.linux(seccomp=ask(path, *names))
    container.bundle.process(noNewPrivileges=nnp)
    with Agent(path, quit_after=answers):
        result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours and said:
        assert said in result.error
        assert "(ENOSYS)" in result.error
    leaks.check()


def test_agent_that_leaves_before_start(container: Container, leaks: Leaks, path: Path) -> None:
    """execve without an agent fails with ENOSYS: start says so [Q9]."""
    container.bundle.linux(seccomp=ask(path, "execve"))
    with Agent(path):
        container.create()
    result = container.start(check=False)
    if container.runtime.ours:
        assert result.code != 0
        assert "(ENOSYS)" in result.error
        assert container.wait() != 0
    container.delete("--force")
    leaks.check()


@pytest.mark.parametrize("nnp", [True, False])
def test_agent_that_never_answers(container: Container, leaks: Leaks, path: Path, nnp: bool) -> None:
    """A create that waits for its agent can be killed, and what it leaves can be deleted [Q9, K12]."""
    container.bundle.linux(seccomp=ask(path, "close" if nnp else "capset"))
    container.bundle.process(noNewPrivileges=nnp)
    container.bundle.write()
    container.used = True
    release = threading.Event()

    def answer(number: int, arguments: tuple[int, ...]) -> None:
        release.wait(20)

    with Agent(path, answer) as agent:
        process = container.runtime.spawn("create", "--bundle", str(container.bundle.path), container.id)
        wait_until(lambda: agent.numbers, what="question to the agent")
        assert process.poll() is None
        init = agent.pids[0]
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        container.delete("--force", check=False)
        wait_until(lambda: not alive(init), what="end of init")
        release.set()
    leaks.check()


@pytest.mark.parametrize("nnp", [True, False])
def test_exec(container: Container, path: Path, nnp: bool) -> None:
    """A process that exec adds brings a listener, too: the document names it, and init as the container's [Q9, J6]."""
    container.bundle.linux(seccomp=ask(path, "times", "close"))
    container.bundle.process(noNewPrivileges=nnp)
    with Agent(path, lambda number, _: (7, 0) if number == TIMES else None) as agent:
        container.begin("report", "pause")
        reply = container.runtime("exec", container.id, "/probe", "syscall", str(TIMES)).ok().replies[0]
        assert reply["result"] == 7
        wait_until(lambda: len(agent.messages) == 2, what="second listener")
        document = agent.messages[1]
        assert (document["state"]["status"], document["state"]["pid"]) == ("running", container.pid)
        assert document["pid"] in agent.pids
        assert document["pid"] != container.pid
        container.finish()


def test_exec_without_an_agent(container: Container, path: Path) -> None:
    """An agent that is gone stops exec, not the container [Q9]."""
    container.bundle.linux(seccomp=ask(path, "times"))
    with Agent(path):
        container.begin("report", "pause")
    result = container.runtime("exec", container.id, "/probe", "report")
    assert result.code != 0
    if container.runtime.ours:
        assert "/linux/seccomp/listenerPath" in result.error
    assert container.state()["status"] == "running"
    container.finish()


def test_two_containers_one_agent(new_container: Any, path: Path) -> None:
    """Each container brings a listener of its own [J6]."""
    with Agent(path) as agent:
        made = [new_container() for _ in range(2)]
        for container in made:
            container.bundle.linux(seccomp=ask(path, "times"))
            container.bundle.args(f"syscall {TIMES}", "pause")
            container.create()
            container.start()
            container.wait_replies(1)
        wait_until(lambda: len(agent.numbers) == 2, what="both calls")
        assert [document["state"]["id"] for document in agent.messages] == [container.id for container in made]
        for container in made:
            container.finish()


def test_carry_on_lets_calls_run() -> None:
    """The agent's default answer, which the other tests rely on."""
    assert carry_on(1, ()) is None
