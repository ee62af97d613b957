"""What the options of docker run become inside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.engines.agent import HOSTNAME
from integration.engines.docker import Docker
from integration.engines.image import IMAGE
from integration.lib import host, probe as probes
from integration.lib.probe import Reply, capability_names, mount_at

FOREVER = ["sleep", "1000"]
DEFAULT_CAPABILITIES = {
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}  # fmt: skip


def report(docker: Docker, *options: str) -> Reply:
    """What the probe sees in a container with these options."""
    return docker.run("probe", "report", options=options).ok().replies[0]


# ---- file systems ----


def test_bind(docker: Docker, tmp_path: Path) -> None:
    """-v: what the container writes is there outside, and the other way round."""
    tmp_path.joinpath("given").write_text("outside\n")
    assert docker.sh("cat /mnt/given; echo inside >/mnt/made", "-v", f"{tmp_path}:/mnt") == "outside"
    assert tmp_path.joinpath("made").read_text() == "inside\n"


def test_bind_read_only(docker: Docker, tmp_path: Path) -> None:
    """-v …:ro"""
    result = docker.run("touch", "/mnt/x", options=["-v", f"{tmp_path}:/mnt:ro"])
    assert result.code == 1 and "Read-only file system" in result.error
    assert not tmp_path.joinpath("x").exists()


def test_bind_file(docker: Docker, tmp_path: Path) -> None:
    """-v of a file, at a place that does not exist in the image."""
    tmp_path.joinpath("file").write_text("one file\n")
    assert docker.sh("cat /new/dir/file", "-v", f"{tmp_path}/file:/new/dir/file") == "one file"


@pytest.mark.parametrize("word", ["rprivate", "rslave", "rshared"])
def test_propagation(docker: Docker, tmp_path: Path, word: str) -> None:
    """-v …:PROPAGATION, and whether a later mount outside appears inside."""
    tmp_path.joinpath("sub").mkdir()
    name = docker.detached(*FOREVER, options=["-v", f"{tmp_path}:/mnt:{word}"])
    tags = " ".join(mount_at(docker.sh_exec(name, "cat /proc/self/mountinfo"), "/mnt").tags)
    assert ("shared:" in tags, "master:" in tags) == (word == "rshared", word == "rslave")
    docker.sandbox.run(["mount", "-t", "tmpfs", "later", f"{tmp_path}/sub"]).ok()
    try:
        assert ("later" in docker.sh_exec(name, "cat /proc/self/mountinfo")) == (word != "rprivate")
    finally:
        docker.sandbox.run(["umount", f"{tmp_path}/sub"]).ok()


def test_volume(docker: Docker) -> None:
    """A named volume keeps what was written, and starts with the image's content."""
    volume = docker.name()
    docker.sh("cat /srv/file; echo kept >/srv/more", "-v", f"{volume}:/srv")
    assert docker.sh("cat /srv/file /srv/more", "-v", f"{volume}:/srv") == "from the image\nkept"
    docker("volume", "rm", volume).ok()


def test_volumes_from(docker: Docker) -> None:
    """--volumes-from"""
    name = docker.detached(*FOREVER, options=["-v", "/data"])
    docker.sh_exec(name, "echo shared >/data/x")
    assert docker.sh("cat /data/x", "--volumes-from", name) == "shared"


def test_mount_option(docker: Docker, tmp_path: Path) -> None:
    """--mount with bind-nonrecursive and bind-propagation, and of a tmpfs."""
    options = [
        "--mount", f"type=bind,src={tmp_path},dst=/mnt,readonly,bind-propagation=rslave,bind-nonrecursive=true",
        "--mount", "type=tmpfs,dst=/scratch,tmpfs-size=1048576,tmpfs-mode=1750",
    ]  # fmt: skip
    text = docker.sh("stat -c %a /scratch; cat /proc/self/mountinfo", *options)
    assert text.startswith("1750\n")
    found = text.partition("\n")[2]
    assert "ro" in mount_at(found, "/mnt").options
    assert "size=1024k" in mount_at(found, "/scratch").super_options


