"""One write to a cgroup file, how it is carried out, and the checks that cgroup v1 and v2 share."""

import posix
from errno import EACCES, EBUSY, EINVAL, ENODEV, ENOENT, ENXIO, EOPNOTSUPP, EPERM, ERANGE

from ociruntime.cgroups import files
from ociruntime.errors import ConfigError, StepError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence
    from typing import Any


class CgroupWrite:
    """One value for one file, in the container's directory of controller ("cpu"; "cgroup" for v2 core files).

    pointer: the field it comes from. defer: a refusal (EINVAL) may only mean that another value has to be written
    first, so it is tried again after all others. missing_ok: without this file there is nothing to do. fallback:
    (file, value) where the first file does not exist. verify: read the number back; the kernel clamps silently.
    usage: a file whose number must be smaller than value.
    """

    __slots__ = ("controller", "defer", "fallback", "file", "missing_ok", "pointer", "usage", "value", "verify")

    def __init__(
        self,
        pointer: str,
        controller: str,
        file: str,
        value: str,
        *,
        defer: bool = False,
        missing_ok: bool = False,
        fallback: "tuple[str, str] | None" = None,
        verify: bool = False,
        usage: str = "",
    ) -> None:
        self.pointer = pointer
        self.controller = controller
        self.file = file
        self.value = value
        self.defer = defer
        self.missing_ok = missing_ok
        self.fallback = fallback
        self.verify = verify
        self.usage = usage

    def __repr__(self) -> str:
        extra = [name for name in ("defer", "missing_ok", "verify") if getattr(self, name)]
        extra += [f"{name}={getattr(self, name)}" for name in ("fallback", "usage") if getattr(self, name)]
        return f"<{self.pointer} {self.controller}/{self.file} {self.value!r}{' ' if extra else ''}{' '.join(extra)}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CgroupWrite) and repr(self) == repr(other)

    __hash__ = None  # type: ignore[assignment]


# Of cgroup v1: the file that a file must fit, and the field it comes from.
_TOGETHER = {
    "memory.limit_in_bytes": ("memory.memsw.limit_in_bytes", "swap"),
    "memory.memsw.limit_in_bytes": ("memory.limit_in_bytes", "limit"),
}

# -- carrying them out


def perform(writes: "Sequence[CgroupWrite]", directory_of: "Callable[[str], str]") -> None:
    """Write them in order, the refused ones with defer again at the end. directory_of: controller -> directory.

    Raises UnsupportedError when a file is missing, StepError when the kernel refuses, both with the field's pointer.
    """
    deferred = []
    for write in writes:
        try:
            _perform(write, directory_of(write.controller))
        except OSError as error:
            if not write.defer or error.errno != EINVAL:
                raise _failure(write, error, directory_of(write.controller)) from error
            deferred.append(write)
    for write in deferred:
        try:
            _perform(write, directory_of(write.controller))
        except OSError as error:
            raise _failure(write, error, directory_of(write.controller)) from error


def check_usage(writes: "Sequence[CgroupWrite]", directory_of: "Callable[[str], str]") -> None:
    """Refuse a limit that is to be checked against what is in use. Raises StepError."""
    for write in writes:
        if write.usage:
            _check_usage(write, directory_of(write.controller))


def _check_usage(write: CgroupWrite, directory: str) -> None:
    used = files.read_or_empty(f"{directory}/{write.usage}").strip()
    if used.isdigit() and write.value.isdigit() and int(used) >= int(write.value):
        raise StepError(
            f"the limit {write.value} is not above what is in use ({int(used)} bytes)",
            pointer=write.pointer,
            step="cgroup",
            path=f"{directory}/{write.file}",
        )


def _perform(write: CgroupWrite, directory: str) -> None:
    if write.usage:
        _check_usage(write, directory)
    file = write.file
    try:
        files.write(f"{directory}/{file}", write.value.encode("utf-8", "surrogateescape"))
    except OSError as error:
        if error.errno != ENOENT:
            raise
        if write.fallback is None:
            if write.missing_ok:
                return
            raise
        file, value = write.fallback
        try:
            files.write(f"{directory}/{file}", value.encode("utf-8", "surrogateescape"))
        except OSError as second:
            if second.errno == ENOENT and write.missing_ok:
                return
            raise
    if write.verify:
        found = files.read(f"{directory}/{file}").strip()
        if found.isdigit() and int(found) != int(write.value):
            bound = "maximum" if int(found) < int(write.value) else "minimum"
            raise StepError(
                f"{write.value} is out of range: the {bound} is {int(found)}",
                pointer=write.pointer,
                step="cgroup",
                path=f"{directory}/{file}",
            )


