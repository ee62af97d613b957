"""seccomp.notify: the message for the agent, and the order of the hand-over, with a conversation of our own."""

import errno
import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from ociruntime.errors import OCIError, StepError
from ociruntime.seccomp import compile as compiler, notify
from ociruntime.shim import calls

STATE: dict[str, object] = {"ociVersion": "1.3.0", "id": "c", "status": "creating", "pid": 7, "bundle": "/b"}


def request(path: str = "/s", metadata: str = "") -> compiler.SeccompRequest:
    return compiler.SeccompRequest({}, 8, True, path, metadata)


def test_document() -> None:
    assert json.loads(notify.document(request(metadata='m"\u00e9'), 9, STATE)) == {
        "ociVersion": "1.3.0",
        "fds": ["seccompFd"],
        "pid": 9,
        "metadata": 'm"\u00e9',
        "state": STATE,
    }
    assert "metadata" not in json.loads(notify.document(request(), 9, STATE))


class Channel:
    """What the process says and hears. on_go: called with the value of each GO."""

    def __init__(self, on_go: Any) -> None:
        self.heard: list[int] = []
        self.on_go = on_go
        self.said: Any = StepError("", errno=errno.ETIMEDOUT)

    def go(self, fds: Any = (), value2: int = 0) -> None:
        self.heard.append(value2)
        self.on_go(len(self.heard))

    def receive(self, timeout_ms: int = -1) -> Any:
        if isinstance(self.said, StepError):
            raise self.said
        return self.said


class Agent:
    def __init__(self, path: Path) -> None:
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        self.data, self.fds = b"", [-1]
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        connection, _ = self.server.accept()
        with connection:
            self.data, self.fds, _, _ = socket.recv_fds(connection, 4096, 4)
            while part := connection.recv(1 << 20):
                self.data += part

    def join(self) -> None:
        self.thread.join(60)
        self.server.close()


def unused() -> int:
    """A number that no fd of this process has."""
    fd = os.open("/dev/null", os.O_RDONLY)
    os.close(fd)
    return fd + 100


def broken(message: Any) -> OCIError:
    return OCIError(f"broken {message}")


def test_hand_over(tmp_path: Path) -> None:
    """GO, then the fd appears, then the agent has it and the connection is closed, then GO again."""
    agent = Agent(tmp_path / "s")
    number, pidfd = unused(), os.pidfd_open(os.getpid())
    inode = os.stat("/dev/null").st_ino
    sent: list[bytes] = []

    def on_go(count: int) -> None:
        if count == 1:
            fd = os.open("/dev/null", os.O_RDONLY)
            os.dup2(fd, number)
            os.close(fd)
        else:
            agent.join()
            sent.append(agent.data)

    channel: Any = Channel(on_go)
    message = b"x" * 1000000
    notify.hand_over(request(str(tmp_path / "s")), channel, pidfd, number, message, broken)
    assert channel.heard == [0, 0]
    assert sent == [message]
    assert len(agent.fds) == 1
    assert os.stat(agent.fds[0]).st_ino == inode
    for fd in (number, pidfd, agent.fds[0]):
        os.close(fd)


@pytest.mark.parametrize("listening", [True, False])
def test_no_agent(tmp_path: Path, listening: bool) -> None:
    """Before the process hears anything."""
    path = tmp_path / "s"
    if listening:
        socket.socket(socket.AF_UNIX).bind(str(path))  # nobody listens
    channel: Any = Channel(lambda _: None)
    with pytest.raises(StepError) as error:
        notify.hand_over(request(str(path)), channel, -1, 3, b"m", broken)
    assert error.value.pointer == "/linux/seccomp/listenerPath"
    assert error.value.errno == (errno.ECONNREFUSED if listening else errno.ENOENT)
    assert channel.heard == []


@pytest.mark.parametrize("said", [None, "a report"])
def test_process_that_fails(tmp_path: Path, said: Any) -> None:
    """It dies, or reports an error, instead of loading its filter: no waiting, nothing sent."""
    agent = Agent(tmp_path / "s")
    pidfd = os.pidfd_open(os.getpid())
    channel: Any = Channel(lambda _: None)
    channel.said = said
    with pytest.raises(OCIError, match=f"broken {said}"):
        notify.hand_over(request(str(tmp_path / "s")), channel, pidfd, unused(), b"m", broken)
    agent.join()
    assert agent.data == b""
    assert channel.heard == [0]
    os.close(pidfd)


def test_listener_that_never_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "PATIENCE", 0.05)
    agent = Agent(tmp_path / "s")
    pidfd = os.pidfd_open(os.getpid())
    channel: Any = Channel(lambda _: None)
    with pytest.raises(StepError) as error:
        notify.hand_over(request(str(tmp_path / "s")), channel, pidfd, unused(), b"m", broken)
    assert error.value.errno == errno.ETIMEDOUT
    agent.join()
    os.close(pidfd)


def test_process_that_may_not_be_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked to be dumpable; when that is not enough the error says what is needed."""
    monkeypatch.setattr(notify, "PATIENCE", 0.05)
    agent = Agent(tmp_path / "s")
    channel: Any = Channel(lambda _: None)
    monkeypatch.setattr(calls, "pidfd_getfd", lambda pidfd, number: -errno.EPERM)
    with pytest.raises(StepError, match="ptrace") as error:
        notify.hand_over(request(str(tmp_path / "s")), channel, -1, 3, b"m", broken)
    assert (error.value.call, error.value.errno, error.value.pointer) == ("pidfd_getfd", errno.EPERM, "/linux/seccomp")
    assert channel.heard == [1]
    agent.join()


def test_agent_that_does_not_accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue is an error after a while."""
    monkeypatch.setattr(notify, "PATIENCE", 0.05)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    server.listen(0)
    waiting = []
    with pytest.raises(OSError):
        while len(waiting) < 10:
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            waiting[-1].connect(str(tmp_path / "s"))
    channel: Any = Channel(lambda _: None)
    with pytest.raises(StepError) as error:
        notify.hand_over(request(str(tmp_path / "s")), channel, -1, 3, b"m", broken)
    assert (error.value.call, error.value.errno) == ("connect", errno.EAGAIN)
    for one in (*waiting, server):
        one.close()
