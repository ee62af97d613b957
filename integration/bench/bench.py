"""Time the commands of ociruntime, runc and crun (what is installed), alternating, and compare their memory.

    python3 integration/bench/bench.py [--count N] [--seccomp off|docker|both] [--view host|v2] [RUNTIME...]

One round per runtime and count: a container that sleeps is created, started, looked at, killed and deleted; another
goes through create, start and delete as a whole ("cycle"); a third through run. Times are medians in milliseconds of
the command alone, spawn to exit. --view v2: all runtimes see cgroup v2 only, in a private mount namespace.
"""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

import kit  # noqa: E402
from kit import ROOT  # noqa: E402

from ociruntime.config.default import default_config  # noqa: E402

OPERATIONS = ("create", "start", "state", "kill", "delete", "cycle", "run")
COMMANDS = ("create", "start", "state", "kill", "delete", "run")
TIMEOUT = 10


class RuntimeFailedError(Exception):
    """A runtime's command that should have worked."""


class Timer:
    """The spawning process (timer.c)."""

    def __init__(self, executable: Path, keep: "tuple[int, ...]") -> None:
        self.process = subprocess.Popen(
            [executable], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=keep
        )

    def run(self, namespace: int, words: "list[str]") -> "tuple[float, int, int]":
        """Milliseconds, exit status, peak RSS in KiB of one command."""
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the timer has no pipes")
        stdin.write("\x1f".join([str(namespace), *words]) + "\n")
        stdin.flush()
        answer = stdout.readline().split()
        if len(answer) != 3:
            raise SystemExit(f"bench: the timer ended at {' '.join(words)}")
        return int(answer[0]) / 1e6, int(answer[1]), int(answer[2])


class Runtime:
    """One runtime: what was measured of it."""

    def __init__(self, path: str, namespace: int) -> None:
        self.path = path
        self.name = Path(path).name
        self.namespace = namespace
        self.times: dict[str, list[float]] = {operation: [] for operation in OPERATIONS}
        self.peak: dict[str, int] = dict.fromkeys(COMMANDS, 0)
        self.init: list[tuple[int, int]] = []


