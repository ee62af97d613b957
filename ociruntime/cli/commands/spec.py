"""``spec``."""

import posix

from ociruntime.cli.context import absolute
from ociruntime.errors import StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.context import Context
    from ociruntime.cli.parser import Options


def write_new(path: str, text: str) -> None:
    """Write a file that must not exist yet, 0644. Raises StepError."""
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
    try:
        fd = posix.open(path, flags, 0o644)
    except FileExistsError as error:
        raise StepError(
            "not overwritten",
            path=path,
            errno=error.errno or 0,
            hint="remove it or choose another --bundle",
        ) from None
    except OSError as error:
        raise StepError("cannot write", path=path, errno=error.errno or 0) from None
    data = text.encode("ascii")
    try:
        while data:
            data = data[posix.write(fd, data) :]
    except OSError as error:
        posix.unlink(path)
        raise StepError("cannot write", path=path, errno=error.errno or 0) from None
    finally:
        posix.close(fd)


def run(options: "Options", arguments: "list[str]", context: "Context") -> int:
    """Write a config.json to begin with."""
    from ociruntime.config.default import default_config
    from ociruntime.host import probe
    from ociruntime.jsontext import dumps

    config = default_config(
        rootless=options.flag("rootless"),
        cgroup_v2=probe().cgroup_mode == "v2",
        euid=posix.geteuid(),
        egid=posix.getegid(),
    )
    bundle = absolute(options.text("bundle") or ".")
    name = options.text("file") or "config.json"
    write_new(name if name[0] == "/" else f"{bundle}/{name}", dumps(config, 2) + "\n")
    return 0
