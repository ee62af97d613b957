"""exec: who the process is: identity, --process, CPUs, filter."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from integration.lib.container import Container
from integration.lib.probe import capability_names, chain
from integration.lib.runtime import Result, run


@pytest.fixture
def running(container: Container) -> Container:
    """A container that waits."""
    return container.begin("pause")


def process_file(container: Container, tmp_path: Path, *commands: str, **change: Any) -> str:
    """A file for --process: the smallest one, and what is changed; None takes a key out."""
    document: dict[str, Any] = {"user": {"uid": 0, "gid": 0}, "args": ["/probe", *chain(commands)], "cwd": "/"}
    document.update(change)
    path = tmp_path / "process.json"
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    return str(path)


def with_file(container: Container, path: str, *flags: str, **how: Any) -> Result:
    """exec --process FILE."""
    return container.runtime("exec", "--process", path, *flags, container.id, **how)


# -- identity [K4, U4, U6] --


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", (1, 7)), ("1:2", (1, 2)), ("0", (0, 7)), ("4294967294", (4294967294, 7)), ("1000", (1000, 7)), ("", (5, 7))],
)
def test_user(container: Container, text: str, expected: tuple[int, int]) -> None:
    """--user UID[:GID]: numbers, never looked up as names; nothing is as if not given [K4; CVE-2016-3697]."""
    etc = container.bundle.rootfs / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("1000:x:0:0::/trap:/bin/sh\n1:x:0:0::/trap:\n")
    container.bundle.process(user={"uid": 5, "gid": 7})
    container.begin("pause")
    report = container.execute("report", flags=["--user", text]).ok().replies[0]
    assert report["uids"] == [expected[0]] * 3
    assert report["gids"] == [expected[1]] * 3


@pytest.mark.ours_only("what is no ID is refused")
@pytest.mark.parametrize("text", ["1:", ":2", "-1", "4294967295", "4294967296", "1x", " 1", "root", "1:x", "٣"])
def test_bad_user(running: Container, text: str) -> None:
    """Anything else is refused and runs nothing [crun CVE-2026-30892]."""
    result = running.execute("echo ran", flags=["--user", text])
    assert (result.code, result.out) == (255, b"")


def test_groups(container: Container) -> None:
    """--additional-gids are added to those of the config; the caller's are never inherited [K4]."""
    container.bundle.process(user={"uid": 0, "gid": 0, "additionalGids": [10]})
    container.begin("pause")
    report = container.execute("report", flags=["-g", "20", "-g", "30"], preexec_fn=lambda: os.setgroups([77])).ok()
    assert sorted(report.replies[0]["groups"]) == [10, 20, 30]


def test_capabilities(running: Container) -> None:
    """Those of the config; --cap adds to bounding, effective, permitted, never to inheritable [K4; CVE-2022-29162]."""
    want = {"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
    found = running.execute("report").ok().replies[0]["status"]
    assert {capability_names(found[name]) == want for name in ("CapEff", "CapPrm", "CapBnd")} == {True}
    found = running.execute("report", flags=["--cap", "CAP_NET_ADMIN"]).ok().replies[0]["status"]
    more = want | {"CAP_NET_ADMIN"}
    assert {capability_names(found[name]) == more for name in ("CapEff", "CapPrm", "CapBnd")} == {True}
    assert (int(found["CapInh"], 16), int(found["CapAmb"], 16)) == (0, 0)


def test_no_new_privileges(container: Container) -> None:
    """From the config, or set by --no-new-privs [K4, U8]."""
    container.bundle.process(noNewPrivileges=False)
    container.begin("pause")
    assert container.execute("report").ok().replies[0]["nnp"] == 0
    assert container.execute("report", flags=["--no-new-privs"]).ok().replies[0]["nnp"] == 1


def test_no_new_privileges_taken_back(container: Container) -> None:
    """By --no-new-privs=false; without the flag the config decides [K4, U8]."""
    container.bundle.process(noNewPrivileges=True)
    container.begin("pause")
    assert container.execute("report").ok().replies[0]["nnp"] == 1
    assert container.execute("report", flags=["--no-new-privs=false"]).ok().replies[0]["nnp"] == 0


def test_process_from_a_pipe(running: Container, tmp_path: Path) -> None:
    """As a shell's <(COMMAND) is: a file that is a pipe, whose writer takes its time [K4]."""
    path = process_file(running, tmp_path, "echo piped")
    script = f'(sleep 0.3; cat {path}) | "$@"'
    argv = running.runtime.argv("exec", "--process", "/dev/stdin", running.id)
    prefix = running.runtime.prefix  # the pipe is to be made by whoever opens it again
    result = run([*prefix, "/bin/sh", "-c", script, "sh", *argv[len(prefix) :]])
    assert result.ok().out == b"piped\n"


def test_what_is_inherited(container: Container) -> None:
    """Limits, umask, environment, working directory, oom score: as the container's own program has them [K4]."""
    (container.bundle.rootfs / "work").mkdir()
    container.bundle.process(
        user={"uid": 0, "gid": 0, "umask": 0o77},
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}],
        env=["PATH=/", "A=1"],
        cwd="/work",
        oomScoreAdj=300,
    )
    container.begin("pause")
    report = container.execute("report", flags=["-e", "B=2", "-e", "A=3"]).ok().replies[0]
    assert report["rlimits"]["RLIMIT_NOFILE"] == [100, 200]
    assert report["umask"] == 0o77
    assert {"PATH=/", "A=3", "B=2", "HOME=/"} <= set(report["env"])
    assert "A=1" not in report["env"] or not container.runtime.ours
    assert report["cwd"] == "/work"
    assert report["oom_score_adj"] == "300\n"
    assert container.execute("report", flags=["--cwd", "/"]).ok().replies[0]["cwd"] == "/"


