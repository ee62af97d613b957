"""``start ID``."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Start a created container."""
    context.runtime().start(arguments[0], notify_socket=context.notify_socket())
    return 0
