"""hooks: the six kinds, what they see, and what their failure does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from integration.lib import probe as probes
from integration.lib.container import Container, alive, wait_until
from integration.lib.leaks import Leaks

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
EARLY = KINDS[:3]


class Hooks:
    """Hooks that write what they see into one file, which the host and the container both reach."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.program = str(container.bundle.probe)
        self.file = container.bundle.rootfs / "hooks.log"
        self.hooks: dict[str, list[dict[str, Any]]] = {}
        container.bundle.config["hooks"] = self.hooks

    def add(self, kind: str, name: str = "", *more: str, **fields: Any) -> dict[str, Any]:
        """One more hook of this kind; more: exit status and milliseconds of sleep."""
        inside = kind == "startContainer"
        hook: dict[str, Any] = {
            "path": "/probe" if inside else self.program,
            "args": ["probe", "hook", "/hooks.log" if inside else str(self.file), name or kind, *more],
            **fields,
        }
        self.hooks.setdefault(kind, []).append(hook)
        return hook

    def add_all(self) -> None:
        """One hook of every kind."""
        for kind in KINDS:
            self.add(kind)

    @property
    def records(self) -> list[probes.Reply]:
        """What they have written so far."""
        return probes.parse(self.file.read_bytes()) if self.file.exists() else []

    @property
    def names(self) -> list[str]:
        """The names in the order of their calls."""
        return [record["name"] for record in self.records]


@pytest.fixture
def hooks(container: Container) -> Hooks:
    """Hooks for the container."""
    return Hooks(container)


def test_order(container: Container, hooks: Hooks) -> None:
    """Each kind at its moment [H1-H5]."""
    hooks.add_all()
    container.bundle.args("pause")
    container.create()
    expected = list(EARLY)
    assert hooks.names == expected
    container.start()
    assert hooks.names == [*expected, "startContainer", "poststart"]
    container.finish()
    assert hooks.names[-1] == "poststart"
    container.delete()
    assert hooks.names == [*expected, "startContainer", "poststart", "poststop"]


def test_order_in_run(container: Container, hooks: Hooks) -> None:
    """run calls all six [H1-H5]."""
    hooks.add_all()
    container.bundle.args("sleep 100")
    container.run().ok()
    assert sorted(hooks.names) == sorted(KINDS)
    assert hooks.names[:3] == list(EARLY)
    assert hooks.names[-1] == "poststop"


def test_several_of_a_kind(container: Container, hooks: Hooks) -> None:
    """Hooks of a kind run in the listed order [H6]."""
    for kind in ("prestart", "createRuntime", "poststop"):
        for number in range(3):
            hooks.add(kind, f"{kind}{number}")
    container.run().ok()
    assert hooks.names == [f"{kind}{n}" for kind in ("prestart", "createRuntime", "poststop") for n in range(3)]


def test_state_on_stdin(container: Container, hooks: Hooks) -> None:
    """Every hook reads the state as one JSON object, with the status of its moment [H6, J5]."""
    hooks.add_all()
    container.bundle.merge({"annotations": {"k": "v"}})
    container.bundle.args("pause")
    container.create()
    container.start()
    container.finish()
    container.delete()
    status = {
        "prestart": {"creating"},
        "createRuntime": {"creating"},
        "createContainer": {"creating"},
        "startContainer": {"created"},
        "poststart": {"running"},
        "poststop": {"stopped"},
    }
    if not container.runtime.ours:
        for kind in EARLY:
            status[kind] = {"creating", "created"}
        status["startContainer"] = {"created", "starting", "creating"}
        status["poststart"] = {"running", "created"}
    for record in hooks.records:
        state = json.loads(record["stdin"])
        kind = record["name"]
        assert state["id"] == container.id, kind
        assert state["bundle"] == str(container.bundle.path), kind
        assert state["annotations"] == {"k": "v"}, kind
        assert state["status"] in status[kind], kind
        assert state["ociVersion"].startswith("1."), kind
        if kind in ("prestart", "createRuntime", "poststart"):
            assert state["pid"] == container.pid, kind
        elif kind == "poststop":
            assert state.get("pid", 0) == 0
        elif container.runtime.ours:
            assert state["pid"] == 1, kind