def test_read_only(docker: Docker) -> None:
    """--read-only: the root is, what is mounted there is not."""
    script = "touch /x; touch /dev/shm/y && echo shm; touch /scratch/y && echo tmpfs"
    result = docker.run("sh", "-c", script, options=["--read-only", "--tmpfs", "/scratch"])
    assert result.text.split() == ["shm", "tmpfs"]
    assert "/x: Read-only file system" in result.error


def test_tmpfs(docker: Docker) -> None:
    """--tmpfs with options."""
    text = docker.sh("stat -c %a /scratch; cat /proc/self/mountinfo", "--tmpfs", "/scratch:rw,exec,size=1m,mode=1750")
    assert text.startswith("1750\n")
    found = mount_at(text.partition("\n")[2], "/scratch")
    assert found.super_options & {"size=1024k"} and "noexec" not in found.options and "nosuid" in found.options


def test_shm_size(docker: Docker) -> None:
    """--shm-size"""
    found = mount_at(docker.sh("cat /proc/self/mountinfo", "--shm-size", "3m"), "/dev/shm")
    assert "size=3072k" in found.super_options


def test_masked_paths(docker: Docker) -> None:
    """What docker hides and makes read only; --security-opt systempaths=unconfined shows it."""
    script = "wc -c </proc/timer_list; ls /sys/firmware; echo x >/proc/sys/kernel/hostname"
    result = docker.run("sh", "-c", script)
    assert result.text.split() == ["0"] and "Read-only file system" in result.error
    text = docker.sh("cat /proc/self/mountinfo", "--security-opt", "systempaths=unconfined")
    assert not any(mount.point.startswith(("/proc/", "/sys/firmware")) for mount in probes.mounts(text))


# ---- privileges ----


def test_capabilities(docker: Docker) -> None:
    """docker's default, and --cap-add, --cap-drop; another user has none that is effective."""
    status = report(docker)["status"]
    assert capability_names(status["CapEff"]) == capability_names(status["CapBnd"]) == DEFAULT_CAPABILITIES
    status = report(docker, "--cap-drop", "ALL", "--cap-add", "NET_ADMIN")["status"]
    assert capability_names(status["CapEff"]) == capability_names(status["CapBnd"]) == {"CAP_NET_ADMIN"}
    status = report(docker, "--user", "1000")["status"]
    assert capability_names(status["CapEff"]) == set()
    assert capability_names(status["CapBnd"]) == DEFAULT_CAPABILITIES


def test_seccomp_default(docker: Docker) -> None:
    """docker's own profile is in force, and off when asked for."""
    assert report(docker)["status"]["Seccomp"] == "2"
    assert report(docker, "--security-opt", "seccomp=unconfined")["status"]["Seccomp"] == "0"
    result = docker.run("unshare", "-m", "true")
    assert result.code == 1 and "Operation not permitted" in result.error
    docker.run("unshare", "-m", "true", options=["--security-opt", "seccomp=unconfined", "--cap-add", "SYS_ADMIN"]).ok()


