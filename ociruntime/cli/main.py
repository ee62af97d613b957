"""The command line: reads it, runs one command, and turns an error into text, the only place that does.

Exit status: 0, 1 for a failure, 3 for an unknown command; ``run`` in the foreground exits with the program's.
"""

import errno as _errno
import posix

from ociruntime.cli.context import Context
from ociruntime.cli.parser import UnknownCommandError, parse_command, parse_flags
from ociruntime.cli.table import COMMANDS, GLOBAL
from ociruntime.errors import OCIError, SignalError, UsageError
from ociruntime.log import Log, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_STD_OPEN = 3


def _open_standard_fds() -> None:
    """Put /dev/null where a standard descriptor is closed: no file that we open later may take its number."""
    for fd in range(_STD_OPEN):
        try:
            posix.fstat(fd)
        except OSError:
            posix.open("/dev/null", posix.O_RDWR)
            posix.set_inheritable(fd, True)


def _missing_fd(count: int) -> int:
    """Return the first of the descriptors 3 .. 3+count-1 that the caller has not passed, or -1.

    The launcher lists them before anything else: later nobody could tell them from our own.
    """
    if not count:
        return -1
    listed: tuple[int, ...] | None = None
    try:
        import _ociruntime_launcher
    except ImportError:
        pass
    else:
        listed = _ociruntime_launcher.inherited_fds
    for fd in range(_STD_OPEN, _STD_OPEN + count):
        if listed is not None:
            if fd not in listed:
                return fd
            continue
        try:
            posix.fstat(fd)
        except OSError:
            return fd
    return -1


def main(argv: "list[str]") -> int:
    """Run the command line argv (without the program's name) and return the exit status."""
    _open_standard_fds()
    log = Log()
    context = Context(log)
    try:
        return _run(argv, context)
    except UsageError as error:
        return _usage_error(context, error)
    except OCIError as error:
        _report(context, error)
        return 128 + error.signal if isinstance(error, SignalError) else _failed(context)
    except OSError as error:
        path = error.filename if isinstance(error.filename, str) else ""
        _report(context, OCIError("", path=path, errno=error.errno or 0))
        return _failed(context)
    except KeyboardInterrupt:
        log.error(context.prefix() + "interrupted")
        return 130
    except MemoryError:
        _report(context, OCIError("", errno=_errno.ENOMEM))
        return _failed(context)
    except Exception as error:  # noqa: BLE001 - a bug: told in one line, never a traceback
        if isinstance(error, ImportError) and error.path:  # a file that is there and cannot be loaded
            _report(context, OCIError(f"cannot load a library: {error}"))
        else:
            _report_bug(context, error)
        return _failed(context)
    finally:
        log.close()


def _failed(context: Context) -> int:
    """The exit status of a failure of the runtime itself: exec keeps 1 and its like for the program (row K4)."""
    return 255 if context.verb == "exec" else 1


def _run(argv: "list[str]", context: Context) -> int:
    options, words = parse_flags(argv, GLOBAL, interleaved=False)
    context.options = options
    verb = words[0] if words else ""
    if options.flag("version"):
        from ociruntime.cli.version import text

        return context.output(text())
    if options.flag("help") or not words or verb == "help":
        from ociruntime.cli.help import text_for

        topic = words[1] if verb == "help" and len(words) > 1 else ""
        return context.output(text_for(topic))
    # What is wrong with the command's own words is reported after the log is open; yet the descriptors to preserve
    # must be counted before: the log may get a number among them.
    failure: UsageError | None = None
    missing = -1
    command = COMMANDS.get(verb)
    if command is None:
        failure = UnknownCommandError(f"unknown command '{verb}'", hint="'ociruntime help' lists the commands")
    else:
        context.verb = verb
        try:
            own_options, arguments = parse_command(verb, words[1:], command)
        except UsageError as error:
            failure = error
        else:
            if own_options.flag("help"):
                from ociruntime.cli.help import text_for

                return context.output(text_for(verb))
            if command[1][:2] == "ID":
                context.container_id = arguments[0]
            missing = _missing_fd(context.listen_fds()[0] + own_options.number("preserve-fds"))
    context.log.configure(
        path=options.text("log"),
        form=options.text("log-format") or "text",
        level=options.text("log-level") or "info",
        debug=options.flag("debug"),
    )
    if failure is not None:
        raise failure
    if missing >= 0:
        option = "LISTEN_FDS" if missing < _STD_OPEN + context.listen_fds()[0] else "--preserve-fds"
        raise OCIError(f"{option}: file descriptor {missing} is not open", hint="its count starts at 3")
    context.check_options()
    module = __import__(f"ociruntime.cli.commands.{verb}", None, None, ("run",))
    status: int = module.run(own_options, arguments, context)
    return status


def _usage_error(context: Context, error: UsageError) -> int:
    if isinstance(error, UnknownCommandError):
        context.log.error(str(error), {"code": error.code})
        return 3
    from ociruntime.cli.help import text_for

    try:
        write_all(1, text_for(error.command or context.verb))
    except OSError:
        pass
    context.log.error(context.prefix() + str(error), {"code": error.code})
    return 1


# Attributes of an error that become keys of the log line, under the same name.
_KEYS = (
    "code",
    "step",
    "pointer",
    "call",
    "path",
    "hint",
    "container_id",
    "line",
    "column",
    "kind",
    "outcome",
    "actual",
    "feature",
)


def _report(context: Context, error: OCIError) -> None:
    fields: dict[str, object] = {}
    for key in _KEYS:
        value = getattr(error, key, None)
        if value:
            fields[key] = value
    if error.errno:
        fields["errno"] = _errno.errorcode.get(error.errno, str(error.errno))
    if context.container_id:
        fields["container_id"] = context.container_id
    if context.log.debugging:
        _trace(context, error.__traceback__)
    context.log.error(context.prefix() + str(error), fields)


def _report_bug(context: Context, error: Exception) -> None:
    """An exception that nobody expected: one line; how it came about is told at debug level."""
    trace = error.__traceback__
    if context.log.debugging:
        _trace(context, trace)
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = ""
    if trace is not None:
        place = f" ({trace.tb_frame.f_code.co_filename.rpartition('/')[2]} line {trace.tb_lineno})"
    context.log.error(f"{context.prefix()}internal error: {type(error).__name__}: {error}{place}", {"code": "internal"})


def _trace(context: Context, trace: "TracebackType | None") -> None:
    while trace is not None:
        code = trace.tb_frame.f_code
        context.log.debug(f"at {code.co_filename}:{trace.tb_lineno} in {code.co_name}")
        trace = trace.tb_next
