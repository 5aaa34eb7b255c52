"""Scores one trial or one utterance after the other, as WeSpeaker's and voxceleb_trainer's scripts make them.

What scoring is measured beside: one small NumPy call for each trial, a full sort for each utterance.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.floating[Any]]


def cosines(vectors: Vectors, trials: Sequence[tuple[int, int]]) -> list[float]:
    """Of each trial, with the lengths of both."""
    return [
        float(vectors[a] @ vectors[b] / (np.linalg.norm(vectors[a]) * np.linalg.norm(vectors[b])))
        for a, b in trials
    ]


def cohort_moments(vectors: Vectors, cohort: Vectors, top_k: int) -> list[tuple[float, float]]:
    """Mean and deviation of each utterance's highest cosines."""
    others = cohort / np.linalg.norm(cohort, axis=1, keepdims=True)
    moments = []
    for vector in vectors:
        top = np.sort(others @ (vector / np.linalg.norm(vector)))[-top_k:]
        moments.append((float(top.mean()), float(top.std())))
    return moments


def as_norms(
    scores: Sequence[float], trials: Sequence[tuple[int, int]], moments: Sequence[tuple[float, float]]
) -> list[float]:
    """Of each trial."""
    normalised = []
    for score, (a, b) in zip(scores, trials, strict=True):
        (mean_a, std_a), (mean_b, std_b) = moments[a], moments[b]
        normalised.append(0.5 * ((score - mean_a) / std_a + (score - mean_b) / std_b))
    return normalised


def mean_distances(crops: Vectors, trials: Sequence[tuple[int, int]]) -> list[float]:
    """Less the mean distance of all pairs of crops of each trial."""
    scores = []
    for a, b in trials:
        left = crops[a] / np.linalg.norm(crops[a], axis=1, keepdims=True)
        right = crops[b] / np.linalg.norm(crops[b], axis=1, keepdims=True)
        scores.append(-float(np.linalg.norm(left[:, None] - right[None], axis=2).mean()))
    return scores


def log_ratios(projected: Vectors, between: Vectors, trials: Sequence[tuple[int, int]]) -> list[float]:
    """PLDA's ratio of each trial: the density of the test given the enrollment over that without.

    Args:
        projected: (U, P) where the covariance within a speaker is the identity, about the mean.
        between: (P,) variances between speakers there.
        trials: Rows of `projected`.
    """
    shrink = between / (between + 1)
    given, alone = 1 + shrink, 1 + between
    ratios = []
    for a, b in trials:
        residual = projected[b] - shrink * projected[a]
        same = np.log(given).sum() + (residual**2 / given).sum()
        other = np.log(alone).sum() + (projected[b] ** 2 / alone).sum()
        ratios.append(float(0.5 * (other - same)))
    return ratios
