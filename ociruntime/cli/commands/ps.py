"""``ps ID [PS-ARGUMENT...]``."""

from ociruntime import files
from ociruntime.errors import StepError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options

# The caller's PATH is not searched.
PS = ("/usr/bin/ps", "/bin/ps")


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """List the processes in the container's cgroup."""
    form = options.text("format") or "table"
    if form not in ("table", "json"):
        raise UsageError(f"--format is table or json, not '{form}'")
    pids = context.runtime().pids(arguments[0])
    if form == "json":
        return context.output(f"[{','.join(str(pid) for pid in pids)}]\n")
    words = [word for word in arguments[1:] if word] or ["-ef"]
    return context.output(rows(ps_output(words), pids))


def ps_output(arguments: "list[str]") -> str:
    """What the host's ps prints. Raises StepError if it is missing or fails."""
    import posix

    from ociruntime.shim.spawn import run_process

    for path in PS:
        reader, writer = posix.pipe2(posix.O_CLOEXEC)
        try:
            pid, pidfd = run_process(path, ["ps", *arguments], ["LC_ALL=C"], stdout=writer, stderr=2)
        except StepError as error:
            posix.close(reader)
            if error.errno == 2 and path != PS[-1]:
                continue
            raise StepError(
                "cannot run the host's ps", path=path, errno=error.errno, hint="use --format json"
            ) from None
        finally:
            posix.close(writer)
        posix.close(pidfd)
        data = files.rest(reader)
        posix.close(reader)
        _, status = posix.waitpid(pid, 0)
        if status:
            raise StepError(f"the host's ps failed with exit status {status >> 8}", path=path)
        return data.decode("utf-8", "replace")
    raise AssertionError("unreachable")


def rows(text: str, pids: "list[int]") -> str:
    """The header and the lines whose PID column is one of pids."""
    lines = text.splitlines()
    header = lines[0].split() if lines else []
    if "PID" not in header:
        raise StepError("the host's ps printed no PID column", hint="give it arguments such as -ef")
    column = header.index("PID")
    end = f" {lines[0]} ".index(" PID ") + len("PID")
    wanted = {str(pid) for pid in pids}
    kept = [line for line in lines[1:] if line.strip() and _pid(line, end, column) in wanted]
    return "\n".join([lines[0], *kept]) + "\n"


def _pid(line: str, end: int, column: int) -> str:
    """The PID of a line, or "-" for a thread. end: where numbers below the header end; column: which word it is.

    Earlier columns may hold blanks, as times and command lines do, so the place counts first; it moves where one of
    them is wider than ps has thought.
    """
    word = line[:end].rpartition(" ")[2]
    if not word.isdigit() or line[end : end + 1].strip():
        word = (line.split()[column : column + 1] or [""])[0]
    if not word.isdigit() and word != "-":
        raise StepError(f"cannot tell the PID in a line of the host's ps: '{line.strip()}'", hint="put pid first")
    return word
