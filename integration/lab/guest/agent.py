"""Runs commands in the guest for the host. Standard library only.

One virtio-serial port, found by its name, one request at a time. A request is a line of JSON and, right behind it,
`stdin` bytes:

    {"argv": [...], "env": {...}, "cwd": "/", "stdin": 0, "timeout": 60, "now": 1700000000.0}

`env` is added to the agent's own; `now` is the host's clock, which a restored machine does not know. The answer is a
row of frames, each a byte that says what it is, four bytes of length (big endian) and the bytes: `o` standard output,
`e` standard error, and last `x`, JSON: {"status": N} as of a shell (128+N for a signal), {"timeout": true} or
{"error": "text"} when the command could not be run.
"""

import glob
import json
import os
import select
import signal
import struct
import subprocess
import tempfile
import time

NAME = "lab.0"


def find_port() -> int:
    """The descriptor of the port with our name; waits for it."""
    while True:
        for path in glob.glob("/sys/class/virtio-ports/*/name"):
            with open(path) as file:
                if file.read().strip() == NAME:
                    return os.open("/dev/" + path.split("/")[-2], os.O_RDWR | os.O_CLOEXEC)
        time.sleep(0.05)


class Port:
    """Bytes to and from the host. The port reads as empty while nobody is connected there."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.rest = b""

    def more(self) -> bytes:
        """At least one byte."""
        while True:
            data = os.read(self.fd, 1 << 16)
            if data:
                return data
            time.sleep(0.02)

    def line(self) -> bytes:
        """Up to and without the next line end."""
        while b"\n" not in self.rest:
            self.rest += self.more()
        line, _, self.rest = self.rest.partition(b"\n")
        return line

    def copy(self, count: int, fd: int) -> None:
        """Move `count` bytes to a file."""
        while count:
            data = (self.rest or self.more())[:count]
            self.rest = self.rest[len(data) :]
            count -= len(data)
            while data:
                data = data[os.write(fd, data) :]

    def frame(self, kind: bytes, data: bytes) -> None:
        """Send one frame."""
        block = kind + struct.pack(">I", len(data)) + data
        while block:
            block = block[os.write(self.fd, block) :]


def serve(port: Port, request: "dict[str, object]", stdin: int) -> "dict[str, object]":
    """Run one command, passing its output on; how it ended."""
    command = subprocess.Popen(
        request["argv"],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **request.get("env", {})},
        cwd=request.get("cwd") or "/",
        start_new_session=True,
    )
    patience = time.monotonic() + float(request.get("timeout") or 60)
    streams = {command.stdout.fileno(): b"o", command.stderr.fileno(): b"e"}
    ended_at = None
    late = False
    while streams:
        ready, _, _ = select.select(list(streams), [], [], 0.2)
        for fd in ready:
            data = os.read(fd, 1 << 16)
            if data:
                port.frame(streams[fd], data)
            else:
                del streams[fd]
        if not late and time.monotonic() > patience:
            late = True
            os.killpg(command.pid, signal.SIGKILL)
        # what the command left running may hold its streams open for ever
        if command.poll() is not None and not ready:
            ended_at = ended_at or time.monotonic()
            if time.monotonic() > ended_at + 1:
                break
    status = command.wait()
    command.stdout.close()
    command.stderr.close()
    return {"timeout": True} if late else {"status": status if status >= 0 else 128 - status}


def main() -> None:
    """Serve for ever."""
    port = Port(find_port())
    while True:
        line = port.line()
        if not line:
            continue
        answer: "dict[str, object]" = {}
        with tempfile.TemporaryFile(dir="/run") as stdin:
            try:
                request = json.loads(line)
                port.copy(int(request.get("stdin", 0)), stdin.fileno())
                stdin.seek(0)
                now = request.get("now")
                if now and abs(time.time() - now) > 1:
                    time.clock_settime(time.CLOCK_REALTIME, now)
                answer = serve(port, request, stdin.fileno())
            except (OSError, ValueError, KeyError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
        port.frame(b"x", json.dumps(answer).encode())


if __name__ == "__main__":
    main()