def make_bundle(directory: Path, arguments: "list[str]", *, cgroup_v2: bool, seccomp: bool) -> Path:
    """A bundle of busybox with the default config.json; seccomp: with the profile that docker gives its containers."""
    rootfs = directory / "rootfs"
    kit.make_rootfs(rootfs)
    config = default_config(rootless=False, cgroup_v2=cgroup_v2, euid=0, egid=0)
    config["process"]["terminal"] = False
    config["ociVersion"] = "1.0.2"  # old releases refuse what is newer than they are
    config["process"]["args"] = arguments
    if seccomp:
        docker = json.loads((ROOT / "tests" / "data" / "docker-config.json").read_text())
        config["linux"]["seccomp"] = docker["linux"]["seccomp"]
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def smaps(pid: int) -> "tuple[int, int]":
    """RSS and private memory of a process in KiB."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, _, value = line.partition(":")
        sizes[key] = int(value.split()[0])
    return sizes["Rss"], sizes["Private_Clean"] + sizes["Private_Dirty"]


class Bench:
    """One table: a view, with or without seccomp."""

    def __init__(self, timer: Timer, runtimes: "list[Runtime]", directory: Path, pause: float) -> None:
        self.timer = timer
        self.runtimes = runtimes
        self.directory = directory
        self.pause = pause
        self.number = 0

    def command(self, runtime: Runtime, verb: str, *words: str, keep: bool = True) -> float:
        """Run one command; its time, also noted with the runtime."""
        if self.pause:
            time.sleep(self.pause)
        took, status, peak = self.timer.run(runtime.namespace, [runtime.path, verb, *words])
        if status != 0:
            raise RuntimeFailedError(f"{runtime.name} {verb}: exit status {status}")
        if keep:
            runtime.times[verb].append(took)
        runtime.peak[verb] = max(runtime.peak[verb], peak)
        return took

    def ended(self, pid: int) -> None:
        """Wait until a container's init has ended, and reap it."""
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            try:
                if os.waitpid(pid, os.WNOHANG)[0] == pid:
                    return
            except ChildProcessError:
                if not Path(f"/proc/{pid}").exists():
                    return
            time.sleep(0.0005)
        raise SystemExit(f"bench: process {pid} does not end")

    def create(self, runtime: Runtime, bundle: Path, container: str, *, keep: bool) -> "tuple[float, int]":
        """Create a container: the time, and the pid of its init."""
        pid_file = self.directory / "pid"
        took = self.command(
            runtime, "create", "--bundle", str(bundle), "--pid-file", str(pid_file), container, keep=keep
        )
        return took, int(pid_file.read_text())

    def round(self, runtime: Runtime, sleeping: Path, short: Path, *, keep: bool) -> None:
        """Everything once. keep: note the times."""
        self.number += 1
        container = f"bench-{os.getpid()}-{self.number}"
        try:
            _, pid = self.create(runtime, sleeping, container, keep=keep)
            if keep:
                runtime.init.append(smaps(pid))
            self.command(runtime, "start", container, keep=keep)
            self.command(runtime, "state", container, keep=keep)
            self.command(runtime, "kill", container, "KILL", keep=keep)
            self.ended(pid)
            self.command(runtime, "delete", container, keep=keep)

            took, pid = self.create(runtime, short, container, keep=False)
            took += self.command(runtime, "start", container, keep=False)
            self.ended(pid)
            took += self.command(runtime, "delete", container, keep=False)
            if keep:
                runtime.times["cycle"].append(took)

            self.command(runtime, "run", "--bundle", str(short), container, keep=keep)
        except BaseException:
            self.timer.run(runtime.namespace, [runtime.path, "delete", "--force", container])
            for path, _, _ in list(os.walk("/sys/fs/cgroup", topdown=False)):
                if container in path:
                    with contextlib.suppress(OSError):
                        os.rmdir(path)
            raise

    def measure(self, count: int, *, cgroup_v2: bool, seccomp: bool) -> None:
        """count rounds for each runtime, alternating; the first two are for warming up."""
        with tempfile.TemporaryDirectory(prefix="bench-", dir=self.directory) as name:
            made = [
                make_bundle(Path(name) / kind, arguments, cgroup_v2=cgroup_v2, seccomp=seccomp)
                for kind, arguments in (
                    ("sleeping", ["/bin/busybox", "sleep", "1000"]),
                    ("short", ["/bin/busybox", "true"]),
                )
            ]
            for index in range(-2, count):
                shift = index % max(len(self.runtimes), 1)
                for runtime in self.runtimes[shift:] + self.runtimes[:shift]:
                    try:
                        self.round(runtime, *made, keep=index >= 0)
                    except RuntimeFailedError as error:
                        if index >= 0:
                            raise SystemExit(f"bench: {error}") from None
                        print(f"bench: left out: {error}")
                        self.runtimes.remove(runtime)


def show(runtimes: "list[Runtime]") -> None:
    """The table: medians, then the first runtime's ratio to each of the others."""
    first, others = runtimes[0], runtimes[1:]
    heads = [f"{runtime.name:>12}" for runtime in runtimes] + [f"{'/ ' + other.name:>12}" for other in others]
    print(f"  {'median ms':<22}" + "".join(heads) + f"{'min ' + first.name:>18}")
    for operation in OPERATIONS:
        medians = [statistics.median(runtime.times[operation]) for runtime in runtimes]
        cells = [f"{median:12.2f}" for median in medians] + [f"{medians[0] / other:12.2f}" for other in medians[1:]]
        print(f"  {operation:<22}" + "".join(cells) + f"{min(first.times[operation]):18.2f}")
    for verb in ("create", "state", "run"):
        cells = [f"{runtime.peak[verb] / 1024:12.1f}" for runtime in runtimes]
        print(f"  {f'peak RSS {verb}, MiB':<22}" + "".join(cells))
    for index, what in enumerate(("init RSS, KiB", "init private, KiB")):
        cells = [f"{statistics.median(sizes[index] for sizes in runtime.init):12.0f}" for runtime in runtimes]
        print(f"  {what:<22}" + "".join(cells))


def crun_namespace() -> int:
    """A mount namespace for crun, without the v2 part of hybrid cgroups, which it refuses; 0: needless."""
    if not kit.is_hybrid():
        return 0
    ready, told = os.pipe()
    done, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(tell)
        answer = b"y"
        try:
            kit.private_mounts()
            kit.mount_cgroup_v1(unified=False, hugetlb=False)
        except OSError as error:
            print(f"bench: {error}", file=sys.stderr)
            answer = b"n"
        os.write(told, answer)
        os.read(done, 1)
        os._exit(0)
    namespace = os.open(f"/proc/{child}/ns/mnt", os.O_RDONLY) if os.read(ready, 1) == b"y" else 0
    os.close(tell)
    os.waitpid(child, 0)
    for fd in (ready, told, done):
        os.close(fd)
    return namespace


