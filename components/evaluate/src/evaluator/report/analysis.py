"""What several sections of a report need of the trials, computed once.

Letters: N trials.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evaluator.report.confusion import SpeakerIndex
from evaluator.report.data import ReportData
from evaluator.report.metric import Metric, metrics_at
from voxsrc.metrics import ErrorRates, OperatingPoint, eer_point, error_rates


@dataclass(frozen=True)
class Analysis:
    """The data with their error rates and numbered speakers."""

    data: ReportData

    @cached_property
    def is_target(self) -> NDArray[np.bool_]:
        """(N,) True for trials of one speaker."""
        return self.data.is_target

    @cached_property
    def speakers(self) -> SpeakerIndex:
        """The speakers of the trials as numbers; all the same if they are not known."""
        return SpeakerIndex.of(self.data.speakers or [("", "")] * len(self.is_target))

    @property
    def speakers_are_known(self) -> bool:
        """Whether any speaker has a name."""
        return any(self.speakers.names)

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics as they are shown."""
        return metrics_at(self.data.p_target)

    @cached_property
    def rates(self) -> list[ErrorRates]:
        """The error rates of each system's scores."""
        return [error_rates(system.scores, self.is_target) for system in self.data.systems]

    @cached_property
    def llr_rates(self) -> list[ErrorRates | None]:
        """The error rates of each system's log-likelihood ratios, None where there are none."""
        return [
            None if system.llrs is None else error_rates(system.llrs, self.is_target)
            for system in self.data.systems
        ]

    @cached_property
    def equal_error(self) -> OperatingPoint:
        """The main system's operating point of equal errors: what is wrong is wrong there."""
        return eer_point(self.rates[0])

    @cached_property
    def is_accepted(self) -> NDArray[np.bool_]:
        """(N,) whether the main system accepts a trial at that point."""
        accepted: NDArray[np.bool_] = np.asarray(self.data.main.scores) >= self.equal_error.threshold
        return accepted

    @property
    def num_targets(self) -> int:
        """Trials of one speaker."""
        return int(self.is_target.sum())

    @property
    def num_others(self) -> int:
        """Trials of two speakers."""
        return len(self.is_target) - self.num_targets
