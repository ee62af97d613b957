"""/root, /mounts, /linux/devices, masked and read-only paths, rootfsPropagation -> ops, by place in the init's order.

    propagation         first of all: nothing mounted from here on reaches the host
    rootfs              the root is pinned
    setup               the mounts in their order, devices, links of /dev
                        [hooks: prestart, createRuntime, createContainer]
    pivot               the root becomes "/", and gets its propagation
    final               mounts that could not be read-only before, the root itself
                        [names, sysctls]
    readonly, masked    in this order
    last                an unbindable root: nothing can be bound from there any more

Without a mount namespace `pivot` is a chroot, `propagation` is empty, and the mounts are made in the
runtime's namespace, as the spec's inheriting asks for; what needs a namespace of its own is refused.

Pure: what the host's file system has to say comes in as `is_dir` and `read_link`. Sources of binds are opened by the
parent, in the runtime's mount namespace, just before the op that needs them.
Source: runtime-spec config.md, "Mounts" and "Root"; config-linux.md, "Masked Paths", "Readonly Paths" and
"Rootfs Mount Propagation".
"""

import errno

from ociruntime import plan
from ociruntime.errors import ConfigError, UnsupportedError
from ociruntime.files import clean
from ociruntime.mounts import cgroup, devices, options as mount_options, paths
from ociruntime.mounts.cgroup import pack_data
from ociruntime.plan import MS_PRIVATE, MS_REC, MS_SHARED, MS_SLAVE, FdSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ociruntime.host import Host
    from ociruntime.mounts.options import Options
    from ociruntime.namespaces import Namespaces
    from ociruntime.plan import IdMap, Op

    IsDir = Callable[[str], bool | None]
    ReadLink = Callable[[str], str | None]

# What an emulation of /proc files may cover. A mount anywhere else below /proc could stand in for a file that the
# runtime or a security module reads (CVE-2019-16884).
PROC_FILES = (
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
)

# Each has one superblock for all its mounts, or one per namespace: "ro" is for this mount only. Others take "ro" as a
# parameter too, since a medium that cannot be written refuses anything else.
KERNEL_TYPES = (
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "proc",
    "pstore",
    "ramfs",
    "securityfs",
    "sysfs",
    "tmpfs",
    "tracefs",
)

# Types whose files are labelled by the kernel itself, one by one or by the policy.
UNLABELLED = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2")
# Names the mount option that carries /linux/mountLabel instead of "context".
LABEL_ANNOTATION = "run.oci.mount_context_type"

RDONLY = plan.MOUNT_ATTR_RDONLY

# The longest value that fsconfig(2) takes (strndup_user in the kernel's fs/fsopen.c, with the NUL 256).
VALUE_MAX = 255
# Options of overlays that name directories; those with + as of LAYERS_KERNEL.
DIRECTORIES = ("lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir")
LAYERS_KERNEL = (6, 8)


class Mounts:
    """Ops by place (see the module), warnings (text with pointers), and whether there is a mount namespace."""

    __slots__ = (
        "final",
        "last",
        "masked",
        "mount_namespace",
        "pivot",
        "propagation",
        "readonly",
        "rootfs",
        "setup",
        "warnings",
    )

    def __init__(self) -> None:
        self.propagation: list[Op] = []
        self.rootfs: list[Op] = []
        self.setup: list[Op] = []
        self.pivot: list[Op] = []
        self.final: list[Op] = []
        self.readonly: list[Op] = []
        self.masked: list[Op] = []
        self.last: list[Op] = []
        self.mount_namespace = True
        self.warnings: list[str] = []


class _Context:
    """What lowering one mount needs to know beside the mount."""

    __slots__ = (
        "bind_flags",
        "bundle",
        "cgroup_paths",
        "destinations",
        "host",
        "is_dir",
        "label",
        "label_option",
        "namespaces",
        "propagation",
        "read_link",
        "result",
    )

    def __init__(
        self, namespaces: "Namespaces", host: "Host", bundle: str, is_dir: "IsDir", read_link: "ReadLink"
    ) -> None:
        self.namespaces = namespaces
        self.host = host
        self.bundle = bundle
        self.is_dir = is_dir
        self.read_link = read_link
        self.result = Mounts()
        self.cgroup_paths: Mapping[str, str] = {}
        self.label = ""
        self.label_option = "context"
        self.destinations: list[str] = []
        self.propagation = 0  # of the rootfs, 0 when the config is silent
        self.bind_flags = plan.HOST_TREE


