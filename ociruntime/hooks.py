"""The `hooks` section: what runs when, as ops for those inside the container's namespaces, as processes for the others.

    prestart, createRuntime   create, parent: after mounts and devices, before pivot; runtime namespaces
    createContainer           create, init process: before pivot; container namespaces
    startContainer            start, init process: right before the program
    poststart                 start, parent: after the program runs
    poststop                  delete, parent: after everything is removed; a failure is a warning

Source: runtime-spec config.md, "POSIX-platform Hooks"; runtime.md, "Lifecycle".
"""

import posix
from errno import ETIMEDOUT
from select import POLLIN, poll
from time import monotonic

from ociruntime import plan
from ociruntime.errors import HookError, OCIError, SignalError
from ociruntime.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ociruntime.plan import Op
    from ociruntime.shim.calls import Held
    from ociruntime.shim.sync import Message

OUTPUT_KEPT = 4096
# Annotations that name a file to which the output of every hook is appended; then an error cannot quote it.
STDOUT_ANNOTATION = "run.oci.hooks.stdout"
STDERR_ANNOTATION = "run.oci.hooks.stderr"
# What later commands need of the section; create saves it in the state.
LATER = ("startContainer", "poststart", "poststop")


def later(config: "dict[str, Any]") -> "dict[str, object]":
    """The kinds that run after create."""
    section = config.get("hooks")
    if not section:
        return {}
    return {kind: section[kind] for kind in LATER if section.get(kind)}


def caller_environment() -> "list[str]":
    """The runtime's own environment: what a hook without `env` gets."""
    return [
        f"{key.decode('utf-8', 'surrogateescape')}={value.decode('utf-8', 'surrogateescape')}"
        for key, value in posix.environ.items()
    ]


def _argv(hook: "Mapping[str, Any]") -> "list[str]":
    return hook.get("args") or [hook["path"]]


def _output_path(annotations: "Mapping[str, str] | None", key: str, bundle: str) -> str:
    """The file that an annotation names; relative paths count from the bundle. "" is none."""
    path = (annotations or {}).get(key) or ""
    return path if not path or path.startswith("/") else f"{bundle}/{path}"


def open_output(path: str) -> int:
    """A file for output of hooks: appended to, made (mode 0700, less the umask) when it is not there."""
    flags = posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_NOCTTY | posix.O_CLOEXEC
    return posix.open(path, flags, 0o700)


def outputs(config: "dict[str, Any]", bundle: str) -> "list[Op]":
    """Ops that give the init process the files for the output of its hooks, if there are both."""
    section = config.get("hooks") or {}
    annotations = config.get("annotations")
    if not annotations or not (section.get("createContainer") or section.get("startContainer")):
        return []
    result = []
    for key, flag in ((STDOUT_ANNOTATION, plan.STDOUT), (STDERR_ANNOTATION, plan.STDERR)):
        path = _output_path(annotations, key, bundle)
        if path:
            result.append(plan.op("hook", f"/annotations/{key}", flags=flag, fd=plan.FdSource("append", path)))
    return result


def ops(config: "dict[str, Any]", kind: str, state: str) -> "list[Op]":
    """Ops for hooks that run in the container's namespaces. state: the JSON text for their stdin.

    A startContainer hook without env gets the program's, HOME of the image's passwd included: it comes from the image,
    and the caller's is none of its business.
    """
    section = config.get("hooks")
    result: list[Op] = []
    if not section:
        return result
    data = state.encode("utf-8", "surrogateescape")
    for index, hook in enumerate(section.get(kind) or ()):
        argv = _argv(hook)
        env = hook.get("env")
        flags = 0
        if env is None:
            inside = kind == "startContainer"
            flags = plan.PROGRAM_ENV if inside else 0
            env = [] if inside else caller_environment()
        result.append(
            plan.op(
                "hook",
                f"/hooks/{kind}/{index}",
                strings=(hook["path"], plan.pack_list(argv), plan.pack_list(env), data),
                args=(len(argv), len(env), (hook.get("timeout") or 0) * 1000, len(data)),
                flags=flags,
            )
        )
    return result


def error_from_message(message: "Message", kind: str, index: int, path: str) -> HookError:
    """What the init process reported about a hook of its own."""
    if message.call == "execve":
        return HookError(kind, index, "cannot be executed", path=path, errno=message.errno)
    if message.value2:
        return HookError(kind, index, "timed out and was killed", path=path, output=message.detail, errno=ETIMEDOUT)
    if message.call != "hook status":
        return HookError(kind, index, message.call, path=path, output=message.detail, errno=message.errno)
    return HookError(kind, index, outcome(message.value), path=path, output=message.detail.strip())


def outcome(status: int) -> str:
    """A wait status in words."""
    if status & 0x7F:
        return f"killed by signal {status & 0x7F}"
    return f"exit status {status >> 8 & 0xFF}"


def run(
    section: "Mapping[str, Any]", kind: str, state: "dict[str, object]", cwd: str, held: "Held | None" = None
) -> None:
    """Run the hooks of one kind in the runtime's namespaces, in order; HookError at the first that fails.

    state: the state document for their stdin. cwd: their working directory (the bundle). held: signals that end the
    hook, and raise SignalError.
    """
    hooks = section.get(kind)
    if not hooks:
        return
    text = (dumps(state) + "\n").encode("utf-8", "surrogateescape")
    for index, hook in enumerate(hooks):
        _run_one(hook, kind, index, text, cwd, state, held)


