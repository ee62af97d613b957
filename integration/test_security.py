"""What an image or a careless caller can try. A canary outside the root file system must never change."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.lib.container import Container
from integration.lib.leaks import Leaks
from integration.lib.probe import mount_at


class Canary:
    """A directory and a file beside the bundle, and what they looked like at first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        (path / "file").write_text("canary")
        (path / "ptmx").write_text("canary")
        (path / "sub").mkdir()
        for entry in (path, path / "file", path / "ptmx", path / "sub"):
            os.utime(entry, (1, 1))
        self.before = self.look()

    def look(self) -> list[tuple[Any, ...]]:
        """Names, modes, owners, times and content."""
        seen: list[tuple[Any, ...]] = []
        for entry in [self.path, *sorted(self.path.rglob("*"))]:
            st = entry.lstat()
            content = entry.read_bytes() if entry.is_file() else b""
            seen.append((str(entry), st.st_mode, st.st_uid, st.st_gid, st.st_mtime, content))
        return seen

    def check(self) -> None:
        """Fail the test when anything is different."""
        assert self.look() == self.before


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    """The canary; whatever a test does, it must be unchanged afterwards."""
    return Canary(tmp_path / "canary")


def try_it(container: Container) -> Any:
    """Run it: whether it is refused or contained is decided by the caller. Never a hang, never a traceback."""
    result = container.run()
    assert "Traceback" not in result.error
    return result


# -- paths [SECURITY A] --


@pytest.mark.parametrize("kind", ["tmpfs", "bind-dir", "bind-file"])
@pytest.mark.parametrize("link", ["absolute", "relative", "parent"])
def test_symlinked_mount_target(container: Container, canary: Canary, tmp_path: Path, kind: str, link: str) -> None:
    """A symlink at or above a mount target leads nowhere outside [crun CVE-2019-18837, M1]."""
    rootfs = container.bundle.rootfs
    destination = "/data"
    if link == "absolute":
        (rootfs / "data").symlink_to(canary.path)
    elif link == "relative":
        (rootfs / "data").symlink_to("../../../../../../../../../.." + str(canary.path))
    else:
        (rootfs / "etc").symlink_to("/")
        destination = f"/etc{canary.path}/sub"
    source = tmp_path / "source"
    if kind == "bind-file":
        source.write_text("x")
        destination += "/new"
        container.bundle.mount(destination, str(source), "bind")
    elif kind == "bind-dir":
        source.mkdir()
        container.bundle.mount(destination, str(source), "bind")
    else:
        container.bundle.mount(destination, "tmpfs", type="tmpfs")
    result = try_it(container)
    if result.code == 0:
        assert str(canary.path) in result.replies[0]["mountinfo"]  # inside the root, at the same path
    canary.check()


def test_symlinked_dev(container: Container, canary: Canary) -> None:
    """/dev of the image is a symlink and nothing is mounted there [runc CVE-2026-41579]."""
    container.bundle.drop_mount("/dev")
    (container.bundle.rootfs / "dev").symlink_to(canary.path)
    try_it(container)
    canary.check()


def test_symlinked_dev_with_a_mount(container: Container, canary: Canary) -> None:
    """/dev of the image is a symlink and a tmpfs is to be mounted there."""
    (container.bundle.rootfs / "dev").symlink_to(canary.path)
    try_it(container)
    canary.check()


@pytest.mark.parametrize("name", ["null", "zero", "full", "tty", "ptmx", "fd", "stdin", "core", "console"])
def test_symlinked_device(container: Container, canary: Canary, name: str) -> None:
    """A default device of the image is a symlink to a file of the host; stdio is on /dev/null [CVE-2026-88264]."""
    container.bundle.drop_mount("/dev")
    (container.bundle.rootfs / "dev").mkdir()
    (container.bundle.rootfs / "dev" / name).symlink_to(canary.path / "file")
    container.bundle.args("echo out")
    if container.runtime.ours:
        with open("/dev/null", "r+b", buffering=0) as null:
            container.run(stdin=null, stderr=null)
    else:
        container.run()
    canary.check()


def test_symlinked_device_to_a_new_name(container: Container, canary: Canary) -> None:
    """A dangling symlink in place of a device makes no file at its target [L8]."""
    container.bundle.drop_mount("/dev")
    (container.bundle.rootfs / "dev").mkdir()
    for name in ("null", "console", "random"):
        (container.bundle.rootfs / "dev" / name).symlink_to(canary.path / f"new-{name}")
    try_it(container)
    canary.check()


