"""ns: what is read of a process, in words."""

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ociruntime.cli.commands.ns import table
from ociruntime.errors import NotFoundError, StateError, StepError
from ociruntime.lifecycle import ns
from ociruntime.lifecycle.runtime import Runtime
from ociruntime.state import status
from ociruntime.state.model import State

NO_ID = 4294967295
HUNDRED = ((0, 100000, 65536),)


def test_nspid() -> None:
    assert ns.parse_nspid(b"Name:\tx\nNSpid:\t4711\t17\t1\nNSpgid:\t1\n") == [4711, 17, 1]
    assert ns.parse_nspid(b"Name:\tx\n") == []


@pytest.mark.parametrize(
    ("pids", "words"),
    [
        ([9], "its first process is PID 9, in the container as outside"),
        ([4711, 1], "its first process is PID 1 in the container, 4711 outside"),
        ([4711, 17, 1],
         "its first process is PID 1 in the container, 17 in the PID namespace between, 4711 outside"),
        ([4711, 17, 3, 1],
         "its first process is PID 1 in the container, 3 in the PID namespace between, "
         "17 in the PID namespace between, 4711 outside"),
    ],
)  # fmt: skip
def test_pids(pids: list[int], words: str) -> None:
    assert ns.pid_words(pids) == words


def test_ids() -> None:
    assert ns.id_words((), (), True, 0, 0) == ["users and groups in the container are the same outside"]
    assert ns.id_words(HUNDRED, ((0, 7, 1), (1, 200000, 9)), False, 0, 7) == [
        "root in the container is uid 100000, gid 7 outside",
        "uid 0-65535 in the container is 100000-165535 outside",
        "you, uid 0, are nobody in the container",
        "gid 0 in the container is 7 outside",
        "gid 1-9 in the container is 200000-200008 outside",
        "you, gid 7, are gid 0 in the container",
    ]


def test_ids_that_are_nobody_here() -> None:
    """The map names IDs that the caller's own user namespace lacks; or there is no root, or nothing."""
    assert ns.id_words(((0, NO_ID, 5),), ((1, 5, 1),), False, 3, 5) == [
        "root in the container is no uid, no gid outside",
        "uid 0-4 in the container is none outside",
        "you, uid 3, are nobody in the container",
        "gid 1 in the container is 5 outside",
        "you, gid 5, are gid 1 in the container",
    ]
    assert "the container has no uid at all" in ns.id_words((), (), False, 0, 0)


class Here:
    """A state root with one container, whose process is this one."""

    def __init__(self, top: Path) -> None:
        self.runtime = Runtime(str(top / "state"))
        self.directory = self.runtime.states.reserve("web")
        self.state = State(
            "web",
            bundle="/b",
            pid=os.getpid(),
            start_time=status.process_stat(os.getpid())[1],
            boot_id=status.boot_id(),
            cgroup={"manager": "none"},
            namespaces={"network": "/run/netns/x", "pid": ""},
            phase="created",
        )

    def save(self, **changes: Any) -> "Here":
        for name, value in changes.items():
            setattr(self.state, name, value)
        self.directory.save(self.state)
        self.directory.close()
        return self


def test_a_process_of_the_same_namespaces(tmp_path: Path) -> None:
    report = Here(tmp_path).save().runtime.namespaces("web")
    assert (report["id"], report["status"], report["pid"]) == ("web", "running", os.getpid())
    assert {entry["type"] for entry in report["namespaces"]} >= {
        "cgroup",
        "ipc",
        "mount",
        "network",
        "pid",
        "user",
        "uts",
    }
    for entry in report["namespaces"]:
        assert entry["same"] is True
        assert entry["inode"] == entry["callerInode"]
        name = ns.FILES[entry["type"]]
        assert os.readlink(f"/proc/self/ns/{name}") == f"{name}:[{entry['inode']}]"
    assert [entry.get("path") for entry in report["namespaces"] if entry["type"] == "network"] == ["/run/netns/x"]
    assert report["pids"][0] == os.getpid()
    assert all(entry["containerID"] == entry["hostID"] for entry in report["uidMappings"])
    assert report["words"][1] == "users and groups in the container are the same outside"


def test_what_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of another user's: new namespaces are different all the same, others cannot be told."""
    inode = ns._inode
    monkeypatch.setattr(ns, "_inode", lambda path: inode(path) if "self" in path else None)
    report = Here(tmp_path).save().runtime.namespaces("web")
    same = {entry["type"]: entry["same"] for entry in report["namespaces"]}
    assert (same["pid"], same["network"]) == (False, None)
    text = table(report)
    assert re.search(r"^pid +\? +\d+ +different$", text, re.MULTILINE)
    assert re.search(r"^network +\? +\d+ +not to be told, joined: /run/netns/x$", text, re.MULTILINE)


def test_the_callers_own_user_namespace_is_seen_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The map file of the same one speaks of the one above; here an ID is the same on both sides."""
    read = ns.read_if_possible
    maps = {"uid_map": b"0 100000 65536\n", "gid_map": b"0 7 1\n1 200000 9\n"}
    monkeypatch.setattr(ns, "read_if_possible", lambda path: maps.get(path.rpartition("/")[2]) or read(path))
    report = Here(tmp_path).save().runtime.namespaces("web")
    assert report["uidMappings"] == [{"containerID": 0, "hostID": 0, "size": 65536}]
    assert [(entry["containerID"], entry["hostID"]) for entry in report["gidMappings"]] == [(0, 0), (1, 1)]


def test_a_process_that_ends_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read may be of another process that has its PID."""
    here = Here(tmp_path).save()
    monkeypatch.setattr(status, "alive", lambda pid, start_time, boot: False)
    monkeypatch.setattr(status, "derive", lambda state, directory: ("running", os.getpid()))
    with pytest.raises(StepError, match="ended meanwhile"):
        here.runtime.namespaces("web")


def test_no_process_no_namespaces(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="has no process") as caught:
        Here(tmp_path).save(start_time=1).runtime.namespaces("web")
    assert caught.value.actual == "stopped"
    with pytest.raises(NotFoundError):
        Runtime(str(tmp_path / "state")).namespaces("other")


def test_table(tmp_path: Path) -> None:
    report = Here(tmp_path).save().runtime.namespaces("web")
    head, *lines = table(report).splitlines()
    assert head.split() == ["NAMESPACE", "CONTAINER", "CALLER"]
    blank = lines.index("")
    assert all(line.split()[3] == "same" or "," in line for line in lines[:blank])
    assert lines[blank + 1 :] == report["words"]


def test_formats() -> None:
    from ociruntime.cli.commands import ns as command
    from ociruntime.errors import UsageError

    options: Any = SimpleNamespace(text=lambda name: "xml")
    with pytest.raises(UsageError, match="table"):
        command.run(options, ["web"], SimpleNamespace())  # type: ignore[arg-type]
