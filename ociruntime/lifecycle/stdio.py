"""Standard streams for a user namespace: the process cannot take files of an owner who has no ID in there.

Without a user namespace it does so itself, in its op `stdio_owner`.
"""

import posix

from ociruntime.files import read_if_possible
from ociruntime.namespaces import host_id, parse_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KIND = 0o170000
_FIFO, _REGULAR = 0o010000, 0o100000


def give(process: "dict[str, Any]", pid: int, *, pipes_only: bool = False) -> None:
    """Give our standard streams to the user of a process, which could not open /dev/stdout and the like otherwise.

    process: its object. pid: in its user namespace. Only pipes and, unless pipes_only, files that are open for writing:
    devices and what is only read stay the host's. What cannot be given (a read-only file system) stays, too.
    """
    if process.get("terminal") is True:
        return
    uid = host_id(
        parse_map(read_if_possible(f"/proc/{pid}/uid_map").decode("ascii")), (process.get("user") or {}).get("uid") or 0
    )
    if uid is None:
        return
    for fd in (0, 1, 2):
        try:
            facts = posix.fstat(fd)
            kind = facts.st_mode & _KIND
            if facts.st_uid != uid and (kind == _FIFO or (kind == _REGULAR and not pipes_only and _written(fd))):
                posix.chown(fd, uid, -1)
        except OSError:
            continue


def _written(fd: int) -> bool:
    from fcntl import F_GETFL, fcntl

    return fcntl(fd, F_GETFL) & posix.O_ACCMODE != posix.O_RDONLY