def test_namespaces(container: Container, hooks: Hooks) -> None:
    """createContainer and startContainer run in the container's namespaces, the others in the runtime's [H1-H5]."""
    hooks.add_all()
    container.bundle.args("report", "pause")
    container.create()
    container.start()
    inside = container.wait_replies(2)[0]["namespaces"]
    container.finish()
    container.delete()
    outside = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in inside}
    for record in hooks.records:
        found = record["namespaces"]
        if record["name"] == "startContainer":
            assert found == inside
        elif record["name"] == "createContainer":
            # procfs here is still the runtime's, and so is the answer about the mount namespace of before the pivot
            for kind in ("net", "ipc", "uts", "mnt"):
                assert found[kind] == inside[kind], kind
        else:
            for kind in ("net", "ipc", "uts", "mnt", "pid", "user"):
                assert found[kind] == outside[kind], (record["name"], kind)


def test_mounts_are_there_before_prestart(container: Container, hooks: Hooks) -> None:
    """When prestart and createRuntime run, the mounts of the container are made, but the root is not changed [H1]."""
    hooks.add("createContainer")
    container.run().ok()
    table = hooks.records[0]["mountinfo"]
    assert f" {container.bundle.rootfs}/proc " in table
    assert f" {container.bundle.rootfs}/dev " in table


def test_mount_of_a_createcontainer_hook(container: Container, hooks: Hooks) -> None:
    """What a createContainer hook mounts in the rootfs is in the container, and not on the host [H2]."""
    (container.bundle.rootfs / "place").mkdir()
    hooks.hooks["createContainer"] = [
        {"path": hooks.program, "args": ["probe", "mount", "tmpfs", str(container.bundle.rootfs / "place"), "tmpfs"]}
    ]
    table = probes.mounts(container.report()["mountinfo"])
    assert any(m.point == "/place" and m.type == "tmpfs" for m in table)


def test_pid_of_prestart_is_usable(container: Container, hooks: Hooks) -> None:
    """The PID in the state is init's, so a hook can reach its network namespace [H1]."""
    script = container.bundle.path / "net.sh"
    log = container.bundle.path / "net.log"
    script.write_text(
        f"#!/bin/sh\npid=$(sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p')\nreadlink /proc/$pid/ns/net > {log}\n"
    )
    script.chmod(0o755)
    hooks.hooks["prestart"] = [{"path": "/bin/sh", "args": ["sh", str(script)], "env": ["PATH=/usr/bin:/bin"]}]
    report = container.report()
    assert log.read_text().strip() == report["namespaces"]["net"]


def test_limits_are_set_before_prestart(container: Container, hooks: Hooks) -> None:
    """init is in its cgroup when the hooks run [H1]."""
    script = container.bundle.path / "cg.sh"
    log = container.bundle.path / "cg.log"
    script.write_text(f"#!/bin/sh\npid=$(sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p')\ncat /proc/$pid/cgroup > {log}\n")
    script.chmod(0o755)
    hooks.hooks["createRuntime"] = [{"path": "/bin/sh", "args": ["sh", str(script)], "env": ["PATH=/usr/bin:/bin"]}]
    container.run().ok()
    assert container.bundle.config["linux"]["cgroupsPath"] in log.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_and_environment(container: Container, hooks: Hooks, kind: str) -> None:
    """argv and environment are exactly the config's [H6]."""
    hook = hooks.add(kind, env=["A=1", "B=two words", "EMPTY="])
    container.bundle.args("sleep 100")
    container.run(env={**os.environ, "CALLER": "1"}).ok()
    (record,) = hooks.records
    assert record["args"] == hook["args"]
    assert record["env"] == ["A=1", "B=two words", "EMPTY="]


@pytest.mark.parametrize("kind", KINDS)
def test_empty_environment(container: Container, hooks: Hooks, kind: str) -> None:
    """env: [] is no environment [H6]."""
    hooks.add(kind, env=[])
    container.bundle.args("sleep 100")
    container.run(env={**os.environ, "CALLER": "1"}).ok()
    (record,) = hooks.records
    assert record["env"] == []


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "poststart", "poststop"])
def test_absent_environment(container: Container, hooks: Hooks, kind: str) -> None:
    """Without env a hook of the runtime's side inherits the runtime's environment [H6]."""
    hooks.add(kind)
    container.bundle.args("sleep 100")
    container.run(env={**os.environ, "CALLER": "1"}).ok()
    (record,) = hooks.records
    assert "CALLER=1" in record["env"]


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "poststop"])
def test_time_zone_of_the_caller(container: Container, hooks: Hooks, kind: str, zone: str | None) -> None:
    """The environment it inherits is the caller's: its time zone too, or none [H6]."""
    hooks.add(kind)
    env = {name: value for name, value in os.environ.items() if name != "TZ"}
    container.run(env=env if zone is None else {**env, "TZ": zone}).ok()
    (record,) = hooks.records
    assert [item for item in record["env"] if item.startswith("TZ=")] == ([] if zone is None else [f"TZ={zone}"])


