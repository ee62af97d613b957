"""The Python library: the same as the command line without a process start; and every op of a plan made to fail."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from integration.lib.bundle import Bundle
from integration.lib.container import Container
from integration.lib.leaks import Leaks
from integration.lib.probe import mount_at
from integration.lib.runtime import Runtime as Tested

pytestmark = pytest.mark.ours_only("no other runtime is a Python library")


class Library:
    """A Runtime whose methods are called by whoever runs the runtime; so are functions that want a Runtime first."""

    def __init__(self, runtime: Any, caller: AbstractContextManager[None]) -> None:
        self.runtime = runtime
        self.caller = caller

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **named: self.call(getattr(type(self.runtime), name), *args, **named)

    def call(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """function(the Runtime, ...)"""
        with self.caller:
            return function(self.runtime, *args, **named)


@pytest.fixture
def library(runtime: Tested, caller: AbstractContextManager[None]) -> Library:
    """A Runtime on the session's state root."""
    native = pytest.importorskip("ociruntime.shim._native", reason="the compiled module is not built for this Python")
    assert native
    from ociruntime import Runtime
    from ociruntime.log import Log

    return Library(Runtime(str(runtime.root), log=Log(level=40)), caller)


def fds() -> dict[str, str]:
    """Our own open files."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return found


def reap(pid: int) -> None:
    """The init process is a child of the caller of create."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def test_life_cycle(library: Library, container: Container, leaks: Leaks) -> None:
    """create, start, state, kill, delete as methods."""
    container.bundle.args("pause")
    container.bundle.write()
    name = container.id
    pid = library.create(str(container.bundle.path), name)
    assert library.state(name)["status"] == "created"
    assert library.state(name)["pid"] == pid
    library.start(name)
    assert library.state(name)["status"] == "running"
    assert [entry["id"] for entry in library.list()] == [name]
    library.kill(name, 9)
    reap(pid)
    assert library.state(name)["status"] == "stopped"
    library.delete(name)
    leaks.check()


def test_errors_have_facts(library: Library, container: Container, leaks: Leaks) -> None:
    """An exception carries pointer, call, errno and object."""
    from ociruntime.errors import ConfigError, ExistsError, NotFoundError, OCIError, StepError

    container.bundle.mount("/data", "none", "size=much", type="tmpfs")
    container.bundle.write()
    bundle = str(container.bundle.path)
    with pytest.raises(StepError) as step:
        library.create(bundle, container.id)
    index = len(container.bundle.config["mounts"]) - 1
    assert (step.value.pointer, step.value.call, step.value.errno) == (f"/mounts/{index}", "fsconfig", 22)
    assert "size" in step.value.path
    with pytest.raises(NotFoundError):
        library.state(container.id)
    (container.bundle.path / "config.json").write_text('{"ociVersion": "1.0.0"}')
    with pytest.raises(ConfigError):
        library.create(bundle, container.id)
    assert issubclass(ExistsError, OCIError)
    leaks.check()


@pytest.mark.parametrize("user_namespace", [False, True])
def test_overlay_layers_on_older_kernels(
    library: Library,
    container: Container,
    leaks: Leaks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    user_namespace: bool,
) -> None:
    """Before Linux 6.8 layers with long names are called by their numbers: 64 at least, in one option [M3]."""
    if user_namespace:
        container.bundle.user_namespace()
    monkeypatch.setattr("ociruntime.host.parse_release", lambda release: (6, 1))
    layers = [tmp_path / f"{number:02}:{'x' * 100}" for number in range(64)]
    for number, layer in enumerate(layers):
        layer.mkdir()
        (layer / f"only-{number:02}").touch()
    names = ":".join(str(layer).replace(":", "\\:") for layer in layers)
    container.bundle.mount("/data", "overlay", f"lowerdir={names}", type="overlay")
    container.bundle.args("ls /data", "report", "pause")
    container.bundle.write()
    with container.output_file.open("wb") as out:
        saved = os.dup(1)
        os.dup2(out.fileno(), 1)
        try:
            pid = library.create(str(container.bundle.path), container.id)
        finally:
            os.dup2(saved, 1)
            os.close(saved)
    library.start(container.id)
    container.wait_replies(3)
    listed, report, _ = container.replies
    assert listed["names"] == [f"only-{number:02}" for number in range(64)]
    assert set(report["fds"]) == {"0", "1", "2"}
    assert report["cwd"] == "/"
    assert not any("x" * 100 in option for option in mount_at(report["mountinfo"], "/data").super_options)
    library.delete(container.id, force=True)
    reap(pid)
    leaks.check()


