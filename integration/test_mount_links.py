"""mounts whose source or destination is a symlink: copy-symlink, src-nofollow, dest-nofollow [M14]."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from integration.lib.container import Container
from integration.lib.leaks import Leaks
from integration.lib.probe import mount_at


@pytest.fixture
def links(tmp_path: Path) -> Path:
    """A directory with a file, a directory, and links to them."""
    (tmp_path / "file").write_text("the file of the host")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "below").write_text("below")
    (tmp_path / "to-file").symlink_to("file")
    (tmp_path / "to-dir").symlink_to("dir")
    (tmp_path / "dangling").symlink_to("/somewhere/../in the container")
    return tmp_path


# -- copy-symlink --


@pytest.mark.parametrize(("name", "target"), [("to-file", "file"), ("to-dir", "dir"), ("dangling", None)])
@pytest.mark.parametrize("kind", ["bind", "rbind"])
def test_copy_symlink(container: Container, links: Path, name: str, target: str | None, kind: str) -> None:
    """A source that is a symlink is made again at the destination, with the same target; nothing is mounted."""
    container.bundle.mount("/new/place", str(links / name), kind, "copy-symlink", "ro")
    stat, report = container.probe("stat /new/place", "report")
    assert stat["errno"] == 0, stat
    assert (stat["type"], stat["target"]) == ("l", target or "/somewhere/../in the container")
    assert " /new/place " not in report["mountinfo"]


def test_copy_symlink_of_something_else(container: Container, links: Path) -> None:
    """Any other source is bound."""
    container.bundle.mount("/f", str(links / "file"), "bind", "copy-symlink")
    container.bundle.mount("/d", str(links / "dir"), "bind", "copy-symlink", "ro")
    read, below, write = container.probe("read /f", "read /d/below", "create /d/new x")
    assert (read["data"], below["data"]) == ("the file of the host", "below")
    assert write["errno"] == 30  # EROFS


def test_copy_symlink_that_is_there(container: Container, links: Path) -> None:
    """The same link may be there already, from an earlier run for instance."""
    container.bundle.mount("/place", str(links / "to-file"), "bind", "copy-symlink")
    (container.bundle.rootfs / "place").symlink_to("file")
    assert container.probe("stat /place")[0]["target"] == "file"


@pytest.mark.parametrize("other", ["link", "longer", "file", "directory"])
def test_copy_symlink_over_something_else(container: Container, links: Path, leaks: Leaks, other: str) -> None:
    """What is there and is not this link is left alone: an error."""
    place = container.bundle.rootfs / "place"
    if other in ("link", "longer"):
        place.symlink_to("elsewhere" if other == "link" else "file2")
    elif other == "file":
        place.write_text("mine")
    else:
        place.mkdir()
    container.bundle.mount("/place", str(links / "to-file"), "bind", "copy-symlink")
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert f"/mounts/{len(container.bundle.config['mounts']) - 1}" in result.error
        assert "something else" in result.error
    assert place.is_symlink() == (other in ("link", "longer"))
    leaks.check()


def test_copy_symlink_below_a_link(container: Container, links: Path) -> None:
    """Directories on the way may be symlinks of the image; they lead nowhere out of it."""
    rootfs = container.bundle.rootfs
    (rootfs / "var").mkdir()
    (rootfs / "var" / "out").symlink_to("/../../../run")
    (rootfs / "run").mkdir()
    container.bundle.mount("/var/out/place", str(links / "to-file"), "bind", "copy-symlink")
    assert container.probe("stat /run/place")[0]["target"] == "file"
    assert os.readlink(rootfs / "run" / "place") == "file"


# -- src-nofollow --


@pytest.mark.parametrize("name", ["to-file", "to-dir", "dangling"])
def test_src_nofollow(container: Container, links: Path, name: str) -> None:
    """The symlink itself is what is bound, wherever it leads."""
    container.bundle.mount("/place", str(links / name), "bind", "src-nofollow")
    stat, report = container.probe("stat /place", "report")
    assert (stat["errno"], stat["type"], stat["target"]) == (0, "l", os.readlink(links / name))
    assert mount_at(report["mountinfo"], "/place").root.endswith(f"/{name}")


@pytest.mark.requires("userns")
def test_src_nofollow_in_a_user_namespace(container: Container, links: Path) -> None:
    """There the parent opens the source."""
    container.bundle.mount("/place", str(links / "to-dir"), "bind", "src-nofollow")
    container.bundle.user_namespace()
    assert container.probe("stat /place")[0]["type"] == "l"


def test_src_nofollow_of_something_else(container: Container, links: Path) -> None:
    """It says nothing about other sources, nor about links on the way to them."""
    (links / "way").symlink_to(".")
    container.bundle.mount("/f", str(links / "way" / "file"), "bind", "src-nofollow")
    container.bundle.mount("/d", str(links / "way" / "dir"), "rbind", "src-nofollow")
    read, below = container.probe("read /f", "read /d/below")
    assert (read["data"], below["data"]) == ("the file of the host", "below")


@pytest.mark.requires("userns", "kernel:5.12")
def test_src_nofollow_and_idmap(container: Container, links: Path) -> None:
    """The parent opens the source of an id-mapped mount: the link itself, with IDs of its own."""
    os.lchown(links / "to-file", 5, 5)
    container.bundle.mount(
        "/place", str(links / "to-file"), "bind", "src-nofollow", "idmap=uids=0-1000-9;gids=0-1000-9"
    )
    stat = container.probe("stat /place")[0]
    assert (stat["errno"], stat["type"], stat["target"]) == (0, "l", "file")
    assert (stat["uid"], stat["gid"]) == (1005, 1005)


@pytest.mark.ours_only("M10: a refusal names the file system")
@pytest.mark.requires("userns", "kernel:5.12")
def test_src_nofollow_and_an_idmap_that_cannot_be(container: Container, leaks: Leaks) -> None:
    """What the kernel cannot map is told of the link's file system, not of the one that it leads to."""
    container.bundle.mount("/place", "/proc/self/root", "bind", "src-nofollow", "idmap=uids=0-1000-9;gids=0-1000-9")
    result = container.create(check=False)
    assert result.code != 0
    assert f"/mounts/{len(container.bundle.config['mounts']) - 1}" in result.error
    assert "file system of type 'proc'" in result.error
    leaks.check()