def run_all(section: "Mapping[str, Any]", kind: str, state: "dict[str, object]", cwd: str) -> "list[HookError]":
    """As run(), but a failure does not stop the rest: the failures are returned (poststop)."""
    failures = []
    text = (dumps(state) + "\n").encode("utf-8", "surrogateescape")
    for index, hook in enumerate(section.get(kind) or ()):
        try:
            _run_one(hook, kind, index, text, cwd, state)
        except HookError as error:
            failures.append(error)
    return failures


def _open_directory(path: str) -> int:
    try:
        return posix.open(path, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError:
        return -1  # the bundle may be gone at delete: the hook stays where we are


def _streams(state: "dict[str, Any]", kind: str, index: int, path: str, writer: int) -> "tuple[int, int, list[int]]":
    """(stdout, stderr, fds to close): the files of the annotations, writer for a stream without one."""
    annotations = state.get("annotations")
    if not annotations:
        return writer, writer, []
    opened: list[int] = []
    streams = []
    for key in (STDOUT_ANNOTATION, STDERR_ANNOTATION):
        file = _output_path(annotations, key, state["bundle"])
        try:
            streams.append(open_output(file) if file else writer)
        except OSError as error:
            for fd in opened:
                posix.close(fd)
            what = f"the file of the annotation {key}, '{file}', cannot be opened"
            raise HookError(kind, index, what, path=path, errno=error.errno or 0) from None
        if file:
            opened.append(streams[-1])
    return streams[0], streams[1], opened


def _run_one(
    hook: "Mapping[str, Any]",
    kind: str,
    index: int,
    text: bytes,
    cwd: str,
    state: "dict[str, Any]",
    held: "Held | None" = None,
) -> None:
    """Run one hook to its end. Raises HookError, also when the machine lacks what is needed to run it; SignalError."""
    try:
        _try_one(hook, kind, index, text, cwd, state, held)
    except OSError as error:
        raise HookError(kind, index, "cannot be run", path=hook["path"], errno=error.errno or 0) from None


def _try_one(
    hook: "Mapping[str, Any]",
    kind: str,
    index: int,
    text: bytes,
    cwd: str,
    state: "dict[str, Any]",
    held: "Held | None",
) -> None:
    from ociruntime.shim.spawn import run_process

    path = hook["path"]
    env = hook.get("env")
    if env is None:
        env = caller_environment()
    # A memfd, not a pipe: a hook that does not read its stdin can neither block us nor cause EPIPE.
    stdin = posix.memfd_create("state", posix.MFD_CLOEXEC)
    try:
        reader, writer = posix.pipe2(posix.O_CLOEXEC)
    except OSError:
        posix.close(stdin)
        raise
    directory = _open_directory(cwd)
    files: list[int] = []
    try:
        posix.write(stdin, text)
        posix.lseek(stdin, 0, 0)
        out, err, files = _streams(state, kind, index, path, writer)
        pid, pidfd = run_process(
            path, _argv(hook), env, cwd_fd=directory, stdin=stdin, stdout=out, stderr=err, new_session=True
        )
    except (HookError, OSError):
        posix.close(reader)
        raise
    except OCIError as error:
        posix.close(reader)
        raise HookError(kind, index, "cannot be executed", path=path, errno=error.errno) from None
    finally:
        for fd in files:
            posix.close(fd)
        posix.close(stdin)
        posix.close(writer)
        if directory >= 0:
            posix.close(directory)
    try:
        try:
            output, in_time = follow(reader, pidfd, hook.get("timeout") or 0, held)
        except (SignalError, OSError):
            kill_group(pid)
            _wait(pid)
            raise
        if not in_time:
            kill_group(pid)
        status = _wait(pid)
    finally:
        posix.close(reader)
        posix.close(pidfd)
    printed = output.decode("utf-8", "replace").strip()
    if not in_time:
        raise HookError(kind, index, "timed out and was killed", path=path, output=printed, errno=ETIMEDOUT)
    if status:
        raise HookError(kind, index, outcome(status), path=path, output=printed)


def _wait(pid: int) -> int:
    try:
        return posix.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0xFF00  # the caller ignores SIGCHLD, so the kernel has thrown the status away: not known to be good


def kill_group(pid: int) -> None:
    """SIGKILL for a process that run_process() has given a session, and for all in its group."""
    for target in (-pid, pid):
        try:
            posix.kill(target, 9)
        except ProcessLookupError:
            pass


def follow(reader: int, pidfd: int, timeout: int, held: "Held | None" = None) -> "tuple[bytes, bool]":
    """Collect output until the process is gone, or timeout seconds (0: no limit) are over: (output, it ended in time).

    Raises SignalError when one of the held signals has come; the process is the caller's to end, then as after False.
    """
    output = b""
    waiting = poll()
    waiting.register(reader, POLLIN)
    waiting.register(pidfd, POLLIN)
    if held is not None:
        waiting.register(held.fd, POLLIN)
    end = monotonic() + timeout
    while True:
        left = None
        if timeout:
            left = (end - monotonic()) * 1000
            if left <= 0:
                return output, False
        ready = dict(waiting.poll(left))
        if held is not None and held.fd in ready:
            held.check()
        if reader in ready:
            data = posix.read(reader, 4096)
            if data:
                output = (output + data)[:OUTPUT_KEPT]
            else:
                waiting.unregister(reader)
        elif pidfd in ready:
            return output, True
