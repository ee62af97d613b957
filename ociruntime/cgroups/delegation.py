"""Sub-cgroups that annotations ask for (cgroup v2), by the names that crun gave them.

    run.oci.systemd.subgroup   the container's own below the scope of systemd: "container" unless said, "" for none
    run.oci.delegate-cgroup    one below the container's, where its processes begin and share out for themselves what
                               the limits leave them. The limits, and the device filter, are the container's cgroup's.

The container's cgroup is the root of its cgroup namespace, as it is without the annotation: the init process moves on
when it has unshared. Only then can controllers be enabled there, because a cgroup that has any for those below it takes
no processes.

Source: crun(1); cgroups(7), "Cgroups v2 no internal processes rule"; cgroup_namespaces(7).
"""

from ociruntime.cgroups import files
from ociruntime.errors import ConfigError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cgroups.cgroup import Cgroup

SUBGROUP = "run.oci.systemd.subgroup"
DELEGATE = "run.oci.delegate-cgroup"
_NAME_MAX = 255


def path(annotations: "dict[str, str]", key: str) -> str:
    """The path below a cgroup that an annotation names; "" if it is empty. Raises ConfigError."""
    parts = []
    for part in annotations[key].split("/"):
        if part == ".." or "\n" in part or "\0" in part or len(part.encode("utf-8", "surrogateescape")) > _NAME_MAX:
            raise ConfigError(f"'{annotations[key]}' cannot be the name of a sub-cgroup", pointer=f"/annotations/{key}")
        if part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def ask(cgroup: "Cgroup", annotations: "dict[str, str]") -> None:
    """Note what the config wants to be delegated. Raises ConfigError, or UnsupportedError on cgroup v1."""
    name = path(annotations, DELEGATE)
    if name and (cgroup.mode != "v2" or not cgroup.paths):
        raise UnsupportedError("a delegated cgroup", "cgroup v2", pointer=f"/annotations/{DELEGATE}")
    cgroup.delegated = name


def make(cgroup: "Cgroup", top: str) -> None:
    """Make the delegated cgroup; it has no controllers yet. Raises OSError, UnsupportedError."""
    directory = cgroup.home()
    files.make(directory, top, cgroup.made)
    if files.read_or_empty(directory + "/cgroup.type").strip() not in (b"domain", b""):
        raise UnsupportedError(
            "a delegated cgroup", "a parent that is not threaded", pointer=f"/annotations/{DELEGATE}"
        )


def hand_over(cgroup: "Cgroup") -> None:
    """The init process is in there: enable for it whatever the container's cgroup has."""
    from ociruntime.cgroups.v2 import enable_controllers

    own = cgroup.paths[""]
    there = files.read_or_empty(own + "/cgroup.controllers").decode("ascii", "replace").split()
    enable_controllers(cgroup.home(), own, there)
