"""Failures: what docker makes of the runtime's words, and its exit status, which it reads off them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from integration.engines.docker import Docker
from integration.engines.image import IMAGE
from integration.engines.sandbox import Watch, refused

NOT_FOUND = [
    ("nosuch", "executable file not found in $PATH"),
    ("/no/such/program", "no such file or directory"),
    ("/bin/nosuch", "no such file or directory"),
]
NOT_ALLOWED = ["/etc/not-a-program", "/etc", "/dev/null"]


@pytest.mark.parametrize(("program", "reason"), NOT_FOUND)
def test_not_found(docker: Docker, leaks: Watch, program: str, reason: str) -> None:
    """127, and the message names the program."""
    refused(docker.run(program), 127, leaks, program, reason)


@pytest.mark.parametrize("program", NOT_ALLOWED)
def test_not_executable(docker: Docker, leaks: Watch, program: str) -> None:
    """126, and the message names the program."""
    refused(docker.run(program), 126, leaks, program, "permission denied")


@pytest.mark.ours_only("the message says where in config.json")
@pytest.mark.parametrize(("program", "code"), [("nosuch", 127), ("/no/such", 127), ("/etc/not-a-program", 126)])
def test_pointer(docker: Docker, leaks: Watch, program: str, code: int) -> None:
    """And it says which field."""
    refused(docker.run(program), code, leaks, f"/process/args/0: '{program}'")


@pytest.mark.ours_only("others say that the script is missing, which it is not")
def test_missing_interpreter(docker: Docker, leaks: Watch) -> None:
    """A script whose interpreter is missing: the message says so."""
    refused(docker.run("/etc/bad-interpreter"), 127, leaks, "/etc/bad-interpreter", "/no/such/interpreter")


def test_detached(docker: Docker, leaks: Watch) -> None:
    """run -d fails in the same way; the container stays, created, with the status and the words."""
    name = docker.name()
    result = docker("run", "-d", "--network", "none", "--name", name, IMAGE, "nosuch")
    assert result.code == 127
    state = docker.state(name)
    assert (state["Status"], state["ExitCode"]) == ("created", 127)
    assert "nosuch" in state["Error"] and "executable file not found" in state["Error"]
    docker("rm", name).ok()
    leaks.check()


def test_bad_mount(docker: Docker, leaks: Watch, tmp_path: Path) -> None:
    """A directory on a file of the image: the message names the place."""
    result = docker.run("true", options=["-v", f"{tmp_path}:/srv/file"])
    assert result.code in (125, 126, 127)
    assert "/srv/file" in result.error and "not a directory" in result.error.lower()
    leaks.check()


@pytest.mark.ours_only("the message says where in config.json")
def test_pointer_of_a_mount(docker: Docker, leaks: Watch, tmp_path: Path) -> None:
    """And it says which entry."""
    result = docker.run("true", options=["-v", f"{tmp_path}:/srv/file"])
    refused(result, result.code, leaks, "/mounts/", "/srv/file")


def test_missing_directory(docker: Docker, leaks: Watch) -> None:
    """A working directory that is a file."""
    result = docker.run("true", options=["-w", "/srv/file"])
    assert result.code in (125, 126, 127)
    assert "/srv/file" in result.error
    leaks.check()


def test_bad_user(docker: Docker, leaks: Watch) -> None:
    """docker itself looks users up in the image."""
    refused(docker.run("true", options=["-u", "nobody-there"]), 125, leaks, "nobody-there")


def test_bad_seccomp_profile(docker: Docker, leaks: Watch, tmp_path: Path) -> None:
    """A profile with an action that does not exist: the message names it."""
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_WRONG"}]}
    tmp_path.joinpath("profile.json").write_text(json.dumps(profile))
    result = docker.run("true", options=["--security-opt", f"seccomp={tmp_path}/profile.json"])
    assert result.code in (125, 126, 127)
    assert "SCMP_ACT_WRONG" in result.error
    leaks.check()


def test_bad_sysctl(docker: Docker, leaks: Watch) -> None:
    """A sysctl that the kernel does not have."""
    result = docker.run("true", options=["--sysctl", "net.ipv4.no_such_thing=1"])
    assert result.code in (125, 126, 127)
    assert "no_such_thing" in result.error
    leaks.check()


@pytest.mark.ours_only("the message says where in config.json")
def test_pointer_of_a_sysctl(docker: Docker, leaks: Watch) -> None:
    """The pointer names the key; docker sees "no such file or directory" in it."""
    result = docker.run("true", options=["--sysctl", "net.ipv4.no_such_thing=1"])
    refused(result, result.code, leaks, "/linux/sysctl/net.ipv4.no_such_thing")


def test_bad_limit(docker: Docker, leaks: Watch) -> None:
    """A limit that the kernel does not take."""
    result = docker.run("true", options=["--pids-limit", "99999999"])
    assert result.code in (125, 126, 127)
    leaks.check()


@pytest.mark.ours_only("the message says where in config.json")
def test_pointer_of_a_limit(docker: Docker, leaks: Watch) -> None:
    """The pointer names the field."""
    result = docker.run("true", options=["--pids-limit", "99999999"])
    refused(result, result.code, leaks, "/linux/resources/pids/limit")


def test_bad_ulimit(docker: Docker, leaks: Watch) -> None:
    """A soft limit above the hard one is docker's own business."""
    refused(docker.run("true", options=["--ulimit", "nofile=9:8"]), 125, leaks, "soft limit")


def test_missing_device(docker: Docker, leaks: Watch) -> None:
    """docker looks for the device and names it; the status comes from its own words."""
    result = docker.run("true", options=["--device", "/dev/nosuch"])
    refused(result, 127 if result.code == 127 else 125, leaks, "/dev/nosuch", "no such file or directory")


def test_namespace_of_a_stopped_container(docker: Docker) -> None:
    """An error that names the container."""
    name = docker.detached("true")
    docker.wait_status(name, "exited")
    result = docker("run", "--rm", "--pid", f"container:{name}", IMAGE, "true")
    assert result.code == 125 and "is not running" in result.error


def test_failures_in_a_row(docker: Docker, leaks: Watch) -> None:
    """After many failures everything still works, and nothing has been left."""
    for _ in range(5):
        assert docker.run("nosuch").code == 127
    assert docker.sh("echo fine") == "fine"
    leaks.check()
