"""Pod sandboxes through the CRI: their namespaces, network, cgroups, and what is left when they go."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from integration.engines.agent import HOSTNAME
from integration.engines.cri import PARENT, Cri, CriError, Pod
from integration.engines.sandbox import Sandbox, Watch
from integration.lib.container import wait_until

FOREVER = ["sleep", "1000"]
NewPod = Callable[..., Pod]


def namespaces(**modes: str) -> dict[str, object]:
    """The part of a config, of a pod or a container, that chooses namespaces."""
    return {"linux": {"security_context": {"namespace_options": modes}}}


def test_service(cri: Cri) -> None:
    """Version and Status: the runtime is ready, and so is its network."""
    version = cri.call("Version")
    assert (version.runtime_name, version.runtime_api_version) == ("containerd", "v1")
    conditions = {item.type: item.status for item in cri.call("Status").status.conditions}
    assert conditions == {"RuntimeReady": True, "NetworkReady": True}


def test_life_of_a_pod(cri: Cri, new_pod: NewPod, sandbox: Sandbox, leaks: Watch) -> None:
    """RunPodSandbox, PodSandboxStatus, ListPodSandbox, StopPodSandbox, RemovePodSandbox."""
    pod = new_pod({"labels": {"app": "web"}, "annotations": {"note": "a b"}})
    status = pod.status()
    assert (dict(status.labels), dict(status.annotations)) == ({"app": "web"}, {"note": "a b"})
    assert status.runtime_handler == "custom"
    assert status.network.ip.startswith("10.88.")
    assert pod.id in [item.id for item in cri.call("ListPodSandbox").items]
    assert pod.ready
    assert any(entry.endswith(f"/{pod.id}") for entry in sandbox.look()["state"])
    pod.stop()
    assert not pod.ready
    assert not any(pod.id in entry for entry in sandbox.look()["cgroups"])
    name = pod.id
    pod.remove()
    assert name not in [item.id for item in cri.call("ListPodSandbox").items]
    leaks.check()


def test_runtime_classes(new_pod: NewPod) -> None:
    """No class is the default one; a class that nobody has set up is refused."""
    assert new_pod(handler="").ready
    with pytest.raises(CriError, match="no runtime for"):
        new_pod(handler="other")


def test_cgroup_of_a_pod(new_pod: NewPod, sandbox: Sandbox) -> None:
    """The sandbox and each container have a group of their own below the pod's."""
    pod = new_pod()
    container = pod.run(*FOREVER)
    groups = sandbox.look()["cgroups"]
    for name in (pod.id, container.id):
        assert any(group.endswith(f"{pod.parent}/{name}") for group in groups)
    lines = sandbox.read(f"/proc/{container.pid}/cgroup").splitlines()
    places = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines}
    wanted = [""] if sandbox.only_v2 else sandbox.controllers - {""}
    assert {places[controller] for controller in wanted} == {f"{pod.parent}/{container.id}"}


def test_hostname_and_dns(new_pod: NewPod) -> None:
    """The pod's name and its resolv.conf reach its containers."""
    pod = new_pod(
        {
            "hostname": "web-0",
            "dns_config": {"servers": ["10.0.0.10"], "searches": ["svc.local", "local"], "options": ["ndots:5"]},
        }
    )
    lines = pod.sh("hostname; cat /etc/hostname /etc/resolv.conf").splitlines()
    assert lines == ["web-0", "web-0", "search svc.local local", "nameserver 10.0.0.10", "options ndots:5"]


def test_sysctls_of_a_pod(new_pod: NewPod) -> None:
    """Sysctls of the network and IPC namespaces are set in the sandbox, and so hold for all containers."""
    pod = new_pod({"linux": {"sysctls": {"net.ipv4.ip_default_ttl": "42", "kernel.shm_rmid_forced": "1"}}})
    assert pod.sh("cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shm_rmid_forced").split() == ["42", "1"]


def test_namespaces_of_a_pod(new_pod: NewPod) -> None:
    """Network, IPC and UTS are the pod's; PID and mount are each container's."""
    pod = new_pod()
    script = "for n in net ipc uts pid mnt; do readlink /proc/self/ns/$n; done"
    first, second = (pod.run(*FOREVER).exec("sh", "-c", script).ok().text.split() for _ in range(2))
    assert first[:3] == second[:3]
    assert set(first[3:]).isdisjoint(second[3:])


def test_shared_memory_of_a_pod(new_pod: NewPod) -> None:
    """/dev/shm is the pod's too."""
    pod = new_pod()
    pod.sh("echo from the first >/dev/shm/note")
    assert pod.sh("cat /dev/shm/note") == "from the first\n"


def test_shared_pid_namespace(new_pod: NewPod) -> None:
    """shareProcessNamespace: PID 1 is the sandbox's, containers see each other's processes, and may signal them."""
    options = namespaces(pid="POD")
    pod = new_pod(options)
    first = pod.run("sh", "-c", "trap 'exit 8' TERM; while :; do sleep 0.05; done", **options)
    second = pod.run(*FOREVER, **options)
    listed = second.exec("ps", "-o", "pid,args").ok().text
    assert re.search(r"^ *1 probe pause", listed, re.M)
    number = re.search(r"^ *(\d+) sh -c trap", listed, re.M)
    assert number
    second.exec("kill", number[1]).ok()
    assert first.wait() == 8
    assert second.state == "RUNNING"


