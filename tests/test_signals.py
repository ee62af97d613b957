import signal

import pytest

from ociruntime import signals
from ociruntime.errors import OCIError


@pytest.mark.parametrize("member", [m for m in signal.Signals if m.name.startswith("SIG") and "RT" not in m.name])
def test_every_name_of_this_machine(member: signal.Signals) -> None:
    for text in (member.name, member.name[3:], member.name.lower(), str(int(member))):
        assert signals.number(text) == member


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("64", 64),
        ("009", 9),
        ("Kill", 9),
        ("SIGRTMIN", signal.SIGRTMIN),
        ("RTMIN+3", signal.SIGRTMIN + 3),
        ("rtmax", signal.SIGRTMAX),
        ("SIGRTMAX-2", signal.SIGRTMAX - 2),
        ("RTMIN+30", 64),
        ("RTMAX-30", 34),
    ],
)
def test_numbers_and_real_time_signals(text: str, number: int) -> None:
    assert signals.number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SIG",
        "NOPE",
        "65",
        "-1",
        "1.5",
        "9x",
        " 9",
        "RTMIN+31",
        "RTMAX-31",
        "RTMIN-1",
        "RTMAX+1",
        "RTMIN+",
        "٣",
        "RTMINI3",
    ],
)
def test_unknown(text: str) -> None:
    with pytest.raises(OCIError, match="unknown signal"):
        signals.number(text)
