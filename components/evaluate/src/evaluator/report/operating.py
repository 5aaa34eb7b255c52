"""The thresholds that a report names, and the errors made at them.

Letters: P points of the ROC.
"""

from collections.abc import Iterable

import numpy as np

from evaluator.report.metric import share_text
from voxsrc.metrics import ErrorRates, OperatingPoint, eer_point
from voxsrc.scoring.calibration import threshold as bayes_threshold


def min_dcf_point(rates: ErrorRates, p_target: float) -> OperatingPoint:
    """The point of least detection cost, with C_miss = C_fa = 1."""
    cost = p_target * rates.false_rejects + (1 - p_target) * rates.false_accepts
    return rates.point(int(np.argmin(cost)))


def point_at(rates: ErrorRates, threshold: float) -> OperatingPoint:
    """The error rates at a threshold of any value."""
    index = int(np.searchsorted(-rates.thresholds, -threshold, side="right")) - 1
    return OperatingPoint(threshold, float(rates.false_accepts[index]), float(rates.false_rejects[index]))


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
