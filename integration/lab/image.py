"""Building the machine's files, once, into a cache.

The directory of an image is named by a digest of everything that it is made of: the version and the command line of
qemu, this file with its list of packages, and the guest's files. It holds its own kernel, so it keeps working when the
host changes.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from integration.lab.machine import QEMU, Image, LabError, Machine, command_line

HERE = Path(__file__).resolve().parent
GUEST = HERE / "guest"
SUITE = "bookworm"
# The one for clouds is smaller, and has no RDMA device in software.
KERNEL = "linux-image-amd64"
# Directories of modules for what this machine does not have.
NO_MODULES = "ethernet gpu hwmon iio media platform scsi sound staging usb wireless".split()
# no udev: nothing is ever plugged in, and it is slow to start
PACKAGES = (
    "systemd systemd-sysv dbus dbus-user-session libpam-systemd python3 python3-venv libseccomp2 python3-seccomp "
    "libcap2 libyajl2 apparmor apparmor-utils iproute2 iptables nftables kmod procps uidmap fuse-overlayfs slirp4netns "
    "podman crun runc conmon criu catatonit busybox-static jq ca-certificates "
    "python3-pytest python3-jsonschema python3-pexpect"
).split()
MODULES = "virtio_pci virtio_blk virtio_console virtio_rng crc32c_generic ext4".split()
DISK = "3G"
# images that are kept beside the one in use, for another working copy
KEPT = 2

# What tests will need soon: read once, it is in the page cache of the saved state.
WARM_UP = r"""
python3 -m pytest --version
python3 -c 'import json, jsonschema, seccomp, subprocess, ctypes'
systemctl --no-pager list-units >/dev/null; systemd-run --quiet --scope true; busctl --no-pager list >/dev/null
podman info >/dev/null; podman ps; crun --version; runc --version; conmon --version; aa-status >/dev/null
run=/run/user/1000
setpriv --reuid lab --regid lab --init-groups env HOME=/home/lab XDG_RUNTIME_DIR=$run \
    DBUS_SESSION_BUS_ADDRESS=unix:path=$run/bus sh -c 'systemctl --user is-system-running; podman info' >/dev/null