def _failure(write: CgroupWrite, error: OSError, directory: str) -> "StepError | UnsupportedError":
    number = error.errno or 0
    if number in (ENOENT, ENODEV) and not files.exists(directory):
        return StepError(
            files.GONE, pointer=write.pointer, step="cgroup", errno=number, path=directory, hint=files.GONE_HINT
        )
    if number == ENOENT:
        return _missing(write, directory)
    hint = ""
    if number == EBUSY and write.controller == "memory":
        used = _first(directory, "memory.usage_in_bytes", "memory.current")
        hint = f"{used} bytes are in use and cannot be reclaimed" if used else ""
    elif number in (EINVAL, EACCES, ERANGE) and write.controller == "cpuset":
        parent = directory[: directory.rfind("/")]
        kind = "mems" if "mems" in write.file else "cpus"
        there = _first(parent, f"cpuset.{kind}.effective", f"cpuset.effective_{kind}", f"cpuset.{kind}")
        hint = f"the parent cgroup has {kind} {there}" if there else ""
    elif number == EBUSY and write.controller == "cpuset":
        hint = "a sub-cgroup may have more than that"
    elif number in (EACCES, EPERM):
        hint = "the cgroup has to be delegated to the user who runs this, with this controller"
    elif number in (ENODEV, ENXIO):
        hint = "there is no such device on this host"
    elif number == EOPNOTSUPP and "weight" in write.file:
        hint = "the I/O scheduler of this device has no weights: bfq has"
    elif number == EOPNOTSUPP and write.controller != "cgroup":
        hint = "a threaded cgroup does not support this controller"
    elif number == EBUSY and write.file == "cgroup.subtree_control":
        hint = "a cgroup that holds processes has no controllers for those below it"
    elif number == EINVAL:
        hint = "out of range, beyond what a parent cgroup allows, or less than a sub-cgroup has"
        other, field = _TOGETHER.get(write.file, ("", ""))
        there = _first(directory, other) if other else ""
        if there:
            hint = f"memory and swap together cannot be less than memory, and {other} is {there}: change {field} too"
    return StepError(
        f"the kernel refuses '{write.value}'",
        pointer=write.pointer,
        step="cgroup",
        call="write",
        errno=number,
        path=f"{directory}/{write.file}",
        hint=hint,
    )


def _missing(write: CgroupWrite, directory: str) -> UnsupportedError:
    """The file is not there: is it the controller, or only this kernel's lack of the feature?"""
    enabled = files.read_or_empty(directory + "/cgroup.controllers").split()
    v2 = files.exists(directory + "/cgroup.controllers")
    if v2 and write.controller != "cgroup" and write.controller.encode() not in enabled:
        parent = directory[: directory.rfind("/")]
        return UnsupportedError(
            f"'{write.file}'",
            f"the cgroup controller {write.controller}, which cannot be enabled for '{directory}'",
            pointer=write.pointer,
            errno=ENOENT,
            hint=f"processes in '{parent}', or a parent that is not delegated, prevent it",
        )
    hint = f"looked for it in '{directory}'"
    if write.controller == "hugetlb":
        names = [name.split(".") for name in posix.listdir(directory)]
        sizes = sorted({name[1] for name in names if name[0] == "hugetlb" and name[-1] in ("max", "limit_in_bytes")})
        hint += f"; pages of this machine: {', '.join(sizes) or 'none'}"
    return UnsupportedError(
        f"'{write.file}'",
        "a kernel that has this file",
        pointer=write.pointer,
        errno=ENOENT,
        hint=hint,
    )


def _first(directory: str, *names: str) -> str:
    for name in names:
        try:
            text = files.read_or_empty(f"{directory}/{name}").decode("utf-8", "replace").strip()
        except OSError:
            continue
        if text:
            return text
    return ""


# -- checks both versions need; all raise ConfigError


def require(writes: "Iterable[CgroupWrite]", available: "Container[str]", version: str) -> None:
    """Refuse a limit whose controller is not there: never silence."""
    for write in writes:
        if write.controller != "cgroup" and write.controller not in available:
            raise UnsupportedError(
                f"'{write.file}'",
                f"the {version} controller {write.controller}, which this host does not offer",
                pointer=write.pointer,
            )


