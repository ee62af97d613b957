"""process.lower: (process fragment -> ops, warnings, rlimits) and (fragment -> error pointer)."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ociruntime import capabilities, plan, process
from ociruntime.errors import ConfigError, OCIError, UnsupportedError
from ociruntime.plan import op


class Host:
    def __init__(self, euid: int = 0) -> None:
        self.euid = euid


def base(**changes: Any) -> dict[str, Any]:
    return {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/", **changes}


def lower(changes: dict[str, Any], linux: dict[str, Any] | None = None, euid: int = 0, **facts: Any) -> process.Process:
    config: dict[str, Any] = {"process": base(**changes)}
    if linux is not None:
        config["linux"] = linux
    return process.lower(config, Host(euid), **facts)


def one(ops: list[plan.Op], kind: str) -> plan.Op:
    (found,) = [o for o in ops if o.kind == kind]
    return found


CHOWN, KILL, ADMIN = 1 << 0, 1 << 5, 1 << 21
USERNS = {
    "namespaces": [{"type": "user"}],
    "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 1000}, {"containerID": 5000, "hostID": 9, "size": 1}],
    "gidMappings": [{"containerID": 0, "hostID": 100000, "size": 10}],
}


# ---- order


def test_identity_order() -> None:
    got = lower(
        {
            "cwd": "/a/b",
            "env": ["A=1"],
            "user": {"uid": 7, "gid": 8, "additionalGids": [9, 10]},
            "capabilities": {s: ["CAP_KILL"] for s in ("bounding", "effective", "permitted", "inheritable", "ambient")},
        }
    )
    # before any seccomp filter, which may allow neither of them
    assert got.directory == [
        op("chdir", "/process/cwd", strings=("/a/b",), flags=plan.RETRY),
        op("check_cwd", "/process/cwd"),
    ]
    assert got.identity == [
        op("environment", "/process/env", strings=(b"A=1\0",), args=(1, 7), flags=plan.HOME),
        op("bounding", "/process/capabilities/bounding", args=(KILL,)),
        op("stdio_owner", "/process/user/uid", args=(7,)),
        op("credentials", "/process/user", strings=(b"\x09\0\0\0\x0a\0\0\0",), args=(7 << 32 | 8, 2)),
        op("chdir", "/process/cwd", strings=("/a/b",)),
        op("check_cwd", "/process/cwd"),
        op("capabilities", "/process/capabilities", args=(KILL, KILL, KILL, KILL)),
        op("ambient", "/process/capabilities/ambient", args=(KILL,)),
        op("lookup", "/process/args/0", strings=(b"sh\0",), args=(1,)),
    ]
    assert got.after_pivot == [op("mkdir", "/process/cwd", strings=("/a/b",), args=(0o755,))]
    assert got.execute == [op("exec", "/process/args")]
    assert got.warnings == []


@pytest.mark.parametrize(("value", "flags"), [("true", plan.INIT), ("1", plan.INIT), ("false", 0), ("", 0), (None, 0)])
def test_an_annotation_asks_for_an_init(value: str | None, flags: int) -> None:
    annotations = {} if value is None else {"org.ociruntime.init": value}
    config = {"process": base(), "annotations": annotations}
    (found,) = process.lower(config, Host(0)).execute
    assert (found.kind, found.flags) == ("exec", flags)
    assert not any(found.args)
    # exec's processes have none
    assert process.lower_process(base(), config, Host(0)).execute == [op("exec", "/process/args")]
    assert process.lower({"annotations": annotations}, Host(0)).execute[0].flags == plan.NO_PROCESS


def test_no_process_is_only_an_exec_op() -> None:
    """F4: create works, start fails."""
    got = process.lower({}, Host())
    assert got.execute == [op("exec", "/process", flags=plan.NO_PROCESS)]
    lists = (got.early, got.after_pivot, got.umask, got.apparmor, got.no_new_privs, got.selinux, got.identity)
    assert not any(lists)
    assert got.rlimits == []


def test_pointers_of_a_process_file_of_its_own() -> None:
    got = process.lower_process(base(cwd="/w"), {}, Host(), at="")
    assert [o.pointer for o in got.directory + got.identity][1:3] == ["/cwd", "/env"]
    with pytest.raises(ConfigError) as error:
        process.lower_process(base(env=["A"]), {}, Host(), at="")
    assert error.value.pointer == "/env/0"


# ---- env, args, cwd


@pytest.mark.parametrize(
    ("env", "entries", "flags"),
    [
        (None, [], plan.HOME),
        ([], [], plan.HOME),
        (["A=1", "B=2", "A=3"], ["B=2", "A=3"], plan.HOME),
        (["HOME=/h"], ["HOME=/h"], 0),
        (["HOME="], [], plan.HOME),
        (["HOME=/h", "HOME="], [], plan.HOME),
        (["HOME=", "HOME=/h", "A="], ["HOME=/h", "A="], 0),
        (["A=b=c", "X= y"], ["A=b=c", "X= y"], plan.HOME),
        (["A=\udcff"], ["A=\udcff"], plan.HOME),
    ],
)
def test_env(env: Any, entries: list[str], flags: int) -> None:
    assert process.environment({"env": env}) == (entries, flags)


def test_env_bytes_survive() -> None:
    assert one(lower({"env": ["A=\udcff"]}).identity, "environment").strings == (b"A=\xff\0",)


def test_the_mkdir_of_cwd_is_left_out_for_the_root() -> None:
    got = lower({"cwd": "/"})
    assert got.after_pivot == []
    assert [o.strings[0] for o in got.directory + got.identity if o.kind == "chdir"] == ["/", "/"]


# ---- user


@pytest.mark.parametrize(
    ("user", "mask"), [({}, 0o022), ({"umask": 0}, 0), ({"umask": 0o777}, 0o777), ({"umask": None}, 0o022)]
)
def test_umask(user: dict[str, Any], mask: int) -> None:
    assert lower({"user": user}).umask == [op("umask", "/process/user/umask", args=(mask,))]


def test_groups_are_set_even_when_there_are_none() -> None:
    credentials = one(lower({"user": {"uid": 1, "gid": 2}}).identity, "credentials")
    assert credentials == op("credentials", "/process/user", strings=(b"",), args=(1 << 32 | 2, 0))


def test_groups_are_kept_only_when_setgroups_is_denied() -> None:
    assert one(lower({}, keep_groups=True).identity, "credentials").flags == plan.KEEP_GROUPS
    assert one(lower({}, euid=1000).identity, "credentials").flags == 0


def annotated(value: str, euid: int = 0, **user: Any) -> process.Process:
    config = {
        "process": base(user={"uid": 1, "gid": 2, **user}),
        "annotations": {"run.oci.keep_original_groups": value},
    }
    return process.lower(config, Host(euid))


@pytest.mark.parametrize("value", ["1", "true"])
def test_an_annotation_keeps_the_groups(value: str) -> None:
    got = annotated(value)
    expected = op("credentials", "/process/user", strings=(b"",), args=(1 << 32 | 2, 0), flags=plan.KEEP_GROUPS)
    assert one(got.identity, "credentials") == expected
    assert got.warnings == []


@pytest.mark.parametrize("value", ["", "0", "false", "2", "True"])
def test_other_values_of_it_do_not(value: str) -> None:
    assert one(annotated(value).identity, "credentials").flags == 0


@pytest.mark.parametrize("euid", [0, 1000])
def test_groups_of_the_config_beside_kept_ones_are_a_warning(euid: int) -> None:
    got = annotated("1", euid, additionalGids=[5])
    assert one(got.identity, "credentials").args == (1 << 32 | 2, 0)
    assert [pointer for pointer, _ in got.warnings] == ["/process/user/additionalGids"]


@pytest.mark.parametrize("uid", [0, 999, 5000])
def test_mapped_ids(uid: int) -> None:
    got = lower({"user": {"uid": uid, "gid": 9, "additionalGids": [0, 9]}}, USERNS)
    assert one(got.identity, "credentials").args[0] == uid << 32 | 9


def test_ids_are_not_checked_against_maps_of_a_joined_or_missing_namespace() -> None:
    joined = {**USERNS, "namespaces": [{"type": "user", "path": "/proc/1/ns/user"}]}
    for linux in (joined, {**USERNS, "namespaces": []}):
        assert one(lower({"user": {"uid": 70000, "gid": 70000}}, linux).identity, "credentials")


# ---- capabilities


def test_without_capabilities_every_set_is_cleared() -> None:
    """U6: an object that is absent grants nothing, also to root."""
    got = lower({})
    assert one(got.identity, "bounding").args == (0,)
    assert one(got.identity, "capabilities").args == (0, 0, 0, 0)
    assert "ambient" not in [o.kind for o in got.identity]


def test_sets_that_are_not_given_are_empty() -> None:
    got = lower({"capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_KILL"]}})
    assert one(got.identity, "bounding").args == (CHOWN | KILL,)
    assert one(got.identity, "capabilities").args == (0, KILL, 0, 0)


def test_inheritable_never_gets_a_default() -> None:
    names = ["CAP_CHOWN", "CAP_KILL"]
    got = lower({"capabilities": {"bounding": names, "permitted": names, "effective": names}})
    assert one(got.identity, "capabilities").args == (CHOWN | KILL, CHOWN | KILL, 0, 0)


def test_unknown_and_unavailable_names_are_warnings() -> None:
    names = ["CAP_KILL", "CAP_NEWER", "cap_chown", "CAP_SYS_ADMIN"]
    got = lower({"capabilities": {"permitted": names}}, host_bounding=CHOWN | KILL)
    assert one(got.identity, "capabilities").args == (0, KILL, 0, 0)
    assert [pointer for pointer, _ in got.warnings] == [f"/process/capabilities/permitted/{i}" for i in (1, 2, 3)]
    assert "'CAP_NEWER'" in got.warnings[0][1]
    assert "not available" in got.warnings[2][1]


def test_a_user_namespace_has_every_capability_again() -> None:
    got = lower({"capabilities": {"bounding": ["CAP_SYS_ADMIN"]}}, USERNS, host_bounding=KILL)
    assert one(got.identity, "bounding").args == (ADMIN,)
    assert got.warnings == []


def test_ambient_without_inheritable_is_a_warning() -> None:
    got = lower(
        {
            "capabilities": {
                "permitted": ["CAP_KILL", "CAP_CHOWN"],
                "inheritable": ["CAP_KILL"],
                "ambient": ["CAP_KILL", "CAP_CHOWN"],
            }
        }
    )
    assert one(got.identity, "capabilities").args == (0, KILL | CHOWN, KILL, KILL)
    assert one(got.identity, "ambient").args == (KILL,)
    assert [pointer for pointer, _ in got.warnings] == ["/process/capabilities/ambient"]


def test_capability_numbers_are_those_of_the_kernel_header() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("no kernel headers")
    words = [line.split() for line in header.read_text().splitlines() if line.startswith("#define CAP_")]
    numbers = {w[1]: int(w[2]) for w in words if len(w) >= 3 and w[2].isdigit()}
    assert {k: v for k, v in numbers.items() if v <= 40} == capabilities.NUMBERS
    assert sum(1 << n for n in capabilities.NUMBERS.values()) == capabilities.ALL


def test_bounding_of_self() -> None:
    assert capabilities.bounding_of_self(b"Name:\tx\nCapBnd:\t000001ffffffffff\nCapAmb:\t0\n") == capabilities.ALL
    assert capabilities.bounding_of_self(b"Name:\tx\nCapBnd:\t0000000000000021\n") == CHOWN | KILL
    assert capabilities.bounding_of_self(Path("/proc/self/status").read_bytes()) >= 0
    assert capabilities.names(CHOWN | KILL | 1 << 60) == ["CAP_CHOWN", "CAP_KILL"]


# ---- the rest


@pytest.mark.parametrize("value", [None, False])
def test_no_new_privileges_off(value: Any) -> None:
    got = lower({"noNewPrivileges": value})
    assert (got.no_new_privs, got.no_new_privileges) == ([], False)


def test_no_new_privileges_on() -> None:
    got = lower({"noNewPrivileges": True})
    assert (got.no_new_privs, got.no_new_privileges) == ([op("no_new_privs", "/process/noNewPrivileges")], True)


@pytest.mark.parametrize(("score", "arg"), [(0, 0), (1000, 1000), (-1000, 2**64 - 1000)])
def test_oom_score_adj(score: int, arg: int) -> None:
    assert lower({"oomScoreAdj": score}).early == [op("oom_score_adj", "/process/oomScoreAdj", args=(arg,))]


def test_oom_score_adj_before_a_user_namespace_is_joined() -> None:
    assert process.early_score({"oomScoreAdj": -5}, True) == b"-5"
    assert process.early_score({"oomScoreAdj": -5}, False) == process.early_score({}, True) == b""
    with pytest.raises(ConfigError) as caught:
        process.early_score({"oomScoreAdj": 123456789}, True)
    assert caught.value.pointer == "/process/oomScoreAdj"


def test_oom_score_adj_is_left_alone_when_absent() -> None:
    assert lower({}).early == []
    assert lower({"oomScoreAdj": None}).early == []


def test_rlimits() -> None:
    unlimited = 2**64 - 1
    got = lower(
        {
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": unlimited},
            ]
        }
    )
    assert got.rlimits == [("/process/rlimits/0", 7, 1024, 4096), ("/process/rlimits/1", 4, 0, unlimited)]


def test_rlimit_numbers_are_those_of_this_kernel() -> None:
    resource = pytest.importorskip("resource")
    assert len(process.RLIMITS) == 16
    for name, number in process.RLIMITS.items():
        assert getattr(resource, name, number) == number


def test_labels() -> None:
    got = lower({"apparmorProfile": "p", "selinuxLabel": "a:b:c:s0"}, apparmor=True, selinux=True)
    assert got.apparmor == [op("apparmor", "/process/apparmorProfile", strings=("exec p",))]
    assert got.selinux == [op("selinux", "/process/selinuxLabel", strings=("a:b:c:s0",))]
    empty = lower({"apparmorProfile": "", "selinuxLabel": ""}, apparmor=False, selinux=False)
    assert (empty.apparmor, empty.selinux) == ([], [])


def test_exec_cpu_affinity_is_not_for_create() -> None:
    plain, given = lower({}), lower({"execCPUAffinity": {"initial": "0"}})
    assert given.identity == plain.identity


def test_lsm_facts_of_this_machine() -> None:
    assert process.selinux_enabled() == os.path.exists("/sys/fs/selinux/enforce")
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    assert process.apparmor_enabled() == (enabled.exists() and enabled.read_text().startswith("Y"))


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], type[OCIError], str]] = [
    ("args absent", {"args": None}, {}, ConfigError, "/process/args"),
    ("args empty", {"args": []}, {}, ConfigError, "/process/args"),
    ("args[0] empty", {"args": [""]}, {}, ConfigError, "/process/args/0"),
    ("cwd absent", {"cwd": None}, {}, ConfigError, "/process/cwd"),
    ("cwd empty", {"cwd": ""}, {}, ConfigError, "/process/cwd"),
    ("cwd relative", {"cwd": "a/b"}, {}, ConfigError, "/process/cwd"),
    ("env no =", {"env": ["A=1", "B"]}, {}, ConfigError, "/process/env/1"),
    ("env empty name", {"env": ["=B"]}, {}, ConfigError, "/process/env/0"),
    ("env empty entry", {"env": [""]}, {}, ConfigError, "/process/env/0"),
    ("uid -1", {"user": {"uid": 2**32 - 1, "gid": 0}}, {}, ConfigError, "/process/user/uid"),
    ("uid 2**32", {"user": {"uid": 2**32, "gid": 0}}, {}, ConfigError, "/process/user/uid"),
    ("uid negative", {"user": {"uid": -1, "gid": 0}}, {}, ConfigError, "/process/user/uid"),
    ("gid -1", {"user": {"uid": 0, "gid": 2**32 - 1}}, {}, ConfigError, "/process/user/gid"),
    (
        "group -1",
        {"user": {"uid": 0, "gid": 0, "additionalGids": [1, 2**32 - 1]}},
        {},
        ConfigError,
        "/process/user/additionalGids/1",
    ),
    ("umask", {"user": {"uid": 0, "gid": 0, "umask": 0o1000}}, {}, ConfigError, "/process/user/umask"),
    ("uid unmapped", {"user": {"uid": 1000, "gid": 0}}, {"linux": USERNS}, ConfigError, "/process/user/uid"),
    ("gid unmapped", {"user": {"uid": 0, "gid": 10}}, {"linux": USERNS}, ConfigError, "/process/user/gid"),
    (
        "group unmapped",
        {"user": {"uid": 0, "gid": 0, "additionalGids": [0, 10]}},
        {"linux": USERNS},
        ConfigError,
        "/process/user/additionalGids/1",
    ),
    (
        "groups, rootless",
        {"user": {"uid": 0, "gid": 0, "additionalGids": [1]}},
        {"euid": 1000},
        ConfigError,
        "/process/user/additionalGids",
    ),
    (
        "groups, denied",
        {"user": {"uid": 0, "gid": 0, "additionalGids": [1]}},
        {"keep_groups": True},
        ConfigError,
        "/process/user/additionalGids",
    ),
    (
        "effective, not permitted",
        {"capabilities": {"effective": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"]}},
        {},
        ConfigError,
        "/process/capabilities/effective",
    ),
    (
        "rlimit unknown",
        {"rlimits": [{"type": "RLIMIT_X", "soft": 0, "hard": 0}]},
        {},
        ConfigError,
        "/process/rlimits/0/type",
    ),
    (
        "rlimit twice",
        {"rlimits": [{"type": "RLIMIT_CPU", "soft": 0, "hard": 0}] * 2},
        {},
        ConfigError,
        "/process/rlimits/1/type",
    ),
    (
        "rlimit soft > hard",
        {"rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]},
        {},
        ConfigError,
        "/process/rlimits/0/soft",
    ),
    ("oom low", {"oomScoreAdj": -1001}, {}, ConfigError, "/process/oomScoreAdj"),
    ("oom high", {"oomScoreAdj": 1001}, {}, ConfigError, "/process/oomScoreAdj"),
    ("apparmor off", {"apparmorProfile": "p"}, {"apparmor": False}, UnsupportedError, "/process/apparmorProfile"),
    ("selinux off", {"selinuxLabel": "l"}, {"selinux": False}, ConfigError, "/process/selinuxLabel"),
]


@pytest.mark.parametrize(("changes", "facts", "kind", "pointer"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refused(changes: dict[str, Any], facts: dict[str, Any], kind: type[OCIError], pointer: str) -> None:
    with pytest.raises(kind) as error:
        lower(changes, **facts)
    assert error.value.pointer == pointer


def test_the_phrase_callers_look_for() -> None:
    with pytest.raises(ConfigError, match=r"executable file not found in \$PATH"):
        lower({"args": [""]})


def test_docker_config() -> None:
    config = json.loads((Path(__file__).parent / "data" / "docker-config.json").read_text())
    got = process.lower(config, Host(), apparmor=True, selinux=True)
    sets = one(got.identity, "capabilities").args
    assert sets[0] == sets[1] == one(got.identity, "bounding").args[0] != 0
    assert sets[2:] == (0, 0)
    assert got.warnings == []


def test_console_size() -> None:
    assert process.console_size({}) == 0
    assert process.console_size({"consoleSize": {"height": 25, "width": 80}}) == 25 << 16 | 80


@pytest.mark.parametrize("size", [{"height": 1 << 16, "width": 1}, {"height": 1, "width": (1 << 64) - 1}])
def test_console_size_of_no_terminal(size: dict[str, int]) -> None:
    with pytest.raises(ConfigError) as error:
        process.console_size({"consoleSize": size})
    assert error.value.pointer == "/process/consoleSize/" + max(size, key=lambda key: size[key])
