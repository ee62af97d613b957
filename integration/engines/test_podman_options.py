"""What the options of podman run become inside."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from integration.engines.agent import HOSTNAME
from integration.engines.engines import CAPABILITIES, Podman
from integration.engines.image import IMAGE
from integration.engines.sandbox import PATH, Sandbox
from integration.lib import host, probe as probes
from integration.lib.probe import Reply, capability_names, mount_at
from integration.lib.runtime import Runtime


def report(podman: Podman, *options: str) -> Reply:
    """What the probe sees in a container with these options."""
    return podman.run("probe", "report", options=options).ok().replies[0]


# ---- file systems ----


def test_bind(podman: Podman, tmp_path: Path) -> None:
    """-v: what the container writes is there outside, and the other way round."""
    tmp_path.joinpath("given").write_text("outside\n")
    assert podman.sh("cat /mnt/given; echo inside >/mnt/made", "-v", f"{tmp_path}:/mnt") == "outside"
    assert tmp_path.joinpath("made").read_text() == "inside\n"


def test_bind_read_only(podman: Podman, tmp_path: Path) -> None:
    """-v …:ro"""
    result = podman.run("touch", "/mnt/x", options=["-v", f"{tmp_path}:/mnt:ro"])
    assert result.code == 1
    assert "Read-only file system" in result.error
    assert not tmp_path.joinpath("x").exists()


def test_bind_file(podman: Podman, tmp_path: Path) -> None:
    """-v of a file, at a place that does not exist in the image."""
    tmp_path.joinpath("file").write_text("one file\n")
    assert podman.sh("cat /new/dir/file", "-v", f"{tmp_path}/file:/new/dir/file") == "one file"


def test_bind_options(podman: Podman, tmp_path: Path) -> None:
    """noexec, nosuid, nodev and a propagation reach the mount."""
    text = podman.sh("cat /proc/self/mountinfo", "-v", f"{tmp_path}:/mnt:noexec,nosuid,nodev,rslave")
    found = mount_at(text, "/mnt")
    assert {"noexec", "nosuid", "nodev", "rw"} <= found.options
    assert any(tag.startswith("master:") for tag in found.tags)


def test_bind_id_mapped(podman: Podman, runtime: Runtime, tmp_path: Path) -> None:
    """-v …:idmap: in a user namespace, and yet the files are those of the host's IDs, seen and made."""
    if runtime.name == "runc":
        pytest.skip("runc 1.1 does not know idmap")
    tmp_path.joinpath("given").write_text("x")
    os.chown(tmp_path / "given", 7, 8)
    options = ["--uidmap", "0:100000:2000", "--gidmap", "0:200000:2000", "-v", f"{tmp_path}:/mnt:idmap"]
    text = podman.sh("stat -c '%u %g' /mnt/given; touch /mnt/made; chown 5:6 /mnt/made", *options)
    assert text == "7 8"
    made = (tmp_path / "made").stat()
    assert (made.st_uid, made.st_gid) == (5, 6)


def test_mount_volume(podman: Podman) -> None:
    """A named volume keeps what was written, and starts with the image's content."""
    volume = podman.name()
    podman.sh("cat /srv/file; echo kept >/srv/more", "-v", f"{volume}:/srv")
    assert podman.sh("cat /srv/file /srv/more", "-v", f"{volume}:/srv") == "from the image\nkept"
    podman("volume", "rm", volume).ok()


def test_read_only(podman: Podman) -> None:
    """--read-only: the root is, podman's tmpfs places are not."""
    script = "touch /x; touch /tmp/y && echo tmp; touch /run/y && echo run; touch /dev/shm/y && echo shm"
    result = podman.run("sh", "-c", script, options=["--read-only"])
    assert result.text.split() == ["tmp", "run", "shm"]
    assert "/x: Read-only file system" in result.error


