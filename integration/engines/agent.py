"""The program inside the sandbox: makes a small machine of its own out of fresh namespaces, then runs commands there.

Started by sandbox.py as PID 1 of a PID namespace, with mount, network, UTS and IPC namespaces that are new too. Reads
requests from stdin and answers on stdout, one JSON object a line; each request carries an id, which the answer repeats.
The end of stdin is the end of everything in here: the kernel kills what is left when PID 1 goes.

It needs nothing but the standard library, and takes its settings as JSON in its only argument: `groups` (directories
of the host's cgroup hierarchies to live in), `mounts` (what to mount where below /sys/fs/cgroup), `state` (directories
in which runtimes keep their containers), `users` (name: uid, home, first of 65536 subordinate ids).
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import json
import os
import pty
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path
from typing import Any

CLONE_NEWCGROUP = 0x02000000
HOSTNAME = "engine-host"
POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}\n'


def call(*argv: str) -> None:
    """Run a command of the set-up; its failure ends the sandbox."""
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, timeout=30)


def enter_cgroups(groups: list[str]) -> None:
    """Move into our groups and make them the roots of what can be seen from here."""
    for directory in groups:
        if (Path(directory) / "cpuset.cpus").exists() and not (Path(directory) / "cgroup.controllers").exists():
            for name in ("cpuset.cpus", "cpuset.mems"):  # v1: empty in a new group, and nobody may enter it then
                Path(directory, name).write_text(Path(directory).parent.joinpath(name).read_text())
        Path(directory, "cgroup.procs").write_text("0")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWCGROUP):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWCGROUP)")


def mount_cgroups(mounts: list[list[str]]) -> None:
    """Mount the hierarchies; on cgroup2, leave the root, so that it may hand its controllers down."""
    if [place for place, _, _ in mounts] != ["."]:
        call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/sys/fs/cgroup")
    for place, kind, options in mounts:
        point = Path("/sys/fs/cgroup", place)
        point.mkdir(exist_ok=True)
        call("mount", "-t", kind, *(["-o", options] if options else []), kind, str(point))
        if kind == "cgroup2":
            point.joinpath("engine").mkdir()
            point.joinpath("engine/cgroup.procs").write_text("0")
            for controller in point.joinpath("cgroup.controllers").read_text().split():
                try:
                    point.joinpath("cgroup.subtree_control").write_text(f"+{controller}")
                except OSError:
                    continue  # its limits cannot be tested here


def make_devices() -> None:
    """A /dev of our own: a runtime that changes a device's owner changes nothing of the machine's."""
    os.umask(0)
    call("mount", "-t", "tmpfs", "-o", "mode=755,dev", "tmpfs", "/dev")
    for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
        os.mknod(f"/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(1, minor))
    os.mknod("/dev/tty", 0o666 | stat.S_IFCHR, os.makedev(5, 0))
    for name, kind, options in (
        ("shm", "tmpfs", "mode=1777"),
        ("mqueue", "mqueue", "defaults"),
        ("pts", "devpts", "newinstance,ptmxmode=0666,gid=5"),
    ):
        os.mkdir(f"/dev/{name}")
        call("mount", "-t", kind, "-o", options, kind, f"/dev/{name}")
    os.symlink("pts/ptmx", "/dev/ptmx")
    os.mkdir("/dev/net")
    os.mknod("/dev/net/tun", 0o666 | stat.S_IFCHR, os.makedev(10, 200))  # for networks of ordinary users
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"/dev/{name}")
    os.symlink("/proc/self/fd", "/dev/fd")
    os.umask(0o022)


def add_users(users: dict[str, Any]) -> None:
    """Ordinary users, and the owner of ids for --userns=auto ("containers"), in copies of the files in /etc."""
    lines: dict[str, list[str]] = {"passwd": [], "group": [], "subuid": ["containers:1000000:1048576"]}
    for name, (number, home, first) in users.items():
        lines["passwd"].append(f"{name}:x:{number}:{number}:{name}:{home}:/bin/sh")
        lines["group"].append(f"{name}:x:{number}:")
        lines["subuid"].append(f"{name}:{first}:65536")
        for place, mode in ((home, 0o755), (f"/run/user/{number}", 0o700)):
            os.makedirs(place, exist_ok=True)
            os.chmod(place, mode)
            os.chown(place, number, number)
    lines["subgid"] = lines["subuid"]
    Path("/run/etc").mkdir()
    for name, more in lines.items():
        place = Path("/etc", name)
        old = place.read_text() if place.exists() else ""
        Path("/run/etc", name).write_text(old + "".join(f"{line}\n" for line in more))
        if place.exists():
            call("mount", "--bind", f"/run/etc/{name}", str(place))


def furnish(settings: dict[str, Any]) -> None:
    """Directories that engines write to become our own; the settings of the machine's engines stay out of sight."""
    call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    Path("/run/lock").mkdir()
    make_devices()
    call("umount", "-R", "-l", "/sys")  # the old one shows the network devices of another namespace
    call("mount", "-t", "sysfs", "sysfs", "/sys")
    mount_cgroups(settings["mounts"])
    for place in ("/etc/containers", "/etc/cni/net.d", "/var/lib/cni", "/var/lib/containers", "/var/lib/containerd"):
        if os.path.isdir(place):
            call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", place)
    if os.path.isdir("/etc/containers"):
        Path("/etc/containers/policy.json").write_text(POLICY)
    add_users(settings["users"])
    call("mount", "--make-rshared", "/")
    if shutil.which("ip"):
        call("ip", "link", "set", "lo", "up")
    socket.sethostname(HOSTNAME)


