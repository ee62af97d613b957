"""Calls on cgroup directories."""

import os

import pytest

from ociruntime.cgroups import files


@pytest.mark.skipif(not os.path.exists("/proc/kallsyms"), reason="no /proc/kallsyms")
def test_files_of_more_than_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel gives them in parts, each a few bytes short of a page: 700 processes are more than one part."""
    monkeypatch.setattr(files, "_MAX_FILE", 200000)
    with open("/proc/kallsyms", "rb") as file:
        whole = file.read(200000)
    assert files.read("/proc/kallsyms")[:200000] == whole
