"""The plan as bytes: one flat block of plan_header, plan_op records and a string table (cffi_build/include/shim.h)."""

from _struct import Struct

from ociruntime.shim._native import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ociruntime.plan import FdSource, Op

HEADER = Struct("<12I")
RECORD = Struct("<HHi4Q4I")
TRACE = 1


def encode(
    ops: "Sequence[Op]", *, preserve_fds: int = 0, trace: bool = False, fail_op: int = -1, fail_errno: int = 5
) -> "tuple[bytes, list[FdSource]]":
    """The block for ops, and what has to be opened for them, in the order of their fd indexes.

    fail_op, fail_errno: fault injection: the op of that index fails with that errno.
    """
    kinds: dict[str, int] = {}
    offsets: dict[bytes, int] = {b"": 0}
    table = [b"\0"]
    size = 1
    fds: list[FdSource] = []
    pack = RECORD.pack
    records = []
    for op in ops:
        kind = kinds.get(op.kind)
        if kind is None:
            kind = kinds[op.kind] = getattr(lib, "OP_" + op.kind.upper())
        strings = [0, 0, 0, 0]
        for at, text in enumerate(op.strings):
            data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
            offset = offsets.get(data)
            if offset is None:
                offset = offsets[data] = size
                table.append(data)
                table.append(b"\0")
                size += len(data) + 1
            strings[at] = offset
        args = op.args
        a = args[0] if args else 0
        b = args[1] if len(args) > 1 else 0
        c = args[2] if len(args) > 2 else 0
        d = args[3] if len(args) > 3 else 0
        index = -1
        if op.fd is not None:
            index = len(fds)
            fds.append(op.fd)
        records.append(pack(kind, op.flags, index, a, b, c, d, *strings))
    strings_offset = HEADER.size + RECORD.size * len(records)
    header = HEADER.pack(
        lib.PLAN_MAGIC,
        lib.PLAN_VERSION,
        strings_offset + size,
        TRACE if trace else 0,
        len(records),
        HEADER.size,
        strings_offset,
        size,
        len(fds),
        preserve_fds,
        fail_op if fail_op >= 0 else lib.PLAN_MAX_OPS,
        fail_errno,
    )
    return b"".join((header, *records, *table)), fds
