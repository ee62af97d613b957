"""Bridge networks: containers that talk, ports that are published. Both of podman's ways: netavark and CNI plugins.

The network namespace is podman's, made before the runtime is called; the runtime has to join it, and to show its /sys.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from integration.engines.conftest import needs
from integration.engines.engines import Podman
from integration.engines.image import IMAGE
from integration.engines.sandbox import Sandbox, Watch
from integration.lib.container import wait_until

SERVE = "echo ready; while :; do echo hello from $(hostname) | nc -l -p 7000; done"


class Network:
    """A podman network of one backend, and podman with that backend."""

    def __init__(self, podman: Podman, backend: str, number: int) -> None:
        self.podman = podman
        self.name = f"net-{podman.name()}"
        self.subnet = f"10.123.{number}"
        podman.backend = backend
        podman("network", "create", "--disable-dns", "--subnet", f"{self.subnet}.0/24", self.name).ok()

    def server(self, *options: str) -> str:
        """A container that answers on port 7000; its name."""
        name = self.podman.detached("sh", "-c", SERVE, options=["--network", self.name, *options])
        self.podman.wait_logs(name, "ready")
        return name

    def address(self, name: str) -> str:
        """The address of a container in this network."""
        return str(self.podman.inspect(name)["NetworkSettings"]["Networks"][self.name]["IPAddress"])

    def ask(self, address: str, port: int = 7000, *options: str) -> str:
        """What a new container of this network hears there."""
        return self.podman.sh(retry(address, port), "--network", self.name, *options)


def retry(address: str, port: int) -> str:
    """A shell script that connects, and tries again for half a minute."""
    return (
        f"for i in $(seq 150); do busybox nc -w 2 {address} {port} </dev/null | grep hello && exit; "
        "sleep 0.2; done; exit 1"
    )


@pytest.fixture(params=["netavark", "cni"])
def network(podman: Podman, leaks: Watch, slow: bool, request: pytest.FixtureRequest) -> Iterator[Network]:
    """A network of its own for the test."""
    if request.param == "cni" and not slow and "talk" not in request.node.name:
        pytest.skip("with CNI plugins only under IT_SLOW=1: to the runtime it is the same")
    plugins = "/usr/lib/podman/netavark" if request.param == "netavark" else "/usr/lib/cni/bridge"
    if not os.path.exists(plugins):
        pytest.skip(f"not installed: {plugins}")
    needs("iptables")
    made = Network(podman, request.param, 7 if request.param == "cni" else 8)
    yield made
    podman("rm", "-f", "-a", "-t", "0")
    podman("network", "rm", "-f", made.name).ok()
    podman.backend = ""


def test_two_containers_talk(network: Network) -> None:
    """By address, over the bridge."""
    first = network.server("--hostname", "first")
    assert network.ask(network.address(first)) == "hello from first"


def test_interfaces(network: Network, sandbox: Sandbox) -> None:
    """eth0 and lo are up, /sys shows them and not the host's, and the address is the one asked for."""
    script = "ls /sys/class/net; cat /sys/class/net/eth0/operstate; ip -4 addr show eth0; ip route"
    text = network.podman.sh(script, "--network", network.name, "--ip", f"{network.subnet}.77")
    assert text.split()[:3] == ["eth0", "lo", "up"]
    assert f"inet {network.subnet}.77/24" in text
    assert f"default via {network.subnet}.1" in text


def test_published_port(network: Network, sandbox: Sandbox) -> None:
    """-p: reached from the host by the bridge's address of the host and by the loopback device."""
    name = network.server("-p", "17000:7000", "--hostname", "published")
    assert "17000" in network.podman("port", name).ok().text
    for address in (f"{network.subnet}.1", "127.0.0.1"):
        result = sandbox.run(["sh", "-c", retry(address, 17000)])
        assert result.text.strip() == "hello from published", repr(result)
    network.podman("rm", "-f", "-t", "0", name).ok()
    assert sandbox.run(["busybox", "nc", "-w", "1", f"{network.subnet}.1", "17000"]).code != 0


def test_pod_with_a_port(network: Network, sandbox: Sandbox) -> None:
    """A pod's port is published once for all members."""
    needs("catatonit")
    podman, pod = network.podman, f"pod-{network.podman.name()}"
    podman("pod", "create", "--name", pod, "--network", network.name, "-p", "17001:7000").ok()
    name = podman.name()
    podman("run", "-d", "--name", name, "--pod", pod, IMAGE, "sh", "-c", SERVE).ok()
    podman.wait_logs(name, "ready")
    assert sandbox.run(["sh", "-c", retry(f"{network.subnet}.1", 17001)]).text.startswith("hello from")
    podman("pod", "rm", "-f", "-t", "0", pod).ok()


def test_connect_and_disconnect(network: Network) -> None:
    """A running container gets a second network and loses it again."""
    podman, other = network.podman, f"net-{network.podman.name()}"
    podman("network", "create", "--disable-dns", "--subnet", "10.123.99.0/24", other).ok()
    name = podman.detached("sleep", "1000", options=["--network", network.name])
    podman("network", "connect", other, name).ok()
    assert "10.123.99." in podman("exec", name, "ip", "-4", "addr", "show", "eth1").ok().text
    podman("network", "disconnect", other, name).ok()
    wait_until(lambda: podman("exec", name, "ip", "link", "show", "eth1").code != 0, "its end")
    podman("rm", "-f", "-t", "0", name).ok()
    podman("network", "rm", other).ok()


def test_restart(network: Network) -> None:
    """After a restart the container is in its network again."""
    name = network.server("--hostname", "again", "--stop-timeout", "0")
    network.podman("restart", name).ok()
    assert network.ask(network.address(name)) == "hello from again"


def test_in_a_user_namespace(network: Network) -> None:
    """A container with a user namespace: podman gives it a network namespace of that one."""
    options = ["--uidmap", "0:100000:2000", "--gidmap", "0:100000:2000", "--hostname", "mapped"]
    first = network.server(*options)
    assert network.ask(network.address(first), 7000, *options[:4]) == "hello from mapped"


def test_hosts_file(network: Network) -> None:
    """/etc/hosts has the container's own name and address."""
    script = "grep named /etc/hosts | cut -f 1"
    options = ["--network", network.name, "--ip", f"{network.subnet}.55", "--hostname", "named"]
    assert network.podman.sh(script, *options) == f"{network.subnet}.55"
