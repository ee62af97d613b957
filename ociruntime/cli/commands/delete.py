"""``delete ID``."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Delete a container."""
    runtime = context.runtime()
    force = options.flag("force")
    if options.flag("regex"):
        from ociruntime.cli.matching import each

        return each(context, runtime, arguments[0], lambda name: runtime.delete(name, force=force))
    runtime.delete(arguments[0], force=force)
    return 0
