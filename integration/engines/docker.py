"""docker: a daemon of its own in the sandbox, and how its client is called."""

from __future__ import annotations

import itertools
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from integration.engines.image import IMAGE
from integration.engines.sandbox import Running, Sandbox
from integration.lib.container import wait_until
from integration.lib.runtime import TIMEOUT, Result

# The client of the same package as the daemon, when there is another one before it on PATH.
CLIENT = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"


class DaemonError(Exception):
    """dockerd has ended, or does not answer. The text is the last thing it said."""


class Docker:
    """dockerd, its containerd and a client.

    The runtime under test is registered as "custom" and the default, if one is given. name: of this daemon, for its
    files and its socket; more: further options of dockerd. With them it has a network namespace of its own: on the same
    one it would take away the first one's bridge.
    """

    client = CLIENT

    def __init__(
        self, sandbox: Sandbox, work: Path, runtime: str, name: str = "docker", more: Sequence[str] = ()
    ) -> None:
        self.sandbox = sandbox
        self.runtime = runtime
        self.numbers = itertools.count(1)
        self.prefix = name[0]
        self.socket = f"unix:///run/{name}.sock"
        self.root = work / name
        self.argv = [
            *(["unshare", "-n"] if more else []), "dockerd", "-H", self.socket,
            "--data-root", str(self.root), "--exec-root", f"/run/{name}", "--pidfile", f"/run/{name}.pid",
            "--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs",
            *(["--add-runtime", f"custom={runtime}", "--default-runtime", "custom"] if runtime else []),
            "--oom-score-adjust", "0", *more,
        ]  # fmt: skip
        known = [line.split(":")[1] for line in sandbox.read("/proc/self/cgroup").splitlines()]
        self.unmounted = sorted(set(",".join(known).split(",")) - sandbox.controllers)
        sandbox.run(["ip", "link", "set", "lo", "up"]).ok()
        # dockerd writes a key there
        script = "mkdir -p /etc/docker; mountpoint -q /etc/docker || mount -t tmpfs tmpfs /etc/docker"
        sandbox.run(["sh", "-c", script]).ok()
        self.begin()

    def begin(self) -> None:
        """Start the daemon and wait until it answers. Raises DaemonError."""
        self.daemon = self.sandbox.start(self.argv)
        end = time.monotonic() + 180
        while self("version").code:
            log = self.sandbox.ask("output", pid=self.daemon.pid)
            if log["code"] is not None or time.monotonic() > end:
                lines = self.daemon.output().error.strip().splitlines() or ["no answer"]
                raise DaemonError(lines[-1])
            time.sleep(0.05)

    def end(self, number: int = 15) -> None:
        """End the daemon with this signal, and wait for it and its containerd."""
        self.daemon.signal(number)
        self.daemon.wait()
        mark = f" /run/{self.socket.rpartition('/')[2].removesuffix('.sock')}/containerd/containerd.toml"
        wait_until(lambda: not any(mark in entry for entry in self.sandbox.look()["processes"]), "containerd's end")

    def load(self, tree: bytes) -> None:
        """Make the image of this tar archive."""
        self.tree = tree
        changes = ["--change", "ENV PATH=/bin IMAGE_VARIABLE=image", "--change", 'CMD ["sh"]', "--change", "WORKDIR /"]
        self("import", *changes, "-", IMAGE, stdin=tree).ok()

    def name(self) -> str:
        """A new name for a container."""
        return f"{self.prefix}{next(self.numbers)}"

    def __call__(self, *words: str, timeout: float = TIMEOUT, stdin: bytes = b"") -> Result:
        """A docker command."""
        return self.sandbox.run([CLIENT, "-H", self.socket, *words], timeout=timeout, stdin=stdin, env=self.env)

    @property
    def env(self) -> dict[str, str]:
        """BuildKit runs its steps with a runtime of its own choice."""
        return {"DOCKER_BUILDKIT": "0"}

    def start(self, *words: str) -> Running:
        """A docker command that is not waited for."""
        return self.sandbox.start([CLIENT, "-H", self.socket, *words], env=self.env, open_stdin=True)

    def on_terminal(self, *words: str, stdin: bytes = b"") -> Result:
        """A docker command whose streams are a terminal. stdin is typed once the program has said the terminal's name:
        whoever puts the terminal into raw mode drops what was typed before.
        """
        line = "stty rows 30 cols 101; exec " + shlex.join([CLIENT, "-H", self.socket, *words])
        running = self.sandbox.start(["sh", "-c", line], env={**self.env, "TERM": "vt100"}, terminal=True)
        if stdin:
            running.wait_for(b"/dev/pts/")
            running.write(stdin)
        return running.wait()

    def run(self, *words: str, options: Sequence[str] = (), **how: Any) -> Result:
        """docker run --rm, with these options, of these words."""
        return self("run", "--rm", "--network", "none", *options, IMAGE, *words, **how)

    def sh(self, script: str, *options: str, **how: Any) -> str:
        """What a shell script in a container prints; it must succeed."""
        return self.run("sh", "-c", script, options=options, **how).ok().text.strip()

    def detached(self, *words: str, options: Sequence[str] = ()) -> str:
        """docker run -d; the name of the container."""
        name = self.name()
        self("run", "-d", "--network", "none", "--name", name, *options, IMAGE, *words).ok()
        return name

    def loop(self, script: str, *options: str) -> str:
        """A detached container that runs this script, says ready, and then idles; its name."""
        name = self.detached("sh", "-c", f"{script}\necho ready; while :; do sleep 0.05; done", options=options)
        self.wait_logs(name, "ready")
        return name

    def inspect(self, name: str) -> dict[str, Any]:
        """docker inspect."""
        found: list[dict[str, Any]] = self("container", "inspect", name).ok().json
        return found[0]

    def state(self, name: str) -> dict[str, Any]:
        """State of docker inspect."""
        found: dict[str, Any] = self.inspect(name)["State"]
        return found

    def wait_status(self, name: str, status: str) -> None:
        """Until the container has this status."""
        wait_until(lambda: self.state(name)["Status"] == status, f"{name} is {status}")

    def wait_logs(self, name: str, text: str) -> None:
        """Until the container has written text."""
        wait_until(lambda: text in self("logs", name).text, f"{text} in the logs of {name}")

    def sh_exec(self, name: str, script: str, *options: str) -> str:
        """What a shell script prints as another process of a container; it must succeed."""
        return self("exec", *options, name, "sh", "-c", script).ok().text.strip()

    def clear(self) -> None:
        """Remove all containers."""
        names = self("ps", "-a", "-q").text.split()
        if names:
            self("rm", "-f", "-v", *names)
