"""What is frozen above a container, and processes that cannot die there."""

import errno
from pathlib import Path

import pytest

from ociruntime.cgroups import files, freezer, manager
from ociruntime.errors import StateError
from ociruntime.state import status


def level(path: Path, **values: str) -> Path:
    """A directory with these files; "_" stands for the dot in their names."""
    path.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        word, _, rest = name.partition("_")
        (path / f"{word}.{rest}").write_text(value + "\n")
    return path


def v1_tree(tmp_path: Path) -> Path:
    """own below free below frozen below top; only "frozen" is what somebody has frozen."""
    level(tmp_path / "frozen", freezer_state="FROZEN", freezer_self_freezing="1", freezer_parent_freezing="0")
    level(tmp_path / "frozen/free", freezer_state="FROZEN", freezer_self_freezing="0", freezer_parent_freezing="1")
    own = tmp_path / "frozen/free/own"
    return level(own, freezer_state="FROZEN", freezer_self_freezing="0", freezer_parent_freezing="1")


@pytest.mark.parametrize("world", ["v1", "v2"])
def test_what_is_frozen_above(tmp_path: Path, world: str) -> None:
    if world == "v1":
        paths = {"freezer": str(v1_tree(tmp_path))}
        command = f"echo THAWED > {tmp_path}/frozen/freezer.state"
    else:
        level(tmp_path / "frozen", cgroup_freeze="1", cgroup_events="populated 1\nfrozen 1")
        level(tmp_path / "frozen/free", cgroup_freeze="0", cgroup_events="populated 1\nfrozen 1")
        own = level(tmp_path / "frozen/free/own", cgroup_freeze="0", cgroup_events="populated 1\nfrozen 1")
        paths = {"": str(own)}
        command = f"echo 0 > {tmp_path}/frozen/cgroup.freeze"
    assert freezer.above(paths) == (f"{tmp_path}/frozen", command)
    found = freezer.refusal(paths, "web", more="; then it dies")
    assert isinstance(found, StateError)
    assert f"'{tmp_path}/frozen'" in found.reason
    assert found.hint == f"thaw it: {command}; then it dies"


@pytest.mark.parametrize("paused", [True, False])
def test_frozen_out_of_sight(tmp_path: Path, paused: bool) -> None:
    """Only the container's own directory is to be seen; when it is paused, nothing tells whether more is frozen."""
    own = level(tmp_path / "own", cgroup_freeze=str(int(paused)), cgroup_events="populated 1\nfrozen 1")
    assert freezer.above({"": str(own)}) == (("", "") if paused else (str(own), ""))
    found = freezer.refusal({"": str(own)}, "web")
    assert (found is None) is paused
    assert found is None or (found.hint == "thaw it" and f"'{own}' is frozen" in found.reason)


def test_nothing_is_frozen(tmp_path: Path) -> None:
    own = level(tmp_path / "own", cgroup_freeze="0", cgroup_events="populated 1\nfrozen 0", freezer_parent_freezing="0")
    assert freezer.above({"": str(own), "freezer": str(own)}) == ("", "")
    assert freezer.above({}) == ("", "")
    assert freezer.above({"": str(tmp_path / "gone"), "freezer": str(tmp_path / "gone")}) == ("", "")
    assert freezer.refusal({"": str(own)}, "web") is None


@pytest.mark.parametrize(
    ("name", "text", "keeps"),
    [
        ("freezer.state", "FROZEN", True),
        ("freezer.state", "FREEZING", True),
        ("freezer.state", "THAWED", False),
        ("freezer.state", "", False),
        ("cgroup.freeze", "1", False),
    ],
)
def test_only_v1_keeps_from_dying(tmp_path: Path, name: str, text: str, keeps: bool) -> None:
    (tmp_path / name).write_text(text + "\n")
    assert freezer.keeps_alive(str(tmp_path / name)) is keeps


def test_the_dying_are_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of what is frozen, and nobody else."""
    own = v1_tree(tmp_path)
    (own / "cgroup.procs").write_text("5\n6\n7\n")
    moved: list[tuple[str, int]] = []

    def move(path: str, pid: int) -> None:
        if pid == 7:
            raise ProcessLookupError(errno.ESRCH, "it is dead")
        moved.append((path, pid))

    monkeypatch.setattr(files, "add_process", move)
    monkeypatch.setattr(status, "dying", lambda pid: pid != 6)
    freezer.let_die(str(own))
    assert moved == [(str(tmp_path), 5)]


def test_who_is_not_frozen_dies_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only out of the sub-cgroup that is frozen somebody is moved."""
    own = level(tmp_path / "own", freezer_state="THAWED", cgroup_procs="5")
    level(own / "free", freezer_state="THAWED", cgroup_procs="6")
    level(own / "free/frozen", freezer_state="FROZEN", cgroup_procs="7")
    moved: list[tuple[str, int]] = []
    monkeypatch.setattr(files, "add_process", lambda path, pid: moved.append((path, pid)))
    monkeypatch.setattr(status, "dying", lambda pid: True)
    freezer.let_die(str(own))
    assert moved == [(str(own), 7)]


@pytest.mark.parametrize("frozen", [True, False])
def test_no_place_for_the_dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool) -> None:
    """What keeps them is named; where it is thawed meanwhile, they die without us."""
    own = v1_tree(tmp_path)
    (own / "cgroup.procs").write_text("5\n")
    saved = {"mode": "v1", "paths": {"freezer": str(own)}, "made": [], "rootless": False}

    def refuse(path: str, pid: int) -> None:
        if not frozen:
            (own / "freezer.parent_freezing").write_text("0\n")
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(files, "add_process", refuse)
    monkeypatch.setattr(status, "dying", lambda pid: True)
    if frozen:
        with pytest.raises(StateError, match="is frozen") as caught:
            manager.from_state(saved).let_die()
        assert "then its processes die" in caught.value.hint
    else:
        manager.from_state(saved).let_die()


def test_sub_cgroups_may_keep_alive(tmp_path: Path) -> None:
    own = level(tmp_path / "own", freezer_state="THAWED", cgroup_freeze="0")
    if own.stat().st_nlink != 2:
        pytest.skip("this file system does not count directories as links")
    assert not freezer.may_keep_alive(f"{own}/freezer.state")
    level(own / "below", freezer_state="FROZEN")
    assert freezer.may_keep_alive(f"{own}/freezer.state")
    assert not freezer.may_keep_alive(f"{own}/cgroup.freeze")
    assert not freezer.may_keep_alive("")
    assert not freezer.may_keep_alive(f"{tmp_path}/gone/freezer.state")
