"""Tables: cgroupsPath -> unit, limits and devices -> properties, annotation -> typed value."""

from typing import Any

import pytest

from ociruntime.cgroups import devices, gvariant, limits_v1, limits_v2, systemd_properties as properties, systemd_unit
from ociruntime.errors import ConfigError

ALL_V2 = ("cpu", "cpuset", "io", "memory", "pids", "hugetlb")
INFINITY = (1 << 64) - 1


# -- names [D11]


@pytest.mark.parametrize(
    ("cgroups_path", "name", "slice_name", "path"),
    [
        ("", "ociruntime-web.scope", "system.slice", "/system.slice/ociruntime-web.scope"),
        ("::web", "web.scope", "system.slice", "/system.slice/web.scope"),
        ("machine.slice:libpod:abc", "libpod-abc.scope", "machine.slice", "/machine.slice/libpod-abc.scope"),
        (":p:n", "p-n.scope", "system.slice", "/system.slice/p-n.scope"),
        ("-.slice:p:n", "p-n.scope", "-.slice", "/p-n.scope"),
        ("a-b-c.slice:p:n", "p-n.scope", "a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice/p-n.scope"),
        ("a.slice:p:x-y.slice", "x-y.slice", "a.slice", "/x.slice/x-y.slice"),
    ],
)
def test_units(cgroups_path: str, name: str, slice_name: str, path: str) -> None:
    unit = systemd_unit.unit(cgroups_path, "web", "system.slice")
    assert (unit.name, unit.slice, unit.path) == (name, slice_name, path)


def test_default_slice_of_a_user() -> None:
    assert systemd_unit.unit("", "web", "user.slice").path == "/user.slice/ociruntime-web.scope"


def test_an_id_is_escaped() -> None:
    assert systemd_unit.unit("", "a+b", "system.slice").name == "ociruntime-a\\x2bb.scope"
    assert systemd_unit.escape(".a\\b-c_d.e") == "\\x2ea\\x5cb-c_d.e"


