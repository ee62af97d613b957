"""The command line as a whole: grammar, logs, help, version, features, spec."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import Give
from integration.lib.container import Container
from integration.lib.leaks import Leaks
from integration.lib.runtime import Runtime

SCHEMAS = Path(__file__).resolve().parent.parent / "spec"
COMMANDS = ("create", "start", "state", "kill", "delete", "run", "list", "spec", "features")


def schema(name: str) -> Any:
    """A schema of the project."""
    path = SCHEMAS / f"{name}.schema.json"
    if not path.exists():
        pytest.skip(f"no spec/{path.name}")
    return json.loads(path.read_text())


# -- grammar [G1] --


@pytest.mark.parametrize(
    "words",
    [
        ["--bundle", "{bundle}", "--pid-file", "{pid}", "{id}"],
        ["--bundle={bundle}", "--pid-file={pid}", "{id}"],
        ["-bundle", "{bundle}", "-pid-file", "{pid}", "{id}"],
        ["-bundle={bundle}", "-pid-file={pid}", "{id}"],
        ["-b", "{bundle}", "--pid-file", "{pid}", "{id}"],
        ["--no-new-keyring", "--bundle", "{bundle}", "--pid-file", "{pid}", "{id}"],
        ["-no-new-keyring", "--bundle", "{bundle}", "--pid-file", "{pid}", "{id}"],
        ["--no-new-keyring=false", "--bundle", "{bundle}", "--pid-file", "{pid}", "{id}"],
    ],
)
def test_forms_of_flags(container: Container, words: list[str]) -> None:
    """Long flags with one or two dashes, values after a blank or =, booleans with a value [G1]."""
    container.bundle.write()
    container.used = True
    values = {"bundle": container.bundle.path, "pid": container.pid_file, "id": container.id}
    container.runtime("create", *(word.format(**values) for word in words)).ok()
    container.pid = int(container.pid_file.read_text())
    assert container.state()["status"] == "created"


@pytest.mark.ours_only("G1: flags may follow the ID")
def test_flags_after_the_id(container: Container) -> None:
    """Flags after the ID count [G1]."""
    container.bundle.write()
    container.used = True
    container.runtime("create", container.id, "--bundle", str(container.bundle.path)).ok()
    container.runtime("delete", container.id, "--force").ok()


@pytest.mark.parametrize("word", ["--root", "-root"])
def test_root_with_one_dash(runtime: Runtime, word: str) -> None:
    """Global flags have the same forms [G1]."""
    runtime.bare(word, str(runtime.root), "list").ok()
    runtime.bare(f"{word}={runtime.root}", "list").ok()


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_flag(runtime: Runtime, command: str) -> None:
    """An unknown flag: usage on stdout, the error on stderr, exit 1 [G10]."""
    result = runtime(command, "--no-such-flag", "x")
    assert result.code != 0
    assert "no-such-flag" in result.error + result.text
    if runtime.ours:
        assert result.code == 1
        assert command in result.text
        assert "no-such-flag" in result.error


@pytest.mark.parametrize("command", ["create", "start", "state", "kill", "delete", "run"])
def test_missing_id(runtime: Runtime, command: str) -> None:
    """Without an ID: a usage error [G10]."""
    result = runtime(command)
    assert result.code != 0
    if runtime.ours:
        assert result.code == 1
        assert command in result.text


@pytest.mark.parametrize("command", ["start", "state", "delete", "list", "features"])
def test_too_many_words(runtime: Runtime, command: str) -> None:
    """Words too many are a usage error, not silently dropped [G10]."""
    result = runtime(command, "a", "b", "c")
    assert result.code != 0
    if runtime.ours:
        assert result.code == 1


def test_unknown_command(runtime: Runtime) -> None:
    """An unknown command fails [G10]."""
    assert runtime("frobnicate").code != 0
    assert runtime("frobnicate", "--help").code != 0 or not runtime.ours


def test_no_command(runtime: Runtime) -> None:
    """No command at all: help, exit 0 [G10]."""
    result = runtime.bare()
    assert result.code == 0
    assert "create" in result.text


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(runtime: Runtime, flag: str) -> None:
    """--help lists the commands [G9]."""
    result = runtime.bare(flag).ok()
    for command in ("create", "start", "state", "kill", "delete"):
        assert command in result.text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(runtime: Runtime, command: str) -> None:
    """Every command explains itself, without root or a container [G9]."""
    result = runtime.bare(command, "--help").ok()
    assert command in result.text
    assert result.err == b""


def test_help_names_all_flags(runtime: Runtime) -> None:
    """create --help names every flag of the row [K1, G9]."""
    text = runtime.bare("create", "--help").ok().text
    for flag in ("bundle", "console-socket", "pid-file", "no-pivot", "no-new-keyring", "preserve-fds"):
        assert flag in text
    if runtime.ours:
        for flag in ("pidfd-socket", "config"):
            assert flag in text


# -- version [G9] --


@pytest.mark.parametrize("flag", ["--version", "-v"])
def test_version(runtime: Runtime, flag: str) -> None:
    """NAME version X, then commit and spec, one per line; no other line holds the word version [G9]."""
    lines = runtime.bare(flag).ok().text.splitlines()
    assert re.fullmatch(r"\S+ version \S+.*", lines[0])
    assert any(line.startswith("commit: ") for line in lines)
    assert any(re.fullmatch(r"spec: 1\.\d+\.\d+(-dev)?", line) for line in lines)
    assert not [line for line in lines[1:] if "version" in line]
    if runtime.ours:
        assert lines[0].startswith("ociruntime version ")
        assert "spec: 1.3.0" in lines


# -- root [G2] --


def test_root_is_made(runtime: Runtime, container: Container, tmp_path: Path) -> None:
    """create makes a missing state root [G2]."""
    container.runtime = runtime.elsewhere(tmp_path / "new" / "root")
    container.create()
    assert (tmp_path / "new" / "root" / container.id).is_dir()
    if runtime.ours:
        assert (tmp_path / "new" / "root").stat().st_mode & 0o777 == 0o700
    container.delete("--force")


def test_relative_root(runtime: Runtime, container: Container, tmp_path: Path) -> None:
    """A relative root counts from the caller's directory, at create and later [G2]."""
    container.bundle.write()
    words = ["create", "--bundle", str(container.bundle.path), "--pid-file", str(container.pid_file), container.id]
    runtime.bare("--root", "state-root", *words, cwd=tmp_path).ok()
    container.pid = int(container.pid_file.read_text())
    assert runtime.bare("--root", str(tmp_path / "state-root"), "state", container.id).ok().json["pid"] == container.pid
    runtime.bare("--root", "state-root", "delete", "--force", container.id, cwd=tmp_path).ok()


