"""The probe: building it, and reading what it prints."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

SOURCES = sorted((Path(__file__).resolve().parent.parent / "helper").glob("*.[ch]"))

Reply = dict[str, Any]


def build(cache: Path) -> Path:
    """Compile the probe into cache, named by the digest of its sources, and return its path."""
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in SOURCES)).hexdigest()
    binary = cache / f"probe-{digest[:16]}"
    if binary.exists():
        return binary
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        raise RuntimeError("the integration tests need a C compiler (gcc) for their helper")
    cache.mkdir(parents=True, exist_ok=True)
    scratch = cache / f"probe.{os.getpid()}"
    subprocess.run(
        [compiler, "-static", "-O1", "-Wall", "-Wextra", "-o", scratch, *(s for s in SOURCES if s.suffix == ".c")],
        check=True,
        timeout=120,
    )
    scratch.chmod(0o755)
    scratch.rename(binary)
    return binary


def chain(commands: Iterable[str | Sequence[str]]) -> list[str]:
    """The probe's arguments for these commands. A str is split at blanks, anything else is taken as it is."""
    words: list[str] = []
    for command in commands:
        if words:
            words.append(";;")
        words.extend(command.split() if isinstance(command, str) else command)
    return words


def _bytes_back(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("latin-1").decode("utf-8", "surrogateescape")
    if isinstance(value, list):
        return [_bytes_back(item) for item in value]
    if isinstance(value, dict):
        return {_bytes_back(name): _bytes_back(item) for name, item in value.items()}
    return value


def parse(output: bytes) -> list[Reply]:
    """All replies in the probe's output; lines that are not the probe's are skipped."""
    replies = []
    for line in output.decode("latin-1").split("\n"):
        if line.startswith('{"cmd":'):
            replies.append(_bytes_back(json.loads(line)))
    return replies


class Mount:
    """One line of mountinfo."""

    def __init__(self, line: str) -> None:
        left, right = line.split(" - ", 1)
        words = left.split(" ")
        self.line = line
        self.id, self.parent, self.device, self.root, self.point = words[:5]
        self.options = set(words[5].split(","))
        self.tags = words[6:]
        kind, source, super_options = right.split(" ", 2)
        self.type = kind
        self.source = source
        self.super_options = set(super_options.split(","))

    def __repr__(self) -> str:
        return self.line


def mounts(mountinfo: str) -> list[Mount]:
    """The table as records, in order."""
    return [Mount(line) for line in mountinfo.splitlines() if line]


def mount_at(mountinfo: str, point: str) -> Mount:
    """The uppermost mount at this place."""
    found = [mount for mount in mounts(mountinfo) if mount.point == point]
    assert found, f"nothing is mounted at {point}:\n{mountinfo}"
    return found[-1]


CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()


def capability_names(mask: str) -> set[str]:
    """Names (with CAP_) of a hexadecimal mask as in /proc/self/status."""
    number = int(mask, 16)
    return {f"CAP_{name}" for bit, name in enumerate(CAPABILITIES) if number >> bit & 1}
