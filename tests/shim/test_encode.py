"""The boundary: numbers of Python and C agree, and a plan comes back from its bytes as it went in."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ociruntime import plan
from ociruntime.plan import FdSource, Op, op

native = pytest.importorskip("ociruntime.shim._native", reason="the compiled module is not built: make build")

from ociruntime.shim import encode as encoder, sync  # noqa: E402

HEADER = (Path(__file__).resolve().parents[2] / "cffi_build" / "include" / "shim.h").read_text()
KINDS = [name.lower() for name in re.findall(r"^    OP_(\w+) = \d+,", HEADER, re.MULTILINE)][1:]
FLAGS = dict(re.findall(r"^#define OPF_(\w+) (\d+)", HEADER, re.MULTILINE))
POINTS = dict(re.findall(r"^    (SYNC_\w+) = (\d+)", HEADER, re.MULTILINE))


def test_flags_agree() -> None:
    ours = {name: value for name, value in vars(plan).items() if name in FLAGS}
    assert ours == {name: int(number) for name, number in FLAGS.items()}


def test_sync_points_agree() -> None:
    for name, value in vars(plan).items():
        if name.startswith("SYNC_"):
            assert int(POINTS[name]) == value


def test_every_op_has_a_handler() -> None:
    table = (Path(HEADER and __file__).resolve().parents[2] / "cffi_build/src/child/child.c").read_text()
    handled = {name.lower() for name in re.findall(r"\[OP_(\w+)\] = ", table)} | {"sync"}
    assert set(KINDS) - {"count"} == handled - {"count"}


def test_struct_sizes_agree() -> None:
    size = native.ffi.sizeof
    assert encoder.HEADER.size == size("struct plan_header")
    assert encoder.RECORD.size == size("struct plan_op")
    assert sync.MESSAGE.size == size("struct message")
    assert sync.BOOT.size == size("struct boot")


def decode(block: bytes) -> list[tuple[Any, ...]]:
    """The ops of a block: (kind number, flags, fd, args, strings up to their NUL)."""
    header = encoder.HEADER.unpack_from(block)
    magic, version, size, _, n_ops, ops_at, strings_at, strings_size = header[:8]
    assert (magic, version, size) == (native.lib.PLAN_MAGIC, native.lib.PLAN_VERSION, len(block))
    table = block[strings_at : strings_at + strings_size]
    assert table[0] == 0 and table[-1] == 0
    found = []
    for index in range(n_ops):
        kind, flags, fd, a, b, c, d, *offsets = encoder.RECORD.unpack_from(block, ops_at + index * encoder.RECORD.size)
        strings = tuple(table[at : table.index(b"\0", at)] for at in offsets)
        found.append((kind, flags, fd, (a, b, c, d), strings))
    return found


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
ops = st.lists(
    st.builds(
        lambda kind, flags, args, strings, tree: op(
            kind, "/x", flags=flags, args=args, strings=strings, fd=FdSource("tree", "/") if tree else None
        ),
        st.sampled_from(KINDS[:20]),
        st.integers(0, 65535),
        st.lists(st.integers(0, 2**64 - 1), max_size=4),
        st.lists(texts, max_size=4),
        st.booleans(),
    ),
    max_size=12,
)


@given(ops)
def test_round_trip(given_ops: list[Op]) -> None:
    block, sources = encoder.encode(given_ops)
    found = decode(block)
    assert len(found) == len(given_ops)
    next_fd = 0
    for item, (kind, flags, fd, args, strings) in zip(given_ops, found, strict=True):
        assert kind == getattr(native.lib, "OP_" + item.kind.upper())
        assert flags == item.flags
        assert args == (*item.args, 0, 0, 0, 0)[:4]
        assert strings == (*(str(text).encode() for text in item.strings), b"", b"", b"", b"")[:4]
        assert fd == (next_fd if item.fd is not None else -1)
        next_fd += item.fd is not None
    assert len(sources) == next_fd


def test_lists_are_found_again() -> None:
    items = ["a", "", "c d", "\udcff"]
    block, _ = encoder.encode([op("lookup", strings=(plan.pack_list(items),), args=(4,))])
    assert b"a\0\0c d\0\xff\0" in block
