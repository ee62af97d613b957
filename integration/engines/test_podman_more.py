"""Less usual options of podman run: user namespaces, id-mapped volumes, propagation, confinement, limits of devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration.engines.engines import Podman
from integration.engines.image import IMAGE
from integration.engines.sandbox import Sandbox, Watch
from integration.lib.container import wait_until
from integration.lib.probe import Reply, mount_at

MAPPED = ["--uidmap", "0:100000:2000", "--gidmap", "0:200000:2000"]


def report(podman: Podman, *options: str) -> Reply:
    """What the probe sees in a container with these options."""
    return podman.run("probe", "report", options=options).ok().replies[0]


# ---- user namespaces ----


def test_user_namespace_auto(podman: Podman, sandbox: Sandbox) -> None:
    """--userns=auto: every container has ids of its own."""
    first, second = (podman.detached("sleep", "1000", options=["--userns=auto:size=1024"]) for _ in range(2))
    maps = [sandbox.read(f"/proc/{podman.inspect(name)['State']['Pid']}/uid_map").split() for name in (first, second)]
    assert [found[0] for found in maps] == ["0", "0"]
    assert maps[0][1] != maps[1][1]
    assert podman("exec", first, "id", "-u").ok().text == "0\n"


def test_user_namespace_and_volume(podman: Podman, sandbox: Sandbox, tmp_path: Path) -> None:
    """What root in there writes is the mapped id's outside."""
    tmp_path.chmod(0o777)
    podman.sh("touch /mnt/made", "-v", f"{tmp_path}:/mnt", *MAPPED)
    found = tmp_path.joinpath("made").stat()
    assert (found.st_uid, found.st_gid) == (100000, 200000)


def test_id_mapped_volume(podman: Podman, tmp_path: Path) -> None:
    """-v …:idmap: files keep their owner on disk, and are root's inside."""
    tmp_path.joinpath("given").touch()
    result = podman.run("sh", "-c", "stat -c %u:%g /mnt/given; touch /mnt/made", options=[
        "-v", f"{tmp_path}:/mnt:idmap", *MAPPED,
    ]).ok()  # fmt: skip
    assert result.text.strip() == "0:0"
    found = tmp_path.joinpath("made").stat()
    assert (found.st_uid, found.st_gid) == (0, 0)


def test_source_closed_to_the_containers_root(podman: Podman, tmp_path: Path) -> None:
    """A mount source below a directory that the mapped root may not enter."""
    closed = tmp_path / "closed" / "below"
    closed.mkdir(parents=True)
    closed.joinpath("file").write_text("reached\n")
    tmp_path.joinpath("closed").chmod(0o700)
    assert podman.sh("cat /mnt/file", "-v", f"{closed}:/mnt", *MAPPED) == "reached"


def test_owner_changed(podman: Podman, tmp_path: Path) -> None:
    """-v …:U: podman gives the source to the container's user first."""
    podman.sh("touch /mnt/made", "-v", f"{tmp_path}:/mnt:U", "--user", "1000:1001")
    assert tmp_path.stat().st_uid == 1000


# ---- propagation ----


@pytest.mark.parametrize("mode", ["rprivate", "rslave", "rshared"])
def test_propagation(podman: Podman, sandbox: Sandbox, tmp_path: Path, mode: str) -> None:
    """A mount made outside afterwards is seen inside with rslave and rshared; one made inside outside with rshared."""
    point = tmp_path / "point"
    point.mkdir()
    tmp_path.joinpath("back").mkdir()
    options = ["-v", f"{tmp_path}:/mnt:{mode}", "--cap-add", "sys_admin", "--security-opt", "seccomp=unconfined"]
    name = podman.detached("sleep", "1000", options=options)
    sandbox.run(["mount", "-t", "tmpfs", "tmpfs", str(point)]).ok()
    podman("exec", name, "mount", "-t", "tmpfs", "tmpfs", "/mnt/back").ok()
    seen_inside = "/mnt/point " in podman("exec", name, "cat", "/proc/self/mountinfo").ok().text
    seen_outside = str(tmp_path / "back") in sandbox.read("/proc/self/mountinfo")
    podman("exec", name, "umount", "/mnt/back").ok()
    podman("rm", "-f", "-t", "0", name).ok()
    sandbox.run(["umount", str(point)]).ok()
    assert (seen_inside, seen_outside) == (mode != "rprivate", mode == "rshared")


def test_recursive_bind(podman: Podman, sandbox: Sandbox, tmp_path: Path) -> None:
    """What is mounted below the source comes along, and with ro it is read-only too where the runtime can do that."""
    below = tmp_path / "below"
    below.mkdir()
    sandbox.run(["mount", "-t", "tmpfs", "tmpfs", str(below)]).ok()
    try:
        sandbox.run(["touch", str(below / "file")]).ok()
        assert podman.sh("ls /mnt/below", "-v", f"{tmp_path}:/mnt") == "file"
        assert podman.sh("ls /mnt/below", "--mount", f"type=bind,src={tmp_path},dst=/mnt,bind-nonrecursive") == ""
    finally:
        sandbox.run(["umount", str(below)])


# ---- confinement ----


def test_apparmor(podman: Podman, leaks: Watch) -> None:
    """A profile that is not loaded, or a machine without AppArmor: a refusal, and nothing left."""
    result = podman.run("true", options=["--security-opt", "apparmor=no-such-profile"])
    assert result.code in (125, 126, 127)
    assert "apparmor" in result.error.lower()
    leaks.check()
    assert podman.run("true", options=["--security-opt", "apparmor=unconfined"]).code == 0


