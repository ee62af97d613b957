"""``update ID``."""

from ociruntime import files
from ociruntime.config import load, validate
from ociruntime.errors import StepError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options

# Flag -> section and member of /linux/resources. An empty value is none, and so is 0, but for those of MAY_BE_ZERO.
NUMBERS = {
    "blkio-weight": ("blockIO", "weight"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-idle": ("cpu", "idle"),
    "pids-limit": ("pids", "limit"),
}
MAY_BE_ZERO = ("cpu-burst", "cpu-idle")
TEXTS = {"cpuset-cpus": ("cpu", "cpus"), "cpuset-mems": ("cpu", "mems")}
BYTES = {
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "kernel-memory": ("memory", "kernel"),
    "kernel-memory-tcp": ("memory", "kernelTCP"),
}
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def number(text: str, flag: str) -> int:
    """A decimal number, maybe negative."""
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 19:
        raise UsageError(f"--{flag} needs a number, not '{text}'")
    return int(text)


def size(text: str, flag: str) -> int:
    """A number of bytes such as 67108864, 64M, 1.5g, 64MiB; -1 for no limit. Units are powers of 1024."""
    if text == "-1":
        return -1
    rest = text.lower().removesuffix("b")
    if len(rest) > 1 and rest[-1] == "i" and rest[-2] in _FACTORS:
        rest = rest[:-1]
    unit = rest[-1:] if rest[-1:] in _FACTORS else ""
    digits = rest.removesuffix(unit).rstrip(" ")
    whole, dot, fraction = digits.partition(".")
    if not (whole.isascii() and whole.isdigit()) or len(digits) > 19 or (dot and not fraction.isdigit()):
        raise UsageError(f"--{flag}: '{text}' is not a size", hint="such as 67108864, 64M, 1.5G, or -1 for no limit")
    value = int(whole) * _FACTORS[unit]
    return value + int(float(f"0.{fraction}") * _FACTORS[unit]) if dot else value


def resources(options: "Options") -> "dict[str, Any]":
    """What the flags ask for, in the form of /linux/resources."""
    found: dict[str, dict[str, Any]] = {}
    for flag, (section, member) in NUMBERS.items():
        if options.text(flag):
            value = number(options.text(flag), flag)
            if value or flag in MAY_BE_ZERO:
                found.setdefault(section, {})[member] = value
    for flag, (section, member) in TEXTS.items():
        if options.text(flag):
            found.setdefault(section, {})[member] = options.text(flag)
    for flag, (section, member) in BYTES.items():
        if options.text(flag):
            value = size(options.text(flag), flag)
            if value:
                found.setdefault(section, {})[member] = value
    return found


def read(path: str) -> "dict[str, Any]":
    """The resources of a file, or of stdin for "-"; null, which is how Go writes a pointer to none, is none.

    Raises UsageError, StepError, and ConfigError with the place in the document.
    """
    if not path:
        raise UsageError("--resources needs the name of a file, or - for stdin")
    name = "stdin" if path == "-" else path
    try:
        data = files.rest(0, load.MAX_SIZE + 1) if path == "-" else load.read(path, pipe=True)
    except OSError as error:
        raise StepError("cannot read stdin", errno=error.errno or 0) from None
    document: Any = load.parse(data, name)
    if document is None:
        return {}
    validate.check(document, data, name, "resources")
    return document  # type: ignore[no-any-return]


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Change limits. --resources wins over all flags but those of the class of service."""
    wanted = read(options.text("resources")) if options.given("resources") else resources(options)
    context.runtime().update(
        arguments[0],
        wanted,
        l3_cache_schema=options.text("l3-cache-schema"),
        mem_bw_schema=options.text("mem-bw-schema"),
    )
    return 0
