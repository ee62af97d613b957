"""podman exec: one more program in a running container."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.engines.engines import CAPABILITIES, Podman
from integration.engines.sandbox import Sandbox, Watch
from integration.lib import host, probe as probes
from integration.lib.container import wait_until
from integration.lib.probe import capability_names
from integration.lib.runtime import Result

FOREVER = ["sleep", "1000"]
both = pytest.mark.parametrize("json_log", [pytest.param(False, id="stderr"), pytest.param(True, id="json")])


def executed(podman: Podman, name: str, script: str, *options: str) -> str:
    """What a shell script says in this container; it must succeed."""
    return podman("exec", *options, name, "sh", "-c", script).ok().text.strip()


def test_output_and_status(podman: Podman, leaks: Watch) -> None:
    """Both streams apart, the status, and nothing left of it."""
    name = podman.detached(*FOREVER)
    watch = Watch(podman.sandbox)
    for status in (0, 1, 42, 255):
        result = podman("exec", name, "sh", "-c", f"echo out; echo err >&2; exit {status}")
        assert (result.code, result.out, result.err[:4]) == (status, b"out\n", b"err\n")
    watch.check()
    podman("rm", "-f", "-t", "0", name).ok()
    leaks.check()


def test_stdin(podman: Podman) -> None:
    """exec -i: a megabyte passes unchanged."""
    name = podman.detached(*FOREVER)
    data = random.Random(5).randbytes(1 << 20)
    assert podman("exec", "-i", name, "cat", stdin=data).ok().out == data


def test_same_place(podman: Podman, sandbox: Sandbox) -> None:
    """The program has the namespaces, the root and the cgroup of the container."""
    name = podman.detached("sh", "-c", "echo mark >/root/mark; exec sleep 1000", options=["--cgroupns", "host"])
    script = "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done"
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    pid = podman.inspect(name)["State"]["Pid"]
    wanted = [sandbox.run(["readlink", f"/proc/{pid}/ns/{kind}"]).text.strip() for kind in kinds]
    assert executed(podman, name, script).split() == wanted
    # The hierarchies of crun's machine and ours have other lines for cgroups without a controller.
    inside = {line for line in executed(podman, name, "cat /proc/self/cgroup").splitlines() if "libpod-" in line}
    assert inside == {line for line in sandbox.read(f"/proc/{pid}/cgroup").splitlines() if "libpod-" in line} != set()
    assert executed(podman, name, "cat /root/mark") == "mark"


def test_user(podman: Podman) -> None:
    """--user by number and by name; without it, the container's."""
    name = podman.detached(*FOREVER, options=["--user", "worker"])
    assert executed(podman, name, "id -u; id -g; id -G").split() == ["1000", "1001", "1001", "1002"]
    assert executed(podman, name, "id -u; id -g", "--user", "77:88").split() == ["77", "88"]
    assert executed(podman, name, "id -u", "--user", "root") == "0"


def test_environment_and_directory(podman: Podman) -> None:
    """--env and --workdir, above the container's own."""
    name = podman.detached(*FOREVER, options=["--env", "A=container", "--env", "B=container", "--workdir", "/srv"])
    assert executed(podman, name, "pwd; echo $A $B $IMAGE_VARIABLE").split() == ["/srv", *["container"] * 2, "image"]
    assert executed(podman, name, "pwd; echo $A $B", "--env", "B=exec", "--workdir", "/tmp").split() == [
        "/tmp", "container", "exec",
    ]  # fmt: skip


def test_capabilities(podman: Podman) -> None:
    """Those of the container, not more."""
    name = podman.detached(*FOREVER, options=["--cap-drop", "chown"])
    status = podman("exec", name, "probe", "report").ok().replies[0]["status"]
    assert capability_names(status["CapEff"]) == capability_names(status["CapBnd"]) == CAPABILITIES - {"CAP_CHOWN"}
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "0")


