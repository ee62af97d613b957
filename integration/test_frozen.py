"""A cgroup above the container's is frozen: what waits for the thaw, and what must not."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.conftest import Give, requires
from integration.lib import host, leaks as leak_tools
from integration.lib.container import Container, alive, wait_until


class Above:
    """The cgroup above the container's. name: its path in the hierarchy; file: what freezes it."""

    def __init__(self, container: Container, top: str, file: str, values: tuple[str, str]) -> None:
        self.container = container
        self.name = container.bundle.config["linux"]["cgroupsPath"] + "/above"
        self.home = Path(f"{top}{self.name}").parent
        self.path = Path(f"{top}{self.name}")
        self.file = self.path / file
        self.values = values
        container.bundle.linux(cgroupsPath=f"{self.name}/own")

    def freeze(self) -> None:
        """Freeze it and wait until every process is."""
        self.file.write_text(self.values[0])
        if self.file.name == "freezer.state":
            wait_until(lambda: self.file.read_text() == "FROZEN\n", "a frozen cgroup")
        else:
            wait_until(lambda: "frozen 1" in (self.path / "cgroup.events").read_text(), "a frozen cgroup")

    def thaw(self) -> None:
        """Thaw it."""
        with contextlib.suppress(FileNotFoundError):
            self.file.write_text(self.values[1])

    @property
    def frozen(self) -> bool:
        """Whether it is (still) to be frozen."""
        return self.file.read_text().strip() == self.values[0]


def above_v1(container: Container) -> Above:
    """In the freezer of cgroup v1."""
    requires("v1:freezer")
    return Above(container, host.cgroup_mounts()["freezer"], "freezer.state", ("FROZEN", "THAWED"))


@pytest.fixture
def v1(container: Container, give: Give) -> Iterator[Above]:
    """A cgroup above the container's, in the freezer of cgroup v1."""
    yield from made(above_v1(container), give)


@pytest.fixture(params=["v1", "v2"])
def above(container: Container, give: Give, request: pytest.FixtureRequest) -> Iterator[Above]:
    """A cgroup above the container's, and another one above that."""
    if request.param == "v1":
        place = above_v1(container)
    else:
        container.runtime = request.getfixturevalue("runtime_v2")
        place = Above(container, host.cgroup_mounts()[""], "cgroup.freeze", ("1", "0"))
    yield from made(place, give)


def made(place: Above, give: Give) -> Iterator[Above]:
    place.home.mkdir()
    give(place.home)
    place.path.mkdir()
    give(place.path)
    yield place
    place.thaw()
    place.container.destroy()
    for path in (place.path, place.home):
        with contextlib.suppress(FileNotFoundError):  # delete takes the parents that create has made, in its places
            path.rmdir()
    if not place.container.runtime.ours:  # they leave the parents that they have made
        for left in reversed(leak_tools.cgroups_with(place.container.id)):
            Path(left).rmdir()


@pytest.mark.ours_only("runc waits for ever, crun says that it has started")
def test_start(container: Container, above: Above) -> None:
    """start says what is frozen, and the container stays created; after the thaw it starts [S4, K5]."""
    container.bundle.args("exit 7")
    container.create()
    above.freeze()
    result = container.start(check=False)
    assert result.code != 0
    assert "a parent of the container's cgroup is frozen: '" in result.error
    assert f"{above.name}' (hint: thaw it: echo {above.values[1]} > " in result.error
    assert container.state()["status"] == "created"
    above.thaw()
    container.start()
    assert container.wait() == 7


@pytest.mark.ours_only("on v1 runc waits for ever, and crun leaves its cgroup")
@pytest.mark.parametrize("own", ["pid namespace", "no namespace"])
@pytest.mark.parametrize("started", [True, False])
def test_delete(container: Container, above: Above, own: str, started: bool) -> None:
    """delete --force ends the container, and what is above it stays frozen; no thaw is waited for [K7]."""
    if own == "no namespace":
        container.bundle.drop_namespace("pid")
    container.bundle.args("fork 3", "pause")
    if started:
        container.begin("fork 3", "pause")
    else:
        container.create()
    above.freeze()
    container.delete(*(["--force"] if started else []))
    assert above.frozen
    assert not (above.path / "own").exists()
    container.wait()


