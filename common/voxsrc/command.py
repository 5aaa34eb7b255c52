"""What every command of the project does alike: errors and warnings in one line, `--debug`, its end."""

import argparse
import logging
import os
import re
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

from voxsrc.errors import VoxsrcError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
# What a shell shows of a tool that SIGPIPE ended.
EXIT_BROKEN_PIPE = 141
# And of one that SIGTERM ended.
EXIT_TERMINATED = 143

# A value may end in the same sign: `--set=augment.noise.features=`.
_EMPTY_OPTION = re.compile(r"--[\w-]+=")
_OUR_PACKAGES = ("voxsrc", "feature_extractor", "trainer", "evaluator", "voxceleb_data")
# Where a package is imported by another name than it is installed by.
_INSTALLED_AS = {
    "yaml": "pyyaml",
    "google": "google-cloud-storage",
    "google_crc32c": "google-crc32c",
    "kfp_server_api": "kfp",
}


def add_debug_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--debug`, which `run_command` reads."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def warn(message: str) -> None:
    """Shows a warning: one line on stderr."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def configure_logging() -> None:
    """Has what is logged shown on stderr as `warn` shows it, from warnings on.

    A program that lowers the level of its own logger shows what is no warning, too, as it is.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_LogFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


class _LogFormatter(logging.Formatter):
    """`warning: …` and `error: …`; of lower levels the message alone."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, followed by a traceback if one is logged."""
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


def run_command(function: Callable[[argparse.Namespace], int | None], parsed: argparse.Namespace) -> int:
    """Runs a subcommand; an expected error becomes one message on stderr.

    Expected errors are our own, the machine's (a full disk, say) and packages that are not installed.
    If nobody reads the output any more, as after `| head`, nothing is said.

    Returns:
        The exit code: what `function` returns, 0 if None; 1 for an expected error; 130 for Ctrl-C; 141 for
        output that nobody reads.
    """
    try:
        code = _run(function, parsed)
        # Here, where it can be caught, and not when the interpreter exits.
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # It may as well be the pipe to a process of ours, whose end is an error.
        if not _silence_unread_streams():
            raise
        return EXIT_BROKEN_PIPE


def run_terminable_command(
    function: Callable[[argparse.Namespace], int | None], parsed: argparse.Namespace
) -> int:
    """As `run_command`, but SIGTERM unwinds the stack: temporary folders go, leases are released.

    A second SIGTERM ends the process on the spot.

    Returns:
        The exit code; 143 after SIGTERM.
    """
    try:
        with _unwound_by_sigterm():
            return run_command(function, parsed)
    except _Terminated:
        print("terminated; what is finished is kept", file=sys.stderr)
        return EXIT_TERMINATED


class _Terminated(SystemExit):
    """SIGTERM has come."""


@contextmanager
def _unwound_by_sigterm() -> Iterator[None]:
    """Has SIGTERM raise `_Terminated`."""

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise _Terminated(EXIT_TERMINATED)

    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(function: Callable[[argparse.Namespace], int | None], parsed: argparse.Namespace) -> int:
    try:
        return function(parsed) or 0
    except BrokenPipeError:
        raise
    except (VoxsrcError, OSError) as error:
        return _failed(str(error), parsed)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in _OUR_PACKAGES:
            raise
        return _failed(_told_missing(package), parsed)
    except KeyboardInterrupt:
        print("interrupted; what is finished is kept", file=sys.stderr)
        return EXIT_INTERRUPTED


def _failed(message: str, parsed: argparse.Namespace) -> int:
    """Shows the error that is being handled; the exit code."""
    if getattr(parsed, "debug", False):
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return EXIT_FAILED


def _told_missing(package: str) -> str:
    """That a package is not installed, and which of our extras would bring it."""
    message = f"the Python package {package} is not installed in {sys.prefix}"
    extras = _extras_with(_INSTALLED_AS.get(package, package))
    if not extras:
        return f"{message}; install it there"
    either = " or ".join(extras)
    demo = (
        "" if extras == ["pipelines"] else ", or run `make demo`, which installs all that the components use"
    )
    return (
        f"{message}; this command needs the extra {either}: install it in the repository with "
        f"`{sys.executable} -m pip install --editable '.[{extras[0]}]'`{demo}"
    )


def _extras_with(distribution: str) -> list[str]:
    """Our extras, but for that of development, that install a distribution."""
    import importlib.metadata

    try:
        requirements = importlib.metadata.requires("voxsrc") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    wanted = re.compile(rf"{re.escape(distribution)}(?![\w.-]).*\bextra == ['\"]([^'\"]+)", re.IGNORECASE)
    found = {match[1] for line in requirements if (match := wanted.match(line))}
    return sorted(found - {"dev"})


def _silence_unread_streams() -> bool:
    """Leads stdout and stderr to nowhere where nobody reads them; whether that was so of either."""
    unread = [stream for stream in (sys.stdout, sys.stderr) if _is_unread(stream)]
    for stream in unread:
        # The interpreter flushes them at its exit, and would tell of what it cannot write.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    return bool(unread)


def _is_unread(stream: TextIO | None) -> bool:
    try:
        descriptor = stream.fileno() if stream is not None else -1
    except (OSError, ValueError):
        return False  # no file, say in a test
    if descriptor < 0:
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))


def without_empty_options(arguments: Sequence[str]) -> list[str]:
    """Leaves out options with an empty value, `--name ""` and `--name=`: Kubeflow cannot leave one out."""
    kept: list[str] = []
    for argument in arguments:
        if argument == "" and kept and kept[-1].startswith("--"):
            kept.pop()
        elif not _EMPTY_OPTION.fullmatch(argument):
            kept.append(argument)
    return kept
