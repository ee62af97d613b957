"""``completion SHELL``."""

from ociruntime.cli.completion import SHELLS
from ociruntime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Print the script."""
    script = SHELLS.get(arguments[0])
    if script is None:
        raise UsageError(f"the shell is {', '.join(SHELLS)}, not '{arguments[0]}'", command="completion")
    return context.output(script())
