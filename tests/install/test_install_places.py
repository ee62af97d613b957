"""Files below a prefix: symlinks stay inside, a file is replaced in one step or not at all."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ociruntime.errors import StepError
from ociruntime.install.places import Places


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def places(root: Path) -> Iterator[Places]:
    found = Places(str(root))
    before = len(os.listdir("/proc/self/fd"))
    yield found
    after = len(os.listdir("/proc/self/fd")) - len(found.made)
    found.close()
    assert after == before


def tree(root: Path) -> "list[str]":
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_new_file(places: Places, root: Path) -> None:
    old = os.umask(0o77)
    try:
        places.replace("/etc/a/b.conf", None, b"text")
    finally:
        os.umask(old)
    assert (root / "etc/a/b.conf").read_bytes() == places.read("/etc/a/b.conf") == b"text"
    assert (root / "etc/a/b.conf").stat().st_mode & 0o7777 == 0o644
    assert (root / "etc/a").stat().st_mode & 0o7777 == 0o755
    assert tree(root) == ["etc", "etc/a", "etc/a/b.conf"]


def test_missing(places: Places) -> None:
    assert places.read("/etc/no/such") is None
    assert places.names("/etc/no") == []


def test_names(places: Places, root: Path) -> None:
    for name in ("b", "a"):
        (root / name).touch()
    assert places.names("/") == ["a", "b"]


def test_mode_is_kept(places: Places, root: Path) -> None:
    file = root / "f"
    file.write_text("old")
    file.chmod(0o600)
    before = file.stat().st_ino
    places.replace("/f", b"old", b"new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o7777 == 0o600
    assert file.stat().st_ino != before
    assert tree(root) == ["f"]


@pytest.mark.skipif(os.geteuid() != 0, reason="root is needed to give files away")
def test_owner_is_kept(places: Places, root: Path) -> None:
    (root / "f").write_text("old")
    os.chown(root / "f", 1234, 2345)
    places.replace("/f", b"old", b"new")
    assert ((root / "f").stat().st_uid, (root / "f").stat().st_gid) == (1234, 2345)


def test_attributes_are_kept(places: Places, root: Path) -> None:
    (root / "f").write_text("old")
    try:
        os.setxattr(root / "f", "user.word", b"value")
    except OSError:
        pytest.skip("no user attributes on this file system")
    places.replace("/f", b"old", b"new")
    assert os.getxattr(root / "f", "user.word") == b"value"


def test_remove(places: Places, root: Path) -> None:
    (root / "f").write_text("old")
    places.replace("/f", b"old", None)
    assert tree(root) == []
    places.replace("/no/such", None, None)


def test_changed_meanwhile(places: Places, root: Path) -> None:
    (root / "f").write_text("other")
    with pytest.raises(StepError, match="somebody else"):
        places.replace("/f", b"old", b"new")
    assert (root / "f").read_text() == "other"
    with pytest.raises(StepError, match="somebody else"):
        places.replace("/new/dir/f", b"old", b"new")
    assert tree(root) == ["f"]


@pytest.mark.parametrize("target", ["/real", "../real", "/../../../real", "../../../../real"])
def test_directory_link_stays_inside(places: Places, root: Path, target: str) -> None:
    (root / "real").mkdir()
    (root / "etc").mkdir()
    (root / "etc/link").symlink_to(target)
    places.replace("/etc/link/f", None, b"text")
    assert (root / "real/f").read_text() == "text"
    assert not (root.parent / "real").exists()


@pytest.mark.parametrize("target", ["/real", "../../../real"])
def test_file_link_stays_inside(places: Places, root: Path, tmp_path: Path, target: str) -> None:
    outside = tmp_path / "real"
    outside.write_text("outside")
    (root / "link").symlink_to(target)
    places.replace("/link", None, b"text")
    assert outside.read_text() == "outside"
    assert (root / "real").read_text() == "text"
    assert (root / "link").is_symlink()


def test_link_loop(places: Places, root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(StepError) as caught:
        places.read("/a")
    assert caught.value.errno == errno.ELOOP


@pytest.mark.parametrize("path", ["/fifo", "/dir"])
def test_no_regular_file(places: Places, root: Path, path: str) -> None:
    os.mkfifo(root / "fifo")
    (root / "dir").mkdir()
    with pytest.raises(StepError):
        places.read(path)
    with pytest.raises(StepError):
        places.replace(path, None, b"x")


def test_a_failure_leaves_nothing(places: Places, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(StepError) as caught:
        places.replace("/new/dir/f", None, b"x")
    assert (caught.value.errno, caught.value.path) == (errno.ENOSPC, f"{root}/new/dir/f")
    assert tree(root) == []


def test_no_prefix(tmp_path: Path) -> None:
    with pytest.raises(StepError):
        Places(str(tmp_path / "nosuch"))