def test_pid_namespace_of_a_target(pod: Pod) -> None:
    """kubectl debug --target: a container in the PID namespace of another one."""
    first = pod.run(*FOREVER)
    second = pod.run("cat", "/proc/1/cmdline", **namespaces(pid="TARGET", target_id=first.id))
    assert second.wait() == 0
    assert second.output().startswith("sleep\x001000")
    assert first.state == "RUNNING"


def test_host_namespaces(new_pod: NewPod, sandbox: Sandbox) -> None:
    """hostNetwork, hostPID, hostIPC; with the host's network goes its name."""
    options = namespaces(network="NODE", pid="NODE", ipc="NODE")
    pod = new_pod(options)
    outside = [sandbox.run(["readlink", f"/proc/1/ns/{name}"]).ok().text.strip() for name in ("net", "ipc", "uts")]
    script = "for n in net ipc uts; do readlink /proc/self/ns/$n; done; hostname; cat /proc/1/comm"
    words = pod.sh(script, **options).split()
    assert words[:3] == outside
    assert words[3] == HOSTNAME
    assert words[4] == sandbox.read("/proc/1/comm")


def test_two_pods_talk(new_pod: NewPod) -> None:
    """Over the bridge, by the addresses that the CRI tells."""
    server, client = new_pod(), new_pod()
    listening = server.run("sh", "-c", "echo ready; echo from the server | nc -l -p 8080")
    listening.wait_output("ready")
    address = server.status().network.ip
    assert address != client.status().network.ip
    script = f"for i in $(seq 150); do nc {address} 8080 </dev/null && exit; sleep 0.2; done; exit 1"
    assert client.sh(script) == "from the server\n"
    assert listening.wait() == 0


def test_containers_of_a_pod_talk(new_pod: NewPod) -> None:
    """Over the loopback device that they share."""
    pod = new_pod()
    pod.run("sh", "-c", "while :; do echo through lo | nc -l -p 9090; done")
    script = "for i in $(seq 150); do nc 127.0.0.1 9090 </dev/null && exit; sleep 0.2; done; exit 1"
    assert pod.sh(script) == "through lo\n"


def test_sandbox_that_cannot_start(cri: Cri, new_pod: NewPod, leaks: Watch) -> None:
    """A sysctl that does not exist: the runtime's words come back, and nothing stays."""
    before = list(cri.call("ListPodSandbox").items)
    with pytest.raises(CriError) as caught:
        new_pod({"linux": {"sysctls": {"net.ipv4.no_such_key": "1"}, "cgroup_parent": PARENT + "/failing"}})
    assert "no_such_key" in caught.value.text or "no/such" in caught.value.text
    assert list(cri.call("ListPodSandbox").items) == before
    cri.remove_parent(PARENT + "/failing")
    leaks.check()


def test_remove_with_running_containers(new_pod: NewPod, leaks: Watch) -> None:
    """RemovePodSandbox ends what runs in the pod, with all their children."""
    pod = new_pod()
    for _ in range(3):
        pod.run("sh", "-c", "trap '' TERM; for i in 1 2 3; do setsid sleep 1000 & done; wait; sleep 1000")
    pod.remove()
    leaks.check()


def test_killed_sandbox(new_pod: NewPod, sandbox: Sandbox, leaks: Watch) -> None:
    """The pause process dies: the pod is not ready any more, and can be removed."""
    pod = new_pod()
    container = pod.run(*FOREVER)
    pids = {entry.split()[0] for entry in sandbox.look()["processes"] if entry.endswith(" probe pause ")}
    mine = [pid for pid in pids if f"/{pod.id}" in sandbox.read(f"/proc/{pid}/cgroup")]
    sandbox.run(["kill", "-9", *mine]).ok()
    wait_until(lambda: not pod.ready, "the end of the sandbox")
    assert container.state == "RUNNING"
    pod.remove()
    leaks.check()


def test_restarted_daemon(cri: Cri, new_pod: NewPod, leaks: Watch) -> None:
    """containerd dies and comes back: pods and containers have gone on, exits in between are known."""
    pod = new_pod()
    first, second = (
        pod.run(*FOREVER),
        pod.run("sh", "-c", "trap 'exit 4' TERM; echo ready; while :; do sleep 0.05; done"),
    )
    second.wait_output("ready")
    before, ending = first.pid, second.pid

    def end() -> None:
        cri.sandbox.run(["kill", str(ending)]).ok()
        wait_until(lambda: cri.sandbox.run(["test", "-e", f"/proc/{ending}"]).code == 1, "the end of one container")

    cri.restart(end)
    leaks.before["processes"].append(f"{cri.daemon.pid} containerd")
    assert pod.ready
    assert (first.state, first.pid) == ("RUNNING", before)
    assert first.exec("echo", "still here").text == "still here\n"
    assert second.wait() == 4