def test_listed_device_below_a_symlink(container: Container, canary: Canary) -> None:
    """A listed device whose parent is a symlink is not made outside [L8]."""
    (container.bundle.rootfs / "nodes").symlink_to(canary.path)
    container.bundle.linux(devices=[{"path": "/nodes/sub/zero", "type": "c", "major": 1, "minor": 5}])
    try_it(container)
    canary.check()


@pytest.mark.parametrize("what", ["symlink", "regular", "zero", "directory"])
def test_mask_with_a_false_null(container: Container, canary: Canary, what: str) -> None:
    """/dev/null of the image is something else: a masked file is refused or truly masked [CVE-2025-31133].

    The symlink leads to a file of procfs that belongs to the container's own UTS namespace: where a runtime falls
    for it, no harm is done to the host.
    """
    rootfs = container.bundle.rootfs
    container.bundle.drop_mount("/dev")
    (rootfs / "dev").mkdir()
    null = rootfs / "dev" / "null"
    if what == "symlink":
        null.symlink_to("/proc/sys/kernel/domainname")
    elif what == "regular":
        null.write_text("writable")
    elif what == "zero":
        os.mknod(null, 0o20666, os.makedev(1, 5))
    else:
        null.mkdir()
    (rootfs / "secret").write_text("secret")
    container.bundle.linux(maskedPaths=["/secret", "/proc/sysrq-trigger"])
    container.bundle.args("stat /secret", "open /secret w", "report")
    result = try_it(container)
    if result.code == 0:
        stat, _, report = result.replies
        assert (stat["type"], stat["major"], stat["minor"]) == ("c", 1, 3)
        assert report["domainname"] == "(none)"
    if what == "regular":
        assert null.read_text() == "writable"
    canary.check()


@pytest.mark.parametrize("field", ["maskedPaths", "readonlyPaths"])
def test_path_rules_through_a_symlink(container: Container, canary: Canary, field: str) -> None:
    """Masked and read-only paths do not leave the root [L14, L15]."""
    (container.bundle.rootfs / "data").symlink_to(canary.path)
    container.bundle.linux(**{field: ["/data/file", "/data/sub", "/data"]})
    try_it(container)
    canary.check()


def test_cwd_through_a_symlink(container: Container, canary: Canary) -> None:
    """A missing cwd below a symlink is made inside or refused [U2]."""
    (container.bundle.rootfs / "data").symlink_to(canary.path)
    container.bundle.process(cwd="/data/a/b")
    try_it(container)
    canary.check()


@pytest.mark.parametrize("target", ["/symlink", "/proc2", "../../canary"])
@pytest.mark.parametrize("where", ["proc", "sys"])
def test_symlinked_proc(container: Container, canary: Canary, where: str, target: str) -> None:
    """/proc or /sys of the image is a symlink: never mounted anywhere else but inside [CVE-2019-19921]."""
    (container.bundle.rootfs / where).symlink_to(target)
    result = try_it(container)
    if container.runtime.ours:
        assert result.code != 0
        assert "must be mounted on ordinary directory" in result.error
    canary.check()


@pytest.mark.parametrize("where", ["/proc", "/proc/self", "/proc/sys", "/proc/sys/kernel", "/proc/self/attr"])
@pytest.mark.ours_only("SECURITY A: nothing but a procfs over /proc, and the mount is named")
def test_false_proc(container: Container, canary: Canary, where: str) -> None:
    """A bind of an ordinary directory over /proc is refused and named [CVE-2019-16884, M2]."""
    container.bundle.mount(where, str(canary.path), "bind")
    result = container.create(check=False)
    assert result.code != 0
    assert "/mounts/6" in result.error
    canary.check()


@pytest.mark.parametrize("name", ["net/../kernel/core_pattern", "net/../../../../etc/passwd", "net.ipv4/../../x"])
def test_sysctl_names(container: Container, leaks: Leaks, name: str) -> None:
    """The name of a sysctl is no path [L13]."""
    container.bundle.linux(sysctl={name: "x"})
    assert container.create(check=False).code != 0
    leaks.check()


@pytest.mark.parametrize("name", ["/../../../tmp/x", "../x", "/proc/../../x"])
def test_device_paths(container: Container, canary: Canary, name: str) -> None:
    """ ".." in the path of a device stays inside [L8]."""
    before = set(os.listdir("/tmp"))
    container.bundle.linux(devices=[{"path": name, "type": "c", "major": 1, "minor": 5}])
    try_it(container)
    assert "x" not in set(os.listdir("/tmp")) - before
    assert not (container.bundle.path / "x").exists()
    canary.check()


