import sys
from types import ModuleType
from typing import ClassVar

import pytest


class FakeRuntime:
    """Stands in for the library: records what the commands ask of it."""

    calls: ClassVar[list[tuple[object, ...]]] = []
    failure: ClassVar[BaseException | None] = None
    answers: ClassVar[dict[str, object]] = {}

    def __init__(self, root: str, **options: object) -> None:
        options.pop("log")
        self.calls.append(("init", root, options))

    def __getattr__(self, name: str) -> object:
        def method(*arguments: object, **options: object) -> object:
            self.calls.append((name, *arguments, options))
            if FakeRuntime.failure is not None:
                raise FakeRuntime.failure
            return self.answers.get(name)

        return method


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeRuntime]:
    module = ModuleType("ociruntime.lifecycle.runtime")
    module.Runtime = FakeRuntime  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ociruntime.lifecycle.runtime", module)
    FakeRuntime.calls = []
    FakeRuntime.failure = None
    FakeRuntime.answers = {}
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return FakeRuntime
