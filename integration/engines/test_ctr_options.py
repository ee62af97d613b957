"""Options of ctr run that change the configuration: user namespace, root file system, profile, whole config files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from integration.engines.engines import Ctr
from integration.engines.image import IMAGE, busybox
from integration.engines.sandbox import Sandbox, Watch
from integration.lib import host, probe as probes
from integration.lib.probe import capability_names, mount_at
from integration.lib.runtime import Result

FOREVER = ["sleep", "1000"]


def test_user_namespace(ctr: Ctr, sandbox: Sandbox) -> None:
    """--uidmap, --gidmap: the container's root is somebody else outside; containerd changes owners in its copy."""
    options = ["--uidmap", "0:100000:2000", "--gidmap", "0:200000:2000"]
    name = ctr.detached(*FOREVER, options=options)
    script = (
        "id -u; cat /proc/self/uid_map /proc/self/gid_map; stat -c %u:%g /bin; touch /root/x; stat -c %u:%g /root/x;"
        " sleep 0.2"
    )
    words = ctr.exec(name, "sh", "-c", script).ok().text.split()
    assert words == ["0", *("0", "100000", "2000"), *("0", "200000", "2000"), "0:0", "0:0"]
    pid = ctr.tasks()[name][0]
    assert sandbox.run(["stat", "-c", "%u:%g", f"/proc/{pid}"]).ok().text.strip() == "100000:200000"
    ctr.remove(name, "--force")


def test_root_of_a_user_namespace_has_no_more(ctr: Ctr, sandbox: Sandbox) -> None:
    """Files of the host's root belong to nobody in there."""
    options = ["--uidmap", "0:100000:2000", "--gidmap", "0:200000:2000"]
    sandbox.run(["sh", "-c", "mkdir -p /run/given; umask 077; echo secret >/run/given/file"]).ok()
    mount = ["--mount", "type=bind,src=/run/given,dst=/mnt,options=rbind:ro"]
    result = ctr.shell("stat -c %u /mnt/file; cat /mnt/file", *options, *mount)
    sandbox.run(["rm", "-r", "/run/given"]).ok()
    assert result.code == 1
    assert result.text == "65534\n"
    assert "Permission denied" in result.error


@pytest.mark.parametrize("options", [[], ["--no-pivot"]])
def test_rootfs(ctr: Ctr, tmp_path: Path, options: list[str], leaks: Watch) -> None:
    """--rootfs: a directory instead of an image; with and without pivot_root."""
    for directory in ("bin", "proc", "sys", "dev", "run", "tmp", "etc"):
        tmp_path.joinpath(directory).mkdir()
    shutil.copy(busybox(), tmp_path / "bin/busybox")
    name = ctr.name()
    script = "/bin/busybox echo inside >/made; /bin/busybox ls -d /work /tmp; /bin/busybox sleep 0.1"
    result = ctr(
        "run", "--rm", *ctr.options(name), *options, "--rootfs", str(tmp_path), name, "/bin/busybox", "sh", "-c", script
    )
    assert result.text == "/tmp\n"
    assert tmp_path.joinpath("made").read_text() == "inside\n"
    leaks.check()


def test_missing_rootfs(ctr: Ctr, leaks: Watch) -> None:
    """A directory that is not there: the answer names it, and nothing stays."""
    name = ctr.name()
    result = ctr("run", "--rm", *ctr.options(name), "--rootfs", "/no/such/rootfs", name, "true")
    assert result.code != 0
    assert "/no/such/rootfs" in result.error
    leaks.check()


def run_config(ctr: Ctr, place: Path, **changes: object) -> Result:
    """ctr run --config: a config.json that containerd has not made and takes as it is, with a rootfs of its own."""
    for directory in ("bin", "proc", "dev"):
        place.joinpath("rootfs", directory).mkdir(parents=True)
    shutil.copy(busybox(), place / "rootfs/bin/busybox")
    document = {
        "ociVersion": "1.0.2",
        "process": {
            "args": ["/bin/busybox", "sh", "-c", "busybox id -u; busybox hostname; busybox sleep 0.1"],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
            "noNewPrivileges": True,
        },
        "root": {"path": str(place / "rootfs")},
        "hostname": "from-config",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "cgroupsPath": "/ctr/config",
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "uts", "ipc", "network")],
        },
        **changes,
    }
    place.joinpath("config.json").write_text(json.dumps(document))
    base = ["run", "--rm", "--runtime", "io.containerd.runc.v2", "--runc-binary", ctr.runtime]
    return ctr(*base, "--config", str(place / "config.json"), ctr.name())


