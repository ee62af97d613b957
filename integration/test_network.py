"""linux.netDevices: devices of the host that move into the container. "Host" is a network namespace of the test."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from integration.lib.bundle import Bundle
from integration.lib.container import Container
from integration.lib.leaks import Leaks
from integration.lib.runtime import Runtime


class Network:
    """A network namespace, held by a process."""

    def __init__(self) -> None:
        script = "echo ready; exec sleep 100000"
        self.holder = subprocess.Popen(["unshare", "-n", "sh", "-c", script], stdout=subprocess.PIPE)
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == b"ready\n"
        self.path = f"/proc/{self.holder.pid}/ns/net"

    def ip(self, *words: str) -> str:
        """Run ip(8) in it."""
        return ip(self.path, *words)

    def veth(self, *names: str) -> None:
        """Make pairs: NAME, up, with the peer NAME-p."""
        for name in names:
            self.ip("link", "add", "name", name, "type", "veth", "peer", "name", f"{name}-p")
            self.ip("link", "set", "dev", f"{name}-p", "up")
            self.ip("link", "set", "dev", name, "up")

    def close(self) -> None:
        """Let it end."""
        self.holder.kill()
        self.holder.wait()
        assert self.holder.stdout is not None
        self.holder.stdout.close()


def ip(path: str, *words: str) -> str:
    """Run ip(8) in the network namespace at path."""
    command = ["nsenter", f"--net={path}", "ip", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout


def devices(path: str) -> dict[str, dict[str, Any]]:
    """What ip says about each device there."""
    return {entry["ifname"]: entry for entry in json.loads(ip(path, "-j", "-d", "addr", "show"))}


def inside(container: Container) -> dict[str, dict[str, Any]]:
    """The devices of the container."""
    return devices(f"/proc/{container.pid}/ns/net")


def addresses(device: dict[str, Any], *keys: str) -> set[tuple[Any, ...]]:
    """(address, prefix length, value of each key) of the global ones."""
    return {
        (entry["local"], entry["prefixlen"], *(entry.get(key) for key in keys))
        for entry in device["addr_info"]
        if entry["scope"] == "global"
    }


@pytest.fixture
def new_network(leaks: Leaks) -> Iterator[Callable[[], Network]]:
    """Make network namespaces."""
    made: list[Network] = []

    def make() -> Network:
        made.append(Network())
        leaks.keep.add(made[-1].holder.pid)
        return made[-1]

    yield make
    for network in made:
        network.close()
        leaks.keep.discard(network.holder.pid)


@pytest.fixture
def network(new_network: Callable[[], Network]) -> Network:
    """The one that the runtime runs in."""
    return new_network()


@pytest.fixture
def container(runtime: Runtime, network: Network, bundle: Bundle, new_container: Callable[..., Container]) -> Container:
    """A container whose runtime lives in the test's network."""
    bundle.args("pause")
    made = new_container(bundle, at=runtime.within(["nsenter", f"--net={network.path}"]))
    assert isinstance(made, Container)
    return made


def refused(container: Container, *texts: str) -> None:
    """create fails and says all of this."""
    result = container.create(check=False)
    assert result.code != 0, f"{result!r}"
    if container.runtime.ours:
        for text in texts:
            assert text in result.error, f"{result!r}"


def test_addresses_survive(container: Container, network: Network) -> None:
    """The device moves, is up, and keeps its permanent global addresses, IPv6 ones too [L10, X20]."""
    network.veth("dev0")
    network.ip("link", "set", "dev0", "mtu", "1400")
    network.ip("addr", "add", "192.0.2.5/24", "broadcast", "192.0.2.255", "dev", "dev0")
    network.ip("addr", "add", "192.0.2.6/24", "dev", "dev0", "label", "dev0:web")
    network.ip("addr", "add", "198.51.100.1", "peer", "198.51.100.2/32", "dev", "dev0")
    network.ip("addr", "add", "203.0.113.9/32", "dev", "dev0", "valid_lft", "1000", "preferred_lft", "1000")
    network.ip("addr", "add", "127.5.5.5/8", "scope", "host", "dev", "dev0")
    network.ip("addr", "add", "2001:db8::5/64", "dev", "dev0", "nodad")
    network.ip("addr", "add", "2001:db8:1::6/128", "dev", "dev0", "noprefixroute")
    hardware = devices(network.path)["dev0"]["address"]
    container.bundle.linux(netDevices={"dev0": {}})
    container.create()
    assert set(devices(network.path)) == {"lo", "dev0-p"}
    assert set(inside(container)) == {"lo", "dev0"}
    device = inside(container)["dev0"]
    assert "UP" in device["flags"]
    assert (device["mtu"], device["address"]) == (1400, hardware)
    four = {entry["local"]: entry for entry in device["addr_info"] if entry["family"] == "inet"}
    assert {key: entry["prefixlen"] for key, entry in four.items()} == {
        "192.0.2.5": 24,
        "192.0.2.6": 24,
        "198.51.100.1": 32,
    }
    assert four["192.0.2.5"]["broadcast"] == "192.0.2.255"
    assert "broadcast" not in four["192.0.2.6"]
    assert four["192.0.2.5"]["label"] == "dev0"
    assert four["192.0.2.6"]["label"] == "dev0:web"
    assert four["198.51.100.1"]["address"] == "198.51.100.2"
    six = {entry["local"]: entry for entry in device["addr_info"] if entry["family"] == "inet6"}
    assert {"2001:db8::5", "2001:db8:1::6"} <= set(six)
    assert six["2001:db8::5"]["prefixlen"] == 64
    assert six["2001:db8::5"].get("nodad") is True
    assert six["2001:db8:1::6"].get("noprefixroute") is True
    container.start()
    container.finish()
    container.delete()


