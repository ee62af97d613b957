"""Sub-cgroups that annotations ask for: what is delegated to the container, and its name below a scope of systemd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from integration.conftest import Give, requires
from integration.lib import probe as probes
from integration.lib.container import Container, v2_directory
from integration.lib.leaks import Leaks
from integration.lib.systemd import TOP, directory, gone, show, systemctl, unit_of
from integration.test_cgroup_places import LISTED, owners, writable

DELEGATE = "run.oci.delegate-cgroup"
SUBGROUP = "run.oci.systemd.subgroup"
MIB = 1 << 20

ours_only = pytest.mark.ours_only("N6: of the others only crun has it, and refuses less")


def seen(reply: probes.Reply) -> str:
    """The cgroup v2 that the probe finds itself in."""
    return str(reply["cgroup"].rpartition("0::")[2].strip())


def inside(directory: Path) -> list[int]:
    """Processes of one cgroup, those below not counted."""
    return [int(word) for word in (directory / "cgroup.procs").read_text().split()]


@ours_only
@pytest.mark.parametrize(("user", "mapped"), [(0, False), (1000, False), (0, True)])
@pytest.mark.parametrize("name", ["payload", "/a/./b/"])
def test_delegated_cgroup(pure: Container, leaks: Leaks, user: int, mapped: bool, name: str) -> None:
    """The processes are in the delegated cgroup, which is theirs; the one above, with the limits, is the root of their
    cgroup namespace, and is not [N6].
    """
    writable(pure)
    pure.bundle.process(user={"uid": user, "gid": user})
    if mapped:
        requires("userns")
        pure.bundle.user_namespace(100000)
    pure.bundle.merge({"annotations": {DELEGATE: name}})
    path = name.strip("/").replace("/.", "")
    pure.bundle.args(
        "report",
        f"mkdir /sys/fs/cgroup/{path}/below",
        f"write /sys/fs/cgroup/{path}/below/cgroup.procs 0",
        "write /sys/fs/cgroup/cgroup.freeze 0",
        f"write /sys/fs/cgroup/{path}/cgroup.freeze 0",
        "pause",
    )
    pure.create()
    own = v2_directory(pure)
    delegated = own / path
    assert inside(delegated) == [pure.pid]
    assert inside(own) == []
    expected = user + 100000 if mapped else user
    found = owners(delegated)
    listed = {"", *LISTED.read_text().split()}
    assert {uid for name, uid in found.items() if name in listed} == {expected}
    assert {uid for name, uid in found.items() if name not in listed} <= {0}
    assert set(owners(own).values()) == {0}
    enabled = (own / "cgroup.subtree_control").read_text()
    assert enabled == (own / "cgroup.controllers").read_text()
    pure.start()
    report, made, moved, above, of_its_own = pure.wait_replies(6)[:5]
    assert seen(report) == f"/{path}"
    assert (made["errno"], moved["errno"]) == (0, 0)
    # nsdelegate, where it is in force, keeps root out, too
    assert above["errno"] != 0 if expected else above["errno"] in (0, 1)
    assert (of_its_own["errno"] == 0) == (expected == 0)
    assert inside(delegated / "below") == [pure.pid]
    pure.delete("--force")
    pure.wait()
    leaks.check()


@ours_only
def test_life_of_a_delegated_cgroup(pure: Container, leaks: Leaks, give: Give) -> None:
    """exec joins the delegated cgroup; pause, ps, stats, kill know all that is below the container's own [N6]."""
    writable(pure)
    pure.bundle.merge({"annotations": {DELEGATE: "payload"}})
    pure.begin("fork 3", "pause")
    own = v2_directory(pure)
    reply = pure.execute("report").ok().replies[0]
    assert seen(reply) == "/payload"
    (own / "payload" / "sub").mkdir()
    give(own / "payload" / "sub")
    reply = pure.execute("report", flags=["--cgroup", "payload/sub"]).ok().replies[0]
    assert seen(reply) == "/payload/sub"
    assert len(pure.command("ps", "--format", "json").ok().json) == 4
    assert pure.command("events", "--stats").ok().json["data"]["pids"]["current"] == 4
    pure.command("pause").ok()
    assert pure.state()["status"] == "paused"
    assert "frozen 1" in (own / "payload/cgroup.events").read_text()
    pure.command("resume").ok()
    assert pure.finish() == 137
    pure.delete()
    leaks.check()


@ours_only
def test_without_a_cgroup_namespace(pure: Container) -> None:
    """The same place, seen by its full name [N6]."""
    pure.bundle.merge({"annotations": {DELEGATE: "payload"}})
    pure.bundle.args("report", "pause")
    pure.begin()
    path = pure.bundle.config["linux"]["cgroupsPath"]
    assert seen(pure.wait_replies(2)[0]) == f"{path}/payload"
    assert inside(v2_directory(pure) / "payload") == [pure.pid]