def test_tmpfs(podman: Podman) -> None:
    """--tmpfs with size and mode."""
    script = "cat /proc/self/mountinfo; stat -c '%a' /scratch >&2"
    result = podman.run("sh", "-c", script, options=["--tmpfs", "/scratch:rw,size=1m,mode=1750"]).ok()
    found = mount_at(result.text, "/scratch")
    assert (found.type, found.super_options & {"size=1024k"}) == ("tmpfs", {"size=1024k"})
    assert result.error.strip() == "1750"


def test_tmpfs_keeps_content(podman: Podman) -> None:
    """A tmpfs over a directory of the image starts with a copy of it (tmpcopyup, podman's default)."""
    assert podman.sh("cat /srv/file", "--tmpfs", "/srv") == "from the image"


def test_shm_size(podman: Podman) -> None:
    """--shm-size"""
    assert "size=2048k" in mount_at(podman.sh("cat /proc/self/mountinfo", "--shm-size", "2m"), "/dev/shm").super_options


def test_default_paths_are_masked(podman: Podman) -> None:
    """podman's masked and read-only paths are in force, and unmask=ALL opens them."""
    script = "cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l; echo x >/proc/sys/kernel/domainname"
    result = podman.run("sh", "-c", script)
    assert (result.code, result.text.split()) == (1, ["0", "0"])
    assert "/proc/sys/kernel/domainname: Read-only file system" in result.error
    table = podman.sh("cat /proc/self/mountinfo", "--security-opt", "unmask=ALL")
    assert "/proc/keys" not in table and "/proc/sys " not in table


def test_device(podman: Podman) -> None:
    """--device: the node exists and the device cgroup lets it be used; mknod of another one does not help."""
    options = ["--device", "/dev/full:/dev/mine:rw", "--cap-add", "mknod"]
    script = "stat -c '%F %t:%T' /dev/mine; echo x >/dev/mine; mknod /tmp/mem c 1 1; cat /tmp/mem"
    result = podman.run("sh", "-c", script, options=options)
    assert result.text.strip() == "character special file 1:7"
    assert "No space left on device" in result.error
    assert "/tmp/mem': Operation not permitted" in result.error or "/tmp/mem: Operation not permitted" in result.error


def test_default_devices(podman: Podman) -> None:
    """Those of the specification are there and work."""
    script = "echo x >/dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; ls /dev | tr '\\n' ' '"
    words = podman.sh(script).split()
    assert words[:2] == ["4", "4"]
    assert {"full", "null", "ptmx", "pts", "random", "shm", "tty", "urandom", "zero", "fd", "stdin"} <= set(words[2:])


# ---- process ----


def test_user_by_number(podman: Podman) -> None:
    """--user uid:gid"""
    assert podman.sh("id -u; id -g; id -G", "--user", "1234:4321").split() == ["1234", "4321", "4321"]


def test_user_by_name(podman: Podman) -> None:
    """--user name: its group and additional groups are the image's."""
    assert podman.sh("id -u; id -g; id -G", "--user", "worker").split() == ["1000", "1001", "1001", "1002"]


def test_group_add(podman: Podman) -> None:
    """--group-add"""
    assert podman.sh("id -G", "--group-add", "7777").split()[-1] == "7777"


def test_umask(podman: Podman) -> None:
    """--umask, and podman's default of 0022."""
    assert podman.sh("umask") == "0022"
    assert podman.sh("umask", "--umask", "0027") == "0027"


def test_capabilities_by_default(podman: Podman) -> None:
    """podman's configured list, bounding set included; none is inheritable or ambient."""
    status = report(podman)["status"]
    for name in ("CapBnd", "CapPrm", "CapEff"):
        assert capability_names(status[name]) == CAPABILITIES
    assert capability_names(status["CapAmb"]) == set()


def test_capabilities_dropped_and_added(podman: Podman) -> None:
    """--cap-drop all --cap-add …"""
    status = report(podman, "--cap-drop", "all", "--cap-add", "net_admin,chown")["status"]
    assert capability_names(status["CapEff"]) == {"CAP_NET_ADMIN", "CAP_CHOWN"}
    assert capability_names(status["CapBnd"]) == {"CAP_NET_ADMIN", "CAP_CHOWN"}
    assert podman.run("chown", "5", "/srv/file", options=["--cap-drop", "all"]).code == 1


