"""Whose cgroup is in a place: the mark of create, and what happens where it is another's."""

import errno
import json
import os
import posix
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ociruntime.cgroups import manager
from ociruntime.cgroups.cgroup import Cgroup
from ociruntime.host import Host
from tests.cgroups.trees import choose, created, tree, v1_host, v2_host

pytestmark = pytest.mark.usefixtures("waits")


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> "Iterator[dict[tuple[str, str], bytes]]":
    """Extended attributes of the fake trees, (path, name) -> value; where only privilege writes is "trusted."."""
    found: dict[tuple[str, str], bytes] = {}

    def get(path: str, name: str) -> bytes:
        posix.stat(path)
        if (path, name) not in found:
            raise OSError(errno.ENODATA, "no", path)
        return found[path, name]

    def put(path: str, name: str, value: bytes) -> None:
        posix.stat(path)
        found[path, name] = value

    def remove(path: str, name: str) -> None:
        get(path, name)
        del found[path, name]

    monkeypatch.setattr("posix.getxattr", get)
    monkeypatch.setattr("posix.setxattr", put)
    monkeypatch.setattr("posix.removexattr", remove)
    yield found


def v1(tmp_path: Path) -> Host:
    """A hybrid host without cpuset, whose directories would have to be filled."""
    host = v1_host(tmp_path)
    del host.cgroup_mounts["cpuset"]
    return host


def again(saved: "dict[str, Any]") -> Cgroup:
    return manager.from_state(json.loads(json.dumps(saved)))


def test_mark_of_create(tmp_path: Path, marks: "dict[tuple[str, str], bytes]") -> None:
    """In the directory that has all processes: the mark of the state, and how many levels are ours."""
    cgroup = created(v1(tmp_path))
    saved = cgroup.saved()
    directory = f"{tmp_path}/freezer/a/web"
    assert marks == {(directory, f"{kind}.ociruntime"): f"{saved['mark']} 2".encode() for kind in ("trusted", "user")}
    assert again(saved).is_ours()
    assert again(saved).exists()
    # what the owner of the cgroup can write decides nothing, unless there is nothing else
    marks[directory, "user.ociruntime"] = b"1 2 3"
    assert again(saved).is_ours()
    marks[directory, "trusted.ociruntime"] = b"1 2 3"
    marks[directory, "user.ociruntime"] = f"{saved['mark']} 2".encode()
    assert not again(saved).is_ours()
    del marks[directory, "trusted.ociruntime"]
    assert again(saved).is_ours()


def test_create_that_was_killed_before_it_made_anything(
    tmp_path: Path, marks: "dict[tuple[str, str], bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state names a cgroup that is another container's by now, or another runtime's [D17, S1]."""
    host = v2_host(tmp_path)
    first = choose(host)
    first.check_free()
    saved = first.saved()
    second = created(host)
    for name in ("cgroup.kill", "cgroup.procs"):
        (tmp_path / "a/web" / name).write_text("")
    killed: list[int] = []
    monkeypatch.setattr("posix.kill", lambda pid, signal: killed.append(pid))
    for _ in ("marked", "made by another runtime"):
        (tmp_path / "a/web/cgroup.procs").write_text("5\n")
        left = again(saved)
        assert not left.exists()
        left.kill()
        left.signal_all(15)
        left.remove()
        assert (tmp_path / "a/web/cgroup.kill").read_text() == ""
        assert killed == []
        marks.clear()
    assert not again(second.saved()).exists()
    marks[str(tmp_path / "a/web"), "trusted.ociruntime"] = f"{second.mark} 2".encode()
    again(second.saved()).kill()
    assert (tmp_path / "a/web/cgroup.kill").read_text() == "1"


def test_create_that_was_killed_between_making_and_marking(
    tmp_path: Path, marks: "dict[tuple[str, str], bytes]"
) -> None:
    """No process was ever in there: it goes when it is empty [S1]."""
    cgroup = choose(v2_host(tmp_path))
    cgroup.check_free()
    saved = cgroup.saved()
    cgroup.create()
    marks.clear()
    again(saved).remove()
    assert tree(tmp_path) == set()


def test_next_container_in_the_cgroup_of_one_that_has_ended(
    tmp_path: Path, marks: "dict[tuple[str, str], bytes]"
) -> None:
    """It takes the place over, and what the first one has made goes with it [D17]."""
    host = v1(tmp_path)
    before = tree(tmp_path)
    first = created(host)
    second = created(host)
    assert set(second.saved()["made"]) == set(first.saved()["made"])
    for path in tree(tmp_path) - before:
        (tmp_path / path / "file").write_text("")  # as if it was in use
    again(first.saved()).remove()
    assert again(second.saved()).is_ours()
    for path in tree(tmp_path) - before:
        (tmp_path / path / "file").unlink()
    again(second.saved()).remove()
    assert tree(tmp_path) == before


def test_mark_that_an_owner_has_forged(
    tmp_path: Path, marks: "dict[tuple[str, str], bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory of an ordinary user does not tell what to remove [D17]."""
    (tmp_path / "a/web").mkdir(parents=True)
    marks[f"{tmp_path}/a/web", "user.ociruntime"] = b"x 9"
    monkeypatch.setattr("posix.geteuid", lambda: os.geteuid() + 1)
    assert created(v2_host(tmp_path)).saved()["made"] == []


def test_a_cgroup_that_stays_loses_the_mark(
    tmp_path: Path, marks: "dict[tuple[str, str], bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there before create stays, and nobody takes it over [D17]."""
    monkeypatch.setattr("ociruntime.cgroups.device_program.detach_all", lambda directory: None)
    (tmp_path / "a/web").mkdir(parents=True)
    host = v2_host(tmp_path)
    first = created(host)
    assert set(marks.values()) == {f"{first.mark} 0".encode()}
    second = created(host)
    assert second.saved()["made"] == []
    again(second.saved()).remove()
    assert marks == {}
    assert tree(tmp_path) == {"a", "a/web"}


def test_without_privilege(
    tmp_path: Path, marks: "dict[tuple[str, str], bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attribute that users may write does as well; who owns the cgroup could change it, so then it is not asked."""
    put = posix.setxattr

    def refuse(path: str, name: str, value: bytes) -> None:
        if not name.startswith("user."):
            raise PermissionError(errno.EPERM, "no", path)
        put(path, name, value)

    monkeypatch.setattr("posix.setxattr", refuse)
    cgroup = created(v2_host(tmp_path))
    assert [name for _, name in marks] == ["user.ociruntime"]
    saved = cgroup.saved()
    assert again(saved).is_ours()
    marks.clear()
    assert not again(saved).is_ours()
    assert again({**saved, "owner": 1000}).is_ours()


def test_where_there_are_no_marks(tmp_path: Path) -> None:
    """The path has to be enough, and the state says so: an ordinary file system has no such attributes for us."""
    (tmp_path / "cgroup.controllers").write_text("")
    cgroup = choose(v2_host(tmp_path))

    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("posix.setxattr", refuse)
        cgroup.create()
    assert "mark" not in cgroup.saved()
    assert again(cgroup.saved()).is_ours()
