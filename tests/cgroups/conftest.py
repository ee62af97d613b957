"""Fixtures of the tests on fake trees."""

import pytest

from ociruntime.cgroups import files


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> "list[float]":
    """Nothing waits here; the pauses asked for are listed."""
    pauses: list[float] = []
    monkeypatch.setattr(files, "sleep", pauses.append)
    monkeypatch.setattr("ociruntime.cgroups.v1.sleep", pauses.append)
    monkeypatch.setattr("ociruntime.cgroups.v2.sleep", pauses.append)
    return pauses
