"""From log-mel features to embeddings: normalisation over time, then a model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from voxsrc.config import from_mapping, to_mapping
from voxsrc.errors import ConfigError
from voxsrc.models.base import at_least_float32, check_features
from voxsrc.models.registry import MODELS, build_model, model_config

Normalisation = Literal["mean", "mean_variance", "none"]

# Of torch's InstanceNorm1d, which voxceleb_trainer normalises with.
_VARIANCE_EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What a `SpeakerEncoder` is made of.

    Attributes:
        name: A key of `voxsrc.models.MODELS`.
        num_mels: Mel bands F of the features.
        embedding_dim: Size D of the embedding; None becomes the model's published size.
        normalisation: Of each band over the frames of the utterance or crop: subtract the `mean`, also
            divide by the deviation (`mean_variance`; voxceleb_trainer's), or `none`.
        options: Fields of the model's own config that differ from the registered ones.
    """

    name: str
    num_mels: int
    embedding_dim: int | None = None
    normalisation: Normalisation = "mean"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ConfigError on an unknown model or option, or a size below 1."""
        model_config(self.name, self.options)
        if self.embedding_dim is None:
            object.__setattr__(self, "embedding_dim", MODELS[self.name].embedding_dim)
        for size in ("num_mels", "embedding_dim"):
            if getattr(self, size) < 1:
                raise ConfigError(f"{size} is {getattr(self, size)}; expected a number above 0")

    def to_dict(self) -> dict[str, Any]:
        """The fields as YAML- and JSON-ready values."""
        return to_mapping(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], path: str = "") -> Self:
        """The config with these fields, the others at their defaults.

        Args:
            fields: Fields by name.
            path: Where they stand in a larger configuration, for errors.

        Raises:
            ConfigError: On an unknown key (the nearest known one is suggested) or a value that cannot be
                used.
        """
        return from_mapping(cls, fields, path)


class SpeakerEncoder(nn.Module):
    """A model with its normalisation of features.

    Attributes:
        config: What it was built from.
        model: The `EmbeddingModel`.
        num_mels: Mel bands F of the input.
        embedding_dim: Size D of an embedding.
        min_frames: Least frames T of the input.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = build_model(
            config.name, num_mels=config.num_mels, embedding_dim=config.embedding_dim, **config.options
        )
        self.num_mels = self.model.num_mels
        self.embedding_dim = self.model.embedding_dim
        self.min_frames = self.model.min_frames

    def forward(self, features: Tensor) -> Tensor:
        """The embeddings of a batch of utterances or crops of one length, not length-normalised.

        Args:
            features: (B, F, T) float32, natural-log mel energies.

        Returns:
            (B, D) float32.

        Raises:
            ConfigError: If `features` has not three dimensions or not `num_mels` bands.
            AudioError: `too_short`, if T is less than `min_frames`.
        """
        if not torch.compiler.is_exporting():
            check_features(features, self.num_mels, self.min_frames, self.config.name)
        embeddings: Tensor = self.model(normalise(features, self.config.normalisation))
        return embeddings


@contextmanager
def evaluating(encoder: nn.Module) -> Iterator[None]:
    """Has a network in evaluation mode meanwhile, and leaves it in the mode in which it was."""
    was_training = encoder.training
    encoder.eval()
    try:
        yield
    finally:
        encoder.train(was_training)


def normalise(features: Tensor, normalisation: Normalisation) -> Tensor:
    """Each band of (B, F, T) features normalised over T, in float32; variance with divisor T, plus 1e-5."""
    features = at_least_float32(features)
    if normalisation == "none":
        return features
    centred = features - features.mean(dim=2, keepdim=True)
    if normalisation == "mean":
        return centred
    return centred * (centred.square().mean(dim=2, keepdim=True) + _VARIANCE_EPSILON).rsqrt()
