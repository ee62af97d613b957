"""Commands in running containers through the CRI: ExecSync as probes use it, Exec and Attach as kubectl does."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from integration.engines.cri import RESIZE, Container, CriError, Pod
from integration.engines.sandbox import Sandbox, Watch
from integration.lib.container import wait_until

FOREVER = ["sleep", "1000"]


def outcome(status: bytes) -> tuple[str, int]:
    """The status document at the end of a stream: (status, exit code)."""
    found: dict[str, Any] = json.loads(status)
    causes = found.get("details", {}).get("causes", [])
    codes = [int(cause["message"]) for cause in causes if cause["reason"] == "ExitCode"]
    return found["status"], codes[0] if codes else 0


# ---- ExecSync ----


def test_streams_and_code(pod: Pod) -> None:
    """Both streams, and the status."""
    result = pod.run(*FOREVER).exec("sh", "-c", "echo to-out; echo to-err >&2; exit 7")
    assert (result.code, result.out, result.err) == (7, b"to-out\n", b"to-err\n")


@pytest.mark.parametrize("code", [0, 1, 126, 127, 137, 255])
def test_exit_codes(pod: Pod, code: int) -> None:
    """As they are."""
    assert pod.run(*FOREVER).exec("sh", "-c", f"exit {code}").code == code


def test_killed_command(pod: Pod) -> None:
    """128 + n; the container goes on."""
    container = pod.run(*FOREVER)
    assert container.exec("sh", "-c", "kill -9 $$").code == 137
    assert container.state == "RUNNING"


def test_timeout(pod: Pod, sandbox: Sandbox) -> None:
    """A probe that takes too long is killed; the container goes on."""
    container = pod.run(*FOREVER)
    with pytest.raises(CriError) as caught:
        container.exec("sleep", "777", timeout=1)
    assert "timeout 1s exceeded" in caught.value.text
    assert container.state == "RUNNING"
    assert not any(entry.endswith(" sleep 777 ") for entry in sandbox.look()["processes"])
    container.exec("true").ok()


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["nosuch"], ["nosuch", "executable file not found in $PATH"]),
        (["/no/such"], ["/no/such", "no such file or directory"]),
        (["/etc/not-a-program"], ["/etc/not-a-program", "permission denied"]),
    ],
)
def test_command_that_cannot_start(pod: Pod, leaks: Watch, words: list[str], texts: list[str]) -> None:
    """The runtime's reason reaches the caller."""
    container = pod.run(*FOREVER)
    with pytest.raises(CriError) as caught:
        container.exec(*words)
    for text in texts:
        assert text in caught.value.text
    assert container.state == "RUNNING"


def test_no_command_in_the_dead(pod: Pod) -> None:
    """A container that has ended takes none."""
    container = pod.run("true")
    container.wait()
    with pytest.raises(CriError, match="not running|EXITED"):
        container.exec("true")


def test_much_output(pod: Pod) -> None:
    """A megabyte arrives unchanged."""
    assert pod.run(*FOREVER).exec("sh", "-c", "head -c 1048576 /dev/zero | tr '\\0' x").ok().out == b"x" * (1 << 20)


def test_stdin_is_empty(pod: Pod) -> None:
    """ExecSync has no stdin."""
    assert pod.run(*FOREVER).exec("sh", "-c", "cat; echo end").ok().out == b"end\n"


def test_environment_and_place(pod: Pod) -> None:
    """Environment, working directory, cgroups and namespaces are the container's."""
    container = pod.run(*FOREVER, envs=[{"key": "A", "value": "b"}], working_dir="/srv")
    script = "echo $A; pwd; for n in net ipc uts pid mnt; do readlink /proc/self/ns/$n; readlink /proc/1/ns/$n; done"
    words = container.exec("sh", "-c", script).ok().text.split()
    assert words[:2] == ["b", "/srv"]
    assert words[2::2] == words[3::2] and len(words) == 12
    assert container.exec("cat", "/proc/self/cgroup").text == container.exec("cat", "/proc/1/cgroup").text


