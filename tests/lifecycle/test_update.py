"""Updates of a cgroup on fake trees: what is written, and what comes back when something fails."""

from pathlib import Path
from typing import Any

import pytest

from ociruntime import intel_rdt
from ociruntime.cgroups import files, manager
from ociruntime.cgroups.cgroup import Cgroup
from ociruntime.cgroups.update import Update, complete, old_value, put_back
from ociruntime.errors import ConfigError, StepError, UnsupportedError
from ociruntime.host import Host
from ociruntime.lifecycle.update import merged

KMSG = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}
DENY_ALL = {"allow": False, "access": "rwm"}
ALLOW_ALL = {"allow": True, "access": "rwm"}


def v2(tmp_path: Path, contents: "dict[str, str]") -> Cgroup:
    group = tmp_path / "c"
    group.mkdir()
    (group / "cgroup.controllers").write_text("memory cpu pids io hugetlb")
    for name, content in contents.items():
        (group / name).write_text(content)
    return manager.from_state({"mode": "v2", "paths": {"": str(group)}, "made": [], "rootless": False})


def v1(tmp_path: Path, contents: "dict[str, str]") -> Cgroup:
    paths = {}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
        paths[name.partition("/")[0]] = str(tmp_path / name.partition("/")[0])
    return manager.from_state({"mode": "v1", "paths": paths, "made": [], "rootless": False})


def content(cgroup: Cgroup, name: str) -> str:
    return Path(cgroup.paths[""], name).read_text()


def test_only_what_is_named_is_written(tmp_path: Path) -> None:
    cgroup = v2(tmp_path, {"memory.max": "100", "pids.max": "5", "cpu.weight": "100"})
    Update(cgroup, {"memory": {"limit": 4096}}, [], Host()).apply()
    assert [content(cgroup, name) for name in ("memory.max", "pids.max", "cpu.weight")] == ["4096", "5", "100"]


@pytest.mark.parametrize(
    ("now", "cpu", "expected"),
    [
        ("20000 50000", {"quota": 30000}, "30000 50000"),
        ("20000 50000", {"period": 60000}, "20000 60000"),
        ("max 50000", {"period": 60000}, "max 60000"),
        ("20000 50000", {"quota": -1}, "max 50000"),
        ("20000 50000", {"quota": 1000, "period": 2000}, "1000 2000"),
    ],
)
def test_quota_or_period_alone(tmp_path: Path, now: str, cpu: "dict[str, int]", expected: str) -> None:
    cgroup = v2(tmp_path, {"cpu.max": now})
    Update(cgroup, {"cpu": cpu}, [], Host()).apply()
    assert content(cgroup, "cpu.max") == expected


def test_swap_alone(tmp_path: Path) -> None:
    cgroup = v2(tmp_path, {"memory.max": "4096", "memory.swap.max": "max"})
    Update(cgroup, {"memory": {"swap": 12288}}, [], Host()).apply()
    assert content(cgroup, "memory.swap.max") == "8192"
    assert complete(cgroup, {"memory": {"limit": 1}}) == {"memory": {"limit": 1}}


def test_v1_has_files_of_its_own(tmp_path: Path) -> None:
    cgroup = v1(tmp_path, {"cpu/cpu.cfs_quota_us": "1", "cpu/cpu.cfs_period_us": "2"})
    assert complete(cgroup, {"cpu": {"quota": 5}}) == {"cpu": {"quota": 5}}


@pytest.mark.parametrize(
    ("file", "key", "text", "expected"),
    [
        ("memory.max", "", "max\n", "max"),
        ("cpu.max", "", "max 100000\n", "max 100000"),
        ("cpuset.cpus", "", "\n", "\n"),
        ("io.weight", "", "default 100\n8:0 200\n", "default 100"),
        ("io.weight", "8:0", "default 100\n8:0 200\n", "8:0 200"),
        ("io.weight", "8:16", "default 100\n8:0 200\n", "8:16 default"),
        ("io.weight", "8:1", "default 100\n8:16 200\n8:1 300\n", "8:1 300"),
        ("io.max", "8:0", "", "8:0 rbps=max wbps=max riops=max wiops=max"),
        ("io.max", "8:0", "8:0 rbps=1 wbps=max riops=max wiops=max\n", "8:0 rbps=1 wbps=max riops=max wiops=max"),
        ("blkio.throttle.read_bps_device", "8:0", "", "8:0 0"),
        ("rdma.max", "mlx4_0", "mlx4_0 hca_handle=2 hca_object=max\n", "mlx4_0 hca_handle=2 hca_object=max"),
        ("memory.oom_control", "", "oom_kill_disable 1\nunder_oom 0\n", "1"),
    ],
)
def test_old_values(file: str, key: str, text: str, expected: str) -> None:
    assert old_value(file, key, text.encode()) == expected.encode()


