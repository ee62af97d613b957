"""Signal names and numbers, as ``kill`` takes them. Source: signal(7), x86_64 and aarch64 numbers."""

from ociruntime.errors import OCIError

NAMES = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8, "KILL": 9,
    "USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CLD": 17,
    "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26,
    "PROF": 27, "WINCH": 28, "IO": 29, "POLL": 29, "PWR": 30, "SYS": 31, "UNUSED": 31,
}  # fmt: skip
# The C library keeps 32 and 33 for its threads: its first real-time signal is 34, and names count from there.
RTMIN = 34
RTMAX = 64


def _decimal(text: str) -> int:
    """Return a decimal number of at most three digits, or -1."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 3 else -1


def number(text: str) -> int:
    """Return the number of a signal given as ``9``, ``KILL``, ``sigkill`` or ``RTMIN+3``; 0 probes.

    Raises OCIError when there is no such signal.
    """
    value = _decimal(text)
    if value < 0:
        name = text.upper().removeprefix("SIG")
        value = NAMES.get(name, -1)
        if value < 0 and name[:5] == "RTMIN":
            value = RTMIN if len(name) == 5 else _offset(name, "+", RTMIN, 1)
        elif value < 0 and name[:5] == "RTMAX":
            value = RTMAX if len(name) == 5 else _offset(name, "-", RTMAX, -1)
    if not 0 <= value <= RTMAX:
        raise OCIError(f"unknown signal '{text}'", hint="a name such as TERM or SIGTERM, or a number from 0 to 64")
    return value


def _offset(name: str, sign: str, base: int, direction: int) -> int:
    distance = _decimal(name[6:]) if name[5] == sign else -1
    value = base + direction * distance
    return value if distance >= 0 and RTMIN <= value <= RTMAX else -1
