"""The security context of containers and pods through the CRI."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.engines.cri import Cri, CriError, Pod
from integration.engines.sandbox import Sandbox, Watch
from integration.lib import host, probe as probes
from integration.lib.probe import capability_names, mount_at
from integration.lib.runtime import Runtime

NewPod = Callable[..., Pod]


def context(**fields: Any) -> dict[str, Any]:
    """The part of a container's config that is its security context."""
    return {"linux": {"security_context": fields}}


def report(pod: Pod, **fields: Any) -> probes.Reply:
    """What the probe says of itself in a container with this security context."""
    container = pod.run("probe", "report", **context(**fields))
    assert container.wait() == 0
    return probes.parse(container.output().encode())[0]


def test_capabilities(pod: Pod) -> None:
    """add and drop, on top of the default set."""
    names = capability_names(
        report(pod, capabilities={"add_capabilities": ["NET_ADMIN"], "drop_capabilities": ["CHOWN"]})["status"][
            "CapEff"
        ]
    )
    assert "CAP_NET_ADMIN" in names and "CAP_CHOWN" not in names and "CAP_KILL" in names


def test_all_capabilities_dropped(pod: Pod) -> None:
    """drop ALL, as the restricted profile asks for; one may come back."""
    found = report(pod, capabilities={"drop_capabilities": ["ALL"]})["status"]
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    changes = {"drop_capabilities": ["ALL"], "add_capabilities": ["NET_BIND_SERVICE"]}
    found = report(pod, capabilities=changes)["status"]
    assert capability_names(found["CapEff"]) == {"CAP_NET_BIND_SERVICE"} == capability_names(found["CapBnd"])


def test_user_and_groups(pod: Pod) -> None:
    """runAsUser, runAsGroup, supplementalGroups (fsGroup is one of these); no capability is effective then."""
    script = "id -u; id -g; id -G; grep -E 'CapEff|CapPrm' /proc/self/status"
    ids = {"run_as_user": {"value": 1234}, "run_as_group": {"value": 4321}, "supplemental_groups": [5, 6000]}
    lines = pod.sh(script, **context(**ids)).splitlines()
    assert lines[:2] == ["1234", "4321"]
    assert set(lines[2].split()) == {"4321", "5", "6000"}
    assert {line.split()[1] for line in lines[3:]} == {"0" * 16}


def test_user_by_name(pod: Pod) -> None:
    """A name of the image's passwd: its group, and the groups it is in."""
    assert pod.sh("id -un; id -gn; id -G", **context(run_as_username="worker")).split() == [
        *("worker", "staff"),
        *("1001", "1002"),
    ]


@pytest.mark.parametrize("wanted", [False, True])
def test_no_new_privileges(pod: Pod, wanted: bool) -> None:
    """allowPrivilegeEscalation: false, and true, which is the default."""
    assert report(pod, no_new_privs=wanted)["status"]["NoNewPrivs"] == str(int(wanted))


def test_read_only_rootfs(pod: Pod) -> None:
    """readOnlyRootFilesystem; /dev and /dev/shm can be written to all the same."""
    container = pod.run("sh", "-c", "touch /dev/shm/x /dev/y && touch /x", **context(readonly_rootfs=True))
    assert container.wait() == 1
    assert container.output("stderr") == "touch: /x: Read-only file system\n"


def test_masked_and_read_only_paths(pod: Pod) -> None:
    """The lists of the CRI; without a list nothing is masked, which is procMount: Unmasked."""
    script = "wc -c </proc/timer_list; echo 1 >/proc/sys/net/ipv4/ip_forward"
    masks = context(masked_paths=["/proc/timer_list", "/proc/no-such"], readonly_paths=["/proc/sys"])
    container = pod.run("sh", "-c", script, **masks)
    assert container.wait() == 1
    assert container.output() == "0\n"
    assert "Read-only file system" in container.output("stderr")
    lines = pod.sh("cat /proc/self/mountinfo", **context(masked_paths=[], readonly_paths=[]))
    assert not [line for line in lines.splitlines() if " /proc/" in line]


def seccomp(kind: str, path: str = "") -> dict[str, Any]:
    """A seccomp profile as the CRI names it."""
    return {"profile_type": kind, "localhost_ref": path}


def test_seccomp_of_the_engine(pod: Pod) -> None:
    """RuntimeDefault: a filter is on, which forbids what needs rights that the container has not."""
    assert report(pod, seccomp=seccomp("RuntimeDefault"))["status"]["Seccomp"] == "2"
    container = pod.run("unshare", "-m", "true", **context(seccomp=seccomp("RuntimeDefault")))
    assert container.wait() == 1
    assert report(pod, seccomp=seccomp("Unconfined"))["status"]["Seccomp"] == "0"


