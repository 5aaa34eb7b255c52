"""Gaussian PLDA: an embedding is its speaker's mean plus a within-speaker deviation, both Gaussian.

The two-covariance model (Brümmer and de Villiers, "The speaker partitioning problem", Odyssey 2010; Sizov,
Lee and Kinnunen, "Unifying probabilistic linear discriminant analysis variants", S+SSPR 2014), scored after
simultaneous diagonalisation of both covariances (Ioffe, "Probabilistic linear discriminant analysis", ECCV
2006), on length-normalised embeddings (Garcia-Romero and Espy-Wilson, Interspeech 2011).

Letters: U utterances, C speakers, D embedding, P dimensions after LDA, N trials.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxsrc.scoring.errors import ScoringError
from voxsrc.scoring.plda_fit import SpeakerStatistics, discriminants, expectation_maximisation
from voxsrc.scoring.vectors import (
    FloatArray,
    Floats,
    IntArray,
    blocks,
    checked_embeddings,
    checked_pairs,
    mean_embedding,
    pair_products,
)

_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Plda:
    """A fitted model.

    Attributes:
        centre: (D,) mean of the training embeddings, subtracted first.
        lda: (P, D) projection, applied next; the identity without LDA. Then vectors are scaled to length √P.
        mean: (P,) mean of the speakers' means there.
        transform: (P, P) makes the within-speaker covariance the identity, the between-speaker one diagonal.
        between: (P,) the diagonal of the latter, falling, not negative.
    """

    centre: FloatArray
    lda: FloatArray
    mean: FloatArray
    transform: FloatArray
    between: FloatArray

    @classmethod
    def fit(
        cls,
        embeddings: ArrayLike,
        speaker_labels: Sequence[str] | NDArray[np.str_],
        *,
        lda_dim: int | None = None,
        iterations: int = 10,
    ) -> "Plda":
        """Fits by expectation-maximisation, from the moments of the data.

        Args:
            embeddings: (U, D) of training utterances, read in blocks.
            speaker_labels: U speakers, several utterances of most.
            lda_dim: P, at most D and fewer than the speakers; None for no LDA.
            iterations: Steps of expectation-maximisation; 0 leaves the moments.

        Raises:
            ScoringError: If there are too few speakers, or too few utterances of each, to tell the
                covariances, or `lda_dim` cannot be.
        """
        vectors = checked_embeddings(embeddings)
        num_dims = vectors.shape[1]
        if lda_dim is not None and not 1 <= lda_dim <= num_dims:
            raise ScoringError(f"lda_dim: found {lda_dim}, expected 1 to {num_dims}, the embeddings' size")
        if iterations < 0:
            raise ScoringError(f"iterations: found {iterations}, expected 0 or more")
        centre = mean_embedding(vectors).astype(np.float64)
        lda = np.eye(num_dims)
        if lda_dim is not None:
            raw = SpeakerStatistics.of(vectors, speaker_labels, lambda part, _: part - centre)
            if lda_dim >= len(raw.counts):
                raise ScoringError(
                    f"lda_dim: found {lda_dim}, expected fewer than the {len(raw.counts)} speakers"
                )
            lda = discriminants(raw, lda_dim)
        statistics = SpeakerStatistics.of(
            vectors, speaker_labels, lambda part, rows: _projected(part, centre, lda, rows)
        )
        return cls(centre, lda, *expectation_maximisation(statistics, iterations))

    def project(self, embeddings: ArrayLike) -> FloatArray:
        """(U, P) float64: centred, by LDA, of length √P; what the model is a model of.

        Raises:
            ScoringError: If the embeddings have another size, are not finite, or one equals the centre.
        """
        vectors = self._checked(embeddings)
        projected = np.empty((len(vectors), len(self.lda)))
        for part in blocks(len(vectors), _BLOCK):
            rows = np.arange(part.start, part.stop)
            projected[part] = _projected(vectors[part].astype(np.float64), self.centre, self.lda, rows)
        return projected

    def llr(
        self, embeddings: ArrayLike, first: ArrayLike, second: ArrayLike, *, block: int = 1024
    ) -> FloatArray:
        """The log-likelihood ratio, natural, of one speaker against two.

        Args:
            embeddings: (U, D).
            first: (N,) row of each trial's enrollment utterance.
            second: (N,) row of its test utterance.
            block: Trials computed at a time; memory beside the embeddings is 8 × U × P bytes, O(block × P).

        Returns:
            (N,) float64.

        Raises:
            ScoringError: As `project`, or if a trial's row does not exist.
        """
        vectors = self._checked(embeddings)
        rows, columns = checked_pairs(first, second, len(vectors))
        diagonal = self.project(vectors)
        for part in blocks(len(vectors), _BLOCK):
            diagonal[part] = (diagonal[part] - self.mean) @ self.transform.T
        # In each dimension a pair has the covariance [[b + 1, b], [b, b + 1]] or, of two speakers, (b + 1) I.
        # The eigenvectors of the first are the sum and the difference, with eigenvalues 2b + 1 and 1.
        b = self.between
        squares = 0.5 / (b + 1) - 0.25 / (2 * b + 1) - 0.25
        products = 0.5 - 0.5 / (2 * b + 1)
        constant = float(np.sum(np.log1p(b) - 0.5 * np.log1p(2 * b)))
        own = np.einsum("up,up,p->u", diagonal, diagonal, squares)
        # The products' weights are not negative: half of each goes to either side.
        diagonal *= np.sqrt(products)
        ratios = pair_products(diagonal, diagonal, rows, columns, block)
        ratios += own[rows] + own[columns] + constant
        return ratios

    def _checked(self, embeddings: ArrayLike) -> Floats:
        vectors = checked_embeddings(embeddings)
        if vectors.shape[1] != len(self.centre):
            raise ScoringError(
                f"embeddings: found {vectors.shape[1]} dimensions, expected the PLDA model's "
                f"{len(self.centre)}; fit it on embeddings of the same model"
            )
        return vectors


def _projected(vectors: FloatArray, centre: FloatArray, lda: FloatArray, rows: IntArray) -> FloatArray:
    """(n, P) of (n, D): centred, by LDA, scaled to length √P; `rows` (n,) are for an error."""
    projected = (vectors - centre) @ lda.T
    lengths = np.sqrt(np.einsum("np,np->n", projected, projected))
    if not lengths.all():
        row = rows[np.flatnonzero(lengths == 0)[0]]
        raise ScoringError(
            f"embeddings: row {row} equals the centre of the training embeddings, so it has no "
            "direction; leave the utterance out"
        )
    projected *= (np.sqrt(len(lda)) / lengths)[:, None]
    return projected
