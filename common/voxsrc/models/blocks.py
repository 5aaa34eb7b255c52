"""Blocks that several models share."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

ConvOrder = Literal["norm_relu", "relu_norm"]


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate in (0, 1) computed from all channels' means (arXiv:1709.01507)."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, bottleneck)
        self.excite = nn.Linear(bottleneck, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) or (B, C, F, T) to the same."""
        # Not over x.flatten(2): torch.export would forbid the lengths at which a row has one frame.
        mean_BC = x.mean(dim=tuple(range(2, x.dim())))
        gate_BC: Tensor = self.excite(F.relu(self.squeeze(mean_BC))).sigmoid()
        return x * gate_BC.view(*gate_BC.shape, *(1 for _ in x.shape[2:]))


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut (He et al., arXiv:1512.03385), optionally with a gate.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        stride: Of the first convolution, on both axes.
        order: What follows the first convolution: `norm_relu` as published, or `relu_norm` as
            voxceleb_trainer has it.
        se_reduction: Channels per hidden unit of the gate; 0 is no gate.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, order: ConvOrder, se_reduction: int
    ) -> None:
        super().__init__()
        self.relu_first = order == "relu_norm"
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.gate: nn.Module = nn.Identity()
        if se_reduction:
            self.gate = SqueezeExcitation(out_channels, out_channels // se_reduction)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) to (B, C', ⌈F / stride⌉, ⌈T / stride⌉)."""
        out = self.conv1(x)
        if self.relu_first:
            out = self.norm1(F.relu(out, inplace=True))
        else:
            out = F.relu(self.norm1(out), inplace=True)
        out = self.gate(self.norm2(self.conv2(out)))
        out += self.shortcut(x)
        return F.relu(out, inplace=True)
