"""ps: the processes of a container."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.lib import host
from integration.lib.bundle import CGROUP_PREFIX
from integration.lib.container import Container
from integration.lib.runtime import Runtime as Tested


def test_json(container: Container) -> None:
    """--format json: an array of host pids [K10]."""
    container.begin("fork 2", "pause")
    for words in (["--format", "json"], ["--format=json"], ["-f", "json"]):
        pids = container.command("ps", *words).ok().json
        assert len(pids) == 3
        assert container.pid in pids
    for pid in pids:
        assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{container.pid}/ns/pid")


@pytest.mark.requires("v1:freezer")
def test_sub_cgroups(container: Container) -> None:
    """Processes in cgroups below the container's are its processes too [K10]."""
    container.begin("fork 1", "pause")
    pids = container.command("ps", "-f", "json").ok().json
    other = next(pid for pid in pids if pid != container.pid)
    for name, point in host.cgroup_mounts().items():
        place = Path(point, CGROUP_PREFIX, container.id)
        if place.exists() and not name.startswith("cpuset"):
            (place / "below").mkdir(exist_ok=True)
            (place / "below" / "cgroup.procs").write_text(str(other))
    assert sorted(container.command("ps", "-f", "json").ok().json) == sorted(pids)


def test_stopped(container: Container) -> None:
    """A stopped container has none [K10]."""
    container.bundle.args("exit 0")
    container.create()
    container.start()
    container.wait_dead()
    container.wait()
    assert not container.command("ps", "-f", "json").ok().json


def test_table(container: Container) -> None:
    """The host's ps, its header and our rows; arguments of the caller, or one empty word [K10, A1]."""
    container.begin("pause")
    if container.runtime.name == "crun":
        pytest.skip("prints pids only")
    for words in ([], [""], ["-ef"], ["-o", "pid,comm"], ["aux"]):
        result = container.runtime("ps", container.id, *words).ok()
        lines = result.text.splitlines()
        assert "PID" in lines[0]
        assert len(lines) == 2, result
        assert str(container.pid) in lines[1].split()
    assert container.runtime("ps", "--format", "table", container.id, "-ef").ok().text.count("\n") == 2


@pytest.mark.parametrize("words", [["-efm"], ["-eo", "pid,lstart"], ["-eo", "user:30,pid"]])
def test_columns(container: Container, words: list[str]) -> None:
    """Threads have no PID, and the PID may be in any column [K10]."""
    container.begin("pause")
    if container.runtime.name == "crun":
        pytest.skip("prints pids only")
    _, line = container.runtime("ps", container.id, *words).ok().text.splitlines()
    assert str(container.pid) in line.split()


@pytest.mark.ours_only("others cannot tell then, and fail or print nothing")
@pytest.mark.parametrize("columns", ["lstart,pid,comm", "args,pid", "start,pid", "comm,args,pid"])
def test_columns_with_blanks(container: Container, columns: str) -> None:
    """The PID is found behind columns with blanks in them: times, command lines [K10]."""
    container.begin("pause")
    _, line = container.runtime("ps", container.id, "-eo", columns).ok().text.splitlines()
    assert str(container.pid) in line.split()


def test_errors(container: Container) -> None:
    """No such container; a format that is none; a ps without PIDs [K10]."""
    container.begin("pause")
    assert container.runtime("ps", "no-such-container").code != 0
    assert container.command("ps", "--format", "xml").code != 0
    if container.runtime.name != "crun":
        assert container.runtime("ps", container.id, "-o", "comm").code != 0


@pytest.mark.requires("v2")
def test_on_v2(new_container: Callable[..., Container], runtime: Tested, v2_prefix: list[str]) -> None:
    """The same on cgroup v2, sub-cgroups included [K10]."""
    container = new_container(at=runtime.within(v2_prefix))
    container.begin("fork 1", "pause")
    pids = container.command("ps", "-f", "json").ok().json
    assert len(pids) == 2
    place = Path(host.cgroup_mounts()[""], CGROUP_PREFIX, container.id)
    (place / "below").mkdir()
    (place / "below" / "cgroup.procs").write_text(str(next(pid for pid in pids if pid != container.pid)))
    assert sorted(container.command("ps", "-f", "json").ok().json) == sorted(pids)


@pytest.mark.ours_only("json needs no program of the host")
def test_json_without_the_host_ps(container: Container) -> None:
    """ps --format json works with an empty environment [K10, G12]."""
    container.begin("pause")
    assert container.command("ps", "-f", "json", env={}).ok().json == [container.pid]
