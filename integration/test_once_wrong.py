"""What was wrong once: a test each, so that it stays right."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from integration.lib.container import Container
from integration.lib.leaks import Leaks


def without_pid_namespace(container: Container) -> None:
    """The container shares the PID namespace of the host."""
    linux = container.bundle.config["linux"]
    linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "pid"]


def test_stdio_belongs_to_the_user(container: Container) -> None:
    """A standard stream is given to the container's user, who could not reopen it otherwise [P9]."""
    container.bundle.process(user={"uid": 1000, "gid": 1000}).args("report")
    container.bundle.write()
    reader, writer = os.pipe()
    try:
        process = container.runtime.spawn("run", "--bundle", str(container.bundle.path), container.id, stdout=writer)
        assert process.wait(60) == 0
        assert os.fstat(writer).st_uid == 1000
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.ours_only("M2: others look at the path as it is written")
def test_a_link_into_proc(container: Container, leaks: Leaks) -> None:
    """A symlink of the image leads no mount into /proc [M2, CVE-2019-16884]."""
    (container.bundle.rootfs / "x").symlink_to("proc")
    container.bundle.mount("/x/fs", "tmpfs", type="tmpfs")
    result = container.create(check=False)
    index = len(container.bundle.config["mounts"]) - 1
    assert result.code != 0
    assert f"/mounts/{index}" in result.error and "procfs" in result.error
    leaks.check()


@pytest.mark.ours_only("the state file's form is ours")
def test_a_state_of_another_boot(container: Container) -> None:
    """After a reboot the cgroup of a remembered name is somebody else's: kill leaves it alone [S2, K6]."""
    without_pid_namespace(container)
    container.begin("pause")
    path = Path(container.runtime.root) / container.id / "state.json"
    good = path.read_text()
    state = json.loads(good)
    path.write_text(json.dumps({**state, "bootId": "0" * 36}))
    try:
        result = container.runtime("kill", container.id, "KILL")
        assert result.code != 0 and "container not running" in result.error
        container.runtime("kill", "--all", container.id, "KILL")
        stat = Path(f"/proc/{state['pid']}/stat").read_text()
        assert stat.rpartition(")")[2].split()[0] not in "ZX"
    finally:
        path.write_text(good)
    container.command("delete", "--force").ok()
    container.reap()


@pytest.mark.ours_only("others leave the hook's process and the cgroup")
def test_a_hook_that_leaves_a_daemon(container: Container, leaks: Leaks) -> None:
    """A create that fails after a hook has put a process into the container's cgroup takes that with it."""
    without_pid_namespace(container)
    daemon = "setsid sleep 1000 </dev/null >/dev/null 2>&1 & sleep 0.2"
    container.bundle.merge(
        {
            "hooks": {
                "createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", daemon], "env": ["PATH=/usr/bin:/bin"]}]
            }
        }
    )
    container.bundle.process(args=["/no/such/program"])
    result = container.create(check=False)
    assert result.code != 0 and "/process/args/0" in result.error
    leaks.check()
