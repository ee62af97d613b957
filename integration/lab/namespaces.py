"""The lab's systemd without a virtual machine: in namespaces of the host, on the host's own cgroup hierarchies.

It starts in a second and runs as fast as the host. But kernel and controllers are the host's, too: on a machine with
cgroup v1 or a hybrid one, it is a systemd of that kind, which the virtual machine has to be booted for.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from integration.engines.sandbox import hierarchies, remove_groups, sweep
from integration.lab.machine import Guest, Image, LabError, Result, Sink
from integration.lib import host

NAME = "ociruntime-lab-{}"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}
NODES = {"null": "1 3", "zero": "1 5", "full": "1 7", "random": "1 8", "urandom": "1 9", "tty": "5 0", "kmsg": "1 11"}
# $1: work directory, $2: image. The shell becomes systemd, which gets no say in the host's modules and settings.
SCRIPT = r"""
set -eu
work=$1 image=$2 root=$1/root
mkdir "$work/image" "$work/top" "$root"
mount -o loop,ro "$image" "$work/image"
mount -t tmpfs tmpfs "$work/top"
mkdir "$work/top/upper" "$work/top/work"
mount -t overlay -o "lowerdir=$work/image,upperdir=$work/top/upper,workdir=$work/top/work" overlay "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/old"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for unit in lab-agent systemd-modules-load modprobe@; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit.service"
done
"""
START = """
cd "$root"
pivot_root . old
umount -l /old
exec env -i container=lab /lib/systemd/systemd
"""


def lacking() -> str:
    """Why there can be no systemd on cgroup v1 here; "" when there can."""
    if os.geteuid() != 0:
        return "not root"
    if not os.path.exists("/dev/loop-control"):
        return "no loop devices"
    return "" if "name=systemd" in host.cgroup_mounts() else "no hierarchy of cgroup v1 for systemd"


def _commands() -> str:
    """Device nodes and cgroup hierarchies, as lines for the script."""
    lines = [f'mknod -m 666 "$root/dev/{name}" c {numbers}' for name, numbers in NODES.items()]
    table = hierarchies(False)
    if len(table) > 1:
        lines.append('mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"')
    for _, place, kind, options in table:
        target = f'"$root/sys/fs/cgroup/{place}"'
        lines.append(f"mkdir -p {target}; mount -t {kind} {f'-o {options} ' if options else ''}{kind} {target}")
    return "\n".join(lines)


class Namespaces(Guest):
    """A systemd with the image's programs, which forgets everything at its end. Used as Machine is."""

    def __init__(self, image: Image, patience: float = 60) -> None:
        name = NAME.format(os.getpid())
        points = [point for point, *_ in hierarchies(False)]
        sweep(name, points)
        self.groups = [Path(point, name) for point in points]
        self.work = Path(tempfile.mkdtemp(prefix="ociruntime-lab-"))
        self.log = self.work / "log"
        enter = ""
        for group in self.groups:
            group.mkdir()
            for file in ("cpuset.cpus", "cpuset.mems"):  # v1: empty in a new group, and nobody may enter it then
                with contextlib.suppress(OSError):
                    if not (group / "cgroup.controllers").exists():
                        (group / file).write_text((group.parent / file).read_text())
            enter += f"echo 0 >{group}/cgroup.procs; "
        # it ends with this process, however that ends
        unshare = "exec setpriv --pdeathsig KILL unshare -m -C -p -u -i -n -f --kill-child --propagation private"
        script = "\n".join([SCRIPT, _commands(), START])
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", f'set -e; {enter} {unshare} sh -c "$0" sh "$@"', script, str(self.work), str(image.disk)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            self._wait_until_up(time.monotonic() + patience)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it with all that runs in it. Raises LabError if a cgroup is left."""
        self.process.kill()
        self.process.wait()
        end = time.monotonic() + 30
        while any(group.exists() for group in self.groups) and time.monotonic() < end:
            remove_groups(self.groups)
            time.sleep(0.05)
        shutil.rmtree(self.work, ignore_errors=True)
        left = [str(group) for group in self.groups if group.exists()]
        if left:
            raise LabError(f"cgroups left: {left}")

    def _wait_until_up(self, until: float) -> None:
        while time.monotonic() < until and self.process.poll() is None:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            if children:
                self.inside = ["nsenter", "-t", children[0], "-m", "-p", "-u", "-i", "-n", "-C"]
                with contextlib.suppress(subprocess.TimeoutExpired):
                    if self.run(["true"], timeout=10).status == 0:
                        return self._leave()
            time.sleep(0.1)
        raise LabError(f"systemd does not start in namespaces: {self.log.read_text(errors='replace')[-2000:]}")

    def _leave(self) -> None:
        """Of cgroup2, the root must be empty to hand controllers down: who waits for the end of systemd leaves it."""
        for group in self.groups:
            if (group / "cgroup.controllers").exists():
                with contextlib.suppress(OSError):
                    (group.parent / "cgroup.procs").write_text(str(self.process.pid))

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        timeout: float = 120,
        sink: Sink | None = None,
    ) -> Result:
        """Run a command in a service of its own; see Machine.run. sink gets all of it at the end."""
        given = [f"{name}={value}" for name, value in {**ENVIRONMENT, **(env or {})}.items()]
        service = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "-pDelegate=yes"]
        try:
            done = subprocess.run(
                [*self.inside, "env", "-i", f"PATH={PATH}", *service, f"-pWorkingDirectory={cwd}", "env", "-i", *given,
                 *argv],
                input=stdin, capture_output=True, timeout=timeout, check=False,
            )  # fmt: skip
            result = Result(done.returncode, done.stdout, done.stderr)
        except subprocess.TimeoutExpired as error:
            result = Result(None, error.stdout or b"", error.stderr or b"")
        if sink:
            sink("o", result.stdout)
            sink("e", result.stderr)
        return result
