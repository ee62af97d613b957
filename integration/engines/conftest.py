"""Fixtures of the engine tests: one sandbox for all of them, an engine in it, and a look at what each test left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import TOKEN, _runtime
from integration.engines import image as images
from integration.engines.cri import Cri, Pod
from integration.engines.docker import DaemonError, Docker
from integration.engines.engines import Ctr, Podman, Rootless
from integration.engines.sandbox import PATH, USERS, Sandbox, Watch
from integration.lib import host, leaks as leak_tools
from integration.lib.differences import Difference, load as load_differences
from integration.lib.runtime import Runtime

HERE = Path(__file__).resolve().parent
DIFFERENCES: list[Difference] = load_differences(HERE / "README.md")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Apply the table of README.md: what other runtimes do differently below an engine."""
    if os.geteuid() != 0:
        return
    names = [_runtime(item.config).name]
    if only_v2() or host.cgroup_mode() == "v2":
        names.append(names[0] + " on v2")
    for difference in DIFFERENCES:
        if any(difference.matches(name, f"{item.path.name}::{item.name}") for name in names):
            if difference.how == "skip":
                pytest.skip(difference.reason)
            item.add_marker(pytest.mark.xfail(reason=difference.reason, strict=False))


def only_v2() -> bool:
    """Whether the sandbox is to have cgroup2 and nothing else."""
    return os.environ.get("ENGINE_CGROUPS") == "v2"


def needs(*programs: str) -> None:
    """Skip when a program is missing."""
    missing = [name for name in programs if not shutil.which(name, path=PATH)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="package")
def runtime(pytestconfig: pytest.Config) -> Runtime:
    """The runtime under test."""
    return _runtime(pytestconfig)


@pytest.fixture(scope="package")
def engine_work(work: Path) -> Iterator[Path]:
    """Stores and settings of the engines."""
    path = work / "engines"
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="package")
def sandbox(engine_work: Path) -> Iterator[Sandbox]:
    """The sandbox. When it is closed the machine must be as it was."""
    needs("unshare", "mount")
    if not host.cgroup_mounts():
        pytest.skip("no cgroups")
    if not images.busybox():
        pytest.skip("not installed: busybox-static")
    mounts = host.own_mountinfo()
    if only_v2() and "" not in host.cgroup_mounts():
        pytest.skip("no cgroup2")
    box = Sandbox(engine_work, f"ociruntime-engines-{TOKEN}", only_v2())
    yield box
    left = box.close()
    assert not left, f"cgroups left: {left}"
    assert [line for line in host.own_mountinfo() if line not in mounts] == []
    assert not leak_tools.processes_with(TOKEN)


@pytest.fixture(scope="package")
def image(engine_work: Path, probe: Path) -> Path:
    """The archive of the image."""
    return images.make(engine_work / "image.tar", probe)


@pytest.fixture(scope="package")
def podman(sandbox: Sandbox, engine_work: Path, runtime: Runtime, image: Path) -> Podman:
    """podman, with the image loaded."""
    needs("podman", "conmon")
    engine = Podman(sandbox, engine_work, runtime.path)
    engine("load", "-i", str(image)).ok()
    assert engine.run("true").code == 0
    return engine


