"""annotations that change what the runtime does: groups that are kept, files for the output of hooks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.lib.container import Container
from integration.lib.leaks import Leaks

KEEP = "run.oci.keep_original_groups"
STDOUT, STDERR = "run.oci.hooks.stdout", "run.oci.hooks.stderr"
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
GROUPS = [1234, 5678]


def with_groups() -> None:
    """The caller of the runtime has these groups."""
    os.setgroups(GROUPS)


# -- run.oci.keep_original_groups [N3] --


@pytest.mark.parametrize(("value", "groups"), [("1", GROUPS), ("0", []), (None, [])])
def test_keep_original_groups(container: Container, value: str | None, groups: list[int]) -> None:
    """The caller's supplementary groups are the process's [N3]."""
    if value is not None:
        container.bundle.merge({"annotations": {KEEP: value}})
    container.bundle.process(user={"uid": 1000, "gid": 1000})
    assert sorted(container.report(preexec_fn=with_groups)["groups"]) == groups


@pytest.mark.ours_only("crun wants 1")
def test_keep_original_groups_by_another_word(container: Container) -> None:
    """The value true means the same [N3]."""
    container.bundle.merge({"annotations": {KEEP: "true"}})
    assert sorted(container.report(preexec_fn=with_groups)["groups"]) == GROUPS


def test_groups_of_the_config_do_not_count_then(container: Container) -> None:
    """additionalGids cannot be had beside them: setgroups is not called. A warning says so [N3]."""
    container.bundle.merge({"annotations": {KEEP: "1"}})
    container.bundle.process(user={"additionalGids": [7]})
    container.bundle.args("report", "pause")
    result = container.create(preexec_fn=with_groups)
    container.start()
    assert sorted(container.wait_replies(2)[0]["groups"]) == GROUPS
    if container.runtime.ours:
        assert "/process/user/additionalGids" in result.error


def groups_of(pid: int) -> list[int]:
    """Supplementary groups of a process, as the host sees them."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sorted(int(word) for word in next(line for line in lines if line.startswith("Groups:")).split()[1:])


@pytest.mark.requires("userns")
@pytest.mark.parametrize("keep", ["1", "0"])
def test_groups_in_user_namespaces(new_container: Callable[..., Container], container: Container, keep: str) -> None:
    """In a new user namespace, and in one that is joined [N3]."""
    container.bundle.user_namespace()
    container.bundle.merge({"annotations": {KEEP: keep}}).args("report", "pause")
    expected = GROUPS if keep == "1" else []
    container.create(preexec_fn=with_groups)
    assert groups_of(container.pid) == expected
    other = new_container()
    other.bundle.user_namespace()
    other.bundle.namespace("user", f"/proc/{container.pid}/ns/user")
    other.bundle.linux(uidMappings=None, gidMappings=None)
    other.bundle.merge({"annotations": {KEEP: keep}}).args("report", "pause")
    other.create(preexec_fn=with_groups)
    assert groups_of(other.pid) == expected


# -- run.oci.hooks.stdout, run.oci.hooks.stderr [N4] --


def talking(container: Container, *kinds: str) -> None:
    """Hooks that say their name on stdout and on stderr."""
    for kind in kinds:
        path = "/probe" if kind == "startContainer" else str(container.bundle.probe)
        args = ["probe", "echo", f"out {kind}", ";;", "echoerr", f"err {kind}"]
        container.bundle.config.setdefault("hooks", {})[kind] = [{"path": path, "args": args}]


def expected(container: Container, word: str) -> list[str]:
    """What all of them say, in order; elsewhere startContainer and poststart race (H3)."""
    lines = [f"{word} {kind}" for kind in KINDS]
    return lines if container.runtime.ours else sorted(lines)


def said(container: Container, file: Path) -> list[str]:
    """The lines of this file."""
    lines = file.read_text().splitlines()
    return lines if container.runtime.ours else sorted(lines)


def whole_life(container: Container) -> None:
    """create, start, end, delete."""
    container.bundle.args("pause")
    container.create()
    container.start()
    container.finish()
    container.delete()


@pytest.mark.parametrize("user_namespace", [False, pytest.param(True, marks=pytest.mark.requires("userns"))])
def test_output_of_hooks(container: Container, tmp_path: Path, user_namespace: bool) -> None:
    """Each stream of each hook is appended to its file, which is made with mode 0700 [N4]."""
    if user_namespace:
        container.bundle.user_namespace()
    out, err = tmp_path / "out", tmp_path / "err"
    out.write_text("before\n")
    talking(container, *KINDS)
    container.bundle.merge({"annotations": {STDOUT: str(out), STDERR: str(err)}})
    whole_life(container)
    assert said(container, out) == ["before", *expected(container, "out")]
    assert said(container, err) == expected(container, "err")
    assert err.stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("key", [STDOUT, STDERR])
def test_output_of_one_stream(container: Container, tmp_path: Path, key: str) -> None:
    """One of the two alone; the program's own streams have nothing to do with it [N4]."""
    log = tmp_path / "log"
    talking(container, *KINDS)
    container.bundle.merge({"annotations": {key: str(log)}}).args(["echo", "the program"], "report")
    result = container.run().ok()
    word = key.rpartition(".")[2].removeprefix("std")
    assert said(container, log) == expected(container, word)
    assert "the program" in result.out.decode()
    assert not [path for path in result.replies[-1]["fds"].values() if path.endswith("log")]


@pytest.mark.ours_only("crun: relative to wherever the command is called")
def test_relative_file_for_output(container: Container) -> None:
    """A relative path counts from the bundle, in every command [N4]."""
    talking(container, *KINDS)
    container.bundle.merge({"annotations": {STDOUT: "hooks.log"}})
    whole_life(container)
    assert (container.bundle.path / "hooks.log").read_text().splitlines() == [f"out {kind}" for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS[:4])
def test_file_for_output_that_cannot_be_opened(container: Container, leaks: Leaks, kind: str) -> None:
    """create fails, whatever kind of hook there is to use it [N4]."""
    talking(container, kind)
    container.bundle.merge({"annotations": {STDERR: "/no/such/directory/log"}})
    result = container.create(check=False)
    assert result.code != 0
    assert STDERR in result.error or not container.runtime.ours
    assert "no such file or directory" in result.error.lower()
    leaks.check()


def test_annotations_without_hooks(container: Container, tmp_path: Path) -> None:
    """Without hooks nothing is made [N4]."""
    container.bundle.merge({"annotations": {STDOUT: str(tmp_path / "log")}})
    container.report()
    if container.runtime.ours:
        assert list(tmp_path.iterdir()) == []


@pytest.mark.ours_only("which annotations are honoured")
def test_features_list_them(container: Container) -> None:
    """potentiallyUnsafeConfigAnnotations names what an untrusted config must not bring [N9, E9]."""
    document: dict[str, Any] = container.runtime("features").ok().json
    assert {KEEP, STDOUT, STDERR} <= set(document["potentiallyUnsafeConfigAnnotations"])
