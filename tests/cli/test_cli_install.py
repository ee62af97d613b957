"""install: its words, its output."""

import os
from pathlib import Path

import pytest

from ociruntime.cli.main import main

Capture = pytest.CaptureFixture[str]


def install(root: Path, *words: str) -> int:
    return main(["install", "--for", "docker", "--path", "/usr/bin/o", "--destdir", str(root), *words])


def test_diff(tmp_path: Path, capfd: Capture) -> None:
    assert install(tmp_path) == 0
    file = f"{tmp_path}/etc/docker/daemon.json"
    out = capfd.readouterr().out
    assert out.startswith(f"--- /dev/null\n+++ {file}\n@@ ")
    assert '+            "path": "/usr/bin/o"\n' in out
    assert f"docker: wrote '{file}'\nnext: systemctl reload docker\n" in out
    assert install(tmp_path) == 0
    assert capfd.readouterr().out == f"docker: nothing to do: '{file}' stays as it is\n"
    assert install(tmp_path, "--remove") == 0
    assert f"--- {file}\n+++ /dev/null\n" in capfd.readouterr().out
    assert not Path(file).exists()
    assert install(tmp_path, "--remove") == 0
    assert capfd.readouterr().out == f"docker: nothing to do: '{file}' is not there\n"


def test_dry_run(tmp_path: Path, capfd: Capture) -> None:
    assert install(tmp_path, "--dry-run") == 0
    assert f"docker: would write '{tmp_path}/etc/docker/daemon.json'\n" in capfd.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_no_newline_at_the_end(tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / "etc/docker/daemon.json").write_text("{}")
    assert install(tmp_path) == 0
    assert "-{}\n\\ no newline at the end\n+{\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--for is podman, containerd, docker or crio, and is missing"),
        (["--for", "lxc"], "not 'lxc'"),
        (["--for", "docker"], "--path is needed"),
        (["--for", "docker", "--path", "/x", "--name", "a b"], "'a b'"),
        (["--for", "containerd", "--path", "/x", "--default"], "RuntimeClass"),
        (["--for", "docker", "extra"], "takes no arguments"),
    ],
)
def test_usage(tmp_path: Path, capfd: Capture, words: "list[str]", said: str) -> None:
    assert main(["install", "--destdir", str(tmp_path), *words]) == 1
    assert said in capfd.readouterr().err


@pytest.mark.parametrize("path", ["/no/such", "/etc/passwd", "/etc"])
def test_path_that_cannot_be_run(capfd: Capture, path: str) -> None:
    assert main(["install", "--for", "docker", "--dry-run", "--path", path]) == 1
    assert path in capfd.readouterr().err


@pytest.mark.skipif(not os.path.exists("/bin/true"), reason="no /bin/true")
def test_needs_root(monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    monkeypatch.setattr("posix.geteuid", lambda: 1000)
    monkeypatch.setattr("ociruntime.install.places.Places.replace", lambda *_: pytest.fail("written"))
    assert main(["install", "--for", "crio", "--path", "/bin/true", "--name", "never-there"]) == 1
    assert "needs root" in capfd.readouterr().err
