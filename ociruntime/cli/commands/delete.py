"""``delete ID``."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Delete a container."""
    context.runtime().delete(arguments[0], force=options.flag("force"))
    return 0
