"""The gate to the scheduling room, for create and exec: few configs ask for it."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.plan import Op


def scheduling_ops(process: "dict[str, Any] | None", config: "dict[str, Any]", at: str = "/process") -> "list[Op]":
    """What few configs ask for: the room is loaded for them only. at: JSON pointer of process."""
    program = process or {}
    linux = config.get("linux") or {}
    asked = ((program, ("scheduler", "ioPriority", "execCPUAffinity")), (linux, ("personality", "memoryPolicy")))
    for section, keys in asked:
        for key in keys:
            if section.get(key) is not None:
                from ociruntime import scheduling

                return scheduling.lower(process, config, at)
    return []