def reachable(sandbox: Sandbox, work: Path, runtime: Runtime) -> str:
    """The runtime where an ordinary user can start it: where it is, or a copy."""
    uid = str(USERS["engine-a"][0])
    if sandbox.run(["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "test", "-x", runtime.path]).code == 0:
        return runtime.path
    copy = work / "bin" / runtime.name
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(runtime.path, copy)
    return str(copy)


@pytest.fixture(scope="package")
def rootless_users(sandbox: Sandbox, engine_work: Path, runtime: Runtime, image: Path) -> list[Rootless]:
    """podman of two ordinary users, each with the image."""
    needs("podman", "conmon", "newuidmap", "setpriv")
    path = reachable(sandbox, engine_work, runtime)
    users = [Rootless(sandbox, engine_work, path, user) for user in USERS]
    for user in users:
        user("load", "-i", str(image)).ok()
        assert user.run("true").code == 0
    return users


@pytest.fixture
def rootless(rootless_users: list[Rootless]) -> Rootless:
    """podman of an ordinary user."""
    return rootless_users[0]


@pytest.fixture(scope="package")
def ctr(sandbox: Sandbox, engine_work: Path, runtime: Runtime, image: Path) -> Ctr:
    """ctr and containerd, with the image loaded."""
    needs("containerd", "ctr", "containerd-shim-runc-v2")
    if "cpu" not in sandbox.controllers:
        pytest.skip("containerd always asks for cpu shares: no cpu controller in cgroup2 here")
    engine = Ctr(sandbox, engine_work, runtime.path)
    engine("image", "import", str(image)).ok()
    return engine


@pytest.fixture(scope="package")
def cri(sandbox: Sandbox, engine_work: Path, runtime: Runtime, image: Path, probe: Path) -> Iterator[Cri]:
    """containerd with its CRI plugin, the images loaded, and one pod come and gone: it has made what is kept."""
    needs("containerd", "ctr", "containerd-shim-runc-v2", "ip", "/usr/lib/cni/bridge")
    for module in ("grpc", "grpc_tools", "websocket"):
        pytest.importorskip(module)
    if "cpu" not in sandbox.controllers:
        pytest.skip("containerd always asks for cpu shares: no cpu controller in cgroup2 here")
    sandbox.run(["ip", "link", "set", "lo", "up"]).ok()
    service = Cri(sandbox, engine_work / "cri", runtime.path)
    pause = images.make(engine_work / "pause.tar", probe, images.PAUSE_IMAGE, ["probe", "pause"])
    for archive in (image, pause):
        service.ctr("image", "import", str(archive)).ok()
    service.pod().remove()
    yield service
    service.close()


@pytest.fixture
def new_pod(cri: Cri, leaks: Watch) -> Iterator[Callable[..., Pod]]:
    """Makes pods, which are removed after the test."""
    pods: list[Pod] = []

    def make(changes: dict[str, Any] | None = None, handler: str = "custom") -> Pod:
        pods.append(cri.pod(changes, handler))
        return pods[-1]

    yield make
    for pod in pods:
        pod.remove()


@pytest.fixture(scope="module")
def shared_pod(cri: Cri) -> Iterator[Pod]:
    """A pod for all tests of a file."""
    pod = cri.pod()
    yield pod
    pod.remove()


@pytest.fixture
def pod(shared_pod: Pod, leaks: Watch) -> Iterator[Pod]:
    """A pod; its containers are removed after the test."""
    yield shared_pod
    shared_pod.clear()


@pytest.fixture(scope="package")
def docker_sandbox(sandbox: Sandbox, engine_work: Path) -> Iterator[Sandbox]:
    """A sandbox for dockerd alone: it changes the packet filter of its network namespace for everybody there."""
    if only_v2() or sandbox.only_v2:
        pytest.skip("dockerd needs the controllers of cgroup v1 here: cgroup2 alone has too few")
    work = engine_work / "docker"
    work.mkdir(mode=0o711)
    box = Sandbox(work, f"ociruntime-engines-{TOKEN}-docker", False)
    yield box
    left = box.close()
    assert not left, f"cgroups left: {left}"


@pytest.fixture(scope="package")
def docker(docker_sandbox: Sandbox, engine_work: Path, runtime: Runtime, probe: Path) -> Docker:
    """docker and dockerd, with the image loaded."""
    needs("dockerd", "docker", "containerd", "containerd-shim-runc-v2", "iptables", "ip")
    try:
        engine = Docker(docker_sandbox, engine_work / "docker", runtime.path)
    except DaemonError as error:
        pytest.skip(f"dockerd does not start: {error}")
    engine.load(images.layer(probe))
    return engine


@pytest.fixture(autouse=True)
def leaks(request: pytest.FixtureRequest) -> Iterator[Watch]:
    """Every test leaves the sandbox as it was: no process, cgroup, mount or state of a container."""
    docker = "docker" in request.fixturenames
    watch = Watch(request.getfixturevalue("docker_sandbox" if docker else "sandbox"))
    yield watch
    if "podman" in request.fixturenames:
        request.getfixturevalue("podman")("rm", "-f", "-a", "-t", "0")
    if docker:
        request.getfixturevalue("docker").clear()
    if "rootless_users" in request.fixturenames:
        for user in request.getfixturevalue("rootless_users"):
            user("rm", "-f", "-a", "-t", "0")
    report = watch.found()
    if report:
        pytest.fail("left behind:\n" + "\n".join(report), pytrace=False)
