"""ns: the container's namespaces beside the caller's.

Read from the init process: its namespaces, its PID at each level of nesting (NSpid), and the ID maps as they look from
the caller's user namespace.
Source: namespaces(7), pid_namespaces(7), user_namespaces(7), proc_pid_status(5).
"""

import posix

from ociruntime.errors import StateError, StepError
from ociruntime.files import read_if_possible
from ociruntime.namespaces import ID_COUNT, host_id, parse_map
from ociruntime.state import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NotRequired, TypedDict

    from ociruntime.lifecycle.runtime import Runtime
    from ociruntime.namespaces import Ranges

    class Namespace(TypedDict):
        """One namespace. inode, callerInode: who is in the same one has the same; None: not to be told.

        path: where it was joined by config.json.
        """

        type: str
        inode: int | None
        callerInode: int | None
        same: bool | None
        path: NotRequired[str]

    class Mapping(TypedDict):
        """A range of IDs; hostID as the caller's user namespace has it, None: it has none for them."""

        containerID: int
        hostID: int | None
        size: int

    class Report(TypedDict):
        """What namespaces() tells. pids: of the init process, the caller's view first, the container's last.

        words: the same in sentences.
        """

        id: str
        status: str
        pid: int
        namespaces: list[Namespace]
        pids: list[int]
        uidMappings: list[Mapping]
        gidMappings: list[Mapping]
        words: list[str]


# Type in config.json and name below /proc/PID/ns.
FILES = {
    "cgroup": "cgroup",
    "ipc": "ipc",
    "mount": "mnt",
    "network": "net",
    "pid": "pid",
    "time": "time",
    "user": "user",
    "uts": "uts",
}

NO_ID = ID_COUNT - 1  # in a map file: not mapped in the reader's user namespace


def namespaces(runtime: "Runtime", container_id: str) -> "Report":
    """Compare the namespaces of a container with the caller's. Raises StateError unless its init process lives."""
    with runtime.states.open(container_id) as directory:
        state = directory.load()
        actual, pid = status.derive(state, directory)
    if not pid:
        raise StateError(
            "the container has no process, and so no namespaces" if actual == status.STOPPED else "not created yet",
            container_id=container_id,
            expected=(status.CREATED, status.RUNNING, status.PAUSED),
            actual=actual,
        )
    found: list[Namespace] = []
    for kind, name in FILES.items():
        own, inside = _inode(f"/proc/self/ns/{name}"), _inode(f"/proc/{pid}/ns/{name}")
        if own is None and inside is None:
            continue  # this kernel has none of this type
        same = None if own is None or inside is None else own == inside
        if same is None and state.namespaces.get(kind) == "":
            same = False  # it was made for this container, whoever may look
        entry: Namespace = {
            "type": kind,
            "inode": None if inside is None else inside[1],
            "callerInode": None if own is None else own[1],
            "same": same,
        }
        if state.namespaces.get(kind):
            entry["path"] = state.namespaces[kind]
        found.append(entry)
    pids = parse_nspid(read_if_possible(f"/proc/{pid}/status")) or [pid]
    uids, gids = (parse_map(read_if_possible(f"/proc/{pid}/{name}").decode()) for name in MAP_FILES)
    if not status.alive(pid, state.start_time, state.boot_id):
        raise StepError("the container has ended meanwhile", step="ns")
    own_maps = tuple(parse_map(read_if_possible(f"/proc/self/{name}").decode()) for name in MAP_FILES)
    user = next((entry["same"] for entry in found if entry["type"] == "user"), True)
    if user is None:  # not to be told from the file: a new one was asked for, or not
        user = "user" not in state.namespaces and own_maps == (uids, gids)
    if user:
        # Seen from within, a map file speaks of the namespace above, which is not the caller's.
        uids, gids = (tuple((first, first, size) for first, _, size in ranges) for ranges in own_maps)
    return {
        "id": container_id,
        "status": actual,
        "pid": pid,
        "namespaces": found,
        "pids": pids,
        "uidMappings": _mappings(uids),
        "gidMappings": _mappings(gids),
        "words": [pid_words(pids), *id_words(uids, gids, user, posix.geteuid(), posix.getegid())],
    }


MAP_FILES = ("uid_map", "gid_map")


def _inode(path: str) -> "tuple[int, int] | None":
    """Device and inode of a namespace; None when there is none of this type, or we may not know."""
    try:
        facts = posix.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _mappings(ranges: "Ranges") -> "list[Mapping]":
    return [
        {"containerID": first, "hostID": None if outside == NO_ID else outside, "size": size}
        for first, outside, size in ranges
    ]


def parse_nspid(text: bytes) -> "list[int]":
    """NSpid of /proc/PID/status: the PID at each level, the reader's first; [] when it is not there."""
    for line in text.split(b"\n"):
        if line.startswith(b"NSpid:"):
            return [int(word) for word in line.split()[1:]]
    return []


def pid_words(pids: "list[int]") -> str:
    """The PIDs of the init process as a sentence."""
    if len(pids) == 1:
        return f"its first process is PID {pids[0]}, in the container as outside"
    between = "".join(f", {pid} in the PID namespace between" for pid in pids[-2:0:-1])
    return f"its first process is PID {pids[-1]} in the container{between}, {pids[0]} outside"


def id_words(uids: "Ranges", gids: "Ranges", same: bool, euid: int, egid: int) -> "list[str]":
    """The maps as sentences. same: the caller is in the same user namespace; euid, egid: the caller's."""
    if same:
        return ["users and groups in the container are the same outside"]
    words = []
    root = [_outside(kind, ranges) for kind, ranges in (("uid", uids), ("gid", gids))]
    words.append(f"root in the container is {root[0]}, {root[1]} outside")
    for kind, ranges, own in (("uid", uids, euid), ("gid", gids, egid)):
        words += [f"{kind} {_span(a, size)} in the container is {_span(b, size)} outside" for a, b, size in ranges]
        if not ranges:
            words.append(f"the container has no {kind} at all")
        inside = host_id(tuple((b, a, size) for a, b, size in ranges if b != NO_ID), own)
        who = "nobody" if inside is None else f"{kind} {inside}"
        words.append(f"you, {kind} {own}, are {who} in the container")
    return words


def _outside(kind: str, ranges: "Ranges") -> str:
    found = host_id(ranges, 0)
    return f"no {kind}" if found in (None, NO_ID) else f"{kind} {found}"


def _span(first: int, size: int) -> str:
    if first == NO_ID:
        return "none"
    return str(first) if size == 1 else f"{first}-{first + size - 1}"
