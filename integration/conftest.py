"""Fixtures and rules of the black-box suite. README.md says how to run it."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from integration.lib import host, leaks as leak_tools, probe as probes, rootless
from integration.lib.bundle import CGROUP_PREFIX, Bundle
from integration.lib.container import Container
from integration.lib.differences import Difference, load as load_differences, load_rootless
from integration.lib.leaks import Leaks
from integration.lib.rootless import User
from integration.lib.runtime import Runtime
from integration.lib.systemd import Managed, gone, systemctl, unit_of

TOP = Path(__file__).resolve().parent.parent
TOKEN = f"it{os.getpid()}x"
_numbers = itertools.count(1)
_kept_children: set[int] = set()
_private: list[str] = []
_places: list[Path] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the suite."""
    parser.addoption("--oci-runtime", default=None, help="runtime under test (default: $OCI_RUNTIME, build/ociruntime)")
    parser.addoption(
        "--hide-cgroup2",
        choices=("auto", "always", "never"),
        default="auto",
        help="run in a view without cgroup2 (auto: for crun, which refuses a hybrid machine with v2 controllers)",
    )
    parser.addoption("--rootless", action="store_true", help="run the runtime as an ordinary user with subordinate IDs")
    parser.addoption("--slow", action="store_true", help="full counts for the race and loop tests (also IT_SLOW=1)")


def runtime_path(config: pytest.Config) -> str:
    """The runtime under test as an absolute path."""
    given = config.getoption("--oci-runtime") or os.environ.get("OCI_RUNTIME") or str(TOP / "build" / "ociruntime")
    return given if "/" in given and os.path.isabs(given) else _search(given)


