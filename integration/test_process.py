"""process: identity, limits, environment and directory of the program."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from integration.conftest import requires
from integration.lib.container import Container
from integration.lib.leaks import Leaks
from integration.lib.probe import capability_names

Refused = Callable[..., None]


def refused(container: Container, leaks: Leaks, pointer: str, *words: str) -> None:
    """create refuses this config, names the field (ours), and leaves nothing."""
    result = container.create(check=False)
    assert result.code != 0, result
    if container.runtime.ours:
        assert pointer in result.error
    for word in words:
        assert word in result.error.lower()
    leaks.check()


# -- args [U1] --


def test_args_are_passed_exactly(container: Container) -> None:
    """argv is what the config says, byte for byte [U1]."""
    words = ["/probe", "report", ";;", "stat", "", "ä ' \" $HOME \\ \n", ";;"]
    container.bundle.process(args=words)
    assert container.run().ok().replies[0]["args"] == words


def test_path_search(container: Container) -> None:
    """A name without a slash is looked up in PATH of process.env, inside the container [U1]."""
    directory = container.bundle.rootfs / "some" / "where"
    directory.mkdir(parents=True)
    os.link(container.bundle.rootfs / "probe", directory / "named")
    container.bundle.process(args=["named", "report"], env=["PATH=/nope:/some/where:/"])
    report = container.run().ok().replies[0]
    assert report["args"][0] == "named"


def test_path_search_skips_directories_and_plain_files(container: Container) -> None:
    """Directories and files without execute permission are not the program [U1]."""
    rootfs = container.bundle.rootfs
    (rootfs / "a" / "named").mkdir(parents=True)
    (rootfs / "b").mkdir()
    (rootfs / "b" / "named").write_text("not executable")
    (rootfs / "c").mkdir()
    os.link(rootfs / "probe", rootfs / "c" / "named")
    container.bundle.process(args=["named", "report"], env=["PATH=/a:/b:/c"])
    assert container.run().ok().replies[0]["errno"] == 0


def test_relative_program(container: Container) -> None:
    """A name with a slash is not searched for; it counts from cwd [U1]."""
    (container.bundle.rootfs / "dir").mkdir()
    os.link(container.bundle.rootfs / "probe", container.bundle.rootfs / "dir" / "named")
    container.bundle.process(args=["./named", "report"], cwd="/dir")
    assert container.run().ok().replies[0]["cwd"] == "/dir"


def test_empty_args(container: Container, leaks: Leaks) -> None:
    """args must not be empty [U1]."""
    container.bundle.process(args=[])
    refused(container, leaks, "/process/args")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("nosuch", ["executable file not found in $path"]),
        ("/nosuch", ["no such file or directory"]),
        ("/etc", ["permission denied"]),
        ("/plain", ["permission denied"]),
    ],
)
def test_program_that_cannot_run(container: Container, leaks: Leaks, program: str, words: list[str]) -> None:
    """A program that is missing or not executable fails create, with the phrase engines look for [U1, A4]."""
    (container.bundle.rootfs / "etc").mkdir()
    (container.bundle.rootfs / "plain").write_text("x")
    container.bundle.process(args=[program])
    refused(container, leaks, "/process/args", *words)


# -- cwd [U2] --


def test_cwd(container: Container) -> None:
    """The program starts in cwd [U2]."""
    (container.bundle.rootfs / "work").mkdir()
    container.bundle.process(cwd="/work")
    assert container.report()["cwd"] == "/work"


def test_cwd_is_created(container: Container) -> None:
    """A missing cwd is made, mode 0755 [U2]."""
    container.bundle.process(cwd="/deep/down/work")
    report, stat = container.probe("report", "stat /deep/down/work")
    assert report["cwd"] == "/deep/down/work"
    assert (stat["mode"], stat["uid"]) == (0o755, 0)


def test_cwd_that_only_the_user_may_enter(container: Container) -> None:
    """A cwd closed to a root without capabilities is entered after the change of the user [U2]."""
    (container.bundle.rootfs / "mine").mkdir(mode=0o700)
    os.chown(container.bundle.rootfs / "mine", 1000, 1000)
    container.bundle.process(cwd="/mine", user={"uid": 1000, "gid": 1000}, capabilities={})
    assert container.report()["cwd"] == "/mine"


def test_cwd_that_nobody_may_enter(container: Container, leaks: Leaks) -> None:
    """A cwd the user may not enter is an error, not a start elsewhere [U2]."""
    (container.bundle.rootfs / "closed").mkdir(mode=0o700)
    container.bundle.process(cwd="/closed/below", user={"uid": 1000, "gid": 1000}, capabilities={})
    result = container.run()
    assert result.code != 0 or result.replies[0]["cwd"] == "/closed/below"
    leaks.check()


@pytest.mark.parametrize("cwd", ["relative", "", "./x", "../x"])
def test_relative_cwd(container: Container, leaks: Leaks, cwd: str) -> None:
    """cwd must be absolute [U2]."""
    container.bundle.process(cwd=cwd)
    refused(container, leaks, "/process/cwd")


# -- env [U3] --


def test_env_is_exact(container: Container) -> None:
    """The environment is the config's, and HOME when it is missing; nothing of the caller's [U3]."""
    container.bundle.process(env=["B=2", "A=1", "EMPTY=", "ODD=ä = \n x"])
    environment = {**os.environ, "LEAK": "x", "LD_PRELOAD": "", "GOTRACEBACK": "1", "_LIBCONTAINER_X": "1"}
    found = container.report(env=environment)["env"]
    assert set(found) - {"HOME=/", "HOME=/root"} == {"B=2", "A=1", "EMPTY=", "ODD=ä = \n x"}
    assert any(item.startswith("HOME=") for item in found)


def test_env_order_is_kept(container: Container) -> None:
    """Variables come in the order of the config [U3]."""
    container.bundle.process(env=["Z=1", "HOME=/x", "A=2", "M=3"])
    assert container.report()["env"] == ["Z=1", "HOME=/x", "A=2", "M=3"]


def test_last_of_duplicates_wins(container: Container) -> None:
    """Of a name given twice the last value counts [U3]."""
    container.bundle.process(env=["A=1", "B=2", "A=3", "HOME=/h"])
    found = container.report()["env"]
    assert sorted(found) == ["A=3", "B=2", "HOME=/h"]


def test_home_of_the_containers_passwd(container: Container) -> None:
    """HOME comes from the container's own /etc/passwd, by number [U3]."""
    (container.bundle.rootfs / "etc").mkdir()
    (container.bundle.rootfs / "etc" / "passwd").write_text(
        "root:x:0:0::/root-home:/bin/sh\n1000:x:5:5::/wrong:/\nme:x:1000:1000:Me:/home/me:/bin/sh\n"
    )
    container.bundle.process(user={"uid": 1000, "gid": 1000})
    assert "HOME=/home/me" in container.report()["env"]


