"""The `process` section: user, capabilities, rlimits, cwd, env, args, umask, oom score, labels -> ops.

Pure: the config and a few facts in, ops out. The lists of `Process` are pieces of the init process's order; lifecycle
puts them in place (runtime-spec runtime.md, "Lifecycle"; config.md, "Process"):

    early          first of all, while the init process may still write its own /proc files: oom_score_adj
    after_pivot    the working directory is made
    umask          after the last file the runtime makes
    apparmor       after domainname, before sysctl
    no_new_privs   before the ready sync
    selinux        after the ready sync, before any seccomp filter
    directory      chdir and the check of where that leads, before any filter
    identity       [seccomp goes before it without no_new_privs] environment, bounding set, owner of stdio,
                   credentials, chdir again, cwd check, capabilities, ambient set, executable looked up
                   [seccomp goes after it with no_new_privs]
    execute        after the wait for start
"""

import posix

from ociruntime import capabilities, plan
from ociruntime.errors import ConfigError, UnsupportedError
from ociruntime.files import read_if_possible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from ociruntime.plan import Op

    class HostFacts(Protocol):
        """What this room asks of host.Host."""

        euid: int


UMASK_DEFAULT = 0o022
CONSOLE_MAX = 0xFFFF  # struct winsize
ID_MAX = 0xFFFFFFFE  # (uid_t) -1 means "leave alone" to setresuid(2): taken as an ID it would keep root

# setrlimit(2), include/uapi/asm-generic/resource.h: the numbers of every architecture we build for.
RLIMITS = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}

KEEP_GROUPS_ANNOTATION = "run.oci.keep_original_groups"
INIT_ANNOTATION = "org.ociruntime.init"


class Process:
    """A lowered process: the op lists of the module docstring, rlimits [(pointer, resource, soft, hard)] for the
    parent, no_new_privileges (decides the place of seccomp), warnings [(pointer, text)].
    """

    __slots__ = (
        "after_pivot",
        "apparmor",
        "directory",
        "early",
        "execute",
        "identity",
        "no_new_privileges",
        "no_new_privs",
        "rlimits",
        "selinux",
        "umask",
        "warnings",
    )

    def __init__(self) -> None:
        self.early: list[Op] = []
        self.after_pivot: list[Op] = []
        self.umask: list[Op] = []
        self.apparmor: list[Op] = []
        self.no_new_privs: list[Op] = []
        self.no_new_privileges = False
        self.selinux: list[Op] = []
        self.directory: list[Op] = []
        self.identity: list[Op] = []
        self.execute: list[Op] = []
        self.rlimits: list[tuple[str, int, int, int]] = []
        self.warnings: list[tuple[str, str]] = []


def lower(
    config: "dict[str, Any]",
    host: "HostFacts",
    *,
    host_bounding: int = capabilities.ALL,
    keep_groups: bool = False,
    apparmor: "bool | None" = None,
    selinux: "bool | None" = None,
) -> Process:
    """Lower /process of a config.json.

    host_bounding: the runtime's own bounding set (capabilities.bounding_of_self). keep_groups: setgroups is denied in
    the container's user namespace. apparmor, selinux: whether they are in force; None: looked up if the config asks.
    Without /process the container can be created but not started: the one op reports that.
    Raises ConfigError or UnsupportedError at the field. Source: runtime-spec config.md, "Process".
    """
    process = config.get("process")
    if process is None:
        result = Process()
        result.execute.append(plan.op("exec", "/process", flags=plan.NO_PROCESS))
        return result
    result = lower_process(
        process,
        config,
        host,
        host_bounding=host_bounding,
        keep_groups=keep_groups,
        apparmor=apparmor,
        selinux=selinux,
    )
    if wants_init(config):
        result.execute[-1].flags |= plan.INIT
    return result


def wants_init(config: "dict[str, Any]") -> bool:
    """Whether an annotation asks for an init beside the program, which passes signals on, reaps, and ends with it."""
    return (config.get("annotations") or {}).get(INIT_ANNOTATION) in ("1", "true")


