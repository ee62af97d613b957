"""``exec ID COMMAND [ARG...]``."""

from ociruntime.cli.context import absolute
from ociruntime.errors import ConfigError, OCIError
from ociruntime.lifecycle.exec import ExecRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options

ID_MAX = 4294967294
FAILED = 255


def identity(text: str, what: str) -> int:
    """A user or group ID in decimal. Names are not looked up: they would be the image's to choose."""
    if not text.isascii() or not text.isdecimal() or int(text) > ID_MAX:
        raise ConfigError(f"{what}: '{text}' is not an ID (0 to {ID_MAX})")
    return int(text)


def user(text: str) -> "tuple[int, int | None]":
    """UID or UID:GID."""
    uid, colon, gid = text.partition(":")
    return identity(uid, "--user"), identity(gid, "--user") if colon else None


def cgroups(values: "list[str]") -> "list[tuple[str, str]]":
    """[(controller or "" for v2, path)] of --cgroup."""
    found = []
    for value in values:
        controllers, colon, path = value.partition(":")
        if not colon:
            found.append(("", value))
        else:
            found += [(controller, path) for controller in controllers.split(",")]
    return found


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Run a process in the container; every failure of the runtime is 255."""
    process: dict[str, Any] | None = None
    if options.text("process"):
        from ociruntime.config import load

        process, _ = load.load(absolute(options.text("process")), "process")
    elif len(arguments) < 2:
        # no usage error: of exec's own failures only the flags are (row G10)
        raise OCIError("exec needs a command, or --process")
    environment = options.all("env")
    for entry in environment:
        if "=" not in entry:
            raise ConfigError(f"--env: '{entry}' is not of the form NAME=value")
    pid_file = options.text("pid-file")
    request = ExecRequest(
        arguments[0],
        process=process,
        args=arguments[1:],
        cwd=options.text("cwd"),
        env=environment,
        user=user(options.text("user")) if options.text("user") else None,
        additional_gids=[identity(text, "--additional-gids") for text in options.all("additional-gids")],
        capabilities=options.all("cap"),
        no_new_privs=options.flag("no-new-privs") if options.given("no-new-privs") else None,
        apparmor=options.text("apparmor"),
        process_label=options.text("process-label"),
        tty=options.flag("tty"),
        detach=options.flag("detach"),
        pid_file=absolute(pid_file) if pid_file else "",
        console_socket=options.text("console-socket"),
        pidfd_socket=options.text("pidfd-socket"),
        preserve_fds=options.number("preserve-fds"),
        cgroups=cgroups(options.all("cgroup")),
        ignore_paused=options.flag("ignore-paused"),
    )
    if request.cwd and not request.cwd.startswith("/"):
        raise ConfigError(f"--cwd: '{request.cwd}' is not an absolute path")
    return context.runtime().exec(request)
