"""list: every container of the state root. A broken entry costs one warning, never the list."""

from errno import ENOTDIR

from ociruntime.errors import NotFoundError, OCIError
from ociruntime.state import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.lifecycle.runtime import Runtime


def owner_name(uid: int) -> str:
    """The user's name, or #uid."""
    from pwd import getpwuid

    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def listing(runtime: "Runtime") -> "list[dict[str, object]]":
    """State documents with owner names, sorted by ID."""
    result = []
    for container_id in runtime.states.ids():
        try:
            with runtime.states.open(container_id) as directory:
                state = directory.load()
                actual, pid = status.derive(state, directory)
        except NotFoundError:
            continue  # deleted meanwhile
        except OCIError as error:
            if error.errno == ENOTDIR:
                continue  # a file in the state root is no container
            runtime.log.warning(f"container '{container_id}': {error}, ignoring")
            continue
        result.append(state.report(actual, pid, owner_name(state.owner)))
    return result
