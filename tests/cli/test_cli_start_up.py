"""What a hot command loads: builtin modules, its own command, and nothing that costs milliseconds (STYLE: start-up)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = str(Path(__file__).parents[2])
PROBE = """
import sys
from types import ModuleType
fake = ModuleType("ociruntime.lifecycle.runtime")
class Runtime:
    def __init__(self, *a, **k): pass
    def __getattr__(self, name): return lambda *a, **k: {} if name == "state" else 0
fake.Runtime = Runtime
sys.modules["ociruntime.lifecycle.runtime"] = fake
before = set(sys.modules)
from ociruntime.cli.main import main
status = main(sys.argv[1:])
loaded = sorted(set(sys.modules) - before)
sys.stderr.write(repr(loaded))
sys.exit(status)
"""
OWN = {"cli", "cli.commands", "cli.context", "cli.main", "cli.parser", "cli.table", "errors", "files", "log"}
EXTRA = {
    "create": {"cli.commands.create"},
    "start": {"cli.commands.start"},
    "delete": {"cli.commands.delete"},
    "kill": {"cli.commands.kill", "signals"},
    "run": {"cli.commands.run", "cli.commands.create"},
    "state": {"cli.commands.state", "jsontext"},
}


@pytest.mark.parametrize("verb", EXTRA)
def test_modules_of_a_command(verb: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {CHECKOUT!r})\n{PROBE}",
            "--root=/r",
            verb,
            "x",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    loaded = set(json.loads(done.stderr.replace("'", '"')))
    own = {name.removeprefix("ociruntime.") for name in loaded if name.startswith("ociruntime.")}
    assert own == OWN | EXTRA[verb]
    foreign = {name for name in loaded if not name.startswith("ociruntime")}
    assert foreign <= set(sys.builtin_module_names)
