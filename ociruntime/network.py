"""/linux/netDevices: network devices of the host that are moved into the container's network namespace.

``lower`` checks what can be known from the config; ``move`` is done by the parent once the init process lives in its
network namespace, and before it has its plan. Everything that can be refused is refused before the first device moves:
no device is ever moved back. When the create fails later on, its new network namespace ends, and the kernel gives
physical devices back to the initial network namespace, down and without addresses; virtual ones (veth, macvlan) end.

Source: runtime-spec config-linux.md, "Network Devices"; rtnetlink(7), netdevice(7).
"""

import posix
from errno import EBUSY, EEXIST, EINVAL, ENODEV, EOPNOTSUPP

from ociruntime import files
from ociruntime.errors import ConfigError, StepError, UnsupportedError
from ociruntime.fullpython import full_interpreter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ociruntime.host import Host
    from ociruntime.namespaces import Namespaces

NAME_SIZE = 15  # IFNAMSIZ without the NUL, in bytes
_POINTER = "/linux/netDevices"
# What the kernel's isspace() takes for space, 0xa0 included, and what its dev_valid_name() refuses besides.
_NOT_IN_NAMES = frozenset(b"/: \t\n\v\f\r\xa0")

_PERMANENT = 0x80
_GLOBAL = 0  # RT_SCOPE_UNIVERSE
# Of the flags of an address those that somebody chose; the rest are the kernel's findings.
# NODAD, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN
_KEPT_FLAGS = 0x02 | 0x10 | 0x100 | 0x200 | 0x400
_TRIES = 10
_CANNOT_LEAVE = "some kinds of devices (loopback, bridge, wireless) cannot leave their network namespace"
_MOVE_HINTS = {
    EINVAL: _CANNOT_LEAVE,
    EOPNOTSUPP: _CANNOT_LEAVE,
    EEXIST: "the container's network namespace has a device of this name",
}


class NetDevice:
    """One device. name: on the host. target: its name inside, possibly with one %d; "" keeps name.

    pointer: of the entry; name_pointer: of what decides the name inside.
    """

    __slots__ = ("name", "name_pointer", "pointer", "target")

    def __init__(self, name: str, target: str, pointer: str) -> None:
        self.name = name
        self.target = target
        self.pointer = pointer
        self.name_pointer = f"{pointer}/name" if target else pointer

    def final(self) -> str:
        """The name inside, "" when the kernel will choose the number of a template."""
        if "%" in self.target:
            return ""
        return self.target or self.name


class _Found:
    """A device on the host: what is read before it moves."""

    __slots__ = ("addresses", "device", "hardware", "index")

    def __init__(
        self, device: NetDevice, index: int, hardware: "str | None", addresses: "list[dict[str, Any]]"
    ) -> None:
        self.device = device
        self.index = index
        self.hardware = hardware
        self.addresses = addresses


def lower(config: "dict[str, Any]", host: "Host", spaces: "Namespaces") -> "list[NetDevice]":
    """Lower /linux/netDevices to a list of devices, in the order of the config.

    Raises ConfigError: no network namespace, a name the kernel would refuse, two devices of one name;
    UnsupportedError: a rootless runtime, which may not take devices from the host.
    """
    entries = (config.get("linux") or {}).get("netDevices") or {}
    if not entries:
        return []
    if host.rootless:
        raise UnsupportedError("moving a network device", "a runtime that is not rootless", pointer=_POINTER)
    if not spaces.has("network"):
        raise ConfigError("needs a network namespace in /linux/namespaces", pointer=_POINTER)
    devices = []
    names: dict[str, NetDevice] = {}
    for name, entry in entries.items():
        at = f"{_POINTER}/{name.replace('~', '~0').replace('/', '~1')}"
        device = NetDevice(name, (entry or {}).get("name") or "", at)
        check_name(name, at)
        if device.target:
            check_name(device.target, device.name_pointer, template=True)
        final = device.final()
        if final in names:
            raise ConfigError(
                f"'{final}' is also the name of '{names[final].name}' in the container", pointer=device.name_pointer
            )
        if final:
            names[final] = device
        devices.append(device)
    return devices


def check_name(name: str, pointer: str, *, template: bool = False) -> None:
    """Refuse what the kernel would not take for a device name. template: one %d is allowed, any other % is not.

    Source: kernel net/core/dev.c, dev_valid_name() and __dev_alloc_name().
    """
    data = name.encode("utf-8", "surrogateescape")
    reason = ""
    if not data or name in (".", ".."):
        reason = "no name for a network device"
    elif len(data) > NAME_SIZE:
        reason = f"longer than {NAME_SIZE} bytes"
    elif _NOT_IN_NAMES.intersection(data):
        reason = "'/', ':' or white space in the name of a network device"
    elif template and "%" in name and (name.count("%") != 1 or "%d" not in name):
        reason = "only one '%d' may stand in the name of a network device, for a number of the kernel's choice"
    if reason:
        raise ConfigError(reason, pointer=pointer, path=name)


