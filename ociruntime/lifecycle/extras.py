"""What few configs ask the parent for: a class of service (/linux/intelRdt), network devices (/linux/netDevices).

Loaded only for those that do. Both are done once the init process is there, with all its namespaces, and waits for its
plan; whatever can be refused from the config and from the host as it is, is refused before anything is made.
"""

from ociruntime import intel_rdt, network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ociruntime.host import Host
    from ociruntime.intel_rdt import IntelRdt
    from ociruntime.lifecycle.undo import Undo
    from ociruntime.namespaces import Namespaces
    from ociruntime.network import NetDevice
    from ociruntime.state.model import State
    from ociruntime.state.store import StateDir


class Extras:
    """rdt: the class of service, or None. devices: to move."""

    __slots__ = ("devices", "rdt")

    def __init__(self, rdt: "IntelRdt | None", devices: "list[NetDevice]") -> None:
        self.rdt = rdt
        self.devices = devices

    def make(self, state: "State", directory: "StateDir", undo: "Undo") -> None:
        """Make the groups. They are in the saved state before and, if it comes otherwise, after."""
        if self.rdt is None:
            return
        undo.add("the class of service", self.rdt.undo)
        state.intel_rdt = self.rdt.saved()
        directory.save(state)
        self.rdt.create()
        made = self.rdt.saved()
        if made != state.intel_rdt:
            state.intel_rdt = made
            directory.save(state)

    def attach(self, pid: int) -> None:
        """Put the init process into its groups, and the devices into its network namespace."""
        if self.rdt is not None:
            intel_rdt.join(self.rdt.saved(), pid)
        if self.devices:
            network.move(self.devices, pid)


def lower(config: "dict[str, Any]", host: "Host", spaces: "Namespaces", container_id: str) -> Extras:
    """Lower both sections. Raises what the rooms raise; changes nothing."""
    return Extras(intel_rdt.lower(config, container_id), network.lower(config, host, spaces))
