"""network: (netDevices -> devices) and (fragment -> error pointer); which addresses are kept, and how."""

import sys
from typing import Any

import pytest

from ociruntime import namespaces, network
from ociruntime.errors import ConfigError, StepError, UnsupportedError
from ociruntime.host import Host

NETWORK = [{"type": "network"}]


def lower(entries: "dict[str, Any]", spaces: "list[dict[str, str]]" = NETWORK, **host: Any) -> "list[tuple[str, ...]]":
    config = {"linux": {"namespaces": spaces, "netDevices": entries}}
    facts = Host(**host)
    devices = network.lower(config, facts, namespaces.lower(config, facts))
    return [(device.name, device.target, device.final(), device.pointer) for device in devices]


def test_devices_in_order() -> None:
    assert lower({"eth1": {"name": "a"}, "veth0": {}, "x~y": {"name": "net%d"}}) == [
        ("eth1", "a", "a", "/linux/netDevices/eth1"),
        ("veth0", "", "veth0", "/linux/netDevices/veth0"),
        ("x~y", "net%d", "", "/linux/netDevices/x~0y"),
    ]


def test_none() -> None:
    assert lower({}, []) == []
    assert lower({}, [], rootless=True) == []
    assert network.lower({}, Host(), namespaces.Namespaces()) == []


def test_exchanged_names_and_templates_do_not_clash() -> None:
    assert len(lower({"a": {"name": "b"}, "b": {"name": "a"}})) == 2
    assert len(lower({"a": {"name": "n%d"}, "b": {"name": "n%d"}})) == 2


def test_joined_namespace() -> None:
    assert lower({"a": {}}, [{"type": "network", "path": "/proc/1/ns/net"}]) == [("a", "", "a", "/linux/netDevices/a")]


@pytest.mark.parametrize(
    ("entries", "pointer", "words"),
    [
        ({"a": {"name": "x"}, "b": {"name": "x"}}, "/linux/netDevices/b/name", "'x' is also the name of 'a'"),
        ({"a": {"name": "b"}, "b": {}}, "/linux/netDevices/b", "'b' is also the name of 'a'"),
        ({"b": {}, "a": {"name": "b"}}, "/linux/netDevices/a/name", "'b' is also the name of 'b'"),
        ({"a": {"name": "."}}, "/linux/netDevices/a/name", "no name"),
        ({"..": {}}, "/linux/netDevices/..", "no name"),
        ({"": {}}, "/linux/netDevices/", "no name"),
        ({"a" * 16: {}}, "/linux/netDevices/" + "a" * 16, "15 bytes"),
        ({"a": {"name": "ä" * 8}}, "/linux/netDevices/a/name", "15 bytes"),
        ({"a/b": {}}, "/linux/netDevices/a~1b", "white space"),
        ({"a": {"name": "a:1"}}, "/linux/netDevices/a/name", "white space"),
        ({"a": {"name": "a\n"}}, "/linux/netDevices/a/name", "white space"),
        ({"a": {"name": "à"}}, "/linux/netDevices/a/name", "white space"),  # 0xc3 0xa0
        ({"a": {"name": "n%"}}, "/linux/netDevices/a/name", "%d"),
        ({"a": {"name": "n%s"}}, "/linux/netDevices/a/name", "%d"),
        ({"a": {"name": "%d%d"}}, "/linux/netDevices/a/name", "%d"),
        ({"a": {"name": "%%d"}}, "/linux/netDevices/a/name", "%d"),
    ],
)
def test_refused(entries: "dict[str, Any]", pointer: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lower(entries)
    assert caught.value.pointer == pointer
    assert words in caught.value.reason


def test_needs_a_network_namespace() -> None:
    with pytest.raises(ConfigError) as caught:
        lower({"a": {}}, [{"type": "pid"}])
    assert caught.value.pointer == "/linux/netDevices"


def test_not_rootless() -> None:
    with pytest.raises(UnsupportedError) as caught:
        lower({"a": {}}, rootless=True)
    assert caught.value.pointer == "/linux/netDevices"


class Message(dict[str, Any]):
    """What pyroute2 makes of a message of the kernel."""

    def get_attr(self, name: str) -> Any:
        return self.get(name)


def address(**change: Any) -> Message:
    message: dict[str, Any] = {
        "family": 2,
        "prefixlen": 24,
        "scope": 0,
        "flags": 0x80,
        "IFA_ADDRESS": "192.0.2.1",
        "IFA_LOCAL": "192.0.2.1",
        "IFA_FLAGS": 0x80,
    }
    return Message({**message, **change})


KEPT = {"family": 2, "prefixlen": 24, "scope": 0, "address": "192.0.2.1", "local": "192.0.2.1"}


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, KEPT),
        ({"IFA_FLAGS": 0, "flags": 0}, None),
        ({"IFA_FLAGS": None}, KEPT),
        ({"scope": 253}, None),
        ({"scope": 254}, None),
        ({"IFA_BROADCAST": "192.0.2.255"}, {**KEPT, "broadcast": "192.0.2.255"}),
        ({"IFA_ADDRESS": "192.0.2.9"}, {**KEPT, "address": "192.0.2.9"}),
        ({"IFA_LABEL": "eth0:1"}, {**KEPT, "label": "eth0:1"}),
        ({"IFA_RT_PRIORITY": 7}, {**KEPT, "rt_priority": 7}),
        # tentative, secondary and failed are the kernel's findings; nodad and noprefixroute are choices
        ({"IFA_FLAGS": 0x80 | 0x40 | 0x08 | 0x01}, KEPT),
        ({"IFA_FLAGS": 0x80 | 0x200 | 0x02}, {**KEPT, "flags": 0x202}),
    ],
)
def test_kept_addresses(change: "dict[str, Any]", kept: "dict[str, Any] | None") -> None:
    assert network.kept_address(address(**change)) == kept


