"""Failures: what podman makes of the runtime's words. They reach podman by stderr, or by the JSON log."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration.engines.engines import Podman
from integration.engines.sandbox import Sandbox, Watch, refused

both = pytest.mark.parametrize("json_log", [pytest.param(False, id="stderr"), pytest.param(True, id="json")])

BAD_LIMIT = ["--pids-limit", "99999999"]  # the kernel takes at most 4194304; podman does not look


@both
@pytest.mark.parametrize("program", ["nosuch", "/no/such/program"])
def test_not_found(podman: Podman, leaks: Watch, json_log: bool, program: str) -> None:
    """127, and the message names the program."""
    refused(podman.run(program, json_log=json_log), 127, leaks, program, "not found")


@both
@pytest.mark.parametrize("program", ["/etc/not-a-program", "/etc"])
def test_not_executable(podman: Podman, leaks: Watch, json_log: bool, program: str) -> None:
    """126, and the message names the program."""
    refused(podman.run(program, json_log=json_log), 126, leaks, program, "ermission denied")


@both
@pytest.mark.ours_only("the message says where in config.json")
@pytest.mark.parametrize(
    ("words", "code", "texts"),
    [
        (["nosuch"], 127, ["/process/args/0", "executable file not found"]),
        (["/no/such"], 127, ["/process/args/0", "no such file or directory"]),
        (["/etc/not-a-program"], 126, ["/process/args/0", "permission denied"]),
        # Seen at start only, and then podman does not look at the words.
        (["/etc/bad-interpreter"], 126, ["/process/args/0", "no such file or directory", "interpreter"]),
    ],
)
def test_pointer(podman: Podman, leaks: Watch, json_log: bool, words: list[str], code: int, texts: list[str]) -> None:
    """The message shown by podman has our pointer and cause, in both transports."""
    refused(podman.run(*words, json_log=json_log), code, leaks, *texts)


@both
@pytest.mark.ours_only("the message says where in config.json")
def test_pointer_of_a_mount(podman: Podman, leaks: Watch, json_log: bool, tmp_path: Path) -> None:
    """A mount that cannot be made: a directory on a file of the image."""
    result = podman.run("true", json_log=json_log, options=["-v", f"{tmp_path}:/srv/file"])
    refused(result, 126 if result.code == 126 else 127 if result.code == 127 else 125, leaks, "/mounts/", "/srv/file")


@both
def test_bad_mount(podman: Podman, leaks: Watch, json_log: bool, tmp_path: Path) -> None:
    """A directory on a file of the image: podman fails, names the place, and everything is taken back."""
    result = podman.run("true", json_log=json_log, options=["-v", f"{tmp_path}:/srv/file"])
    assert result.code in (125, 126, 127)
    assert "/srv/file" in result.error
    leaks.check()


@both
def test_bad_sysctl(podman: Podman, leaks: Watch, json_log: bool) -> None:
    """A sysctl that the kernel does not have."""
    result = podman.run("true", json_log=json_log, options=["--sysctl", "net.ipv4.no_such_thing=1"])
    assert result.code in (125, 126, 127)
    assert "no_such_thing" in result.error
    leaks.check()


@both
@pytest.mark.ours_only("the message says where in config.json")
def test_pointer_of_a_sysctl(podman: Podman, leaks: Watch, json_log: bool) -> None:
    """The pointer names the key."""
    result = podman.run("true", json_log=json_log, options=["--sysctl", "net.ipv4.no_such_thing=1"])
    refused(result, result.code, leaks, "/linux/sysctl/net.ipv4.no_such_thing")


@both
def test_bad_limit(podman: Podman, sandbox: Sandbox, leaks: Watch, json_log: bool) -> None:
    """A limit that the kernel does not take."""
    sandbox.limit("pids", "", "")
    result = podman.run("true", json_log=json_log, options=BAD_LIMIT)
    assert result.code in (125, 126, 127)
    leaks.check()


@both
@pytest.mark.ours_only("the message says where in config.json")
def test_pointer_of_a_limit(podman: Podman, sandbox: Sandbox, leaks: Watch, json_log: bool) -> None:
    """The pointer names the field."""
    sandbox.limit("pids", "", "")
    result = podman.run("true", json_log=json_log, options=BAD_LIMIT)
    refused(result, result.code, leaks, "/linux/resources/pids/limit")


@both
def test_bad_hook(podman: Podman, leaks: Watch, json_log: bool, tmp_path: Path) -> None:
    """A hook that fails ends the container before the program has run."""
    tmp_path.joinpath("hook.json").write_text(
        '{"version": "1.0.0", "hook": {"path": "/bin/false"}, "when": {"always": true}, "stages": ["createRuntime"]}'
    )
    result = podman("--hooks-dir", str(tmp_path), "run", "--rm", "localhost/bb", "echo", "ran", json_log=json_log)
    assert result.code in (125, 126, 127)
    assert result.out == b""
    leaks.check()


def test_hooks_run(podman: Podman, tmp_path: Path) -> None:
    """Hooks of podman's directory run at their stages, with the state on stdin."""
    for stage in ("createRuntime", "poststop"):
        tmp_path.joinpath(f"{stage}.json").write_text(
            '{"version": "1.0.0", "hook": {"path": "/bin/sh", "args": ["sh", "-c", "cat >'
            f'{tmp_path}/{stage}.out"]}}, "when": {{"always": true}}, "stages": ["{stage}"]}}'
        )
    result = podman("--hooks-dir", str(tmp_path), "run", "--rm", "localhost/bb", "echo", "ran").ok()
    assert result.out == b"ran\n"
    assert '"status"' in tmp_path.joinpath("createRuntime.out").read_text()
    assert "stopped" in tmp_path.joinpath("poststop.out").read_text()


@both
def test_detached_failure(podman: Podman, leaks: Watch, json_log: bool) -> None:
    """run -d of a missing program fails as well, and the container can be removed."""
    name = podman.name()
    result = podman("run", "-d", "--name", name, "localhost/bb", "nosuch", json_log=json_log)
    assert result.code == 127
    assert podman.inspect(name)["State"]["Status"] in ("created", "exited")
    podman("rm", name).ok()
    leaks.check()