def test_home_without_an_entry(container: Container) -> None:
    """Without an entry for the user, HOME is / [U3]."""
    container.bundle.process(user={"uid": 4321, "gid": 4321})
    assert "HOME=/" in container.report()["env"]


def test_empty_home_is_filled(container: Container) -> None:
    """An empty HOME counts as missing [U3]."""
    (container.bundle.rootfs / "etc").mkdir()
    (container.bundle.rootfs / "etc" / "passwd").write_text("root:x:0:0::/root-home:/bin/sh\n")
    container.bundle.process(env=["HOME="])
    assert "HOME=/root-home" in container.report()["env"]


@pytest.mark.ours_only("SECURITY B: odd files in the image must not hang or mislead")
@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "huge", "symlink", "garbage"])
def test_hostile_passwd(container: Container, kind: str) -> None:
    """Whatever /etc/passwd is, the container starts soon, with HOME=/ [U3]."""
    path = container.bundle.rootfs / "etc" / "passwd"
    path.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        os.mknod(path, 0o20666, os.makedev(1, 5))
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 34)
    elif kind == "symlink":
        path.symlink_to("/proc/self/exe")
    else:
        path.write_bytes(b"\xff:::\0::0:\n:\n::::::\n" * 100)
    assert "HOME=/" in container.report()["env"]


