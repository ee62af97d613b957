"""podman where systemd is the cgroup manager: as root, and as a user in that user's own slice. Needs such a machine."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from integration.conftest import TOKEN
from integration.lib import host
from integration.lib.container import wait_until
from integration.lib.runtime import Result, Runtime, run

pytestmark = pytest.mark.requires("systemd", "file:/usr/bin/podman", "file:/bin/busybox")

IMAGE = "localhost/it-bb"
MIB = 1 << 20
CGROUPS = Path("/sys/fs/cgroup")
LIMITS = ["--memory=64m", "--memory-swap=64m", "--cpus=0.5", "--pids-limit=50", "--cpuset-cpus=0"]
FILES = ["memory.max", "memory.swap.max", "cpu.max", "pids.max", "cpuset.cpus"]
PROPERTIES = ["ActiveState", "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec", "AllowedCPUs", "Slice"]
VALUES = [str(64 * MIB), "0", "50000 100000", "50", "0"]


@cache
def archive() -> Path:
    """A root file system of busybox for podman import."""
    path = Path(f"/run/{TOKEN}-bb.tar")
    applets = "sh cat echo sleep tail id mknod head ls true grep trap".split()
    with tarfile.open(path, "w") as tar:
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "run"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add("/bin/busybox", "bin/busybox")
        for name in applets:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        for name, data in (("etc/passwd", b"root:x:0:0::/:/bin/sh\n"), ("etc/group", b"root:x:0:\n")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    path.chmod(0o644)
    return path


class Podman:
    """podman of root (uid 0) or of a user, run by that one's systemd, so nothing of the tests is inherited."""

    def __init__(self, uid: int, runtime: str, manager: str = "systemd") -> None:
        self.uid = uid
        self.before: list[str] = []
        if uid:
            place = f"/run/user/{uid}"
            bus = [f"XDG_RUNTIME_DIR={place}", f"DBUS_SESSION_BUS_ADDRESS=unix:path={place}/bus"]
            self.before = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--init-groups", "env", *bus]
        self.user = ["--user"] if uid else []
        self.options = [f"--runtime={runtime}", f"--cgroup-manager={manager}"]

    def __call__(self, *words: str) -> Result:
        """podman WORDS. It takes a caller that has INVOCATION_ID for a service, and then leaves conmon in that one's
        cgroup, to die with it.
        """
        place = [*self.before, "systemd-run", *self.user, "--quiet", "--pipe", "--wait", "--collect"]
        return run([*place, "--working-directory=/", "env", "-u", "INVOCATION_ID", "podman", *self.options, *words])

    def systemctl(self, *words: str) -> str:
        """What systemctl of the same manager prints."""
        return run([*self.before, "systemctl", *self.user, "--no-pager", *words]).text

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit."""
        lines = self.systemctl("show", unit, *(f"-p{name}" for name in names)).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def load(self) -> None:
        """Have the image; what podman makes at its first use is there, too."""
        if self("image", "exists", IMAGE).code != 0:
            self("import", "--quiet", "--change=CMD=/bin/sh", str(archive()), IMAGE).ok()


@pytest.fixture(scope="session")
def users() -> Iterator[dict[str, int]]:
    """The users that podman is run by."""
    yield {"root": 0, "rootless": host.systemd_user()}
    archive().unlink()


@pytest.fixture(params=["root", "rootless"])
def podman(request: pytest.FixtureRequest, users: dict[str, int], runtime: Runtime) -> Iterator[Podman]:
    """podman with the image loaded; leaves no container."""
    uid = users[request.param]
    if request.param == "rootless" and not uid:
        pytest.skip("no user has a systemd manager of its own here")
    made = Podman(uid, runtime.path)
    made.load()
    yield made
    made("rm", "--all", "--force", "--time=0")


def cgroups_of(container_id: str) -> list[Path]:
    """Directories that a container has in the hierarchy."""
    return [path for path in CGROUPS.rglob(f"*{container_id}*") if path.is_dir()]


def test_limits_inside(podman: Podman) -> None:
    """run --rm: the limits are in force where the program looks, and its status is podman's [G6, B1, B2, B5, B13]."""
    script = "cd /sys/fs/cgroup; cat " + " ".join(FILES) + "; cat /proc/self/cgroup; exit 7"
    done = podman("run", "--rm", "--network=none", *LIMITS, IMAGE, "sh", "-c", script)
    assert done.code == 7, f"{done!r}"
    assert done.text.splitlines() == [*VALUES, "0::/"]


