"""AppArmor: the profile of the config confines the program, from its first instruction on. Needs a kernel with it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.lib.container import Container, alive
from integration.lib.probe import chain

pytestmark = pytest.mark.requires("apparmor")

EACCES = 13
CURRENT = "/proc/self/attr/current"
NAME = f"it-{os.getpid()}"


def parser(text: str, *flags: str) -> None:
    """apparmor_parser on this text."""
    subprocess.run(["apparmor_parser", *flags], input=text.encode(), check=True, capture_output=True, timeout=300)


def text(name: str, denied: str) -> str:
    """A profile that allows everything but one file, in the container's own paths."""
    rules = "file, capability, network, mount, remount, umount, pivot_root, ptrace, signal, unix, change_profile,"
    return f"profile {name} flags=(attach_disconnected,mediate_deleted) {{ {rules} audit deny {denied} rwklmx, }}\n"


@pytest.fixture(scope="session")
def profiles() -> Iterator[dict[str, str]]:
    """Two profiles in the kernel: the file that each of them denies."""
    table = {f"{NAME}-one": "/one", f"{NAME}-two": "/two"}
    document = "".join(text(name, denied) for name, denied in table.items())
    parser(document, "--replace", "--skip-cache")
    yield table
    parser(document, "--remove")


@pytest.fixture
def one(profiles: dict[str, str], container: Container) -> str:
    """The profile that denies /one; the container has both files."""
    for name in profiles.values():
        (container.bundle.rootfs / name.strip("/")).write_text("content\n")
    return f"{NAME}-one"


TWO = f"{NAME}-two"
LOOK = [f"read {CURRENT}", "read /one", "read /two"]


def seen(replies: list[dict[str, Any]]) -> tuple[str, int, int]:
    """Of LOOK: the label, and the errors of both files."""
    label, first, second = replies[-3:]
    return label["data"].strip("\n\0"), first["errno"], second["errno"]


def under(name: str, denied: int) -> tuple[str, int, int]:
    """What LOOK sees under a profile."""
    return f"{name} (enforce)", EACCES if denied == 1 else 0, EACCES if denied == 2 else 0


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_confines(container: Container, one: str, no_new_privileges: bool) -> None:
    """apparmorProfile (string, OPTIONAL) specifies the name of the AppArmor profile for the process [U10]."""
    container.bundle.process(apparmorProfile=one, noNewPrivileges=no_new_privileges)
    assert seen(container.probe(*LOOK)) == under(one, 1)


def test_none(container: Container, one: str) -> None:
    """Without one, and with an empty one, the program has the label of the runtime [U10]."""
    mine = Path(CURRENT).read_text().strip("\n\0")
    for value in (None, ""):
        container.bundle.process(apparmorProfile=value)
        assert seen(container.probe(*LOOK)) == (mine, 0, 0)


def test_user_namespace(container: Container, one: str) -> None:
    """In a user namespace, too, and for an ordinary user [U10]."""
    container.bundle.user_namespace()
    container.bundle.process(apparmorProfile=one, user={"uid": 1000, "gid": 1000})
    assert seen(container.probe(*LOOK)) == under(one, 1)


def test_created(container: Container, one: str) -> None:
    """create and start: the program that start releases is confined [U10]."""
    container.bundle.process(apparmorProfile=one)
    container.begin(*LOOK, "pause")
    assert seen(container.wait_replies(3)[:3]) == under(one, 1)
    assert Path(f"/proc/{container.pid}/attr/current").read_text().strip("\n\0") == f"{one} (enforce)"


@pytest.mark.ours_only("the error names the field")
@pytest.mark.parametrize("verb", ["create", "run"])
def test_unknown(container: Container, profiles: dict[str, str], verb: str) -> None:
    """A profile that is not in the kernel is an error, nothing runs and nothing is left [U10; runtime.md, Errors]."""
    container.bundle.args("echo ran").process(apparmorProfile="it-is-not-there")
    done = container.create(check=False) if verb == "create" else container.run()
    assert done.code != 0
    assert "/process/apparmorProfile" in done.error
    assert "ran" not in done.text
    assert container.command("state").code != 0


def test_unknown_runs_nothing(container: Container, profiles: dict[str, str]) -> None:
    """Whatever the words are: the program is not run without its profile [U10]."""
    container.bundle.args("echo ran").process(apparmorProfile="it-is-not-there")
    done = container.run()
    assert done.code != 0
    assert b"ran" not in done.out


def test_exec_has_the_container_s(container: Container, one: str) -> None:
    """exec without a profile of its own has the container's [K4, U10]."""
    container.bundle.process(apparmorProfile=one)
    container.begin("pause")
    assert seen(container.execute(*LOOK).ok().replies) == under(one, 1)


@pytest.fixture
def with_file(tmp_path: Path) -> Callable[..., Any]:
    """exec --process with the smallest file, and what is added to it."""

    def run(container: Container, *commands: str, **change: Any) -> Any:
        document = {"user": {"uid": 0, "gid": 0}, "args": ["/probe", *chain(commands)], "cwd": "/", **change}
        path = tmp_path / "process.json"
        path.write_text(json.dumps(document))
        return container.runtime("exec", "--process", str(path), container.id)

    return run


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_exec_has_its_own(
    container: Container, one: str, with_file: Callable[..., Any], no_new_privileges: bool
) -> None:
    """exec --apparmor, and apparmorProfile of the file of --process: in place of the container's [K4, U10]."""
    container.bundle.process(apparmorProfile=one, noNewPrivileges=no_new_privileges)
    container.begin("pause")
    assert seen(container.execute(*LOOK, flags=["--apparmor", TWO]).ok().replies) == under(TWO, 2)
    done = with_file(container, *LOOK, apparmorProfile=TWO, noNewPrivileges=no_new_privileges)
    assert seen(done.ok().replies) == under(TWO, 2)


def test_exec_where_the_container_has_none(container: Container, one: str, with_file: Callable[..., Any]) -> None:
    """exec alone can be confined [K4, U10]."""
    container.begin("pause")
    assert seen(container.execute(*LOOK, flags=["--apparmor", one]).ok().replies) == under(one, 1)
    assert seen(with_file(container, *LOOK, apparmorProfile=one).ok().replies) == under(one, 1)


def test_exec_unknown(container: Container, one: str, with_file: Callable[..., Any]) -> None:
    """exec with a profile that is not in the kernel fails and runs nothing; the container goes on [K4, U10]."""
    container.bundle.process(apparmorProfile=one)
    container.begin("pause")
    for done in (
        container.execute("echo ran", flags=["--apparmor", "it-is-not-there"]),
        with_file(container, "echo ran", apparmorProfile="it-is-not-there"),
    ):
        assert done.code == 255
        assert b"ran" not in done.out
    assert alive(container.pid)


@pytest.mark.ours_only("what features says of LSMs")
def test_features(runtime: Any) -> None:
    """features tells that profiles are supported [K15]."""
    assert runtime("features").ok().json["linux"]["apparmor"] == {"enabled": True}
