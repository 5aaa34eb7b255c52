"""Embeddings as matrices: checks, lengths, and products of pairs of rows, in blocks of bounded memory.

Letters: U utterances, D embedding, N trials. Embeddings may be float32 or float64; lengths and the products
of pairs are computed in float64, so that AS-norm, which divides differences of scores by small standard
deviations, keeps six digits.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxsrc.scoring.errors import ScoringError

Floats = NDArray[np.floating[Any]]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Rows converted at a time: float64 copies of 256 dimensions stay within the cache.
_ROWS = 1024


def checked_embeddings(embeddings: ArrayLike, what: str = "embeddings", *, num_axes: int = 2) -> Floats:
    """`embeddings` as a floating-point array, as it is where it is one.

    Raises:
        ScoringError: If it has another number of axes or an empty one, or holds NaN or infinity (the first
            such row is named).
    """
    array = np.asarray(embeddings)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    if array.ndim != num_axes or 0 in array.shape:
        raise ScoringError(f"{what}: found shape {array.shape}, expected {num_axes} axes, none empty")
    for rows in blocks(len(array), _ROWS):
        finite = np.isfinite(array[rows])
        if not finite.all():
            bad = rows.start + int(np.flatnonzero(~finite.reshape(len(finite), -1).all(axis=1))[0])
            raise ScoringError(
                f"{what}: row {bad} holds NaN or infinity, expected finite numbers; embed the utterance again"
            )
    return array


def checked_pairs(first: ArrayLike, second: ArrayLike, num_rows: int) -> tuple[IntArray, IntArray]:
    """The two rows of each trial as int64.

    Raises:
        ScoringError: If they are not two lists of one length, of whole numbers in [0, num_rows).
    """
    pair = [np.asarray(first), np.asarray(second)]
    if pair[0].shape != pair[1].shape or pair[0].ndim != 1:
        raise ScoringError(
            f"trials: found {pair[0].shape} first and {pair[1].shape} second rows, expected (N,) of both"
        )
    for side, rows in zip(("first", "second"), pair, strict=True):
        if len(rows) and not np.issubdtype(rows.dtype, np.integer):
            raise ScoringError(f"trials: found {side} rows of type {rows.dtype}, expected whole numbers")
        outside = np.flatnonzero((rows < 0) | (rows >= num_rows))
        if len(outside):
            raise ScoringError(
                f"trials: the {side} row of trial {outside[0]} is {rows[outside[0]]}, expected one of the "
                f"{num_rows} utterances' (0 to {num_rows - 1})"
            )
    return pair[0].astype(np.int64, copy=False), pair[1].astype(np.int64, copy=False)


def checked_scores(scores: ArrayLike, num_trials: int, what: str = "scores") -> FloatArray:
    """`scores` as float64 (N,).

    Raises:
        ScoringError: If there are not as many as trials, or one is not finite.
    """
    array = np.asarray(scores, np.float64)
    if array.shape != (num_trials,):
        raise ScoringError(f"{what}: found shape {array.shape}, expected one for each of {num_trials} trials")
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ScoringError(f"{what}: that of trial {bad} is {array[bad]}, expected a finite number")
    return array


def blocks(num_rows: int, block: int) -> Iterator[slice]:
    """Slices of at most `block` rows that cover `num_rows`."""
    if block < 1:
        raise ScoringError(f"block: found {block}, expected at least one row")
    for start in range(0, num_rows, block):
        yield slice(start, min(start + block, num_rows))


def magnitudes(embeddings: ArrayLike, what: str = "embeddings") -> FloatArray:
    """The Euclidean length of each vector on the last axis: (U,) of (U, D), (U, K) of (U, K, D).

    Raises:
        ScoringError: As `checked_embeddings`, or if a length is zero; the utterance's row is named.
    """
    axes = np.asarray(embeddings).ndim
    array = checked_embeddings(embeddings, what, num_axes=3 if axes == 3 else 2)
    lengths = np.empty(array.shape[:-1])
    for rows in blocks(len(array), _ROWS):
        part = array[rows].astype(np.float64, copy=False)
        # The largest element is divided out first: its square may be beyond the range.
        largest = np.abs(part).max(axis=-1)
        part = part / np.where(largest > 0, largest, 1.0)[..., None]
        lengths[rows] = largest * np.sqrt(np.einsum("...d,...d->...", part, part))
    zero = np.argwhere(lengths == 0)
    if len(zero):
        crop = f", crop {zero[0][1]}," if zero.shape[1] > 1 else ""
        raise ScoringError(
            f"{what}: row {zero[0][0]}{crop} has length zero ({len(zero)} such), so it has no direction; "
            "leave the utterance out or embed it again"
        )
    return lengths


def length_normalised(embeddings: ArrayLike, what: str = "embeddings") -> NDArray[np.float32]:
    """Vectors of length 1 in the directions of `embeddings` (U, D), rounded once, to float32.

    Raises:
        ScoringError: As `magnitudes`.
    """
    array = np.asarray(embeddings)
    lengths = magnitudes(array, what)
    normalised = np.empty(array.shape, np.float32)
    for rows in blocks(len(array), _ROWS):
        np.divide(array[rows], lengths[rows, None], out=normalised[rows], casting="same_kind")
    return normalised


def mean_embedding(embeddings: ArrayLike) -> NDArray[np.float32]:
    """(D,) the mean of `embeddings` (U, D), summed in float64."""
    array = checked_embeddings(embeddings)
    return np.asarray(array.mean(axis=0, dtype=np.float64), np.float32)


def centred(embeddings: ArrayLike, centre: ArrayLike) -> NDArray[np.float32]:
    """`embeddings` (U, D) less `centre` (D,), say the `mean_embedding` of the training utterances.

    WeSpeaker's recipe for AS-norm subtracts that from the embeddings of the trials and of the cohort, before
    anything else.
    """
    array, origin = checked_embeddings(embeddings), np.asarray(centre)
    if origin.shape != array.shape[1:]:
        raise ScoringError(f"centre: found shape {origin.shape}, expected {array.shape[1:]}")
    return np.asarray(np.subtract(array, origin, dtype=np.float32, casting="same_kind"))


def pair_products(left: Floats, right: Floats, first: IntArray, second: IntArray, block: int) -> FloatArray:
    """(N,) float64 inner products of `left[first]` with `right[second]`, `block` trials at a time."""
    products = np.empty(len(first))
    for part in blocks(len(first), block):
        np.einsum("nd,nd->n", left[first[part]], right[second[part]], dtype=np.float64, out=products[part])
    return products
