"""Generalised end-to-end loss, softmax form (Wan et al., ICASSP 2018, equations 5, 6 and 9)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.losses.base import LossOutput, SpeakerLoss, accuracy, unit_vectors
from trainer.losses.prototypical import AngularProtoConfig, ScaledCosine
from voxsrc.errors import ConfigError


@dataclass(frozen=True)
class GE2EConfig(AngularProtoConfig):
    """Options of `GE2E`: those of the scaled cosine and one more.

    Attributes:
        min_cosine: Lower cosines are raised to it, or null. voxceleb_trainer has 1e-6; pairs below it then
            get no gradient, also an utterance that points away from its own speaker.
    """

    min_cosine: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_cosine is not None and not -1.0 <= self.min_cosine < 1.0:
            raise ConfigError(f"min_cosine is {self.min_cosine:g}; expected from -1 to below 1, or null")


class GE2E(SpeakerLoss):
    """Every utterance against every speaker's centroid: softmax over w cos(x_ji, c_k) + b, mean over N x M.

    The own speaker's centroid leaves out the utterance itself.
    """

    Config = GE2EConfig
    needs_groups = True
    needs_classes = False

    def __init__(self, embedding_dim: int, num_speakers: int, config: GE2EConfig) -> None:
        super().__init__(embedding_dim, num_speakers)
        self.min_cosine = config.min_cosine
        self.score = ScaledCosine(config.initial_scale, config.initial_bias)

    def evaluate(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        """See `SpeakerLoss`."""
        num_speakers, num_utterances, _ = embeddings.shape
        # Sums point where the means point.
        sums_N1D = embeddings.sum(dim=1, keepdim=True)
        utterances_NMD = unit_vectors(embeddings)
        own_NM = (utterances_NMD * unit_vectors(sums_N1D - embeddings)).sum(dim=2)
        cosines_BN = utterances_NMD.flatten(0, 1) @ unit_vectors(sums_N1D[:, 0]).T
        targets_B = torch.arange(num_speakers, device=embeddings.device).repeat_interleave(num_utterances)
        cosines_BN = cosines_BN.scatter(1, targets_B[:, None], own_NM.reshape(-1, 1))
        floored_BN = cosines_BN if self.min_cosine is None else cosines_BN.clamp_min(self.min_cosine)
        loss = F.cross_entropy(self.score(floored_BN), targets_B)
        return LossOutput(loss, accuracy(cosines_BN, targets_B))
