"""Run a container and show it beside the host; then show that the host is as it was.

    OCI_RUNTIME=/path/to/runtime python3 integration/demo/demo.py

Needs root and Debian's busybox-static; nothing is downloaded. Exit status 1 if anything is not as it should be.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import kit

RUNTIME = kit.RUNTIME
TIMEOUT = 30
APPLETS = ("cat", "echo", "grep", "hostname", "id", "ls", "mount", "ps", "readlink", "sh", "sleep", "wc")
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
WIDTH = 44

# Printed inside the container and, by the host's busybox, outside: one fact per line.
FACTS = """
echo "PID $$"
echo "hostname $(hostname)"
echo "user $(id -u):$(id -g)"
for ns in cgroup ipc mnt net pid time user uts; do echo "$ns namespace $(readlink /proc/self/ns/$ns)"; done
echo "processes $(ls /proc | grep -c '^[0-9]')"
echo "network $(grep -c : /proc/net/dev) device(s)"
echo "capabilities $(grep CapEff /proc/self/status | grep -o '[0-9a-f]*$')"
echo "seccomp $(grep '^Seccomp:' /proc/self/status | grep -o '[0-9]*$')"
echo "no_new_privs $(grep '^NoNewPrivs:' /proc/self/status | grep -o '[0-9]*$')"
while read -r _ _ _ _ where _ rest; do rest=" $rest"; echo "mount $where ${rest##* - }"; done </proc/self/mountinfo
"""


def make_bundle(directory: Path) -> None:
    """A bundle made of one static program: rootfs with busybox, and the runtime's own default config.json."""
    rootfs = directory / "rootfs"
    kit.make_rootfs(rootfs, APPLETS)
    (rootfs / "demo.sh").write_text(FACTS)
    runtime("spec", "--bundle", str(directory))
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config["hostname"] = "first-light"
    config["root"]["readonly"] = True
    config["process"]["terminal"] = False
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    config["process"]["args"] = ["/bin/sh", "/demo.sh"]
    # A default configuration leaves out user and time, and cgroup where cgroups are v1.
    linux = config["linux"]
    kinds = {entry["type"] for entry in linux["namespaces"]}
    linux["namespaces"] += [{"type": kind} for kind in ("cgroup", "time", "user") if kind not in kinds]
    for key in ("uidMappings", "gidMappings"):
        linux[key] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    path.write_text(json.dumps(config, indent=2))


def runtime(*arguments: str, quiet: bool = False) -> str:
    """Run the runtime; its standard output. What it says on stderr goes to ours, and a failure ends the demo."""
    # Files, not pipes: the container of a `create` outlives the command and would hold a pipe open.
    with tempfile.TemporaryFile("w+") as out:
        done = subprocess.run(
            [RUNTIME, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.DEVNULL if quiet else None,
            timeout=TIMEOUT,
            check=False,
        )
        out.seek(0)
        text = out.read()
    if done.returncode != 0 and not quiet:
        raise SystemExit(f"demo: {' '.join([RUNTIME, *arguments])}: exit status {done.returncode}")
    return text


Facts = dict[str, str]


def parse(text: str) -> "tuple[Facts, list[str]]":
    """The lines of FACTS -> facts by name, and the mounts."""
    facts: Facts = {}
    mounts = []
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "mount":
            where, kind = value.split(" ")[:2]
            mounts.append(f"{where}  ({kind})")
        elif value.startswith("namespace "):
            facts[f"{name} ns"] = value.removeprefix("namespace ")
        else:
            facts[name] = value
    return facts, mounts


def host_facts() -> str:
    """FACTS, seen from the host."""
    command = [kit.busybox(), "sh", "-c", FACTS]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT, check=True).stdout


def row(name: str, container: str, host: str) -> None:
    """One row of the table."""
    print(f"  {name:<13}| {container[:WIDTH]:<{WIDTH}} | {host[:WIDTH]}")


def table(inside: str, outside: str) -> "Iterator[str]":
    """Print container and host side by side; yields what is wrong."""
    container, container_mounts = parse(inside)
    host, host_mounts = parse(outside)
    row("", "container", "host")
    print(f"  {'-' * 13}+-{'-' * WIDTH}-+-{'-' * WIDTH}")
    for name, value in container.items():
        other = host.get(name, "")
        row(name, value, "the same" if value == other and name.endswith(" ns") else other)
    row("mounts", f"{len(container_mounts)}:", f"{len(host_mounts)}, among them:")
    height = max(len(container_mounts), 1)
    for index in range(height):
        row("", *(mounts[index] if index < len(mounts) else "" for mounts in (container_mounts, host_mounts)))
    if container.get("PID") != "1":
        yield f"the container's first process is not PID 1 but {container.get('pid')}"
    if container.get("hostname") != "first-light":
        yield "the container does not have its own hostname"
    if container.get("user") != "1000:1000":
        yield "the container runs as the wrong user"
    for name in NAMESPACES:
        if container.get(f"{name} ns") == host.get(f"{name} ns"):
            yield f"the container shares the {name} namespace with the host"