def test_life(podman: Podman) -> None:
    """run -d: a scope with the limits as its properties, which daemon-reload leaves in force; exec, update, stats,
    pause; it goes with the container [G6, D11, D12, D16, K11, K12, K13].
    """
    script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.2; done"
    container_id = podman("run", "--detach", "--network=none", *LIMITS, IMAGE, "sh", "-c", script).ok().text.strip()
    unit = f"libpod-{container_id}.scope"
    assert podman.show(unit, *PROPERTIES) == {
        "ActiveState": "active",
        "MemoryMax": str(64 * MIB),
        "TasksMax": "50",
        "CPUQuotaPerSecUSec": "500ms",
        "AllowedCPUs": "0",
        "Slice": "user.slice" if podman.uid else "machine.slice",
    }
    group = CGROUPS / podman.show(unit, "ControlGroup")["ControlGroup"].strip("/")
    podman.systemctl("daemon-reload")
    assert [(group / name).read_text().strip() for name in FILES] == VALUES
    inside = podman("exec", container_id, "sh", "-c", "cat /sys/fs/cgroup/memory.max; echo x >/dev/null && echo ok")
    assert inside.ok().text.splitlines() == [str(64 * MIB), "ok"]

    podman("update", "--memory=96m", "--cpus=0.25", container_id).ok()
    podman.systemctl("daemon-reload")
    assert podman.show(unit, "MemoryMax", "CPUQuotaPerSecUSec", "TasksMax") == {
        "MemoryMax": str(96 * MIB),
        "CPUQuotaPerSecUSec": "250ms",
        "TasksMax": "50",
    }
    assert (group / "memory.max").read_text().strip() == str(96 * MIB)
    assert (group / "cpu.max").read_text().strip() == "25000 100000"
    (stats,) = json.loads(podman("stats", "--no-stream", "--format=json", container_id).ok().text)
    assert stats["id"] == container_id[:12]
    assert not stats["mem_usage"].startswith("0B")

    podman("pause", container_id).ok()
    assert any("frozen 1" in path.read_text() for path in group.rglob("cgroup.events"))
    podman("unpause", container_id).ok()
    podman("stop", "--time=60", container_id).ok()
    assert podman("wait", container_id).ok().text.strip() == "3"
    podman("rm", container_id).ok()
    wait_until(lambda: not cgroups_of(container_id), "the end of the cgroups")
    assert podman.show(unit, "LoadState", "ActiveState") == {"LoadState": "not-found", "ActiveState": "inactive"}


def test_out_of_memory(podman: Podman) -> None:
    """A program that takes more than its limit is killed [B1]. (That conmon notices in time is not for us to say.)"""
    limits = ["--memory=24m", "--memory-swap=24m"]
    done = podman("run", "--rm", "--network=none", *limits, IMAGE, "tail", "/dev/zero")
    assert done.code == 137, f"{done!r}"


def test_failures(podman: Podman) -> None:
    """A program that cannot be run: podman's status, and no scope is left [A4, G6]."""
    assert podman("run", "--rm", "--network=none", IMAGE, "/not/there").code == 127
    assert podman("run", "--rm", "--network=none", IMAGE, "/etc/passwd").code == 126
    # conmon, which has a scope of its own, may end a little later than podman
    listing = ("list-units", "--all", "--no-legend", "libpod-*")
    wait_until(lambda: not podman.systemctl(*listing).strip(), "the end of the scopes")


def test_cgroupfs(runtime: Runtime) -> None:
    """The same limits with --cgroup-manager cgroupfs on a machine run by systemd [G6]."""
    podman = Podman(0, runtime.path, "cgroupfs")
    podman.load()
    script = "cd /sys/fs/cgroup; cat " + " ".join(FILES)
    done = podman("run", "--rm", "--network=none", *LIMITS, IMAGE, "sh", "-c", script)
    assert done.ok().text.splitlines() == VALUES
