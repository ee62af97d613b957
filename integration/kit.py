"""What demo, bench and conformance share. Standard library only; needs root."""

import ctypes
import errno
import os
import shutil
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = os.environ.get("OCI_RUNTIME") or str(ROOT / "build" / "ociruntime")

CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 1 << 18, 2
PR_SET_CHILD_SUBREAPER = 36
CGROUPS = "/sys/fs/cgroup"
libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> None:
    """A libc function that returns -1 for an error, which becomes OSError."""
    if getattr(libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def adopt_orphans() -> None:
    """As an engine does: what a container leaves without a parent becomes our child, see reap()."""
    call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap() -> None:
    """Collect the exit status of children that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0] > 0:
            pass
    except ChildProcessError:
        return


def private_mounts() -> None:
    """Leave the host's mount namespace: what is mounted from here on ends with us."""
    call("unshare", CLONE_NEWNS)
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)


def mount_cgroup_v2() -> None:
    """Cover the host's cgroups with cgroup v2 alone. After private_mounts()."""
    call("mount", b"cgroup2", CGROUPS.encode(), b"cgroup2", 0, None)


def is_hybrid() -> bool:
    """Does the host mount cgroup v1 controllers, and v2 with the rest beside them?"""
    return Path(CGROUPS, "unified", "cgroup.controllers").is_file()


def mount_cgroup_v1(*, unified: bool, hugetlb: bool) -> None:
    """A directory of cgroup hierarchies of our own instead of the host's. After private_mounts().

    unified: with cgroup v2 as well (crun refuses it while it has controllers). hugetlb: make it a v1 controller as long
    as this mount namespace lives, if it is free: it is not while there are cgroups of others in v2.
    """
    hierarchies = [name for name in os.listdir(CGROUPS) if os.path.ismount(f"{CGROUPS}/{name}")]
    with tempfile.TemporaryDirectory() as place:
        call("mount", b"tmpfs", place.encode(), b"tmpfs", 0, None)
        for name in hierarchies:
            if name != "unified" or unified:
                os.mkdir(f"{place}/{name}")
                call("mount", f"{CGROUPS}/{name}".encode(), f"{place}/{name}".encode(), None, MS_BIND, None)
            call("umount2", f"{CGROUPS}/{name}".encode(), MNT_DETACH)
        if os.path.ismount(CGROUPS):
            call("umount2", CGROUPS.encode(), MNT_DETACH)
        call("mount", place.encode(), CGROUPS.encode(), None, MS_BIND | MS_REC, None)
        call("umount2", place.encode(), MNT_DETACH)
    if not hugetlb or os.path.ismount(f"{CGROUPS}/hugetlb"):
        return
    os.mkdir(f"{CGROUPS}/hugetlb")
    patience = time.monotonic() + 5
    while True:
        try:
            call("mount", b"cgroup", f"{CGROUPS}/hugetlb".encode(), b"cgroup", 0, b"hugetlb")
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > patience:
                os.rmdir(f"{CGROUPS}/hugetlb")
                print(f"hugetlb stays on cgroup v2: {error.strerror}")
                return
            time.sleep(0.05)
        else:
            return


def busybox() -> str:
    """The static busybox of the host."""
    for path in ("/bin/busybox", "/usr/bin/busybox"):
        if os.access(path, os.X_OK):
            return path
    raise SystemExit("busybox is missing: apt-get install busybox-static")


def make_rootfs(rootfs: Path, applets: "tuple[str, ...]" = ()) -> None:
    """A root file system of one static program."""
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(busybox(), rootfs / "bin" / "busybox")
    for applet in applets:
        (rootfs / "bin" / applet).symlink_to("busybox")
    (rootfs / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\ndemo:x:1000:1000:demo:/:/bin/sh\n")
    (rootfs / "etc" / "group").write_text("root:x:0:\ndemo:x:1000:\n")
