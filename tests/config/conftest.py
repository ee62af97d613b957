"""The fast validator is a build product: make it here if the build has not, or if the schema is newer."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GENERATOR = ROOT / "spec" / "generate_validator.py"
GENERATED = ROOT / "ociruntime" / "config" / "_generated.py"


def _build() -> None:
    sources = [GENERATOR, *(ROOT / "spec").glob("*.schema.json")]
    products = [GENERATED, GENERATED.with_name("_schema.py")]
    newest = max(path.stat().st_mtime for path in sources)
    if all(path.exists() and path.stat().st_mtime >= newest for path in products):
        return
    subprocess.run([sys.executable, str(GENERATOR), str(GENERATED)], check=True)


_build()


@pytest.fixture(scope="session")
def root() -> Path:
    """Top of the source tree."""
    return ROOT


@pytest.fixture
def data(root: Path) -> Path:
    """Directory of the sample files."""
    return root / "tests" / "data"
