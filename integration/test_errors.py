"""Broken configs: each is refused, says where, and leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from integration.lib.container import Container
from integration.lib.leaks import Leaks

SECCOMP: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"]}
MIB = 1 << 20

PLACE = "column "  # found while reading the file: line and column instead of a pointer

# name, change of the config, JSON pointer of the field
BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("version-missing", {"ociVersion": None}, "/ociVersion"),
    ("version-other", {"ociVersion": "3.0.0"}, "/ociVersion"),
    ("root-missing", {"root": None}, "/root"),
    ("root-path-missing", {"root": {"path": "nowhere"}}, "/root/path"),
    ("root-path-file", {"root": {"path": "config.json"}}, "/root/path"),
    ("root-readonly-type", {"root": {"readonly": "yes"}}, "/root/readonly"),
    ("args-empty", {"process": {"args": []}}, "/process/args"),
    ("args-missing", {"process": {"args": None}}, "/process"),
    ("args-type", {"process": {"args": "/probe report"}}, "/process/args"),
    ("args-item-type", {"process": {"args": ["/probe", 5]}}, "/process/args/1"),
    ("args-not-found", {"process": {"args": ["/does/not/exist"]}}, "/process/args"),
    ("args-nul", {"process": {"args": ["/probe", "a\0b"]}}, PLACE),
    ("cwd-relative", {"process": {"cwd": "work"}}, "/process/cwd"),
    ("cwd-missing", {"process": {"cwd": None}}, "/process"),
    ("cwd-file", {"process": {"cwd": "/probe"}}, "/process/cwd"),
    ("env-no-equals", {"process": {"env": ["A=1", "B"]}}, "/process/env/1"),
    ("env-type", {"process": {"env": {"A": "1"}}}, "/process/env"),
    ("uid-negative", {"process": {"user": {"uid": -1}}}, "/process/user/uid"),
    ("gid-type", {"process": {"user": {"gid": "0"}}}, "/process/user/gid"),
    ("groups-type", {"process": {"user": {"additionalGids": [1, "x"]}}}, "/process/user/additionalGids/1"),
    ("umask-type", {"process": {"user": {"umask": "022"}}}, "/process/user/umask"),
    ("capabilities-type", {"process": {"capabilities": {"bounding": "CAP_KILL"}}}, "/process/capabilities/bounding"),
    ("rlimit-unknown", {"process": {"rlimits": [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]}}, "/process/rlimits/0"),
    (
        "rlimit-twice",
        {"process": {"rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}] * 2}},
        "/process/rlimits/1",
    ),
    ("nnp-type", {"process": {"noNewPrivileges": 1}}, "/process/noNewPrivileges"),
    ("oom-range", {"process": {"oomScoreAdj": 2000}}, "/process/oomScoreAdj"),
    ("hostname-type", {"hostname": 5}, "/hostname"),
    ("hostname-long", {"hostname": "h" * 65}, "/hostname"),
    ("annotation-type", {"annotations": {"a": 1}}, "/annotations/a"),
    ("annotation-empty-key", {"annotations": {"": "x"}}, "/annotations"),
    ("mounts-type", {"mounts": {}}, "/mounts"),
    ("mount-no-destination", {"mounts": [{"type": "tmpfs", "source": "x"}]}, "/mounts/0"),
    ("mount-no-source", {"mounts": [{"destination": "/d", "source": "/no", "options": ["bind"]}]}, "/mounts/0"),
    ("mount-bad-type", {"mounts": [{"destination": "/d", "source": "x", "type": "nofs"}]}, "/mounts/0"),
    (
        "mount-bad-option",
        {"mounts": [{"destination": "/d", "source": "x", "type": "tmpfs", "options": ["size=x"]}]},
        "/mounts/0",
    ),
    (
        "mount-options-type",
        {"mounts": [{"destination": "/d", "source": "x", "type": "tmpfs", "options": "ro"}]},
        "/mounts/0/options",
    ),
    ("mount-nul", {"mounts": [{"destination": "/d\0e", "source": "x", "type": "tmpfs"}]}, PLACE),
    ("hook-relative", {"hooks": {"createRuntime": [{"path": "true"}]}}, "/hooks/createRuntime/0/path"),
    ("hook-timeout", {"hooks": {"prestart": [{"path": "/bin/true", "timeout": 0}]}}, "/hooks/prestart/0/timeout"),
    ("hook-no-path", {"hooks": {"poststop": [{"args": ["x"]}]}}, "/hooks/poststop/0"),
    ("hook-fails", {"hooks": {"prestart": [{"path": "/bin/false"}]}}, "/hooks/prestart/0"),
    ("hook-env", {"hooks": {"prestart": [{"path": "/bin/true", "env": ["NOEQ"]}]}}, "/hooks/prestart/0/env/0"),
    ("namespace-type", {"linux": {"namespaces": [{"type": "moon"}]}}, "/linux/namespaces/0/type"),
    ("namespace-no-type", {"linux": {"namespaces": [{"path": "/proc/1/ns/net"}]}}, "/linux/namespaces/0"),
    ("device-type", {"linux": {"devices": [{"path": "/dev/x", "type": "q"}]}}, "/linux/devices/0/type"),
    ("device-no-numbers", {"linux": {"devices": [{"path": "/dev/x", "type": "c"}]}}, "/linux/devices/0"),
    ("masked-relative", {"linux": {"maskedPaths": ["proc/kcore"]}}, "/linux/maskedPaths/0"),
    ("masked-type", {"linux": {"maskedPaths": "/proc/kcore"}}, "/linux/maskedPaths"),
    ("readonly-relative", {"linux": {"readonlyPaths": ["proc/sys"]}}, "/linux/readonlyPaths/0"),
    ("propagation", {"linux": {"rootfsPropagation": "up"}}, "/linux/rootfsPropagation"),
    ("sysctl-host", {"linux": {"sysctl": {"kernel.panic": "1"}}}, "/linux/sysctl/kernel.panic"),
    ("sysctl-type", {"linux": {"sysctl": {"net.ipv4.ip_forward": 1}}}, "/linux/sysctl/net.ipv4.ip_forward"),
    ("cgroups-path-type", {"linux": {"cgroupsPath": 7}}, "/linux/cgroupsPath"),
    ("memory-type", {"linux": {"resources": {"memory": {"limit": "64M"}}}}, "/linux/resources/memory/limit"),
    (
        "memory-swap",
        {"linux": {"resources": {"memory": {"limit": 64 * MIB, "swap": 32 * MIB}}}},
        "/linux/resources/memory/",
    ),
    ("cpu-shares", {"linux": {"resources": {"cpu": {"shares": -5}}}}, "/linux/resources/cpu/shares"),
    ("cpu-period", {"linux": {"resources": {"cpu": {"quota": 1000, "period": 5}}}}, "/linux/resources/cpu/"),
    ("pids-type", {"linux": {"resources": {"pids": {"limit": 1.5}}}}, "/linux/resources/pids/limit"),
    (
        "devices-access",
        {"linux": {"resources": {"devices": [{"allow": True, "access": "rwx"}]}}},
        "/linux/resources/devices/0/access",
    ),
    ("seccomp-action", {"linux": {"seccomp": {"defaultAction": "NO"}}}, "/linux/seccomp/defaultAction"),
    (
        "seccomp-architecture",
        {"linux": {"seccomp": {**SECCOMP, "architectures": ["SCMP_ARCH_Z80"]}}},
        "/linux/seccomp/architectures/0",
    ),
    (
        "seccomp-errno-type",
        {
            "linux": {
                "seccomp": {
                    **SECCOMP,
                    "syscalls": [{"names": ["times"], "action": "SCMP_ACT_ERRNO", "errnoRet": "EPERM"}],
                }
            }
        },
        "/linux/seccomp/syscalls/0/errnoRet",
    ),
    (
        "offsets",
        {"linux": {"timeOffsets": {"monotonic": {"secs": 5, "nanosecs": 0}}}},
        "/linux/timeOffsets",
    ),
    ("maps-type", {"linux": {"uidMappings": {"containerID": 0}}}, "/linux/uidMappings"),
]


@pytest.mark.parametrize(("change", "pointer"), [entry[1:] for entry in BROKEN], ids=[entry[0] for entry in BROKEN])
def test_broken_config(container: Container, leaks: Leaks, change: dict[str, Any], pointer: str) -> None:
    """A broken field fails create; ours names it; process, cgroup, mount, state and pid file are not left [F7]."""
    container.bundle.merge(change)
    result = container.create(check=False)
    assert result.code != 0, result
    assert result.error.strip()
    assert "Traceback" not in result.error
    assert not container.pid_file.exists()
    assert not (container.runtime.root / container.id).exists()
    leaks.check()
    if container.runtime.ours:
        assert pointer in result.error, result
        assert len(result.error.strip().splitlines()) == 1


@pytest.mark.ours_only("section 8: the pointer is a key of the log record")
@pytest.mark.parametrize(("change", "pointer"), [entry[1:] for entry in BROKEN], ids=[entry[0] for entry in BROKEN])
def test_pointer_in_the_log(
    container: Container, leaks: Leaks, tmp_path: Path, change: dict[str, Any], pointer: str
) -> None:
    """With --log-format json the last record carries the pointer, and its message is the whole cause [G4]."""
    container.bundle.merge(change)
    container.bundle.write()
    container.used = True
    log = tmp_path / "log.json"
    result = container.runtime(
        "create", "--bundle", str(container.bundle.path), container.id,
        options=["--log", str(log), "--log-format", "json"],
    )  # fmt: skip
    assert result.code != 0
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert records[-1]["level"] == "error"
    if pointer != PLACE:
        assert records[-1]["pointer"].startswith(pointer.rstrip("/"))
    assert pointer in records[-1]["msg"]


# -- the file itself [SECURITY D.4] --

RAW: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("not-json", b"hello"),
    ("cut", b'{"ociVersion": "1.0.2", '),
    ("array", b"[]"),
    ("null", b"null"),
    ("number", b"5"),
    ("trailing", b'{"ociVersion": "1.0.2"} x'),
    ("two-documents", b"{}{}"),
    ("comment", b"// no\n{}"),
    ("single-quotes", b"{'ociVersion': '1.0.2'}"),
]
STRICT: list[tuple[str, bytes]] = [
    ("bad-utf8", b'{"ociVersion": "1.0.2", "hostname": "\xff"}'),
    ("bom", b'\xef\xbb\xbf{"ociVersion": "1.0.2"}'),
    ("duplicate-key", b'{"ociVersion": "1.0.2", "ociVersion": "1.0.2"}'),
    ("nan", b'{"ociVersion": "1.0.2", "x": NaN}'),
    ("infinity", b'{"ociVersion": "1.0.2", "x": -Infinity}'),
    ("huge-number", b'{"ociVersion": "1.0.2", "x": ' + b"9" * 5000 + b"}"),
    ("surrogate", b'{"ociVersion": "1.0.2", "hostname": "\\ud800"}'),
    ("deep", b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ("large", b'{"x": "' + b"y" * (40 << 20) + b'"}'),
]


@pytest.mark.parametrize("data", [entry[1] for entry in RAW], ids=[entry[0] for entry in RAW])
def test_broken_json(container: Container, leaks: Leaks, data: bytes) -> None:
    """Something that is no JSON object is refused [F7]."""
    container.bundle.raw = data
    result = container.create(check=False)
    assert result.code != 0
    assert "Traceback" not in result.error
    leaks.check()


@pytest.mark.ours_only("SECURITY D.4: what JSON readers disagree about is refused, with line and column")
@pytest.mark.parametrize("data", [entry[1] for entry in STRICT], ids=[entry[0] for entry in STRICT])
def test_ambiguous_json(container: Container, leaks: Leaks, data: bytes) -> None:
    """Duplicate keys, bad UTF-8, NaN, endless nesting and the like are refused, shortly [SECURITY D.4]."""
    container.bundle.raw = data
    result = container.create(check=False)
    assert result.code != 0
    assert "Traceback" not in result.error
    assert len(result.error) < 2000
    assert "line 1 column" in result.error or "larger than" in result.error
    assert "internal error" not in result.error
    leaks.check()


@pytest.mark.ours_only("SECURITY D.4: the place in the file is named")
@pytest.mark.parametrize(
    ("data", "place"),
    [(b'{\n "a": 1,\n "a": 2\n}', "line 3"), (b'{\n "a": tru\n}', "line 2"), (b'{\n\n "a": NaN\n}', "line 3")],
)
def test_place_in_the_file(container: Container, data: bytes, place: str) -> None:
    """Line and column of the mistake are told."""
    container.bundle.raw = data
    result = container.create(check=False)
    assert place in result.error
    assert "column" in result.error


@pytest.mark.ours_only("SECURITY D.4: config.json is a regular file")
@pytest.mark.parametrize("kind", ["fifo", "directory", "device"])
def test_config_that_is_no_file(container: Container, leaks: Leaks, kind: str) -> None:
    """A FIFO does not hang the runtime, a device is not read."""
    import os

    path = container.bundle.path / "config.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        os.mknod(path, 0o20666, os.makedev(1, 5))
    result = container.command("create", "--bundle", str(container.bundle.path))
    assert result.code != 0
    leaks.check()


@pytest.mark.ours_only("section 8: one human line on stderr")
def test_errors_have_a_hint_where_errno_misleads(container: Container) -> None:
    """One line, with the verb and the ID in front, lower case, no final stop."""
    container.bundle.process(cwd="relative")
    error = container.create(check=False).error
    assert error.count("\n") == 1
    assert container.id in error
    assert not error.rstrip("\n").endswith(".")


def test_failure_then_success(container: Container, leaks: Leaks) -> None:
    """After a failed create the same ID can be used at once [F7]."""
    container.bundle.mount("/d", "/no/such", "bind")
    assert container.create(check=False).code != 0
    container.bundle.config["mounts"].pop()
    container.create()
    container.start()
    assert container.wait() == 0
