"""Pods, and what play kube makes of a description: containers that share namespaces, started and stopped together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.engines.conftest import needs
from integration.engines.engines import Podman
from integration.engines.image import IMAGE
from integration.engines.sandbox import Sandbox, Watch
from integration.lib.container import wait_until

FOREVER = ["sleep", "1000"]
SHARED = ("ipc", "net", "uts")


@pytest.fixture
def pods(podman: Podman, leaks: Watch, request: pytest.FixtureRequest) -> Iterator[Podman]:
    """podman; its pods are removed at the end, their infra containers are made from the test image."""
    yield podman
    podman("pod", "rm", "-f", "-a", "-t", "0")
    podman("volume", "prune", "-f")


def make(podman: Podman, *options: str) -> str:
    """pod create; the name of the pod."""
    needs("catatonit")  # what podman makes the image of a pod's first container from
    name = f"pod-{podman.name()}"
    podman("pod", "create", "--name", name, *options).ok()
    return name


def member(podman: Podman, pod: str, *words: str, options: tuple[str, ...] = ()) -> str:
    """run -d in a pod."""
    name = podman.name()
    podman("run", "-d", "--name", name, "--pod", pod, *options, IMAGE, *words).ok()
    return name


def namespaces(podman: Podman, sandbox: Sandbox, name: str) -> dict[str, str]:
    """Kind -> identity, of a container."""
    pid = podman.inspect(name)["State"]["Pid"]
    return {
        kind: sandbox.run(["readlink", f"/proc/{pid}/ns/{kind}"]).ok().text.strip() for kind in (*SHARED, "mnt", "pid")
    }


def test_life(pods: Podman, sandbox: Sandbox, leaks: Watch) -> None:
    """create, two members, pause, stop, start, rm: all members follow, and nothing is left."""
    pod = make(pods)
    first, second = (member(pods, pod, *FOREVER, options=("--stop-timeout", "0")) for _ in range(2))
    one, two = namespaces(pods, sandbox, first), namespaces(pods, sandbox, second)
    assert {kind for kind in one if one[kind] == two[kind]} == set(SHARED)
    pods("pod", "pause", pod).ok()
    assert [pods.inspect(name)["State"]["Status"] for name in (first, second)] == ["paused"] * 2
    pods("pod", "unpause", pod).ok()
    pods("pod", "stop", "-t", "0", pod).ok()
    assert [pods.inspect(name)["State"]["Status"] for name in (first, second)] == ["exited"] * 2
    pods("pod", "start", pod).ok()
    assert [pods.inspect(name)["State"]["Status"] for name in (first, second)] == ["running"] * 2
    pods("pod", "kill", pod).ok()
    pods("pod", "rm", "-f", "-t", "0", pod).ok()
    leaks.check()


def test_members_talk(pods: Podman) -> None:
    """What one member serves on the loopback device the other one reaches."""
    pod = make(pods)
    server = member(pods, pod, "sh", "-c", "echo ready; while :; do echo hello | nc -l -p 7000; done")
    pods.wait_logs(server, "ready")
    script = "for i in $(seq 150); do nc 127.0.0.1 7000 </dev/null && exit; sleep 0.2; done; exit 1"
    assert pods("run", "--rm", "--pod", pod, IMAGE, "sh", "-c", script).ok().text == "hello\n"


def test_share_pid(pods: Podman) -> None:
    """--share pid: members see each other's processes."""
    pod = make(pods, "--share", "pid,ipc,net,uts")
    member(pods, pod, "sleep", "777")
    assert "sleep 777" in pods("run", "--rm", "--pod", pod, IMAGE, "ps", "-o", "args").ok().text


def test_share_memory(pods: Podman) -> None:
    """/dev/shm is the pod's."""
    pod = make(pods)
    pods("run", "--rm", "--pod", pod, IMAGE, "sh", "-c", "echo left here >/dev/shm/note").ok()
    assert pods("run", "--rm", "--pod", pod, IMAGE, "cat", "/dev/shm/note").ok().text == "left here\n"


def test_hostname(pods: Podman) -> None:
    """The pod's name is every member's."""
    pod = make(pods, "--hostname", "the-pod")
    assert pods("run", "--rm", "--pod", pod, IMAGE, "hostname").ok().text == "the-pod\n"


def test_user_namespace(pods: Podman, sandbox: Sandbox) -> None:
    """--userns=auto: one user namespace for all; exec works in it."""
    pod = make(pods, "--uidmap", "0:100000:2000", "--gidmap", "0:100000:2000")
    name = member(pods, pod, *FOREVER)
    pid = pods.inspect(name)["State"]["Pid"]
    assert sandbox.read(f"/proc/{pid}/uid_map").split() == ["0", "100000", "2000"]
    assert pods("exec", name, "id", "-u").ok().text == "0\n"


def test_limits_of_the_pod(pods: Podman, sandbox: Sandbox) -> None:
    """--memory of the pod holds for its members together: it is on their common cgroup."""
    sandbox.limit("memory", "", "")
    if not sandbox.only_v2:
        pytest.skip("podman sets limits of pods on cgroup2 only")
    pod = make(pods, "--memory", "64m")
    name = member(pods, pod, *FOREVER)
    group = sandbox.read(f"/proc/{pods.inspect(name)['State']['Pid']}/cgroup").partition("::")[2].strip()
    assert sandbox.read(f"/sys/fs/cgroup{Path(group).parent}/memory.max").strip() == str(64 << 20)


