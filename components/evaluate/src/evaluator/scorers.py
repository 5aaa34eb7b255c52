"""The ways to score trials, of which embeddings are at hand.

Letters: U utterances, N trials, D embedding, C cohort speakers, P principal axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from voxsrc.embedding import Embeddings
from voxsrc.scoring import (
    CohortStatistics,
    Plda,
    QualityMeasures,
    as_norm,
    centred,
    cohort_statistics,
    cosine_scores,
    magnitudes,
    mean_distance_scores,
    mean_embedding,
    quality_measures,
    speaker_means,
)
from voxsrc.scoring.vectors import blocks

FloatArray = NDArray[np.float64]
Rows = NDArray[np.int64]

_BLOCK = 4096
# Part of the total variance: embeddings are float32, whose rounding is 1e-14 of it.
_LEAST_VARIANCE = 1e-8


class Scorer(Protocol):
    """Scores pairs of rows of embeddings, higher for the same speaker."""

    @property
    def description(self) -> str:
        """One line, for the report."""

    def scores(self, embeddings: Embeddings, first: Rows, second: Rows) -> FloatArray:
        """(N,) scores."""

    def cohort(self, embeddings: Embeddings) -> CohortStatistics | None:
        """How each utterance scores against the cohort, where there is one."""


class CosineScorer:
    """The cosine of whole utterances' embeddings."""

    description = "cosine of whole utterances"

    def scores(self, embeddings: Embeddings, first: Rows, second: Rows) -> FloatArray:
        """(N,) cosines."""
        return np.asarray(cosine_scores(embeddings.vectors, first, second), np.float64)

    def cohort(self, embeddings: Embeddings) -> CohortStatistics | None:
        """There is none."""
        return None


class MeanDistanceScorer:
    """voxceleb_trainer's: the mean distance of ten evenly spaced crops of 4 s, negative."""

    description = "mean distance of 10 × 10 crops of 4 s (voxceleb_trainer's protocol)"

    def scores(self, embeddings: Embeddings, first: Rows, second: Rows) -> FloatArray:
        """(N,) scores from -2 to 0."""
        return np.asarray(mean_distance_scores(embeddings.vectors, first, second), np.float64)

    def cohort(self, embeddings: Embeddings) -> CohortStatistics | None:
        """There is none."""
        return None


@dataclass(frozen=True, eq=False)
class AsNormScorer:
    """Cosines normalised by a cohort of training speakers; all centred on the training utterances' mean.

    Attributes:
        centre: (D,) mean embedding of the training utterances.
        means: (C, D) the cohort.
        top_k: How many of its nearest speakers each utterance is compared with.
    """

    centre: NDArray[np.floating]
    means: NDArray[np.floating]
    top_k: int

    @classmethod
    def of(cls, training: Embeddings, speaker_ids: Sequence[str], top_k: int) -> "AsNormScorer":
        """With the cohort of these training utterances; `top_k` is lowered to its size if need be."""
        centre = mean_embedding(training.vectors)
        means = speaker_means(centred(training.vectors, centre), speaker_ids)
        return cls(centre, means, min(top_k, len(means)))

    @property
    def description(self) -> str:
        """One line, for the report."""
        return f"AS-norm of cosines, the {self.top_k:,} nearest of {len(self.means):,} training speakers"

    def scores(self, embeddings: Embeddings, first: Rows, second: Rows) -> FloatArray:
        """(N,) normalised scores."""
        vectors = centred(embeddings.vectors, self.centre)
        raw = cosine_scores(vectors, first, second)
        return as_norm(raw, first, second, cohort_statistics(vectors, self.means, top_k=self.top_k))

    def cohort(self, embeddings: Embeddings) -> CohortStatistics | None:
        """How each utterance scores against its nearest cohort speakers."""
        vectors = centred(embeddings.vectors, self.centre)
        return cohort_statistics(vectors, self.means, top_k=self.top_k)


@dataclass(frozen=True, eq=False)
class PldaScorer:
    """Log-likelihood ratios of a PLDA model of the training speakers.

    Attributes:
        axes: (P, D) of the space that embeddings fill, in which the model works.
        plda: The model.
        num_speakers: Of how many speakers.
    """

    axes: FloatArray
    plda: Plda
    num_speakers: int

    @classmethod
    def of(cls, training: Embeddings, speaker_ids: Sequence[str]) -> "PldaScorer":
        """Fitted to these training utterances."""
        num_speakers = len(set(speaker_ids))
        axes = _principal_axes(training.vectors)
        # LDA leaves as many dimensions as there are differences between speakers.
        lda_dim = num_speakers - 1 if num_speakers <= len(axes) else None
        plda = Plda.fit(_along(training.vectors, axes), speaker_ids, lda_dim=lda_dim)
        return cls(axes, plda, num_speakers)

    @property
    def description(self) -> str:
        """One line, for the report."""
        return f"PLDA trained on {self.num_speakers:,} speakers"

    def scores(self, embeddings: Embeddings, first: Rows, second: Rows) -> FloatArray:
        """(N,) log-likelihood ratios of the model, which is not calibrated by that."""
        vectors = _along(embeddings.vectors, self.axes)
        return np.asarray(self.plda.llr(vectors, first, second), np.float64)

    def cohort(self, embeddings: Embeddings) -> CohortStatistics | None:
        """There is none."""
        return None


def _principal_axes(vectors: NDArray[np.float32]) -> FloatArray:
    """(P, D) orthonormal directions in which embeddings (U, D) vary.

    Where the last layer is wider than the pooling (512 after 128 in Fast ResNet-34), embeddings fill no more
    dimensions than that has; their covariance in all of them has no inverse, which PLDA needs.
    """
    centre = mean_embedding(vectors).astype(np.float64)
    covariance = np.zeros((len(centre), len(centre)))
    for rows in blocks(len(vectors), _BLOCK):
        deviations = vectors[rows] - centre
        covariance += deviations.T @ deviations
    variances, axes = np.linalg.eigh(covariance)
    return np.asarray(axes.T[variances > _LEAST_VARIANCE * variances.sum()])


def _along(vectors: NDArray[np.float32], axes: FloatArray) -> FloatArray:
    """(U, P) the embeddings (U, D) in coordinates of the axes."""
    return np.concatenate([vectors[rows] @ axes.T for rows in blocks(len(vectors), _BLOCK)])


def qualities(scorer: Scorer, embeddings: Embeddings, first: Rows, second: Rows) -> QualityMeasures:
    """Durations, magnitudes and, with a cohort, its mean scores of both utterances of each trial."""
    lengths = magnitudes(embeddings.vectors)
    by_utterance = lengths if lengths.ndim == 1 else lengths.mean(axis=1)
    return quality_measures(embeddings.num_frames, by_utterance, scorer.cohort(embeddings), first, second)
