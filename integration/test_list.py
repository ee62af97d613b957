"""list: all containers of a root."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from integration.lib.container import Container
from integration.lib.runtime import Runtime


@pytest.fixture
def own_root(runtime: Runtime, tmp_path: Path) -> Runtime:
    """The runtime with an empty root of its own."""
    (tmp_path / "root").mkdir()
    return runtime.elsewhere(tmp_path / "root")


def test_empty_root(own_root: Runtime) -> None:
    """No containers: exit 0, nothing but the header; -q prints nothing; json decodes to an empty list [K9, J2]."""
    assert own_root("list").ok().text.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert own_root("list", "-q").ok().out == b""
    document = own_root("list", "--format", "json").ok().json
    assert not document
    if own_root.ours:
        assert document == []


def test_missing_root(runtime: Runtime, tmp_path: Path) -> None:
    """An explicit root that is not there is an error [K9]."""
    assert runtime.elsewhere(tmp_path / "nowhere")("list").code != 0


def test_table(own_root: Runtime, new_container: Callable[..., Container]) -> None:
    """One row per container under the agreed header [J3]."""
    first = new_container(at=own_root)
    second = new_container(at=own_root)
    first.bundle.args("pause")
    first.create()
    second.create()
    first.start()
    lines = own_root("list").ok().text.splitlines()
    assert lines[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    rows = {line.split()[0]: line.split() for line in lines[1:]}
    assert set(rows) == {first.id, second.id}
    assert rows[first.id][1:4] == [str(first.pid), "running", str(first.bundle.path)]
    assert rows[second.id][1:4] == [str(second.pid), "created", str(second.bundle.path)]
    assert rows[first.id][5] == own_root.root.owner()


def test_stopped_container_has_pid_0(own_root: Runtime, container: Container) -> None:
    """A stopped container is listed, with PID 0 [J1, J3]."""
    container.runtime = own_root
    container.create()
    container.start()
    container.wait()
    row = own_root("list").ok().text.splitlines()[1].split()
    assert row[:3] == [container.id, "0", "stopped"]


def test_quiet(own_root: Runtime, new_container: Callable[..., Container]) -> None:
    """-q prints only the IDs [K9]."""
    names = set()
    for _ in range(2):
        one = new_container(at=own_root)
        one.create()
        names.add(one.id)
    assert set(own_root("list", "-q").ok().text.split()) == names
    assert set(own_root("list", "--quiet").ok().text.split()) == names


def test_json(own_root: Runtime, container: Container) -> None:
    """json: an array of state records with the owner's name [J2]."""
    container.runtime = own_root
    container.bundle.merge({"annotations": {"k": "v"}})
    container.create()
    result = own_root("list", "--format=json").ok()
    state = container.state()
    (record,) = result.json
    assert record["owner"] == own_root.root.owner()
    for name in ("ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations"):
        assert record[name] == state[name]
    assert result.text.count("\n") <= 1
    assert own_root("list", "-f", "json").ok().json == result.json


def test_unknown_format(own_root: Runtime) -> None:
    """Another format is refused [K9]."""
    assert own_root("list", "--format", "yaml").code != 0


def test_files_are_no_containers(own_root: Runtime, container: Container) -> None:
    """A file in the state root is passed over without a word [K9]."""
    container.runtime = own_root
    container.create()
    (own_root.root / "lock").write_text("")
    result = own_root("list", "-q").ok()
    assert result.text.split() == [container.id]
    assert result.error == ""


def test_broken_entry_is_skipped(own_root: Runtime, container: Container) -> None:
    """A broken entry costs one line on stderr, not the list [K9]."""
    container.runtime = own_root
    container.create()
    for name, content in (("torn", b'{"id":'), ("empty", b"")):
        (own_root.root / name).mkdir()
        for file in ("state.json", "status"):
            (own_root.root / name / file).write_bytes(content)
    result = own_root("list", "-q")
    assert container.id in result.text.split()
    if own_root.ours:
        assert result.code == 0
        assert result.text.split() == [container.id]
        lines = result.error.splitlines()
        assert len(lines) == 2
        assert any("torn" in line for line in lines)
        assert any("empty" in line for line in lines)
