"""seccomp.compile.program: the cache of compiled programs. The compiler is faked: no libseccomp needed."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ociruntime.seccomp import build, compile as compiler, store

CODE = bytes(range(64))
SECTION: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [{"names": ["read", "wri\udcffte"], "action": "SCMP_ACT_ALLOW"}],
}


def request(section: dict[str, Any] = SECTION, flags: int = 4) -> compiler.SeccompRequest:
    return compiler.SeccompRequest(section, flags, False, "", "")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The sections that were really compiled."""
    calls: list[Any] = []

    def fake(section: Any, *, fail_unknown: bool) -> bytes:
        calls.append(section)
        return CODE

    monkeypatch.setattr(build, "build", fake)
    return calls


def files(cache: Path) -> list[str]:
    return sorted(p.name for p in cache.iterdir())


def test_second_time_from_the_cache(compiled: list[Any], tmp_path: Path) -> None:
    cache = tmp_path / "seccomp"
    assert compiler.program(request(), str(cache)) == CODE
    assert compiler.program(request(copy.deepcopy(SECTION), flags=0), str(cache)) == CODE
    assert len(compiled) == 1
    assert files(cache) == [compiler.digest(request()) + ".bpf"]
    assert cache.stat().st_mode & 0o777 == 0o700
    assert (cache / files(cache)[0]).stat().st_mode & 0o777 == 0o600


def test_no_cache_directory(compiled: list[Any]) -> None:
    assert compiler.program(request(), "") == compiler.program(request(), "") == CODE
    assert len(compiled) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"defaultAction": "SCMP_ACT_KILL"},
        {"defaultErrnoRet": 2},
        {"architectures": None},
        {"syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]},
    ],
)
def test_digest_follows_what_shapes_the_program(change: dict[str, Any]) -> None:
    assert compiler.digest(request({**SECTION, **change})) != compiler.digest(request())


def test_digest_ignores_what_does_not() -> None:
    assert compiler.digest(request({**SECTION, "flags": [], "listenerPath": "/x"}, 0)) == compiler.digest(request())


def test_digest_follows_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    before = compiler.digest(request())
    fields = list(os.uname())
    fields[2] += "-other"
    monkeypatch.setattr("posix.uname", lambda: os.uname_result(fields))
    assert compiler.digest(request()) != before


def test_digest_is_the_same_in_every_process() -> None:
    """Neither hash seeds nor shared or interned strings may show."""
    code = (
        "import sys, json\n"
        "from ociruntime.seccomp import compile as c\n"
        "section = json.loads(sys.stdin.read())\n"
        "print(c.digest(c.SeccompRequest(section, 0, False, '', '')))\n"
    )
    section = {**SECTION, "syscalls": SECTION["syscalls"] * 3}
    unshared = json.loads(json.dumps(section))
    root = str(Path(compiler.__file__).parents[2])
    found = {compiler.digest(request(section)), compiler.digest(request(unshared))}
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root}
        run = subprocess.run(
            [sys.executable, "-c", code], input=json.dumps(section), capture_output=True, text=True, env=environment
        )
        found.add(run.stdout.strip())
    assert len(found) == 1, found


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def damage_magic(path: Path) -> None:
    path.write_bytes(b"X" + path.read_bytes()[1:])


def damage_odd_size(path: Path) -> None:
    code = CODE + b"\0"
    path.write_bytes(compiler.pack(code))


def damage_too_long(path: Path) -> None:
    path.write_bytes(compiler.pack(bytes(8 * (compiler.MAX_INSTRUCTIONS + 1))))


def damage_group_writable(path: Path) -> None:
    path.chmod(0o620)


def damage_world_writable(path: Path) -> None:
    path.chmod(0o602)


def damage_symlink(path: Path) -> None:
    real = path.with_name("real")
    path.rename(real)
    path.symlink_to(real)


def damage_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def damage_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def damage_directory_writable(path: Path) -> None:
    path.parent.chmod(0o770)


def damage_directory_symlink(path: Path) -> None:
    real = path.parent.with_name("real")
    path.parent.rename(real)
    path.parent.symlink_to(real)


DAMAGES = [f for name, f in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=[f.__name__ for f in DAMAGES])
def test_a_file_that_is_not_ours_or_not_whole_is_not_used(damage: Any, compiled: list[Any], tmp_path: Path) -> None:
    cache = tmp_path / "seccomp"
    compiler.program(request(), str(cache))
    damage(cache / (compiler.digest(request()) + ".bpf"))
    assert compiler.program(request(), str(cache)) == CODE
    assert len(compiled) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: chown")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_file_of_another_user_is_not_used(what: str, compiled: list[Any], tmp_path: Path) -> None:
    cache = tmp_path / "seccomp"
    compiler.program(request(), str(cache))
    os.chown(cache if what == "directory" else cache / files(cache)[0], 12345, 12345)
    assert compiler.program(request(), str(cache)) == CODE
    assert len(compiled) == 2


def test_a_cache_that_cannot_be_written_is_no_error(compiled: list[Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "a" / "b"):
        assert compiler.program(request(), str(path)) == CODE
    assert files(tmp_path) == ["file"]


def test_a_failed_write_leaves_nothing(compiled: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("posix.write", full)
    assert compiler.program(request(), str(tmp_path)) == CODE
    assert files(tmp_path) == []


def test_short_writes(compiled: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr("posix.write", lambda fd, data: real(fd, data[:7]))
    compiler.program(request(), str(tmp_path))
    assert compiler.program(request(), str(tmp_path)) == CODE
    assert len(compiled) == 1


def test_the_cache_is_bounded(compiled: list[Any], tmp_path: Path) -> None:
    for number in range(compiler.CACHE_FILES + 6):
        old = tmp_path / f"{number:03}.bpf"
        old.write_bytes(b"")
        os.utime(old, (1000 + number, 1000 + number))
    (tmp_path / ".left.behind").write_bytes(b"")
    os.utime(tmp_path / ".left.behind", (1000, 1000))
    (tmp_path / ".being.written").write_bytes(b"")
    compiler.program(request(), str(tmp_path))
    left = files(tmp_path)
    programs = [name for name in left if not name.startswith(".")]
    assert len(programs) == compiler.CACHE_FILES
    assert compiler.digest(request()) + ".bpf" in programs
    assert "006.bpf" not in programs  # the oldest went, the newest stayed
    assert f"{compiler.CACHE_FILES + 5:03}.bpf" in programs
    assert ".left.behind" not in left
    assert ".being.written" in left


def test_no_fd_is_left_open(compiled: list[Any], tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    cache = tmp_path / "seccomp"
    compiler.program(request(), str(cache))
    compiler.program(request(), str(cache))
    damage_magic(cache / files(cache)[0])
    compiler.program(request(), str(cache))
    cache.chmod(0o777)
    compiler.program(request(), str(cache))
    assert os.listdir("/proc/self/fd") == before


def test_store_never_raises(tmp_path: Path) -> None:
    store.store(str(tmp_path / "no" / "such"), "x", b"")
