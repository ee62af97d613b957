"""--regex: one command for every container whose ID matches."""

from ociruntime.errors import OCIError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ociruntime.cli.context import Context
    from ociruntime.lifecycle.runtime import Runtime


def each(context: "Context", runtime: "Runtime", pattern: str, action: "Callable[[str], None]") -> int:
    """Run action for every ID that pattern matches as a whole. A failure does not spare the others; exit status 1 then.

    No match is fine. Raises UsageError for what is no regular expression.
    """
    from ociruntime.fullpython import full_interpreter

    full_interpreter()
    import re

    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"'{pattern}' is not a regular expression: {error}", command=context.verb) from None
    failed = 0
    for container_id in runtime.states.ids():
        if expression.fullmatch(container_id):
            try:
                action(container_id)
            except OCIError as error:
                context.log.error(f"{context.verb} '{container_id}': {error}", {"container_id": container_id})
                failed = 1
    return failed