def lower_process(
    process: "dict[str, Any]",
    config: "dict[str, Any]",
    host: "HostFacts",
    *,
    at: str = "/process",
    host_bounding: int = capabilities.ALL,
    keep_groups: bool = False,
    apparmor: "bool | None" = None,
    selinux: "bool | None" = None,
) -> Process:
    """Lower one process object whose JSON pointer is `at` ("" for a file of its own). Otherwise as lower()."""
    result = Process()
    user_namespace, maps = _user_namespace(config)
    user = process.get("user") or {}
    uid = _own_id(user, "uid", at, maps and maps[0])
    gid = _own_id(user, "gid", at, maps and maps[1])

    if process.get("oomScoreAdj") is not None:
        result.early.append(_oom_score_adj(process["oomScoreAdj"], at))
    directory = _cwd(process, at)
    if directory != "/":
        result.after_pivot.append(plan.op("mkdir", f"{at}/cwd", strings=(directory,), args=(0o755,)))
    result.umask.append(_umask(user, at))
    if process.get("noNewPrivileges") is True:
        result.no_new_privileges = True
        result.no_new_privs.append(plan.op("no_new_privs", f"{at}/noNewPrivileges"))
    _labels(process, at, result, apparmor, selinux)
    result.rlimits = rlimits(process, at)

    # The bounding set of a new user namespace is full again: what the runtime itself lacks does not count there.
    available = capabilities.ALL if user_namespace else host_bounding
    sets, drop = _capabilities(process, at, available, result.warnings)
    env, flags = environment(process, at)
    arguments = _args(process, at)
    if keeps_groups(config):
        credentials = _kept_groups(user, at, uid, gid, result.warnings)
    else:
        refused = keep_groups or (host.euid != 0 and not user_namespace)
        credentials = _credentials(user, at, uid, gid, maps and maps[1], keep_groups, refused)
    result.directory += (
        plan.op("chdir", f"{at}/cwd", strings=(directory,), flags=plan.RETRY),
        plan.op("check_cwd", f"{at}/cwd"),
    )
    result.identity += (
        plan.op("environment", f"{at}/env", strings=(plan.pack_list(env),), args=(len(env), uid), flags=flags),
        plan.op("bounding", f"{at}/capabilities/bounding" if sets is not None else at, args=(drop,)),
        plan.op("stdio_owner", f"{at}/user/uid", args=(uid,)),
        credentials,
        plan.op("chdir", f"{at}/cwd", strings=(directory,)),
        plan.op("check_cwd", f"{at}/cwd"),
        plan.op("capabilities", f"{at}/capabilities", args=sets or (0, 0, 0, 0)),
    )
    if sets is not None and sets[3]:
        result.identity.append(plan.op("ambient", f"{at}/capabilities/ambient", args=(sets[3],)))
    result.identity.append(
        plan.op("lookup", f"{at}/args/0", strings=(plan.pack_list(arguments),), args=(len(arguments),))
    )
    result.execute.append(plan.op("exec", f"{at}/args"))
    return result


# ---- user


def _user_namespace(config: "dict[str, Any]") -> "tuple[bool, tuple[Any, Any] | None]":
    """(the container has a user namespace of its own, (uidMappings, gidMappings) if this config makes them)."""
    linux = config.get("linux") or {}
    for namespace in linux.get("namespaces") or ():
        if namespace.get("type") == "user":
            if namespace.get("path"):
                return True, None
            return True, (linux.get("uidMappings") or (), linux.get("gidMappings") or ())
    return False, None


def _check_id(number: int, pointer: str, maps: "Any") -> int:
    """number if it is an ID the kernel accepts and, with maps, one that the user namespace maps."""
    if not 0 <= number <= ID_MAX:
        raise ConfigError(f"{number} is not a user or group ID (0 to {ID_MAX})", pointer=pointer)
    if maps:
        for entry in maps:
            if 0 <= number - entry["containerID"] < entry["size"]:
                return number
        raise ConfigError(
            f"{number} is not mapped in the container's user namespace",
            pointer=pointer,
            hint="add it to linux.uidMappings or linux.gidMappings",
        )
    return number


def _own_id(user: "dict[str, Any]", key: str, at: str, maps: "Any") -> int:
    return _check_id(user.get(key) or 0, f"{at}/user/{key}", maps)


def _credentials(
    user: "dict[str, Any]", at: str, uid: int, gid: int, gid_maps: "Any", keep_groups: bool, refused: bool
) -> "Op":
    """setgroups, setgid, setuid. The group list is set even when it is empty: the caller's groups must not stay."""
    groups = user.get("additionalGids") or ()
    pointer = f"{at}/user/additionalGids"
    if groups and refused:
        raise ConfigError(
            "additional groups cannot be set: setgroups(2) is denied here",
            pointer=pointer,
            hint="an unprivileged runtime can set them when gidMappings has more than its own group, see newgidmap(1)",
        )
    packed = b"".join(
        [_check_id(group, f"{pointer}/{i}", gid_maps).to_bytes(4, "little") for i, group in enumerate(groups)]
    )
    return plan.op(
        "credentials",
        f"{at}/user",
        strings=(packed,),
        args=(uid << 32 | gid, len(groups)),
        flags=plan.KEEP_GROUPS if keep_groups else 0,
    )