@pytest.mark.parametrize(
    ("label", "new"),
    [("eth0", ""), ("eth0:1", "net1:1"), ("eth0:averylongone", ""), ("other", "other"), ("eth01", "eth01")],
)
def test_labels_follow_the_name(label: str, new: str) -> None:
    assert network.new_label(label, "eth0", "net1") == new


class Tables:
    """The links of one namespace, as far as move() asks."""

    def __init__(self, *links: "tuple[int, str, str]") -> None:
        self.links = [
            Message({"index": index, "IFLA_IFNAME": name, "IFLA_ADDRESS": hardware}) for index, name, hardware in links
        ]

    def get_links(self) -> "list[Message]":
        return self.links


@pytest.mark.parametrize(
    ("target", "links", "expected"),
    [
        # the index is kept; it is taken; others appear meanwhile
        ("net%d", [(7, "net0", "aa")], (7, "net0")),
        ("net%d", [(3, "x", "bb"), (9, "net4", "aa")], (9, "net4")),
        ("net%d", [(7, "x", "bb"), (9, "net4", "aa")], (9, "net4")),
        ("eth0", [(7, "x", "aa"), (9, "eth0", "aa")], (9, "eth0")),
        ("", [(9, "dev0", None)], (9, "dev0")),
    ],
)
def test_arrived(target: str, links: "list[tuple[int, str, str]]", expected: "tuple[int, str]") -> None:
    device = network.NetDevice("dev0", target, "/linux/netDevices/dev0")
    found = network._Found(device, 7, "aa", [])
    assert network._arrived(Tables((1, "lo", "00"), *links), {1}, found) == expected


def test_arrived_nowhere() -> None:
    device = network.NetDevice("dev0", "", "/linux/netDevices/dev0")
    with pytest.raises(StepError) as caught:
        network._arrived(Tables((1, "lo", "00"), (7, "dev0", "aa")), {1, 7}, network._Found(device, 7, "aa", []))
    assert (caught.value.pointer, caught.value.path) == ("/linux/netDevices/dev0", "dev0")


def test_alternative_names_are_taken() -> None:
    links = [
        Message({"IFLA_IFNAME": "a", "IFLA_PROP_LIST": {"attrs": [("IFLA_ALT_IFNAME", n) for n in "bc"]}}),
        Message({"IFLA_IFNAME": "d"}),
    ]
    assert network._names(links) == {"a", "b", "c", "d"}


def test_without_pyroute2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyroute2", None)
    with pytest.raises(UnsupportedError) as caught:
        network._move([], -1)
    assert "pyroute2" in caught.value.needs


def test_a_namespace_that_is_none() -> None:
    """Anything the sockets or setns(2) refuse becomes an error of ours; the thread that made it is gone."""
    with open("/dev/null") as file, pytest.raises(StepError) as caught:
        network._in_thread(lambda: network._move([], file.fileno()))
    assert caught.value.pointer == "/linux/netDevices"
    assert caught.value.errno != 0


def test_failures_of_the_thread_are_raised() -> None:
    done = []
    network._in_thread(lambda: done.append(1))
    assert done == [1]
    with pytest.raises(ConfigError):
        network._in_thread(lambda: network.check_name("", "/x"))


def test_the_errno_of_a_refused_request() -> None:
    from pyroute2 import NetlinkError

    device = network.NetDevice("dev0", "", "/linux/netDevices/dev0")

    def refuse(error: Exception, **_: Any) -> None:
        raise error

    for error, number, arguments, hint in (
        (OSError(1, "x"), 1, {}, ""),
        (NetlinkError(22), 22, {"index": 1}, ""),
        (NetlinkError(22), 22, {"net_ns_fd": 1}, "cannot leave"),
    ):
        with pytest.raises(StepError) as caught:
            network._ask(device, "cannot", lambda e=error, **_: refuse(e), **arguments)
        assert (caught.value.errno, caught.value.pointer, caught.value.path) == (number, device.pointer, "dev0")
        assert hint in caught.value.hint
    assert network._ask(device, "", lambda: None) == []
