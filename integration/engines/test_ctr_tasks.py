"""Tasks below containerd: exec, pause, metrics, events, and what its shim does when things go wrong."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.engines.engines import Ctr
from integration.engines.image import IMAGE
from integration.engines.sandbox import Running, Sandbox, Watch
from integration.lib.container import wait_until
from integration.lib.runtime import Result

FOREVER = ["sleep", "1000"]
# ctr can miss the output of a command that is gone before ctr has opened its end
LINGER = "trap 'sleep 0.2' EXIT"


def shims(sandbox: Sandbox, name: str) -> list[int]:
    """The PID of a container's shim."""
    found = [
        entry
        for entry in sandbox.look()["processes"]
        if f"containerd-shim-runc-v2 -namespace default -id {name} " in entry
    ]
    return [int(entry.split()[0]) for entry in found]


def resized(running: Running) -> Result:
    """The end of a shell on a terminal that had the caller's size and followed its change."""
    # ctr sets the size after the start
    running.write(b"PS1=; stty -echo; while ! stty size | grep 80; do sleep 0.05; done\n")
    running.wait_for(b"24 80")
    running.resize(33, 99)
    running.write(b"while ! stty size | grep 99; do sleep 0.05; done; tty; exit 6\n")
    running.wait_for(b"33 99")
    result = running.wait()
    assert result.code == 6
    return result


# ---- exec ----


@pytest.mark.parametrize("status", [0, 1, 7, 126, 127, 255])
def test_exec(ctr: Ctr, status: int) -> None:
    """task exec: streams apart, and the status."""
    name = ctr.detached(*FOREVER)
    result = ctr.exec(name, "sh", "-c", f"{LINGER}; echo to-out; echo to-err >&2; exit {status}")
    assert (result.code, result.out, result.err) == (status, b"to-out\n", b"to-err\n")
    ctr.remove(name, "--force")


def test_exec_options(ctr: Ctr) -> None:
    """--cwd and --user; the environment is the container's."""
    name = ctr.detached(*FOREVER, options=["--env", "A=b"])
    result = ctr.exec(
        name, "sh", "-c", f"{LINGER}; pwd; id -u; id -g; echo $A", options=["--cwd", "/srv", "--user", "1000:1001"]
    )
    assert result.ok().text.split() == ["/srv", "1000", "1001", "b"]
    ctr.remove(name, "--force")


def test_exec_input(ctr: Ctr) -> None:
    """What goes in comes out, and the end of stdin arrives."""
    name = ctr.detached(*FOREVER)
    data = bytes(range(256)) * 400
    assert ctr.exec(name, "cat", stdin=data).ok().out == data
    ctr.remove(name, "--force")


def test_exec_on_a_terminal(ctr: Ctr) -> None:
    """task exec --tty: a terminal of the caller's size, and its changes."""
    name = ctr.detached(*FOREVER)
    running = ctr.start("task", "exec", "--exec-id", "terminal", "--tty", name, "sh", terminal=True)
    result = resized(running)
    assert "/dev/pts/" in result.text
    ctr.remove(name, "--force")


def test_detached_exec(ctr: Ctr, sandbox: Sandbox) -> None:
    """task exec --detach: a second process of the task, which ends with it."""
    name = ctr.detached(*FOREVER)
    ctr.exec(name, "sleep", "2000", options=["--detach"]).ok()
    wait_until(lambda: any(entry.endswith(" sleep 2000 ") for entry in sandbox.look()["processes"]), "the command")
    lines = ctr("task", "ps", name).ok().text.splitlines()
    assert lines[0].split()[0] == "PID"
    listed = {int(line.split()[0]) for line in lines[1:]}
    assert ctr.tasks()[name][0] in listed and len(listed) == 2
    ctr.remove(name, "--force")


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["nosuch"], ["nosuch", "executable file not found in $PATH"]),
        (["/no/such"], ["/no/such", "no such file or directory"]),
        (["/etc/not-a-program"], ["/etc/not-a-program", "permission denied"]),
    ],
)
def test_exec_that_cannot_start(ctr: Ctr, words: list[str], texts: list[str]) -> None:
    """The runtime's words reach the user, and the task goes on."""
    name = ctr.detached(*FOREVER)
    result = ctr.exec(name, *words)
    status = ctr.tasks()[name][1]
    ctr.remove(name, "--force")
    assert result.code not in (0, 126, 127)
    for text in texts:
        assert text in result.error
    assert status == "RUNNING"


def test_exec_in_the_dead(ctr: Ctr) -> None:
    """A task that has ended takes no command."""
    name = ctr.detached("true")
    ctr.stopped(name)
    assert ctr.exec(name, "true").code != 0
    ctr.remove(name)