def test_exchange_during_create(container: Container, canary: Canary, tmp_path: Path) -> None:
    """A container that shares a volume exchanges a directory and a symlink while others are made [CVE-2021-30465]."""
    volume = tmp_path / "volume"
    (volume / "a" / "b").mkdir(parents=True)
    (volume / "evil").symlink_to(canary.path)
    container.bundle.mount("/vol", str(volume), "bind")
    container.bundle.mount("/vol/a/b", "tmpfs", type="tmpfs")
    container.bundle.mount("/vol/a/new", "tmpfs", type="tmpfs")
    container.bundle.args("exit 0")
    swap = subprocess.Popen(
        [container.bundle.probe, "swap", str(volume / "a"), str(volume / "evil"), "600000"], stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(20):
            container.run()
            table = Path("/proc/self/mountinfo").read_text()
            assert f" {canary.path}" not in table
    finally:
        swap.kill()
        swap.wait()
    canary.check()


def test_cwd_in_a_descriptor(container: Container) -> None:
    """cwd is /proc/self/fd/N: refused, or inside the container, for every N [CVE-2024-21626]."""
    for number in range(3, 20):
        container.bundle.process(cwd=f"/proc/self/fd/{number}")
        result = try_it(container)
        assert result.code != 0, (number, result.replies[0]["cwd"])


def test_cwd_through_a_link_to_a_descriptor(container: Container) -> None:
    """The same through a symlink of the image [CVE-2024-21626]."""
    (container.bundle.rootfs / "w").symlink_to("/proc/self/fd/7")
    container.bundle.process(cwd="/w")
    assert try_it(container).code != 0


def test_cwd_with_a_leaked_descriptor(container: Container) -> None:
    """A directory of the host leaked by the caller cannot be cwd [CVE-2024-21626]."""

    def leak() -> None:
        os.dup2(os.open("/etc", os.O_RDONLY), 9)
        os.set_inheritable(9, True)

    container.bundle.process(cwd="/proc/self/fd/9")
    result = container.run(preexec_fn=leak, close_fds=False)
    assert result.code != 0


# -- the init process [SECURITY B] --


def test_init_is_not_a_host_file(container: Container) -> None:
    """/proc/PID/exe of the waiting init is a copy that nobody can write, not a file of the host [CVE-2019-5736]."""
    container.create()
    target = os.readlink(f"/proc/{container.pid}/exe")
    st = os.stat(f"/proc/{container.pid}/exe")
    for path in (container.runtime.path, "/usr/bin/python3", os.path.realpath("/usr/bin/python3")):
        if os.path.exists(path):
            assert not os.path.samestat(st, os.stat(path)), path
    if container.runtime.ours:
        assert target.startswith("/memfd:"), target


def test_init_cannot_be_written(container: Container) -> None:
    """Opening it for writing fails, also for root of the host [CVE-2019-5736]."""
    container.create()
    with pytest.raises(OSError):
        os.close(os.open(f"/proc/{container.pid}/exe", os.O_RDWR))


def test_program_that_is_proc_self_exe(container: Container) -> None:
    """An image whose program is a link to /proc/self/exe gets nothing it could overwrite [CVE-2019-5736]."""
    before = Path(container.runtime.path).read_bytes()
    (container.bundle.rootfs / "again").symlink_to("/proc/self/exe")
    container.bundle.process(args=["/again", "x"])
    try_it(container)
    assert Path(container.runtime.path).read_bytes() == before


def test_init_is_not_dumpable(container: Container) -> None:
    """The waiting init is not dumpable.

    Its /proc files belong to root, and others may not look at it [CVE-2016-9962].
    """
    container.bundle.process(user={"uid": 1000, "gid": 1000})
    container.create()
    assert os.stat(f"/proc/{container.pid}/environ").st_uid == 0


def test_waiting_init_shows_nothing(container: Container) -> None:
    """Arguments and environment of the waiting init tell nothing of the caller [SECURITY D.5]."""
    container.create(env={**os.environ, "SECRET_OF_THE_CALLER": "1"})
    shown = Path(f"/proc/{container.pid}/environ").read_bytes() + Path(f"/proc/{container.pid}/cmdline").read_bytes()
    if container.runtime.ours:
        assert b"SECRET_OF_THE_CALLER" not in shown


@pytest.mark.ours_only("waiting init: kilobytes, not megabytes")
def test_waiting_init_is_small(container: Container) -> None:
    """Private memory of the waiting init."""
    container.create()
    private = 0
    for line in Path(f"/proc/{container.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            private += int(line.split()[1])
    assert private < 300


@pytest.mark.ours_only("SECURITY D: umask 0 for nodes, 0022 at last, whatever the caller has")
def test_files_do_not_depend_on_the_umask(container: Container) -> None:
    """With a caller's umask of 0777 the state and the mount points still have their modes."""
    container.bundle.mount("/made/here", "tmpfs", type="tmpfs")
    container.create(preexec_fn=lambda: os.umask(0o777))
    assert (container.runtime.root / container.id).stat().st_mode & 0o777 == 0o711
    assert (container.bundle.rootfs / "made").stat().st_mode & 0o777 == 0o755


def test_signals_are_reset(container: Container) -> None:
    """The program starts with default dispositions and an empty mask, whatever the caller ignores or blocks [P11]."""

    def ignore() -> None:
        for number in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGXFSZ, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGWINCH, signal.SIGALRM})

    container.bundle.args("report", "pause")
    container.create(preexec_fn=ignore)
    container.start()
    status = container.wait_replies(2)[0]["status"]
    assert int(status["SigIgn"], 16) == 0
    assert int(status["SigBlk"], 16) == 0


