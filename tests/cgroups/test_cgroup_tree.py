"""The life of a cgroup on fake trees: plain directories and files stand for the kernel's."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ociruntime.cgroups import files, manager
from ociruntime.errors import ConfigError, StateError, StepError, UnsupportedError
from ociruntime.host import Host
from ociruntime.plan import FdSource
from tests.cgroups.trees import choose, created, tree, v1_host, v2_host

pytestmark = pytest.mark.usefixtures("waits")
DEVICES_ALLOW_ALL = {"devices": [{"allow": True, "access": "rwm"}]}


@pytest.fixture
def cpuset_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cpuset directory is born with its (empty) files, and goes although it has them."""
    real = os.mkdir
    real_rmdir = os.rmdir

    def mkdir(path: str, mode: int = 0o777) -> None:
        real(path, mode)
        if "/cpuset/" in path:
            for name in ("cpus", "mems"):
                Path(path, f"cpuset.{name}").write_text("")

    def rmdir(path: str, *, dir_fd: "int | None" = None) -> None:
        for name in ("cpus", "mems"):
            if dir_fd is None:
                Path(path, f"cpuset.{name}").unlink(missing_ok=True)
        real_rmdir(path, dir_fd=dir_fd)

    monkeypatch.setattr("posix.mkdir", mkdir)
    monkeypatch.setattr("posix.rmdir", rmdir)


# -- create and remove


@pytest.mark.usefixtures("cpuset_kernel")
def test_create_makes_one_directory_per_hierarchy_and_remove_takes_them_all(tmp_path: Path) -> None:
    host = v1_host(tmp_path)
    before = tree(tmp_path)
    cgroup = choose(host)
    cgroup.check_free()
    announced = list(cgroup.made)
    assert tree(tmp_path) == before
    cgroup.create()
    assert cgroup.made == announced
    made = tree(tmp_path) - before
    hierarchies = ("cpu,cpuacct", "cpuset", "memory", "freezer", "pids", "unified")
    assert made == {f"{name}/a" for name in hierarchies} | {f"{name}/a/web" for name in hierarchies}
    assert cgroup.join_sources() == [
        FdSource("write", str(tmp_path / name / "a/web/tasks")) for name in hierarchies if name != "unified"
    ]
    assert cgroup.clone_directory() == str(tmp_path / "unified/a/web")
    again = manager.from_state(json.loads(json.dumps(cgroup.saved())))
    assert again.join_sources() == cgroup.join_sources()
    again.remove()
    assert tree(tmp_path) == before
    again.remove()


@pytest.mark.usefixtures("cpuset_kernel")
def test_new_cpusets_get_the_values_of_their_parents(tmp_path: Path) -> None:
    host = v1_host(tmp_path)
    foreign = tmp_path / "cpuset" / "a"
    os.mkdir(foreign)
    for name in ("cpus", "mems"):
        (foreign / f"cpuset.{name}").write_text("")
    cgroup = choose(host, "/a/b/web")
    cgroup.check_free()
    cgroup.create()
    for level in ("a", "a/b", "a/b/web"):
        assert (tmp_path / "cpuset" / level / "cpuset.cpus").read_text() == "0-3"
        assert (tmp_path / "cpuset" / level / "cpuset.mems").read_text() == "0"


def test_cpuset_mounted_with_noprefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ociruntime.cgroups import v1

    leaf = tmp_path / "leaf"
    leaf.mkdir()
    for name, value in (("cpus", "0-1"), ("mems", "0")):
        (tmp_path / name).write_text(value)
        (leaf / name).write_text("")
    v1._fill_cpuset(str(leaf), str(tmp_path), True)
    assert ((leaf / "cpus").read_text(), (leaf / "mems").read_text()) == ("0-1", "0")


@pytest.mark.usefixtures("cpuset_kernel")
def test_what_was_there_before_stays_but_for_sub_cgroups(tmp_path: Path) -> None:
    host = v1_host(tmp_path)
    (tmp_path / "memory/a/web").mkdir(parents=True)
    (tmp_path / "pids/a").mkdir()
    before = tree(tmp_path)
    cgroup = choose(host)
    cgroup.check_free()
    cgroup.create()
    for directory in cgroup.directories():
        os.makedirs(f"{directory}/by/container")
    manager.from_state(cgroup.saved()).remove()
    assert tree(tmp_path) == before