def lower(
    config: "dict[str, Any]",
    host: "Host",
    namespaces: "Namespaces",
    *,
    bundle: str,
    cgroup_paths: "Mapping[str, str] | None" = None,
    no_pivot: bool = False,
    root_id: "tuple[int, int]" = (0, 0),
    selinux: bool = False,
    is_dir: "IsDir" = paths.is_dir,
    read_link: "ReadLink" = paths.read_link,
) -> Mounts:
    """Lower everything the container sees of file systems.

    bundle: its absolute path; relative sources are below it. cgroup_paths: hierarchy -> absolute directory of the
    container's cgroup. root_id: device (major << 32 | minor) and inode of the rootfs the caller has checked, (0, 0) to
    take what is there. selinux: whether labels mean anything here. is_dir(path): whether a host path is a directory,
    None when it is not there, OSError when that cannot be told. read_link(path): where a host symlink leads, None
    when there is none.
    Raises ConfigError or UnsupportedError with the pointer of the field.
    """
    linux = config.get("linux") or {}
    context = _Context(namespaces, host, bundle, is_dir, read_link)
    result = context.result
    context.cgroup_paths = cgroup_paths or {}
    context.label = (linux.get("mountLabel") or "") if selinux else ""
    context.label_option = _label_option(config.get("annotations") or {})
    result.mount_namespace = namespaces.has("mount")

    root = config.get("root") or {}
    rootfs = plan.op("rootfs", "/root/path", strings=(paths.join(bundle, root.get("path") or ""),), args=root_id)
    _root(context, linux.get("rootfsPropagation") or "", rootfs, no_pivot)
    mounts = config.get("mounts") or []
    context.destinations = [clean(mount["destination"]) for mount in mounts]
    dev_is_bind = False
    for index, mount in enumerate(mounts):
        is_bind = _mount(context, mount, index)
        dev_is_bind = dev_is_bind or (is_bind and context.destinations[index] == "/dev")
    if mounts and not result.mount_namespace:
        result.warnings.append("/mounts: no mount namespace, the mounts are made in the runtime's own")
    result.setup += devices.lower(
        linux.get("devices") or [],
        context.destinations,
        dev_is_bind,
        namespaces.has("user") or host.in_userns,
        lambda path: is_dir(path) is not None,
        paths.host_node,
    )
    if root.get("readonly"):
        _needs_mount_namespace(context, "/root/readonly")
        result.final.append(plan.op("attr", "/root/readonly", strings=("",), args=(RDONLY,)))
    result.readonly = _path_ops(context, "readonly", linux.get("readonlyPaths") or [], "/linux/readonlyPaths")
    result.masked = _path_ops(context, "mask", linux.get("maskedPaths") or [], "/linux/maskedPaths")
    return result


def _label_option(annotations: "dict[str, str]") -> str:
    name = annotations.get(LABEL_ANNOTATION, "context")
    if name not in mount_options.LABELS:
        raise ConfigError(
            f"no mount option for labels: '{name}'",
            pointer=f"/annotations/{LABEL_ANNOTATION}",
            hint=f"one of {', '.join(mount_options.LABELS)}",
        )
    return name


def _needs_mount_namespace(context: _Context, at: str) -> None:
    if not context.result.mount_namespace:
        raise ConfigError("needs a mount namespace in /linux/namespaces", pointer=at)


def _root(context: _Context, name: str, rootfs: "Op", no_pivot: bool) -> None:
    """Propagation and the way into the root.

    Whatever rootfsPropagation says, the host's mounts are slaves while the root is put together: nothing made on the
    way reaches the host. The requested value is set on the new root once it is "/"; binds keep their peers on the
    host when it is a shared one, which is all that can be told from outside. Never in a user namespace.
    """
    at = "/linux/rootfsPropagation"
    result = context.result
    if name:
        if name not in mount_options.PROPAGATION:
            raise ConfigError(f"unknown mount propagation '{name}'", pointer=at)
        _needs_mount_namespace(context, at)
        context.propagation = mount_options.PROPAGATION[name]
    # The root of a user namespace must not be able to mount on the host: binds are slaves there, as in the copies that
    # the kernel makes for one (mount_namespaces(7)).
    if context.propagation & MS_SHARED and not context.namespaces.has("user"):
        context.bind_flags = 0
    if not result.mount_namespace:
        rootfs.flags |= plan.NO_BIND
        result.rootfs.append(rootfs)
        result.pivot.append(plan.op("chroot", rootfs.pointer, strings=rootfs.strings))
        return
    if no_pivot and context.propagation & MS_PRIVATE:
        raise ConfigError(f"'{name}' does not go together with --no-pivot", pointer=at)
    result.propagation.append(plan.op("propagation", args=(MS_SLAVE | MS_REC,)))
    result.rootfs.append(rootfs)
    result.pivot.append(plan.op("pivot", flags=plan.NO_PIVOT if no_pivot else 0))
    if context.propagation:
        # private is for the root alone: recursively it would take back what single mounts asked for
        value = MS_PRIVATE if context.propagation & MS_PRIVATE else context.propagation
        where = result.last if value & plan.MS_UNBINDABLE else result.pivot
        where.append(plan.op("root_attr_propagation", at, args=(value,)))


