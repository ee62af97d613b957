"""The compiled module ociruntime.shim._native: lists sources, nothing else."""

import os
import sys
from pathlib import Path

import cffi

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import build_init  # noqa: E402

BUILD = HERE.parent / "build" / "init"
WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]

ffi = cffi.FFI()
ffi.cdef((HERE / "include" / "shim.h").read_text())
ffi.set_source(
    "ociruntime.shim._native",
    '#include "shim_guard.h"\n',
    sources=[
        *(os.path.relpath(path, HERE.parent) for path in sorted((HERE / "src" / "parent").glob("*.c"))),
        os.path.relpath(build_init.build(BUILD, os.environ.get("CC", "cc")), HERE.parent),
    ],
    include_dirs=[
        os.path.relpath(HERE / "include", HERE.parent),
        os.path.relpath(HERE / "src" / "parent", HERE.parent),
    ],
    extra_compile_args=["-std=gnu11", "-O2", "-fvisibility=hidden", *WARNINGS],
    extra_link_args=["-Wl,-z,now", "-Wl,-z,relro"],
)

if __name__ == "__main__":
    os.chdir(HERE.parent)
    ffi.compile(tmpdir=".", verbose=False)
