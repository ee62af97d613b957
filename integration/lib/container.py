"""A container of the runtime under test."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from integration.lib import host, probe as probes
from integration.lib.bundle import CGROUP_PREFIX, PROBE, Bundle
from integration.lib.runtime import TIMEOUT, Result, Runtime


def alive(pid: int) -> bool:
    """Whether this process is there and not a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def wait_until(condition: Any, what: str = "condition", seconds: float = TIMEOUT) -> None:
    """Poll until condition() is true. How long that takes says nothing: the machine may be busy with other things."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.005)


class Container:
    """An ID, a bundle and the runtime. Everything it makes is taken away by destroy()."""

    def __init__(self, runtime: Runtime, bundle: Bundle, container_id: str, work: Path) -> None:
        self.runtime = runtime
        self.bundle = bundle
        self.id = container_id
        self.pid_file = work / f"{container_id}.pid"
        self.output_file = work / f"{container_id}.out"
        self.error_file = work / f"{container_id}.err"
        self.pid = 0
        self.status: int | None = None
        self.used = False
        linux = bundle.config["linux"]
        if linux.get("cgroupsPath") == f"/{CGROUP_PREFIX}/{bundle.path.parent.name}-{bundle.path.name}":
            linux["cgroupsPath"] = f"/{CGROUP_PREFIX}/{container_id}"

    # -- commands --

    def command(self, verb: str, *flags: str, options: Sequence[str] = (), **how: Any) -> Result:
        """runtime VERB FLAGS ID."""
        return self.runtime(verb, *flags, self.id, options=options, **how)

    def create(self, *flags: str, check: bool = True, pid_file: bool = True, **how: Any) -> Result:
        """create; the container's streams go to files (see output). Remembers the PID of the pid file."""
        self.bundle.write()
        self.used = True
        words = ["--bundle", str(self.bundle.path), *(("--pid-file", str(self.pid_file)) if pid_file else ()), *flags]
        with self.output_file.open("wb") as out, self.error_file.open("wb") as err:
            how.setdefault("stdout", out)
            how.setdefault("stderr", err)
            result = self.command("create", *words, **how)
        if result.code == 0 and pid_file and self.pid_file.exists():
            self.pid = int(self.pid_file.read_text() or 0)
        result.err += self.error_file.read_bytes()
        result.out += self.output_file.read_bytes()
        return result.ok() if check else result

    def start(self, check: bool = True, **how: Any) -> Result:
        """start."""
        result = self.command("start", **how)
        return result.ok() if check else result

    def kill(self, *signal_words: str, check: bool = True, flags: Sequence[str] = ()) -> Result:
        """kill ID [SIGNAL]."""
        result = self.runtime("kill", *flags, self.id, *signal_words)
        return result.ok() if check else result

    def delete(self, *flags: str, check: bool = True, **how: Any) -> Result:
        """delete."""
        result = self.command("delete", *flags, **how)
        return result.ok() if check else result

    def state(self) -> dict[str, Any]:
        """state, parsed."""
        document: dict[str, Any] = self.command("state").ok().json
        return document

    def run(self, *flags: str, check: bool = False, **how: Any) -> Result:
        """run in the foreground, to its end."""
        self.bundle.write()
        self.used = True
        result = self.command("run", "--bundle", str(self.bundle.path), *flags, **how)
        return result.ok() if check else result

    def probe(self, *commands: str | Sequence[str], **how: Any) -> list[probes.Reply]:
        """Run these commands of the probe in the foreground and return the replies."""
        if commands:
            self.bundle.args(*commands)
        result = self.run(**how)
        assert result.code == 0, f"{result!r}"
        return result.replies

    def report(self, **how: Any) -> probes.Reply:
        """Run the probe's report."""
        return self.probe("report", **how)[0]

    def begin(self, *commands: str | Sequence[str]) -> Container:
        """create and start, and wait until the last command before the waiting one has replied."""
        if commands:
            self.bundle.args(*commands)
        self.create()
        self.start()
        self.wait_replies(max(1, len(commands)))
        return self

    def execute(self, *commands: str | Sequence[str], flags: Sequence[str] = (), **how: Any) -> Result:
        """exec: run these commands of the probe in the container."""
        return self.runtime("exec", *flags, self.id, PROBE, *probes.chain(commands), **how)

    # -- what it says and how it ends --

    @property
    def output(self) -> bytes:
        """What the created container has printed so far: whole lines, it may be in the middle of one."""
        data = self.output_file.read_bytes()
        return data[: data.rfind(b"\n") + 1]

    @property
    def replies(self) -> list[probes.Reply]:
        """The probe's replies so far."""
        return probes.parse(self.output)

    def wait_replies(self, count: int) -> list[probes.Reply]:
        """Wait until the probe has replied so often."""
        wait_until(lambda: len(self.replies) >= count, f"{count} replies of the probe")
        return self.replies

    def wait(self) -> int:
        """Wait for the end of init, which is our child (we are the subreaper). Status as a shell has it."""
        if self.status is None:
            end = time.monotonic() + TIMEOUT
            while True:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    break
                assert time.monotonic() < end, f"init {self.pid} is still there after {TIMEOUT} s"
                time.sleep(0.003)
            self.status = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        return self.status

    def wait_dead(self) -> None:
        """Wait until init is dead, but leave the zombie."""
        wait_until(lambda: not alive(self.pid), f"end of {self.pid}")

    def finish(self, signal_name: str = "KILL") -> int:
        """Kill it and wait for its end."""
        self.kill(signal_name)
        return self.wait()

    # -- the end --

    def reap(self) -> None:
        """Collect init when it is dead and our child."""
        if self.pid and self.status is None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)

    def destroy(self) -> None:
        """delete --force when there is anything left."""
        if self.used and (self.runtime.root / self.id).exists():
            self.command("delete", "--force")
        if self.pid and self.status is None and alive(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.reap()
        self.pid_file.unlink(missing_ok=True)


def last_descendant(pid: int, name: str) -> int:
    """The PID at the end of a chain of children, once its command has this name."""
    found = [pid]

    def there() -> bool:
        found[:] = [pid]
        while children := Path(f"/proc/{found[0]}/task/{found[0]}/children").read_text().split():
            found[:] = [int(children[0])]
        return Path(f"/proc/{found[0]}/comm").read_text() == f"{name}\n"

    wait_until(there, what=name)
    return found[0]


def v2_directory(container: Container) -> Path:
    """The container's cgroup on cgroup v2."""
    return Path(host.cgroup_mounts()[""] + container.bundle.config["linux"]["cgroupsPath"])
