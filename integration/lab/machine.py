"""One virtual machine: starting it, its monitor, and the channel to the agent inside."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

QEMU = "qemu-system-x86_64"
MEMORY = 2048
CPUS = 2
# nokaslr and mitigations=off: emulated, they only cost time. rcu_expedited: writes to cgroup.procs wait for RCU.
CMDLINE = (
    "console=ttyS0 root=/dev/vda mitigations=off nokaslr random.trust_cpu=on cryptomgr.notests nowatchdog audit=0 "
    "net.ifnames=0 rcupdate.rcu_expedited=1 quiet"
)
# A kernel that has failed often goes on in part, and the test waits for ever: with -no-reboot, qemu ends instead.
FAIL_SOON = "echo 1 >/proc/sys/kernel/panic_on_oops; echo -1 >/proc/sys/kernel/panic"

Sink = Callable[[str, bytes], None]


class LabError(Exception):
    """The lab does not work; the text says why."""


class AgentError(LabError):
    """The agent could not run the command."""


@dataclass
class Result:
    """How a command in the guest ended. status: as of a shell; None when it was killed after its timeout."""

    status: int | None
    stdout: bytes = b""
    stderr: bytes = b""


class Guest:
    """Where commands of the tests run; see Machine."""

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
        """Run a command."""
        raise NotImplementedError

    def put(self, archive: bytes, directory: str = "/") -> None:
        """Unpack a tar archive in the guest."""
        done = self.run(["tar", "-x", "-f", "-", "-C", directory], stdin=archive)
        if done.status != 0:
            raise LabError(f"tar in the guest: {done.stderr.decode(errors='replace')}")

    def get(self, path: str) -> bytes:
        """The content of a file in the guest."""
        done = self.run(["cat", path])
        if done.status != 0:
            raise LabError(done.stderr.decode(errors="replace").strip())
        return done.stdout


@dataclass
class Image:
    """The files of a built machine. state is missing while it is being built."""

    directory: Path
    disk: Path = field(init=False)
    kernel: Path = field(init=False)
    initrd: Path = field(init=False)
    state: Path = field(init=False)

    def __post_init__(self) -> None:
        self.disk = self.directory / "root.img"
        self.kernel = self.directory / "vmlinuz"
        self.initrd = self.directory / "initrd"
        self.state = self.directory / "state"


def command_line(image: Image, sockets: Path, *, restore: bool, boot: str = "") -> list[str]:
    """The command of qemu. A state fits only a machine with the same devices, memory and processors. boot: more words
    for the kernel; what is written to the disk is forgotten then, too.
    """
    words = [QEMU, *"-nodefaults -no-user-config -display none -no-reboot -M q35 -cpu max".split()]
    words += ["-accel", "tcg,thread=multi,tb-size=512", "-smp", str(CPUS), "-m", str(MEMORY)]
    words += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", f"{CMDLINE} {boot}".strip()]
    snapshot = "on" if restore or boot else "off"
    disk = f"if=none,id=r,file={image.disk},format=raw,snapshot={snapshot},cache=unsafe,file.locking=off"
    words += ["-drive", disk, "-device", "virtio-blk-pci,drive=r"]
    words += ["-device", "virtio-serial-pci", "-device", "virtio-rng-pci"]
    words += ["-chardev", f"socket,id=lab,path={sockets}/lab.sock,server=on,wait=off"]
    words += ["-device", "virtserialport,chardev=lab,name=lab.0"]
    words += ["-chardev", f"file,id=con,path={sockets}/console.log", "-serial", "chardev:con"]
    words += [
        "-chardev",
        f"socket,id=mon,path={sockets}/mon.sock,server=on,wait=off",
        "-mon",
        "chardev=mon,mode=control",
    ]
    if restore:
        words += ["-incoming", f"exec:cat {shlex.quote(str(image.state))}"]
    return words


class Machine(Guest):
    """A running machine; a context manager. With a saved state it is a new machine each time, and nothing that is
    done in it stays.
    """

    def __init__(self, image: Image, *, restore: bool = True, boot: str = "", patience: float = 300) -> None:
        """Start it and connect to the agent. patience: seconds until it answers. boot: not restored but booted, with
        these words on the kernel's command line.
        """
        self.image = image
        self.place = Path(tempfile.mkdtemp(prefix="lab-"))
        self.monitor: Monitor | None = None
        self.agent: socket.socket | None = None
        self._rest = b""
        command = command_line(image, self.place, restore=restore and not boot, boot=boot)
        # ends with us, whatever becomes of us
        command = ["setpriv", "--pdeathsig", "KILL", *command]
        with open(self.place / "qemu.log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            until = time.monotonic() + patience
            self.agent = self._connect("lab.sock", until)
            self.monitor = Monitor(self._connect("mon.sock", until))
            self._wait_for_agent(until)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it at once."""
        for connection in (self.agent, self.monitor and self.monitor.socket):
            if connection:
                connection.close()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.place, ignore_errors=True)

    def logs(self) -> str:
        """What qemu and the guest's console said last."""
        texts = []
        for name in ("qemu.log", "console.log"):
            with contextlib.suppress(OSError):
                texts.append((self.place / name).read_text(errors="replace")[-4000:])
        return "\n".join(texts).strip()

    def _connect(self, name: str, until: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        while True:
            try:
                connection.connect(str(self.place / name))
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > until:
                    connection.close()
                    raise LabError(f"qemu does not run: {self.logs()}") from error
                time.sleep(0.02)
            else:
                return connection

    def _wait_for_agent(self, until: float) -> None:
        """The guest is there when a command ends well. What is sent before the port is open is kept for it."""
        try:
            self.run(["sh", "-c", FAIL_SOON], timeout=max(1, until - time.monotonic()))
        except LabError as error:
            raise LabError(f"the guest does not answer: {error}: {self.logs()}") from error

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
        """Run a command in the guest. sink: gets ("o" or "e", bytes) as they come, instead of the result.

        Raises AgentError when it cannot be started there, LabError when the machine is gone.
        """
        assert self.agent is not None
        request = {
            "argv": list(argv),
            "env": dict(env or {}),
            "cwd": cwd,
            "stdin": len(stdin),
            "timeout": timeout,
            "now": time.time(),
        }
        # the agent sees to the timeout; the margin is for sending, and for a guest that has stopped
        self.agent.settimeout(timeout + 60)
        parts: dict[str, list[bytes]] = {"o": [], "e": []}
        try:
            self.agent.sendall(json.dumps(request).encode() + b"\n" + stdin)
            while True:
                kind, data = self._frame()
                if kind == "x":
                    break
                if sink:
                    sink(kind, data)
                else:
                    parts[kind].append(data)
        except OSError as error:
            raise LabError(f"the machine is gone: {error}: {self.logs()}") from error
        answer = json.loads(data)
        if "error" in answer:
            raise AgentError(answer["error"])
        return Result(answer.get("status"), b"".join(parts["o"]), b"".join(parts["e"]))

    def _frame(self) -> tuple[str, bytes]:
        head = self._read(5)
        kind, size = chr(head[0]), struct.unpack(">I", head[1:])[0]
        return kind, self._read(size)

    def _read(self, count: int) -> bytes:
        assert self.agent is not None
        while len(self._rest) < count:
            data = self.agent.recv(1 << 16)
            if not data:
                raise ConnectionError("end of the channel")
            self._rest += data
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    def save(self) -> None:
        """Write the state of the running machine beside its disk, and end it."""
        assert self.monitor is not None
        self.monitor.call("migrate-set-parameters", {"max-bandwidth": 1 << 40})
        scratch = self.image.state.with_suffix(".new")
        self.monitor.call("migrate", {"uri": f"exec:cat > {shlex.quote(str(scratch))}"})
        until = time.monotonic() + 120
        while True:
            info = self.monitor.call("query-migrate")
            if info.get("status") == "completed":
                break
            if info.get("status") in ("failed", "cancelled") or time.monotonic() > until:
                raise LabError(f"the state cannot be saved: {info}")
            time.sleep(0.1)
        self.monitor.call("quit")
        self.process.wait(timeout=60)
        scratch.rename(self.image.state)


class Monitor:
    """QMP: one command at a time, events are passed over."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(60)
        self._file = connection.makefile("rb")
        self._read()
        self.call("qmp_capabilities")

    def _read(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise LabError("the monitor of qemu has gone")
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    def call(self, name: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run a command; its answer."""
        request: dict[str, Any] = {"execute": name}
        if arguments:
            request["arguments"] = arguments
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            message = self._read()
            if "error" in message:
                raise LabError(f"{name}: {message['error'].get('desc')}")
            if "return" in message:
                answer = message["return"]
                return answer if isinstance(answer, dict) else {}


def to_streams(kind: str, data: bytes) -> None:
    """A sink: our own standard output and error."""
    stream = sys.stdout if kind == "o" else sys.stderr
    os.write(stream.fileno(), data)
