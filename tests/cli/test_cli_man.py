"""The man pages say what the table says, in clean roff."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ociruntime.cli.man import escape, page, write_pages
from ociruntime.cli.table import COMMANDS, GLOBAL


def test_escape() -> None:
    assert escape("a-b\\c") == "a\\-b\\ec"
    assert escape(".x") == "\\&.x"
    assert escape("'x") == "\\&'x"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_shown_flag_is_there(command: str) -> None:
    text = page(command, "1.2")
    for name, _, _, _, help_text in COMMANDS[command][5] if command else GLOBAL:
        if help_text:
            assert f"\\fB{escape('--' + name)}\\fR" in text
    for section in (".TH", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH SEE ALSO"):
        assert section in text


def test_pages_are_written(tmp_path: Path) -> None:
    paths = write_pages(str(tmp_path / "man8"))
    assert {Path(path).name for path in paths} == {"ociruntime.8", *(f"ociruntime-{name}.8" for name in COMMANDS)}
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed")
    for path in paths:
        done = subprocess.run(
            [groff, "-man", "-ww", "-Tutf8", "-z", path], capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
