"""The text of ``--help``, made from the table."""

from ociruntime.cli.parser import UnknownCommandError
from ociruntime.cli.table import COMMANDS, GLOBAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.table import Flag

PROGRAM = "ociruntime"
WIDTH = 100


def flag_words(flag: "Flag") -> str:
    """Return a flag as it is typed: ``--bundle DIR, -b DIR``."""
    name, short, _, metavar, _ = flag
    value = f" {metavar}" if metavar else ""
    return f"--{name}{value}" + (f", -{short}{value}" if short else "")


def fill(text: str, indent: int, first: "str | None" = None) -> "list[str]":
    """Break text into lines; first: what stands in the margin of the first one, instead of blanks."""
    margin = " " * indent
    lines: list[str] = []
    line = margin if first is None else first.ljust(indent)
    if len(line) > indent:
        lines.append(line.rstrip())
        line = margin
    empty = True
    for word in text.split():
        if not empty and len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line, empty = margin, True
        line += word if empty else " " + word
        empty = False
    lines.append(line)
    return lines


def flag_lines(flags: "tuple[Flag, ...]") -> "list[str]":
    """Return the shown flags, one paragraph each, with the help texts in a column."""
    shown = [flag for flag in flags if flag[4]]
    indent = min(30, 4 + max((len(flag_words(flag)) for flag in shown), default=0) + 2)
    lines: list[str] = []
    for flag in shown:
        lines.extend(fill(flag[4], indent, f"  {flag_words(flag)}  "))
    return lines


def usage(name: str) -> str:
    """Return the synopsis line of a command, or of the program for ""."""
    if not name:
        return f"{PROGRAM} [global options] COMMAND [options] [arguments]"
    _, synopsis, _, _, _, flags, _ = COMMANDS[name]
    words = [PROGRAM, "[global options]", name]
    if flags:
        words.append("[options]")
    if synopsis:
        words.append(synopsis)
    return " ".join(words)


def text_for(name: str) -> str:
    """Return the help text of a command, or of the program for "". Raises UnknownCommandError."""
    if name and name not in COMMANDS:
        raise UnknownCommandError(f"unknown command '{name}'", hint="'ociruntime help' lists the commands")
    lines = [f"Usage: {usage(name)}", ""]
    if name:
        _, _, _, _, _, flags, description = COMMANDS[name]
        lines.extend(fill(description, 0))
        own = flag_lines(flags)
        if own:
            lines.extend(("", "Options:", *own))
    else:
        lines.extend(fill("Runs containers from OCI bundles: a directory with config.json and a root file system.", 0))
        lines.extend(("", "Commands:"))
        for command, row in COMMANDS.items():
            lines.extend(fill(row[0], 14, f"  {command}"))
        lines.extend(("", "Global options:", *flag_lines(GLOBAL)))
        lines.extend(("", "A command's own options: ociruntime COMMAND --help"))
    return "\n".join(lines) + "\n"
