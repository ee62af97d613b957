"""linux.intelRdt. Few machines have resctrl: the library meets a tree of plain files, the command line its absence."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import Give
from integration.lib.container import Container
from integration.lib.leaks import Leaks
from integration.lib.runtime import Runtime


def test_no_resctrl(container: Container, leaks: Leaks) -> None:
    """No mounted resctrl file system: an error, for an empty object too [L18]."""
    if " resctrl " in Path("/proc/self/mountinfo").read_text():
        pytest.skip("resctrl is mounted")
    for section in ({}, {"closID": "gold"}, {"enableMonitoring": True}):
        container.bundle.linux(intelRdt=section)
        result = container.create(check=False)
        assert result.code != 0
        if container.runtime.ours:
            assert "/linux/intelRdt" in result.error
            assert "resctrl" in result.error
        leaks.check()


@pytest.mark.parametrize(
    ("section", "pointer"),
    [
        ({"closID": "."}, "/linux/intelRdt/closID"),
        ({"closID": ".."}, "/linux/intelRdt/closID"),
        ({"closID": "a/b"}, "/linux/intelRdt/closID"),
        ({"closID": "/a"}, "/linux/intelRdt/closID"),
        ({"memBwSchema": "L3:0=f"}, "/linux/intelRdt/memBwSchema"),
        ({"memBwSchema": "MB:0=10\nMB:1=20"}, "/linux/intelRdt/memBwSchema"),
        ({"schemata": ["L3:0=f", "L3:0=f\nMB:0=10"]}, "/linux/intelRdt/schemata/1"),
    ],
)
def test_bad_values(container: Container, leaks: Leaks, section: dict[str, Any], pointer: str) -> None:
    """Names that lead elsewhere, lines that hide others [L18]."""
    container.bundle.linux(intelRdt=section)
    result = container.create(check=False)
    assert result.code != 0
    if container.runtime.ours:
        assert pointer in result.error
    leaks.check()


def test_absent_leaves_everything_alone(container: Container) -> None:
    """Without intelRdt nothing is asked of the machine [L18]."""
    container.report()


@pytest.fixture
def resctrl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree in which a new group has its files, as in the real one. For creates of this process."""
    intel_rdt = pytest.importorskip("ociruntime.intel_rdt")
    root = tmp_path / "resctrl"

    def mkdir(path: str) -> None:
        os.mkdir(path)
        (Path(path) / "tasks").touch()
        (Path(path) / "schemata").touch()
        if Path(path).parent.name != "mon_groups":
            (Path(path) / "mon_groups").mkdir()

    mkdir(str(root))
    monkeypatch.setattr(intel_rdt, "mount_point", lambda: str(root))
    monkeypatch.setattr(intel_rdt, "_mkdir", mkdir)
    monkeypatch.setattr(intel_rdt, "_rmdir", lambda path: shutil.rmtree(path, ignore_errors=True))
    return root


@pytest.fixture
def library(runtime: Runtime) -> Any:
    """A Runtime on the session's state root."""
    pytest.importorskip("ociruntime.shim._native", reason="the compiled module is not built for this Python")
    from ociruntime import Runtime as Library
    from ociruntime.log import Log

    return Library(str(runtime.root), log=Log(level=40))


def as_files(root: Path) -> None:
    """Plain directories can be removed only when they are empty: take the files out, as the kernel would."""
    for path in [*root.rglob("tasks"), *root.rglob("schemata")]:
        path.unlink()
    for path in root.rglob("mon_groups"):
        if not any(path.iterdir()) and path.parent != root:
            path.rmdir()


@pytest.mark.ours_only("the class is made through the library")
@pytest.mark.parametrize("name", ["", "gold", "/"])
def test_groups(
    library: Any,
    container: Container,
    leaks: Leaks,
    resctrl: Path,
    caller: AbstractContextManager[None],
    give: Give,
    name: str,
) -> None:
    """Init is in its groups before it runs; delete, in another process, removes what is ours only [L18, X2]."""
    section: dict[str, Any] = {"schemata": ["L3:0=f", "MB:0=50"]}
    if name:
        section.update(closID=name, enableMonitoring=True)
    if name == "/":
        del section["schemata"]
    group = resctrl if name == "/" else resctrl / (name or container.id)
    monitor = group / "mon_groups" / container.id
    container.bundle.args("pause").linux(intelRdt=section)
    container.bundle.write()
    give(resctrl)
    with caller:
        pid = library.create(str(container.bundle.path), container.id)
    container.used = True
    container.pid = pid
    assert (group / "tasks").read_text() == f"{pid}\n"
    assert not name or (monitor / "tasks").read_text() == f"{pid}\n"
    if name != "/":
        assert (group / "schemata").read_text() == "MB:0=50\n"  # a plain file keeps the last write
    saved = json.loads((container.runtime.root / container.id / "state.json").read_text())["intelRdt"]
    assert saved["directory"] == str(group)
    assert saved["made"] is (name != "/")
    as_files(resctrl)
    container.kill("KILL")
    container.wait()
    container.delete()
    assert not monitor.exists()
    assert group.exists() is bool(name)
    leaks.check()


@pytest.mark.ours_only("the class is made through the library")
@pytest.mark.parametrize("name", ["", "gold"])
def test_failed_create(
    library: Any,
    container: Container,
    leaks: Leaks,
    resctrl: Path,
    caller: AbstractContextManager[None],
    give: Give,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """A create that fails after the groups were made takes them away, a named class too [L18, K1]."""
    from ociruntime import intel_rdt
    from ociruntime.errors import StepError

    section = {"schemata": ["L3:0=f"], "enableMonitoring": True, **({"closID": name} if name else {})}
    container.bundle.linux(intelRdt=section)
    container.bundle.mount("/data", "none", "size=much", type="tmpfs")
    container.bundle.write()
    made = []
    join = intel_rdt.join

    def join_and_note(saved: dict[str, Any], pid: int) -> None:
        join(saved, pid)
        made.append(saved["directory"])
        for path in resctrl.rglob("tasks"):
            path.write_text("")  # the init process will be dead

    monkeypatch.setattr(intel_rdt, "join", join_and_note)
    give(resctrl)
    with caller, pytest.raises(StepError):
        library.create(str(container.bundle.path), container.id)
    assert made == [str(resctrl / (name or container.id))]
    assert not Path(made[0]).exists()
    leaks.check()
