"""Prototypical losses: each speaker's first utterance against the mean of the others of every speaker."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.losses.base import LossOutput, SpeakerLoss, accuracy, unit_vectors
from trainer.losses.classification import Softmax, SoftmaxConfig
from voxsrc.errors import ConfigError

MIN_SCALE = 1e-6


@dataclass(frozen=True)
class ProtoConfig:
    """The prototypical loss has no options."""


@dataclass(frozen=True)
class AngularProtoConfig:
    """Options of `AngularProto` and `SoftmaxProto`.

    Attributes:
        initial_scale: w at the start, above 1e-6.
        initial_bias: b at the start.
    """

    initial_scale: float = 10.0
    initial_bias: float = -5.0

    def __post_init__(self) -> None:
        if not MIN_SCALE < self.initial_scale < math.inf:
            raise ConfigError(
                f"initial_scale is {self.initial_scale:g}; expected a number above {MIN_SCALE:g}"
            )
        if not math.isfinite(self.initial_bias):
            raise ConfigError(f"initial_bias is {self.initial_bias:g}; expected a finite number")


class ScaledCosine(nn.Module):
    """w cos + b with learnt w > 0 and b.

    w = softplus(r) + 1e-6 with learnt r: positive whatever the optimizer does, and dw/dr = 1 at the usual
    w of 10, so that learning rates published for a plain w hold. In a softmax over the scores b cancels: its
    gradient is rounding noise; it is there because the published scores, and their checkpoints, have it.
    """

    def __init__(self, initial_scale: float, initial_bias: float) -> None:
        super().__init__()
        above = initial_scale - MIN_SCALE
        # The inverse of softplus, log(exp(w) - 1), in a form that does not overflow.
        self.raw_scale = nn.Parameter(torch.tensor(above + math.log(-math.expm1(-above))))
        self.bias = nn.Parameter(torch.tensor(initial_bias))

    @property
    def scale(self) -> Tensor:
        """w, a scalar above 0."""
        return F.softplus(self.raw_scale) + MIN_SCALE

    def forward(self, cosines: Tensor) -> Tensor:
        """Scores of cosines, same shape and dtype."""
        return self.scale.to(cosines.dtype) * cosines + self.bias.to(cosines.dtype)


class Proto(SpeakerLoss):
    """Prototypical networks (Snell et al., 2017): softmax over -|x_j0 - mean(x_k1, x_k2, …)|²."""

    Config = ProtoConfig
    needs_groups = True
    needs_classes = False

    def __init__(self, embedding_dim: int, num_speakers: int, config: ProtoConfig) -> None:
        super().__init__(embedding_dim, num_speakers)

    def evaluate(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        """See `SpeakerLoss`."""
        # Distances do not change if all is moved; near the origin the products lose fewer digits.
        embeddings = embeddings - embeddings.detach().mean(dim=(0, 1))
        query_ND, prototype_ND = _query_and_prototype(embeddings)
        # -|q|² is the same in all of a row, so it leaves the softmax alone and is left out.
        scores_NN = 2.0 * query_ND @ prototype_ND.T - prototype_ND.square().sum(dim=1)
        return _diagonal_cross_entropy(scores_NN)


class AngularProto(SpeakerLoss):
    """Angular prototypical (Chung et al., Interspeech 2020): softmax over w cos(x_j0, mean(x_k1, …)) + b."""

    Config = AngularProtoConfig
    needs_groups = True
    needs_classes = False

    def __init__(self, embedding_dim: int, num_speakers: int, config: AngularProtoConfig) -> None:
        super().__init__(embedding_dim, num_speakers)
        self.score = ScaledCosine(config.initial_scale, config.initial_bias)

    def evaluate(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        """See `SpeakerLoss`."""
        query_ND, prototype_ND = _query_and_prototype(embeddings)
        return _diagonal_cross_entropy(self.score(unit_vectors(query_ND) @ unit_vectors(prototype_ND).T))


class SoftmaxProto(SpeakerLoss):
    """Softmax over the training speakers plus angular prototypical, summed; the accuracy is softmax's."""

    Config = AngularProtoConfig
    needs_groups = True
    needs_classes = True

    def __init__(self, embedding_dim: int, num_speakers: int, config: AngularProtoConfig) -> None:
        super().__init__(embedding_dim, num_speakers)
        self.softmax = Softmax(embedding_dim, num_speakers, SoftmaxConfig())
        self.angular_proto = AngularProto(embedding_dim, num_speakers, config)

    def evaluate(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        """See `SpeakerLoss`."""
        labels_B = labels.repeat_interleave(embeddings.shape[1])
        softmax = self.softmax.evaluate(embeddings.flatten(0, 1), labels_B)
        return LossOutput(
            softmax.loss + self.angular_proto.evaluate(embeddings, labels).loss, softmax.accuracy
        )


def _query_and_prototype(embeddings_NMD: Tensor) -> tuple[Tensor, Tensor]:
    """Each speaker's first embedding and the mean of its others, both (N, D)."""
    return embeddings_NMD[:, 0], embeddings_NMD[:, 1:].mean(dim=1)


def _diagonal_cross_entropy(scores_NN: Tensor) -> LossOutput:
    """Row j's own speaker is column j."""
    targets_N = torch.arange(len(scores_NN), device=scores_NN.device)
    return LossOutput(F.cross_entropy(scores_NN, targets_N), accuracy(scores_NN, targets_N))
