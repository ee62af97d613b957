"""Starting the sealed init, and helper processes. No Python runs between clone and execve."""

from posix import close

from ociruntime.shim._native import ffi, lib
from ociruntime.shim.sync import Channel, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def spawn_init(channel: Channel, clone_flags: int, *, cgroup_fd: int = -1, preserve_fds: int = 0) -> "tuple[int, int]":
    """Start the sealed init in new namespaces (clone_flags, CLONE_NEW*): its pid and a pidfd, which the caller owns.

    cgroup_fd: a cgroup v2 directory to be born in. preserve_fds: fds 3..3+n-1 go along. Source: man clone(2).
    """
    exe = check(lib.shim_sealed_init(), "memfd_create", "ociruntime-init")
    try:
        request = ffi.new(
            "struct spawn_request *",
            {
                "clone_flags": clone_flags,
                "exe_fd": exe,
                "cgroup_fd": cgroup_fd,
                "sync_fd": channel.remote,
                "preserve_fds": preserve_fds,
            },
        )
        result = ffi.new("struct spawn_result *")
        check(lib.shim_spawn(request, result), "clone3")
    finally:
        close(exe)
    channel.close_remote()
    return result.pid, result.pidfd


def sealed_block(name: str, data: bytes) -> int:
    """A sealed memfd with data; the caller owns it."""
    return check(lib.shim_sealed_block(name.encode(), data, len(data)), "memfd_create", name)


def run_process(
    path: str,
    argv: "Sequence[str]",
    env: "Sequence[str]",
    *,
    cwd_fd: int = -1,
    stdin: int = -1,
    stdout: int = -1,
    stderr: int = -1,
    new_session: bool = True,
) -> "tuple[int, int]":
    """execve path in a new process, no PATH search, nothing inherited but the three fds (-1: /dev/null): pid, pidfd.

    Raises StepError with execve's errno.
    """
    keep = [ffi.new("char[]", item.encode("utf-8", "surrogateescape")) for item in (path, *argv, *env)]
    argv_c = ffi.new("char *[]", [*keep[1 : 1 + len(argv)], ffi.NULL])
    env_c = ffi.new("char *[]", [*keep[1 + len(argv) :], ffi.NULL])
    request = ffi.new(
        "struct process_request *",
        {
            "path": keep[0],
            "argv": argv_c,
            "envp": env_c,
            "cwd_fd": cwd_fd,
            "stdin_fd": stdin,
            "stdout_fd": stdout,
            "stderr_fd": stderr,
            "new_session": new_session,
        },
    )
    result = ffi.new("struct spawn_result *")
    check(lib.shim_run_process(request, result), "execve", path)
    return result.pid, result.pidfd
