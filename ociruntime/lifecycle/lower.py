"""The order of a container's creation: every room's ops, put into one list.

    cgroups, cgroup namespace → oom score → [root of the user namespace] → session, keyring → loopback → propagation,
    rootfs, mounts, devices → HOOKS: prestart, createRuntime by the parent → createContainer → pivot → working
    directory → read-only remounts → umask, names → AppArmor → sysctl → read-only and masked paths → no_new_privs →
    scheduler, I/O priority, personality, memory policy → READY → SELinux → chdir → [seccomp, if no_new_privs is off] →
    identity → [seccomp, if it is on] → CREATED, wait for start → startContainer → execve

In a new user namespace, propagation, rootfs, and sources that the parent may not open come before its root: only the
caller's own ids reach all of them.

Source: runtime-spec runtime.md, "Lifecycle"; the reason for each place is beside the room's op or in process.py.
"""

from ociruntime import capabilities, hooks, namespaces, process, sysctl
from ociruntime.files import read_if_possible
from ociruntime.lifecycle.treatment import scheduling_ops
from ociruntime.mounts import lower as mounts
from ociruntime.plan import (
    BIND_CONSOLE,
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    HOST_TREE,
    KEEP_GROUPS,
    PINNED,
    RECURSIVE,
    RETRY,
    SOURCE_NO_FOLLOW,
    SYNC_HOOKS,
    SYNC_READY,
    FdSource,
    op,
)
from ociruntime.seccomp import compile as seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.cgroups.cgroup import Cgroup
    from ociruntime.host import Host
    from ociruntime.namespaces import Namespaces
    from ociruntime.plan import Op
    from ociruntime.process import Process
    from ociruntime.seccomp.compile import SeccompRequest

# Kinds of the /hooks section that run while the init process waits at SYNC_HOOKS.
RUNTIME_HOOKS = ("prestart", "createRuntime")
RLIMIT_NOFILE = 7
# After the first of these has begun, a failure is told to poststop hooks.
CREATE_HOOKS = (*RUNTIME_HOOKS, "createContainer")


class Lowered:
    """A container's plan.

    ops: in order; process: for its rlimits; seccomp: what to compile, or None; warnings: text.
    """

    __slots__ = ("ops", "process", "seccomp", "warnings")

    def __init__(
        self, ops: "list[Op]", process: "Process", seccomp: "SeccompRequest | None", warnings: "list[str]"
    ) -> None:
        self.ops = ops
        self.process = process
        self.seccomp = seccomp
        self.warnings = warnings


def _open_inside(ops: "list[Op]") -> "list[Op]":
    """Let the init process open bind sources itself, in its copy of the host's mounts.

    There are no fds to pass then, and mount ids follow the config's order. Not for trees that stay peers of the host's
    mounts: those must come from the host's mount namespace. An id-mapped one is made by the parent.
    """
    for item in ops:
        source = item.fd
        if item.kind != "bind" or source is None or source.kind != "tree" or source.idmap is not None:
            continue
        if item.flags & HOST_TREE:
            item.fd = None
            item.strings = (*item.strings[:2], source.path)
            item.flags |= (RECURSIVE if source.recursive else 0) | (SOURCE_NO_FOLLOW if source.nofollow else 0)
    return ops


def _open_before(ops: "list[Op]", joined: bool) -> "list[Op]":
    """Let the init process open all sources itself, because the kernel does not let this parent clone mounts.

    In a new user namespace that happens while it still has the caller's own ids, which reach what the container's root
    may not: returned are the ops for that, in the order of the binds. A namespace that is joined leaves no such moment.
    """
    pins = []
    for item in ops:
        source = item.fd
        if item.kind == "bind" and source is not None and source.kind == "tree" and source.idmap is None:
            flags = (RECURSIVE if source.recursive else 0) | (SOURCE_NO_FOLLOW if source.nofollow else 0)
            item.fd = None
            item.strings = (*item.strings[:2], source.path)
            item.flags |= flags if joined else PINNED
            if not joined:
                pins.append(op("pin", item.pointer, strings=(source.path,), flags=flags))
    return pins


def _bounding(config: "dict[str, Any]") -> int:
    """The capabilities that the runtime itself could give, looked up if the config asks for any."""
    if (config.get("process") or {}).get("capabilities"):
        return capabilities.bounding_of_self(read_if_possible("/proc/self/status"))
    return capabilities.ALL


def _console(config: "dict[str, Any]", spaces: "Namespaces") -> "list[Op]":
    """The terminal, opened in the container's own /dev/pts when its root is "/"."""
    wanted = config.get("process") or {}
    if wanted.get("terminal") is not True:
        return []
    flags = BIND_CONSOLE if spaces.has("mount") else 0
    return [op("console", "/process/terminal", args=(process.console_size(wanted),), flags=flags)]


