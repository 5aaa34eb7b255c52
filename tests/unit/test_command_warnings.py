"""Warnings look alike, shown or logged; an option is empty only if nothing follows its name."""

import subprocess
import sys

import pytest

from voxsrc.command import warn, without_empty_options

LOGGING = """
import logging
from voxsrc.command import configure_logging

configure_logging()
configure_logging()
logging.getLogger("trainer").setLevel(logging.INFO)
logging.getLogger("trainer").info("continuing after step %d", 3)
logging.getLogger("voxsrc.storage").info("not shown")
logging.getLogger("voxsrc.storage").warning("next try in %.1f s", 0.5)
logging.getLogger("evaluator").error("no report")
"""


def test_a_warning_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    warn("the list is short")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "warning: the list is short\n")


def test_what_is_logged_looks_like_a_warning_once() -> None:
    done = subprocess.run([sys.executable, "-c", LOGGING], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == "continuing after step 3\nwarning: next try in 0.5 s\nerror: no report\n"


@pytest.mark.parametrize("program", ["voxsrc", "feature_extractor", "trainer", "evaluator", "voxceleb_data"])
def test_every_program_shows_what_is_logged(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    cli = importlib.import_module(f"{program}.cli")
    calls: list[str] = []
    monkeypatch.setattr(cli, "configure_logging", lambda: calls.append("configured"))
    run = "run_terminable_command" if program in ("feature_extractor", "evaluator") else "run_command"
    monkeypatch.setattr(cli, run, lambda function, parsed: calls.append("run") or 0)
    arguments = {
        "voxsrc": ["features", "info", "set"],
        "feature_extractor": ["finish", "--output", "set"],
        "trainer": ["--recipe", "demo", "--features", "set", "--output", "run"],
        "evaluator": ["--model", "m", "--trials", "t", "--output", "o"],
        "voxceleb_data": ["verify", "folder"],
    }
    assert cli.main(arguments[program]) == 0
    assert calls == ["configured", "run"]


def test_empty_options_are_left_out_and_others_that_end_in_an_equals_sign_are_not() -> None:
    kept = ["--title=1+1=", "--set=augment.noise.features=", "--set", "augment.noise.features=", "last"]
    assert without_empty_options(kept) == kept
    assert without_empty_options(["--title=", "--max-rejected=", "--name", "", *kept]) == kept
