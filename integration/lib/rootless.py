"""Ordinary users of the tests: known to newuidmap(1) through files mounted over /etc, in our mount namespace only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from integration.lib import host
from integration.lib.bundle import Bundle
from integration.lib.runtime import Result, Runtime, run

SUBIDS = 65536


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
            path.mkdir(mode=0o700)
            os.chown(path, self.uid, self.gid)

    def prefix(self, *more: str, groups: str = "") -> list[str]:
        """What runs a command as this user, with an environment of its own. more: NAME=value."""
        setpriv = ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--inh-caps=-all", "--ambient-caps=-all"]
        setpriv.append(f"--groups={groups}" if groups else "--clear-groups")
        names = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"HOME={self.home}", f"XDG_RUNTIME_DIR={self.xdg}")
        return [*setpriv, "env", "-i", *names, f"USER={self.name}", *more]

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
                {"containerID": 1, "hostID": self.first, "size": SUBIDS},
            ]
            for key, own in (("uidMappings", self.uid), ("gidMappings", self.gid))
        }

    def own(self, path: Path) -> None:
        """Give path, and what is in it, to the user."""
        os.chown(path, self.uid, self.gid, follow_symlinks=False)
        for directory, names, files in os.walk(path):
            for name in (*names, *files):
                if name == "probe":  # shared by all bundles
                    continue
                os.chown(os.path.join(directory, name), self.uid, self.gid, follow_symlinks=False)


@contextlib.contextmanager
def introduced(users: list[User], work: Path) -> Iterator[None]:
    """Mount files over /etc/passwd, group, subuid and subgid that know these users."""
    lines = {
        "passwd": [f"{u.name}:x:{u.uid}:{u.gid}::{u.home}:/bin/sh" for u in users],
        "group": [f"{u.name}:x:{u.gid}:" for u in users],
        "subuid": [f"{u.name}:{u.first}:{SUBIDS}" for u in users if u.granted],
        "subgid": [f"{u.name}:{u.first}:{SUBIDS}" for u in users if u.granted],
    }
    for name, added in lines.items():
        file = work / f"etc-{name}"
        before = Path("/etc", name).read_text() if name in ("passwd", "group") else ""
        file.write_text(before + "".join(line + "\n" for line in added))
        host.mount(str(file), f"/etc/{name}", "", host.MS_BIND)
    try:
        yield
    finally:
        for name in lines:
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
