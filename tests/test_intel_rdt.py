"""intel_rdt on a tree that behaves like resctrl: groups are made with their files, and removed with them."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from ociruntime import intel_rdt
from ociruntime.errors import ConfigError, OCIError, StepError, UnsupportedError
from ociruntime.intel_rdt import compare, parse

DEFAULT = "    MB:0=100;1=100\n    L3:0=fffff;1=fffff\n"


def populate(path: Path) -> None:
    """What the kernel puts into a new group."""
    (path / "tasks").write_text("")
    if path.parent.name != "mon_groups":
        (path / "schemata").write_text(DEFAULT)
        (path / "mon_groups").mkdir()


@pytest.fixture
def resctrl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "resctrl"
    root.mkdir()
    populate(root)
    (root / "info" / "MB").mkdir(parents=True)
    (root / "info" / "MB" / "bandwidth_gran").write_text("10\n")
    (root / "info" / "last_cmd_status").write_text("ok\n")

    def mkdir(path: str) -> None:
        Path(path).mkdir()
        populate(Path(path))

    def rmdir(path: str) -> None:
        assert Path(path).is_relative_to(root)
        assert Path(path) != root
        shutil.rmtree(path, ignore_errors=True)

    def write(path: str, text: str) -> None:
        assert Path(path).is_file()
        with open(path, "a") as file:
            file.write(text)

    monkeypatch.setattr(intel_rdt, "_mkdir", mkdir)
    monkeypatch.setattr(intel_rdt, "_rmdir", rmdir)
    monkeypatch.setattr(intel_rdt, "_write", write)
    return root


def lower(root: Path, section: "dict[str, Any] | None", container_id: str = "c1") -> "intel_rdt.IntelRdt | None":
    return intel_rdt.lower({"linux": {"intelRdt": section}}, container_id, str(root))


def create(root: Path, section: "dict[str, Any]", container_id: str = "c1") -> "intel_rdt.IntelRdt":
    rdt = lower(root, section, container_id)
    assert rdt is not None
    rdt.create()
    return rdt


def groups(root: Path) -> "set[str]":
    """Paths of all groups but the root."""
    return {str(path.parent.relative_to(root)) for path in root.rglob("tasks")} - {"."}


def schemata(root: Path, name: str) -> str:
    """What was written."""
    return (root / name / "schemata").read_text().removeprefix(DEFAULT)


def test_absent(resctrl: Path) -> None:
    assert lower(resctrl, None) is None
    assert intel_rdt.lower({}, "c1", str(resctrl)) is None
    assert groups(resctrl) == set()


def test_no_resctrl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intel_rdt, "mount_point", lambda: "")
    with pytest.raises(UnsupportedError) as caught:
        intel_rdt.lower({"linux": {"intelRdt": {}}}, "c1")
    assert caught.value.pointer == "/linux/intelRdt"


def test_lower_changes_nothing(resctrl: Path) -> None:
    lower(resctrl, {"closID": "a", "l3CacheSchema": "L3:0=f", "enableMonitoring": True})
    assert groups(resctrl) == set()


def test_class_of_the_container(resctrl: Path) -> None:
    """Without closID: the container's ID; removed with the container."""
    rdt = create(resctrl, {})
    assert groups(resctrl) == {"c1"}
    assert schemata(resctrl, "c1") == ""
    intel_rdt.join(rdt.saved(), 42)
    assert (resctrl / "c1" / "tasks").read_text() == "42\n"
    intel_rdt.remove(rdt.saved())
    assert groups(resctrl) == set()
    intel_rdt.remove(rdt.saved())


def test_schemata_in_order(resctrl: Path) -> None:
    create(
        resctrl,
        {
            "closID": "gold",
            "schemata": ["L2:0=f", "", "MB:1=70"],
            "memBwSchema": "MB:0=20",
            "l3CacheSchema": "MB:0=90\nL3CODE:0=f0\n MB:1=5\nL3DATA:0=f",
        },
    )
    assert schemata(resctrl, "gold") == "L3CODE:0=f0\nL3DATA:0=f\nMB:0=20\nL2:0=f\nMB:1=70\n"


def test_bandwidth_in_the_cache_schema_alone(resctrl: Path) -> None:
    """Its MB: lines only give way to a memBwSchema."""
    create(resctrl, {"l3CacheSchema": "L3:0=f\nMB:0=50"})
    assert schemata(resctrl, "c1") == "L3:0=f\nMB:0=50\n"


