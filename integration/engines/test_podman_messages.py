"""What podman's user reads when a container cannot be started: our cause, and the object by name.

The messages are recorded; table.py shows them side by side with those of other runtimes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.engines.engines import Podman
from integration.engines.image import IMAGE
from integration.engines.sandbox import Watch

ANY = (125, 126, 127)
LATE = (1, *ANY)  # the kernel says no at start only: some runtimes have told podman by then that it runs

# name: (words of the program, options of podman run, what the message must name, statuses that fit).
# In options {dir} is an empty directory, {closed} a program only root may run, {action} and others are bad profiles.
CASES: dict[str, tuple[str, str, str, tuple[int, ...]]] = {
    "missing-program-by-name": ("nosuch", "", "nosuch", (127,)),
    "missing-program-by-path": ("/no/such", "", "/no/such", (127,)),
    "not-a-program": ("/etc/not-a-program", "", "/etc/not-a-program", (126,)),
    "directory-as-program": ("/etc", "", "/etc", (126,)),
    "no-permission": ("/mnt/closed", "--user 1000 -v {dir}:/mnt", "/mnt/closed", (126,)),
    "no-permission-on-the-way": ("/mnt/shut/open", "--user 1000 -v {dir}:/mnt", "/mnt/shut/open", (126,)),
    "missing-interpreter": ("/etc/bad-interpreter", "", "/etc/bad-interpreter", LATE),
    "mount-directory-on-a-file": ("true", "-v {dir}:/srv/file", "/srv/file", ANY),
    "mount-with-a-bad-option": ("true", "--mount type=tmpfs,dst=/scratch,tmpfs-mode=9999", "scratch", ANY),
    "mount-inside-proc": ("true", "-v {dir}:/proc/new", "/proc/new", ANY),
    "seccomp-unknown-action": ("true", "--security-opt seccomp={action}", "SCMP_ACT_NONSENSE", ANY),
    "seccomp-unknown-operator": ("true", "--security-opt seccomp={operator}", "SCMP_CMP_NONSENSE", ANY),
    "seccomp-unknown-architecture": ("true", "--security-opt seccomp={arch}", "NONSENSE", ANY),
    "seccomp-that-forbids-starting": ("true", "--security-opt seccomp={execve}", "true", LATE),
    "unknown-sysctl": ("true", "--sysctl net.ipv4.no_such_thing=1", "no_such_thing", ANY),
    "limit-the-kernel-refuses": ("true", "--pids-limit 99999999", "pids", ANY),
    "working-directory-on-a-file": ("true", "--workdir /srv/file", "/srv/file", ANY),
    "apparmor-profile": ("true", "--security-opt apparmor=no-such-profile", "pparmor", ANY),
}


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """What the options of the cases stand for."""
    tmp_path.joinpath("dir/shut").mkdir(parents=True, mode=0o700)
    tmp_path.joinpath("dir").chmod(0o755)
    for place in ("dir/closed", "dir/shut/open"):
        tmp_path.joinpath(place).write_text("#!/bin/sh\n")
        tmp_path.joinpath(place).chmod(0o700 if place == "dir/closed" else 0o755)
    allow = {"defaultAction": "SCMP_ACT_ALLOW"}
    rule = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}
    value = {"index": 0, "value": 1, "op": "SCMP_CMP_NONSENSE"}
    found = {"dir": str(tmp_path / "dir")}
    for name, profile in {
        "action": {"defaultAction": "SCMP_ACT_NONSENSE"},
        "arch": {**allow, "architectures": ["SCMP_ARCH_NONSENSE"]},
        "operator": {**allow, "syscalls": [{**rule, "args": [value]}]},
        "execve": {**allow, "syscalls": [{**rule, "names": ["execve", "execveat"]}]},
    }.items():
        found[name] = str(tmp_path / f"{name}.json")
        tmp_path.joinpath(f"{name}.json").write_text(json.dumps(profile))
    return found


def shown(podman: Podman, places: dict[str, str], code: int, error: str) -> str:
    """A message without what differs from run to run."""
    text = " | ".join(error.strip().splitlines())
    for path in (podman.runtime, *places.values()):
        text = text.replace(path, Path(path).name.upper().partition(".")[0])
    return f"{code}: " + re.sub(r"[0-9a-f]{64}", "ID", text)


@pytest.mark.parametrize("json_log", [pytest.param(True, id="json")])
@pytest.mark.parametrize("name", CASES)
def test_message(
    podman: Podman,
    leaks: Watch,
    places: dict[str, str],
    record_property: Callable[[str, object], None],
    name: str,
    json_log: bool,
) -> None:
    """It names the object, podman's status fits, and nothing is left."""
    program, options, thing, codes = CASES[name]
    if name.startswith("limit"):
        podman.sandbox.limit("pids", "", "")
    words = options.format(**places).split()
    result = podman.run(program, options=words, json_log=json_log)
    record_property("message", shown(podman, places, result.code, result.error))
    assert result.code in codes, repr(result)
    assert thing in result.error, repr(result)
    leaks.check()


def test_message_of_exec(podman: Podman, record_property: Callable[[str, object], None]) -> None:
    """A program of exec that is missing."""
    name = podman.detached("sleep", "1000")
    result = podman("exec", name, "/no/such", json_log=True)
    record_property("message", shown(podman, {}, result.code, result.error))
    assert result.code == 127
    assert "/no/such" in result.error


def test_message_of_a_detached_container(podman: Podman, record_property: Callable[[str, object], None]) -> None:
    """The cause is shown at once, and inspect keeps podman's status."""
    name = podman.name()
    result = podman("run", "-d", "--name", name, IMAGE, "nosuch", json_log=True)
    record_property("message", shown(podman, {}, result.code, result.error))
    assert result.code == 127
    assert "nosuch" in result.error
    assert podman.inspect(name)["State"]["Status"] in ("created", "exited")
