"""The sandbox, seen from outside: start the agent, send it commands, take everything away at the end."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from integration.lib import host
from integration.lib.container import wait_until
from integration.lib.runtime import TIMEOUT, Result

AGENT = Path(__file__).with_name("agent.py")
USERS = {"engine-a": (64101, 400000), "engine-b": (64102, 500000)}  # name: uid, first subordinate id
RUNTIMES = ("ociruntime", "runc", "crun")
STATE_ROOTS = [
    *(f"/run/user/{uid}/{name}" for uid, _ in USERS.values() for name in RUNTIMES),
    "/run/ociruntime",
    "/run/runc",
    "/run/crun",
    "/run/containerd/runc/default",
    "/run/containerd/runc/k8s.io",
    "/run/docker/runtime-runc/moby",
    "/run/docker/runtime-custom/moby",
]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Answer = dict[str, Any]


def hierarchies(only_v2: bool) -> list[tuple[str, str, str, str]]:
    """The host's cgroup hierarchies: (mount point, its place below /sys/fs/cgroup, type, mount options)."""
    by_point: dict[str, list[str]] = {}
    for name, point in host.cgroup_mounts().items():
        if not only_v2 or not name:
            by_point.setdefault(point, []).append(name)
    found = []
    for point, names in sorted(by_point.items()):
        if names == [""]:
            found.append((point, "unified" if len(by_point) > 1 else ".", "cgroup2", ""))
        else:
            named = any(name.startswith("name=") for name in names)
            found.append((point, Path(point).name, "cgroup", ",".join((["none"] if named else []) + sorted(names))))
    return found


def sweep(name: str, points: list[str]) -> None:
    """Remove the groups of earlier sessions that were killed: name holds the PID of a session's process."""
    pattern = re.compile(re.sub(r"\d+", r"(\\d+)", name))
    for point in points:
        for entry in Path(point).iterdir():
            found = pattern.fullmatch(entry.name)
            if found and not Path("/proc", found[1]).exists():
                remove_groups([entry])


