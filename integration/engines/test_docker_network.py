"""docker's networks: bridges, ports, and a service of its swarm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.engines.docker import Docker
from integration.engines.image import IMAGE
from integration.engines.sandbox import Watch
from integration.lib.container import wait_until

SERVE = ["nc", "-ll", "-p", "80", "-e", "hostname"]


@pytest.fixture
def network(docker: Docker) -> Iterator[str]:
    """A bridge of the user's."""
    name = f"net-{docker.name()}"
    docker("network", "create", name).ok()
    yield name
    docker.clear()
    docker("network", "rm", name).ok()


def address(docker: Docker, name: str, network: str) -> str:
    """The container's address in this network."""
    found: str = docker.inspect(name)["NetworkSettings"]["Networks"][network]["IPAddress"]
    return found


def ask(docker: Docker, place: str, network: str) -> str:
    """What a container in this network gets from port 80 of a place."""
    script = f"for i in $(seq 300); do nc -w 2 {place} 80 </dev/null && exit; sleep 0.1; done; exit 1"
    return docker("run", "--rm", "--network", network, IMAGE, "sh", "-c", script).ok().text.strip()


def test_two_containers(docker: Docker, network: str, leaks: Watch) -> None:
    """Two containers of a network talk, by address and by name."""
    name = docker.name()
    docker("run", "-d", "--name", name, "--hostname", "server", "--network", network, IMAGE, *SERVE).ok()
    place = address(docker, name, network)
    assert ask(docker, place, network) == "server"
    assert place in docker("run", "--rm", "--network", network, IMAGE, "nslookup", name).text
    docker("rm", "-f", name).ok()
    leaks.check()


def test_default_bridge(docker: Docker) -> None:
    """docker0, too; a container without a network does not get there."""
    name = docker.name()
    docker("run", "-d", "--name", name, "--hostname", "server", IMAGE, *SERVE).ok()
    place = address(docker, name, "bridge")
    assert ask(docker, place, "bridge") == "server"
    assert "unreachable" in docker.run("nc", "-w", "1", place, "80").error


def test_port(docker: Docker) -> None:
    """-p: the port of the container answers on the host."""
    name = docker.name()
    docker("run", "-d", "--name", name, "--hostname", "server", "-p", "127.0.0.1:18080:80", IMAGE, *SERVE).ok()
    assert docker("port", name).ok().text.strip() == "80/tcp -> 127.0.0.1:18080"
    box = docker.sandbox
    words = ["timeout", "5", "busybox", "nc", "127.0.0.1", "18080"]
    wait_until(lambda: box.run(words).text == "server\n", "an answer")


def test_connect(docker: Docker, network: str) -> None:
    """network connect and disconnect of a running container."""
    name = docker.name()
    docker("run", "-d", "--name", name, IMAGE, "sleep", "1000").ok()
    docker("network", "connect", network, name).ok()
    assert address(docker, name, network) in docker.sh_exec(name, "ip -4 addr show dev eth1")
    docker("network", "disconnect", network, name).ok()
    assert docker("exec", name, "ls", "/sys/class/net/eth1").code == 1


def test_network_of_another_container(docker: Docker, network: str) -> None:
    """--network container:…: what listens there is on one's own lo."""
    name = docker.name()
    docker("run", "-d", "--name", name, "--hostname", "server", "--network", network, IMAGE, *SERVE).ok()
    assert ask(docker, "127.0.0.1", f"container:{name}") == "server"


def test_hosts_file(docker: Docker, network: str) -> None:
    """--ip, --mac-address and --hostname reach the container."""
    options = ["--network", network, "--mac-address", "02:42:00:00:00:77", "--hostname", "me"]
    result = docker("run", "--rm", *options, IMAGE, "sh", "-c", "cat /sys/class/net/eth0/address /etc/hosts").ok()
    assert result.text.startswith("02:42:00:00:00:77\n")
    assert "\tme\n" in result.text


@pytest.fixture
def swarm(docker: Docker) -> Iterator[None]:
    """A swarm of one node, and everything gone after it."""
    docker("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:2377").ok()
    yield
    docker("swarm", "leave", "--force").ok()
    wait_until(lambda: not docker("ps", "-aq", "--filter", "label=com.docker.swarm.task").text, "the tasks' end")
    docker("network", "rm", "docker_gwbridge")
    docker("network", "prune", "-f")


def test_service(docker: Docker, swarm: None, slow: bool) -> None:
    """A service with replicas: they run, one that is killed is replaced; with IT_SLOW it is scaled and updated, too."""
    create = ["service", "create", "--detach", "--name", "many", "--replicas", "2", "--network", "host"]
    create += ["--stop-grace-period", "1s", "--restart-delay", "100ms", "--no-resolve-image"]
    docker(*create, IMAGE, "sh", "-c", "echo ready; exec sleep 1000").ok()

    def running() -> list[str]:
        return docker("ps", "-q", "--filter", "label=com.docker.swarm.service.name=many").ok().text.split()

    def updated() -> int:
        return sum('"A=1"' in docker("inspect", "-f", "{{json .Config.Env}}", one).text for one in running())

    wait_until(lambda: len(running()) == 2, "two replicas")
    assert docker.inspect(running()[0])["HostConfig"]["Runtime"] in ("", "custom")
    victim = running()[0]
    docker("kill", victim).ok()
    wait_until(lambda: len(running()) == 2 and victim not in running(), "another one")
    if slow:
        docker("service", "scale", "--detach", "many=3").ok()
        wait_until(lambda: len(running()) == 3, "three replicas")
        more = ["--env-add", "A=1", "--update-parallelism", "0", "--no-resolve-image"]
        docker("service", "update", "--detach", *more, "many").ok()
        wait_until(lambda: updated() == 3, "the update")
    docker("service", "rm", "many").ok()
    wait_until(lambda: not running(), "the end")
