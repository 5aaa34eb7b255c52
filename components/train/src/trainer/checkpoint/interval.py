"""When to save: often enough to lose little in a preemption, seldom enough to cost little."""

import time
from collections.abc import Callable

from trainer.checkpoint.saver import SaveReport
from voxsrc.checkpoint_interval import (
    LONGEST_INTERVAL_S,
    MEAN_TIME_BETWEEN_PREEMPTIONS_S,
    SHORTEST_INTERVAL_S,
    interval_s,
)
from voxsrc.errors import ConfigError

_MEMORY = 0.5  # weight of what was known before against the newest save


class SaveSchedule:
    """Says when to save, by the clock and by what saves have cost so far.

    Args:
        fixed_s: Seconds between saves, instead of the optimum; 0 saves after every step.
        mean_time_between_preemptions_s: What to expect of the machines.
        shortest_s: Lower limit of the optimum, and the interval until a save has been measured.
        longest_s: Upper limit of the optimum.
        monotonic: Seconds of a clock that never jumps.

    Raises:
        ConfigError: A time is negative, or a limit or the mean time not positive.
    """

    def __init__(
        self,
        *,
        fixed_s: float | None = None,
        mean_time_between_preemptions_s: float = MEAN_TIME_BETWEEN_PREEMPTIONS_S,
        shortest_s: float = SHORTEST_INTERVAL_S,
        longest_s: float = LONGEST_INTERVAL_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if fixed_s is not None and not fixed_s >= 0:
            raise ConfigError(f"checkpoint_interval_s is {fixed_s}; expected 0 or more seconds, or none")
        if not mean_time_between_preemptions_s > 0:
            raise ConfigError(
                f"mean_time_between_preemptions_s is {mean_time_between_preemptions_s}; expected more than 0"
            )
        if not 0 < shortest_s <= longest_s:
            raise ConfigError(
                f"the limits of the checkpoint interval are {shortest_s} and {longest_s} s; "
                "expected 0 < shortest <= longest"
            )
        self._fixed_s = fixed_s
        self._mean_time_s = mean_time_between_preemptions_s
        self._shortest_s = shortest_s
        self._longest_s = longest_s
        self._monotonic = monotonic
        self._last_s = monotonic()
        self._measured: tuple[float, float] | None = None  # delay, whole save

    @property
    def interval_s(self) -> float:
        """Seconds between saves, as of now."""
        if self._fixed_s is not None:
            return self._fixed_s
        if self._measured is None:
            return self._shortest_s
        delay_s, save_s = self._measured
        return interval_s(
            save_s,
            self._mean_time_s,
            delay_s=delay_s,
            shortest_s=self._shortest_s,
            longest_s=self._longest_s,
        )

    def due(self) -> bool:
        """Whether it is time to save."""
        return self._monotonic() - self._last_s >= self.interval_s

    def started(self) -> None:
        """A save was submitted: the time to the next one runs."""
        self._last_s = self._monotonic()

    def measured(self, report: SaveReport) -> None:
        """Adapts to what a save has cost; one that failed tells nothing."""
        if report.error is not None:
            return
        newest = (report.copy_s, report.copy_s + report.write_s)
        before = self._measured or newest
        self._measured = (
            _MEMORY * before[0] + (1 - _MEMORY) * newest[0],
            _MEMORY * before[1] + (1 - _MEMORY) * newest[1],
        )
