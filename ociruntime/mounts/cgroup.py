"""A mount of type "cgroup": what the container sees of the cgroup tree.

    v2          one cgroup2 file system; the cgroup namespace makes the container's cgroup its root
    v1, hybrid  a small tmpfs with one directory per hierarchy, named as the host names it, and a link for each
                controller that shares one. With a cgroup namespace they are new mounts; without one, binds of the
                container's own directories, so that the rest of the tree stays out of sight
Source: runtime-spec config-linux.md, "Default Filesystems" and "Control groups"; cgroups(7), cgroup_namespaces(7).
"""

from ociruntime import plan
from ociruntime.errors import UnsupportedError
from ociruntime.plan import FdSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ociruntime.host import Host
    from ociruntime.mounts.options import Options
    from ociruntime.namespaces import Namespaces
    from ociruntime.plan import Op


NAMED = "name="
_TMPFS_DATA = (("mode", "755"), ("size", "64k"))


def lower(
    options: "Options",
    destination: str,
    at: str,
    namespaces: "Namespaces",
    host: "Host",
    cgroup_paths: "Mapping[str, str]",
    bind_flags: int,
) -> "tuple[list[Op], list[Op]]":
    """Lower one mount of type cgroup. Returns its ops in order, and what is left for the end (the tmpfs read-only).

    cgroup_paths: hierarchy ("cpu", "name=systemd", "" for v2) -> absolute directory of the container's cgroup.
    bind_flags: op flags of binds. Raises UnsupportedError when the host has no cgroup file system.
    """
    if host.cgroup_mode == "none":
        raise UnsupportedError("a mount of type cgroup", "a cgroup file system on the host", pointer=at)
    if host.cgroup_mode == "v2":
        return [_v2(options, destination, at, namespaces, host, bind_flags)], []
    return _v1(options, destination, at, namespaces, host, cgroup_paths, bind_flags)


def _v2(options: "Options", destination: str, at: str, namespaces: "Namespaces", host: "Host", bind_flags: int) -> "Op":
    # cgroup2 can be mounted by whoever owns the cgroup namespace: a user namespace without one of its own does not
    if (namespaces.has("user") or host.in_userns) and not namespaces.has("cgroup"):
        return _bind(options, destination, at, host.unified, bind_flags, recursive=True)
    return _mount(options, destination, at, "cgroup2", [(key, value) for key, value, _ in options.data])


def _v1(
    options: "Options",
    destination: str,
    at: str,
    namespaces: "Namespaces",
    host: "Host",
    cgroup_paths: "Mapping[str, str]",
    bind_flags: int,
) -> "tuple[list[Op], list[Op]]":
    private = namespaces.has("cgroup")
    read_only = options.set & plan.MOUNT_ATTR_RDONLY
    base = plan.op(
        "mount",
        at,
        strings=("tmpfs", destination, "tmpfs", pack_data(_TMPFS_DATA)),
        args=(options.set & ~plan.MOUNT_ATTR_RDONLY, 0, _last(options.propagation), len(_TMPFS_DATA)),
        flags=plan.KEEP if read_only else 0,
    )
    ops = [base]
    links: list[Op] = []
    hierarchies: dict[str, list[str]] = {}
    for controller, mount_point in host.cgroup_mounts.items():
        hierarchies.setdefault(mount_point, []).append(controller)
    for mount_point, controllers in hierarchies.items():
        name = mount_point.rpartition("/")[2]
        place = f"{destination}/{name}"
        if private:
            data: list[tuple[str, str]] = []
            for controller in controllers:
                if controller.startswith(NAMED):
                    data += [("none", ""), ("name", controller[len(NAMED) :])]
                else:
                    data.append((controller, ""))
            ops.append(_mount(options, place, at, "cgroup", data))
        else:
            source = _own_directory(mount_point, controllers, host, cgroup_paths)
            if source == "":
                continue
            ops.append(_bind(options, place, at, source, bind_flags))
        if len(controllers) > 1:
            links += [
                plan.op("symlink", at, strings=(f"{destination}/{controller}", name), flags=plan.OPTIONAL)
                for controller in controllers
                if not controller.startswith(NAMED) and controller != name
            ]
    if host.unified:
        place = f"{destination}/{host.unified.rpartition('/')[2]}"
        if private:
            ops.append(_mount(options, place, at, "cgroup2", []))
        else:
            source = _own_directory(host.unified, [""], host, cgroup_paths)
            if source:
                ops.append(_bind(options, place, at, source, bind_flags))
    # last, because the directories above are made inside it
    final = [plan.op("attr", at, strings=(destination,), args=(read_only,))] if read_only else []
    return ops + links, final


def _own_directory(mount_point: str, controllers: "list[str]", host: "Host", cgroup_paths: "Mapping[str, str]") -> str:
    """The container's directory in a hierarchy; where it has none of its own, that of the runtime, which it is in."""
    for controller in controllers:
        if controller in cgroup_paths:
            return cgroup_paths[controller]
    for controller in controllers:
        if controller in host.own_cgroups:
            return mount_point + host.own_cgroups[controller].rstrip("/")
    return ""


def _last(propagation: "list[int]") -> int:
    return propagation[-1] if propagation else 0


def pack_data(data: "Sequence[tuple[str, str]]") -> bytes:
    """File system parameters as the C side reads them: key, NUL, value, NUL."""
    return plan.pack_list([word for pair in data for word in pair])


def _mount(options: "Options", place: str, at: str, kind: str, data: "list[tuple[str, str]]") -> "Op":
    return plan.op(
        "mount",
        at,
        strings=(kind, place, "cgroup", pack_data(data)),
        args=(options.set, 0, _last(options.propagation), len(data)),
    )


def _bind(options: "Options", place: str, at: str, source: str, flags: int, recursive: bool = False) -> "Op":
    attributes = options.attr()
    first, second = (*options.propagation, 0, 0)[:2]
    return plan.op(
        "bind",
        at,
        strings=("", place),
        args=(attributes, attributes if recursive else 0, first, second),
        flags=flags,
        fd=FdSource("tree", source, recursive),
    )
