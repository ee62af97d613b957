"""What freezes a container that nobody has paused: a cgroup above its own, or one below that it has frozen itself.

On cgroup v2 SIGKILL ends frozen processes. On v1 they die when they are thawed, or when they are moved to a cgroup
that is not frozen: they run no instruction of their program there.
Source: kernel admin-guide cgroup-v1/freezer-subsystem ("parent_freezing"), cgroup-v2 ("cgroup.freeze").
"""

import posix
from errno import ENODEV, ENOENT, ESRCH

from ociruntime.errors import StateError
from ociruntime.files import read_if_possible

_EVENTS = "/cgroup.events"


def above(paths: "dict[str, str]") -> "tuple[str, str]":
    """Return what is frozen above the container: (directory, shell command that thaws it), ("", "") if nothing is.

    paths: see ``Cgroup``. The directory is the container's own when the one that is frozen is not to be seen here, as
    in a cgroup namespace; then there is no command.
    """
    own = paths.get("freezer", "")
    if own and read_if_possible(f"{own}/freezer.parent_freezing").strip() == b"1":
        return _nearest(own, "freezer.self_freezing", "echo THAWED > {}/freezer.state")
    own = paths.get("", "")
    if own and b"frozen 1" in read_if_possible(own + _EVENTS).split(b"\n"):
        found = _nearest(own, "cgroup.freeze", "echo 0 > {}/cgroup.freeze")
        if found[1] or read_if_possible(f"{own}/cgroup.freeze").strip() != b"1":
            return found
    return "", ""


def _nearest(own: str, file: str, command: str) -> "tuple[str, str]":
    path = own[: own.rfind("/")]
    while path:
        value = read_if_possible(f"{path}/{file}").strip()
        if value == b"1":
            return path, command.format(path)
        path = path[: path.rfind("/")] if value else ""
    return own, ""


def refusal(paths: "dict[str, str]", container_id: str, more: str = "") -> "StateError | None":
    """The error that names what is frozen above the container; None if nothing is. more: added to its hint."""
    path, command = above(paths)
    if not path:
        return None
    return StateError(
        f"a parent of the container's cgroup is frozen: '{path}'"
        if command
        else f"a parent of the container's cgroup '{path}' is frozen",
        container_id=container_id,
        hint=(f"thaw it: {command}" if command else "thaw it") + more,
    )


def keeps_alive(file: str) -> bool:
    """Tell whether SIGKILL has to wait for a thaw. file: that of ``State.freezer``."""
    return file.endswith("/freezer.state") and read_if_possible(file).strip() not in (b"", b"THAWED")


def may_keep_alive(file: str) -> bool:
    """The same, or the container may have frozen a sub-cgroup of its own. file: that of ``State.freezer``."""
    if keeps_alive(file):
        return True
    directory, _, name = file.rpartition("/")
    try:
        # A sub-cgroup is one link more.
        return name == "freezer.state" and posix.stat(directory).st_nlink > 2
    except OSError:
        return False


def let_die(directory: str) -> bool:
    """Let processes die, which SIGKILL was sent to, although something freezes them (v1): move them up from there.

    directory: the container's, of the freezer. Those that nothing freezes die where they are: to move a process takes
    the kernel long, and its ID may be another's by then. Returns whether any were frozen. Raises OSError.
    """
    from ociruntime.cgroups import files
    from ociruntime.state import status

    target = directory
    while keeps_alive(f"{target}/freezer.state"):
        target = target[: target.rfind("/")]
    held = files.pids(directory, frozen=True)
    for pid in held:
        if status.dying(pid):
            try:
                files.add_process(target, pid)
            except OSError as error:
                if error.errno != ESRCH and (error.errno not in (ENOENT, ENODEV) or files.exists(directory)):
                    raise
    return bool(held)