def test_rename(container: Container, network: Network) -> None:
    """The name inside is the entry's; labels of addresses follow it [L10]."""
    network.veth("dev0", "dev1")
    network.ip("addr", "add", "192.0.2.5/24", "dev", "dev0", "label", "dev0:a")
    network.ip("addr", "add", "2001:db8::5/64", "dev", "dev0")
    container.bundle.linux(netDevices={"dev0": {"name": "eth0"}, "dev1": {"name": "x-äß"}})
    container.create()
    found = inside(container)
    assert set(found) == {"lo", "eth0", "x-äß"}
    assert addresses(found["eth0"], "label") == {("192.0.2.5", 24, "eth0:a"), ("2001:db8::5", 64, None)}
    assert set(devices(network.path)) == {"lo", "dev0-p", "dev1-p"}


def test_names_may_be_exchanged(container: Container, network: Network) -> None:
    """Each device may have the old name of the other [L10]."""
    network.veth("dev0", "dev1")
    network.ip("addr", "add", "192.0.2.1/24", "dev", "dev0")
    network.ip("addr", "add", "192.0.2.2/24", "dev", "dev1")
    container.bundle.linux(netDevices={"dev0": {"name": "dev1"}, "dev1": {"name": "dev0"}})
    container.create()
    found = inside(container)
    assert addresses(found["dev1"]) == {("192.0.2.1", 24)}
    assert addresses(found["dev0"]) == {("192.0.2.2", 24)}


@pytest.mark.parametrize("name", ["dev0", "net7"])
def test_templates(container: Container, network: Network, name: str) -> None:
    """The kernel chooses the number for %d; the device is found and brought up all the same [L10, X20]."""
    network.veth(name, "other")
    network.ip("addr", "add", "192.0.2.1/24", "dev", name)
    network.ip("addr", "add", "2001:db8::1/64", "dev", "other")
    container.bundle.linux(netDevices={name: {"name": "net%d"}, "other": {"name": "net%d"}})
    container.create()
    found = inside(container)
    found.pop("lo")
    assert len(found) == 2
    assert all(key.startswith("net") and key[3:].isdigit() for key in found)
    assert all("UP" in device["flags"] for device in found.values())
    first, second = sorted(found.values(), key=lambda device: str(addresses(device)))
    assert addresses(first) == {("192.0.2.1", 24)}
    assert addresses(second) == {("2001:db8::1", 64)}


def test_joined_namespace(container: Container, network: Network, new_network: Callable[[], Network]) -> None:
    """A namespace that is joined by path takes devices too, whatever index is in use there [L10]."""
    other = new_network()
    network.veth("dev0")
    network.ip("addr", "add", "2001:db8::1/64", "dev", "dev0", "nodad")
    other.veth("net0", "b", "c", "d")
    container.bundle.namespace("network", other.path)
    container.bundle.linux(netDevices={"dev0": {"name": "net%d"}})
    container.create()
    assert set(devices(other.path)) == {"lo", "net0", "net0-p", "b", "b-p", "c", "c-p", "d", "d-p", "net1"}
    assert addresses(devices(other.path)["net1"]) == {("2001:db8::1", 64)}


def test_user_namespace(container: Container, network: Network) -> None:
    """With a new user namespace, which owns the network namespace [L10]."""
    network.veth("dev0")
    network.ip("addr", "add", "192.0.2.1/24", "dev", "dev0")
    container.bundle.user_namespace()
    container.bundle.linux(netDevices={"dev0": {"name": "eth0"}})
    container.create()
    assert addresses(inside(container)["eth0"]) == {("192.0.2.1", 24)}


def test_the_program_sees_it(container: Container, network: Network) -> None:
    """It is there when the program starts [L10]."""
    network.veth("dev0")
    container.bundle.linux(netDevices={"dev0": {"name": "eth0"}})
    reply = container.probe(["read", "/proc/net/dev"])[0]
    assert "eth0:" in str(reply)


