"""The ID maps of a new user namespace: written by the parent, or through newuidmap(1) and newgidmap(1).

An unprivileged user may write a map of one line that holds the own ID and nothing else; and the group map only once
setgroups(2) is denied, since leaving a group could open what that group is kept out of. Every other ID is for the two
helpers to give, which look into /etc/subuid and /etc/subgid.
Source: user_namespaces(7), "Defining user and group ID mappings"; newuidmap(1), subuid(5).
"""

import posix
from errno import EPERM

from ociruntime.errors import ConfigError, OCIError, StepError, UnsupportedError
from ociruntime.files import read_if_possible
from ociruntime.namespaces import map_text, parse_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.host import Host
    from ociruntime.namespaces import Namespaces, Ranges
    from ociruntime.shim.calls import Held

# Never the caller's PATH: what is found there gets to say which IDs the container has.
PLACES = ("/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/local/sbin")


def write(pid: int, spaces: "Namespaces", host: "Host", held: "Held | None" = None) -> None:
    """Write both maps of the process pid, which waits meanwhile. held: signals that end a helper that takes its time.

    Raises ConfigError at the mapping that the caller has no right to, UnsupportedError when a helper is missing,
    StepError, SignalError.
    """
    if spaces.deny_setgroups:
        _write_file(pid, "setgroups", "deny", "/linux/gidMappings", host, ())
    for kind, ranges, own in (("uid", spaces.uid_ranges or (), host.euid), ("gid", spaces.gid_ranges or (), host.egid)):
        pointer = f"/linux/{kind}Mappings"
        if host.euid == 0 or only_own(ranges, own):
            _write_file(pid, f"{kind}_map", map_text(ranges), pointer, host, ranges)
        else:
            _give(pid, kind, ranges, pointer, own, held)


def only_own(ranges: "Ranges", own: int) -> bool:
    """Whether a map holds the caller's own ID and nothing else: the one that needs no privilege."""
    return len(ranges) == 1 and ranges[0][1:] == (own, 1)


def _write_file(pid: int, name: str, text: str, pointer: str, host: "Host", ranges: "Ranges") -> None:
    path = f"/proc/{pid}/{name}"
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(fd, text.encode("ascii"))
        finally:
            posix.close(fd)
    except OSError as error:
        if error.errno == EPERM and ranges:
            _check_own(name, ranges, pointer)
        right = f"CAP_SET{name[:3].upper()}" if name.endswith("_map") else ""
        hint = f"it takes {right} in the runtime's own user namespace" if right and error.errno == EPERM else ""
        raise StepError(
            "cannot write the id map", pointer=pointer, call="write", errno=error.errno or 0, path=path, hint=hint
        ) from None


def _check_own(name: str, ranges: "Ranges", pointer: str) -> None:
    """The kernel only says EPERM: find the mapping whose host IDs are not in one line of the runtime's own map."""
    own = sorted(parse_map(read_if_possible(f"/proc/self/{name}").decode("ascii")))
    for index, (_, outside, size) in enumerate(ranges):
        end = outside + size
        pieces = [(max(outside, first), min(end, first + count)) for first, _, count in own]
        pieces = [(first, after) for first, after in pieces if first < after]
        if len(pieces) == 1 and pieces[0] == (outside, end):
            continue
        reason, hint = "does not have all of them", ""
        if sum(after - first for first, after in pieces) == size:
            reason = "has them in several lines of its map, and a mapping must be in one"
            hint = f"make it {len(pieces)} mappings, of {_spans(pieces)}"
        raise ConfigError(
            f"{_span(outside, end)}: the runtime's own user namespace {reason}",
            pointer=f"{pointer}/{index}/hostID",
            errno=EPERM,
            hint=hint,
        )


def _span(first: int, after: int) -> str:
    return str(first) if after - first == 1 else f"{first} to {after - 1}"


def _spans(pieces: "list[tuple[int, int]]") -> str:
    shown = [_span(first, after) for first, after in pieces[:3]]
    return ", ".join([*shown, "and so on"] if len(pieces) > 3 else shown)


def find_helper(name: str) -> str:
    """The path of newuidmap or newgidmap; "" if it is not installed."""
    for place in PLACES:
        try:
            if posix.access(f"{place}/{name}", posix.X_OK):
                return f"{place}/{name}"
        except OSError:
            continue
    return ""


def _give(pid: int, kind: str, ranges: "Ranges", pointer: str, own: int, held: "Held | None") -> None:
    """Let the helper write the map, and look whether it has: all lines, no less."""
    name = f"new{kind}map"
    path = find_helper(name)
    if not path:
        raise UnsupportedError(
            "a mapping of more than the caller's own ID",
            f"{name}, which is not in {', '.join(PLACES)}",
            pointer=pointer,
            hint="install it (package uidmap), or map one ID only",
        )
    words = [str(number) for mapping in ranges for number in mapping]
    printed = _run(path, [name, str(pid), *words], pointer, held)
    if len(parse_map(read_if_possible(f"/proc/{pid}/{kind}_map").decode("ascii"))) != len(ranges):
        raise _refused(path, kind, ranges, pointer, printed, own)


def _run(path: str, argv: "list[str]", pointer: str, held: "Held | None") -> str:
    """Run a helper to its end: what it has printed."""
    from ociruntime.hooks import follow, kill_group
    from ociruntime.shim.spawn import run_process

    reader, writer = posix.pipe2(posix.O_CLOEXEC)
    try:
        try:
            pid, pidfd = run_process(path, argv, [], stdout=writer, stderr=writer)
        except OCIError as error:
            raise StepError("cannot be executed", pointer=pointer, errno=error.errno, path=path) from None
        finally:
            posix.close(writer)
        try:
            output, _ = follow(reader, pidfd, 0, held)
        except BaseException:
            kill_group(pid)
            raise
        finally:
            posix.close(pidfd)
            try:
                posix.waitpid(pid, 0)
            except ChildProcessError:
                pass  # the caller ignores SIGCHLD
    finally:
        posix.close(reader)
    return output.decode("utf-8", "replace").strip()


def _refused(path: str, kind: str, ranges: "Ranges", pointer: str, printed: str, own: int) -> OCIError:
    """What the helper says: "newuidmap: uid range [0-5) -> [7-12) not allowed", or something about itself."""
    for index, (inside, outside, size) in enumerate(ranges):
        if f"[{inside}-{inside + size}) -> [{outside}-{outside + size}) not allowed" in printed:
            return ConfigError(
                f"{_span(outside, outside + size)}: not granted to user {posix.geteuid()} in /etc/sub{kind}",
                pointer=f"{pointer}/{index}",
                hint=f"what can be mapped: the own ID ({own}), and what lines of this user there grant",
            )
    hint = ""
    if "not permitted" in printed or not printed:
        hint = "it must be setuid root or have file capabilities, and its caller not be under no_new_privs"
    return StepError(
        f"has not written the map: {printed.partition(': ')[2] or printed or 'no reason given'}",
        pointer=pointer,
        path=path,
        hint=hint,
    )