def test_old_values_come_back(tmp_path: Path) -> None:
    before = {"memory.max": "100", "memory.swap.max": "5", "cpu.weight": "100", "cpu.max": "max 100000"}
    cgroup = v2(tmp_path, before)
    update = Update(
        cgroup,
        {"memory": {"limit": 4096, "swap": 8192}, "cpu": {"shares": 2, "quota": 5000}, "pids": {"limit": 9}},
        [],
        Host(),
    )
    with pytest.raises(UnsupportedError) as caught:
        update.apply()  # there is no pids.max
    assert caught.value.pointer == "/pids/limit"
    assert content(cgroup, "memory.max") == "4096"
    assert update.restore() == []
    assert {name: content(cgroup, name) for name in before} == before


def test_a_value_that_waits_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is first: what is refused until another value is back is tried once more."""
    real = files.write
    for name in ("one", "two"):
        for first, second in (("a", "b"), ("b", "a")):
            (tmp_path / "a").write_text("new\n")
            (tmp_path / "b").write_text("new\n")
            waits = {"one": "a", "two": "b"}[name]
            other = tmp_path / ("b" if waits == "a" else "a")

            def write(path: str, *values: bytes, waits: str = waits, other: Path = other) -> None:
                if path.endswith(waits) and other.read_text().strip() != "old":
                    raise OSError(22, "refused", path)
                real(path, *values)

            monkeypatch.setattr(files, "write", write)
            assert put_back([(str(tmp_path / item), "", b"old") for item in (first, second)]) == []
            assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "old"


def test_the_weight_of_a_cgroup_that_was_idle_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel forgets the weight of what becomes idle."""
    cgroup = v2(tmp_path, {"cpu.idle": "0", "cpu.weight": "500", "pids.max": "5"})
    real = files.write

    def write(path: str, *values: bytes) -> None:
        if path.endswith("pids.max"):
            raise OSError(22, "refused", path)
        real(path, *values)
        if path.endswith("cpu.idle"):
            (tmp_path / "c" / "cpu.weight").write_text("0" if values[-1] == b"1" else "100")

    monkeypatch.setattr(files, "write", write)
    update = Update(cgroup, {"cpu": {"idle": 1}, "pids": {"limit": 7}}, [], Host())
    with pytest.raises(StepError):
        update.apply()
    assert update.restore() == []
    assert (content(cgroup, "cpu.idle"), content(cgroup, "cpu.weight")) == ("0", "500")


@pytest.mark.parametrize(
    ("before", "now", "written"),
    [
        ("cpu memory\n", "cpu pids\n", "+memory -pids"),
        ("\n", "cpu pids\n", "-cpu -pids"),
        ("cpu\n", "\n", "+cpu"),
        ("cpu pids\n", "cpu pids\n", "cpu pids\n"),
    ],
)
def test_enabled_controllers_come_back(tmp_path: Path, before: str, now: str, written: str) -> None:
    """The file takes what is to be changed, and not what it shows."""
    cgroup = v2(tmp_path, {"cgroup.subtree_control": before})
    update = Update(cgroup, {"unified": {"cgroup.subtree_control": "+pids -memory"}}, [], Host())
    update.apply()
    (tmp_path / "c" / "cgroup.subtree_control").write_text(now)
    assert update.restore() == []
    assert content(cgroup, "cgroup.subtree_control") == written


def test_the_file_that_stands_in_for_another_comes_back(tmp_path: Path) -> None:
    cgroup = v2(tmp_path, {"io.weight": "default 100\n", "pids.max": "5"})
    update = Update(cgroup, {"blockIO": {"weight": 500}}, [], Host())
    update.apply()
    assert content(cgroup, "io.weight") == "4950"
    assert update.restore() == []
    assert content(cgroup, "io.weight") == "default 100"


def test_swap_alone_beside_unlimited_memory(tmp_path: Path) -> None:
    cgroup = v2(tmp_path, {"memory.max": "max\n", "memory.swap.max": "max"})
    Update(cgroup, {"memory": {"swap": 8192}}, [], Host()).apply()
    assert (content(cgroup, "memory.max"), content(cgroup, "memory.swap.max")) == ("max", "8192")


