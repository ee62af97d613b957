"""``features``."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Print the features document."""
    from ociruntime.features import document
    from ociruntime.jsontext import dumps

    return context.output(dumps(document(), 2) + "\n")