def find(names: "list[str]") -> "list[str]":
    """Absolute paths of the runtimes that are there."""
    paths = []
    for name in names:
        path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if path is None:
            print(f"bench: {name} is not installed")
        else:
            paths.append(os.path.abspath(path))
    return paths


def trace(directory: Path, count: int, *, cgroup_v2: bool, seccomp: bool) -> None:
    """Where the time of create goes: medians of the parent's phases and of the init process's ops, by the library."""
    from ociruntime import Runtime as Library
    from ociruntime.lifecycle.create import create
    from ociruntime.lifecycle.request import CreateRequest
    from ociruntime.log import Log

    library = Library(str(directory / "state"), log=Log(level=40))
    bundle = make_bundle(directory / "traced", ["/bin/busybox", "true"], cgroup_v2=cgroup_v2, seccomp=seccomp)
    phases: dict[str, list[float]] = {}
    ops: dict[str, list[float]] = {}
    for number in range(count):
        name = f"traced-{os.getpid()}-{number}"
        done = create(library, CreateRequest(str(bundle), name, trace=True))
        os.close(done.pidfd)
        library.delete(name, force=True)
        if number == 0:
            continue  # it imports what it needs
        for (_, start), (what, end) in itertools.pairwise(done.phases):
            phases.setdefault(what, []).append((end - start) / 1e3)
        sums: dict[str, float] = {}
        for op, start, end in done.trace:
            sums[op.kind] = sums.get(op.kind, 0) + (end - start) / 1e3
        for kind, spent in sums.items():
            ops.setdefault(kind, []).append(spent)
    print("\n  the parent, median us (the interpreter's start and imports come before: about 4 ms)")
    for what, values in phases.items():
        print(f"  {what:55} {statistics.median(values):8.0f}")
    print("\n  the init process, median us per kind of op (in parallel with the parent; sync is waiting for it)")
    for kind, values in sorted(ops.items(), key=lambda item: -statistics.median(item[1])):
        print(f"  {kind:55} {statistics.median(values):8.0f}")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="compare the commands of OCI runtimes")
    parser.add_argument("--count", type=int, default=30, help="rounds (30)")
    parser.add_argument("--seccomp", choices=("off", "docker", "both"), default="both")
    parser.add_argument("--view", choices=("host", "v2"), default="host")
    parser.add_argument("--pause", type=float, default=10, help="ms of quiet before each command (10)")
    parser.add_argument("--json", type=Path, help="also write all times to a file")
    parser.add_argument("--trace", action="store_true", help="instead: where the time of our create goes")
    parser.add_argument("runtimes", nargs="*", default=[kit.RUNTIME, "runc", "crun"])
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root")
    paths = find(options.runtimes)
    if not paths:
        return 1
    build = ROOT / "build" / "bench"
    build.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-O2", "-o", build / "timer", HERE / "timer.c"], check=True)
    kit.adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if options.view == "v2":
        kit.private_mounts()
        kit.mount_cgroup_v2()
    if options.trace:
        with tempfile.TemporaryDirectory(prefix="ociruntime-bench-") as name:
            seccomp = options.seccomp != "off"
            trace(Path(name), options.count, cgroup_v2=options.view == "v2", seccomp=seccomp)
        return 0
    own_view = 0
    if options.view == "host" and any(Path(path).name == "crun" for path in paths):
        own_view = crun_namespace()
    timer = Timer(build / "timer", (own_view,) if own_view else ())
    results = {}
    with tempfile.TemporaryDirectory(prefix="ociruntime-bench-") as name:
        for seccomp in {"off": (False,), "docker": (True,), "both": (False, True)}[options.seccomp]:
            runtimes = [Runtime(path, own_view if Path(path).name == "crun" else 0) for path in paths]
            bench = Bench(timer, runtimes, Path(name), options.pause / 1000)
            cgroup_v2 = options.view == "v2" or Path("/sys/fs/cgroup/cgroup.controllers").exists()
            bench.measure(options.count, cgroup_v2=cgroup_v2, seccomp=seccomp)
            title = "docker's seccomp profile" if seccomp else "no seccomp"
            print(f"\n{options.count} rounds, {title}, cgroups: {'v2' if cgroup_v2 else 'as on the host'}\n")
            if runtimes:
                show(runtimes)
            results[title] = {runtime.name: runtime.times for runtime in runtimes}
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
