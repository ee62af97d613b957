"""/linux/sysctl -> sysctl ops: only what belongs to a namespace of the container's own.

A value the container may set is one that the kernel keeps per namespace; anything else would change the host.
Source: runtime-spec config-linux.md, "Sysctl"; sysctl.d(5) for the two separators.
"""

import posix

from ociruntime import plan
from ociruntime.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ociruntime.namespaces import Namespaces
    from ociruntime.plan import Op

IPC = (
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
)
IPC_PREFIX = "fs/mqueue/"


def lower(
    config: "dict[str, Any]",
    namespaces: "Namespaces",
    is_runtimes: "Callable[[str, str], bool] | None" = None,
) -> "list[Op]":
    """Lower /linux/sysctl, in its order.

    is_runtimes(path, name): whether path is the runtime's own namespace of that /proc/self/ns name; joining it is the
    same as having none. Raises ConfigError at the key: not namespaced, its namespace missing, no sysctl name at all,
    in conflict with /hostname or /domainname, or there twice in two spellings.
    """
    ops: list[Op] = []
    seen: dict[str, str] = {}
    for key, value in ((config.get("linux") or {}).get("sysctl") or {}).items():
        at = f"/linux/sysctl/{_token(key)}"
        path = normalise(key)
        if path is None:
            raise ConfigError("not the name of a sysctl", pointer=at)
        if path in seen:
            if seen[path] != value:
                raise ConfigError("the same sysctl is there twice, with another value", pointer=at)
            continue
        seen[path] = value
        if path == "kernel/domainname" and value == config.get("domainname"):
            continue
        _check(path, at, config, namespaces, is_runtimes or same_namespace)
        ops.append(plan.op("sysctl", at, strings=(path, value)))
    return ops


def normalise(key: str) -> "str | None":
    """The path below /proc/sys; None when there is none. The separator that comes first is the one meant.

    "net.ipv4.conf.eth0/100.forwarding" and "net/ipv4/conf/eth0.100/forwarding" are the same.
    """
    dot, slash = key.find("."), key.find("/")
    path = key
    if dot >= 0 and (slash < 0 or dot < slash):
        path = "".join("/" if c == "." else "." if c == "/" else c for c in key)
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return None
    return path


def _token(key: str) -> str:
    """key as one reference token of a JSON pointer (RFC 6901, section 3)."""
    return key.replace("~", "~0").replace("/", "~1")


def _check(
    path: str,
    at: str,
    config: "dict[str, Any]",
    namespaces: "Namespaces",
    is_runtimes: "Callable[[str, str], bool]",
) -> None:
    if path == "kernel/hostname":
        raise ConfigError("conflicts with /hostname, which is the way to set it", pointer=at)
    if path == "kernel/domainname":
        kind = name = "uts"
        if config.get("domainname"):
            raise ConfigError("conflicts with /domainname", pointer=at)
    elif path in IPC or path.startswith(IPC_PREFIX):
        kind = name = "ipc"
    elif path.startswith("net/"):
        kind, name = "network", "net"
    elif path.startswith("user/"):
        kind = name = "user"
    else:
        raise ConfigError("not a sysctl of a namespace: it would change the host", pointer=at)
    if not namespaces.has(kind):
        raise ConfigError(f"needs a {kind} namespace in /linux/namespaces", pointer=at)
    joined = namespaces.joined(kind)
    if joined and is_runtimes(joined, name):
        raise ConfigError(f"the {kind} namespace to join is the runtime's own", pointer=at, path=joined)


def same_namespace(path: str, name: str) -> bool:
    """Whether path is the namespace that /proc/self/ns/NAME is. False when one cannot be looked at: joining tells."""
    try:
        ours, theirs = posix.stat(f"/proc/self/ns/{name}"), posix.stat(path)
    except OSError:
        return False
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)