def test_capabilities_of_a_user(podman: Podman) -> None:
    """A user other than root has no effective capabilities, but those that are asked for (ambient)."""
    assert capability_names(report(podman, "--user", "1000")["status"]["CapEff"]) == set()
    status = report(podman, "--user", "1000", "--cap-add", "net_raw")["status"]
    assert capability_names(status["CapEff"]) == {"CAP_NET_RAW"}


def test_no_new_privileges(podman: Podman) -> None:
    """--security-opt no-new-privileges"""
    assert report(podman)["status"]["NoNewPrivs"] == "0"
    assert report(podman, "--security-opt", "no-new-privileges")["status"]["NoNewPrivs"] == "1"


def test_default_seccomp_profile(podman: Podman) -> None:
    """It is in force: what it does not list, or lists for other capabilities, fails as it says."""
    assert report(podman)["status"]["Seccomp"] == "2"
    result = podman.run("unshare", "-m", "true")
    assert result.code == 1
    assert "Operation not permitted" in result.error


def test_seccomp_unconfined(podman: Podman) -> None:
    """--security-opt seccomp=unconfined, and the same call works with the capability."""
    options = ["--security-opt", "seccomp=unconfined", "--cap-add", "sys_admin"]
    assert report(podman, *options)["status"]["Seccomp"] == "0"
    podman.run("unshare", "-m", "true", options=options).ok()


def test_seccomp_profile_of_ones_own(podman: Podman, tmp_path: Path) -> None:
    """A profile from a file: one call fails with the errno of the profile, all others work."""
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": '
        '[{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}'
    )
    result = podman.run("mkdir", "/tmp/d", options=["--security-opt", f"seccomp={profile}"])
    assert "No space left on device" in result.error


def test_environment(podman: Podman) -> None:
    """--env, the image's own, and what podman adds."""
    lines = podman.sh("env", "--env", "A=1 2", "--env", "B=", "--env", "C=ä").splitlines()
    assert {"A=1 2", "B=", "C=ä", "IMAGE_VARIABLE=image", "HOME=/root", "container=podman"} <= set(lines)


def test_workdir_is_made(podman: Podman) -> None:
    """--workdir in a mount: podman leaves it to the runtime to make what is missing."""
    options = ["--tmpfs", "/scratch", "--workdir", "/scratch/not/there/yet"]
    assert podman.sh("pwd; ls -ld . | cut -c1-10", *options).split() == ["/scratch/not/there/yet", "drwxr-xr-x"]


def test_ulimit(podman: Podman) -> None:
    """--ulimit. podman adds a limit of processes that not everybody may raise, so there is one here too."""
    options = ["--ulimit", "nofile=100:200", "--ulimit", "core=0:0", "--ulimit", "nproc=300:400"]
    limits = {
        line[:26].strip(): line[26:].split()[:2] for line in podman.sh("cat /proc/self/limits", *options).splitlines()
    }
    assert limits["Max open files"] == ["100", "200"]
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max processes"] == ["300", "400"]


def test_oom_score(podman: Podman) -> None:
    """--oom-score-adj"""
    assert podman.sh("cat /proc/self/oom_score_adj", "--oom-score-adj", "321") == "321"


def test_init(podman: Podman) -> None:
    """--init: catatonit is PID 1, reaps, and passes signals on."""
    options = ["--init"]
    if not shutil.which("catatonit", path=PATH):
        pytest.skip("not installed: catatonit")
    assert podman.sh("cat /proc/1/comm; readlink /proc/1/exe; echo $$", *options).split()[0] in (
        "catatonit",
        "podman-init",
    )
    name = podman.detached("sleep", "1000", options=options)
    podman("stop", "-t", "10", name).ok()
    assert podman.inspect(name)["State"]["ExitCode"] == 143