def test_home(container: Container) -> None:
    """HOME is that of the user in the container's passwd [U3]."""
    etc = container.bundle.rootfs / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n")
    container.begin("pause")
    for text, home in (("0", "/root"), ("1000", "/home/u"), ("1234", "/")):
        assert f"HOME={home}" in container.execute("report", flags=["--user", text]).ok().replies[0]["env"]


def test_namespaces_and_place(running: Container) -> None:
    """The process is in the namespaces and cgroups of the container, in a session of its own [K4]."""
    report = running.execute("report").ok().replies[0]
    for name, link in report["namespaces"].items():
        entry = f"/proc/{running.pid}/ns/{name}"
        assert os.readlink(entry) == link
    lines = Path(f"/proc/{running.pid}/cgroup").read_text().splitlines()
    mine = [line for line in report["cgroup"].splitlines() if running.id in line or "hugetlb" not in line]
    for line in lines:
        if running.id in line:
            assert line in mine
    assert report["sid"] == report["pid"]
    assert report["pdeathsig"] == 0
    assert set(report["fds"]) == {"0", "1", "2"}


def test_leaked_descriptors(running: Container) -> None:
    """Nothing that the caller left open gets in [CVE-2024-21626]."""

    def leak() -> None:
        found = os.open("/etc", os.O_RDONLY)
        for number in (3, 9, 100):
            os.dup2(found, number)

    report = running.execute("report", preexec_fn=leak, close_fds=False).ok().replies[0]
    assert set(report["fds"]) == {"0", "1", "2"}
    for number in range(3, 20):
        result = running.execute("report", flags=["--cwd", f"/proc/self/fd/{number}"], preexec_fn=leak, close_fds=False)
        if result.code == 0:  # a descriptor of the runtime's own, of the container's root
            assert result.replies[0]["cwd"].startswith("/")
            assert result.replies[0]["cwd"] != "/etc"
        else:
            assert result.code == 255, result


def test_preserved_descriptors(running: Container, tmp_path: Path) -> None:
    """--preserve-fds N: 3 .. 3+N-1 and no more; one that is not open is an error [P6]."""
    (tmp_path / "file").write_text("x")

    def leak() -> None:
        found = os.open(tmp_path / "file", os.O_RDONLY)
        for number in (13, 14, 15, 16):
            os.dup2(found, number)
        for number in (3, 4, 5, 6):
            os.dup2(found, number)

    for count in (1, 3):
        report = running.execute("report", flags=["--preserve-fds", str(count)], preexec_fn=leak, close_fds=False)
        want = {str(number) for number in range(3 + count)}
        assert set(report.ok().replies[0]["fds"]) == want
    result = running.execute("report", flags=["--preserve-fds", "3"])
    assert result.code == 255 or not running.runtime.ours


# -- --process [K4] --


def test_process_file(container: Container, tmp_path: Path) -> None:
    """Everything comes from the file; umask from the container [K4]."""
    container.bundle.process(user={"uid": 0, "gid": 0, "umask": 0o27}, env=["PATH=/", "OF=config"])
    container.begin("pause")
    path = process_file(
        container, tmp_path, "report",
        user={"uid": 3, "gid": 4, "additionalGids": [5], "umask": 0o77},
        env=["PATH=/", "OF=file"],
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}],
        capabilities={name: ["CAP_CHOWN"] for name in ("bounding", "effective", "permitted")},
        noNewPrivileges=False,
        oomScoreAdj=200,
    )  # fmt: skip
    report = with_file(container, path).ok().replies[0]
    assert (report["uids"], report["gids"], report["groups"]) == ([3, 3, 3], [4, 4, 4], [5])
    assert "OF=file" in report["env"]
    assert "OF=config" not in report["env"]
    assert report["umask"] == 0o27
    assert report["nnp"] == 0
    assert report["rlimits"]["RLIMIT_NOFILE"] == [50, 60]
    assert capability_names(report["status"]["CapBnd"]) == {"CAP_CHOWN"}
    assert report["oom_score_adj"] == "200\n" or not container.runtime.ours


