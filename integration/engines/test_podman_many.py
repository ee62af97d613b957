"""Many containers at once: all reach running, all are removed, nothing is left."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.engines.engines import Podman
from integration.engines.image import IMAGE
from integration.engines.sandbox import Sandbox, Watch
from integration.lib.runtime import Result

AT_ONCE = 10


def test_all_run_and_all_go(podman: Podman, sandbox: Sandbox, leaks: Watch, slow: bool) -> None:
    """100 containers (20 without IT_SLOW), ten at a time: started, seen running by podman and by the runtime, each
    with a cgroup, process and PID of its own; removed, and then no process, cgroup, mount or state of them is left.
    """
    count = 100 if slow else 20
    names = [podman.name() for _ in range(count)]

    def start(name: str) -> Result:
        return podman("run", "-d", "--name", name, IMAGE, "sleep", "1000", timeout=120)

    def remove(name: str) -> Result:
        return podman("rm", "-f", "-t", "0", name, timeout=120)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = list(pool.map(start, names))
    assert [repr(result) for result in started if result.code != 0] == []
    listed = {entry["Names"][0]: entry for entry in podman("ps", "-a", "--format", "json").ok().json}
    assert {name: listed[name]["State"] for name in names} == dict.fromkeys(names, "running")
    assert len({listed[name]["Pid"] for name in names}) == count
    known = {entry["id"]: entry["status"] for entry in sandbox.run([podman.runtime, "list", "-f", "json"]).ok().json}
    assert {known.get(listed[name]["Id"]) for name in names} == {"running"}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        removed = list(pool.map(remove, names))
    assert [repr(result) for result in removed if result.code != 0] == []
    assert podman("ps", "-aq").ok().text == ""
    leaks.check()


def test_short_ones(podman: Podman, leaks: Watch, slow: bool) -> None:
    """100 in the foreground that end by themselves (IT_SLOW=1 only), each with its own output and status."""
    if not slow:
        pytest.skip("only under IT_SLOW=1: test_podman_run.py has twenty of these")

    def one(number: int) -> Result:
        return podman.run("sh", "-c", f"echo {number}; exit {number}", timeout=120)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(one, range(100)))
    assert [(result.code, result.text) for result in results] == [(number, f"{number}\n") for number in range(100)]
    leaks.check()
