"""exec: another process in a running container."""

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

from integration.lib import host
from integration.lib.bundle import CGROUP_PREFIX
from integration.lib.container import Container, alive, wait_until
from integration.lib.probe import capability_names, chain
from integration.lib.runtime import Result, run
from integration.lib.runtime import Runtime as Tested


@pytest.fixture
def running(container: Container) -> Container:
    """A container that waits."""
    return container.begin("pause")


def process_file(container: Container, tmp_path: Path, *commands: str, **change: Any) -> str:
    """A file for --process: the smallest one, and what is changed; None takes a key out."""
    document: dict[str, Any] = {"user": {"uid": 0, "gid": 0}, "args": ["/probe", *chain(commands)], "cwd": "/"}
    document.update(change)
    path = tmp_path / "process.json"
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    return str(path)


def with_file(container: Container, path: str, *flags: str, **how: Any) -> Result:
    """exec --process FILE."""
    return container.runtime("exec", "--process", path, *flags, container.id, **how)


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
    assert process.wait(10) == 5


@pytest.mark.ours_only("until the program runs, signals end exec")
@pytest.mark.requires("v1:freezer")
def test_giving_up(running: Container) -> None:
    """An exec that waits can be ended by a signal, and its process goes with it [K4]."""
    running.command("pause").ok()
    process = running.runtime.spawn("exec", "--ignore-paused", running.id, "/probe", "exit", "5")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) != 5
    running.command("resume").ok()
    # an orphan: ours to collect
    wait_until(lambda: os.waitpid(-1, os.WNOHANG)[0] > 0, what="the end of the process")
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


# -- identity [K4, U4, U6] --


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", (1, 7)), ("1:2", (1, 2)), ("0", (0, 7)), ("4294967294", (4294967294, 7)), ("1000", (1000, 7))],
)
def test_user(container: Container, text: str, expected: tuple[int, int]) -> None:
    """--user UID[:GID]: numbers, never looked up as names [K4; CVE-2016-3697]."""
    etc = container.bundle.rootfs / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("1000:x:0:0::/trap:/bin/sh\n1:x:0:0::/trap:\n")
    container.bundle.process(user={"uid": 5, "gid": 7})
    container.begin("pause")
    report = container.execute("report", flags=["--user", text]).ok().replies[0]
    assert report["uids"] == [expected[0]] * 3
    assert report["gids"] == [expected[1]] * 3


@pytest.mark.ours_only("what is no ID is refused")
@pytest.mark.parametrize("text", ["1:", ":2", "", "-1", "4294967295", "4294967296", "1x", " 1", "root", "1:x", "٣"])
def test_bad_user(running: Container, text: str) -> None:
    """Anything else is refused and runs nothing [crun CVE-2026-30892]."""
    result = running.execute("echo ran", flags=["--user", text])
    assert (result.code, result.out) == (255, b"")


def test_groups(container: Container) -> None:
    """--additional-gids are added to those of the config; the caller's are never inherited [K4]."""
    container.bundle.process(user={"uid": 0, "gid": 0, "additionalGids": [10]})
    container.begin("pause")
    report = container.execute("report", flags=["-g", "20", "-g", "30"], preexec_fn=lambda: os.setgroups([77])).ok()
    assert sorted(report.replies[0]["groups"]) == [10, 20, 30]


def test_capabilities(running: Container) -> None:
    """Those of the config; --cap adds to bounding, effective, permitted, never to inheritable [K4; CVE-2022-29162]."""
    want = {"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
    found = running.execute("report").ok().replies[0]["status"]
    assert {capability_names(found[name]) == want for name in ("CapEff", "CapPrm", "CapBnd")} == {True}
    found = running.execute("report", flags=["--cap", "CAP_NET_ADMIN"]).ok().replies[0]["status"]
    more = want | {"CAP_NET_ADMIN"}
    assert {capability_names(found[name]) == more for name in ("CapEff", "CapPrm", "CapBnd")} == {True}
    assert (int(found["CapInh"], 16), int(found["CapAmb"], 16)) == (0, 0)


def test_no_new_privileges(container: Container) -> None:
    """From the config, or set by --no-new-privs [K4, U8]."""
    container.bundle.process(noNewPrivileges=False)
    container.begin("pause")
    assert container.execute("report").ok().replies[0]["nnp"] == 0
    assert container.execute("report", flags=["--no-new-privs"]).ok().replies[0]["nnp"] == 1


def test_what_is_inherited(container: Container) -> None:
    """Limits, umask, environment, working directory, oom score: as the container's own program has them [K4]."""
    (container.bundle.rootfs / "work").mkdir()
    container.bundle.process(
        user={"uid": 0, "gid": 0, "umask": 0o77},
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}],
        env=["PATH=/", "A=1"],
        cwd="/work",
        oomScoreAdj=300,
    )
    container.begin("pause")
    report = container.execute("report", flags=["-e", "B=2", "-e", "A=3"]).ok().replies[0]
    assert report["rlimits"]["RLIMIT_NOFILE"] == [100, 200]
    assert report["umask"] == 0o77
    assert {"PATH=/", "A=3", "B=2", "HOME=/"} <= set(report["env"])
    assert "A=1" not in report["env"] or not container.runtime.ours
    assert report["cwd"] == "/work"
    assert report["oom_score_adj"] == "300\n"
    assert container.execute("report", flags=["--cwd", "/"]).ok().replies[0]["cwd"] == "/"