@pytest.mark.usefixtures("cpuset_kernel")
def test_a_parent_that_another_container_uses_stays(tmp_path: Path) -> None:
    host = v1_host(tmp_path)
    cgroup = choose(host)
    cgroup.check_free()
    cgroup.create()
    (tmp_path / "pids/a/other").mkdir()
    cgroup.remove()
    assert (tmp_path / "pids/a/other").is_dir()
    assert not (tmp_path / "memory/a").exists()


@pytest.mark.usefixtures("cpuset_kernel")
def test_failed_create_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = v1_host(tmp_path)
    before = tree(tmp_path)
    make = files.make

    def fail(path: str, top: str, made: "list[str]") -> bool:
        if "/pids" in path:
            raise OSError(errno.ENOSPC, "no", path)
        return make(path, top, made)

    monkeypatch.setattr(files, "make", fail)
    cgroup = choose(host)
    cgroup.check_free()
    with pytest.raises(StepError) as caught:
        cgroup.create()
    assert (caught.value.errno, caught.value.pointer) == (errno.ENOSPC, "/linux/cgroupsPath")
    assert caught.value.path.endswith("/pids/a/web")
    assert tree(tmp_path) == before


def test_a_parent_removed_meanwhile_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.mkdir
    raced: list[str] = []

    def mkdir(path: str, mode: int = 0o777) -> None:
        if path.endswith("/web") and os.path.isdir(os.path.dirname(path)) and len(raced) < 2:
            raced.append(path)
            os.rmdir(os.path.dirname(path))
        real(path, mode)

    monkeypatch.setattr("posix.mkdir", mkdir)
    made: list[str] = []
    assert files.make(f"{tmp_path}/a/web", str(tmp_path), made)
    assert len(raced) == 2
    assert (tmp_path / "a/web").is_dir()


def test_a_missing_mount_point_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.make(f"{tmp_path}/gone/web", f"{tmp_path}/gone", [])
    assert tree(tmp_path) == set()


def test_busy_cgroup_is_tried_with_doubling_pauses(tmp_path: Path, waits: "list[float]") -> None:
    (tmp_path / "leaf").mkdir()
    (tmp_path / "leaf" / "cgroup.procs").write_text("77\n88\n")
    with pytest.raises(StepError, match="77, 88") as caught:
        files.remove([(str(tmp_path / "leaf"), False)])
    assert caught.value.errno == errno.EBUSY
    assert waits == [0.001 * 2**n for n in range(10)]


