"""Scored trials, with all that a report says about how they were scored. Letters: N trials."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluator.options import EvaluationOptions
from evaluator.report import Condition
from evaluator.scorers import FloatArray
from evaluator.scoring import Calibration
from evaluator.utterances import TrialUtterances
from voxsrc import storage
from voxsrc.corpus import TrialList
from voxsrc.embedding import Embeddings
from voxsrc.models.stored import StoredModel
from voxsrc.trial_lists import Recognition


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of one system.

    Attributes:
        raw: (N,) higher for the same speaker.
        llrs: (N,) calibrated log-likelihood ratios; None without calibration.
    """

    raw: FloatArray
    llrs: FloatArray | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was scored, and how.

    Attributes:
        options: What was asked for.
        model: The model.
        trials: N trials.
        recognition: Which list they are.
        utterances: Where their utterances came from.
        embeddings: Of these utterances.
        description: The scoring, in words.
        calibration: Of the scores.
        scores: (N,) scores.
        llrs: (N,) calibrated; None without calibration.
        speakers: N pairs; None if nobody knows.
        conditions: By which the report groups the trials.
        warnings: What a reader of the results has to know.
    """

    options: EvaluationOptions
    model: StoredModel
    trials: TrialList
    recognition: Recognition
    utterances: TrialUtterances
    embeddings: Embeddings
    description: str
    calibration: Calibration
    scores: FloatArray
    llrs: FloatArray | None
    speakers: Sequence[tuple[str, str]] | None
    conditions: Sequence[Condition]
    warnings: list[str]

    def uri(self, name: str) -> str:
        """A file of the output."""
        return storage.join(self.options.output, name)
