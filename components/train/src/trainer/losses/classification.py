"""Losses that classify the training speakers: softmax, AM-softmax, AAM-softmax.

Weights are drawn from torch's default generator, as those of torch's own layers are.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.losses.base import LossOutput, SpeakerLoss, accuracy, unit_vectors
from voxsrc.errors import ConfigError


@dataclass(frozen=True)
class SoftmaxConfig:
    """Softmax has no options."""


@dataclass(frozen=True)
class AMSoftmaxConfig:
    """Options of `AMSoftmax`.

    Attributes:
        margin: Subtracted from the cosine to the own speaker, in [0, 2).
        scale: Factor of the cosines, above 0.
    """

    margin: float = 0.2
    scale: float = 30.0

    def __post_init__(self) -> None:
        _check_margin(self.margin, 2.0)
        _check_scale(self.scale)


@dataclass(frozen=True)
class AAMSoftmaxConfig:
    """Options of `AAMSoftmax`.

    Attributes:
        margin: Added to the angle to the own speaker, in radians, in [0, π/2).
        scale: Factor of the cosines, above 0.
        num_subcentres: Weights per speaker K; an utterance is compared with the nearest one (Deng et al.,
            ECCV 2020), so that wrongly labelled utterances can gather around another.
        easy_margin: Applies the margin only to utterances within π/2 of their speaker.
    """

    margin: float = 0.2
    scale: float = 32.0
    num_subcentres: int = 1
    easy_margin: bool = False

    def __post_init__(self) -> None:
        _check_margin(self.margin, math.pi / 2)
        _check_scale(self.scale)
        if self.num_subcentres < 1:
            raise ConfigError(f"num_subcentres is {self.num_subcentres}; expected 1 or more")


class Softmax(SpeakerLoss):
    """Cross-entropy of a linear layer with bias: the mean of -log softmax(W x + b)[label]."""

    Config = SoftmaxConfig
    needs_groups = False
    needs_classes = True

    def __init__(self, embedding_dim: int, num_speakers: int, config: SoftmaxConfig) -> None:
        super().__init__(embedding_dim, num_speakers)
        self.linear = nn.Linear(embedding_dim, num_speakers)

    def evaluate(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        """See `SpeakerLoss`."""
        dtype = embeddings.dtype
        logits_BS = F.linear(embeddings, self.linear.weight.to(dtype), self.linear.bias.to(dtype))
        return LossOutput(F.cross_entropy(logits_BS, labels), accuracy(logits_BS, labels))


class _MarginSoftmax(SpeakerLoss):
    """Cross-entropy of scaled cosines to a unit vector per speaker, the own speaker's made harder."""

    needs_groups = False
    needs_classes = True
    # A buffer and not a number, because torch.compile would compile anew for each number; not saved, because
    # it follows from the step.
    margin: Tensor

    def __init__(
        self, embedding_dim: int, num_speakers: int, margin: float, scale: float, num_subcentres: int = 1
    ) -> None:
        super().__init__(embedding_dim, num_speakers)
        self.scale = scale
        self.num_subcentres = num_subcentres
        self.weight = nn.Parameter(torch.empty(num_speakers * num_subcentres, embedding_dim))
        nn.init.xavier_normal_(self.weight)
        self.register_buffer("margin", torch.tensor(margin), persistent=False)

    @abstractmethod
    def penalised(self, target_B: Tensor) -> Tensor:
        """The cosines to the own speakers, (B,), with the margin applied."""

    def evaluate(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        """See `SpeakerLoss`."""
        centres = unit_vectors(self.weight.to(embeddings.dtype))
        cosines_BS = unit_vectors(embeddings) @ centres.T
        if self.num_subcentres > 1:
            cosines_BS = cosines_BS.reshape(-1, self.num_speakers, self.num_subcentres).amax(dim=2)
        target_B1 = cosines_BS.gather(1, labels[:, None])
        logits_BS = self.scale * cosines_BS.scatter(1, labels[:, None], self.penalised(target_B1))
        return LossOutput(F.cross_entropy(logits_BS, labels), accuracy(cosines_BS, labels))


class AMSoftmax(_MarginSoftmax):
    """Additive margin (Wang et al., 2018): the own speaker's logit is scale (cos θ - margin)."""

    Config = AMSoftmaxConfig

    def __init__(self, embedding_dim: int, num_speakers: int, config: AMSoftmaxConfig) -> None:
        super().__init__(embedding_dim, num_speakers, config.margin, config.scale)

    def set_margin(self, margin: float) -> None:
        """See `SpeakerLoss`; in [0, 2)."""
        _check_margin(margin, 2.0)
        self.margin.fill_(margin)

    def penalised(self, target_B: Tensor) -> Tensor:
        """cos θ - margin."""
        return target_B - self.margin


class AAMSoftmax(_MarginSoftmax):
    """Additive angular margin (Deng et al., CVPR 2019): the own speaker's logit is scale cos(θ + margin).

    Beyond θ = π - margin, where cos(θ + margin) would rise again, it goes on as cos θ - (1 - cos margin),
    which is continuous there (as WeSpeaker has it; voxceleb_trainer's cos θ - margin sin margin is not).
    """

    Config = AAMSoftmaxConfig

    def __init__(self, embedding_dim: int, num_speakers: int, config: AAMSoftmaxConfig) -> None:
        super().__init__(embedding_dim, num_speakers, config.margin, config.scale, config.num_subcentres)
        self.easy_margin = config.easy_margin

    def set_margin(self, margin: float) -> None:
        """See `SpeakerLoss`; radians in [0, π/2)."""
        _check_margin(margin, math.pi / 2)
        self.margin.fill_(margin)

    def penalised(self, target_B: Tensor) -> Tensor:
        """cos(θ + margin), continued monotonically."""
        cos_margin, sin_margin = self.margin.cos(), self.margin.sin()
        # d sin θ / d cos θ is infinite at cos θ = ±1; below the rounding error of 1 - cos² it is cut to 0.
        sine = (1.0 - target_B.square()).clamp_min(torch.finfo(target_B.dtype).eps).sqrt()
        harder = target_B * cos_margin - sine * sin_margin
        if self.easy_margin:
            return torch.where(target_B > 0.0, harder, target_B)
        return torch.where(target_B > -cos_margin, harder, target_B - (1.0 - cos_margin))


def _check_margin(margin: float, limit: float) -> None:
    if not 0.0 <= margin < limit:
        raise ConfigError(f"margin is {margin:g}; expected from 0 to below {limit:.4g}")


def _check_scale(scale: float) -> None:
    if not 0.0 < scale < math.inf:
        raise ConfigError(f"scale is {scale:g}; expected a number above 0")
