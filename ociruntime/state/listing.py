"""All containers of a state root, as ``list`` shows them."""

from ociruntime.errors import NotFoundError, OCIError
from ociruntime.state.status import derive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ociruntime.state.store import StateRoot


def owner_name(uid: int) -> str:
    """Return the user's name, or ``#uid`` when it has none."""
    try:
        from pwd import getpwuid

        return getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return f"#{uid}"


def entries(root: "StateRoot", complain: "Callable[[str], None]") -> "list[dict[str, object]]":
    """Return the state documents of all containers, sorted by ID, with owner being a name.

    complain gets one line per directory that cannot be read; those are left out. One that is deleted meanwhile, or has
    no state yet, is left out silently.
    """
    found = []
    for container_id in root.ids():
        try:
            with root.open(container_id) as directory:
                state = directory.load()
                status, pid = derive(state, directory)
        except NotFoundError:
            continue
        except OCIError as error:
            complain(f"'{container_id}': {error}, skipping")
            continue
        found.append(state.report(status, pid, owner_name(state.owner)))
    return found
