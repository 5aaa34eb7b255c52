"""What scores cost that claim to be log-likelihood ratios: decided by Bayes' threshold, and over all priors.

Each number comes for trials, and as a `Statistic` of their operating points, for the bootstrap. The ratios
are natural logarithms, and higher for the same speaker. Letter: N trials.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from voxsrc.metrics.curves import roc_convex_hull
from voxsrc.metrics.rates import ErrorRates, costs, error_rates


def actual_dcf(
    llrs: ArrayLike,
    labels: ArrayLike,
    p_target: float = 0.05,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    *,
    weights: ArrayLike | None = None,
) -> float:
    """The detection cost of deciding by Bayes' threshold, normalised as `min_dcf`, which it never undercuts.

    Args:
        llrs: (N,) log-likelihood ratios; a trial is accepted if its ratio is at least
            log(C_fa (1 - P_target) / (C_miss P_target)), which is 2.94 by default.
        labels: (N,) 1 for target trials, 0 for non-target trials.
        p_target: Prior probability of a target trial.
        c_miss: Cost of a false reject.
        c_fa: Cost of a false accept.
        weights: (N,) how often each trial counts; 1 if not given.

    Raises:
        MetricError: See `error_rates` and `min_dcf`.
    """
    return actual_dcf_of_rates(error_rates(llrs, labels, weights), p_target, c_miss, c_fa)


def actual_dcf_of_rates(
    rates: ErrorRates, p_target: float = 0.05, c_miss: float = 1.0, c_fa: float = 1.0
) -> float:
    """`actual_dcf` of the operating points of log-likelihood ratios."""
    miss_cost, accept_cost = costs(p_target, c_miss, c_fa)
    threshold = math.log(accept_cost / miss_cost)
    # The last point whose threshold is not below Bayes': it accepts the same trials.
    point = int(np.searchsorted(-rates.thresholds, -threshold, side="right")) - 1
    cost = miss_cost * rates.false_rejects[point] + accept_cost * rates.false_accepts[point]
    return float(cost / min(miss_cost, accept_cost))


def cllr(llrs: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """The cost of log-likelihood ratios over all priors, in bits: 0 for an oracle, 1 if all ratios are 0.

    Half the mean of log2(1 + exp(-llr)) over target trials plus half the mean of log2(1 + exp(llr)) over
    non-target trials (Brümmer and du Preez, "Application-independent evaluation of speaker detection", 2006).

    Args:
        llrs: (N,) log-likelihood ratios.
        labels: (N,) 1 for target trials, 0 for non-target trials.
        weights: (N,) how often each trial counts; 1 if not given.

    Raises:
        MetricError: See `error_rates`.
    """
    return cllr_of_rates(error_rates(llrs, labels, weights))


def cllr_of_rates(rates: ErrorRates) -> float:
    """`cllr` of the operating points of log-likelihood ratios."""
    llrs = rates.thresholds[1:]
    targets, others = -np.diff(rates.false_rejects), np.diff(rates.false_accepts)
    nats = targets @ np.logaddexp(0.0, -llrs) + others @ np.logaddexp(0.0, llrs)
    return float(nats / (2 * math.log(2)))


def min_cllr(scores: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """The least `cllr`, in bits, to which a non-decreasing map could bring the scores; at most 1.

    The best map is isotonic regression by pooling adjacent violators, which is the convex hull of the ROC
    (Brümmer and du Preez, 2006): each of its segments is a pool, and the ratio of the two fractions of trials
    in it the likelihood ratio. Equal scores are in one pool.

    Args:
        scores: (N,) higher for the same speaker, not necessarily log-likelihood ratios.
        labels: (N,) 1 for target trials, 0 for non-target trials.
        weights: (N,) how often each trial counts; 1 if not given.

    Raises:
        MetricError: See `error_rates`.
    """
    return min_cllr_of_rates(error_rates(scores, labels, weights))


def min_cllr_of_rates(rates: ErrorRates) -> float:
    """`min_cllr` of operating points."""
    hull = roc_convex_hull(rates)
    targets, others = -np.diff(hull.false_rejects), np.diff(hull.false_accepts)
    # Pools of one kind have infinite ratios of the right sign, and cost nothing.
    mixed = (targets > 0) & (others > 0)
    targets, others = targets[mixed], others[mixed]
    nats = targets @ np.log1p(others / targets) + others @ np.log1p(targets / others)
    return float(nats / (2 * math.log(2)))
