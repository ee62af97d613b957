"""seccomp.compile.check and lower: (section -> request) and (section -> error pointer). No libseccomp needed."""

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from ociruntime import plan
from ociruntime.errors import ConfigError, OCIError, UnsupportedError
from ociruntime.seccomp import compile as compiler

KERNEL = (6, 1)
ALLOW, ERRNO, NOTIFY = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY"


class Host:
    kernel = KERNEL


def rule(action: str = ALLOW, names: Any = ("read",), **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **more}


def section(*rules: dict[str, Any], default: str = ERRNO, **more: Any) -> dict[str, Any]:
    return {"defaultAction": default, "syscalls": list(rules), **more}


def check(value: dict[str, Any]) -> compiler.SeccompRequest:
    request = compiler.check(value, KERNEL)
    assert request is not None
    return request


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"linux": None},
        {"linux": {}},
        {"linux": {"seccomp": None}},
        {"linux": {"seccomp": {}}},
        {"linux": {"seccomp": {"architectures": ["SCMP_ARCH_X86"], "syscalls": []}}},
    ],
)
def test_no_filter(config: dict[str, Any]) -> None:
    assert compiler.lower(config, Host()) is None


@pytest.mark.parametrize(
    ("flags", "bits"),
    [
        (None, 4),
        ([], 0),
        (["SECCOMP_FILTER_FLAG_TSYNC"], 0),
        (["SECCOMP_FILTER_FLAG_LOG"], 2),
        (["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"], 6),
    ],
)
def test_flags(flags: Any, bits: int) -> None:
    request = check(section(rule(), flags=flags))
    assert request.flags == bits
    assert request.op() == plan.op("seccomp", "/linux/seccomp", args=(bits,))


def test_a_default_action_alone_is_a_filter() -> None:
    assert check({"defaultAction": ALLOW}).flags == 4


def test_listener() -> None:
    request = check(
        section(
            rule(NOTIFY, ["mkdir"]),
            listenerPath="/s",
            listenerMetadata="m",
            flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        )
    )
    assert (request.notify, request.flags, request.listener_path, request.listener_metadata) == (True, 40, "/s", "m")


def test_listener_path_without_a_rule_is_ignored() -> None:
    request = check(section(rule(), listenerPath="/s", listenerMetadata="m"))
    assert (request.notify, request.flags, request.listener_path, request.listener_metadata) == (False, 4, "", "")


@pytest.mark.parametrize("name", ["write", "read", "sendmsg", "openat", "close", "execve"])
def test_any_call_may_be_handed_to_the_listener(name: str) -> None:
    request = compiler.lower({"linux": {"seccomp": section(rule(NOTIFY, [name]), listenerPath="/s")}}, Host())
    assert request is not None
    assert (request.notify, request.flags) == (True, 12)


def test_a_listener_for_the_default_action() -> None:
    request = check(section(rule(), default=NOTIFY, listenerPath="/s"))
    assert (request.notify, request.flags, request.listener_path) == (True, 12, "/s")


def test_tsync_is_left_out() -> None:
    """The kernel refuses it beside a listener, and one thread has nothing to synchronise."""
    request = check(section(rule(NOTIFY), listenerPath="/s", flags=["SECCOMP_FILTER_FLAG_TSYNC"]))
    assert request.flags == 8


@pytest.mark.parametrize("architecture", sorted(compiler.ARCHITECTURES))
def test_architectures(architecture: str) -> None:
    assert check(section(rule(), architectures=[architecture]))


def test_every_word_of_the_spec() -> None:
    assert len(compiler.ARCHITECTURES) == len(set(compiler.ARCHITECTURES.values())) == 23
    assert len(compiler.ACTIONS) == 9
    assert len(compiler.OPERATORS) == 7
    assert compiler.supported_flags((5, 12)) == [
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    ]
    assert len(compiler.supported_flags((5, 19))) == 4


@pytest.mark.parametrize(
    ("action", "number"), [(ERRNO, 0), (ERRNO, 4095), ("SCMP_ACT_TRACE", 0xFFFF), (ALLOW, None), (ERRNO, None)]
)
def test_errno_accepted(action: str, number: Any) -> None:
    assert check(section(rule(action, errnoRet=number)))
    assert check(section(default=action, defaultErrnoRet=number))


