"""stats, and events: what a container uses, and what happens to it.

One poll(2) waits for all of it: the pidfd of the init process; on cgroup v2 memory.events and cgroup.events, whose
changes wake (POLLPRI) whoever has read them; on cgroup v1 an eventfd that the kernel was given with
memory.oom_control. Where the kernel takes no eventfd, its count of killed processes is looked at once a second.

Source: kernel admin-guide cgroup-v1/memory ("OOM Control"), cgroup-v2 (memory.events, cgroup.events); eventfd(2).
"""

import posix
from errno import ENODEV, ENOENT
from select import POLLIN, POLLPRI, poll
from time import monotonic

from ociruntime import intel_rdt, network
from ociruntime.cgroups import files, manager, stats as usage
from ociruntime.errors import OCIError, StateError, UnsupportedError, UsageError
from ociruntime.lifecycle import wait
from ociruntime.state import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ociruntime.lifecycle.runtime import Runtime
    from ociruntime.state.model import State

SIGKILL = 9
SIGSYS = 31
# How often at most the number of times that memory.high was passed is told, and what has no wake-up looked at.
PAUSE = 1.0
# After the end of the init process: how often to look whether the cgroup is empty where nothing tells.
ENDING = 0.1
# What poll(2) takes has an end, about 25 days.
LONGEST = 3600.0


def stats(runtime: "Runtime", container_id: str) -> "dict[str, Any]":
    """See ``Runtime.stats``."""
    state = _running(runtime, container_id)
    cgroup = manager.from_state(state.cgroup)
    if not cgroup.exists():
        cgroup.check_there()
        raise UnsupportedError(
            "counting what a container uses",
            "a cgroup, and the container has none",
            hint="without one `events` still tells of its network, and of its end",
        )
    return _collect(state)


def events(runtime: "Runtime", container_id: str, interval: float) -> "Iterator[dict[str, Any]]":
    """See ``Runtime.events``. What can be refused is refused now, and not with the first record."""
    if not interval > 0:  # NaN is not, either
        raise UsageError("the interval of events must be greater than 0")
    state = _running(runtime, container_id)
    if not manager.from_state(state.cgroup).exists():
        runtime.log.warning(f"container {container_id} has no cgroup: its records tell of its network and end only")
    return _records(runtime, state, interval)


def _running(runtime: "Runtime", container_id: str) -> "State":
    with runtime.states.open(container_id) as directory:
        state = directory.load()
        actual, pid = status.derive(state, directory)
    if not pid or actual == status.CREATING:
        raise StateError(
            f"container with id {container_id} is not running",
            container_id=container_id,
            expected=(status.CREATED, status.RUNNING, status.PAUSED),
            actual=actual,
        )
    return state


def _collect(state: "State") -> "dict[str, Any]":
    cgroup = manager.from_state(state.cgroup)
    # Zeros would look like a container that uses nothing.
    data: dict[str, Any] = usage.collect(cgroup) if cgroup.paths else {}
    data["intel_rdt"] = intel_rdt.stats(state.intel_rdt)
    data["network_interfaces"] = network.statistics(state.pid)
    return data