@pytest.mark.parametrize("entry", ["NOEQUALS", "=value", "A\0B=1"])
def test_bad_env(container: Container, leaks: Leaks, entry: str) -> None:
    """An entry without =, without a name or with a NUL is refused [U3]."""
    container.bundle.process(env=["A=1", entry])
    refused(container, leaks, "column" if "\0" in entry else "/process/env/1")


@pytest.mark.ours_only("U3: absent env is the same as an empty list")
@pytest.mark.parametrize("env", [None, []])
def test_no_env(container: Container, env: list[str] | None) -> None:
    """Without env only HOME is set [U3]."""
    container.bundle.process(env=env)
    assert container.report(env={"CALLER": "1"})["env"] == ["HOME=/"]


# -- user [U4] --


def test_user(container: Container) -> None:
    """All three user and group ids are the config's; no group of the caller stays [U4]."""
    container.bundle.process(user={"uid": 1234, "gid": 4321})
    report = container.report()
    assert report["uids"] == [1234] * 3
    assert report["gids"] == [4321] * 3
    assert report["groups"] in ([], [4321])


def test_callers_groups_are_dropped(container: Container) -> None:
    """Supplementary groups of the caller do not come along [U4]."""
    report = container.report(preexec_fn=lambda: os.setgroups([5555, 6666]))
    assert not {5555, 6666} & set(report["groups"])


def test_additional_groups(container: Container) -> None:
    """additionalGids are the supplementary groups [U4]."""
    container.bundle.process(user={"uid": 1000, "gid": 1000, "additionalGids": [5, 6, 2000000000]})
    assert set(container.report()["groups"]) - {1000} == {5, 6, 2000000000}


def test_many_groups(container: Container) -> None:
    """300 groups are 300 groups [U4]."""
    container.bundle.process(user={"uid": 1, "gid": 1, "additionalGids": list(range(100, 400))})
    assert set(container.report()["groups"]) - {1} == set(range(100, 400))


@pytest.mark.parametrize(("value", "expected"), [(None, 0o022), (0, 0), (0o077, 0o077), (0o777, 0o777)])
def test_umask(container: Container, value: int | None, expected: int) -> None:
    """umask is the config's, else 0022, whatever the caller has [U4, P11]."""
    user: dict[str, Any] = {"uid": 0, "gid": 0}
    if value is not None:
        user["umask"] = value
    container.bundle.process(user=user)
    assert container.report(preexec_fn=lambda: os.umask(0o7))["umask"] == expected


@pytest.mark.parametrize("uid", [-1, 1 << 32, "0", 1.5, True])
def test_bad_uid(container: Container, leaks: Leaks, uid: Any) -> None:
    """Ids are unsigned 32-bit integers [U4, F7]."""
    container.bundle.process(user={"uid": uid, "gid": 0})
    refused(container, leaks, "/process/user/uid")


# -- capabilities [U6] --


def test_capability_sets(container: Container) -> None:
    """Each of the five sets is exactly the config's [U6]."""
    sets = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_RAW"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_SETUID"],
        "ambient": ["CAP_SETUID"],
    }
    container.bundle.process(capabilities=sets)
    container.bundle.process(user={"uid": 1000, "gid": 1000})
    status = container.report()["status"]
    # what execve(2) makes of them for a user that is not root and a file without capabilities
    assert capability_names(status["CapBnd"]) == set(sets["bounding"])
    assert capability_names(status["CapInh"]) == set(sets["inheritable"])
    assert capability_names(status["CapAmb"]) == {"CAP_SETUID"}
    assert capability_names(status["CapPrm"]) == {"CAP_SETUID"}
    assert capability_names(status["CapEff"]) == {"CAP_SETUID"}


