"""The parent's end of `training_child`: sides that take turns."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from machine import Machine
from timing import Spent

_PROGRAM = Path(__file__).with_name("training_child.py")
_LOG_CHARACTERS = 2000


class SideError(Exception):
    """A side ended before it was told to; says what it printed last."""


class Side:
    """A process that works when it is told to. Use as a context manager.

    Entering it starts the process and waits for a first turn of one repetition, in which everything is
    loaded, allocated and compiled.

    Args:
        machine: The cores that there are.
        what: What `training_child` is to do, without `cores`.
        log: File for all that the process prints.
        one_core: Only the machine's one core and one thread; otherwise all.

    Attributes:
        first: Figures of the first turn.
        answers: Figures of the turns since.
    """

    def __init__(
        self, machine: Machine, what: Mapping[str, Any], log: Path, *, one_core: bool = False
    ) -> None:
        cores = [machine.core] if one_core else list(machine.cores)
        self._argument = json.dumps({**what, "cores": cores})
        self._environment = {
            **(os.environ if one_core else machine.environment),
            # Its own: compiling would otherwise take seconds the first time, and none ever after.
            "TORCHINDUCTOR_CACHE_DIR": str(log.with_suffix(".inductor")),
        }
        self._log = log
        self.first: dict[str, Any] = {}
        self.answers: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        command = [sys.executable, str(_PROGRAM), self._argument]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            self.turn(1)
        except BaseException:
            self._end()
            raise
        self.first = self.answers.pop()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if error is None and self._process.returncode:
            raise self._failure()

    def turn(self, repetitions: int) -> Spent:
        """Lets the process work and waits for it.

        Raises:
            SideError: If it ended instead.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(f"{repetitions}\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            raise self._failure()
        answer: dict[str, Any] = json.loads(line)
        self.answers.append(answer)
        return Spent(answer["wall_s"], answer["cpu_s"])

    def _failure(self) -> SideError:
        printed = self._log.read_text(errors="replace")[-_LOG_CHARACTERS:]
        return SideError(f"{self._argument} ended with {self._process.returncode}: {printed}")

    def _end(self) -> None:
        self._process.communicate()


def take_turns(
    sides: Mapping[str, Side], repetitions: Mapping[str, int], num_rounds: int
) -> dict[str, list[Spent]]:
    """Lets all sides work one after the other, round after round; what each turn took, by side."""
    spent: dict[str, list[Spent]] = {name: [] for name in sides}
    for _ in range(num_rounds):
        for name, side in sides.items():
            spent[name].append(side.turn(repetitions[name]))
    return spent
