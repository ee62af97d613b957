"""podman build: RUN steps are containers of the runtime under test (create, start, state, kill, delete by buildah)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.engines.engines import Podman
from integration.engines.sandbox import Watch
from integration.lib.runtime import Result


@pytest.fixture
def recorder(podman: Podman, tmp_path: Path) -> Path:
    """A runtime that writes down what it is called with, and then is the one under test."""
    path = tmp_path / "recorder"
    path.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\nexec {podman.runtime} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def builder(podman: Podman, tmp_path: Path) -> Iterator[Podman]:
    """podman; the images made by a test are removed."""
    yield podman
    podman("rmi", "-f", "localhost/made")
    podman("image", "prune", "-f")


def build(podman: Podman, directory: Path, text: str, *options: str, check: bool = True) -> Result:
    """podman build of this Containerfile."""
    directory.joinpath("Containerfile").write_text(text)
    words = ["build", "-q", "--isolation", "oci", "--network", "none", "--no-cache", "-t", "localhost/made"]
    result = podman(*words, *options, str(directory))
    return result.ok() if check else result


def made(podman: Podman, *words: str) -> str:
    """What a container of the new image prints."""
    return podman("run", "--rm", "localhost/made", *words).ok().text.strip()


def test_run_steps(builder: Podman, tmp_path: Path, leaks: Watch) -> None:
    """Each RUN sees what the earlier ones wrote, as the user, in the directory and with the variables asked for."""
    build(builder, tmp_path, (
        "FROM localhost/bb:latest\nENV WORD=set\nRUN echo $WORD >/one && cat /one\nWORKDIR /srv/new\n"
        'RUN ["/bin/sh", "-c", "pwd >/two"]\nUSER 1000:1001\nRUN id -u >/tmp/three; id -g >>/tmp/three\n'
    ))  # fmt: skip
    assert made(builder, "cat", "/one", "/two", "/tmp/three").split() == ["set", "/srv/new", "1000", "1001"]
    leaks.check()


def test_runtime_is_used(builder: Podman, tmp_path: Path, recorder: Path) -> None:
    """The runtime named by --runtime is the one that runs them."""
    base = [word if word != builder.runtime else str(recorder) for word in builder.base]
    tmp_path.joinpath("Containerfile").write_text("FROM localhost/bb:latest\nRUN echo a >/a\n")
    words = ["build", "-q", "--isolation", "oci", "--network", "none", "-t", "localhost/made", str(tmp_path)]
    builder.sandbox.run([*base, *words], env=builder.argv([], False)[1]).ok()
    calls = tmp_path.joinpath("calls").read_text()
    for verb in ("create", "start", "delete"):
        assert verb in calls, calls


def test_failing_step(builder: Podman, tmp_path: Path, leaks: Watch) -> None:
    """The status of the step is shown, no image is made, nothing is left."""
    result = build(builder, tmp_path, "FROM localhost/bb:latest\nRUN exit 17\n", check=False)
    assert result.code != 0
    assert "exit status 17" in result.error
    assert builder("image", "exists", "localhost/made").code == 1
    leaks.check()


def test_missing_program(builder: Podman, tmp_path: Path, leaks: Watch) -> None:
    """A step without its program: the message names it."""
    result = build(builder, tmp_path, 'FROM localhost/bb:latest\nRUN ["/no/such", "x"]\n', check=False)
    assert result.code != 0
    assert "/no/such" in result.error
    leaks.check()


def test_stages(builder: Podman, tmp_path: Path) -> None:
    """COPY --from an earlier stage, COPY from the context, ARG."""
    tmp_path.joinpath("given").write_text("given\n")
    build(builder, tmp_path, (
        "FROM localhost/bb:latest AS first\nARG WORD\nCOPY given /given\nRUN cat /given >/made; echo $WORD >>/made\n"
        "FROM localhost/bb:latest\nCOPY --from=first /made /made\nRUN test ! -e /given\n"
    ), "--build-arg", "WORD=argument")  # fmt: skip
    assert made(builder, "cat", "/made").split() == ["given", "argument"]


def test_mounts(builder: Podman, tmp_path: Path) -> None:
    """RUN --mount: of the context, a tmpfs, a secret; --volume of the command."""
    tmp_path.joinpath("given").write_text("given\n")
    tmp_path.joinpath("secret").write_text("hidden\n")
    outside = tmp_path / "outside"
    outside.mkdir()
    build(builder, tmp_path, (
        "FROM localhost/bb:latest\n"
        "RUN --mount=type=bind,source=.,target=/context cat /context/given >/made\n"
        "RUN --mount=type=tmpfs,target=/scratch echo x >/scratch/x && grep -c /scratch /proc/mounts >>/made\n"
        "RUN --mount=type=secret,id=word cat /run/secrets/word >>/made\n"
        "RUN echo seen >/outside/seen\n"
    ), "--secret", f"id=word,src={tmp_path}/secret", "-v", f"{outside}:/outside")  # fmt: skip
    assert made(builder, "cat", "/made").split() == ["given", "1", "hidden"]
    assert outside.joinpath("seen").read_text() == "seen\n"


def test_restrictions(builder: Podman, tmp_path: Path) -> None:
    """--cap-drop, --ulimit, --shm-size hold while building."""
    script = "chown 5 /srv/file || echo refused >/made; ulimit -n >>/made; grep /dev/shm /proc/mounts >>/made"
    build(
        builder, tmp_path, f"FROM localhost/bb:latest\nRUN {script}\n",
        "--cap-drop", "CAP_CHOWN", "--ulimit", "nofile=123:123", "--shm-size", "3m",
    )  # fmt: skip
    text = made(builder, "cat", "/made")
    assert text.split()[:2] == ["refused", "123"]
    assert "size=3072k" in text


def test_user_namespace(builder: Podman, tmp_path: Path) -> None:
    """--userns-uid-map: the step runs in it. (In the image its files keep the mapped owner: buildah's doing.)"""
    options = ["--userns-uid-map", "0:100000:5000", "--userns-gid-map", "0:100000:5000"]
    build(
        builder,
        tmp_path,
        "FROM localhost/bb:latest\nRUN cat /proc/self/uid_map >/tmp/made; id -u >>/tmp/made\n",
        *options,
    )
    assert made(builder, "cat", "/tmp/made").split() == ["0", "100000", "5000", "0"]
