"""install --for docker: a daemon takes the file, with and without a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.engines.docker import Docker
from integration.engines.sandbox import Sandbox
from integration.lib.container import wait_until
from integration.lib.runtime import run

pytestmark = pytest.mark.ours_only("install is a command of ours")


def install(docker: Docker, root: Path, *options: str) -> str:
    """install into the files below root."""
    words = ["install", "--for", "docker", "--destdir", str(root), "--path", docker.runtime, *options]
    return run([docker.runtime, *words]).ok().text


@pytest.fixture
def other(docker_sandbox: Sandbox, docker: Docker, tmp_path: Path) -> Iterator[Docker]:
    """A daemon that is configured by a file alone, which install has written."""
    file = tmp_path / "etc/docker/daemon.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"log-driver": "json-file", "log-opts": {"max-size": "1m"}}')
    install(docker, tmp_path, "--name", "first")
    more = ["--config-file", str(file), "--bridge", "none"]
    engine = Docker(docker_sandbox, tmp_path, "", "installed", more)
    engine.load(docker.tree)
    yield engine
    engine.clear()
    engine.end()


def test_daemon(docker: Docker, other: Docker, tmp_path: Path) -> None:
    """The runtime is there, by its name; a second one is there after a reload; what was in the file still counts."""

    def known() -> set[str]:
        return set(other("info", "--format", "{{json .Runtimes}}").ok().json)

    assert "first" in known()
    assert other.sh("echo hi", "--runtime", "first") == "hi"
    assert other.inspect(other.detached("true"))["HostConfig"]["LogConfig"]["Config"] == {"max-size": "1m"}
    install(docker, tmp_path, "--name", "second", "--default")
    other.daemon.signal(1)
    wait_until(lambda: other("info", "--format", "{{.DefaultRuntime}}").text.strip() == "second", "the reload")
    assert other.inspect(other.detached("sleep", "1000"))["HostConfig"]["Runtime"] == "second"
    other.clear()
    for name in ("first", "second"):
        install(docker, tmp_path, "--name", name, "--remove")
    assert json.loads((tmp_path / "etc/docker/daemon.json").read_text()).keys() == {"log-driver", "log-opts"}


def test_bad_file(docker: Docker, tmp_path: Path) -> None:
    """A file that is no JSON is refused, with the place, and stays as it is."""
    file = tmp_path / "etc/docker/daemon.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"a": 1,}')
    words = ["install", "--for", "docker", "--destdir", str(tmp_path), "--path", "/x"]
    result = run([docker.runtime, *words])
    assert result.code == 1
    assert f"'{file}': not valid JSON" in result.error and "line 1 column" in result.error
    assert file.read_text() == '{"a": 1,}'
