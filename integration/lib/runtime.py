"""A runtime under test: how its commands are run, and what came of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from integration.lib import probe as probes

TIMEOUT = float(os.environ.get("IT_TIMEOUT", "120"))


class Result:
    """What a command left: exit status as a shell has it, both streams as bytes."""

    def __init__(self, argv: Sequence[str], code: int, out: bytes, err: bytes) -> None:
        self.argv = list(argv)
        self.code = code
        self.out = out
        self.err = err

    @property
    def text(self) -> str:
        """stdout as text."""
        return self.out.decode("utf-8", "replace")

    @property
    def error(self) -> str:
        """stderr as text."""
        return self.err.decode("utf-8", "replace")

    @property
    def json(self) -> Any:
        """stdout as JSON."""
        return json.loads(self.out)

    @property
    def replies(self) -> list[probes.Reply]:
        """What the probe said on stdout."""
        return probes.parse(self.out)

    def ok(self) -> Result:
        """Fail the test unless the command succeeded."""
        assert self.code == 0, f"{self!r}"
        return self

    def __repr__(self) -> str:
        return f"{' '.join(self.argv)}\n-> {self.code}\nstdout: {self.text[-3000:]}\nstderr: {self.error[-3000:]}"


def run(
    argv: Sequence[str],
    *,
    stdin: IO[bytes] | int | bytes | None = None,
    stdout: IO[bytes] | int | None = None,
    stderr: IO[bytes] | int | None = None,
    timeout: float = TIMEOUT,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    close_fds: bool = True,
    preexec_fn: Any = None,
) -> Result:
    """Run a command to its end. Streams go to unnamed files, so that a container that lives on and keeps them open
    does not hold us up; stdin is an empty regular file by default (never the host's /dev/null, see DIFFERENCES.md).
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as empty:
        if isinstance(stdin, bytes):
            empty.write(stdin)
            empty.seek(0)
        process = subprocess.Popen(
            list(argv),
            stdin=empty if stdin is None or isinstance(stdin, bytes) else stdin,
            stdout=out if stdout is None else stdout,
            stderr=err if stderr is None else stderr,
            env=None if env is None else dict(env),
            cwd=cwd,
            close_fds=close_fds,
            preexec_fn=preexec_fn,
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait(60)
            out.seek(0)
            err.seek(0)
            shown = Result(argv, -9, out.read(), err.read())
            raise AssertionError(f"no end after {timeout} s: {shown!r}") from None
        out.seek(0)
        err.seek(0)
        return Result(argv, code if code >= 0 else 128 - code, out.read(), err.read())


class Runtime:
    """One runtime binary with a private state root. prefix: put before every command (another mount namespace)."""

    __test__ = False

    def __init__(self, path: str, root: Path, prefix: Sequence[str] = ()) -> None:
        self.path = path
        self.root = root
        self.prefix = list(prefix)
        self.version = run([path, "--version"]).text
        self.name = self.version.split(" version ", 1)[0].strip() if " version " in self.version else "unknown"
        self.ours = self.name == "ociruntime"

    def within(self, prefix: Sequence[str]) -> Runtime:
        """The same runtime and state, seen from elsewhere."""
        return Runtime(self.path, self.root, [*prefix, *self.prefix])

    def elsewhere(self, root: Path, path: str = "") -> Runtime:
        """The same runtime (path: under another name) with another state root."""
        return Runtime(path or self.path, root, self.prefix)

    def argv(self, *words: str, options: Sequence[str] = ()) -> list[str]:
        """The whole command line."""
        return [*self.prefix, self.path, "--root", str(self.root), *options, *words]

    def __call__(self, *words: str, options: Sequence[str] = (), **how: Any) -> Result:
        """Run a command with the private root and these global options."""
        return run(self.argv(*words, options=options), **how)

    def bare(self, *words: str, **how: Any) -> Result:
        """Run a command without --root."""
        return run([*self.prefix, self.path, *words], **how)

    def spawn(self, *words: str, options: Sequence[str] = (), **how: Any) -> subprocess.Popen[bytes]:
        """Start a command and do not wait."""
        return subprocess.Popen(self.argv(*words, options=options), **how)
