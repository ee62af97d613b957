"""docker build: every RUN is a container of the runtime, made by the builder that asks the daemon for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.engines.docker import Docker
from integration.engines.image import IMAGE
from integration.engines.sandbox import Watch
from integration.lib.runtime import Result


@pytest.fixture
def built(docker: Docker) -> Iterator[str]:
    """The name of an image that is removed in the end."""
    yield "localhost/built"
    docker("rmi", "-f", "localhost/built")
    docker("image", "prune", "-f")


def build(docker: Docker, tmp_path: Path, text: str, *options: str) -> Result:
    """docker build of this Dockerfile."""
    tmp_path.joinpath("Dockerfile").write_text(f"FROM {IMAGE}\n{text}")
    tmp_path.joinpath("given").write_text("from the context\n")
    return docker("build", "--network", "none", "-t", "localhost/built", *options, str(tmp_path))


def test_run_steps(docker: Docker, tmp_path: Path, built: str, leaks: Watch) -> None:
    """RUN, COPY, ENV, WORKDIR, USER: what a step leaves is there for the next, and in the image."""
    text = """
COPY given /srv/given
RUN cat /srv/given >/srv/seen && mkdir -p /work && chown worker /work
ENV GREETING=hello
WORKDIR /work
USER worker
RUN echo "$GREETING $(id -un) $(pwd)" >said
RUN ["sh", "-c", "echo exec form >>said"]
CMD ["cat", "/srv/seen", "said"]
"""
    result = build(docker, tmp_path, text).ok()
    assert result.text.count("Running in") >= 3
    seen = docker("run", "--rm", "--network", "none", built).ok().text
    assert seen == "from the context\nhello worker /work\nexec form\n"
    leaks.check()


def test_a_step_that_fails(docker: Docker, tmp_path: Path, built: str, leaks: Watch) -> None:
    """Its status ends the build, and is in the message."""
    result = build(docker, tmp_path, "RUN echo before; exit 9\n", "--force-rm")
    assert result.code == 9 or "returned a non-zero code: 9" in result.error
    assert "before" in result.text
    leaks.check()


def test_a_step_without_its_program(docker: Docker, tmp_path: Path, built: str, leaks: Watch) -> None:
    """The message names the program."""
    result = build(docker, tmp_path, 'RUN ["/no/such/program"]\n', "--force-rm")
    assert result.code != 0
    assert "/no/such/program" in result.error and "no such file or directory" in result.error
    leaks.check()


def test_limits(docker: Docker, tmp_path: Path, built: str) -> None:
    """Options of build for its containers."""
    text = "RUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes; ulimit -n; df -k /dev/shm | tail -n 1\n"
    result = build(docker, tmp_path, text, "-m", "64m", "--ulimit", "nofile=99:99", "--shm-size", "5m").ok()
    assert f"{64 << 20}\n99\n" in result.text and " 5120 " in result.text
