"""The status of a container, derived from what is there now and never from what was written down."""

import posix

from ociruntime.errors import StepError
from ociruntime.files import read_if_possible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.state.model import State
    from ociruntime.state.store import StateDir

CREATING = "creating"
CREATED = "created"
RUNNING = "running"
PAUSED = "paused"
STOPPED = "stopped"
# Those of cgroups.cgroup.
_MARKS = ("trusted.ociruntime", "user.ociruntime")


def process_stat(pid: int) -> "tuple[str, int]":
    """Return (state letter, start time in clock ticks since boot) of a process; ("", 0) when there is none.

    Source: proc_pid_stat(5), fields 3 and 22; the name before them may hold blanks and brackets.
    """
    data = read_if_possible(f"/proc/{pid}/stat")
    fields = data[data.rfind(b")") + 2 :].split(None, 20)
    if len(fields) < 20:
        return "", 0
    return fields[0].decode("ascii", "replace"), int(fields[19])


def zombie_status(pid: int, start_time: int) -> "int | None":
    """Return the wait status of a process that nobody has collected yet; None when it is not that, or not shown to us.

    Source: proc_pid_stat(5), field 52. It is 0 for those who may not read it; so is field 35, which is 1 otherwise.
    """
    data = read_if_possible(f"/proc/{pid}/stat")
    fields = data[data.rfind(b")") + 2 :].split()
    if len(fields) < 50 or fields[0] != b"Z" or int(fields[19]) != start_time or fields[32] == b"0":
        return None
    return int(fields[49])


def pidfd(pid: int) -> int:
    """Return a pidfd, the caller's to close. Raises ProcessLookupError when there is no such process, StepError."""
    try:
        return posix.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError as error:
        raise StepError("", call="pidfd_open", errno=error.errno or 0) from None


def boot_id() -> str:
    """Return the ID of this boot, as random(4) has it."""
    return read_if_possible("/proc/sys/kernel/random/boot_id").decode("ascii", "replace").strip()


def alive(pid: int, start_time: int, boot: str) -> bool:
    """Tell whether the process is still the same one and runs: a zombie counts as dead, a reused PID too."""
    if pid <= 0:
        return False
    letter, started = process_stat(pid)
    return letter not in ("", "Z", "X", "x") and started == start_time and boot == boot_id()


def dying(pid: int) -> bool:
    """Tell whether the process is on its way out, or will be when it next runs: exiting, or SIGKILL is pending.

    The main thread may have ended alone: then that holds for the process when it holds for all threads.
    Source: proc_pid_stat(5), fields 9 (PF_EXITING, include/linux/sched.h) and 31.
    """
    exiting, killed = _fate(f"/proc/{pid}/stat")
    if killed or not exiting:
        return killed
    try:
        threads = posix.listdir(f"/proc/{pid}/task")
    except OSError:
        return True
    return all(any(_fate(f"/proc/{pid}/task/{thread}/stat")) for thread in threads)


def _fate(path: str) -> "tuple[bool, bool]":
    """Of the thread of this stat file: whether it is exiting, or gone, and whether SIGKILL is pending."""
    data = read_if_possible(path)
    fields = data[data.rfind(b")") + 2 :].split(None, 29)
    if len(fields) < 29:
        return True, False
    return bool(int(fields[6]) & 0x4), bool(int(fields[28]) >> 8 & 1)


def frozen(freezer: str) -> bool:
    """Tell whether the container's own cgroup is frozen, as pause does. freezer: see ``State``.

    cgroup.freeze says what was asked for this cgroup; the v1 freezer also says FROZEN when only an ancestor is frozen,
    and freezer.self_freezing tells the two apart.
    Source: kernel admin-guide cgroup-v1/freezer-subsystem, cgroup-v2.
    """
    if not freezer:
        return False
    text = read_if_possible(freezer).strip()
    directory, _, name = freezer.rpartition("/")
    if name == "freezer.state":
        return text == b"FROZEN" and read_if_possible(f"{directory}/freezer.self_freezing").strip() != b"0"
    return text == b"1"


def waits(pid: int) -> bool:
    """Tell whether the init process has not been let go by start: it empties its only argument then.

    A file that is hidden from us (hidepid=, see proc(5)) tells nothing: then it waits.
    """
    line = read_if_possible(f"/proc/{pid}/cmdline", 64)
    return not line or (line.startswith(b"ociruntime-init\0") and line[16:17].isdigit())


def _may_have_others(state: "State") -> bool:
    """Tell whether processes in the cgroup can have outlived the init process. Those of a PID namespace cannot: what is
    frozen in that place then is another container, as it is where that has left a mark of its own.
    """
    if state.private_pid_ns or state.boot_id != boot_id():
        return False
    mark: Any = state.cgroup.get("mark")
    if not mark or state.cgroup.get("owner") is not None:  # who owns the cgroup might change it
        return True
    paths: Any = state.cgroup.get("paths") or {}
    for path in paths.values():
        for name in _MARKS:
            try:
                if posix.getxattr(path, name).rpartition(b" ")[0] != mark.encode("ascii"):
                    return False
            except OSError:
                continue
    return True


def derive(state: "State", directory: "StateDir") -> "tuple[str, int]":
    """Return (status, PID); the PID is 0 when the init process is gone.

    A container whose creator died before the init process was ready is stopped: nobody holds its lock any more.
    """
    running = alive(state.pid, state.start_time, state.boot_id)
    pid = state.pid if running else 0
    if state.phase == CREATING and (running or directory.busy()):
        return CREATING, pid
    if state.phase != CREATING and frozen(state.freezer) and (running or _may_have_others(state)):
        return PAUSED, pid
    if not running:
        return STOPPED, 0
    # A start that was killed may have left the fifo of a program that runs.
    return (CREATED if directory.has_fifo() and waits(pid) else RUNNING), pid
