"""``resume ID``."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Let the container go on."""
    context.runtime().resume(arguments[0])
    return 0
