"""The log file's forms and who gets which line."""

import json
import os
import re
import stat
from pathlib import Path

import pytest

from ociruntime.errors import OCIError, UsageError
from ociruntime.log import Log, one_line, rfc3339


def configured(path: Path | None = None, form: str = "text", debug: bool = False, level: str = "info") -> Log:
    log = Log()
    log.configure(path=str(path) if path else "", form=form, debug=debug, level=level)
    return log


def test_times() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00Z"
    assert rfc3339(1_767_225_599_000_000_000) == "2025-12-31T23:59:59Z"
    assert rfc3339(1_500_000_000, fraction=True) == "1970-01-01T00:00:01.5Z"
    assert rfc3339(1_000_000_007, fraction=True) == "1970-01-01T00:00:01.000000007Z"
    assert rfc3339(2_000_000_000, fraction=True) == "1970-01-01T00:00:02Z"


def test_file_is_made_0644_appended_to_and_synchronous(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    path.chmod(0o600)
    log = configured(path)
    flags = int(re.search(r"flags:\s*(\d+)", Path(f"/proc/self/fdinfo/{log.fd}").read_text())[1], 8)  # type: ignore[index]
    assert flags & os.O_SYNC == os.O_SYNC
    assert flags & os.O_APPEND
    assert flags & os.O_CLOEXEC
    log.error("it broke")
    log.close()
    assert path.read_text().startswith("before\ntime=")
    assert capfd.readouterr().err == "ociruntime: it broke\n"
    fresh = tmp_path / "fresh"
    mask = os.umask(0o022)
    try:
        configured(fresh).close()
    finally:
        os.umask(mask)
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o644


def test_text_file_line(tmp_path: Path) -> None:
    log = configured(tmp_path / "log")
    log.warning('a "quoted"\nword', {"pointer": "/mounts/3"})
    log.close()
    line = (tmp_path / "log").read_text()
    assert re.fullmatch(r'time="[^"]+Z" level=warning msg="a \\"quoted\\"\\nword" pointer="/mounts/3"\n', line)


def test_json_failure_writes_exactly_one_object(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """podman decodes the whole file as one object."""
    path = tmp_path / "log"
    log = configured(path, "json")
    log.warning("odd, ignoring")
    log.info("note")
    log.debug("detail")
    log.error("it broke", {"errno": "EPERM"})
    log.close()
    document = json.loads(path.read_text())
    assert document["level"] == "error"
    assert document["msg"] == "it broke"
    assert document["errno"] == "EPERM"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document["time"])
    lines = capfd.readouterr().err.splitlines()
    assert lines == ["ociruntime: warning: odd, ignoring", "ociruntime: info: note", "ociruntime: it broke"]


def test_json_success_keeps_warnings(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    log = configured(path, "json")
    log.warning("odd, ignoring")
    assert path.read_text() == ""
    log.close()
    assert json.loads(path.read_text())["level"] == "warning"
    assert capfd.readouterr().err == ""


def test_json_debug_writes_every_line_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = configured(path, "json", debug=True)
    log.debug("one")
    log.warning("two")
    log.error("three")
    log.close()
    assert [json.loads(line)["msg"] for line in path.read_text().splitlines()] == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("level", "kept"),
    [("debug", "diwe"), ("info", "iwe"), ("warn", "we"), ("warning", "we"), ("error", "e")],
)
def test_levels(level: str, kept: str, capfd: pytest.CaptureFixture[str]) -> None:
    log = configured(level=level)
    log.debug("d")
    log.info("i")
    log.warning("w")
    log.error("e")
    assert "".join(line[-1] for line in capfd.readouterr().err.splitlines()) == kept


def test_stderr_is_text_or_json(capfd: pytest.CaptureFixture[str]) -> None:
    configured().warning("odd")
    configured(form="json").error("it broke")
    first, second = capfd.readouterr().err.splitlines()
    assert first == "ociruntime: warning: odd"
    assert json.loads(second)["msg"] == "it broke"


def test_terminal_gets_no_control_characters(capfd: pytest.CaptureFixture[str]) -> None:
    configured().error("a\nb\x1b[31m\udcff")
    assert capfd.readouterr().err == "ociruntime: a\\nb\\x1b[31m\\udcff\n"
    assert one_line("plain ü") == "plain ü"


def test_wrong_options(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--log-format is 'text' or 'json', not 'xml'"):
        configured(form="xml")
    with pytest.raises(UsageError, match="--log-level"):
        configured(level="loud")
    with pytest.raises(OCIError, match="no such file or directory") as caught:
        configured(tmp_path / "no" / "log")
    assert caught.value.path.endswith("no/log")


def test_file_is_open_when_an_option_is_refused(tmp_path: Path) -> None:
    log = Log()
    with pytest.raises(UsageError):
        log.configure(path=str(tmp_path / "log"), form="xml")
    log.error("refused")
    log.close()
    assert "refused" in (tmp_path / "log").read_text()


def test_full_disk_falls_back_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    log = configured(Path("/dev/full"))
    log.warning("odd")
    log.close()
    assert 'msg="odd"' in capfd.readouterr().err
