"""SIGTERM: a preemption announces itself, sometimes; the loop may try a last save within about a second."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self


class StopRequest:
    """Notes SIGTERM while the `with` block runs; the loop asks `requested` after each step.

    Only the main thread can use it, as Python delivers signals there. Nothing relies on the signal: a machine
    may vanish without, or end the process before a save is done.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGTERM, self._before)
