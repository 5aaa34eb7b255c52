"""Error rates of verification scores, and the two numbers that the VoxSRC challenge ranks by.

Letters: N trials, P operating points.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxsrc.errors import VoxsrcError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

Ties = Literal["together", "as_listed"]


class MetricError(VoxsrcError):
    """Scores or labels of which a number cannot be computed."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and the error rates of accepting what is not below it."""

    threshold: float
    false_accepts: float
    false_rejects: float


@dataclass(frozen=True, eq=False)
class ErrorRates:
    """The operating points of a set of scores, from accepting nothing to accepting everything.

    They determine every number of this package: how many trials of each kind lie at a score is the difference
    of two neighbouring points.

    Attributes:
        thresholds: (P,) scores at or above which a trial is accepted, falling; the first is +inf.
        false_accepts: (P,) fraction of non-target trials accepted, rising from 0 to 1.
        false_rejects: (P,) fraction of target trials rejected, falling from 1 to 0.
    """

    thresholds: FloatArray
    false_accepts: FloatArray
    false_rejects: FloatArray

    def at(self, points: IntArray) -> "ErrorRates":
        """Some of the operating points, by their places."""
        return ErrorRates(self.thresholds[points], self.false_accepts[points], self.false_rejects[points])

    def point(self, place: int) -> OperatingPoint:
        """One operating point, by its place."""
        return OperatingPoint(
            float(self.thresholds[place]), float(self.false_accepts[place]), float(self.false_rejects[place])
        )


# A number that the operating points determine: `equal_error_rate`, `min_dcf`, `cllr_of_rates`, …
Statistic = Callable[[ErrorRates], float]


def error_rates(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, *, ties: Ties = "together"
) -> ErrorRates:
    """The error rates at every threshold.

    Args:
        scores: (N,) higher for the same speaker.
        labels: (N,) 1 for target trials, 0 for non-target trials.
        weights: (N,) how often each trial counts; 1 if not given.
        ties: What becomes of equal scores. "together": no threshold separates them, so they are accepted
            together; the order of the trials does not matter. "as_listed": each trial is a threshold of its
            own, the later in the list accepted first. That is what the challenge's compute_min_dcf.py (from
            Kaldi) does, which so can print less than any threshold reaches, depending on the order.

    Raises:
        MetricError: If lengths differ, a score or weight is not finite, a weight is negative, a label is
            neither 0 nor 1, or one of the two kinds of trials is missing.
    """
    trials = SortedTrials(scores, labels, ties=ties)
    if weights is None:
        return trials.rates()
    weight = np.asarray(weights, np.float64)
    if weight.shape != (trials.num_trials,):
        raise MetricError(f"{weight.shape} weights for {trials.num_trials} trials; expected one for each")
    refuse_non_finite(weight, "weight")
    if weight.size and weight.min() < 0:
        raise MetricError(f"weight {int(weight.argmin())} is {weight.min()}; expected none below 0")
    return trials.rates(weight[trials.order])