@pytest.mark.ours_only("G2: a root of / is refused")
def test_root_slash(runtime: Runtime) -> None:
    """The file system's root is not a state root [G2]."""
    assert runtime.bare("--root", "/", "list").code != 0
    assert runtime.bare("--root", "/tmp/..", "list").code != 0


def test_roots_are_separate(runtime: Runtime, container: Container, tmp_path: Path) -> None:
    """A container is known only in its root [G2]."""
    (tmp_path / "other").mkdir()
    container.create()
    other = runtime.elsewhere(tmp_path / "other")
    assert other("state", container.id).code != 0


# -- log [G3, G4, G5] --


@pytest.mark.parametrize("form", ["text", "json"])
def test_log_file(container: Container, tmp_path: Path, form: str) -> None:
    """A failure goes to the log, in the chosen format, and as one plain line to stderr [G3, G4]."""
    log = tmp_path / "log"
    result = container.runtime("state", "nosuch", options=["--log", str(log), "--log-format", form])
    assert result.code != 0
    lines = log.read_text().splitlines()
    assert lines
    if form == "json":
        records = [json.loads(line) for line in lines]
        assert {"level", "msg", "time"} <= set(records[-1])
        assert records[-1]["level"] == "error"
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", records[-1]["time"])
        if container.runtime.ours:
            assert len(records) == 1
            assert "does not exist" in records[-1]["msg"]
    if container.runtime.ours:
        assert "does not exist" in result.error
        assert result.error.count("\n") == 1


def test_log_is_appended(runtime: Runtime, tmp_path: Path, give: Give) -> None:
    """The log is appended to [G3]."""
    log = tmp_path / "log"
    log.write_text("before\n")
    give(log)
    for _ in range(2):
        runtime("state", "nosuch", options=["--log", str(log), "--log-format", "json"])
    lines = log.read_text().splitlines()
    assert lines[0] == "before"
    assert len(lines) >= 3


