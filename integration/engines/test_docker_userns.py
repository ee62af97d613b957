"""dockerd --userns-remap: every container has a user namespace, and files of IDs that mean nothing on the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.engines.docker import DaemonError, Docker
from integration.engines.image import IMAGE
from integration.engines.sandbox import Sandbox, Watch
from integration.lib.probe import capability_names

BASE = 400000


@pytest.fixture(scope="module")
def daemon(docker_sandbox: Sandbox, engine_work: Path, docker: Docker) -> Iterator[Docker]:
    """A daemon of its own; the sandbox has its own /etc/subuid and /etc/subgid."""
    box, work = docker_sandbox, engine_work / "docker"
    for name in ("subuid", "subgid"):
        work.joinpath(name).write_text(f"nobody:{BASE}:65536\nnogroup:{BASE}:65536\n")
        box.run(["touch", f"/etc/{name}"]).ok()
        box.run(["mount", "--bind", str(work / name), f"/etc/{name}"]).ok()
    try:
        engine = Docker(box, work, docker.runtime, "userns", ["--userns-remap", "nobody:nogroup", "--bridge", "none"])
    except DaemonError as error:
        pytest.skip(f"dockerd does not start with --userns-remap: {error}")
    engine.load(docker.tree)
    yield engine
    engine.clear()
    engine.end()
    box.run(["umount", "/etc/subuid", "/etc/subgid"]).ok()


@pytest.fixture
def remapped(leaks: Watch, daemon: Docker) -> Iterator[Docker]:
    """The same, with its containers gone before anybody looks at what is left."""
    yield daemon
    daemon.clear()


def test_ids(docker: Docker, remapped: Docker) -> None:
    """Root inside is an ordinary ID outside, with the mapping of /etc/subuid."""
    name = remapped.detached("sleep", "1000")
    assert remapped.sh_exec(name, "id -u; cat /proc/self/uid_map").split() == ["0", "0", str(BASE), "65536"]
    status = remapped.sandbox.read(f"/proc/{remapped.state(name)['Pid']}/status")
    assert f"Uid:\t{BASE}\t{BASE}" in status


def test_files(docker: Docker, remapped: Docker, tmp_path: Path) -> None:
    """What it writes to a directory of the host belongs to that ID; what is root's there it cannot change."""
    tmp_path.chmod(0o777)
    tmp_path.parent.chmod(0o711)
    tmp_path.joinpath("given").write_text("root's\n")
    result = remapped.run("sh", "-c", "id -u >/mnt/made; echo >/mnt/given", options=["-v", f"{tmp_path}:/mnt"])
    assert "Permission denied" in result.error
    assert tmp_path.joinpath("made").stat().st_uid == BASE


def test_privileges(docker: Docker, remapped: Docker) -> None:
    """Capabilities and the filter are as without."""
    status = remapped.run("probe", "report").ok().replies[0]["status"]
    assert "CAP_CHOWN" in capability_names(status["CapEff"]) and status["Seccomp"] == "2"


def test_lifecycle(docker: Docker, remapped: Docker, leaks: Watch) -> None:
    """exec, exec -it, pause, update, stop."""
    name = remapped.loop("trap 'exit 5' TERM", "-m", "64m", "--tmpfs", "/scratch")
    assert remapped.sh_exec(name, "touch /scratch/x; id -u", "-u", "worker") == "1000"
    assert "/dev/pts/" in remapped.on_terminal("exec", "-it", name, "tty").ok().text
    remapped("pause", name).ok()
    remapped("unpause", name).ok()
    remapped("update", "--pids-limit", "44", name).ok()
    remapped("stop", name).ok()
    assert remapped.state(name)["ExitCode"] == 5
    remapped("rm", name).ok()
    leaks.check()


def test_host_user_namespace(docker: Docker, remapped: Docker) -> None:
    """--userns host: as without the option of the daemon."""
    assert remapped.sh("cat /proc/self/uid_map", "--userns", "host").split()[:2] == ["0", "0"]


def test_missing_program(docker: Docker, remapped: Docker, leaks: Watch) -> None:
    """The message is the same."""
    result = remapped("run", "--rm", "--network", "none", IMAGE, "nosuch")
    assert result.code == 127 and "nosuch" in result.error
    leaks.check()
