"""install --for podman: podman reads the drop-in and knows what the runtime can do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.engines.engines import Podman
from integration.engines.image import IMAGE
from integration.lib.runtime import Result

pytestmark = pytest.mark.ours_only("install is a command of ours")
DROPIN = "/etc/containers/containers.conf.d/ociruntime.conf"


@pytest.fixture
def installed(podman: Podman) -> Iterator[Podman]:
    """The drop-in is in the sandbox's /etc/containers, and is taken out again."""
    words = [podman.runtime, "install", "--for", "podman"]
    assert f"wrote '{DROPIN}'" in podman.sandbox.run([*words, "--default"]).ok().text
    yield podman
    assert f"removed '{DROPIN}'" in podman.sandbox.run([*words, "--remove"]).ok().text
    assert podman.sandbox.run(["cat", DROPIN]).code == 1


def plain(podman: Podman, *words: str) -> Result:
    """podman without our containers.conf, and without --runtime."""
    base = podman.base[: podman.base.index("--runtime")]
    return podman.sandbox.run([*base, *words])


def test_default(installed: Podman) -> None:
    """podman takes the runtime by its name, with the path of the file."""
    found = plain(installed, "info", "--format", "json").ok().json["host"]["ociRuntime"]
    assert (found["name"], found["path"]) == ("ociruntime", installed.runtime)
    assert "ociruntime" in found["version"]
    limits = [] if "pids" in installed.sandbox.controllers else ["--pids-limit", "0"]
    result = plain(installed, "run", "--rm", "--network", "none", *limits, IMAGE, "echo", "hi")
    assert result.ok().text == "hi\n"


def test_what_it_can_do(installed: Podman) -> None:
    """Errors come by the JSON log, and containers without cgroups are allowed."""
    words = ["run", "--rm", "--network", "none", "--cgroups", "disabled", IMAGE]
    assert plain(installed, *words, "echo", "hi").ok().text == "hi\n"
    result = plain(installed, *words, "nosuch")
    assert result.code == 127 and "/process/args/0: 'nosuch'" in result.error