def _search(name: str) -> str:
    if "/" in name:
        return os.path.abspath(name)
    for directory in (*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/usr/bin", "/sbin"):
        if directory and os.access(os.path.join(directory, name), os.X_OK):
            return os.path.join(directory, name)
    return name


def pytest_configure(config: pytest.Config) -> None:
    """Markers; then leave the machine's mount namespace and become the reaper of orphans."""
    config.addinivalue_line("markers", "requires(*needs): skipped, with the reason, when this machine lacks one")
    config.addinivalue_line("markers", "ours_only(reason): a decision of this project; skipped for other runtimes")
    if config.option.collectonly or os.geteuid() != 0:
        return
    path = runtime_path(config)
    if not os.access(path, os.X_OK):
        pytest.exit(f"no runtime to test: '{path}' (make build, or set OCI_RUNTIME)", returncode=4)
    if not _private:
        host.private_mounts()
        host.open_way(Path(__file__).resolve())
        host.become_subreaper()
        version = subprocess.run([path, "--version"], capture_output=True, timeout=30, check=False).stdout
        wish = config.getoption("--hide-cgroup2")
        if wish == "always" or (wish == "auto" and version.startswith(b"crun ") and host.v2_controllers()):
            host.hide_v2()
        leak_tools.sweep()
        if config.getoption("--rootless"):
            _become_ordinary(path)
        leak_tools.make_prefixes()
        _private.append(path)


_users: list[User] = []
_acting: list[rootless.Acting] = []


def _become_ordinary(path: str) -> None:
    """From now on the runtime is run by a user with subordinate IDs, in cgroups that are given to it."""
    work = _work()
    user = User("ordinary", 47901, 400000, work)
    _users.append(user)
    rootless.introduce([user], work)
    os.chown(work, user.uid, user.gid)
    if subprocess.run([*user.prefix(), path, "--version"], capture_output=True, timeout=30, check=False).returncode:
        pytest.exit(f"'{path}' cannot be run by an ordinary user: it is below a closed directory", returncode=4)

    def prepare(bundle: Path, config: Any) -> Any:
        user.own(bundle)
        for place in _places:
            user.own(place)
        return rootless.transformed(config, user)

    Bundle.on_write = prepare
    leak_tools.on_prefix = lambda directory: rootless.delegate(directory, user)


def _prefix() -> list[str]:
    """What the runtime is run by: with --rootless the user, from a cgroup of its own where it may clone into others."""
    if not _users:
        return []
    lines = ["#!/bin/sh"]
    unified = host.cgroup_mounts().get("")
    own = ""
    if unified:
        own = os.path.join(unified, CGROUP_PREFIX, "user")
        Path(own).mkdir(exist_ok=True)
        rootless.delegate(own, _users[0])
        # in a view of its own (runtime_v2) cgroup2 is in the usual place
        places = f"{own}/cgroup.procs /sys/fs/cgroup/{CGROUP_PREFIX}/user/cgroup.procs"
        lines.append(f"for file in {places}; do test -e $file && echo 0 >$file && break; done")
    _acting.append(rootless.Acting(_users[0], own))
    lines.append(f'exec {" ".join(_users[0].prefix(clean=False))} "$@"')
    script = _work() / "as-user"
    script.write_text("\n".join(lines) + "\n")
    script.chmod(0o755)
    return [str(script)]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take the cgroups of the session away."""
    if _private:
        _private.clear()
        left = leak_tools.remove_prefixes(TOKEN)
        if left:
            print("cgroups left:", *left)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """What is tested where."""
    path = runtime_path(config)
    try:
        version = subprocess.run([path, "--version"], capture_output=True, timeout=30, check=False).stdout.decode()
    except OSError as error:
        version = str(error)
    return [
        f"OCI runtime: {path} ({' '.join(version.split()[:3])})",
        f"kernel {os.uname().release}, cgroups {host.cgroup_mode()}, v2 controllers {sorted(host.v2_controllers())}",
    ]


def lacking(need: str, runtime: Runtime | None = None) -> str:
    """Why this need is not met here; "" when it is."""
    kind, _, detail = need.partition(":")
    answer = ""
    if kind == "root":
        answer = "" if os.geteuid() == 0 else "root is needed"
    elif kind == "v1":
        if detail not in host.cgroup_mounts() and detail:
            answer = f"no v1 hierarchy for {detail}"
        elif not detail and host.cgroup_mode() not in ("v1", "hybrid"):
            answer = "no cgroup v1"
    elif kind == "v2":
        if "" not in host.cgroup_mounts():
            answer = "no cgroup2"
        elif detail and detail not in host.v2_controllers():
            answer = f"cgroup2 has no {detail} controller here"
    elif kind == "cap":
        held = host.capability_bounding() >> probes.CAPABILITIES.index(detail) & 1
        answer = "" if held else f"CAP_{detail} is not in the bounding set here"
    elif kind == "userns":
        answer = "" if host.can("-U") else "no user namespaces"
    elif kind == "timens":
        answer = "" if host.can("-T") else "no time namespaces"
    elif kind == "kernel":
        major, minor = (int(word) for word in detail.split("."))
        answer = "" if host.kernel() >= (major, minor) else f"needs kernel {detail}"
    elif kind == "apparmor":
        answer = host.apparmor()
    elif kind == "systemd":
        answer = host.lacks_systemd(detail if detail == "v1" else "v2")
        if not answer and detail == "user" and not host.systemd_user():
            answer = "no user has a systemd manager of its own here"
    elif kind == "file":
        answer = "" if os.path.exists(detail) else f"no {detail}"
    else:
        raise ValueError(f"unknown need {need}")
    return answer


def requires(*needs: str) -> None:
    """Skip the running test, with the reason, when a need is not met."""
    for need in needs:
        reason = lacking(need)
        if reason:
            pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Apply requires, ours_only and the table of DIFFERENCES.md."""
    reason = lacking("root")
    for mark in item.iter_markers("requires"):
        for need in mark.args:
            reason = reason or lacking(need)
    if reason:
        pytest.skip(reason)
    runtime = _runtime(item.config)
    for mark in item.iter_markers("ours_only"):
        if not runtime.ours:
            pytest.skip(f"a decision of ociruntime: {mark.args[0]}")
    if item.config.getoption("--rootless"):
        for row in _needs_root():
            if row.matches("rootless", f"{item.path.name}::{item.name}"):
                pytest.skip(f"rootless: {row.text}")
    for difference in _differences():
        if difference.matches(runtime.name, f"{item.path.name}::{item.name}"):
            if difference.how == "skip":
                pytest.skip(difference.reason)
            item.add_marker(pytest.mark.xfail(reason=difference.reason, strict=False))


@cache
def _differences() -> list[Difference]:
    return load_differences()


@cache
def _needs_root() -> list[Difference]:
    return load_rootless()


_runtimes: dict[str, Runtime] = {}


def _runtime(config: pytest.Config) -> Runtime:
    path = runtime_path(config)
    if path not in _runtimes:
        root = _work() / "state"
        root.mkdir(mode=0o700, exist_ok=True)
        if _users:
            os.chown(root, _users[0].uid, _users[0].gid)
        _runtimes[path] = Runtime(path, root, _prefix())
    return _runtimes[path]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Count the reasons of what was skipped and of what is known to differ."""
    for title, kind in (("skipped", "skipped"), ("known differences", "xfailed"), ("unexpectedly fine", "xpassed")):
        reasons: Counter[str] = Counter()
        for report in terminalreporter.stats.get(kind, []):
            if kind == "skipped" and isinstance(report.longrepr, tuple):
                reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1
            else:
                reasons[f"{getattr(report, 'wasxfail', '')}: {report.nodeid.rpartition('/')[2]}"] += 1
        if reasons:
            terminalreporter.section(f"{title}: {sum(reasons.values())}")
            for reason, count in sorted(reasons.items()):
                terminalreporter.write_line(f"{count:4} {reason}")


@pytest.fixture(scope="session")
def probe() -> Path:
    """The compiled probe."""
    return probes.build(Path(os.environ.get("IT_CACHE", "/tmp/ociruntime-it-cache")))


@pytest.fixture(scope="session")
def work() -> Iterator[Path]:
    """Bundles, pid files and outputs of this session; its name holds the session's token. Not below pytest's own
    directory, which is closed to the root users of user namespaces.
    """
    yield _work()
    shutil.rmtree(_work(), ignore_errors=True)


@cache
def _work() -> Path:
    path = Path(tempfile.gettempdir()) / f"ociruntime-{TOKEN}"
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def tmp_path(work: Path) -> Path:
    """A directory of the test, open to everybody."""
    path = work / f"t{next(_numbers)}"
    path.mkdir()
    _places[:] = [path]
    for user in _users:
        user.own(path)
    return path


@pytest.fixture(scope="session")
def runtime(pytestconfig: pytest.Config, work: Path) -> Iterator[Runtime]:
    """The runtime under test."""
    before = leak_tools.null_device()
    yield _runtime(pytestconfig)
    assert leak_tools.null_device() == before


@pytest.fixture(autouse=True)
def leaks(runtime: Runtime) -> Iterator[Leaks]:
    """Every test ends with the host as it was before."""
    leak_tools.make_prefixes()
    snapshot = Leaks(TOKEN, runtime.root, _kept_children)
    yield snapshot
    report = snapshot.found()
    if report:
        snapshot.repair()
        pytest.fail("left behind:\n" + "\n".join(report), pytrace=False)


@pytest.fixture
def new_bundle(work: Path, probe: Path) -> Callable[[], Bundle]:
    """Make one more bundle."""

    def make() -> Bundle:
        return Bundle(work / f"b{next(_numbers)}", probe)

    return make


@pytest.fixture
def bundle(new_bundle: Callable[[], Bundle]) -> Bundle:
    """A bundle of its own for the test."""
    return new_bundle()


@pytest.fixture
def new_container(
    runtime: Runtime, new_bundle: Callable[[], Bundle], work: Path, leaks: Leaks
) -> Iterator[Callable[..., Container]]:
    """Make containers; all are destroyed at the end of the test."""
    made: list[Container] = []

    def make(bundle: Bundle | None = None, container_id: str | None = None, at: Runtime | None = None) -> Container:
        name = container_id or f"{TOKEN}{next(_numbers)}"
        made.append(Container(at or runtime, bundle or new_bundle(), name, work))
        return made[-1]

    yield make
    for container in reversed(made):
        container.destroy()


@pytest.fixture
def container(new_container: Callable[..., Container], bundle: Bundle) -> Container:
    """A container of the test's bundle."""
    return new_container(bundle)


@pytest.fixture
def new_managed(runtime: Runtime, new_container: Callable[..., Container]) -> Iterator[Callable[..., Container]]:
    """Make containers with --systemd-cgroup, in scopes of system.slice."""
    managed = Managed(runtime.path, runtime.root)
    units: list[str] = []

    def make(bundle: Bundle | None = None) -> Container:
        container = new_container(bundle, at=managed)
        container.bundle.linux(cgroupsPath=f"system.slice:it:{container.id}")
        container.bundle.args("pause")
        units.append(unit_of(container))
        return container

    yield make
    for unit in units:
        if not gone(unit):
            systemctl("kill", "-sKILL", unit)
            systemctl("stop", unit)
            systemctl("reset-failed", unit)


Give = Callable[[str | Path], None]


@pytest.fixture
def give() -> Give:
    """Give what the test has made, a file, a tree or a cgroup with those below, to whoever runs the runtime."""

    def hand_over(path: str | Path) -> None:
        for user in _users:
            if os.path.exists(f"{path}/cgroup.procs"):
                for directory in leak_tools.directories(str(path)):
                    rootless.delegate(directory, user)
            else:
                user.own(Path(path))

    return hand_over


@pytest.fixture
def caller(runtime: Runtime) -> AbstractContextManager[None]:
    """Around calls of the library: they are made by whoever runs the runtime."""
    assert runtime
    return _acting[0] if _acting else nullcontext()


@pytest.fixture(scope="module")
def users(work: Path) -> Iterator[dict[str, User]]:
    """alice and bob with subordinate IDs, carol without."""
    people = [
        User("alice", 47001, 4700000, work),
        User("bob", 47011, 4800000, work),
        User("carol", 47021, 4900000, work, granted=False),
    ]
    rootless.introduce(people, work)
    yield {user.name: user for user in people}
    rootless.forget()


@pytest.fixture
def alice(users: dict[str, User]) -> User:
    """The user of most tests."""
    return users["alice"]


@pytest.fixture
def mine(
    alice: User, runtime: Runtime, new_bundle: Callable[[], Bundle], new_container: Callable[..., Container]
) -> Container:
    """A container of alice: her own ID as root, her subordinate ones from 1 on."""
    container = new_container(rootless.bundle(new_bundle(), alice), at=alice.runtime(runtime))
    container.pid_file = alice.home / f"{container.id}.pid"
    return container


@pytest.fixture
def single(mine: Container, alice: User) -> Container:
    """A container of alice with her own ID as the only one."""
    rootless.bundle(mine.bundle, alice, single=True)
    return mine


@pytest.fixture(scope="session")
def kept_children() -> set[int]:
    """PIDs of children that outlive a test: to be added to, and taken from."""
    return _kept_children


@pytest.fixture(scope="session")
def v2_prefix() -> Iterator[list[str]]:
    """Put before a command: a mount namespace in which /sys/fs/cgroup is cgroup2 and nothing else. Nothing is needed
    where that is so anyway.
    """
    if "" not in host.cgroup_mounts():
        pytest.skip("no cgroup2")
    if host.cgroup_mounts() == {"": "/sys/fs/cgroup"}:
        yield []
        return
    script = "mount -t cgroup2 none /sys/fs/cgroup && echo ready && exec sleep 100000"
    holder = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", script], stdout=subprocess.PIPE)
    _kept_children.add(holder.pid)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n"
    yield ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"]
    holder.kill()
    holder.wait()
    holder.stdout.close()
    _kept_children.discard(holder.pid)


@pytest.fixture
def runtime_v2(runtime: Runtime, v2_prefix: list[str]) -> Runtime:
    """The runtime in a pure cgroup v2 world."""
    return runtime.within(v2_prefix)


@pytest.fixture
def pure(container: Container, runtime_v2: Runtime) -> Container:
    """The container in a world of cgroup v2 only."""
    container.runtime = runtime_v2
    return container


@pytest.fixture(scope="session")
def slow(pytestconfig: pytest.Config) -> bool:
    """Whether the race and loop tests run with their full counts."""
    return bool(pytestconfig.getoption("--slow") or os.environ.get("IT_SLOW"))
