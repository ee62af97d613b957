from collections.abc import Iterator
from pathlib import Path

import pytest

from ociruntime.state.store import StateRoot


@pytest.fixture
def root(tmp_path: Path) -> Iterator[StateRoot]:
    path = tmp_path / "root"
    path.mkdir(mode=0o700)
    yield StateRoot(str(path))
