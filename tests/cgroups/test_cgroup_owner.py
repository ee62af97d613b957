"""Who owns a container's cgroup, and what a cgroup that was there before gets back."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ociruntime.cgroups import files, manager, owner
from ociruntime.cgroups.cgroup import Cgroup
from ociruntime.cgroups.update import Update
from ociruntime.errors import StepError
from ociruntime.host import Host

MOUNT = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid"]}


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ([], False),
        ([MOUNT], True),
        ([{**MOUNT, "destination": "/sys//fs/cgroup/"}], True),
        ([{**MOUNT, "type": "cgroup2", "source": "none", "options": None}], True),
        ([{**MOUNT, "options": ["nosuid", "ro"]}], False),
        ([{**MOUNT, "options": ["rro"]}], False),
        ([{**MOUNT, "destination": "/cgroup"}], False),
        ([{**MOUNT, "type": "tmpfs", "source": "tmpfs"}], False),
        # What is mounted last is what the container sees.
        ([MOUNT, {**MOUNT, "options": ["ro"]}], False),
        ([MOUNT, {"destination": "/sys/fs/cgroup", "type": "tmpfs"}], False),
    ],
)
def test_wanted(mounts: "list[dict[str, Any]]", expected: bool) -> None:
    assert owner.wanted({"mounts": mounts}) is expected


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> "dict[str, int]":
    """chown and stat of a world where everybody may give files away: path to UID."""
    changed: dict[str, int] = {}
    real = os.stat

    class Facts:
        def __init__(self, uid: int) -> None:
            self.st_uid = uid

    def stat(path: str, **how: Any) -> Facts:
        real(path)
        return Facts(changed.get(path, 0))

    def chown(path: str, uid: int, gid: int, *, follow_symlinks: bool) -> None:
        assert (gid, follow_symlinks) == (-1, False)
        changed[path] = uid

    monkeypatch.setattr("ociruntime.cgroups.owner.posix", type("Posix", (), {"stat": stat, "chown": chown}))
    return changed


def v2_cgroup(tmp_path: Path, fresh: bool) -> Cgroup:
    directory = tmp_path / "web"
    directory.mkdir()
    for name in ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "memory.max", "memory.oom.group"):
        (directory / name).touch()
    (tmp_path / "cgroup.controllers").touch()
    host = Host(cgroup_mode="v2", unified=str(tmp_path), own_cgroups={"": "/me"})
    cgroup = manager.choose(host, {"linux": {"cgroupsPath": "/web"}}, "web")
    if fresh:
        cgroup.fresh.add(str(directory))
    return cgroup


def names(owners: "dict[str, int]", uid: int) -> "set[str]":
    return {Path(path).name for path, is_now in owners.items() if is_now == uid}


@pytest.mark.parametrize("listed", ["cgroup.procs\nmemory.oom.group\nmemory.reclaim\n", ""])
def test_only_what_the_kernel_lists(
    tmp_path: Path, owners: "dict[str, int]", monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    (tmp_path / "delegate").write_text(listed)
    monkeypatch.setattr(owner, "LIST", str(tmp_path / ("delegate" if listed else "missing")))
    cgroup = v2_cgroup(tmp_path, True)
    owner.give_to_user(cgroup, {"mounts": [MOUNT], "process": {"user": {"uid": 7}}}, lambda uid: uid + 1000)
    expected = {"memory.oom.group"} if listed else {"cgroup.threads", "cgroup.subtree_control"}
    assert names(owners, 1007) == {"web", "cgroup.procs"} | expected
    assert cgroup.before == {}


def test_nobody_to_give_it_to(tmp_path: Path, owners: "dict[str, int]") -> None:
    cgroup = v2_cgroup(tmp_path, True)
    owner.give_to_user(cgroup, {"mounts": [MOUNT]}, lambda uid: None)
    owner.give_to_user(cgroup, {"mounts": []}, lambda uid: 1000)
    assert owners == {}


def test_controllers_that_an_update_enables(
    tmp_path: Path, owners: "dict[str, int]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their files are new, and those that the kernel lists go to the owner, too [L21]."""
    (tmp_path / "delegate").write_text("cgroup.procs\nmemory.oom.group\n")
    monkeypatch.setattr(owner, "LIST", str(tmp_path / "delegate"))
    cgroup = v2_cgroup(tmp_path, True)
    (tmp_path / "web" / "memory.oom.group").unlink()
    owner.give(cgroup, 1000)
    again = manager.from_state(cgroup.saved())
    host = Host(cgroup_mode="v2", unified=str(tmp_path), own_cgroups={"": "/me"}, controllers=("memory",))
    (tmp_path / "web" / "memory.oom.group").touch()
    (tmp_path / "cgroup.subtree_control").touch()
    Update(again, {"memory": {"limit": 4096}}, [], host).apply()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory"
    assert names(owners, 1000) == {"web", "cgroup.procs", "memory.oom.group"}


