"""The installed command: what of the caller's world it ignores, and what is frozen into it."""

import ast
import json
import marshal
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tests.cgroups.fake_bus import FakeBus

CHECKOUT = Path(__file__).resolve().parent.parent
LAUNCHER = CHECKOUT / "build" / "ociruntime"
sys.path.insert(0, str(CHECKOUT / "cffi_build"))

import freeze  # noqa: E402

built = pytest.mark.skipif(not LAUNCHER.exists(), reason="make build has not been run")
elf = pytest.mark.skipif(
    not LAUNCHER.exists() or LAUNCHER.read_bytes()[:4] != b"\x7fELF", reason="the launcher is a script here"
)


def run(*words: "str | bytes", **options: object) -> "subprocess.CompletedProcess[bytes]":
    """Run the launcher with an environment of nothing but what is given."""
    arguments = {"env": {}, "cwd": "/", "stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 60} | options
    return subprocess.run([LAUNCHER, *words], check=False, **arguments)  # type: ignore[call-overload,no-any-return]


@built
def test_empty_environment() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert re.match(rb"ociruntime version \d", done.stdout)
    assert done.stderr == b""


@built
def test_python_environment_is_ignored(tmp_path: Path) -> None:
    evil = tmp_path / "ociruntime"
    evil.mkdir()
    (evil / "__init__.py").write_text("raise SystemExit(99)")
    for name in ("posix", "sitecustomize", "usercustomize", "encodings", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(98)")
    environment = {
        "PYTHONPATH": str(tmp_path),
        "PYTHONHOME": "/nonexistent",
        "PYTHONVERBOSE": "1",
        "PYTHONINSPECT": "1",
        "PYTHONWARNINGS": "error",
        "PYTHONIOENCODING": "latin-1",
        "PYTHONSTARTUP": str(tmp_path / "json.py"),
        "PYTHONMALLOC": "debug",
        "LC_ALL": "tr_TR.ISO-8859-9",
        "HOME": str(tmp_path),
    }
    for words in (("--version",), ("state", "absent"), ("features",)):
        plain, disturbed = run(*words), run(*words, env=environment, cwd=tmp_path)
        assert (disturbed.returncode, disturbed.stdout, disturbed.stderr) == (
            plain.returncode,
            plain.stdout,
            plain.stderr,
        )


@elf
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_nothing_is_compiled(tmp_path: Path) -> None:
    """What the standard library has compiled is used as it is: reading a source costs ten times its import."""
    trace = tmp_path / "trace"
    subprocess.run(
        ["strace", "-f", "-o", trace, "-e", "trace=open,openat", LAUNCHER, "features"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    opened = re.findall(r'"([^"]+)".* = \d+$', trace.read_text(), re.MULTILINE)
    assert any(name.endswith(".pyc") for name in opened)
    assert [name for name in opened if name.endswith(".py")] == []


@built
def test_closed_standard_descriptors() -> None:
    """Nothing that is opened later may get the number 0, 1 or 2."""
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        done = subprocess.run(
            ["/bin/sh", "-c", f'"$0" state absent {closed}', LAUNCHER], capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 1, closed
        assert b"raceback" not in done.stderr
        assert (b"does not exist" in done.stderr) == ("2>&-" not in closed)


@built
def test_closed_pipe_is_not_death() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run("--help", stdout=writer, stderr=subprocess.PIPE, capture_output=False)
    finally:
        os.close(writer)
    assert done.returncode >= 0


@built
def test_arguments_that_are_not_utf8() -> None:
    done = run("state", b"\xff\xfe")
    assert done.returncode == 1
    assert b"internal error" not in done.stderr


@elf
def test_inherited_descriptors_are_counted() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    try:
        done = run("create", f"--preserve-fds={reader - 2}", "--bundle=/nonexistent", "x", pass_fds=(reader,))
        assert b"/nonexistent" in done.stderr or reader > 3
        done = run("create", "--preserve-fds=500", "--bundle=/nonexistent", "x")
        assert b"not open" in done.stderr
    finally:
        os.close(reader)
        os.close(writer)


@elf
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_set_user_id_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "ociruntime"
    shutil.copy(LAUNCHER, copy)
    os.chown(copy, 65534, 65534)
    copy.chmod(0o4755)
    if os.statvfs(copy).f_flag & os.ST_NOSUID:
        pytest.skip("mounted nosuid")
    done = subprocess.run([copy, "--version"], capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert b"set-user-ID" in done.stderr


@elf
def test_few_shared_libraries() -> None:
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("binutils is not installed")
    done = subprocess.run([readelf, "-d", LAUNCHER], capture_output=True, text=True, check=True)
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", done.stdout))
    assert needed <= {"libc.so.6", "libm.so.6"} or any("libpython" in name for name in needed)
    assert "BIND_NOW" in done.stdout


def test_script_does_the_same(tmp_path: Path) -> None:
    """Where nothing can be linked."""
    script = tmp_path / "ociruntime"
    command = [sys.executable, CHECKOUT / "cffi_build" / "embed.py", "--script", "--output", script]
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=60, check=True)
    done = subprocess.run([script, "state", "absent"], env={}, cwd="/", capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert b"does not exist" in done.stderr


# ---- freeze.py ----

SOURCE = '''"""Docstring of the module."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
else:
    other = 1


class Plain:
    """Docstring of the class."""

    __slots__ = ("a",)
    a: int
    b: int = 2

    def method(self, x: "Any", *rest: int, key: str = "k", **more: int) -> "Any":
        """Docstring of the method."""
        y: int = 1
        assert x
        return x + y


def deep() -> int:
    return 1 // 0
'''


def frozen(source: str) -> "dict[str, object]":
    """The namespace of a frozen module."""
    code = marshal.loads(freeze.compile_module(source, "ociruntime/example.py"))
    assert isinstance(code, types.CodeType)
    namespace: dict[str, object] = {"__name__": "example"}
    exec(code, namespace)
    return namespace


def test_stripped() -> None:
    namespace = frozen(SOURCE)
    plain: object = namespace["Plain"]
    assert namespace["__doc__"] is None if "__doc__" in namespace else True
    assert namespace["other"] == 1
    assert "Any" not in namespace
    assert "__annotations__" not in vars(plain)
    assert vars(plain)["method"].__annotations__ == {}
    assert vars(plain)["method"].__doc__ is None
    assert vars(plain)["b"] == 2
    assert plain().method(3) == 4  # type: ignore[operator]
    assert plain().method(0) == 1  # type: ignore[operator]


def test_line_numbers_stay() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        frozen(SOURCE)["deep"]()  # type: ignore[operator]
    last = caught.traceback[-1]
    assert str(last.frame.code.raw.co_filename) == "ociruntime/example.py"
    assert SOURCE.splitlines()[last.lineno] == "    return 1 // 0"


def test_annotations_that_mean_something_stay() -> None:
    source = "import typing\nclass Row(typing.NamedTuple):\n    name: str\n    size: int = 0\n"
    assert frozen(source)["Row"]("a") == ("a", 0)  # type: ignore[operator]


def test_all_modules_freeze(tmp_path: Path) -> None:
    count = freeze.freeze(CHECKOUT / "ociruntime", tmp_path)
    assert count == len(list((CHECKOUT / "ociruntime").rglob("*.py")))
    table = (tmp_path / "frozen_table.c").read_text()
    assert re.search(r'\{"ociruntime\.mounts", ociruntime_frozen_code \+ \d+, \d+, 1, NULL\}', table)
    assert re.search(r'\{"ociruntime\.cli\.main", ociruntime_frozen_code \+ \d+, \d+, 0, NULL\}', table)


def test_libraries_freeze_with_what_they_need(tmp_path: Path) -> None:
    found = {name: path for name, _, path in freeze.libraries()}
    assert {"jeepney.low_level", "enum", "struct"} <= set(found)
    code = marshal.loads(freeze.compile_library(found["jeepney.low_level"].read_text(), "low_level.py"))
    assert "typing" not in code.co_names
    count = freeze.freeze(CHECKOUT / "ociruntime", tmp_path, freeze.libraries())
    assert count == len(list((CHECKOUT / "ociruntime").rglob("*.py"))) + len(found)


def test_what_means_something_to_others_stays() -> None:
    source = """
from typing import Optional, NamedTuple
class Row(NamedTuple):
    size: int
def checked(size: Optional[int]) -> Row:
    "documented"
    assert size
    return Row(size)
"""
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(marshal.loads(freeze.compile_library(source, "example.py")), namespace)
    assert namespace["checked"](5) == (5,)
    assert namespace["checked"].__doc__ == "documented"
    with pytest.raises(AssertionError):
        namespace["checked"](0)


@elf
@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has no systemd driver on cgroup v1")
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("extra", ["", ",guid=00"])
def test_the_bus_needs_no_standard_library(tmp_path: Path, extra: str) -> None:
    """A container command with the systemd driver stays in the executable, whatever the form of the address."""
    bundle = tmp_path / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    process = {"cwd": "/", "args": ["true"]}
    (bundle / "config.json").write_text(
        json.dumps({"ociVersion": "1.2.0", "root": {"path": "rootfs"}, "process": process})
    )
    bus = FakeBus(tmp_path / "bus")
    bus.answers["GetConnectionUnixProcessID"] = lambda _: ("u", (1,))
    try:
        done = subprocess.run(
            ["strace", "-f", "-o", tmp_path / "trace", "-e", "trace=open,openat", LAUNCHER, "--systemd-cgroup"]
            + ["--root", tmp_path / "state", "create", "--bundle", bundle, "frozen"],
            env={"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={bus.path}{extra}"},
            capture_output=True,
            timeout=60,
            check=False,
        )
    finally:
        bus.close()
    if b"a mounted cgroup file system" in done.stderr:
        pytest.skip("no cgroups are mounted here")
    assert b"another PID namespace" in done.stderr
    opened = re.findall(r'"([^"]+)".* = \d+$', (tmp_path / "trace").read_text(), re.MULTILINE)
    assert [path for path in opened if "/python3" in path and not path.endswith(".so")] == []


def test_frozen_source_is_what_is_in_the_tree() -> None:
    """`if TYPE_CHECKING` is the only construct that is cut; nothing else may change its meaning."""
    for _, _, path in freeze.modules(CHECKOUT / "ociruntime"):
        tree = ast.parse(path.read_text())
        functions = sum(isinstance(node, ast.FunctionDef) for node in ast.walk(tree))
        left = freeze.Strip().visit(tree)
        assert sum(isinstance(node, ast.FunctionDef) for node in ast.walk(left)) == functions, path