def test_home(container: Container) -> None:
    """HOME is that of the user in the container's passwd [U3]."""
    etc = container.bundle.rootfs / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n")
    container.begin("pause")
    for text, home in (("0", "/root"), ("1000", "/home/u"), ("1234", "/")):
        assert f"HOME={home}" in container.execute("report", flags=["--user", text]).ok().replies[0]["env"]


def test_namespaces_and_place(running: Container) -> None:
    """The process is in the namespaces and cgroups of the container, in a session of its own, orphaned to nobody [K4]."""
    report = running.execute("report").ok().replies[0]
    for name, link in report["namespaces"].items():
        entry = f"/proc/{running.pid}/ns/{name}"
        assert os.readlink(entry) == link
    lines = Path(f"/proc/{running.pid}/cgroup").read_text().splitlines()
    mine = [line for line in report["cgroup"].splitlines() if running.id in line or "hugetlb" not in line]
    for line in lines:
        if running.id in line:
            assert line in mine
    assert report["sid"] == report["pid"]
    assert report["pdeathsig"] == 0
    assert set(report["fds"]) == {"0", "1", "2"}


def test_leaked_descriptors(running: Container) -> None:
    """Nothing that the caller left open gets in [CVE-2024-21626]."""

    def leak() -> None:
        found = os.open("/etc", os.O_RDONLY)
        for number in (3, 9, 100):
            os.dup2(found, number)

    report = running.execute("report", preexec_fn=leak, close_fds=False).ok().replies[0]
    assert set(report["fds"]) == {"0", "1", "2"}
    for number in range(3, 20):
        result = running.execute(
            "report", flags=["--cwd", f"/proc/self/fd/{number}"], preexec_fn=leak, close_fds=False
        )
        if result.code == 0:  # a descriptor of the runtime's own, of the container's root
            assert result.replies[0]["cwd"].startswith("/")
            assert result.replies[0]["cwd"] != "/etc"
        else:
            assert result.code == 255, result


def test_preserved_descriptors(running: Container, tmp_path: Path) -> None:
    """--preserve-fds N: 3 .. 3+N-1 and no more; one that is not open is an error [P6]."""
    (tmp_path / "file").write_text("x")

    def leak() -> None:
        found = os.open(tmp_path / "file", os.O_RDONLY)
        for number in (13, 14, 15, 16):
            os.dup2(found, number)
        for number in (3, 4, 5, 6):
            os.dup2(found, number)

    for count in (1, 3):
        report = running.execute("report", flags=["--preserve-fds", str(count)], preexec_fn=leak, close_fds=False)
        want = {str(number) for number in range(3 + count)}
        assert set(report.ok().replies[0]["fds"]) == want
    result = running.execute("report", flags=["--preserve-fds", "3"])
    assert result.code == 255 or not running.runtime.ours


# -- --process [K4] --


def test_process_file(container: Container, tmp_path: Path) -> None:
    """Everything comes from the file; umask from the container [K4]."""
    container.bundle.process(user={"uid": 0, "gid": 0, "umask": 0o27}, env=["PATH=/", "OF=config"])
    container.begin("pause")
    path = process_file(
        container, tmp_path, "report",
        user={"uid": 3, "gid": 4, "additionalGids": [5], "umask": 0o77},
        env=["PATH=/", "OF=file"],
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}],
        capabilities={name: ["CAP_CHOWN"] for name in ("bounding", "effective", "permitted")},
        noNewPrivileges=False,
        oomScoreAdj=200,
    )  # fmt: skip
    report = with_file(container, path).ok().replies[0]
    assert (report["uids"], report["gids"], report["groups"]) == ([3, 3, 3], [4, 4, 4], [5])
    assert "OF=file" in report["env"]
    assert "OF=config" not in report["env"]
    assert report["umask"] == 0o27
    assert report["nnp"] == 0
    assert report["rlimits"]["RLIMIT_NOFILE"] == [50, 60]
    assert capability_names(report["status"]["CapBnd"]) == {"CAP_CHOWN"}
    assert report["oom_score_adj"] == "200\n" or not container.runtime.ours


