"""podman of an ordinary user: it enters a user namespace of its own, and calls the runtime there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from integration.engines.conftest import needs
from integration.engines.engines import Rootless
from integration.engines.image import IMAGE
from integration.engines.sandbox import Sandbox, Watch
from integration.lib.container import wait_until
from integration.lib.probe import capability_names

FOREVER = ["sleep", "1000"]
both = pytest.mark.parametrize("json_log", [pytest.param(False, id="stderr"), pytest.param(True, id="json")])


def outside(rootless: Rootless, name: str) -> int:
    """The PID of a container in the sandbox."""
    return int(rootless.inspect(name)["State"]["Pid"])


@pytest.mark.parametrize("status", [0, 7, 255])
def test_run(rootless: Rootless, leaks: Watch, status: int) -> None:
    """Output and status; nothing is left."""
    result = rootless.run("sh", "-c", f"echo out; echo err >&2; exit {status}")
    assert (result.code, result.out, result.err) == (status, b"out\n", b"err\n")
    leaks.check()


def test_root_inside_is_the_user_outside(rootless: Rootless, sandbox: Sandbox) -> None:
    """Root is the user, everybody else one of his subordinate ids."""
    name = rootless.detached("sh", "-c", "touch /tmp/x; exec sleep 1000")
    lines = [line.split() for line in rootless("exec", name, "cat", "/proc/self/uid_map").ok().text.splitlines()]
    assert lines[0][0] == "0"
    owner = sandbox.run(["stat", "-c", "%u", f"/proc/{outside(rootless, name)}"]).ok().text.strip()
    assert owner == str(rootless.uid)
    other = rootless.detached(*FOREVER, options=["--user", "1000"])
    owner = sandbox.run(["stat", "-c", "%u", f"/proc/{outside(rootless, other)}"]).ok().text.strip()
    assert owner == str(rootless.first + 999)


def test_exec(rootless: Rootless) -> None:
    """exec: output, status, another user, a terminal."""
    name = rootless.detached(*FOREVER)
    assert rootless("exec", name, "sh", "-c", "id -u; exit 3").code == 3
    assert rootless("exec", "--user", "worker", name, "id", "-u").ok().text == "1000\n"
    shell = rootless.start("exec", "-it", name, "sh", terminal=True)
    shell.write(b"tty; exit 4\n")
    result = shell.wait()
    assert (result.code, "/dev/pts/0" in result.text) == (4, True)


def test_run_at_a_terminal(rootless: Rootless) -> None:
    """run -it"""
    shell = rootless.start("run", "--rm", "-it", IMAGE, "sh", terminal=True)
    shell.write(b"while ! stty size | grep 80; do sleep 0.05; done; exit 5\n")
    result = shell.wait()
    assert (result.code, "24 80" in result.text) == (5, True)


def test_life(rootless: Rootless, leaks: Watch) -> None:
    """run -d, ps, logs, kill, start again, stop, rm."""
    script = "trap 'echo got-term; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    name = rootless.detached("sh", "-c", script)
    rootless.wait_logs(name, "ready")
    assert rootless("ps", "--format", "{{.Names}}").ok().text.split() == [name]
    rootless("stop", "-t", "60", name).ok()
    assert rootless.inspect(name)["State"]["ExitCode"] == 5
    rootless("start", name).ok()
    rootless("kill", name).ok()
    assert rootless("wait", name).ok().text.strip() == "137"
    rootless("rm", name).ok()
    leaks.check()


def test_keep_id(rootless: Rootless, tmp_path: Path) -> None:
    """--userns=keep-id: the user has his own id inside, and what he writes to a volume is his."""
    tmp_path.chmod(0o777)
    options = ["--userns=keep-id", "-v", f"{tmp_path}:/mnt"]
    assert rootless.sh("id -u; id -g; touch /mnt/made", *options).split() == [str(rootless.uid)] * 2
    assert tmp_path.joinpath("made").stat().st_uid == rootless.uid
    name = rootless.detached(*FOREVER, options=options)
    assert rootless("exec", name, "id", "-u").ok().text.strip() == str(rootless.uid)
    rootless("stop", "-t", "0", name).ok()


def test_automatic_ids(rootless: Rootless, sandbox: Sandbox) -> None:
    """--userns=auto: two containers of a user have nothing in common."""
    names = [rootless.detached(*FOREVER, options=["--userns=auto:size=1000"]) for _ in range(2)]
    owners = [
        int(sandbox.run(["stat", "-c", "%u", f"/proc/{outside(rootless, name)}"]).ok().text.strip()) for name in names
    ]
    assert len({*owners, rootless.uid}) == 3
    assert all(rootless.first <= owner < rootless.first + 65536 for owner in owners)
    assert [rootless("exec", name, "id", "-u").ok().text for name in names] == ["0\n", "0\n"]


def test_volumes(rootless: Rootless, tmp_path: Path) -> None:
    """A directory only the user may enter, a named volume, a read-only one; owners on disk as mapped."""
    private = rootless.home / "private"
    rootless.command("mkdir", "-p", "-m", "700", str(private)).ok()
    volume = rootless.name()
    options = ["-v", f"{private}:/mnt", "-v", f"{volume}:/vol", "-v", f"{private}:/ro:ro"]
    script = "touch /mnt/mine; touch /mnt/other; chown 1000 /mnt/other; echo kept >/vol/x; touch /ro/x || echo refused"
    assert rootless.sh(script, *options) == "refused"
    owners = {path.name: path.stat().st_uid for path in private.iterdir()}
    assert owners == {"mine": rootless.uid, "other": rootless.first + 999}
    assert rootless.sh("cat /vol/x", "-v", f"{volume}:/vol") == "kept"
    rootless.sh("rm /mnt/mine /mnt/other", "-v", f"{private}:/mnt")
    rootless("volume", "rm", volume).ok()


def test_nothing_of_others(rootless: Rootless, tmp_path: Path) -> None:
    """Files of root stay closed, mounted or not."""
    tmp_path.joinpath("secret").write_text("root's\n")
    tmp_path.joinpath("secret").chmod(0o600)
    result = rootless.run("cat", "/mnt/secret", options=["-v", f"{tmp_path}:/mnt"])
    assert result.code == 1
    assert "Permission denied" in result.error


def test_another_users_container(rootless_users: list[Rootless], sandbox: Sandbox) -> None:
    """A container of one user is unreachable for another: through podman, the runtime, a signal, /proc, its files."""
    first, second = rootless_users
    name = first.detached(*FOREVER)
    found = first.inspect(name)
    pid, full = found["State"]["Pid"], found["Id"]
    assert second("exec", name, "true").code == 125
    assert second("kill", name).code == 125
    roots = [f"/run/user/{first.uid}/{directory}" for directory in ("ociruntime", "runc", "crun")]
    for root in roots:
        for words in (["state", full], ["kill", full, "9"], ["exec", full, "true"]):
            assert second.command(second.runtime, "--root", root, *words).code != 0
        second.command(second.runtime, "--root", root, "delete", "--force", full)  # the absent may be deleted by force
    assert second.command("kill", "-9", str(pid)).code != 0
    assert second.command("ls", f"/proc/{pid}/root/").code != 0
    assert second.command("nsenter", "-t", str(pid), "-U", "-m", "true").code != 0
    assert second.command("ls", f"/run/user/{first.uid}").code != 0
    assert first.inspect(name)["State"]["Running"]
    assert first("exec", name, "true").code == 0


def test_processes_are_the_users(rootless: Rootless) -> None:
    """Capabilities inside do not reach outside: mounts of one's own work, host devices and times do not."""
    status = rootless.run("probe", "report").ok().replies[0]["status"]
    assert "CAP_CHOWN" in capability_names(status["CapEff"])
    result = rootless.run("sh", "-c", "mknod /tmp/null c 1 3 && cat /tmp/null", options=["--cap-add", "mknod,sys_time"])
    assert result.code != 0
    result = rootless.run("date", "-s", "2001-01-01", options=["--cap-add", "sys_time"])
    assert "can't set date: Operation not permitted" in result.error


