"""ECAPA-TDNN (Desplanques et al., arXiv:2005.07143), in WeSpeaker's arrangement.

Each block reads the block before it, not the sum of all before it as in the paper's text, and no batch
norm follows the embedding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxsrc.errors import ConfigError
from voxsrc.models.base import EmbeddingModel
from voxsrc.models.blocks import SqueezeExcitation
from voxsrc.models.pooling import ASP, MIN_FRAMES

_KERNEL = 3


@dataclass(frozen=True, kw_only=True)
class EcapaTdnnConfig:
    """An ECAPA-TDNN.

    Attributes:
        channels: C of the blocks.
        dilations: Of the blocks' convolutions, one for each block.
        scale: Groups of channels in a block's Res2 convolution.
        se_bottleneck: Hidden units of squeeze and excitation.
        aggregated_channels: Channels made of all blocks' outputs together.
        attention_bottleneck: Hidden units of the pooling's attention.
        global_context: Whether attention sees the utterance's mean and standard deviation.
    """

    channels: int = 512
    dilations: tuple[int, ...] = (2, 3, 4)
    scale: int = 8
    se_bottleneck: int = 128
    aggregated_channels: int = 1536
    attention_bottleneck: int = 128
    global_context: bool = True

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be built."""
        for name in ("channels", "se_bottleneck", "aggregated_channels", "attention_bottleneck"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a number above 0")
        if self.scale < 2 or self.channels % self.scale:
            raise ConfigError(
                f"scale is {self.scale}; expected at least 2 and a divisor of channels, {self.channels}"
            )
        if not self.dilations or min(self.dilations) < 1:
            raise ConfigError(f"dilations is {self.dilations}; expected one number above 0 for each block")


class EcapaTdnn(EmbeddingModel):
    """The network that an `EcapaTdnnConfig` describes.

    Args:
        config: The architecture.
        num_mels: F of the input, any.
        embedding_dim: D of the output.
    """

    def __init__(self, config: EcapaTdnnConfig, *, num_mels: int, embedding_dim: int) -> None:
        pooling = ASP(
            config.aggregated_channels,
            hidden="tanh",
            global_context=config.global_context,
            bottleneck=config.attention_bottleneck,
            variance_floor=1e-7,
        )
        super().__init__(num_mels=num_mels, min_mels=1, embedding_dim=embedding_dim, min_frames=MIN_FRAMES)
        self.stem = ConvReluNorm(num_mels, config.channels, kernel=5)
        self.blocks = nn.ModuleList(
            SERes2Block(config.channels, dilation, scale=config.scale, se_bottleneck=config.se_bottleneck)
            for dilation in config.dilations
        )
        self.aggregation = nn.Conv1d(
            len(config.dilations) * config.channels, config.aggregated_channels, kernel_size=1
        )
        self.pooling = pooling
        self.norm = nn.BatchNorm1d(pooling.out_dim)
        self.linear = nn.Linear(pooling.out_dim, embedding_dim)

    def embed(self, features_BFT: Tensor) -> Tensor:
        """(B, F, T) to (B, D)."""
        x_BCT = self.stem(features_BFT)
        outputs = []
        for block in self.blocks:
            x_BCT = block(x_BCT)
            outputs.append(x_BCT)
        aggregated_BCT = F.relu(self.aggregation(torch.cat(outputs, dim=1)), inplace=True)
        embedding: Tensor = self.linear(self.norm(self.pooling(aggregated_BCT)))
        return embedding


class ConvReluNorm(nn.Module):
    """Convolution over time that keeps T, ReLU, batch norm."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv1d(in_channels, out_channels, kernel, padding=padding, dilation=dilation)
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """(B, C, T) to (B, C', T)."""
        out: Tensor = self.norm(F.relu(self.conv(x_BCT), inplace=True))
        return out


class Res2Conv(nn.Module):
    """Res2Net's convolution (arXiv:1904.01169): each group of channels also gets the result before it.

    The last group is passed on as it is.
    """

    def __init__(self, channels: int, *, dilation: int, scale: int) -> None:
        super().__init__()
        width = channels // scale
        self.convs = nn.ModuleList(
            ConvReluNorm(width, width, kernel=_KERNEL, dilation=dilation) for _ in range(scale - 1)
        )

    def forward(self, x_BCT: Tensor) -> Tensor:
        """(B, C, T) to the same."""
        *groups, last = x_BCT.chunk(len(self.convs) + 1, dim=1)
        results: list[Tensor] = []
        for group, conv in zip(groups, self.convs, strict=True):
            results.append(conv(group + results[-1] if results else group))
        return torch.cat([*results, last], dim=1)


class SERes2Block(nn.Module):
    """1 × 1 convolution, Res2 convolution, 1 × 1 convolution, gate; and a shortcut."""

    def __init__(self, channels: int, dilation: int, *, scale: int, se_bottleneck: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvReluNorm(channels, channels, kernel=1),
            Res2Conv(channels, dilation=dilation, scale=scale),
            ConvReluNorm(channels, channels, kernel=1),
            SqueezeExcitation(channels, se_bottleneck),
        )

    def forward(self, x_BCT: Tensor) -> Tensor:
        """(B, C, T) to the same."""
        out: Tensor = self.layers(x_BCT)
        return x_BCT + out
