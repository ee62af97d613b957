"""Runtime: what it is made with, and what the package offers."""

from typing import Any

import pytest

import ociruntime
from ociruntime.errors import UsageError


@pytest.mark.parametrize(
    ("root", "options", "said"),
    [
        ("state", {}, "'state'"),
        ("", {}, "''"),
        ("//", {}, "'//'"),
        ("/run/x", {"rootless": "yes"}, "'yes'"),
        ("/run/x", {"cgroup_manager": "none"}, "'none'"),
    ],
)
def test_refused(root: str, options: "dict[str, Any]", said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ociruntime.Runtime(root, **options)


@pytest.mark.parametrize("name", ociruntime.__all__)
def test_names_of_the_package(name: str) -> None:
    assert getattr(ociruntime, name) is getattr(ociruntime, name)


def test_no_other_name() -> None:
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = ociruntime.nothing
