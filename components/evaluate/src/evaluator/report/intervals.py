"""Intervals over speakers of what the report itself computes; those of whole systems come with the data.

Letters: N trials, R resamples, Q points of a curve.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluator.report.data import Estimate, FloatArray
from voxsrc.metrics import (
    ErrorRates,
    MetricError,
    Statistic,
    equal_error_rate,
    error_rates,
    min_dcf,
    resample,
)

# About 15 ns each on one core: a report of many trials takes seconds, at the price of coarser intervals.
_MOST_WEIGHTS = 100_000_000
_MOST_RESAMPLES = 500
_FEWEST_RESAMPLES = 100


@dataclass(frozen=True)
class Band:
    """The 95 % interval, point by point, of a DET curve.

    Attributes:
        false_accepts: (Q,) rates, rising.
        low: (Q,) lower ends of the false rejects there.
        high: (Q,) upper ends.
    """

    false_accepts: FloatArray
    low: FloatArray
    high: FloatArray


def affordable_resamples(num_weights: int) -> int:
    """How many resamples are drawn if each takes so many weights of trials, over all that is resampled."""
    return int(np.clip(_MOST_WEIGHTS // max(num_weights, 1), _FEWEST_RESAMPLES, _MOST_RESAMPLES))


def group_estimates(
    scores: FloatArray,
    is_target: NDArray[np.bool_],
    pairs: NDArray[np.int64],
    p_target: float,
    num_resamples: int,
) -> dict[str, Estimate]:
    """EER and minDCF of some trials.

    Args:
        scores: (N,) scores.
        is_target: (N,) both kinds.
        pairs: (N, 2) speakers by number.
        p_target: Of minDCF.
        num_resamples: R.
    """
    statistics: dict[str, Statistic] = {
        "eer": equal_error_rate,
        "min_dcf": lambda rates: min_dcf(rates, p_target),
    }
    try:
        drawn = resample(statistics, scores, is_target, pairs, num_resamples=num_resamples)
    except MetricError:
        # Too few speakers to draw others: the numbers themselves are known all the same.
        rates = error_rates(scores, is_target)
        return {name: Estimate(statistic(rates)) for name, statistic in statistics.items()}
    intervals = {name: drawn.interval(name) for name in statistics}
    return {
        name: Estimate(drawn.estimates[name], interval.low, interval.high)
        for name, interval in intervals.items()
    }


def det_band(
    scores: FloatArray,
    is_target: NDArray[np.bool_],
    pairs: NDArray[np.int64],
    false_accepts: FloatArray,
    num_resamples: int,
) -> Band | None:
    """Where the DET curve would lie with other speakers; None if there are too few speakers to draw others.

    Args:
        scores: (N,) scores.
        is_target: (N,) both kinds.
        pairs: (N, 2) speakers by number.
        false_accepts: (Q,) rates at which the interval of false rejects is wanted, rising.
        num_resamples: R.
    """
    statistics = {str(number): _rejects_at(float(rate)) for number, rate in enumerate(false_accepts)}
    try:
        drawn = resample(statistics, scores, is_target, pairs, num_resamples=num_resamples)
    except MetricError:
        return None
    intervals = [drawn.interval(name) for name in statistics]
    return Band(
        false_accepts,
        np.array([interval.low for interval in intervals]),
        np.array([interval.high for interval in intervals]),
    )


def _rejects_at(false_accepts: float) -> Callable[[ErrorRates], float]:
    """The least false rejects with no more than these false accepts."""

    def statistic(rates: ErrorRates) -> float:
        return float(
            rates.false_rejects[np.searchsorted(rates.false_accepts, false_accepts, side="right") - 1]
        )

    return statistic
