"""exec: which process comes of the command line, a file and the container's config; which cgroup it goes to."""

import posix
from pathlib import Path
from typing import Any

import pytest

from ociruntime.cgroups.v1 import CgroupV1
from ociruntime.cgroups.v2 import CgroupV2
from ociruntime.errors import ConfigError, OCIError, StateError, StepError
from ociruntime.lifecycle import exec as executing, program
from ociruntime.lifecycle.exec import ExecRequest, below, process_of
from ociruntime.lifecycle.foreground import code_of
from ociruntime.lifecycle.sockets import FdSocket, check_console
from ociruntime.shim.sync import Message
from ociruntime.state import status

CONFIG: dict[str, Any] = {
    "process": {
        "args": ["init"],
        "terminal": True,
        "consoleSize": {"height": 1, "width": 2},
        "user": {"uid": 5, "gid": 6, "additionalGids": [7], "umask": 0o27},
        "env": ["A=1"],
        "cwd": "/home",
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": ["CAP_CHOWN"]},
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}],
        "noNewPrivileges": True,
        "apparmorProfile": "of-config",
        "selinuxLabel": "of:config",
        "oomScoreAdj": 3,
        "scheduler": {"policy": "SCHED_BATCH"},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
        "execCPUAffinity": {"initial": "0"},
    }
}


def request(**change: Any) -> ExecRequest:
    return ExecRequest("c", args=["new", "words"], **change)


def test_the_config_s_process_with_other_words() -> None:
    found = process_of(request(), CONFIG)
    expected = dict(CONFIG["process"], args=["new", "words"], terminal=False)
    del expected["consoleSize"]
    assert found == expected
    assert CONFIG["process"]["args"] == ["init"]


def test_a_config_without_a_process() -> None:
    assert process_of(request(), {}) == {"args": ["new", "words"], "terminal": False, "cwd": "/", "user": {}}


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ({"tty": True}, "terminal", True),
        ({"cwd": "/w"}, "cwd", "/w"),
        ({"env": ["B=2", "A=3"]}, "env", ["A=1", "B=2", "A=3"]),
        ({"user": (1, None)}, "user", {"uid": 1, "gid": 6, "additionalGids": [7], "umask": 0o27}),
        ({"user": (1, 2)}, "user", {"uid": 1, "gid": 2, "additionalGids": [7], "umask": 0o27}),
        ({"user": (0, 0)}, "user", {"uid": 0, "gid": 0, "additionalGids": [7], "umask": 0o27}),
        ({"additional_gids": [8]}, "user", {"uid": 5, "gid": 6, "additionalGids": [7, 8], "umask": 0o27}),
        ({"apparmor": "p"}, "apparmorProfile", "p"),
        ({"process_label": "l"}, "selinuxLabel", "l"),
        ({"no_new_privs": True}, "noNewPrivileges", True),
    ],
)
def test_changes(change: dict[str, Any], key: str, value: object) -> None:
    assert process_of(request(**change), CONFIG)[key] == value


@pytest.mark.parametrize(("given", "result"), [(None, True), (False, False)])
def test_no_new_privs_is_taken_back_by_its_flag_only(given: bool | None, result: bool) -> None:
    assert process_of(request(no_new_privs=given), CONFIG)["noNewPrivileges"] is result


def test_added_capabilities_are_never_inheritable() -> None:
    found = process_of(request(capabilities=["CAP_CHOWN", "CAP_NET_RAW"]), CONFIG)["capabilities"]
    assert found == {
        "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"],
        "effective": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"],
        "permitted": ["CAP_CHOWN", "CAP_NET_RAW"],
        "inheritable": ["CAP_CHOWN"],
        "ambient": ["CAP_CHOWN"],
    }
    assert CONFIG["process"]["capabilities"]["bounding"] == ["CAP_KILL"]