Snapshot = dict[str, set[str]]


def state_root() -> Path:
    """Where the runtime keeps its state by default."""
    return Path("/run") / Path(RUNTIME).name


def descendants() -> "set[str]":
    """Our children and theirs: also what a container left without a parent, see adopt_orphans()."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                parents[int(entry.name)] = (int(rest.split()[1]), name)
    ours = {os.getpid()}
    while found := {pid for pid, (parent, _) in parents.items() if parent in ours} - ours:
        ours |= found
    return {f"{pid} {parents[pid][1]}" for pid in ours if pid in parents and pid != os.getpid()}


def device_node(path: Path) -> str:
    """Name, type, owner and number of what is in /dev."""
    info = path.lstat()
    return f"{path} {info.st_mode:o} {info.st_uid}:{info.st_gid} {info.st_rdev:x}"


def snapshot() -> Snapshot:
    """All that a container could leave behind on the host."""
    root = state_root()
    return {
        "mounts": set(Path("/proc/self/mountinfo").read_text().splitlines()),
        "cgroups": {path for path, _, _ in os.walk("/sys/fs/cgroup")},
        f"containers in {root}": set(os.listdir(root)) if root.is_dir() else set(),
        "device nodes": {device_node(path) for path in Path("/dev").iterdir()},
        "processes": descendants(),
    }


def compare(before: Snapshot, after: Snapshot, marks: "tuple[str, ...]") -> "Iterator[str]":
    """Print what became of the host; yields what is ours (has one of the marks in its name) and was left behind."""
    for name, old in before.items():
        new = after[name]
        left = new - old
        ours = {item for item in left if name in ("processes", "device nodes") or any(mark in item for mark in marks)}
        words = "identical"
        if ours:
            words = f"{len(ours)} left by the container"
        elif new != old:
            words = "nothing of the container (others changed theirs meanwhile)"
        print(f"  {name:<31}{len(old):>5} before {len(new):>5} after   {words}")
        for item in sorted(ours):
            yield f"left behind: {name}: {item}"


def main() -> int:
    """Command line."""
    if os.geteuid() != 0:
        raise SystemExit("demo: needs root")
    container_id = f"demo-{os.getpid()}"
    wrong: list[str] = []
    kit.adopt_orphans()
    # Debian's runc and crun would otherwise leave their first state directory, and so a difference
    state_root().mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ociruntime-demo-") as name:
        bundle = Path(name)
        bundle.chmod(0o755)
        make_bundle(bundle)
        before = snapshot()
        print(f"\n{RUNTIME} run --bundle {bundle} {container_id}\n")
        try:
            inside = runtime("run", "--bundle", str(bundle), container_id)
            wrong += table(inside, host_facts())
            print(f"\n{RUNTIME} create, start, delete\n")
            wrong += steps(bundle, container_id)
        finally:
            runtime("delete", "--force", container_id, quiet=True)
        print("\nThe host after it:\n")
        wrong += compare(before, snapshot(), (container_id, bundle.name))
    for sentence in wrong:
        print(f"\ndemo: {sentence}", file=sys.stderr)
    print("\ndemo: " + ("not as it should be" if wrong else "as it should be"))
    return 1 if wrong else 0


def steps(bundle: Path, container_id: str) -> "Iterator[str]":
    """The same container in the steps that an engine takes; yields what is wrong."""
    runtime("create", "--bundle", str(bundle), container_id)
    state = json.loads(runtime("state", container_id))
    pid = state["pid"]
    print(f"  after create   {state['status']:<9} pid {pid} waits in {os.readlink(f'/proc/{pid}/exe')}")
    if state["status"] != "created":
        yield f"after create the status is {state['status']}"
    runtime("start", container_id)
    end = time.monotonic() + TIMEOUT
    while (state := json.loads(runtime("state", container_id)))["status"] != "stopped" and time.monotonic() < end:
        time.sleep(0.05)
    print(f"  after start    {state['status']}")
    if state["status"] != "stopped":
        yield f"the program does not end: {state['status']}"
    runtime("delete", container_id)
    kit.reap()
    print("  after delete   gone")


if __name__ == "__main__":
    sys.exit(main())
