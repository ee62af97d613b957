"""``ns ID``."""

from ociruntime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options
    from ociruntime.lifecycle.ns import Report

COLUMNS = ("NAMESPACE", "CONTAINER", "CALLER", "")


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Compare the namespaces of a container with the caller's."""
    form = options.text("format") or "table"
    if form not in ("table", "json"):
        raise UsageError(f"--format is 'table' or 'json', not '{form}'")
    report = context.runtime().namespaces(arguments[0])
    if form == "json":
        from ociruntime.jsontext import dumps

        return context.output(dumps(report, 2) + "\n")
    return context.output(table(report))


def table(report: "Report") -> str:
    """The namespaces in columns, three blanks apart, then the sentences."""
    rows = [COLUMNS]
    for entry in report["namespaces"]:
        same = {True: "same", False: "different", None: "not to be told"}[entry["same"]]
        path = entry.get("path")
        inode, own = ("?" if number is None else str(number) for number in (entry["inode"], entry["callerInode"]))
        rows.append((entry["type"], inode, own, f"{same}, joined: {path}" if path else same))
    widths = [max(len(row[column]) for row in rows) + 3 for column in range(3)]
    lines = [
        "".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", *report["words"]]) + "\n"
