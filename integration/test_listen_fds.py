"""Socket activation: what a service manager has passed to the runtime reaches the program."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.lib.container import Container
from integration.lib.probe import Reply
from integration.lib.runtime import Runtime

# LISTEN_PID must be the runtime's own PID: this shell becomes the runtime.
OWN_PID = ["sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh"]


@pytest.fixture
def sockets(tmp_path: Path) -> Callable[[int], Callable[[], None]]:
    """What a child does before it executes: n listening sockets are its descriptors from 3 on, and no more."""

    def prepare(count: int) -> Callable[[], None]:
        def arrange() -> None:
            high = []
            for index in range(count):
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(str(tmp_path / f"s{index}"))
                listener.listen()
                high.append(fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD, 60))
            os.closerange(3, 60)
            for index, fd in enumerate(high):
                os.dup2(fd, 3 + index)
                os.set_inheritable(3 + index, True)
            os.closerange(60, 200)

        return arrange

    return prepare


def variables(report: Reply) -> dict[str, str]:
    """The LISTEN_* variables of the program."""
    entries = dict(entry.split("=", 1) for entry in report["env"])
    return {name: value for name, value in entries.items() if name.startswith("LISTEN_")}


def activated(container: Container, environment: dict[str, str], *flags: str, own: bool = True, **how: object) -> Reply:
    """Run the probe's report with these variables set."""
    if own:
        container.runtime = container.runtime.within(OWN_PID)
    result = container.run(*flags, env={**os.environ, **environment}, close_fds=False, **how)
    assert result.code == 0, repr(result)
    return result.replies[0]


@pytest.mark.parametrize("count", [1, 3])
def test_sockets_reach_the_program(
    container: Container, sockets: Callable[[int], Callable[[], None]], count: int
) -> None:
    """They are the descriptors from 3 on, LISTEN_FDS says how many, LISTEN_PID that it is meant [P7]."""
    report = activated(container, {"LISTEN_FDS": str(count)}, preexec_fn=sockets(count))
    assert set(report["fds"]) == {str(number) for number in range(3 + count)}
    assert all(report["fds"][str(3 + index)].startswith("socket:") for index in range(count))
    assert variables(report) == {"LISTEN_FDS": str(count), "LISTEN_PID": "1"}


def test_create_and_start(container: Container, sockets: Callable[[int], Callable[[], None]]) -> None:
    """The same when create and start are two commands: create takes them [P7]."""
    plain = container.runtime
    container.runtime = plain.within(OWN_PID)
    container.bundle.args("report", "pause")
    container.create(env={**os.environ, "LISTEN_FDS": "2"}, preexec_fn=sockets(2), close_fds=False)
    container.runtime = plain
    container.start()
    report = container.wait_replies(1)[0]
    assert set(report["fds"]) == {"0", "1", "2", "3", "4"}
    assert variables(report) == {"LISTEN_FDS": "2", "LISTEN_PID": "1"}


@pytest.mark.ours_only("P7: the names go along")
def test_names(container: Container, sockets: Callable[[int], Callable[[], None]]) -> None:
    """LISTEN_FDNAMES is handed on [P7]."""
    report = activated(container, {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:admin"}, preexec_fn=sockets(2))
    assert variables(report)["LISTEN_FDNAMES"] == "http:admin"


def test_somebody_elses(container: Container, sockets: Callable[[int], Callable[[], None]]) -> None:
    """With another LISTEN_PID nothing is handed on [P7]."""
    environment = {"LISTEN_FDS": "1", "LISTEN_PID": "1"}
    report = activated(container, environment, own=False, preexec_fn=sockets(1))
    assert set(report["fds"]) == {"0", "1", "2"}
    assert variables(report) == {}


@pytest.mark.parametrize("count", ["", "0", "x", "-1"])
def test_no_number(container: Container, sockets: Callable[[int], Callable[[], None]], count: str) -> None:
    """A LISTEN_FDS that is no number above zero counts as none [P7]."""
    report = activated(container, {"LISTEN_FDS": count}, preexec_fn=sockets(1))
    assert set(report["fds"]) == {"0", "1", "2"}
    assert variables(report) == {}


def test_preserved_descriptors_come_after(container: Container, sockets: Callable[[int], Callable[[], None]]) -> None:
    """--preserve-fds counts from behind the sockets [P6, P7]."""
    report = activated(container, {"LISTEN_FDS": "1"}, "--preserve-fds", "1", preexec_fn=sockets(3))
    assert set(report["fds"]) == {"0", "1", "2", "3", "4"}
    assert variables(report)["LISTEN_FDS"] == "1"


@pytest.mark.ours_only("P6: an inventory is taken at start, a missing descriptor is refused")
@pytest.mark.parametrize("flags", [(), ("--preserve-fds", "2")])
def test_missing_ones(
    container: Container, sockets: Callable[[int], Callable[[], None]], flags: tuple[str, ...], tmp_path: Path
) -> None:
    """Descriptors that are not there are an error; the log file of the runtime does not count as one [P6, P7]."""
    count = "1" if flags else "3"
    container.runtime = container.runtime.within(OWN_PID)
    container.bundle.write()
    result = container.command(
        "run", "--bundle", str(container.bundle.path), *flags, options=("--log", str(tmp_path / "log")),
        env={**os.environ, "LISTEN_FDS": count}, preexec_fn=sockets(2), close_fds=False,
    )  # fmt: skip
    assert result.code == 1
    assert ("--preserve-fds" if flags else "LISTEN_FDS") in (tmp_path / "log").read_text()


@pytest.mark.ours_only("P7: the PID that the program has")
def test_without_a_pid_namespace(container: Container, sockets: Callable[[int], Callable[[], None]]) -> None:
    """LISTEN_PID is the program's PID as it sees itself, whatever namespace that is in [P7]."""
    container.bundle.drop_namespace("pid")
    report = activated(container, {"LISTEN_FDS": "1"}, preexec_fn=sockets(1))
    assert variables(report)["LISTEN_PID"] == str(report["pid"])


def test_they_win_over_the_config(container: Container, sockets: Callable[[int], Callable[[], None]]) -> None:
    """Variables of config.json with these names are replaced [P7]."""
    container.bundle.config["process"]["env"] += ["LISTEN_FDS=7", "LISTEN_PID=9"]
    report = activated(container, {"LISTEN_FDS": "1"}, preexec_fn=sockets(1))
    entries = [entry for entry in report["env"] if entry.startswith("LISTEN_")]
    assert entries[-2:] == ["LISTEN_FDS=1", "LISTEN_PID=1"]


def test_exec_ignores_them(
    container: Container, runtime: Runtime, sockets: Callable[[int], Callable[[], None]]
) -> None:
    """exec does not look at the variables; what it preserves starts at 3 [P7]."""
    container.begin("pause")
    activating = runtime.within(OWN_PID)
    words = ["exec", "--preserve-fds", "1", container.id, "/probe", "report"]
    environment = {**os.environ, "LISTEN_FDS": "1"}
    result = activating(*words, env=environment, preexec_fn=sockets(2), close_fds=False).ok()
    assert set(result.replies[0]["fds"]) == {"0", "1", "2", "3"}
    assert variables(result.replies[0]) == {}
