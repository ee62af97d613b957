"""sysctl.lower: (sysctl -> ops) and (sysctl -> error pointer)."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from ociruntime import namespaces, sysctl
from ociruntime.errors import ConfigError
from ociruntime.host import Host
from ociruntime.plan import Op, op
from ociruntime.sysctl import IPC, normalise, same_namespace

MAPPING = [{"containerID": 0, "hostID": 1, "size": 1}]


def run(values: dict[str, str], kinds: tuple[str, ...], runtimes: bool = False, **config: Any) -> list[Op]:
    entries = [
        {"type": kind, **({"path": path} if path else {})} for kind, _, path in (k.partition("=") for k in kinds)
    ]
    linux = {"namespaces": entries, "sysctl": values, "uidMappings": MAPPING, "gidMappings": MAPPING}
    document = {**config, "linux": linux}
    return sysctl.lower(document, namespaces.lower(document, Host()), lambda path, name: runtimes)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("kernel", "kernel"),
        ("", None),
        (".net", None),
        ("/net/ipv4", None),
        ("net..ipv4", None),
        ("net/ipv4/", None),
        ("net/../kernel/core_pattern", None),
        ("net/./core", None),
        ("net.//.kernel", None),
    ],
)
def test_names(key: str, path: str | None) -> None:
    assert normalise(key) == path


@given(st.text(alphabet="ab./", max_size=12))
def test_no_name_leaves_proc_sys(key: str) -> None:
    path = normalise(key)
    if path is not None:
        assert not set(path.split("/")) & {"", ".", ".."}
        assert path.translate(str.maketrans("./", "  ")) == key.translate(str.maketrans("./", "  "))


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        *((path.replace("/", "."), "ipc") for path in IPC),
        ("fs.mqueue.msg_max", "ipc"),
        ("fs/mqueue/queues_max", "ipc"),
        ("net.core.somaxconn", "network"),
        ("kernel.domainname", "uts"),
        ("user.max_pid_namespaces", "user"),
    ],
)
def test_each_belongs_to_a_namespace(key: str, kind: str) -> None:
    at = "/linux/sysctl/" + key.replace("/", "~1")
    path = key if "/" in key else key.replace(".", "/")
    assert run({key: "1"}, (kind,)) == [op("sysctl", at, strings=(path, "1"))]
    assert run({key: "1"}, (f"{kind}=/ns",)) == [op("sysctl", at, strings=(path, "1"))]
    others = tuple({"ipc", "network", "uts", "user", "pid", "mount"} - {kind})
    for kinds, runtimes in ((others, False), ((f"{kind}=/ns",), True)):
        with pytest.raises(ConfigError) as caught:
            run({key: "1"}, kinds, runtimes)
        assert caught.value.pointer == at
        assert kind in caught.value.reason


@pytest.mark.parametrize(
    "key",
    [
        "kernel.core_pattern",
        "kernel.hostname",
        "kernel.msgmaxx",
        "kernel.sem.x",
        "kernel/shm_next_id",
        "vm.overcommit_memory",
        "fs.mqueue",
        "fs.file-max",
        "net",
        "net/../kernel/core_pattern",
        "network.x",
        "user",
    ],
)
def test_nothing_else(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run({key: "1"}, ("ipc", "network", "uts", "user", "pid", "mount", "cgroup", "time"))
    assert caught.value.pointer == "/linux/sysctl/" + key.replace("/", "~1")


def test_tilde_in_a_pointer() -> None:
    with pytest.raises(ConfigError) as caught:
        run({"a~/b": "1"}, ())
    assert caught.value.pointer == "/linux/sysctl/a~0~1b"


def test_two_spellings() -> None:
    assert len(run({"net.core.x": "1", "net/core/x": "1"}, ("network",))) == 1
    with pytest.raises(ConfigError) as caught:
        run({"net.core.x": "1", "net/core/x": "2"}, ("network",))
    assert caught.value.pointer == "/linux/sysctl/net~1core~1x"


def test_domainname_twice() -> None:
    assert run({"kernel.domainname": "a"}, ("uts",), domainname="a") == []
    with pytest.raises(ConfigError) as caught:
        run({"kernel.domainname": "a"}, ("uts",), domainname="b")
    assert caught.value.pointer == "/linux/sysctl/kernel.domainname"


def test_order_is_the_configs() -> None:
    values = {"net.b": "2", "fs.mqueue.a": "1", "net.a": "0"}
    assert [each.strings[0] for each in run(values, ("ipc", "network"))] == ["net/b", "fs/mqueue/a", "net/a"]
    assert sysctl.lower({}, namespaces.lower({}, Host())) == []


def test_the_runtimes_own_namespace() -> None:
    assert same_namespace("/proc/self/ns/net", "net")
    assert not same_namespace("/proc/self/ns/uts", "net")
    assert not same_namespace("/nowhere", "net")
