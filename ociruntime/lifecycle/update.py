"""update: new limits for a container that exists. What cannot be changed as a whole is not changed at all.

Source: runtime-spec config-linux.md#control-groups for the form of the limits.
"""

from ociruntime import host, intel_rdt
from ociruntime.cgroups import limits, manager
from ociruntime.cgroups.update import Update
from ociruntime.config import load, validate
from ociruntime.errors import ConfigError, OCIError, StateError
from ociruntime.state import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ociruntime.lifecycle.runtime import Runtime
    from ociruntime.state.model import State
    from ociruntime.state.store import StateDir

# Members of linux.resources.
_MEMBERS = ("blockIO", "cpu", "devices", "hugepageLimits", "memory", "network", "pids", "rdma", "unified")


def update(
    runtime: "Runtime",
    container_id: str,
    resources: "dict[str, Any]",
    *,
    l3_cache_schema: str = "",
    mem_bw_schema: str = "",
) -> None:
    """See ``Runtime.update``."""
    validate.check(resources, b"", "", "resources")
    if resources and not any(name in resources for name in _MEMBERS):
        # Unknown members are passed over, but here nothing would be left: a whole config.json, say.
        raise ConfigError("no limit is named", hint=f"members of linux.resources are expected: {', '.join(_MEMBERS)}")
    schema = intel_rdt.schema_lines({"l3CacheSchema": l3_cache_schema, "memBwSchema": mem_bw_schema})
    with runtime.states.open(container_id) as directory:
        directory.lock()
        state = directory.load()
        actual, _pid = status.derive(state, directory)
        if actual not in (status.CREATED, status.RUNNING, status.PAUSED):
            raise StateError(
                "container not running",
                container_id=container_id,
                expected=(status.CREATED, status.RUNNING, status.PAUSED),
                actual=actual,
            )
        for warning in limits.memory_warnings(resources.get("memory") or {}, "/memory"):
            runtime.log.warning(warning)
        _change(runtime, directory, state, resources, schema)


def _change(
    runtime: "Runtime",
    directory: "StateDir",
    state: "State",
    resources: "dict[str, Any]",
    schema: "list[tuple[str, str]]",
) -> None:
    """Change the class of service, the cgroup, and the state; on the way out of an error put all of it back."""
    cgroup = manager.from_state(state.cgroup)
    previous = _devices(directory, state) if "devices" in resources else []
    change = Update(cgroup, resources, previous, host.probe(runtime.rootless))
    back: list[Callable[[], object]] = []
    failed: list[str] = []
    try:
        if schema:
            before = intel_rdt.change(state.intel_rdt, schema)
            back.append(lambda: intel_rdt.change_back(state.intel_rdt, before))
        back.append(lambda: failed.extend(change.restore()))
        change.apply()
        if resources:
            state.resources = merged(state.resources, resources)
            directory.save(state)
    except BaseException:
        for step in reversed(back):
            try:
                step()
            except OCIError as error:
                failed.append(error.path)
        for path in failed:
            runtime.log.warning(f"cannot put the old value of '{path}' back, ignoring")
        raise
    finally:
        for warning in cgroup.warnings:
            runtime.log.warning(warning)


def _devices(directory: "StateDir", state: "State") -> "list[dict[str, Any]]":
    """The list of devices in force: of the last update that had one, or of the config."""
    rules: Any = state.resources.get("devices")
    if rules is None:
        config: Any = load.parse(directory.load_config(), "config.json")
        rules = ((config.get("linux") or {}).get("resources") or {}).get("devices")
    return rules or []


def merged(old: "dict[str, Any]", new: "dict[str, Any]") -> "dict[str, Any]":
    """new over old: objects member by member, lists as a whole."""
    result = dict(old)
    for name, value in new.items():
        below = result.get(name)
        result[name] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return result
