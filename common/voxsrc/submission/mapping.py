"""Maps scores to [0, 1] without changing a single comparison between two of them.

EER, minDCF and every other figure that depends on the order alone stay exactly what they were.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxsrc.submission.errors import SubmissionError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class UnitScores:
    """Scores in [0, 1].

    Attributes:
        values: (N,) float64 in [0, 1], ordered and tied exactly as the scores that they were made of.
        how: How they were made, for people.
    """

    values: FloatArray
    how: str


def unit_scores(scores: ArrayLike, *, calibrated: bool = False, prior: float = 0.05) -> UnitScores:
    """Maps scores to [0, 1], keeping order and ties exactly.

    - Calibrated scores become probabilities of the same speaker: logistic(llr + logit(prior)).
    - Other scores that lie in [0, 1] stay as they are.
    - Others become logistic((score - mean) / standard deviation), which means nothing but their order.

    Where rounding would make different scores equal (a log-likelihood ratio of 40 and one of 50 both have
    probability 1 in float64), they are set apart by the least step of a float64.

    Args:
        scores: (N,) finite, higher for the same speaker.
        calibrated: Whether the scores are natural-log likelihood ratios.
        prior: Probability of the same speaker before hearing anything, the challenge's P_target if not given.

    Raises:
        SubmissionError: If a score is not finite, there are none, or the prior is not between 0 and 1.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise SubmissionError(f"{values.shape} scores, expected finite ones, one for each trial")
    if not 0 < prior < 1:
        raise SubmissionError(f"prior {prior:g}, expected a probability between 0 and 1")
    if not calibrated and values.min() >= 0 and values.max() <= 1:
        # The sum makes a negative zero positive.
        return UnitScores(values + 0.0, "unchanged, they are in [0, 1]")
    distinct, inverse = np.unique(values, return_inverse=True)
    if calibrated:
        log_odds = distinct + np.log(prior / (1 - prior))
        how = f"probabilities of the same speaker, from log-likelihood ratios and prior {prior:g}"
    else:
        # Scaled first, so that neither sums nor squares overflow.
        scaled, scale = values / np.abs(values).max(), np.abs(values).max()
        log_odds = (distinct / scale - scaled.mean()) / (scaled.std() or 1.0)
        how = "logistic of standardised scores: in the order of the scores, not probabilities"
    return UnitScores(_set_apart(_logistic(log_odds))[inverse], how)


def _logistic(log_odds: FloatArray) -> FloatArray:
    small = np.exp(-np.abs(log_odds))
    return np.where(log_odds >= 0, 1.0, small) / (1.0 + small)


def _set_apart(values: FloatArray) -> FloatArray:
    """(M,) in [0, 1], almost rising → the same, strictly rising, changed by the fewest float64 steps."""
    # The bits of non-negative floats, read as integers, are in the order of the floats.
    step = np.arange(len(values), dtype=np.int64)
    bits = np.maximum.accumulate(values.view(np.int64) - step) + step
    one = int(np.float64(1.0).view(np.int64))
    return np.minimum(bits, one - step[::-1]).view(np.float64)
