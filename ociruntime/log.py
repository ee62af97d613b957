"""The log: where lines go (stderr, or the file of ``--log``) and what they look like (text or JSON).

Rules that callers depend on:
- a JSON log file gets one object per line with at least level, msg and time (RFC 3339);
- some engines decode the whole file as ONE object, so below debug level a failing command writes its error line and
  nothing else there: warnings are held back, go to the file when the command succeeds and to stderr when it fails;
- library rooms never log an error that they raise; ``cli.main`` does, once.
"""

import posix
from time import gmtime, time_ns

from ociruntime.errors import OCIError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM = "ociruntime"
LEVELS = {"debug": 10, "info": 20, "warn": 30, "warning": 30, "error": 40}


def rfc3339(nanoseconds: int, fraction: bool = False) -> str:
    """Format a UTC time given in ns since the epoch; fraction: with up to nine digits, trailing zeros dropped."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    year, month, day, hour, minute, second = gmtime(seconds)[:6]
    tail = f".{rest:09d}".rstrip("0") if fraction and rest else ""
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}{tail}Z"


def one_line(text: str) -> str:
    """Make text safe for a line of a terminal: whatever is not printable is shown escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def write_all(fd: int, text: str) -> None:
    """Write text to fd. A reader that has gone away (EPIPE) is not an error; anything else raises OSError."""
    data = text.encode("utf-8", "surrogateescape")
    while data:
        try:
            data = data[posix.write(fd, data) :]
        except BrokenPipeError:
            return


def to_stderr(line: str) -> None:
    """Write one line to stderr; nobody can be told when that fails."""
    try:
        write_all(2, one_line(line) + "\n")
    except OSError:
        pass


class Log:
    """One command's log, or a library caller's. A new one writes warnings and errors to stderr as plain lines.

    fd: the log file, -1 for stderr. level: lines below it are dropped. json: the format.
    """

    __slots__ = ("fd", "held", "json", "level")

    def __init__(self, level: int = 20) -> None:
        self.fd = -1
        self.json = False
        self.level = level
        self.held: list[tuple[str, str]] = []

    @property
    def debugging(self) -> bool:
        """Whether debug lines are written; ask before building a costly one."""
        return self.level <= 10

    def configure(self, *, path: str = "", form: str = "text", level: str = "info", debug: bool = False) -> None:
        """Apply --log, --log-format, --log-level and --debug.

        The file is opened for appending, created 0644, O_SYNC; everything that can be wrong is tried after the file is
        open, so that it is reported there. Raises UsageError or OCIError.
        """
        if path:
            flags = posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_SYNC | posix.O_NOCTTY | posix.O_CLOEXEC
            try:
                self.fd = posix.open(path, flags, 0o644)
            except OSError as error:
                raise OCIError("cannot open the log", step="log", path=path, errno=error.errno or 0) from None
        if debug:
            self.level = 10
        elif level in LEVELS:
            self.level = LEVELS[level]
        else:
            raise UsageError(f"--log-level is one of debug, info, warning, error, not '{level}'")
        if form == "json":
            self.json = True
        elif form != "text":
            raise UsageError(f"--log-format is 'text' or 'json', not '{form}'")

    def debug(self, message: str, fields: "Mapping[str, object] | None" = None) -> None:
        """Log what is being done. fields: extra keys."""
        if self.level <= 10:
            self._line("debug", message, fields)

    def info(self, message: str, fields: "Mapping[str, object] | None" = None) -> None:
        """Log something worth knowing that is no problem."""
        if self.level <= 20:
            self._line("info", message, fields)

    def warning(self, message: str, fields: "Mapping[str, object] | None" = None) -> None:
        """Log a problem that is tolerated; the message says so ("…, ignoring")."""
        if self.level <= 30:
            self._line("warning", message, fields)

    def error(self, message: str, fields: "Mapping[str, object] | None" = None) -> None:
        """Log the failure of the command: to the log and, when the log is a file, as a plain line to stderr too."""
        for _, plain in self.held:
            to_stderr(plain)
        self.held.clear()
        self._line("error", message, fields)
        if self.fd >= 0:
            to_stderr(f"{PROGRAM}: {message}")

    def close(self) -> None:
        """End of the command: write the warnings still held back (``error`` drops them) and close the file."""
        if self.fd >= 0:
            for line, _ in self.held:
                self._put(line)
            posix.close(self.fd)
            self.fd = -1
        self.held.clear()

    def _line(self, level: str, message: str, fields: "Mapping[str, object] | None") -> None:
        now = rfc3339(time_ns())
        plain = f"{PROGRAM}: {message}" if level == "error" else f"{PROGRAM}: {level}: {message}"
        if self.json:
            from ociruntime.jsontext import dumps

            line = dumps({"level": level, "msg": message, "time": now, **(fields or {})})
            if self.fd >= 0 and self.level > 10 and level != "error":
                self.held.append((line, plain))
                return
        elif self.fd >= 0:
            from ociruntime.jsontext import quote

            line = f'time="{now}" level={level} msg={quote(message)}'
            for key, value in (fields or {}).items():
                line += f" {key}={quote(str(value))}"
        else:
            line = plain
        self._put(line)

    def _put(self, line: str) -> None:
        if self.fd < 0:
            to_stderr(line)
            return
        try:
            write_all(self.fd, line + "\n")
        except OSError:
            to_stderr(line)
