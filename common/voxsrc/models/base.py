"""What every embedding model shares: sizes, checks of the input, the type of the output.

Letters, in all of `voxsrc.models`: B batch, C channels, F mel bands or rows that descend from them,
T frames, D embedding.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from voxsrc.errors import AudioError, ConfigError


class EmbeddingModel(nn.Module):
    """A network from normalised log-mel features to speaker embeddings; subclasses write `embed`.

    The tensors are 4-dimensional inside the two-dimensional models, whose weights may be put into
    channels-last memory with `.to(memory_format=torch.channels_last)`.

    Attributes:
        num_mels: Mel bands F that the input must have.
        embedding_dim: Size D of an embedding.
        min_frames: Least frames T that give an embedding.
    """

    def __init__(self, *, num_mels: int, min_mels: int, embedding_dim: int, min_frames: int) -> None:
        super().__init__()
        if num_mels < min_mels:
            raise ConfigError(
                f"num_mels is {num_mels}; this {type(self).__name__} shrinks the frequency axis and needs at "
                f"least {min_mels}: use features with more mel bands"
            )
        if embedding_dim < 1:
            raise ConfigError(f"embedding_dim is {embedding_dim}; expected a number above 0")
        self.num_mels = num_mels
        self.embedding_dim = embedding_dim
        self.min_frames = min_frames

    def forward(self, features: Tensor) -> Tensor:
        """The embeddings of a batch, not length-normalised.

        Args:
            features: (B, F, T) float32, log-mel energies that were normalised over time.

        Returns:
            (B, D) float32 (float64 for a float64 model).

        Raises:
            ConfigError: If `features` has not three dimensions or not `num_mels` bands.
            AudioError: `too_short`, if T is less than `min_frames`.
        """
        if not torch.compiler.is_exporting():
            check_features(features, self.num_mels, self.min_frames, type(self).__name__)
        return at_least_float32(self.embed(features))

    @abstractmethod
    def embed(self, features_BFT: Tensor) -> Tensor:
        """What `forward` does to an input that is known to fit: (B, F, T) to (B, D)."""


def check_features(features: Tensor, num_mels: int, min_frames: int, reader: str) -> None:
    """Raises ConfigError on a wrong shape and AudioError on too few frames for `reader`."""
    if features.dim() != 3 or features.shape[1] != num_mels:
        raise ConfigError(
            f"features have the shape {tuple(features.shape)}; this {reader} expects (batch, {num_mels}, "
            f"frames): use features with {num_mels} mel bands, or build the model with another num_mels"
        )
    if features.shape[2] < min_frames:
        raise AudioError(
            "too_short", f"{features.shape[2]} frames; this {reader} needs at least {min_frames}"
        )


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or in its own type if that is wider: sums over time lose too much in bfloat16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