@pytest.mark.ours_only("on v1 others wait for the thaw")
@pytest.mark.parametrize("flags", [[], ["--all"]])
@pytest.mark.parametrize("own", ["pid namespace", "no namespace"])
def test_kill(container: Container, above: Above, own: str, flags: list[str]) -> None:
    """SIGKILL ends frozen processes, on cgroup v1 as it does on v2; other signals wait for the thaw [K6]."""
    if own == "no namespace":
        container.bundle.drop_namespace("pid")
    container.begin("fork 3", "trap 10 5")
    above.freeze()
    container.kill("USR1", flags=flags)
    container.kill("KILL", flags=flags)
    assert container.wait() == 128 + signal.SIGKILL
    assert above.frozen
    container.delete()
    assert above.frozen


@pytest.mark.ours_only("on v1 others wait for ever, or leave something")
def test_paused_and_frozen(container: Container, above: Above) -> None:
    """Paused, and frozen from above: SIGKILL ends it nevertheless [K6, K11]."""
    container.begin("fork 3", "pause")
    container.command("pause").ok()
    above.freeze()
    container.kill("KILL")
    assert container.wait() == 128 + signal.SIGKILL
    container.delete()


@pytest.mark.ours_only("on v1 others wait for ever, or leave something")
@pytest.mark.parametrize("words", [["delete", "--force", "{}"], ["kill", "{}", "KILL"]])
@pytest.mark.parametrize("own", ["pid namespace", "no namespace"])
def test_no_way_out(container: Container, v1: Above, own: str, words: list[str]) -> None:
    """Where processes cannot be moved out of what is frozen, the error says what to thaw; after that it works [K7]."""
    if own == "no namespace":
        container.bundle.drop_namespace("pid")
    container.begin("pause")
    v1.freeze()
    everywhere = container.runtime
    script = f'mount --bind /dev/full {v1.home}/cgroup.procs && exec "$@"'
    container.runtime = everywhere.within(["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh"])
    result = container.runtime(*(word.format(container.id) for word in words))
    container.runtime = everywhere
    assert result.code != 0
    assert f"is frozen: '{v1.path}'" in result.error
    assert f"thaw it: echo THAWED > {v1.path}/freezer.state" in result.error
    assert alive(container.pid)
    v1.thaw()
    assert container.wait() == 128 + signal.SIGKILL
    container.delete()


@pytest.mark.ours_only("on v1 others wait for ever, or leave something")
def test_below(container: Container, v1: Above) -> None:
    """A process in a frozen sub-cgroup of the container does not outlive delete --force either [K7]."""
    container.begin("fork 1", "pause")
    below = v1.path / "own" / "below"
    below.mkdir()
    child = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()[0]
    (below / "cgroup.procs").write_text(child)
    (below / "freezer.state").write_text("FROZEN")
    container.delete("--force")
    assert not below.exists()
    assert not alive(int(child))


def test_exec_that_waits(container: Container, above: Above) -> None:
    """exec --ignore-paused waits for the thaw, whatever it is that is frozen [K4, K11]."""
    container.begin("pause")
    above.freeze()
    process = container.runtime.spawn("exec", "--ignore-paused", container.id, "/probe", "exit", "5")
    time.sleep(0.3)
    assert process.poll() is None
    above.thaw()
    assert process.wait(60) == 5


def test_resume(container: Container, above: Above) -> None:
    """resume ends the pause and nothing else: it warns that the container does not go on yet [K11]."""
    container.begin("trap 10 7")
    container.command("pause").ok()
    above.freeze()
    result = container.command("resume").ok()
    if container.runtime.ours:
        assert "a parent of the container's cgroup is frozen" in result.error
        assert "does not go on" in result.error
    container.kill("USR1")
    time.sleep(0.2)
    assert alive(container.pid)
    above.thaw()
    assert container.wait() == 7
