"""Containers through the CRI: their life, logs, limits, mounts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import pytest

from integration.engines.cri import Cri, CriError, Pod
from integration.engines.sandbox import Sandbox, Watch
from integration.lib.container import wait_until
from integration.lib.probe import mount_at

FOREVER = ["sleep", "1000"]
NewPod = Callable[..., Pod]


def resources(**limits: Any) -> dict[str, Any]:
    """The part of a container's config that limits it."""
    return {"linux": {"resources": limits}}


# ---- life ----


def test_life_of_a_container(cri: Cri, pod: Pod, leaks: Watch) -> None:
    """CreateContainer, StartContainer, StopContainer, RemoveContainer; status and list at every step."""
    container = pod.container(*FOREVER, labels={"a": "b"}, annotations={"c": "d"})
    assert container.state == "CREATED"
    assert container.status().started_at == 0
    container.start()
    status = container.status()
    assert container.state == "RUNNING"
    assert 0 < status.created_at <= status.started_at <= time.time_ns()
    assert (dict(status.labels), dict(status.annotations)) == ({"a": "b"}, {"c": "d"})
    assert [item.id for item in cri.call("ListContainers").containers if item.pod_sandbox_id == pod.id] == [
        container.id
    ]
    container.stop(0)
    status = container.status()
    assert (container.state, status.exit_code, status.reason) == ("EXITED", 137, "Error")
    assert status.started_at < status.finished_at <= time.time_ns()
    container.remove()
    assert container.id not in [item.id for item in cri.call("ListContainers").containers]
    leaks.check()


@pytest.mark.parametrize(("code", "reason"), [(0, "Completed"), (1, "Error"), (127, "Error"), (255, "Error")])
def test_exit_code(pod: Pod, code: int, reason: str) -> None:
    """The program's status, and a word for it."""
    container = pod.run("sh", "-c", f"exit {code}")
    assert container.wait() == code
    assert container.status().reason == reason


def test_stop_is_gentle_first(pod: Pod) -> None:
    """StopContainer sends SIGTERM and waits."""
    container = pod.run("sh", "-c", "trap 'sleep 0.2; exit 6' TERM; echo ready; while :; do sleep 0.05; done")
    container.wait_output("ready")
    container.stop(60)
    assert container.wait() == 6


