"""NOTIFY_SOCKET: the config with the socket in it, and the proxy between a program and a service manager."""

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ociruntime import notify_socket
from ociruntime.errors import StepError
from ociruntime.log import Log
from ociruntime.notify_socket import Proxy, prepare, prepared, ready_line, with_socket


class Warnings(Log):
    """Keeps what is said."""

    __slots__ = ("texts",)

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def warning(self, message: str) -> None:
        self.texts.append(message)


@pytest.mark.parametrize(
    ("datagram", "line"),
    [
        (b"READY=1", b"READY=1"),
        (b"READY=1\nSTATUS=x", b"READY=1"),
        (b"STATUS=x\nREADY=1\n", b"READY=1"),
        (b"XREADY=1", b""),
        (b"STATUS=READY=1", b""),
        (b"", b""),
    ],
)
def test_ready_line(datagram: bytes, line: bytes) -> None:
    assert ready_line(datagram) == line


def test_config_with_the_socket() -> None:
    config: dict[str, Any] = {"mounts": [{"destination": "/run"}], "process": {"env": ["A=1"]}, "linux": {}}
    before = repr(config)
    changed = with_socket(config, "/run/x/id")
    assert changed["mounts"][0] == {"destination": "/run"}
    assert changed["mounts"][1] == {
        "destination": "/run/notify",
        "type": "bind",
        "source": "/run/x/id/notify",
        "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
    }
    assert changed["process"]["env"] == ["A=1", "NOTIFY_SOCKET=/run/notify/notify.sock"]
    assert repr(config) == before
    assert "process" not in with_socket({}, "/x")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[int]:
    """The fd of a state directory that create has prepared."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    assert not prepared(fd)
    old = os.umask(0o077)
    try:
        prepare(fd)
    finally:
        os.umask(old)
    assert prepared(fd)
    yield fd
    os.close(fd)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(tmp_path / "manager"))
        found.settimeout(60)
        yield found


@pytest.fixture
def ended() -> Iterator[tuple[int, int]]:
    """(in place of a pidfd: readable once the other one is written to, that one)"""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_modes_do_not_depend_on_the_umask(state: int, tmp_path: Path, manager: socket.socket) -> None:
    proxy = Proxy(state, str(tmp_path / "manager"))
    assert stat.S_IMODE((tmp_path / "notify").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "notify" / "notify.sock").stat().st_mode) == 0o777
    proxy.close()


def test_ready(state: int, tmp_path: Path, manager: socket.socket, ended: tuple[int, int]) -> None:
    """STATUS is kept back; READY, MAINPID and BARRIER follow one another; the barrier's pipe ends the wait."""
    log = Warnings()
    proxy = Proxy(state, str(tmp_path / "manager"))
    thread = threading.Thread(target=proxy.relay, args=(ended[0], 4711, log))
    thread.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as program:
        for text in (b"STATUS=x", b"READY=1\nSTATUS=y"):
            program.sendto(text, str(tmp_path / "notify" / "notify.sock"))
    assert manager.recv(100) == b"READY=1\n"
    assert manager.recv(100) == b"MAINPID=4711\n"
    data, fds, _, _ = socket.recv_fds(manager, 100, 4)
    assert (data, len(fds)) == (b"BARRIER=1", 1)
    thread.join(0.1)
    assert thread.is_alive()
    os.close(fds[0])
    thread.join(60)
    assert not thread.is_alive()
    assert log.texts == []
    proxy.close()


def test_barrier_without_an_answer(
    state: int, tmp_path: Path, manager: socket.socket, ended: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_socket, "BARRIER_MS", 50)
    log = Warnings()
    proxy = Proxy(state, str(tmp_path / "manager"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as program:
        program.sendto(b"READY=1", str(tmp_path / "notify" / "notify.sock"))
    proxy.relay(ended[0], 1, log)
    assert len(log.texts) == 1
    assert "BARRIER" in log.texts[0]
    proxy.close()


@pytest.mark.parametrize("said", [False, True])
def test_end_of_the_process(
    state: int,
    tmp_path: Path,
    manager: socket.socket,
    ended: tuple[int, int],
    said: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ends the wait; what was said before counts."""
    monkeypatch.setattr(notify_socket, "BARRIER_MS", 1)
    log = Warnings()
    proxy = Proxy(state, str(tmp_path / "manager"))
    if said:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as program:
            program.sendto(b"READY=1", str(tmp_path / "notify" / "notify.sock"))
    os.write(ended[1], b"x")
    proxy.relay(ended[0], 1, log)
    manager.setblocking(False)
    if said:
        assert manager.recv(100) == b"READY=1\n"
    else:
        with pytest.raises(BlockingIOError):
            manager.recv(100)
        assert "ended" in log.texts[0]
    proxy.close()


def test_manager_that_has_gone(state: int, tmp_path: Path, manager: socket.socket, ended: tuple[int, int]) -> None:
    log = Warnings()
    proxy = Proxy(state, str(tmp_path / "manager"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as program:
        program.sendto(b"READY=1", str(tmp_path / "notify" / "notify.sock"))
    manager.close()
    proxy.relay(ended[0], 1, log)
    assert "cannot tell" in log.texts[0]
    proxy.close()


@pytest.mark.parametrize("address", ["", "x", "./x", "/", "@", "/no/such/socket", "vsock:2:1"])
def test_addresses_that_lead_nowhere(state: int, address: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StepError, match="NOTIFY_SOCKET"):
        Proxy(state, address)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_socket_left_behind(state: int, tmp_path: Path, manager: socket.socket) -> None:
    """A start that was killed leaves its socket; the next one binds all the same."""
    for _ in range(2):
        Proxy(state, str(tmp_path / "manager")).close()
