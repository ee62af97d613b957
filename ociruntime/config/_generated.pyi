from collections.abc import Callable

CHECKS: dict[str, Callable[[object], str | None]]