def test_commands_at_once(ctr: Ctr) -> None:
    """Ten commands in one task."""
    name = ctr.detached(*FOREVER)
    with ThreadPoolExecutor(10) as pool:
        results = list(pool.map(lambda n: ctr.exec(name, "sh", "-c", f"{LINGER}; echo {n}; exit {n}"), range(10)))
    assert [(result.code, result.text) for result in results] == [(n, f"{n}\n") for n in range(10)]
    ctr.remove(name, "--force")


# ---- run ----


def test_input(ctr: Ctr) -> None:
    """ctr run: what goes in comes out, and the end of stdin arrives. ctr would miss one that comes at once."""
    running = ctr.start(*ctr.words(ctr.name(), ["cat"], ["--rm"]))
    data = bytes(range(256)) * 400
    running.write(data)
    running.wait_for(data)
    running.write(b"")
    assert running.wait().ok().out == data


def test_terminal(ctr: Ctr) -> None:
    """ctr run --tty."""
    name = ctr.name()
    running = ctr.start(*ctr.words(name, ["sh"], ["--rm", "--tty"]), terminal=True)
    result = resized(running)
    assert "/dev/pts/" in result.text or "/dev/console" in result.text


def test_created_then_started(ctr: Ctr) -> None:
    """container create, task start --detach, and a second task of the same container."""
    name = ctr.name()
    ctr("container", "create", IMAGE, name, "probe", "exit", "3").ok()
    for _ in range(2):
        ctr("task", "start", "--detach", name).ok()
        ctr.stopped(name)
        assert "3" in ctr("task", "delete", name).error
    ctr("container", "delete", name).ok()


def test_signals(ctr: Ctr) -> None:
    """task kill with signals by name and by number."""
    script = "trap 'echo usr1' USR1; trap 'exit 5' TERM; while :; do sleep 0.05; done"
    name = ctr.name()
    running = ctr.start(*ctr.words(name, ["sh", "-c", script], ["--rm"]))
    wait_until(lambda: ctr.tasks().get(name, (0, ""))[1] == "RUNNING", "the task")
    wait_until(lambda: any("sleep 0.05" in line for line in ctr.sandbox.look()["processes"]), "the loop")
    ctr("task", "kill", "-s", "SIGUSR1", name).ok()
    running.wait_for(b"usr1\n")
    ctr("task", "kill", "-s", "15", name).ok()
    assert running.wait().code == 5


# ---- pause, metrics, events ----


def test_pause(ctr: Ctr, sandbox: Sandbox) -> None:
    """task pause, task resume; a paused task does nothing, and dies of SIGKILL once it is resumed."""
    name = ctr.detached("sh", "-c", "while :; do date +%N >/tmp/now; sleep 0.02; done")
    file = f"/proc/{ctr.tasks()[name][0]}/root/tmp/now"
    wait_until(lambda: sandbox.run(["test", "-s", file]).code == 0, "the loop")
    ctr("task", "pause", name).ok()
    assert ctr.tasks()[name][1] == "PAUSED"
    before = sandbox.run(["stat", "-c", "%y", file]).ok().text
    assert sandbox.run(["sh", "-c", f"sleep 0.3; stat -c %y {file}"]).ok().text == before
    ctr("task", "resume", name).ok()
    assert ctr.tasks()[name][1] == "RUNNING"
    wait_until(lambda: sandbox.run(["stat", "-c", "%y", file]).ok().text != before, "the loop to go on")
    ctr.remove(name, "--force")


def test_delete_of_the_paused(ctr: Ctr, leaks: Watch) -> None:
    """task delete --force of a paused task."""
    name = ctr.detached(*FOREVER)
    ctr("task", "pause", name).ok()
    ctr("task", "kill", "-s", "KILL", name)
    ctr("task", "resume", name)
    assert ctr.remove(name, "--force") == 137
    leaks.check()


def test_metrics(ctr: Ctr, sandbox: Sandbox) -> None:
    """task metrics: containerd reads them in the cgroup that the runtime has made."""
    sandbox.read_by_containerd()
    name = ctr.detached("sh", "-c", "probe alloc 16 >/dev/null; i=0; while :; do i=$((i+1)); done")
    text = ctr("task", "metrics", name).ok().text
    numbers = {line.split()[0]: line.split()[1] for line in text.splitlines() if len(line.split()) == 2}
    wanted = {"memory.usage", "pids.current"} if sandbox.only_v2 else {"memory.usage_in_bytes", "pids.current"}
    assert wanted <= set(numbers)
    assert all(int(numbers[key]) > 0 for key in wanted)
    ctr.remove(name, "--force")


