"""How fast a training goes: crops per second, share of time waiting for data, time left."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from tqdm import tqdm

from trainer.history import Boards

_T = TypeVar("_T")

_TERMINAL_INTERVAL_S = 0.2
# A log is not a terminal: there a line every half minute is enough.
_LOG_INTERVAL_S = 30.0
_REPORT_KEYS = ("loss", "accuracy", "learning_rate", "margin", "validation_eer")


class Meter:
    """Times a training and shows it in a progress bar and on the boards.

    Args:
        first_step: Steps done before.
        num_steps: Steps in all.
        boards: Where values go; None is nowhere.
        show: Draw the progress bar.
    """

    def __init__(self, first_step: int, num_steps: int, boards: Boards | None, *, show: bool) -> None:
        self._boards = boards
        self._bar = tqdm(
            total=num_steps,
            initial=first_step,
            desc="training",
            unit=" steps",
            disable=not show,
            mininterval=_TERMINAL_INTERVAL_S if sys.stderr.isatty() else _LOG_INTERVAL_S,
            smoothing=0.05,
        )
        self._shown: dict[str, str] = {}
        self._restart()

    def _restart(self) -> None:
        self._began = time.perf_counter()
        self._waited_s = self._paused_s = 0.0
        self._crops = 0

    def waiting(self, batches: Iterable[_T]) -> Iterator[_T]:
        """The batches, the time until each is there being counted as waiting."""
        iterator = iter(batches)
        while True:
            began = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited_s += time.perf_counter() - began
            yield batch

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Time that is not training's: a validation."""
        began = time.perf_counter()
        yield
        self._paused_s += time.perf_counter() - began

    def skip(self, num_steps: int) -> None:
        """Moves on by steps that will not be done."""
        self._bar.update(num_steps)

    def step_done(self, num_crops: int, row: Mapping[str, Any] | None = None) -> None:
        """Counts a step; with a row of the history, reports since the last one."""
        self._crops += num_crops
        if row is None:
            self._bar.update()
            return
        elapsed_s = max(time.perf_counter() - self._began - self._paused_s, 1e-9)
        rates = {
            "speed/crops_per_s": self._crops / elapsed_s,
            "speed/data_wait_percent": 100.0 * self._waited_s / elapsed_s,
        }
        if self._boards is not None:
            values = {f"training/{name}": row[name] for name in _REPORT_KEYS if name in row}
            self._boards.add(row["step"], {**values, **rates})
        if "loss" in row:
            self._shown["loss"] = f"{row['loss']:.3f}"
        if "validation_eer" in row:
            self._shown["EER"] = f"{100 * row['validation_eer']:.2f} %"
        self._shown["crops/s"] = f"{rates['speed/crops_per_s']:,.0f}"
        self._shown["data wait"] = f"{rates['speed/data_wait_percent']:.1f} %"
        self._bar.set_postfix(self._shown, refresh=False)
        self._bar.update()
        self._restart()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.refresh()
        self._bar.close()