@pytest.mark.parametrize(("depth", "name"), [(1500, "a"), (30, "n" * 200)])
def test_sub_cgroups_deeper_than_any_path(tmp_path: Path, depth: int, name: str) -> None:
    """A container that may make sub-cgroups cannot keep itself from being listed and deleted [D6, L21]."""
    leaf = tmp_path / "leaf"
    leaf.mkdir()
    fd = os.open(leaf, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    busy = os.open("cgroup.procs", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
    os.write(busy, b"77\n")
    os.close(busy)
    assert files.pids(str(leaf)) == [77]
    assert not files.remove_tree(str(leaf), False)
    os.unlink("cgroup.procs", dir_fd=fd)
    os.close(fd)
    assert files.remove_tree(str(leaf), False)
    assert not leaf.exists()


def test_removal_goes_on_when_it_is_free_at_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = tmp_path / "leaf"
    (leaf / "sub").mkdir(parents=True)
    busy = leaf / "sub" / "cgroup.procs"
    busy.write_text("7\n")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            busy.unlink()

    monkeypatch.setattr(files, "sleep", pause)
    files.remove([(str(leaf), False)])
    assert not leaf.exists()
    assert len(pauses) == 3


# -- before create


def occupied(host: Host, tmp_path: Path, hierarchy: str, text: str = "4242\n") -> Path:
    leaf = tmp_path / hierarchy / "a/web"
    leaf.mkdir(parents=True)
    (leaf / "cgroup.procs").write_text(text)
    return leaf


@pytest.mark.parametrize("hierarchy", ["memory", "unified"])
def test_processes_in_any_hierarchy_are_refused_before_anything_is_made(tmp_path: Path, hierarchy: str) -> None:
    host = v1_host(tmp_path)
    occupied(host, tmp_path, hierarchy)
    before = tree(tmp_path)
    with pytest.raises(StateError, match="not empty") as caught:
        choose(host).check_free()
    assert "4242" in caught.value.hint
    assert "rmdir" in caught.value.hint
    assert tree(tmp_path) == before


def test_processes_in_a_sub_cgroup_count(tmp_path: Path) -> None:
    leaf = occupied(v2_host(tmp_path), tmp_path, ".", "")
    (leaf / "sub").mkdir()
    (leaf / "sub" / "cgroup.procs").write_text("4242\n")
    with pytest.raises(StateError, match="not empty"):
        choose(v2_host(tmp_path)).check_free()


def test_frozen_cgroups_are_refused(tmp_path: Path) -> None:
    v1, v2 = tmp_path / "v1", tmp_path / "v2"
    v1.mkdir()
    v2.mkdir()
    leaf = occupied(host1 := v1_host(v1), v1, "freezer", "")
    (leaf / "freezer.state").write_text("FROZEN\n")
    with pytest.raises(StateError, match="frozen") as caught:
        choose(host1).check_free()
    assert "THAWED" in caught.value.hint
    # Frozen through an ancestor only.
    (leaf / "freezer.self_freezing").write_text("0\n")
    choose(host1).check_free()
    leaf = occupied(host2 := v2_host(v2), v2, ".", "")
    (leaf / "cgroup.freeze").write_text("1\n")
    (leaf / "cgroup.events").write_text("populated 0\nfrozen 1\n")
    with pytest.raises(StateError, match="frozen"):
        choose(host2).check_free()


def test_an_empty_cgroup_from_before_is_fine(tmp_path: Path) -> None:
    host = v2_host(tmp_path)
    occupied(host, tmp_path, ".", "")
    cgroup = choose(host)
    cgroup.check_free()
    assert cgroup.made == []


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "web").write_text("")
    with pytest.raises(ConfigError, match="not a cgroup"):
        choose(v2_host(tmp_path)).check_free()


def test_bad_limits_are_refused_by_choose(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        choose(v2_host(tmp_path), resources={"memory": {"limit": 5}})
    assert caught.value.pointer == "/linux/resources/memory/limit"
    (tmp_path / "v1").mkdir()
    with pytest.raises(UnsupportedError) as caught:
        choose(v1_host(tmp_path / "v1"), resources={"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]})
    assert caught.value.pointer == "/linux/resources/hugepageLimits/0/limit"


# -- rootless


def refusing(monkeypatch: pytest.MonkeyPatch, allowed: "Callable[[str], bool]") -> None:
    real = os.mkdir

    def mkdir(path: str, mode: int = 0o777) -> None:
        if not allowed(path):
            raise PermissionError(errno.EACCES, "no", path)
        real(path, mode)

    monkeypatch.setattr("posix.mkdir", mkdir)


def test_rootless_goes_on_without_what_it_may_not_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, lambda path: "/freezer/" in path)
    host = v1_host(tmp_path, rootless=True)
    for resources in (None, {"devices": [{"allow": False, "access": "rwm"}], "memory": {}}):
        cgroup = manager.choose(host, {"linux": {"resources": resources} if resources else {}}, "web")
        cgroup.check_free()
        cgroup.create()
        cgroup.apply(resources or {})
        assert list(cgroup.paths) == ["freezer"]
        (note,) = cgroup.notes
        assert note == (
            "cannot create the cgroup (permission denied), going on without one: "
            "cpu, cpuacct, cpuset, memory, pids, cgroup v2"
        )
        assert not cgroup.warnings
        manager.from_state(cgroup.saved()).remove()


def test_rootless_without_any_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, lambda path: False)
    cgroup = manager.choose(v2_host(tmp_path, rootless=True), {}, "web")
    cgroup.check_free()
    cgroup.create()
    cgroup.apply({"devices": [{"allow": False, "access": "rwm"}]})
    cgroup.kill()
    cgroup.remove()
    again = manager.from_state(cgroup.saved())
    assert (again.mode, again.exists(), again.pids(), again.frozen()) == ("none", False, [], False)


@pytest.mark.parametrize(
    ("linux", "rootless", "pointer"),
    [
        ({"cgroupsPath": "/a/web"}, True, "/linux/cgroupsPath"),
        ({"resources": {"pids": {"limit": 5}}}, True, "/linux/resources/pids/limit"),
        ({}, False, ""),
    ],
)
def test_a_path_or_limits_or_privilege_make_it_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linux: "dict[str, Any]", rootless: bool, pointer: str
) -> None:
    refusing(monkeypatch, lambda path: False)
    cgroup = manager.choose(v2_host(tmp_path, rootless=rootless), {"linux": linux}, "web")
    cgroup.check_free()
    with pytest.raises(StepError) as caught:
        cgroup.create()
    assert caught.value.errno == errno.EACCES
    assert caught.value.pointer == pointer
    assert caught.value.hint


# -- apply


@pytest.mark.usefixtures("cpuset_kernel")
def test_limits_go_to_the_directory_of_their_controller(tmp_path: Path) -> None:
    resources = {"pids": {"limit": 5}, "memory": {"limit": 4096}, **DEVICES_ALLOW_ALL}
    cgroup = choose(v1_host(tmp_path), resources=resources)
    cgroup.check_free()
    cgroup.create()
    (tmp_path / "pids/a/web/pids.max").write_text("max\n")
    (tmp_path / "memory/a/web/memory.limit_in_bytes").write_text("")
    cgroup.apply(resources)
    assert (tmp_path / "pids/a/web/pids.max").read_text() == "5"
    assert (tmp_path / "memory/a/web/memory.limit_in_bytes").read_text() == "4096"
    # update: another object, for a cgroup known from its state only
    manager.from_state(cgroup.saved()).apply({"pids": {"limit": -1}}, pointer="", devices=False)
    assert (tmp_path / "pids/a/web/pids.max").read_text() == "max"
    with pytest.raises(UnsupportedError) as caught:
        manager.from_state(cgroup.saved()).apply({"network": {"classID": 5}}, pointer="", devices=False)
    assert caught.value.pointer == "/network/classID"


@pytest.mark.usefixtures("cpuset_kernel")
def test_a_device_list_needs_the_controller_unless_all_is_allowed(tmp_path: Path) -> None:
    host = v1_host(tmp_path)
    with pytest.raises(UnsupportedError, match="devices"):
        choose(host).apply({})
    choose(host).apply(DEVICES_ALLOW_ALL)
    host.in_userns = True
    choose(host).apply({})


def test_device_list_is_written_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "devices/a/web").mkdir(parents=True)
    leaf = tmp_path / "devices/a/web"
    for name, text in (("devices.list", "a *:* rwm\n"), ("devices.allow", ""), ("devices.deny", "")):
        (leaf / name).write_text(text)
    host = Host(cgroup_mode="v1", cgroup_mounts={"devices": str(tmp_path / "devices")}, own_cgroups={"devices": "/"})
    # The list does not change by itself here, and that is noticed.
    with pytest.raises(StepError, match="c 1:3 rwm") as caught:
        choose(host).apply({})
    assert caught.value.pointer == "/linux/resources/devices"
    assert (leaf / "devices.deny").read_text() == "a\n"
    allowed = (leaf / "devices.allow").read_text()
    assert allowed.startswith("c *:* m\nb *:* m\nc 1:3 rwm\n")
    (leaf / "devices.list").write_text(allowed)
    choose(host).apply({})


