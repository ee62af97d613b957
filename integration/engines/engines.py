"""The engines: how podman and ctr are called in the sandbox."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from integration.engines.image import IMAGE
from integration.engines.sandbox import PATH, USERS, Running, Sandbox
from integration.lib import probe as probes
from integration.lib.container import wait_until
from integration.lib.runtime import TIMEOUT, Result

CAPABILITIES = {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_CHROOT"}


class Podman:
    """podman with a store of its own and the runtime under test, given as an absolute path.

    What podman knows about a runtime it does not ship with, it has from containers.conf, by the last part of the path:
    json: the runtime takes --log-format json and --log (runtime_supports_json); without, errors come by stderr.
    backend: who makes networks, netavark or cni; podman's own choice by default.
    """

    def __init__(self, sandbox: Sandbox, work: Path, runtime: str) -> None:
        self.sandbox = sandbox
        self.runtime = runtime
        self.numbers = itertools.count(1)
        self.work = work
        self.backend = ""
        self.base = [
            "podman", "--root", str(work / "podman"), "--runroot", "/run/podman-run", "--tmpdir", "/run/podman-tmp",
            "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "file",
            "--runtime", runtime,
        ]  # fmt: skip

    def name(self) -> str:
        """A new name for a container."""
        return f"c{next(self.numbers)}"

    def config(self, json_log: bool) -> Path:
        """containers.conf for this way to learn of errors, and for the present backend."""
        path = self.work / f"containers-{'json' if json_log else 'bare'}-{self.backend}.conf"
        name = Path(self.runtime).name
        if not path.exists():
            path.write_text(
                '[containers]\nnetns = "none"\nlog_driver = "k8s-file"\n'
                # podman's own default is 2048
                f"pids_limit = {2048 if 'pids' in self.sandbox.controllers else 0}\n"
                f"default_capabilities = {json.dumps(sorted(CAPABILITIES))}\n"
                f'[network]\nnetwork_backend = "{self.backend}"\n'
                f"[engine]\nruntime_supports_json = {json.dumps([name] if json_log else [])}\n"
                f"runtime_supports_nocgroup = {json.dumps([name])}\n"
            )
        return path

    def argv(self, words: Sequence[str], json_log: bool) -> tuple[list[str], dict[str, str]]:
        """Command line and what is added to the environment."""
        return [*self.base, *words], {"CONTAINERS_CONF": str(self.config(json_log))}

    def __call__(self, *words: str, json_log: bool = False, timeout: float = TIMEOUT, stdin: bytes = b"") -> Result:
        """A podman command."""
        argv, env = self.argv(words, json_log)
        return self.sandbox.run(argv, env=env, timeout=timeout, stdin=stdin)

    def start(self, *words: str, terminal: bool = False) -> Running:
        """A podman command that is not waited for."""
        argv, env = self.argv(words, False)
        return self.sandbox.start(argv, env=env, open_stdin=not terminal, terminal=terminal)

    def run(self, *words: str, options: Sequence[str] = (), **how: Any) -> Result:
        """podman run --rm, with these options, of these words."""
        return self("run", "--rm", *options, IMAGE, *words, **how)

    def sh(self, script: str, *options: str, **how: Any) -> str:
        """What a shell script in a container prints; it must succeed."""
        return self.run("sh", "-c", script, options=options, **how).ok().text.strip()

    def detached(self, *words: str, options: Sequence[str] = ()) -> str:
        """podman run -d; the name of the container."""
        name = self.name()
        self("run", "-d", "--name", name, *options, IMAGE, *words).ok()
        return name

    def inspect(self, name: str) -> dict[str, Any]:
        """podman inspect."""
        found: list[dict[str, Any]] = self("container", "inspect", name).ok().json
        return found[0]

    def wait_logs(self, name: str, text: str) -> None:
        """Until the container has written text."""
        wait_until(lambda: text in self("logs", name).text, f"{text} in the logs of {name}")


class Rootless(Podman):
    """podman of an ordinary user of the sandbox, with a store of his own."""

    def __init__(self, sandbox: Sandbox, work: Path, runtime: str, user: str) -> None:
        super().__init__(sandbox, work, runtime)
        self.user = user
        self.uid, self.first = USERS[user]
        self.home = work / user
        self.base = [
            "setpriv", "--reuid", str(self.uid), "--regid", str(self.uid), "--init-groups", "--inh-caps=-all",
            "--reset-env", "env", f"XDG_RUNTIME_DIR=/run/user/{self.uid}", f"PATH={PATH}",
        ]  # fmt: skip
        self.options = [
            "podman", "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "file",
            "--runtime", runtime,
        ]  # fmt: skip

    def argv(self, words: Sequence[str], json_log: bool) -> tuple[list[str], dict[str, str]]:
        """Nothing of the environment comes along, so what is added stands in the command line."""
        return [*self.base, f"CONTAINERS_CONF={self.config(json_log)}", *self.options, *words], {}

    def command(self, *words: str) -> Result:
        """A command of this user outside of any container."""
        return self.sandbox.run([*self.base, *words])


class Ctr:
    """ctr with a containerd of its own. Every container has an absolute cgroup: ctr's own default is relative."""

    def __init__(self, sandbox: Sandbox, work: Path, runtime: str) -> None:
        self.sandbox = sandbox
        self.runtime = runtime
        self.numbers = itertools.count(1)
        config = work / "containerd.toml"
        config.write_text(
            f'version = 2\nroot = "{work}/containerd"\nstate = "/run/containerd-state"\noom_score = 0\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
            '[grpc]\naddress = "/run/containerd/containerd.sock"\n'
        )
        self.base = ["ctr", "-a", "/run/containerd/containerd.sock"]
        # Where ctr has no option for the runtime's path, it is the one that is found as runc.
        found_first = work / "found-first"
        found_first.mkdir()
        found_first.joinpath("runc").symlink_to(runtime)
        env = {"PATH": f"{found_first}:{PATH}"}
        self.daemon = sandbox.start(["containerd", "--config", str(config), "--log-level", "warn"], env=env)
        wait_until(lambda: self("version").code == 0, "containerd")

    def __call__(self, *words: str, timeout: float = TIMEOUT, stdin: bytes = b"") -> Result:
        """A ctr command."""
        return self.sandbox.run([*self.base, *words], timeout=timeout, stdin=stdin)

    def start(self, *words: str, terminal: bool = False) -> Running:
        """A ctr command that is not waited for."""
        return self.sandbox.start([*self.base, *words], open_stdin=not terminal, terminal=terminal)

    def name(self) -> str:
        """A new container id."""
        return f"r{next(self.numbers)}"

    def options(self, name: str) -> list[str]:
        """The options of every ctr run."""
        return [
            "--runtime", "io.containerd.runc.v2", "--runc-binary", self.runtime, "--cgroup", f"/ctr/{name}",
        ]  # fmt: skip

    def words(self, name: str, words: Sequence[str], options: Sequence[str]) -> list[str]:
        """The words of ctr run."""
        return ["run", *self.options(name), *options, IMAGE, name, *words]

    def run(self, *words: str, options: Sequence[str] = (), name: str = "", **how: Any) -> Result:
        """ctr run --rm, with these options, of these words."""
        return self(*self.words(name or self.name(), words, ["--rm", *options]), **how)

    def shell(self, script: str, *options: str) -> Result:
        """A shell script in a container, which stays for a moment: ctr can miss the output of one that is gone before
        ctr has opened its end.
        """
        return self.run("sh", "-c", f"trap 'sleep 0.1' EXIT\n{script}", options=options)

    def sh(self, script: str, *options: str) -> str:
        """What a shell script in a container prints; it must succeed."""
        return self.shell(script, *options).ok().text.strip()

    def report(self, *options: str) -> probes.Reply:
        """What the probe says of itself in a container."""
        return self.run("probe", "report", ";;", "sleep", "100", options=options).ok().replies[0]

    def detached(self, *words: str, options: Sequence[str] = ()) -> str:
        """ctr run -d; the id of the container."""
        name = self.name()
        self(*self.words(name, words, ["-d", *options])).ok()
        return name

    def exec(self, name: str, *words: str, options: Sequence[str] = (), **how: Any) -> Result:
        """ctr task exec."""
        return self("task", "exec", "--exec-id", f"x{next(self.numbers)}", *options, name, *words, **how)

    def stopped(self, name: str) -> None:
        """Until the task has ended."""
        wait_until(lambda: self.tasks()[name][1] == "STOPPED", f"the end of {name}")

    def remove(self, name: str, *options: str) -> int:
        """task delete, container delete; the exit status of the task, of which ctr tells when it is not 0."""
        result = self("task", "delete", *options, name).ok()
        self("container", "delete", name).ok()
        _, found, status = result.error.partition("exit with non-zero exit code ")
        return int(status.strip().strip('"')) if found else 0

    def tasks(self) -> dict[str, tuple[int, str]]:
        """ctr task ls: id -> (pid, status)."""
        lines = self("task", "ls").ok().text.splitlines()[1:]
        return {row[0]: (int(row[1]), row[2]) for row in (line.split() for line in lines)}
