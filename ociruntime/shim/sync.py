"""The conversation with the init process.

        parent (lifecycle)                         init process (C)
        ------------------                         ----------------
        BOOT (join fds)              ->            joins, clones on if it is the intermediate
                                     <-  INIT      (intermediate only) pidfd and pid of init
        PLAN (block, first fds)      ->            runs the ops in order
                                     <-  FDS n     wants the n-th batch of fds
        FDS n                        ->
                                     <-  SYNC p    stops at point p: maps, hooks, ready, seccomp, listener, created
        GO                           ->            goes on
                                     <-  WARNING   something tolerated
                                     <-  TRACE     how long an op took
                                     <-  ERROR     the op that failed; init exits
        end of file                                GO was the last word: init waits for start

Messages are one SOCK_SEQPACKET datagram each: struct message of shim.h.
"""

from _struct import Struct
from posix import close

from ociruntime.errors import SignalError, StepError
from ociruntime.shim._native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MESSAGE = Struct("<IIiIQQ24s256s")
BOOT = Struct("<III8IxxxxQI160s8sxxxx")
STAGE_OP = 0xFFFFFFFF


class Message:
    """A received message. kind: "sync", "error", "warning", "trace", "fds", "init"; op: index or -1; fds: now ours."""

    __slots__ = ("call", "detail", "errno", "fds", "kind", "op", "value", "value2")

    def __init__(
        self, kind: str, op: int, errno: int, value: int, value2: int, call: str, detail: str, fds: "tuple[int, ...]"
    ) -> None:
        self.kind = kind
        self.op = op
        self.errno = errno
        self.value = value
        self.value2 = value2
        self.call = call
        self.detail = detail
        self.fds = fds


KINDS = {4: "sync", 6: "error", 7: "warning", 8: "trace", 3: "fds", 9: "init"}


def decode(data: bytes, fds: "tuple[int, ...]" = ()) -> Message:
    """One struct message as a Message."""
    kind, op, errno, size, value, value2, call, detail = MESSAGE.unpack_from(data)
    return Message(
        KINDS.get(kind, f"message {kind}"),
        -1 if op == STAGE_OP else op,
        errno,
        value,
        value2,
        call.split(b"\0", 1)[0].decode("utf-8", "replace"),
        detail[:size].decode("utf-8", "surrogateescape"),
        fds,
    )


def check(ret: int, call: str, path: str = "") -> int:
    """ret of a shim function, or StepError from its -errno."""
    if ret < 0:
        raise StepError("", call=call, errno=-ret, path=path)
    return ret


class Channel:
    """The parent's end of the sync socket."""

    __slots__ = ("_buffer", "_count", "_fds", "fd", "held", "remote")

    def __init__(self) -> None:
        """Make the pair; remote is the end for the init process: close it with close_remote() once that has it.

        held: from Held (calls), or -1: while nothing comes, its signals do.
        """
        ends = ffi.new("int[2]")
        check(lib.shim_socketpair(ends, ends + 1), "socketpair")
        self.held = -1
        self.fd: int = ends[0]
        self.remote: int = ends[1]
        self._buffer = ffi.new("char[]", MESSAGE.size)
        self._fds = ffi.new("int[4]")
        self._count = ffi.new("int *")

    def close_remote(self) -> None:
        if self.remote >= 0:
            close(self.remote)
            self.remote = -1

    def close(self) -> None:
        self.close_remote()
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1

    def _send(self, data: bytes, fds: "Sequence[int]") -> None:
        check(lib.shim_send(self.fd, data, len(data), fds or ffi.NULL, len(fds)), "sendmsg", "sync socket")

    def send_boot(
        self,
        *,
        joins: "Sequence[tuple[int, int]]" = (),
        clone_flags: int = 0,
        time: bool = False,
        offsets: bytes = b"",
        cgroup_fd: int = -1,
        intermediate: bool = False,
        keep_groups: bool = False,
        keep_saved_id: bool = False,
        oom_score_adj: bytes = b"",
    ) -> None:
        """joins: (CLONE_NEW* flag, fd of the namespace). With intermediate, the receiver clones init with clone_flags.

        keep_groups: the supplementary groups stay when a user namespace is joined; keep_saved_id: the saved user ID
        does, until the op become_root. oom_score_adj: text, b"" leaves it.
        """
        flags = lib.BOOT_INTERMEDIATE if intermediate else 0
        if keep_groups:
            flags |= lib.BOOT_KEEP_GROUPS
        if keep_saved_id:
            flags |= lib.BOOT_KEEP_SAVED_ID
        fds = [fd for _, fd in joins]
        if time:
            flags |= lib.BOOT_TIME
        if cgroup_fd >= 0:
            flags |= lib.BOOT_CGROUP_FD
            fds.append(cgroup_fd)
        kinds = [flag for flag, _ in joins] + [0] * (8 - len(joins))
        start = (lib.MSG_BOOT, flags, len(joins), *kinds, clone_flags)
        self._send(BOOT.pack(*start, len(offsets), offsets, oom_score_adj), fds)

    def send_plan(self, block_fd: int, fds: "Sequence[int]") -> None:
        self._send(MESSAGE.pack(lib.MSG_PLAN, 0, 0, 0, 0, 0, b"", b""), [block_fd, *fds])

    def send_fds(self, batch: int, fds: "Sequence[int]") -> None:
        self._send(MESSAGE.pack(lib.MSG_FDS, 0, 0, 0, batch, 0, b"", b""), fds)

    def go(self, fds: "Sequence[int]" = (), value2: int = 0) -> None:
        self._send(MESSAGE.pack(lib.MSG_GO, 0, 0, 0, 0, value2, b"", b""), fds)

    def receive(self, timeout_ms: int = -1) -> "Message | None":
        """The next message; None when the other end is gone. TimeoutError-like failures raise StepError (ETIMEDOUT).

        Raises SignalError for one of the signals held.
        """
        n = -4
        while n == -4:  # EINTR: back to Python in between, so that signal handlers run
            n = lib.shim_recv(self.fd, self._buffer, MESSAGE.size, self._fds, 4, self._count, timeout_ms, self.held)
        if n == -125:  # ECANCELED
            raise SignalError(lib.shim_held_signal(self.held))
        if n == 0 or n == -104:  # ECONNRESET: it died with our message unread
            return None
        check(n, "recvmsg", "sync socket")
        return decode(ffi.buffer(self._buffer)[:], tuple(self._fds[i] for i in range(self._count[0])))