def test_missing_device(container: Container, network: Network, leaks: Leaks) -> None:
    """A device that is not there is refused before another one moves [L10]."""
    network.veth("dev0")
    network.ip("addr", "add", "192.0.2.1/24", "dev", "dev0")
    container.bundle.linux(netDevices={"dev0": {}, "no~such": {}})
    refused(container, "/linux/netDevices/no~0such", "no~such", "no such network device")
    assert addresses(devices(network.path)["dev0"]) == {("192.0.2.1", 24)}
    leaks.check()


@pytest.mark.parametrize("entry", [{}, {"name": "other"}, {"name": "lo"}, {"name": "alias"}])
def test_clash(
    container: Container, network: Network, new_network: Callable[[], Network], leaks: Leaks, entry: dict[str, str]
) -> None:
    """A name that is taken in the container's namespace is refused, and nothing moves [L10]."""
    other = new_network()
    other.veth("other", "dev1")
    other.ip("link", "property", "add", "dev", "other", "altname", "alias")
    network.veth("dev0", "dev1")
    before = devices(network.path)
    container.bundle.namespace("network", other.path)
    container.bundle.linux(netDevices={"dev0": {}, "dev1": entry})
    pointer = "/linux/netDevices/dev1" + ("/name" if entry else "")
    refused(container, pointer, entry.get("name", "dev1"), "already")
    assert set(devices(network.path)) == set(before)
    assert set(devices(other.path)) == {"lo", "other", "other-p", "dev1", "dev1-p"}
    leaks.check()


@pytest.mark.parametrize(
    ("entries", "pointer"),
    [
        ({"dev0": {"name": "a"}, "dev1": {"name": "a"}}, "/linux/netDevices/dev1/name"),
        ({"dev0": {"name": "dev1"}, "dev1": {}}, "/linux/netDevices/dev1"),
        ({"dev0": {"name": "."}}, "/linux/netDevices/dev0/name"),
        ({"dev0": {"name": ".."}}, "/linux/netDevices/dev0/name"),
        ({"dev0": {"name": "a/b"}}, "/linux/netDevices/dev0/name"),
        ({"dev0": {"name": "a:b"}}, "/linux/netDevices/dev0/name"),
        ({"dev0": {"name": "a b"}}, "/linux/netDevices/dev0/name"),
        ({"dev0": {"name": "sixteen-letters-"}}, "/linux/netDevices/dev0/name"),
        ({"dev0": {"name": "äääääääää"}}, "/linux/netDevices/dev0/name"),
        ({"dev0": {"name": "net%s"}}, "/linux/netDevices/dev0/name"),
        ({"dev0": {"name": "n%d%d"}}, "/linux/netDevices/dev0/name"),
        ({"sixteen-letters-": {}}, "/linux/netDevices"),
        ({"": {}}, "/linux/netDevices"),
    ],
)
def test_bad_names(container: Container, network: Network, leaks: Leaks, entries: dict[str, Any], pointer: str) -> None:
    """Names that the kernel would refuse, and names given twice [L10]."""
    network.veth("dev0", "dev1")
    container.bundle.linux(netDevices=entries)
    refused(container, pointer)
    assert {"dev0", "dev1"} <= set(devices(network.path))
    leaks.check()


def test_device_that_cannot_leave(container: Container, network: Network, leaks: Leaks) -> None:
    """The kernel refuses to move some kinds: the error names field, device and reason [L10]."""
    network.ip("link", "add", "bridge0", "type", "bridge")
    container.bundle.linux(netDevices={"bridge0": {}})
    refused(container, "/linux/netDevices/bridge0", "'bridge0'", "EINVAL", "cannot leave their network namespace")
    assert set(devices(network.path)) == {"lo", "bridge0"}
    leaks.check()


@pytest.mark.parametrize("how", ["none", "own"])
def test_network_namespace_is_needed(container: Container, network: Network, leaks: Leaks, how: str) -> None:
    """Without a network namespace, or with the runtime's own, there is nowhere to move to [L10]."""
    network.veth("dev0")
    if how == "none":
        container.bundle.drop_namespace("network")
        container.bundle.drop_mount("/sys")
    else:
        container.bundle.namespace("network", network.path)
    container.bundle.linux(netDevices={"dev0": {"name": "eth0"}})
    refused(container, "/linux/netDevices", "network namespace")
    assert "dev0" in devices(network.path)
    leaks.check()


def test_rootless(container: Container, network: Network, leaks: Leaks) -> None:
    """A rootless runtime takes no devices from the host [L10]."""
    network.veth("dev0")
    container.bundle.linux(netDevices={"dev0": {}})
    result = container.create(check=False, options=["--rootless", "true"])
    assert result.code != 0
    assert "/linux/netDevices" in result.error
    assert "dev0" in devices(network.path)
    leaks.check()


def test_none(container: Container) -> None:
    """An empty list asks for nothing, and needs nothing [L10]."""
    container.bundle.drop_namespace("network")
    container.bundle.drop_mount("/sys")
    container.bundle.linux(netDevices={})
    container.create()
