"""The program's frame: exit status, who hears of an error, --version and --help."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ociruntime.cli.main import main
from ociruntime.cli.table import COMMANDS
from ociruntime.errors import ConfigError, ExistsError, HookError, NotFoundError, SignalError, StateError, StepError

Fake = Any  # conftest.FakeRuntime
Capture = pytest.CaptureFixture[str]


def test_no_command_prints_help(capfd: Capture) -> None:
    assert main([]) == 0
    out = capfd.readouterr().out
    assert all(f"\n  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], ["-help"], ["--debug", "--help"]])
def test_help(words: list[str], capfd: Capture) -> None:
    assert main(words) == 0
    out, err = capfd.readouterr()
    assert out.startswith("Usage: ociruntime ")
    assert err == ""


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_of_each_command(verb: str, capfd: Capture) -> None:
    assert main([verb, "--help"]) == 0
    first = capfd.readouterr().out
    assert main(["help", verb]) == 0
    assert capfd.readouterr().out == first
    assert main([verb, "-h"]) == 0
    assert capfd.readouterr().out == first
    for flag in COMMANDS[verb][5]:
        assert (f"--{flag[0]}" in first) == bool(flag[4])


@pytest.mark.parametrize("words", [["--version"], ["-v"], ["-V"], ["--root", "/x", "--version"]])
def test_version_form(words: list[str], capfd: Capture) -> None:
    """Docker: name and release come from the last line with "version", and a line starts with "commit: "."""
    assert main(words) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("ociruntime version 0.")
    assert [line for line in lines if "version" in line] == lines[:1]
    assert lines[1].startswith("commit: ")
    assert lines[2] == "spec: 1.3.0"


def test_unknown_command(capfd: Capture) -> None:
    assert main(["frobnicate", "x"]) == 3
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("ociruntime: unknown command 'frobnicate'")
    assert main(["help", "frobnicate"]) == 3


@pytest.mark.parametrize("words", [["create"], ["create", "a", "b"], ["create", "--nonsense", "a"], ["list", "x"]])
def test_usage_errors(words: list[str], tmp_path: Path, capfd: Capture, fake: Fake) -> None:
    log = tmp_path / "log"
    assert main(["--log", str(log), "--log-format=json", *words]) == 1
    out, err = capfd.readouterr()
    assert out.startswith(f"Usage: ociruntime [global options] {words[0]}")
    assert err.startswith(f"ociruntime: {words[0]}: ")
    assert json.loads(log.read_text())["code"] == "usage"
    assert fake.calls == []


def test_unknown_global_flag(capfd: Capture) -> None:
    assert main(["--nonsense", "list"]) == 1
    out, err = capfd.readouterr()
    assert out.startswith("Usage: ociruntime [global options] COMMAND")
    assert err == "ociruntime: unknown flag '--nonsense'\n"


ERRORS = [
    (
        StepError("", step="mounts", pointer="/mounts/3", path="/data", errno=errno.EPERM, hint="a hint"),
        "mounts: /mounts/3: '/data': operation not permitted (EPERM) (hint: a hint)",
        {"code": "step", "step": "mounts", "pointer": "/mounts/3", "path": "/data", "errno": "EPERM", "hint": "a hint"},
    ),
    (
        ConfigError("is no number", pointer="/process/oomScoreAdj", path="config.json", line=3, column=7),
        "line 3 column 7: /process/oomScoreAdj: 'config.json': is no number",
        {"code": "config", "pointer": "/process/oomScoreAdj", "path": "config.json", "line": 3, "column": 7},
    ),
    (ExistsError("web"), "container with given ID already exists", {"code": "exists"}),
    (NotFoundError("web"), "container does not exist", {"code": "not-found"}),
    (StateError("container not running"), "container not running", {"code": "state"}),
    (
        HookError("prestart", 1, "exit status 4", path="/h", output="oops"),
        "/hooks/prestart/1: '/h': exit status 4: oops",
        {"code": "hook", "step": "hook", "pointer": "/hooks/prestart/1", "path": "/h", "kind": "prestart",
         "outcome": "exit status 4"},
    ),
    (
        FileNotFoundError(errno.ENOENT, "No such file", "/gone"),
        "'/gone': no such file or directory (ENOENT)",
        {"code": "error", "path": "/gone", "errno": "ENOENT"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("error", "text", "keys"), ERRORS)
def test_errors_become_one_line_each(
    error: Exception, text: str, keys: dict[str, object], fake: Fake, tmp_path: Path, capfd: Capture
) -> None:
    fake.failure = error
    log = tmp_path / "log"
    assert main(["--log", str(log), "--log-format", "json", "--root", "/r", "create", "web"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"ociruntime: create 'web': {text}\n"
    document = json.loads(log.read_text())
    assert document.pop("msg") == f"create 'web': {text}"
    assert document.pop("level") == "error"
    assert document.pop("time")
    assert document == {**keys, "container_id": "web"}


def test_stderr_alone_gets_an_error_once(fake: Fake, capfd: Capture) -> None:
    fake.failure = NotFoundError("web")
    assert main(["--root", "/r", "state", "web"]) == 1
    assert capfd.readouterr().err == "ociruntime: state 'web': container does not exist\n"


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (MemoryError(), "cannot allocate memory (ENOMEM)"),
        (ImportError("x.so: cannot open shared object file", path="/x.so"), "cannot load a library: x.so: cannot"),
    ],
)
def test_want_of_memory_or_descriptors_is_no_bug(fake: Fake, capfd: Capture, failure: Exception, text: str) -> None:
    """The interpreter tells both in ways of its own."""
    fake.failure = failure
    assert main(["--root", "/r", "start", "web"]) == 1
    assert capfd.readouterr().err.startswith(f"ociruntime: start 'web': {text}")


def test_bug_is_one_line_and_a_trace_at_debug_level(fake: Fake, tmp_path: Path, capfd: Capture) -> None:
    fake.failure = ZeroDivisionError("by zero")
    log = tmp_path / "log"
    words = ["--log", str(log), "--log-format=json", "--root", "/r", "start", "web"]
    assert main(words) == 1
    assert "start 'web': internal error: ZeroDivisionError: by zero (conftest.py line " in capfd.readouterr().err
    assert json.loads(log.read_text())["code"] == "internal"
    log.unlink()
    assert main(["--debug", *words]) == 1
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["level"] for line in lines[:-1]] == ["debug"] * (len(lines) - 1)
    assert any("commands/start.py" in line["msg"] for line in lines[:-1])
    assert lines[-1]["level"] == "error"


def test_interrupt(fake: Fake, capfd: Capture) -> None:
    fake.failure = KeyboardInterrupt()
    assert main(["--root", "/r", "start", "web"]) == 130
    assert capfd.readouterr().err == "ociruntime: start 'web': interrupted\n"


def test_log_is_open_before_anything_fails(tmp_path: Path, fake: Fake, capfd: Capture) -> None:
    for words in (
        ["nonsense"],
        ["create", "--nonsense"],
        ["--root", "/", "state", "x"],
        ["--rootless=x", "state", "x"],
    ):
        log = tmp_path / "log"
        assert main(["--log", str(log), *words]) != 0
        assert "level=error" in log.read_text()
        log.unlink()
    capfd.readouterr()
    assert main(["--log", "/nonexistent/log", "state", "x"]) == 1
    assert "'/nonexistent/log': cannot open the log: no such file or directory" in capfd.readouterr().err
    assert fake.calls == []


def test_log_is_closed(fake: Fake, tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        main(["--log", str(tmp_path / "log"), "--root", "/r", "start", "web"])
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--log-format", "xml"], "--log-format is 'text' or 'json', not 'xml'"),
        (["--log-level", "loud"], "--log-level is one of"),
        (["--rootless", "perhaps"], "--rootless is true, false or auto, not 'perhaps'"),
        (["--cgroup-manager", "magic"], "--cgroup-manager is cgroupfs, systemd or disabled, not 'magic'"),
        (["--root", "/"], "--root is '/'"),
        (["--root", "/a/../.."], "--root is '/'"),
        (["--root", ""], "--root is empty"),
    ],
)
def test_wrong_global_values(words: list[str], text: str, fake: Fake, capfd: Capture) -> None:
    assert main([*words, "state", "x"]) == 1
    assert text in capfd.readouterr().err
    assert fake.calls == []


# ---- as a process: descriptors and environment (row G12)

PROGRAM = [sys.executable, "-m", "ociruntime"]
CHECKOUT = str(Path(__file__).parents[2])


def test_empty_environment_and_closed_descriptors() -> None:
    script = "exec 0<&- 1>&- 2>&-; exec " + " ".join([*PROGRAM, "--version"])
    assert subprocess.run(["/bin/sh", "-c", script], cwd=CHECKOUT, env={}, timeout=30, check=False).returncode == 0


def test_closed_pipe_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*PROGRAM, "--help"], cwd=CHECKOUT, stdout=writer, stderr=subprocess.PIPE, timeout=30, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_full_disk_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "--help"], cwd=CHECKOUT, stdout=full, stderr=subprocess.PIPE, timeout=30, check=False
        )
    assert done.returncode == 1
    assert b"no space left on device" in done.stderr


def test_preserved_descriptors_are_counted_before_the_log_opens(tmp_path: Path) -> None:
    """The log must not become one of the container's descriptors by taking a free number."""
    words = [*PROGRAM, "--log", str(tmp_path / "log"), "--root", str(tmp_path), "create", "--preserve-fds", "1", "x"]
    done = subprocess.run(words, cwd=CHECKOUT, stderr=subprocess.PIPE, timeout=30, check=False)
    assert done.returncode == 1
    assert b"--preserve-fds: file descriptor 3 is not open" in done.stderr


def test_a_signal_is_told_by_the_exit_status(fake: Fake, capfd: Capture) -> None:
    fake.failure = SignalError(15)
    assert main(["create", "web"]) == 143
    assert capfd.readouterr().err == "ociruntime: create 'web': interrupted by signal 15\n"
