"""What `features` lists is what a config.json may say: each word passes the schema and the room that takes it."""

import json
from typing import Any

import pytest

from ociruntime import capabilities, features, hooks, namespaces, process, scheduling
from ociruntime.config import load, validate
from ociruntime.host import Host
from ociruntime.mounts import options
from ociruntime.seccomp import compile

HOST = Host(cgroup_mode="v2", unified="/sys/fs/cgroup", own_cgroups={"": "/"}, kernel=(6, 18))
PROCESS = {"args": ["/x"], "cwd": "/"}
# Options that mount(8) knows for one file system only, and some that the kernel's documentation lists.
OF_FILE_SYSTEMS = "size mode uid gid nr_inodes ptmxmode newinstance subset hidepid lowerdir acl discard data".split()


@pytest.fixture(autouse=True)
def binding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether this machine can compile seccomp profiles does not matter here."""
    monkeypatch.setattr(features, "seccomp_binding", lambda: True)


def accepted(**members: Any) -> dict[str, Any]:
    """The config with these members, which the schema accepts."""
    document = {"ociVersion": "1.3.0", "root": {"path": "rootfs"}, "process": PROCESS, **members}
    data = json.dumps(document).encode()
    parsed = load.parse(data, "config.json")
    assert isinstance(parsed, dict)
    validate.check(parsed, data, "config.json", "config")
    return parsed


def document() -> dict[str, Any]:
    return features.document()


def test_versions() -> None:
    """Both ends of the range are accepted, and they are in order."""
    low, high = document()["ociVersionMin"], document()["ociVersionMax"]
    assert [int(part) for part in low.split(".")] <= [int(part) for part in high.split(".")]
    for version in (low, high):
        accepted(ociVersion=version)


def test_hooks() -> None:
    section = {kind: [{"path": "/hook", "args": [kind]}] for kind in document()["hooks"]}
    config = accepted(hooks=section)
    inside = [hooks.ops(config, kind, "{}") for kind in ("createContainer", "startContainer")]
    assert all(inside)
    assert sorted(section) == sorted(features.HOOKS)


def test_mount_options() -> None:
    """None of them is handed to the file system as it is, apart from flags of every superblock."""
    for option in document()["mountOptions"]:
        accepted(mounts=[{"destination": "/d", "type": "tmpfs", "options": [option]}])
        assert not options.parse([option]).data, option


def test_no_option_of_a_file_system_is_listed() -> None:
    assert not set(OF_FILE_SYSTEMS) & set(document()["mountOptions"])


def test_namespaces() -> None:
    for kind in document()["linux"]["namespaces"]:
        ids = [{"containerID": 0, "hostID": 1000, "size": 1}]
        linux = {"namespaces": [{"type": kind}], **({"uidMappings": ids, "gidMappings": ids} if kind == "user" else {})}
        assert namespaces.lower(accepted(linux=linux), HOST).new(kind)


def test_capabilities() -> None:
    """No warning for any name, where the runtime holds them all."""
    names = document()["linux"]["capabilities"]
    config = accepted(process={**PROCESS, "capabilities": {"bounding": names, "permitted": names, "effective": names}})
    assert not process.lower(config, HOST, host_bounding=capabilities.ALL).warnings


def test_seccomp() -> None:
    section = document()["linux"]["seccomp"]
    assert set(section["supportedFlags"]) <= set(section["knownFlags"])
    for action in section["actions"]:
        rule = {"names": ["getcwd"], "action": action}
        profile = {"defaultAction": "SCMP_ACT_LOG", "listenerPath": "/agent", "syscalls": [rule]}
        assert compile.lower(accepted(linux={"seccomp": profile}), HOST) is not None
    for operator in section["operators"]:
        rule = {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": operator}]}
        profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]}
        assert compile.lower(accepted(linux={"seccomp": profile}), HOST) is not None
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": section["archs"]}
    assert compile.lower(accepted(linux={"seccomp": profile}), HOST) is not None
    profile = {
        "defaultAction": "SCMP_ACT_NOTIFY",
        "listenerPath": "/agent",
        "flags": section["knownFlags"],
    }
    assert compile.lower(accepted(linux={"seccomp": profile}), HOST) is not None


def test_memory_policies() -> None:
    policy = document()["linux"]["memoryPolicy"]
    for mode in policy["modes"]:
        nodes = {} if mode in ("MPOL_DEFAULT", "MPOL_LOCAL") else {"nodes": "0"}
        config = accepted(linux={"memoryPolicy": {"mode": mode, **nodes}})
        assert scheduling.lower(config["process"], config)
    for flag in policy["flags"]:
        config = accepted(linux={"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]}})
        assert scheduling.lower(config["process"], config)


def test_annotations() -> None:
    """Keys and values have the form of those in config.json."""
    notes = document()["annotations"]
    assert all(isinstance(key, str) and key and isinstance(value, str) for key, value in notes.items())
    accepted(annotations=notes)
