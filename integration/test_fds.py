"""Descriptors: which ones a container has, and which ones never."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

import pytest

from integration.lib.container import Container


def test_program_has_three(container: Container) -> None:
    """The program has 0, 1 and 2 and nothing else, with run [P9, P10]."""
    assert set(container.report()["fds"]) == {"0", "1", "2"}


def test_created_program_has_three(container: Container) -> None:
    """The same with create and start [P9, P10]."""
    container.begin("report", "pause")
    assert set(container.replies[0]["fds"]) == {"0", "1", "2"}


def test_created_init_holds_only_what_it_needs(container: Container) -> None:
    """The waiting init has its streams and the exec fifo; no directory or file of the host, no socket [P10, S3]."""
    container.create()
    targets = {}
    for name in os.listdir(f"/proc/{container.pid}/fd"):
        targets[int(name)] = os.readlink(f"/proc/{container.pid}/fd/{name}")
    extra = {number: target for number, target in targets.items() if number > 2}
    state = re.escape(str(container.runtime.root / container.id))
    if container.runtime.ours:
        # besides the fifo the directory of its own descriptors, in a procfs of its own: the way to open the fifo
        allowed = rf"{state}/exec\.fifo|/\d+/fd"
    else:
        allowed = rf"{state}/exec\.fifo|pipe:\[\d+\]|anon_inode:.*|socket:\[\d+\]|/proc/\d+/.*|/|/proc"
    for number, target in extra.items():
        assert re.fullmatch(allowed, target), (number, target)


@pytest.mark.ours_only("S3: some engines look for the fifo by this name among the descriptors of init")
def test_fifo_is_found(container: Container) -> None:
    """One descriptor above 2 reads exactly ROOT/ID/exec.fifo [S3]."""
    container.create()
    links = [os.readlink(f"/proc/{container.pid}/fd/{name}") for name in os.listdir(f"/proc/{container.pid}/fd")]
    assert links.count(str(container.runtime.root / container.id / "exec.fifo")) == 1


def leak_directory(number: int, path: str) -> None:
    """Open path at this number, without close-on-exec, as a careless caller would."""
    found = os.open(path, os.O_RDONLY)
    os.dup2(found, number)
    os.set_inheritable(number, True)


@pytest.mark.parametrize("number", [3, 9, 100])
def test_leaked_descriptor_of_the_caller(container: Container, number: int) -> None:
    """A descriptor the caller has leaked to the runtime does not reach the program [CVE-2024-21626 class]."""
    result = container.run(preexec_fn=lambda: leak_directory(number, "/etc"), close_fds=False).ok()
    assert set(result.replies[0]["fds"]) == {"0", "1", "2"}


def test_leaked_descriptor_is_not_in_the_waiting_init(container: Container) -> None:
    """It is not in the created init either [P10]."""
    container.create(preexec_fn=lambda: leak_directory(9, "/etc"), close_fds=False)
    links = [os.readlink(f"/proc/{container.pid}/fd/{name}") for name in os.listdir(f"/proc/{container.pid}/fd")]
    assert "/etc" not in links


@pytest.mark.parametrize("count", [1, 3])
def test_preserve_fds(container: Container, tmp_path: Path, count: int) -> None:
    """--preserve-fds N hands on 3 to 3+N-1, and nothing more [P6]."""
    paths = [tmp_path / str(number) for number in range(count + 1)]
    for path in paths:
        path.write_text("x")

    def prepare() -> None:
        base = [os.open(path, os.O_RDONLY) for path in paths]
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 50) for fd in base]
        for index, fd in enumerate(high):
            os.dup2(fd, 3 + index)
            os.set_inheritable(3 + index, True)

    result = container.run("--preserve-fds", str(count), preexec_fn=prepare, close_fds=False).ok()
    found = result.replies[0]["fds"]
    assert set(found) == {str(number) for number in range(3 + count)}
    for index in range(count):
        assert found[str(3 + index)] == str(paths[index])


@pytest.mark.ours_only("P6: an inventory is taken at start, a missing descriptor is refused")
def test_preserve_fds_that_are_not_there(container: Container) -> None:
    """A descriptor that is to be kept must exist [P6]."""
    container.bundle.write()
    result = container.run("--preserve-fds", "3")
    assert result.code != 0
    assert "preserve" in result.error


def test_bad_preserve_fds(container: Container) -> None:
    """Something that is not a number is a usage error [P6]."""
    assert container.run("--preserve-fds", "x").code != 0


def test_standard_streams_are_the_callers(container: Container) -> None:
    """In a created container 0, 1 and 2 are the very files of the caller [P9]."""
    container.bundle.args("pause")
    container.create()
    assert os.path.samefile(f"/proc/{container.pid}/fd/1", container.output_file)
    assert os.path.samefile(f"/proc/{container.pid}/fd/2", container.error_file)


def test_null_streams(container: Container) -> None:
    """Streams on the host's /dev/null are on the container's own /dev/null afterwards [P9]."""
    container.bundle.args(["create", "/seen", "x"], "pause")
    with open("/dev/null", "r+b", buffering=0) as null:
        container.create(stdin=null)
    container.start()
    container.wait_replies(1)
    inside = os.stat(f"/proc/{container.pid}/root/dev/null")
    used = os.stat(f"/proc/{container.pid}/fd/0")
    assert (used.st_dev, used.st_ino) == (inside.st_dev, inside.st_ino)


@pytest.mark.parametrize("uid", [0, 1000])
def test_streams_belong_to_the_user(container: Container, uid: int) -> None:
    """The user can reopen its streams through /proc/self/fd: pipes are given to it [P9]."""
    container.bundle.process(user={"uid": uid, "gid": uid})
    reader, writer = os.pipe()
    try:
        container.bundle.args("open /proc/self/fd/1 w", "pause")
        container.create(stdout=writer)
        container.start()
        os.close(writer)
        writer = -1
        data = os.read(reader, 65536)
        assert b'"errno":0' in data
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def test_no_abstract_sockets(container: Container) -> None:
    """The runtime opens no abstract socket that a container on the host's network could reach [CVE-2020-15257]."""
    container.bundle.drop_namespace("network")
    container.bundle.drop_mount("/sys")
    text = container.probe("read /proc/net/unix")[0]["data"]
    abstract = [line.split()[-1] for line in text.splitlines() if line.split()[-1].startswith("@")]
    assert not [name for name in abstract if container.id in name or "ociruntime" in name]