def move(devices: "list[NetDevice]", pid: int) -> None:
    """Move the devices into the network namespace of pid, a child of ours that waits.

    Global permanent addresses are kept, other addresses and routes are not; each device is up in the end.
    Raises ConfigError before any device has moved, StepError afterwards; both carry pointer and device name.
    """
    try:
        fd = posix.open(f"/proc/{pid}/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        raise StepError(
            "cannot open the network namespace", step="netDevices", pointer=_POINTER, errno=error.errno or 0
        ) from None
    try:
        there, here = posix.fstat(fd), posix.stat("/proc/thread-self/ns/net")
        if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
            raise ConfigError("the network namespace of the container is the runtime's own", pointer=_POINTER)
        _in_thread(lambda: _move(devices, fd))
    finally:
        posix.close(fd)


def _in_thread(work: "Callable[[], None]") -> None:
    """Run work in a thread of its own: it changes its network namespace for good, and may run an event loop."""
    full_interpreter()
    from threading import Thread

    failures: list[BaseException] = []

    def target() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    thread = Thread(target=target, name="netDevices")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _move(devices: "list[NetDevice]", fd: int) -> None:
    """In a thread of its own. fd: the namespace to move to."""
    try:
        from ctypes import CDLL

        from pyroute2 import IPRoute, NetlinkError, netns
    except ImportError:
        raise UnsupportedError("moving a network device", "the Python package pyroute2", pointer=_POINTER) from None
    try:
        with IPRoute() as outside:
            found = [_find(outside, device) for device in devices]
            # Without libc it would be searched for with other programs.
            netns.setns(fd, libc=CDLL(None, use_errno=True))
            with IPRoute() as inside:
                _check_free(devices, _names(_links(inside)))
                for item in found:
                    _move_one(outside, inside, item, fd)
    except (NetlinkError, OSError) as error:
        raise StepError("netlink fails", step="netDevices", pointer=_POINTER, errno=_errno(error)) from error


def _check_free(devices: "list[NetDevice]", taken: "set[str]") -> None:
    for device in devices:
        if device.final() in taken:
            raise ConfigError(
                f"the container's network namespace has a device '{device.final()}' already",
                pointer=device.name_pointer,
                path=device.name,
            )


def _errno(error: Exception) -> int:
    """Of an OSError, or of pyroute2's NetlinkError, which has it as its code."""
    number = getattr(error, "code", None) or getattr(error, "errno", None)
    return number if isinstance(number, int) else 0


def _ask(device: NetDevice, reason: str, request: "Callable[..., Any]", *words: str, **arguments: "Any") -> "list[Any]":
    """Make a request and return the answers. Raises StepError."""
    from pyroute2 import NetlinkError

    try:
        return list(request(*words, **arguments) or ())
    except (NetlinkError, OSError) as error:
        number = _errno(error)
        raise StepError(
            reason,
            step="netDevices",
            pointer=device.pointer,
            errno=number,
            path=device.name,
            hint=_MOVE_HINTS.get(number, "") if "net_ns_fd" in arguments else "",
        ) from None


def _dump(read: "Callable[..., Iterable[Any]]", **arguments: int) -> "list[Any]":
    """All messages of a dump; again when others changed the tables meanwhile."""
    from pyroute2.netlink import exceptions

    interrupted = getattr(exceptions, "NetlinkDumpInterrupted", ())
    for _ in range(_TRIES):
        try:
            return list(read(**arguments))
        except interrupted:
            continue
    raise StepError("the network devices change all the time", step="netDevices", pointer=_POINTER, errno=EBUSY)


def _links(ip: "Any") -> "list[Any]":
    return _dump(ip.get_links)


def _names(links: "list[Any]") -> "set[str]":
    """Every name in use, alternative ones too: the kernel lets no two devices share one."""
    names = set()
    for link in links:
        names.add(link.get_attr("IFLA_IFNAME"))
        properties = link.get_attr("IFLA_PROP_LIST")
        if properties is not None:
            names.update(value for key, value in properties["attrs"] if key == "IFLA_ALT_IFNAME")
    return names