def test_init_container(pods: Podman) -> None:
    """An init container ends before the others start."""
    pod = make(pods)
    volume = pods.name()
    pods(
        "create", "--pod", pod, "--init-ctr", "always", "-v", f"{volume}:/data", IMAGE, "sh", "-c", "echo 1 >/data/x"
    ).ok()
    name = pods.name()
    pods("create", "--pod", pod, "--name", name, "-v", f"{volume}:/data", IMAGE, "sh", "-c", "cat /data/x").ok()
    pods("pod", "start", pod).ok()
    pods.wait_logs(name, "1")


KUBE = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
data:
  WORD: from-the-map
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
spec:
  hostname: kube-host
  restartPolicy: Never
  volumes:
  - name: shared
    emptyDir: {{}}
  - name: outside
    hostPath:
      path: {directory}
      type: Directory
  containers:
  - name: writer
    image: localhost/bb:latest
    command: ["sh", "-c"]
    args: ["echo $WORD $OTHER >/shared/note; exec sleep 1000"]
    env:
    - name: OTHER
      value: from-the-pod
    envFrom:
    - configMapRef:
        name: settings
    volumeMounts:
    - name: shared
      mountPath: /shared
  - name: reader
    image: localhost/bb:latest
    command: ["sh", "-c"]
    args:
    - until grep -qs from-the-pod /shared/note; do sleep 0.1; done;
      cat /shared/note; id -u; cat /outside/given; hostname; exec sleep 1000
    securityContext:
      runAsUser: 1000
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: [ALL]
    resources:
      limits:
        memory: 64Mi
    volumeMounts:
    - name: shared
      mountPath: /shared
    - name: outside
      mountPath: /outside
      readOnly: true
"""


def test_play_kube(pods: Podman, sandbox: Sandbox, leaks: Watch, tmp_path: Path) -> None:
    """play kube: two containers, a volume, a map of settings, a security context; --down takes all away."""
    name = f"kube-{pods.name()}"
    tmp_path.joinpath("given").write_text("from-outside\n")
    text = KUBE.format(name=name, directory=tmp_path)
    if "memory" not in sandbox.controllers:
        text = text.replace("    resources:\n      limits:\n        memory: 64Mi\n", "")
    tmp_path.joinpath("pod.yaml").write_text(text)
    pods("play", "kube", "--network", "none", str(tmp_path / "pod.yaml")).ok()
    reader = f"{name}-reader"
    pods.wait_logs(reader, "kube-host")
    assert pods("logs", reader).ok().text.split() == [
        "from-the-map", "from-the-pod", "1000", "from-outside", "kube-host",
    ]  # fmt: skip
    status = pods("exec", reader, "probe", "report").ok().replies[0]["status"]
    assert (status["NoNewPrivs"], int(status["CapBnd"], 16)) == ("1", 0)
    assert "Read-only file system" in pods("exec", "--user", "0", reader, "touch", "/x").error
    if "memory" in sandbox.controllers:
        path = sandbox.limit("memory", "memory.limit_in_bytes", "memory.max")
        assert pods("exec", reader, "cat", path).ok().text.strip() == str(64 << 20)
    pods("play", "kube", "--down", str(tmp_path / "pod.yaml")).ok()
    pods("volume", "prune", "-f").ok()
    leaks.check()


def test_generate_kube(pods: Podman, tmp_path: Path) -> None:
    """generate kube of a running pod, and play kube of what it says."""
    pod = make(pods)
    member(pods, pod, "sleep", "888")
    text = pods("generate", "kube", pod).ok().text
    pods("pod", "rm", "-f", "-t", "0", pod).ok()
    tmp_path.joinpath("pod.yaml").write_text(text)
    pods("play", "kube", "--network", "none", str(tmp_path / "pod.yaml")).ok()
    wait_until(lambda: "sleep 888" in pods("pod", "top", pod, "args").text, "the member")


def test_like_compose(pods: Podman) -> None:
    """Three services, each started when the one it needs runs or is healthy."""
    database, application, volume = pods.name(), pods.name(), pods.name()
    script = "sleep 0.3; touch /data/up; exec sleep 1000"
    health = ["--health-cmd", "test -e /data/up", "--health-interval", "disable"]
    data = ["-v", f"{volume}:/data"]
    pods("create", "--name", database, *data, *health, IMAGE, "sh", "-c", script).ok()
    script = "test -e /data/up && echo database is up; exec sleep 1000"
    pods("create", "--name", application, "--requires", database, *data, IMAGE, "sh", "-c", script).ok()
    pods("start", database).ok()
    wait_until(lambda: pods("healthcheck", "run", database).code == 0, "the database")
    pods("start", application).ok()
    pods.wait_logs(application, "database is up")
    assert pods("rm", database).code != 0
    for name in (application, database):
        pods("rm", "-f", "-t", "0", name).ok()