@pytest.mark.parametrize(
    ("cgroups_path", "reason"),
    [
        ("/a/b", "not in the form slice:prefix:name"),
        ("a:b", "not in the form"),
        ("a.slice:b:c:d", "not in the form"),
        ("a.slice:b:", "names no unit"),
        ("a:b:c", "does not end in .slice"),
        ("a.scope:b:c", "does not end in .slice"),
        ("/a.slice:b:c", "cannot contain '/'"),
        ("a.slice:b:../c", "cannot contain '/'"),
        ("a.slice:b:c d", "cannot contain ' '"),
        ("a--b.slice:b:c", "not the name of a slice"),
        ("-a.slice:b:c", "not the name of a slice"),
        (".slice:b:c", "not the name of a slice|begin with a dot"),
        ("::-.slice", "root slice"),
        ("::" + "x" * 250, "at most 255"),
    ],
)
def test_bad_forms(cgroups_path: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        systemd_unit.unit(cgroups_path, "web", "system.slice")
    assert caught.value.pointer == "/linux/cgroupsPath"


# -- base [D12]


def plain(items: "list[properties.Property]") -> "list[tuple[str, str, Any]]":
    return [(item.name, item.signature, item.value) for item in items]


def test_base_of_a_scope() -> None:
    unit = systemd_unit.unit("a.slice:p:n", "web", "system.slice")
    assert plain(properties.base(unit, "ociruntime container web", 42, v2=True)) == [
        ("Description", "s", "ociruntime container web"),
        ("Slice", "s", "a.slice"),
        ("Delegate", "b", True),
        ("PIDs", "au", [42]),
        ("CPUAccounting", "b", True),
        ("MemoryAccounting", "b", True),
        ("IOAccounting", "b", True),
        ("TasksAccounting", "b", True),
        ("DefaultDependencies", "b", False),
    ]
    assert ("BlockIOAccounting", "b", True) in plain(properties.base(unit, "ociruntime container web", 42, v2=False))


def test_base_of_a_slice() -> None:
    """A slice has no processes to begin with, and systemd does not delegate it."""
    unit = systemd_unit.unit("a.slice:p:n.slice", "web", "system.slice")
    names = {item.name: item.value for item in properties.base(unit, "ociruntime container web", 0, v2=True)}
    assert names["Wants"] == ["a.slice"]
    assert not {"PIDs", "Slice", "Delegate"} & set(names)


@pytest.mark.parametrize(
    ("version", "release"), [("252.39-1~deb12u2", 252), ("v255 (255.4)", 255), ("249", 249), ("", 0), ("x", 0)]
)
def test_release(version: str, release: int) -> None:
    assert properties.major_release(version) == release


# -- limits [D13, D14]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"memory": {"limit": 4096}}, {"MemoryMax": 4096}),
        ({"memory": {"limit": -1}}, {"MemorySwapMax": INFINITY, "MemoryMax": INFINITY}),
        ({"memory": {"limit": 4096, "swap": 6144}}, {"MemorySwapMax": 2048, "MemoryMax": 4096}),
        ({"memory": {"reservation": 4096}}, {"MemoryLow": 4096}),
        ({"cpu": {"shares": 1024}}, {"CPUWeight": 100}),
        ({"cpu": {"quota": 50000}}, {"CPUQuotaPerSecUSec": 500000, "CPUQuotaPeriodUSec": 100000}),
        ({"cpu": {"quota": 33333, "period": 100000}}, {"CPUQuotaPerSecUSec": 340000, "CPUQuotaPeriodUSec": 100000}),
        ({"cpu": {"period": 50000}}, {"CPUQuotaPerSecUSec": INFINITY, "CPUQuotaPeriodUSec": 50000}),
        ({"cpu": {"idle": 1, "shares": 1024}}, {"CPUWeight": 0}),
        ({"cpu": {"idle": 0}}, {"CPUWeight": 100}),
        ({"cpu": {"burst": 1000}}, {}),
        ({"cpu": {"cpus": "0-2,8", "mems": "0"}}, {"AllowedCPUs": b"\x07\x01", "AllowedMemoryNodes": b"\x01"}),
        ({"pids": {"limit": 7}}, {"TasksMax": 7}),
        ({"pids": {"limit": -1}}, {"TasksMax": INFINITY}),
        ({"blockIO": {"weight": 10}}, {"IOWeight": 1}),
        (
            {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 1000}]}},
            {"IODeviceWeight": [("/dev/block/8:0", 10000)]},
        ),
        (
            {
                "blockIO": {
                    "throttleReadBpsDevice": [
                        {"major": 8, "minor": 0, "rate": 5},
                        {"major": 8, "minor": 16, "rate": 6},
                    ],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 7}],
                }
            },
            {
                "IOReadBandwidthMax": [("/dev/block/8:0", 5), ("/dev/block/8:16", 6)],
                "IOWriteIOPSMax": [("/dev/block/8:0", 7)],
            },
        ),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}, {}),
        (
            {"unified": {"memory.high": "10M", "memory.min": "1K", "memory.oom.group": "1"}},
            {"MemoryHigh": 10 << 20, "MemoryMin": 1024},
        ),
        ({"memory": {"limit": 4096}, "unified": {"memory.max": "8192"}}, {"MemoryMax": 8192}),
        ({"unified": {"cpu.max": "20000", "io.weight": "default 50", "cpuset.cpus": ""}},
         {"CPUQuotaPerSecUSec": 200000, "CPUQuotaPeriodUSec": 100000, "IOWeight": 50, "AllowedCPUs": b""}),
        ({"unified": {"pids.max": "many"}}, {}),
        ({"unified": {"cpu.weight.nice": "0"}}, {"CPUWeight": 100}),
        ({"unified": {"cpu.weight.nice": "-20"}}, {"CPUWeight": 8668}),
        ({"unified": {"cpu.weight.nice": "19"}}, {"CPUWeight": 1}),
        ({"unified": {"cpu.weight.nice": "20"}}, {}),
        ({"unified": {"cpu.weight.nice": "-"}}, {}),
        (
            {"unified": {"io.latency": "8:0 target=75000\n8:16 target=max"}},
            {"IODeviceLatencyTargetUSec": [("/dev/block/8:0", 75000), ("/dev/block/8:16", INFINITY)]},
        ),
        ({"unified": {"io.latency": "8:0 nonsense"}}, {}),
    ],
)  # fmt: skip
def test_limits_v2(resources: "dict[str, Any]", expected: "dict[str, Any]") -> None:
    found = properties.limits_v2(limits_v2.writes(resources, ALL_V2), 252)
    assert {item.name: item.value for item in found} == expected
    assert all(item.pointer.startswith("/linux/resources/") for item in found)