def test_seccomp_of_the_node(pod: Pod, tmp_path: Path) -> None:
    """Localhost: a file of the node. The system calls it lists fail as it says, the others go on."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }
    tmp_path.joinpath("profile.json").write_text(json.dumps(profile))
    mine = context(seccomp=seccomp("Localhost", f"localhost/{tmp_path}/profile.json"))
    container = pod.run("sh", "-c", "touch /tmp/x && mkdir /tmp/y", **mine)
    assert container.wait() == 1
    assert "No space left on device" in container.output("stderr")


def test_bad_seccomp_profile(pod: Pod, tmp_path: Path, leaks: Watch) -> None:
    """A profile with an action that does not exist: the start says so, and nothing stays."""
    tmp_path.joinpath("profile.json").write_text('{"defaultAction": "SCMP_ACT_PERHAPS"}')
    mine = context(seccomp=seccomp("Localhost", f"localhost/{tmp_path}/profile.json"))
    container = pod.container("true", **mine)
    with pytest.raises(CriError, match="SCMP_ACT_PERHAPS"):
        container.start()
    container.remove()
    leaks.check()


def test_default_is_confined(pod: Pod) -> None:
    """What a container has when its pod says nothing: few devices, and no right to mount."""
    container = pod.run("sh", "-c", "ls /dev; mount -t tmpfs x /mnt || exit 9")
    assert container.wait() == 9
    assert not {"kmsg", "mem", "kvm", "sda", "vda"} & set(container.output().split())


def test_exec_has_the_same_context(pod: Pod) -> None:
    """ExecSync is as confined as the container: user, capabilities, seccomp, no_new_privs."""
    fields = context(
        run_as_user={"value": 1234},
        no_new_privs=True,
        capabilities={"drop_capabilities": ["ALL"]},
        seccomp=seccomp("RuntimeDefault"),
    )
    container = pod.run("sleep", "1000", **fields)
    found = container.exec("probe", "report").ok().replies[0]
    assert found["uids"] == [1234, 1234, 1234]
    assert found["status"]["CapBnd"] == "0" * 16
    assert (found["status"]["NoNewPrivs"], found["status"]["Seccomp"]) == ("1", "2")


def test_privileged(new_pod: NewPod) -> None:
    """privileged: all capabilities, all devices, a writable /sys, no masks, no filter."""
    if host.capability_bounding() != (1 << len(probes.CAPABILITIES)) - 1:
        pytest.skip("the bounding set here lacks capabilities that privileged containers ask for")
    pod = new_pod(context(privileged=True))
    found = report(pod, privileged=True)["status"]
    assert found["Seccomp"] == "0"
    assert capability_names(found["CapEff"]) == set(probes.CAPABILITIES)
    lines = pod.sh("cat /proc/self/mountinfo", **context(privileged=True))
    assert "rw" in mount_at(lines, "/sys").options
    assert not [line for line in lines.splitlines() if " /proc/" in line]


# ---- user namespaces ----


def test_features_gate_user_namespaces(cri: Cri, sandbox: Sandbox, runtime: Runtime) -> None:
    """What newer engines ask before they give a pod a user namespace: `features`. Ours has the namespace, id-mapped
    mounts, and no annotation that takes them back.
    """
    result = sandbox.run([runtime.path, "features"])
    if result.code:
        pytest.skip("the runtime has no features command: engines give its pods no user namespace")
    features = result.json
    assert "user" in features["linux"]["namespaces"]
    mapped = features["linux"].get("mountExtensions", {}).get("idmap", {}).get("enabled", False)
    if not mapped:
        pytest.skip("features says that mounts cannot be id-mapped: engines give its pods no user namespace")
    assert {"idmap", "ridmap"} & set(features["mountOptions"])


def test_user_namespace_pod(cri: Cri, new_pod: NewPod) -> None:
    """A pod that asks for a user namespace: this engine gives one, or says no; never a pod without what was asked."""
    mapping = [{"host_id": 100000, "container_id": 0, "length": 65536}]
    options = {"mode": "POD", "uids": mapping, "gids": mapping}
    try:
        pod = new_pod(context(namespace_options={"userns_options": options, "pid": "CONTAINER"}))
    except CriError:
        return
    if cri.call("Version").runtime_version.startswith(("1.", "v1.")):
        pytest.skip("containerd 1 does not know user namespaces for pods")
    own = {"namespace_options": {"userns_options": options, "pid": "CONTAINER"}}
    assert pod.sh("cat /proc/self/uid_map", **context(**own)).split() == ["0", "100000", "65536"]
