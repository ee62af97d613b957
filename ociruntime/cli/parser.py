"""Reads flags by the table: ``--flag value``, ``--flag=value``, and long names after a single dash as Go programs do.

Booleans take ``=true`` or ``=false``. ``--`` ends the flags; a lone ``-`` is an argument.
"""

from ociruntime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.table import Command, Flag

TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


class UnknownCommandError(UsageError):
    """There is no such command: exit status 3, no usage text (row G10)."""


class Options:
    """The flags that were given. Absent ones are False, "", 0 and []."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[str, object] = {}

    def given(self, name: str) -> bool:
        """Tell whether the flag was there at all."""
        return name in self.values

    def flag(self, name: str) -> bool:
        """Value of a "bool" flag."""
        return self.values.get(name) is True

    def text(self, name: str) -> str:
        """Value of a "value" flag; the last use wins."""
        value = self.values.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> int:
        """Value of an "int" flag."""
        value = self.values.get(name)
        return value if isinstance(value, int) else 0

    def all(self, name: str) -> "list[str]":
        """Values of a "repeat" flag in the order of their use."""
        value = self.values.get(name)
        return value if isinstance(value, list) else []


def parse_flags(
    words: "list[str]", flags: "tuple[Flag, ...]", *, interleaved: bool, command: str = ""
) -> "tuple[Options, list[str]]":
    """Return (options, arguments) of words. interleaved: flags may follow arguments; if not, the first one ends them.

    Reading stops at --help: the option "help" is set then. Raises UsageError.
    """
    options = Options()
    values = options.values
    arguments: list[str] = []
    position = 0
    count = len(words)
    while position < count:
        word = words[position]
        position += 1
        if word[:1] != "-" or word == "-":
            arguments.append(word)
            if interleaved:
                continue
            break
        if word == "--":
            break
        name, equals, value = word[2 if word[1] == "-" else 1 :].partition("=")
        for flag in flags:
            if name and (name == flag[0] or name == flag[1]):
                break
        else:
            if name in ("help", "h"):
                values["help"] = True
                return options, arguments
            raise UsageError(f"unknown flag '{word.partition('=')[0]}'", command=command)
        long_name = flag[0]
        kind = flag[2]
        if kind == "bool":
            if not equals or value in TRUE:
                values[long_name] = True
            elif value in FALSE:
                values[long_name] = False
            else:
                raise UsageError(f"flag '--{long_name}' is true or false, not '{value}'", command=command)
            continue
        if not equals:
            if position == count:
                # Engines probe for flags by leaving the value out and look for these words.
                raise UsageError(f"flag needs an argument: --{long_name}", command=command)
            value = words[position]
            position += 1
        if kind == "value":
            values[long_name] = value
        elif kind == "int":
            if not (value.isascii() and value.isdigit() and len(value) <= 9):
                raise UsageError(f"flag '--{long_name}' needs a number, not '{value}'", command=command)
            values[long_name] = int(value)
        else:
            options.values.setdefault(long_name, [])
            options.all(long_name).append(value)
    arguments.extend(words[position:])
    return options, arguments


def parse_command(name: str, words: "list[str]", command: "Command") -> "tuple[Options, list[str]]":
    """Return (options, arguments) of a command's words, with the number of arguments checked. Raises UsageError."""
    _, synopsis, least, most, interleaved, flags, _ = command
    options, arguments = parse_flags(words, flags, interleaved=interleaved, command=name)
    if "help" not in options.values and not (least <= len(arguments) and (most < 0 or len(arguments) <= most)):
        wanted = f"takes {synopsis}" if synopsis else "takes no arguments"
        found = f"{len(arguments)} arguments are" if len(arguments) != 1 else "1 argument is"
        raise UsageError(f"{wanted}, but {found} given", command=name)
    return options, arguments


def boolean(text: str) -> "bool | None":
    """Return the truth value of a word such as ``true`` or ``0``, None when it is neither."""
    return True if text in TRUE else False if text in FALSE else None
