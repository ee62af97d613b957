"""Ordinary users of the tests: known to newuidmap(1) through files mounted over /etc, in our mount namespace only."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import stat
import threading
from pathlib import Path
from typing import Any

from integration.lib import host
from integration.lib.bundle import Bundle
from integration.lib.runtime import Result, Runtime, run

SUBIDS = 65536
# Tests may take the search path away.
SETPRIV, ENV = (shutil.which(name) or name for name in ("setpriv", "env"))
TOP = Path(__file__).resolve().parent.parent.parent
PLACES = [str(path) for path in (TOP / "ociruntime", TOP / ".venv") if path.exists()]
FILES = ("passwd", "group", "subuid", "subgid")


class User:
    """A user without privileges. home: its own directory, 0700. The subordinate IDs are first .. first+SUBIDS-1.

    granted: whether /etc/subuid and /etc/subgid have them.
    """

    def __init__(self, name: str, uid: int, first: int, work: Path, granted: bool = True) -> None:
        self.name = name
        self.uid = uid
        self.gid = uid + 1
        self.first = first
        self.granted = granted
        self.home = work / f"home-{name}"
        self.xdg = self.home / "run"
        for path in (self.home, self.xdg):
            path.mkdir(mode=0o700, exist_ok=True)  # of another file of tests
            os.chown(path, self.uid, self.gid)

    def prefix(self, *more: str, groups: str = "", clean: bool = True) -> list[str]:
        """What runs a command as this user. more: NAME=value. clean: with nothing else of ours."""
        setpriv = [SETPRIV, f"--reuid={self.uid}", f"--regid={self.gid}", "--inh-caps=-all", "--ambient-caps=-all"]
        setpriv.append(f"--groups={groups}" if groups else "--clear-groups" if clean else "--keep-groups")
        names = [f"HOME={self.home}", f"XDG_RUNTIME_DIR={self.xdg}", f"USER={self.name}", *more]
        if clean:
            names = ["-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *names]
        return [*setpriv, ENV, *names]

    def run(self, *argv: str, **how: object) -> Result:
        """Run a command as this user, in its home."""
        how.setdefault("cwd", self.home)
        return run([*self.prefix(), *argv], **how)  # type: ignore[arg-type]

    def runtime(self, runtime: Runtime) -> Runtime:
        """The runtime as this user runs it; its state is where --root does not say otherwise."""
        return Runtime(runtime.path, self.home / "state", self.prefix())

    def mappings(self) -> dict[str, list[dict[str, int]]]:
        """The own IDs as root, the subordinate ones from 1 on: /linux/uidMappings and gidMappings."""
        return {
            key: [
                {"containerID": 0, "hostID": own, "size": 1},
                {"containerID": 1, "hostID": self.first + 1, "size": SUBIDS - 1},
            ]
            for key, own in (("uidMappings", self.uid), ("gidMappings", self.gid))
        }

    def own(self, path: Path) -> None:
        """Give path, and what is in it, to the user; files of other IDs to those that they are in the container."""
        if not path.exists():
            return
        kernel = host.kernel_devices()
        self._own(str(path), None, kernel)
        # By descriptors: a test may be exchanging names for links to places of the machine.
        for _, names, files, directory in os.fwalk(path):
            if os.fstat(directory).st_dev in kernel:  # left there by a container in the tests' own mount namespace
                names[:] = []
                continue
            names[:] = [name for name in names if name != "canary"]  # it must stay as it is
            for name in (*names, *files):
                if name != "probe":  # shared by all bundles
                    self._own(name, directory, kernel)

    def _own(self, name: str, directory: int | None, kernel: set[int]) -> None:
        with contextlib.suppress(OSError):  # read-only places, names that are gone
            file = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                found = os.fstat(file)
                if found.st_dev in kernel:
                    return
                uid, gid = (
                    own if number == 0 else number + self.first if number < SUBIDS and number != own else number
                    for number, own in ((found.st_uid, self.uid), (found.st_gid, self.gid))
                )
                if (uid, gid) != (found.st_uid, found.st_gid):
                    os.chown(f"/proc/self/fd/{file}", uid, gid)
                    if found.st_mode & (stat.S_ISUID | stat.S_ISGID):  # chown has taken them
                        os.chmod(f"/proc/self/fd/{file}", stat.S_IMODE(found.st_mode))
            finally:
                os.close(file)


def introduce(users: list[User], work: Path) -> None:
    """Mount files over /etc/passwd, group, subuid and subgid that know these users."""
    lines = {
        "passwd": [f"{u.name}:x:{u.uid}:{u.gid}::{u.home}:/bin/sh" for u in users],
        "group": [f"{u.name}:x:{u.gid}:" for u in users],
        "subuid": [f"{u.name}:{u.first}:{SUBIDS}" for u in users if u.granted],
        "subgid": [f"{u.name}:{u.first}:{SUBIDS}" for u in users if u.granted],
    }
    for name in FILES:
        file = work / f"etc-{users[0].name}-{name}"
        before = Path("/etc", name).read_text() if name in ("passwd", "group") else ""
        file.write_text(before + "".join(line + "\n" for line in lines[name]))
        host.mount(str(file), f"/etc/{name}", "", host.MS_BIND)


def forget() -> None:
    """Take the files of the last introduce() away."""
    for name in FILES:
        host.umount(f"/etc/{name}")


def bundle(made: Bundle, user: User, single: bool = False) -> Bundle:
    """What an engine asks for when an ordinary user starts it. single: the user's own ID is the only one."""
    made.linux(cgroupsPath=None, resources=None, **user.mappings())
    made.namespace("user")
    if single:
        for key in ("uidMappings", "gidMappings"):
            made.config["linux"][key] = made.config["linux"][key][:1]
        for mount in made.config["mounts"]:
            mount["options"] = [option for option in mount.get("options", ()) if option != "gid=5"]
    user.own(made.path)
    return made


