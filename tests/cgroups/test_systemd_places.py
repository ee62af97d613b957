"""Where in its unit a container is: sub-cgroups, a slice of its own."""

import json
from pathlib import Path

import pytest

from ociruntime.cgroups import manager
from ociruntime.cgroups.delegation import DELEGATE, SUBGROUP
from ociruntime.errors import ConfigError, OCIError, UnsupportedError
from tests.cgroups.fake_systemd import World, v1_host


@pytest.mark.parametrize(
    ("annotations", "own", "home"),
    [
        ({SUBGROUP: "mine"}, "mine", "mine"),
        ({SUBGROUP: "a/b"}, "a/b", "a/b"),
        ({SUBGROUP: ""}, "", ""),
        ({DELEGATE: "payload"}, "container", "container/payload"),
        ({SUBGROUP: "mine", DELEGATE: "payload"}, "mine", "mine/payload"),
        ({SUBGROUP: "", DELEGATE: "payload"}, "", "payload"),
        ({DELEGATE: ""}, "container", "container"),
    ],
)
def test_sub_cgroups(world: World, annotations: "dict[str, str]", own: str, home: str) -> None:
    """The container's own cgroup has its limits, and one below it, if that is wanted, its processes [N6]."""
    cgroup = world.choose({"pids": {"limit": 7}}, annotations=annotations)
    assert cgroup.paths == {"": str(world.scope / own)}
    assert cgroup.home() == str(world.scope / home)
    cgroup.check_free()
    cgroup.create()
    assert (world.scope / home).is_dir()
    again = manager.from_state(json.loads(json.dumps(cgroup.saved())))
    assert (again.paths, again.home()) == (cgroup.paths, cgroup.home())


@pytest.mark.parametrize(
    ("annotations", "cgroups_path", "refusal"),
    [
        ({SUBGROUP: ".."}, "", ConfigError),
        ({SUBGROUP: "a/../b"}, "", ConfigError),
        ({SUBGROUP: "a"}, "::a-b.slice", UnsupportedError),
        ({DELEGATE: "../a"}, "", ConfigError),
    ],
)
def test_bad_sub_cgroups(
    world: World, annotations: "dict[str, str]", cgroups_path: str, refusal: "type[OCIError]"
) -> None:
    with pytest.raises(refusal) as caught:
        world.choose(annotations=annotations, cgroupsPath=cgroups_path)
    assert caught.value.pointer == f"/annotations/{next(iter(annotations))}"
    assert world.bus.methods() == []


@pytest.mark.parametrize(
    ("key", "name", "fine"), [(SUBGROUP, "a", False), (SUBGROUP, "", True), (DELEGATE, "a", False)]
)
def test_sub_cgroups_on_v1(world: World, tmp_path: Path, key: str, name: str, fine: bool) -> None:
    """v2 only [N6]."""
    world.host = v1_host(tmp_path)
    if fine:
        world.choose(annotations={key: name})
        return
    with pytest.raises(UnsupportedError, match="cgroup v2") as caught:
        world.choose(annotations={key: name})
    assert caught.value.pointer == f"/annotations/{key}"


def test_a_slice_of_its_own(world: World) -> None:
    """No process to begin with, and no level below [D11]."""
    cgroup = world.choose(cgroupsPath="::a-b.slice")
    assert cgroup.paths == {"": str(world.top / "a.slice" / "a-b.slice")}
    cgroup.check_free()
    assert cgroup.saved()["made"] == []
