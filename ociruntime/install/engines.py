"""What each engine wants to be told: its file as it is and as it is to be. Nothing is written here.

podman, CRI-O: a drop-in of our own. docker: one key of daemon.json. containerd: tables at the end of config.toml,
between two marks; not a file that it imports, because a section of a plugin that is in an imported file replaces the
whole section (containerd-config.toml(5), "imports"; seen with 1.6: the CNI settings of the main file are gone).
"""

import json
import re
import tomllib

from ociruntime.errors import ConfigError, StateError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ociruntime.install.places import Places

# What podman assumes when its files say nothing. Source: containers.conf(5).
_PODMAN_DEFAULTS = {
    "runtime_supports_json": ["crun", "runc", "kata", "runsc", "krun"],
    "runtime_supports_nocgroup": ["crun", "krun"],
}
_PODMAN_FILES = ("/usr/share/containers/containers.conf", "/etc/containers/containers.conf")
_PODMAN_DROPINS = "/etc/containers/containers.conf.d"
# Where the CRI plugin keeps its runtimes, by the version of the file. Source: containerd, docs/cri/config.md.
_CRI_SECTIONS = {
    1: ("plugins", "cri"),
    2: ("plugins", "io.containerd.grpc.v1.cri"),
    3: ("plugins", "io.containerd.cri.v1.runtime"),
}
_UNCHANGED = "nothing was changed"
_HEADER = "# Written by 'ociruntime install'; 'ociruntime install --remove' takes it out again.\n"


class Wish:
    """What is asked for. name: of the runtime in the engine; path: its executable; default: for every container."""

    __slots__ = ("default", "name", "path", "remove")

    def __init__(self, name: str, path: str, *, default: bool = False, remove: bool = False) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", name):
            raise UsageError(f"--name: '{name}' is not made of letters, digits, _ and -", command="install")
        if name in ("runc", "crun"):
            raise UsageError(f"--name: '{name}' is another runtime's", command="install")
        self.name = name
        self.path = path
        self.default = default
        self.remove = remove


class Plan:
    """One file: before and after (None: no file), and what to do or to know then."""

    __slots__ = ("after", "before", "notes", "path")

    def __init__(self, path: str, before: "bytes | None", after: "bytes | None", *notes: str) -> None:
        self.path = path
        self.before = before
        self.after = after
        self.notes = notes


def podman(places: "Places", wish: Wish) -> Plan:
    """A drop-in of containers.conf(5). Its lists replace those of other files, so they hold what these say."""
    path = f"{_PODMAN_DROPINS}/{wish.name}.conf"
    before = places.read(path)
    if wish.remove:
        return Plan(path, before, None)
    others = [f"{_PODMAN_DROPINS}/{name}" for name in places.names(_PODMAN_DROPINS) if name.endswith(".conf")]
    lists = dict(_PODMAN_DEFAULTS)
    notes = [f"next: podman --runtime {wish.name} run ..."]
    for other in (*_PODMAN_FILES, *others):
        text = places.read(other) if other != path else None
        engine = _toml(places, other, text).get("engine") if text else None
        for key in lists:
            found = engine.get(key) if isinstance(engine, dict) else None
            if isinstance(found, list):
                lists[key] = [word for word in found if isinstance(word, str)]
                if other.startswith(_PODMAN_DROPINS) and other > path and wish.name not in found:
                    notes.append(f"'{places.shown(other)}' comes later: {wish.name} is missing in its {key}")
    lines = [_HEADER + "[engine]\n"]
    if wish.default:
        lines.append(f"runtime = {_quoted(wish.name)}\n")
    for key, words in lists.items():
        lines.append(f"{key} = [{', '.join(_quoted(word) for word in dict.fromkeys((*words, wish.name)))}]\n")
    lines.append(f"\n[engine.runtimes]\n{wish.name} = [{_quoted(wish.path)}]\n")
    return Plan(path, before, "".join(lines).encode(), *notes)