def test_quiet_success(container: Container, tmp_path: Path) -> None:
    """At the default level a successful life writes nothing to the log that an engine would take for an error [G4]."""
    log = tmp_path / "log"
    options = ["--log", str(log), "--log-format", "json"]
    container.create(options=options)
    container.command("start", options=options).ok()
    container.wait()
    container.command("delete", options=options).ok()
    records = [json.loads(line) for line in (log.read_text() if log.exists() else "").splitlines()]
    assert not [record for record in records if record["level"] == "error"]


def test_unknown_log_format(runtime: Runtime) -> None:
    """Only text and json [G4]."""
    assert runtime("list", options=["--log-format", "xml"]).code != 0


def test_debug(container: Container, tmp_path: Path) -> None:
    """--debug adds debug lines, and init's too [G5]."""
    log = tmp_path / "log"
    container.create(options=["--debug", "--log", str(log), "--log-format", "json"])
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert records
    if container.runtime.name != "crun":
        assert any(record["level"] == "debug" for record in records)


@pytest.mark.ours_only("others pass over it in silence")
def test_debug_names_what_is_ignored(container: Container, tmp_path: Path) -> None:
    """A misspelt member is ignored, as the specification has it; --debug tells [F7, G5]."""
    container.bundle.config["linux"]["sysctls"] = {}
    log = tmp_path / "log"
    container.create(options=["--debug", "--log", str(log), "--log-format", "json"])
    assert any("/linux/sysctls" in json.loads(line)["msg"] for line in log.read_text().splitlines())


def test_unwritable_log(runtime: Runtime) -> None:
    """A log that cannot be opened is an error [G3]."""
    assert runtime("list", options=["--log", "/no/such/dir/log"]).code != 0


@pytest.mark.parametrize("options", [["--rootless", "auto"], ["--rootless", "false"], ["--rootless=true"],
                                     ["--criu", "/usr/sbin/criu"], ["--cgroup-manager", "cgroupfs"]])  # fmt: skip
