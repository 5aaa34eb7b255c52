"""The equal error rate on training speakers that are held out; the test trials are never looked at.

Letters: U utterances, N trials, D embedding.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from trainer.data import DeviceFeatures
from trainer.randomness import RandomStream
from trainer.utterances import TrainingUtterances
from voxsrc.corpus import TrialList
from voxsrc.errors import ConfigError, CorpusError
from voxsrc.feature_set.index import UtteranceIndex
from voxsrc.metrics import equal_error_rate, error_rates, speaker_bootstrap
from voxsrc.models.encoder import SpeakerEncoder

# Trials are chosen by this seed, not the recipe's, so that runs with other seeds can be compared.
_TRIAL_SEED = 0


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """What a model is selected by.

    Attributes:
        fraction: Part of the training speakers that is held out, at least two; 0 holds out nobody.
        interval_steps: Steps between validations; None is once an epoch. There is always one at the end.
        max_utterances: At most so many utterances are embedded, chosen by hash.
        max_trials: At most so many target trials and as many non-target trials are scored.
        crop_frames: Frames of the one crop of each utterance, from its middle; a shorter one is looped.
        patience: Stop if the EER has not improved in so many validations; None never does.
    """

    fraction: float = 0.02
    interval_steps: int | None = None
    max_utterances: int = 2_000
    max_trials: int = 20_000
    crop_frames: int = 300
    patience: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        if not 0 <= self.fraction < 1:
            raise ConfigError(f"fraction is {self.fraction}; expected 0 to below 1")
        for name in ("interval_steps", "max_utterances", "max_trials", "crop_frames", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; expected at least 1")


class Validation:
    """Embeds held-out utterances and scores fixed trials among them.

    Args:
        features: The training set's features.
        utterances: The held-out ones.
        config: How.
        batch_size: Utterances embedded at a time.

    Raises:
        ConfigError: If the held-out utterances make no target or no non-target trial.
    """

    def __init__(
        self,
        features: DeviceFeatures,
        utterances: TrainingUtterances,
        config: ValidationConfig,
        *,
        batch_size: int = 64,
    ) -> None:
        self._features = features
        self._config = config
        self._batch_size = batch_size
        stream = RandomStream(_TRIAL_SEED, "validation_utterances")
        chosen = np.sort(stream.permutation(0, len(utterances))[: config.max_utterances])
        self._rows = utterances.rows[chosen]
        self.speaker_labels = utterances.labels[chosen]
        lengths = utterances.num_frames[chosen]
        middle = np.maximum(lengths - config.crop_frames, 0) // 2
        self._first_frames = utterances.first_frames[chosen] + middle
        self.trials = _balanced_trials(self.speaker_labels, config.max_trials)
        if not 0 < self.trials.labels.sum() < len(self.trials.labels):
            raise ConfigError(
                f"the {len(chosen)} held-out utterances of {utterances.num_speakers} speakers make no "
                "trials of "
                "both kinds; raise validation.fraction, or set it to 0 to train without validation"
            )

    def equal_error_rate(self, encoder: SpeakerEncoder) -> float:
        """The EER of cosine scores, in [0, 1]; the encoder is left in the mode in which it was."""
        embeddings = self._embed(encoder).cpu().numpy().astype(np.float64)
        scores = np.einsum("nd,nd->n", embeddings[self.trials.first], embeddings[self.trials.second])
        return equal_error_rate(error_rates(scores, self.trials.labels))

    def _embed(self, encoder: SpeakerEncoder) -> Tensor:
        crops = (
            self._features.dequantise(
                self._features.levels(
                    self._rows[start : start + self._batch_size],
                    self._first_frames[start : start + self._batch_size],
                    self._config.crop_frames,
                )
            )
            for start in range(0, len(self._rows), self._batch_size)
        )
        was_training = encoder.training
        encoder.eval()
        with torch.no_grad():
            embeddings = torch.cat([encoder(crop.transpose(1, 2)).float() for crop in crops])
        encoder.train(was_training)
        return F.normalize(embeddings, dim=1)


@dataclass(frozen=True, eq=False)
class _Trials:
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    labels: NDArray[np.int8]


def _balanced_trials(speaker_labels: NDArray[np.int64], max_trials: int) -> _Trials:
    """As many target as non-target pairs of utterances, at most `max_trials` each, always the same."""
    first, second = np.triu_indices(len(speaker_labels), k=1)
    is_target = speaker_labels[first] == speaker_labels[second]
    parts = []
    num_each = min(max_trials, int(is_target.sum()), int((~is_target).sum()))
    for counter, kind in enumerate((is_target, ~is_target)):
        places = np.flatnonzero(kind)
        order = RandomStream(_TRIAL_SEED, "validation_trials").permutation(counter, len(places))
        parts.append(np.sort(places[order[:num_each]]))
    chosen = np.concatenate(parts)
    return _Trials(first[chosen], second[chosen], is_target[chosen].astype(np.int8))


@dataclass(frozen=True)
class TestResult:
    """The EER on a list of trials, with its 95 % interval over speakers; all in [0, 1]."""

    equal_error_rate: float
    low: float
    high: float
    num_trials: int


def rows_of_trials(
    trials: TrialList, index: UtteranceIndex, trials_uri: str, min_frames: int
) -> dict[str, int]:
    """The rows in `index` of the utterances of labelled trials.

    Raises:
        CorpusError: If the list is blind, or names utterances that the features lack, or that have fewer
            than `min_frames` frames.
    """
    if trials.labels is None:
        raise CorpusError(f"{trials_uri} has no labels; expected lines `1|0 path path`")
    row_of = {utterance_id: row for row, utterance_id in enumerate(index.utterance_ids)}
    names = trials.utterance_ids()
    missing = [name for name in names if name not in row_of]
    if missing:
        raise CorpusError(
            f"{trials_uri} names {len(missing)} utterances that the test features lack, the first is "
            f"{missing[0]}"
        )
    short = [name for name in names if index.num_frames[row_of[name]] < min_frames]
    if short:
        raise CorpusError(
            f"{trials_uri} names {len(short)} utterances of less than {min_frames} frames, which the model "
            f"needs, the first is {short[0]}; leave their trials out"
        )
    return {name: row_of[name] for name in names}


def test_trials(
    encoder: SpeakerEncoder, features: DeviceFeatures, trials: TrialList, trials_uri: str
) -> TestResult:
    """Scores labelled trials by the cosine of whole utterances' embeddings; for reporting, never for choice.

    Raises:
        CorpusError: See `rows_of_trials`.
    """
    row_of = rows_of_trials(trials, features.index, trials_uri, encoder.min_frames)
    was_training = encoder.training
    encoder.eval()
    with torch.no_grad():
        embedded = {
            name: F.normalize(encoder(features.utterance(row).T[None]).float()[0], dim=0).cpu()
            for name, row in row_of.items()
        }
    encoder.train(was_training)
    scores = [
        float(embedded[a].double() @ embedded[b].double())
        for a, b in zip(trials.enrollments, trials.tests, strict=True)
    ]
    speaker = {name: features.index.speaker_ids[row] for name, row in row_of.items()}
    pairs = [(speaker[a], speaker[b]) for a, b in zip(trials.enrollments, trials.tests, strict=True)]
    labels = np.asarray(trials.labels)
    low, high = speaker_bootstrap(equal_error_rate, scores, labels, pairs)
    return TestResult(equal_error_rate(error_rates(scores, labels)), low, high, len(scores))