def test_process_file_without_capabilities(running: Container, tmp_path: Path) -> None:
    """Absent capabilities are those of the container, never all [K4]."""
    report = with_file(running, process_file(running, tmp_path, "report")).ok().replies[0]
    want = {"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
    assert capability_names(report["status"]["CapBnd"]) == want
    assert capability_names(report["status"]["CapEff"]) == want


def test_bad_process_files(running: Container, tmp_path: Path) -> None:
    """What is wrong in the file is refused, and the field named (ours) [K4]."""
    table: list[tuple[dict[str, Any], str]] = [
        ({"args": []}, "/args"),
        ({"args": None}, "/args"),
        ({"cwd": "relative"}, "/cwd"),
        ({"cwd": None}, "/cwd"),
        ({"env": ["no-equals"]}, "/env/0"),
        ({"rlimits": [{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}]}, "/rlimits/0/type"),
        ({"user": {"uid": -1}}, "/user/uid"),
        ({"scheduler": {"policy": "SCHED_NONSENSE"}}, "/scheduler/policy"),
        ({"execCPUAffinity": {"initial": "x"}}, "/execCPUAffinity/initial"),
    ]
    for change, pointer in table if running.runtime.ours else table[:3]:
        result = with_file(running, process_file(running, tmp_path, "echo ran", **change))
        assert (result.code, result.out) == (255, b""), result
        assert pointer in result.error or not running.runtime.ours, result


def test_config_does_not_matter_any_more(running: Container) -> None:
    """exec works when the bundle's config.json is gone [K4]."""
    if not running.runtime.ours and running.runtime.name == "runc":
        pytest.skip("runc reads the bundle again")
    (running.bundle.path / "config.json").unlink()
    assert running.execute("exit 3").code == 3


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
    assert process.wait(10) == 4
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
        server.listen(1)
        server.settimeout(10)
        thread = threading.Thread(target=receive, args=(server, replies))
        thread.start()
        yield replies
        thread.join(10)


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


# -- cgroups [K5] --


def own_directories(container: Container) -> dict[str, Path]:
    """Controller -> directory of the container's cgroup."""
    found = {}
    for name, point in host.cgroup_mounts().items():
        path = Path(point, CGROUP_PREFIX, container.id)
        if path.exists():
            found[name] = path
    return found


@pytest.mark.requires("v1:pids", "v1:memory")
def test_sub_cgroup_v1(running: Container) -> None:
    """--cgroup CONTROLLER:PATH puts the process there, other controllers stay; outside is refused [K5]."""
    places = own_directories(running)
    (places["pids"] / "sub").mkdir()
    beside = places["pids"].parent / f"{running.id}x"
    beside.mkdir()
    try:
        report = running.execute("report", flags=["--cgroup", "pids:sub"]).ok().replies[0]
        lines = {line.split(":")[1]: line.split(":")[2] for line in report["cgroup"].splitlines()}
        assert lines["pids"].endswith(f"{running.id}/sub")
        assert lines["memory"].endswith(running.id)
        for path in ("pids:../x", f"pids:../{running.id}x", "pids:/../..", "pids:nope", "nonsense:sub"):
            if running.runtime.ours or ".." not in path:
                result = running.execute("echo ran", flags=["--cgroup", path])
                assert (result.code, result.out) == (255, b""), result
        if running.runtime.ours:
            assert running.execute("echo ran", flags=["--cgroup", "pids:sub/../../.."]).code == 255
            assert running.execute("exit 4", flags=["--cgroup", "pids:/sub/."]).code == 4
    finally:
        wait_until(lambda: not (places["pids"] / "sub" / "cgroup.procs").read_text())
        (places["pids"] / "sub").rmdir()
        beside.rmdir()


@pytest.mark.requires("v1:pids")
def test_one_sub_cgroup_for_all_v1(running: Container) -> None:
    """--cgroup PATH without controllers is that path in every hierarchy [K5]."""
    places = [path for name, path in own_directories(running).items() if name]
    for place in dict.fromkeys(places):
        (place / "sub").mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (place / name).exists():
                (place / "sub" / name).write_text((place / name).read_text())
    try:
        report = running.execute("report", flags=["--cgroup", "sub"]).ok().replies[0]
        lines = [line for line in report["cgroup"].splitlines() if not line.startswith("0::") and running.id in line]
        assert lines
        assert all(line.endswith("/sub") for line in lines)
        (places[0] / "sub").rmdir()
        result = running.execute("echo ran", flags=["--cgroup", "sub"])
        assert (result.code, result.out) == (255, b"")
    finally:
        for place in places:
            if (place / "sub").exists():
                (place / "sub").rmdir()


@pytest.mark.requires("v2")
def test_sub_cgroup_v2(new_container: Callable[..., Container], runtime: Tested, v2_prefix: list[str]) -> None:
    """v2: --cgroup PATH below the container's; default the container's own, or where init is [K5]."""
    container = new_container(at=runtime.within(v2_prefix))
    container.begin("pause")
    mine = Path(host.cgroup_mounts()[""], CGROUP_PREFIX, container.id)

    def place(*flags: str) -> str:
        text = container.execute("report", flags=flags).ok().replies[0]["cgroup"]
        return next(line for line in str(text).splitlines() if line.startswith("0::"))

    assert place().endswith(f"/{container.id}")
    (mine / "sub").mkdir()
    try:
        assert place("--cgroup", "sub").endswith(f"/{container.id}/sub")
        assert place("--cgroup", "/sub").endswith(f"/{container.id}/sub")
        for path in ("..", "../..", f"../{container.id}", "nope", "sub/../.."):
            result = container.execute("echo ran", flags=["--cgroup", path])
            assert (result.code, result.out) == (255, b""), result
        (mine / "sub" / "cgroup.procs").write_text(str(container.pid))
        controllers = (mine / "cgroup.controllers").read_text().split()
        if controllers:
            # a cgroup that hands out controllers takes no processes: exec goes where init is
            (mine / "cgroup.subtree_control").write_text(f"+{controllers[0]}")
            assert place().endswith(f"/{container.id}/sub")
            if runtime.ours:
                assert container.execute("echo ran", flags=["--cgroup", "/"]).code == 255
            (mine / "cgroup.subtree_control").write_text(f"-{controllers[0]}")
        (mine / "cgroup.procs").write_text(str(container.pid))
    finally:
        (mine / "sub").rmdir()


# -- other containers --


def test_user_namespace(container: Container) -> None:
    """exec in a container with a user namespace: its ids, its capabilities [K4, L6]."""
    container.bundle.user_namespace()
    container.bundle.process(user={"uid": 5, "gid": 6, "additionalGids": [7]})
    container.bundle.args("pause")
    container.create()
    container.start()
    container.wait_replies(1)
    report = container.execute("report").ok().replies[0]
    assert (report["uids"], report["gids"], report["groups"]) == ([5, 5, 5], [6, 6, 6], [7])
    assert report["uid_map"].split() == ["0", "400000", "65536"]
    assert os.readlink(f"/proc/{container.pid}/ns/user") == report["namespaces"]["user"]
    if container.runtime.ours:
        assert container.execute("echo x", flags=["--user", "65536"]).code == 255


@pytest.mark.parametrize("kind", ["pid", "mount", "network", "uts", "ipc"])
def test_missing_namespace(container: Container, kind: str) -> None:
    """exec in a container that shares this namespace with the host [K4, L1]."""
    container.bundle.drop_namespace(kind)
    if kind == "mount":
        container.bundle.no_mount_rules()
        container.bundle.config["mounts"] = []
    if kind == "network":
        container.bundle.drop_mount("/sys")
    if kind == "ipc":
        container.bundle.drop_mount("/dev/mqueue")
    if kind == "uts":
        container.bundle.merge({"hostname": None})
    container.begin("pause")
    result = container.execute("report", "exit 3")
    assert result.code == 3
    if kind != "mount":
        name = "net" if kind == "network" else kind
        assert result.replies[0]["namespaces"][name] == os.readlink(f"/proc/self/ns/{name}")
    else:
        assert result.replies[0]["cwd"] == "/"
        assert container.execute("stat /probe").ok().replies[0]["errno"] == 0
        assert container.execute("stat /etc/passwd").ok().replies[0]["errno"] == 2


def test_joined_namespaces(container: Container, new_container: Callable[..., Container]) -> None:
    """exec in a container that has joined namespaces of another one [K4, L1]."""
    container.begin("pause")
    other = new_container()
    for kind, name in (("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")):
        other.bundle.namespace(kind, f"/proc/{container.pid}/ns/{name}")
    other.bundle.merge({"hostname": None})
    other.begin("pause")
    report = other.execute("report").ok().replies[0]
    for name in ("net", "ipc", "uts", "pid"):
        assert report["namespaces"][name] == os.readlink(f"/proc/{container.pid}/ns/{name}")
    assert report["namespaces"]["mnt"] == os.readlink(f"/proc/{other.pid}/ns/mnt")


@pytest.mark.requires("timens")
@pytest.mark.ours_only("not in runc 1.1 and crun 1.8")
def test_time_namespace(container: Container) -> None:
    """exec sees the container's clocks [L5]."""
    container.bundle.namespace("time")
    container.bundle.linux(timeOffsets={"boottime": {"secs": 5000000}})
    container.begin("pause")
    assert container.execute("clock").ok().replies[0]["boottime"] > 5000000


def test_no_pivot(container: Container) -> None:
    """exec in a container made with --no-pivot sees its root, not the host's [K1]."""
    container.bundle.args("pause")
    container.create("--no-pivot")
    container.start()
    container.wait_replies(1)
    assert container.execute("stat /probe").ok().replies[0]["errno"] == 0
    assert container.execute("stat /etc/passwd").ok().replies[0]["errno"] == 2


def test_no_proc(container: Container) -> None:
    """exec in a container that has nothing at /proc [K4]."""
    container.bundle.drop_mount("/proc")
    container.bundle.no_mount_rules()
    container.bundle.process(oomScoreAdj=100)
    container.begin("pause")
    assert container.execute("exit 3").code == 3


def test_keyring(running: Container, new_container: Callable[..., Container]) -> None:
    """All processes of a container share its session keyring; not without one of its own [U15]."""
    names = [running.execute("keyring").ok().replies[0] for _ in range(2)]
    assert names[0]["name"].rpartition(";")[2] == f"_ses.{running.id}"
    assert names[0]["serial"] == names[1]["serial"]
    other = new_container()
    other.bundle.args("keyring", "pause")
    other.create("--no-new-keyring")
    other.start()
    other.wait_replies(2)
    if other.runtime.ours:
        assert other.execute("keyring").ok().replies[0]["serial"] == other.replies[0]["serial"]


# -- CPUs [U14, P11] --


def test_affinity_is_reset(running: Container) -> None:
    """The caller's CPU affinity does not reach the process [P11]."""
    cpus = os.sched_getaffinity(0)
    report = running.execute("report", preexec_fn=lambda: os.sched_setaffinity(0, {min(cpus)})).ok().replies[0]
    assert report["cpus"] == len(cpus)


@pytest.mark.ours_only("runc 1.1 and crun 1.8 do not know it")
def test_cpu_affinity(container: Container, tmp_path: Path) -> None:
    """execCPUAffinity: final is what the process has; CPUs that are not there are an error [U14]."""
    last = max(os.sched_getaffinity(0))
    container.bundle.process(execCPUAffinity={"initial": "0", "final": str(last)})
    container.begin("pause")
    want = str(last)
    assert container.execute("report").ok().replies[0]["status"]["Cpus_allowed_list"] == want
    path = process_file(container, tmp_path, "report")
    assert with_file(container, path).ok().replies[0]["status"]["Cpus_allowed_list"] == want
    path = process_file(container, tmp_path, "report", execCPUAffinity={"final": "0"})
    assert with_file(container, path).ok().replies[0]["status"]["Cpus_allowed_list"] == "0"
    path = process_file(container, tmp_path, "report", execCPUAffinity={"initial": "0"})
    assert with_file(container, path).ok().replies[0]["status"]["Cpus_allowed_list"] == "0"
    for key in ("initial", "final"):
        path = process_file(container, tmp_path, "report", execCPUAffinity={key: "8000"})
        result = with_file(container, path)
        assert result.code == 255
        assert f"/execCPUAffinity/{key}" in result.error


def test_scheduling(container: Container, tmp_path: Path) -> None:
    """scheduler and ioPriority of the config, or of the file [U12, U13]."""
    if not container.runtime.ours:
        pytest.skip("runc 1.1 and crun 1.8 know only some of it")
    container.bundle.process(
        scheduler={"policy": "SCHED_BATCH", "nice": 3}, ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 6}
    )
    container.begin("pause")
    treatment = container.execute("treatment").ok().replies[0]
    assert (treatment["policy"], treatment["nice"], treatment["ioprio"]) == (3, 3, 2 << 13 | 6)
    path = process_file(container, tmp_path, "treatment", scheduler={"policy": "SCHED_IDLE"})
    assert with_file(container, path).ok().replies[0]["policy"] == 5


