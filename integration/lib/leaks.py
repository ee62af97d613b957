"""What is left behind: mounts, cgroups, processes, state, and a few things of the host that must never change."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from integration.lib import host
from integration.lib.bundle import CGROUP_PREFIX

# What is done with each of them (--rootless).
on_prefix: Callable[[str], None] | None = None


def hierarchies() -> list[str]:
    """Mount points of all cgroup hierarchies."""
    return sorted(set(host.cgroup_mounts().values()))


def directories(top: str) -> Iterator[str]:
    """top and all below, children after their parents. Not os.walk: deeper than a recursion may go."""
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        yield directory
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


def cgroups_with(token: str) -> list[str]:
    """All cgroup directories, in every hierarchy, with token in their path; children after their parents."""
    return [path for top in hierarchies() for path in directories(top) if token in path[len(top) :]]


def processes_with(token: str) -> list[str]:
    """PID, status and command line of processes that have token in their command line or cgroup; never ourselves."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            line = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            group = Path(f"/proc/{entry}/cgroup").read_text()
            status = Path(f"/proc/{entry}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if token in line or token in group:
            found.append(f"{entry} {status[0]} parent {status[1]}: {line}")
    return found


def children() -> list[int]:
    """PIDs of our children, dead ones too."""
    return [int(word) for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def reap_orphans(keep: set[int]) -> list[str]:
    """Collect dead children that are not in keep (orphans given to us as their subreaper); describe live ones."""
    left = []
    for pid in children():
        if pid in keep:
            continue
        try:
            done, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue
        if not done:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                left.append(f"{pid}: {words}")
    return left


def null_device() -> tuple[int, int, int, int]:
    """Mode, owner and number of the host's /dev/null."""
    found = os.stat("/dev/null")
    return found.st_mode, found.st_uid, found.st_gid, found.st_rdev


class Leaks:
    """A snapshot of the host, and what has changed since. keep: live children that are known."""

    def __init__(self, token: str, root: Path, keep: set[int]) -> None:
        self.token = token
        self.root = root
        self.keep = keep
        self.mounts = Counter(host.own_mountinfo())
        self.null = null_device()
        self.names = (socket.gethostname(), Path("/proc/sys/kernel/domainname").read_text())
        self.cgroups = set(cgroups_with(token))
        self.state = set(self.entries())
        self.fds = set(os.listdir("/proc/self/fd"))

    def entries(self) -> list[str]:
        """What is in the state root. crun keeps a cache directory of its own there."""
        if not self.root.exists():
            return []
        return [name for name in os.listdir(self.root) if not name.startswith(".")]

    def found(self, settle: float = 20.0) -> list[str]:
        """Everything that is left, after giving the kernel a moment for dying processes."""
        end = time.monotonic() + settle
        while True:
            report = self._look()
            if not report or time.monotonic() > end:
                return report
            time.sleep(0.02)

    def _look(self) -> list[str]:
        report = [f"live child {line}" for line in reap_orphans(self.keep)]
        now = Counter(host.own_mountinfo())
        report += [f"new mount {line}" for line in now - self.mounts]
        report += [f"lost mount {line}" for line in self.mounts - now]
        report += [f"cgroup {path}" for path in cgroups_with(self.token) if path not in self.cgroups]
        report += [f"process {line}" for line in processes_with(self.token)]
        report += [f"state {name}" for name in self.entries() if name not in self.state]
        if null_device() != self.null:
            report.append(f"/dev/null was {self.null}, is {null_device()}")
        if (socket.gethostname(), Path("/proc/sys/kernel/domainname").read_text()) != self.names:
            report.append("host or domain name of the host")
        return report

    def check(self) -> None:
        """Fail the test when anything is left."""
        report = self.found()
        assert not report, "left behind:\n" + "\n".join(report)

    def repair(self) -> None:
        """Take away by force what was left, so that the next test starts clean."""
        for line in processes_with(self.token):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)
        for _ in range(50):
            reap_orphans(self.keep)
            left = [path for path in cgroups_with(self.token) if path not in self.cgroups]
            for path in reversed(left):
                thaw(path)
                with contextlib.suppress(OSError):
                    os.rmdir(path)
            if not left:
                break
            time.sleep(0.02)
        for name in self.entries():
            if name not in self.state:
                shutil.rmtree(self.root / name, ignore_errors=True)
        for line, count in (Counter(host.own_mountinfo()) - self.mounts).items():
            for _ in range(count):
                with contextlib.suppress(OSError):
                    host.umount(line.split(" ")[4])
        if null_device() != self.null:
            os.chown("/dev/null", self.null[1], self.null[2])
            os.chmod("/dev/null", self.null[0] & 0o7777)


def thaw(path: str) -> None:
    """Let a frozen cgroup go on."""
    for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
        with contextlib.suppress(OSError):
            Path(path, name).write_text(word)


def make_prefixes() -> None:
    """The common parent of all test cgroups of this session, in every hierarchy."""
    for top in hierarchies():
        while not os.path.isdir(os.path.join(top, CGROUP_PREFIX)):
            with contextlib.suppress(FileNotFoundError):  # a session that ends may just be taking the parent away
                Path(top, CGROUP_PREFIX).mkdir(parents=True, exist_ok=True)
        if on_prefix is not None:
            on_prefix(os.path.join(top, CGROUP_PREFIX))


def sweep() -> None:
    """Remove the empty cgroups of sessions that were killed."""
    for top in hierarchies():
        for session in Path(top, CGROUP_PREFIX).parent.glob("it*x"):
            if not Path("/proc", session.name[2:-1]).exists():
                for directory in reversed([*directories(str(session))]):
                    with contextlib.suppress(OSError):
                        os.rmdir(directory)


def remove_prefixes(token: str) -> list[str]:
    """Remove our cgroups and, if nobody else uses it, the common parent. Returns what could not be removed."""
    for path in reversed(cgroups_with(token)):
        with contextlib.suppress(OSError):
            os.rmdir(path)
    for top in hierarchies():
        with contextlib.suppress(OSError):
            os.rmdir(Path(top, CGROUP_PREFIX).parent)
    return cgroups_with(token)
