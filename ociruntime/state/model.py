"""What is remembered about a container: ``state.json`` of its directory.

The file holds facts (process, cgroup, namespaces), never a status: that is derived each time, see ``state.status``.
It means something within one boot only: the boot ID is in it.
"""

from ociruntime.errors import StateError
from ociruntime.jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION = 1
OCI_VERSION = "1.3.0"
STATE_FILE = "state.json"

# Slot, key in the file, type. A field of another type makes the file unreadable.
_FIELDS: "tuple[tuple[str, str, type], ...]" = (
    ("container_id", "id", str),
    ("oci_version", "ociVersion", str),
    ("bundle", "bundle", str),
    ("rootfs", "rootfs", str),
    ("phase", "phase", str),
    ("pid", "pid", int),
    ("start_time", "startTime", int),
    ("boot_id", "bootId", str),
    ("created", "created", str),
    ("owner", "owner", int),
    ("cgroup", "cgroup", dict),
    ("freezer", "freezer", str),
    ("intel_rdt", "intelRdt", dict),
    ("namespaces", "namespaces", dict),
    ("rootless", "rootless", bool),
    ("systemd", "systemd", bool),
    ("private_pid_ns", "privatePidNamespace", bool),
    ("annotations", "annotations", dict),
    ("hooks", "hooks", dict),
    ("startable", "startable", bool),
    ("exit_status", "exitStatus", int),
    ("no_new_keyring", "noNewKeyring", bool),
    ("resources", "resources", dict),
)
_REQUIRED = ("id", "bundle", "phase", "pid", "startTime", "bootId", "cgroup")


class CorruptStateError(StateError):
    """state.json is empty, torn, or of another version: the container can only be deleted by force."""

    code = "corrupt-state"

    def __init__(self, container_id: str, reason: str) -> None:
        super().__init__(
            f"state.json is unusable: {reason}",
            container_id=container_id,
            hint=f"'delete --force {container_id}' removes what is left of the container",
        )


class ForeignStateError(StateError):
    """The directory or its state.json is not this runtime's: nothing is done to it, not even by force."""

    code = "foreign-state"

    def __init__(self, container_id: str, path: str) -> None:
        super().__init__(
            f"not a container of this runtime: '{path}' is something else's",
            container_id=container_id,
            hint="use the runtime that has made it, or another --root",
        )


