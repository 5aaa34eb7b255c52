"""The equal error rate on training speakers that are held out; the test trials are never looked at.

Letters: U utterances, N trials, D embedding.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.data import DeviceFeatures
from voxsrc.corpus import speed_copies
from voxsrc.errors import ConfigError
from voxsrc.held_out import MAX_TRIALS, MAX_UTTERANCES, HeldOutTrials
from voxsrc.metrics import equal_error_rate, error_rates
from voxsrc.models.encoder import SpeakerEncoder, evaluating
from voxsrc.recipes import VALIDATION_FRACTION


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """What a model is selected by.

    Attributes:
        fraction: Part of the training speakers that is held out, at least two; 0 holds out nobody.
        interval_steps: Steps between validations; None is once an epoch. There is always one at the end.
        max_utterances: At most so many utterances are embedded, chosen by hash.
        max_trials: At most so many target trials and as many non-target trials are scored.
        crop_frames: Frames of the one crop of each utterance, from its middle; a shorter one is looped.
        patience: Stop if the EER has not improved in so many validations; None never does. Without effect if
            the fraction is 0.
    """

    fraction: float = VALIDATION_FRACTION
    interval_steps: int | None = None
    max_utterances: int = MAX_UTTERANCES
    max_trials: int = MAX_TRIALS
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
        speaker_ids: The held-out speakers.
        config: How.
        batch_size: Utterances embedded at a time.

    Attributes:
        trials: What is scored.

    Raises:
        CorpusError: If the held-out utterances make no trials of both kinds.
    """

    def __init__(
        self,
        features: DeviceFeatures,
        speaker_ids: Iterable[str],
        config: ValidationConfig,
        *,
        batch_size: int = 64,
    ) -> None:
        self._features = features
        self._config = config
        self._batch_size = batch_size
        index = features.index
        self.trials = HeldOutTrials.of(
            index,
            speaker_ids,
            copies=speed_copies(index.speaker_ids, features.manifest.made_from),
            max_utterances=config.max_utterances,
            max_trials=config.max_trials,
        )
        self._rows = self.trials.rows
        middle = np.maximum(index.num_frames[self._rows] - config.crop_frames, 0) // 2
        self._first_frames = index.first_frames[self._rows] + middle

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
        with evaluating(encoder), torch.no_grad():
            embeddings = torch.cat([encoder(crop.transpose(1, 2)).float() for crop in crops])
        return F.normalize(embeddings, dim=1)