# -- seccomp --


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_seccomp(container: Container, tmp_path: Path, no_new_privileges: bool) -> None:
    """The container's filter is on every process that exec adds, also from a file [K4]."""
    container.bundle.process(noNewPrivileges=no_new_privileges)
    rule = {"names": ["getcpu"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}
    container.bundle.linux(seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    container.begin("pause")
    getcpu = {"x86_64": 309, "aarch64": 168}[os.uname().machine]
    path = process_file(container, tmp_path, "report", f"syscall {getcpu} 0 0 0", noNewPrivileges=no_new_privileges)
    for result in (container.execute("report", f"syscall {getcpu} 0 0 0"), with_file(container, path)):
        report, call = result.ok().replies
        assert call["errno"] == 99
        assert report["status"]["Seccomp"] == "2"
        assert report["nnp"] == int(no_new_privileges)


# -- streams --


def test_streams_are_byte_exact(running: Container) -> None:
    """100 MB of every byte value pass through stdin and stdout unchanged [P9]."""
    data = random.Random(2).randbytes(1_000_000) * 100
    process = running.runtime.spawn(
        "exec", running.id, "/probe", "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = process.communicate(data, timeout=60)
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
    assert process.wait(10) == 7
    process.stdout.close()
    assert process.stdin is not None
    process.stdin.close()


def test_end_of_the_container(running: Container) -> None:
    """When the container is killed, exec in the foreground ends with 137 [K4]."""
    process = running.runtime.spawn("exec", running.id, "/probe", "pause", stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    running.kill("KILL")
    assert process.wait(10) == 137
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
            runtime.spawn("exec", container.id, "/probe", "pause", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          stdin=subprocess.PIPE)  # fmt: skip
            for _ in range(3)
        ]
        time.sleep(delay / 1000)
        container.kill("KILL")
        for process in processes:
            _, error = process.communicate(timeout=20)
            assert process.returncode in (255, 137), error
            if runtime.ours and process.returncode == 255:
                assert b"not running" in error, error
        container.delete("--force")


# -- nobody inside may look at it on its way in [B: CVE-2016-9962, CVE-2019-5736] --


def test_binary_is_out_of_reach(running: Container) -> None:
    """A program that is /proc/self/exe runs the sealed copy or nothing, and the runtime's file stays as it is."""
    before = hashlib.sha256(Path(running.runtime.path).read_bytes()).digest()
    (running.bundle.rootfs / "self").symlink_to("/proc/self/exe")
    script = running.bundle.rootfs / "script"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    for program in ("/self", "/script"):
        run(running.runtime.argv("exec", running.id, program), timeout=10)
    assert hashlib.sha256(Path(running.runtime.path).read_bytes()).digest() == before


def test_nobody_inside_can_trace_it(container: Container) -> None:
    """A container that tries to open /proc/PID/{root,cwd,fd,mem,exe} of whatever appears gets nothing of the host."""
    container.begin("pause")
    watch = container.runtime.spawn("exec", container.id, "/probe", "watch", "2500", stdout=subprocess.PIPE)
    time.sleep(0.1)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        container.execute("exit 0")
    assert watch.stdout is not None
    out = watch.stdout.read()
    assert watch.wait(10) == 0
    watch.stdout.close()
    reply = json.loads(out.splitlines()[-1])
    assert reply["seen"] > 20
    assert reply["opened"] == 0, reply
    assert reply["attached"] == 0


def test_live_process_is_not_left(running: Container) -> None:
    """kill -9 of a waiting exec ends nothing in the container but leaves no half-made process [A3]."""
    process = running.runtime.spawn("exec", running.id, "/probe", "pause", stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    pids = [pid for pid in json.loads(running.command("ps", "--format", "json").out) if pid != running.pid]
    process.kill()
    process.wait()
    process.stdout.close()
    assert all(alive(pid) for pid in pids)
    running.kill("KILL")
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