class Command:
    """A command that runs, or has run. Its output goes to unnamed files: what it leaves running cannot hold us up.

    terminal: its standard streams are a terminal, its controlling one, and "out" is what appears there.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.out = tempfile.TemporaryFile()  # noqa: SIM115
        self.err = tempfile.TemporaryFile()  # noqa: SIM115
        self.terminal = -1
        if request.get("terminal", False):
            self.start_on_terminal(request)
            return
        piped = request.get("open_stdin", False)
        with tempfile.TemporaryFile() as given:
            given.write(base64.b64decode(request.get("stdin", "")))
            given.seek(0)
            self.process = subprocess.Popen(
                request["argv"],
                stdin=subprocess.PIPE if piped else given,
                stdout=self.out,
                stderr=self.err,
                env=request["env"],
                start_new_session=True,
            )

    def start_on_terminal(self, request: dict[str, Any]) -> None:
        """Start it on a new terminal of 24 lines; a thread collects what appears there."""
        self.terminal, other = pty.openpty()
        self.resize(24, 80)
        # setsid(1) and not start_new_session: it makes the terminal the controlling one, and keeps the PID.
        self.process = subprocess.Popen(
            ["setsid", "-c", *request["argv"]], stdin=other, stdout=other, stderr=other, env=request["env"]
        )
        os.close(other)
        self.copier = threading.Thread(target=self.copy, daemon=True)
        self.copier.start()

    def copy(self) -> None:
        """What appears on the terminal, until nobody has it open any more."""
        with contextlib.suppress(OSError):
            while data := os.read(self.terminal, 65536):
                os.write(self.out.fileno(), data)

    def resize(self, rows: int, columns: int) -> None:
        """Another size of the terminal; its foreground processes get SIGWINCH."""
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def write(self, data: bytes) -> None:
        """To its stdin, or as if typed at its terminal. No data: the end of stdin."""
        if self.terminal >= 0:
            os.write(self.terminal, data)
            return
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(data)
            self.process.stdin.flush()
            if not data:
                self.process.stdin.close()

    def output(self) -> dict[str, Any]:
        """What it has written up to now. pread: the files' positions belong to the command."""
        found = {}
        for name, file in (("out", self.out), ("err", self.err)):
            data = os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
            found[name] = base64.b64encode(data).decode()
        return {**found, "code": self.process.poll()}

    def wait(self, timeout: float) -> dict[str, Any]:
        """Its end; code None when it had to be killed."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            shown = self.output()
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(60)
            return shown
        if self.terminal >= 0:
            self.copier.join(60)
            os.close(self.terminal)
        shown = self.output()
        self.out.close()
        self.err.close()
        return shown


def processes() -> list[str]:
    """All processes here but us and PID 1, zombies too: "pid parent status command"."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in (1, os.getpid()):
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                status = Path(f"/proc/{entry}/stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            found.append(f"{entry} {status[1]} {status[0]} {words}")
    return found


def look(settings: dict[str, Any]) -> dict[str, list[str]]:
    """What there is: processes, cgroups, mounts, containers known to the runtime, owners and modes of devices."""
    groups = [directory for directory, _, _ in os.walk("/sys/fs/cgroup")]
    state = [
        f"{root}/{name}"
        for root in settings["state"]
        if os.path.isdir(root)
        for name in os.listdir(root)
        if not name.startswith(".")
    ]
    # A mount without its ids and without the numbers of its peer groups: these differ each time.
    mounts = [
        " ".join(line.split()[3:6]) + " " + line.rpartition(" - ")[2]
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    ]
    devices = [f"{name} {os.stat(f'/dev/{name}')!r}".partition(" st_atime")[0] for name in ("null", "zero", "full")]
    return {"processes": processes(), "cgroups": groups, "state": state, "mounts": mounts, "devices": devices}


class Agent:
    """Answers requests, each in a thread of its own."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.commands: dict[int, Command] = {}
        self.write_lock = threading.Lock()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request."""
        kind = request["do"]
        if kind == "start":
            command = Command(request)
            self.commands[command.process.pid] = command
            return {"pid": command.process.pid}
        if kind == "run":
            return Command(request).wait(request["timeout"])
        if kind == "wait":
            return self.commands.pop(request["pid"]).wait(request["timeout"])
        if kind == "output":
            return self.commands[request["pid"]].output()
        if kind == "signal":
            self.commands[request["pid"]].process.send_signal(request["number"])
            return {}
        if kind == "write":
            self.commands[request["pid"]].write(base64.b64decode(request["data"]))
            return {}
        if kind == "resize":
            self.commands[request["pid"]].resize(request["rows"], request["columns"])
            return {}
        if kind == "look":
            return look(self.settings)
        raise ValueError(f"unknown request {kind}")

    def serve(self, line: str) -> None:
        """One request, from its line to the line of its answer."""
        request = json.loads(line)
        try:
            answer = self.answer(request)
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        with self.write_lock:
            print(json.dumps({"id": request["id"], **answer}), flush=True)

    def run(self) -> None:
        """Until stdin ends."""
        print(json.dumps({"id": 0}), flush=True)
        for line in sys.stdin:
            threading.Thread(target=self.serve, args=(line,), daemon=True).start()


def reap(agent: int) -> None:
    """PID 1: collect whatever dies, until the agent does."""
    while True:
        pid, _ = os.wait()
        if pid == agent:
            break
    # The kernel kills the rest when we end; what is done here is only to see it gone before cgroups are removed.
    for _ in range(100):
        try:
            os.kill(-1, signal.SIGKILL)
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except (ProcessLookupError, ChildProcessError):
            return
        time.sleep(0.02)


def main() -> None:
    """Set up, then serve in a child: PID 1 itself must be free to collect orphans."""
    settings = json.loads(sys.argv[1])
    enter_cgroups(settings["groups"])
    furnish(settings)
    child = os.fork()
    if child:
        os.close(0)
        os.close(1)
        reap(child)
        return
    Agent(settings).run()
    os._exit(0)


if __name__ == "__main__":
    main()