def test_a_class_that_create_makes_by_name_stays(resctrl: Path) -> None:
    rdt = create(resctrl, {"closID": "gold", "l3CacheSchema": "L3:0=f", "enableMonitoring": True})
    assert groups(resctrl) == {"gold", "gold/mon_groups/c1"}
    intel_rdt.join(rdt.saved(), 42)
    assert (resctrl / "gold" / "tasks").read_text() == "42\n"
    assert (resctrl / "gold" / "mon_groups" / "c1" / "tasks").read_text() == "42\n"
    intel_rdt.remove(rdt.saved())
    assert groups(resctrl) == {"gold"}


@pytest.mark.parametrize("others", [False, True])
def test_a_create_that_fails_takes_its_class_away(resctrl: Path, others: bool) -> None:
    """Unless somebody has joined it meanwhile."""
    rdt = create(resctrl, {"closID": "gold", "l3CacheSchema": "L3:0=f", "enableMonitoring": True})
    if others:
        (resctrl / "gold" / "tasks").write_text("77\n")
    rdt.undo()
    assert groups(resctrl) == ({"gold"} if others else set())


def test_root_group(resctrl: Path) -> None:
    rdt = create(resctrl, {"closID": "/", "enableMonitoring": True})
    assert groups(resctrl) == {"mon_groups/c1"}
    intel_rdt.join(rdt.saved(), 42)
    assert (resctrl / "tasks").read_text() == "42\n"
    intel_rdt.remove(rdt.saved(), failed=True)
    assert groups(resctrl) == set()
    assert (resctrl / "tasks").exists()


def test_missing_class_without_schema(resctrl: Path) -> None:
    for section in ({"closID": "gold"}, {"closID": "gold", "enableMonitoring": True}):
        with pytest.raises(ConfigError) as caught:
            lower(resctrl, section)
        assert caught.value.pointer == "/linux/intelRdt/closID"
    assert groups(resctrl) == set()


def test_existing_class_is_joined_and_left(resctrl: Path) -> None:
    intel_rdt._mkdir(str(resctrl / "gold"))
    for section in ({"closID": "gold"}, {"closID": "gold", "l3CacheSchema": "L3:1=fffff;0=0xFFFFF"}):
        rdt = create(resctrl, section)
        assert schemata(resctrl, "gold") == ""
        for failed in (True, False):
            intel_rdt.remove(rdt.saved(), failed=failed)
        assert groups(resctrl) == {"gold"}


@pytest.mark.parametrize(
    ("section", "pointer"),
    [
        ({"l3CacheSchema": "L3:0=ff"}, "/linux/intelRdt/l3CacheSchema"),
        ({"memBwSchema": "MB:1=50"}, "/linux/intelRdt/memBwSchema"),
        ({"schemata": ["L3:0=fffff", "SMBA:0=50"]}, "/linux/intelRdt/schemata/1"),
        ({"schemata": ["L3:2=fffff"]}, "/linux/intelRdt/schemata/0"),
        ({"l3CacheSchema": "L3:0=fffff\nL3:0=ff"}, "/linux/intelRdt/l3CacheSchema"),
        ({"l3CacheSchema": "L3:0=ff", "schemata": ["L3:0=f"]}, "/linux/intelRdt/schemata/0"),
        ({"l3CacheSchema": "nonsense"}, "/linux/intelRdt/l3CacheSchema"),
    ],
)
def test_existing_class_that_differs(resctrl: Path, section: "dict[str, Any]", pointer: str) -> None:
    intel_rdt._mkdir(str(resctrl / "gold"))
    with pytest.raises(ConfigError) as caught:
        lower(resctrl, {"closID": "gold", **section})
    assert caught.value.pointer == pointer
    assert schemata(resctrl, "gold") == ""


def test_a_class_that_appears_meanwhile(resctrl: Path) -> None:
    """Then it is not ours: it is compared, and left."""
    rdt = lower(resctrl, {"closID": "gold", "l3CacheSchema": "L3:0=ff"})
    assert rdt is not None
    assert rdt.saved()["made"] is True
    intel_rdt._mkdir(str(resctrl / "gold"))
    with pytest.raises(ConfigError):
        rdt.create()
    assert rdt.saved()["made"] is False
    rdt.undo()
    assert groups(resctrl) == {"gold"}


def test_a_class_of_this_id_is_there(resctrl: Path) -> None:
    intel_rdt._mkdir(str(resctrl / "c1"))
    with pytest.raises(ConfigError) as caught:
        lower(resctrl, {})
    assert caught.value.pointer == "/linux/intelRdt"