def test_config_file(ctr: Ctr, tmp_path: Path, leaks: Watch) -> None:
    """--config."""
    assert run_config(ctr, tmp_path).ok().text.split() == ["0", "from-config"]
    leaks.check()


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"ociVersion": "x"}, []),
        ({"mounts": [{"destination": "/p", "type": "nosuchfs", "source": "x"}]}, ["no such device"]),
        ({"hooks": {"createRuntime": [{"path": "/no/such/hook"}]}}, ["/no/such/hook", "no such file or directory"]),
    ],
    ids=["version", "mount", "hook"],
)
def test_bad_config_file(ctr: Ctr, tmp_path: Path, leaks: Watch, changes: dict[str, object], texts: list[str]) -> None:
    """What the runtime says of a configuration comes back by its log; nothing stays."""
    result = run_config(ctr, tmp_path, **changes)
    assert result.code != 0
    for text in texts:
        assert text in result.error
    leaks.check()


def test_seccomp_profile(ctr: Ctr, tmp_path: Path) -> None:
    """--seccomp-profile."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }
    tmp_path.joinpath("profile.json").write_text(json.dumps(profile))
    options = ["--seccomp", "--seccomp-profile", str(tmp_path / "profile.json")]
    result = ctr.shell("touch /tmp/x && mkdir /tmp/y", *options)
    assert result.code == 1
    assert "No space left on device" in result.error


def test_new_privileges(ctr: Ctr) -> None:
    """--allow-new-privs."""
    assert ctr.report("--allow-new-privs")["status"]["NoNewPrivs"] == "0"


def test_annotation(ctr: Ctr, sandbox: Sandbox) -> None:
    """--annotation reaches the runtime and comes back in its state."""
    name = ctr.detached(*FOREVER, options=["--annotation", "org.example.key=a value"])
    state = sandbox.run([ctr.runtime, "--root", "/run/containerd/runc/default", "state", name]).ok().json
    assert state["annotations"]["org.example.key"] == "a value"
    assert (state["status"], state["pid"]) == ("running", ctr.tasks()[name][0])
    ctr.remove(name, "--force")


def test_root_of_the_state(ctr: Ctr, sandbox: Sandbox, leaks: Watch) -> None:
    """--runc-root: the runtime keeps its state there, in a directory per name space."""
    name = ctr.detached(*FOREVER, options=["--runc-root", "/run/other-root"])
    assert name in sandbox.run(["ls", "/run/other-root/default"]).ok().text.split()
    ctr.remove(name, "--force")
    assert sandbox.run(["ls", "/run/other-root/default"]).ok().text == ""
    sandbox.run(["rm", "-r", "/run/other-root"]).ok()


@pytest.mark.parametrize(("value", "tag"), [("shared", "shared:"), ("private", "")])
def test_rootfs_propagation(ctr: Ctr, value: str, tag: str) -> None:
    """--rootfs-propagation."""
    tags = mount_at(ctr.sh("cat /proc/self/mountinfo", "--rootfs-propagation", value), "/").tags
    assert any(word.startswith(tag) for word in tags) if tag else not tags


def test_no_cgroup(ctr: Ctr, leaks: Watch) -> None:
    """--cgroup with nothing: containerd gives no path, so it is the runtime's own choice, and gone afterwards."""
    base = ["run", "--rm", "--runtime", "io.containerd.runc.v2", "--runc-binary", ctr.runtime, "--cgroup", ""]
    assert ctr(*base, IMAGE, ctr.name(), "true").code == 0
    leaks.check()


def test_privileged(ctr: Ctr) -> None:
    """--privileged: all capabilities, no masks."""
    if host.capability_bounding() != (1 << len(probes.CAPABILITIES)) - 1:
        pytest.skip("the bounding set here lacks capabilities that --privileged asks for")
    found = ctr.report("--privileged")["status"]
    assert capability_names(found["CapEff"]) == set(probes.CAPABILITIES)


def test_host_devices_stay(ctr: Ctr, sandbox: Sandbox) -> None:
    """A command of another user with /dev/null for its streams does not change who owns the host's."""
    before = sandbox.run(["stat", "-c", "%u:%g %a", "/dev/null"]).ok().text
    name = ctr.detached(*FOREVER, options=["--null-io"])
    ctr.exec(name, "true", options=["--user", "1000:1001"]).ok()
    assert sandbox.run(["stat", "-c", "%u:%g %a", "/dev/null"]).ok().text == before
    ctr.remove(name, "--force")