def test_no_environment_of_the_image(container: Container, hooks: Hooks) -> None:
    """process.env never reaches a hook that runs outside the container [SECURITY C]."""
    container.bundle.process(env=["PATH=/", "LD_PRELOAD=./evil.so", "FROM_IMAGE=1"])
    hooks.add("createRuntime")
    hooks.add("createContainer")
    container.run().ok()
    for record in hooks.records:
        assert not [item for item in record["env"] if item.startswith(("LD_PRELOAD", "FROM_IMAGE"))]


@pytest.mark.parametrize(
    ("env", "home"), [(["A=1"], "/home/seven"), (["HOME=/given", "A=1"], "/given"), ([], "/home/seven")]
)
def test_environment_of_a_hook_inside(container: Container, hooks: Hooks, env: list[str], home: str) -> None:
    """A startContainer hook without env gets the program's, with HOME of the image's passwd; else what it has [H6]."""
    (container.bundle.rootfs / "etc").mkdir()
    (container.bundle.rootfs / "etc" / "passwd").write_text(
        "root:x:0:0::/root-home:\nseven:x:7:7::/home/seven:/bin/sh\n"
    )
    hooks.file.touch()
    hooks.file.chmod(0o666)
    hooks.add("startContainer")
    hooks.add("startContainer", env=["B=2"])
    container.bundle.process(user={"uid": 7, "gid": 7}, env=env)
    container.run(env={**os.environ, "CALLER": "1"}).ok()
    first, second = hooks.records
    assert sorted(first["env"]) == sorted([f"HOME={home}", *(entry for entry in env if not entry.startswith("HOME"))])
    assert second["env"] == ["B=2"]


@pytest.mark.parametrize("kind", EARLY)
def test_working_directory(container: Container, hooks: Hooks, kind: str) -> None:
    """Hooks start in the bundle [H6]."""
    hooks.add(kind)
    container.run(cwd="/").ok()
    (record,) = hooks.records
    assert record["cwd"] == str(container.bundle.path)


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "poststop"])
def test_descriptors(container: Container, hooks: Hooks, kind: str) -> None:
    """A hook has 0, 1 and 2, and nothing of the runtime [H6]."""
    hooks.add(kind)
    container.run().ok()
    (record,) = hooks.records
    assert set(record["fds"]) == {"0", "1", "2"}


@pytest.mark.ours_only("H6: empty args: argv[0] is the path")
def test_empty_args(container: Container, hooks: Hooks) -> None:
    """Without args argv is the path alone [H6]."""
    script = container.bundle.path / "hook.sh"
    log = container.bundle.path / "hook.log"
    script.write_text(f'#!/bin/sh\necho "$0 $#" > {log}\n')
    script.chmod(0o755)
    hooks.hooks["prestart"] = [{"path": str(script), "args": []}]
    container.run().ok()
    assert log.read_text() == f"{script} 0\n"


@pytest.mark.parametrize("kind", EARLY)
def test_early_failure(container: Container, leaks: Leaks, hooks: Hooks, kind: str) -> None:
    """A hook that fails during create: create fails, the rest is not run, and nothing is left [H1, H2]."""
    hooks.add(kind, "first", "7")
    hooks.add(kind, "second")
    hooks.add("poststop")
    result = container.create(check=False)
    assert result.code != 0
    assert "first" in hooks.names
    assert "second" not in hooks.names
    if container.runtime.ours:
        assert f"/hooks/{kind}/0" in result.error
        assert "says no" in result.error  # what the hook has printed
        assert hooks.names == ["first", "poststop"]
    leaks.check()


@pytest.mark.ours_only("H4: a failed poststart hook ends the container; R and C log it")
def test_poststart_failure(container: Container, leaks: Leaks, hooks: Hooks) -> None:
    """A poststart hook that fails: start fails and the container is destroyed [H4]."""
    hooks.add("poststart", "", "7")
    hooks.add("poststop")
    container.bundle.args("pause")
    container.create()
    result = container.start(check=False)
    assert result.code != 0
    assert "/hooks/poststart/0" in result.error
    wait_until(lambda: not alive(container.pid))
    assert hooks.names == ["poststart", "poststop"]


