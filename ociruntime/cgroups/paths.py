"""Where the container's cgroup is: /linux/cgroupsPath and the container ID -> one directory per hierarchy. Pure."""

from ociruntime import files
from ociruntime.errors import ConfigError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.host import Host

POINTER = "/linux/cgroupsPath"
_NAME_MAX = 255


def clean(path: str) -> str:
    """Resolve ".", ".." and double slashes as text. "..": never above the top, for relative paths too."""
    absolute = files.clean(path)
    return absolute if path.startswith("/") else absolute[1:]


def cgroup_path(cgroups_path: str, container_id: str) -> str:
    """The checked cgroupsPath, absolute or relative; an absent one ("") is the container ID.

    Raises ConfigError for a form that names no cgroup.
    Source: runtime-spec config-linux.md#cgroups-path.
    """
    if not cgroups_path:
        if not container_id or "/" in container_id or container_id in (".", ".."):
            raise UsageError(f"'{container_id}' cannot name a cgroup: not a valid container ID")
        return container_id
    path = clean(cgroups_path)
    if path in ("", "/"):
        raise ConfigError(f"'{cgroups_path}' names no cgroup of the container's own", pointer=POINTER)
    if "/" not in path and path.count(":") == 2:
        raise ConfigError(
            f"'{cgroups_path}' is in the form slice:prefix:name",
            pointer=POINTER,
            hint="that form is for --systemd-cgroup; without it give a path",
        )
    if "\n" in path or "\0" in path:
        raise ConfigError("a cgroup name cannot contain a newline or NUL", pointer=POINTER)
    if any(len(part.encode("utf-8", "surrogateescape")) > _NAME_MAX for part in path.split("/")):
        raise ConfigError(f"a cgroup name is at most {_NAME_MAX} bytes long", pointer=POINTER)
    return path


def directories(host: "Host", cgroups_path: str, container_id: str) -> "dict[str, str]":
    """Controller ("" = cgroup v2) -> absolute directory of the container's cgroup, for every mounted hierarchy.

    An absolute path counts from each mount point. A relative one, and the default, counts from the runtime's own cgroup
    on cgroup v1 and hybrid, and from its parent on cgroup v2: there the own cgroup holds processes (the runtime's), so
    no controller could be enabled below it.
    """
    path = cgroup_path(cgroups_path, container_id)
    absolute = path.startswith("/")
    result = {}
    for name, point in host.cgroup_mounts.items():
        result[name] = point + (path if absolute else clean(host.own_cgroups.get(name, "/") + "/" + path))
    if host.unified:
        own = host.own_cgroups.get("", "/")
        if host.cgroup_mode == "v2":
            own = own[: own.rfind("/")]
        result[""] = host.unified + (path if absolute else clean("/" + own + "/" + path))
    return result
