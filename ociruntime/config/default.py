"""The config.json that ``spec`` writes: a shell with a terminal, in namespaces of its own and with few privileges."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.config.types import Config, Linux, Mount, NamespaceType

OCI_VERSION = "1.3.0"

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
)
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def default_config(*, rootless: bool, cgroup_v2: bool, euid: int, egid: int) -> "Config":
    """A config.json for a rootfs in ``rootfs`` beside it.

    rootless: for a caller without privileges, mapped to root of a user namespace; the network is the host's, /sys is
    bound from the host and there are no resources. cgroup_v2: only there a cgroup namespace is worth having.
    """
    namespaces: list[NamespaceType] = (
        ["pid", "ipc", "uts", "mount"]
        if rootless
        else [
            "pid",
            "network",
            "ipc",
            "uts",
            "mount",
        ]
    )
    if cgroup_v2:
        namespaces.append("cgroup")
    if rootless:
        namespaces.append("user")
    linux: Linux = {}
    if rootless:
        linux["uidMappings"] = [{"containerID": 0, "hostID": euid, "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": egid, "size": 1}]
    else:
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    linux["namespaces"] = [{"type": kind} for kind in namespaces]
    linux["maskedPaths"] = list(_MASKED)
    linux["readonlyPaths"] = list(_READONLY)
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": list(_CAPABILITIES),
                "effective": list(_CAPABILITIES),
                "permitted": list(_CAPABILITIES),
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "ociruntime",
        "mounts": _mounts(rootless),
        "linux": linux,
    }


def _mounts(rootless: bool) -> "list[Mount]":
    """The file systems that config-linux.md wants every container to have, and /dev with its parts."""
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if not rootless:
        pts.append("gid=5")  # tty; a group that the one-entry map of a rootless container does not hold
    sys: Mount = {
        "destination": "/sys",
        "type": "sysfs",
        "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"],
    }
    if rootless:  # a new sysfs needs a network namespace of one's own
        sys["type"], sys["source"] = "none", "/sys"
        sys["options"] = ["rbind", "nosuid", "noexec", "nodev", "ro"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        {
            "destination": "/dev/shm",  # noqa: S108 - the container's
            "type": "tmpfs",
            "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        },
        {
            "destination": "/dev/mqueue",
            "type": "mqueue",
            "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"],
        },
        sys,
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
        },
    ]
