"""Adaptive symmetric score normalisation: a score in units of how the two utterances score against others.

Matějka et al., "Analysis of score normalization in multilingual speaker recognition" (Interspeech 2017),
AS-norm1. Letters: U utterances, C cohort speakers, D embedding, N trials.

Everything here may first be `centred` on the mean embedding of the training utterances, as WeSpeaker does.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxsrc.cores import cpu_count
from voxsrc.scoring.errors import ScoringError
from voxsrc.scoring.speakers import Speakers, add_by_speaker
from voxsrc.scoring.vectors import (
    FloatArray,
    blocks,
    checked_embeddings,
    checked_pairs,
    checked_scores,
    magnitudes,
)


@dataclass(frozen=True, eq=False)
class CohortStatistics:
    """How each utterance scores against the cohort speakers that are most like it.

    Attributes:
        mean: (U,) float64 mean of its `top_k` highest cosines.
        std: (U,) float64 population standard deviation of them.
    """

    mean: FloatArray
    std: FloatArray


def speaker_means(embeddings: ArrayLike, speaker_ids: Sequence[str] | NDArray[np.str_]) -> FloatArray:
    """The cohort: of each speaker the mean of the length-normalised embeddings.

    Args:
        embeddings: (U, D) of training utterances, read in blocks.
        speaker_ids: U speakers.

    Returns:
        (C, D) float64, speakers in sorted order; not of length 1.

    Raises:
        ScoringError: If an embedding has length zero or is not finite (its row is named), or the speakers are
            not as many as the embeddings.
    """
    vectors = checked_embeddings(embeddings)
    speakers = Speakers.of(speaker_ids, len(vectors))
    lengths = magnitudes(vectors)
    sums = np.zeros((len(speakers.names), vectors.shape[1]))
    for rows, of_row, part in speakers.blocks(vectors):
        add_by_speaker(sums, of_row, part / lengths[rows, None])
    return sums / speakers.counts[:, None]


def cohort_statistics(
    embeddings: ArrayLike,
    cohort: ArrayLike,
    *,
    top_k: int = 300,
    block: int = 2048,
    num_threads: int | None = None,
) -> CohortStatistics:
    """Mean and standard deviation of each utterance's `top_k` highest cosines with the cohort.

    AS-norm divides by that deviation, so all is float64: with float32 products, which take two thirds of the
    time, scores were off by up to 3e-5.

    Args:
        embeddings: (U, D), of any length but zero.
        cohort: (C, D), of any length but zero; see `speaker_means`.
        top_k: How many count, at least 2.
        block: Utterances at a time; memory beside the arguments is 8 × C × (block + D) bytes.
        num_threads: Threads that select the highest; by default as many as there are cores. The product of
            matrices takes as many as the BLAS library does.

    Raises:
        ScoringError: If `top_k` exceeds the cohort, an embedding has length zero (its row is named), or an
            utterance scores alike against all its cohort, so that nothing can be divided by the deviation.
    """
    vectors, others = checked_embeddings(embeddings), checked_embeddings(cohort, "cohort")
    if vectors.shape[1] != others.shape[1]:
        raise ScoringError(
            f"cohort: found {others.shape[1]} dimensions, expected the embeddings' {vectors.shape[1]}; "
            "make it with the same model"
        )
    if not 2 <= top_k <= len(others):
        raise ScoringError(
            f"top_k: found {top_k}, expected 2 to {len(others)}, the size of the cohort; "
            "take fewer or a larger cohort"
        )
    threads = num_threads or cpu_count()
    lengths, cohort_lengths = magnitudes(vectors), magnitudes(others, "cohort")
    directions = others / cohort_lengths[:, None]
    mean, std = np.empty(len(vectors)), np.empty(len(vectors))
    parts_of_rows = list(blocks(len(vectors), block))
    products = np.empty((min(block, len(vectors)), len(others)))
    with ThreadPoolExecutor(threads) as pool:
        for rows in parts_of_rows:
            unit = vectors[rows] / lengths[rows, None]
            scores = np.matmul(unit, directions.T, out=products[: len(unit)])
            parts = list(blocks(len(scores), -(-len(scores) // threads)))
            moments = pool.map(lambda part, scores=scores: _top_moments(scores[part], top_k), parts)
            for part, (part_mean, part_std) in zip(parts, moments, strict=True):
                into = slice(rows.start + part.start, rows.start + part.stop)
                mean[into], std[into] = part_mean, part_std
    # Equal scores differ by the rounding of the embeddings, which are float32.
    flat = np.flatnonzero(std < 1e-6)
    if len(flat):
        raise ScoringError(
            f"embeddings: row {flat[0]} scores {mean[flat[0]]:.6f} against each of its {top_k} nearest "
            f"cohort speakers ({len(flat)} such rows), expected a spread; are the cohort's speakers distinct?"
        )
    return CohortStatistics(mean, std)


def as_norm(
    scores: ArrayLike, first: ArrayLike, second: ArrayLike, statistics: CohortStatistics
) -> FloatArray:
    """½ [(s - μ_first) / σ_first + (s - μ_second) / σ_second] of each trial.

    Args:
        scores: (N,) cosines, of the embeddings of which `statistics` were made.
        first: (N,) row of each trial's enrollment utterance.
        second: (N,) row of its test utterance.
        statistics: Of the U utterances.

    Returns:
        (N,) float64.

    Raises:
        ScoringError: If lengths differ, a row does not exist or a score is not finite.
    """
    rows, columns = checked_pairs(first, second, len(statistics.mean))
    raw = checked_scores(scores, len(rows))
    mean, std = statistics.mean, statistics.std
    return 0.5 * ((raw - mean[rows]) / std[rows] + (raw - mean[columns]) / std[columns])


def _top_moments(scores: FloatArray, top_k: int) -> tuple[FloatArray, FloatArray]:
    """Mean and deviation of the `top_k` highest in each row; reorders `scores` in place."""
    kth = scores.shape[1] - top_k
    scores.partition(kth, axis=1)
    top = scores[:, kth:]
    return top.mean(axis=1), top.std(axis=1)
