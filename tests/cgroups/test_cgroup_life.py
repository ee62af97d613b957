"""The life of a cgroup on fake trees, once it is there: controllers, freezing, killing, its processes."""

import errno
from pathlib import Path

import pytest

from ociruntime.cgroups import files, manager
from ociruntime.cgroups.cgroup import Cgroup
from ociruntime.errors import StepError, UnsupportedError
from tests.cgroups.trees import choose, created, v2_host

pytestmark = pytest.mark.usefixtures("waits")


# -- v2 controllers and types


def test_controllers_are_enabled_level_by_level(tmp_path: Path) -> None:
    host = v2_host(tmp_path)
    (tmp_path / "a").mkdir()
    for level in (tmp_path, tmp_path / "a"):
        (level / "cgroup.subtree_control").write_text("")
    cgroup = created(host)
    for level in (tmp_path, tmp_path / "a"):
        assert (level / "cgroup.subtree_control").read_text() == "+cpu +pids"
        (level / "cgroup.subtree_control").write_text("untouched")
    # All there already: nothing is written.
    (tmp_path / "a/web/cgroup.controllers").write_text("cpuset cpu pids\n")
    cgroup.create()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "untouched"


def test_controllers_are_tried_one_by_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ociruntime.cgroups import v2

    written: list[tuple[str, bytes]] = []

    def write(path: str, *values: bytes) -> None:
        written.append((path, values[0]))
        if b" " in values[0] or values[0] == b"+cpu":
            raise OSError(errno.EBUSY, "no", path)

    monkeypatch.setattr(files, "write", write)
    v2.enable_controllers("/top/a", "/top", ("cpu", "pids"))
    assert written == [("/top/cgroup.subtree_control", value) for value in (b"+cpu +pids", b"+cpu", b"+pids")]


@pytest.mark.parametrize("kind", ["domain invalid", "threaded", "domain threaded"])
def test_threaded_cgroups(tmp_path: Path, kind: str) -> None:
    host = v2_host(tmp_path, controllers=("cpu", "memory"))
    for level in ("a", "a/web"):
        (tmp_path / level).mkdir()
        (tmp_path / level / "cgroup.type").write_text(f"{kind}\n")
    cgroup = choose(host, resources={"memory": {"limit": 4096}})
    with pytest.raises(UnsupportedError, match=kind):
        cgroup.create()
    choose(host, resources={"cpu": {"shares": 4096}}).create()
    expected = "threaded" if kind == "domain invalid" else f"{kind}\n"
    assert (tmp_path / "a/cgroup.type").read_text() == (tmp_path / "a/web/cgroup.type").read_text() == expected


# -- freeze, kill, pids


def v1_leaf(tmp_path: Path) -> "tuple[Path, Cgroup]":
    leaf = tmp_path / "freezer"
    leaf.mkdir()
    (leaf / "freezer.state").write_text("THAWED\n")
    (leaf / "cgroup.procs").write_text("")
    return leaf, manager.from_state({"mode": "v1", "paths": {"freezer": str(leaf)}, "made": [], "rootless": False})


def test_v1_freeze_and_thaw(tmp_path: Path) -> None:
    leaf, cgroup = v1_leaf(tmp_path)
    assert not cgroup.frozen()
    cgroup.freeze()
    assert (leaf / "freezer.state").read_text() == "FROZEN"
    assert cgroup.frozen()
    (leaf / "freezer.self_freezing").write_text("0\n")
    assert not cgroup.frozen()
    (leaf / "freezer.self_freezing").write_text("1\n")
    assert cgroup.frozen()
    cgroup.thaw()
    assert (leaf / "freezer.state").read_text() == "THAWED"
    assert cgroup.freezer_file() == str(leaf / "freezer.state")


