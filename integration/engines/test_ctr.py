"""ctr run below containerd: its shim calls the runtime with a log file, a root of its own and a pid file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath

import pytest

from integration.engines.engines import Ctr
from integration.engines.sandbox import Sandbox, Watch
from integration.lib.container import wait_until
from integration.lib.probe import capability_names, mount_at
from integration.lib.runtime import Result

FOREVER = ["sleep", "1000"]


def test_run(ctr: Ctr, leaks: Watch) -> None:
    """Output, streams apart, nothing left."""
    result = ctr.shell("echo to-out; echo to-err >&2").ok()
    assert (result.out, result.err) == (b"to-out\n", b"to-err\n")
    leaks.check()


@pytest.mark.parametrize("status", [0, 1, 7, 127, 255])
def test_exit_status(ctr: Ctr, status: int) -> None:
    """The program's status is ctr's."""
    assert ctr.run("sh", "-c", f"exit {status}").code == status


def test_cgroup(ctr: Ctr, sandbox: Sandbox, leaks: Watch) -> None:
    """--cgroup with an absolute path: there it is, in every hierarchy, and it is removed at the end."""
    name = ctr.detached(*FOREVER)
    pid, status = ctr.tasks()[name]
    assert status == "RUNNING"
    lines = sandbox.read(f"/proc/{pid}/cgroup").splitlines()
    places = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines}
    wanted = [""] if sandbox.only_v2 else sandbox.controllers - {""}
    assert {places[controller] for controller in wanted} == {f"/ctr/{name}"}
    ctr("task", "kill", "-s", "KILL", name).ok()
    ctr.stopped(name)
    ctr.remove(name)
    assert not any(group.endswith(f"/ctr/{name}") for group in sandbox.look()["cgroups"])


def test_detached(ctr: Ctr, sandbox: Sandbox, leaks: Watch) -> None:
    """run -d, task ls, task kill, task delete, container delete."""
    name = ctr.detached("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done")
    assert ctr.tasks()[name][1] == "RUNNING"
    assert name in ctr("container", "ls", "-q").ok().text.split()
    wait_until(lambda: any("sleep 0.05" in entry[-12:] for entry in sandbox.look()["processes"]), "the loop")
    ctr("task", "kill", "-s", "TERM", name).ok()
    ctr.stopped(name)
    assert ctr.remove(name) == 5
    assert ctr.tasks() == {}
    leaks.check()


def test_task_delete_force(ctr: Ctr, leaks: Watch) -> None:
    """task delete refuses a running task, task delete --force kills it."""
    name = ctr.detached(*FOREVER)
    assert ctr("task", "delete", name).code != 0
    assert ctr.remove(name, "--force") == 137
    leaks.check()


def test_kill_all(ctr: Ctr, sandbox: Sandbox) -> None:
    """task kill --all reaches every process of the container."""
    script = "for i in 1 2 3; do sleep 1000 & done; trap : TERM; wait; exit 6"
    name = ctr.detached("sh", "-c", script)
    wait_until(lambda: sum(entry.endswith(" sleep 1000 ") for entry in sandbox.look()["processes"]) == 3, "children")
    ctr("task", "kill", "--all", "-s", "KILL", name).ok()
    ctr.stopped(name)
    assert ctr.remove(name) == 137


def test_kill_of_the_dead(ctr: Ctr) -> None:
    """Killing a task that has ended: containerd knows the runtime's words for it."""
    name = ctr.detached("true")
    ctr.stopped(name)
    result = ctr("task", "kill", name)
    assert result.code != 0
    assert "not found" in result.error
    ctr.remove(name)


def test_pid_file(ctr: Ctr, tmp_path: Path) -> None:
    """--pid-file: the PID of the task."""
    name = ctr.detached(*FOREVER, options=["--pid-file", f"{tmp_path}/pid"])
    assert int(tmp_path.joinpath("pid").read_text()) == ctr.tasks()[name][0]
    ctr.remove(name, "--force")


def failed(result: Result, leaks: Watch, *texts: str) -> None:
    """ctr has failed, with these words, and left nothing."""
    assert result.code not in (0, 127), repr(result)
    for text in texts:
        assert text in result.error, repr(result)
    leaks.check()


def test_missing_program(ctr: Ctr, leaks: Watch) -> None:
    """The runtime's own words, which containerd reads from its log, reach the user."""
    failed(ctr.run("nosuch"), leaks, "nosuch", "executable file not found in $PATH")


@pytest.mark.ours_only("the message says where in config.json")
@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["nosuch"], ["/process/args/0", "executable file not found in $PATH"]),
        (["/no/such"], ["/process/args/0", "no such file or directory"]),
        (["/etc/not-a-program"], ["/process/args/0", "permission denied"]),
    ],
)
def test_pointer(ctr: Ctr, leaks: Watch, words: list[str], texts: list[str]) -> None:
    """And with them the place in config.json."""
    failed(ctr.run(*words), leaks, *texts)


