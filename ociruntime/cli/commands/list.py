"""``list``."""

from ociruntime.errors import OCIError, UsageError
from ociruntime.log import Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options

COLUMNS = ("id", "pid", "status", "bundle", "created", "owner")


def table(entries: "Iterable[dict[str, object]]") -> str:
    """Lay entries out in columns: at least 12 characters wide, three blanks apart."""
    rows = [tuple(column.upper() for column in COLUMNS)]
    rows.extend(tuple(str(entry[column]) for column in COLUMNS) for entry in entries)
    widths = [max(9, *(len(row[column]) for row in rows)) + 3 for column in range(len(COLUMNS) - 1)]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[-1] + "\n" for row in rows
    )


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """List the containers. The default state root may be missing, one that was asked for may not."""
    form = options.text("format") or "table"
    if form not in ("table", "json"):
        raise UsageError(f"--format is 'table' or 'json', not '{form}'")
    root = context.explicit_root()
    if root:
        from ociruntime.state.store import StateRoot

        if not StateRoot(root).exists():
            raise OCIError("no such file or directory", step="state", path=root)
    # What is wrong with single entries belongs on stderr, whatever the log is.
    entries = context.runtime(Log()).list()
    if options.flag("quiet"):
        return context.output("".join(f"{entry['id']}\n" for entry in entries))
    if form == "json":
        from ociruntime.jsontext import dumps

        return context.output(dumps(entries) + "\n")
    return context.output(table(entries))