def test_what_cannot_come_back_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cgroup = v2(tmp_path, {"memory.max": "100"})
    update = Update(cgroup, {"memory": {"limit": 4096}}, [], Host())
    update.apply()

    def refuse(path: str, *_values: bytes) -> None:
        raise OSError(16, "busy", path)

    monkeypatch.setattr(files, "write", refuse)
    assert update.restore() == [cgroup.paths[""] + "/memory.max"]


@pytest.mark.parametrize(
    ("resources", "pointer", "kind"),
    [
        ({"memory": {"limit": 100, "swap": 5}}, "/memory/swap", ConfigError),
        ({"cpu": {"realtimePeriod": 5}}, "/cpu/realtimePeriod", UnsupportedError),
        ({"rdma": {"a": {"hcaHandles": 1}}}, "/rdma/a", UnsupportedError),
        ({"devices": [{"allow": True, "type": "c", "access": ""}]}, "/devices/0/access", ConfigError),
        ({"unified": {"a/b.c": "1"}}, "/unified/a~1b.c", ConfigError),
    ],
)
def test_refused_before_anything_is_written(
    tmp_path: Path, resources: "dict[str, Any]", pointer: str, kind: "type[Exception]"
) -> None:
    cgroup = v2(tmp_path, {"memory.max": "100"})
    with pytest.raises(kind) as caught:
        Update(cgroup, {"pids": {"limit": 3}, **resources}, [], Host())
    assert caught.value.pointer == pointer  # type: ignore[attr-defined]


class Kernel:
    """devices.list of cgroup v1 as plain files, with a record of what was done in which order."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        self.cgroup = v1(tmp_path, {"devices/devices.list": text, "freezer/freezer.state": "THAWED\n"})
        self.done: list[str] = []
        self.fail = ""
        real = files.write

        def write(path: str, *values: bytes) -> None:
            name = path.rpartition("/")[2]
            for value in values:
                self.done.append(f"{name} {value.decode().strip()}")
            if self.fail and self.fail in self.done[-1]:
                self.fail = ""
                raise OSError(1, "refused", path)
            if name == "freezer.state":
                real(path, *values)
            elif name == "devices.allow" and values[0].strip() == b"a":
                real(str(tmp_path / "devices/devices.list"), b"a *:* rwm\n")

        monkeypatch.setattr(files, "write", write)

    def update(self, new: "list[dict[str, Any]]", old: "list[dict[str, Any]]") -> Update:
        return Update(self.cgroup, {"devices": new}, old, Host())


DEFAULT_LIST = "b *:* m\nc *:* m\nc 1:3 rwm\nc 1:5 rwm\nc 1:7 rwm\nc 1:8 rwm\nc 1:9 rwm\nc 5:0 rwm\nc 5:2 rwm\nc 136:* rwm\nc 10:200 rwm\n"  # noqa: E501


def test_same_devices_are_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines send the whole list again with every other change."""
    kernel = Kernel(tmp_path, monkeypatch, DEFAULT_LIST)
    kernel.update([DENY_ALL, DENY_ALL], [DENY_ALL]).apply()
    assert kernel.done == []


def test_frozen_while_the_default_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment everything is allowed: nobody may run then."""
    kernel = Kernel(tmp_path, monkeypatch, DEFAULT_LIST)
    kernel.update([ALLOW_ALL, {**KMSG, "allow": False}], [DENY_ALL]).apply()
    assert kernel.done == [
        "freezer.state FROZEN", "devices.allow a", "devices.deny c 1:11 r", "freezer.state THAWED",
    ]  # fmt: skip


def test_a_paused_one_stays_paused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(tmp_path, monkeypatch, DEFAULT_LIST)
    (tmp_path / "freezer/freezer.state").write_text("FROZEN\n")
    kernel.update([ALLOW_ALL], [DENY_ALL]).apply()
    assert kernel.done == ["devices.allow a"]


def test_exceptions_that_the_kernel_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(tmp_path, monkeypatch, "a *:* rwm\n")
    old = [ALLOW_ALL, {**KMSG, "allow": False}]
    kernel.update([ALLOW_ALL, {**KMSG, "allow": False, "minor": 12}], old).apply()
    assert kernel.done == ["devices.deny c 1:12 r", "devices.allow c 1:11 r"]


def test_refused_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(tmp_path, monkeypatch, "a *:* rwm\n")
    kernel.fail = "devices.allow c 1:11 r"
    update = kernel.update([ALLOW_ALL, {**KMSG, "allow": False, "minor": 12}], [ALLOW_ALL, {**KMSG, "allow": False}])
    with pytest.raises(StepError):
        update.apply()
    assert kernel.done[2:] == ["devices.deny c 1:11 r", "devices.allow c 1:12 r"]
    assert update.restore() == []


def test_devices_come_back_when_what_follows_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state that is to remember the list cannot be written, say."""
    kernel = Kernel(tmp_path, monkeypatch, "a *:* rwm\n")
    old = [ALLOW_ALL, {**KMSG, "allow": False}]
    update = kernel.update([ALLOW_ALL, {**KMSG, "allow": False, "minor": 12}], old)
    update.apply()
    assert update.restore() == []
    assert kernel.done[2:] == ["devices.deny c 1:11 r", "devices.allow c 1:12 r"]