class State:
    """The facts about one container.

    phase: "creating" until the init process waits for start, then "created"; how it goes on is derived.
    pid, start_time, boot_id: the init process (0, 0, "" while there is none); start_time in clock ticks since boot,
    field 22 of proc_pid_stat(5). created: RFC 3339. owner: UID that created it.
    cgroup: what ``cgroups.manager.from_state`` takes. freezer: the file that says whether the container is frozen
    (``freezer.state`` on v1, ``cgroup.freeze`` on v2), "" if none. intel_rdt: what ``intel_rdt.remove`` takes, {} if
    there is nothing. namespaces: type to path, "" for a new one.
    private_pid_ns: the container has a PID namespace of its own. hooks: the hooks object of config.json, for those
    that run after create. startable: the config has a process. exit_status: of the init process, 128 + signal, once it
    has ended and somebody has asked; -1: not known.
    no_new_keyring: its processes keep the session keyring of the runtime's caller.
    resources: what `update` has changed since create, in the form of /linux/resources.
    config_digest: of the saved config.json.
    """

    __slots__ = tuple(field[0] for field in _FIELDS)

    def __init__(
        self,
        container_id: str,
        *,
        bundle: str,
        rootfs: str = "",
        oci_version: str = OCI_VERSION,
        phase: str = "creating",
        pid: int = 0,
        start_time: int = 0,
        boot_id: str = "",
        created: str = "",
        owner: int = 0,
        cgroup: "dict[str, object] | None" = None,
        freezer: str = "",
        intel_rdt: "dict[str, object] | None" = None,
        namespaces: "dict[str, str] | None" = None,
        rootless: bool = False,
        systemd: bool = False,
        private_pid_ns: bool = True,
        annotations: "dict[str, str] | None" = None,
        hooks: "dict[str, object] | None" = None,
        startable: bool = True,
        exit_status: int = -1,
        no_new_keyring: bool = False,
        resources: "dict[str, object] | None" = None,
    ) -> None:
        self.container_id = container_id
        self.oci_version = oci_version
        self.bundle = bundle
        self.rootfs = rootfs
        self.phase = phase
        self.pid = pid
        self.start_time = start_time
        self.boot_id = boot_id
        self.created = created
        self.owner = owner
        self.cgroup: dict[str, object] = cgroup or {}
        self.freezer = freezer
        self.intel_rdt: dict[str, object] = intel_rdt or {}
        self.namespaces: dict[str, str] = namespaces or {}
        self.rootless = rootless
        self.systemd = systemd
        self.private_pid_ns = private_pid_ns
        self.annotations: dict[str, str] = annotations or {}
        self.hooks: dict[str, object] = hooks or {}
        self.startable = startable
        self.exit_status = exit_status
        self.no_new_keyring = no_new_keyring
        self.resources: dict[str, object] = resources or {}

    def to_json(self) -> bytes:
        """Return the bytes of state.json."""
        document: dict[str, object] = {"version": VERSION}
        for slot, key, _ in _FIELDS:
            document[key] = getattr(self, slot)
        return (dumps(document) + "\n").encode("ascii")

    def report(self, status: str, pid: int, owner: str = "") -> "dict[str, object]":
        """Return the state document that callers see (runtime-spec runtime.md, "State", and the keys runc adds)."""
        document: dict[str, object] = {
            "ociVersion": OCI_VERSION,
            "id": self.container_id,
            "pid": pid,
            "status": status,
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
        }
        if self.annotations:
            document["annotations"] = self.annotations
        document["owner"] = owner
        return document

    def hook_document(self, status: str, pid: int) -> "dict[str, object]":
        """Return the state document that hooks read on stdin: the keys of the spec only."""
        document: dict[str, object] = {
            "ociVersion": OCI_VERSION,
            "id": self.container_id,
            "status": status,
            "pid": pid,
            "bundle": self.bundle,
        }
        if self.annotations:
            document["annotations"] = self.annotations
        return document


def _fill(container_id: str, document: "dict[object, object]", missing_ok: bool) -> State:
    state = State(container_id, bundle="")
    for slot, key, kind in _FIELDS:
        value = document.get(key)
        if type(value) is kind:
            setattr(state, slot, value)
        elif not missing_ok and (value is not None or key in _REQUIRED):
            wrong = "missing" if value is None else "of a wrong type"
            raise CorruptStateError(container_id, f"'{key}' is {wrong}")
    return state


def _strings(values: "Iterable[object]") -> bool:
    return all(type(value) is str for value in values)


def from_json(container_id: str, data: bytes) -> State:
    """Read state.json. Raises CorruptStateError unless it is whole, of this version and about container_id, and
    ForeignStateError when it is another program's.
    """
    if not data.strip():
        raise CorruptStateError(container_id, "it is empty")
    try:
        document = loads(data)
    except ValueError as error:
        raise CorruptStateError(container_id, f"{error}") from None
    if not isinstance(document, dict):
        raise CorruptStateError(container_id, "it is not an object")
    version = document.get("version")
    if document and "version" not in document:
        raise ForeignStateError(container_id, STATE_FILE)
    if type(version) is not int or version != VERSION:
        raise CorruptStateError(container_id, f"it is of format {version}, this runtime reads {VERSION}")
    state = _fill(container_id, document, missing_ok=False)
    if state.container_id != container_id:
        raise CorruptStateError(container_id, f"it belongs to '{state.container_id}'")
    if not (_strings(state.annotations.values()) and _strings(state.namespaces.values())):
        raise CorruptStateError(container_id, "'annotations' or 'namespaces' hold something else than strings")
    return state


def salvage(container_id: str, data: bytes) -> "State | None":
    """Read what can be read of an unusable state.json, for a forced delete: each field of the right type counts.

    Returns None when it is no JSON object at all.
    """
    try:
        document = loads(data)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    state = _fill(container_id, document, missing_ok=True)
    state.container_id = container_id
    return state
