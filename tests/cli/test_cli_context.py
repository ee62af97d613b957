"""Where the state root is, and the global options that are words (rows G2, G6, G7)."""

import errno
import os
import posix
import stat
from pathlib import Path

import pytest

from ociruntime.cli import context as module
from ociruntime.cli.context import Context, absolute, prepare_user_root, user_root
from ociruntime.cli.parser import parse_flags
from ociruntime.cli.table import GLOBAL
from ociruntime.errors import OCIError, StepError, UsageError
from ociruntime.log import Log


def context(*words: str) -> Context:
    made = Context(Log())
    made.options, _ = parse_flags(list(words), GLOBAL, interleaved=False)
    return made


@pytest.mark.parametrize(
    ("path", "result"),
    [("/a/b", "/a/b"), ("/a//b/./c/", "/a/b/c"), ("/a/../../b", "/b"), ("/", "/"), ("//", "/"), ("/..", "/")],
)
def test_absolute(path: str, result: str) -> None:
    assert absolute(path) == result


@pytest.mark.parametrize(
    ("path", "result"),
    [
        ("link/..", "real"),
        ("link/../x", "real/x"),
        ("link/../../x", "x"),
        ("link/x", "link/x"),
        ("link/..x", "link/..x"),
        ("absent/../x", "x"),
    ],
)
def test_absolute_behind_a_symlink(tmp_path: Path, path: str, result: str) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/deep")
    assert absolute(f"{tmp_path}/{path}") == f"{tmp_path}/{result}"


def test_absolute_through_a_directory_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel goes through it, and so must we: as text, ".." would lead elsewhere."""
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/deep")
    real_open = posix.open

    def closed(path: str, flags: int) -> int:
        if not flags & posix.O_PATH:
            raise PermissionError(errno.EACCES, "no", path)
        return real_open(path, flags)

    monkeypatch.setattr("posix.open", closed)
    assert absolute(f"{tmp_path}/link/../x") == f"{tmp_path}/real/x"


def test_absolute_from_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("x") == f"{tmp_path}/x"
    assert absolute(".") == str(tmp_path)
    assert absolute("../x") == f"{tmp_path.parent}/x"


@pytest.mark.parametrize(
    ("environment", "euid", "in_userns", "root"),
    [
        ({}, 0, False, ""),
        ({}, 1000, False, ""),
        ({b"XDG_RUNTIME_DIR": b""}, 1000, False, ""),
        ({b"XDG_RUNTIME_DIR": b"/run/user/5"}, 1000, False, "/run/user/5/ociruntime"),
        ({b"XDG_RUNTIME_DIR": b"/run/user/5"}, 0, False, ""),
        ({b"XDG_RUNTIME_DIR": b"/run/user/5"}, 0, True, "/run/user/5/ociruntime"),
        ({b"XDG_RUNTIME_DIR": b"/run/user/5", b"USER": b"kim"}, 0, True, "/run/user/5/ociruntime"),
        ({b"XDG_RUNTIME_DIR": b"/run/user/5", b"USER": b"root"}, 0, True, ""),
        ({b"XDG_RUNTIME_DIR": b"/run/user/5", b"USER": b"root"}, 1000, True, "/run/user/5/ociruntime"),
    ],
)
def test_user_root(
    environment: dict[bytes, bytes], euid: int, in_userns: bool, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "in_user_namespace", lambda: in_userns)
    assert user_root(environment, euid) == root


def test_user_root_is_made_sticky(tmp_path: Path) -> None:
    path = tmp_path / "ociruntime"
    for _ in range(2):
        prepare_user_root(str(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o1700
    with pytest.raises(StepError, match="no such file or directory"):
        prepare_user_root(str(tmp_path / "no" / "ociruntime"))
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(StepError):
        prepare_user_root(str(link))


def test_root_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "user_root", lambda environment, euid: "")
    assert context().root() == "/run/ociruntime"
    assert context("--root", "/x/../y").root() == "/y"
    monkeypatch.chdir(tmp_path)
    assert context("--root", "x").root() == f"{tmp_path}/x"
    assert not os.path.exists("x")
    own = tmp_path / "run"
    monkeypatch.setattr(module, "user_root", lambda environment, euid: str(own))
    assert context("--root", "/x").root() == "/x"
    assert not own.exists()
    assert context().root() == str(own)
    assert own.is_dir()


@pytest.mark.parametrize("word", ["/", "", "/..", "//"])
def test_root_refused(word: str) -> None:
    with pytest.raises(OCIError, match="--root is"):
        context("--root", word).check_options()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("auto", None),
        ("", None),
        ("true", True),
        ("1", True),
        ("T", True),
        ("TRUE", True),
        ("false", False),
        ("0", False),
    ],
)
def test_rootless(word: str, value: bool | None) -> None:
    assert context(f"--rootless={word}").rootless() is value


@pytest.mark.parametrize("word", ["yes", "no", "Auto", "2", " true"])
def test_rootless_refused(word: str) -> None:
    with pytest.raises(UsageError):
        context("--rootless", word).check_options()


@pytest.mark.parametrize(
    ("words", "manager"),
    [
        ([], "cgroupfs"),
        (["--systemd-cgroup"], "systemd"),
        (["--systemd-cgroup=false"], "cgroupfs"),
        (["--cgroup-manager", "systemd"], "systemd"),
        (["--cgroup-manager=disabled"], "disabled"),
        (["--cgroup-manager=cgroupfs", "--systemd-cgroup"], "systemd"),
    ],
)
def test_cgroup_manager(words: list[str], manager: str) -> None:
    assert context(*words).cgroup_manager() == manager


def test_not_in_a_user_namespace_is_read_from_the_map() -> None:
    identity = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    assert module.in_user_namespace() is not identity
