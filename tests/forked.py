"""A process that imports everything once and forks a child for each run, so that a kill costs only the run.

As the subreaper of its descendants it notices any that outlive the children. Temporary files of runs that are
killed go with it.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, NoReturn, Self

_PR_SET_CHILD_SUBREAPER = 36
_LONGEST_ORPHAN_S = 60.0
_BROKEN = 70
# What reading and writing are made of, as Python's audit events name it; each is preceded by one.
_OPERATIONS = {
    "open",
    "os.mkdir",
    "os.truncate",
    "os.rename",
    "os.remove",
    "os.utime",
    "http.client.send",
}

Request = Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        codes: Exit code of each process, negative the signal that killed it.
        seconds: How long it took.
        text: What it printed, on standard output and standard error.
        left_over: Whether processes that it had started had to be killed after it.
    """

    codes: list[int]
    seconds: float
    text: str
    left_over: bool

    @property
    def killed(self) -> bool:
        """Whether it was killed before its end."""
        return -signal.SIGKILL in self.codes

    @property
    def succeeded(self) -> bool:
        """Whether all processes did."""
        return not any(self.codes)


class ForkServer:
    """The side of the tests. Use as a context manager.

    Args:
        program: A Python file that calls `serve`.
        variables: For its environment.

    Attributes:
        folder: For temporary files; it goes when the server ends.
    """

    def __init__(self, program: str, variables: Mapping[str, str] | None = None) -> None:
        self._program = program
        self._variables = variables or {}

    def __enter__(self) -> Self:
        self._temporary = TemporaryDirectory(prefix="voxsrc-tests-")
        self.folder = self._temporary.name
        self._server = subprocess.Popen(
            [sys.executable, self._program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **self._variables, "TMPDIR": self.folder},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate()
        self._temporary.cleanup()

    def fork(self, request: Request, *, processes: int = 1, kill_after_s: float | None = None) -> Ended:
        """Runs once.

        Args:
            request: For each process.
            processes: How many are forked.
            kill_after_s: Seconds until SIGKILL; None lets them run to their end.
        """
        assert self._server.stdin
        assert self._server.stdout
        message = {"processes": processes, "kill_after_s": kill_after_s, "request": request}
        self._server.stdin.write(json.dumps(message) + "\n")
        self._server.stdin.flush()
        return Ended(**json.loads(self._server.stdout.readline()))


def serve(run: Callable[[Request, int], int]) -> None:
    """Answers requests until there are no more: `run(request, rank)`, in a child, returns its exit code."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for line in sys.stdin:
        message = json.loads(line)
        request = message["request"]
        began = time.monotonic()
        log = os.memfd_create("log")
        children = []
        for rank in range(message["processes"]):
            if not (child := os.fork()):
                _become(run, request, rank, log)
            children.append(child)
        codes = _await_children(children, message["kill_after_s"])
        seconds = time.monotonic() - began
        left_over = _await_orphans(children)
        with os.fdopen(log, "rb") as file:
            file.seek(0)
            text = file.read().decode()
        answer = {"codes": codes, "seconds": seconds, "text": text, "left_over": left_over}
        print(json.dumps(answer), flush=True)


def _become(run: Callable[[Request, int], int], request: Request, rank: int, log: int) -> NoReturn:
    code = _BROKEN
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        # SIGKILL takes nothing from what the kernel has already; only a power failure would.
        os.fsync = lambda fd: None
        code = run(request, rank)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _await_children(children: Sequence[int], kill_after_s: float | None) -> list[int]:
    until = None if kill_after_s is None else time.monotonic() + kill_after_s
    codes: dict[int, int] = {}
    while True:
        for child in children:
            if child not in codes and (ended := os.waitpid(child, os.WNOHANG))[0]:
                codes[child] = os.waitstatus_to_exitcode(ended[1])
        if len(codes) == len(children):
            return [codes[child] for child in children]
        if not _await_signal(until):
            for child in children:
                if child not in codes:
                    os.kill(child, signal.SIGKILL)
            until = None


def _await_orphans(groups: Sequence[int]) -> bool:
    """Returns when no descendant is left: whether those of these groups had to be killed for that."""
    until: float | None = time.monotonic() + _LONGEST_ORPHAN_S
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return until is None
        if not _await_signal(until):
            for group in groups:
                os.killpg(group, signal.SIGKILL)
            until = None


def _await_signal(until: float | None) -> bool:
    """Whether a child's end was signalled before this instant."""
    if until is None:
        signal.sigwait({signal.SIGCHLD})
        return True
    left_s = until - time.monotonic()
    return left_s > 0 and signal.sigtimedwait({signal.SIGCHLD}, left_s) is not None


def kill_at_operation(number: int, below: str | Path = "") -> None:
    """From now on: this process dies by SIGKILL before its n-th operation on files below a folder.

    Args:
        number: 1 kills before the first one.
        below: Without it, any operation on a file or a bucket counts.
    """
    seen = 0
    beginning = str(below)

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in _OPERATIONS:
            return
        # An operation on an open file names its descriptor.
        if isinstance(arguments[0], int) or str(arguments[0]).startswith(beginning):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