def test_capabilities_of_root(container: Container) -> None:
    """For root execve gives permitted = inheritable + bounding; nothing is inheritable by default [U6]."""
    status = container.report()["status"]
    expected = {"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
    assert capability_names(status["CapBnd"]) == expected
    assert capability_names(status["CapPrm"]) == expected
    assert capability_names(status["CapEff"]) == expected
    assert capability_names(status["CapInh"]) == set()
    assert capability_names(status["CapAmb"]) == set()


def test_callers_inheritable_set_is_dropped(container: Container) -> None:
    """Inheritable capabilities of the caller do not come along [U6]."""
    requires("file:/usr/bin/setpriv")
    runtime = container.runtime.within(["/usr/bin/setpriv", "--inh-caps=+chown,+net_admin"])
    container.runtime = runtime
    assert capability_names(container.report()["status"]["CapInh"]) == set()


def test_no_capabilities(container: Container) -> None:
    """Five empty sets are no capabilities, for root as well [U6]."""
    empty: dict[str, list[str]] = {
        name: [] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }
    container.bundle.process(capabilities=empty)
    status = container.report()["status"]
    for name in ("CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert int(status[name], 16) == 0


def test_absent_capabilities(container: Container) -> None:
    """Without the object every set is cleared [U6]."""
    container.bundle.process(capabilities=None)
    status = container.report()["status"]
    for name in ("CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert int(status[name], 16) == 0


def test_unknown_capability_is_a_warning(container: Container) -> None:
    """Names the kernel does not know are warned about and left out [U6]."""
    sets = {name: ["CAP_CHOWN", "CAP_NO_SUCH_THING"] for name in ("bounding", "effective", "permitted")}
    container.bundle.process(capabilities=sets)
    result = container.run().ok()
    assert capability_names(result.replies[0]["status"]["CapEff"]) == {"CAP_CHOWN"}
    if container.runtime.ours:
        assert "CAP_NO_SUCH_THING" in result.error


def test_ambient_without_inheritable_is_a_warning(container: Container) -> None:
    """An ambient capability the kernel refuses is warned about; the container starts [U6]."""
    sets = {name: ["CAP_CHOWN"] for name in ("bounding", "effective", "permitted", "ambient")}
    container.bundle.process(capabilities=sets)
    assert capability_names(container.report()["status"]["CapAmb"]) == set()


# -- rlimits [U7] --


def test_no_file_descriptor_left(container: Container, leaks: Leaks) -> None:
    """A limit that leaves no fd to start the program with is refused by create, not by start [U7]."""
    container.bundle.process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 3, "hard": 3}])
    result = container.create(check=False)
    assert result.code != 0
    assert "too many open files" in result.error.lower()
    if container.runtime.ours:
        assert "/process/rlimits/0:" in result.error
    leaks.check()
    container.bundle.process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 16, "hard": 16}])
    assert container.report()["rlimits"]["RLIMIT_NOFILE"] == [16, 16]


def test_rlimits(container: Container) -> None:
    """Limits are set as given, soft and hard [U7]."""
    container.bundle.process(
        rlimits=[
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_NPROC", "soft": 500, "hard": 600},
            {"type": "RLIMIT_STACK", "soft": 1 << 20, "hard": 1 << 22},
        ]
    )
    limits = container.report()["rlimits"]
    assert limits["RLIMIT_NOFILE"] == [100, 200]
    assert limits["RLIMIT_CORE"] == [0, 0]
    assert limits["RLIMIT_NPROC"] == [500, 600]
    assert limits["RLIMIT_STACK"] == [1 << 20, 1 << 22]


def test_all_rlimit_types(container: Container) -> None:
    """All 16 types are known [U7]."""
    before = container.report()["rlimits"]
    assert len(before) == 16
    wanted = [{"type": name, "soft": pair[0], "hard": pair[1]} for name, pair in before.items()]
    container.bundle.process(rlimits=wanted)
    assert container.report()["rlimits"] == before


