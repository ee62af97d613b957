"""Each command: what it asks of the library, what it prints."""

import json
import os
import posix
import stat
from pathlib import Path
from typing import Any

import pytest

from ociruntime.cli import main as cli_main
from ociruntime.cli.commands.list import table
from ociruntime.cli.main import main
from ociruntime.errors import UnsupportedError

Fake = Any  # conftest.FakeRuntime
Capture = pytest.CaptureFixture[str]

NOTHING = {
    "pid_file": None,
    "preserve_fds": 0,
    "no_pivot": False,
    "no_new_keyring": False,
    "console_socket": None,
    "pidfd_socket": None,
    "config_file": None,
    "listen_fds": 0,
    "listen_names": "",
    "notify_socket": "",
    "interruptible": True,
    "final": True,
}


def test_create(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--root", "state", "create", "web"]) == 0
    assert fake.calls == [
        ("init", f"{tmp_path}/state", {"rootless": "auto", "cgroup_manager": "cgroupfs"}),
        ("create", str(tmp_path), "web", NOTHING),
    ]
    fake.calls.clear()
    words = "create --bundle b/./c --pid-file p --console-socket s --pidfd-socket /q --no-pivot --no-new-keyring -d web"
    assert main(["--root=/r", "--rootless=true", "--systemd-cgroup", *words.split()]) == 0
    given = {
        "pid_file": f"{tmp_path}/p",
        "no_pivot": True,
        "no_new_keyring": True,
        "console_socket": "s",
        "pidfd_socket": "/q",
    }
    assert fake.calls == [
        ("init", "/r", {"rootless": True, "cgroup_manager": "systemd"}),
        ("create", f"{tmp_path}/b/c", "web", NOTHING | given),
    ]
    assert capfd.readouterr() == ("", "")


def test_create_config_file(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--root=/r", "create", "-f", "other.json", "-b", "/b", "web"]) == 0
    assert fake.calls[1] == ("create", "/b", "web", NOTHING | {"config_file": f"{tmp_path}/other.json"})


def test_what_a_service_manager_passes(fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment = {b"LISTEN_FDS": b"1", b"LISTEN_PID": b"%d" % os.getpid(), b"LISTEN_FDNAMES": b"web"}
    monkeypatch.setattr(posix, "environ", {**environment, b"NOTIFY_SOCKET": b"/n"})
    monkeypatch.setattr(cli_main, "_missing_fd", lambda count: 4 if count > 1 else -1)
    assert main(["--root=/r", "create", "-b", "/b", "web"]) == 0
    given = {"listen_fds": 1, "listen_names": "web", "notify_socket": "/n"}
    assert fake.calls[1] == ("create", "/b", "web", NOTHING | given)
    assert main(["--root=/r", "start", "web"]) == 0
    assert fake.calls[3] == ("start", "web", {"notify_socket": "/n"})
    fake.calls.clear()
    assert main(["--root=/r", f"--log={tmp_path}/1", "run", "-b", "/b", "--preserve-fds", "1", "web"]) == 1
    assert "--preserve-fds: file descriptor 4 " in (tmp_path / "1").read_text()
    monkeypatch.setitem(posix.environ, b"LISTEN_FDS", b"2")
    assert main(["--root=/r", f"--log={tmp_path}/2", "run", "-b", "/b", "web"]) == 1
    assert "LISTEN_FDS: file descriptor 4 " in (tmp_path / "2").read_text()
    assert fake.calls == []


def test_preserve_fds(fake: Fake) -> None:
    assert main(["--root=/r", "create", "--preserve-fds", "100000", "web"]) == 1
    assert fake.calls == []


def test_run_exits_with_the_programs_code(fake: Fake) -> None:
    fake.answers["run"] = 137
    assert main(["--root=/r", "run", "-b", "/b", "web"]) == 137
    assert fake.calls[1] == ("run", "/b", "web", NOTHING | {"detach": False, "keep": False, "no_subreaper": False})
    fake.answers["run"] = 0
    assert main(["--root=/r", "run", "-b", "/b", "-d", "--keep", "-no-subreaper", "web"]) == 0
    assert fake.calls[3][-1] == NOTHING | {"detach": True, "keep": True, "no_subreaper": True}


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (["start", "web"], ("start", "web", {"notify_socket": ""})),
        (["kill", "web"], ("kill", "web", 15, {"all": False})),
        (["kill", "--all", "web", "9"], ("kill", "web", 9, {"all": True})),
        (["kill", "web", "SIGUSR1", "-a"], ("kill", "web", 10, {"all": True})),
        (["kill", "web", "0"], ("kill", "web", 0, {"all": False})),
        (["delete", "web"], ("delete", "web", {"force": False})),
        (["delete", "--force", "web"], ("delete", "web", {"force": True})),
        (["delete", "web", "-f=true"], ("delete", "web", {"force": True})),
    ],
)
def test_simple_commands(words: list[str], call: tuple[object, ...], fake: Fake, capfd: Capture) -> None:
    assert main(["--root=/r", *words]) == 0
    assert fake.calls[1] == call
    assert capfd.readouterr() == ("", "")


def test_wait(fake: Fake, capfd: Capture) -> None:
    fake.answers["wait"] = 137
    assert main(["--root=/r", "wait", "web"]) == 0
    assert fake.calls[1] == ("wait", "web", {})
    assert capfd.readouterr() == ("137\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(fake: Fake, capfd: Capture, shell: str) -> None:
    assert main(["completion", shell]) == 0
    out, err = capfd.readouterr()
    assert f"{shell} completion for ociruntime" in out
    assert err == ""


def test_completion_of_an_unknown_shell(fake: Fake, capfd: Capture) -> None:
    assert main(["completion", "tcsh"]) == 1
    assert "not 'tcsh'" in capfd.readouterr().err


def test_kill_unknown_signal(fake: Fake, capfd: Capture) -> None:
    assert main(["--root=/r", "kill", "web", "NOPE"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("ociruntime: kill 'web': unknown signal 'NOPE'")
    assert fake.calls == []


def test_state(fake: Fake, capfd: Capture) -> None:
    fake.answers["state"] = {"ociVersion": "1.3.0", "id": "web", "pid": 0, "annotations": {"a": "ü"}}
    assert main(["--root=/r", "--criu", "/x", "state", "web"]) == 0
    out, err = capfd.readouterr()
    assert (
        out
        == '{\n  "ociVersion": "1.3.0",\n  "id": "web",\n  "pid": 0,\n  "annotations": {\n    "a": "\\u00fc"\n  }\n}\n'
    )
    assert err == ""


def test_criu_is_warned_about_where_it_meant_something(fake: Fake, capfd: Capture) -> None:
    assert main(["--root=/r", "--criu", "/x", "create", "web"]) == 0
    assert "--criu has no effect" in capfd.readouterr().err


ENTRIES: list[dict[str, object]] = [
    {"ociVersion": "1.3.0", "id": "a", "pid": 12345, "status": "running", "bundle": "/b/a", "rootfs": "/b/a/r",
     "created": "2026-01-01T00:00:00.5Z", "owner": "root"},
    {"ociVersion": "1.3.0", "id": "long-container-name", "pid": 0, "status": "stopped", "bundle": "/b",
     "rootfs": "/b/r", "created": "2026-01-02T00:00:00Z", "owner": "#77"},
]  # fmt: skip


def test_list(fake: Fake, tmp_path: Path, capfd: Capture) -> None:
    fake.answers["list"] = ENTRIES
    root = ["--root", str(tmp_path)]
    assert main([*root, "list", "--format=json"]) == 0
    out = capfd.readouterr().out
    assert json.loads(out) == ENTRIES
    assert out.count("\n") == 1
    assert main([*root, "list", "-q"]) == 0
    assert capfd.readouterr().out == "a\nlong-container-name\n"
    assert main([*root, "list"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert lines[2].split() == ["long-container-name", "0", "stopped", "/b", "2026-01-02T00:00:00Z", "#77"]
    assert len({line.index(column) for line, column in zip(lines, ("PID", "12345", "0  "), strict=True)}) == 1
    assert main([*root, "list", "--format", "yaml"]) == 1


def test_list_empty(fake: Fake, capfd: Capture) -> None:
    fake.answers["list"] = []
    assert main(["list"]) == 0
    assert capfd.readouterr().out == "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
    assert main(["list", "-f", "json"]) == 0
    assert capfd.readouterr().out == "[]\n"
    assert table([]).count("\n") == 1


def test_list_missing_root(fake: Fake, tmp_path: Path, capfd: Capture) -> None:
    """A default root may be missing, one that was asked for may not (row K9)."""
    assert main(["--root", str(tmp_path / "none"), "list"]) == 1
    assert "no such file or directory" in capfd.readouterr().err
    assert fake.calls == []


def test_features(capfd: Capture) -> None:
    assert main(["features"]) == 0
    assert json.loads(capfd.readouterr().out)["ociVersionMax"] == "1.3.0"


def test_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["spec"]) == 0
    path = tmp_path / "config.json"
    text = path.read_text()
    assert json.loads(text)["ociVersion"]
    assert text.endswith("}\n")
    assert text.startswith("{\n  ")
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600
    path.write_text("mine")
    assert main(["spec"]) == 1
    assert "'" + str(path) + "': not overwritten: file exists" in capfd.readouterr().err
    assert path.read_text() == "mine"
    (tmp_path / "b").mkdir()
    assert main(["spec", "--bundle", "b", "--rootless"]) == 0
    kinds = [entry["type"] for entry in json.loads((tmp_path / "b" / "config.json").read_text())["linux"]["namespaces"]]
    assert "user" in kinds
    assert "network" not in kinds
    assert main(["spec", "-b", "none"]) == 1
    assert main(["spec", "-f", "other.json"]) == 0
    assert (tmp_path / "other.json").exists()


def test_spec_does_not_follow_a_dangling_symlink(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to(tmp_path / "elsewhere")
    assert main(["spec", "-b", str(tmp_path)]) == 1
    assert not (tmp_path / "elsewhere").exists()


def test_error_of_the_library_passes_through(fake: Fake, capfd: Capture) -> None:
    fake.failure = UnsupportedError("process.terminal", "a later version", pointer="/process/terminal")
    assert main(["--root=/r", "create", "web"]) == 1
    assert "/process/terminal: process.terminal needs a later version" in capfd.readouterr().err
