"""Who of some enrolled speakers speaks in a recording, or none of them: 1:N on embeddings, NumPy alone.

Letters: S speakers, U utterances, D embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxsrc.errors import ConfigError
from voxsrc.scoring import LogisticCalibration, length_normalised, speaker_means, threshold


@dataclass(frozen=True, eq=False)
class Enrollment:
    """Speakers to tell apart.

    Attributes:
        speaker_ids: S speakers, sorted.
        means: (S, D) float64, of each the mean of the length-normalised embeddings: its product with a
            length-normalised embedding is the mean cosine with the speaker's recordings, which the
            calibration of single cosines fits.
        num_utterances: Recordings of each.
        unusable: Recordings that were left out, with the reason.
    """

    speaker_ids: list[str]
    means: NDArray[np.float64]
    num_utterances: list[int]
    unusable: dict[str, str]

    @classmethod
    def of(
        cls, embeddings: NDArray[np.float32], speaker_ids: Sequence[str], unusable: dict[str, str]
    ) -> "Enrollment":
        """The speakers of some embeddings (U, D).

        Raises:
            ScoringError: If there are none, or one has length zero or is not finite.
        """
        names, counts = np.unique(np.asarray(speaker_ids, np.str_), return_counts=True)
        return cls(names.tolist(), speaker_means(embeddings, speaker_ids), counts.tolist(), unusable)


@dataclass(frozen=True)
class Candidate:
    """One enrolled speaker as the speaker of a recording.

    Attributes:
        speaker_id: Who.
        score: Mean cosine with the speaker's recordings, in [-1, 1].
        probability: That it is this one and none of the others; None without a calibration.
    """

    speaker_id: str
    score: float
    probability: float | None


@dataclass(frozen=True)
class Identification:
    """Who of the enrolled speaks in a recording.

    Attributes:
        candidates: The likeliest, best first.
        probability_of_none: That it is none of the enrolled; None without a calibration.
        threshold: Least score of the best that is accepted; None without a calibration and a given one.
        speaker_id: The best, if it is accepted; None if none of the enrolled is, or there is no threshold.
    """

    candidates: list[Candidate]
    probability_of_none: float | None
    threshold: float | None
    speaker_id: str | None


def identify(
    embedding: NDArray[np.float32],
    enrolled: Enrollment,
    calibration: LogisticCalibration | None,
    *,
    top: int,
    prior: float,
    min_score: float | None,
) -> Identification:
    """Ranks enrolled speakers for one embedding.

    S speakers are S occasions to be taken for one: the prior is divided among them, so that Bayes' threshold
    rises with S.

    Args:
        embedding: (D,).
        enrolled: The speakers.
        calibration: From cosine to log-likelihood ratio.
        top: How many candidates to return.
        prior: How probable it is that the speaker is enrolled at all, in (0, 1).
        min_score: Score from which to accept the best; None is Bayes', of a calibration.

    Raises:
        ConfigError: If `top` is below 1.
        ScoringError: If the prior is out of range, or the embedding has length zero.
    """
    if top < 1:
        raise ConfigError(f"top is {top}; expected at least 1")
    bayes_llr = threshold(prior) + np.log(len(enrolled.speaker_ids))
    scores = np.clip(enrolled.means @ length_normalised(embedding[None])[0], -1.0, 1.0).astype(np.float64)
    probabilities = None if calibration is None else _posteriors(calibration.llr(scores), prior)
    candidates = [
        Candidate(
            enrolled.speaker_ids[row],
            float(scores[row]),
            None if probabilities is None else float(probabilities[row]),
        )
        for row in np.argsort(-scores, kind="stable")[:top].tolist()
    ]
    least = min_score
    if least is None and calibration is not None:
        least = calibration.score_at(bayes_llr)
    is_accepted = least is not None and candidates[0].score >= least
    return Identification(
        candidates,
        None if probabilities is None else float(probabilities[-1]),
        least,
        candidates[0].speaker_id if is_accepted else None,
    )


def _posteriors(llrs: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
    """(S + 1,) probability of each of S speakers, equally probable before, and of none of them."""
    log_weights = np.append(llrs + np.log(prior / len(llrs)), np.log1p(-prior))
    posteriors: NDArray[np.float64] = np.exp(log_weights - np.logaddexp.reduce(log_weights))
    return posteriors
