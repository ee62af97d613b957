"""podman run -it, exec -it, attach: somebody sits at a terminal."""

from __future__ import annotations

import time

from integration.engines.engines import Podman
from integration.engines.image import IMAGE
from integration.engines.sandbox import Watch

READY = "echo is-ready | tr a-z A-Z"  # what is typed appears as well, so the answer must look different


def test_run(podman: Podman, leaks: Watch) -> None:
    """run -it: a shell at a terminal of its own, as large as the caller's, and its status at the end."""
    shell = podman.start("run", "--rm", "-it", IMAGE, "sh", terminal=True)
    shell.write(f"{READY}\n".encode())
    shell.wait_for(b"IS-READY")
    shell.write(b"tty; while ! stty size | grep 80; do sleep 0.05; done; exit 7\n")  # its size may come later
    result = shell.wait()
    assert result.code == 7
    assert "/dev/pts/0" in result.text
    assert "24 80" in result.text
    leaks.check()


def test_resize(podman: Podman) -> None:
    """A new size of the caller's terminal arrives, with SIGWINCH."""
    script = f"trap 'stty size | grep 99 && exit 4' WINCH; {READY}; while :; do sleep 0.05; done"
    shell = podman.start("run", "--rm", "-it", IMAGE, "sh", "-c", script, terminal=True)
    shell.wait_for(b"IS-READY")
    shell.resize(33, 99)
    result = shell.wait()
    assert (result.code, "33 99" in result.text) == (4, True)


def test_interrupt(podman: Podman) -> None:
    """Control-C ends what runs in the foreground, not the shell; control-D ends the shell."""
    shell = podman.start("run", "--rm", "-it", IMAGE, "sh", terminal=True)
    shell.write(f"sh -c '{READY}; exec sleep 1000'; echo status $?\n".encode())
    shell.wait_for(b"IS-READY")
    shell.write(b"\x03")
    shell.write(b"\necho after | tr a-z A-Z\n")
    shell.wait_for(b"AFTER")
    shell.write(b"\x04")
    assert shell.wait().code == 0


def test_dev_console(podman: Podman) -> None:
    """The terminal is /dev/console too."""
    shell = podman.start("run", "--rm", "-it", IMAGE, "sh", "-c", "echo by-name >/dev/console", terminal=True)
    result = shell.wait()
    assert (result.code, result.text.strip()) == (0, "by-name")


def test_exec(podman: Podman, leaks: Watch) -> None:
    """exec -it: one more terminal in a container that has none; its status, and nothing left."""
    name = podman.detached("sleep", "1000")
    before = podman("top", name, "pid").ok().text
    shell = podman.start("exec", "-it", name, "sh", terminal=True)
    shell.write(f"{READY}; tty; while ! stty size | grep 80; do sleep 0.05; done\n".encode())
    shell.wait_for(b"IS-READY")
    shell.wait_for(b"24 80")
    shell.resize(44, 88)
    shell.write(b"while ! stty size | grep 88; do sleep 0.05; done; exit 9\n")
    result = shell.wait()
    assert result.code == 9
    assert "44 88" in result.text and "/dev/pts/0" in result.text
    assert podman("top", name, "pid").ok().text == before
    podman("rm", "-f", "-t", "0", name).ok()
    leaks.check()


def test_exec_beside_run(podman: Podman) -> None:
    """The second terminal of a container is another one."""
    name = podman.name()
    first = podman.start("run", "--rm", "-it", "--name", name, IMAGE, "sh", terminal=True)
    first.write(f"{READY}\n".encode())
    first.wait_for(b"IS-READY")
    second = podman.start("exec", "-it", name, "tty", terminal=True).wait()
    assert (second.code, second.text.strip()) == (0, "/dev/pts/1")
    first.write(b"exit 3\n")
    assert first.wait().code == 3


def test_detach_and_attach(podman: Podman) -> None:
    """The keys that detach leave the program alone; attach brings one back to it."""
    name = podman.name()
    shell = podman.start("run", "-it", "--name", name, IMAGE, "sh", terminal=True)
    shell.write(f"kept=42; {READY}\n".encode())
    shell.wait_for(b"IS-READY")
    for _ in range(5):  # podman knows them only when they come one by one
        if not shell.ended():
            shell.write(b"\x10")
            time.sleep(0.4)
            shell.write(b"\x11")
            time.sleep(0.4)
    assert shell.wait().code == 0
    assert podman.inspect(name)["State"]["Running"]
    again = podman.start("attach", name, terminal=True)
    again.write(b"echo it-is-$kept; exit 5\n")
    assert "it-is-42" in again.wait().text
    assert podman("wait", name).ok().text.strip() == "5"


def test_attach_without_a_terminal(podman: Podman) -> None:
    """attach of a container with pipes: what is written reaches it, and what it says comes back."""
    script = "echo early; read line; echo got $line; exit 6"
    name = podman.detached("sh", "-c", script, options=["-i"])
    podman.wait_logs(name, "early")
    attached = podman.start("attach", name)
    attached.write(b"a line\n")
    assert attached.wait().text.strip() == "got a line"
    assert podman("wait", name).ok().text.strip() == "6"


def test_detached_with_a_terminal(podman: Podman) -> None:
    """run -dt: nobody looks, but the program has a terminal, and the logs what it wrote there."""
    name = podman.detached("sh", "-c", "tty; sleep 1000", options=["-t"])
    podman.wait_logs(name, "/dev/pts/0")
