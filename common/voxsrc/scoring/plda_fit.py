"""What `voxsrc.scoring.plda` is fitted with: sums over speakers, LDA, expectation-maximisation.

Letters: C speakers, U utterances, P dimensions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxsrc.scoring.errors import ScoringError
from voxsrc.scoring.speakers import Speakers, add_by_speaker
from voxsrc.scoring.vectors import FloatArray, Floats, IntArray

# Below this part of the largest, a variance is rounding.
_RANK_TOLERANCE = 1e-10
# Between speakers, in units of the variance within: that dimension tells nothing of a speaker.
_LEAST_VARIANCE = 1e-3


@dataclass(frozen=True)
class SpeakerStatistics:
    """All that fitting needs of the data.

    Attributes:
        counts: (C,) utterances of each speaker.
        means: (C, P) of each speaker.
        scatter: (P, P) sum over all utterances of the products of deviations from the speaker's mean.
    """

    counts: IntArray
    means: FloatArray
    scatter: FloatArray

    @classmethod
    def of(
        cls,
        vectors: Floats,
        speaker_labels: Sequence[str] | NDArray[np.str_],
        prepared: Callable[[FloatArray, IntArray], FloatArray],
    ) -> "SpeakerStatistics":
        """Reads `vectors` a block at a time; each block goes, with its rows, through `prepared`.

        Raises:
            ScoringError: If there are too few speakers or utterances to tell both covariances.
        """
        speakers = Speakers.of(speaker_labels, len(vectors))
        num_speakers = len(speakers.names)
        if num_speakers < 2:
            raise ScoringError(f"PLDA: found {num_speakers} speaker, expected at least 2, better hundreds")
        if speakers.counts.max() < 2:
            raise ScoringError(
                f"PLDA: found one utterance of each of {num_speakers} speakers, expected several: the "
                "covariance within a speaker cannot be told; check the speaker labels"
            )
        num_dims = prepared(vectors[:1].astype(np.float64), np.arange(1)).shape[1]
        sums, products = np.zeros((num_speakers, num_dims)), np.zeros((num_dims, num_dims))
        for rows, of_row, part in speakers.blocks(vectors):
            ready = prepared(part, rows)
            add_by_speaker(sums, of_row, ready)
            products += ready.T @ ready
        means = sums / speakers.counts[:, None]
        scatter = products - sums.T @ means
        found = cls(speakers.counts, means, (scatter + scatter.T) / 2)
        variances = np.linalg.eigvalsh(found.scatter)
        if variances[0] <= _RANK_TOLERANCE * np.trace(products):
            raise ScoringError(
                f"PLDA: {len(vectors)} utterances of {num_speakers} speakers do not fill {num_dims} "
                f"dimensions within a speaker (expected at least {num_speakers + num_dims}, all different); "
                "take more utterances of each speaker"
            )
        return found

    @property
    def within(self) -> FloatArray:
        """(P, P) unbiased covariance within a speaker."""
        return np.asarray(self.scatter / (self.counts.sum() - len(self.counts)))


def discriminants(statistics: SpeakerStatistics, num_kept: int) -> FloatArray:
    """(num_kept, P) directions of most between- over within-speaker variance; within-speaker variance 1.

    Fisher's linear discriminant analysis, the speakers' means weighted by their utterances.
    """
    whiten = _whitening(statistics.within)
    means = (statistics.means - np.average(statistics.means, axis=0, weights=statistics.counts)) @ whiten.T
    _, vectors = np.linalg.eigh((means * statistics.counts[:, None]).T @ means)
    return np.asarray(vectors[:, ::-1][:, :num_kept].T @ whiten)


def expectation_maximisation(
    statistics: SpeakerStatistics, iterations: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The two-covariance model's mean, diagonalising transform and between-speaker variances.

    Each step works where the model found so far is diagonal, so that a speaker's posterior is one too: with
    within-speaker covariance I and between-speaker variances b, n utterances of mean z leave the speaker's
    mean with variance v = b / (1 + n b) and mean m + n v (z - m).

    Returns:
        (P,), (P, P), (P,) as in `Plda`.
    """
    counts = statistics.counts[:, None].astype(np.float64)
    num_speakers, num_utterances = len(counts), float(counts.sum())
    mean = statistics.means.mean(axis=0)
    deviations = statistics.means - mean
    # The means of few utterances scatter by the covariance within a speaker as well.
    between = deviations.T @ deviations / (num_speakers - 1) - statistics.within * np.mean(1 / counts)
    transform, variances = _diagonalising(statistics.within, between)
    # From a variance of zero no step would lead away.
    variances = np.maximum(variances, _LEAST_VARIANCE)
    for _ in range(iterations):
        offsets = (statistics.means - mean) @ transform.T
        scatter = transform @ statistics.scatter @ transform.T
        posterior_variance = variances / (1 + counts * variances)
        posterior = counts * posterior_variance * offsets
        residual = offsets - posterior
        step = posterior.mean(axis=0)
        spread = posterior - step
        between = (np.diag(posterior_variance.sum(axis=0)) + spread.T @ spread) / num_speakers
        within = (
            scatter + np.diag((counts * posterior_variance).sum(axis=0)) + (counts * residual).T @ residual
        )
        mean = mean + np.linalg.solve(transform, step)
        further, variances = _diagonalising(within / num_utterances, between)
        transform = further @ transform
    return mean, transform, variances


def _diagonalising(within: FloatArray, between: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(P, P) transform to within-speaker covariance I, and (P,) variances between speakers there, falling."""
    whiten = _whitening(within)
    variances, vectors = np.linalg.eigh(whiten @ between @ whiten.T)
    return np.asarray(vectors[:, ::-1].T @ whiten), np.maximum(variances[::-1], 0.0)


def _whitening(covariance: FloatArray) -> FloatArray:
    """(P, P) W with W Σ Wᵀ = I."""
    variances, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors / np.sqrt(variances)).T)
