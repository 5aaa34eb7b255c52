"""Scores of pairs of embeddings: the cosine, and voxceleb_trainer's mean distance over crops.

Letters: U utterances, D embedding, K crops of an utterance, N trials.
"""

import numpy as np
from numpy.typing import ArrayLike

from voxsrc.scoring.vectors import (
    FloatArray,
    blocks,
    checked_embeddings,
    checked_pairs,
    magnitudes,
    pair_products,
)


def cosine_scores(
    embeddings: ArrayLike, first: ArrayLike, second: ArrayLike, *, block: int = 1024
) -> FloatArray:
    """The cosine of the angle between the two embeddings of each trial.

    Args:
        embeddings: (U, D), of any length but zero.
        first: (N,) row of each trial's enrollment utterance.
        second: (N,) row of its test utterance.
        block: Trials computed at a time; memory beside the embeddings is O(block × D + U + N).

    Returns:
        (N,) float64 in [-1, 1], accumulated in float64.

    Raises:
        ScoringError: If an embedding has length zero or is not finite (its row is named), or a trial's row
            does not exist.
    """
    vectors = checked_embeddings(embeddings)
    rows, columns = checked_pairs(first, second, len(vectors))
    lengths = magnitudes(vectors)
    scores = pair_products(vectors, vectors, rows, columns, block)
    scores /= lengths[rows]
    scores /= lengths[columns]
    return np.clip(scores, -1.0, 1.0, out=scores)


def mean_distance_scores(
    crops: ArrayLike, first: ArrayLike, second: ArrayLike, *, block: int = 64
) -> FloatArray:
    """Less the mean Euclidean distance between all pairs of crops, of length-normalised embeddings.

    voxceleb_trainer's protocol (SpeakerNet.evaluateFromList, K = 10): higher is more alike.

    Args:
        crops: (U, K, D), of any length but zero.
        first: (N,) row of each trial's enrollment utterance.
        second: (N,) row of its test utterance.
        block: Trials computed at a time; memory beside the embeddings is O(block × K × (K + D) + U × K + N).

    Returns:
        (N,) float64 in [-2, 0].

    Raises:
        ScoringError: As `cosine_scores`.
    """
    vectors = checked_embeddings(crops, "crops", num_axes=3)
    rows, columns = checked_pairs(first, second, len(vectors))
    lengths = magnitudes(vectors, "crops")
    scores = np.empty(len(rows))
    for part in blocks(len(rows), block):
        left = vectors[rows[part]] / lengths[rows[part], :, None]
        right = vectors[columns[part]] / lengths[columns[part], :, None]
        # Of unit vectors the squared distance is 2 - 2 cos; in float64 that is exact to 1e-8 even near zero.
        squares = 2.0 - 2.0 * (left @ right.transpose(0, 2, 1))
        scores[part] = -np.sqrt(np.maximum(squares, 0.0)).mean(axis=(1, 2))
    return scores
