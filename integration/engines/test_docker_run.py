"""docker run and what is done to a running container: exec, terminals, attach, logs, top, cp, commit."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from integration.engines.docker import Docker
from integration.engines.image import IMAGE
from integration.engines.sandbox import Watch
from integration.lib.container import wait_until

FOREVER = ["sleep", "1000"]


def test_run(docker: Docker, leaks: Watch) -> None:
    """Output, streams apart, nothing left."""
    result = docker.run("sh", "-c", "echo to-out; echo to-err >&2").ok()
    assert (result.out, result.err) == (b"to-out\n", b"to-err\n")
    leaks.check()


def test_the_runtime_is_used(docker: Docker) -> None:
    """The container is the runtime's, not that of docker's own default."""
    name = docker.detached(*FOREVER)
    found = docker.inspect(name)
    assert found["HostConfig"]["Runtime"] == "custom"
    info = docker("info", "--format", "{{json .}}").ok().json
    assert info["Runtimes"]["custom"]["path"] == docker.runtime
    assert info["DefaultRuntime"] == "custom"


@pytest.mark.parametrize("status", [0, 1, 7, 125, 126, 127, 255])
def test_exit_status(docker: Docker, status: int) -> None:
    """The program's status is docker's."""
    assert docker.run("sh", "-c", f"exit {status}").code == status


def test_killed_by_a_signal(docker: Docker) -> None:
    """128 and the signal."""
    assert docker.run("sh", "-c", "kill -KILL $$", options=["--init"]).code == 137


def test_stdin(docker: Docker) -> None:
    """run -i"""
    assert docker.run("cat", options=["-i"], stdin=b"given\n").ok().out == b"given\n"


def test_terminal(docker: Docker) -> None:
    """run -it: a terminal of its own, with what is typed there, and the status of the program."""
    script = "tty; test -t 0 && test -t 1 && test -t 2 && read line && echo got $line; exit 9"
    result = docker.on_terminal("run", "--rm", "-it", "--network", "none", IMAGE, "sh", "-c", script, stdin=b"word\n")
    assert result.code == 9, result
    assert "/dev/pts/0" in result.text and "got word" in result.text


def test_terminal_detached(docker: Docker) -> None:
    """run -dt: the terminal is there without a client, and the logs have what was written to it."""
    name = docker.detached("sh", "-c", "tty; stty size; exec sleep 1000", options=["-t"])
    docker.wait_logs(name, "/dev/pts/0")


def test_environment(docker: Docker) -> None:
    """-e, --env-file's like, and the image's own."""
    lines = docker.sh("env", "-e", "A=1 2", "-e", "B=").splitlines()
    assert {"A=1 2", "B=", "IMAGE_VARIABLE=image", "HOME=/root"} <= set(lines)


@pytest.mark.parametrize(
    ("user", "ids"),
    [("worker", "1000 1001 1001 1002"), ("1234:77", "1234 77 77"), ("worker:staff", "1000 1001 1001"), ("0", "0 0 0")],
)
def test_user(docker: Docker, user: str, ids: str) -> None:
    """-u by name and by number."""
    assert docker.sh("echo $(id -u) $(id -g) $(id -G)", "-u", user) == ids


def test_group_add(docker: Docker) -> None:
    """--group-add"""
    groups = docker.sh("id -G", "-u", "1000:1001", "--group-add", "extra", "--group-add", "4321").split()
    assert set(groups) == {"1001", "1002", "4321"}


def test_workdir(docker: Docker) -> None:
    """-w, of a directory that is not there too."""
    assert docker.sh("pwd", "-w", "/home/worker") == "/home/worker"
    assert docker.sh("pwd", "-w", "/not/there/yet") == "/not/there/yet"


def test_hostname(docker: Docker) -> None:
    """--hostname, --domainname, and the lines of /etc/hosts."""
    text = docker.sh("hostname; cat /proc/sys/kernel/domainname", "--hostname", "inner", "--domainname", "example.org")
    assert text.splitlines()[0] in ("inner", "inner.example.org")


def test_entrypoint(docker: Docker) -> None:
    """--entrypoint with arguments after the image."""
    result = docker("run", "--rm", "--network", "none", "--entrypoint", "/bin/echo", IMAGE, "a", "b c")
    assert result.ok().text == "a b c\n"


def test_logs(docker: Docker) -> None:
    """logs has both streams, each on its own; --tail and --follow."""
    name = docker.detached("sh", "-c", "echo one; echo two >&2; echo three; sleep 0.5; echo last")
    docker.wait_logs(name, "three")
    result = docker("logs", "--follow", name).ok()
    assert (result.text, result.error) == ("one\nthree\nlast\n", "two\n")
    assert docker("logs", "--tail", "1", name).ok().text == "last\n"


def test_attach(docker: Docker) -> None:
    """attach: input of a running container, its output, and its status."""
    name = docker.detached("sh", "-c", "echo ready; read line; echo got $line; sleep 0.5; exit 4", options=["-i"])
    docker.wait_logs(name, "ready")
    attached = docker.start("attach", name)
    # The end of the input does not come at all: this docker may lose the output when that is first.
    attached.write(b"word\n")
    result = attached.wait()
    assert (result.code, result.text) == (4, "got word\n")


# ---- exec ----


def test_exec(docker: Docker, leaks: Watch) -> None:
    """exec: streams, status, environment, user, directory."""
    name = docker.detached(*FOREVER, options=["-e", "A=1"])
    result = docker("exec", name, "sh", "-c", "echo out $A; echo err >&2; exit 5")
    assert (result.code, result.text, result.error) == (5, "out 1\n", "err\n")
    assert docker.sh_exec(name, "id -u; pwd; echo $B", "-u", "worker", "-w", "/tmp", "-e", "B=2") == "1000\n/tmp\n2"
    docker("rm", "-f", name).ok()
    leaks.check()


def test_exec_stdin(docker: Docker) -> None:
    """exec -i"""
    name = docker.detached(*FOREVER)
    assert docker("exec", "-i", name, "cat", stdin=b"given\n").ok().out == b"given\n"


def test_exec_terminal(docker: Docker) -> None:
    """exec -it: a terminal of the container's own devpts."""
    name = docker.detached(*FOREVER)
    script = "tty; test -t 0 && test -t 1 && test -t 2 && read line && echo got $line; exit 6"
    result = docker.on_terminal("exec", "-it", name, "sh", "-c", script, stdin=b"word\n")
    assert result.code == 6, result
    assert "/dev/pts/" in result.text and "got word" in result.text