def test_seccomp_profile(docker: Docker, tmp_path: Path) -> None:
    """--security-opt seccomp=FILE with an errno of its own."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    }
    tmp_path.joinpath("profile.json").write_text(json.dumps(profile))
    result = docker.run("mkdir", "/x", options=["--security-opt", f"seccomp={tmp_path}/profile.json"])
    assert result.code == 1 and "not supported" in result.error


def test_no_new_privileges(docker: Docker) -> None:
    """--security-opt no-new-privileges"""
    assert report(docker)["status"]["NoNewPrivs"] == "0"
    assert report(docker, "--security-opt", "no-new-privileges")["status"]["NoNewPrivs"] == "1"


def test_privileged(docker: Docker) -> None:
    """--privileged: all capabilities, no filter, all devices, nothing hidden."""
    if not host.capability_bounding() >> probes.CAPABILITIES.index("SYS_RESOURCE") & 1:
        pytest.skip("CAP_SYS_RESOURCE is not in the bounding set here")
    found = report(docker, "--privileged")["status"]
    assert found["Seccomp"] == "0" and int(found["CapEff"], 16) == host.capability_bounding()


@pytest.fixture
def fuse(docker: Docker) -> str:
    """A device that is not among those of every container."""
    docker.sandbox.run(["sh", "-c", "test -e /dev/fuse || mknod /dev/fuse c 10 229"]).ok()
    if docker.sandbox.run(["sh", "-c", ": <>/dev/fuse"]).code:
        pytest.skip("no FUSE here")
    return "/dev/fuse"


@pytest.mark.parametrize(("letters", "fine"), [("r", ["read"]), ("w", ["write"]), ("rwm", ["read", "write"])])
def test_device(docker: Docker, fuse: str, letters: str, fine: list[str]) -> None:
    """--device at another path, and with these permissions."""
    script = "(: </dev/mine) && echo read; (: >/dev/mine) && echo write; :"
    result = docker.run("sh", "-c", script, options=["--device", f"{fuse}:/dev/mine:{letters}"])
    assert result.ok().text.split() == fine


def test_device_rule(docker: Docker, fuse: str) -> None:
    """--device-cgroup-rule: a node that the container makes itself can be opened then, and only then."""
    script = "mknod /tmp/node c 10 229 && : </tmp/node"
    assert docker.run("sh", "-c", script).code == 1
    docker.run("sh", "-c", script, options=["--device-cgroup-rule", "c 10:229 rm"]).ok()


def test_ulimit(docker: Docker) -> None:
    """--ulimit, soft and hard."""
    text = docker.sh("ulimit -Sn; ulimit -Hn; ulimit -Sc", "--ulimit", "nofile=100:200", "--ulimit", "core=0")
    assert text.split() == ["100", "200", "0"]


def test_sysctl(docker: Docker) -> None:
    """--sysctl of namespaces that are the container's own."""
    options = ["--sysctl", "net.ipv4.ip_unprivileged_port_start=77", "--sysctl", "kernel.msgmax=9000"]
    text = docker.sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax", *options)
    assert text.split() == ["77", "9000"]


def test_oom_score_adj(docker: Docker) -> None:
    """--oom-score-adj"""
    assert docker.sh("cat /proc/self/oom_score_adj", "--oom-score-adj", "321") == "321"


# ---- cgroups ----


@pytest.mark.parametrize(
    ("options", "file", "value"),
    [
        (["-m", "48m"], "memory/memory.limit_in_bytes", str(48 << 20)),
        (["-m", "48m", "--memory-reservation", "24m"], "memory/memory.soft_limit_in_bytes", str(24 << 20)),
        (["--cpus", "0.5"], "cpu/cpu.cfs_quota_us", "50000"),
        (["--cpu-period", "50000", "--cpu-quota", "20000"], "cpu/cpu.cfs_period_us", "50000"),
        (["--cpu-shares", "77"], "cpu/cpu.shares", "77"),
        (["--cpuset-cpus", "0"], "cpuset/cpuset.cpus", "0"),
        (["--cpuset-mems", "0"], "cpuset/cpuset.mems", "0"),
        (["--pids-limit", "44"], "pids/pids.max", "44"),
    ],
)
def test_limit(docker: Docker, options: list[str], file: str, value: str) -> None:
    """A limit is in the file of the container's own cgroup."""
    assert docker.sh(f"cat /sys/fs/cgroup/{file}", *options) == value


def test_limits_together(docker: Docker) -> None:
    """All of them at once; the container sees only its own cgroup."""
    options = ["-m", "48m", "--memory-swappiness", "10", "--cpu-shares", "33", "--pids-limit", "9"]
    text = docker.sh("cd /sys/fs/cgroup; cat memory/memory.swappiness cpu/cpu.shares pids/pids.max", *options)
    assert text.split() == ["10", "33", "9"]


