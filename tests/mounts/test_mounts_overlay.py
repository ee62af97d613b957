"""mounts.lower: directories of overlays whose names are too long for one fsconfig(2)."""

import pytest

from ociruntime.errors import ConfigError, UnsupportedError
from tests.mounts.conftest import Lower, v2_host

A, B = "/" + "a" * 199, "/" + "b" * 254
LONG = "/" + "c" * 255


def overlay_data(lowered: Lower, kernel: "tuple[int, int]", *options: str) -> "list[tuple[str, str]]":
    """The parameters of an overlay as pairs."""
    entry = {"destination": "/d", "type": "overlay", "source": "o", "options": [*options, "volatile"]}
    op = lowered({"mounts": [entry]}, host=v2_host(kernel=kernel)).setup[0]
    words = op.strings[3].decode().split("\0")[:-1]
    assert len(words) == 2 * op.args[3]
    assert words[-2:] == ["volatile", ""]
    return list(zip(words[:-2:2], words[1::2], strict=False))


@pytest.mark.parametrize(
    ("kernel", "options", "expected"),
    [
        ((6, 1), ["lowerdir=/a:/b"], [("lowerdir", "/a:/b")]),
        ((6, 8), ["lowerdir=/a:/b"], [("lowerdir", "/a:/b")]),
        ((6, 8), [f"lowerdir={A}:{B}"], [("lowerdir+", A), ("lowerdir+", B)]),
        ((6, 1), [f"lowerdir={A}:{B}"], [("", A), (":", B), ("lowerdir", "")]),
        ((6, 8), [f"lowerdir={A}:{LONG}"], [("lowerdir+", A), ("", LONG), ("lowerdir+", "")]),
        ((6, 8), [f"lowerdir={A}\\:x:{A}::/d"], [("lowerdir+", f"{A}:x"), ("lowerdir+", A), ("datadir+", "/d")]),
        ((6, 7), [f"lowerdir={A}\\:x:{A}::/d"], [("", f"{A}:x"), (":", A), ("::", "/d"), ("lowerdir", "")]),
        ((6, 8), [f"lowerdir+={LONG}"], [("", LONG), ("lowerdir+", "")]),
        (
            (6, 8),
            ["lowerdir=/a:b", f"upperdir={LONG}", "workdir=/w"],
            [("lowerdir+", "/a"), ("", "b"), ("lowerdir+", ""), ("", LONG), ("upperdir", ""), ("workdir", "/w")],
        ),
        (
            (6, 1),
            ["lowerdir=/a", "upperdir=u", f"workdir={LONG}"],
            [("", "/a"), ("lowerdir", ""), ("", "u"), ("upperdir", ""), ("", LONG), ("workdir", "")],
        ),
    ],
)
def test_long_names_of_layers(
    lowered: Lower, kernel: "tuple[int, int]", options: "list[str]", expected: "list[tuple[str, str]]"
) -> None:
    """fsconfig(2) takes values of 255 bytes: layers go one by one, or by the numbers of their fds."""
    assert overlay_data(lowered, kernel, *options) == expected


def test_as_many_layers_as_fit(lowered: Lower) -> None:
    """64 numbers of three digits fill a value."""
    names = [f"/layer-{number}" for number in range(65)]
    assert len(overlay_data(lowered, (6, 1), "lowerdir=" + ":".join(names[:64]))) == 65
    assert len(overlay_data(lowered, (6, 8), "lowerdir=" + ":".join(names))) == 65
    with pytest.raises(UnsupportedError, match=r"65 layers .* needs Linux 6\.8, this is 6\.7") as caught:
        overlay_data(lowered, (6, 7), "lowerdir=" + ":".join(names))
    assert caught.value.pointer == "/mounts/0/options/0"


def test_long_values(lowered: Lower) -> None:
    """What is not a directory cannot be opened instead."""
    for kind, option in (("overlay", "index"), ("tmpfs", "upperdir")):
        entry = {"destination": "/d", "type": kind, "options": [f"{option}={LONG}"]}
        with pytest.raises(ConfigError, match="255 bytes") as caught:
            lowered({"mounts": [entry]})
        assert caught.value.pointer == "/mounts/0/options/0"
