"""Error rates of verification scores, as the VoxSRC challenge defines them, with speaker-bootstrap intervals.

Letters: N trials, P points of the ROC, R resamples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxsrc.errors import VoxsrcError

FloatArray = NDArray[np.float64]


class MetricError(VoxsrcError):
    """Scores or labels of which no error rate can be computed."""


@dataclass(frozen=True)
class ErrorRates:
    """The operating points of a set of scores, from accepting nothing to accepting everything.

    Attributes:
        thresholds: (P,) scores at or above which a trial is accepted, falling; the first is +inf.
        false_accepts: (P,) fraction of non-target trials accepted, rising from 0 to 1.
        false_rejects: (P,) fraction of target trials rejected, falling from 1 to 0.
    """

    thresholds: FloatArray
    false_accepts: FloatArray
    false_rejects: FloatArray


def error_rates(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> ErrorRates:
    """The error rates at every distinct score; equal scores are accepted together.

    Args:
        scores: (N,) higher for the same speaker.
        labels: (N,) 1 for target trials, 0 for non-target trials.
        weights: (N,) how often each trial counts; 1 if not given.

    Raises:
        MetricError: If lengths differ, a score is not finite, a label is neither 0 nor 1, or one of the
            two kinds of trials is missing.
    """
    score, label = np.asarray(scores, np.float64), np.asarray(labels)
    weight = np.ones(len(score)) if weights is None else np.asarray(weights, np.float64)
    if not score.shape == label.shape == weight.shape or score.ndim != 1:
        raise MetricError(
            f"{score.shape} scores, {label.shape} labels, {weight.shape} weights; expected equal"
        )
    if not np.isfinite(score).all():
        bad = int(np.flatnonzero(~np.isfinite(score))[0])
        raise MetricError(f"score {bad} is {score[bad]}; expected finite scores")
    target = label == 1
    if not (target | (label == 0)).all():
        raise MetricError(f"labels {sorted(set(label.tolist()))[:5]}; expected 0 and 1")
    target_weight, other_weight = float(weight[target].sum()), float(weight[~target].sum())
    if target_weight <= 0 or other_weight <= 0:
        raise MetricError(
            f"{int(target.sum())} target and {int((~target).sum())} non-target trials; both kinds are needed"
        )
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last_of_equal = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
    accepted_targets = np.cumsum(np.where(target, weight, 0.0)[order])[last_of_equal]
    accepted_others = np.cumsum(np.where(target, 0.0, weight)[order])[last_of_equal]
    return ErrorRates(
        thresholds=np.concatenate([[np.inf], ordered[last_of_equal]]),
        false_accepts=np.concatenate([[0.0], np.minimum(accepted_others / other_weight, 1.0)]),
        false_rejects=np.concatenate([[1.0], np.maximum(1.0 - accepted_targets / target_weight, 0.0)]),
    )


def equal_error_rate(rates: ErrorRates) -> float:
    """The error rate, in [0, 1], where both kinds are equal, by linear interpolation on the ROC.

    As voxceleb_trainer's tuneThreshold.py: the root of 1 - x - TPR(x) for FPR x.
    """
    difference = rates.false_rejects - rates.false_accepts
    after = int(np.argmax(difference <= 0))
    before = after - 1
    part = difference[before] / (difference[before] - difference[after])
    accepts = rates.false_accepts
    return float(accepts[before] + part * (accepts[after] - accepts[before]))


def min_dcf(rates: ErrorRates, p_target: float = 0.05, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
    """The least detection cost over all thresholds, normalised by the cost of the best constant decision.

    VoxSRC-20's primary metric at its default parameters (P_target 0.05, C_miss = C_fa = 1).
    """
    costs = c_miss * p_target * rates.false_rejects + c_fa * (1 - p_target) * rates.false_accepts
    return float(costs.min() / min(c_miss * p_target, c_fa * (1 - p_target)))


def speaker_bootstrap(
    statistic: Callable[[ErrorRates], float],
    scores: ArrayLike,
    labels: ArrayLike,
    speakers: Sequence[tuple[str, str]],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """A percentile interval of a statistic when the speakers, not the trials, are drawn anew.

    Trials of one speaker are not independent, so resampling trials gives intervals that are too narrow.
    A trial counts as often as its speakers were drawn: once for each draw of the speaker of a target trial,
    and the product of both for a non-target trial (Poh and Bengio, "Estimating the confidence interval of
    expected performance curve in biometric authentication using joint bootstrap", 2007).

    Args:
        statistic: `equal_error_rate`, say.
        scores: (N,) scores.
        labels: (N,) labels.
        speakers: N pairs: the speakers of enrollment and test.
        num_resamples: Number R of resamples; those without both kinds of trials are left out.
        seed: Seed of the draws.
        level: Coverage of the interval.

    Returns:
        Its lower and upper end.

    Raises:
        MetricError: As `error_rates`, or if no resample had both kinds of trials.
    """
    names = sorted({name for pair in speakers for name in pair})
    position = {name: index for index, name in enumerate(names)}
    first = np.array([position[a] for a, _ in speakers])
    second = np.array([position[b] for _, b in speakers])
    generator = np.random.default_rng(seed)
    label = np.asarray(labels)
    values = []
    for _ in range(num_resamples):
        counts = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names))
        weights = np.where(first == second, counts[first], counts[first] * counts[second])
        if weights[label == 1].any() and weights[label == 0].any():
            values.append(statistic(error_rates(scores, label, weights)))
    if not values:
        raise MetricError(f"no resample of {len(names)} speakers had both kinds of trials")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