def test_preserved_descriptors(podman: Podman, sandbox: Sandbox) -> None:
    """--preserve-fds: descriptor 3 of podman's caller is the program's."""
    argv, env = podman.argv(["run", "--rm", "--preserve-fds", "1", IMAGE, "sh", "-c", "cat <&3"], False)
    script = 'exec 3<<END\nthrough three\nEND\nexec "$@"'
    assert sandbox.run(["sh", "-c", script, "sh", *argv], env=env).ok().text.strip() == "through three"


def test_no_descriptors_leak(podman: Podman) -> None:
    """Only 0, 1 and 2 are open in the program."""
    assert {int(name) for name in podman.sh("ls /proc/self/fd").split()} == {0, 1, 2, 3}  # 3: ls reads the directory


# ---- limits ----


def test_memory(podman: Podman, sandbox: Sandbox) -> None:
    """--memory"""
    path = sandbox.limit("memory", "memory.limit_in_bytes", "memory.max")
    assert podman.sh(f"cat {path}", "--memory", "64m") == str(64 << 20)


def test_out_of_memory(podman: Podman, sandbox: Sandbox) -> None:
    """A program that takes more than its limit is killed."""
    sandbox.limit("memory", "", "")
    assert podman.run("probe", "alloc", "64", options=["--memory", "16m", "--memory-swap", "16m"]).code == 137


def test_pids_limit(podman: Podman, sandbox: Sandbox) -> None:
    """--pids-limit"""
    assert podman.sh(f"cat {sandbox.limit('pids', 'pids.max', 'pids.max')}", "--pids-limit", "23") == "23"
    result = podman.run("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done", options=["--pids-limit", "4"])
    assert "fork" in result.error


def test_cpus(podman: Podman, sandbox: Sandbox) -> None:
    """--cpus is a quota of a period of 100 ms."""
    path = sandbox.limit("cpu", "cpu.cfs_quota_us", "cpu.max")
    assert podman.sh(f"cat {path}", "--cpus", "0.5").split()[0] == "50000"


def test_cpu_shares(podman: Podman, sandbox: Sandbox) -> None:
    """--cpu-shares; cgroup2 has another scale."""
    path = sandbox.limit("cpu", "cpu.shares", "cpu.weight")
    assert podman.sh(f"cat {path}", "--cpu-shares", "512") == ("20" if sandbox.only_v2 else "512")


def test_cpuset(podman: Podman, sandbox: Sandbox) -> None:
    """--cpuset-cpus"""
    path = sandbox.limit("cpuset", "cpuset.cpus", "cpuset.cpus")
    script = f"cat {path}; grep Cpus_allowed_list /proc/self/status"
    assert podman.sh(script, "--cpuset-cpus", "0").split() == ["0", "Cpus_allowed_list:", "0"]


# ---- namespaces ----


def test_hostname(podman: Podman) -> None:
    """--hostname"""
    assert podman.sh("hostname; cat /etc/hostname", "--hostname", "inside").split() == ["inside", "inside"]


@pytest.mark.parametrize(
    ("name", "option"),
    [("pid", "--pid=host"), ("ipc", "--ipc=host"), ("uts", "--uts=host"), ("net", "--network=host"),
     ("cgroup", "--cgroupns=host")],
)  # fmt: skip
def test_namespace_of_the_host(podman: Podman, sandbox: Sandbox, name: str, option: str) -> None:
    """A namespace is the host's when asked for, and only then."""
    outside = sandbox.run(["readlink", f"/proc/self/ns/{name}"]).ok().text.strip()
    assert podman.sh(f"readlink /proc/self/ns/{name}", option) == outside
    private = ["--cgroupns=private"] if name == "cgroup" else []
    assert podman.sh(f"readlink /proc/self/ns/{name}", *private) != outside


def test_host_name_of_the_host(podman: Podman) -> None:
    """--uts=host: nothing sets a name."""
    assert podman.sh("hostname", "--uts=host") == HOSTNAME


