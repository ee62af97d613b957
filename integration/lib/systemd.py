"""Containers in units of systemd's, and what systemd says of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from integration.lib.container import Container
from integration.lib.runtime import Runtime, run

TOP = Path("/sys/fs/cgroup")


class Managed(Runtime):
    """The runtime under test with --systemd-cgroup."""

    def argv(self, *words: str, options: Sequence[str] = ()) -> list[str]:
        """With the option in front."""
        return super().argv(*words, options=["--systemd-cgroup", *options])


def systemctl(*words: str) -> str:
    """What systemctl prints."""
    return run(["systemctl", "--no-pager", *words]).text


def show(unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit as systemctl shows them; of DeviceAllow the last line."""
    lines = systemctl("show", *(f"-p{name}" for name in names), unit).splitlines()
    return dict(line.split("=", 1) for line in lines)


def unit_of(container: Container) -> str:
    """The scope of a container that has the cgroupsPath of the fixture."""
    return f"it-{container.id}.scope"


def directory(container: Container) -> Path:
    """The cgroup in which the init process is."""
    line = Path(f"/proc/{container.pid}/cgroup").read_text().split("0::", 1)[1]
    return Path(f"{TOP}{line.splitlines()[0]}")


def gone(unit: str) -> bool:
    """Whether systemd knows nothing of a unit any more."""
    return show(unit, "LoadState", "ActiveState") == {"LoadState": "not-found", "ActiveState": "inactive"}
