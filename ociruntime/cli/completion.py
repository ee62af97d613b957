"""Completion scripts for bash, zsh and fish, made from the table.

They complete commands, options, what an option takes (files, directories), and IDs: those of the state root that the
command line names, as ``list --quiet`` knows them.
"""

from ociruntime.cli.help import PROGRAM
from ociruntime.cli.table import COMMANDS, GLOBAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.cli.table import Flag

FILES = ("FILE", "SOCKET", "PATH")
# Values of options and arguments that are one of a few words.
WORDS = {
    "log-format": ("text", "json"),
    "log-level": ("debug", "info", "warning", "error"),
    "cgroup-manager": ("cgroupfs", "systemd", "disabled"),
    "rootless": ("true", "false", "auto"),
    "format": ("table", "json"),
}
SIGNALS = ("HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "WINCH")


def _shown(flags: "tuple[Flag, ...]") -> "list[Flag]":
    return [flag for flag in flags if flag[4]]


def _spellings(flag: "Flag") -> "list[str]":
    return [f"--{flag[0]}", *([f"-{flag[1]}"] if flag[1] else [])]


def _takes_id(command: str) -> bool:
    return COMMANDS[command][1].startswith("ID")


def _arguments(command: str) -> "tuple[str, ...]":
    """The words that an argument of the command can be, IDs aside."""
    return {"completion": tuple(SHELLS), "kill": SIGNALS, "help": tuple(COMMANDS)}.get(command, ())


# ---- bash


def _bash_values(flags: "list[Flag]", indent: str) -> "list[str]":
    """Cases of the word before the cursor, for options that take a value."""
    lines = []
    for flag in flags:
        if flag[2] == "bool":
            continue
        if flag[3] == "DIR":
            action = 'mapfile -t COMPREPLY < <(compgen -d -- "$word")'
        elif flag[3] in FILES:
            action = 'mapfile -t COMPREPLY < <(compgen -f -- "$word")'
        else:
            choices = " ".join(WORDS.get(flag[0], ()))
            action = f'mapfile -t COMPREPLY < <(compgen -W "{choices}" -- "$word")' if choices else "COMPREPLY=()"
        lines.append(f"{indent}{'|'.join(_spellings(flag))}) {action}; return ;;")
    return lines


def bash() -> str:
    """The script for bash 4 or later."""
    global_flags = _shown(GLOBAL)
    with_value = "|".join(word for flag in global_flags if flag[2] != "bool" for word in _spellings(flag))
    lines = [
        f"# bash completion for {PROGRAM}; written by '{PROGRAM} completion bash'",
        f"_{PROGRAM}() {{",
        "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= given=0 i",
        "    local -a root=()",
        "    COMPREPLY=()",
        "    # the command is the first word that is neither a global option nor its value",
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        '        case "${COMP_WORDS[i]}" in',
        '        --root) root=(--root "${COMP_WORDS[i+1]}"); ((i++)) ;;',
        f"        {with_value}) ((i++)) ;;",
        "        =|-*) ;;",
        "        *) command=${COMP_WORDS[i]}; break ;;",
        "        esac",
        "    done",
        "    if [[ -z $command ]]; then",
        '        case "$before" in',
        *_bash_values(global_flags, "        "),
        "        esac",
        f'        mapfile -t COMPREPLY < <(compgen -W "{" ".join((*COMMANDS, "help"))}'
        f' {" ".join(word for flag in global_flags for word in _spellings(flag))}" -- "$word")',
        "        return",
        "    fi",
        "    local options= ids= words=",
        '    case "$command" in',
    ]
    for command, row in COMMANDS.items():
        flags = _shown(row[5])
        values = _bash_values(flags, "        ")
        lines.append(f"    {command})")
        if values:
            lines.extend(('        case "$before" in', *values, "        esac"))
        lines.append(f'        options="{" ".join(word for flag in flags for word in [*_spellings(flag)])} --help"')
        if _takes_id(command):
            lines.append("        ids=1")
        if _arguments(command):
            lines.append(f'        words="{" ".join(_arguments(command))}"')
        lines.append("        ;;")
    lines.extend(
        (
            f'    help) words="{" ".join(COMMANDS)}" ;;',
            "    esac",
            "    for ((i++; i < COMP_CWORD; i++)); do [[ ${COMP_WORDS[i]} == -* ]] || ((given++)); done",
            "    if [[ $word == -* ]]; then",
            '        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")',
            "    elif [[ -n $ids && $given == 0 ]]; then",
            f'        mapfile -t COMPREPLY < <(compgen -W "$({PROGRAM} "${{root[@]}}" list --quiet 2>/dev/null)"'
            ' -- "$word")',
            "    else",
            '        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")',
            "    fi",
            "}",
            f"complete -F _{PROGRAM} {PROGRAM}",
        )
    )
    return "\n".join(lines) + "\n"


# ---- zsh


def _zsh_text(text: str) -> str:
    """Text inside an _arguments specification in single quotes."""
    for character in "\\[]:":
        text = text.replace(character, f"\\{character}")
    return text.replace("'", "'\\''")


def _zsh_action(flag: "Flag") -> str:
    if flag[2] == "bool":
        return ""
    if flag[3] == "DIR":
        action = "_files -/"
    elif flag[3] in FILES:
        action = "_files"
    elif flag[0] in WORDS:
        action = f"({' '.join(WORDS[flag[0]])})"
    else:
        action = ""
    return f":{_zsh_text(flag[3])}:{action}"


def _zsh_flags(flags: "list[Flag]", indent: str) -> "list[str]":
    lines: list[str] = []
    for flag in flags:
        names = _spellings(flag)
        repeat = "*" if flag[2] == "repeat" else ""
        rest = f"[{_zsh_text(flag[4])}]{_zsh_action(flag)}"
        exclusive = f"({' '.join(names)})" if len(names) > 1 and not repeat else ""
        lines.extend(f"{indent}'{repeat or exclusive}{name}{rest}' \\" for name in names)
    return lines


def zsh() -> str:
    """The script for zsh."""
    lines = [
        f"#compdef {PROGRAM}",
        f"# zsh completion for {PROGRAM}; written by '{PROGRAM} completion zsh'",
        f"_{PROGRAM}_ids() {{",
        "    local -a ids root",
        "    [[ -n $opt_args[--root] ]] && root=(--root $opt_args[--root])",
        f'    ids=(${{(f)"$({PROGRAM} $root list --quiet 2>/dev/null)"}})',
        "    compadd -a ids",
        "}",
        f"_{PROGRAM}() {{",
        "    local context state line curcontext=$curcontext",
        "    local -A opt_args",
        "    local -a commands",
        "    commands=(",
        *(f"        '{command}:{_zsh_text(row[0])}'" for command, row in COMMANDS.items()),
        "        'help:print help'",
        "    )",
        "    _arguments -C \\",
        *_zsh_flags(_shown(GLOBAL), "        "),
        "        '1:command:->command' \\",
        "        '*::argument:->argument'",
        "    case $state in",
        "    command) _describe command commands ;;",
        "    argument)",
        "        curcontext=${curcontext%:*}-$words[1]:",
        "        case $words[1] in",
    ]
    for command, row in COMMANDS.items():
        lines.extend((f"        {command})", "            _arguments \\"))
        lines.extend(_zsh_flags(_shown(row[5]), "                "))
        words = _arguments(command)
        if _takes_id(command):
            lines.append(f"                '1:container:_{PROGRAM}_ids' \\")
        if words:
            number = 2 if _takes_id(command) else 1
            lines.append(f"                '{number}:word:({' '.join(words)})' \\")
        lines.extend(("                '(--help -h)--help[print help]'", "            ;;"))
    lines.extend(
        (
            f"        help) _arguments '1:command:({' '.join(COMMANDS)})' ;;",
            "        esac",
            "        ;;",
            "    esac",
            "}",
            f'if [[ $funcstack[1] == _{PROGRAM} ]]; then _{PROGRAM} "$@"; else compdef _{PROGRAM} {PROGRAM}; fi',
        )
    )
    return "\n".join(lines) + "\n"


# ---- fish


def _fish_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _fish_flags(flags: "list[Flag]", condition: str) -> "list[str]":
    lines = []
    for flag in flags:
        line = f"complete -c {PROGRAM} -n {_fish_text(condition)} -l {flag[0]}"
        if flag[1]:
            line += f" -s {flag[1]}"
        if flag[2] != "bool":
            line += " -r -F" if flag[3] in FILES else " -x"
            if flag[3] == "DIR":
                line += " -a '(__fish_complete_directories)'"
            elif flag[0] in WORDS:
                line += f" -a {_fish_text(' '.join(WORDS[flag[0]]))}"
        lines.append(f"{line} -d {_fish_text(flag[4])}")
    return lines


def fish() -> str:
    """The script for fish 3 or later."""
    none = f"__{PROGRAM}_without_command"
    values = [word for flag in GLOBAL if flag[2] != "bool" and flag[4] for word in _spellings(flag)]
    lines = [
        f"# fish completion for {PROGRAM}; written by '{PROGRAM} completion fish'",
        f"function __{PROGRAM}_command",
        "    set -l words (commandline -opc)[2..]",
        "    while set -q words[1]",
        "        switch $words[1]",
        f"            case {' '.join(values)}",
        "                set -e words[1]",
        "            case '-*'",
        "            case '*'",
        "                echo $words[1]",
        "                return",
        "        end",
        "        set -e words[1]",
        "    end",
        "end",
        f"function {none}",
        f"    set -l command (__{PROGRAM}_command)",
        '    test -z "$command"',
        "end",
        f"function __{PROGRAM}_with_command",
        f"    set -l command (__{PROGRAM}_command)",
        '    test "$command" = "$argv[1]"',
        "end",
        f"function __{PROGRAM}_ids",
        "    set -l words (commandline -opc)",
        "    set -l root",
        "    if set -l at (contains -i -- --root $words)",
        "        set root --root $words[(math $at + 1)]",
        "    end",
        f"    {PROGRAM} $root list --quiet 2>/dev/null",
        "end",
        f"complete -c {PROGRAM} -f",
        *_fish_flags(_shown(GLOBAL), none),
    ]
    for command, row in COMMANDS.items():
        lines.append(f"complete -c {PROGRAM} -n {none} -a {command} -d {_fish_text(row[0])}")
        condition = f"__{PROGRAM}_with_command {command}"
        if _takes_id(command):
            lines.append(f"complete -c {PROGRAM} -n {_fish_text(condition)} -a '(__{PROGRAM}_ids)' -d container")
        if _arguments(command):
            words = " ".join(_arguments(command))
            lines.append(f"complete -c {PROGRAM} -n {_fish_text(condition)} -a {_fish_text(words)}")
        lines.extend(_fish_flags(_shown(row[5]), condition))
    lines.append(f"complete -c {PROGRAM} -n {none} -a help -d 'print help'")
    condition = f"__{PROGRAM}_with_command help"
    lines.append(f"complete -c {PROGRAM} -n {_fish_text(condition)} -a {_fish_text(' '.join(COMMANDS))}")
    return "\n".join(lines) + "\n"


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}
# Where each shell looks, below the data directory, and the name it looks for.
PLACES = {
    "bash": f"bash-completion/completions/{PROGRAM}",
    "zsh": f"zsh/site-functions/_{PROGRAM}",
    "fish": f"fish/vendor_completions.d/{PROGRAM}.fish",
}


def write_scripts(directory: str) -> "list[str]":
    """Write the scripts below a data directory (/usr/share, say), each where its shell looks; return their paths."""
    import os

    paths = []
    for shell, place in PLACES.items():
        path = os.path.join(directory, place)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(SHELLS[shell]())
        paths.append(path)
    return paths


if __name__ == "__main__":
    import sys

    if len(sys.argv) != 2:
        sys.exit("usage: python3 -m ociruntime.cli.completion DIRECTORY")
    print("\n".join(write_scripts(sys.argv[1])))