def crio(places: "Places", wish: Wish) -> Plan:
    """A drop-in of crio.conf(5)."""
    path = f"/etc/crio/crio.conf.d/{wish.name}.conf"
    before = places.read(path)
    if wish.remove:
        return Plan(path, before, None, "next: systemctl restart crio")
    default = f"[crio.runtime]\ndefault_runtime = {_quoted(wish.name)}\n\n" if wish.default else ""
    text = (
        f"{_HEADER}{default}[crio.runtime.runtimes.{wish.name}]\nruntime_path = {_quoted(wish.path)}\n"
        f'runtime_type = "oci"\nruntime_root = "/run/{wish.name}"\n'
    )
    return Plan(path, before, text.encode(), "next: systemctl restart crio", _runtime_class(wish))


def docker(places: "Places", wish: Wish) -> Plan:
    """The key runtimes of daemon.json; everything else stays, in its order. Raises ConfigError for what is no JSON."""
    path = "/etc/docker/daemon.json"
    before = places.read(path)
    config = _json(places, path, before) if before is not None and before.strip() else {}
    runtimes = config.get("runtimes", {})
    if not isinstance(runtimes, dict):
        raise ConfigError("is not an object", pointer="/runtimes", path=places.shown(path), hint=_UNCHANGED)
    wanted = json.loads(json.dumps(config))
    if wish.remove:
        _drop(wanted, "runtimes", wish.name)
        if wanted.get("default-runtime") == wish.name:
            del wanted["default-runtime"]
    else:
        entry = runtimes.get(wish.name)
        kept = entry if isinstance(entry, dict) else {}
        wanted.setdefault("runtimes", {})[wish.name] = {**kept, "path": wish.path}
        if wish.default:
            wanted["default-runtime"] = wish.name
    # A reload would not take the last runtime out: where the key is missing nothing changes.
    notes = [f"next: systemctl {'restart' if wish.remove else 'reload'} docker"]
    if not wish.remove:
        notes.append(f"      docker run --runtime {wish.name} ...")
    if wanted == config:
        return Plan(path, before, before)
    if not wanted:
        return Plan(path, before, None, *notes)
    text = json.dumps(wanted, indent=_indent(before), ensure_ascii=False) + "\n"
    return Plan(path, before, text.encode(), *notes)


def containerd(places: "Places", wish: Wish) -> Plan:
    """Two tables of config.toml for the CRI plugin, which run the runtime below the shim io.containerd.runc.v2.

    Raises ConfigError for a file that is no TOML or of an unknown version, StateError when the tables would not count.
    """
    if wish.default:
        raise UsageError("--default is not for containerd: pods choose by RuntimeClass", command="install")
    path = "/etc/containerd/config.toml"
    before = places.read(path)
    old = before.decode("utf-8", "surrogateescape") if before is not None else "version = 2\n"
    begin, end = f"# BEGIN {wish.name}: written by 'ociruntime install'\n", f"# END {wish.name}\n"
    rest = _without(old, begin, end)
    parsed = _toml(places, path, rest.encode("utf-8", "surrogateescape"))
    notes = ["next: systemctl restart containerd"]
    if wish.remove:
        text = None if rest.strip() == "version = 2" else rest
        return Plan(path, before, text.encode("utf-8", "surrogateescape") if text else None, *notes)
    version = parsed.get("version", 1)
    section = _CRI_SECTIONS.get(version)
    if section is None:
        raise ConfigError(
            f"version {version} is not known", pointer="/version", path=places.shown(path), hint=_UNCHANGED
        )
    _check_imports(places, path, parsed, section)
    place = (*section, "containerd", "runtimes", wish.name)
    options: dict[str, Any] = {"BinaryName": wish.path}
    runc = _at(parsed, (*place[:-1], "runc", "options"))
    if isinstance(runc, dict) and isinstance(runc.get("SystemdCgroup"), bool):
        options["SystemdCgroup"] = runc["SystemdCgroup"]
    header = ".".join(_key(part) for part in place)
    values = "".join(f"{key} = {_quoted(value)}\n" for key, value in options.items())
    block = f'{begin}[{header}]\nruntime_type = "io.containerd.runc.v2"\n[{header}.options]\n{values}{end}'
    text = (rest.rstrip("\n") + "\n\n" if rest.strip() else "") + block
    after = text.encode("utf-8", "surrogateescape")
    if _at(parsed, place) is not None:
        raise StateError(
            f"'{places.shown(path)}' has a runtime '{wish.name}' that was not written by install",
            hint="remove it, or choose another --name",
        )
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise StateError(
            f"no tables can be added to '{places.shown(path)}'",
            hint=f"something in {'.'.join(section)} is inline there",
        ) from None
    if "cri" in (parsed.get("disabled_plugins") or ()):
        notes.append("the CRI plugin is in disabled_plugins: Kubernetes cannot use containerd")
    return Plan(path, before, after, *notes, _runtime_class(wish))