def test_monitoring_group_is_there(resctrl: Path) -> None:
    """It cannot be made, and is not ours to remove."""
    intel_rdt._mkdir(str(resctrl / "mon_groups" / "c1"))
    rdt = lower(resctrl, {"closID": "/", "enableMonitoring": True})
    assert rdt is not None
    with pytest.raises(StepError) as caught:
        rdt.create()
    assert caught.value.pointer == "/linux/intelRdt/enableMonitoring"
    rdt.undo()
    assert groups(resctrl) == {"mon_groups/c1"}


def test_refused_schema_tells_what_the_kernel_says(resctrl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (resctrl / "info" / "last_cmd_status").write_text("Mask 1ff out of range\n")

    def write(path: str, text: str) -> None:
        if text.startswith("L3"):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(intel_rdt, "_write", write)
    rdt = lower(resctrl, {"memBwSchema": "MB:0=10", "schemata": ["L3:0=1ff"]})
    assert rdt is not None
    with pytest.raises(StepError) as caught:
        rdt.create()
    assert caught.value.pointer == "/linux/intelRdt/schemata/0"
    assert "Mask 1ff out of range" in caught.value.hint
    rdt.undo()
    assert groups(resctrl) == set()


def test_no_room_for_a_class(resctrl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mkdir(path: str) -> None:
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(intel_rdt, "_mkdir", mkdir)
    rdt = lower(resctrl, {})
    assert rdt is not None
    with pytest.raises(OCIError) as caught:
        rdt.create()
    assert caught.value.errno == 28
    assert caught.value.path == str(resctrl / "c1")


def test_parse() -> None:
    assert parse("  MB:0= 50;1=100\nL3: 0=0ff ;1=F\n\n") == {
        ("MB", 0): 50,
        ("MB", 1): 100,
        ("L3", 0): 255,
        ("L3", 1): 15,
    }


@pytest.mark.parametrize("text", ["L3", "L3:", "L3:0", "L3:0=", "L3:0=xyz", "L3:a=f", ":0=f", "MB:0=f"])
def test_parse_nonsense(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


@pytest.mark.parametrize(
    ("text", "actual", "same"),
    [
        ("L3:0=f;1=ff", "L3:1=0ff;0=00f", True),
        ("L3:0=F", "MB:0=10\nL3:0=f;1=ff", True),
        ("L3:0=f", "L3CODE:0=f\nL3DATA:0=f", False),
        ("L3CODE:0=f\nL3DATA:0=3", "L3DATA:0=3\nL3CODE:0=f", True),
        ("L2:0=f", "L2:0=7", False),
        ("MB:0=55", "MB:0=60", True),  # as the kernel rounds it
        ("MB:0=50", "MB:0=60", False),
        ("MB:0=100", "MB:0=100", True),
        ("SMBA:0=55", "SMBA:0=60", False),
        ("MB:0=16", "MB:0=10", False),
        ("L3:0=10", "L3:0=16", False),
        ("L3:0=f", "what?", False),
        ("L3:0=f", "", False),
    ],
)
def test_compare(text: str, actual: str, same: bool) -> None:
    lines = [("/x", text)]
    if same:
        compare(lines, actual, {"MB": 10})
        return
    with pytest.raises(ConfigError) as caught:
        compare(lines, actual, {"MB": 10})
    assert caught.value.pointer == "/x"


def test_mount_point() -> None:
    text = (
        "29 1 0:27 / /sys rw shared:7 - sysfs sysfs rw\n"
        "30 29 0:28 / /sys/fs/res\\040ctrl rw,relatime shared:8 - resctrl resctrl rw,cdp\n"
    )
    assert intel_rdt.mount_point(text) == "/sys/fs/res ctrl"
    assert intel_rdt.mount_point(text.partition("\n")[0]) == ""


def test_file_calls(tmp_path: Path) -> None:
    """The real ones, which the tree above replaces."""
    path = tmp_path / "group"
    intel_rdt._mkdir(str(path))
    (path / "tasks").write_text("")
    intel_rdt._write(str(path / "tasks"), "7\n")
    assert intel_rdt._read(str(path / "tasks")) == "7\n"
    assert intel_rdt._read(str(path / "nothing")) == ""
    with pytest.raises(StepError) as caught:
        intel_rdt._rmdir(str(path))
    assert caught.value.path == str(path)
    (path / "tasks").unlink()
    intel_rdt._rmdir(str(path))
    intel_rdt._rmdir(str(path))
    with pytest.raises(StepError) as caught:
        intel_rdt.join({"directory": str(path), "monitor": ""}, 7)
    assert caught.value.errno == 2