def test_exec_terminal_size(docker: Docker) -> None:
    """The terminal has the size of the client's."""
    name = docker.detached(*FOREVER)
    result = docker.on_terminal(
        "exec", "-it", name, "sh", "-c", "while ! stty size | grep 101; do sleep 0.05; done"
    ).ok()
    assert "30 101" in result.text


def test_exec_detached(docker: Docker) -> None:
    """exec -d"""
    name = docker.detached(*FOREVER)
    docker("exec", "-d", name, "sh", "-c", "echo done >/tmp/done; exec sleep 1000").ok()
    wait_until(lambda: docker("exec", name, "cat", "/tmp/done").text == "done\n", "the file")
    assert len(docker("top", name).ok().text.splitlines()) == 3


def test_exec_keeps_the_limits(docker: Docker) -> None:
    """What exec starts has the container's capabilities, filter, cgroup and read-only root."""
    options = ["--cap-drop", "ALL", "--cap-add", "CHOWN", "--read-only", "--security-opt", "no-new-privileges"]
    name = docker.detached(*FOREVER, options=options)
    first = docker("exec", name, "probe", "report").ok().replies[0]["status"]
    assert (int(first["CapEff"], 16), first["Seccomp"], first["NoNewPrivs"]) == (1, "2", "1")
    assert docker.sh_exec(name, "cat /proc/1/cgroup") == docker.sh_exec(name, "cat /proc/self/cgroup")
    assert docker("exec", name, "touch", "/x").code == 1


def test_exec_privileged(docker: Docker) -> None:
    """exec --privileged has more capabilities than the container's program."""
    name = docker.detached(*FOREVER)
    plain = docker("exec", name, "probe", "report").ok().replies[0]["status"]["CapEff"]
    result = docker("exec", "--privileged", name, "probe", "report")
    if result.code and "not permitted" in result.text + result.error:
        pytest.skip("the caller lacks capabilities that --privileged asks for")
    assert int(result.ok().replies[0]["status"]["CapEff"], 16) > int(plain, 16)


def test_exec_many(docker: Docker) -> None:
    """Ten at once in one container."""
    name = docker.detached(*FOREVER)
    with ThreadPoolExecutor(5) as pool:
        results = list(pool.map(lambda n: docker("exec", name, "sh", "-c", f"echo {n}; exit {n}"), range(10)))
    assert [(result.code, result.text) for result in results] == [(n, f"{n}\n") for n in range(10)]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("nosuch", "executable file not found in $PATH"),
        ("/no/such", "no such file or directory"),
        ("/etc/not-a-program", "permission denied"),
    ],
)
def test_exec_failure(docker: Docker, program: str, reason: str) -> None:
    """The message names the program and the reason; this docker's status is 126 for all of them."""
    name = docker.detached(*FOREVER)
    result = docker("exec", name, program)
    assert result.code in (126, 127), result
    assert program in result.text + result.error and reason in result.text + result.error


def test_exec_into_a_stopped_container(docker: Docker) -> None:
    """An error that says so."""
    name = docker.detached("true")
    docker.wait_status(name, "exited")
    result = docker("exec", name, "true")
    assert result.code == 1 and "is not running" in result.error


# ---- what is asked about it ----


def test_top(docker: Docker) -> None:
    """top: docker maps the PIDs that the runtime knows to lines of ps."""
    name = docker.detached("sh", "-c", "sleep 1000 & sleep 2000; :")
    wait_until(lambda: len(docker("top", name).text.splitlines()) == 4, "three processes")
    lines = docker("top", name, "-o", "pid,args").ok().text.splitlines()
    assert {line.split(maxsplit=1)[1].strip() for line in lines[1:]} >= {"sleep 1000", "sleep 2000"}


