"""create: from a bundle to a process that waits."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.lib.bundle import Bundle
from integration.lib.container import Container, alive
from integration.lib.leaks import Leaks
from integration.lib.runtime import Runtime


def test_create_waits_before_the_program(container: Container) -> None:
    """create returns when init waits; the program of the config has not run yet [K1]."""
    container.bundle.args("echo hello")
    container.create()
    assert container.state()["status"] == "created"
    assert alive(container.pid)
    assert container.output == b""
    container.start()
    assert container.wait() == 0
    assert container.output == b"hello\n"


def test_pid_file_is_a_bare_number(container: Container) -> None:
    """The pid file holds the decimal host PID and no newline [P1]."""
    container.create()
    text = container.pid_file.read_bytes()
    assert re.fullmatch(rb"[1-9][0-9]*", text)
    assert int(text) == container.state()["pid"]


def test_pid_file_is_relative_to_the_caller(container: Container, tmp_path: Path) -> None:
    """A relative pid file is resolved before the bundle becomes the working directory [P1]."""
    container.create("--pid-file", "here.pid", pid_file=False, cwd=tmp_path)
    container.pid = container.state()["pid"]
    assert (tmp_path / "here.pid").read_text() == str(container.pid)
    assert not (container.bundle.path / "here.pid").exists()
    assert os.listdir(tmp_path) == ["here.pid"]


def test_no_pid_file_after_a_failure(container: Container) -> None:
    """A failed create leaves no pid file [P1]."""
    container.bundle.process(args=["/no/such/program"])
    result = container.create(check=False)
    if result.code == 0:  # crun reports a missing program at start
        pytest.skip("this runtime looks for the program at start")
    assert not container.pid_file.exists()


@pytest.mark.ours_only("P1: a stale temporary file of a killed create is removed and the write is tried once more")
def test_stale_temporary_pid_file(container: Container) -> None:
    """A leftover of an earlier crash beside the pid file does not make create fail for ever [P1]."""
    stale = container.pid_file.with_name(f".{container.pid_file.name}")
    stale.write_text("garbage")
    container.create()
    assert container.pid_file.read_text() == str(container.state()["pid"])
    assert not stale.exists()


@pytest.mark.parametrize("kind", ["fifo", "device", "stdout"])
def test_pid_file_that_is_no_file(container: Container, tmp_path: Path, kind: str) -> None:
    """What has a name but is no file gets the PID; it is neither replaced nor, after a failure, removed [P1]."""
    path = tmp_path / kind
    reader = -1
    if kind == "fifo":
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    elif kind == "device":
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    else:
        path.symlink_to("/proc/self/fd/1")
        reader, writer = os.pipe()
        os.fchown(writer, tmp_path.stat().st_uid, -1)  # the file is opened again
    before = path.lstat()
    if kind == "stdout":
        container.create("--pid-file", str(path), pid_file=False, stdout=writer)
        os.close(writer)
    else:
        container.create("--pid-file", str(path), pid_file=False)
    container.pid = container.state()["pid"]
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    if reader >= 0:
        assert os.read(reader, 100) == str(container.pid).encode()
        os.close(reader)


def test_unwritable_pid_file_undoes_everything(container: Container, leaks: Leaks) -> None:
    """When the pid file cannot be written the container is destroyed and create fails [P1]."""
    result = container.create("--pid-file", "/proc/no/such/dir/pid", pid_file=False, check=False)
    assert result.code != 0
    leaks.check()


def test_duplicate_id(container: Container, runtime: Runtime) -> None:
    """An ID that is taken is refused, and the first container is not touched [K1]."""
    container.create()
    second = runtime("create", "--bundle", str(container.bundle.path), container.id)
    assert second.code != 0
    if runtime.ours:
        assert "container with given ID already exists" in second.error
    else:
        assert "exist" in second.error
    state = container.state()
    assert (state["status"], state["pid"]) == ("created", container.pid)
    container.start()
    assert container.wait() == 0


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_duplicate_id_in_any_status(container: Container, runtime: Runtime, status: str) -> None:
    """The ID is unique among all containers, whatever their status [K1]."""
    container.begin("pause")
    if status == "stopped":
        container.finish()
    result = runtime("create", "--bundle", str(container.bundle.path), container.id)
    assert result.code != 0
    assert "exist" in result.error
    assert container.state()["status"] == status


def test_config_is_read_once(container: Container) -> None:
    """Changes of config.json after create have no effect on the container [K1]."""
    container.bundle.args("echo first").merge({"annotations": {"a": "first"}})
    container.create()
    container.bundle.args("echo second").merge({"annotations": {"a": "second"}, "hostname": "second"})
    container.bundle.write()
    assert container.state()["annotations"]["a"] == "first"
    container.start()
    assert container.wait() == 0
    assert container.output == b"first\n"


def test_config_may_vanish(container: Container) -> None:
    """After create the config file is no longer needed [K1]."""
    container.create()
    (container.bundle.path / "config.json").unlink()
    container.start()
    assert container.wait() == 0
    container.delete()


def test_bundle_defaults_to_the_working_directory(container: Container, runtime: Runtime) -> None:
    """Without --bundle the current directory is the bundle [K1]."""
    container.bundle.write()
    container.used = True
    runtime("create", container.id, cwd=container.bundle.path).ok()
    state = container.state()
    container.pid = state["pid"]
    assert state["bundle"] == str(container.bundle.path)


def test_bundle_may_be_relative(container: Container, runtime: Runtime) -> None:
    """A relative bundle counts from the caller's directory; state shows it absolute [K1, J1]."""
    container.bundle.write()
    container.used = True
    runtime("create", "--bundle", container.bundle.path.name, container.id, cwd=container.bundle.path.parent).ok()
    state = container.state()
    container.pid = state["pid"]
    assert state["bundle"] == str(container.bundle.path)


