"""NOTIFY_SOCKET: what a container's program says of itself reaches the service manager of the runtime."""

from __future__ import annotations

import array
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.lib.container import Container, wait_until
from integration.lib.leaks import Leaks


class Manager:
    """A service manager: the datagrams that came, and whether it answers BARRIER=1."""

    def __init__(self, address: str) -> None:
        self.datagrams: list[bytes] = []
        self.answers = True
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self.held: list[int] = []
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        """Take messages until one says that it is over."""
        while True:
            data, control, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(4 * 8))
            if data == b"over":
                return
            self.datagrams.append(data)
            fds = array.array("i")
            for level, kind, content in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds.frombytes(content)
            if self.answers:
                for fd in fds:
                    os.close(fd)
            else:
                self.held.extend(fds)

    def close(self) -> None:
        """End the service."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto(b"over", self.socket.getsockname())
        self.thread.join(60)
        self.socket.close()
        for fd in self.held:
            os.close(fd)

    @property
    def environment(self) -> dict[str, str]:
        """What its services have in their environment."""
        return {**os.environ, "NOTIFY_SOCKET": self.address}


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A service manager on a path."""
    found = Manager(str(tmp_path / "notify"))
    yield found
    found.close()


READY = ["notify", "READY=1\nSTATUS=serving"]


def told(container: Container, manager: Manager, pid: int) -> None:
    """The service manager has been told in three messages; older runtimes send no barrier."""
    expected = [b"READY=1\n", f"MAINPID={pid}\n".encode(), b"BARRIER=1"]
    if not container.runtime.ours:
        wait_until(lambda: len(manager.datagrams) >= 2)
        expected = expected[: len(manager.datagrams)]
    assert manager.datagrams == expected


def test_program_gets_a_socket(container: Container, manager: Manager) -> None:
    """The directory of the socket is at /run/notify, read-only, and the variable names the socket [P8]."""
    container.bundle.args("report", "stat /run/notify", READY, "pause")
    container.create(env=manager.environment)
    container.start(env=manager.environment)
    report, found, sent = container.wait_replies(3)[:3]
    assert "NOTIFY_SOCKET=/run/notify/notify.sock" in report["env"]
    line = next(line for line in report["mountinfo"].splitlines() if " /run/notify " in line)
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(line.split(" ")[5].split(","))
    assert (found["type"], found["mode"]) == ("d", 0o755)
    assert sent["errno"] == 0


def test_start_returns_when_ready(container: Container, manager: Manager) -> None:
    """start waits for READY=, and has told the service manager then: that line, MAINPID, BARRIER [P8]."""
    container.bundle.args("sleep 400", READY, "pause")
    container.create(env=manager.environment)
    before = time.monotonic()
    container.start(env=manager.environment)
    assert time.monotonic() - before > 0.35
    told(container, manager, container.pid)


def test_run_detached(container: Container, manager: Manager) -> None:
    """run --detach does the same [P8]."""
    container.bundle.args("sleep 200", READY, "pause")
    before = time.monotonic()
    container.run("--detach", "--pid-file", str(container.pid_file), env=manager.environment, check=True)
    assert time.monotonic() - before > 0.15
    container.pid = int(container.pid_file.read_text())
    told(container, manager, container.pid)


