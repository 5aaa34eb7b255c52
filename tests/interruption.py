"""Runs `feature-extractor` again and again and kills it by SIGKILL at a chosen instant.

A server process imports everything once and forks a child for each run, so that a kill costs no more than
the run itself. As the subreaper of its descendants it notices any that outlive the child.
"""

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

_PR_SET_CHILD_SUBREAPER = 36
_LONGEST_RUN_S = 60.0
_LONGEST_ORPHAN_S = 10.0
# What a write is made of, as Python's audit events name it; each is preceded by one.
_OPERATIONS = {"open", "os.mkdir", "os.truncate", "os.utime", "os.rename", "os.remove"}


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: Its exit code, negative the signal that killed it.
        seconds: How long it took.
        orphans_s: How long processes that it had started outlived it.
    """

    code: int
    seconds: float
    orphans_s: float

    @property
    def killed(self) -> bool:
        """Whether it was killed before its end."""
        return self.code == -signal.SIGKILL


class Extractions:
    """Use as a context manager. `log` is the file that takes what the runs print."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def __enter__(self) -> Self:
        command = [sys.executable, __file__]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate()

    def run(
        self,
        arguments: Sequence[str],
        *,
        kill_after_s: float = _LONGEST_RUN_S,
        kill_at_operation: int = 0,
        below: Path = Path("/"),
    ) -> Ended:
        """Runs once.

        Args:
            arguments: Of the command.
            kill_after_s: Seconds until the kill.
            kill_at_operation: 1 kills before the first operation on files below `below`, and so on.
            below: See `kill_at_operation`.
        """
        assert self._server.stdin
        assert self._server.stdout
        request = {
            "arguments": list(arguments),
            "kill_after_s": kill_after_s,
            "kill_at_operation": kill_at_operation,
            "below": str(below),
            "log": str(self._log),
        }
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return Ended(**json.loads(self._server.stdout.readline()))


def _serve() -> None:
    for module in ("feature_extractor.extraction", "feature_extractor.finishing"):
        importlib.import_module(module)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for line in sys.stdin:
        print(json.dumps(_perform(json.loads(line))), flush=True)


def _perform(request: dict[str, Any]) -> dict[str, float]:
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _extract(request)
    reaped, status = 0, 0
    while not reaped:
        left_s = began + request["kill_after_s"] - time.monotonic()
        if left_s <= 0 or signal.sigtimedwait({signal.SIGCHLD}, left_s) is None:
            os.kill(child, signal.SIGKILL)
            reaped, status = os.waitpid(child, 0)
        else:
            reaped, status = os.waitpid(child, os.WNOHANG)
    ended = time.monotonic()
    _await_orphans(child, ended + _LONGEST_ORPHAN_S)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": ended - began,
        "orphans_s": time.monotonic() - ended,
    }


def _await_orphans(group: int, until: float) -> None:
    """Returns when no descendant is left; kills those that are left at `until`."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        left_s = until - time.monotonic()
        if left_s <= 0 or signal.sigtimedwait({signal.SIGCHLD}, left_s) is None:
            os.killpg(group, signal.SIGKILL)


def _extract(request: dict[str, Any]) -> NoReturn:
    from feature_extractor.cli import main

    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    # SIGKILL takes nothing from what the kernel has already; only a power failure would.
    os.fsync = lambda fd: None
    if request["kill_at_operation"]:
        _kill_at_operation(request["kill_at_operation"], request["below"])
    code = main(request["arguments"])
    sys.stdout.flush()
    os._exit(code)


def _kill_at_operation(number: int, below: str) -> None:
    seen = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        # An operation on an open file names its descriptor.
        if event in _OPERATIONS and (isinstance(arguments[0], int) or str(arguments[0]).startswith(below)):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


if __name__ == "__main__":
    _serve()
