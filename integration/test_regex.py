"""kill --regex and delete --regex: one command for several containers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from integration.lib.container import Container
from integration.lib.leaks import Leaks

pytestmark = pytest.mark.ours_only("K6, K7: runc has no --regex; crun's matches parts of an ID, too")


def test_kill_and_delete(new_container: Callable[..., Container], leaks: Leaks) -> None:
    """Only containers whose whole ID matches are meant; a failure does not spare the others [K6, K7]."""
    containers = [new_container() for _ in range(3)]
    for container in containers:
        container.begin("pause")
    first, second, third = containers
    runtime = first.runtime
    pattern = f"({first.id}|{second.id})"
    refused = runtime("delete", "--regex", pattern)
    assert refused.code == 1
    assert f"'{first.id}'" in refused.error and f"'{second.id}'" in refused.error
    runtime("kill", "--regex", pattern, "KILL").ok()
    for container in (first, second):
        container.wait()
    runtime("delete", "--regex", pattern).ok()
    for container in (first, second):
        assert "does not exist" in runtime("state", container.id).error
    third.command("state").ok()
    runtime("delete", "--force", "--regex", third.id[:-1]).ok()  # a part of an ID is not the ID
    third.command("state").ok()
    runtime("delete", "--force", "--regex", third.id).ok()
    for container in containers:
        container.reap()
    leaks.check()


def test_no_match_and_no_expression(container: Container) -> None:
    """Nobody matches: nothing to do. What is no regular expression is a usage error."""
    container.runtime("delete", "--regex", "no-such-.*").ok()
    wrong = container.runtime("kill", "--regex", "(", "KILL")
    assert wrong.code == 1
    assert "not a regular expression" in wrong.error
