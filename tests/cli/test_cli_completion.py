"""Completion scripts say what the table says, and the shells accept them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ociruntime.cli.completion import PLACES, SHELLS, write_scripts
from ociruntime.cli.table import COMMANDS, GLOBAL


@pytest.mark.parametrize("shell", SHELLS)
def test_everything_that_is_shown_is_there(shell: str) -> None:
    script = SHELLS[shell]()
    prefix = "-l " if shell == "fish" else "--"
    for command, row in COMMANDS.items():
        assert command in script
        for name, _, _, _, help_text in (*row[5], *GLOBAL):
            if help_text:
                assert f"{prefix}{name}" in script
    assert "criu" not in script


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_can_read_them(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = tmp_path / "script"
    path.write_text(SHELLS[shell]())
    done = subprocess.run([shell, "-n", path], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def complete(tmp_path: Path, *words: str) -> list[str]:
    """What bash offers for the last word. `ociruntime` is a script that prints the arguments of list as an ID."""
    fake = tmp_path / "ociruntime"
    fake.write_text('#!/bin/sh\necho web "$@" | tr -d "-" | tr " /" "__"\n')
    fake.chmod(0o755)
    (tmp_path / "script").write_text(SHELLS["bash"]())
    program = (
        f'PATH={tmp_path}:$PATH; source {tmp_path}/script; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); '
        '_ociruntime; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = ["bash", "--norc", "-c", program, "bash", "ociruntime", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, cwd=tmp_path)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("sta",), ["start", "state"]),
        (("--log-f",), ["--log-format"]),
        (("--log-format", "j"), ["json"]),
        (("--root", "/r", "sta"), ["start", "state"]),
        (("run", "--pid"), ["--pid-file", "--pidfd-socket"]),
        (("ps", "--format", ""), ["table", "json"]),
        (("kill", ""), ["web_list_quiet"]),
        (("--root", "/r", "kill", ""), ["web_root__r_list_quiet"]),
        (("kill", "web", "U"), ["USR1", "USR2"]),
        (("delete", "--force", ""), ["web_list_quiet"]),
        (("completion", "z"), ["zsh"]),
        (("help", "wa"), ["wait"]),
        (("list", "x"), []),
    ],
)
def test_bash(tmp_path: Path, words: tuple[str, ...], expected: list[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    assert complete(tmp_path, *words) == expected


def test_scripts_are_written_where_shells_look(tmp_path: Path) -> None:
    paths = write_scripts(str(tmp_path))
    assert sorted(Path(path).relative_to(tmp_path).as_posix() for path in paths) == sorted(PLACES.values())
    for shell, place in PLACES.items():
        assert (tmp_path / place).read_text() == SHELLS[shell]()
