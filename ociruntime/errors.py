"""The error family. Every failure carries what it knows; text is made once, in ``cli``.

OCIError                      anything this runtime refuses or fails at
├── UsageError                the command line itself is wrong
├── ConfigError               a field of config.json (or of another JSON input) is wrong: pointer
├── StateError                the container is not in the status the operation needs
│   ├── NotFoundError         there is no such container
│   └── ExistsError           there already is one
├── UnsupportedError          this kernel, machine or build lacks something: feature, needs
├── SignalError               a signal has asked the runtime to give up: signal
├── StepError                 an op of the plan, or a system call of the parent, failed
└── HookError                 a hook failed: kind, index, outcome
"""

import errno as _errno
from posix import strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class OCIError(Exception):
    """Base of the family.

    reason: what is wrong, lower case, no final stop. pointer: JSON pointer of the config field ("" if none).
    step: the op or phase that failed. call: system call or check. errno: positive, 0 if none.
    path: the object (file, name) it failed at. hint: what to do about it. source: the JSON file the pointer is in.
    """

    code = "error"

    def __init__(
        self,
        reason: str,
        *,
        pointer: str = "",
        step: str = "",
        call: str = "",
        errno: int = 0,
        path: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pointer = pointer
        self.step = step
        self.call = call
        self.errno = errno
        self.path = path
        self.hint = hint

    def __str__(self) -> str:
        """One line: pointer or step, object, reason, errno name, hint."""
        parts = []
        if self.step and self.step != self.code:
            parts.append(self.step)
        if self.pointer:
            parts.append(self.pointer)
        if self.call:
            parts.append(self.call)
        if self.path:
            parts.append(f"'{self.path}'")
        reason = self.reason
        if self.errno:
            text = strerror(self.errno).lower()
            name = _errno.errorcode.get(self.errno, str(self.errno))
            reason = f"{reason}: {text} ({name})" if reason else f"{text} ({name})"
        parts.append(reason)
        line = ": ".join(parts)
        return f"{line} (hint: {self.hint})" if self.hint else line


class UsageError(OCIError):
    """The command line is wrong. command: whose usage to show ("" for the program's)."""

    code = "usage"

    def __init__(self, reason: str, *, command: str = "", hint: str = "") -> None:
        super().__init__(reason, hint=hint)
        self.command = command


class ConfigError(OCIError):
    """A JSON input is refused. line, column: 1-based place in the file, 0 if not known."""

    code = "config"

    def __init__(
        self,
        reason: str,
        *,
        pointer: str = "",
        path: str = "",
        line: int = 0,
        column: int = 0,
        hint: str = "",
        errno: int = 0,
    ) -> None:
        super().__init__(reason, pointer=pointer, path=path, hint=hint, errno=errno)
        self.line = line
        self.column = column

    def __str__(self) -> str:
        text = super().__str__()
        return f"line {self.line} column {self.column}: {text}" if self.line else text


class StateError(OCIError):
    """The container's status does not allow the operation. expected: statuses that would; actual: the one found."""

    code = "state"

    def __init__(
        self, reason: str, *, container_id: str = "", expected: "Sequence[str]" = (), actual: str = "", hint: str = ""
    ) -> None:
        super().__init__(reason, hint=hint)
        self.container_id = container_id
        self.expected = tuple(expected)
        self.actual = actual


class NotFoundError(StateError):
    """No container of this ID: the text holds "does not exist" (SPEC row A2)."""

    code = "not-found"

    def __init__(self, container_id: str, hint: str = "") -> None:
        super().__init__("container does not exist", container_id=container_id, hint=hint)


class ExistsError(StateError):
    """The ID is taken (K1)."""

    code = "exists"

    def __init__(self, container_id: str, hint: str = "") -> None:
        super().__init__("container with given ID already exists", container_id=container_id, hint=hint)


class UnsupportedError(OCIError):
    """feature is asked for (at pointer) and needs something that is not here."""

    code = "unsupported"

    def __init__(self, feature: str, needs: str, *, pointer: str = "", errno: int = 0, hint: str = "") -> None:
        super().__init__(f"{feature} needs {needs}", pointer=pointer, errno=errno, hint=hint)
        self.feature = feature
        self.needs = needs


class SignalError(OCIError):
    """The runtime was asked to give up, and what it had done is undone. signal: its number."""

    code = "interrupted"

    def __init__(self, signal: int) -> None:
        super().__init__(f"interrupted by signal {signal}")
        self.signal = signal


class StepError(OCIError):
    """An op of the plan or a system call of the parent failed."""

    code = "step"


class HookError(OCIError):
    """A hook failed.

    kind: prestart...; index: in its list; outcome: how it ended; output: what it printed (bytes cut).
    """

    code = "hook"

    def __init__(
        self, kind: str, index: int, outcome: str, *, path: str = "", output: str = "", errno: int = 0
    ) -> None:
        reason = f"{outcome}: {output}" if output else outcome
        super().__init__(reason, pointer=f"/hooks/{kind}/{index}", step="hook", path=path, errno=errno)
        self.kind = kind
        self.index = index
        self.outcome = outcome
        self.output = output


def from_oserror(error: OSError, reason: str, *, pointer: str = "", step: str = "", hint: str = "") -> StepError:
    """Turn an OSError of a parent's own call into a StepError that names the object."""
    path = error.filename
    if isinstance(path, bytes):
        path = path.decode("utf-8", "surrogateescape")
    return StepError(
        reason,
        pointer=pointer,
        step=step,
        errno=error.errno or 0,
        path=path if isinstance(path, str) else "",
        hint=hint,
    )