def events(ctr: Ctr) -> Running:
    """ctr events, listening."""
    running = ctr.start("events")

    def heard_of_the_image() -> bool:
        ctr("image", "label", IMAGE, "heard=yes").ok()
        return bool(running.output().out)

    wait_until(heard_of_the_image, "the first event")
    return running


def heard(running: Running, name: str) -> list[str]:
    """The topics of a container's events so far."""
    lines = [line for line in running.output().text.splitlines() if f'"{name}"' in line]
    return [found[0] for line in lines if (found := re.search(r"/(tasks|containers)/[a-z-]+", line))]


def test_events(ctr: Ctr) -> None:
    """The events of a life, in their order."""
    running = events(ctr)
    name = ctr.name()
    assert ctr.run("true", name=name).code == 0
    wait_until(lambda: "/containers/delete" in heard(running, name), "the last event")
    topics = [topic for topic in heard(running, name) if topic.startswith("/tasks/")]
    assert topics == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    running.signal(15)
    running.wait()


def test_out_of_memory_event(ctr: Ctr, sandbox: Sandbox) -> None:
    """The kernel kills for memory: /tasks/oom."""
    sandbox.read_by_containerd()
    running = events(ctr)
    name = ctr.name()
    script = "sleep 2; probe alloc 64; sleep 2; exit 5"
    assert ctr.run("sh", "-c", script, name=name, options=["--memory-limit", str(16 << 20)]).code == 5
    wait_until(lambda: "/tasks/oom" in heard(running, name), "the event")
    running.signal(15)
    running.wait()


# ---- the shim ----


def test_killed_shim(ctr: Ctr, sandbox: Sandbox, leaks: Watch) -> None:
    """The shim dies: containerd has it delete by force what it was the parent of, and forgets the task."""
    name = ctr.detached("sh", "-c", "setsid sleep 3000 & sleep 1000")
    wait_until(lambda: any(entry.endswith(" sleep 3000 ") for entry in sandbox.look()["processes"]), "the child")
    for pid in shims(sandbox, name):
        sandbox.run(["kill", "-9", str(pid)]).ok()
    wait_until(lambda: name not in ctr.tasks(), "containerd to see it")
    ctr("container", "delete", name).ok()
    leaks.check()


@pytest.mark.ours_only("a create that is killed half-way leaves nothing that delete --force does not find")
def test_shim_killed_at_any_moment(ctr: Ctr, sandbox: Sandbox, leaks: Watch, slow: bool) -> None:
    """The same a little later each time, from before create to after start. The runtime dies with the shim, wherever
    it is; containerd then calls delete --force, and nothing may stay.
    """
    wait = 'for i in $(seq 2000); do p=$(pgrep -f "$1") && break; sleep 0.001; done; sleep $2; kill -9 $p'
    for number in range(60 if slow else 10):
        name = ctr.name()
        running = ctr.start(*ctr.words(name, FOREVER, ["--rm"]))
        pattern = f"[c]ontainerd-shim-runc-v2 -namespace default -id {name} "
        sandbox.run(["sh", "-c", wait, "sh", pattern, str(number * (0.0015 if slow else 0.008))])
        running.wait()
        wait_until(lambda name=name: name not in ctr.tasks(), "containerd to see it")  # type: ignore[misc]
        ctr("container", "delete", name)
        leaks.check()


def test_killed_while_a_command_runs(ctr: Ctr, leaks: Watch) -> None:
    """The task is killed under a running exec: both end."""
    name = ctr.detached(*FOREVER)
    running = ctr.start("task", "exec", "--exec-id", "long", name, "sleep", "3000")
    wait_until(lambda: len(ctr("task", "ps", name).text.splitlines()) == 3, "the command")
    ctr("task", "kill", "-s", "KILL", name).ok()
    assert running.wait().code == 137
    ctr.stopped(name)
    assert ctr.remove(name) == 137
    leaks.check()


def test_one_after_the_other(ctr: Ctr, leaks: Watch, slow: bool) -> None:
    """Short containers in a row: nothing piles up."""
    for number in range(50 if slow else 10):
        assert ctr.run("sh", "-c", f"exit {number}").code == number
    leaks.check()


def test_many_at_once(ctr: Ctr, leaks: Watch, slow: bool) -> None:
    """Ten at a time."""
    count = 100 if slow else 20
    with ThreadPoolExecutor(10) as pool:
        results = list(pool.map(lambda n: ctr.run("sh", "-c", f"exit {n}"), range(count)))
    assert [result.code for result in results] == list(range(count))
    leaks.check()