def test_no_new_privileges(podman: Podman) -> None:
    """It holds for exec too."""
    name = podman.detached(*FOREVER, options=["--security-opt", "no-new-privileges"])
    assert podman("exec", name, "probe", "report").ok().replies[0]["status"]["NoNewPrivs"] == "1"


def test_detached(podman: Podman) -> None:
    """exec -d: podman is back at once, the program goes on, and ends with the container."""
    name = podman.detached(*FOREVER)
    podman("exec", "-d", name, "sh", "-c", "echo it ran >/root/mark; exec sleep 500").ok()
    wait_until(lambda: "sleep 500" in podman("top", name, "args").text, "the program")
    assert executed(podman, name, "cat /root/mark") == "it ran"
    podman("stop", "-t", "0", name).ok()


def test_session_of_a_container_that_ends(podman: Podman, leaks: Watch) -> None:
    """A program of exec dies with the container."""
    name = podman.detached(*FOREVER)
    running = podman.start("exec", name, "sh", "-c", "echo ready; sleep 1000")
    running.wait_for(b"ready")
    podman("kill", name).ok()
    assert running.wait().code != 0
    podman("rm", "-f", "-t", "0", name).ok()
    leaks.check()


def test_descriptors(podman: Podman) -> None:
    """Only 0, 1, 2 are open; --preserve-fds adds what is asked for."""
    name = podman.detached(*FOREVER)
    assert {int(word) for word in podman("exec", name, "ls", "/proc/self/fd").ok().text.split()} == {0, 1, 2, 3}
    argv, env = podman.argv(["exec", "--preserve-fds", "2", name, "sh", "-c", "cat <&3; cat <&4"], False)
    script = 'exec 3<<A 4<<B\nthree\nA\nfour\nB\nexec "$@"'
    assert podman.sandbox.run(["sh", "-c", script, "sh", *argv], env=env).ok().text.split() == ["three", "four"]


@both
@pytest.mark.parametrize(("program", "code"), [("nosuch", 127), ("/no/such", 127), ("/etc/not-a-program", 126)])
def test_bad_program(podman: Podman, json_log: bool, program: str, code: int) -> None:
    """Not found is 127, not executable 126; the container goes on, and nothing is left of the attempt."""
    name = podman.detached(*FOREVER)
    watch = Watch(podman.sandbox)
    result = podman("exec", name, program, json_log=json_log)
    assert result.code == code, repr(result)
    assert program in result.error
    watch.check()
    assert podman.inspect(name)["State"]["Running"]


def test_in_a_stopped_container(podman: Podman) -> None:
    """It is refused, and the container named."""
    name = podman.detached("true")
    podman("wait", name).ok()
    result = podman("exec", name, "true")
    assert result.code in (125, 255)
    assert "can only create exec sessions on running containers" in result.error


def test_ten_at_once(podman: Podman) -> None:
    """Ten, five at a time, in one container."""
    name = podman.detached(*FOREVER)

    def one(number: int) -> Result:
        return podman("exec", name, "sh", "-c", f"echo {number}; exit {number}")

    with ThreadPoolExecutor(5) as pool:
        results = list(pool.map(one, range(10)))
    assert [(result.code, result.text) for result in results] == [(number, f"{number}\n") for number in range(10)]


def test_in_a_user_namespace(podman: Podman) -> None:
    """exec joins it and is its root."""
    name = podman.detached(*FOREVER, options=["--uidmap", "0:100000:2000", "--gidmap", "0:200000:2000"])
    assert executed(podman, name, "id -u; id -g; cat /proc/self/uid_map").split() == ["0", "0", "0", "100000", "2000"]


def test_privileged(podman: Podman) -> None:
    """exec --privileged: as far as the bounding set of the caller goes."""
    if host.capability_bounding() != (1 << len(probes.CAPABILITIES)) - 1:
        pytest.skip("the bounding set here lacks capabilities that --privileged asks for")
    name = podman.detached(*FOREVER)
    status = podman("exec", "--privileged", name, "probe", "report").ok().replies[0]["status"]
    assert capability_names(status["CapEff"]) == set(probes.CAPABILITIES)
