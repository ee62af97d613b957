"""linux.maskedPaths and linux.readonlyPaths."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from integration.conftest import requires
from integration.lib.container import Container
from integration.lib.leaks import Leaks
from integration.lib.probe import mounts


def test_masked_file(container: Container) -> None:
    """A masked file is the null device: empty, and what is written is gone [L14]."""
    (container.bundle.rootfs / "secret").write_text("secret")
    container.bundle.linux(maskedPaths=["/secret"])
    read, stat, write = container.probe("read /secret", "stat /secret", "write /secret x")
    assert (read["errno"], read["data"]) == (0, "")
    assert (stat["type"], stat["major"], stat["minor"]) == ("c", 1, 3)
    assert write["errno"] in (0, 30)
    assert (container.bundle.rootfs / "secret").read_text() == "secret"


def test_masked_file_is_not_the_hosts_node(container: Container) -> None:
    """Who may change modes and owners cannot change those of the host's null device through a mask [L14, P9]."""
    (container.bundle.rootfs / "secret").write_text("secret")
    container.bundle.linux(maskedPaths=["/secret"])
    names = ["CAP_FOWNER", "CAP_CHOWN", "CAP_DAC_OVERRIDE"]
    container.bundle.process(capabilities=dict.fromkeys(("bounding", "effective", "permitted"), names))
    host = os.stat("/dev/null")
    stat, chmod = container.probe("stat /secret", f"chmod /secret {host.st_mode & 0o7777:o}")
    assert (stat["dev"], stat["ino"]) != (host.st_dev, host.st_ino) or chmod["errno"] == errno.EROFS


def test_masked_directory(container: Container) -> None:
    """A masked directory is empty and read-only [L14]."""
    (container.bundle.rootfs / "secrets").mkdir()
    (container.bundle.rootfs / "secrets" / "one").write_text("x")
    container.bundle.linux(maskedPaths=["/secrets"])
    ls, create, report = container.probe("ls /secrets", "create /secrets/new x", "report")
    assert ls["names"] == []
    assert create["errno"] == 30
    (mount,) = [m for m in mounts(report["mountinfo"]) if m.point == "/secrets"]
    assert (mount.type, "ro" in mount.options) == ("tmpfs", True)


def test_default_masks(container: Container) -> None:
    """The usual list hides what it should in procfs and sysfs [L14]."""
    kcore, keys, firmware = container.probe("read /proc/kcore", "read /proc/keys", "ls /sys/firmware")
    assert kcore["data"] == keys["data"] == ""
    assert firmware["names"] == []


def test_missing_masked_path(container: Container) -> None:
    """A path that is not there is no error, and is not made [L14]."""
    container.bundle.linux(maskedPaths=["/no/such/thing"])
    assert container.probe("stat /no")[0]["errno"] == 2


def test_masked_twice(container: Container) -> None:
    """The same path twice is fine [L14]."""
    (container.bundle.rootfs / "secret").write_text("secret")
    (container.bundle.rootfs / "dir").mkdir()
    container.bundle.linux(maskedPaths=["/secret", "/dir", "/secret", "/dir"])
    assert container.probe("read /secret")[0]["data"] == ""


def test_masked_symlink(container: Container) -> None:
    """A symlink in the image cannot carry a mask out of the container, and its target inside is hidden [L14]."""
    (container.bundle.rootfs / "secret").write_text("secret")
    (container.bundle.rootfs / "link").symlink_to("/secret")
    container.bundle.linux(maskedPaths=["/link"])
    result = container.run()
    assert result.code == 0 or container.runtime.ours


def test_many_masked_directories(container: Container) -> None:
    """Many directories share one empty file system [L14]."""
    for number in range(50):
        (container.bundle.rootfs / "m" / str(number)).mkdir(parents=True)
    container.bundle.linux(maskedPaths=[f"/m/{number}" for number in range(50)])
    report = container.report()
    devices = {m.device for m in mounts(report["mountinfo"]) if m.point.startswith("/m/")}
    assert sum(m.point.startswith("/m/") for m in mounts(report["mountinfo"])) == 50
    if container.runtime.ours:
        assert len(devices) == 1