def lower(
    config: "dict[str, Any]",
    host: "Host",
    spaces: "Namespaces",
    cgroup: "Cgroup",
    *,
    root_id: "tuple[int, int]",
    bundle: str,
    container_id: str,
    fifo: str,
    hook_states: "tuple[str, str]",
    no_pivot: bool = False,
    no_new_keyring: bool = False,
    may_clone_mounts: bool = True,
) -> Lowered:
    """Lower a whole config. Pure but for the facts the rooms look up (is a bind source a directory).

    root_id: device (major << 32 | minor) and inode of the rootfs. fifo: path of exec.fifo. hook_states: JSON text
    for hooks at create and at start, inside the container's namespaces. may_clone_mounts: whether this process has
    the right to open_tree(2) in its mount namespace; only asked when there is a user namespace.
    Raises ConfigError, UnsupportedError with the pointer of the field.
    """
    who = process.lower(config, host, host_bounding=_bounding(config), keep_groups=spaces.groups_denied)
    files = mounts.lower(
        config,
        host,
        spaces,
        bundle=bundle,
        cgroup_paths=cgroup.paths,
        no_pivot=no_pivot,
        root_id=root_id,
        selinux=bool((config.get("linux") or {}).get("mountLabel")) and process.selinux_enabled(),
    )
    filters = seccomp.lower(config, host)
    section = config.get("hooks") or {}

    ops: list[Op] = [op("cgroup_join", "/linux/cgroupsPath", fd=source) for source in cgroup.join_sources()]
    if ops and spaces.joined("user"):
        ops.append(op("become_root", flags=KEEP_GROUPS))  # the saved id has been kept for the cgroups
    if spaces.unshare_cgroup:
        ops.append(op("unshare", "/linux/namespaces", args=(CLONE_NEWCGROUP,)))
    if cgroup.delegated:
        source = FdSource("write", cgroup.home() + "/cgroup.procs")
        ops.append(op("cgroup_join", "/annotations/run.oci.delegate-cgroup", fd=source))
    ops.append(op("affinity"))
    if not spaces.joined("user"):  # there it is written before: process.early_score
        ops += who.early
    pins: list[Op] = []
    if spaces.new("mount") and not spaces.has("user"):
        _open_inside(files.setup)
    elif spaces.new("mount") and not may_clone_mounts:
        pins = _open_before(files.setup, bool(spaces.joined("user")))
    elif spaces.new("mount"):
        files.rootfs[0].fd = FdSource("tree", str(files.rootfs[0].strings[0]), True)
    if spaces.new("user"):
        ops += files.propagation + files.rootfs + pins
        keep = spaces.groups_denied or process.keeps_groups(config)
        ops.append(op("become_root", "/linux/uidMappings", flags=KEEP_GROUPS if keep else 0))
    if spaces.unshare_ipc:
        ops.append(op("unshare", "/linux/namespaces", args=(CLONE_NEWIPC,)))
    ops.append(op("setsid"))
    if not no_new_keyring:
        ops.append(op("keyring", strings=(f"_ses.{container_id}",)))
    if spaces.clone_flags & CLONE_NEWNET:
        ops.append(op("loopback_up"))
    if not spaces.new("user"):
        ops += files.propagation + files.rootfs
    ops += files.setup
    if any(section.get(kind) for kind in CREATE_HOOKS):
        ops.append(op("sync", "/hooks", args=(SYNC_HOOKS,)))
    ops += hooks.outputs(config, bundle)
    if section.get("createContainer"):
        ops.append(op("chdir", strings=(bundle,), flags=RETRY))
        ops += hooks.ops(config, "createContainer", hook_states[0])
    ops += files.pivot
    ops.append(op("fifo", fd=FdSource("path", fifo)))
    ops += who.after_pivot
    ops += _console(config, spaces)
    ops += files.final
    ops += who.umask
    ops += namespaces.names(config, spaces)
    ops += who.apparmor
    ops += sysctl.lower(config, spaces)
    ops += files.readonly
    ops += files.masked
    ops += files.last
    ops += who.no_new_privs
    ops += scheduling_ops(config.get("process"), config)
    ops.append(op("sync", args=(SYNC_READY,)))
    ops += who.selinux
    ops += who.directory
    if filters is not None and not who.no_new_privileges:
        ops.append(filters.op())
    ops += who.identity
    # Who may join the namespaces of a process that is not dumpable is decided by the user namespace in which its
    # executable was started: there an unprivileged runtime is nobody. Said here: a filter may forbid it later.
    ops.append(op("no_pdeathsig", args=(1,) if host.euid else ()))
    if filters is not None and who.no_new_privileges:
        ops.append(filters.op())
    limits = [pointer for pointer, resource, _, _ in who.rlimits if resource == RLIMIT_NOFILE]
    ops.append(op("wait_start", limits[0] if limits else ""))
    ops += hooks.ops(config, "startContainer", hook_states[1])
    ops += who.execute
    warnings = [f"{pointer}: {text}" for pointer, text in who.warnings]
    return Lowered(ops, who, filters, [*spaces.warnings, *files.warnings, *warnings])
