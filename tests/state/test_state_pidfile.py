"""The pid file (row P1)."""

import os
from pathlib import Path

import pytest

from ociruntime.errors import StepError
from ociruntime.state import pidfile


def test_written_without_newline(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    pidfile.write(str(path), 1234)
    assert path.read_bytes() == b"1234"
    pidfile.write(str(path), 5)
    assert path.read_bytes() == b"5"
    assert os.listdir(tmp_path) == ["pid"]


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pidfile.write("pid", 1)
    assert os.listdir(tmp_path) == ["pid"]


def test_leftover_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".pid").write_text("torn by a killed command")
    pidfile.write(str(tmp_path / "pid"), 77)
    assert (tmp_path / "pid").read_bytes() == b"77"
    assert os.listdir(tmp_path) == ["pid"]


def test_symlink_is_not_followed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    (tmp_path / ".pid").symlink_to(canary)
    (tmp_path / "pid").symlink_to(canary)
    pidfile.write(str(tmp_path / "pid"), 77)
    assert canary.read_text() == "untouched"
    assert not (tmp_path / "pid").is_symlink()


def test_failures_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="no such file or directory") as caught:
        pidfile.write(str(tmp_path / "no" / "pid"), 1)
    assert caught.value.path == str(tmp_path / "no" / "pid")
    (tmp_path / "pid").mkdir()
    with pytest.raises(StepError, match="is a directory"):
        pidfile.write(str(tmp_path / "pid"), 1)
    assert os.listdir(tmp_path) == ["pid"]


def test_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert not pidfile.write(str(fifo), 4321)
    assert os.read(reader, 100) == b"4321"
    os.close(reader)
    with pytest.raises(StepError, match="no such device or address"):
        pidfile.write(str(fifo), 1)  # nobody reads, and nobody is waited for
    assert fifo.is_fifo()
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    os.write(target, b"PID ")
    assert not pidfile.write(f"/proc/self/fd/{target}", 99)
    assert (tmp_path / "target").read_bytes() == b"PID 99"
    os.close(target)
    assert pidfile.write(str(tmp_path / "target"), 1)
    assert sorted(os.listdir(tmp_path)) == ["fifo", "target"]


def test_what_becomes_a_file_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may write to the directory of the pid file cannot lead us to a file of others."""
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    (tmp_path / "pid").symlink_to(canary)
    device = os.stat("/dev/null")
    with monkeypatch.context() as patch:
        patch.setattr("posix.stat", lambda _: device)
        written = pidfile.write(str(tmp_path / "pid"), 77)
    assert written
    assert canary.read_text() == "untouched"
    assert (tmp_path / "pid").read_text() == "77"


def test_remove(tmp_path: Path) -> None:
    pidfile.write(str(tmp_path / "pid"), 1)
    for _ in range(2):
        pidfile.remove(str(tmp_path / "pid"))
    assert os.listdir(tmp_path) == []