@pytest.mark.parametrize(
    ("release", "names"),
    [
        (241, {"CPUQuotaPerSecUSec"}),
        (243, {"CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec"}),
        (251, {"CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec", "AllowedCPUs"}),
        (252, {"CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec", "AllowedCPUs", "CPUWeight"}),
        (253, {"CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec", "AllowedCPUs", "CPUWeight", "MemoryZSwapMax"}),
    ],
)
def test_older_systemd_is_not_told_what_it_refuses(release: int, names: "set[str]") -> None:
    resources = {"cpu": {"quota": 5000, "cpus": "0", "idle": 1}, "unified": {"memory.zswap.max": "0"}}
    found = properties.limits_v2(limits_v2.writes(resources, ALL_V2), release)
    assert {item.name for item in found} == names


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"memory": {"limit": 4096}}, {"MemoryLimit": 4096}),
        ({"cpu": {"shares": 512}}, {"CPUShares": 512}),
        ({"cpu": {"quota": 30000, "period": 50000}}, {"CPUQuotaPerSecUSec": 600000, "CPUQuotaPeriodUSec": 50000}),
        ({"cpu": {"quota": -1}}, {"CPUQuotaPerSecUSec": INFINITY, "CPUQuotaPeriodUSec": 100000}),
        ({"blockIO": {"weight": 300}}, {"BlockIOWeight": 300}),
        ({"pids": {"limit": 7}}, {"TasksMax": 7}),
        ({"cpu": {"cpus": "1"}}, {"AllowedCPUs": b"\x02"}),
    ],
)
def test_limits_v1(resources: "dict[str, Any]", expected: "dict[str, Any]") -> None:
    paths = dict.fromkeys(("memory", "cpu", "blkio", "pids", "cpuset"), "/x")
    found = properties.limits_v1(limits_v1.writes(resources, paths, ()), 252)
    assert {item.name: item.value for item in found} == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", b"\x01"), ("9", b"\x00\x02"), ("0-7", b"\xff"), ("", b""), ("1-x", None), ("3-1", None), ("0-99999", None)],
)
def test_bitmask(text: str, expected: "bytes | None") -> None:
    assert properties.bitmask(text) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [(33333, 100000, 34000), (50000, 100000, 50000), (1000, 50000, 1000), (1001, 50000, 1500), (20001, 1000000, 30000)],
)
def test_quota_in_files_that_systemd_writes_too(quota: int, period: int, expected: int) -> None:
    """Rounded up to the 10 ms per second that systemd counts in [D13]."""
    resources = {"cpu": {"quota": quota, "period": period}}
    v1 = limits_v1.writes(resources, {"cpu": "/x"}, ())
    v2 = limits_v2.writes(resources, ALL_V2)
    properties.round_quota(v1)
    properties.round_quota(v2)
    assert [write.value for write in v1 if write.file == "cpu.cfs_quota_us"] == [str(expected)]
    assert [write.value for write in v2] == [f"{expected} {period}"]


def test_no_quota_is_not_rounded() -> None:
    writes = limits_v2.writes({"cpu": {"quota": -1, "shares": 5}}, ALL_V2)
    before = [write.value for write in writes]
    properties.round_quota(writes)
    assert [write.value for write in writes] == before


# -- devices [D15]


def policy(rules: "list[dict[str, Any]]", release: int = 252) -> "list[Any]":
    wanted = devices.wanted({"devices": rules}, "/linux/resources")
    return [item.value for item in properties.device_policy(wanted, release, "/linux/resources")]


def test_a_list_of_allowed_devices() -> None:
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "r"},
        {"allow": True, "type": "c", "major": 4, "access": "rw"},
        {"allow": True, "type": "c", "minor": 9, "access": "w"},
    ]
    kind, empty, entries = policy(rules)
    assert (kind, empty) == ("strict", [])
    found = dict(entries)
    assert found["/dev/block/8:0"] == "r"
    assert found["char-4"] == "rw"
    # any major with one minor number cannot be said: wider here, exact in our own filter
    assert found["char-*"] == "wm"
    assert found["/dev/char/1:3"] == "rwm"
    assert found["block-*"] == "m"
    assert dict(policy(rules, 239)[2])["char-*"] == "rwm"