def _find(ip: "Any", device: NetDevice) -> _Found:
    """Look a device up on the host and read its addresses, which it loses when it goes down."""
    try:
        links = _ask(device, "cannot look for the network device", ip.link, "get", ifname=device.name)
    except StepError as error:
        if error.errno != ENODEV:
            raise
        links = []
    for link in links:
        if link.get_attr("IFLA_IFNAME") == device.name:
            index = link["index"]
            found = map(kept_address, _dump(ip.get_addr, index=index))
            addresses = [address for address in found if address is not None]
            return _Found(device, index, link.get_attr("IFLA_ADDRESS"), addresses)
    raise ConfigError("no such network device on the host", pointer=device.pointer, path=device.name)


def kept_address(message: "Any") -> "dict[str, Any] | None":
    """What has to be said to the kernel to get this address (a message of RTM_GETADDR) again; None: it is not kept.

    Source: rtnetlink(7); address, local and broadcast as they are, so that point-to-point addresses stay such.
    """
    flags = message.get_attr("IFA_FLAGS")
    if flags is None:
        flags = message["flags"]
    if message["scope"] != _GLOBAL or not flags & _PERMANENT:
        return None
    address: dict[str, Any] = {key: message[key] for key in ("family", "prefixlen", "scope")}
    for key in ("address", "local", "broadcast", "label", "rt_priority"):
        value = message.get_attr(f"IFA_{key.upper()}")
        if value is not None:
            address[key] = value
    if flags & _KEPT_FLAGS:
        address["flags"] = flags & _KEPT_FLAGS
    return address


def new_label(label: str, old: str, new: str) -> str:
    """The label of an IPv4 address after its device was renamed: "eth0:web" becomes "net1:web"; "" is the new name.

    A label that would get too long is given up, as one that does not start with the device's name is kept.
    """
    if label == old:
        return ""
    if label.startswith(f"{old}:"):
        renamed = new + label[len(old) :]
        return renamed if len(renamed.encode("utf-8", "surrogateescape")) <= NAME_SIZE else ""
    return label


def _move_one(outside: "Any", inside: "Any", found: _Found, fd: int) -> None:
    device = found.device
    before = {link["index"] for link in _links(inside)}
    # One message: the kernel takes the device down, moves it and renames it in there, so no name has to be free here.
    rename = {"ifname": device.target} if device.target else {}
    _ask(device, "cannot move the network device", outside.link, "set", index=found.index, net_ns_fd=fd, **rename)
    index, name = _arrived(inside, before, found)
    for address in found.addresses:
        label = address.pop("label", None)
        if label:
            label = new_label(label, device.name, name)
        if label:
            address["label"] = label
        text = f"{address.get('local') or address['address']}/{address['prefixlen']}"
        _ask(device, f"cannot give it its address {text} again", inside.addr, "add", index=index, **address)
    _ask(device, "cannot bring the network device up", inside.link, "set", index=index, state="up")


def _arrived(inside: "Any", before: "set[int]", found: _Found) -> "tuple[int, str]":
    """Index and name of the device inside. The kernel keeps the index if it is free there, and fills in a template.

    In a namespace that is joined, others may have added devices meanwhile.
    """
    fresh = [link for link in _links(inside) if link["index"] not in before]
    final = found.device.final()
    named = [link for link in fresh if link.get_attr("IFLA_IFNAME") == final]
    alike = [link for link in fresh if link.get_attr("IFLA_ADDRESS") == found.hardware]
    kept = [link for link in alike if link["index"] == found.index]
    for link in (*named, *kept, *alike):
        return link["index"], link.get_attr("IFLA_IFNAME")
    raise StepError(
        "the network device is not in the container's network namespace",
        step="netDevices",
        pointer=found.device.pointer,
        path=found.device.name,
    )


def statistics(pid: int) -> "list[dict[str, object]] | None":
    """What the interfaces of a process's network namespace have moved, without lo; None: it has none, or not its own.

    Keys: Name, then RxBytes, RxPackets, RxErrors, RxDropped and the same with Tx. Source: proc_pid_net(5), dev.
    """
    try:
        if posix.readlink(f"/proc/{pid}/ns/net") == posix.readlink("/proc/self/ns/net"):
            return None
        data = files.read(f"/proc/{pid}/net/dev")
    except OSError:
        return None
    found: list[dict[str, object]] = []
    for line in data.decode("utf-8", "replace").split("\n"):
        name, colon, rest = line.rpartition(":")
        numbers = rest.split()
        if not colon or len(numbers) < 12 or name.strip() == "lo":
            continue
        entry: dict[str, object] = {"Name": name.strip()}
        for direction, first in (("Rx", 0), ("Tx", 8)):
            for offset, kind in enumerate(("Bytes", "Packets", "Errors", "Dropped")):
                entry[direction + kind] = int(numbers[first + offset])
        found.append(entry)
    return found or None
