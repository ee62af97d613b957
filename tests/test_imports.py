"""The map of the house: imports point down, and a command loads what it needs and nothing else."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "ociruntime"

# Floor of each room: the module, or the package, directly below ociruntime. Rooms on floor 3 do not know each other.
FLOORS = {
    "cli": 5,
    "__main__": 6,
    "lifecycle": 4,
    "capabilities": 2,
    "cgroups": 3,
    "features": 3,
    "hooks": 3,
    "install": 3,
    "intel_rdt": 3,
    "listen_fds": 3,
    "mounts": 3,
    "namespaces": 3,
    "network": 3,
    "notify_socket": 3,
    "process": 3,
    "scheduling": 3,
    "seccomp": 3,
    "sysctl": 3,
    "config": 2,
    "host": 2,
    "plan": 2,
    "shim": 2,
    "signals": 2,
    "state": 2,
    "errors": 1,
    "files": 1,
    "fullpython": 1,
    "jsontext": 1,
    "log": 1,
    # the package itself: __init__.py loads rooms on first use
    "": 1,
}
# Facts of one floor-3 room that another may ask for, and why.
ALLOWED = {
    ("features", "mounts"): "the table of mount options is what it lists",
    ("features", "seccomp"): "the tables of seccomp words are what it lists",
    ("features", "hooks"): "the kinds of hooks are what it lists",
    ("features", "scheduling"): "the words of memory policies are what it lists",
    ("features", "process"): "the tables of the process section are what it lists",
}


def sources() -> "list[Path]":
    """Every module that is written by hand."""
    return [
        path for path in sorted(PACKAGE.rglob("*.py")) if path.name not in ("_generated.py", "_schema.py", "_build.py")
    ]


def room(module: str) -> str:
    """ociruntime.mounts.lower -> mounts"""
    return ([*module.split("."), ""])[1]


def imported(tree: ast.AST, *, for_types: bool = False) -> "set[str]":
    """Names of ociruntime modules that a module imports when it runs, in functions too."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for statement in node.orelse:
                found |= imported(statement)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "ociruntime" else {module}
        else:
            found |= imported(node)
    return {name for name in found if name.split(".")[0] == "ociruntime"}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")
    if own == "ociruntime":
        return
    own_room = room(own)
    for name in imported(ast.parse(path.read_text())):
        other = room(name)
        if other == own_room or (own_room, other) in ALLOWED:
            continue
        if name == "ociruntime.__version__":
            other = ""
        assert other in FLOORS, f"{name}: no such room"
        above, below = FLOORS[own_room], FLOORS[other]
        fine = above > below or (above == below and above < 3)
        assert fine, f"{own_room} (floor {above}) imports {other} (floor {below})"


def test_every_room_has_a_floor() -> None:
    rooms = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    assert rooms - {"__init__", "__pycache__", "_build"} <= set(FLOORS)


def test_the_map_names_every_file() -> None:
    names = set(re.findall(r"`([a-z0-9_]+\.py|[a-z]+/)`", (PACKAGE / "README.md").read_text()))
    files = {path.name for path in sources() if path.parent.name != "commands"} - {"__init__.py"}
    assert not files - names
    assert {f"{path.parent.name}/" for path in sources() if path.parent != PACKAGE} <= names


def test_only_shim_imports_the_compiled_module() -> None:
    for path in sources():
        if "_native" in path.read_text() and path.parent.name != "shim":
            names = imported(ast.parse(path.read_text()))
            assert "ociruntime.shim._native" not in names, path


# What must not be loaded on the way of an ordinary command: each costs milliseconds.
UNWELCOME = (
    "argparse", "collections.abc", "contextlib", "dataclasses", "enum", "functools", "hashlib", "importlib", "json",
    "jeepney", "json.decoder", "jsonschema", "logging", "os", "pathlib", "pyroute2", "re", "seccomp", "socket",
    "struct", "subprocess", "threading", "traceback", "typing",
)  # fmt: skip

HOT_MODULES = {
    "create": "ociruntime.lifecycle.create",
    "delete": "ociruntime.lifecycle.delete",
    "kill": "ociruntime.lifecycle.kill",
    "list": "ociruntime.lifecycle.listing",
    "run": "ociruntime.lifecycle.run",
    "start": "ociruntime.lifecycle.start",
    "state": "ociruntime.lifecycle.runtime",
}

PROBE = """
import sys
before = set(sys.modules)
sys.path.insert(0, {checkout!r})
sys.path.append({backend!r})
import ociruntime.cli.main
import ociruntime.cli.commands.{verb}
import {module}
sys.stdout.write(" ".join(sorted(set(sys.modules) - before)))
"""


@pytest.mark.parametrize("verb", sorted(HOT_MODULES))
def test_import_budget(verb: str) -> None:
    """sys.modules of each command, as far as its modules import at their top."""
    import _cffi_backend

    probe = PROBE.format(
        checkout=str(CHECKOUT), backend=str(Path(_cffi_backend.__file__).parent), verb=verb, module=HOT_MODULES[verb]
    )
    command = [sys.executable, "-I", "-S", "-B", "-c", probe]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    loaded = done.stdout.split()
    assert not set(loaded) & set(UNWELCOME)
    foreign = {name for name in loaded if not name.startswith("ociruntime")}
    assert foreign <= {*sys.builtin_module_names, "_json", "_cffi_backend"}