def test_unlimited(container: Container) -> None:
    """2^64-1 is no limit [U7]."""
    container.bundle.process(rlimits=[{"type": "RLIMIT_CPU", "soft": 2**64 - 1, "hard": 2**64 - 1}])
    assert container.report()["rlimits"]["RLIMIT_CPU"] == [2**64 - 1] * 2


def test_rlimits_for_a_user(container: Container) -> None:
    """Limits are in force for a user without privileges too [U7]."""
    container.bundle.process(
        user={"uid": 1000, "gid": 1000}, rlimits=[{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}]
    )
    assert container.report()["rlimits"]["RLIMIT_NOFILE"] == [64, 64]


@pytest.mark.requires("cap:SYS_RESOURCE")
def test_rlimit_above_the_callers(container: Container) -> None:
    """A privileged runtime can raise hard limits [U7]."""
    container.bundle.process(rlimits=[{"type": "RLIMIT_SIGPENDING", "soft": 10**6, "hard": 10**6}])
    assert container.report()["rlimits"]["RLIMIT_SIGPENDING"] == [10**6, 10**6]


@pytest.mark.parametrize("limit", [{"type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1}, {"type": "NOFILE"}])
def test_unknown_rlimit(container: Container, leaks: Leaks, limit: dict[str, Any]) -> None:
    """An unknown type is refused [U7]."""
    container.bundle.process(rlimits=[limit])
    refused(container, leaks, "/process/rlimits/0")


def test_duplicate_rlimit(container: Container, leaks: Leaks) -> None:
    """The same type twice is refused [U7]."""
    limit = {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100}
    container.bundle.process(rlimits=[limit, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, limit])
    refused(container, leaks, "/process/rlimits/2")


def test_soft_above_hard(container: Container, leaks: Leaks) -> None:
    """A soft limit above the hard one is refused [U7]."""
    container.bundle.process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 100}])
    refused(container, leaks, "/process/rlimits/0")


# -- the rest [U8, U9, P11] --


@pytest.mark.parametrize(("value", "expected"), [(True, 1), (False, 0), (None, 0)])
def test_no_new_privileges(container: Container, value: bool | None, expected: int) -> None:
    """noNewPrivileges is set when it is true, and only then [U8]."""
    container.bundle.process(noNewPrivileges=value)
    assert container.report()["nnp"] == expected


@pytest.mark.parametrize("value", [0, 100, 1000])
def test_oom_score_adj(container: Container, value: int) -> None:
    """oomScoreAdj is written [U9]."""
    container.bundle.process(oomScoreAdj=value)
    assert container.report()["oom_score_adj"] == f"{value}\n"


def test_oom_score_adj_absent(container: Container) -> None:
    """Without the field the caller's value stays [U9]."""

    def set_own() -> None:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("321")

    assert container.report(preexec_fn=set_own)["oom_score_adj"] == "321\n"


@pytest.mark.parametrize("value", [1001, -1001])
def test_oom_score_adj_out_of_range(container: Container, leaks: Leaks, value: int) -> None:
    """The kernel's range is -1000..1000 [U9]."""
    container.bundle.process(oomScoreAdj=value)
    refused(container, leaks, "/process/oomScoreAdj")


def test_session(container: Container) -> None:
    """init leads a session of its own [O3]."""
    report = container.report()
    assert report["pid"] == report["sid"] == report["pgid"] == 1


def test_cpu_affinity_is_reset(container: Container) -> None:
    """The caller's CPU affinity is not inherited [P11]."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("needs two CPUs")
    assert container.report(preexec_fn=lambda: os.sched_setaffinity(0, {0}))["cpus"] == os.cpu_count()


def test_process_absent(container: Container, leaks: Leaks) -> None:
    """Without process create works and start fails [F4]."""
    container.bundle.config.pop("process")
    container.create()
    assert container.state()["status"] == "created"
    assert container.start(check=False).code != 0
    container.delete("--force")
    leaks.check()