def count_ops(library: Library, bundle: Bundle, name: str) -> int:
    """How many ops the plan of this bundle has (one create with a trace)."""
    from ociruntime.lifecycle import create, request as requests

    done = library.call(create.create, requests.CreateRequest(str(bundle.path), name, trace=True))
    os.close(done.pidfd)
    library.delete(name, force=True)
    reap(done.pid)
    traced = [op.kind for op, start, end in done.trace if end >= start]
    assert {"mount", "rootfs", "pivot", "mask", "lookup"} <= set(traced)
    return len(done.trace)


@pytest.mark.parametrize("user_namespace", [False, True])
def test_every_op_may_fail(library: Library, container: Container, leaks: Leaks, user_namespace: bool) -> None:
    """Whichever step fails: an error that names it, and nothing is left."""
    from ociruntime.errors import OCIError
    from ociruntime.lifecycle import create, request as requests

    if user_namespace:
        container.bundle.user_namespace()
    container.bundle.linux(sysctl={"net.ipv4.ip_forward": "1"}, rootfsPropagation="rslave")
    container.bundle.process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}], oomScoreAdj=100)
    container.bundle.process(scheduler={"policy": "SCHED_BATCH"}, ioPriority={"class": "IOPRIO_CLASS_IDLE"})
    container.bundle.linux(personality={"domain": "LINUX32"}, memoryPolicy={"mode": "MPOL_LOCAL"})
    container.bundle.mount("/host", "/usr", "rbind", "ro")
    container.bundle.write()
    before = fds()
    total = count_ops(library, container.bundle, container.id)
    assert total > 40
    for index in range(total):
        request = requests.CreateRequest(
            str(container.bundle.path),
            container.id,
            pid_file=f"{container.bundle.path}/pid",
            fail_op=index,
            fail_errno=5,
        )
        with pytest.raises(OCIError) as caught:
            library.call(create.create, request)
        assert caught.value.errno == 5 and caught.value.call == "fault injection", f"op {index}: {caught.value}"
        assert caught.value.step
        assert not (container.bundle.path / "pid").exists()
        if index % 10 == 0:
            leaks.check()
    leaks.check()
    assert fds() == before


def test_no_fd_is_lost(library: Library, container: Container) -> None:
    """Many cycles in one process: the same open files at the end, no child left."""
    container.bundle.args("pause")
    container.bundle.write()
    name = container.id
    before = None
    for _ in range(60):
        pid = library.create(str(container.bundle.path), name)
        library.start(name)
        library.delete(name, force=True)
        reap(pid)
        before = before or fds()
    assert fds() == before


def test_threads(library: Library, runtime: Tested, container: Container, leaks: Leaks) -> None:
    """Several threads create and delete at once, each a container of its own."""
    container.bundle.args("pause")
    container.bundle.config["linux"].pop("cgroupsPath")
    container.bundle.write()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        name = f"{container.id}-{number}"
        try:
            for _ in range(5):
                pid = library.create(str(container.bundle.path), name)
                library.start(name)
                assert library.state(name)["status"] == "running"
                library.delete(name, force=True)
                reap(pid)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    with library.caller:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures, failures
    leaks.check()


def test_trace_names_fields(library: Library, container: Container) -> None:
    """The time of each op, with the pointer of the field it came from."""
    from ociruntime.lifecycle import create, request as requests

    container.bundle.write()
    done = library.call(create.create, requests.CreateRequest(str(container.bundle.path), container.id, trace=True))
    os.close(done.pidfd)
    library.delete(container.id, force=True)
    reap(done.pid)
    pointers = {op.pointer for op, _, _ in done.trace}
    assert {"/mounts/0", "/linux/maskedPaths/0", "/process/user", "/root/path"} <= pointers
    assert all(start <= end for _, start, end in done.trace)


def test_hot_bytes_are_json(library: Library, container: Container, runtime: Tested) -> None:
    """state.json is one JSON object, and the config is kept as it was given."""
    container.bundle.args("pause")
    container.bundle.write()
    pid = library.create(str(container.bundle.path), container.id)
    directory = Path(runtime.root) / container.id
    assert json.loads((directory / "state.json").read_text())["pid"] == pid
    with library.caller:
        assert {path.stat().st_uid for path in (directory, directory / "state.json")} == {os.geteuid()}
    assert os.getresuid() == (0, 0, 0)
    assert (directory / "config.json").read_bytes() == (container.bundle.path / "config.json").read_bytes()
    library.delete(container.id, force=True)
    reap(pid)