class SortedTrials:
    """Trials in falling order of score, sorted once for rates under many weights.

    Args:
        scores: (N,) higher for the same speaker.
        labels: (N,) 1 for target trials, 0 for non-target trials.
        ties: See `error_rates`.

    Attributes:
        order: (N,) place in the list of the trial with the highest score, of the next, and so on.
        is_target: (N,) whether each is a target trial, in that order.

    Raises:
        MetricError: See `error_rates`; missing kinds of trials are noticed by `rates`.
    """

    def __init__(self, scores: ArrayLike, labels: ArrayLike, *, ties: Ties = "together") -> None:
        score, label = np.asarray(scores, np.float64), np.asarray(labels)
        if score.shape != label.shape or score.ndim != 1:
            raise MetricError(f"{score.shape} scores and {label.shape} labels; expected two equal lengths")
        refuse_non_finite(score, "score")
        is_target = label == 1
        if not (is_target | (label == 0)).all():
            raise MetricError(f"labels are {sorted(set(label.tolist()))[:5]}; expected 0 and 1")
        # Stable only where the order of equal scores shows in the result: the other sort is much faster.
        self.order: IntArray = (
            np.argsort(-score) if ties == "together" else np.argsort(score, kind="stable")[::-1]
        )
        self.is_target: BoolArray = is_target[self.order]
        ordered = score[self.order]
        self._last_of_equal: IntArray | None = None
        if ties == "together":
            ends = np.append(ordered[1:] != ordered[:-1], True) if len(ordered) else np.zeros(0, bool)
            if not ends.all():
                self._last_of_equal = np.flatnonzero(ends)
        self._thresholds = np.concatenate([[np.inf], self._at_thresholds(ordered)])

    @property
    def num_trials(self) -> int:
        """N."""
        return len(self.order)

    def rates(self, weights: FloatArray | None = None) -> ErrorRates:
        """The error rates.

        Args:
            weights: (N,) finite, not negative, in the sorted order; 1 each if not given.

        Raises:
            MetricError: If one of the two kinds of trials is missing, or weighs nothing.
        """
        rates = self.rates_if_both_kinds(weights)
        if rates is None:
            num_targets = int(self.is_target.sum())
            raise MetricError(
                f"{num_targets} target and {self.num_trials - num_targets} non-target trials"
                f"{'' if weights is None else ', weighted'}; both kinds are needed"
            )
        return rates

    def rates_if_both_kinds(self, weights: FloatArray | None = None) -> ErrorRates | None:
        """As `rates`, but None if one of the two kinds of trials is missing, or weighs nothing."""
        if not self.num_trials:
            return None
        accepted_targets: NDArray[Any]
        accepted_others: NDArray[Any]
        if weights is None:
            accepted_targets = np.cumsum(self.is_target)
            accepted_others = np.arange(1, self.num_trials + 1) - accepted_targets
        else:
            of_targets = weights * self.is_target
            accepted_targets = np.cumsum(of_targets)
            accepted_others = np.cumsum(weights - of_targets)
        target_weight, other_weight = accepted_targets[-1], accepted_others[-1]
        if target_weight <= 0 or other_weight <= 0:
            return None
        false_accepts, false_rejects = np.empty((2, len(self._thresholds)))
        false_accepts[0], false_rejects[0] = 0.0, 1.0
        np.divide(self._at_thresholds(accepted_others), other_weight, out=false_accepts[1:])
        rejected_targets = target_weight - self._at_thresholds(accepted_targets)
        np.divide(rejected_targets, target_weight, out=false_rejects[1:])
        return ErrorRates(self._thresholds, false_accepts, false_rejects)

    def _at_thresholds(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self._last_of_equal is None else values[self._last_of_equal]


def equal_error_rate(rates: ErrorRates) -> float:
    """The error rate, in [0, 1], where both kinds are equal, by linear interpolation on the ROC.

    Equal to the challenge's compute_EER.py, ties included: the root of 1 - x - TPR(x) for FPR x, where TPR is
    the line through the points of the ROC. voxceleb_trainer's tuneThreshold.py prints instead the larger of
    the two rates at the point where they differ least, at most one step of the ROC away.
    """
    difference = rates.false_rejects - rates.false_accepts
    after = int(np.argmax(difference <= 0))
    before = after - 1
    part = difference[before] / (difference[before] - difference[after])
    accepts = rates.false_accepts
    return float(accepts[before] + part * (accepts[after] - accepts[before]))


def eer_point(rates: ErrorRates) -> OperatingPoint:
    """The point of the ROC at which the two error rates differ least; of several, the one accepting least.

    Never the first, whose threshold is infinite: where all scores are equal, it is the only other point.
    """
    return rates.point(1 + int(np.argmin(np.abs(rates.false_rejects[1:] - rates.false_accepts[1:]))))


def min_dcf(rates: ErrorRates, p_target: float = 0.05, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
    """The least detection cost over all thresholds, normalised by the cost of the best constant decision.

    VoxSRC-20's primary metric at its default parameters (P_target 0.05, C_miss = C_fa = 1). Equal to the
    challenge's compute_min_dcf.py and to voxceleb_trainer's ComputeMinDcf where no target trial has the score
    of a non-target trial, and always on rates with `ties="as_listed"`; save that those never consider to
    accept everything, which matters only if P_target C_miss > (1 - P_target) C_fa.

    Raises:
        MetricError: If `p_target` is not between 0 and 1, or a cost is not positive.
    """
    miss_cost, accept_cost = costs(p_target, c_miss, c_fa)
    cost = miss_cost * rates.false_rejects
    cost += accept_cost * rates.false_accepts
    return float(cost.min() / min(miss_cost, accept_cost))


def costs(p_target: float, c_miss: float, c_fa: float) -> tuple[float, float]:
    """What a rate of 1 costs: of false rejects, of false accepts.

    Raises:
        MetricError: See `min_dcf`.
    """
    if not 0 < p_target < 1:
        raise MetricError(f"p_target is {p_target}; expected a probability between 0 and 1")
    for name, cost in (("c_miss", c_miss), ("c_fa", c_fa)):
        if not 0 < cost < math.inf:
            raise MetricError(f"{name} is {cost}; expected a positive cost")
    return c_miss * p_target, c_fa * (1 - p_target)


def refuse_non_finite(values: FloatArray, name: str) -> None:
    """Raises MetricError, naming the first, if a value is NaN or infinite."""
    finite = np.isfinite(values)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise MetricError(
            f"{name} {bad[0]} is {values[bad[0]]}, {len(bad)} of {len(values)} are not finite; "
            "expected finite numbers"
        )
