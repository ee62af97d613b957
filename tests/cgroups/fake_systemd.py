"""A host with cgroup v2, or v1, in a directory, and a fake systemd that makes and removes units there."""

from pathlib import Path
from typing import Any

from ociruntime.cgroups import manager
from ociruntime.host import Host
from tests.cgroups.fake_bus import JOB, SYSTEMD, FakeBus, RefusalError

ALLOW_ALL = [{"allow": True, "access": "rwm"}]
CONTROLLERS = ("cpu", "memory", "pids")
FILES = ("memory.max", "memory.current", "pids.max", "cpu.weight", "cpu.max", "cpu.max.burst", "cgroup.procs")


class World:
    """A host with cgroup v2 in a directory, and the manager for it."""

    def __init__(self, top: Path, bus: FakeBus) -> None:
        self.top = top
        self.bus = bus
        self.host = Host(cgroup_mode="v2", unified=str(top), own_cgroups={"": "/me"}, controllers=CONTROLLERS)
        self.pid = 0
        self.settings: dict[str, Any] = {}
        self.description = ""
        (top / "cgroup.controllers").write_text(" ".join(CONTROLLERS))
        bus.answers.update(
            {
                "StartTransientUnit": self.start,
                "StopUnit": self.stop,
                "Get": self.get,
                "GetAll": lambda _: ("a{sv}", (self.settings,)),
                "SetUnitProperties": self.set,
            }
        )

    @property
    def scope(self) -> Path:
        return self.top / "system.slice" / "ociruntime-web.scope"

    def get(self, body: Any) -> Any:
        known = {"Version": "252.39-1~deb12u2", "Description": self.description}
        return "v", (("s", known.get(body[1], "")),)

    def start(self, body: Any) -> Any:
        properties = body[2]
        self.description = dict(properties)["Description"][1]
        self.pid = dict(properties)["PIDs"][1][0]
        self.scope.mkdir(parents=True)
        for file in FILES:
            (self.scope / file).write_text("")
        (self.scope / "cgroup.controllers").write_text(" ".join(CONTROLLERS))
        self.settings = {name: value for name, value in properties if name not in ("PIDs", "Slice", "Description")}
        return "o", (JOB,)

    def set(self, body: Any) -> Any:
        self.settings.update(dict(body[2]))
        return "", ()

    def stop(self, _: Any) -> Any:
        if not self.scope.exists():
            raise RefusalError(f"{SYSTEMD}.NoSuchUnit", "Unit not loaded.")
        for path in sorted(self.scope.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        self.scope.rmdir()
        return "o", (JOB,)

    def choose(self, resources: "dict[str, Any] | None" = None, **config: Any) -> Any:
        linux = {"cgroupsPath": config.pop("cgroupsPath", ""), "resources": {"devices": ALLOW_ALL, **(resources or {})}}
        return manager.choose(self.host, {"linux": linux, **config}, "web", driver="systemd")


def v1_host(tmp_path: Path) -> Host:
    mounts = {name: str(tmp_path / name) for name in ("name=systemd", "memory", "freezer", "cpu")}
    for path in mounts.values():
        Path(path).mkdir()
    return Host(cgroup_mode="v1", cgroup_mounts=mounts, own_cgroups=dict.fromkeys(mounts, "/"))
