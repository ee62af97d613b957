"""Freeze the package: its modules as marshalled code inside the launcher.

What only readers and checkers of the code need is left out: docstrings, assertions, annotations and
`if TYPE_CHECKING:` blocks. Line numbers stay, so a traceback still points into the source.

Writes three files into a directory: frozen.bin (the code, one module after the other), frozen.S (which takes it into
an object file) and frozen_table.c (the array that PyImport_FrozenModules is set to).
"""

import ast
import importlib.util
import json
import marshal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
Module = tuple[str, bool, Path]

# Packages that a container command may need: with them, and what of the standard library they need, frozen as well, it
# does without the rest of the interpreter and without searching the file system.
LIBRARIES = ("jeepney",)
_LIST = """
import sys
sys.path += sys.argv[1:2]
before = set(sys.modules)
__import__(sys.argv[2])
import json
specs = [(name, getattr(sys.modules[name], "__spec__", None)) for name in sorted(set(sys.modules) - before)]
print(json.dumps([
    (name, spec.submodule_search_locations is not None, spec.origin)
    for name, spec in specs
    if spec is not None and not name.startswith("json") and str(spec.origin).endswith(".py")
]))
"""


class Strip(ast.NodeTransformer):
    """Take annotations and `if TYPE_CHECKING:` away. Classes whose annotations mean something keep them."""

    def visit_If(self, node: ast.If) -> "ast.AST | list[ast.stmt]":
        """`if TYPE_CHECKING:` becomes its else branch."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [statement for old in node.orelse for statement in _as_list(self.visit(old))] or ast.copy_location(
                ast.Pass(), node
            )
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """NamedTuple, TypedDict and decorated classes (dataclasses) read their annotations."""
        plain = not node.decorator_list and not any(
            getattr(base, "id", getattr(base, "attr", "")) in ("NamedTuple", "TypedDict", "Protocol", "Structure")
            for base in node.bases
        )
        if plain:
            return self.generic_visit(node)
        for statement in node.body:
            if isinstance(statement, Function):
                self.visit(statement)
        return node

    def _function(self, node: Function) -> ast.AST:
        node.returns = None
        arguments = node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            argument.annotation = None
        for star in (arguments.vararg, arguments.kwarg):
            if star is not None:
                star.annotation = None
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Arguments and result lose their annotations."""
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        """As visit_FunctionDef."""
        return self._function(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """`name: type = value` becomes `name = value`; without a value nothing is left."""
        self.generic_visit(node)
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)


def _as_list(node: "ast.AST | list[ast.stmt]") -> "list[ast.stmt]":
    return node if isinstance(node, list) else [node]  # type: ignore[list-item]


def compile_module(source: str, filename: str) -> bytes:
    """Source text -> marshalled code. filename: what tracebacks show."""
    tree = ast.fix_missing_locations(Strip().visit(ast.parse(source, filename)))
    return marshal.dumps(compile(tree, filename, "exec", optimize=2, dont_inherit=True))


def compile_library(source: str, filename: str) -> bytes:
    """As compile_module, for code of others: assertions and docstrings mean something there.

    Without annotations most do not need typing, which takes longer to import than all the rest.
    """
    tree = ast.parse(source, filename)
    if any(_is_typing(node) for node in tree.body):
        tree = ast.fix_missing_locations(Strip().visit(tree))
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        tree.body = [
            node
            for node in tree.body
            if not (_is_typing(node) and used.isdisjoint(name.asname or name.name for name in node.names))
        ]
    return marshal.dumps(compile(tree, filename, "exec", optimize=0, dont_inherit=True))


def _is_typing(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "typing"


def libraries() -> "list[Module]":
    """Every module in Python that importing LIBRARIES brings; none of a library that is not installed."""
    found: dict[str, Module] = {}
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        place = str(Path(spec.origin).parent.parent)
        command = [sys.executable, "-I", "-S", "-c", _LIST, place, name]
        listed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        found.update({name: (name, is_package, Path(origin)) for name, is_package, origin in listed})
    return list(found.values())


def modules(package: Path) -> "list[Module]":
    """Every module below a package directory: (dotted name, is it a package, file)."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        found.append((".".join(parts[:-1] if is_package else parts), is_package, path))
    return found


def freeze(package: Path, output: Path, others: "Sequence[Module]" = ()) -> int:
    """Write the three files; returns how many modules are in them. others: see libraries()."""
    output.mkdir(parents=True, exist_ok=True)
    blob = bytearray()
    rows: list[str] = []
    own = modules(package)
    for name, is_package, path in (*own, *others):
        source = path.read_text(encoding="utf-8")
        if len(rows) < len(own):
            code = compile_module(source, str(path.relative_to(package.parent)))
        else:
            code = compile_library(source, str(path))
        rows.append(f'    {{"{name}", ociruntime_frozen_code + {len(blob)}, {len(code)}, {int(is_package)}, NULL}},\n')
        blob += code
        blob += bytes(-len(blob) % 16)
    (output / "frozen.bin").write_bytes(blob)
    (output / "frozen.S").write_text(
        "    .section .rodata\n    .balign 16\n    .globl ociruntime_frozen_code\nociruntime_frozen_code:\n"
        f'    .incbin "{output / "frozen.bin"}"\n    .section .note.GNU-stack,"",%progbits\n'
    )
    (output / "frozen_table.c").write_text(
        "#include <Python.h>\n\nextern const unsigned char ociruntime_frozen_code[];\n"
        "extern const struct _frozen ociruntime_frozen[];\n\n"
        "const struct _frozen ociruntime_frozen[] = {\n" + "".join(rows) + "    {NULL, NULL, 0, 0, NULL},\n};\n"
    )
    return len(rows)


if __name__ == "__main__":
    print(freeze(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()), "modules")
