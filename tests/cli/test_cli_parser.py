"""The grammar of the command line (row G1)."""

import pytest

from ociruntime.cli.parser import Options, parse_command, parse_flags
from ociruntime.cli.table import COMMANDS, GLOBAL
from ociruntime.errors import UsageError

FLAGS = (
    ("bundle", "b", "value", "DIR", "x"),
    ("tty", "t", "bool", "", "x"),
    ("env", "e", "repeat", "K=V", "x"),
    ("preserve-fds", "", "int", "N", "x"),
)


def parsed(text: str, interleaved: bool = True) -> tuple[dict[str, object], list[str]]:
    options, arguments = parse_flags(text.split(" ") if text else [], FLAGS, interleaved=interleaved, command="create")
    return options.values, arguments


@pytest.mark.parametrize(
    ("text", "values", "arguments"),
    [
        ("", {}, []),
        ("--bundle /b id", {"bundle": "/b"}, ["id"]),
        ("--bundle=/b id", {"bundle": "/b"}, ["id"]),
        ("-bundle /b id", {"bundle": "/b"}, ["id"]),
        ("-bundle=/b id", {"bundle": "/b"}, ["id"]),
        ("-b /b id", {"bundle": "/b"}, ["id"]),
        ("-b=/b id", {"bundle": "/b"}, ["id"]),
        ("id -b /b", {"bundle": "/b"}, ["id"]),
        ("--bundle=a=b", {"bundle": "a=b"}, []),
        ("--bundle=", {"bundle": ""}, []),
        ("--bundle --tty", {"bundle": "--tty"}, []),
        ("--bundle a --bundle b", {"bundle": "b"}, []),
        ("-tty", {"tty": True}, []),
        ("-t", {"tty": True}, []),
        ("--tty=true x", {"tty": True}, ["x"]),
        ("--tty=T", {"tty": True}, []),
        ("--tty=1", {"tty": True}, []),
        ("--tty --tty=false", {"tty": False}, []),
        ("--tty=0", {"tty": False}, []),
        ("--tty false", {"tty": True}, ["false"]),
        ("-e A=1,2 --env=B -env C", {"env": ["A=1,2", "B", "C"]}, []),
        ("--preserve-fds 3", {"preserve-fds": 3}, []),
        ("-- --tty -b", {}, ["--tty", "-b"]),
        ("id -- -9", {}, ["id", "-9"]),
        ("- id", {}, ["-", "id"]),
        ("--help --nonsense", {"help": True}, []),
        ("-h", {"help": True}, []),
        ("-t id -help", {"tty": True, "help": True}, ["id"]),
    ],
)
def test_accepts(text: str, values: dict[str, object], arguments: list[str]) -> None:
    assert parsed(text) == (values, arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--nonsense", "unknown flag '--nonsense'"),
        ("--nonsense=1", "unknown flag '--nonsense'"),
        ("-x id", "unknown flag '-x'"),
        ("---tty", "unknown flag '---tty'"),
        ("--=x", "unknown flag '--'"),
        ("--bundle", "flag needs an argument: --bundle"),
        ("-b", "flag needs an argument: --bundle"),
        ("--tty=perhaps", "flag '--tty' is true or false, not 'perhaps'"),
        ("--tty=", "flag '--tty' is true or false, not ''"),
        ("--preserve-fds many", "flag '--preserve-fds' needs a number, not 'many'"),
        ("--preserve-fds -1", "flag '--preserve-fds' needs a number, not '-1'"),
        ("--preserve-fds=1_0", "flag '--preserve-fds' needs a number, not '1_0'"),
        ("--preserve-fds=99999999999", "flag '--preserve-fds' needs a number"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(text)
    assert message in str(caught.value)
    assert caught.value.command == "create"


def test_first_argument_may_end_the_flags() -> None:
    assert parsed("-t id -x --bundle", interleaved=False) == ({"tty": True}, ["id", "-x", "--bundle"])
    assert parsed("-t -- -x y", interleaved=False) == ({"tty": True}, ["-x", "y"])


def test_absent_flags_have_empty_values() -> None:
    options = Options()
    assert not options.given("tty")
    assert (options.flag("tty"), options.text("bundle"), options.number("preserve-fds"), options.all("env")) == (
        False,
        "",
        0,
        [],
    )


@pytest.mark.parametrize(
    ("verb", "words", "good"),
    [
        ("create", [], False),
        ("create", ["a"], True),
        ("create", ["a", "b"], False),
        ("kill", ["a"], True),
        ("kill", ["a", "9"], True),
        ("kill", ["a", "9", "x"], False),
        ("list", [], True),
        ("list", ["a"], False),
        ("state", ["--help"], True),
    ],
)
def test_number_of_arguments(verb: str, words: list[str], good: bool) -> None:
    if good:
        parse_command(verb, words, COMMANDS[verb])
    else:
        with pytest.raises(UsageError, match="given"):
            parse_command(verb, words, COMMANDS[verb])


@pytest.mark.parametrize(
    "line",
    [
        # What engines send (rows A1, A3, A4, A5).
        "--root /r --debug --log /b/log.json --log-format json --systemd-cgroup --rootless=false create --bundle /b "
        "--pid-file /p --console-socket /s --pidfd-socket /q --no-pivot --no-new-keyring --detach --preserve-fds 2 id",
        "--systemd-cgroup --log-format=json --log /l create --bundle /b --pid-file /p --console-socket /s id",
        "--cgroup-manager disabled create --bundle /b --pid-file /p id",
        "--criu /usr/sbin/criu state id",
        "create -f /c/config.json -b /b id",
        "create --no-subreaper id",
        "run -d --keep -no-subreaper -b . id",
        "kill --all id 9",
        "kill -a id SIGKILL",
        "delete --force id",
        "delete -f id",
        "list --format=json",
        "list -q -f table",
        "spec --rootless -b /b",
        "features",
    ],
)
def test_lines_of_engines(line: str) -> None:
    _, rest = parse_flags(line.split(), GLOBAL, interleaved=False)
    parse_command(rest[0], rest[1:], COMMANDS[rest[0]])


def test_table_is_consistent() -> None:
    for name, (summary, _, least, most, interleaved, flags, description) in COMMANDS.items():
        assert summary and description.endswith("."), name
        assert least >= 0
        assert least <= most or most == -1
        assert isinstance(interleaved, bool)
        words = [word for flag in flags for word in flag[:2] if word]
        assert len(words) == len(set(words)), name
        for _, short, kind, metavar, _ in flags:
            assert kind in ("bool", "value", "int", "repeat")
            assert bool(metavar) == (kind != "bool")
            assert len(short) <= 1
