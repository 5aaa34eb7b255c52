"""Size and cost of a model."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from voxsrc.models.registry import MODELS, build_model

CROP_FRAMES = 200  # 2 s at a hop of 10 ms, the usual training crop


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Figures of one model.

    Attributes:
        num_parameters: Trained numbers; batch-norm statistics are not among them.
        forward_gflop: 10⁹ floating-point operations (a multiplication and an addition are two) of the
            convolutions and matrix products of one crop, forward.
        training_gflop: The same, forward and backward.
    """

    num_parameters: int
    forward_gflop: float
    training_gflop: float


def count_parameters(module: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(parameter.numel() for parameter in module.parameters())


def measure(name: str, *, num_mels: int | None = None, num_frames: int = CROP_FRAMES) -> Complexity:
    """Figures of a registered model, counted without computing anything.

    Args:
        name: A key of `MODELS`.
        num_mels: Mel bands; None is the model's published number.
        num_frames: Frames T of the crop.
    """
    num_mels = num_mels or MODELS[name].num_mels
    batch_size = 2  # batch norm after pooling cannot be trained on one
    with torch.device("meta"):
        model = build_model(name, num_mels=num_mels)
        features = torch.empty(batch_size, num_mels, num_frames)
    with FlopCounterMode(display=False) as forward:
        embeddings = model(features)
    with FlopCounterMode(display=False) as backward:
        embeddings.sum().backward()
    forward_gflop = forward.get_total_flops() / batch_size / 1e9
    return Complexity(
        num_parameters=count_parameters(model),
        forward_gflop=forward_gflop,
        training_gflop=forward_gflop + backward.get_total_flops() / batch_size / 1e9,
    )
