"""Signals held back: shim.calls.Held, and who listens to it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ociruntime import hooks
from ociruntime.errors import SignalError
from ociruntime.shim.calls import Held
from ociruntime.shim.sync import MESSAGE, Channel

ASKING = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}


def send(number: int) -> None:
    """To this thread: others, if there are any, do not block it."""
    signal.pthread_kill(threading.get_ident(), number)


@pytest.fixture
def held() -> Iterator[Held]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    found = Held()
    yield found
    while signal.sigtimedwait(ASKING, 0):
        pass
    if found.fd >= 0:
        found.close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_they_wait_and_are_told_once(held: Held) -> None:
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) >= ASKING
    held.check()
    send(signal.SIGTERM)
    with pytest.raises(SignalError) as caught:
        held.check()
    assert caught.value.signal == signal.SIGTERM
    held.check()


def test_what_is_ignored_or_blocked_is_left_alone() -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        for also, takes_term in ((0, False), (1 << signal.SIGTERM - 1, True)):
            held = Held(also)
            assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
            send(signal.SIGTERM)
            if takes_term:
                with pytest.raises(SignalError):
                    held.check()
            else:
                held.check()
                assert signal.sigtimedwait([signal.SIGTERM], 0)
            held.close()
            assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])
            assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGHUP, old)


def test_a_conversation_ends(held: Held) -> None:
    """A message that is there comes first."""
    channel = Channel()
    channel.held = held.fd
    try:
        send(signal.SIGINT)
        os.write(channel.remote, MESSAGE.pack(4, 0, 0, 0, 5, 0, b"", b""))
        message = channel.receive()
        assert message is not None
        assert (message.kind, message.value) == ("sync", 5)
        with pytest.raises(SignalError):
            channel.receive()
    finally:
        channel.close()


def test_a_hook_ends(held: Held, tmp_path: Path) -> None:
    """The hook's whole group is killed."""
    script = "sleep 60 & echo $! >pid; mv pid there; wait"
    hook: dict[str, Any] = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}
    main = threading.get_ident()

    def ask() -> None:
        _await((tmp_path / "there").exists)
        signal.pthread_kill(main, signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(SignalError):
        hooks.run({"createRuntime": [hook]}, "createRuntime", {"id": "c"}, str(tmp_path), held)
    asking.join()
    _await(lambda: not _alive(int((tmp_path / "there").read_text())))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _await(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