# -- dest-nofollow --


@pytest.mark.parametrize("target", ["other", "gone", "/"])
def test_dest_nofollow(container: Container, links: Path, target: str) -> None:
    """The mount covers the symlink at the destination; what that leads to is not touched."""
    rootfs = container.bundle.rootfs
    (rootfs / "other").write_text("other")
    (rootfs / "place").symlink_to(target)
    container.bundle.mount("/place", str(links / "file"), "bind", "dest-nofollow")
    read, other, gone = container.probe("read /place", "read /other", "stat /gone")
    assert (read["data"], other["data"], gone["errno"]) == ("the file of the host", "other", 2)


def test_dest_nofollow_of_something_else(container: Container, links: Path) -> None:
    """A destination that is a file, a directory, or not there, and links on the way, are as ever."""
    rootfs = container.bundle.rootfs
    (rootfs / "real").mkdir()
    (rootfs / "way").symlink_to("real")
    container.bundle.mount("/way/f", str(links / "file"), "bind", "dest-nofollow")
    container.bundle.mount("/real/new/d", str(links / "dir"), "rbind", "dest-nofollow")
    read, below = container.probe("read /real/f", "read /real/new/d/below")
    assert (read["data"], below["data"]) == ("the file of the host", "below")


def test_all_follow_without_the_options(container: Container, links: Path) -> None:
    """The rule they are exceptions from."""
    rootfs = container.bundle.rootfs
    (rootfs / "other").write_text("other")
    (rootfs / "place").symlink_to("other")
    container.bundle.mount("/place", str(links / "to-file"), "bind")
    (read,) = container.probe("read /other")
    assert read["data"] == "the file of the host"


@pytest.mark.ours_only("a file system on a symlink")
def test_dest_nofollow_of_a_new_file_system(container: Container, leaks: Leaks) -> None:
    """A directory cannot cover a symlink: an error, and what the symlink leads to stays as it is."""
    (container.bundle.rootfs / "real").mkdir()
    (container.bundle.rootfs / "place").symlink_to("real")
    container.bundle.mount("/place", "tmpfs", "dest-nofollow", type="tmpfs")
    result = container.create(check=False)
    assert result.code != 0
    assert f"/mounts/{len(container.bundle.config['mounts']) - 1}" in result.error
    leaks.check()