def test_stop_is_not_gentle_forever(pod: Pod) -> None:
    """And kills after the time given."""
    container = pod.run("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    container.wait_output("ready")
    container.stop(1)
    assert container.wait() == 137


def test_remove_while_running(pod: Pod, leaks: Watch) -> None:
    """RemoveContainer kills; what it never started is only forgotten."""
    running, created = pod.run("sh", "-c", "setsid sleep 1000 & sleep 1000"), pod.container(*FOREVER)
    running.remove()
    created.remove()
    leaks.check()


def test_restart_of_a_killed_container(pod: Pod, sandbox: Sandbox, leaks: Watch) -> None:
    """The first process is killed from outside: the kubelet sees it, and makes the next attempt in the same pod."""
    first = pod.run(*FOREVER, metadata={"name": "main", "attempt": 0})
    sandbox.run(["kill", "-9", str(first.pid)]).ok()
    assert first.wait() == 137
    second = pod.run(*FOREVER, metadata={"name": "main", "attempt": 1})
    assert (first.state, second.state) == ("EXITED", "RUNNING")
    second.exec("true").ok()
    first.remove()
    assert second.state == "RUNNING"


@pytest.mark.parametrize(
    ("word", "texts"),
    [
        ("nosuch", ["nosuch", "executable file not found in $PATH"]),
        ("/no/such", ["/no/such", "no such file or directory"]),
        ("/etc/not-a-program", ["/etc/not-a-program", "permission denied"]),
    ],
)
def test_program_that_cannot_start(pod: Pod, leaks: Watch, word: str, texts: list[str]) -> None:
    """StartContainer says why in the runtime's words; the status repeats them, and nothing stays."""
    container = pod.container(word)
    with pytest.raises(CriError) as caught:
        container.start()
    status = container.status()
    for text in texts:
        assert text in caught.value.text and text in status.message
    assert (container.state, status.exit_code, status.reason) == ("EXITED", 128, "StartError")
    container.remove()
    leaks.check()


def test_mount_that_cannot_be_made(pod: Pod, tmp_path: Path, leaks: Watch) -> None:
    """A directory onto a file of the image."""
    container = pod.container("true", mounts=[{"container_path": "/srv/file", "host_path": str(tmp_path)}])
    with pytest.raises(CriError, match="/srv/file.*not a directory"):
        container.start()
    container.remove()
    leaks.check()


def test_many_at_once(new_pod: NewPod, leaks: Watch) -> None:
    """Ten containers in a pod, started one after the other, running together."""
    pod = new_pod()
    containers = [pod.run("sh", "-c", f"echo {n}; sleep 0.3; exit {n}") for n in range(10)]
    assert [container.wait() for container in containers] == list(range(10))
    assert [container.output() for container in containers] == [f"{n}\n" for n in range(10)]
    pod.remove()
    leaks.check()


# ---- what the program gets ----


def test_environment(pod: Pod) -> None:
    """The image's variables, then the container's; the host name of the pod."""
    envs = [{"key": "A", "value": "1 2"}, {"key": "B", "value": ""}, {"key": "IMAGE_VARIABLE", "value": "mine"}]
    lines = pod.sh("env", envs=envs).splitlines()
    assert {"A=1 2", "B=", "IMAGE_VARIABLE=mine", "PATH=/bin"} <= set(lines)


def test_command_and_arguments(pod: Pod) -> None:
    """Without a command, the arguments are the image's command's place; both together are one line."""
    container = pod.run("printf", args=["%s|", "a b", "", "$HOME"], working_dir="/srv")
    assert (container.wait(), container.output()) == (0, "a b||$HOME|")
    container = pod.run(args=["sh", "-c", "pwd"], working_dir="/srv")
    assert (container.wait(), container.output()) == (0, "/srv\n")


def test_working_directory_is_made(pod: Pod) -> None:
    """One that is missing."""
    assert pod.sh("pwd", working_dir="/not/there/yet") == "/not/there/yet\n"


def test_log_file(pod: Pod) -> None:
    """Streams apart, an unfinished line, a long line in parts."""
    container = pod.run("sh", "-c", "echo out; echo err >&2; printf end")
    assert container.wait() == 0
    assert sorted(container.lines()) == [("stderr", "F", "err"), ("stdout", "F", "out"), ("stdout", "P", "end")]
    long = pod.run("sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x; echo")
    assert long.wait() == 0
    assert [tag for _, tag, _ in long.lines()] == ["P", "P", "F"]
    assert long.output() == "x" * 40000 + "\n"


def test_rotated_log_file(cri: Cri, pod: Pod) -> None:
    """ReopenContainerLog: the old file keeps what it has."""
    container = pod.run("sh", "-c", "echo old; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo new")
    container.wait_output("old")
    moved = container.log.rename(container.log.with_suffix(".1"))
    cri.call("ReopenContainerLog", {"container_id": container.id})
    container.exec("touch", "/tmp/go").ok()
    assert container.wait() == 0
    assert container.output() == "new\n"
    assert "old" in moved.read_text() and "new" not in moved.read_text()


def test_termination_message(pod: Pod, tmp_path: Path) -> None:
    """terminationMessagePath is a bind mount of a file onto one that the image does not have."""
    tmp_path.joinpath("message").write_text("")
    mount = {"container_path": "/dev/termination-log", "host_path": str(tmp_path / "message")}
    container = pod.run("sh", "-c", "echo it was the disk >/dev/termination-log; exit 3", mounts=[mount])
    assert container.wait() == 3
    assert tmp_path.joinpath("message").read_text() == "it was the disk\n"


def test_device(pod: Pod, sandbox: Sandbox) -> None:
    """A device of the host under another name, with no more rights than given."""
    sandbox.run(["mknod", "/dev/loop-control", "c", "10", "237"]).ok()
    device = {"host_path": "/dev/loop-control", "container_path": "/dev/mine", "permissions": "r"}
    try:
        container = pod.run("sh", "-c", ": </dev/mine && echo read; : >/dev/mine", devices=[device])
    finally:
        sandbox.run(["rm", "/dev/loop-control"]).ok()
    assert container.wait() != 0
    if "No such device" in container.output("stderr"):
        pytest.skip("the kernel has no loop devices")
    assert container.output() == "read\n"
    assert "Operation not permitted" in container.output("stderr")


# ---- limits ----


def test_limits(pod: Pod, sandbox: Sandbox) -> None:
    """Memory, CPU time and shares, CPUs, OOM score."""
    limits = resources(
        memory_limit_in_bytes=64 << 20,
        cpu_period=100000,
        cpu_quota=50000,
        cpu_shares=512,
        cpuset_cpus="0",
        oom_score_adj=999,
    )
    paths = [
        sandbox.limit("memory", "memory.limit_in_bytes", "memory.max"),
        sandbox.limit("cpu", "cpu.cfs_quota_us", "cpu.max"),
        sandbox.limit("cpu", "cpu.shares", "cpu.weight"),
        sandbox.limit("cpuset", "cpuset.cpus", "cpuset.cpus"),
    ]
    lines = pod.sh(f"head -n 1 -q {' '.join(paths)} /proc/self/oom_score_adj", **limits).splitlines()
    assert [line.split()[0] for line in lines] == [
        str(64 << 20),
        "50000",
        "20" if sandbox.only_v2 else "512",
        "0",
        "999",
    ]


def test_update(cri: Cri, pod: Pod, sandbox: Sandbox) -> None:
    """UpdateContainerResources, as for pods that are resized in place and for the CPU manager."""
    memory = PurePath(sandbox.limit("memory", "memory.limit_in_bytes", "memory.max"))
    quota = sandbox.limit("cpu", "cpu.cfs_quota_us", "cpu.max")
    cpus = sandbox.limit("cpuset", "cpuset.cpus", "cpuset.cpus")
    container = pod.run(*FOREVER, **resources(memory_limit_in_bytes=64 << 20, cpu_quota=50000, cpu_period=100000))

    def now() -> list[str]:
        text = container.exec("head", "-n", "1", "-q", str(memory), quota, cpus).ok().text
        return [line.split()[0] if line else "" for line in text.splitlines()]

    assert now()[:2] == [str(64 << 20), "50000"]
    changes = {"memory_limit_in_bytes": 96 << 20, "cpu_quota": 30000, "cpu_period": 100000, "cpuset_cpus": "0"}
    cri.call("UpdateContainerResources", {"container_id": container.id, "linux": changes})
    assert now() == [str(96 << 20), "30000", "0"]
    cri.call("UpdateContainerResources", {"container_id": container.id, "linux": {"cpu_quota": 20000}})
    assert now() == [str(96 << 20), "20000", "0"]


def test_bad_update(cri: Cri, pod: Pod, sandbox: Sandbox) -> None:
    """A CPU that is not there: refused with a reason, and all is as it was."""
    cpus = sandbox.limit("cpuset", "cpuset.cpus", "cpuset.cpus")
    container = pod.run(*FOREVER)
    before = container.exec("cat", cpus).text
    with pytest.raises(CriError):
        cri.call("UpdateContainerResources", {"container_id": container.id, "linux": {"cpuset_cpus": "4000"}})
    assert container.exec("cat", cpus).text == before
    assert container.state == "RUNNING"


def test_update_before_the_start(cri: Cri, pod: Pod, sandbox: Sandbox) -> None:
    """Between CreateContainer and StartContainer: the CPU manager does that."""
    cpus = sandbox.limit("cpuset", "cpuset.cpus", "cpuset.cpus")
    container = pod.container("cat", cpus)
    cri.call("UpdateContainerResources", {"container_id": container.id, "linux": {"cpuset_cpus": "1"}})
    container.start()
    assert (container.wait(), container.output()) == (0, "1\n")


def test_stats(cri: Cri, pod: Pod, sandbox: Sandbox) -> None:
    """ContainerStats: CPU time and memory, which containerd reads from the cgroup that the runtime made."""
    sandbox.read_by_containerd()
    container = pod.run("sh", "-c", "probe alloc 16 >/dev/null; i=0; while :; do i=$((i+1)); done")

    def used() -> int:
        return int(cri.call("ContainerStats", {"container_id": container.id}).stats.cpu.usage_core_nano_seconds.value)

    wait_until(lambda: used() > 0, "the first numbers")
    first = used()
    wait_until(lambda: used() > first, "more CPU time")
    assert cri.call("ContainerStats", {"container_id": container.id}).stats.memory.working_set_bytes.value > 0


def test_out_of_memory(pod: Pod, sandbox: Sandbox) -> None:
    """The kernel kills it for its memory: the reason is OOMKilled."""
    sandbox.read_by_containerd()
    container = pod.run("probe", "alloc", "64", **resources(memory_limit_in_bytes=16 << 20))
    assert container.wait() == 137
    assert container.status().reason == "OOMKilled"


def test_out_of_memory_in_a_child(pod: Pod, sandbox: Sandbox) -> None:
    """A child of the container is killed; the event is the container's all the same."""
    sandbox.read_by_containerd()
    container = pod.run("sh", "-c", "probe alloc 64; sleep 2; exit 5", **resources(memory_limit_in_bytes=16 << 20))
    assert container.wait() == 5
    assert container.status().reason == "OOMKilled"


# ---- mounts ----


def test_read_only_mount(pod: Pod, tmp_path: Path) -> None:
    """One to write, one only to read."""
    tmp_path.joinpath("given").write_text("outside\n")
    mounts = [
        {"container_path": "/rw", "host_path": str(tmp_path)},
        {"container_path": "/ro", "host_path": str(tmp_path), "readonly": True},
    ]
    container = pod.run("sh", "-c", "cat /ro/given; echo inside >/rw/made; touch /ro/made2", mounts=mounts)
    assert container.wait() == 1
    assert container.output() == "outside\n"
    assert "Read-only file system" in container.output("stderr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given", "made"]


@pytest.mark.parametrize(
    ("mode", "tag"),
    [
        ("PROPAGATION_PRIVATE", ""),
        ("PROPAGATION_HOST_TO_CONTAINER", "master:"),
        ("PROPAGATION_BIDIRECTIONAL", "shared:"),
    ],
)
def test_propagation(pod: Pod, sandbox: Sandbox, engine_work: Path, mode: str, tag: str) -> None:
    """None, HostToContainer and Bidirectional, seen from inside when the host mounts something afterwards."""
    place = engine_work / mode.lower()
    place.joinpath("below").mkdir(parents=True)
    mounts = [{"container_path": "/mnt", "host_path": str(place), "propagation": mode}]
    container = pod.run(*FOREVER, mounts=mounts)
    lines = container.exec("cat", "/proc/self/mountinfo").ok().text
    tags = mount_at(lines, "/mnt").tags
    assert [word for word in tags if word.startswith(tag)] if tag else not tags
    sandbox.run(["mount", "-t", "tmpfs", "later", str(place / "below")]).ok()
    try:
        seen = "/mnt/below" in container.exec("cat", "/proc/self/mountinfo").ok().text
    finally:
        sandbox.run(["umount", str(place / "below")]).ok()
    assert seen == bool(tag)


def test_bidirectional_mount(pod: Pod, sandbox: Sandbox, engine_work: Path) -> None:
    """What a container with the right to mount mounts there, the host sees: a storage driver's pod."""
    place = engine_work / "from-inside"
    place.mkdir()
    mounts = [{"container_path": "/mnt", "host_path": str(place), "propagation": "PROPAGATION_BIDIRECTIONAL"}]
    rights = {"linux": {"security_context": {"capabilities": {"add_capabilities": ["SYS_ADMIN"]}}}}
    container = pod.run(*FOREVER, mounts=mounts, **rights)
    container.exec("mount", "-t", "tmpfs", "inner", "/mnt").ok()
    assert any(line.split()[1] == str(place) for line in sandbox.look()["mounts"])
    container.exec("umount", "/mnt").ok()
    assert not any(line.split()[1] == str(place) for line in sandbox.look()["mounts"])
