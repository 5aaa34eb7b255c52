"""The thresholds that a report names, and the errors made at them.

Letters: P points of the ROC.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from evaluator.report.metric import share_text
from voxsrc.metrics import ErrorRates


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and the error rates of accepting what is not below it."""

    threshold: float
    false_accepts: float
    false_rejects: float


def eer_point(rates: ErrorRates) -> OperatingPoint:
    """The point of the ROC at which the two error rates differ least."""
    return _point(rates, int(np.argmin(np.abs(rates.false_rejects - rates.false_accepts))))


def min_dcf_point(rates: ErrorRates, p_target: float) -> OperatingPoint:
    """The point of least detection cost, with C_miss = C_fa = 1."""
    return _point(
        rates, int(np.argmin(p_target * rates.false_rejects + (1 - p_target) * rates.false_accepts))
    )


def point_at(rates: ErrorRates, threshold: float) -> OperatingPoint:
    """The error rates at a threshold of any value."""
    index = int(np.searchsorted(-rates.thresholds, -threshold, side="right")) - 1
    return OperatingPoint(threshold, float(rates.false_accepts[index]), float(rates.false_rejects[index]))


def bayes_threshold(p_target: float) -> float:
    """The log-likelihood ratio from which on accepting costs less than rejecting, with C_miss = C_fa = 1."""
    return math.log((1 - p_target) / p_target)


def named_points(
    rates: ErrorRates, llr_rates: ErrorRates | None, p_targets: Iterable[float]
) -> dict[str, OperatingPoint]:
    """The thresholds to be listed: on log-likelihood ratios if there are any, otherwise on scores."""
    shown = llr_rates or rates
    points = {"equal error rate": eer_point(shown)}
    for p_target in p_targets:
        share = share_text(p_target)
        points[f"minDCF ({share})"] = min_dcf_point(shown, p_target)
        if llr_rates is not None:
            points[f"Bayes threshold ({share})"] = point_at(llr_rates, bayes_threshold(p_target))
    return points


def _point(rates: ErrorRates, index: int) -> OperatingPoint:
    return OperatingPoint(
        float(rates.thresholds[index]), float(rates.false_accepts[index]), float(rates.false_rejects[index])
    )