KILLABLE = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
ARG = {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}
REFUSED: list[tuple[str, dict[str, Any], type[OCIError], str]] = [
    ("no default", {"syscalls": [rule()]}, ConfigError, "/defaultAction"),
    ("default unknown", section(default="SCMP_ACT_X"), ConfigError, "/defaultAction"),
    ("default NOTIFY, no path", section(default=NOTIFY), ConfigError, "/listenerPath"),
    ("default errno of ALLOW", section(default=ALLOW, defaultErrnoRet=1), ConfigError, "/defaultErrnoRet"),
    ("default errno 0 of KILL", section(default="SCMP_ACT_KILL", defaultErrnoRet=0), ConfigError, "/defaultErrnoRet"),
    ("default errno range", section(defaultErrnoRet=4096), ConfigError, "/defaultErrnoRet"),
    ("architecture", section(architectures=["SCMP_ARCH_X86", "X"]), ConfigError, "/architectures/1"),
    ("action unknown", section(rule(), rule("SCMP_ACT_X")), ConfigError, "/syscalls/1/action"),
    ("action absent", section({"names": ["read"]}), ConfigError, "/syscalls/0/action"),
    ("errno of ALLOW", section(rule(errnoRet=1)), ConfigError, "/syscalls/0/errnoRet"),
    ("errno range", section(rule(ERRNO, errnoRet=4096)), ConfigError, "/syscalls/0/errnoRet"),
    ("errno negative", section(rule(ERRNO, errnoRet=-1)), ConfigError, "/syscalls/0/errnoRet"),
    ("trace range", section(rule("SCMP_ACT_TRACE", errnoRet=65536)), ConfigError, "/syscalls/0/errnoRet"),
    ("names empty", section(rule(), rule(names=[])), ConfigError, "/syscalls/1/names"),
    ("names absent", section({"action": ALLOW}), ConfigError, "/syscalls/0/names"),
    ("index 6", section(rule(args=[ARG, {**ARG, "index": 6}])), ConfigError, "/syscalls/0/args/1/index"),
    ("operator", section(rule(args=[{**ARG, "op": "SCMP_CMP_X"}])), ConfigError, "/syscalls/0/args/0/op"),
    ("flag unknown", section(rule(), flags=["SECCOMP_FILTER_FLAG_X"]), ConfigError, "/flags/0"),
    ("killable, no listener", section(rule(), flags=[KILLABLE]), ConfigError, "/flags/0"),
    ("NOTIFY, no path", section(rule(NOTIFY)), ConfigError, "/listenerPath"),
    ("NOTIFY, empty path", section(rule(NOTIFY), listenerPath=""), ConfigError, "/listenerPath"),
    ("metadata, no path", section(rule(), listenerMetadata="m"), ConfigError, "/listenerMetadata"),
]


@pytest.mark.parametrize(("value", "kind", "pointer"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refused(value: dict[str, Any], kind: type[OCIError], pointer: str) -> None:
    with pytest.raises(kind) as error:
        compiler.lower({"linux": {"seccomp": value}}, Host())
    assert error.value.pointer == "/linux/seccomp" + pointer


def test_a_flag_of_a_newer_kernel() -> None:
    with pytest.raises(UnsupportedError, match=r"5\.19") as error:
        compiler.check(section(rule(NOTIFY), listenerPath="/s", flags=[KILLABLE]), (5, 18))
    assert error.value.pointer == "/linux/seccomp/flags/0"


# ---- annotations

ALLOW_ALL = struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000)
LOAD = struct.pack("=HBBI", 0x20, 0, 0, 0x7FC00000)  # NOTIFY's number, but no return
ASK = struct.pack("=HBBI", 6, 0, 0, 0x7FC00000)
BPF = "run.oci.seccomp_bpf_data"
UNKNOWN = "run.oci.seccomp_fail_unknown_syscall"


def given(code: bytes, seccomp: Any = None) -> dict[str, Any]:
    return {"annotations": {BPF: base64.b64encode(code).decode()}, "linux": {"seccomp": seccomp}}


@pytest.mark.parametrize("seccomp", [None, {}, section(rule(NOTIFY), listenerPath="/s")])
def test_a_given_program(seccomp: Any) -> None:
    request = compiler.lower(given(LOAD + ALLOW_ALL, seccomp), Host())
    assert request is not None
    assert compiler.program(request, "/nonexistent") == LOAD + ALLOW_ALL
    assert (request.flags, request.notify, request.listener_path) == (4, False, "")
    assert request.op().pointer == f"/annotations/{BPF}"


def test_a_given_program_with_flags_and_a_listener() -> None:
    request = compiler.lower(given(ALLOW_ALL + ASK, section(listenerPath="/s", flags=[KILLABLE])), Host())
    assert request is not None
    assert (request.flags, request.notify, request.listener_path) == (40, True, "/s")


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({"annotations": {BPF: ""}}, f"/annotations/{BPF}"),
        ({"annotations": {BPF: "!"}}, f"/annotations/{BPF}"),
        ({"annotations": {BPF: "\u00e9"}}, f"/annotations/{BPF}"),
        (given(ALLOW_ALL[:-1]), f"/annotations/{BPF}"),
        (given(ALLOW_ALL * 4097), f"/annotations/{BPF}"),
        (given(ASK), "/linux/seccomp/listenerPath"),
        (given(ALLOW_ALL, section(default="SCMP_ACT_X")), "/linux/seccomp/defaultAction"),
        (given(ALLOW_ALL, section(listenerMetadata="x")), "/linux/seccomp/listenerMetadata"),
    ],
)
def test_a_given_program_refused(config: dict[str, Any], pointer: str) -> None:
    with pytest.raises(ConfigError) as error:
        compiler.lower(config, Host())
    assert error.value.pointer == pointer


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("", True), ("0", False), (None, False)])
def test_fail_unknown(value: Any, expected: bool) -> None:
    annotations = {} if value is None else {UNKNOWN: value}
    request = compiler.lower({"annotations": annotations, "linux": {"seccomp": section(rule())}}, Host())
    assert request is not None
    assert request.fail_unknown is expected
    plain = compiler.lower({"linux": {"seccomp": section(rule())}}, Host())
    assert plain is not None
    assert (compiler.digest(request) != compiler.digest(plain)) is expected


def test_docker_profile() -> None:
    config = json.loads((Path(__file__).parents[1] / "data" / "docker-config.json").read_text())
    request = compiler.lower(config, Host())
    assert request is not None
    assert (request.flags, request.notify) == (4, False)