def test_options(rootless: Rootless) -> None:
    """Read-only root, tmpfs, ulimits, hostname, sysctl, dropped capabilities, no new privileges."""
    options = ["--read-only", "--tmpfs", "/scratch:size=1m", "--ulimit", "nofile=100:200", "--hostname", "inside"]
    options += ["--sysctl", "kernel.msgmax=9999", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
    script = (
        "touch /x || echo read-only; touch /scratch/x && echo scratch; ulimit -n; hostname;"
        "cat /proc/sys/kernel/msgmax; grep -E 'NoNewPrivs|CapEff' /proc/self/status"
    )
    assert rootless.sh(script, *options).split() == [
        "read-only", "scratch", "100", "inside", "9999", "CapEff:", "0" * 16, "NoNewPrivs:", "1",
    ]  # fmt: skip


def test_network(rootless: Rootless, sandbox: Sandbox) -> None:
    """slirp4netns: an interface, and a port that is published."""
    needs("slirp4netns")
    script = "ls /sys/class/net; echo ready; while :; do echo hello | nc -l -p 7000; done"
    options = ["--network", "slirp4netns", "-p", "127.0.0.1:17002:7000"]
    name = rootless.detached("sh", "-c", script, options=options)
    rootless.wait_logs(name, "ready")
    assert "tap0" in rootless("logs", name).text

    def heard() -> bool:
        return b"hello" in sandbox.run(["busybox", "nc", "-w", "2", "127.0.0.1", "17002"]).out

    wait_until(heard, "an answer")


def test_pod(rootless: Rootless, leaks: Watch) -> None:
    """Two members of a pod share a network namespace."""
    needs("catatonit")
    pod = f"pod-{rootless.name()}"
    rootless("pod", "create", "--name", pod, "--network", "none").ok()
    links = {rootless("run", "--rm", "--pod", pod, IMAGE, "readlink", "/proc/self/ns/net").ok().text for _ in range(2)}
    assert len(links) == 1
    rootless("pod", "rm", "-f", "-t", "0", pod).ok()
    leaks.check()


def test_build(rootless: Rootless, tmp_path: Path) -> None:
    """RUN steps."""
    tmp_path.joinpath("Containerfile").write_text("FROM localhost/bb:latest\nRUN id -u >/made\n")
    rootless("build", "-q", "--isolation", "oci", "--network", "none", "-t", "localhost/made", str(tmp_path)).ok()
    assert rootless("run", "--rm", "localhost/made", "cat", "/made").ok().text == "0\n"
    rootless("rmi", "-f", "localhost/made").ok()


@both
@pytest.mark.parametrize(("program", "code"), [("nosuch", 127), ("/etc/not-a-program", 126)])
def test_bad_program(rootless: Rootless, leaks: Watch, json_log: bool, program: str, code: int) -> None:
    """As for root: 127 and 126, the program is named, nothing is left."""
    result = rootless.run(program, json_log=json_log)
    assert result.code == code, repr(result)
    assert program in result.error
    leaks.check()


def test_ten_at_once(rootless: Rootless, leaks: Watch) -> None:
    """Ten containers, five at a time."""
    with ThreadPoolExecutor(5) as pool:
        results = list(pool.map(lambda number: rootless.run("sh", "-c", f"echo {number}; exit {number}"), range(10)))
    assert [(result.code, result.text) for result in results] == [(number, f"{number}\n") for number in range(10)]
    leaks.check()
