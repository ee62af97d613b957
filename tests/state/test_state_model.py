"""state.json: what goes in comes out; anything else is refused or salvaged, never believed."""

import json

import pytest

from ociruntime.state.model import CorruptStateError, ForeignStateError, State, from_json, salvage


def full() -> State:
    return State(
        "web",
        bundle="/b/caf\udce9",
        rootfs="/b/rootfs",
        phase="created",
        pid=1234,
        start_time=567890123456789,
        boot_id="aaaa-bbbb",
        created="2026-01-01T00:00:00.5Z",
        owner=1000,
        cgroup={"mode": "v2", "paths": {"": "/sys/fs/cgroup/web"}, "made": ["/x"]},
        freezer="/sys/fs/cgroup/web/cgroup.freeze",
        intel_rdt={"directory": "/sys/fs/resctrl/web", "made": True},
        namespaces={"network": "/run/netns/x", "pid": ""},
        rootless=True,
        systemd=True,
        private_pid_ns=False,
        annotations={"a": "ü", "empty": ""},
        hooks={"poststop": [{"path": "/bin/true"}]},
        startable=False,
    )


def slots(state: State) -> dict[str, object]:
    return {name: getattr(state, name) for name in State.__slots__}


def test_round_trip() -> None:
    state = full()
    data = state.to_json()
    assert slots(from_json("web", data)) == slots(state)
    document = json.loads(data)
    assert document["version"] == 1
    assert document["ociVersion"] == "1.3.0"
    assert document["startTime"] == 567890123456789


def test_defaults() -> None:
    state = State("web", bundle="/b")
    assert (state.phase, state.pid, state.cgroup, state.annotations) == ("creating", 0, {}, {})
    assert slots(from_json("web", state.to_json())) == slots(state)


def test_report_keys_and_order() -> None:
    report = full().report("running", 1234)
    keys = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner"]
    assert list(report) == keys
    assert report["owner"] == ""
    assert "annotations" not in State("web", bundle="/b").report("stopped", 0)


def test_hook_document_has_the_specs_keys_only() -> None:
    document = full().hook_document("creating", 7)
    assert document == {
        "ociVersion": "1.3.0",
        "id": "web",
        "status": "creating",
        "pid": 7,
        "bundle": "/b/caf\udce9",
        "annotations": {"a": "ü", "empty": ""},
    }


def changed(**changes: object) -> bytes:
    document = json.loads(full().to_json())
    document.update(changes)
    return json.dumps({key: value for key, value in document.items() if value is not ...}, default=str).encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"\0\0\0\0", "not JSON"),
        (full().to_json()[:-40], "not JSON"),
        (b"[1]", "it is not an object"),
        (b"{}", "it is of format None"),
        (changed(version=2), "it is of format 2, this runtime reads 1"),
        (changed(version=True), "it is of format True"),
        (changed(pid="1"), "'pid' is of a wrong type"),
        (changed(pid=True), "'pid' is of a wrong type"),
        (changed(pid=None), "'pid' is missing"),
        (changed(cgroup=[]), "'cgroup' is of a wrong type"),
        (changed(rootless=1), "'rootless' is of a wrong type"),
        (changed(id="other"), "it belongs to 'other'"),
        (changed(annotations={"a": 1}), "something else than strings"),
    ],
)
def test_unusable(data: bytes, reason: str) -> None:
    with pytest.raises(CorruptStateError) as caught:
        from_json("web", data)
    assert reason in str(caught.value)
    assert "delete --force web" in caught.value.hint
    assert caught.value.container_id == "web"


def test_of_another_program() -> None:
    with pytest.raises(ForeignStateError, match="not a container of this runtime"):
        from_json("web", b'{"id": "web", "init_process_pid": 7}')


def test_every_truncation_is_noticed() -> None:
    data = full().to_json()
    for length in range(len(data) - 1):  # without the last byte, the newline, nothing is lost
        with pytest.raises(CorruptStateError):
            from_json("web", data[:length])


def test_salvage_takes_what_is_right() -> None:
    state = salvage("web", changed(version=9, pid="x", cgroup={"mode": "v2"}))
    assert state is not None
    assert (state.pid, state.cgroup, state.start_time) == (0, {"mode": "v2"}, 567890123456789)
    assert salvage("web", b"{") is None
    assert salvage("web", b"[]") is None
    named = salvage("web", changed(version=9, id="other"))
    assert named is not None
    assert named.container_id == "web"
