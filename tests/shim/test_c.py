"""The C of the init process: unit tests with sanitizers, a short fuzz run, and what must not have crept in."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
C = ROOT / "tests" / "c"
SOURCES = ROOT / "cffi_build" / "src"
INCLUDE = [f"-I{ROOT / 'cffi_build' / 'include'}", f"-I{SOURCES / 'child'}", f"-I{C}"]
SANITIZE = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
PROGRAMS = {
    "test_plan": [SOURCES / "common" / "plan.c"],
    "test_path": [
        SOURCES / "common" / "plan.c",
        *(SOURCES / "child" / f"{name}.c" for name in ("path", "memory", "report", "message")),
    ],
}


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_c_program(name: str, tmp_path: Path) -> None:
    binary = tmp_path / name
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", *SANITIZE, *INCLUDE]
    subprocess.run(["gcc", *flags, "-o", binary, C / f"{name}.c", *PROGRAMS[name]], check=True)
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run([binary, work], capture_output=True, text=True, timeout=60, check=False)
    failed = [line for line in done.stdout.splitlines() if line.startswith("not ok")]
    assert done.returncode == 0 and not failed, "\n".join(failed) + done.stderr
    assert re.search(r"^1\.\.\d+$", done.stdout, re.MULTILINE)


def test_fuzz_the_plan_reader(tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        pytest.skip("clang is not installed")
    binary = tmp_path / "fuzz_plan"
    flags = ["-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all", *INCLUDE]
    subprocess.run(["clang", *flags, "-o", binary, C / "fuzz_plan.c", SOURCES / "common" / "plan.c"], check=True)
    done = subprocess.run(
        [binary, "-runs=60000", "-max_len=4096", "-seed=1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def build_init(directory: Path, cc: str) -> Path:
    subprocess.run(
        ["/usr/bin/env", "python3", ROOT / "cffi_build" / "build_init.py", directory, "--cc", cc],
        check=True,
        capture_output=True,
        env={**os.environ, "CC": cc},
    )
    return directory / "init"


def test_init_stands_alone(tmp_path: Path) -> None:
    """No interpreter, no libc, no writable globals worth naming: static, small, and not a position for secrets."""
    elf = build_init(tmp_path, "gcc")
    assert elf.stat().st_size < 64 * 1024
    headers = subprocess.run(["readelf", "-lW", elf], check=True, capture_output=True, text=True).stdout
    assert "INTERP" not in headers and "DYNAMIC" not in headers
    assert re.search(r"GNU_STACK.* RW ", headers), "the stack must not be executable"


def test_init_calls_nothing_from_outside(tmp_path: Path) -> None:
    """Every symbol the objects leave open is defined by another of them: no malloc, no stdio."""
    objects = []
    sources = [*sorted((SOURCES / "child").glob("*.c")), SOURCES / "common" / "plan.c"]
    for source in sources:
        target = tmp_path / f"{source.stem}.o"
        flags = ["-std=gnu11", "-Os", "-ffreestanding", "-fno-stack-protector", "-fno-builtin", *INCLUDE]
        subprocess.run(["gcc", *flags, "-c", "-o", target, source], check=True)
        objects.append(target)
    listing = subprocess.run(["nm", *objects], check=True, capture_output=True, text=True).stdout
    defined = set(re.findall(r"^[0-9a-f]+ [TDRBC] (\w+)$", listing, re.MULTILINE))
    wanted = set(re.findall(r"^ +U (\w+)$", listing, re.MULTILINE))
    assert wanted <= defined, wanted - defined


def test_builds_for_aarch64(tmp_path: Path) -> None:
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("no cross compiler (gcc-aarch64-linux-gnu)")
    elf = build_init(tmp_path, "aarch64-linux-gnu-gcc")
    header = subprocess.run(["readelf", "-h", elf], check=True, capture_output=True, text=True).stdout
    assert "AArch64" in header
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", *INCLUDE, "-fsyntax-only"]
    for source in sorted((SOURCES / "parent").glob("*.c")):
        subprocess.run(["aarch64-linux-gnu-gcc", *flags, f"-I{SOURCES / 'parent'}", source], check=True)
