"""Options of a decision are checked before a model is loaded and speakers are enrolled."""

import pytest

from voxsrc import cli

IDENTIFY = ["identify", "p.wav", "--enrolled", "no-such-folder", "--model", "no-such-model"]
VERIFY = ["verify", "a.wav", "b.wav", "--model", "no-such-model"]


@pytest.mark.parametrize(
    ("command", "option", "value", "expected"),
    [
        (IDENTIFY, "--top", "0", "at least 1"),
        (IDENTIFY, "--prior", "2", "a probability between 0 and 1"),
        (IDENTIFY, "--prior", "nan", "a probability between 0 and 1"),
        (IDENTIFY, "--threshold", "1.5", "a cosine from -1 to 1"),
        (VERIFY, "--prior", "0", "a probability between 0 and 1"),
        (VERIFY, "--threshold", "-2", "a cosine from -1 to 1"),
        (VERIFY, "--c-miss", "0", "a positive cost"),
        (VERIFY, "--c-fa", "inf", "a positive cost"),
    ],
)
def test_what_cannot_be_used_is_said_at_once(
    command: list[str], option: str, value: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, option, value]) == 1
    assert capsys.readouterr().err == f"error: {option} is {value}; expected {expected}\n"