@pytest.mark.parametrize("field", ["maskedPaths", "readonlyPaths"])
@pytest.mark.parametrize("path", ["relative", "./x", ""])
def test_relative_path(container: Container, leaks: Leaks, field: str, path: str) -> None:
    """The paths are absolute [L14, L15, X1]."""
    (container.bundle.rootfs / "relative").mkdir()
    container.bundle.linux(**{field: ["/proc/bus", path]})
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert f"/linux/{field}/1" in result.error
    leaks.check()


def test_readonly_directory(container: Container) -> None:
    """A read-only directory can be read and not written, with everything below it [L15]."""
    (container.bundle.rootfs / "data" / "sub").mkdir(parents=True)
    (container.bundle.rootfs / "data" / "file").write_text("x")
    container.bundle.linux(readonlyPaths=["/data"])
    read, write, create = container.probe("read /data/file", "write /data/file y", "create /data/sub/new z")
    assert read["data"] == "x"
    assert (write["errno"], create["errno"]) == (30, 30)


def test_readonly_file(container: Container) -> None:
    """A single file can be read-only [L15]."""
    (container.bundle.rootfs / "file").write_text("x")
    container.bundle.linux(readonlyPaths=["/file"])
    read, write = container.probe("read /file", "write /file y")
    assert (read["data"], write["errno"]) == ("x", 30)


def test_readonly_keeps_other_flags(container: Container) -> None:
    """nosuid, nodev and noexec of the file system stay [L15]."""
    container.bundle.drop_mount("/proc")
    container.bundle.config["mounts"].insert(
        0, {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "nodev", "noexec"]}
    )
    report = container.report()
    (mount,) = [m for m in mounts(report["mountinfo"]) if m.point == "/proc/sys"]
    assert {"ro", "nosuid", "nodev", "noexec"} <= mount.options


def test_default_readonly_paths(container: Container) -> None:
    """The usual list protects procfs [L15]."""
    names = ["/proc/sys/kernel/domainname", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"]
    present = [name for name in names if os.path.exists(name)]
    replies = container.probe(*(f"open {name} w" for name in present))
    assert [reply["errno"] for reply in replies] == [30] * len(present)


def test_missing_readonly_path(container: Container) -> None:
    """A path that is not there is no error [L15]."""
    container.bundle.linux(readonlyPaths=["/no/such/thing"])
    assert container.probe("stat /no")[0]["errno"] == 2


def test_mask_inside_readonly(container: Container) -> None:
    """Masks come after read-only paths, so both may name the same tree [O8]."""
    (container.bundle.rootfs / "data").mkdir()
    (container.bundle.rootfs / "data" / "secret").write_text("x")
    container.bundle.linux(readonlyPaths=["/data"], maskedPaths=["/data/secret"])
    read, create = container.probe("read /data/secret", "create /data/new x")
    assert (read["data"], create["errno"]) == ("", 30)


def test_cannot_be_undone_without_capabilities(container: Container) -> None:
    """An ordinary container can neither unmount a mask nor remount a path [L14, L15]."""
    (container.bundle.rootfs / "secret").write_text("secret")
    container.bundle.linux(maskedPaths=["/secret"])
    replies = container.probe("umount /secret", "remount_rw /proc/sys")
    assert [reply["errno"] for reply in replies] == [1, 1]


def test_in_a_user_namespace(container: Container) -> None:
    """Both work in a user namespace [L14, L15]."""
    requires("userns")
    (container.bundle.rootfs / "secret").write_text("secret")
    (container.bundle.rootfs / "data").mkdir()
    container.bundle.user_namespace()
    container.bundle.linux(maskedPaths=["/secret", "/proc/kcore"], readonlyPaths=["/data", "/proc/sys"])
    read, create, sysctl = container.probe("read /secret", "create /data/new x", "open /proc/sys/kernel/domainname w")
    assert read["data"] == ""
    assert create["errno"] == 30
    assert sysctl["errno"] in (30, 13)


def test_mask_covers_submounts(container: Container, tmp_path: Path) -> None:
    """A mount of the config can be masked [O5, O8]."""
    (tmp_path / "file").write_text("x")
    container.bundle.mount("/data", str(tmp_path), "bind")
    container.bundle.linux(maskedPaths=["/data/file"])
    assert container.probe("read /data/file")[0]["data"] == ""
    assert os.path.getsize(tmp_path / "file") == 1