def keeps_groups(config: "dict[str, Any]") -> bool:
    """Whether an annotation asks that the process keeps the supplementary groups of the runtime's caller.

    For an unprivileged user whose access to a volume comes from a group: setgroups(2) could only take that away.
    """
    return (config.get("annotations") or {}).get(KEEP_GROUPS_ANNOTATION) in ("1", "true")


def _kept_groups(user: "dict[str, Any]", at: str, uid: int, gid: int, warnings: "list[tuple[str, str]]") -> "Op":
    """The credentials with setgroups left out, and so without the groups of the config."""
    if user.get("additionalGids"):
        warnings.append(
            (
                f"{at}/user/additionalGids",
                f"the annotation {KEEP_GROUPS_ANNOTATION} keeps the caller's groups, ignoring",
            )
        )
    return plan.op("credentials", f"{at}/user", strings=(b"",), args=(uid << 32 | gid, 0), flags=plan.KEEP_GROUPS)


def _umask(user: "dict[str, Any]", at: str) -> "Op":
    mask = user.get("umask")
    if mask is None:
        return plan.op("umask", f"{at}/user/umask", args=(UMASK_DEFAULT,))
    if not 0 <= mask <= 0o777:
        raise ConfigError(f"{mask} is not a umask (0 to 511, octal 0777)", pointer=f"{at}/user/umask")
    return plan.op("umask", f"{at}/user/umask", args=(mask,))


# ---- what is run, where, with what environment


def console_size(process: "dict[str, Any]", at: str = "/process") -> int:
    """consoleSize as the console op takes it: rows << 16 | columns, 0 when it is not given.

    Raises ConfigError for a number that a terminal cannot have. Source: runtime-spec config.md, "Process"; TIOCSWINSZ.
    """
    size = process.get("consoleSize") or {}
    for key in ("height", "width"):
        if (size.get(key) or 0) > CONSOLE_MAX:
            raise ConfigError(f"a terminal has at most {CONSOLE_MAX}", pointer=f"{at}/consoleSize/{key}")
    return (size.get("height") or 0) << 16 | (size.get("width") or 0)


def _cwd(process: "dict[str, Any]", at: str) -> str:
    directory: str = process.get("cwd") or ""
    if not directory.startswith("/"):
        what = f"'{directory}' is not an absolute path" if directory else "the working directory is missing"
        raise ConfigError(what, pointer=f"{at}/cwd")
    return directory


def _args(process: "dict[str, Any]", at: str) -> "list[str]":
    arguments: list[str] = process.get("args") or []
    if not arguments:
        raise ConfigError("args must hold at least one entry: the executable", pointer=f"{at}/args")
    if not arguments[0]:
        raise ConfigError("the empty name: executable file not found in $PATH", pointer=f"{at}/args/0")
    return arguments


def environment(process: "dict[str, Any]", at: str = "/process") -> "tuple[list[str], int]":
    """(the entries of env, flags of the environment op).

    Of several entries with one name the last wins, at its own place. A missing or empty HOME is left to the init
    process, which finds it in the container's passwd (plan.HOME).
    Raises ConfigError at the entry without a name or "=". Source: runtime-spec config.md, "Process"; environ(7).
    """
    entries: dict[str, str] = {}
    for i, entry in enumerate(process.get("env") or ()):
        name, equals, _ = entry.partition("=")
        if not equals or not name:
            what = "has an empty name" if equals else "is not of the form NAME=value"
            raise ConfigError(f"the entry '{entry}' {what}", pointer=f"{at}/env/{i}")
        entries.pop(name, None)
        entries[name] = entry
    if entries.get("HOME", "HOME=") == "HOME=":
        entries.pop("HOME", None)
        return list(entries.values()), plan.HOME
    return list(entries.values()), 0


# ---- limits and scores


def rlimits(process: "dict[str, Any]", at: str = "/process") -> "list[tuple[str, int, int, int]]":
    """/process/rlimits as [(pointer, resource, soft, hard)], in the config's order; the parent applies them.

    soft, hard: unsigned 64-bit, 2**64-1 is unlimited. Raises ConfigError: unknown or repeated type, soft above hard.
    """
    result: list[tuple[str, int, int, int]] = []
    seen: set[str] = set()
    for i, limit in enumerate(process.get("rlimits") or ()):
        pointer = f"{at}/rlimits/{i}"
        name = limit["type"]
        number = RLIMITS.get(name)
        if number is None:
            raise ConfigError(f"'{name}' is not a resource limit of Linux", pointer=f"{pointer}/type")
        if name in seen:
            raise ConfigError(f"'{name}' is given twice", pointer=f"{pointer}/type")
        seen.add(name)
        soft, hard = limit["soft"], limit["hard"]
        if soft > hard:
            raise ConfigError(f"the soft limit {soft} is above the hard limit {hard}", pointer=f"{pointer}/soft")
        result.append((pointer, number, soft, hard))
    return result


