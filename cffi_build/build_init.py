"""Build the sealed init: a static executable without libc, and the C file that carries it as bytes.

    python3 cffi_build/build_init.py OUTPUT_DIRECTORY [--cc CC]

Writes OUTPUT_DIRECTORY/init (ELF) and OUTPUT_DIRECTORY/init_blob.c.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = sorted((HERE / "src" / "child").glob("*.c")) + [HERE / "src" / "common" / "plan.c"]
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wshadow",
    "-Wundef",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wmissing-declarations",
    "-Wnested-externs",
    "-Wpointer-arith",
    "-Wformat=2",
    "-Wformat-security",
    "-Winit-self",
    "-Wimplicit-fallthrough",
    "-Wredundant-decls",
    "-Wvla",
    "-Wswitch-default",
]
FLAGS = [
    "-std=gnu11",
    "-Os",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables",
    "-fno-builtin",
    "-fno-pie",
    "-ffunction-sections",
    "-fdata-sections",
    "-fcf-protection=none",
]
LINK = ["-nostdlib", "-static", "-no-pie", "-Wl,--gc-sections", "-Wl,-z,noexecstack", "-Wl,--build-id=none", "-s"]


def build(directory: Path, cc: str) -> Path:
    """Compile the init executable into directory and write init_blob.c beside it. Returns the C file."""
    directory.mkdir(parents=True, exist_ok=True)
    machine = subprocess.run([cc, "-dumpmachine"], check=True, capture_output=True, text=True).stdout
    flags = [flag for flag in FLAGS if flag != "-fcf-protection=none" or machine.startswith("x86_64")]
    elf = directory / "init"
    command = [cc, *WARNINGS, *flags, f"-I{HERE / 'include'}", *LINK, "-o", str(elf), *map(str, SOURCES)]
    subprocess.run(command, check=True)
    data = elf.read_bytes()
    rows = "\n".join("    " + ", ".join(f"{b}" for b in data[i : i + 24]) + "," for i in range(0, len(data), 24))
    blob = directory / "init_blob.c"
    blob.write_text(
        '#include "parent.h"\n\n'
        f"const unsigned int init_blob_size = {len(data)};\n"
        f"const unsigned char init_blob[] = {{\n{rows}\n}};\n"
    )
    return blob


def main(arguments: list[str]) -> int:
    cc = os.environ.get("CC", "cc")
    if "--cc" in arguments:
        at = arguments.index("--cc")
        cc = arguments[at + 1]
        del arguments[at : at + 2]
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    print(build(Path(arguments[0]), cc))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
