"""How much a container uses, read from the files of its cgroup: what `events` reports.

The document has the keys that engines know from other runtimes:

    cpu          usage (total, percpu, percpu_kernel, percpu_user, kernel, user) and throttling in ns; psi
    cpuset       cpus and mems as lists of numbers, the rest as the kernel has it
    memory       cache, usage, swap, kernel, kernelTCP in bytes; raw: memory.stat; psi
    pids         current, limit
    blkio        lists of {major, minor, op, value}; psi
    hugetlb      page size to {usage, max, failcnt}

An entry is {limit, usage, max, failcnt}. A psi is {some, full: {avg10, avg60, avg300 in %, total in us}}. Members that
are zero are left out, but for cpu kernel and user, failcnt, the limits of memory and the numbers of cpuset.

Source: kernel Documentation/admin-guide/cgroup-v1, cgroup-v2; Documentation/accounting/psi.
"""

import posix
from errno import EACCES, ENODEV, ENOENT, EOPNOTSUPP, EPERM

from ociruntime.cgroups import files
from ociruntime.errors import StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ociruntime.cgroups.cgroup import Cgroup

UNLIMITED = (1 << 64) - 1
_ABSENT = (ENOENT, ENODEV, EOPNOTSUPP)
_CPUSET_NUMBERS = (
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
)
_HUGE_PAGES = "/sys/kernel/mm/hugepages"


def collect(cgroup: "Cgroup", huge_pages: str = _HUGE_PAGES) -> "dict[str, Any]":
    """The document of a cgroup. huge_pages: the directory that lists the page sizes of the machine.

    What this kernel or this host does not count is left out. Raises StepError for files that cannot be read, unless the
    cgroup is a rootless runtime's.
    """
    from ociruntime.cgroups import stats_v1, stats_v2

    sizes = page_sizes(huge_pages)
    paths = cgroup.paths
    if cgroup.mode == "v2":
        sections = stats_v2.sections(paths[""], sizes)
    else:
        sections = stats_v1.sections(paths, sizes)
    result = empty()
    for name, read in sections:
        try:
            result[name] = read()
        except OSError as error:
            if cgroup.rootless and error.errno in (EACCES, EPERM):
                continue
            path = error.filename
            raise StepError(
                f"cannot read how much {name} is used",
                step="cgroup",
                errno=error.errno or 0,
                path=path if isinstance(path, str) else "",
            ) from error
    return result


def empty() -> "dict[str, Any]":
    """The document of a container about which nothing is known."""
    return {
        "cpu": {"usage": {"kernel": 0, "user": 0}, "throttling": {}},
        "cpuset": cpuset(lambda _name: b""),
        "memory": {name: entry() for name in ("usage", "swap", "kernel", "kernelTCP")},
        "pids": {},
        "blkio": {},
        "hugetlb": {},
    }


# -- pieces that both versions need


def read(path: str) -> bytes:
    """A file; b"" when there is none, or none that this kernel fills."""
    try:
        return files.read(path)
    except OSError as error:
        if error.errno in _ABSENT:
            return b""
        raise


def number(path: str, unlimited: int = 0) -> int:
    """The number in a file, 0 when there is none. unlimited: what "max" stands for."""
    text = read(path).strip()
    if text == b"max":
        return unlimited
    try:
        return int(text)
    except ValueError:
        return 0


def pairs(data: bytes) -> "dict[str, int]":
    """Lines of a name and a number; others are passed over."""
    found = {}
    for line in data.decode("ascii", "replace").split("\n"):
        words = line.split()
        if len(words) == 2 and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found


def nonzero(**members: "Any") -> "dict[str, Any]":
    """The members that are neither 0 nor empty nor None."""
    return {name: value for name, value in members.items() if value}


def entry(limit: int = 0, usage: int = 0, peak: int = 0, failcnt: int = 0) -> "dict[str, int]":
    """A member of memory."""
    return {"limit": limit, **nonzero(usage=usage, max=peak), "failcnt": failcnt}


def numbers(text: str) -> "list[int]":
    """A list such as "0-2,5" as numbers. Source: cpuset(7), list format."""
    found: list[int] = []
    for part in text.strip().split(","):
        first, _dash, last = part.partition("-")
        if first.isdigit() and (last.isdigit() or not last):
            found.extend(range(int(first), int(last or first) + 1))
    return found


def cpuset(file: "Callable[[str], bytes]") -> "dict[str, Any]":
    """cpuset from its files; file: short name to content, b"" if there is none."""
    lists = {name: numbers(file(name).decode("ascii", "replace")) for name in ("cpus", "mems")}
    result: dict[str, Any] = nonzero(**lists)
    for name in _CPUSET_NUMBERS:
        text = file(name).strip()
        result[name] = int(text) if text.removeprefix(b"-").isdigit() else 0
    return result


def pressure(path: str) -> "dict[str, dict[str, float]] | None":
    """A file of pressure stall information; None where the kernel keeps none."""
    found: dict[str, dict[str, float]] = {}
    for line in read(path).decode("ascii", "replace").split("\n"):
        kind, *words = line.split() or [""]
        if kind in ("some", "full"):
            values: dict[str, float] = {}
            for word in words:
                name, _equals, value = word.partition("=")
                values[name] = int(value) if name == "total" else float(value)
            found[kind] = values
    return found or None


def device(text: str) -> "tuple[int, int] | None":
    """A device "8:0" as numbers; None for anything else."""
    major, colon, minor = text.partition(":")
    return (int(major), int(minor)) if colon and major.isdigit() and minor.isdigit() else None


def block(where: "tuple[int, int]", op: str, value: int) -> "dict[str, Any]":
    """An entry of blkio."""
    return nonzero(major=where[0], minor=where[1], op=op, value=value)


def page_sizes(directory: str) -> "list[str]":
    """The sizes of huge pages this machine has, as in file names of the hugetlb controller: 64KB, 2MB, 1GB."""
    try:
        names = posix.listdir(directory)
    except OSError:
        return []
    sizes = []
    for name in sorted(names):
        kilobytes = name.removeprefix("hugepages-").removesuffix("kB")
        if kilobytes.isdigit():
            size, unit = int(kilobytes), "KB"
            for larger in ("MB", "GB"):
                if size >= 1024 and not size % 1024:
                    size, unit = size // 1024, larger
            sizes.append(f"{size}{unit}")
    return sizes


def processes(directory: str) -> int:
    """How many processes are in a cgroup, where no controller counts them."""
    return len(files.pids(directory))