def remove_groups(tops: list[Path]) -> None:
    """Remove these groups with all that is below them, as far as nobody lives there."""
    for directory in sorted((directory for top in tops for directory, _, _ in os.walk(top)), reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(directory)


class Running:
    """A command that was started and not waited for."""

    def __init__(self, sandbox: Sandbox, argv: Sequence[str], pid: int) -> None:
        self.sandbox = sandbox
        self.argv = list(argv)
        self.pid = pid

    def output(self) -> Result:
        """What it has written so far; code 0 while it runs."""
        answer = self.sandbox.ask("output", pid=self.pid)
        return as_result(self.argv, {**answer, "code": answer["code"] or 0})

    def ended(self) -> bool:
        """Whether it is over; wait() is still to be called."""
        return self.sandbox.ask("output", pid=self.pid)["code"] is not None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.sandbox.ask("signal", pid=self.pid, number=number)

    def write(self, data: bytes) -> None:
        """To its stdin (started with open_stdin) or typed at its terminal; nothing is the end of stdin."""
        self.sandbox.ask("write", pid=self.pid, data=base64.b64encode(data).decode())

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of its terminal."""
        self.sandbox.ask("resize", pid=self.pid, rows=rows, columns=columns)

    def wait_for(self, text: bytes) -> None:
        """Until it has written this."""
        wait_until(lambda: text in self.output().out, f"{text!r} from {' '.join(self.argv[-4:])}")

    def wait(self, timeout: float = TIMEOUT) -> Result:
        """Its end."""
        return as_result(self.argv, self.sandbox.ask("wait", pid=self.pid, timeout=timeout), timeout)


def as_result(argv: Sequence[str], answer: Answer, timeout: float = 0) -> Result:
    """The agent's answer as what other tests have from a command."""
    out, err = base64.b64decode(answer["out"]), base64.b64decode(answer["err"])
    code = answer["code"]
    if code is None:
        raise AssertionError(f"no end after {timeout} s: {Result(argv, -9, out, err)!r}")
    return Result(argv, code if code >= 0 else 128 - code, out, err)


class Sandbox:
    """Namespaces of its own and a branch of every cgroup hierarchy, with one long-lived process that runs commands.

    only_v2: of the hierarchies of a hybrid machine only cgroup2 is there, as on a machine that has nothing else.
    """

    def __init__(self, work: Path, name: str, only_v2: bool) -> None:
        self.only_v2 = only_v2 or set(host.cgroup_mounts()) == {""}
        self.controllers = host.v2_controllers() if self.only_v2 else set(host.cgroup_mounts())
        self.groups = []
        self.numbers = itertools.count(1)
        self.waiting: dict[int, Future[Answer]] = {0: Future()}
        self.lock = threading.Lock()
        for directory in ("home", "tmp"):
            work.joinpath(directory).mkdir()
        self.env = {"PATH": PATH, "HOME": str(work / "home"), "TMPDIR": str(work / "tmp"), "LC_ALL": "C.UTF-8"}
        table = hierarchies(only_v2)
        sweep(name, [row[0] for row in table])
        for point, _, kind, _ in table:
            group = Path(point, name)
            group.mkdir()
            self.groups.append(group)
            if kind == "cgroup2" and len(table) == 1:
                for controller in Path(point, "cgroup.controllers").read_text().split():
                    with contextlib.suppress(OSError):
                        Path(point, "cgroup.subtree_control").write_text(f"+{controller}")
        settings = {
            "groups": [str(group) for group in self.groups],
            "mounts": [list(row[1:]) for row in table],
            "state": STATE_ROOTS,
            "users": {user: (uid, str(work / user), first) for user, (uid, first) in USERS.items()},
        }
        self.log = work / "agent.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "-m", "-n", "-p", "-i", "-u", "-f", "--kill-child", "--mount-proc", "--propagation",
                 "private", "/usr/bin/python3", "-I", str(AGENT), json.dumps(settings)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=self.env, cwd="/",
            )  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        try:
            self.waiting[0].result(60)
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answer = json.loads(line)
            self.waiting.pop(answer["id"]).set_result(answer)
        for future in list(self.waiting.values()):
            future.set_exception(RuntimeError(f"the sandbox is gone: {self.log.read_text()}"))

    def ask(self, do: str, **request: Any) -> Answer:
        """One request to the agent and its answer; may be called from several threads."""
        future: Future[Answer] = Future()
        assert self.process.stdin is not None
        with self.lock:
            number = next(self.numbers)
            self.waiting[number] = future
            self.process.stdin.write(json.dumps({"id": number, "do": do, **request}).encode() + b"\n")
            self.process.stdin.flush()
        answer = future.result(request.get("timeout", 0) + 60)
        if "failed" in answer:
            raise RuntimeError(f"{do}: {answer['failed']}")
        return answer

    def run(
        self, argv: Sequence[str], *, timeout: float = TIMEOUT, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> Result:
        """Run a command to its end. env: added to the sandbox's own."""
        given = base64.b64encode(stdin).decode()
        answer = self.ask("run", argv=list(argv), timeout=timeout, env={**self.env, **(env or {})}, stdin=given)
        return as_result(argv, answer, timeout)

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        open_stdin: bool = False,
        terminal: bool = False,
    ) -> Running:
        """Start a command; terminal: on a terminal of its own."""
        whole = {**self.env, **(env or {})}
        request = {"argv": list(argv), "env": whole, "open_stdin": open_stdin, "terminal": terminal}
        return Running(self, argv, self.ask("start", **request)["pid"])

    def read(self, path: str) -> str:
        """A file of the sandbox, stripped."""
        return self.run(["cat", path]).ok().text.strip()

    def limit(self, controller: str, v1: str, v2: str) -> str:
        """Where a container sees this file of its cgroup; skips the test when nobody can set it here."""
        if controller not in self.controllers:
            pytest.skip(f"no {controller} controller {'in cgroup2 ' if self.only_v2 else ''}here")
        return f"/sys/fs/cgroup/{v2 if self.only_v2 else f'{controller}/{v1}'}"

    def read_by_containerd(self) -> None:
        """Skip where containerd cannot read cgroups: all v1 hierarchies of /proc/self/cgroup have to be mounted."""
        self.limit("memory", "", "")
        names = {name for line in self.read("/proc/self/cgroup").splitlines() for name in line.split(":")[1].split(",")}
        missing = names - self.controllers - {""}
        if missing and not self.only_v2:
            pytest.skip(f"{', '.join(sorted(missing))}: on a hierarchy mounted nowhere, so containerd reads no cgroup")

    def look(self) -> dict[str, list[str]]:
        """Processes, cgroups, mounts, state of the runtime."""
        return {key: value for key, value in self.ask("look").items() if key != "id"}

    def close(self) -> list[str]:
        """End everything in the sandbox and remove its cgroups; returns what could not be removed."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(60)
        self.process.stdout.close()
        for _ in range(100):
            remove_groups(self.groups)
            left = [str(group) for group in self.groups if group.exists()]
            if not left:
                break
            time.sleep(0.05)
        return left


class Watch:
    """What is in the sandbox before a test, and what has come to it since."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.before = sandbox.look()

    def found(self, settle: float = 30.0) -> list[str]:
        """What is left, after a moment for the engine's own cleaning, which it does in the background."""
        end = time.monotonic() + settle
        while True:
            now = self.sandbox.look()
            report = []
            for kind, entries in now.items():
                if kind == "processes":
                    known = {entry.split()[0] for entry in self.before[kind]}
                    report += [f"process {entry}" for entry in entries if entry.split()[0] not in known]
                else:
                    new = Counter(entries) - Counter(self.before[kind])
                    report += [f"{kind}: {entry}" for entry in new if not kept(kind, entry)]
            if not report or time.monotonic() > end:
                return report
            time.sleep(0.05)

    def check(self) -> None:
        """Fail when anything is left."""
        report = self.found()
        assert not report, "left behind:\n" + "\n".join(report)


def refused(result: Result, code: int, leaks: Watch, *texts: str) -> None:
    """the engine has failed with this status, said these words, and left nothing."""
    assert result.code == code, repr(result)
    for text in texts:
        assert text in result.error, repr(result)
    assert result.out == b""
    leaks.check()


def kept(kind: str, entry: str) -> bool:
    """What engines keep: the parents of their containers' cgroups, the place where network namespaces get names,
    docker's name for the host's own, and podman's mount of its store on itself, which comes and goes. podman leaves its
    monitor's group below a parent that the user chose, so "kept" is all of that one, and in hierarchies without
    controllers the group of a pod (that of a container is named libpod-…).
    """
    if kind == "mounts":
        place = entry.split()[1]
        return place.endswith(("/podman/overlay", "/netns/default")) or place == "/run/netns"
    parents = r"/sys/fs/cgroup(/[^/]+)?/(ctr|default|docker|libpod_parent(/(kept|[0-9a-f]{64})(/conmon)?)?)"
    return kind == "cgroups" and re.fullmatch(parents, entry) is not None