def _mount(context: _Context, mount: "dict[str, Any]", index: int) -> bool:
    """Lower /mounts/INDEX. Returns whether something of elsewhere is bound there."""
    at = f"/mounts/{index}"
    destination = context.destinations[index]
    if not mount["destination"].startswith("/"):
        context.result.warnings.append(f"{at}/destination: '{mount['destination']}' is not absolute, taken from /")
    if destination == "/":
        raise ConfigError("this is the root itself", pointer=f"{at}/destination", hint="use /root")
    options = mount_options.parse(mount.get("options") or [])
    kind = mount.get("type") or ""
    is_bind = kind == "bind" or "bind" in options.flags or "rbind" in options.flags
    _check_proc(destination, kind, is_bind or "remount" in options.flags, f"{at}/destination")
    if "tmpcopyup" in options.flags and (is_bind or kind != "tmpfs"):
        raise ConfigError("tmpcopyup is for tmpfs", pointer=f"{at}/options")
    mapping = None
    if options.idmap or mount.get("uidMappings") or mount.get("gidMappings"):
        from ociruntime.mounts import idmap

        mapping = idmap.lower(mount, options, at, context.namespaces, context.host)
    if "remount" in options.flags:
        _remount(context, options, destination, at, is_bind)
    elif is_bind:
        _bind(context, mount, options, destination, at, mapping)
    elif not kind:
        raise ConfigError("a file system type or the option bind is needed", pointer=f"{at}/type")
    elif kind == "cgroup":
        ops, final = cgroup.lower(
            _merged(options),
            destination,
            at,
            context.namespaces,
            context.host,
            context.cgroup_paths,
            context.bind_flags,
        )
        context.result.setup += ops
        context.result.final += final
    elif kind == "sysfs" and _foreign_network(context.namespaces):
        # sysfs belongs to the network namespace: who does not own that may only see the host's
        attributes = _merged(options).attr()
        _add_bind(context, options, destination, at, "/sys", True, (attributes, attributes), plan.PLAIN_DIR)
    elif kind == "proc" and context.namespaces.has("user") and not context.namespaces.has("pid"):
        # the same with procfs and the PID namespace
        attributes = _merged(options).attr()
        flags = plan.PLAIN_DIR | plan.PROCFS_SOURCE
        _add_bind(context, options, destination, at, "/proc", True, (attributes, attributes), flags)
    else:
        _new(context, mount, options, destination, at, index, mapping)
    return is_bind and "remount" not in options.flags


def _merged(options: "Options") -> "Options":
    options.merge()
    return options


def _foreign_network(namespaces: "Namespaces") -> bool:
    """Whether the container's user namespace does not own its network namespace: that is older, or of others."""
    if namespaces.new("network") or not namespaces.has("user"):
        return False
    user, network = namespaces.joined("user"), namespaces.joined("network")
    return not (user and network and paths.owns(user, network))


def _check_proc(destination: str, kind: str, known: bool, at: str) -> None:
    """Only proc, or a bind that the init process finds to be procfs, goes onto /proc; below it only known files.

    known: nothing new comes there, or the init process looks at it.
    """
    if destination == "/proc":
        if kind != "proc" and not known:
            raise ConfigError(f"a file system of type '{kind}' cannot be mounted over /proc", pointer=at)
    elif destination.startswith("/proc/") and destination not in PROC_FILES:
        raise ConfigError(
            "nothing may be mounted inside /proc", pointer=at, path=destination, hint=f"except {', '.join(PROC_FILES)}"
        )


