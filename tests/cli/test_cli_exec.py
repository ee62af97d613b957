"""exec, ps, pause, resume: what they ask of the library."""

import json
from pathlib import Path
from typing import Any

import pytest

from ociruntime.cli.commands.exec import cgroups, user
from ociruntime.cli.commands.ps import rows
from ociruntime.cli.main import main
from ociruntime.errors import ConfigError, StateError, StepError

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("text", "expected"), [("1", (1, None)), ("1:2", (1, 2)), ("0:0", (0, 0)), ("4294967294", (4294967294, None))]
)
def test_user(text: str, expected: tuple[int, int | None]) -> None:
    assert user(text) == expected


@pytest.mark.parametrize(
    "text",
    ["1:", ":2", "", "-1", "4294967295", "4294967296", "1x", " 1", "1 ", "root", "1:2:3", "+1", "1_0", "²", "٣"],
)
def test_bad_user(text: str) -> None:
    with pytest.raises(ConfigError, match="is not an ID"):
        user(text)


def test_cgroups() -> None:
    assert cgroups(["a/b", "cpu,pids:/x", "memory:y:z"]) == [
        ("", "a/b"),
        ("cpu", "/x"),
        ("pids", "/x"),
        ("memory", "y:z"),
    ]


class Recorder:
    """Stands for the library."""

    request: Any = None

    def __init__(self, root: str, **_: Any) -> None:
        pass

    def exec(self, request: Any) -> int:
        type(self).request = request
        return 77

    def pids(self, container_id: str) -> list[int]:
        return [3, 12]

    def pause(self, container_id: str) -> None:
        raise StateError("container not running", container_id=container_id)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setattr("ociruntime.lifecycle.runtime.Runtime", Recorder)
    monkeypatch.setattr(Recorder, "request", None)
    return Recorder


def test_exec(recorder: type[Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = (
        "exec -t -d --cwd /w -e A=1 --env B=2 -u 1:2 -g 3 --additional-gids 4 -c CAP_KILL --no-new-privs --apparmor p "
        "--process-label l --pid-file f --console-socket s --pidfd-socket q --cgroup pids:x "
        "--ignore-paused web sh -c -t"
    )
    assert main(["--root", "/r", *words.split()]) == 77
    made = recorder.request
    found = {name: getattr(made, name) for name in type(made).__slots__}
    assert found == {
        "additional_gids": [3, 4],
        "apparmor": "p",
        "args": ["sh", "-c", "-t"],
        "at": "/process",
        "capabilities": ["CAP_KILL"],
        "cgroups": [("pids", "x")],
        "console_socket": "s",
        "container_id": "web",
        "cwd": "/w",
        "detach": True,
        "env": ["A=1", "B=2"],
        "ignore_paused": True,
        "no_new_privs": True,
        "pid_file": f"{tmp_path}/f",
        "pidfd_socket": "q",
        "preserve_fds": 0,
        "process": None,
        "process_label": "l",
        "tty": True,
        "user": (1, 2),
    }


def test_exec_file(recorder: type[Recorder], tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"args": ["x"], "cwd": "/"}))
    assert main(["exec", "--process", str(path), "web"]) == 77
    assert recorder.request.process == {"args": ["x"], "cwd": "/"}


@pytest.mark.parametrize(
    "words",
    [
        ["web"],
        ["--cwd", "relative", "web", "x"],
        ["--env", "novalue", "web", "x"],
        ["--user", "root", "web", "x"],
        ["--additional-gids", "-1", "web", "x"],
        ["--process", "/missing.json", "web"],
        ["--preserve-fds", "900", "web", "x"],
    ],
)
def test_failures_are_255(words: list[str], recorder: type[Recorder], capfd: Capture) -> None:
    assert main(["exec", *words]) == 255
    assert recorder.request is None
    assert capfd.readouterr().err


@pytest.mark.parametrize("words", [[], ["--nonsense", "web", "x"], ["--preserve-fds", "x", "web", "y"]])
def test_usage_errors_are_1(words: list[str], recorder: type[Recorder], capfd: Capture) -> None:
    assert main(["exec", *words]) == 1
    assert "exec" in capfd.readouterr().out


def test_ps_json(recorder: type[Recorder], capfd: Capture) -> None:
    assert main(["ps", "--format", "json", "web"]) == 0
    assert json.loads(capfd.readouterr().out) == [3, 12]


def test_ps_rows() -> None:
    text = "UID   PID  PPID CMD\nroot    3     1 a 12\nroot   12     1 b\nroot  123    12 c\n"
    assert rows(text, [3, 12]) == "UID   PID  PPID CMD\nroot    3     1 a 12\nroot   12     1 b\n"
    assert rows(text, []) == "UID   PID  PPID CMD\n"
    text = (
        "                 STARTED     PID CMD\nSun Nov 22 04:00:00 2026       3 a\nSun Nov  1 12:00:00 2026      12 3\n"
    )
    assert rows(text, [3]).splitlines()[1:] == ["Sun Nov 22 04:00:00 2026       3 a"]
    assert rows(text, [22]).count("\n") == 1
    assert rows("NAME  PID\nvery-long-name 12\nx      12\n", [12]).count("12") == 2
    assert rows("  PID TTY\n   12 ?\n    - -\n", [12]).count("\n") == 2
    with pytest.raises(StepError, match="cannot tell the PID"):
        rows("COMMAND PID\na b c d e f 12\n", [12])
    with pytest.raises(StepError, match="no PID column"):
        rows("COMMAND\nx\n", [3])
    with pytest.raises(StepError):
        rows("", [3])


def test_pause_fails(recorder: type[Recorder], capfd: Capture) -> None:
    assert main(["pause", "web"]) == 1
    assert "container not running" in capfd.readouterr().err
