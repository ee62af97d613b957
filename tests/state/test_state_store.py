"""The state root: who may own it, who wins an ID, what survives a kill."""

import os
import posix
import socket
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ociruntime.errors import ExistsError, NotFoundError, OCIError, StateError, StepError
from ociruntime.state.model import CorruptStateError, State
from ociruntime.state.store import ID_LENGTH, InvalidIDError, StateRoot, check_id


def open_fds() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


# ---- container IDs (row G11)


@pytest.mark.parametrize("good", ["a", "A-z_0+9.x", "-x", "_", "a..b", "x" * ID_LENGTH])
def test_ids(good: str) -> None:
    check_id(good)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "../x",
        "/x",
        "a b",
        "a\n",
        "a\0",
        "é",
        "a:b",
        "a@b",
        "~",
        "x" * (ID_LENGTH + 1),
        "²",
    ],
)
def test_ids_refused(bad: str, root: StateRoot) -> None:
    with pytest.raises(InvalidIDError):
        check_id(bad)
    for method in (root.reserve, root.open, root.load):
        with pytest.raises(InvalidIDError):
            method(bad)
    assert os.listdir(root.path) == []


# ---- the root


def test_root_and_parents_are_made_0700(tmp_path: Path) -> None:
    root = StateRoot(str(tmp_path / "a" / "b"))
    assert not root.exists()
    assert root.ids() == []
    with pytest.raises(NotFoundError):
        root.open("x")
    assert not (tmp_path / "a").exists()
    root.reserve("x").close()
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert root.exists()


def test_root_must_not_be_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    root = StateRoot(str(tmp_path / "link"))
    for action in (lambda: root.reserve("x"), lambda: root.open("x"), root.ids, root.exists):
        with pytest.raises(StepError, match="not a symlink"):
            action()
    assert os.listdir(tmp_path / "real") == []


def test_root_must_not_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StepError, match="must be a directory"):
        StateRoot(str(tmp_path / "file")).reserve("x")
    with pytest.raises(StepError, match="not a directory"):
        StateRoot(str(tmp_path / "file" / "below")).reserve("x")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_root_must_not_be_writable_by_everyone(root: StateRoot, mode: int) -> None:
    os.chmod(root.path, mode)
    fds = open_fds()
    for action in (lambda: root.reserve("x"), lambda: root.open("x"), root.ids):
        with pytest.raises(OCIError, match="is writable by everyone"):
            action()
    assert open_fds() == fds


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_must_not_be_writable_by_a_group_of_others(root: StateRoot) -> None:
    """One's own group and root's may: directories are made so under an umask of 002."""
    os.chmod(root.path, 0o770)
    root.reserve("x").close()
    os.chown(root.path, -1, 12345)
    with pytest.raises(OCIError, match="is writable by group 12345"):
        root.open("x")
    os.chmod(root.path, 0o750)
    root.open("x").close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_must_be_ones_own(root: StateRoot) -> None:
    os.chown(root.path, 12345, -1)
    with pytest.raises(OCIError, match="belongs to user 12345"):
        root.reserve("x")


def test_ids_are_sorted_and_no_others(root: StateRoot) -> None:
    for name in ("b", "a", ".cache", "white space"):
        (Path(root.path) / name).mkdir()
    assert root.ids() == ["a", "b"]


# ---- reserve


def test_reserve(root: StateRoot) -> None:
    fds = open_fds()
    with root.reserve("web") as directory:
        assert directory.path == f"{root.path}/web"
        mask = os.umask(0)
        os.umask(mask)
        assert stat.S_IMODE(os.stat(directory.path).st_mode) == 0o711 & ~mask
        assert not os.get_inheritable(directory.fd)
        assert not os.get_inheritable(directory.root_fd)
        with pytest.raises(ExistsError, match="container with given ID already exists"):
            root.reserve("web")
    assert open_fds() == fds


def test_one_thread_wins(root: StateRoot) -> None:
    start = threading.Barrier(50)

    def attempt(_: int) -> str:
        start.wait()
        try:
            root.reserve("web").close()
        except ExistsError:
            return "exists"
        return "won"

    with ThreadPoolExecutor(50) as pool:
        results = list(pool.map(attempt, range(50)))
    assert sorted(results) == ["exists"] * 49 + ["won"]


def test_one_process_wins(root: StateRoot) -> None:
    pids = []
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            try:
                root.reserve("web")
                os._exit(0)
            except ExistsError:
                os._exit(1)
            except Exception:
                os._exit(2)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert sorted(codes) == [0] + [1] * 19