def test_v1_freeze_gives_up_thawed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: "list[float]") -> None:
    """After about ten seconds, as on cgroup v2."""
    leaf, cgroup = v1_leaf(tmp_path)
    written: list[bytes] = []
    monkeypatch.setattr(files, "write", lambda path, value: written.append(value))
    (leaf / "freezer.state").write_text("FREEZING\n")
    with pytest.raises(StepError, match="cannot be frozen"):
        cgroup.freeze()
    assert written.count(b"FROZEN") == 1000
    assert written.count(b"THAWED") == 21
    assert written[-1] == b"THAWED"
    assert 5 < sum(waits) < 15


def test_v2_freeze_waits_for_the_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cgroup.freeze").write_text("0\n")
    events = tmp_path / "cgroup.events"
    events.write_text("populated 1\nfrozen 0\n")
    cgroup = manager.from_state({"mode": "v2", "paths": {"": str(tmp_path)}, "made": [], "rootless": False})
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        assert (tmp_path / "cgroup.freeze").read_text() == "1"
        if len(pauses) == 5:
            events.write_text("populated 1\nfrozen 1\n")

    monkeypatch.setattr("ociruntime.cgroups.v2.sleep", pause)
    cgroup.freeze()
    assert len(pauses) == 5
    assert cgroup.frozen()
    cgroup.thaw()
    assert not cgroup.frozen()
    events.write_text("populated 1\nfrozen 0\n")
    clock = iter(range(0, 100, 4))
    monkeypatch.setattr("ociruntime.cgroups.v2.monotonic", lambda: next(clock))
    monkeypatch.setattr("ociruntime.cgroups.v2.sleep", lambda seconds: None)
    with pytest.raises(StepError, match="cannot be frozen"):
        cgroup.freeze()
    assert (tmp_path / "cgroup.freeze").read_text() == "0"


def test_pids_of_sub_cgroups_once(tmp_path: Path) -> None:
    leaf, cgroup = v1_leaf(tmp_path)
    (leaf / "cgroup.procs").write_text("5\n6\n0\n")
    (leaf / "sub/deep").mkdir(parents=True)
    (leaf / "sub/cgroup.procs").write_text("7\n5\n")
    (leaf / "sub/deep/cgroup.procs").write_text("8\n")
    assert sorted(cgroup.pids()) == [5, 6, 7, 8]


def test_kill_v2_writes_cgroup_kill_and_thaws(tmp_path: Path) -> None:
    for name, text in (("cgroup.kill", ""), ("cgroup.freeze", "1\n")):
        (tmp_path / name).write_text(text)
    cgroup = manager.from_state({"mode": "v2", "paths": {"": str(tmp_path)}, "made": [], "rootless": False})
    cgroup.kill()
    assert (tmp_path / "cgroup.kill").read_text() == "1"
    assert (tmp_path / "cgroup.freeze").read_text() == "0"


def test_kill_without_cgroup_kill_freezes_signals_and_thaws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf, cgroup = v1_leaf(tmp_path)
    (leaf / "cgroup.procs").write_text("5\n6\n")
    done: list[tuple[int, int, str]] = []
    monkeypatch.setattr("posix.kill", lambda pid, sig: done.append((pid, sig, (leaf / "freezer.state").read_text())))
    cgroup.signal_all(9)
    assert done == [(5, 9, "FROZEN"), (6, 9, "FROZEN")]
    assert (leaf / "freezer.state").read_text() == "THAWED"
    done.clear()
    cgroup.signal_all(15)
    assert [(pid, sig) for pid, sig, _state in done] == [(5, 15), (6, 15)]


def test_kill_thaws_when_signalling_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf, cgroup = v1_leaf(tmp_path)
    (leaf / "cgroup.procs").write_text("5\n")

    def refuse(pid: int, signal: int) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr("posix.kill", refuse)
    with pytest.raises(StepError):
        cgroup.kill()
    assert (leaf / "freezer.state").read_text() == "THAWED"