@pytest.mark.parametrize(
    "rules",
    [
        [{"allow": True, "access": "rwm"}],
        [{"allow": True, "access": "rwm"}, {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "rw"}],
    ],
)
def test_everything_and_exceptions_to_it(rules: "list[dict[str, Any]]") -> None:
    assert policy(rules) == ["auto", []]


# -- annotations [N1]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("TimeoutStopUSec", "uint64 5", ("TimeoutStopUSec", "t", 5)),
        ("TimeoutStopSec", "5", ("TimeoutStopUSec", "t", 5000000)),
        ("TimeoutStopSec", "1.5", ("TimeoutStopUSec", "t", 1500000)),
        ("CollectMode", "'inactive-or-failed'", ("CollectMode", "s", "inactive-or-failed")),
        ("DefaultDependencies", "true", ("DefaultDependencies", "b", True)),
        ("Wants", "['a.service', \"b.service\"]", ("Wants", "as", ["a.service", "b.service"])),
        ("Sec", "5", ("Sec", "i", 5)),
    ],
)
def test_annotations(name: str, text: str, expected: "tuple[str, str, Any]") -> None:
    assert plain(properties.from_annotations({f"org.systemd.property.{name}": text, "other": "x"})) == [expected]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("ab", "1", "not the name"),
        ("", "1", "not the name"),
        ("Foo1", "1", "not the name"),
        ("Foo_bar", "1", "not the name"),
        ("Föö", "1", "not the name"),
        ("PIDs", "[1]", "set by the runtime itself"),
        ("Slice", "'x.slice'", "set by the runtime itself"),
        ("TimeoutStopSec", "'5'", "number of seconds"),
        ("TimeoutStopSec", "-5", "not a number of seconds"),
        ("TimeoutStopSec", "1e300", "not a number of seconds"),
        ("CollectMode", "inactive", "is not a value"),
        ("CollectMode", "", "a value is missing"),
        ("CollectMode", "'x", "no end"),
    ],
)
def test_bad_annotations(name: str, text: str, reason: str) -> None:
    key = f"org.systemd.property.{name}"
    with pytest.raises(ConfigError, match=reason) as caught:
        properties.from_annotations({key: text})
    assert caught.value.pointer == f"/annotations/{key}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", ("i", 5)),
        ("-0x10", ("i", -16)),
        ("010", ("i", 8)),
        ("1e3", ("d", 1000.0)),
        ("byte 255", ("y", 255)),
        ("@t 18446744073709551615", ("t", INFINITY)),
        ("'a\\n\\u00e9'", ("s", "a\n\u00e9")),
        ('"it\'s"', ("s", "it's")),
        ("objectpath '/a/b_c'", ("o", "/a/b_c")),
        ("signature 'a(st)'", ("g", "a(st)")),
        ("[1, 2,]", ("ai", [1, 2])),
        ("[1, 2.5]", ("ad", [1.0, 2.5])),
        ("[uint32 1, 2]", ("au", [1, 2])),
        ("@as []", ("as", [])),
        ("@ay [1, 2]", ("ay", b"\x01\x02")),
        ("('/dev/sda', uint64 9)", ("(st)", ("/dev/sda", 9))),
        ("[('/dev/sda', uint64 9)]", ("a(st)", [("/dev/sda", 9)])),
        ("{'a': <1>, 'b': <'x'>}", ("a{sv}", {"a": ("i", 1), "b": ("s", "x")})),
        (" true ", ("b", True)),
    ],
)
def test_gvariant(text: str, expected: "tuple[str, Any]") -> None:
    assert gvariant.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "5 6", "[", "[1", "[1 2]", "()", "[]", "{}", "[1, 'a']", "byte 256", "uint32 -1", "2147483648", "<1",
        "@z 5", "@a 5", "@a{vs} {}", "@( 5", "@as 5", "objectpath 'a'", "signature 'z'", "'\\ud'", "1.2.3", "0x",
        "'\0'", "just 5", "nothing", "b'x'", "{'a' 1}", "{[1]: 2}", "@i 1.5", "@i @t 5", "1_000",
        "[" * 100, "<" * 100 + "1",
    ],
)  # fmt: skip
def test_gvariant_refused(text: str) -> None:
    with pytest.raises(ValueError):
        gvariant.parse(text)
