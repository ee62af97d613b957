"""Whether a document fits the schema. Deciding is generated code; jsonschema is asked only to explain a no."""

from ociruntime.config import _generated
from ociruntime.fullpython import full_interpreter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.log import Log


def check(document: object, data: bytes, path: str, kind: str = "config") -> None:
    """Accept the document, or raise ConfigError with pointer, reason, line and column.

    document: as ``load.parse`` gives it. data: the bytes it came from, for the place; b"" if there are none.
    kind: "config", "process" or "resources".
    Form only: types, ranges, words, paths. What two members say together is checked where it is used.
    """
    pointer = _generated.CHECKS[kind](document)
    if pointer is not None:
        full_interpreter()
        from ociruntime.config.explain import explain

        raise explain(document, data, path, kind, pointer)


def name_ignored(document: object, log: "Log") -> None:
    """A debug line for each member of a config.json that is passed over, because no schema names it."""
    if log.debugging:
        full_interpreter()
        from ociruntime.config import explain

        for pointer, near in explain.unknown_members(document):
            log.debug(f"{pointer}: not known, ignoring" + (f" (hint: did you mean '{near}'?)" if near else ""))