def _remount(context: _Context, options: "Options", destination: str, at: str, is_bind: bool) -> None:
    """Change the attributes of what is already mounted there, and, unless a bind is meant, options of the file system;
    those that are not named stay.
    """
    if is_bind:
        _ignored(context, options, at)
    elif options.data or options.superblock:
        data = [(name, "") for name in options.superblock]
        for key, parameter, index in options.data:
            _check_parameter(key, parameter, f"{at}/options/{index}")
            data.append((key, parameter))
        context.result.setup.append(
            plan.op("remount", at, strings=("", destination, "", pack_data(data)), args=(0, 0, 0, len(data)))
        )
    attributes = options.attr()
    if destination == "/dev" and options.set & RDONLY:
        # devices and links are made first
        attributes &= ~RDONLY
        _read_only_last(context, destination, at)
    for value, flags in ((options.recursive_attr(), plan.RECURSIVE), (attributes, 0)):
        if value:
            context.result.setup.append(plan.op("attr", at, strings=(destination,), args=(value,), flags=flags))


def _bind(
    context: _Context,
    mount: "dict[str, Any]",
    options: "Options",
    destination: str,
    at: str,
    mapping: "IdMap | None",
) -> None:
    source = mount.get("source") or ""
    if not source:
        raise ConfigError("a bind mount needs a source", pointer=f"{at}/source")
    source = paths.join(context.bundle, source)
    flags = 0
    try:
        link = None
        if "copy-symlink" in options.flags or "src-nofollow" in options.flags:
            link = context.read_link(source)
        directory = False if link is not None else context.is_dir(source)
    except OSError as error:
        raise ConfigError("bind source", pointer=f"{at}/source", path=source, errno=error.errno or 0) from None
    if directory is None:
        raise ConfigError("bind source", pointer=f"{at}/source", path=source, errno=errno.ENOENT)
    if link is not None and "copy-symlink" in options.flags:
        context.result.setup.append(plan.op("symlink", at, strings=(destination, link), flags=plan.SAME))
        return
    if not directory:
        flags |= plan.FILE
    if destination == "/proc":
        flags |= plan.PROCFS_SOURCE | plan.PLAIN_DIR
    _ignored(context, options, at)
    attributes = options.attr()
    if destination == "/dev" and options.set & RDONLY:
        # /dev/pts and its like are mounted inside first
        attributes &= ~RDONLY
        flags |= plan.KEEP
        _read_only_last(context, destination, at)
    _add_bind(
        context,
        options,
        destination,
        at,
        source,
        "rbind" in options.flags,
        (attributes, options.recursive_attr()),
        flags,
        mapping,
    )


def _ignored(context: _Context, options: "Options", at: str) -> None:
    for key, _, index in options.data:
        context.result.warnings.append(f"{at}/options/{index}: '{key}' means nothing to a bind mount, ignoring")


def _add_bind(
    context: _Context,
    options: "Options",
    destination: str,
    at: str,
    source: str,
    recursive: bool,
    attributes: "tuple[int, int]",
    flags: int,
    mapping: "IdMap | None" = None,
) -> None:
    propagation = options.propagation
    if not propagation and context.propagation & MS_PRIVATE:
        propagation = [context.propagation | MS_REC]
    first, second = (*propagation, 0, 0)[:2]
    if "dest-nofollow" in options.flags:
        flags |= plan.NO_FOLLOW
    if destination in PROC_FILES:
        flags |= plan.IN_PROC
    context.result.setup.append(
        plan.op(
            "bind",
            at,
            strings=("", destination),
            args=(*attributes, first, second),
            flags=flags | context.bind_flags,
            fd=FdSource("tree", source, recursive, "src-nofollow" in options.flags, mapping),
        )
    )


