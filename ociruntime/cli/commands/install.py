"""``install``."""

import posix

from ociruntime.cli.context import absolute
from ociruntime.errors import OCIError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options
    from ociruntime.install.engines import Plan


def own_path() -> str:
    """The executable that runs. Raises UsageError in an ordinary interpreter, where it is not the runtime."""
    try:
        import _ociruntime_launcher  # noqa: F401
    except ImportError:
        raise UsageError("--path is needed: this is not the installed command", command="install") from None
    return posix.readlink("/proc/self/exe")


def check_program(path: str) -> None:
    """Refuse what an engine could not run. Raises OCIError."""
    try:
        regular = posix.stat(path).st_mode & 0o170000 == 0o100000
    except OSError as error:
        raise OCIError("cannot be the runtime", path=path, errno=error.errno or 0) from None
    if not regular or not posix.access(path, posix.X_OK):
        raise OCIError("cannot be the runtime: not an executable file", path=path)


def describe(plan: "Plan", shown: str) -> str:
    """The change in the form of diff(1)."""
    from difflib import unified_diff

    old, new = (
        (data or b"").decode("utf-8", "backslashreplace").splitlines(keepends=True)
        for data in (plan.before, plan.after)
    )
    names = ("/dev/null" if plan.before is None else shown, "/dev/null" if plan.after is None else shown)
    lines = unified_diff(old, new, *names)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ no newline at the end\n" for line in lines)


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Change an engine's file, or show what would change."""
    from ociruntime.fullpython import full_interpreter

    full_interpreter()
    from ociruntime.install.engines import ENGINES, Wish
    from ociruntime.install.places import Places

    engine, dry = options.text("for"), options.flag("dry-run")
    if engine not in ENGINES:
        *others, last = ENGINES
        raise UsageError(
            f"--for is {', '.join(others)} or {last}, " + (f"not '{engine}'" if engine else "and is missing"),
            command="install",
        )
    remove, prefix = options.flag("remove"), absolute(options.text("destdir") or "/")
    path = absolute(options.text("path")) if options.text("path") else "" if remove else own_path()
    if not remove and prefix == "/":
        check_program(path)
    wish = Wish(options.text("name") or "ociruntime", path, default=options.flag("default"), remove=remove)
    places = Places(prefix)
    try:
        plan = ENGINES[engine](places, wish)
        shown = places.shown(plan.path)
        if plan.before == plan.after:
            how = "is not there" if plan.before is None else "stays as it is"
            return context.output(f"{engine}: nothing to do: '{shown}' {how}\n")
        if not dry:
            if prefix == "/" and posix.geteuid() != 0:
                raise OCIError("needs root", path=shown, hint="--dry-run shows what would change")
            places.replace(plan.path, plan.before, plan.after)
    finally:
        places.close()
    gone = plan.after is None
    if dry:
        said = "would remove" if gone else "would write"
    else:
        said = "removed" if gone else "wrote"
    notes = "".join(f"{note}\n" for note in plan.notes)
    return context.output(f"{describe(plan, shown)}{engine}: {said} '{shown}'\n{notes}")
