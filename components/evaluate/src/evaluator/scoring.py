"""A way of scoring made ready: trained on the training set where it needs one, and calibrated.

Letters: N trials.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluator.options import EvaluationOptions
from evaluator.scorers import (
    AsNormScorer,
    CosineScorer,
    FloatArray,
    MeanDistanceScorer,
    PldaScorer,
    Rows,
    Scorer,
    qualities,
)
from evaluator.training_set import TrainingSet
from voxsrc.corpus import TrialList
from voxsrc.embedding import CROPS, WHOLE_UTTERANCES, Embeddings
from voxsrc.embedding.embedder import Embedder
from voxsrc.errors import ConfigError, CorpusError
from voxsrc.models.stored import ModelError, StoredModel
from voxsrc.scoring import LogisticCalibration, ScoringError


@dataclass(frozen=True, eq=False)
class HeldOutScores:
    """The scores of trials among held-out training speakers, to calibrate on or to fuse by.

    Attributes:
        trials: N labelled trials.
        scores: (N,) as the trials of the evaluation are scored.
    """

    trials: TrialList
    scores: FloatArray


@dataclass(frozen=True, eq=False)
class Calibration:
    """From scores to log-likelihood ratios.

    Attributes:
        map: Takes scores, and quality measures if `quality`; None if there is no calibration.
        source: What it was fitted on, or why there is none; a clause.
        quality: Whether quality measures come after the score.
        held_out: What it was fitted on here; None if it came with the model.
    """

    map: LogisticCalibration | None
    source: str
    quality: bool = False
    held_out: "HeldOutScores | None" = None

    def llrs(
        self, scorer: Scorer, scores: FloatArray, embeddings: Embeddings, first: Rows, second: Rows
    ) -> FloatArray | None:
        """(N,) log-likelihood ratios of scores of pairs of rows of embeddings."""
        if self.map is None:
            return None
        if not self.quality:
            return self.map.llr(scores)
        return self.map.llr(qualities(scorer, embeddings, first, second).with_score(scores)[1])


def embedder_of(options: EvaluationOptions, model: StoredModel, cache_uri: str) -> Embedder:
    """What embeds as the scoring wants it, keeps what it made, and shows its progress."""
    mode = CROPS if options.scoring == "mean-distance" else WHOLE_UTTERANCES
    return Embedder(model, device=options.device, mode=mode, cache_uri=cache_uri, progress=True)


def scorer_of(options: EvaluationOptions, embedder: Embedder, training: TrainingSet | None) -> Scorer:
    """The scorer, trained if need be.

    Raises:
        ConfigError: If it needs a training set and there is none.
        CorpusError: If the training set has too few speakers for it.
        ScoringError: If it has too few utterances of each.
    """
    if options.scoring == "cosine":
        return CosineScorer()
    if options.scoring == "mean-distance":
        return MeanDistanceScorer()
    if training is None:
        raise ConfigError(f"--scoring {options.scoring} needs --train-features")
    embeddings, speaker_ids = training.cohort(embedder, options.cohort_utterances)
    if options.scoring == "plda":
        return PldaScorer.of(embeddings, speaker_ids)
    return AsNormScorer.of(embeddings, speaker_ids, options.top_cohort)


def calibration_of(
    options: EvaluationOptions, scorer: Scorer, embedder: Embedder, training: TrainingSet | None
) -> Calibration:
    """The calibration on speakers that training held out: fitted now, or the model's own for plain cosines.

    Raises:
        ModelError: If the model's own is damaged.
        CorpusError: If there is none, and quality measures, which come with it, are wanted.
    """
    if training is not None:
        fitted = _fitted(options, scorer, embedder, training)
        if options.quality and fitted.map is None:
            raise CorpusError(f"--quality: {fitted.source}")
        return fitted
    stored = embedder.model.description.calibration
    if options.scoring != "cosine":
        return Calibration(
            None, f"there is no calibration of {options.scoring} scores without --train-features"
        )
    if stored is None:
        return Calibration(None, "the model has no calibration, and --train-features is not given")
    try:
        calibration = LogisticCalibration.from_dict(stored)
    except ConfigError as error:
        raise ModelError(f"model.yaml: {error}") from error
    return Calibration(calibration, _told(calibration.fitted_on))


def _fitted(
    options: EvaluationOptions, scorer: Scorer, embedder: Embedder, training: TrainingSet
) -> Calibration:
    try:
        held_out = training.held_out_trials(embedder)
        if held_out is None:
            return Calibration(
                None,
                "there is no calibration, as no speakers but those of the trials were held out of training",
            )
        embeddings, trials = held_out
        scores = scorer.scores(embeddings, trials.first, trials.second)
        inputs = scores[:, None]
        names: tuple[str, ...] = ("score",)
        if options.quality:
            names, inputs = qualities(scorer, embeddings, trials.first, trials.second).with_score(scores)
        fitted = trials.calibration(inputs, scorer.description, names=names, p_target=options.p_target)
    except (CorpusError, ScoringError) as error:
        return Calibration(None, f"there is no calibration: {error}")
    if not fitted.well_ordered:
        return Calibration(
            None, "there is no calibration: on held-out speakers the scores are worse than chance"
        )
    ids = embeddings.utterance_ids
    listed = TrialList(trials.labels, [ids[row] for row in trials.first], [ids[row] for row in trials.second])
    final = fitted.llr(inputs) if options.quality else scores
    return Calibration(fitted, _told(fitted.fitted_on), options.quality, HeldOutScores(listed, final))


def _told(facts: Mapping[str, Any]) -> str:
    trials, speakers = facts.get("trials", 0), facts.get("speakers", 0)
    return f"calibrated on {trials:,} trials of {speakers:,} speakers whom training held out"
