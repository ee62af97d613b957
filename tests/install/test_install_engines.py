"""What becomes of each engine's file."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ociruntime.errors import ConfigError, OCIError, StateError, UsageError
from ociruntime.install.engines import ENGINES, Plan, Wish
from ociruntime.install.places import Places

WISH = Wish("ociruntime", "/usr/bin/ociruntime")
GONE = Wish("ociruntime", "", remove=True)
CRI = 'plugins."io.containerd.grpc.v1.cri"'


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    found = Places(str(tmp_path))
    yield found
    found.close()


def put(root: Path, path: str, text: str) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def carried_out(places: Places, engine: str, wish: Wish) -> Plan:
    plan = ENGINES[engine](places, wish)
    places.replace(plan.path, plan.before, plan.after)
    return plan


def text_of(plan: Plan) -> str:
    assert plan.after is not None
    return plan.after.decode()


def toml_of(plan: Plan) -> "dict[str, Any]":
    return tomllib.loads(text_of(plan))


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_there_and_back(places: Places, engine: str) -> None:
    """Twice is once; --remove takes everything out again, twice too."""
    carried_out(places, engine, WISH)
    again = ENGINES[engine](places, WISH)
    assert again.before == again.after is not None
    plan = carried_out(places, engine, GONE)
    assert plan.after is None
    plan = ENGINES[engine](places, GONE)
    assert plan.before is plan.after is None


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_another_path(places: Places, engine: str) -> None:
    """A later install with another path changes it."""
    carried_out(places, engine, WISH)
    plan = carried_out(places, engine, Wish("ociruntime", '/opt/o "1"'))
    assert "/usr/bin/ociruntime" not in text_of(plan)


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", "-x", "runc", "a\n", "a.b", "x" * 64])
def test_bad_names(name: str) -> None:
    with pytest.raises(UsageError):
        Wish(name, "/x")


# ---- podman ----


def test_podman(places: Places) -> None:
    plan = ENGINES["podman"](places, WISH)
    assert plan.path == "/etc/containers/containers.conf.d/ociruntime.conf"
    engine = toml_of(plan)["engine"]
    assert engine["runtimes"] == {"ociruntime": ["/usr/bin/ociruntime"]}
    assert engine["runtime_supports_json"] == ["crun", "runc", "kata", "runsc", "krun", "ociruntime"]
    assert engine["runtime_supports_nocgroup"] == ["crun", "krun", "ociruntime"]
    assert "runtime" not in engine


def test_podman_default(places: Places) -> None:
    assert toml_of(ENGINES["podman"](places, Wish("o", "/x", default=True)))["engine"]["runtime"] == "o"


def test_podman_keeps_the_lists(places: Places, tmp_path: Path) -> None:
    """The lists of other files, the last one that counts, are in ours."""
    put(tmp_path, "/usr/share/containers/containers.conf", '[engine]\nruntime_supports_json = ["a"]\n')
    put(tmp_path, "/etc/containers/containers.conf", '[engine]\nruntime_supports_nocgroup = ["b"]\n')
    put(tmp_path, "/etc/containers/containers.conf.d/x.conf", '[engine]\nruntime_supports_json = ["c", "ociruntime"]\n')
    put(tmp_path, "/etc/containers/containers.conf.d/y.txt", "no toml")
    engine = toml_of(ENGINES["podman"](places, WISH))["engine"]
    assert engine["runtime_supports_json"] == ["c", "ociruntime"]
    assert engine["runtime_supports_nocgroup"] == ["b", "ociruntime"]


def test_podman_later_file(places: Places, tmp_path: Path) -> None:
    """A drop-in that is read after ours hides its lists: that is said."""
    put(tmp_path, "/etc/containers/containers.conf.d/z.conf", '[engine]\nruntime_supports_json = ["c"]\n')
    assert any("z.conf' comes later" in note for note in ENGINES["podman"](places, WISH).notes)
    put(tmp_path, "/etc/containers/containers.conf.d/z.conf", '[engine]\nruntime_supports_json = ["ociruntime"]\n')
    assert len(ENGINES["podman"](places, WISH).notes) == 1


def test_podman_bad_file(places: Places, tmp_path: Path) -> None:
    put(tmp_path, "/etc/containers/containers.conf", "[engine\n")
    with pytest.raises(ConfigError, match="not valid TOML") as caught:
        ENGINES["podman"](places, WISH)
    assert caught.value.path == f"{tmp_path}/etc/containers/containers.conf"


# ---- CRI-O ----


def test_crio(places: Places) -> None:
    plan = ENGINES["crio"](places, Wish("o", "/x", default=True))
    assert plan.path == "/etc/crio/crio.conf.d/o.conf"
    assert toml_of(plan)["crio"]["runtime"] == {
        "default_runtime": "o",
        "runtimes": {"o": {"runtime_path": "/x", "runtime_type": "oci", "runtime_root": "/run/o"}},
    }


# ---- docker ----

DAEMON = "/etc/docker/daemon.json"


def test_docker_new(places: Places) -> None:
    plan = ENGINES["docker"](places, WISH)
    assert (plan.path, plan.before) == (DAEMON, None)
    assert json.loads(text_of(plan)) == {"runtimes": {"ociruntime": {"path": "/usr/bin/ociruntime"}}}


def test_docker_keeps_everything_else(places: Places, tmp_path: Path) -> None:
    text = '{\n  "z": "ä",\n  "log-opts": {"max-size": "1m"},\n  "runtimes": {"kata": {"path": "/k"}},\n  "n": 1.5\n}\n'
    put(tmp_path, DAEMON, text)
    plan = carried_out(places, "docker", Wish("ociruntime", "/o", default=True))
    found = json.loads(text_of(plan))
    assert list(found) == ["z", "log-opts", "runtimes", "n", "default-runtime"]
    assert found["runtimes"] == {"kata": {"path": "/k"}, "ociruntime": {"path": "/o"}}
    assert '\n  "z": "ä"' in text_of(plan)
    assert json.loads(text_of(carried_out(places, "docker", GONE))) == json.loads(text)


def test_docker_keeps_arguments(places: Places, tmp_path: Path) -> None:
    put(tmp_path, DAEMON, '{"runtimes": {"ociruntime": {"path": "/old", "runtimeArgs": ["--debug"]}}}')
    found = json.loads(text_of(ENGINES["docker"](places, WISH)))
    assert found["runtimes"]["ociruntime"] == {"path": "/usr/bin/ociruntime", "runtimeArgs": ["--debug"]}


def test_docker_unchanged_is_untouched(places: Places, tmp_path: Path) -> None:
    """A file that says it already stays as it is, whatever its form."""
    put(tmp_path, DAEMON, '{"runtimes":{"ociruntime":{"path":"/usr/bin/ociruntime"}}}')
    plan = ENGINES["docker"](places, WISH)
    assert plan.before == plan.after


@pytest.mark.parametrize("text", ["", "{}", " \n"])
def test_docker_empty(places: Places, tmp_path: Path, text: str) -> None:
    put(tmp_path, DAEMON, text)
    assert "runtimes" in text_of(ENGINES["docker"](places, WISH))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1 column 2"),
        ('{\n "a": 1,\n}', "line 3 column 1"),
        ('{"a": 1 // note\n}', "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"a": 1, "a": 2}', "a key comes twice: a"),
        ('{"runtimes": []}', "/runtimes"),
        ("\xff", "not valid JSON"),
    ],
)
def test_docker_bad_file(places: Places, tmp_path: Path, text: str, said: str) -> None:
    """Refused, with the place, and left alone."""
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / "etc/docker/daemon.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        ENGINES["docker"](places, WISH)
    assert said in str(caught.value) and f"'{tmp_path}{DAEMON}'" in str(caught.value)


# ---- containerd ----

CONFIG = "/etc/containerd/config.toml"


def runtimes(config: "dict[str, Any]", section: str = "io.containerd.grpc.v1.cri") -> "dict[str, Any]":
    found: dict[str, Any] = config["plugins"][section]["containerd"]["runtimes"]
    return found


ENTRY = {"runtime_type": "io.containerd.runc.v2", "options": {"BinaryName": "/usr/bin/ociruntime"}}


def test_containerd_new(places: Places) -> None:
    config = toml_of(ENGINES["containerd"](places, WISH))
    assert config["version"] == 2
    assert runtimes(config) == {"ociruntime": ENTRY}


def test_containerd_keeps_everything_else(places: Places, tmp_path: Path) -> None:
    text = (
        "# a note\nversion = 2\n[plugins]\n"
        f'  [{CRI}.cni]\n    bin_dir = "/b"\n'
        f'  [{CRI}.containerd.runtimes.runc]\n    runtime_type = "io.containerd.runc.v2"\n'
        f"  [{CRI}.containerd.runtimes.runc.options]\n    SystemdCgroup = true\n"
    )
    put(tmp_path, CONFIG, text)
    plan = carried_out(places, "containerd", WISH)
    assert text_of(plan).startswith(text)
    config = toml_of(plan)
    assert config["plugins"]["io.containerd.grpc.v1.cri"]["cni"] == {"bin_dir": "/b"}
    assert runtimes(config)["ociruntime"]["options"] == {**ENTRY["options"], "SystemdCgroup": True}  # type: ignore[dict-item]
    assert text_of(carried_out(places, "containerd", GONE)) == text


@pytest.mark.parametrize(
    ("head", "section"), [("", "cri"), ("version = 1\n", "cri"), ("version = 3\n", "io.containerd.cri.v1.runtime")]
)
def test_containerd_versions(places: Places, tmp_path: Path, head: str, section: str) -> None:
    put(tmp_path, CONFIG, head + 'root = "/r"\n')
    assert runtimes(toml_of(ENGINES["containerd"](places, WISH)), section) == {"ociruntime": ENTRY}


def test_containerd_disabled_plugin(places: Places, tmp_path: Path) -> None:
    put(tmp_path, CONFIG, 'disabled_plugins = ["cri"]\n')
    assert any("disabled_plugins" in note for note in ENGINES["containerd"](places, WISH).notes)


def test_containerd_two_names(places: Places) -> None:
    """Each has its own block; taking one out leaves the other."""
    carried_out(places, "containerd", WISH)
    both = carried_out(places, "containerd", Wish("second", "/s"))
    assert set(runtimes(toml_of(both))) == {"ociruntime", "second"}
    left = carried_out(places, "containerd", GONE)
    assert set(runtimes(toml_of(left))) == {"second"}


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("version = \n", ConfigError, "not valid TOML"),
        ("version = 9\n", ConfigError, "version 9"),
        (f"version = 2\n[{CRI}.containerd]\nruntimes = {{}}\n", StateError, "no tables can be added"),
        (f'version = 2\n[{CRI}.containerd.runtimes.ociruntime]\nruntime_type = "x"\n', StateError, "not written by"),
        ("version = 2\n# BEGIN ociruntime: written by 'ociruntime install'\n", StateError, "# END ociruntime"),
    ],
)
def test_containerd_bad_file(places: Places, tmp_path: Path, text: str, error: "type[OCIError]", said: str) -> None:
    put(tmp_path, CONFIG, text)
    with pytest.raises(error, match=said):
        ENGINES["containerd"](places, WISH)


@pytest.mark.parametrize("pattern", ["/etc/containerd/conf.d/*.toml", "conf.d/*.toml", "/etc/containerd/conf.d/a.toml"])
def test_containerd_imports(places: Places, tmp_path: Path, pattern: str) -> None:
    """An imported file with the same section would hide ours; one without does not."""
    put(tmp_path, CONFIG, f'version = 2\nimports = ["{pattern}"]\n')
    put(tmp_path, "/etc/containerd/conf.d/a.toml", 'version = 2\n[plugins."other"]\n')
    assert ENGINES["containerd"](places, WISH).after
    put(tmp_path, "/etc/containerd/conf.d/a.toml", f"version = 2\n[{CRI}]\n")
    with pytest.raises(StateError, match="imports, replaces"):
        ENGINES["containerd"](places, WISH)


def test_containerd_default(places: Places) -> None:
    with pytest.raises(UsageError):
        ENGINES["containerd"](places, Wish("o", "/x", default=True))
