"""What has been done and must be undone if the rest fails, in reverse order (runtime-spec runtime.md, "Errors")."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ociruntime.log import Log


STATE = "the container's directory"


class Undo:
    """A stack of things to take back."""

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], object]]] = []

    def add(self, name: str, step: "Callable[[], object]") -> None:
        """Remember step; name says in a message what it removes."""
        self._steps.append((name, step))

    def add_first(self, name: str, step: "Callable[[], object]") -> None:
        """Remember a step that runs after all others."""
        self._steps.insert(0, (name, step))

    def run(self, log: "Log") -> None:
        """Run the steps, last first. A step that fails is logged and does not stop the others; only the state stays
        then, so that `delete --force` can try again.
        """
        failed = False
        while self._steps:
            name, step = self._steps.pop()
            if failed and name == STATE:
                continue
            try:
                step()
            except BaseException as error:  # noqa: BLE001 - the rest must still be undone
                failed = True
                log.warning(f"cannot remove {name} after a failure: {error}, ignoring")

    def forget(self) -> None:
        """Everything went well."""
        self._steps.clear()
