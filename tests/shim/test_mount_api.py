"""Mounts are made with the mount API, on descriptors: a place is not looked up twice, and the kernel says why not."""

import re
from pathlib import Path

SOURCES = sorted((Path(__file__).resolve().parents[2] / "cffi_build").rglob("*.[ch]"))


def calls(name: str) -> list[str]:
    return [path.name for path in SOURCES for _ in re.findall(rf"\b(?:__NR|SYS)_{name}\b", path.read_text())]


def test_mount_by_name_is_for_what_no_pivot_covers() -> None:
    """X5. The one mount(2) hides what the caller's own mount namespace holds; the container's root is not in it."""
    assert calls("mount") == ["rootfs.c"]
    assert calls("umount2").count("mount.c") == 0


def test_the_mount_api_is_what_is_used() -> None:
    for name in ("fsopen", "fsconfig", "fsmount", "open_tree", "mount_setattr", "move_mount"):
        assert calls(name), name