def test_failed_reserve_leaves_nothing(root: StateRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    from ociruntime.state import store

    def refuse(fd: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(store, "flock", refuse)
    fds = open_fds()
    with pytest.raises(StepError, match="cannot lock the container: no locks available"):
        root.reserve("web")
    assert os.listdir(root.path) == []
    assert open_fds() == fds


# ---- the lock (row S5)


def test_lock_excludes_and_times_out(root: StateRoot) -> None:
    with root.reserve("web"), root.open("web") as second:
        begin = time.monotonic()
        with pytest.raises(StateError, match="another command is busy"):
            second.lock(timeout=0.05)
        assert time.monotonic() - begin > 0.04
        assert second.busy()
    with root.open("web") as third:
        assert not third.busy()
        third.lock(timeout=0)


def test_shared_locks_go_together(root: StateRoot) -> None:
    root.reserve("web").close()
    with root.open("web") as one, root.open("web") as two, root.open("web") as three:
        one.lock(shared=True)
        two.lock(timeout=0, shared=True)
        with pytest.raises(StateError):
            three.lock(timeout=0)


def test_lock_is_waited_for(root: StateRoot) -> None:
    first = root.reserve("web")
    timer = threading.Timer(0.1, first.close)
    timer.start()
    with root.open("web") as second:
        second.lock(timeout=60)
    timer.join()


def test_lock_of_a_removed_container(root: StateRoot) -> None:
    with root.reserve("web") as first, root.open("web") as second, root.open("web") as third:
        first.remove()
        first.close()
        with pytest.raises(NotFoundError):
            second.lock()
        second.close()
        with root.reserve("web"), pytest.raises(NotFoundError):
            third.lock()


def test_asking_does_not_lose_the_own_lock(root: StateRoot) -> None:
    with root.reserve("web") as own, root.open("web") as other:
        assert not own.busy()
        assert other.busy()


def test_killed_holder_frees_the_lock(root: StateRoot) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        root.reserve("web")
        os.write(writer, b"x")
        time.sleep(1000)
        os._exit(0)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    os.close(writer)
    with root.open("web") as directory:
        assert directory.busy()
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        directory.lock(timeout=60)


# ---- files


def test_save_and_load(root: StateRoot) -> None:
    with root.reserve("web") as directory:
        with pytest.raises(NotFoundError):
            directory.load()
        directory.save(State("web", bundle="/b", pid=7))
        assert directory.load().pid == 7
        directory.save(State("web", bundle="/b", pid=8))
        assert os.listdir(directory.path) == ["state.json"]
        assert stat.S_IMODE(os.stat(f"{directory.path}/state.json").st_mode) == 0o600
    assert root.load("web").pid == 8


def test_save_replaces_what_a_killed_command_left(root: StateRoot) -> None:
    with root.reserve("web") as directory:
        Path(f"{directory.path}/.state.json").write_text("torn")
        directory.save(State("web", bundle="/b"))
        assert directory.load().bundle == "/b"
        assert os.listdir(directory.path) == ["state.json"]


def test_failed_save_keeps_the_old_state(root: StateRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    with root.reserve("web") as directory:
        directory.save(State("web", bundle="/b", pid=7))
        with monkeypatch.context() as patch:
            patch.setattr(posix, "write", full)
            with pytest.raises(StepError, match="no space left on device") as caught:
                directory.save(State("web", bundle="/b", pid=8))
        assert caught.value.path == f"{root.path}/web/state.json"
        assert os.listdir(directory.path) == ["state.json"]
        assert directory.load().pid == 7


def test_a_planted_symlink_is_not_followed(root: StateRoot, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    with root.reserve("web") as directory:
        for name in (".state.json", "config.json", "state.json"):
            os.symlink(canary, f"{directory.path}/{name}")
        with pytest.raises(StepError, match="too many levels of symbolic links"):
            directory.load()
        directory.save(State("web", bundle="/b"))
        directory.save_config(b"{}")
        assert directory.load().bundle == "/b"
        assert directory.load_config() == b"{}"
    assert canary.read_text() == "untouched"


def test_torn_state(root: StateRoot) -> None:
    with root.reserve("web") as directory:
        path = Path(f"{directory.path}/state.json")
        for text in ("", "{", '{"version": 1}', '{"version": 99, "pid": 5}'):
            path.write_text(text)
            with pytest.raises(CorruptStateError):
                directory.load()
        salvaged = directory.salvage()
        assert salvaged is not None
        assert salvaged.pid == 5
        path.unlink()
        assert directory.salvage() is None


def test_foreign(root: StateRoot) -> None:
    with root.reserve("web") as directory:
        directory.save_config(b"{}")
        assert directory.foreign() == ""
        directory.save(State("web", bundle="/b"))
        directory.make_fifo(os.geteuid(), os.getegid())
        os.mkdir(f"{directory.path}/notify")
        assert directory.foreign() == ""
        with socket.socket(socket.AF_UNIX) as notify:
            notify.bind(f"{directory.path}/notify/notify.sock")
        assert directory.foreign() == ""
        Path(f"{directory.path}/status").touch()
        assert directory.foreign() == f"{directory.path}/status"


@pytest.mark.parametrize("name", ["config.json", "state.json", ".state.json", "exec.fifo", "notify"])
def test_foreign_by_our_names(root: StateRoot, name: str) -> None:
    """A bundle has a config.json as well, and anything may be called notify."""
    with root.reserve("web") as directory:
        path = Path(f"{directory.path}/{name}")
        for make in (path.touch, lambda: path.symlink_to("/"), lambda: (path.mkdir(), (path / "file").touch())):
            make()
            assert directory.foreign() == str(path)
            if path.is_dir() and not path.is_symlink():
                (path / "file").unlink()
                path.rmdir()
            else:
                path.unlink()
        os.chmod(directory.path, 0o755)
        assert directory.foreign() == directory.path


def test_state_file_of_absurd_size(root: StateRoot) -> None:
    with root.reserve("web") as directory:
        with open(f"{directory.path}/state.json", "w") as file:
            file.truncate(1 << 40)
        with pytest.raises(CorruptStateError):
            directory.load()
        assert directory.salvage() is None


def test_state_file_that_is_a_fifo_does_not_block(root: StateRoot) -> None:
    with root.reserve("web") as directory:
        os.mkfifo(f"{directory.path}/state.json")
        with pytest.raises(CorruptStateError):
            directory.load()


def test_saved_config_is_byte_for_byte(root: StateRoot) -> None:
    with root.reserve("web") as directory:
        with pytest.raises(CorruptStateError, match=r"config\.json is missing"):
            directory.load_config()
        directory.save_config(b'{ "a": "\xff" }\n')
        assert directory.load_config() == b'{ "a": "\xff" }\n'


def test_fifo(root: StateRoot) -> None:
    with root.reserve("web") as directory:
        assert not directory.has_fifo()
        mask = os.umask(0o077)
        try:
            directory.make_fifo(os.geteuid(), os.getegid())
        finally:
            os.umask(mask)
        found = os.stat(f"{directory.path}/exec.fifo")
        assert stat.S_ISFIFO(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o622
        assert directory.has_fifo()
        fd = directory.open_fifo(os.O_RDONLY | os.O_NONBLOCK)
        assert not os.get_inheritable(fd)
        os.close(fd)
        directory.remove_fifo()
        directory.remove_fifo()
        assert not directory.has_fifo()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_fifo_belongs_to_the_containers_root(root: StateRoot) -> None:
    with root.reserve("web") as directory:
        directory.make_fifo(100000, 100001)
        found = os.stat(f"{directory.path}/exec.fifo")
        assert (found.st_uid, found.st_gid) == (100000, 100001)


# ---- remove


def test_remove_everything_and_follow_nothing(root: StateRoot, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("x")
    with root.reserve("web") as directory:
        path = Path(directory.path)
        directory.save(State("web", bundle="/b"))
        directory.make_fifo(os.geteuid(), os.getegid())
        (path / "notify" / "deep").mkdir(parents=True)
        (path / "notify" / "deep" / "file").touch()
        (path / "link").symlink_to(outside)
        (path / "notify" / "link").symlink_to(outside)
        directory.remove()
        directory.remove()
    assert os.listdir(root.path) == []
    assert (outside / "keep").read_text() == "x"
    with pytest.raises(NotFoundError, match="does not exist"):
        root.load("web")


def test_killed_removal_can_be_repeated(root: StateRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state file goes last: as long as anything is there, the next delete knows what it is about."""
    with root.reserve("web") as directory:
        directory.save(State("web", bundle="/b"))
        directory.save_config(b"{}")
        order: list[str] = []
        real = os.unlink

        def record(name: str, *, dir_fd: int) -> None:
            order.append(name)
            real(name, dir_fd=dir_fd)

        monkeypatch.setattr(posix, "unlink", record)
        directory.remove()
        assert sorted(order[:-1]) == ["config.json"]
        assert order[-1] == "state.json"


def test_create_during_delete_and_back(root: StateRoot) -> None:
    """Threads that reserve and remove one ID in a loop: every failure is one of ours, and nothing is left."""
    failures: list[BaseException] = []
    end = time.monotonic() + 0.5

    def work() -> None:
        while time.monotonic() < end:
            try:
                with root.reserve("web") as directory:
                    directory.save(State("web", bundle="/b"))
            except StateError:
                pass
            except Exception as error:
                failures.append(error)
            try:
                with root.open("web") as directory:
                    directory.lock()
                    directory.remove()
            except StateError:
                pass
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert os.listdir(root.path) in ([], ["web"])