def test_a_file_is_taken_as_it_is() -> None:
    given = {"args": ["x"], "cwd": "/", "user": {"uid": 1, "umask": 0}, "capabilities": {}, "selinuxLabel": "own"}
    found = process_of(ExecRequest("c", process=given), CONFIG)
    assert found == {
        "args": ["x"],
        "cwd": "/",
        "user": {"uid": 1, "umask": 0o27},
        "capabilities": {},
        "selinuxLabel": "own",
        "scheduler": {"policy": "SCHED_BATCH"},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
        "execCPUAffinity": {"initial": "0"},
    }
    assert given["user"] == {"uid": 1, "umask": 0}


def test_what_a_file_leaves_to_the_config() -> None:
    found = process_of(ExecRequest("c", process={"args": ["x"], "cwd": "/"}), CONFIG)
    for key in ("capabilities", "selinuxLabel", "scheduler", "ioPriority", "execCPUAffinity"):
        assert found[key] == CONFIG["process"][key]
    for key in ("rlimits", "noNewPrivileges", "apparmorProfile", "oomScoreAdj", "env", "terminal", "consoleSize"):
        assert key not in found


def test_pointers_of_a_file_start_at_it() -> None:
    assert (ExecRequest("c", process={}).at, ExecRequest("c").at) == ("", "/process")


# -- --cgroup


@pytest.mark.parametrize("path", ["sub", "/sub", "sub/", "./sub", "sub/.", "//sub"])
def test_cgroup_below(tmp_path: Path, path: str) -> None:
    (tmp_path / "sub").mkdir()
    assert below(str(tmp_path), path) == f"{tmp_path}/sub"


@pytest.mark.parametrize("path", ["", "/", "."])
def test_the_container_s_own_cgroup(tmp_path: Path, path: str) -> None:
    assert below(str(tmp_path), path) == str(tmp_path)


@pytest.mark.parametrize("path", ["..", "../x", "sub/../..", "/..", "sub/.."])
def test_cgroup_outside(tmp_path: Path, path: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path.parent / "x").mkdir(exist_ok=True)
    with pytest.raises(ConfigError, match="leads out"):
        below(str(tmp_path), path)


def test_no_such_cgroup(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="no such cgroup"):
        below(str(tmp_path), "sub")


def execution(cgroup: Any, **change: Any) -> Any:
    """An execution that has no container."""
    made = executing._Execution.__new__(executing._Execution)
    made.cgroup = cgroup
    made.request = request(**change)
    made.process = process_of(made.request, CONFIG)
    made.init_pid = posix.getpid()
    return made


def test_v1_cgroups(tmp_path: Path) -> None:
    for name in ("pids", "cpu", "memory"):
        (tmp_path / name / "sub").mkdir(parents=True)
    paths = {"pids": f"{tmp_path}/pids", "cpu": f"{tmp_path}/cpu", "cpuacct": f"{tmp_path}/cpu"}
    cgroup = CgroupV1("v1", paths)

    def joined(*chosen: tuple[str, str]) -> list[str]:
        return [op.fd.path.removeprefix(f"{tmp_path}/") for op in execution(cgroup, cgroups=list(chosen))._joins()]

    assert joined() == ["pids/tasks", "cpu/tasks"]
    assert joined(("pids", "sub")) == ["pids/sub/tasks", "cpu/tasks"]
    assert joined(("cpuacct", "sub")) == ["pids/tasks", "cpu/sub/tasks"]
    assert joined(("", "sub")) == ["pids/sub/tasks", "cpu/sub/tasks"]
    assert joined(("", "sub"), ("pids", "/")) == ["pids/tasks", "cpu/sub/tasks"]
    with pytest.raises(ConfigError, match="'memory'"):
        joined(("memory", "sub"))