def test_namespaces_of_another_container(podman: Podman) -> None:
    """--pid, --ipc, --uts and --network container:NAME join by path."""
    first = podman.detached("sleep", "1000", options=["--ipc=shareable"])
    pid = podman.inspect(first)["State"]["Pid"]
    wanted = [
        podman.sandbox.run(["readlink", f"/proc/{pid}/ns/{name}"]).text.strip() for name in ("pid", "ipc", "uts", "net")
    ]
    options = [f"{option}=container:{first}" for option in ("--pid", "--ipc", "--uts", "--network")]
    script = "for n in pid ipc uts net; do readlink /proc/self/ns/$n; done; cat /proc/1/comm"
    assert podman.sh(script, *options).split() == [*wanted, "sleep"]


def test_user_namespace(podman: Podman) -> None:
    """--uidmap, --gidmap: the container's root is somebody else outside."""
    options = ["--uidmap", "0:100000:2000", "--gidmap", "0:200000:2000"]
    script = "id -u; cat /proc/self/uid_map /proc/self/gid_map; touch /root/x; stat -c %u:%g /root/x"
    assert podman.sh(script, *options).split() == ["0", *["0", "100000", "2000", "0", "200000", "2000", "0:0"]]
    name = podman.detached("sleep", "1000", options=options)
    pid = podman.inspect(name)["State"]["Pid"]
    assert podman.sandbox.run(["stat", "-c", "%u:%g", f"/proc/{pid}"]).ok().text.strip() == "100000:200000"


def test_private_cgroup_namespace(podman: Podman) -> None:
    """--cgroupns=private: the container's own group is the root it sees."""
    lines = podman.sh("cat /proc/self/cgroup", "--cgroupns=private").splitlines()
    assert {line.split(":", 2)[2] for line in lines} == {"/"}


def test_cgroups_disabled(podman: Podman, sandbox: Sandbox) -> None:
    """--cgroups=disabled: the container stays in the group of its caller; it is killed and removed all the same."""
    name = podman.detached("sleep", "1000", options=["--cgroups=disabled", "--cgroupns=host"])
    found = podman.inspect(name)
    assert not any(found["Id"] in group for group in sandbox.look()["cgroups"])
    own = sandbox.read("/proc/self/cgroup")
    assert sandbox.read(f"/proc/{found['State']['Pid']}/cgroup") == own
    podman("kill", name).ok()
    assert podman("wait", name).ok().text.strip() == "137"


def test_cgroups_no_conmon(podman: Podman) -> None:
    """--cgroups=no-conmon: the monitor stays outside, the container has its group."""
    assert "/libpod-" in podman.sh("cat /proc/self/cgroup", "--cgroups=no-conmon", "--cgroupns=host")


def test_cgroup_parent(podman: Podman) -> None:
    """--cgroup-parent"""
    lines = podman.sh("cat /proc/self/cgroup", "--cgroup-parent", "/libpod_parent/kept", "--cgroupns=host")
    assert "/libpod_parent/kept/libpod-" in lines


def test_sysctl(podman: Podman) -> None:
    """--sysctl of the network and IPC namespaces."""
    options = ["--sysctl", "net.ipv4.ip_default_ttl=42", "--sysctl", "kernel.msgmax=9999"]
    assert podman.sh("cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax", *options).split() == [
        "42",
        "9999",
    ]


# ---- others ----


def test_annotation(podman: Podman, sandbox: Sandbox) -> None:
    """--annotation reaches the runtime and comes back in its state."""
    name = podman.detached("sleep", "1000", options=["--annotation", "org.example.key=a value"])
    state = sandbox.run([podman.runtime, "state", podman.inspect(name)["Id"]]).ok().json
    assert state["annotations"]["org.example.key"] == "a value"
    assert state["status"] == "running"


def test_privileged_options(podman: Podman) -> None:
    """What --privileged does, as far as a machine without all capabilities has it: devices, no masks, no seccomp."""
    if host.capability_bounding() != (1 << len(probes.CAPABILITIES)) - 1:
        pytest.skip("the bounding set here lacks capabilities that --privileged asks for")
    assert report(podman, "--privileged")["status"]["Seccomp"] == "0"
