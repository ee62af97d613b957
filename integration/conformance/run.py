"""Run the validation programs of OCI runtime-tools against a runtime and print a table.

    OCI_RUNTIME=/path/to/runtime python3 integration/conformance/run.py [--repeat] [--json FILE] [PROGRAM...]

The programs are built from the released Go module, kept outside the project (build/conformance). known.json holds the
programs that are not expected to pass, and why. Exit status 1 if a program fails that is not in it. Needs root, Go and
busybox-static. The programs use fixed cgroup names: one run at a time.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import kit  # noqa: E402

MODULE = "github.com/opencontainers/runtime-tools"
# The release, with what it was written against: later releases of these have lost functions it calls.
REQUIRE = {
    MODULE: "v0.9.0",
    "github.com/opencontainers/runtime-spec": "v1.0.2",
    "github.com/opencontainers/selinux": "v1.2.2",
    "github.com/urfave/cli": "v1.22.17",
}
TIMEOUT = 60
# Their result depends on who is first: worth a second try before it is believed.
RACY = ("killsig", "poststart", "poststart_fail")


def go() -> str:
    """The Go tool."""
    found = shutil.which("go", path=os.environ.get("PATH", "") + ":/usr/local/go/bin:/usr/lib/go/bin")
    if found is None:
        raise SystemExit("conformance: Go is missing (package golang-go): the validation programs are written in it")
    return found


def build(directory: Path) -> Path:
    """The programs and runtimetest, built once; the directory they are in."""
    programs = directory / "bin"
    stamp = directory / "built"
    wanted = json.dumps(REQUIRE)
    if stamp.is_file() and stamp.read_text() == wanted:
        return programs
    shutil.rmtree(directory, ignore_errors=True)
    programs.mkdir(parents=True)
    tool = go()
    # GOFLAGS: the caller's own may forbid what go get has to do
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOWORK": "off"}

    def run(*words: str) -> None:
        done = subprocess.run(
            [tool, *words], cwd=directory, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(f"conformance: go {words[0]}: {done.stderr.strip()[-2000:]}")

    print("conformance: building the validation programs (once)", flush=True)
    run("mod", "init", "conformance")
    wildcards = [f"{MODULE}/validation/...@{REQUIRE[MODULE]}", f"{MODULE}/cmd/runtimetest@{REQUIRE[MODULE]}"]
    run("get", *wildcards, *(f"{name}@{version}" for name, version in REQUIRE.items() if name != MODULE))
    run("build", "-o", "bin/", f"{MODULE}/validation/...", f"{MODULE}/cmd/runtimetest")
    stamp.write_text(wanted)
    return programs


def architecture() -> str:
    """This machine's name in Go's words."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def make_work(directory: Path, programs: Path) -> None:
    """What the programs look for in their directory: runtimetest and a root file system."""
    shutil.copy(programs / "runtimetest", directory)
    rootfs = directory / "tree"
    kit.make_rootfs(rootfs)
    applets = subprocess.run([kit.busybox(), "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    for applet in applets:
        with contextlib.suppress(FileExistsError):
            (rootfs / "bin" / applet).symlink_to("busybox")
    with tarfile.open(directory / f"rootfs-{architecture()}.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(rootfs, ".")
    shutil.rmtree(rootfs)


class Result:
    """What one program said. words: how it ended."""

    def __init__(self, name: str, good: int, bad: "list[str]", words: str, seconds: float) -> None:
        self.name = name
        self.good = good
        self.bad = bad
        self.words = words
        self.seconds = seconds

    @property
    def passed(self) -> bool:
        """All of it."""
        return self.words == "" and not self.bad


def run_program(program: Path, work: Path) -> Result:
    """Run one program."""
    start = time.monotonic()
    environment = os.environ | {"RUNTIME": kit.RUNTIME, "TMPDIR": str(work / "tmp")}
    words = ""
    nothing = subprocess.DEVNULL
    with tempfile.TemporaryFile("w+", errors="replace") as out:
        process = subprocess.Popen(
            [program],
            cwd=work,
            env=environment,
            stdin=nothing,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=kit.private_mounts,
        )
        try:
            status = process.wait(TIMEOUT)
            words = f"exit status {status}" if status else ""
        except subprocess.TimeoutExpired:
            words = f"no end after {TIMEOUT} s"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        out.seek(0)
        text = out.read()
    logs = kit.ROOT / "build" / "conformance" / "log"
    logs.mkdir(exist_ok=True)
    (logs / f"{program.name}.txt").write_text(text)
    bad = re.findall(r"^\s*not ok \d+(?: - )?(.*)$", text, re.MULTILINE)
    good = len(re.findall(r"^\s*ok \d+", text, re.MULTILINE))
    if good == 0 and not bad:
        # some programs count nothing and only tell what they did not like
        bad = [error.partition("\\n")[0] for error in re.findall(r'"error": "(.*)"', text)]
    if words and not bad:
        bad = [line for line in text.strip().splitlines()[-1:] if not line.lstrip().startswith("ok")]
    return Result(program.name, good, bad, words, time.monotonic() - start)


def unmount(work: Path) -> None:
    """Nothing may be mounted where we are about to remove files."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        where = line.split()[4]
        if where.startswith(f"{work}/"):
            kit.call("umount2", where.encode(), kit.MNT_DETACH)


def state_root() -> Path:
    """Where the runtime keeps its containers; the programs know of no --root."""
    return Path("/run") / Path(kit.RUNTIME).name


def cleanup() -> None:
    """Containers, processes and cgroups that a program left behind. The state root is a private one."""
    for entry in state_root().iterdir():
        command = [kit.RUNTIME, "delete", "--force", entry.name]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    for path, _, _ in os.walk(kit.CGROUPS, topdown=False):
        if "cgrouptest" in path or "/testdir" in path:
            with contextlib.suppress(OSError):
                os.rmdir(path)
    kit.reap()


def show(result: Result, reason: str) -> None:
    """One row."""
    verdict = "ok" if result.passed else "known" if reason else "FAIL"
    detail = reason if not result.passed and reason else "; ".join([*result.bad[:1], result.words]).strip("; ")
    print(f"  {verdict:<6}{result.name:<34}{result.good:>5} ok{len(result.bad):>4} not  {detail[:110]}", flush=True)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="OCI runtime-tools validation")
    parser.add_argument("--json", type=Path, help="write the results to a file")
    parser.add_argument("programs", nargs="*")
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("conformance: needs root")
    programs = build(kit.ROOT / "build" / "conformance")
    known: dict[str, str] = json.loads((HERE / "known.json").read_text())
    names = sorted(path.name for path in programs.iterdir() if path.name != "runtimetest")
    if options.programs:
        names = [name for name in names if name in options.programs]
    kit.adopt_orphans()
    kit.private_mounts()
    state_root().mkdir(mode=0o700, exist_ok=True)
    kit.call("mount", b"tmpfs", str(state_root()).encode(), b"tmpfs", 0, b"mode=700")
    if kit.is_hybrid():
        kit.mount_cgroup_v1(unified=Path(kit.RUNTIME).name != "crun", hugetlb=True)
    results = []
    start = time.monotonic()
    print(f"\n{kit.RUNTIME}, {MODULE} {REQUIRE[MODULE]}, {len(names)} programs\n")
    for name in names:
        with tempfile.TemporaryDirectory(prefix="conformance-") as place:
            work = Path(place)
            work.chmod(0o755)
            (work / "tmp").mkdir(mode=0o755)
            make_work(work, programs)
            result = run_program(programs / name, work)
            if not result.passed and name in RACY:
                cleanup()
                result = run_program(programs / name, work)
            cleanup()
            unmount(work)
        results.append(result)
        show(result, known.get(name, ""))
    passed = [result for result in results if result.passed]
    failed = [result for result in results if not result.passed and result.name not in known]
    good, bad = sum(result.good for result in results), sum(len(result.bad) for result in results)
    print(
        f"\n{len(passed)} of {len(results)} programs pass ({good} ok, {bad} not ok), {time.monotonic() - start:.0f} s"
    )
    for result in passed:
        if result.name in known:
            print(f"passes, although known.json says: {result.name}: {known[result.name]}")
    if failed:
        print("failed and not known: " + " ".join(result.name for result in failed))
    if options.json is not None:
        rows = {r.name: {"passed": r.passed, "ok": r.good, "not_ok": r.bad, "end": r.words} for r in results}
        options.json.write_text(json.dumps(rows, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
