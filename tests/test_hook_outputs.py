"""The annotations run.oci.hooks.stdout and .stderr: ops for the init process, files for hooks of the runtime."""

from pathlib import Path
from typing import Any

import pytest

from ociruntime import hooks, plan
from ociruntime.errors import HookError
from ociruntime.plan import FdSource, op

OUT, ERR = hooks.STDOUT_ANNOTATION, hooks.STDERR_ANNOTATION
INSIDE = {"startContainer": [{"path": "/x"}]}


def script(text: str) -> list[dict[str, Any]]:
    return [{"path": "/bin/sh", "args": ["sh", "-c", text], "env": ["PATH=/usr/bin:/bin"]}]


def run(tmp_path: Path, annotations: dict[str, str], text: str) -> None:
    state: dict[str, Any] = {"id": "c", "bundle": str(tmp_path), "annotations": annotations}
    hooks.run({"poststart": script(text)}, "poststart", state, str(tmp_path))


def test_ops() -> None:
    got = hooks.outputs({"hooks": INSIDE, "annotations": {ERR: "/var/log/e", OUT: "o/log"}}, "/bundle")
    assert got == [
        op("hook", f"/annotations/{OUT}", flags=plan.STDOUT, fd=FdSource("append", "/bundle/o/log")),
        op("hook", f"/annotations/{ERR}", flags=plan.STDERR, fd=FdSource("append", "/var/log/e")),
    ]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"hooks": INSIDE},
        {"hooks": INSIDE, "annotations": {}},
        {"hooks": INSIDE, "annotations": {OUT: ""}},
        {"hooks": {"createContainer": []}, "annotations": {OUT: "/x"}},
        {"hooks": {"createRuntime": [{"path": "/x"}]}, "annotations": {OUT: "/x"}},
        {"annotations": {OUT: "/x"}},
    ],
)
def test_no_ops(config: dict[str, Any]) -> None:
    assert hooks.outputs(config, "/bundle") == []


def test_each_stream_is_appended_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("before\n")
    run(tmp_path, {OUT: str(tmp_path / "out"), ERR: "err"}, "echo one; echo two >&2")
    run(tmp_path, {OUT: str(tmp_path / "out"), ERR: "err"}, "echo three; echo four >&2")
    assert (tmp_path / "out").read_text() == "before\none\nthree\n"
    assert (tmp_path / "err").read_text() == "two\nfour\n"
    assert (tmp_path / "err").stat().st_mode & 0o777 == 0o700


def test_a_stream_without_a_file_is_quoted_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(HookError) as error:
        run(tmp_path, {OUT: "out"}, "echo one; echo two >&2; exit 3")
    assert error.value.reason == "exit status 3: two"
    with pytest.raises(HookError) as error:
        run(tmp_path, {OUT: "out", ERR: "out"}, "echo three; echo four >&2; exit 3")
    assert error.value.reason == "exit status 3"
    assert (tmp_path / "out").read_text() == "one\nthree\nfour\n"


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(HookError, match=r"run\.oci\.hooks\.stderr"):
        run(tmp_path, {OUT: "out", ERR: "nodir/err"}, "touch ran")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
