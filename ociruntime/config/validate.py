"""Whether a document fits the schema. Deciding is generated code; jsonschema is asked only to explain a no."""

from ociruntime.config import _generated
from ociruntime.fullpython import full_interpreter


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


def ignored(document: object) -> "list[str]":
    """What is passed over in a config.json because no schema names it, in words. Slow: for debug lines."""
    full_interpreter()
    from ociruntime.config import explain

    return [
        f"{pointer}: not known, ignoring" + (f" (hint: did you mean '{near}'?)" if near else "")
        for pointer, near in explain.unknown_members(document)
    ]