def test_a_limit_below_what_is_in_use_is_seen_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a service manager is told of anything, and before the first write [B6]."""
    cgroup = v2(tmp_path, {"memory.max": "max", "memory.current": "5000", "pids.max": "9", "memory.swap.max": "7"})
    told: list[object] = []
    monkeypatch.setattr(type(cgroup), "announce", lambda self, *args: told.append(args))
    resources = {"memory": {"limit": 4000, "swap": 4096, "checkBeforeUpdate": True}, "pids": {"limit": 3}}
    with pytest.raises(StepError, match="not above what is in use") as caught:
        Update(cgroup, resources, [], Host()).apply()
    assert caught.value.pointer == "/memory/limit"
    assert told == []
    assert [content(cgroup, name) for name in ("memory.max", "memory.swap.max", "pids.max")] == ["max", "7", "9"]


def test_thawed_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(tmp_path, monkeypatch, DEFAULT_LIST)
    kernel.fail = "devices.allow a"
    with pytest.raises(StepError):
        kernel.update([ALLOW_ALL], [DENY_ALL]).apply()
    assert kernel.done[-1] == "freezer.state THAWED"


def test_merged() -> None:
    old = {"cpu": {"quota": 1, "period": 2}, "devices": [DENY_ALL]}
    new = {"cpu": {"quota": 5}, "devices": [ALLOW_ALL], "pids": {"limit": 3}}
    assert merged(old, new) == {
        "cpu": {"quota": 5, "period": 2},
        "devices": [ALLOW_ALL],
        "pids": {"limit": 3},
    }


def test_schemata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The class's file gets the lines; a refused one brings the old ones back."""
    group = tmp_path / "gold"
    group.mkdir()
    (group / "schemata").write_text("    L3:0=ff\n    MB:0=100\n")
    written: list[str] = []

    def write(_path: str, text: str) -> None:
        written.append(text)
        if text.startswith("MB:0=7"):
            raise OSError(22, "refused")

    monkeypatch.setattr(intel_rdt, "_write", write)
    saved = {"directory": str(group)}
    lines = intel_rdt.schema_lines({"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=50"})
    before = intel_rdt.change(saved, lines)
    assert written == ["L3:0=f\n", "MB:0=50\n"]
    intel_rdt.change_back(saved, before)
    assert written[-1] == "L3:0=ff\nMB:0=100\n"
    with pytest.raises(StepError):
        intel_rdt.change(saved, intel_rdt.schema_lines({"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=7"}))
    assert written[-1] == "L3:0=ff\nMB:0=100\n"
    with pytest.raises(UnsupportedError):
        intel_rdt.change({}, lines)


def test_intel_rdt_stats(tmp_path: Path) -> None:
    for name, text in {
        "info/L3/cbm_mask": "fff\n",
        "info/L3/min_cbm_bits": "1\n",
        "info/L3/num_closids": "16\n",
        "info/MB/bandwidth_gran": "10\n",
        "schemata": "L3:0=fff\nMB:0=100\n",
        "gold/schemata": "L3:0=ff\nMB:0=50\n",
        "gold/mon_data/mon_L3_00/llc_occupancy": "4096\n",
        "gold/mon_data/mon_L3_00/mbm_total_bytes": "9\n",
        "gold/mon_data/mon_L3_00/mbm_local_bytes": "Unavailable\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert intel_rdt.stats({"directory": str(tmp_path / "gold"), "monitor": ""}) == {
        "l3_cache_info": {"cbm_mask": "fff", "min_cbm_bits": 1, "num_closids": 16},
        "l3_cache_schema_root": "L3:0=fff",
        "l3_cache_schema": "L3:0=ff",
        "mem_bw_info": {"bandwidth_gran": 10},
        "mem_bw_schema_root": "MB:0=100",
        "mem_bw_schema": "MB:0=50",
        "mbm_stats": [{"mbm_total_bytes": 9}],
        "cmt_stats": [{"llc_occupancy": 4096}],
    }
    assert intel_rdt.stats({}) == {}
