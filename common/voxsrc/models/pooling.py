"""Pooling over time: a variable number of frames to one vector.

All take (B, C, T) with T of at least `MIN_FRAMES`, weigh and sum in float32 even under autocast, and treat
each utterance by itself.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxsrc.models.base import at_least_float32

PoolingName = Literal["SAP", "ASP", "TSTP"]

# The unbiased variance of one frame is 0 / 0, and torch.export takes a length of 1 for a constant.
MIN_FRAMES = 2


class SAP(nn.Module):
    """Self-attentive pooling (Cai et al., arXiv:1804.05160): a mean with one learnt weight per frame.

    weights = softmax over T of v · tanh(W x + b).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_dim = channels
        # 1 × 1 convolutions, not linear layers: those fold B and T together, which binds torch.export.
        self.score_in = nn.Conv1d(channels, channels, 1)
        self.score_out = nn.Conv1d(channels, 1, 1, bias=False)
        nn.init.xavier_normal_(self.score_out.weight)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """(B, C, T) to (B, C)."""
        scores_B1T = self.score_out(torch.tanh(self.score_in(x_BCT)))
        weights_B1T = at_least_float32(scores_B1T).softmax(dim=2)
        return (at_least_float32(x_BCT) * weights_B1T).sum(dim=2)


class ASP(nn.Module):
    """Attentive statistics pooling (Okabe et al., arXiv:1803.10963) with a weight per channel and frame.

    Returns the weighted mean and standard deviation. The weights are a softmax over T of a two-layer
    network.

    Args:
        channels: C of the input.
        hidden: What follows the first layer: `relu_norm` (ReLU, batch norm; voxceleb_trainer) or `tanh`
            (WeSpeaker).
        global_context: Whether the first layer also sees each channel's mean and standard deviation over
            the utterance (ECAPA-TDNN, arXiv:2005.07143).
        bottleneck: Size of the hidden layer.
        variance_floor: Variances below it are raised to it: the square root's gradient is infinite at 0.
    """

    def __init__(
        self,
        channels: int,
        *,
        hidden: Literal["relu_norm", "tanh"] = "relu_norm",
        global_context: bool = False,
        bottleneck: int = 128,
        variance_floor: float = 1e-5,
    ) -> None:
        super().__init__()
        self.out_dim = 2 * channels
        self.global_context = global_context
        self.variance_floor = variance_floor
        self.score_in = nn.Conv1d(3 * channels if global_context else channels, bottleneck, 1)
        if hidden == "tanh":
            self.hidden: nn.Module = nn.Tanh()
        else:
            self.hidden = nn.Sequential(nn.ReLU(), nn.BatchNorm1d(bottleneck))
        self.score_out = nn.Conv1d(bottleneck, channels, 1)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """(B, C, T) to (B, 2C)."""
        scores_BCT = self.score_out(self.hidden(self._first_layer(x_BCT)))
        weights_BCT = at_least_float32(scores_BCT).softmax(dim=2)
        x_BCT = at_least_float32(x_BCT)
        mean_BC1 = (weights_BCT * x_BCT).sum(dim=2, keepdim=True)
        # Not E[x²] − E[x]²: that difference of large numbers has no correct digit when the mean is large.
        variance_BC1 = (weights_BCT * (x_BCT - mean_BC1).square()).sum(dim=2, keepdim=True)
        deviation_BC1 = variance_BC1.clamp_min(self.variance_floor).sqrt()
        return torch.cat([mean_BC1, deviation_BC1], dim=1).squeeze(2)

    def _first_layer(self, x_BCT: Tensor) -> Tensor:
        if not self.global_context:
            scores: Tensor = self.score_in(x_BCT)
            return scores
        # The context is the same in every frame: its product with the weights is needed only once.
        weight, channels = self.score_in.weight, x_BCT.shape[1]
        of_context = F.linear(mean_and_deviation(x_BCT), weight[:, channels:, 0])
        return F.conv1d(x_BCT, weight[:, :channels], self.score_in.bias) + of_context.unsqueeze(2)


class TSTP(nn.Module):
    """Temporal statistics pooling: mean and standard deviation over time (x-vectors)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_dim = 2 * channels

    def forward(self, x_BCT: Tensor) -> Tensor:
        """(B, C, T) to (B, 2C)."""
        return mean_and_deviation(x_BCT)


def mean_and_deviation(x_BCT: Tensor, epsilon: float = 1e-7) -> Tensor:
    """Mean and sqrt(unbiased variance + epsilon) over time, (B, 2C) float32."""
    x_BCT = at_least_float32(x_BCT)
    deviation_BC = (x_BCT.var(dim=2) + epsilon).sqrt()
    return torch.cat([x_BCT.mean(dim=2), deviation_BC], dim=1)


def build_pooling(name: PoolingName, channels: int) -> SAP | ASP | TSTP:
    """The pooling of this name for (B, channels, T)."""
    match name:
        case "SAP":
            return SAP(channels)
        case "ASP":
            return ASP(channels)
        case "TSTP":
            return TSTP(channels)