def early_score(process: "dict[str, Any]", joins: bool) -> bytes:
    """The score as text, if it has to be written before a user namespace is joined: there the file is the host's."""
    score = process.get("oomScoreAdj")
    if not joins or score is None:
        return b""
    _check_score(score, "/process")
    return str(score).encode("ascii")


def _check_score(score: int, at: str) -> None:
    if not -1000 <= score <= 1000:
        raise ConfigError(f"{score} is not an OOM score adjustment (-1000 to 1000)", pointer=f"{at}/oomScoreAdj")


def _oom_score_adj(score: int, at: str) -> "Op":
    _check_score(score, at)
    return plan.op("oom_score_adj", f"{at}/oomScoreAdj", args=(score & 0xFFFFFFFFFFFFFFFF,))


# ---- capabilities


def _capabilities(
    process: "dict[str, Any]", at: str, available: int, warnings: "list[tuple[str, str]]"
) -> "tuple[tuple[int, int, int, int] | None, int]":
    """((effective, permitted, inheritable, ambient) or None, bounding).

    A name that is unknown or not available is a warning and dropped. A set that is not given is empty, and so are all
    of them without the object: nothing is ever granted that was not asked for.
    """
    given = process.get("capabilities")
    if given is None:
        return None, 0
    masks: dict[str, int] = {}
    for which in ("bounding", "effective", "permitted", "inheritable", "ambient"):
        mask = 0
        for i, name in enumerate(given.get(which) or ()):
            number = capabilities.NUMBERS.get(name)
            if number is None:
                warnings.append((f"{at}/capabilities/{which}/{i}", f"unknown capability '{name}', ignoring"))
            elif not available >> number & 1:
                warnings.append((f"{at}/capabilities/{which}/{i}", f"'{name}' is not available here, ignoring"))
            else:
                mask |= 1 << number
        masks[which] = mask
    # capset(2) would say EPERM without telling which one.
    excess = masks["effective"] & ~masks["permitted"]
    if excess:
        raise ConfigError(
            f"{', '.join(capabilities.names(excess))}: effective, but not in the permitted set",
            pointer=f"{at}/capabilities/effective",
        )
    ambient = masks["ambient"]
    refused = ambient & ~(masks["permitted"] & masks["inheritable"])
    if refused:
        names = ", ".join(capabilities.names(refused))
        text = f"{names}: ambient needs the permitted and the inheritable set too, ignoring"
        warnings.append((f"{at}/capabilities/ambient", text))
        ambient &= ~refused
    return (masks["effective"], masks["permitted"], masks["inheritable"], ambient), masks["bounding"]


# ---- security modules


def apparmor_enabled() -> bool:
    """Whether AppArmor is in force (/sys/module/apparmor/parameters/enabled)."""
    return read_if_possible("/sys/module/apparmor/parameters/enabled", 1) == b"Y"


def selinux_enabled() -> bool:
    """Whether SELinux is in force (its file system is mounted)."""
    try:
        posix.stat("/sys/fs/selinux/enforce")
    except OSError:
        return False
    return True


def _labels(
    process: "dict[str, Any]", at: str, result: Process, apparmor: "bool | None", selinux: "bool | None"
) -> None:
    profile = process.get("apparmorProfile")
    if profile:
        if not (apparmor_enabled() if apparmor is None else apparmor):
            raise UnsupportedError(
                f"the AppArmor profile '{profile}'",
                "AppArmor, which is not enabled on this host",
                pointer=f"{at}/apparmorProfile",
            )
        result.apparmor.append(plan.op("apparmor", f"{at}/apparmorProfile", strings=(f"exec {profile}",)))
    label = process.get("selinuxLabel")
    if label:
        if not (selinux_enabled() if selinux is None else selinux):
            raise ConfigError(
                f"the SELinux label '{label}' is given, but SELinux is not enabled on this host",
                pointer=f"{at}/selinuxLabel",
            )
        result.selinux.append(plan.op("selinux", f"{at}/selinuxLabel", strings=(label,)))
