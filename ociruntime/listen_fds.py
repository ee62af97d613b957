"""Socket activation: the listening sockets that a service manager has passed to the runtime go on to the container.

Source: man sd_listen_fds(3). The sockets are the descriptors from 3 on, here as there.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

COUNT_MAX = 1024


def passed(environment: "Mapping[bytes, bytes]", pid: int) -> "tuple[int, str]":
    """(number of sockets, their names as one colon-separated text) that were passed to the process pid: this one.

    (0, "") when LISTEN_PID names somebody else: the variables are inherited further than the sockets are meant to go.
    """
    count = environment.get(b"LISTEN_FDS", b"")
    if environment.get(b"LISTEN_PID") != b"%d" % pid or not count.isdigit() or not 0 < int(count) <= COUNT_MAX:
        return 0, ""
    return int(count), environment.get(b"LISTEN_FDNAMES", b"").decode("utf-8", "surrogateescape")


def with_variables(config: "dict[str, Any]", count: int, names: str, pid: int) -> "dict[str, Any]":
    """A copy of config whose process is told about its sockets. pid: of the container's process, as it sees itself.

    The variables come last, so that they win over entries of config.json.
    """
    variables = [f"LISTEN_FDS={count}", f"LISTEN_PID={pid}"]
    if names:
        variables.append(f"LISTEN_FDNAMES={names}")
    process = dict(config["process"])
    process["env"] = [*(process.get("env") or ()), *variables]
    return {**config, "process": process}
