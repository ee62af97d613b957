"""podman run: the container in the foreground."""

from __future__ import annotations

import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.engines.engines import Podman
from integration.engines.image import IMAGE
from integration.engines.sandbox import Sandbox, Watch
from integration.lib.container import wait_until
from integration.lib.runtime import Result


def test_output(podman: Podman) -> None:
    """Both streams arrive, apart from each other, and nothing else is said."""
    result = podman.run("sh", "-c", "echo to-out; echo to-err >&2").ok()
    assert (result.out, result.err) == (b"to-out\n", b"to-err\n")


def test_much_output(podman: Podman) -> None:
    """A megabyte passes unchanged from stdin to stdout."""
    data = random.Random(3).randbytes(1 << 20)
    assert podman.run("cat", options=["-i"], stdin=data).ok().out == data


def test_words_are_kept(podman: Podman) -> None:
    """Arguments come through as they are."""
    words = ["a b", "", "$HOME", "ä€", '"q"', "*"]
    assert podman.run("printf", "%s|", *words).ok().out.decode() == "".join(f"{word}|" for word in words)


@pytest.mark.parametrize("status", [0, 1, 2, 7, 42, 125, 126, 127, 255])
def test_exit_status(podman: Podman, status: int) -> None:
    """The program's status is podman's."""
    assert podman.run("sh", "-c", f"exit {status}").code == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGABRT])
def test_killed_by_a_signal(podman: Podman, number: int) -> None:
    """128 + n. In the host's PID namespace: init of its own would be immune."""
    assert podman.run("sh", "-c", f"kill -{number} $$", options=["--pid=host"]).code == 128 + number


def test_signals_are_passed_on(podman: Podman) -> None:
    """A signal to podman run reaches the program (podman calls the runtime's kill)."""
    script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done"
    running = podman.start("run", "--rm", IMAGE, "sh", "-c", script)
    wait_until(lambda: b"ready" in running.output().out, "the container")
    time.sleep(2)  # podman 4.3 can hang, with any runtime, when the container ends while it is still attaching
    running.signal(signal.SIGUSR1)
    assert running.wait().code == 9


def test_is_gone_afterwards(podman: Podman, sandbox: Sandbox, leaks: Watch) -> None:
    """run --rm: at the end podman, the runtime, the cgroups and the mount table know nothing of it."""
    name = podman.name()
    script = "cat /proc/self/cgroup; echo ready; while [ ! -e /tmp/end ]; do sleep 0.05; done"
    running = podman.start("run", "--rm", "--name", name, "--cgroupns", "host", IMAGE, "sh", "-c", script)
    wait_until(lambda: b"ready" in running.output().out, "the container")
    full = podman.inspect(name)["Id"]
    now = sandbox.look()
    assert any(entry.endswith(f"/{full}") for entry in now["state"])
    assert any(f"libpod-{full}" in entry for entry in now["cgroups"])
    assert f"libpod-{full}" in running.output().text
    assert podman("kill", name).ok().text.strip() == name
    assert running.wait().code == 137
    leaks.check()
    assert podman("container", "exists", name).code == 1
    assert podman("ps", "-aq").ok().text == ""


def test_cgroup_of_a_container_with_children(podman: Podman, leaks: Watch) -> None:
    """What the program has started dies with it, and the cgroup goes."""
    script = "for i in 1 2 3 4 5; do sleep 1000 & done; setsid sleep 1000 & exit 3"
    assert podman.run("sh", "-c", script).code == 3
    leaks.check()


def test_children_in_the_hosts_pid_namespace(podman: Podman, leaks: Watch) -> None:
    """Without a PID namespace nobody but the runtime can end what the program leaves behind."""
    assert podman.run("sh", "-c", "setsid sleep 1000 & exit 4", options=["--pid=host"]).code == 4
    leaks.check()


@pytest.mark.parametrize("json_log", [False, True])
def test_twenty_at_once(podman: Podman, leaks: Watch, json_log: bool) -> None:
    """Twenty containers, five at a time."""

    def one(number: int) -> Result:
        return podman.run("sh", "-c", f"echo {number}; exit {number}", json_log=json_log)

    with ThreadPoolExecutor(5) as pool:
        results = list(pool.map(one, range(20)))
    assert [(result.code, result.text) for result in results] == [(number, f"{number}\n") for number in range(20)]
    leaks.check()
