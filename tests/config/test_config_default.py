"""config/default.py: what the spec command writes."""

from typing import Any

import pytest

from ociruntime.config import validate
from ociruntime.config.default import default_config


def make(**facts: Any) -> Any:
    return default_config(**{"rootless": False, "cgroup_v2": False, "euid": 0, "egid": 0, **facts})


def types_of(config: Any) -> list[str]:
    return [entry["type"] for entry in config["linux"]["namespaces"]]


@pytest.mark.parametrize("rootless", [False, True])
@pytest.mark.parametrize("cgroup_v2", [False, True])
def test_it_fits_the_schema(rootless: bool, cgroup_v2: bool) -> None:
    validate.check(make(rootless=rootless, cgroup_v2=cgroup_v2, euid=1000, egid=1000), b"", "config.json")


def test_process() -> None:
    config = make()
    process = config["process"]
    capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    assert process["capabilities"] == {"bounding": capabilities, "effective": capabilities, "permitted": capabilities}
    assert (process["args"], process["cwd"], process["terminal"]) == (["sh"], "/", True)
    assert process["noNewPrivileges"] is True
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}]
    assert config["root"] == {"path": "rootfs", "readonly": True}
    assert config["ociVersion"] == "1.3.0"


def test_cgroup_namespace_on_v2_only() -> None:
    assert types_of(make()) == ["pid", "network", "ipc", "uts", "mount"]
    assert types_of(make(cgroup_v2=True)) == ["pid", "network", "ipc", "uts", "mount", "cgroup"]


def test_devices_are_denied_by_default() -> None:
    assert make()["linux"]["resources"] == {"devices": [{"allow": False, "access": "rwm"}]}


def test_mounts() -> None:
    mounts = {mount["destination"]: mount for mount in make()["mounts"]}
    assert list(mounts) == ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"]
    assert "options" not in mounts["/proc"]
    assert "gid=5" in mounts["/dev/pts"]["options"]
    assert mounts["/sys"]["type"] == "sysfs"
    assert mounts["/sys/fs/cgroup"]["options"] == ["nosuid", "noexec", "nodev", "relatime", "ro"]


def test_rootless() -> None:
    config = make(rootless=True, euid=1000, egid=1001)
    linux = config["linux"]
    assert types_of(config) == ["pid", "ipc", "uts", "mount", "user"]
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": 1001, "size": 1}]
    assert "resources" not in linux
    mounts = {mount["destination"]: mount for mount in config["mounts"]}
    assert (mounts["/sys"]["type"], mounts["/sys"]["source"]) == ("none", "/sys")
    assert mounts["/sys"]["options"] == ["rbind", "nosuid", "noexec", "nodev", "ro"]
    options = [option for mount in config["mounts"] for option in mount.get("options", [])]
    assert not [option for option in options if option.startswith(("uid=", "gid="))]


def test_nothing_is_shared_between_two_calls() -> None:
    first = make()
    first["process"]["capabilities"]["bounding"].append("CAP_X")
    first["linux"]["maskedPaths"].clear()
    first["mounts"][1]["options"].clear()
    assert make() != first
    assert first["process"]["capabilities"]["effective"] == make()["process"]["capabilities"]["effective"]
