"""cgroups/paths.py and manager.choose: cgroupsPath -> directories."""

import pytest

from ociruntime.cgroups import manager
from ociruntime.cgroups.paths import cgroup_path, clean, directories
from ociruntime.errors import ConfigError, UnsupportedError, UsageError
from ociruntime.host import Host

V1 = Host(
    cgroup_mode="hybrid",
    cgroup_mounts={"cpu": "/c/cpu,cpuacct", "cpuacct": "/c/cpu,cpuacct", "memory": "/c/memory", "name=systemd": "/c/s"},
    unified="/c/unified",
    own_cgroups={"cpu": "/", "cpuacct": "/", "memory": "/user/me", "name=systemd": "/s.slice", "": "/u"},
)


def v2(own: str) -> Host:
    return Host(cgroup_mode="v2", unified="/c", own_cgroups={"": own})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b", "/a/b"),
        ("a/b", "a/b"),
        ("//a///b/", "/a/b"),
        ("/a/./b/../c", "/a/c"),
        ("/../../a", "/a"),
        ("../../a", "a"),
        ("a/..", ""),
        ("/..", "/"),
    ],
)
def test_clean(path: str, expected: str) -> None:
    assert clean(path) == expected


def test_absolute_counts_from_every_mount_point() -> None:
    assert directories(V1, "/x/../y/web", "id") == {
        "cpu": "/c/cpu,cpuacct/y/web",
        "cpuacct": "/c/cpu,cpuacct/y/web",
        "memory": "/c/memory/y/web",
        "name=systemd": "/c/s/y/web",
        "": "/c/unified/y/web",
    }
    assert directories(v2("/user/me"), "/y/web", "id") == {"": "/c/y/web"}


def test_relative_counts_from_the_own_cgroup_on_v1() -> None:
    found = directories(V1, "y/web", "id")
    assert found["memory"] == "/c/memory/user/me/y/web"
    assert found["cpu"] == "/c/cpu,cpuacct/y/web"
    assert found[""] == "/c/unified/u/y/web"


@pytest.mark.parametrize(
    ("own", "expected"), [("/a/b", "/c/a/web"), ("/a", "/c/web"), ("/", "/c/web"), ("/a/b/c", "/c/a/b/web")]
)
def test_relative_counts_from_the_parent_of_the_own_cgroup_on_v2(own: str, expected: str) -> None:
    assert directories(v2(own), "web", "id") == {"": expected}


def test_default_is_the_container_id_as_a_relative_path() -> None:
    assert directories(V1, "", "id1") == directories(V1, "id1", "other")
    assert directories(v2("/a/b"), "", "id1") == {"": "/c/a/id1"}


def test_dots_do_not_leave_the_own_cgroup() -> None:
    assert directories(V1, "../../x", "id")["memory"] == "/c/memory/user/me/x"


@pytest.mark.parametrize(
    "path", ["/", "/..", ".", "..", "a/..", "system.slice:docker:abc", ":x:y", "/a\nb", "/" + "n" * 256]
)
def test_bad_forms(path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cgroup_path(path, "id")
    assert caught.value.pointer == "/linux/cgroupsPath"


def test_colons_are_fine_in_a_real_path() -> None:
    assert cgroup_path("/kube/a:b:c", "id") == "/kube/a:b:c"


@pytest.mark.parametrize("container_id", ["", ".", "..", "a/b", "../x"])
def test_an_id_is_never_joined_unchecked(container_id: str) -> None:
    with pytest.raises(UsageError):
        directories(V1, "", container_id)


def test_disabled_makes_none_and_refuses_limits() -> None:
    config = {"linux": {"cgroupsPath": "/x", "resources": {"devices": []}}}
    cgroup = manager.choose(V1, config, "id", driver="disabled")
    assert (cgroup.mode, cgroup.paths, cgroup.join_sources()) == ("none", {}, [])
    with pytest.raises(UnsupportedError) as caught:
        manager.choose(V1, {"linux": {"resources": {"pids": {"limit": 5}}}}, "id", driver="disabled")
    assert caught.value.pointer == "/linux/resources/pids/limit"


def test_without_any_cgroup_file_system() -> None:
    with pytest.raises(UnsupportedError, match="cgroup file system"):
        manager.choose(Host(cgroup_mode="none"), {}, "id")
    rootless = Host(cgroup_mode="none", rootless=True)
    cgroup = manager.choose(rootless, {"linux": {"resources": {"devices": [], "memory": {}}}}, "id")
    cgroup.check_free()
    cgroup.create()
    cgroup.apply({})
    assert (cgroup.pids(), cgroup.frozen(), cgroup.exists(), cgroup.join_sources()) == ([], False, False, [])
    assert cgroup.clone_directory() == cgroup.freezer_file() == ""
    cgroup.kill()
    cgroup.remove()
    again = manager.from_state(cgroup.saved())
    assert again.mode == "none"
    with pytest.raises(UnsupportedError):
        manager.choose(rootless, {"linux": {"resources": {"pids": {"limit": 5}}}}, "id")
    with pytest.raises(UnsupportedError):
        manager.choose(rootless, {"linux": {"cgroupsPath": "/x"}}, "id")
