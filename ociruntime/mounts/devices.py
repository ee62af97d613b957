"""/linux/devices, the default devices and the links of /dev -> device and symlink ops.

Source: runtime-spec config-linux.md, "Devices" and "Default Devices"; runtime-linux.md, "Dev symbolic links".
"""

from ociruntime import plan
from ociruntime.errors import ConfigError
from ociruntime.files import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from ociruntime.plan import Op

S_IFIFO = 0o010000
S_IFCHR = 0o020000
S_IFBLK = 0o060000
TYPES = {"c": S_IFCHR, "u": S_IFCHR, "b": S_IFBLK, "p": S_IFIFO}
MODE = 0o666
MODE_BITS = 0o7777
MAJOR_MAX = (1 << 12) - 1  # linux/kdev_t.h
MINOR_MAX = (1 << 20) - 1

DEFAULTS = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
)
PTMX = "/dev/ptmx"


def lower(
    devices: "list[dict[str, Any]]",
    mounted: "Collection[str]",
    dev_is_bind: bool,
    by_bind: bool,
    exists: "Callable[[str], bool]",
    host_node: "Callable[[str, int, int], str]",
) -> "list[Op]":
    """Lower /linux/devices and add what every container gets.

    mounted: destinations of the config's mounts, cleaned. dev_is_bind: /dev comes from elsewhere and is left alone.
    by_bind: nodes cannot be made (user namespace), the host's are bound. exists: whether the host has a path.
    host_node: where the host has a device, asked with its path here, file type and number.
    Raises ConfigError: unknown type, numbers missing or too large, a relative path, one path for two devices.
    """
    ops: list[Op] = []
    taken: dict[str, tuple[int, int]] = {}
    own_ptmx = "/dev/pts" in mounted
    for index, device in enumerate(devices):
        at = f"/linux/devices/{index}"
        path = device["path"]
        if not path.startswith("/"):
            raise ConfigError("a device path must be absolute", pointer=f"{at}/path", path=path)
        path = clean(path)
        kind, number = _node(device, at)
        if path in taken:
            if taken[path] != (kind, number):
                raise ConfigError("another device has this path", pointer=f"{at}/path", path=path)
            continue
        taken[path] = (kind, number)
        if (dev_is_bind and path.startswith("/dev/")) or (own_ptmx and path == PTMX):
            continue
        host = host_node(path, kind, number) if by_bind and kind != S_IFIFO else ""
        ops.append(_device(path, at, kind | device.get("fileMode", MODE) & MODE_BITS, number, device, host))
    if dev_is_bind:
        return ops
    for path, major, minor in DEFAULTS:
        if path not in taken and path not in mounted:
            ops.append(_device(path, "", S_IFCHR | MODE, major << 32 | minor, {}, path if by_bind else ""))
    links = [*LINKS, ("/dev/core", "/proc/kcore")] if exists("/proc/kcore") else LINKS
    ops += [
        plan.op("symlink", strings=link, flags=plan.OPTIONAL)
        for link in links
        if link[0] not in taken and link[0] not in mounted
    ]
    if PTMX not in mounted and (own_ptmx or PTMX not in taken):
        # Not optional beside a devpts: a ptmx that the image brings would open another one than the container's.
        # Without, whatever is there stays.
        ops.append(plan.op("symlink", strings=(PTMX, "pts/ptmx"), flags=0 if own_ptmx else plan.OPTIONAL))
    return ops


def _node(device: "dict[str, Any]", at: str) -> "tuple[int, int]":
    """File type and number (major << 32 | minor) of one entry."""
    name = device["type"]
    if name not in TYPES:
        raise ConfigError(f"unknown device type '{name}'", pointer=f"{at}/type", hint="one of b, c, u, p")
    kind = TYPES[name]
    if kind == S_IFIFO:
        return kind, 0
    numbers = []
    for key, highest in (("major", MAJOR_MAX), ("minor", MINOR_MAX)):
        number = device.get(key)
        if number is None:
            raise ConfigError(f"a device of type {name} needs a {key} number", pointer=f"{at}/{key}")
        if not 0 <= number <= highest:
            raise ConfigError(f"must be between 0 and {highest}", pointer=f"{at}/{key}")
        numbers.append(number)
    return kind, numbers[0] << 32 | numbers[1]


def _device(path: str, at: str, mode: int, number: int, device: "dict[str, Any]", host: str) -> "Op":
    """A node that may be there already, if it is the same. host: path of the host's, which is bound; "": it is made."""
    args = (mode, number, device.get("uid", 0) << 32 | device.get("gid", 0))
    if host:
        return plan.op("device_bind", at, strings=(path, host), args=args, flags=plan.OPTIONAL)
    return plan.op("device", at, strings=(path,), args=args, flags=plan.OPTIONAL)