def check_memory(memory: "dict[str, Any]", pointer: str) -> None:
    limit = memory.get("limit") or 0
    swap = memory.get("swap") or 0
    for name in ("limit", "swap", "reservation"):
        if (memory.get(name) or 0) < -1:
            raise ConfigError("must be a number of bytes, or -1 for no limit", pointer=f"{pointer}/{name}")
    if limit > 0 and 0 < swap < limit:
        raise ConfigError(
            f"memory plus swap ({swap}) is less than the memory limit ({limit})",
            pointer=f"{pointer}/swap",
            hint="swap counts both together",
        )
    swappiness = memory.get("swappiness")
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise ConfigError(f"{swappiness} is not between 0 and 100", pointer=f"{pointer}/swappiness")


def memory_warnings(memory: "dict[str, Any]", pointer: str) -> "list[str]":
    """Fields that no current kernel heeds any more."""
    return [
        f"{pointer}/{name}: kernel memory limits are obsolete, ignoring"
        if name != "useHierarchy"
        else f"{pointer}/{name}: the kernel always accounts hierarchically, ignoring"
        for name in ("kernel", "kernelTCP", "useHierarchy")
        if memory.get(name)
    ]


def pids(section: "dict[str, Any]", pointer: str) -> "list[CgroupWrite]":
    """/linux/resources/pids, the same file in both versions. Negative is no limit; 0 is no process, and read as 1."""
    limit = section.get("limit")
    if limit is None:
        return []
    return [CgroupWrite(f"{pointer}/limit", "pids", "pids.max", "max" if limit < 0 else str(limit or 1))]


def check_weight(weight: int, pointer: str) -> None:
    if not 10 <= weight <= 1000:
        raise ConfigError(f"{weight} is not between 10 and 1000", pointer=pointer)


def check_weight_devices(entries: "list[dict[str, Any]]", pointer: str) -> None:
    for index, entry in enumerate(entries):
        if not entry.get("weight") and not entry.get("leafWeight"):
            raise ConfigError("needs weight or leafWeight", pointer=f"{pointer}/{index}")
        for name in ("weight", "leafWeight"):
            if entry.get(name):
                check_weight(entry[name], f"{pointer}/{index}/{name}")


def page_size(size: str, pointer: str) -> str:
    """hugepageLimits[].pageSize becomes a part of a file name: digits and KB, MB or GB, nothing else."""
    digits = size[:-2]
    if size[-2:] not in ("KB", "MB", "GB") or not digits.isascii() or not digits.isdigit() or digits[0] == "0":
        raise ConfigError(f"'{size}' is not a page size", pointer=pointer, hint="write it like 64KB, 2MB or 1GB")
    return size


def hugetlb(entries: "list[dict[str, Any]]", pointer: str, file: str) -> "list[CgroupWrite]":
    """/linux/resources/hugepageLimits, reservations too where they are counted. file: "limit_in_bytes" or "max"."""
    result = []
    for index, entry in enumerate(entries):
        size = page_size(entry["pageSize"], f"{pointer}/{index}/pageSize")
        place = f"{pointer}/{index}/limit"
        for name, missing_ok in ((file, False), (f"rsvd.{file}", True)):
            full_name = f"hugetlb.{size}.{name}"
            result.append(CgroupWrite(place, "hugetlb", full_name, str(entry["limit"]), missing_ok=missing_ok))
    return result


def word(text: str, pointer: str) -> str:
    """A name that is written into a line of several words."""
    if not text or text.split() != [text]:
        raise ConfigError(f"'{text}' cannot be used as a name here", pointer=pointer)
    return text


def rdma(entries: "dict[str, Any]", pointer: str) -> "list[CgroupWrite]":
    """/linux/resources/rdma, the same file in both versions."""
    result = []
    for name, entry in entries.items():
        place = f"{pointer}/{escape(name)}"
        words = [
            f"{key}={entry[field]}"
            for field, key in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
            if entry.get(field) is not None
        ]
        if not words:
            raise ConfigError("needs hcaHandles or hcaObjects", pointer=place)
        result.append(CgroupWrite(place, "rdma", "rdma.max", f"{word(name, place)} {' '.join(words)}"))
    return result


def escape(key: str) -> str:
    """A key as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
