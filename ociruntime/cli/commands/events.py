"""``events ID``."""

import posix

from ociruntime.errors import StepError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options

DEFAULT = "5s"
# Seconds. Microseconds are written with u or either letter mu.
UNITS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(text: str) -> float:
    """Seconds of a duration such as 1s, 100ms, 1m30s or 1.5h, as Go programs write it. Raises UsageError."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    total = 0.0
    if not rest:
        raise UsageError(f"--interval: '{text}' is not a duration", hint="such as 1s, 100ms, 1m30s")
    while rest and rest != "0":
        length = 0
        while length < len(rest) and (rest[length] == "." or (rest[length].isascii() and rest[length].isdigit())):
            length += 1
        end = length
        while end < len(rest) and rest[end] != "." and not rest[end].isdigit():
            end += 1
        number, unit = rest[:length], rest[length:end]
        if number.count(".") > 1 or not number.strip(".") or unit not in UNITS:
            raise UsageError(f"--interval: '{text}' is not a duration", hint="such as 1s, 100ms, 1m30s")
        total += float(number) * UNITS[unit]
        rest = rest[end:]
    return -total if text[0] == "-" else total


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Print one JSON object per line, until the container has ended or nobody reads any more."""
    from ociruntime.jsontext import dumps

    interval = duration(options.text("interval") or DEFAULT)
    if interval <= 0:
        raise UsageError(f"--interval must be greater than 0, and is '{options.text('interval')}'")
    runtime = context.runtime()
    container_id = arguments[0]
    if options.flag("stats"):
        record = {"type": "stats", "id": container_id, "data": runtime.stats(container_id)}
        return context.output(dumps(record) + "\n")
    for record in runtime.events(container_id, interval):
        line = (dumps(record) + "\n").encode("ascii")
        try:
            while line:
                line = line[posix.write(1, line) :]
        except BrokenPipeError:
            return 0
        except OSError as error:
            raise StepError("cannot write to stdout", errno=error.errno or 0) from None
    return 0
