"""``run ID``."""

from ociruntime.cli.commands.create import create_arguments
from ociruntime.cli.context import absolute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Create and start the container; in the foreground the exit status is the program's."""
    return context.runtime().run(
        absolute(options.text("bundle") or "."),
        arguments[0],
        detach=options.flag("detach"),
        keep=options.flag("keep"),
        no_subreaper=options.flag("no-subreaper"),
        **create_arguments(options, context),
    )
