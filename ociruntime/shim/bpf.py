"""Device programs on cgroup v2 (BPF_CGROUP_DEVICE).

Source: man bpf(2); kernel Documentation/bpf/prog_cgroup_sockopt.rst for the attach flags.
"""

from ociruntime.shim._native import ffi, lib
from ociruntime.shim.sync import check


def load_device(program: bytes) -> int:
    """Load instructions of 8 bytes each; the program's fd. Raises StepError."""
    return check(lib.shim_bpf_load_device(program, len(program) // 8), "bpf", "BPF_PROG_LOAD")


def attach(cgroup_fd: int, program_fd: int, replace_fd: int = -1) -> None:
    """Attach with BPF_F_ALLOW_MULTI; with replace_fd instead of exactly that program."""
    check(lib.shim_bpf_attach(cgroup_fd, program_fd, replace_fd), "bpf", "BPF_PROG_ATTACH")


def detach(cgroup_fd: int, program_fd: int) -> None:
    check(lib.shim_bpf_detach(cgroup_fd, program_fd), "bpf", "BPF_PROG_DETACH")


def query(cgroup_fd: int) -> "list[int]":
    """Ids of the device programs attached to this very cgroup."""
    ids = ffi.new("uint32_t[64]")
    n = check(lib.shim_bpf_query(cgroup_fd, ids, 64), "bpf", "BPF_PROG_QUERY")
    return [ids[i] for i in range(n)]


def program_by_id(program_id: int) -> int:
    """An fd of a loaded program, the caller's."""
    return check(lib.shim_bpf_program_by_id(program_id), "bpf", "BPF_PROG_GET_FD_BY_ID")
