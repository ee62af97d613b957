"""The bundle builder: a root file system that holds only the probe, and a config that tests change by merging."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from integration.lib import probe as probes

PROBE = "/probe"
CGROUP_PREFIX = f"ociruntime-it/it{os.getpid()}x"
DEFAULT_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
MASKED = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

PROC_MOUNT = {"destination": "/proc", "type": "proc", "source": "proc"}
DEV_MOUNT = {
    "destination": "/dev",
    "type": "tmpfs",
    "source": "tmpfs",
    "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
}
DEVPTS_MOUNT = {
    "destination": "/dev/pts",
    "type": "devpts",
    "source": "devpts",
    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
}
SHM_MOUNT = {
    "destination": "/dev/shm",
    "type": "tmpfs",
    "source": "shm",
    "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
}
MQUEUE_MOUNT = {
    "destination": "/dev/mqueue",
    "type": "mqueue",
    "source": "mqueue",
    "options": ["nosuid", "noexec", "nodev"],
}
SYS_MOUNT = {
    "destination": "/sys",
    "type": "sysfs",
    "source": "sysfs",
    "options": ["nosuid", "noexec", "nodev", "ro"],
}


def default_config() -> dict[str, Any]:
    """What an engine would ask for by default, as small as it can be: the probe reports."""
    capabilities = {name: list(DEFAULT_CAPABILITIES) for name in ("bounding", "effective", "permitted")}
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "hostname": "it",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": [PROBE, "report"],
            "env": ["PATH=/bin:/", "TERM=xterm"],
            "cwd": "/",
            "capabilities": capabilities,
            "noNewPrivileges": True,
        },
        "mounts": [copy.deepcopy(m) for m in (PROC_MOUNT, DEV_MOUNT, DEVPTS_MOUNT, SHM_MOUNT, MQUEUE_MOUNT, SYS_MOUNT)],
        "linux": {
            "namespaces": [{"type": name} for name in ("pid", "network", "ipc", "uts", "mount")],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READONLY),
        },
    }


def merge(target: dict[str, Any], change: dict[str, Any]) -> None:
    """Merge change into target: objects key by key, anything else replaces; None removes the key."""
    for name, value in change.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict) and isinstance(target.get(name), dict):
            merge(target[name], value)
        else:
            target[name] = copy.deepcopy(value)


class Bundle:
    """A directory with config.json and rootfs/. Change ``config`` or call the methods; it is written before use.

    on_write: what is done with the bundle's files and its config before that (--rootless).
    """

    on_write: ClassVar[Callable[[Path, Any], Any] | None] = None

    def __init__(self, path: Path, probe: Path) -> None:
        self.path = path
        self.rootfs = path / "rootfs"
        self.rootfs.mkdir(parents=True)
        self.probe = probe
        self.config = default_config()
        self.config["linux"]["cgroupsPath"] = f"/{CGROUP_PREFIX}/{path.parent.name}-{path.name}"
        self.raw: bytes | None = None
        try:
            os.link(probe, self.rootfs / "probe")
        except OSError:
            (self.rootfs / "probe").write_bytes(probe.read_bytes())
            (self.rootfs / "probe").chmod(0o755)

    def merge(self, change: dict[str, Any]) -> Bundle:
        """Merge change into the config (None removes a key)."""
        merge(self.config, change)
        return self

    def args(self, *commands: str | Sequence[str]) -> Bundle:
        """Let the container run these commands of the probe."""
        self.config["process"]["args"] = [PROBE, *probes.chain(commands)]
        return self

    def process(self, **change: Any) -> Bundle:
        """Merge into /process."""
        merge(self.config["process"], change)
        return self

    def linux(self, **change: Any) -> Bundle:
        """Merge into /linux."""
        merge(self.config["linux"], change)
        return self

    def mount(
        self, destination: str, source: str = "", *options: str, type: str = "bind", **extra: Any
    ) -> dict[str, Any]:
        """Append a mount and return it."""
        entry: dict[str, Any] = {"destination": destination, "type": type, "source": source or type}
        if options:
            entry["options"] = list(options)
        entry.update(extra)
        self.config["mounts"].append(entry)
        return entry

    def drop_mount(self, destination: str) -> None:
        """Take the mounts at and below destination out of the config."""
        self.config["mounts"] = [
            m
            for m in self.config["mounts"]
            if m["destination"] != destination and not m["destination"].startswith(destination.rstrip("/") + "/")
        ]

    def namespace(self, type: str, path: str | None = None) -> None:
        """Set or add the namespace of this type."""
        spaces = [entry for entry in self.config["linux"]["namespaces"] if entry["type"] != type]
        spaces.append({"type": type} if path is None else {"type": type, "path": path})
        self.config["linux"]["namespaces"] = spaces

    def drop_namespace(self, type: str) -> None:
        """Inherit the namespace of this type."""
        spaces = self.config["linux"]["namespaces"]
        self.config["linux"]["namespaces"] = [entry for entry in spaces if entry["type"] != type]

    def no_mount_rules(self) -> None:
        """Without a new mount namespace neither masked nor readonly paths may be asked for."""
        merge(self.config["linux"], {"maskedPaths": None, "readonlyPaths": None})

    def user_namespace(self, host_id: int = 400000, size: int = 65536) -> None:
        """A new user namespace with one range, and the rootfs given to its root."""
        self.namespace("user")
        mapping = [{"containerID": 0, "hostID": host_id, "size": size}]
        self.linux(uidMappings=mapping, gidMappings=mapping)
        own = self.rootfs.stat().st_dev
        for directory, _, files in os.walk(self.rootfs):
            for path in (directory, *(os.path.join(directory, name) for name in files if name != "probe")):
                if os.lstat(path).st_dev == own:  # never what is mounted there: a device of the machine, for instance
                    os.chown(path, host_id, host_id, follow_symlinks=False)

    def write(self) -> None:
        """Write config.json; ``raw``, when set, is written instead of the config."""
        config = self.config if Bundle.on_write is None else Bundle.on_write(self.path, self.config)
        data = self.raw if self.raw is not None else json.dumps(config, indent=1).encode()
        (self.path / "config.json").write_bytes(data)