def test_bundle_behind_a_symlink(container: Container, runtime: Runtime, tmp_path: Path) -> None:
    """ ".." behind a symlink is where the kernel goes, not where the text seems to [K1]."""
    container.bundle.write()
    container.used = True
    below = container.bundle.path / "below"
    below.mkdir()
    (tmp_path / "link").symlink_to(below)
    runtime("create", "--bundle", f"{tmp_path}/link/..", container.id).ok()
    state = container.state()
    container.pid = state["pid"]
    assert state["bundle"] == str(container.bundle.path)


def test_short_bundle_flag(container: Container, runtime: Runtime) -> None:
    """-b is --bundle [K1]."""
    container.bundle.write()
    container.used = True
    runtime("create", "-b", str(container.bundle.path), container.id).ok()
    container.pid = container.state()["pid"]


@pytest.mark.parametrize("missing", ["bundle", "config", "rootfs"])
def test_missing_parts(container: Container, leaks: Leaks, missing: str) -> None:
    """Without bundle directory, config.json or rootfs create fails and leaves nothing [K1, F2]."""
    container.bundle.write()
    arguments = ["--bundle", str(container.bundle.path)]
    if missing == "bundle":
        arguments = ["--bundle", "/no/such/bundle"]
    elif missing == "config":
        (container.bundle.path / "config.json").unlink()
    else:
        container.bundle.rootfs.rename(container.bundle.path / "elsewhere")
    result = container.command("create", *arguments)
    assert result.code != 0
    assert result.error
    leaks.check()


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/a", "a b", "a\nb", "a$b", "ä", "a*", "a:b", "a@b"])
def test_invalid_ids(runtime: Runtime, bundle: Bundle, leaks: Leaks, name: str) -> None:
    """IDs consist of letters, digits and _+.-, and are neither empty nor . nor .. [G11]."""
    bundle.write()
    for verb in ("create", "run"):
        result = runtime(verb, "--bundle", str(bundle.path), name)
        assert result.code != 0, result
    for verb in ("state", "start", "delete", "kill"):
        assert runtime(verb, name).code != 0
    leaks.check()


@pytest.mark.parametrize("name", ["a", "A.b", "x_y", "x+y", "x-y", "0", "1.2.3"])
def test_valid_ids(new_container: Callable[..., Container], name: str) -> None:
    """All the allowed characters really are allowed [G11]."""
    container = new_container()
    container.id = f"{container.id}{name}"
    container.create()
    assert container.state()["id"] == container.id
    container.finish()
    container.delete()