def inside(runtime: Runtime, bundle: Bundle) -> Bundle:
    """Make the bundle's container one that runs `runtime run` on a bundle inside: /inner."""
    inner = bundle.rootfs / "inner" / "rootfs"
    inner.mkdir(parents=True)
    os.link(bundle.probe, inner / "probe")
    for name in ("proc", "dev", "sys"):
        (inner / name).mkdir()
    (bundle.rootfs / "runtime").touch()
    bundle.mount("/runtime", runtime.path, "bind")
    # what a runtime that is not one static file needs
    for libraries in ("/lib64", "/usr/lib", "/lib", *(PLACES if runtime.ours else ())):
        bundle.mount(libraries, libraries, "rbind", "ro")
    bundle.linux(maskedPaths=None, readonlyPaths=None)
    names = [f"CAP_{name}" for name in ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "CHOWN", "DAC_OVERRIDE", "KILL")]
    names += ["CAP_SYS_CHROOT", "CAP_NET_ADMIN", "CAP_MKNOD", "CAP_SYS_PTRACE"]
    bundle.process(capabilities=dict.fromkeys(("bounding", "effective", "permitted"), names))
    bundle.config["process"]["args"] = [
        "/runtime",
        "--root",
        "/state",
        "run",
        "--bundle",
        "/inner",
        f"in{bundle.path.name}",
    ]
    return bundle


def innermost(outer: Bundle, inner: Bundle, *commands: str) -> None:
    """Put the config of the container inside there: IDs of the outer one as root and from 1 on, these commands."""
    inner.linux(cgroupsPath=None, resources=None)
    inner.namespace("user")
    for key in ("uidMappings", "gidMappings"):
        inner.config["linux"][key] = [
            {"containerID": 0, "hostID": 1000, "size": 1},
            {"containerID": 1, "hostID": 2000, "size": 100},
        ]
    inner.args(*commands)
    inner.write()
    (inner.path / "config.json").rename(outer.rootfs / "inner" / "config.json")


def transformed(config: Any, user: User) -> Any:
    """Any test's config, as an engine of an ordinary user would write it: with a user namespace."""
    linux = config.get("linux") if isinstance(config, dict) else None
    spaces = linux.get("namespaces") if isinstance(linux, dict) else None
    if not isinstance(spaces, list) or any(
        not isinstance(entry, dict) or entry.get("type") == "user" for entry in spaces
    ):
        return config
    config = copy.deepcopy(config)
    config["linux"]["namespaces"].append({"type": "user"})
    for key, mapping in user.mappings().items():
        config["linux"].setdefault(key, mapping)
    return config


def delegate(directory: str, user: User) -> None:
    """Give a cgroup to the user, as a service manager does: it may make cgroups in it and move its own processes."""
    for path in (*reversed(Path(directory).parents), Path(directory)):
        for name in ("cpuset.cpus", "cpuset.mems"):
            file, above = Path(path, name), Path(path).parent / name
            if file.exists() and above.exists() and not file.read_text().strip():
                file.write_text(above.read_text())
    for name in ("", "tasks", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
        with contextlib.suppress(FileNotFoundError):
            os.chown(os.path.join(directory, name), user.uid, user.gid)


class Acting:
    """Calls of the library by an ordinary user: this process is the user meanwhile, in every thread.

    Root is kept as the saved ID, for the way back only: no capability is effective, and what is executed has none. own:
    the cgroup that such calls come from, or "". May be entered again, by other threads too, while it is entered.
    """

    def __init__(self, user: User, own: str) -> None:
        self.user = user
        self.own = own
        self._depth = 0
        self._lock = threading.Lock()
        self._groups: list[int] = []
        self._home = ""

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth > 1:
                return
            if self.own:
                place = next(
                    line[3:] for line in Path("/proc/self/cgroup").read_text().split("\n") if line[:3] == "0::"
                )
                self._home = host.cgroup_mounts()[""] + place
                Path(self.own, "cgroup.procs").write_text("0")
            self._groups = os.getgroups()
            os.setgroups([])
            os.setresgid(self.user.gid, self.user.gid, 0)
            os.setresuid(self.user.uid, self.user.uid, 0)
            host.make_dumpable()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth:
                return
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
            os.setgroups(self._groups)
            host.make_dumpable()
            if self.own:
                Path(self._home, "cgroup.procs").write_text("0")