def test_a_cgroup_that_stays_gets_its_owner_back(
    tmp_path: Path, owners: "dict[str, int]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "LIST", str(tmp_path / "missing"))
    monkeypatch.setattr("ociruntime.cgroups.device_program.detach_all", lambda directory: None)
    cgroup = v2_cgroup(tmp_path, False)
    owner.give(cgroup, 1000)
    assert cgroup.saved()["before"] == {"owner": 0}
    manager.from_state(cgroup.saved()).remove()
    assert set(owners.values()) == {0}
    assert (tmp_path / "web").is_dir()


@pytest.mark.parametrize("rootless", [True, False])
def test_without_the_privilege(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rootless: bool) -> None:
    def chown(path: str, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "no", path)

    monkeypatch.setattr("posix.chown", chown)
    cgroup = v2_cgroup(tmp_path, True)
    cgroup.rootless = rootless
    if rootless:
        owner.give(cgroup, 54321)
        assert "54321" in cgroup.warnings[0]
        return
    with pytest.raises(StepError) as caught:
        owner.give(cgroup, 54321)
    assert (caught.value.pointer, caught.value.errno) == ("/process/user/uid", errno.EPERM)


class Kernel:
    """The device list of cgroup v1, as far as it goes without exceptions to "all"."""

    def __init__(self, directory: Path, lines: "list[str]") -> None:
        self.directory = directory
        self.lines = list(lines)
        self.show()

    def show(self) -> None:
        (self.directory / "devices.list").write_text("".join(line + "\n" for line in self.lines))

    def write(self, path: str, *values: bytes) -> None:
        for value in values:
            line = value.decode().strip()
            if line == "a":
                self.lines = ["a *:* rwm"] if path.endswith("allow") else []
            elif path.endswith("allow"):
                self.lines.append(line)
            else:
                self.lines.remove(line)
        self.show()


@pytest.mark.parametrize("before", [["a *:* rwm"], ["c 1:3 rwm", "c 4:64 rw"], []])
def test_a_v1_cgroup_that_stays_gets_its_device_list_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: "list[str]"
) -> None:
    leaf = tmp_path / "devices/web"
    leaf.mkdir(parents=True)
    kernel = Kernel(leaf, before)
    monkeypatch.setattr(files, "write", kernel.write)
    host = Host(cgroup_mode="v1", cgroup_mounts={"devices": str(tmp_path / "devices")}, own_cgroups={"devices": "/"})
    cgroup = manager.choose(host, {"linux": {"cgroupsPath": "/web"}}, "web")
    cgroup.check_free()
    cgroup.create()
    cgroup.apply({"devices": [{"allow": True, "type": "c", "major": 9, "minor": 9, "access": "r"}]})
    assert "c 9:9 r" in kernel.lines
    manager.from_state(cgroup.saved()).remove()
    assert sorted(kernel.lines) == sorted(before)