class _Watch:
    """All that is waited for. counts: the last memory.events; kills: OOM kills so far.

    Descriptors are -1 where there is nothing to watch.
    """

    __slots__ = (
        "blind",
        "cgroup",
        "counts",
        "eventfd",
        "kills",
        "memory_events",
        "oom_control",
        "pidfd",
        "poll",
        "populated",
        "runtime",
        "state",
    )

    def __init__(self, runtime: "Runtime", state: "State") -> None:
        self.runtime = runtime
        self.state = state
        self.cgroup = manager.from_state(state.cgroup)
        self.pidfd = self.eventfd = self.memory_events = self.populated = self.oom_control = -1
        self.poll = poll()
        self.blind = False
        self.counts: dict[str, int] = {}
        self.kills = 0
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self.kills = self.cgroup.oom_kills()
        unified = self.cgroup.paths.get("", "")
        if unified:
            self.populated = _open(unified + "/cgroup.events")
            self.memory_events = _open(unified + "/memory.events")
        if "memory" in self.cgroup.paths:
            self._open_eventfd(self.cgroup.paths["memory"])
        self.counts = self._read_counts()
        for fd in (self.populated, self.memory_events):
            if fd >= 0:
                posix.pread(fd, 4096, 0)  # from now on a change wakes
                self.poll.register(fd, POLLPRI)
        try:
            self.pidfd = wait.open_pidfd(self.state)
        except ProcessLookupError:
            return
        self.poll.register(self.pidfd, POLLIN)

    def _open_eventfd(self, directory: str) -> None:
        self.oom_control = _open(directory + "/memory.oom_control")
        self.eventfd = posix.eventfd(0, posix.EFD_CLOEXEC | posix.EFD_NONBLOCK)
        try:
            files.write(directory + "/cgroup.event_control", b"%d %d" % (self.eventfd, self.oom_control))
        except OSError:
            self.blind = True
        else:
            self.poll.register(self.eventfd, POLLIN)

    def close(self) -> None:
        """Close every descriptor; may be called twice."""
        for fd in (self.pidfd, self.eventfd, self.memory_events, self.populated, self.oom_control):
            if fd >= 0:
                posix.close(fd)
        self.pidfd = self.eventfd = self.memory_events = self.populated = self.oom_control = -1

    def _read_counts(self) -> "dict[str, int]":
        return usage.pairs(_again(self.memory_events)) if self.memory_events >= 0 else {}

    def ooms(self) -> int:
        """How many times to say "oom" now."""
        said = 0
        if self.eventfd >= 0 and not self.blind:
            try:
                count = posix.eventfd_read(self.eventfd)
            except BlockingIOError:
                count = 0
            # The end of the cgroup is told through the eventfd as well.
            said = int(bool(count) and files.exists(self.cgroup.paths["memory"] + "/memory.oom_control"))
        elif self.blind:
            kills = self.cgroup.oom_kills()
            said = int(kills > self.kills)
            self.kills = max(kills, self.kills)
        return said

    def memory(self) -> "tuple[int, int]":
        """(OOM kills, times above memory.high) since the last call, on cgroup v2."""
        before, self.counts = self.counts, self._read_counts() or self.counts
        return tuple(self.counts.get(name, 0) - before.get(name, 0) for name in ("oom_kill", "high"))  # type: ignore[return-value]

    def empty(self) -> bool:
        """Whether the last process has gone."""
        if self.populated >= 0:
            text = _again(self.populated)
            return not text or b"populated 0" in text.split(b"\n")
        try:
            return not self.cgroup.pids()
        except OCIError:
            return True

    def exit(self, killed: bool) -> "dict[str, Any]":
        """The record of the end of the init process. killed: the kernel has killed processes for want of memory."""
        code = wait.ended(self.pidfd, self.state)
        data: dict[str, Any] = {}
        if code is None:
            data["reason"] = "unknown"
        else:
            wait.remember(self.runtime, self.state, code)
            data["status"] = code
            signal = code - 128 if code > 128 else 0
            if not signal:
                data["reason"] = "exited"
            else:
                data["signal"] = signal
                data["reason"] = "oom" if signal == SIGKILL and killed else "seccomp" if signal == SIGSYS else "signal"
        return {"type": "exit", "id": self.state.container_id, "data": data}


def _open(path: str) -> int:
    try:
        return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        if error.errno in (ENOENT, ENODEV):
            return -1
        raise


def _again(fd: int) -> bytes:
    """What a file of a cgroup says now; b"" when the cgroup has gone."""
    try:
        return posix.pread(fd, 4096, 0)
    except OSError as error:
        if error.errno == ENODEV:
            return b""
        raise


def _records(runtime: "Runtime", state: "State", interval: float) -> "Iterator[dict[str, Any]]":
    """The events, until the cgroup is empty."""
    container_id = state.container_id
    watch = _Watch(runtime, state)
    next_stats = monotonic() + interval
    high, next_high = 0, 0.0
    killed = False
    try:
        while True:
            now = monotonic()
            until = min(next_stats - now, LONGEST)
            if high:
                until = min(until, next_high - now)
            if watch.blind:
                until = min(until, PAUSE)
            if watch.pidfd < 0 and watch.populated < 0:
                until = min(until, ENDING)
            ready = {fd for fd, _ in watch.poll.poll(max(0, int(until * 1000) + 1))}
            now = monotonic()
            ooms = watch.ooms()
            # The end of the last process may be all there is to see of it.
            kills, passed = watch.memory() if watch.memory_events >= 0 else (0, 0)
            high += passed
            if ooms or kills > 0:
                killed = True
                yield {"type": "oom", "id": container_id}
            over = watch.empty()
            if high and (now >= next_high or over):
                yield {"type": "memory.high", "id": container_id, "data": {"count": high}}
                high, next_high = 0, now + PAUSE
            if watch.pidfd in ready:
                yield watch.exit(killed)
                watch.poll.unregister(watch.pidfd)
                posix.close(watch.pidfd)
                watch.pidfd = -1
                over = watch.empty()
            if over and watch.pidfd < 0:
                return
            if now >= next_stats:
                next_stats = now + interval
                # Without a cgroup of its own there is still the network to tell of.
                if not over or not watch.cgroup.paths:
                    yield {"type": "stats", "id": container_id, "data": _collect(watch.state)}
    finally:
        watch.close()