def test_no_parent_death_signal_is_left(container: Container) -> None:
    """The program does not die with the thread that started it [SECURITY D.6]."""
    container.begin("report", "pause")
    assert container.replies[0]["pdeathsig"] == 0


def test_program_is_dumpable_again(container: Container) -> None:
    """execve makes the program an ordinary process: it can read its own /proc files [SECURITY D]."""
    container.bundle.process(user={"uid": 1000, "gid": 1000})
    reply = container.probe("read /proc/self/environ")[0]
    assert reply["errno"] == 0


def test_securebits_are_clean(container: Container) -> None:
    """No secure bit of the runtime's own handling stays set [U6]."""
    assert container.report()["securebits"] == 0


def test_leaked_directory_is_invisible(container: Container) -> None:
    """With a host directory leaked as fd 9, no descriptor of the program leads to the host [CVE-2024-21626]."""

    def leak() -> None:
        os.dup2(os.open("/", os.O_RDONLY), 9)
        os.set_inheritable(9, True)

    ls, stat = container.probe("ls /proc/self/fd", "statf /proc/self/fd/9", preexec_fn=leak, close_fds=False)
    assert "9" not in ls["names"]
    assert stat["errno"] == 2


def test_host_root_is_out_of_reach(container: Container) -> None:
    """Neither the old root nor the host's processes can be reached [L12]."""
    root, above, one = container.probe("stat /", "stat /proc/1/root/..", "read /proc/1/cmdline")
    assert root["ino"] == above["ino"]
    assert one["data"].startswith("/probe\0")


def test_old_root_is_gone_with_no_pivot(container: Container) -> None:
    """--no-pivot: the host's root is not reachable either [L12]."""
    container.bundle.args("stat /", "stat /../..", "report")
    root, above, report = container.run("--no-pivot").ok().replies
    assert root["ino"] == above["ino"] == container.bundle.rootfs.stat().st_ino
    assert mount_at(report["mountinfo"], "/")


def test_keyring_is_its_own(container: Container, new_container: Callable[..., Container]) -> None:
    """Two containers do not share a session keyring [U15]."""
    second = new_container()
    first_name = container.probe("keyring")[0]["name"]
    second_name = second.probe("keyring")[0]["name"]
    assert first_name.rpartition(";")[2] != second_name.rpartition(";")[2]


def test_config_strings_are_no_formats(container: Container) -> None:
    """Strings with percent signs and braces are plain text everywhere [SECURITY D.5]."""
    odd = "%s%n%d{0}$(x)`y`"
    container.bundle.merge({"hostname": "h", "annotations": {odd: odd}})
    container.bundle.process(args=["/probe", "echo", odd], env=[f"X={odd}"])
    assert container.run().ok().text == odd + "\n"


@pytest.mark.parametrize("size", [65_535, 65_536, 131_071])
def test_long_strings(container: Container, size: int) -> None:
    """Long arguments arrive whole, or are refused: no length wraps around [CVE-2021-43784]."""
    container.bundle.process(args=["/probe", "echo", "x" * size])
    result = container.run()
    assert result.code != 0 or result.out == b"x" * size + b"\n"


def test_many_arguments(container: Container) -> None:
    """2,000 arguments and 2,000 variables arrive [SECURITY C]."""
    words = [str(number) for number in range(2000)]
    container.bundle.process(args=["/probe", "report", *words], env=[f"V{word}={word}" for word in words])
    report = container.run().ok().replies[0]
    assert report["args"][2:] == words
    assert len(report["env"]) in (2000, 2001)
