"""install --for containerd: containerd itself shows what it makes of the file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from integration.engines.conftest import needs
from integration.lib.runtime import Runtime, run

CRI = "io.containerd.grpc.v1.cri"
MAIN = f"""# of the administrator
version = 2
[plugins."{CRI}".cni]
  bin_dir = "/usr/lib/cni"
[plugins."{CRI}".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."{CRI}".containerd.runtimes.runc.options]
    SystemdCgroup = true
"""


@pytest.mark.ours_only("install is a command of ours")
@pytest.mark.parametrize("text", ["", MAIN])
def test_config_dump(runtime: Runtime, tmp_path: Path, text: str) -> None:
    """The runtime is a runtime of pods, below the shim io.containerd.runc.v2; the other settings still count."""
    needs("containerd")
    file = tmp_path / "etc/containerd/config.toml"
    if text:
        file.parent.mkdir(parents=True)
        file.write_text(text)
    words = [runtime.path, "install", "--for", "containerd", "--destdir", str(tmp_path)]
    run(words).ok()
    plugin = tomllib.loads(run(["containerd", "--config", str(file), "config", "dump"]).ok().text)["plugins"][CRI]
    found = plugin["containerd"]["runtimes"]["ociruntime"]
    assert found["runtime_type"] == "io.containerd.runc.v2"
    wanted = {"BinaryName": runtime.path, **({"SystemdCgroup": True} if text else {})}
    assert found["options"] == wanted
    if text:
        assert plugin["cni"]["bin_dir"] == "/usr/lib/cni"
        assert "runc" in plugin["containerd"]["runtimes"]
    assert "nothing to do" in run(words).ok().text
    run([*words, "--remove"]).ok()
    assert not file.exists() if not text else file.read_text() == text
