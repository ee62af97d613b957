"""The `linux.seccomp` section -> what the kernel is given: flags and a classic BPF program.

lower() checks the section and is pure; program() returns the bytes, from the cache where it can. Compiling itself
(build.py, libseccomp) costs tens of milliseconds, so its result is kept by the digest of everything it depends on:
the parts of the section that shape the program, the kernel's release and machine, and TAG. The cache lives in the
state root, which a reboot empties; so an update of libseccomp alone shows there (it may know more syscall names).

Cache file: MAGIC, SHA-256 of the program, program (8 bytes per instruction, native byte order).
Source: runtime-spec config-linux.md, "Seccomp"; seccomp(2).
"""

import posix
from sys import byteorder

from ociruntime import plan
from ociruntime.errors import ConfigError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from ociruntime.plan import Op

    class HostFacts(Protocol):
        """What this room asks of host.Host."""

        kernel: "tuple[int, int]"


TAG = 1  # raised whenever build.py makes another program of the same section
MAGIC = b"OCIBPF1\n"
HEADER = len(MAGIC) + 32
INSTRUCTION = 8
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS of seccomp(2)
CACHE_FILES = 64

# SECCOMP_RET_* (linux/seccomp.h); KILL is the older word for KILL_THREAD.
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
}

# enum scmp_compare (seccomp.h)
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}

# libseccomp's tokens: AUDIT_ARCH_* (linux/audit.h), but X32 has one of its own.
ARCHITECTURES = {
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_ARM": 0x40000028,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_MIPS": 0x00000008,
    "SCMP_ARCH_MIPS64": 0x80000008,
    "SCMP_ARCH_MIPS64N32": 0xA0000008,
    "SCMP_ARCH_MIPSEL": 0x40000008,
    "SCMP_ARCH_MIPSEL64": 0xC0000008,
    "SCMP_ARCH_MIPSEL64N32": 0xE0000008,
    "SCMP_ARCH_PPC": 0x00000014,
    "SCMP_ARCH_PPC64": 0x80000015,
    "SCMP_ARCH_PPC64LE": 0xC0000015,
    "SCMP_ARCH_S390": 0x00000016,
    "SCMP_ARCH_S390X": 0x80000016,
    "SCMP_ARCH_PARISC": 0x0000000F,
    "SCMP_ARCH_PARISC64": 0x8000000F,
    "SCMP_ARCH_RISCV64": 0xC00000F3,
    "SCMP_ARCH_LOONGARCH64": 0xC0000102,
    "SCMP_ARCH_M68K": 0x00000004,
    "SCMP_ARCH_SH": 0x4000002A,
    "SCMP_ARCH_SHEB": 0x0000002A,
}

# Flag -> (SECCOMP_FILTER_FLAG_*, first kernel). TSYNC is 0: the init process has one thread when it loads the filter.
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": (0, (3, 17)),
    "SECCOMP_FILTER_FLAG_LOG": (2, (4, 14)),
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": (4, (4, 17)),
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": (32, (5, 19)),
}
SPEC_ALLOW = 4
NEW_LISTENER = 8
WAIT_KILLABLE_RECV = 32

RET_K = (6).to_bytes(2, byteorder)  # the instruction that returns a constant
RET_ACTION = 0xFFFF0000  # SECCOMP_RET_ACTION_FULL
NOTIFY = ACTIONS["SCMP_ACT_NOTIFY"]

EPERM = 1
ERRNO_MAX = 4095  # MAX_ERRNO: the kernel cuts larger ones off
TRACE_MAX = 0xFFFF  # SECCOMP_RET_DATA

AT = "/linux/seccomp"

# crun's annotations. The first, but with "0": names that libseccomp does not know are errors. The second: a program in
# base64 that replaces what would be compiled of the section.
FAIL_UNKNOWN = "run.oci.seccomp_fail_unknown_syscall"
BPF_DATA = "run.oci.seccomp_bpf_data"


class SeccompRequest:
    """A checked section. flags: SECCOMP_FILTER_FLAG_* for seccomp(2); notify: some rule hands calls to the listener
    at listener_path (with listener_metadata); section: the config's own object, for the compiler.
    fail_unknown: names that libseccomp does not know are errors. code: a program that is given, not compiled.
    """

    __slots__ = ("code", "fail_unknown", "flags", "listener_metadata", "listener_path", "notify", "section")

    def __init__(
        self, section: "dict[str, Any]", flags: int, notify: bool, listener_path: str, listener_metadata: str
    ) -> None:
        self.section = section
        self.flags = flags
        self.notify = notify
        self.listener_path = listener_path
        self.listener_metadata = listener_metadata
        self.fail_unknown = False
        self.code = b""

    def op(self) -> "Op":
        """The op that loads the program; it comes with the answer to SYNC_READY."""
        return plan.op("seccomp", f"/annotations/{BPF_DATA}" if self.code else AT, args=(self.flags,))


