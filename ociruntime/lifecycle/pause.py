"""pause and resume: the freezer of the container's cgroup.

Source: kernel admin-guide, cgroup-v1/freezer-subsystem and cgroup-v2.
"""

from ociruntime.cgroups import freezer, manager
from ociruntime.errors import StateError, StepError
from ociruntime.state import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.lifecycle.runtime import Runtime


def pause(runtime: "Runtime", container_id: str) -> None:
    """Freeze every process of a created or running container."""
    with runtime.states.open(container_id) as directory:
        directory.lock()
        state = directory.load()
        actual, _ = status.derive(state, directory)
        if actual not in (status.CREATED, status.RUNNING):
            raise StateError(
                "container not running",
                container_id=container_id,
                expected=(status.CREATED, status.RUNNING),
                actual=actual,
                hint="it is paused already" if actual == status.PAUSED else "",
            )
        manager.from_state(state.cgroup).freeze()


def resume(runtime: "Runtime", container_id: str) -> None:
    """Let a paused container go on."""
    with runtime.states.open(container_id) as directory:
        directory.lock()
        state = directory.load()
        actual, _ = status.derive(state, directory)
        if actual != status.PAUSED:
            raise StateError(
                "container not paused", container_id=container_id, expected=(status.PAUSED,), actual=actual
            )
        cgroup = manager.from_state(state.cgroup)
        cgroup.thaw()
        try:
            still = freezer.refusal(cgroup.paths, container_id)
        except StepError:
            return  # what is done is done
        if still is not None:
            runtime.log.warning(f"{still}: until then the container does not go on")