for d in /usr/bin /usr/sbin /lib/x86_64-linux-gnu; do cat $d/* >/dev/null 2>&1; done; sync; true
"""


class NoArchiveError(LabError):
    """The packages are not to be had here and now."""


def cache() -> Path:
    """Where images are kept: $OCIRUNTIME_LAB_CACHE, or below the caches of the user."""
    given = os.environ.get("OCIRUNTIME_LAB_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ociruntime-lab"


def lacking() -> str:
    """Why there can be no lab on this machine; "" when there can."""
    if platform.machine() != "x86_64":
        return "the lab is an x86_64 machine"
    if os.geteuid() != 0:
        return "the image of the lab is built by root"
    for name in (QEMU, "mmdebstrap", "mke2fs", "cpio", "depmod", "setpriv"):
        if not shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
            return f"no {name} (integration/setup.sh lab)"
    return ""


def digest() -> str:
    """Name of the image that this working copy and this qemu want."""
    version = subprocess.run([QEMU, "--version"], capture_output=True, check=True, timeout=30).stdout
    total = hashlib.sha256(version)
    for word in command_line(Image(Path("image")), Path("sockets"), restore=True):
        total.update(word.encode() + b"\0")
    for path in (*sorted(GUEST.iterdir()), HERE / "image.py"):
        total.update(path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """One builder at a time."""
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(verbose: bool = True) -> Image:
    """The image, made if it is not there. Raises LabError."""
    why = lacking()
    if why:
        raise LabError(why)
    place = cache()
    image = Image(place / digest())
    if not image.state.exists():
        with locked(place):
            if not image.state.exists():
                _make(image, verbose)
                _forget_old(place, image)
    os.utime(image.directory)
    return image


def _forget_old(place: Path, current: Image) -> None:
    others = [path for path in place.iterdir() if re.fullmatch("[0-9a-f]{16}", path.name) and path != current.directory]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def _make(image: Image, verbose: bool) -> None:
    """All steps. The directory gets its name at the end, so half an image is never found."""
    began = time.monotonic()

    def say(text: str) -> None:
        if verbose:
            print(f"lab: {time.monotonic() - began:5.1f} s: {text}", file=sys.stderr, flush=True)

    shutil.rmtree(image.directory, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=image.directory.parent) as scratch:
        work = Image(Path(scratch))
        rootfs, tree = work.directory / "rootfs", work.directory / "kernel"
        say("kernel")
        release = _kernel(work, tree)
        say(f"{release}; Debian tree")
        _rootfs(rootfs)
        say("disk and initramfs")
        shutil.copytree(
            tree / "lib/modules" / release,
            rootfs / "usr/lib/modules" / release,
            ignore=shutil.ignore_patterns(*NO_MODULES),
        )
        _initrd(work, rootfs / "usr/lib/modules" / release, release)
        _run("truncate", "-s", DISK, str(work.disk))
        options = "^has_journal,^metadata_csum,^resize_inode"
        fast = "lazy_itable_init=1,root_owner=0:0"
        _run("mke2fs", "-q", "-t", "ext4", "-F", "-O", options, "-E", fast, "-m0", "-d", str(rootfs), str(work.disk))
        shutil.rmtree(rootfs)
        shutil.rmtree(tree)
        say("first boot")
        with Machine(work, restore=False, patience=300) as machine:
            say("warm up")
            done = machine.run(["sh", "-c", WARM_UP], timeout=300)
            if done.status != 0:
                raise LabError(f"the guest does not work: {done.stderr.decode(errors='replace')}")
            say("saving the state")
            machine.save()
        image.directory.mkdir()
        # the state last: with it the image is there
        for path in (work.disk, work.kernel, work.initrd, work.state):
            path.rename(image.directory / path.name)
        say("done")


def _run(*argv: str, cwd: Path | None = None, data: bytes | None = None, timeout: float = 900) -> bytes:
    """Run a command of the host; its output."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(
        argv, cwd=cwd, input=data, capture_output=True, timeout=timeout, env={**os.environ, "PATH": path}, check=False
    )
    if done.returncode:
        raise LabError(f"{argv[0]}: {done.stderr.decode(errors='replace')[-3000:].strip()}")
    return done.stdout


def _kernel(work: Image, tree: Path) -> str:
    """Unpack Debian's kernel, without installing it on this machine; its release."""
    found = _run("apt-cache", "depends", "--important", KERNEL).decode()
    names = re.findall(r"Depends: (linux-image-\S+)", found)
    if not names:
        raise NoArchiveError(f"apt does not know {KERNEL} (apt-get update)")
    try:
        _run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", names[0], cwd=work.directory)
    except LabError as error:
        raise NoArchiveError(f"the Debian archive is not reached: {error}") from error
    (package,) = work.directory.glob("*.deb")
    _run("dpkg-deb", "-x", str(package), str(tree))
    package.unlink()
    release = names[0].removeprefix("linux-image-")
    shutil.move(tree / "boot" / f"vmlinuz-{release}", work.kernel)
    return release


def _sources() -> bytes:
    """This machine's sources of the suite, whatever form they have, as lines of sources.list."""
    form = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    lines = _run("apt-get", "indextargets", "--format", form, "Created-By: Packages").decode().splitlines()
    wanted = sorted({line for line in lines if re.search(rf" {SUITE}(-updates|-security)? main$", line)})
    return ("\n".join(wanted) + "\n").encode() if any(f" {SUITE} " in line for line in wanted) else b""


def _rootfs(rootfs: Path) -> None:
    """The tree of the guest, with the proxies and sources of this machine's apt."""
    words = ["mmdebstrap", "--quiet", "--variant=apt", "--mode=root", f"--include={','.join(PACKAGES)}"]
    words += ['--aptopt=APT::Install-Recommends "false"', "--dpkgopt=force-unsafe-io"]
    words += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale", "info")]
    for line in _run("apt-config", "dump").decode().splitlines():
        if re.match(r"Acquire::(http|https|ftp)::(Proxy|Timeout)\b|Acquire::(Retries|ForceIPv4)\b", line):
            words.append(f"--aptopt={line.rstrip(';')}")
    words += [f"--customize-hook={GUEST / 'customize.sh'}", SUITE, str(rootfs)]
    sources = _sources()
    _run(*words, *(["-"] if sources else []), data=sources)


def _initrd(work: Image, modules: Path, release: str) -> None:
    """busybox, the modules that the disk and the channel need, and our init."""
    top = work.directory / "initrd.d"
    (top / "bin").mkdir(parents=True)
    (top / "modules").mkdir()
    _run("depmod", "-b", str(modules.parent.parent.parent), release)
    order: list[str] = []
    base = str(modules.parent.parent.parent)
    for name in MODULES:
        for line in _run("modprobe", "-d", base, "-S", release, "--show-depends", name).decode().splitlines():
            word, _, path = line.partition(" ")
            path = path.split(" ")[0]
            if word == "insmod" and Path(path).name not in order:
                shutil.copy(path, top / "modules")
                order.append(Path(path).name)
    (top / "modules" / "order").write_text("".join(f"{name}\n" for name in order))
    shutil.copy("/bin/busybox", top / "bin" / "busybox")
    shutil.copy(GUEST / "init", top / "init")
    names = b"".join(os.fsencode(path.relative_to(top)) + b"\0" for path in [*sorted(top.rglob("*"))])
    archive = _run("cpio", "--quiet", "--null", "-o", "-H", "newc", cwd=top, data=names)
    work.initrd.write_bytes(gzip.compress(archive, 1))
    shutil.rmtree(top)
