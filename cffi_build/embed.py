"""Link the launcher: an executable with the interpreter and the frozen package in it.

    python3 cffi_build/embed.py --output build/ociruntime [--library DIR]

Run by the interpreter that is to be embedded; it is asked where its pieces are. Without --library the launcher takes
extension modules and site packages from where this interpreter finds them (a checkout with its virtual environment);
with it, from DIR as `make install` lays it out. Four ways are tried, the quickest command first:

1. libpythonX.Y.a, without the builtin modules that need shared libraries of their own, standard names interned late
2. libpythonX.Y.a as it is
3. libpythonX.Y.so
4. a script that starts the interpreter with -I -S (no development files, no compiler)
"""

import argparse
import importlib.util
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import freeze

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PACKAGE = ROOT / "ociruntime"
NATIVE = "ociruntime.shim._native"

# Builtin modules of some distributions whose libraries would be loaded at every start. Who imports them copes without.
LEFT_OUT = ("zlib", "pyexpat", "_elementtree", "readline", "_ctypes", "_ssl", "_hashlib", "_sqlite3", "_lzma", "_bz2")

# Not position independent, as Debian's own interpreter: relocating its tables costs 0.6 ms at every start.
CFLAGS = ["-O2", "-fno-pie", "-Wall", "-Wextra", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"]
LDFLAGS = ["-no-pie", "-Wl,-z,relro,-z,now,-z,noexecstack", "-Wl,--hash-style=gnu", "-rdynamic"]

SCRIPT = """#!{python} -IS
import os
import signal
import sys

signal.signal(signal.SIGPIPE, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.dont_write_bytecode = True
sys.path[:0] = {paths!r}

from ociruntime.cli.main import main

code = main(sys.argv[1:])
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
"""


def extension_paths(library: "Path | None") -> "dict[str, Path]":
    """Extension modules for the time before the interpreter is complete: dotted name -> shared object."""
    paths = {}
    for name in ("_json", "_cffi_backend", "seccomp", NATIVE):
        if name == NATIVE:
            found = next(iter(sorted(PACKAGE.glob("shim/_native.*.so"))), None)
        else:
            spec = importlib.util.find_spec(name)
            found = Path(spec.origin) if spec is not None and spec.origin not in (None, "built-in") else None
        if found is None or found.suffix != ".so":
            continue
        if library is not None and name in ("_cffi_backend", NATIVE):
            found = library / ("ociruntime/shim" if name == NATIVE else "site") / found.name
        paths[name] = found
    return paths


def search_paths(library: "Path | None") -> "list[str]":
    """sys.path of the complete interpreter: the standard library, then the packages we depend on."""
    stdlib = sysconfig.get_path("stdlib")
    paths = [stdlib, sysconfig.get_config_var("DESTSHARED") or f"{stdlib}/lib-dynload"]
    if library is None:
        paths += [str(ROOT), *(path for path in sys.path if path.endswith(("site-packages", "dist-packages")))]
    else:
        paths += [str(library / "site"), str(library)]
    return [str(path) for path in paths]


def c_string(text: "str | Path") -> str:
    """A C string literal."""
    plain = "/._-+"
    octal = (c if c.isalnum() or c in plain else "".join(f"\\{b:03o}" for b in c.encode()) for c in str(text))
    return '"' + "".join(octal) + '"'


def paths_header(output: Path, library: "Path | None") -> str:
    """launcher_paths.h"""
    rows = [f"    {{{c_string(name)}, {c_string(path)}}},\n" for name, path in extension_paths(library).items()]
    search = [f"    L{c_string(path)},\n" for path in search_paths(library)]
    return (
        f"#define LIBRARY_PATH {c_string(library or ROOT)}\n"
        f"#define PROGRAM_NAME L{c_string(output)}\n"
        f"#define PYTHON_PREFIX L{c_string(sys.base_prefix)}\n\n"
        "struct extension_path {\n    const char *name;\n    const char *path;\n};\n\n"
        f"static const struct extension_path extension_paths[] = {{\n{''.join(rows)}    {{NULL, NULL}},\n}};\n\n"
        f"static const wchar_t *const search_paths[] = {{\n{''.join(search)}    NULL,\n}};\n"
    )


def trimmed_inittab(config: str) -> str:
    """The interpreter's own table of builtin modules (config.c) without LEFT_OUT."""
    entries = dict(re.findall(r'\{"(\w+)", *(\w+)\}', config))
    kept = {name: init for name, init in entries.items() if name not in LEFT_OUT}
    declared = sorted({init for init in kept.values() if init != "NULL"})
    return (
        "#include <Python.h>\n\n"
        + "".join(f"extern PyObject *{init}(void);\n" for init in declared)
        + "\nstruct _inittab _PyImport_Inittab[] = {\n"
        + "".join(f'    {{"{name}", {init}}},\n' for name, init in kept.items())
        + "    {NULL, NULL},\n};\n"
    )


class Linker:
    """One build directory and one compiler; remembers why an attempt failed."""

    def __init__(self, directory: Path, output: Path) -> None:
        self.directory = directory
        self.output = output
        self.compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[:1]
        self.includes = [
            f"-I{directory}",
            f"-I{sysconfig.get_path('include')}",
            f"-I{sysconfig.get_path('platinclude')}",
        ]
        self.failures: list[str] = []

    def link(self, sources: "list[Path]", defines: "list[str]", libraries: "list[str]") -> bool:
        """Compile and link; False (and a remembered message) if that does not work."""
        made = self.directory / "ociruntime"
        inputs = [*defines, *self.includes, *map(str, sources)]
        command = [*self.compiler, *CFLAGS, *inputs, "-o", str(made), *LDFLAGS, *libraries]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            self.failures.append(f"{self.compiler[0]}: {error.strerror}")
            return False
        if done.returncode == 0:
            if done.stderr:
                sys.stderr.write(done.stderr)
            made.replace(self.output)
            return True
        self.failures.append(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "the compiler failed")
        return False


def static_library() -> "Path | None":
    """libpythonX.Y.a, if this interpreter came with one."""
    variables = sysconfig.get_config_vars()
    name = f"libpython{variables['py_version_short']}.a"
    for directory in (variables.get("LIBPL"), variables.get("LIBDIR")):
        if directory and (Path(directory) / name).is_file():
            return Path(directory) / name
    return None


def write_script(output: Path, library: "Path | None") -> str:
    """The fourth way."""
    interpreter = Path(sys.base_prefix) / "bin" / f"python{sysconfig.get_config_var('py_version_short')}"
    output.write_text(SCRIPT.format(python=interpreter, paths=search_paths(library)[2:]))
    output.chmod(0o755)
    return "script"


def build(output: Path, library: "Path | None", directory: Path) -> str:
    """Make the launcher at output. Returns which of the four ways it went."""
    directory.mkdir(parents=True, exist_ok=True)
    count = freeze.freeze(PACKAGE, directory, freeze.libraries())
    installed = output if library is None else library.parent.parent / "bin" / output.name
    (directory / "launcher_paths.h").write_text(paths_header(installed, library))
    linker = Linker(directory, output)
    sources = [HERE / "launcher" / "launcher.c", directory / "frozen_table.c", directory / "frozen.S"]
    variables = sysconfig.get_config_vars()
    static = static_library()
    if static is not None:
        config = Path(str(variables.get("LIBPL"))) / "config.c"
        if sys.version_info[:2] == (3, 11) and config.is_file():
            inittab = directory / "inittab.c"
            inittab.write_text(trimmed_inittab(config.read_text()))
            if linker.link(
                [*sources, inittab],
                ["-DLAZY_DEEPFREEZE", "-DOWN_CRC32", "-Wl,--wrap=_Py_Deepfreeze_Init"],
                [str(static), "-lm", "-ldl", "-lpthread", "-lutil"],
            ):
                return f"static, trimmed, {count} frozen modules"
        needed = [
            word for name in ("MODLIBS", "LIBS", "SYSLIBS") for word in shlex.split(str(variables.get(name) or ""))
        ]
        if linker.link(sources, [], [str(static), *needed]):
            return f"static, {count} frozen modules"
    shared = str(variables.get("LDLIBRARY", ""))
    if variables.get("Py_ENABLE_SHARED") and shared:
        where = str(variables.get("LIBDIR"))
        name = f"-l{shared.removeprefix('lib').split('.so')[0]}"
        if linker.link(sources, [], [f"-L{where}", f"-Wl,-rpath,{where}", name, "-lm"]):
            return f"shared, {count} frozen modules"
    for failure in linker.failures:
        sys.stderr.write(f"embed: {failure}\n")
    return write_script(output, library)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="link the launcher")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--library", type=Path, help="where the library will be installed")
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "launcher", help="for intermediate files")
    parser.add_argument("--script", action="store_true", help="only the script")
    options = parser.parse_args()
    output = options.output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    if options.script:
        way = write_script(output, options.library)
    else:
        way = build(output, options.library, options.directory.resolve())
    print(f"{options.output}: {way}")


if __name__ == "__main__":
    main()
