"""state: what callers read."""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from pathlib import Path

import pytest

from integration.lib.container import Container
from integration.lib.runtime import Runtime

SCHEMAS = Path(__file__).resolve().parent.parent / "spec"


def test_shape(container: Container) -> None:
    """state prints one JSON object with the agreed keys [J1]."""
    container.create()
    result = container.command("state").ok()
    state = result.json
    assert state["id"] == container.id
    assert state["pid"] == container.pid
    assert state["status"] == "created"
    assert state["bundle"] == str(container.bundle.path)
    assert re.fullmatch(r"1\.\d+\.\d+(-\w+)?", state["ociVersion"])
    assert state["rootfs"] == str(container.bundle.rootfs) or container.runtime.name == "crun"
    allowed = {"ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner"}
    assert set(state) <= allowed | {"systemd-scope"}
    assert state.get("owner", "") in ("", "root")


@pytest.mark.ours_only("J1: state prints with an indent of two blanks and reports specification 1.3.0")
def test_our_shape(container: Container) -> None:
    """Two blanks of indent, ociVersion of the runtime, annotations left out when there are none [J1, F1]."""
    container.create()
    result = container.command("state").ok()
    assert result.text.startswith('{\n  "ociVersion": "1.3.0",\n  "id": ')
    assert result.text == json.dumps(result.json, indent=2) + "\n"
    assert "annotations" not in result.json


def test_nothing_on_stderr(container: Container) -> None:
    """go-runc merges both streams and parses them, so stderr stays empty in every status [K8]."""
    container.bundle.args("pause")
    container.create()
    assert container.command("state").ok().err == b""
    container.start()
    assert container.command("state").ok().err == b""
    container.finish()
    assert container.command("state").ok().err == b""


def test_statuses(container: Container) -> None:
    """created, running, stopped; the PID is 0 when stopped [J1, S2]."""
    container.bundle.args("pause")
    container.create()
    assert container.state()["status"] == "created"
    container.start()
    assert container.state()["status"] == "running"
    container.finish()
    state = container.state()
    assert (state["status"], state["pid"]) == ("stopped", 0)


def test_zombie_is_stopped(container: Container) -> None:
    """An init that is dead but not yet collected by its parent is stopped [S2]."""
    container.begin("exit 0")
    container.wait_dead()
    state = container.state()
    assert (state["status"], state["pid"]) == ("stopped", 0)
    container.wait()


def test_annotations(container: Container) -> None:
    """Annotations of the config come back unchanged, also empty and odd ones [F6]."""
    annotations = {"a.b/c": "d", "empty": "", "odd": 'ä " \\ \n\t', "org.opencontainers.image.stopSignal": "SIGQUIT"}
    container.bundle.merge({"annotations": annotations})
    container.create()
    assert container.state()["annotations"] == annotations


def test_created_time(container: Container) -> None:
    """created is an RFC 3339 time in UTC, near now [J1]."""
    before = time.time()
    container.create()
    text = container.state()["created"]
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?Z", text)
    assert match, text
    moment = dt.datetime.fromisoformat(match[1]).replace(tzinfo=dt.UTC).timestamp()
    assert before - 2 < moment < time.time() + 2


def test_created_time_stays(container: Container) -> None:
    """created is a fact of the container, not of the call [J1]."""
    container.create()
    first = container.state()["created"]
    container.start()
    container.wait()
    assert container.state()["created"] == first


def test_missing(runtime: Runtime) -> None:
    """An unknown ID fails with "does not exist" and nothing on stdout [A2, A4]."""
    result = runtime("state", "nosuch")
    assert result.code != 0
    assert result.out == b""
    assert "does not exist" in result.error


@pytest.mark.ours_only("A4: state must work when nobody reads its stderr")
def test_stderr_closed(container: Container) -> None:
    """podman closes state's stderr pipe at once; that kills nothing [A4, G12]."""
    container.create()
    import os

    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert container.command("state", stderr=writer).ok().json["status"] == "created"
        missing = container.runtime("state", "nosuch", stderr=writer)
        assert 0 < missing.code < 128
    finally:
        os.close(writer)


def test_schema(container: Container) -> None:
    """The document fits the project's schema of the state [J1]."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = SCHEMAS / "state.schema.json"
    if not schema.exists():
        pytest.skip("no spec/state.schema.json yet")
    container.bundle.merge({"annotations": {"k": "v"}})
    container.create()
    document = container.state()
    jsonschema.validate(document, json.loads(schema.read_text()))


def test_pid_reuse_is_noticed(container: Container) -> None:
    """A process that got the PID of a dead init is not taken for it: start time counts too [S2, K6]."""
    container.begin("pause")
    container.finish()
    dead = container.pid
    last = Path("/proc/sys/kernel/ns_last_pid")
    import subprocess

    bystander = None
    for _ in range(50):
        last.write_text(str(dead - 1))
        process = subprocess.Popen(["sleep", "1000"], preexec_fn=None)
        if process.pid == dead:
            bystander = process
            break
        process.kill()
        process.wait()
    if bystander is None:
        pytest.skip("the PID could not be had again")
    try:
        assert container.state()["status"] == "stopped"
        assert container.kill("KILL", check=False).code != 0
        assert bystander.poll() is None
        container.delete("--force")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