def test_hybrid_kill_uses_the_v2_directory_and_looks_for_strays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaf, _ = v1_leaf(tmp_path)
    unified = tmp_path / "unified"
    unified.mkdir()
    for name, text in (("cgroup.kill", ""), ("cgroup.procs", "5\n6\n")):
        (unified / name).write_text(text)
    (leaf / "cgroup.procs").write_text("5\n")
    (leaf / "freezer.state").write_text("FROZEN\n")
    cgroup = manager.from_state(
        {"mode": "hybrid", "paths": {"freezer": str(leaf), "": str(unified)}, "made": [], "rootless": False}
    )
    signalled: list[int] = []
    monkeypatch.setattr("posix.kill", lambda pid, sig: signalled.append(pid))
    cgroup.kill()
    assert (unified / "cgroup.kill").read_text() == "1"
    assert (leaf / "freezer.state").read_text() == "THAWED"
    assert signalled == []
    (leaf / "cgroup.procs").write_text("5\n9\n")
    cgroup.kill()
    assert signalled == [5, 9]


def test_gone_cgroups_are_no_error(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    for mode, paths in (("v1", {"freezer": gone}), ("v2", {"": gone}), ("hybrid", {"": gone, "pids": gone})):
        cgroup = manager.from_state({"mode": mode, "paths": paths, "made": [gone], "rootless": False})
        assert (cgroup.pids(), cgroup.frozen(), cgroup.exists(), cgroup.oom_kills()) == ([], False, False, 0)
        cgroup.kill()
        cgroup.thaw()
        cgroup.signal_all(15)
        cgroup.remove()


def test_oom_kills(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    for mode, key, expected in (("v2", "", 2), ("v1", "memory", 4)):
        saved = {"mode": mode, "paths": {key: str(tmp_path)}, "made": [], "rootless": False}
        assert manager.from_state(saved).oom_kills() == expected


def test_moving_a_process_waits_for_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def write(path: str, *values: bytes) -> None:
        tries.append(path)
        if len(tries) < 4:
            raise OSError(errno.EINVAL, "no", path)

    monkeypatch.setattr(files, "write", write)
    cgroup = manager.from_state({"mode": "v2", "paths": {"": "/x"}, "made": [], "rootless": False})
    cgroup.add_process(7)
    assert tries == ["/x/cgroup.procs"] * 4
    tries.clear()
    monkeypatch.setattr(files, "write", lambda path, *values: (_ for _ in ()).throw(OSError(errno.EINVAL, "no", path)))
    with pytest.raises(StepError):
        cgroup.add_process(7)


def test_left_parents_go_with_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks: dict[tuple[str, str], bytes] = {}

    def getxattr(path: str, name: str) -> bytes:
        if not Path(path).exists():
            raise OSError(errno.ENOENT, "no", path)
        if (path, name) not in marks:
            raise OSError(errno.ENODATA, "no", path)
        return marks[path, name]

    def setxattr(path: str, name: str, value: bytes) -> None:
        if name.startswith("trusted."):
            raise OSError(errno.EPERM, "no", path)
        marks[path, name] = value

    monkeypatch.setattr("posix.getxattr", getxattr)
    monkeypatch.setattr("posix.setxattr", setxattr)
    middle = tmp_path / "stays/top/middle"
    (middle / "other").mkdir(parents=True)
    files.leave_parent(str(middle.parent))
    files.leave_parent(str(middle))
    files.remove_parents(f"{middle}/leaf")
    assert middle.exists()
    (middle / "other").rmdir()
    monkeypatch.setattr("posix.geteuid", lambda: 2**31)
    files.remove_parents(f"{middle}/leaf")
    assert middle.exists()  # whoever owns it wrote the mark
    monkeypatch.undo()
    monkeypatch.setattr("posix.getxattr", getxattr)
    files.remove_parents(f"{middle}/other")
    assert not (tmp_path / "stays/top").exists()
    assert (tmp_path / "stays").exists()


def test_a_parent_whose_last_user_goes_while_it_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not seen the mark does not remove it: then whoever has left it does."""
    parent = tmp_path / "parent"
    (parent / "other").mkdir(parents=True)
    monkeypatch.setattr("posix.setxattr", lambda path, name, value: (parent / "other").rmdir())
    files.leave_parent(str(parent))
    assert not parent.exists()
