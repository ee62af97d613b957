"""The unit that systemd makes for a container: /linux/cgroupsPath and the container ID -> names and cgroup path. Pure.

Source: systemd.unit(5), systemd.slice(5); the form slice:prefix:name is what engines send with --systemd-cgroup.
"""

from ociruntime.errors import ConfigError

POINTER = "/linux/cgroupsPath"
PREFIX = "ociruntime"
_NAME_MAX = 255
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.-\\@")


class Unit:
    """name: of the scope or slice. slice: the one it lives in. path: of its cgroup below systemd's own root."""

    __slots__ = ("name", "path", "slice")

    def __init__(self, name: str, slice_name: str, path: str) -> None:
        self.name = name
        self.slice = slice_name
        self.path = path

    def is_slice(self) -> bool:
        return self.name.endswith(".slice")


def unit(cgroups_path: str, container_id: str, default_slice: str) -> Unit:
    """The unit of a container. cgroups_path: "slice:prefix:name", "" for the default.

    A name that ends in .slice is that slice itself; any other becomes the scope PREFIX-NAME.scope. An empty slice is
    the default one, an empty prefix leaves the dash out. Raises ConfigError.
    """
    if cgroups_path:
        parts = cgroups_path.split(":")
        if len(parts) != 3:
            raise ConfigError(
                f"'{cgroups_path}' is not in the form slice:prefix:name",
                pointer=POINTER,
                hint="--systemd-cgroup expects that form; for a path use the cgroupfs driver",
            )
        slice_name, prefix, name = parts
    else:
        slice_name, prefix, name = "", PREFIX, escape(container_id)
    slice_name = slice_name or default_slice
    parent = expand_slice(slice_name)
    if not name:
        raise ConfigError(f"'{cgroups_path}' names no unit", pointer=POINTER)
    if name.endswith(".slice"):
        if name == "-.slice":
            raise ConfigError("the root slice cannot be a container's own", pointer=POINTER)
        return Unit(name, slice_name, expand_slice(name))
    name = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    _check(name)
    return Unit(name, slice_name, f"{parent}/{name}")


def expand_slice(name: str) -> str:
    """a-b.slice -> /a.slice/a-b.slice; the root slice -.slice -> "". Raises ConfigError."""
    if name == "-.slice":
        return ""
    if not name.endswith(".slice"):
        raise ConfigError(f"the slice '{name}' does not end in .slice", pointer=POINTER)
    _check(name)
    words = name[: -len(".slice")].split("-")
    if "" in words:
        raise ConfigError(f"'{name}' is not the name of a slice: a dash stands between two names", pointer=POINTER)
    path = ""
    for count in range(1, len(words) + 1):
        path += f"/{'-'.join(words[:count])}.slice"
    return path


def escape(name: str) -> str:
    """Write what a unit name cannot hold as \\xNN, as systemd-escape(1) does; a scope's name may have dashes."""
    escaped = "".join(
        [
            chr(byte) if chr(byte) in _LETTERS and byte != 0x5C else f"\\x{byte:02x}"
            for byte in name.encode("utf-8", "surrogateescape")
        ]
    )
    return escaped if not escaped.startswith(".") else "\\x2e" + escaped[1:]


def _check(name: str) -> None:
    for letter in name:
        if letter not in _LETTERS:
            raise ConfigError(f"a unit name cannot contain '{letter}', but '{name}' does", pointer=POINTER)
    if len(name) > _NAME_MAX:
        raise ConfigError(f"a unit name is at most {_NAME_MAX} bytes long", pointer=POINTER)
    if name.startswith("."):
        raise ConfigError(f"a unit name cannot begin with a dot, but '{name}' does", pointer=POINTER)