def test_cgroup_parent(docker: Docker) -> None:
    """--cgroup-parent: the container's cgroup is below it, in every hierarchy."""
    name = docker.detached(*FOREVER, options=["--cgroup-parent", "/docker/parent"])
    full = docker.inspect(name)["Id"]
    lines = docker.sandbox.read(f"/proc/{docker.state(name)['Pid']}/cgroup").splitlines()
    places = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines}
    assert {places[name] for name in ("memory", "cpu", "pids", "devices")} == {f"/docker/parent/{full}"}
    docker("rm", "-f", name).ok()
    docker.sandbox.run(["sh", "-c", "rmdir /sys/fs/cgroup/*/docker/parent"])  # some runtimes do that themselves


@pytest.mark.parametrize("mode", ["private", "host"])
def test_cgroup_namespace(docker: Docker, mode: str) -> None:
    """--cgroupns"""
    line = next(
        line for line in docker.sh("cat /proc/self/cgroup", "--cgroupns", mode).splitlines() if ":pids:" in line
    )
    assert line.endswith(":/") == (mode == "private")


# ---- namespaces ----


@pytest.fixture
def other(docker: Docker) -> Iterator[str]:
    """A container to share namespaces with."""
    name = docker.detached(*FOREVER, options=["--ipc", "shareable"])
    yield name
    docker("rm", "-f", name)


@pytest.mark.parametrize(("option", "file"), [("--pid", "pid"), ("--ipc", "ipc"), ("--network", "net")])
def test_namespace_of_another_container(docker: Docker, other: str, option: str, file: str) -> None:
    """--pid, --ipc and --network container:…"""
    there = docker.sh_exec(other, f"readlink /proc/self/ns/{file}")
    words = [IMAGE, "readlink", f"/proc/self/ns/{file}"]
    assert docker("run", "--rm", option, f"container:{other}", *words).ok().text.strip() == there
    assert docker("run", "--rm", *words).ok().text.strip() != there


def test_pid_of_another_container(docker: Docker, other: str) -> None:
    """There the processes of both are seen, and can be signalled."""
    text = docker.sh("ps -o pid,args", "--pid", f"container:{other}")
    assert "sleep 1000" in text
    assert docker.state(other)["Running"]


@pytest.mark.parametrize(("option", "file"), [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts")])
def test_namespace_of_the_host(docker: Docker, option: str, file: str) -> None:
    """--pid, --ipc and --uts host"""
    outside = docker.sandbox.run(["readlink", f"/proc/1/ns/{file}"]).ok().text.strip()
    assert docker.sh(f"readlink /proc/self/ns/{file}", option, "host") == outside
    assert docker.sh(f"readlink /proc/self/ns/{file}") != outside


def test_network_of_the_host(docker: Docker) -> None:
    """--network host: its devices, and its name."""
    result = docker("run", "--rm", "--network", "host", IMAGE, "sh", "-c", "hostname; ls /sys/class/net")
    assert result.ok().text.split()[0] == HOSTNAME
    assert "docker0" in result.text


def test_ipc_private(docker: Docker, other: str) -> None:
    """--ipc shareable and container:…: one /dev/shm for both."""
    docker.sh_exec(other, "echo shared >/dev/shm/x")
    assert docker.sh("cat /dev/shm/x", "--ipc", f"container:{other}") == "shared"
    assert docker.run("cat", "/dev/shm/x").code == 1


def test_add_host_and_dns(docker: Docker) -> None:
    """--add-host and --dns are files that docker binds."""
    result = docker(
        "run",
        "--rm",
        "--add-host",
        "other:10.9.8.7",
        "--dns",
        "10.1.2.3",
        IMAGE,
        "cat",
        "/etc/hosts",
        "/etc/resolv.conf",
    )
    assert "10.9.8.7\tother" in result.ok().text and "nameserver 10.1.2.3" in result.text
