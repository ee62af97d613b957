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
from ociruntime.errors import HookError, OCIError
from ociruntime.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ociruntime.plan import Op
    from ociruntime.shim.sync import Message

OUTPUT_KEPT = 4096
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


def ops(config: "dict[str, Any]", kind: str, state: str) -> "list[Op]":
    """Ops for hooks that run in the container's namespaces. state: the JSON text for their stdin."""
    section = config.get("hooks")
    result: list[Op] = []
    if not section:
        return result
    data = state.encode("utf-8", "surrogateescape")
    for index, hook in enumerate(section.get(kind) or ()):
        argv = _argv(hook)
        env = hook.get("env")
        if env is None:
            env = caller_environment()
        result.append(
            plan.op(
                "hook",
                f"/hooks/{kind}/{index}",
                strings=(hook["path"], plan.pack_list(argv), plan.pack_list(env), data),
                args=(len(argv), len(env), (hook.get("timeout") or 0) * 1000, len(data)),
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


def run(section: "Mapping[str, Any]", kind: str, state: "dict[str, object]", cwd: str) -> None:
    """Run the hooks of one kind in the runtime's namespaces, in order; HookError at the first that fails.

    state: the state document for their stdin. cwd: their working directory (the bundle).
    """
    hooks = section.get(kind)
    if not hooks:
        return
    text = (dumps(state) + "\n").encode("utf-8", "surrogateescape")
    for index, hook in enumerate(hooks):
        _run_one(hook, kind, index, text, cwd)


def run_all(section: "Mapping[str, Any]", kind: str, state: "dict[str, object]", cwd: str) -> "list[HookError]":
    """As run(), but a failure does not stop the rest: the failures are returned (poststop)."""
    failures = []
    text = (dumps(state) + "\n").encode("utf-8", "surrogateescape")
    for index, hook in enumerate(section.get(kind) or ()):
        try:
            _run_one(hook, kind, index, text, cwd)
        except HookError as error:
            failures.append(error)
    return failures


def _open_directory(path: str) -> int:
    try:
        return posix.open(path, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError:
        return -1  # the bundle may be gone at delete: the hook stays where we are


def _run_one(hook: "Mapping[str, Any]", kind: str, index: int, text: bytes, cwd: str) -> None:
    from ociruntime.shim.spawn import run_process

    path = hook["path"]
    env = hook.get("env")
    if env is None:
        env = caller_environment()
    # A memfd, not a pipe: a hook that does not read its stdin can neither block us nor cause EPIPE.
    stdin = posix.memfd_create("state", posix.MFD_CLOEXEC)
    reader, writer = posix.pipe2(posix.O_CLOEXEC)
    directory = _open_directory(cwd)
    try:
        posix.write(stdin, text)
        posix.lseek(stdin, 0, 0)
        pid, pidfd = run_process(
            path, _argv(hook), env, cwd_fd=directory, stdin=stdin, stdout=writer, stderr=writer, new_session=True
        )
    except OCIError as error:
        posix.close(reader)
        raise HookError(kind, index, "cannot be executed", path=path, errno=error.errno) from None
    finally:
        posix.close(stdin)
        posix.close(writer)
        if directory >= 0:
            posix.close(directory)
    try:
        output, in_time = _follow(reader, pidfd, hook.get("timeout") or 0)
        if not in_time:
            _kill_group(pid)
        _, status = posix.waitpid(pid, 0)
    finally:
        posix.close(reader)
        posix.close(pidfd)
    printed = output.decode("utf-8", "replace").strip()
    if not in_time:
        raise HookError(kind, index, "timed out and was killed", path=path, output=printed, errno=ETIMEDOUT)
    if status:
        raise HookError(kind, index, outcome(status), path=path, output=printed)


def _kill_group(pid: int) -> None:
    for target in (-pid, pid):
        try:
            posix.kill(target, 9)
        except ProcessLookupError:
            pass


def _follow(reader: int, pidfd: int, timeout: int) -> "tuple[bytes, bool]":
    """Collect output until the process is gone, or timeout seconds (0: no limit) are over: (output, it ended in time)."""
    output = b""
    waiting = poll()
    waiting.register(reader, POLLIN)
    waiting.register(pidfd, POLLIN)
    end = monotonic() + timeout
    while True:
        left = None
        if timeout:
            left = (end - monotonic()) * 1000
            if left <= 0:
                return output, False
        ready = dict(waiting.poll(left))
        if reader in ready:
            data = posix.read(reader, 4096)
            if data:
                output = (output + data)[:OUTPUT_KEPT]
            else:
                waiting.unregister(reader)
        elif pidfd in ready:
            return output, True
