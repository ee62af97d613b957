"""``create ID``."""

from ociruntime.cli.context import absolute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options
    from ociruntime.lifecycle.runtime import CreateOptions


def create_arguments(options: "Options", context: "Context") -> "CreateOptions":
    """Translate the flags of create. --pid-file and --config are relative to the current directory, the sockets to the
    bundle (rows P1, P2): those are passed on as they are.
    """
    pid_file = options.text("pid-file")
    config_file = options.text("config")
    listen_fds, listen_names = context.listen_fds()
    return {
        "pid_file": absolute(pid_file) if pid_file else None,
        "preserve_fds": options.number("preserve-fds"),
        "no_pivot": options.flag("no-pivot"),
        "no_new_keyring": options.flag("no-new-keyring"),
        "console_socket": options.text("console-socket") or None,
        "pidfd_socket": options.text("pidfd-socket") or None,
        "config_file": absolute(config_file) if config_file else None,
        "listen_fds": listen_fds,
        "listen_names": listen_names,
        "notify_socket": context.notify_socket(),
        "interruptible": True,
        "final": True,
    }


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Create the container and return when its init process waits for start."""
    bundle = absolute(options.text("bundle") or ".")
    context.runtime().create(bundle, arguments[0], **create_arguments(options, context))
    return 0