def test_bad_mount(ctr: Ctr, leaks: Watch) -> None:
    """A mount without its source."""
    options = ["--mount", "type=bind,src=/no/such/source,dst=/mnt,options=rbind:ro"]
    failed(ctr.run("true", options=options), leaks, "/no/such/source", "no such file or directory")


def test_read_only(ctr: Ctr) -> None:
    """--read-only"""
    result = ctr.shell("touch /x", "--read-only")
    assert result.code == 1
    assert "Read-only file system" in result.error


def test_environment(ctr: Ctr) -> None:
    """--env, and the image's own."""
    lines = ctr.sh("env", "--env", "A=1 2", "--env", "B=").splitlines()
    assert {"A=1 2", "B=", "IMAGE_VARIABLE=image"} <= set(lines)


def test_mounts(ctr: Ctr, tmp_path: Path) -> None:
    """--mount: a bind that is written to, one that is read only, a tmpfs."""
    tmp_path.joinpath("given").write_text("outside\n")
    options = [
        "--mount", f"type=bind,src={tmp_path},dst=/mnt,options=rbind:rw",
        "--mount", f"type=bind,src={tmp_path},dst=/ro,options=rbind:ro",
        "--mount", "type=tmpfs,src=tmpfs,dst=/scratch,options=size=1m:noexec",
    ]  # fmt: skip
    text = ctr.sh("cat /mnt/given; echo inside >/mnt/made; touch /ro/x; cat /proc/self/mountinfo", *options)
    assert text.startswith("outside\n")
    assert tmp_path.joinpath("made").read_text() == "inside\n"
    assert not tmp_path.joinpath("x").exists()
    assert "noexec" in mount_at(text.partition("\n")[2], "/scratch").options


def test_memory_limit(ctr: Ctr, sandbox: Sandbox) -> None:
    """--memory-limit"""
    path = PurePath(sandbox.limit("memory", "memory.limit_in_bytes", "memory.max"))
    name = ctr.detached(*FOREVER, options=["--memory-limit", str(48 << 20)])
    assert sandbox.read(f"{path.parent}/ctr/{name}/{path.name}") == str(48 << 20)
    ctr.remove(name, "--force")


def test_cpus(ctr: Ctr, sandbox: Sandbox) -> None:
    """--cpus is a quota of a period of 100 ms."""
    path = PurePath(sandbox.limit("cpu", "cpu.cfs_quota_us", "cpu.max"))
    name = ctr.detached(*FOREVER, options=["--cpus", "0.5"])
    assert sandbox.read(f"{path.parent}/ctr/{name}/{path.name}").split()[0] == "50000"
    ctr.remove(name, "--force")


def test_cwd(ctr: Ctr) -> None:
    """--cwd; the runtime makes one that is missing."""
    assert ctr.sh("pwd", "--cwd", "/home/worker") == "/home/worker"
    assert ctr.sh("pwd", "--cwd", "/not/there/yet") == "/not/there/yet"


def test_seccomp(ctr: Ctr) -> None:
    """--seccomp: containerd's default profile is in force; it is off without."""
    assert ctr.report()["status"]["Seccomp"] == "0"
    assert ctr.report("--seccomp")["status"]["Seccomp"] == "2"
    result = ctr.shell("unshare -m true", "--seccomp")
    assert result.code == 1
    assert "Operation not permitted" in result.error


def test_capabilities(ctr: Ctr) -> None:
    """--cap-add, --cap-drop"""
    options = ["--cap-drop", "CAP_CHOWN", "--cap-add", "CAP_NET_ADMIN"]
    found = capability_names(ctr.report(*options)["status"]["CapEff"])
    assert "CAP_NET_ADMIN" in found and "CAP_CHOWN" not in found


def test_no_new_privileges(ctr: Ctr) -> None:
    """On by default below containerd."""
    assert ctr.report()["status"]["NoNewPrivs"] == "1"


def test_device(ctr: Ctr) -> None:
    """--device"""
    result = ctr.shell("echo x >/dev/full", "--device", "/dev/full")
    assert "No space left on device" in result.error


def test_hostname_and_namespaces(ctr: Ctr, sandbox: Sandbox) -> None:
    """--with-ns joins namespaces by path, --net-host keeps the caller's network."""
    outside = sandbox.run(["readlink", "/proc/self/ns/net"]).ok().text.strip()
    assert ctr.sh("readlink /proc/self/ns/net", "--net-host") == outside
    assert ctr.sh("readlink /proc/self/ns/net") != outside
    assert ctr.sh("readlink /proc/self/ns/net", "--with-ns", "network:/proc/1/ns/net") == outside


def test_ten_at_once(ctr: Ctr, leaks: Watch) -> None:
    """Ten containers, five at a time."""
    with ThreadPoolExecutor(5) as pool:
        results = list(pool.map(lambda n: ctr.shell(f"echo {n}; exit {n}"), range(10)))
    assert [(result.code, result.text) for result in results] == [(n, f"{n}\n") for n in range(10)]
    leaks.check()