def test_mask_and_unmask(podman: Podman) -> None:
    """--security-opt mask= and unmask= of single paths."""
    script = "cat /etc/group | wc -c; grep -c ' /proc/keys ' /proc/self/mountinfo"
    options = ["--security-opt", "mask=/etc/group", "--security-opt", "unmask=/proc/keys"]
    assert podman.run("sh", "-c", script, options=options).text.split() == ["0", "0"]


def test_proc_options(podman: Podman) -> None:
    """--security-opt proc-opts="""
    table = podman.sh("cat /proc/self/mountinfo", "--security-opt", "proc-opts=hidepid=2")
    assert mount_at(table, "/proc").super_options & {"hidepid=2", "hidepid=invisible"}


def test_seccomp_that_kills(podman: Podman, tmp_path: Path) -> None:
    """A profile whose default is to kill: the program dies of SIGSYS."""
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": '
        '"SCMP_ACT_KILL_PROCESS"}]}'
    )
    options = ["--security-opt", f"seccomp={profile}", "--pid=host"]
    assert podman.run("mkdir", "/tmp/d", options=options).code == 159


def test_device_cgroup_rule(podman: Podman, sandbox: Sandbox) -> None:
    """--device-cgroup-rule opens a device that --device did not name."""
    if sandbox.only_v2 is False and "devices" not in sandbox.controllers:
        pytest.skip("no devices controller")
    script = "mknod /tmp/full c 1 7; mknod /tmp/mem c 1 1; echo x >/tmp/full; cat /tmp/mem"
    options = ["--cap-add", "mknod", "--device-cgroup-rule", "c 1:1 m", "--cap-add", "sys_rawio"]
    result = podman.run("sh", "-c", script, options=options)
    assert "No space left on device" in result.error
    assert "/tmp/mem': Operation not permitted" in result.error or "/tmp/mem: Operation not permitted" in result.error


# ---- others ----


def test_secret(podman: Podman, tmp_path: Path) -> None:
    """--secret as a file with owner and mode, and as a variable."""
    name = podman.name()
    tmp_path.joinpath("secret").write_text("hidden")
    podman("secret", "create", name, str(tmp_path / "secret")).ok()
    options = ["--secret", f"{name},uid=1000,mode=0400", "--secret", f"{name},type=env,target=WORD"]
    script = f"cat /run/secrets/{name}; echo; stat -c %u:%a /run/secrets/{name}; echo $WORD"
    assert podman.sh(script, *options).split() == ["hidden", "1000:400", "hidden"]
    podman("secret", "rm", name).ok()


def test_root_file_system_from_a_directory(podman: Podman, tmp_path: Path, probe: Path) -> None:
    """--rootfs: no image at all."""
    tmp_path.joinpath("bin").mkdir()
    tmp_path.joinpath("bin/probe").write_bytes(probe.read_bytes())
    tmp_path.joinpath("bin/probe").chmod(0o755)
    result = podman("run", "--rm", "--rootfs", str(tmp_path), "/bin/probe", "report").ok()
    assert result.replies[0]["status"]["Seccomp"] == "2"


def test_root_file_system_with_an_overlay(podman: Podman, tmp_path: Path, probe: Path) -> None:
    """-v …:O: writes go to a layer that is thrown away."""
    tmp_path.joinpath("given").write_text("given\n")
    assert podman.sh("echo more >>/mnt/given; cat /mnt/given", "-v", f"{tmp_path}:/mnt:O").split() == ["given", "more"]
    assert tmp_path.joinpath("given").read_text() == "given\n"


def test_image_volume(podman: Podman) -> None:
    """--mount type=image: another image as a read-only mount."""
    assert podman.sh("cat /other/srv/file", "--mount", f"type=image,src={IMAGE},dst=/other") == "from the image"


def test_timezone_and_hosts(podman: Podman) -> None:
    """Files that podman makes and mounts over the image's: hosts, resolv.conf, hostname."""
    text = podman.sh("cat /etc/hosts", "--add-host", "other.example:192.0.2.7", "--hostname", "named")
    assert "192.0.2.7\tother.example" in text


def test_ipc_none(podman: Podman) -> None:
    """--ipc=none: no /dev/shm that is shared with anybody."""
    assert podman.run("grep", " /dev/shm ", "/proc/mounts", options=["--ipc=none"]).code == 1


def test_systemd_mode(podman: Podman, sandbox: Sandbox) -> None:
    """--systemd=always: tmpfs on /run, the cgroup for its init, another signal for stop."""
    table = podman.sh("cat /proc/self/mountinfo", "--systemd=always")
    assert mount_at(table, "/run").type == mount_at(table, "/tmp").type == "tmpfs"


def test_timeout(podman: Podman) -> None:
    """--timeout: conmon kills the container itself; podman and the runtime find it dead."""
    name = podman.detached("sleep", "1000", options=["--timeout", "1"])
    wait_until(lambda: podman.inspect(name)["State"]["Status"] == "exited", "its end")


def test_files_of_pids(podman: Podman, tmp_path: Path) -> None:
    """--pidfile and --cidfile"""
    options = ["--pidfile", str(tmp_path / "pid"), "--cidfile", str(tmp_path / "cid")]
    name = podman.detached("sleep", "1000", options=options)
    found = podman.inspect(name)
    assert int(tmp_path.joinpath("pid").read_text()) == found["State"]["Pid"]
    assert tmp_path.joinpath("cid").read_text() == found["Id"]


def test_environment_of_the_host(podman: Podman) -> None:
    """--env-host=false, --unsetenv and --http-proxy=false leave only what was asked for."""
    lines = podman.sh("env", "--unsetenv", "IMAGE_VARIABLE", "--http-proxy=false").splitlines()
    assert not any(line.startswith(("IMAGE_VARIABLE", "TMPDIR", "LC_ALL")) for line in lines)
