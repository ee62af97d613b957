"""ns: the container's namespaces beside the caller's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.lib.container import Container, last_descendant

pytestmark = pytest.mark.ours_only("no other runtime has the command")

FILES = {"cgroup": "cgroup", "ipc": "ipc", "mount": "mnt", "network": "net", "pid": "pid", "user": "user", "uts": "uts"}


def test_same_and_different(container: Container) -> None:
    """New namespaces are different, inherited ones the same; the numbers are those of /proc [L1]."""
    container.bundle.drop_namespace("ipc")
    container.begin("pause")
    report = container.command("ns", "--format", "json").ok().json
    assert (report["id"], report["pid"], report["status"]) == (container.id, container.pid, "running")
    entries = {entry["type"]: entry for entry in report["namespaces"]}
    for kind, name in FILES.items():
        inside, outside = (os.readlink(f"/proc/{pid}/ns/{name}") for pid in (container.pid, "self"))
        assert f"{name}:[{entries[kind]['inode']}]" == inside
        assert f"{name}:[{entries[kind]['callerInode']}]" == outside
        assert entries[kind]["same"] is (inside == outside)
    assert [kind for kind, entry in entries.items() if entry["same"]] == sorted(
        {"cgroup", "ipc", "user", *({"time"} & set(entries))}
    )
    assert report["pids"][0] == container.pid
    assert report["pids"][-1] == 1
    assert "users and groups in the container are the same outside" in report["words"]


@pytest.mark.requires("userns")
def test_id_maps_in_words(container: Container) -> None:
    """Who is who: in words, and as numbers [L6]."""
    container.bundle.user_namespace()
    container.bundle.linux(gidMappings=[{"containerID": 0, "hostID": 500000, "size": 10}])
    container.create()
    lines = container.command("ns").ok().text.splitlines()
    assert any(line.split()[0] == "user" and line.split()[3:] == ["different"] for line in lines if line)
    assert "root in the container is uid 400000, gid 500000 outside" in lines
    assert "uid 0-65535 in the container is 400000-465535 outside" in lines
    assert "you, uid 0, are nobody in the container" in lines
    report = container.command("ns", "-f", "json").ok().json
    assert report["status"] == "created"
    assert report["gidMappings"] == [{"containerID": 0, "hostID": 500000, "size": 10}]


@pytest.mark.requires("userns")
def test_many_lines(container: Container) -> None:
    """A map longer than what the kernel gives in one read: all lines are told [L6]."""
    lines = many_lines(container)
    container.create()
    assert len(Path(f"/proc/{container.pid}/uid_map").read_text().splitlines()) == 300
    report = container.command("ns", "-f", "json").ok().json
    assert report["uidMappings"] == lines


def many_lines(container: Container) -> list[dict[str, int]]:
    """Give the container's user namespace a map of 300 lines."""
    lines = [{"containerID": n, "hostID": 400000 + 2 * n, "size": 1} for n in range(300)]
    container.bundle.user_namespace()
    container.bundle.linux(uidMappings=lines, gidMappings=[{"containerID": 0, "hostID": 400000, "size": 10}])
    return lines


@pytest.mark.requires("userns")
def test_many_lines_of_a_joined_namespace(new_container: Callable[..., Container]) -> None:
    """All of them are compared with those of the namespace that is joined [L6]."""
    first, second = new_container(), new_container()
    many_lines(first)
    first.create()
    second.bundle.user_namespace()
    second.bundle.linux(**{key: first.bundle.config["linux"][key] for key in ("uidMappings", "gidMappings")})
    second.bundle.namespace("user", f"/proc/{first.pid}/ns/user")
    assert len(second.report()["uid_map"].splitlines()) == 300


@pytest.mark.requires("file:/usr/bin/unshare")
def test_levels_of_pid_namespaces(container: Container) -> None:
    """Three levels deep, every PID is there; a joined namespace is named [L1]."""
    command = ["unshare", "-p", "-f", "--kill-child", "unshare", "-p", "-f", "--kill-child", "sleep", "60"]
    with subprocess.Popen(command) as outer:
        try:
            deepest = last_descendant(outer.pid, "sleep")
            path = f"/proc/{deepest}/ns/pid"
            container.bundle.namespace("pid", path)
            container.begin("pause")
            report = container.command("ns", "-f", "json").ok().json
            status = Path(f"/proc/{container.pid}/status").read_text()
            assert len(report["pids"]) == 3
            assert "NSpid:\t" + "\t".join(str(pid) for pid in report["pids"]) + "\n" in status
            assert next(entry["path"] for entry in report["namespaces"] if entry["type"] == "pid") == path
            assert f"joined: {path}" in container.command("ns").ok().text
            container.finish()
        finally:
            outer.kill()


def test_stopped(container: Container) -> None:
    """A stopped container has no namespaces: an error; so is one that does not exist, or a format that is none."""
    container.begin("pause")
    assert container.command("ns", "-f", "xml").code != 0
    container.finish()
    result = container.command("ns")
    assert result.code == 1
    assert "no process" in result.error
    assert "does not exist" in container.runtime("ns", "no-such-container").error