class Bpf:
    """Stands for ociruntime.shim.bpf."""

    def __init__(self) -> None:
        self.attached: list[int] = []
        self.log: list[tuple[object, ...]] = []
        self.fail: StepError | None = None
        self.programs: dict[int, int] = {}

    def load_device(self, program: bytes) -> int:
        if self.fail:
            raise self.fail
        fd = os.open("/dev/null", os.O_RDONLY)
        self.programs[fd] = 100 + len(self.log)
        self.log.append(("load", len(program) // 8))
        return fd

    def attach(self, cgroup_fd: int, program_fd: int, replace_fd: int = -1) -> None:
        self.log.append(("attach", replace_fd >= 0))
        if replace_fd >= 0:
            self.attached.remove(self.programs[replace_fd])
        self.attached.append(self.programs[program_fd])

    def query(self, cgroup_fd: int) -> "list[int]":
        return list(self.attached)

    def program_by_id(self, program_id: int) -> int:
        fd = os.open("/dev/null", os.O_RDONLY)
        self.programs[fd] = program_id
        return fd

    def detach(self, cgroup_fd: int, program_fd: int) -> None:
        self.log.append(("detach", self.programs[program_fd]))
        self.attached.remove(self.programs[program_fd])


@pytest.fixture
def bpf(monkeypatch: pytest.MonkeyPatch) -> Bpf:
    import sys

    import ociruntime.shim

    fake = Bpf()
    monkeypatch.setitem(sys.modules, "ociruntime.shim.bpf", fake)
    monkeypatch.setattr(ociruntime.shim, "bpf", fake, raising=False)
    return fake


def test_device_filter_of_a_new_v2_cgroup(tmp_path: Path, bpf: Bpf) -> None:
    fds = len(os.listdir("/proc/self/fd"))
    cgroup = created(v2_host(tmp_path))
    cgroup.apply({})
    assert bpf.log == [("load", 30), ("attach", False)]
    # update: the one old program is replaced in one step
    manager.from_state(cgroup.saved()).apply({})
    assert bpf.log[2:] == [("load", 30), ("attach", True)]
    # to allow everything it is taken off
    manager.from_state(cgroup.saved()).apply(DEVICES_ALLOW_ALL)
    assert bpf.attached == []
    # several: the new one is in force before the old ones go
    bpf.attached = [7, 8]
    bpf.log.clear()
    manager.from_state(cgroup.saved()).apply({})
    assert [entry[0] for entry in bpf.log] == ["load", "attach", "detach", "detach"]
    assert len(bpf.attached) == 1
    assert len(os.listdir("/proc/self/fd")) == fds
    bpf.log.clear()
    fresh = choose(v2_host(tmp_path), "/a/b")
    fresh.create()
    fresh.apply(DEVICES_ALLOW_ALL)
    assert bpf.log == []


def test_failing_device_filter(tmp_path: Path, bpf: Bpf) -> None:
    bpf.fail = StepError("", call="bpf", errno=errno.EPERM)
    with pytest.raises(StepError) as caught:
        created(v2_host(tmp_path)).apply({})
    assert (caught.value.pointer, caught.value.errno) == ("/linux/resources/devices", errno.EPERM)
    cgroup = choose(v2_host(tmp_path, rootless=True))
    cgroup.apply({})
    assert "cannot filter devices" in cgroup.notes[0]
    bpf.fail = StepError("", call="bpf", errno=errno.EINVAL)
    with pytest.raises(StepError):
        choose(v2_host(tmp_path, rootless=True)).apply({})


def test_a_v2_cgroup_that_stays_loses_our_filter(tmp_path: Path, bpf: Bpf) -> None:
    (tmp_path / "a/web").mkdir(parents=True)
    cgroup = created(v2_host(tmp_path))
    cgroup.apply({})
    assert len(bpf.attached) == 1
    manager.from_state(cgroup.saved()).remove()
    assert bpf.attached == []
    assert (tmp_path / "a/web").is_dir()


# -- start-up cost


def test_a_known_cgroup_loads_little() -> None:
    """state and kill only: no lowering, no device rules, no mount table."""
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from ociruntime.cgroups import manager\n"
        "for mode in ('v1', 'v2'):\n"
        "    c = manager.from_state({'mode': mode, 'paths': {'': '/nonexistent'}, 'made': [], 'rootless': False})\n"
        "    c.frozen(), c.pids(), c.kill()\n"
        "print(*sorted(m for m in sys.modules if m.startswith('ociruntime')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [
        "ociruntime",
        "ociruntime.cgroups",
        "ociruntime.cgroups.cgroup",
        "ociruntime.cgroups.files",
        "ociruntime.cgroups.manager",
        "ociruntime.cgroups.v1",
        "ociruntime.cgroups.v2",
        "ociruntime.errors",
        "ociruntime.files",
        "ociruntime.plan",
    ]
