"""Man pages, made from the table: ``python3 -m ociruntime.cli.man DIRECTORY`` writes one per command."""

from ociruntime.cli.help import PROGRAM
from ociruntime.cli.table import COMMANDS, GLOBAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.table import Flag

SECTION = 8
OVERVIEW = (
    f"{PROGRAM} runs containers as the OCI runtime specification describes them. A bundle is a directory with a "
    "config.json and a root file system; 'create' turns it into a waiting init process, 'start' lets that run the "
    "program, 'kill' sends it signals and 'delete' removes what is left. Engines such as podman and containerd call "
    "these commands; so can you."
)
EXIT_STATUS = (
    ("0", "The command succeeded."),
    ("1", "It failed; the reason is the last line of the log and of stderr."),
    ("3", "There is no such command."),
    ("255", "'exec' has failed; 1 and its like are the program's there."),
    ("other", "The exit code of the program, for 'exec' and 'run' in the foreground; 128 + N if signal N ended it."),
)
ENVIRONMENT = (
    (
        "LISTEN_FDS",
        "With LISTEN_PID and LISTEN_FDNAMES, for 'create' and 'run': sockets of a service manager, which the container "
        "gets as its descriptors from 3 on, before those of --preserve-fds.",
    ),
    (
        "NOTIFY_SOCKET",
        "For 'create', 'start' and 'run': the container gets a socket of its own at /run/notify; 'start' and 'run' "
        "wait until its program has said READY=1, and tell the service manager.",
    ),
    (
        "DBUS_SYSTEM_BUS_ADDRESS",
        "With systemd as cgroup manager: the D-Bus of the system's manager, if it is not in its usual place.",
    ),
    (
        "DBUS_SESSION_BUS_ADDRESS",
        "With systemd as cgroup manager, rootless: the D-Bus of the user's manager; default bus in XDG_RUNTIME_DIR.",
    ),
    ("XDG_RUNTIME_DIR", "For users other than root, the state root is the directory ociruntime below it."),
    ("USER", "Root of a user namespace counts as root, and not as a user, only if this is 'root'."),
)
LOG = (
    "With --log-format json each line is an object with the keys level, msg and time; errors add those that apply of "
    "code, step, pointer (JSON pointer of the field in config.json), call, errno, path, hint, line, column and "
    "container_id. Below debug level a command that fails writes exactly one line to such a file, the error: its "
    "warnings then go to stderr only. With --debug every line is written at once. The error also goes to stderr as one "
    "line of text."
)


def escape(text: str) -> str:
    """Return text so that roff shows it unchanged."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text


def _bold(text: str) -> str:
    return f"\\fB{escape(text)}\\fR"


def _italic(text: str) -> str:
    return f"\\fI{escape(text)}\\fR"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _flags(flags: "tuple[Flag, ...]") -> "list[str]":
    lines: list[str] = []
    for name, short, _, metavar, help_text in flags:
        if not help_text:
            continue
        words = _bold(f"--{name}") + (f" {_italic(metavar)}" if metavar else "")
        if short:
            words += f", {_bold(f'-{short}')}" + (f" {_italic(metavar)}" if metavar else "")
        lines.extend((".TP", words, escape(_sentence(help_text))))
    return lines


def _pairs(pairs: "tuple[tuple[str, str], ...]") -> "list[str]":
    lines: list[str] = []
    for word, text in pairs:
        lines.extend((".TP", _bold(word), escape(text)))
    return lines


def _title(name: str, summary: str, release: str) -> "list[str]":
    return [
        f'.TH "{name.upper()}" "{SECTION}" "" "{PROGRAM} {release}" "OCI runtime"',
        ".SH NAME",
        f"{escape(name)} \\- {escape(summary)}",
        ".SH SYNOPSIS",
    ]


def page(command: str, release: str) -> str:
    """Return the roff text of a command's page, or of the program's for ""."""
    if command:
        summary, synopsis, _, _, _, flags, description = COMMANDS[command]
        name = f"{PROGRAM}-{command}"
        lines = _title(name, summary, release)
        words = [_bold(PROGRAM), "[global options]", _bold(command)]
        if flags:
            words.append("[options]")
        if synopsis:
            words.append(_italic(synopsis))
        lines.extend((" ".join(words), ".SH DESCRIPTION", escape(description)))
        if flags:
            lines.extend((".SH OPTIONS", *_flags(flags)))
        lines.extend((".SH SEE ALSO", f".BR {PROGRAM} ({SECTION})"))
    else:
        lines = _title(PROGRAM, "OCI container runtime", release)
        lines.append(f"{_bold(PROGRAM)} [global options] {_italic('COMMAND')} [options] [arguments]")
        lines.extend((".SH DESCRIPTION", escape(OVERVIEW), ".SH COMMANDS"))
        for other, row in COMMANDS.items():
            heading = f"{_bold(other)} {_italic(row[1])}" if row[1] else _bold(other)
            lines.extend((".TP", heading, escape(_sentence(row[0]))))
        lines.extend((".SH GLOBAL OPTIONS", *_flags(GLOBAL)))
        lines.extend((".SH LOG", escape(LOG)))
        lines.extend((".SH EXIT STATUS", *_pairs(EXIT_STATUS)))
        lines.extend((".SH ENVIRONMENT", *_pairs(ENVIRONMENT)))
        pages = [f".BR {PROGRAM}\\-{other} ({SECTION})," for other in COMMANDS]
        pages[-1] = pages[-1].rstrip(",")
        lines.extend((".SH SEE ALSO", *pages))
    return "\n".join(lines) + "\n"


def write_pages(directory: str) -> "list[str]":
    """Write all pages into a directory, which is made if need be; return their paths."""
    import os

    from ociruntime import __version__

    os.makedirs(directory, exist_ok=True)
    paths = []
    for command in ("", *COMMANDS):
        name = f"{PROGRAM}-{command}" if command else PROGRAM
        path = os.path.join(directory, f"{name}.{SECTION}")
        with open(path, "w", encoding="ascii") as file:
            file.write(page(command, __version__))
        paths.append(path)
    return paths


if __name__ == "__main__":
    import sys

    if len(sys.argv) != 2:
        sys.exit("usage: python3 -m ociruntime.cli.man DIRECTORY")
    print("\n".join(write_pages(sys.argv[1])))
