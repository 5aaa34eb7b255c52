"""The ROC: its convex hull, and as many of its points as a plot shows.

Letters: P operating points, Q of them.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from voxsrc.metrics.rates import BoolArray, ErrorRates, FloatArray, IntArray, MetricError


def roc_convex_hull(rates: ErrorRates) -> ErrorRates:
    """The (Q,) operating points that some prior and costs make best: the corners of the ROC's convex hull.

    Their false rejects fall ever more slowly as false accepts rise. Takes linear time.
    """
    kept = np.flatnonzero(_first_of_each(rates.false_accepts, rates.false_rejects))
    while len(kept) > 2:
        # A point on or above the line between two others is no corner, so all such points can go at once.
        is_corner = _turns(rates.false_accepts[kept], rates.false_rejects[kept])
        if is_corner.all():
            break
        before, kept = len(kept), kept[is_corner]
        # An awkward curve gives up few points a time.
        if len(kept) > 0.9 * before:
            kept = _chain(rates, kept)
            break
    return rates.at(kept)


def roc_points(rates: ErrorRates, max_points: int = 1000) -> ErrorRates:
    """The ROC for a plot with linear axes, without the points that cannot be seen.

    Of a short curve only points within its straight steps go. The way of a longer one, two axes long, is cut
    into `max_points` / 2 equal parts that each keep their first and last point: points are kept on both sides
    of a dropped one, and closer than 4 / `max_points` of an axis. The first and last rates always stay; mind
    that the first threshold is +inf, which JSON lacks.

    Args:
        rates: The operating points.
        max_points: Most points to keep.

    Raises:
        MetricError: If `max_points` is below 2.
    """
    return rates.at(_visible(rates.false_accepts, rates.false_rejects, max_points))


@dataclass(frozen=True, eq=False)
class DetPoints:
    """A DET curve for a plot.

    Attributes:
        rates: The (Q,) operating points that are shown.
        probit_false_accepts: (Q,) their false accepts as quantiles of the normal distribution, all finite.
        probit_false_rejects: (Q,) the same of their false rejects.
    """

    rates: ErrorRates
    probit_false_accepts: FloatArray
    probit_false_rejects: FloatArray


def det_points(rates: ErrorRates, max_points: int = 1000, limit: float = 1e-5) -> DetPoints:
    """The DET curve, without the points that cannot be seen.

    Args:
        rates: The operating points.
        max_points: Most points to keep; see `roc_points`.
        limit: Rates below it are drawn there, and those above 1 - `limit` there. Axes should end before.

    Raises:
        MetricError: If `max_points` is below 2, or `limit` not between 0 and 0.5.
    """
    if not 0 < limit < 0.5:
        raise MetricError(f"limit is {limit}; expected a rate between 0 and 0.5")
    accepts, rejects = (
        np.clip(axis, limit, 1 - limit) for axis in (rates.false_accepts, rates.false_rejects)
    )
    # Logits stand for probits, of which they are nearly a multiple: they take no loop over all points.
    kept = _visible(np.log(accepts / (1 - accepts)), np.log(rejects / (1 - rejects)), max_points)
    return DetPoints(rates.at(kept), probit(accepts[kept]), probit(rejects[kept]))


def probit(rates: ArrayLike) -> FloatArray:
    """Quantiles of the standard normal distribution: what the axes of a DET plot are linear in.

    Args:
        rates: (Q,) each above 0 and below 1. About a microsecond each: thin a long curve first.

    Raises:
        MetricError: If a rate is outside.
    """
    values = np.asarray(rates, np.float64)
    if not ((values > 0) & (values < 1)).all():
        raise MetricError(f"rates from {values.min()} to {values.max()}; expected above 0 and below 1")
    quantile = NormalDist().inv_cdf
    return np.array([quantile(value) for value in values.tolist()], np.float64)


def _first_of_each(x: FloatArray, y: FloatArray) -> BoolArray:
    """Which points differ from the one before."""
    return np.concatenate([[True], (x[1:] != x[:-1]) | (y[1:] != y[:-1])])


def _turns(x: FloatArray, y: FloatArray) -> BoolArray:
    """Which points lie below the line between their neighbours; the first and last count as if."""
    step_x, step_y = np.diff(x), np.diff(y)
    below = step_x[:-1] * step_y[1:] > step_y[:-1] * step_x[1:]
    return np.concatenate([[True], below, [True]])


def _chain(rates: ErrorRates, kept: IntArray) -> IntArray:
    """The corners among the points `kept`, one after the other (Andrew's monotone chain)."""
    xs, ys = rates.false_accepts[kept].tolist(), rates.false_rejects[kept].tolist()
    chain: list[int] = []
    for place, (x, y) in enumerate(zip(xs, ys, strict=True)):
        while len(chain) > 1:
            a, b = chain[-2:]
            if (xs[b] - xs[a]) * (y - ys[b]) > (ys[b] - ys[a]) * (x - xs[b]):
                break
            chain.pop()
        chain.append(place)
    return kept[chain]


def _visible(x: FloatArray, y: FloatArray, max_points: int) -> IntArray:
    """Places of at most `max_points` points of the curve with x rising and y falling; see `roc_points`."""
    if max_points < 2:
        raise MetricError(f"max_points is {max_points}; expected at least 2")
    kept = np.flatnonzero(_first_of_each(x, y))
    step_x, step_y = np.diff(x[kept]), np.diff(y[kept])
    within = [(step[:-1] == 0) & (step[1:] == 0) for step in (step_x, step_y)]
    if len(kept) > 2:
        kept = kept[np.concatenate([[True], ~(within[0] | within[1]), [True]])]
    if len(kept) <= max_points:
        return kept
    way = (x[kept] - x[kept[0]]) / np.ptp(x) + (y[kept[0]] - y[kept]) / np.ptp(y)
    num_pieces = max_points // 2
    piece = np.minimum((way * (num_pieces / way[-1])).astype(np.int64), num_pieces - 1)
    changes = piece[1:] != piece[:-1]
    is_end = np.append(True, changes) | np.append(changes, True)
    return kept[np.flatnonzero(is_end)]