ENGINES: "dict[str, Callable[[Places, Wish], Plan]]" = {
    "podman": podman,
    "containerd": containerd,
    "docker": docker,
    "crio": crio,
}


def _runtime_class(wish: Wish) -> str:
    return f"for pods: a RuntimeClass with handler: {wish.name}"


def _toml(places: "Places", path: str, data: bytes) -> "dict[str, Any]":
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not valid TOML: {error}", path=places.shown(path), hint=_UNCHANGED) from None


def _json(places: "Places", path: str, data: bytes) -> "dict[str, Any]":
    """An object; a key that comes twice is refused: one of them would be lost."""

    def once(pairs: "list[tuple[str, Any]]") -> "dict[str, Any]":
        result = dict(pairs)
        if len(result) < len(pairs):
            raise ValueError(
                "a key comes twice: " + next(key for key in result if [k for k, _ in pairs].count(key) > 1)
            )
        return result

    try:
        config = json.loads(data, object_pairs_hook=once)
    except ValueError as error:
        reason, line, column = str(error), 0, 0
        if isinstance(error, json.JSONDecodeError):
            reason, line, column = error.msg.lower(), error.lineno, error.colno
        raise ConfigError(
            f"not valid JSON: {reason}",
            path=places.shown(path),
            line=line,
            column=column,
            hint=_UNCHANGED,
        ) from None
    if not isinstance(config, dict):
        raise ConfigError("not a JSON object", path=places.shown(path), hint=_UNCHANGED)
    return config


def _check_imports(places: "Places", path: str, parsed: "dict[str, Any]", section: "tuple[str, ...]") -> None:
    """Raises StateError when an imported file has the section: that one counts instead of ours."""
    from fnmatch import fnmatchcase

    for pattern in parsed.get("imports") or ():
        directory, _, names = str(pattern).rpartition("/")
        if not directory.startswith("/"):
            directory = f"{path.rpartition('/')[0]}/{directory}".rstrip("/")
        for name in places.names(directory):
            file = f"{directory}/{name}"
            if fnmatchcase(name, names) and _at(_toml(places, file, places.read(file) or b""), section) is not None:
                raise StateError(
                    f"'{places.shown(file)}', which '{places.shown(path)}' imports, replaces {'.'.join(section)}",
                    hint="move what is there to the main file",
                )


def _without(text: str, begin: str, end: str) -> str:
    """The text without our block and the empty line before it."""
    head, found, tail = text.partition(begin)
    if not found:
        return text
    _, found, tail = tail.partition(end)
    if not found:
        raise StateError(
            f"the line '{end.strip()}' is missing", hint=f"restore it, or remove what follows '{begin.strip()}'"
        )
    return (head.rstrip("\n") + "\n" if head.strip() else "") + tail


def _at(config: "dict[str, Any]", place: "tuple[str, ...]") -> "Any":
    """What is at this place of nested tables, None when there is nothing."""
    found: Any = config
    for part in place:
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    return found


def _drop(config: "dict[str, Any]", section: str, key: str) -> None:
    """Remove a key, and its section when that is empty then."""
    found = config.get(section, {})
    if key in found:
        del found[key]
        if not found:
            del config[section]


def _indent(data: "bytes | None") -> "str":
    """The indentation that the file uses."""
    found = re.search(rb"\n([ \t]+)\S", data or b"")
    return found[1].decode() if found else "    "


def _key(part: str) -> str:
    return part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else _quoted(part)


def _quoted(value: "str | bool") -> str:
    """A value of TOML. Its strings are those of JSON, without surrogates."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
