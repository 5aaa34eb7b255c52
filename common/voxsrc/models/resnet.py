"""Residual networks over the time-frequency plane: Fast ResNet-34, its larger sister, WeSpeaker's, a mini."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from voxsrc.errors import ConfigError
from voxsrc.models.base import EmbeddingModel
from voxsrc.models.blocks import BasicBlock, ConvOrder
from voxsrc.models.pooling import MIN_FRAMES, PoolingName, build_pooling


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """A residual network of 3 × 3 basic blocks; the defaults are ResNetSE34L.

    Attributes:
        channels: Channels of each stage; the stem has those of the first.
        num_blocks: Blocks of each stage.
        strides: Stride of each stage, on both axes.
        stem_kernel: Side of the first convolution's kernel.
        stem_stride: Stride of the first convolution on the frequency and the time axis.
        stem_bias: Whether the first convolution has a bias.
        stem_order: Order of activation and batch norm after the first convolution.
        block_order: The same after the first convolution of each block.
        se_reduction: Channels per hidden unit of squeeze and excitation; 0 is none.
        frequency: Whether the rows that remain are averaged (`mean`) or become channels (`flatten`).
        pooling: Over time.
        initialisation: Of convolutions: `kaiming_fan_out` (voxceleb_trainer) or `torch` (WeSpeaker).
    """

    channels: tuple[int, ...] = (16, 32, 64, 128)
    num_blocks: tuple[int, ...] = (3, 4, 6, 3)
    strides: tuple[int, ...] = (1, 2, 2, 1)
    stem_kernel: int = 7
    stem_stride: tuple[int, int] = (2, 1)
    stem_bias: bool = False
    stem_order: ConvOrder = "norm_relu"
    block_order: ConvOrder = "relu_norm"
    se_reduction: int = 8
    frequency: Literal["mean", "flatten"] = "mean"
    pooling: PoolingName = "SAP"
    initialisation: Literal["kaiming_fan_out", "torch"] = "kaiming_fan_out"

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be built."""
        if not len(self.channels) == len(self.num_blocks) == len(self.strides) > 0:
            raise ConfigError(
                f"channels has {len(self.channels)} entries, num_blocks {len(self.num_blocks)}, strides "
                f"{len(self.strides)}; expected one for each stage, and at least one stage"
            )
        for name in ("channels", "num_blocks", "strides", "stem_stride"):
            if min(getattr(self, name)) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected numbers above 0")
        if self.stem_kernel < 1 or self.stem_kernel % 2 == 0:
            raise ConfigError(f"stem_kernel is {self.stem_kernel}; expected an odd number above 0")
        if not 0 <= self.se_reduction <= min(self.channels):
            raise ConfigError(
                f"se_reduction is {self.se_reduction}; expected 0 (no gates) to the fewest channels, "
                f"{min(self.channels)}"
            )


RESNET_SE_34_L = ResNetConfig()
RESNET_SE_34_V2 = ResNetConfig(
    channels=(32, 64, 128, 256),
    strides=(1, 2, 2, 2),
    stem_kernel=3,
    stem_stride=(1, 1),
    stem_bias=True,
    stem_order="relu_norm",
    frequency="flatten",
    pooling="ASP",
)
RESNET_34 = ResNetConfig(
    channels=(32, 64, 128, 256),
    strides=(1, 2, 2, 2),
    stem_kernel=3,
    stem_stride=(1, 1),
    block_order="norm_relu",
    se_reduction=0,
    frequency="flatten",
    pooling="TSTP",
    initialisation="torch",
)
RESNET_MINI = ResNetConfig(
    channels=(16, 24, 32, 48), num_blocks=(1, 1, 1, 1), stem_kernel=5, stem_stride=(2, 2)
)


class ResNet(EmbeddingModel):
    """The network that a `ResNetConfig` describes.

    Args:
        config: The architecture.
        num_mels: F of the input. Any number from the product of the strides upwards: convolutions are
            padded, so each stride halves the rows and rounds up.
        embedding_dim: D of the output.
    """

    def __init__(self, config: ResNetConfig, *, num_mels: int, embedding_dim: int) -> None:
        shrink_frequency, shrink_time = (s * math.prod(config.strides) for s in config.stem_stride)
        rows = math.ceil(num_mels / shrink_frequency)
        pooled_channels = config.channels[-1] * (rows if config.frequency == "flatten" else 1)
        pooling = build_pooling(config.pooling, max(pooled_channels, 1))
        super().__init__(
            num_mels=num_mels,
            min_mels=shrink_frequency,
            embedding_dim=embedding_dim,
            min_frames=(MIN_FRAMES - 1) * shrink_time + 1,
        )
        self.config = config
        stem_channels = config.channels[0]
        self.stem = nn.Conv2d(
            1,
            stem_channels,
            config.stem_kernel,
            stride=config.stem_stride,
            padding=config.stem_kernel // 2,
            bias=config.stem_bias,
        )
        self.stem_norm = nn.BatchNorm2d(stem_channels)
        self.stages = nn.Sequential(*_stages(config))
        self.pooling = pooling
        self.linear = nn.Linear(pooling.out_dim, embedding_dim)
        if config.initialisation == "kaiming_fan_out":
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def embed(self, features_BFT: Tensor) -> Tensor:
        """(B, F, T) to (B, D)."""
        x = self.stem(features_BFT.unsqueeze(1))
        if self.config.stem_order == "relu_norm":
            x = self.stem_norm(F.relu(x, inplace=True))
        else:
            x = F.relu(self.stem_norm(x), inplace=True)
        x = self.stages(x)
        x_BCT = x.mean(dim=2) if self.config.frequency == "mean" else x.flatten(1, 2)
        embedding: Tensor = self.linear(self.pooling(x_BCT))
        return embedding


def _stages(config: ResNetConfig) -> list[nn.Module]:
    stages: list[nn.Module] = []
    in_channels = config.channels[0]
    for channels, num_blocks, stride in zip(config.channels, config.num_blocks, config.strides, strict=True):
        blocks = []
        for i in range(num_blocks):
            blocks.append(
                BasicBlock(
                    in_channels,
                    channels,
                    stride if i == 0 else 1,
                    order=config.block_order,
                    se_reduction=config.se_reduction,
                )
            )
            in_channels = channels
        stages.append(nn.Sequential(*blocks))
    return stages
