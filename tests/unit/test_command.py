"""How commands end: errors of one line, packages that are missing, output that nobody reads."""

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from voxsrc import command
from voxsrc.command import run_command, run_terminable_command
from voxsrc.errors import ConfigError

QUIET = argparse.Namespace(debug=False)
DEBUG = argparse.Namespace(debug=True)

PROGRAM = """
import argparse, sys
from voxsrc.command import run_command

def function(parsed):
    {body}

sys.exit(run_command(function, argparse.Namespace()))
"""


def raising(error: BaseException) -> Callable[[argparse.Namespace], int | None]:
    def function(parsed: argparse.Namespace) -> int | None:
        raise error

    return function


def importing(module: str) -> Callable[[argparse.Namespace], int | None]:
    def function(parsed: argparse.Namespace) -> int | None:
        __import__(module)
        return None

    return function


def test_exit_codes() -> None:
    assert run_command(lambda parsed: None, QUIET) == 0
    assert run_command(lambda parsed: 7, QUIET) == 7
    assert run_command(raising(KeyboardInterrupt()), QUIET) == 130


@pytest.mark.parametrize(
    "error", [ConfigError("--step is 0"), OSError(28, "No space left on device", "/full/disk")]
)
def test_an_expected_error_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(raising(error), QUIET) == 1
    assert capsys.readouterr().err == f"error: {error}\n"
    assert run_command(raising(error), DEBUG) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith(f"error: {error}\n")


def test_an_error_of_the_program_is_no_message() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda parsed: 1 // 0, QUIET)


@pytest.mark.parametrize(
    ("package", "module", "told"),
    [
        ("torch", "torch.nn", "the extra evaluate or train: "),
        ("yaml", "yaml", "the extra evaluate or pipelines or train: "),
        ("kfp", "kfp.kubernetes", "the extra pipelines: "),
        ("kfp_server_api", "kfp_server_api", "the extra pipelines: "),
        ("onnx", "onnx", "the extra train: "),  # and not for the sake of onnxruntime
        ("wandb", "wandb", "install it there"),
        ("pyarrow", "pyarrow", "install it there"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    package: str,
    module: str,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, module, None)
    assert run_command(importing(module), QUIET) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: the Python package {package} is not installed in {sys.prefix}; ")
    assert told in shown
    assert shown.count("\n") == 1
    assert run_command(importing(module), DEBUG) == 1
    assert "ModuleNotFoundError" in capsys.readouterr().err


def test_only_what_has_no_torch_is_told_of_the_demo(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for package, helps in (("torch", True), ("kfp", False)):
        monkeypatch.setitem(sys.modules, package, None)
        run_command(importing(package), QUIET)
        assert ("`make demo`" in capsys.readouterr().err) == helps


def test_a_missing_module_of_our_own_is_an_error_of_the_program() -> None:
    with pytest.raises(ModuleNotFoundError):
        run_command(importing("voxsrc.nowhere"), QUIET)
    with pytest.raises(ModuleNotFoundError):
        run_command(raising(ModuleNotFoundError("of nobody knows what")), QUIET)


def test_without_metadata_the_package_is_still_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(name: str) -> list[str]:
        raise command_metadata.PackageNotFoundError(name)

    import importlib.metadata as command_metadata

    monkeypatch.setattr(command_metadata, "requires", nothing)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run_command(importing("torch"), QUIET) == 1
    assert "torch is not installed" in capsys.readouterr().err


def ended(body: str, *, read: int, errors_too: bool = False) -> tuple[int, str]:
    """Exit code and stderr of a program of which `read` bytes are read before its output is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if errors_too else subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdin is not None
    process.stdout.read(read)
    process.stdout.close()
    process.stdin.close()
    errors = b"" if process.stderr is None else process.stderr.read()
    return process.wait(), errors.decode()


# The program waits until its output is closed.
AFTER = "sys.stdin.read(); "


@pytest.mark.parametrize(
    "body",
    [
        "print('line\\n' * 500_000)",
        AFTER + "print('a line that is still buffered')",
        AFTER + "print('a line', flush=True)",
        AFTER + "print('a line'); return 3",
    ],
)
@pytest.mark.parametrize("errors_too", [False, True])
def test_output_that_nobody_reads_ends_it_quietly(body: str, errors_too: bool) -> None:
    read = 0 if body.startswith(AFTER) else 10
    assert ended(body, read=read, errors_too=errors_too) == (command.EXIT_BROKEN_PIPE, "")


def test_another_broken_pipe_is_an_error() -> None:
    with pytest.raises(BrokenPipeError):
        run_command(raising(BrokenPipeError(32, "a worker is gone")), QUIET)


def test_output_that_is_closed_from_the_start_is_no_error() -> None:
    code = PROGRAM.format(body="print('to nobody')")
    shell = f'exec {sys.executable} -c "$1" >&-'
    done = subprocess.run(["sh", "-c", shell, "sh", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_sigterm_unwinds_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    left = []

    def function(parsed: argparse.Namespace) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            left.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    assert run_terminable_command(function, QUIET) == 143
    assert capsys.readouterr().err == "terminated; what is finished is kept\n"
    assert left == [signal.SIG_DFL]  # a second one would end the process
    assert signal.getsignal(signal.SIGTERM) is before
