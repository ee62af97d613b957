"""The container runtime interface, as the kubelet speaks it: a containerd with its CRI plugin, pods, containers."""

from __future__ import annotations

import ctypes
import itertools
import os
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from integration.engines.image import IMAGE
from integration.engines.sandbox import Sandbox
from integration.lib.container import wait_until
from integration.lib.runtime import TIMEOUT, Result

HERE = Path(__file__).resolve().parent
PARENT = "/cri"  # every pod's cgroups are below it, as below the kubelet's /kubepods
NETWORK = """{
  "cniVersion": "1.0.0", "name": "pods", "plugins": [
    {"type": "bridge", "bridge": "cri0", "isGateway": true,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "dataDir": "%s/leases"}}
  ]
}
"""
OWN_PID = {"security_context": {"namespace_options": {"pid": "CONTAINER"}}}  # the kubelet says so; 0 is the pod's
CLONE_NEWNET = 0x40000000
STDIN, STDOUT, STDERR, STATUS, RESIZE = range(5)  # channels of v4.channel.k8s.io
Fields = Mapping[str, Any]


def merged(base: Fields, changes: Fields) -> dict[str, Any]:
    """base with changes; dicts inside are merged too."""
    found = dict(base)
    for key, value in changes.items():
        inner = found.get(key)
        found[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return found


def connect_in(pid: int, host: str, port: int | None) -> socket.socket:
    """A connection made in the network namespace of pid, to which the calling thread moves for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)
    return socket.create_connection((host, port or 80), 20)


class CriError(Exception):
    """What containerd said no to."""

    def __init__(self, call: str, code: str, text: str) -> None:
        super().__init__(f"{call}: {code}: {text}")
        self.code = code
        self.text = text


class Cri:
    """containerd with its CRI plugin, in the sandbox. Its socket lies in the work directory, so we are the client."""

    def __init__(self, sandbox: Sandbox, work: Path, runtime: str) -> None:
        self.sandbox = sandbox
        self.runtime = runtime
        self.work = work
        self.numbers = itertools.count(1)
        for directory in ("cni", "logs"):
            work.joinpath(directory).mkdir(parents=True)
        work.joinpath("cni/10-pods.conflist").write_text(NETWORK % work)
        text = HERE.joinpath("cri-containerd.toml").read_text()
        self.config = work / "containerd.toml"
        self.config.write_text(text.replace("WORK", str(work)).replace("RUNTIME", runtime))
        self.address = work / "containerd.sock"
        import grpc  # here: without it these tests are skipped

        self.failure = grpc.RpcError
        self.messages, services = grpc.protos_and_services("integration/engines/cri.proto")
        self.channel = grpc.insecure_channel(f"unix:{self.address}", [("grpc.enable_http_proxy", 0)])
        self.stub = services.RuntimeServiceStub(self.channel)
        self.requests = {
            method.name: getattr(self.messages, method.input_type.name)
            for method in self.messages.DESCRIPTOR.services_by_name["RuntimeService"].methods
        }
        self.start()

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        self.daemon = self.sandbox.start(["containerd", "--config", str(self.config), "--log-level", "warn"])
        wait_until(self.answers, "containerd")

    def answers(self) -> bool:
        """Whether the plugin is up."""
        try:
            return bool(self.call("Version").runtime_name)
        except CriError:
            time.sleep(0.1)
            return False

    def restart(self, between: Callable[[], object]) -> None:
        """End the daemon as a crash would, and start it again; the shims live on. between: called while it is away."""
        self.daemon.signal(9)
        self.daemon.wait()
        between()
        self.start()

    def close(self) -> None:
        """Leave the daemon to the end of the sandbox."""
        self.channel.close()

    def ctr(self, *words: str) -> Result:
        """A ctr command in the name space of the CRI plugin."""
        return self.sandbox.run(["ctr", "-a", str(self.address), "-n", "k8s.io", *words])

    def call(self, name: str, fields: Fields | None = None, timeout: float = TIMEOUT) -> Any:
        """One call: the fields of its request as a dict, the reply as a message."""
        from google.protobuf.json_format import ParseDict

        request = ParseDict(fields or {}, self.requests[name]())
        try:
            return getattr(self.stub, name)(request, timeout=timeout)
        except self.failure as error:
            raise CriError(name, error.code().name, error.details()) from None

    def pod(self, changes: Fields | None = None, handler: str = "custom") -> Pod:
        """RunPodSandbox."""
        return Pod(self, changes or {}, handler)

    def stream(self, url: str) -> Stream:
        """The other end of Exec and Attach, which is in the sandbox's network namespace."""
        place = urlsplit(url)
        with ThreadPoolExecutor(1) as pool:
            return Stream(
                pool.submit(connect_in, self.sandbox.process.pid, str(place.hostname), place.port).result(), url
            )

    def remove_parent(self, path: str) -> None:
        """Remove a pod's cgroup in every hierarchy; what is left in it keeps it, and is found by the tests."""
        self.sandbox.run(["sh", "-c", f"rmdir /sys/fs/cgroup{path} /sys/fs/cgroup/*{path} 2>/dev/null"])


class Pod:
    """A pod sandbox. Its cgroup parent is its own, as with the kubelet."""

    def __init__(self, cri: Cri, changes: Fields, handler: str) -> None:
        self.cri = cri
        number = next(cri.numbers)
        self.parent = f"{PARENT}/pod{number}"
        self.logs = cri.work / "logs" / f"pod{number}"
        self.numbers = itertools.count(1)
        self.containers: list[Container] = []
        base = {
            "metadata": {"name": f"pod{number}", "uid": f"uid{number}", "namespace": "tests", "attempt": 0},
            "log_directory": str(self.logs),
            "linux": {"cgroup_parent": self.parent, **OWN_PID},
        }
        self.config = merged(base, changes)
        self.id: str = cri.call("RunPodSandbox", {"config": self.config, "runtime_handler": handler}).pod_sandbox_id

    def container(self, *command: str, **fields: Any) -> Container:
        """CreateContainer with these fields of its config."""
        self.containers.append(Container(self, list(command), fields))
        return self.containers[-1]

    def clear(self) -> None:
        """RemoveContainer for all of them; one that is gone is no error."""
        for container in self.containers:
            container.remove()
        self.containers.clear()

    def run(self, *command: str, **fields: Any) -> Container:
        """A container that has been started."""
        container = self.container(*command, **fields)
        container.start()
        return container

    def sh(self, script: str, **fields: Any) -> str:
        """What a shell script in a container of its own prints; it must succeed."""
        container = self.run("sh", "-c", script, **fields)
        assert container.wait() == 0, f"{container.status()}{container.output()}"
        return container.output()

    def status(self) -> Any:
        """PodSandboxStatus."""
        return self.cri.call("PodSandboxStatus", {"pod_sandbox_id": self.id}).status

    @property
    def ready(self) -> bool:
        """Whether it is SANDBOX_READY."""
        return bool(self.status().state == self.cri.messages.SANDBOX_READY)

    def stop(self) -> None:
        """StopPodSandbox."""
        self.cri.call("StopPodSandbox", {"pod_sandbox_id": self.id})

    def remove(self) -> None:
        """RemovePodSandbox, all containers in it, and the cgroup parent, which is the kubelet's. Once is enough."""
        if self.id:
            self.cri.call("StopPodSandbox", {"pod_sandbox_id": self.id})
            self.cri.call("RemovePodSandbox", {"pod_sandbox_id": self.id})
        self.id = ""
        self.cri.remove_parent(self.parent)


class Container:
    """A container in a pod."""

    def __init__(self, pod: Pod, command: list[str], fields: Fields) -> None:
        self.pod = pod
        self.cri = pod.cri
        name = f"c{next(pod.numbers)}"
        base = {
            "metadata": {"name": name, "attempt": 0},
            "image": {"image": IMAGE},
            "command": command,
            "log_path": f"{name}.log",
            "linux": OWN_PID,
        }
        config = merged(base, fields)
        self.log = pod.logs / str(config["log_path"])
        request = {"pod_sandbox_id": pod.id, "config": config, "sandbox_config": pod.config}
        self.id: str = self.cri.call("CreateContainer", request).container_id

    def start(self) -> None:
        """StartContainer."""
        self.cri.call("StartContainer", {"container_id": self.id})

    def stop(self, timeout: int = 10) -> None:
        """StopContainer."""
        self.cri.call("StopContainer", {"container_id": self.id, "timeout": timeout})

    def remove(self) -> None:
        """RemoveContainer."""
        self.cri.call("RemoveContainer", {"container_id": self.id})

    def status(self) -> Any:
        """ContainerStatus."""
        return self.cri.call("ContainerStatus", {"container_id": self.id}).status

    @property
    def state(self) -> str:
        """CREATED, RUNNING, EXITED, UNKNOWN."""
        return str(self.cri.messages.ContainerState.Name(self.status().state)).removeprefix("CONTAINER_")

    def wait(self) -> int:
        """The exit code, once it has ended."""
        wait_until(lambda: self.state == "EXITED", "the end of the container")
        return int(self.status().exit_code)

    @property
    def pid(self) -> int:
        """The PID of its first process, in the sandbox."""
        for line in self.cri.ctr("task", "ls").ok().text.splitlines()[1:]:
            words = line.split()
            if words[0] == self.id:
                return int(words[1])
        raise AssertionError(f"no task {self.id}")

    def lines(self) -> list[tuple[str, str, str]]:
        """The log file: stream, tag (F full, P partial), text."""
        found = []
        for line in self.log.read_text().splitlines():
            _, stream, tag, text = line.split(" ", 3)
            found.append((stream, tag, text))
        return found

    def output(self, stream: str = "stdout") -> str:
        """What it wrote to one stream, from the log file."""
        return "".join(text + ("\n" if tag == "F" else "") for name, tag, text in self.lines() if name == stream)

    def wait_output(self, text: str) -> None:
        """Until it has written text."""
        wait_until(lambda: self.log.exists() and text in self.output(), f"{text} in the log")

    def exec(self, *command: str, timeout: int = 0) -> Result:
        """ExecSync."""
        fields = {"container_id": self.id, "cmd": list(command), "timeout": timeout}
        reply = self.cri.call("ExecSync", fields)
        return Result(list(command), reply.exit_code, reply.stdout, reply.stderr)

    def open(self, *command: str, **fields: Any) -> Stream:
        """Exec; stdout is always asked for."""
        request = {"container_id": self.id, "cmd": list(command), "stdout": True, **fields}
        return self.cri.stream(self.cri.call("Exec", request).url)

    def attach(self, **fields: Any) -> Stream:
        """Attach; stdout is always asked for."""
        return self.cri.stream(self.cri.call("Attach", {"container_id": self.id, "stdout": True, **fields}).url)


class Stream:
    """A terminal or the streams of a command, through containerd's streaming server, which takes WebSockets."""

    def __init__(self, connection: socket.socket, url: str) -> None:
        import websocket  # here: without it these tests are skipped

        self.closed = websocket.WebSocketConnectionClosedException
        place = urlsplit(url)
        self.socket = websocket.create_connection(
            f"ws://{place.netloc}{place.path}?{place.query}",
            socket=connection,
            subprotocols=["v4.channel.k8s.io"],
            timeout=60,
        )
        self.found: dict[int, bytes] = {STDOUT: b"", STDERR: b"", STATUS: b""}

    def send(self, data: bytes, channel: int = STDIN) -> None:
        """Input, or a change of the window."""
        self.socket.send_binary(bytes([channel]) + data)

    def read_until(self, text: bytes, channel: int = STDOUT) -> bytes:
        """All of a stream up to now, once text is in it."""
        while text not in self.found[channel]:
            self._next()
        return self.found[channel]

    def _next(self) -> bool:
        try:
            data = self.socket.recv()
        except self.closed:
            return False
        if not data:
            return False
        raw = data if isinstance(data, bytes) else data.encode()
        self.found[raw[0]] += raw[1:]
        return True

    def wait(self) -> tuple[bytes, bytes, bytes]:
        """stdout, stderr and the status document, at the end."""
        while self._next():
            continue
        self.socket.close()
        return self.found[STDOUT], self.found[STDERR], self.found[STATUS]
