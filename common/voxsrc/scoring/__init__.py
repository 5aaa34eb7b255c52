"""Scores of trials: cosine, mean distance, AS-norm, PLDA, calibration, quality measures, fusion.

All is computed by NumPy, without torch. A trial is two rows, `first` and `second` (N,) int64, of embeddings
(U, D); `pairs_of` finds them. Everything works in blocks, with memory that does not grow with the number of
trials beyond a few bytes for each.
"""

from voxsrc.scoring.as_norm import CohortStatistics, as_norm, cohort_statistics, speaker_means
from voxsrc.scoring.calibration import LogisticCalibration, probability, threshold
from voxsrc.scoring.errors import ScoringError
from voxsrc.scoring.fusion import SystemScores, fit_fusion, fuse
from voxsrc.scoring.plda import Plda
from voxsrc.scoring.quality import QualityMeasures, quality_measures
from voxsrc.scoring.similarity import cosine_scores, mean_distance_scores
from voxsrc.scoring.trials import DuplicatedTrial, UnknownUtterancesError, duplicated_trials, pairs_of
from voxsrc.scoring.vectors import centred, length_normalised, magnitudes, mean_embedding

__all__ = [
    "CohortStatistics",
    "DuplicatedTrial",
    "LogisticCalibration",
    "Plda",
    "QualityMeasures",
    "ScoringError",
    "SystemScores",
    "UnknownUtterancesError",
    "as_norm",
    "centred",
    "cohort_statistics",
    "cosine_scores",
    "duplicated_trials",
    "fit_fusion",
    "fuse",
    "length_normalised",
    "magnitudes",
    "mean_distance_scores",
    "mean_embedding",
    "pairs_of",
    "probability",
    "quality_measures",
    "speaker_means",
    "threshold",
]
