"""The device filter of cgroup v2: a BPF_PROG_TYPE_CGROUP_DEVICE program, assembled here, and its attachment.

Source: bpf(2); kernel include/uapi/linux/bpf.h (struct bpf_cgroup_dev_ctx), Documentation/bpf/standardization.
"""

import posix
from _struct import pack
from errno import EACCES, EINVAL, ENOENT, EPERM

from ociruntime.cgroups.devices import ALL, ANY
from ociruntime.errors import ConfigError, StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cgroups.devices import Filter

# struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }
_ACCESS_TYPE = 0
_MAJOR = 4
_MINOR = 8
_KINDS = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*

_LOAD_WORD = 0x61  # dst = *(u32 *)(src + offset)
_MOVE = 0xB7  # dst = immediate
_MOVE_REGISTER = 0xBF
_AND_32 = 0x54  # the low half of dst &= immediate, the high half = 0
_SHIFT_RIGHT_32 = 0x74
_JUMP_GE_32 = 0x36
_JUMP_EQ_32 = 0x16  # if the low half of dst == immediate, skip offset instructions
_JUMP_NE_32 = 0x56
_EXIT = 0x95

_RESULT = 0  # r0
_SCRATCH = 1  # r1: the context until everything is loaded
_KIND = 2
_ACCESS = 3
_MAJOR_REGISTER = 4
_MINOR_REGISTER = 5

_MAX_JUMP = 32000
_MAX_PER_EXCEPTION = 6
_QUERY_TRIES = 3


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return pack("<BBhI", code, dst | src << 4, offset, immediate & 0xFFFFFFFF)


def assemble(target: "Filter") -> bytes:
    """The program for a filter, 8 bytes per instruction; it returns 1 to allow and 0 to deny.

    Exceptions are grouped by type, then by major number: the kernel's verifier follows every path, and its time grows
    faster than the number of tests (flat, the default list took it 0.3 ms instead of 0.1).
    Raises ConfigError for more rules than fit.
    """
    if len(target.exceptions) * _MAX_PER_EXCEPTION > _MAX_JUMP:
        raise ConfigError("too many device rules", pointer="/linux/resources/devices")
    groups: dict[str, dict[int, list[tuple[int, int]]]] = {}
    for (kind, major, minor), bits in target.exceptions.items():
        groups.setdefault(kind, {}).setdefault(major, []).append((minor, bits))
    # A jump goes from its own place to the end of a group, or past all of them to the verdict of an exception. Built
    # from the back, each knows how much code follows it.
    code = []
    if target.exceptions:
        code += [_instruction(_EXIT), _instruction(_MOVE, _RESULT, immediate=int(not target.default_allow))]
    code += [_instruction(_EXIT), _instruction(_MOVE, _RESULT, immediate=int(target.default_allow))]
    for kind, majors in groups.items():
        end = len(code)
        for major, entries in majors.items():
            _major_group(code, major, entries, target.default_allow)
        code.append(_instruction(_JUMP_NE_32, _KIND, offset=len(code) - end, immediate=_KINDS[kind]))
    code += [
        _instruction(_LOAD_WORD, _MINOR_REGISTER, _SCRATCH, _MINOR),
        _instruction(_LOAD_WORD, _MAJOR_REGISTER, _SCRATCH, _MAJOR),
        _instruction(_SHIFT_RIGHT_32, _ACCESS, immediate=16),
        _instruction(_AND_32, _KIND, immediate=0xFFFF),
        _instruction(_MOVE_REGISTER, _ACCESS, _KIND),
        _instruction(_LOAD_WORD, _KIND, _SCRATCH, _ACCESS_TYPE),
    ]
    code.reverse()
    return b"".join(code)


def _major_group(code: "list[bytes]", major: int, entries: "list[tuple[int, int]]", default_allow: bool) -> None:
    """Prepend (to code, which is reversed) the tests of the exceptions (minor, bits) of one major number."""
    end = len(code)
    for minor, bits in entries:
        _minor_tests(code, minor, bits, default_allow)
    if major == ANY:
        return
    if len(code) == end + 1 and entries == [(ANY, ALL)] and not default_allow:
        # The number alone decides.
        code.pop()
        code.append(_instruction(_JUMP_EQ_32, _MAJOR_REGISTER, offset=_to_exception(code), immediate=major))
    else:
        code.append(_instruction(_JUMP_NE_32, _MAJOR_REGISTER, offset=len(code) - end, immediate=major))


