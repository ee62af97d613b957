"""The features document: form by the schema, content by what the rooms can do."""

import json
from pathlib import Path

import jsonschema
import pytest

from ociruntime import features, hooks, process
from ociruntime.capabilities import NUMBERS
from ociruntime.host import Host
from ociruntime.mounts import options
from ociruntime.seccomp import compile

SCHEMA = Path(__file__).parents[1] / "spec" / "features.schema.json"


def test_schema() -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator(schema).validate(features.document())


def test_mount_options_are_the_tables() -> None:
    names = features.document()["mountOptions"]
    assert isinstance(names, list)
    assert names == sorted(set(names))
    assert {"rro", "bind", "rbind", "tmpcopyup", *options.FLAGS, *options.PROPAGATION} <= set(names)
    assert ("idmap" in names) is features.IDMAP


def linux() -> dict[str, dict[str, object]]:
    section = features.document()["linux"]
    assert isinstance(section, dict)
    return section


def test_capabilities_and_namespaces() -> None:
    assert list(linux()["capabilities"]) == list(NUMBERS)
    assert sorted(linux()["namespaces"]) == ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]


def test_seccomp_with_and_without_the_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "seccomp_binding", lambda: False)
    assert linux()["seccomp"] == {"enabled": False}
    monkeypatch.setattr(features, "seccomp_binding", lambda: True)
    section = linux()["seccomp"]
    assert section["enabled"] is True
    assert ("SCMP_ACT_NOTIFY" in list(section["actions"])) is features.SECCOMP_NOTIFY  # type: ignore[call-overload]
    assert section["archs"] == list(compile.ARCHITECTURES)
    assert section["operators"] == list(compile.OPERATORS)
    known, supported = section["knownFlags"], section["supportedFlags"]
    assert isinstance(known, list)
    assert isinstance(supported, list)
    assert set(supported) <= set(known)


def test_what_is_not_there_is_not_claimed() -> None:
    """Engines turn user namespaces on because of what is said here: each key here has its own feature to wait for."""
    assert features.document()["annotations"]["org.opencontainers.runc.checkpoint.enabled"] == "false"  # type: ignore[index]


def test_id_mapped_mounts() -> None:
    """The options and the section say the same."""
    assert linux()["mountExtensions"] == {"idmap": {"enabled": True}}
    assert {"idmap", "ridmap"} <= set(features.document()["mountOptions"])  # type: ignore[call-overload]


@pytest.mark.parametrize(("euid", "in_userns", "binds"), [(0, False, "true"), (0, True, "false"), (1, False, "false")])
def test_whose_file_systems(monkeypatch: pytest.MonkeyPatch, euid: int, in_userns: bool, binds: str) -> None:
    """Mappings are recognised for everybody; those of the host's file systems are for the host's root."""
    monkeypatch.setattr("posix.geteuid", lambda: euid)
    monkeypatch.setattr("ociruntime.host.probe", lambda: Host(euid=euid, in_userns=in_userns))
    document = features.document()
    assert document["annotations"]["org.ociruntime.idmap.binds"] == binds  # type: ignore[index]
    assert document["linux"]["mountExtensions"] == {"idmap": {"enabled": True}}  # type: ignore[index]


@pytest.mark.parametrize("there", [True, False])
def test_systemd_with_and_without_the_library(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """The driver of both managers needs a D-Bus library [G6]."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: (there and name == "jeepney") or None)
    section = linux()["cgroup"]
    assert (section["systemd"], section["systemdUser"]) == (there, there)


def test_memory_policies_are_the_tables() -> None:
    """Every word of the specification: which of them a kernel knows is its own business."""
    policy = linux()["memoryPolicy"]
    schema = json.loads((SCHEMA.parent / "config.schema.json").read_text())["$defs"]["memoryPolicy"]["properties"]
    assert sorted(policy["modes"]) == sorted(schema["mode"]["enum"])  # type: ignore[call-overload]
    assert sorted(policy["flags"]) == sorted(schema["flags"]["items"]["enum"])  # type: ignore[call-overload]


def test_annotations_that_change_what_the_runtime_does() -> None:
    unsafe = features.document()["potentiallyUnsafeConfigAnnotations"]
    assert isinstance(unsafe, list)
    assert {hooks.STDOUT_ANNOTATION, hooks.STDERR_ANNOTATION, process.KEEP_GROUPS_ANNOTATION} <= set(unsafe)


def test_what_the_parent_does_is_claimed() -> None:
    """Compiled in, whatever the machine offers [E7, E8]."""
    assert linux()["netDevices"] == {"enabled": True}
    assert linux()["intelRdt"] == {"enabled": True, "schemata": True, "monitoring": True}


def test_libseccomp_release_is_what_the_library_says() -> None:
    assert features._release_in_name() in ("", features._release_said())


def test_libseccomp_release_is_three_numbers() -> None:
    release = features.libseccomp_release()
    assert release == "" or [part.isdigit() for part in release.split(".")] == [True] * 3
