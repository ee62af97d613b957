"""The owner of a container's cgroup (cgroup v2): who owns it may make sub-cgroups and share its limits out among them.

Only the directory and the files that the kernel lists for this change their owner; the files with the limits of the
container stay the runtime's.

Source: runtime-spec config-linux.md#cgroup-ownership; cgroups(7), "Cgroups delegation".
"""

import posix
from errno import ENODEV, ENOENT, EPERM

from ociruntime.cgroups import files
from ociruntime.errors import StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ociruntime.cgroups.cgroup import Cgroup

POINTER = "/process/user/uid"
LIST = "/sys/kernel/cgroup/delegate"
# Where the kernel has no list.
_BASIC = "cgroup.procs cgroup.subtree_control cgroup.threads"
_PLACE = "/sys/fs/cgroup"


def wanted(config: "dict[str, Any]") -> bool:
    """Whether the config mounts the cgroup file system writable in its customary place."""
    found = False
    for mount in config.get("mounts") or ():
        destination = "/" + "/".join([part for part in mount["destination"].split("/") if part])
        if destination == _PLACE:
            cgroup = mount.get("type") in ("cgroup", "cgroup2") or mount.get("source") == "cgroup"
            found = cgroup and not {"ro", "rro"} & set(mount.get("options") or ())
    return found


def give_to_user(cgroup: "Cgroup", config: "dict[str, Any]", host_uid: "Callable[[int], int | None]") -> None:
    """Give a cgroup to the user of the container's process, if ``wanted`` or delegated. host_uid: that user as the
    runtime sees it, None if the container has no such user.
    """
    if wanted(config) or cgroup.delegated:
        uid = host_uid(((config.get("process") or {}).get("user") or {}).get("uid") or 0)
        if uid is not None:
            give(cgroup, uid)


def give(cgroup: "Cgroup", uid: int) -> None:
    """Make uid, as the runtime sees it, the owner of a v2 cgroup. Raises StepError.

    A runtime without the privilege to do so goes on, and notes it.
    """
    directory = cgroup.home()
    if not cgroup.clone_directory():
        return
    try:
        before = posix.stat(directory).st_uid
        if before != uid and directory not in cgroup.fresh and not cgroup.delegated:
            cgroup.before["owner"] = before
        _change(directory, uid)
        cgroup.owner = uid
    except OSError as error:
        if cgroup.rootless and error.errno == EPERM:
            cgroup.warnings.append(f"cannot make user {uid} the owner of the cgroup '{directory}', ignoring")
            return
        raise StepError(
            f"cannot make user {uid} the owner of the cgroup",
            pointer=POINTER,
            step="cgroup",
            call="chown",
            errno=error.errno or 0,
            path=directory,
        ) from error


def give_back(directory: str, uid: int) -> None:
    """The owner that a directory had before; a directory that has gone is fine. Raises StepError."""
    try:
        _change(directory, uid)
    except OSError as error:
        if error.errno not in (ENOENT, ENODEV, EPERM):
            raise StepError(
                "cannot give the cgroup back", step="cgroup", errno=error.errno or 0, path=directory
            ) from error


def _change(directory: str, uid: int) -> None:
    names = files.read_or_empty(LIST).decode("ascii", "replace") or _BASIC
    _chown(directory, uid)
    for name in names.split():
        try:
            _chown(f"{directory}/{name}", uid)
        except OSError as error:
            # Not every listed file is in every cgroup.
            if error.errno != ENOENT:
                raise


def _chown(path: str, uid: int) -> None:
    if posix.stat(path, follow_symlinks=False).st_uid != uid:
        posix.chown(path, uid, -1, follow_symlinks=False)
