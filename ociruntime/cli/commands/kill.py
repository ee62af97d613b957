"""``kill ID [SIGNAL]``."""

from ociruntime.signals import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Send a signal, TERM unless another one is named."""
    signal = number(arguments[1]) if len(arguments) > 1 else 15
    runtime = context.runtime()
    everything = options.flag("all")
    if options.flag("regex"):
        from ociruntime.cli.matching import each

        return each(context, runtime, arguments[0], lambda name: runtime.kill(name, signal, all=everything))
    runtime.kill(arguments[0], signal, all=everything)
    return 0