def lower(config: "dict[str, Any]", host: "HostFacts") -> "SeccompRequest | None":
    """Check /linux/seccomp; None without one (or with neither a default action nor rules).

    Raises ConfigError at the field, UnsupportedError for what this kernel or version lacks.
    """
    linux = config.get("linux") or {}
    section = linux.get("seccomp")
    annotations = config.get("annotations")
    if annotations and BPF_DATA in annotations:
        return _given(annotations[BPF_DATA], section or {}, host.kernel)
    if not section:
        return None
    request = check(section, host.kernel)
    if request is not None and annotations:
        request.fail_unknown = annotations.get(FAIL_UNKNOWN, "0") != "0"
    return request


def _given(text: str, section: "dict[str, Any]", kernel: "tuple[int, int]") -> SeccompRequest:
    """The program of the annotation, with flags and listener of the section, whose rules are checked but not used."""
    from binascii import Error, a2b_base64

    pointer = f"/annotations/{BPF_DATA}"
    try:
        code = a2b_base64(text, strict_mode=True)
    except (Error, ValueError) as error:
        raise ConfigError(f"no base64: {str(error).lower()}", pointer=pointer) from None
    if not code or len(code) % INSTRUCTION or len(code) > INSTRUCTION * MAX_INSTRUCTIONS:
        what = f"{len(code)} bytes are no program of 1 to {MAX_INSTRUCTIONS} instructions of {INSTRUCTION} bytes"
        raise ConfigError(what, pointer=pointer)
    if section.get("defaultAction") or section.get("syscalls"):
        _check_rules(section)
    notify = any(
        code[at : at + 2] == RET_K and int.from_bytes(code[at + 4 : at + 8], byteorder) & RET_ACTION == NOTIFY
        for at in range(0, len(code), INSTRUCTION)
    )
    request = _listener(section, kernel, notify)
    request.code = code
    return request


def check(section: "dict[str, Any]", kernel: "tuple[int, int]") -> "SeccompRequest | None":
    """As lower(), without what annotations ask for. kernel: (major, minor)."""
    if not section.get("defaultAction") and not section.get("syscalls"):
        return None
    return _listener(section, kernel, _check_rules(section))


def _check_rules(section: "dict[str, Any]") -> bool:
    """Check actions, architectures and rules. Whether any of them asks the listener."""
    default = section.get("defaultAction")
    rules = section.get("syscalls") or ()
    if default not in ACTIONS:
        what = f"'{default}' is not a seccomp action" if default else "the default action is missing"
        raise ConfigError(what, pointer=f"{AT}/defaultAction")
    if section.get("defaultErrnoRet") is not None:
        _check_errno(section["defaultErrnoRet"], default, f"{AT}/defaultErrnoRet")
    for i, name in enumerate(section.get("architectures") or ()):
        if name not in ARCHITECTURES:
            raise ConfigError(f"'{name}' is not an architecture", pointer=f"{AT}/architectures/{i}")
    notify: bool = default == "SCMP_ACT_NOTIFY"
    for i, rule in enumerate(rules):  # the names, hundreds of them, are looked at by the compiler only
        action = rule.get("action")
        if action not in ACTIONS:
            raise ConfigError(f"'{action}' is not a seccomp action", pointer=f"{AT}/syscalls/{i}/action")
        if rule.get("errnoRet") is not None:
            _check_errno(rule["errnoRet"], action, f"{AT}/syscalls/{i}/errnoRet")
        if not rule.get("names"):
            raise ConfigError("names must hold at least one syscall", pointer=f"{AT}/syscalls/{i}/names")
        if rule.get("args"):
            _check_args(rule["args"], f"{AT}/syscalls/{i}/args")
        if action == "SCMP_ACT_NOTIFY":
            notify = True
    return notify


def _listener(section: "dict[str, Any]", kernel: "tuple[int, int]", notify: bool) -> SeccompRequest:
    """The request, once it is known whether there has to be a listener."""
    path = section.get("listenerPath") or ""
    metadata = section.get("listenerMetadata") or ""
    if metadata and not path:
        raise ConfigError("listenerMetadata needs listenerPath", pointer=f"{AT}/listenerMetadata")
    if notify and not path:
        raise ConfigError("SCMP_ACT_NOTIFY needs listenerPath", pointer=f"{AT}/listenerPath")
    flags = _flags(section.get("flags"), kernel, notify)
    return SeccompRequest(section, flags, notify, path if notify else "", metadata if notify else "")


def _check_errno(number: int, action: str, pointer: str) -> None:
    if action == "SCMP_ACT_ERRNO":
        limit = ERRNO_MAX
    elif action == "SCMP_ACT_TRACE":
        limit = TRACE_MAX
    else:
        raise ConfigError(f"{action} takes no errno", pointer=pointer, hint="only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do")
    if not 0 <= number <= limit:
        raise ConfigError(f"{number} is out of range for {action} (0 to {limit})", pointer=pointer)