def test_ten_at_once(pod: Pod) -> None:
    """Probes of several containers come together."""
    containers = [pod.run(*FOREVER) for _ in range(2)]
    with ThreadPoolExecutor(10) as pool:
        results = list(pool.map(lambda n: containers[n % 2].exec("sh", "-c", f"echo {n}; exit {n}"), range(10)))
    assert [(result.code, result.text) for result in results] == [(n, f"{n}\n") for n in range(10)]


def test_many_in_a_row(pod: Pod, sandbox: Sandbox, slow: bool) -> None:
    """A liveness probe, again and again: nothing piles up in the container's shim or cgroups."""
    container = pod.run(*FOREVER)
    container.exec("true").ok()
    before = len(sandbox.look()["processes"])
    for _ in range(200 if slow else 20):
        container.exec("true").ok()
    wait_until(lambda: len(sandbox.look()["processes"]) <= before, "the end of all commands")


# ---- Exec and Attach ----


def test_stream_of_a_command(pod: Pod) -> None:
    """kubectl exec: both streams and the exit code."""
    stream = pod.run(*FOREVER).open("sh", "-c", "echo to-out; echo to-err >&2; exit 3", stderr=True)
    out, err, status = stream.wait()
    assert (out, err, outcome(status)) == (b"to-out\n", b"to-err\n", ("Failure", 3))


def test_stream_with_input(pod: Pod) -> None:
    """kubectl exec -i: what goes in comes out again."""
    data = random.Random(5).randbytes(100_000)
    stream = pod.run(*FOREVER).open("head", "-c", str(len(data)), stdin=True)
    for start in range(0, len(data), 10_000):
        stream.send(data[start : start + 10_000])
    out, _, status = stream.wait()
    assert (out == data, outcome(status)) == (True, ("Success", 0))


def test_terminal(pod: Pod) -> None:
    """kubectl exec -it: a terminal of the size that the user has, also after a change, and Ctrl-C."""
    stream = pod.run(*FOREVER).open("sh", tty=True, stdin=True)
    stream.send(json.dumps({"Width": 91, "Height": 31}).encode(), RESIZE)
    stream.send(b"PS1=; stty -echo; tty; echo re''ady\n")
    assert b"/dev/pts/" in stream.read_until(b"ready\r\n")
    stream.send(b"while ! stty size | grep 91; do sleep 0.05; done\n")
    stream.read_until(b"31 91")
    stream.send(json.dumps({"Width": 101, "Height": 41}).encode(), RESIZE)
    stream.send(b"while ! stty size | grep 101; do sleep 0.05; done\n")
    stream.read_until(b"41 101")
    stream.send(b"trap 'echo i\"\"nt' INT; sh -c 'echo go\"\"ing; exec sleep 1000'\n")
    stream.read_until(b"going\r\n")
    stream.send(b"\x03")
    stream.read_until(b"int\r\n")
    stream.send(b"exit 5\n")
    assert outcome(stream.wait()[2]) == ("Failure", 5)


def test_stream_of_a_command_that_cannot_start(pod: Pod) -> None:
    """The reason is in the status document."""
    _, _, status = pod.run(*FOREVER).open("nosuch").wait()
    assert b"executable file not found in $PATH" in status


def test_attach(pod: Pod) -> None:
    """kubectl attach: the streams of the container's own program."""
    container = pod.run("sh", "-c", "while read line; do echo got $line; done", stdin=True)
    stream = container.attach(stdin=True)
    stream.send(b"one\n")
    stream.read_until(b"got one\n")
    stream.send(b"two\n")
    stream.read_until(b"got two\n")
    stream.socket.close()
    assert container.state == "RUNNING"
    container.wait_output("got two")


def test_container_with_a_terminal(pod: Pod) -> None:
    """tty: true in the container: its log has what the terminal showed, and attach drives it."""
    container: Container = pod.run("sh", tty=True, stdin=True)
    stream = container.attach(stdin=True, tty=True)
    stream.send(b"PS1=; stty -echo; test -t 0 && echo a ter''minal\n")
    stream.read_until(b"a terminal\r\n")
    stream.send(b"exit 4\n")
    assert container.wait() == 4
    stream.socket.close()
    assert "a terminal" in container.output()
