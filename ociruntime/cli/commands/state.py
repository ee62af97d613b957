"""``state ID``."""

from ociruntime.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Print the state document. Nothing goes to stderr: callers read both streams as one."""
    return context.output(dumps(context.runtime().state(arguments[0]), 2) + "\n")