def test_accepted_options(
    container: Container, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options that engines send are accepted [G6, G7, G8]."""
    monkeypatch.chdir(tmp_path)  # crun 1.8 takes the word behind --rootless for a state root
    container.create(options=options)
    container.command("delete", "--force", options=options).ok()


@pytest.mark.ours_only("G7: other words are refused")
def test_bad_rootless(container: Container) -> None:
    """--rootless takes true, false, auto and their short forms [G7]."""
    assert container.create(options=["--rootless", "perhaps"], check=False).code != 0


@pytest.mark.parametrize("locale", ["C", "POSIX", "de_DE.UTF-8", "xx_YY", "C.UTF-8", "ja_JP.SJIS"])
def test_locales(container: Container, locale: str) -> None:
    """Any locale works, also with other letters in the config [G12]."""
    container.bundle.merge({"annotations": {"ä": "ß"}})
    container.bundle.args(["echo", "grüß"])
    environment = {"LC_ALL": locale, "LANG": locale, "PATH": os.environ["PATH"]}
    container.create(env=environment)
    assert container.command("state", env=environment).ok().json["annotations"] == {"ä": "ß"}
    container.start(env=environment)
    container.wait()
    assert container.output.decode() == "grüß\n"


@pytest.mark.ours_only("G12: the caller's Python environment has no influence")
def test_hostile_python_environment(container: Container, tmp_path: Path) -> None:
    """PYTHON* variables and modules in the working directory are ignored [G12]."""
    for name in ("os.py", "posix.py", "ociruntime.py", "sitecustomize.py", "usercustomize.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('hijacked')\n")
    environment = {
        "PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere", "PYTHONSTARTUP": str(tmp_path / "os.py"),
        "PYTHONINSPECT": "1", "PYTHONVERBOSE": "1", "PYTHONWARNINGS": "error", "PYTHONDONTWRITEBYTECODE": "",
        "HOME": str(tmp_path), "PATH": str(tmp_path),
    }  # fmt: skip
    result = container.create(env=environment, cwd=tmp_path)
    assert (result.out, result.err) == (b"", b"")
    container.command("state", env=environment, cwd=tmp_path).ok()
    container.command("delete", "--force", env=environment, cwd=tmp_path).ok()


def test_deleted_working_directory(container: Container, tmp_path: Path) -> None:
    """A working directory that is gone is no problem for commands with absolute paths [G12]."""
    gone = tmp_path / "gone"
    gone.mkdir()

    def go() -> None:
        os.chdir(gone)
        os.rmdir(gone)

    container.create()
    container.command("state", preexec_fn=go).ok()
    gone.mkdir(exist_ok=True)
    container.command("delete", "--force", preexec_fn=go).ok()


def test_stdout_is_a_closed_pipe(container: Container) -> None:
    """Writing to a pipe nobody reads is no death by SIGPIPE [G12]."""
    container.create()
    reader, writer = os.pipe()
    os.close(reader)
    try:
        code = container.command("state", stdout=writer).code
    finally:
        os.close(writer)
    assert code in range(128) or not container.runtime.ours


# -- features [K15, section 2.9] --


def test_features(runtime: Runtime) -> None:
    """features prints the document of the specification [K15, E1-E9]."""
    document = runtime.bare("features").ok().json
    assert document["ociVersionMin"] == "1.0.0"
    assert document["ociVersionMax"].startswith("1.")
    assert set(document["hooks"]) == {
        "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
    }  # fmt: skip
    assert {"ro", "rbind", "nosuid", "rprivate"} <= set(document["mountOptions"])
    assert {"pid", "mount", "user", "uts", "ipc", "network"} <= set(document["linux"]["namespaces"])
    assert "CAP_SYS_ADMIN" in document["linux"]["capabilities"]
    if runtime.ours:
        assert document["ociVersionMax"] == "1.3.0"
        assert document["mountOptions"] == sorted(document["mountOptions"])


def test_features_schema(runtime: Runtime) -> None:
    """The document fits the schema [X19]."""
    jsonschema = pytest.importorskip("jsonschema")
    found = runtime.bare("features").ok().json
    jsonschema.validate(found, schema("features"))


@pytest.mark.ours_only("K15: features works for everybody")
def test_features_without_root(runtime: Runtime) -> None:
    """features needs neither root nor a state root [K15]."""
    if not os.access(runtime.path, os.X_OK) or not _reachable(runtime.path):
        pytest.skip("the runtime lies in a directory that is closed to others")
    result = runtime.bare("features", env={}, preexec_fn=lambda: os.setuid(65534))
    assert result.ok().json["linux"]


def _reachable(path: str) -> bool:
    return all(os.stat(parent).st_mode & 0o001 for parent in Path(path).resolve().parents)


# -- spec [K14] --


@pytest.mark.parametrize("words", [[], ["--rootless"]])
def test_spec(runtime: Runtime, tmp_path: Path, words: list[str]) -> None:
    """spec writes a config.json that fits the schema, and never over an existing one [K14]."""
    jsonschema = pytest.importorskip("jsonschema")
    runtime("spec", *words, cwd=tmp_path).ok()
    text = (tmp_path / "config.json").read_text()
    jsonschema.validate(json.loads(text), schema("config"))
    again = runtime("spec", *words, cwd=tmp_path)
    assert again.code != 0
    assert (tmp_path / "config.json").read_text() == text


def test_spec_bundle(runtime: Runtime, tmp_path: Path, give: Give) -> None:
    """--bundle says where [K14]."""
    (tmp_path / "b").mkdir()
    give(tmp_path / "b")
    runtime("spec", "--bundle", str(tmp_path / "b"), cwd=tmp_path).ok()
    assert (tmp_path / "b" / "config.json").exists()
    assert not (tmp_path / "config.json").exists()


def test_spec_is_usable(container: Container, leaks: Leaks) -> None:
    """The written config runs, with the probe as its program [K14]."""
    container.bundle.write()
    (container.bundle.path / "config.json").unlink()
    container.runtime("spec", "--bundle", str(container.bundle.path)).ok()
    config = json.loads((container.bundle.path / "config.json").read_text())
    assert config["process"]["terminal"] is True
    assert config["root"]["readonly"] is True
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/probe", "report"]
    config["linux"]["cgroupsPath"] = container.bundle.config["linux"]["cgroupsPath"]
    container.bundle.config = config
    for name in ("proc", "sys", "dev"):
        (container.bundle.rootfs / name).mkdir(exist_ok=True)
    assert container.run().ok().replies[0]["pid"] == 1


def test_checkout_or_installed(runtime: Runtime) -> None:
    """The command works when it is called through a symlink and from any directory [G12]."""
    result = subprocess.run([runtime.path, "--version"], cwd="/", capture_output=True, timeout=20, check=False)
    assert result.returncode == 0


def test_symlink_to_the_runtime(runtime: Runtime, tmp_path: Path) -> None:
    """Engines may be given a symlink [G12]."""
    (tmp_path / "link").symlink_to(runtime.path)
    link = runtime.elsewhere(runtime.root, str(tmp_path / "link"))
    assert link.version == runtime.version
    link("list").ok()