def test_process_file_without_capabilities(running: Container, tmp_path: Path) -> None:
    """Absent capabilities are those of the container, never all [K4]."""
    report = with_file(running, process_file(running, tmp_path, "report")).ok().replies[0]
    want = {"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
    assert capability_names(report["status"]["CapBnd"]) == want
    assert capability_names(report["status"]["CapEff"]) == want


def test_bad_process_files(running: Container, tmp_path: Path) -> None:
    """What is wrong in the file is refused, and the field named (ours) [K4]."""
    table: list[tuple[dict[str, Any], str]] = [
        ({"args": []}, "/args"),
        ({"args": None}, "/args"),
        ({"cwd": "relative"}, "/cwd"),
        ({"cwd": None}, "/cwd"),
        ({"env": ["no-equals"]}, "/env/0"),
        ({"rlimits": [{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}]}, "/rlimits/0/type"),
        ({"user": {"uid": -1}}, "/user/uid"),
        ({"scheduler": {"policy": "SCHED_NONSENSE"}}, "/scheduler/policy"),
        ({"execCPUAffinity": {"initial": "x"}}, "/execCPUAffinity/initial"),
    ]
    for change, pointer in table if running.runtime.ours else table[:3]:
        result = with_file(running, process_file(running, tmp_path, "echo ran", **change))
        assert (result.code, result.out) == (255, b""), result
        assert pointer in result.error or not running.runtime.ours, result


def test_config_does_not_matter_any_more(running: Container) -> None:
    """exec works when the bundle's config.json is gone [K4]."""
    if not running.runtime.ours and running.runtime.name == "runc":
        pytest.skip("runc reads the bundle again")
    (running.bundle.path / "config.json").unlink()
    assert running.execute("exit 3").code == 3


# -- CPUs [U14, P11] --


def cpus_of_the_cpuset() -> int:
    """How many CPUs we may use at most, whatever our affinity is."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(8192))  # what there is not is dropped
    most = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before)
    return len(most)


def test_affinity_is_reset(running: Container) -> None:
    """The caller's CPU affinity does not reach the process [P11]."""
    one = {min(os.sched_getaffinity(0))}
    report = running.execute("report", preexec_fn=lambda: os.sched_setaffinity(0, one)).ok().replies[0]
    assert report["cpus"] == cpus_of_the_cpuset()


@pytest.mark.ours_only("runc 1.1 and crun 1.8 do not know it")
def test_cpu_affinity(container: Container, tmp_path: Path) -> None:
    """execCPUAffinity: final is what the process has; CPUs that are not there are an error [U14]."""
    last = max(os.sched_getaffinity(0))
    container.bundle.process(execCPUAffinity={"initial": "0", "final": str(last)})
    container.begin("pause")
    want = str(last)
    assert container.execute("report").ok().replies[0]["status"]["Cpus_allowed_list"] == want
    path = process_file(container, tmp_path, "report")
    assert with_file(container, path).ok().replies[0]["status"]["Cpus_allowed_list"] == want
    path = process_file(container, tmp_path, "report", execCPUAffinity={"final": "0"})
    assert with_file(container, path).ok().replies[0]["status"]["Cpus_allowed_list"] == "0"
    path = process_file(container, tmp_path, "report", execCPUAffinity={"initial": "0"})
    assert with_file(container, path).ok().replies[0]["status"]["Cpus_allowed_list"] == "0"
    for key in ("initial", "final"):
        path = process_file(container, tmp_path, "report", execCPUAffinity={key: "8000"})
        result = with_file(container, path)
        assert result.code == 255
        assert f"/execCPUAffinity/{key}" in result.error


def test_scheduling(container: Container, tmp_path: Path) -> None:
    """scheduler and ioPriority of the config, or of the file [U12, U13]."""
    if not container.runtime.ours:
        pytest.skip("runc 1.1 and crun 1.8 know only some of it")
    container.bundle.process(
        scheduler={"policy": "SCHED_BATCH", "nice": 3}, ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 6}
    )
    container.begin("pause")
    treatment = container.execute("treatment").ok().replies[0]
    assert (treatment["policy"], treatment["nice"], treatment["ioprio"]) == (3, 3, 2 << 13 | 6)
    path = process_file(container, tmp_path, "treatment", scheduler={"policy": "SCHED_IDLE"})
    assert with_file(container, path).ok().replies[0]["policy"] == 5


# -- seccomp --


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_seccomp(container: Container, tmp_path: Path, no_new_privileges: bool) -> None:
    """The container's filter is on every process that exec adds, also from a file [K4]."""
    container.bundle.process(noNewPrivileges=no_new_privileges)
    rule = {"names": ["getcpu"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}
    container.bundle.linux(seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    container.begin("pause")
    getcpu = {"x86_64": 309, "aarch64": 168}[os.uname().machine]
    path = process_file(container, tmp_path, "report", f"syscall {getcpu} 0 0 0", noNewPrivileges=no_new_privileges)
    for result in (container.execute("report", f"syscall {getcpu} 0 0 0"), with_file(container, path)):
        report, call = result.ok().replies
        assert call["errno"] == 99
        assert report["status"]["Seccomp"] == "2"
        assert report["nnp"] == int(no_new_privileges)
