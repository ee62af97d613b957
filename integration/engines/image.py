"""An image made here: busybox, the probe of the other tests, a few users. An OCI image layout in a tar archive."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

IMAGE = "localhost/bb:latest"
PAUSE_IMAGE = "localhost/bb:pause"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PASSWD = "root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1001:worker:/home/worker:/bin/sh\n"
GROUP = "root:x:0:\nstaff:x:1001:\nextra:x:1002:worker\n"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def busybox() -> str:
    """The static busybox of this machine, or "" when there is none."""
    path = shutil.which("busybox", path="/bin:/usr/bin:/usr/local/bin") or ""
    if not path or b"/ld-linux" in Path(path).read_bytes()[:8192]:
        return ""
    return path


def layer(probe: Path) -> bytes:
    """The root file system as a tar archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:

        def add(name: str, data: bytes = b"", mode: int = 0o644, kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(data), link
            tar.addfile(entry, io.BytesIO(data))

        for name in ("bin", "dev", "etc", "home", "home/worker", "proc", "root", "run", "srv", "sys", "tmp", "var"):
            add(name, mode=0o1777 if name == "tmp" else 0o755, kind=tarfile.DIRTYPE)
        program = busybox()
        add("bin/busybox", Path(program).read_bytes(), 0o755)
        applets = subprocess.run([program, "--list"], capture_output=True, text=True, timeout=20, check=True).stdout
        for applet in sorted(set(applets.split()) - {"busybox", "probe"}):
            add(f"bin/{applet}", kind=tarfile.SYMTYPE, mode=0o777, link="busybox")
        add("bin/probe", probe.read_bytes(), 0o755)
        add("etc/passwd", PASSWD.encode())
        add("etc/group", GROUP.encode())
        add("etc/not-a-program", b"just text\n")
        add("etc/bad-interpreter", b"#!/no/such/interpreter\n", 0o755)
        add("srv/file", b"from the image\n")
    return packed.getvalue()


def make(target: Path, probe: Path, name: str = IMAGE, command: Sequence[str] = ("sh",)) -> Path:
    """Write the archive to target. command: what a container does when it is not told."""
    tree = layer(probe)
    blobs: dict[str, bytes] = {}

    def blob(kind: str, data: bytes, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data), **more}

    machine = os.uname().machine
    config = {
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {"Env": ["PATH=/bin", "IMAGE_VARIABLE=image"], "Cmd": list(command), "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tree).hexdigest()]},
        "history": [{"created_by": "integration/engines"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blob(CONFIG, json.dumps(config).encode()),
        "layers": [blob(LAYER, gzip.compress(tree, 1, mtime=0))],
    }
    names = {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}
    entry = blob(MANIFEST, json.dumps(manifest).encode(), annotations=names)
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        **{f"blobs/sha256/{digest}": data for digest, data in blobs.items()},
    }
    with tarfile.open(target, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o644
            tar.addfile(info, io.BytesIO(data))
    return target