def _to_exception(code: "list[bytes]") -> int:
    """How far the verdict of an exception, the last two instructions, is from an instruction prepended now."""
    return len(code) - 2


def _minor_tests(code: "list[bytes]", minor: int, bits: int, default_allow: bool) -> None:
    """Prepend: minor matches (ANY: always) and the access is the exception's -> its verdict.

    Allowing, nothing may be asked for beyond the bits; denying, any of them is enough.
    """
    if bits == ALL and not default_allow:
        if minor == ANY:
            # Always so; but after a plain jump the verifier would refuse what follows as unreachable.
            code.append(_instruction(_JUMP_GE_32, _ACCESS, offset=_to_exception(code), immediate=0))
        else:
            code.append(_instruction(_JUMP_EQ_32, _MINOR_REGISTER, offset=_to_exception(code), immediate=minor))
        return
    end = len(code)
    jump, mask = (_JUMP_NE_32, bits) if default_allow else (_JUMP_EQ_32, ALL & ~bits)
    code.append(_instruction(jump, _SCRATCH, offset=_to_exception(code)))
    code.append(_instruction(_AND_32, _SCRATCH, immediate=mask))
    code.append(_instruction(_MOVE_REGISTER, _SCRATCH, _ACCESS))
    if minor != ANY:
        code.append(_instruction(_JUMP_NE_32, _MINOR_REGISTER, offset=len(code) - end, immediate=minor))


def install(directory: str, target: "Filter", fresh: bool) -> None:
    """Load and attach the filter; programs attached before go after it is in force.

    fresh: the cgroup has just been made, so there are none. A single old one is replaced in one step.

    Raises OSError or StepError.
    """
    from ociruntime.shim import bpf

    cgroup = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    old: list[int] = []
    try:
        if not fresh:
            old = _attached(cgroup)
        if not target.allows_all():
            program = bpf.load_device(assemble(target))
            try:
                if _attach(cgroup, program, old):
                    old = []
            finally:
                posix.close(program)
        _detach(cgroup, old)
    finally:
        for fd in old:
            posix.close(fd)
        posix.close(cgroup)


def detach_all(directory: str) -> None:
    """Take every device filter off a cgroup. Raises OSError or StepError."""
    cgroup = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    old: list[int] = []
    try:
        old = _attached(cgroup)
        _detach(cgroup, old)
    finally:
        for fd in old:
            posix.close(fd)
        posix.close(cgroup)


def _attached(cgroup: int) -> "list[int]":
    """fds of the programs attached to this cgroup itself. A program may go between the two questions: ask again."""
    from ociruntime.shim import bpf

    for last in (False,) * (_QUERY_TRIES - 1) + (True,):
        fds: list[int] = []
        try:
            for ident in bpf.query(cgroup):
                try:
                    fds.append(bpf.program_by_id(ident))
                except StepError as error:
                    # A security module may keep a program of somebody else from us; it stays in force then.
                    if error.errno not in (EACCES, EPERM):
                        raise
            return fds
        except StepError as error:
            for fd in fds:
                posix.close(fd)
            if error.errno != ENOENT or last:
                raise
    return []


def _attach(cgroup: int, program: int, old: "list[int]") -> bool:
    """Attach; True: it took the place of the only old one, whose fd is closed."""
    from ociruntime.shim import bpf

    if len(old) == 1:
        try:
            bpf.attach(cgroup, program, old[0])
        except StepError as error:
            if error.errno not in (ENOENT, EINVAL):
                raise
        else:
            posix.close(old[0])
            return True
    bpf.attach(cgroup, program)
    return False


def _detach(cgroup: int, programs: "list[int]") -> None:
    from ociruntime.shim import bpf

    for program in programs:
        try:
            bpf.detach(cgroup, program)
        except StepError as error:
            if error.errno != ENOENT:
                raise