def _check_args(args: "list[dict[str, Any]]", pointer: str) -> None:
    for i, condition in enumerate(args):
        index, operator = condition.get("index"), condition.get("op")
        if index is None or not 0 <= index <= 5:
            raise ConfigError(f"{index} is not the index of an argument (0 to 5)", pointer=f"{pointer}/{i}/index")
        if operator not in OPERATORS:
            raise ConfigError(f"'{operator}' is not a comparison", pointer=f"{pointer}/{i}/op")


def _flags(names: "list[str] | None", kernel: "tuple[int, int]", notify: bool) -> int:
    """SECCOMP_FILTER_FLAG_* of the list. No list means SPEC_ALLOW, the empty one means none."""
    result = NEW_LISTENER if notify else 0
    if names is None:
        return result | SPEC_ALLOW
    for i, name in enumerate(names):
        pointer = f"{AT}/flags/{i}"
        if name not in FLAGS:
            raise ConfigError(f"'{name}' is not a seccomp flag", pointer=pointer)
        bit, since = FLAGS[name]
        if kernel < since:
            raise UnsupportedError(name, f"Linux {since[0]}.{since[1]}", pointer=pointer)
        if bit == WAIT_KILLABLE_RECV and not notify:
            raise ConfigError(f"{name} needs a rule with SCMP_ACT_NOTIFY", pointer=pointer)
        result |= bit
    return result


def supported_flags(kernel: "tuple[int, int]") -> "list[str]":
    """The flags that this kernel knows, in the order of FLAGS (features document)."""
    return [name for name, (_, since) in FLAGS.items() if kernel >= since]


# ---- the program and its cache


def digest(request: SeccompRequest) -> str:
    """64 hex digits naming the program: the same for the same rules on the same kernel, whatever the flags."""
    from _sha256 import sha256
    from marshal import dumps

    section = request.section
    kernel = posix.uname()
    # Format 2 has no references and no mark for interned strings, so equal values always give equal bytes.
    key = (
        TAG,
        kernel.release,
        kernel.machine,
        section.get("defaultAction"),
        section.get("defaultErrnoRet"),
        section.get("architectures"),
        section.get("syscalls"),
        *(("all names known",) if request.fail_unknown else ()),
    )
    return sha256(dumps(key, 2)).hexdigest()


def program(request: SeccompRequest, cache_directory: str) -> bytes:
    """The BPF program of request: from cache_directory ("": no cache), or compiled and put there.

    A cache that cannot be read, trusted or written is as good as none.
    Raises ConfigError (program too long), UnsupportedError (no libseccomp binding).
    """
    if request.code:
        return request.code
    if not cache_directory:
        from ociruntime.seccomp.build import build

        return build(request.section, fail_unknown=request.fail_unknown)
    name = digest(request) + ".bpf"
    code = _read(cache_directory, name)
    if not code:
        from ociruntime.seccomp.build import build
        from ociruntime.seccomp.store import store

        code = build(request.section, fail_unknown=request.fail_unknown)
        store(cache_directory, name, code)
    return code


def open_cache(path: str) -> int:
    """A directory fd of the cache, or -1 if it is missing or somebody else could have written in it."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
    except OSError:
        return -1
    status = posix.fstat(fd)
    if status.st_uid != posix.geteuid() or status.st_mode & 0o022:
        posix.close(fd)
        return -1
    return fd


def _read(cache_directory: str, name: str) -> bytes:
    """The program in the cache file, b"" if there is none that is whole and ours."""
    directory = open_cache(cache_directory)
    if directory < 0:
        return b""
    fd = -1
    try:
        fd = posix.open(name, posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC, dir_fd=directory)
        status = posix.fstat(fd)
        size = status.st_size
        if (
            status.st_mode & 0o170022 != 0o100000  # a regular file, not writable by group or others
            or status.st_uid != posix.geteuid()
            or size % INSTRUCTION
            or not HEADER < size <= HEADER + MAX_INSTRUCTIONS * INSTRUCTION
        ):
            return b""
        data = posix.read(fd, size)
    except OSError:
        return b""
    finally:
        if fd >= 0:
            posix.close(fd)
        posix.close(directory)
    return unpack(data) if len(data) == size else b""


def pack(code: bytes) -> bytes:
    """The content of a cache file."""
    from _sha256 import sha256

    return MAGIC + sha256(code).digest() + code


def unpack(data: bytes) -> bytes:
    """The program in the content of a cache file, b"" if it is torn or of another version."""
    from _sha256 import sha256

    code = data[HEADER:]
    if data[: len(MAGIC)] != MAGIC or sha256(code).digest() != data[len(MAGIC) : HEADER]:
        return b""
    return code
