"""Quality measures: what a trial's score should be judged by besides itself.

Thienpondt, Desplanques and Demuynck, "The IDLAB VoxSRC-20 submission: large margin fine-tuning and
quality-aware score calibration in DNN based speaker verification" (ICASSP 2021), and WeSpeaker's recipe: of
both utterances the smaller and the larger duration, embedding magnitude and mean score against the cohort.
Letters: U utterances, N trials, Q measures.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from voxsrc.scoring.as_norm import CohortStatistics
from voxsrc.scoring.errors import ScoringError
from voxsrc.scoring.vectors import FloatArray, checked_pairs, checked_scores


@dataclass(frozen=True, eq=False)
class QualityMeasures:
    """Measures of each trial, the same whichever utterance is enrolled.

    Attributes:
        names: Q names.
        values: (N, Q) float64.
    """

    names: tuple[str, ...]
    values: FloatArray

    def with_score(self, scores: ArrayLike) -> tuple[tuple[str, ...], FloatArray]:
        """Names and (N, 1 + Q) values with the score first, as inputs of `LogisticCalibration`.

        Raises:
            ScoringError: If there are not as many scores as trials, or one is not finite.
        """
        column = checked_scores(scores, len(self.values))
        return ("score", *self.names), np.column_stack([column, self.values])


def quality_measures(
    num_frames: ArrayLike,
    magnitudes: ArrayLike,
    cohort: CohortStatistics | None,
    first: ArrayLike,
    second: ArrayLike,
) -> QualityMeasures:
    """The measures of each trial: `log_duration`, `log_magnitude`, `cohort_mean`, each `_min` and `_max`.

    Differences and ratios of the two, which WeSpeaker adds, are linear in these, and so left out.

    Args:
        num_frames: (U,) frames of each utterance; their natural logarithm is taken.
        magnitudes: (U,) lengths of the embeddings, as of `voxsrc.scoring.magnitudes`; likewise.
        cohort: Statistics of the U utterances; None leaves their measures out.
        first: (N,) row of each trial's enrollment utterance.
        second: (N,) row of its test utterance.

    Raises:
        ScoringError: If lengths differ, a row does not exist, or a duration or magnitude is not positive.
    """
    frames, lengths = np.asarray(num_frames, np.float64), np.asarray(magnitudes, np.float64)
    columns = {"log_duration": _log(frames, "num_frames"), "log_magnitude": _log(lengths, "magnitudes")}
    if cohort is not None:
        columns["cohort_mean"] = cohort.mean
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        raise ScoringError(f"quality measures: found {sizes} utterances, expected the same of all")
    rows, others = checked_pairs(first, second, len(frames))
    names: list[str] = []
    values: list[FloatArray] = []
    for name, column in columns.items():
        names += [f"{name}_min", f"{name}_max"]
        pair = column[rows], column[others]
        values += [np.minimum(*pair), np.maximum(*pair)]
    return QualityMeasures(tuple(names), np.column_stack(values))


def _log(values: FloatArray, what: str) -> FloatArray:
    if values.ndim != 1:
        raise ScoringError(f"{what}: found shape {values.shape}, expected (U,)")
    bad = np.flatnonzero(~((values > 0) & np.isfinite(values)))
    if len(bad):
        raise ScoringError(f"{what}: row {bad[0]} is {values[bad[0]]}, expected a positive number")
    return np.asarray(np.log(values))