def test_long_id(new_container: Callable[..., Container]) -> None:
    """An ID of 200 characters works [G11]."""
    container = new_container()
    container.id = container.id + "x" * (200 - len(container.id))
    container.create()
    assert container.state()["id"] == container.id


def test_too_long_id(runtime: Runtime, bundle: Bundle, leaks: Leaks) -> None:
    """An ID that cannot be a file name is refused and leaves nothing [G11]."""
    bundle.write()
    assert runtime("create", "--bundle", str(bundle.path), "x" * 5000).code != 0
    leaks.check()


def test_stdin_is_not_read(container: Container) -> None:
    """create, start, state, kill and delete leave the caller's stdin alone [G12]."""
    container.bundle.args("trap 15 3")
    reader, writer = os.pipe()
    os.write(writer, b"untouched")
    try:
        container.create(stdin=reader)
        container.start(stdin=reader)
        container.wait_replies(1)
        container.command("state", stdin=reader).ok()
        container.command("kill", stdin=reader).ok()
        container.wait()
        container.delete(stdin=reader)
        assert os.read(reader, 100) == b"untouched"
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_streams(container: Container, closed: tuple[int, ...]) -> None:
    """With closed fds 0-2 create works, and the container has something there, not a file of the runtime [G12]."""

    def close() -> None:
        for number in closed:
            os.close(number)

    container.bundle.args("pause")
    container.create(preexec_fn=close)
    for number in closed:
        target = os.readlink(f"/proc/{container.pid}/fd/{number}")
        assert target.endswith("/dev/null") or target == "/null", target
    container.start()
    container.kill("KILL")
    assert container.wait() == 137


def test_empty_environment(container: Container) -> None:
    """All commands work with an empty environment [G12, A4]."""
    container.bundle.args("trap 15 4")
    container.create(env={})
    container.start(env={})
    container.wait_replies(1)
    assert container.command("state", env={}).ok().json["status"] == "running"
    container.runtime("kill", container.id, "TERM", env={}).ok()
    assert container.wait() == 4
    container.command("delete", env={}).ok()


def test_detach_is_accepted(container: Container) -> None:
    """create --detach, as go-runc can send it, is no usage error [A1]."""
    container.create("--detach")


def test_no_pivot(container: Container) -> None:
    """--no-pivot: the container works without pivot_root [K1, L12]."""
    container.bundle.args("report", "ls /")
    container.create("--no-pivot")
    container.start()
    assert container.wait() == 0
    assert "probe" in container.replies[1]["names"]


def test_no_new_keyring(container: Container) -> None:
    """By default init gets a session keyring of its own; --no-new-keyring leaves the caller's [K1, U15]."""
    container.bundle.args("keyring")
    first = container.probe("keyring")[0]
    assert first["errno"] == 0
    assert container.id in first["name"]
    second = container.run("--no-new-keyring").ok().replies[0]
    assert container.id not in second["name"]


def test_init_is_the_callers_child(container: Container) -> None:
    """No process of the runtime stays between the caller and init: the caller can wait for it [A3]."""
    container.bundle.args("exit 41")
    container.create()
    stat = Path(f"/proc/{container.pid}/stat").read_text().rpartition(")")[2].split()
    assert int(stat[1]) == os.getpid()
    container.start()
    assert container.wait() == 41


def test_init_death_in_created(container: Container) -> None:
    """When the waiting init is killed, the container is stopped and start says so [K2, S2]."""
    container.create()
    os.kill(container.pid, signal.SIGKILL)
    assert container.wait() == 137
    assert container.state()["status"] == "stopped"
    result = container.start(check=False)
    assert result.code != 0
    container.delete()


def test_state_root_is_private(container: Container) -> None:
    """Others on the machine cannot look into the state of a container [S1]."""
    container.create()
    assert (container.runtime.root / container.id).stat().st_mode & 0o777 == 0o711
    found = json.loads((container.runtime.root / container.id / "state.json").read_text())
    assert found["id"] == container.id