def _new(
    context: _Context,
    mount: "dict[str, Any]",
    options: "Options",
    destination: str,
    at: str,
    index: int,
    mapping: "IdMap | None",
) -> None:
    """A new file system. Nothing is set on it yet, so only the set bits matter.

    An id-mapped one is made by the parent: the kernel maps ids for the owner of the file system's user namespace only,
    and never to that namespace itself, so it must not be the container's. But see idmap.made_inside().
    """
    kind = mount["type"]
    options.merge()
    data = [(name, "") for name in options.superblock]
    attributes, flags = options.set, 0
    if kind in ("proc", "sysfs"):
        flags |= plan.PLAIN_DIR
    if kind == "tmpfs" and options.value("mode") is None:
        flags |= plan.INHERIT_MODE
    if "tmpcopyup" in options.flags:
        flags |= plan.COPYUP
    if "dest-nofollow" in options.flags:
        flags |= plan.NO_FOLLOW
    if destination in PROC_FILES:
        flags |= plan.IN_PROC
    if attributes & RDONLY:
        if kind not in KERNEL_TYPES:
            data.append(("ro", ""))
        if (kind == "tmpfs" or destination == "/dev") and destination not in context.destinations[index + 1 :]:
            # mount points are still to be made inside
            attributes &= ~RDONLY
            flags |= plan.KEEP
            _read_only_last(context, destination, at)
    layered = kind == "overlay" and any(_too_long(value) for key, value, _ in options.data if key in DIRECTORIES)
    for key, value, place in options.data:
        _check_key(key, f"{at}/options/{place}")
        is_id = kind in ("devpts", "tmpfs") and key in ("uid", "gid") and value.isdecimal()
        if is_id and mapping is None and not context.namespaces.maps(key, int(value)):
            raise ConfigError(
                f"{key} {value} is not mapped in the container's user namespace", pointer=f"{at}/options/{place}"
            )
        data += _parameters(key, value, f"{at}/options/{place}", context.host, layered and mapping is None)
    if context.label and kind not in UNLABELLED and options.value(context.label_option) is None:
        data.append((context.label_option, context.label))
    origin = mount.get("source") or ""
    fd = None
    if mapping is not None:
        from ociruntime.mounts import idmap

        if idmap.made_inside(kind, options, context.namespaces, context.host):
            fd = FdSource("userns", kind, idmap=mapping)
            flags |= plan.MAPPED
        else:
            parameters = [("source", origin), *data] if origin else data
            fd = FdSource("filesystem", kind, idmap=mapping, parameters=parameters)
            data = []
    context.result.setup.append(
        plan.op(
            "mount",
            at,
            strings=(kind, destination, origin, pack_data(data)),
            args=(attributes, 0, options.propagation[-1] if options.propagation else 0, len(data)),
            flags=flags,
            fd=fd,
        )
    )


def _check_key(key: str, at: str) -> None:
    if not key or key[0] == ":":  # what the init process knows as something else (shim.h, OP_MOUNT)
        raise ConfigError(f"'{key}' is no option of any file system", pointer=at)


def _check_parameter(key: str, value: str, at: str) -> None:
    _check_key(key, at)
    if _too_long(value):
        raise ConfigError(f"{key}: a value of more than {VALUE_MAX} bytes is not taken by fsconfig(2)", pointer=at)


def _too_long(value: str) -> bool:
    return len(value.encode("utf-8", "surrogateescape")) > VALUE_MAX


def _parameters(key: str, value: str, at: str, host: "Host", layered: bool) -> "list[tuple[str, str]]":
    """One option as fsconfig(2) takes it. layered: of an overlay in which a name of directories is too long for that.

    Such a name is opened by the init process, and called by the number of its fd (shim.h, OP_MOUNT). So are relative
    ones beside it: its working directory is another one meanwhile. Lower layers go one by one, as of LAYERS_KERNEL;
    before it all of them by number, as many as always fit.
    """
    if not layered or key not in DIRECTORIES:
        _check_parameter(key, value, at)
        return [(key, value)]
    if key != "lowerdir":
        return _directory(key, value)
    layers = mount_options.layers(value)
    if host.kernel >= LAYERS_KERNEL:
        return [
            pair
            for separator, name in layers
            for pair in _directory("datadir+" if separator == "::" else "lowerdir+", name)
        ]
    # numbers of three digits
    if sum(len(separator) + 3 for separator, _ in layers) > VALUE_MAX:
        needed, found = (".".join(map(str, version)) for version in (LAYERS_KERNEL, host.kernel))
        raise UnsupportedError(
            f"an overlay of {len(layers)} layers with names of more than {VALUE_MAX} bytes together",
            f"Linux {needed}, this is {found}",
            pointer=at,
        )
    return [*layers, (key, "")]


def _directory(key: str, name: str) -> "list[tuple[str, str]]":
    return [("", name), (key, "")] if _too_long(name) or not name.startswith("/") else [(key, name)]


def _read_only_last(context: _Context, destination: str, at: str) -> None:
    context.result.final.append(plan.op("attr", at, strings=(destination,), args=(RDONLY,)))


def _path_ops(context: _Context, kind: str, names: "list[str]", at: str) -> "list[Op]":
    """maskedPaths and readonlyPaths: absolute, once each."""
    if names:
        _needs_mount_namespace(context, at)
    ops = []
    seen = set()
    for index, name in enumerate(names):
        if not name.startswith("/"):
            raise ConfigError("must be absolute", pointer=f"{at}/{index}", path=name)
        path = clean(name)
        if path == "/" and kind == "mask":
            raise ConfigError("the root itself cannot be masked", pointer=f"{at}/{index}")
        if path not in seen:
            seen.add(path)
            ops.append(plan.op(kind, f"{at}/{index}", strings=(path,)))
    return ops