def test_run_in_the_foreground(container: Container, manager: Manager, leaks: Leaks) -> None:
    """There the main process is the runtime, which stays; its exit status is the program's [P8]."""
    container.bundle.args(READY, "sleep 300", "exit 5")
    container.bundle.write()
    container.used = True
    with subprocess.Popen(
        container.runtime.argv("run", "--bundle", str(container.bundle.path), container.id),
        env=manager.environment, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.wait(60) == 5
        told(container, manager, process.pid)
    leaks.check()


def test_other_notifications_are_not_forwarded(container: Container, manager: Manager) -> None:
    """Only READY= counts; what else a program says is not for the service manager of the host [P8]."""
    container.bundle.args(
        ["notify", "STATUS=starting"], ["notify", "MAINPID=1"], ["notify", "STOPPING=1"], READY, "pause"
    )
    container.create(env=manager.environment)
    container.start(env=manager.environment)
    told(container, manager, container.pid)


@pytest.mark.ours_only("P8: the line may stand anywhere in its datagram")
def test_ready_is_not_the_first_line(container: Container, manager: Manager) -> None:
    """sd_notify(3) does not say that READY=1 comes first [P8]."""
    container.bundle.args(["notify", "STATUS=serving\nREADY=1\nX=1"], "pause")
    container.create(env=manager.environment)
    container.start(env=manager.environment)
    assert manager.datagrams[0] == b"READY=1\n"


@pytest.mark.parametrize("detach", [True, False])
def test_death_before_it_is_ready(container: Container, manager: Manager, detach: bool) -> None:
    """A program that ends without a word holds nobody up [P8]."""
    container.bundle.args("sleep 200", "exit 4")
    if detach:
        container.create(env=manager.environment)
        container.start(env=manager.environment)
        container.wait()
    else:
        assert container.run(env=manager.environment).code == 4
    assert manager.datagrams == []


@pytest.mark.ours_only("K7: the lock is free while start waits")
def test_delete_while_start_waits(container: Container, manager: Manager, leaks: Leaks) -> None:
    """start waits without holding the container: it can be looked at, and deleted [P8]."""
    container.bundle.args("pause")
    container.create(env=manager.environment)
    with container.runtime.spawn("start", container.id, env=manager.environment, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: container.state()["status"] == "running", what="running")
        assert process.poll() is None
        container.delete("--force")
        assert process.wait(60) == 0
    container.reap()
    leaks.check()


def test_user_namespace_and_user(container: Container, manager: Manager) -> None:
    """Any user of the container may send, in a user namespace too [P8]."""
    container.bundle.user_namespace()
    container.bundle.process(user={"uid": 1000, "gid": 1000})
    container.bundle.args(READY, "pause")
    container.create(env=manager.environment)
    container.start(env=manager.environment)
    assert manager.datagrams[0] == b"READY=1\n"


def test_abstract_address(container: Container, tmp_path: Path) -> None:
    """NOTIFY_SOCKET may name an abstract socket [P8]."""
    manager = Manager(f"@{container.id}-manager")
    try:
        container.bundle.args(READY, "pause")
        container.create(env=manager.environment)
        container.start(env=manager.environment)
        assert manager.datagrams[0] == b"READY=1\n"
    finally:
        manager.close()


@pytest.mark.ours_only("P8: a warning, where runc fails")
def test_set_at_start_only(container: Container, manager: Manager) -> None:
    """A container that was created without is started all the same, with a warning [P8]."""
    container.bundle.args("pause")
    container.create()
    result = container.start(env=manager.environment)
    assert "NOTIFY_SOCKET" in result.error
    assert manager.datagrams == []


@pytest.mark.ours_only("P8: before anything has happened")
@pytest.mark.parametrize("address", ["/nonexistent/socket", "relative", "/"])
def test_nobody_listens(container: Container, address: str, tmp_path: Path) -> None:
    """When the service manager cannot be reached, start fails and the container stays created [P8]."""
    environment = {**os.environ, "NOTIFY_SOCKET": address}
    container.bundle.args("pause")
    container.create(env=environment)
    result = container.start(check=False, env=environment)
    assert result.code == 1
    assert "NOTIFY_SOCKET" in result.error
    assert container.state()["status"] == "created"
    container.start()


@pytest.mark.ours_only("P8: it says why")
def test_without_a_mount_namespace(container: Container, manager: Manager) -> None:
    """Nothing is mounted in the mount namespace of the caller [P8]."""
    container.bundle.drop_namespace("mount")
    container.bundle.no_mount_rules()
    container.bundle.config["mounts"] = []
    container.bundle.args("pause")
    result = container.create(env=manager.environment)
    assert "NOTIFY_SOCKET" in result.error
    assert not (container.bundle.rootfs / "run" / "notify").exists()


def test_socket_is_open_to_all(container: Container, manager: Manager) -> None:
    """The socket has mode 0777 whatever the umask of the caller [P8]."""
    container.bundle.args("sleep 100", READY, "pause")

    def closed() -> None:
        os.umask(0o077)

    container.create(env=manager.environment, preexec_fn=closed)
    with container.runtime.spawn("start", container.id, env=manager.environment, preexec_fn=closed) as process:
        directory = container.runtime.root / container.id / "notify"
        wait_until(lambda: (directory / "notify.sock").exists() or process.poll() is not None)
        if container.runtime.ours:
            wait_until(lambda: stat.S_IMODE((directory / "notify.sock").stat().st_mode) == 0o777)
            assert stat.S_IMODE(directory.stat().st_mode) == 0o755
        assert process.wait(60) == 0


@pytest.mark.ours_only("socket addresses hold 107 bytes")
def test_long_state_path(container: Container, new_container: object, manager: Manager) -> None:
    """The path of the state directory may be longer than a socket address [P8]."""
    container.id = f"{container.id}-{'x' * 150}"
    container.bundle.args(READY, "pause")
    container.create(env=manager.environment)
    container.start(env=manager.environment)
    assert manager.datagrams[0] == b"READY=1\n"
