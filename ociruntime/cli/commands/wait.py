"""``wait ID``."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Print the exit status of the container's init process. Our own is 0: it has been told."""
    return context.output(f"{context.runtime().wait(arguments[0])}\n")