def test_stats(docker: Docker) -> None:
    """stats: the numbers of the container's cgroups."""
    if docker.unmounted:
        pytest.skip(f"containerd reads no numbers while a hierarchy is not mounted: {docker.unmounted}")
    name = docker.loop("", "-m", "64m")
    found = docker("stats", "--no-stream", "--format", "{{json .}}", name).ok().json
    assert found["MemUsage"].endswith("/ 64MiB")
    assert not found["MemUsage"].startswith("0B") and int(found["PIDs"]) >= 1


def test_inspect(docker: Docker, leaks: Watch) -> None:
    """State of a running container, and of one that has ended."""
    name = docker.loop("trap 'exit 3' USR1")
    state = docker.state(name)
    assert (state["Status"], state["Running"], state["Paused"], state["Dead"]) == ("running", True, False, False)
    assert state["Pid"] > 1
    docker("kill", "-s", "USR1", name).ok()
    assert docker("wait", name).ok().text.strip() == "3"
    state = docker.state(name)
    assert (state["Status"], state["ExitCode"], state["OOMKilled"], state["Pid"]) == ("exited", 3, False, 0)
    assert state["FinishedAt"] > state["StartedAt"] > "2"


def test_events(docker: Docker) -> None:
    """The events of a container's life, in their order."""
    begin = time.time()
    docker.run("true", options=["--name", name := docker.name()]).ok()
    wait_until(lambda: "destroy" in docker("events", "--since", str(begin), "--until", "0s").text, "the end")
    lines = docker(
        "events", "--since", str(begin), "--until", "0s", "--filter", f"container={name}", "--format", "{{json .}}"
    )
    actions = [json.loads(line)["Action"] for line in lines.ok().text.splitlines()]
    wanted = ["create", "attach", "start", "die", "destroy"]
    assert [action for action in actions if action in wanted] == wanted


# ---- files and images ----


def test_cp(docker: Docker, tmp_path: Path) -> None:
    """cp both ways, of a running container and of one that was never started."""
    tmp_path.joinpath("given").write_text("from outside\n")
    for verb in ("run", "create"):
        name = docker.name()
        words = ["-d"] if verb == "run" else []
        docker(verb, *words, "--network", "none", "--name", name, IMAGE, *FOREVER).ok()
        docker("cp", f"{tmp_path}/given", f"{name}:/srv/given").ok()
        docker("cp", f"{name}:/srv/given", f"{tmp_path}/back-{verb}").ok()
        assert tmp_path.joinpath(f"back-{verb}").read_text() == "from outside\n"
        if verb == "run":
            assert docker.sh_exec(name, "cat /srv/given") == "from outside"


def test_diff_and_commit(docker: Docker) -> None:
    """What a container has written is in the image that is made of it."""
    name = docker.detached("sh", "-c", "echo new >/srv/new; rm /srv/file; exec sleep 1000")
    wait_until(lambda: "D /srv/file" in docker("diff", name).text, "the change")
    assert {"A /srv/new", "D /srv/file"} <= set(docker("diff", name).ok().text.splitlines())
    image = docker("commit", name).ok().text.strip()
    assert docker("run", "--rm", "--network", "none", image, "ls", "/srv").ok().text == "new\n"
    docker("rmi", "-f", image).ok()


def test_export(docker: Docker) -> None:
    """export of a running container: the tree without what is mounted there."""
    name = docker.detached(*FOREVER)
    result = docker("export", name).ok()
    assert b"srv/file" in result.out


def test_ten_at_once(docker: Docker, leaks: Watch) -> None:
    """Ten containers, five at a time."""
    with ThreadPoolExecutor(5) as pool:
        results = list(pool.map(lambda n: docker.run("sh", "-c", f"echo {n}; exit {n}"), range(10)))
    assert [(result.code, result.text) for result in results] == [(n, f"{n}\n") for n in range(10)]
    leaks.check()


def test_several_that_share(docker: Docker) -> None:
    """What compose does: a volume, a network, and containers that find each other by name."""
    volume, network = docker("volume", "create").ok().text.strip(), docker.name()
    docker("network", "create", network).ok()
    try:
        serve = "echo from-db >/data/row; exec nc -ll -p 80 -e cat /data/row"
        words = ["--network", network, "-v", f"{volume}:/data"]
        docker("run", "-d", "--name", "db", *words, IMAGE, "sh", "-c", serve).ok()
        # A static program has no resolver of names but busybox's own.
        ask = "address=$(nslookup db | sed -n 's/^Address: //p' | tail -n 1)"
        wait = "for i in $(seq 300); do nc $address 80 </dev/null && break; sleep 0.1; done; cat /data/row"
        result = docker("run", "--rm", *words, IMAGE, "sh", "-c", f"{ask}; {wait}").ok()
        assert result.text == "from-db\nfrom-db\n"
    finally:
        docker.clear()
        docker("network", "rm", network).ok()
        docker("volume", "rm", volume).ok()
