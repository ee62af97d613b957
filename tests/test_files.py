"""files.py: reading to the end, and paths as text."""

import errno
import os
from pathlib import Path

import pytest

from ociruntime import files
from ociruntime.errors import StepError


@pytest.mark.skipif(not os.path.exists("/proc/kallsyms"), reason="no /proc/kallsyms")
def test_files_of_more_than_a_page() -> None:
    """The kernel gives them in parts, each a few bytes short of a page."""
    with open("/proc/kallsyms", "rb") as file:
        whole = file.read(200000)
    assert files.read("/proc/kallsyms", len(whole)) == whole
    assert files.read("/proc/kallsyms", 3000) == whole[:3000]


def test_a_short_part_is_not_the_end() -> None:
    """The next line may be too long for the rest of the kernel's page."""
    reader, writer = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)  # a write is a part
    os.write(writer, b"short\n")
    os.write(writer, b"long" * 900)
    os.close(writer)
    assert files.rest(reader) == b"short\n" + b"long" * 900
    os.close(reader)


def test_directory(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("text")
    fd = os.open(tmp_path, os.O_RDONLY)
    assert files.read("name", directory=fd) == b"text"
    os.close(fd)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    assert files.read_if_possible(f"{tmp_path}/nothing") == b""
    assert files.read_if_possible(str(tmp_path)) == b""
    with pytest.raises(FileNotFoundError):
        files.read(f"{tmp_path}/nothing")


def test_what_nobody_can_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Want of descriptors does not mean that a file is not there."""
    (tmp_path / "name").write_text("text")
    monkeypatch.setattr(files.posix, "open", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EMFILE, "no")))
    with pytest.raises(StepError, match="cannot read: too many open files") as caught:
        files.read_if_possible(f"{tmp_path}/name")
    assert caught.value.path == f"{tmp_path}/name"


def test_clean() -> None:
    assert [files.clean(path) for path in ("", "/", "//", "/a/../../b", "a//b/.", "/...")] == [
        "/",
        "/",
        "/",
        "/b",
        "/a/b",
        "/...",
    ]