@ours_only
@pytest.mark.requires("v2:memory", "v2:pids")
def test_limits_stay_above(pure: Container) -> None:
    """create and update limit the container's own cgroup; below it no limit is set [N6]."""
    writable(pure)
    pure.bundle.merge({"annotations": {DELEGATE: "payload"}})
    pure.bundle.linux(resources={"memory": {"limit": 64 * MIB}, "pids": {"limit": 50}})
    pure.begin("pause")
    own = v2_directory(pure)
    assert (own / "memory.max").read_text() == f"{64 * MIB}\n"
    assert (own / "pids.max").read_text() == "50\n"
    assert (own / "payload/memory.max").read_text() == (own / "payload/pids.max").read_text() == "max\n"
    pure.runtime("update", "--memory", "96M", pure.id).ok()
    assert (own / "memory.max").read_text() == f"{96 * MIB}\n"
    assert (own / "payload/memory.max").read_text() == "max\n"


@ours_only
@pytest.mark.parametrize("name", ["..", "a/../../b", "../payload", "a\nb", "x" * 256])
def test_bad_names(pure: Container, leaks: Leaks, name: str) -> None:
    """What leads out of the container's cgroup, or is no name, is refused; nothing is left [N6]."""
    pure.bundle.merge({"annotations": {DELEGATE: name}})
    result = pure.create(check=False)
    assert result.code != 0
    assert f"/annotations/{DELEGATE}" in result.error
    leaks.check()


@ours_only
def test_failure_after_it_was_made(pure: Container, leaks: Leaks) -> None:
    """It goes with everything else [N6]."""
    pure.bundle.merge({"annotations": {DELEGATE: "a/b"}})
    pure.bundle.process(args=["/no/such/program"])
    result = pure.create(check=False)
    assert result.code != 0
    leaks.check()


@ours_only
@pytest.mark.requires("v1")
@pytest.mark.parametrize("name", ["payload", ""])
def test_cgroup_v1(container: Container, leaks: Leaks, name: str) -> None:
    """Where cgroups cannot be delegated safely it is an error to want it; an empty name asks for nothing [N6]."""
    container.bundle.merge({"annotations": {DELEGATE: name}})
    result = container.create(check=False)
    assert (result.code == 0) == (name == "")
    if name:
        assert f"/annotations/{DELEGATE}: a delegated cgroup needs cgroup v2" in result.error
        leaks.check()


@ours_only
def test_no_cgroup_at_all(container: Container, leaks: Leaks) -> None:
    """Nor is there anything to delegate without a cgroup [N6]."""
    container.bundle.merge({"annotations": {DELEGATE: "payload"}}).linux(cgroupsPath=None)
    result = container.create(check=False, options=["--cgroup-manager", "disabled"])
    assert result.code != 0
    assert DELEGATE in result.error
    leaks.check()


# -- below a scope of systemd --


@pytest.mark.requires("systemd")
@pytest.mark.parametrize(
    ("annotations", "own", "home"),
    [
        ({SUBGROUP: "mine"}, "/mine", ""),
        ({SUBGROUP: ""}, "", ""),
        ({DELEGATE: "payload"}, "/container", "/payload"),
        ({SUBGROUP: "", DELEGATE: "payload"}, "", "/payload"),
    ],
    ids=["named", "none", "delegated", "delegated-below-none"],
)
def test_below_a_scope(
    new_managed: Callable[..., Container], leaks: Leaks, annotations: dict[str, str], own: str, home: str
) -> None:
    """The container's own cgroup has the name that is asked for, the limits and the namespace's root; a delegated one
    is below it [N6].
    """
    container = new_managed()
    writable(container)
    container.bundle.merge({"annotations": annotations})
    container.bundle.linux(resources={"pids": {"limit": 50}, "cpu": {"quota": 20000, "period": 100000}})
    container.begin("report", "pause")
    assert seen(container.replies[0]) == (home or "/")
    group = show(unit_of(container), "ControlGroup")["ControlGroup"]
    assert directory(container) == Path(f"{TOP}{group}{own}{home}")
    limited = Path(f"{TOP}{group}{own}")
    for _ in range(2):
        assert (limited / "pids.max").read_text() == "50\n"
        assert (limited / "cpu.max").read_text() == "20000 100000\n"
        systemctl("daemon-reload")
    assert directory(container) == limited / home.strip("/")
    assert container.execute("report").ok().replies[0]["cgroup"].strip() == f"0::{home or '/'}"
    container.runtime("update", "--pids-limit", "60", container.id).ok()
    assert (limited / "pids.max").read_text() == "60\n"
    container.command("pause").ok()
    container.command("resume").ok()
    assert container.finish() == 137
    container.delete()
    assert gone(unit_of(container))
    leaks.check()


@ours_only
@pytest.mark.requires("systemd")
@pytest.mark.parametrize("name", ["..", "a/../b"])
def test_bad_subgroups(new_managed: Callable[..., Container], leaks: Leaks, name: str) -> None:
    """What leads out of the scope is refused; nothing is left [N6]."""
    container = new_managed()
    container.bundle.merge({"annotations": {SUBGROUP: name}})
    result = container.create(check=False)
    assert result.code != 0
    assert f"/annotations/{SUBGROUP}" in result.error
    assert gone(unit_of(container))
    leaks.check()
