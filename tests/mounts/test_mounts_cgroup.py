"""Mounts of type cgroup on v1, hybrid and v2."""

import pytest

from ociruntime.errors import UnsupportedError
from ociruntime.host import Host
from ociruntime.plan import HOST_TREE, KEEP, MS_PRIVATE, MS_REC, OPTIONAL, FdSource, Op, attr, op
from tests.mounts.conftest import Lower, hybrid_host, v2_host

ATTRS = 0xF  # ro nosuid nodev noexec
MOUNT = {
    "destination": "/sys/fs/cgroup",
    "type": "cgroup",
    "source": "cgroup",
    "options": ["nosuid", "noexec", "nodev", "ro"],
}
PATHS = {
    "cpu": "/sys/fs/cgroup/cpu,cpuacct/c",
    "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/c",
    "memory": "/sys/fs/cgroup/memory/c",
    "name=systemd": "/sys/fs/cgroup/systemd/c",
    "": "/sys/fs/cgroup/unified/c",
}
TMPFS = op(
    "mount",
    "/mounts/0",
    strings=("tmpfs", "/sys/fs/cgroup", "tmpfs", b"mode\x00755\x00size\x0064k\x00"),
    args=(0xE, 0, 0, 2),
    flags=KEEP,  # made read-only last, by fd: its path could be swapped meanwhile
)
LINKS = [
    op("symlink", "/mounts/0", strings=("/sys/fs/cgroup/cpu", "cpu,cpuacct"), flags=OPTIONAL),
    op("symlink", "/mounts/0", strings=("/sys/fs/cgroup/cpuacct", "cpu,cpuacct"), flags=OPTIONAL),
]
LAST = op("attr", "/mounts/0", strings=("/sys/fs/cgroup",), args=(1,))


def mount(name: str, kind: str, data: bytes, n: int) -> Op:
    place = f"/sys/fs/cgroup/{name}".rstrip("/")
    return op("mount", "/mounts/0", strings=(kind, place, "cgroup", data), args=(ATTRS, 0, 0, n))


def bind(name: str, source: str) -> Op:
    place = f"/sys/fs/cgroup/{name}"
    args = (ATTRS, 0, 0, 0)
    return op("bind", "/mounts/0", strings=("", place), args=args, flags=HOST_TREE, fd=FdSource("tree", source))


def own(ops: list[Op]) -> list[Op]:
    return [entry for entry in ops if entry.pointer == "/mounts/0"]


def test_hybrid_without_a_cgroup_namespace_binds_the_containers_directories(lowered: Lower) -> None:
    result = lowered({"mounts": [MOUNT]}, host=hybrid_host(), cgroup_paths=PATHS)
    assert own(result.setup) == [
        TMPFS,
        bind("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/c"),
        bind("memory", "/sys/fs/cgroup/memory/c"),
        bind("systemd", "/sys/fs/cgroup/systemd/c"),
        bind("unified", "/sys/fs/cgroup/unified/c"),
        *LINKS,
    ]
    assert result.final == [LAST]


def test_hybrid_with_a_cgroup_namespace_mounts_the_hierarchies(lowered: Lower) -> None:
    result = lowered({"mounts": [MOUNT]}, host=hybrid_host(), cgroup_paths=PATHS, kinds=("mount", "cgroup"))
    assert own(result.setup) == [
        TMPFS,
        mount("cpu,cpuacct", "cgroup", b"cpu\0\0cpuacct\0\0", 2),
        mount("memory", "cgroup", b"memory\0\0", 1),
        mount("systemd", "cgroup", b"none\0\0name\0systemd\0", 2),
        mount("unified", "cgroup2", b"", 0),
        *LINKS,
    ]


def test_v1_has_no_unified_directory_and_single_controllers_no_links(lowered: Lower) -> None:
    host = Host(cgroup_mode="v1", cgroup_mounts={"memory": "/sys/fs/cgroup/memory"})
    result = lowered({"mounts": [MOUNT]}, host=host, cgroup_paths=PATHS)
    assert own(result.setup) == [TMPFS, bind("memory", "/sys/fs/cgroup/memory/c")]


def test_a_hierarchy_without_a_directory_of_the_containers_shows_the_runtimes(lowered: Lower) -> None:
    host = hybrid_host(own_cgroups={"memory": "/own", "cpu": "/"})
    sources = [entry.fd for entry in own(lowered({"mounts": [MOUNT]}, host=host).setup) if entry.fd]
    assert sources == [FdSource("tree", "/sys/fs/cgroup/cpu,cpuacct"), FdSource("tree", "/sys/fs/cgroup/memory/own")]


def test_writable_means_nothing_is_left_for_the_end(lowered: Lower) -> None:
    writable = {**MOUNT, "options": ["rw", "nosuid", "rprivate"]}
    result = lowered({"mounts": [writable]}, host=hybrid_host(), cgroup_paths=PATHS)
    assert result.final == []
    first, second = own(result.setup)[:2]
    assert first.args == (2, 0, MS_PRIVATE | MS_REC, 2)
    assert second.args == (attr(2, 1), 0, MS_PRIVATE | MS_REC, 0)


@pytest.mark.parametrize("kinds", [("mount",), ("mount", "cgroup"), ("mount", "user", "cgroup")])
def test_v2_is_one_file_system(lowered: Lower, kinds: tuple[str, ...]) -> None:
    options = [*MOUNT["options"], "nsdelegate"]
    result = lowered({"mounts": [{**MOUNT, "options": options}]}, kinds=kinds)
    assert own(result.setup) == [mount("", "cgroup2", b"nsdelegate\0\0", 1)]
    assert result.final == []


@pytest.mark.parametrize(("kinds", "host"), [(("mount", "user"), v2_host()), (("mount",), v2_host(in_userns=True))])
def test_v2_in_a_user_namespace_that_does_not_own_the_cgroup_namespace(
    lowered: Lower, kinds: tuple[str, ...], host: Host
) -> None:
    assert own(lowered({"mounts": [MOUNT]}, kinds=kinds, host=host).setup) == [
        op(
            "bind",
            "/mounts/0",
            strings=("", "/sys/fs/cgroup"),
            args=(ATTRS, ATTRS, 0, 0),
            flags=HOST_TREE,
            fd=FdSource("tree", "/sys/fs/cgroup", True),
        )
    ]


def test_a_host_without_cgroups(lowered: Lower) -> None:
    with pytest.raises(UnsupportedError) as caught:
        lowered({"mounts": [MOUNT]}, host=Host())
    assert caught.value.pointer == "/mounts/0"