def test_v2_cgroup(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    cgroup = CgroupV2("v2", {"": str(tmp_path)})
    assert execution(cgroup, cgroups=[("", "sub")])._v2_candidates() == [f"{tmp_path}/sub"]
    assert execution(cgroup, cgroups=[("", "/")])._v2_candidates() == [str(tmp_path)]
    assert execution(cgroup)._v2_candidates()[0] == str(tmp_path)


def test_affinity(tmp_path: Path) -> None:
    """initial before the join, final after it; without either, all CPUs after it [U14]."""
    made = execution(CgroupV1("v1", {"pids": f"{tmp_path}/pids"}))
    made.process["execCPUAffinity"] = {"initial": "0", "final": "1"}
    found = [(op.kind, op.pointer, op.strings) for op in made._affinity(made._joins())]
    assert found == [
        ("affinity", "/process/execCPUAffinity/initial", (b"\1\0\0\0\0\0\0\0",)),
        ("cgroup_join", "", ()),
        ("affinity", "/process/execCPUAffinity/final", (b"\2\0\0\0\0\0\0\0",)),
    ]
    made.process["execCPUAffinity"] = None
    assert [(op.kind, op.args[0] if op.args else 0) for op in made._affinity(made._joins())] == [
        ("cgroup_join", 0),
        ("affinity", 0),
    ]


# -- status, terminals, sockets


@pytest.mark.parametrize("actual", [status.STOPPED, status.PAUSED, status.CREATING])
def test_status(actual: str) -> None:
    with pytest.raises(StateError):
        executing._check_status(request(), actual)


def test_status_that_will_do() -> None:
    for actual in (status.CREATED, status.RUNNING):
        executing._check_status(request(), actual)
    executing._check_status(request(ignore_paused=True), status.PAUSED)
    with pytest.raises(StateError, match="not running"):
        executing._check_status(request(ignore_paused=True), status.STOPPED)


@pytest.mark.parametrize(
    ("terminal", "detach", "socket", "fine"),
    [
        (False, False, "", True),
        (False, True, "", True),
        (True, False, "", True),
        (True, True, "/s", True),
        (True, True, "", False),
        (True, False, "/s", False),
        (False, True, "/s", False),
        (False, False, "/s", False),
    ],
)
def test_console_socket(terminal: bool, detach: bool, socket: str, fine: bool) -> None:
    if fine:
        check_console(terminal, detach, socket)
    else:
        with pytest.raises(ConfigError):
            check_console(terminal, detach, socket)


def test_sockets_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(StepError, match="no such socket"):
        FdSocket("--x", "missing", str(tmp_path))
    with pytest.raises(StepError, match="not a socket"):
        FdSocket("--x", "plain", str(tmp_path))


@pytest.mark.parametrize(("wait_status", "code"), [(0, 0), (0x0100, 1), (0xFF00, 255), (9, 137), (0x8B, 139)])
def test_exit_status(wait_status: int, code: int) -> None:
    assert code_of(wait_status) == code


# -- what execve says


@pytest.mark.parametrize(
    ("call", "errno", "value", "detail", "words"),
    [
        ("interpreter", 2, 0, "/lib/ld.so\0/bin/x", ("'/bin/x'", "its interpreter '/lib/ld.so'", "ENOENT")),
        ("interpreter", 13, 0, "/etc/x\0/bin/x", ("'/bin/x'", "its interpreter '/etc/x'", "may not be executed")),
        ("machine", 8, 183, "/bin/x", ("'/bin/x'", "aarch64", "ENOEXEC")),
        ("machine", 8, 999, "/bin/x", ("number 999",)),
        ("execve", 8, 0, "/bin/x", ("#! line",)),
        ("execve", 2, 0, "/bin/x", ("'/bin/x'", "cannot execute")),
        ("execve", 7, 0, "/bin/x", ("'/bin/x'", "E2BIG")),
    ],
)
def test_why_a_program_cannot_be_run(call: str, errno: int, value: int, detail: str, words: tuple[str, ...]) -> None:
    error: OCIError = program.failure(Message("error", 1, errno, value, 0, call, detail, ()), "/process/args/0")
    assert error.pointer == "/process/args/0"
    for word in words:
        assert word in str(error)
