"""Facts about the machine the tests run on, and the private mount namespace they run in."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import subprocess
from functools import cache
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]

CLONE_NEWNS = 0x20000
MS_RDONLY, MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1, 0x1000, 0x4000, 1 << 18, 1 << 19, 1 << 20
MS_UNBINDABLE = 1 << 17
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    if _libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {kind} {source} on {target}: {os.strerror(number)}")


def umount(target: str) -> None:
    """umount2(2) with MNT_DETACH."""
    if _libc.umount2(target.encode(), 2):
        number = ctypes.get_errno()
        raise OSError(number, f"umount {target}: {os.strerror(number)}")


def become_subreaper() -> None:
    """Orphans of the runtime become children of the tests, as they become children of an engine's monitor."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def make_dumpable() -> None:
    """Our files in /proc are ours again; a change of IDs has made them root's."""
    _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def private_mounts() -> None:
    """Leave the machine's mount namespace. "/" becomes shared, as on a machine run by systemd, so that a runtime
    that lets its mounts propagate is seen; nobody else mounts in here, so tables can be compared line by line.
    """
    if _libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("none", "/", "", MS_REC | MS_SHARED)


def open_way(path: Path) -> None:
    """Let ordinary users come to a path below closed directories such as /root: in our mount namespace, each is covered
    by an open directory of the same entries.
    """
    for directory in reversed(path.parents):
        if directory.stat().st_mode & 0o001:
            continue
        entries = {
            name: os.open(directory / name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC) for name in os.listdir(directory)
        }
        mount("tmpfs", str(directory), "tmpfs", 0, "mode=755")
        for name, fd in entries.items():
            mode = os.fstat(fd).st_mode
            if stat.S_ISLNK(mode):
                os.symlink(os.readlink("", dir_fd=fd), directory / name)
            else:
                if stat.S_ISDIR(mode):
                    (directory / name).mkdir()
                else:
                    (directory / name).touch()
                mount(f"/proc/self/fd/{fd}", str(directory / name), "", MS_BIND | MS_REC)
            os.close(fd)
        os.chdir(os.getcwd())


def own_mountinfo() -> list[str]:
    """The lines of our mountinfo."""
    return Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()


KERNEL_TYPES = frozenset("proc sysfs cgroup cgroup2 devtmpfs devpts mqueue securityfs debugfs tracefs bpf".split())


def kernel_devices() -> set[int]:
    """st_dev of the mounted file systems that are the kernel's: an owner changed there is changed for the machine."""
    found = set()
    for line in own_mountinfo():
        left, right = line.split(" - ", 1)
        if right.split(" ", 1)[0] in KERNEL_TYPES:
            major, minor = left.split(" ")[2].split(":")
            found.add(os.makedev(int(major), int(minor)))
    return found


@cache
def cgroup_mounts() -> dict[str, str]:
    """Controller (or "name=systemd") -> mount point of its v1 hierarchy; "" -> mount point of cgroup2."""
    found: dict[str, str] = {}
    lines = own_mountinfo()
    covers = [n for n, line in enumerate(lines) if line.split(" ")[4] == "/sys/fs/cgroup"]
    for line in lines[covers[-1] :] if covers else lines:
        left, right = line.split(" - ", 1)
        kind, _, options = right.split(" ", 2)
        point = left.split(" ")[4]
        if kind == "cgroup2":
            found.setdefault("", point)
        elif kind == "cgroup":
            for option in options.split(","):
                if option.startswith("name=") or option in V1_CONTROLLERS:
                    found.setdefault(option, point)
    return found


V1_CONTROLLERS = frozenset(
    "cpu cpuacct cpuset memory devices freezer blkio pids hugetlb net_cls net_prio perf_event rdma misc".split()
)


def cgroup_mode() -> str:
    """v2, hybrid, v1 or none."""
    table = cgroup_mounts()
    if not table:
        return "none"
    if "" not in table:
        return "v1"
    return "v2" if set(table) == {""} else "hybrid"


def v2_controllers() -> set[str]:
    """Controllers that cgroup2 has here."""
    point = cgroup_mounts().get("")
    return set(Path(point, "cgroup.controllers").read_text().split()) if point else set()


@cache
def lacks_systemd(version: str = "v2") -> str:
    """Why the tests of systemd cannot run here; "" when they can. version: of cgroups; "v1" is hybrid, too."""
    if not os.path.isdir("/run/systemd/system"):
        return "systemd does not run here"
    if (cgroup_mode() == "v2") != (version == "v2"):
        return f"systemd does not run on cgroup {version} here"
    return "" if os.path.exists("/run/dbus/system_bus_socket") else "no system D-Bus here"


@cache
def systemd_user() -> int:
    """An ordinary user with a manager of its own; 0: none."""
    if lacks_systemd():
        return 0
    for entry in sorted(Path("/run/user").glob("[0-9]*")):
        if entry.name != "0" and (entry / "bus").exists():
            return int(entry.name)
    return 0


@cache
def capability_bounding() -> int:
    """The bounding set of the tests."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return int(line.split()[1], 16)
    return 0


@cache
def kernel() -> tuple[int, int]:
    """Major and minor of the running kernel."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()))


@cache
def can(*unshare_options: str) -> bool:
    """Whether unshare(1) with these options works here."""
    done = subprocess.run(["unshare", *unshare_options, "true"], capture_output=True, timeout=20, check=False)
    return done.returncode == 0


def apparmor() -> str:
    """Why AppArmor cannot be tested here; ""."""
    try:
        enabled = Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        enabled = False
    if not enabled:
        return "AppArmor is not in force"
    return "" if shutil.which("apparmor_parser", path="/usr/sbin:/sbin:/usr/bin") else "no apparmor_parser"


def hide_v2() -> None:
    """In our namespace only: a view without cgroup2, for a runtime that refuses a hybrid machine whose cgroup2 has
    controllers (crun). The machine's own mounts and controllers stay as they are.
    """
    points = {point for key, point in cgroup_mounts().items() if key and point.startswith("/sys/fs/cgroup/")}
    unified = cgroup_mounts().get("", "")
    if not points or not unified.startswith("/sys/fs/cgroup/"):
        return
    keep = os.open("/sys/fs/cgroup", os.O_PATH | os.O_DIRECTORY)
    try:
        for point in {*points, unified}:
            mount("none", point, "", MS_PRIVATE)
        mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=755")
        for point in sorted(points):
            os.mkdir(point)
            mount(f"/proc/self/fd/{keep}/{Path(point).name}", point, "", MS_BIND)
    finally:
        os.close(keep)
    cgroup_mounts.cache_clear()
