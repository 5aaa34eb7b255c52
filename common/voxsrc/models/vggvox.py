"""VGGVox: the VGG-M network of the VoxCeleb papers, as voxceleb_trainer has it for log-mel input."""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from voxsrc.models.base import EmbeddingModel
from voxsrc.models.pooling import MIN_FRAMES, PoolingName, build_pooling


@dataclass(frozen=True, kw_only=True)
class VggVoxConfig:
    """VGG-M (Nagrani et al., arXiv:1706.08612).

    Attributes:
        pooling: Over time.
    """

    pooling: PoolingName = "SAP"


class _Layer(NamedTuple):
    """A convolution or a maximum over a window; pairs are (frequency, time). No channels: a maximum."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    channels: int = 0

    def size(self, size: int, axis: int) -> int:
        """Length of the output on `axis` for an input of `size`, at most 0 if nothing is left."""
        return (size + 2 * self.padding[axis] - self.kernel[axis]) // self.stride[axis] + 1


_LAYERS = (
    _Layer((5, 7), stride=(1, 2), padding=(2, 2), channels=96),
    _Layer((1, 3), stride=(1, 2)),
    _Layer((5, 5), stride=(2, 2), padding=(1, 1), channels=256),
    _Layer((3, 3), stride=(2, 2)),
    _Layer((3, 3), padding=(1, 1), channels=384),
    _Layer((3, 3), padding=(1, 1), channels=256),
    _Layer((3, 3), padding=(1, 1), channels=256),
    _Layer((3, 3), stride=(2, 2)),
)
_OUT_CHANNELS = 512


class VggVox(EmbeddingModel):
    """Five convolutions, and a sixth over all rows that remain (4 for 40 mel bands).

    Args:
        config: The architecture.
        num_mels: F of the input, at least 15.
        embedding_dim: D of the output.
    """

    def __init__(self, config: VggVoxConfig, *, num_mels: int, embedding_dim: int) -> None:
        pooling = build_pooling(config.pooling, _OUT_CHANNELS)
        super().__init__(
            num_mels=num_mels,
            min_mels=_least_size(axis=0, remaining=1),
            embedding_dim=embedding_dim,
            min_frames=_least_size(axis=1, remaining=MIN_FRAMES),
        )
        layers: list[nn.Module] = []
        in_channels = 1
        full_height = _Layer((_remaining(num_mels, axis=0), 1), channels=_OUT_CHANNELS)
        for layer in (*_LAYERS, full_height):
            if not layer.channels:
                layers.append(nn.MaxPool2d(layer.kernel, layer.stride))
                continue
            layers += [
                nn.Conv2d(in_channels, layer.channels, layer.kernel, layer.stride, layer.padding),
                nn.BatchNorm2d(layer.channels),
                nn.ReLU(inplace=True),
            ]
            in_channels = layer.channels
        self.layers = nn.Sequential(*layers)
        self.pooling = pooling
        self.linear = nn.Linear(pooling.out_dim, embedding_dim)

    def embed(self, features_BFT: Tensor) -> Tensor:
        """(B, F, T) to (B, D)."""
        x_BCT = self.layers(features_BFT.unsqueeze(1)).squeeze(2)
        embedding: Tensor = self.linear(self.pooling(x_BCT))
        return embedding


def _remaining(size: int, axis: int) -> int:
    for layer in _LAYERS:
        size = layer.size(size, axis)
        if size < 1:
            return 0
    return size


def _least_size(axis: int, remaining: int) -> int:
    return next(size for size in itertools.count(1) if _remaining(size, axis) >= remaining)