def test_poststop_failure(container: Container, leaks: Leaks, hooks: Hooks) -> None:
    """A poststop hook that fails is only reported; the container is gone and the other hooks run [H5]."""
    hooks.add("poststop", "one", "7")
    hooks.add("poststop", "two")
    container.create()
    container.start()
    container.wait()
    result = container.delete(check=False)
    leaks.check()
    assert result.code == 0
    assert hooks.names == ["one", "two"]
    if container.runtime.ours:
        assert "/hooks/poststop/0" in result.error


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_timeout(container: Container, leaks: Leaks, hooks: Hooks, kind: str) -> None:
    """A hook that takes longer than its timeout is killed and has failed [H6]."""
    hooks.add(kind, "", "0", "1000000", timeout=1)
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert f"/hooks/{kind}/0" in result.error
    leaks.check()


def test_timeout_that_is_kept(container: Container, hooks: Hooks) -> None:
    """A hook within its timeout is fine [H6]."""
    hooks.add("prestart", "", "0", "100", timeout=1000)
    container.run().ok()
    assert hooks.names == ["prestart"]


@pytest.mark.parametrize("timeout", [0, -1])
def test_bad_timeout(container: Container, leaks: Leaks, hooks: Hooks, timeout: int) -> None:
    """A timeout must be above 0 [H6, X1]."""
    hooks.add("poststop", timeout=timeout)
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert "/hooks/poststop/0/timeout" in result.error
    leaks.check()


@pytest.mark.parametrize("kind", KINDS)
def test_relative_path(container: Container, leaks: Leaks, hooks: Hooks, kind: str) -> None:
    """The path of a hook is absolute, of every kind, and that is said at create [H6]."""
    hooks.hooks[kind] = [{"path": "probe"}]
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert f"/hooks/{kind}/0/path" in result.error
    leaks.check()


def test_missing_program(container: Container, leaks: Leaks, hooks: Hooks) -> None:
    """A hook that is not there has failed [H1]."""
    hooks.hooks["prestart"] = [{"path": "/no/such/hook"}]
    result = container.create(check=False)
    assert result.code != 0
    assert "no such file or directory" in result.error.lower()
    leaks.check()


def test_hook_that_does_not_read(container: Container, hooks: Hooks) -> None:
    """A hook that ignores its stdin is no problem, also with a large state [H6]."""
    container.bundle.merge({"annotations": {f"k{n}": "v" * 1000 for n in range(300)}})
    hooks.hooks["prestart"] = [{"path": "/bin/true"}]
    container.run().ok()


def test_hook_that_is_killed(container: Container, leaks: Leaks, hooks: Hooks) -> None:
    """A hook that dies by a signal has failed [H1]."""
    hooks.hooks["prestart"] = [{"path": hooks.program, "args": ["probe", "raise", "9"]}]
    result = container.create(check=False)
    assert result.code != 0
    leaks.check()


def test_signals_in_hooks(container: Container, hooks: Hooks) -> None:
    """A hook starts with default signal dispositions and an empty mask, whatever the caller has [P11]."""
    import signal

    hooks.add("createRuntime")

    def ignore() -> None:
        for number in (signal.SIGPIPE, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})

    container.run(preexec_fn=ignore).ok()
    (record,) = hooks.records
    assert int(record["status"]["SigBlk"], 16) == 0
    assert int(record["status"]["SigIgn"], 16) == 0


def test_poststop_runs_when_delete_is_forced(container: Container, hooks: Hooks) -> None:
    """delete --force of a running container runs poststop too [H5]."""
    hooks.add("poststop")
    container.begin("pause")
    container.delete("--force")
    assert hooks.names == ["poststop"]


def test_resources_are_gone_at_poststop(container: Container, hooks: Hooks) -> None:
    """When poststop runs, init and cgroups are gone [H5]."""
    script = container.bundle.path / "stop.sh"
    log = container.bundle.path / "stop.log"
    script.write_text(f"#!/bin/sh\nfind /sys/fs/cgroup -type d -name '{container.id}' > {log}\n")
    script.chmod(0o755)
    hooks.hooks["poststop"] = [{"path": "/bin/sh", "args": ["sh", str(script)], "env": ["PATH=/usr/bin:/bin"]}]
    container.create()
    container.start()
    container.wait()
    container.delete()
    assert Path(log).read_text() == ""
