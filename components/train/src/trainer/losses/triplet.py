"""Triplet loss over unit vectors with negatives mined within the batch, without any randomness."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainer.losses.base import LossOutput, SpeakerLoss, unit_vectors
from voxsrc.errors import ConfigError


@dataclass(frozen=True)
class TripletConfig:
    """Options of `Triplet`.

    Attributes:
        margin: By which the squared distance to the negative should exceed that to the positive; [0, 4).
        mining: Which negative: `hardest`, the nearest to the anchor; or `semi_hard` (Schroff et al., CVPR
            2015), the nearest of those farther than the positive, and if there is none, the farthest.
    """

    margin: float = 0.1
    mining: Literal["hardest", "semi_hard"] = "semi_hard"

    def __post_init__(self) -> None:
        _check_margin(self.margin)
        if self.mining not in ("hardest", "semi_hard"):
            raise ConfigError(f"mining is {self.mining!r}; expected hardest or semi_hard")


class Triplet(SpeakerLoss):
    """mean(max(0, |a - p|² - |a - n|² + margin)) over unit vectors a, p, n.

    Anchors are the speakers' first utterances, positives each of their others (N x (M - 1) triplets), and
    negatives are mined among the others' of all other speakers; the first in the batch of several equal ones.
    The accuracy is the part of the triplets whose positive is nearer than every negative.
    """

    Config = TripletConfig
    needs_groups = True
    needs_classes = False
    margin: Tensor  # a buffer for the same reasons as in trainer.losses.classification

    def __init__(self, embedding_dim: int, num_speakers: int, config: TripletConfig) -> None:
        super().__init__(embedding_dim, num_speakers)
        self.mining = config.mining
        self.register_buffer("margin", torch.tensor(config.margin), persistent=False)

    def set_margin(self, margin: float) -> None:
        """See `SpeakerLoss`; a squared distance in [0, 4)."""
        _check_margin(margin)
        self.margin.fill_(margin)

    def evaluate(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        """See `SpeakerLoss`."""
        num_speakers, num_utterances, _ = embeddings.shape
        vectors_NMD = unit_vectors(embeddings)
        anchors_ND, others_CD = vectors_NMD[:, 0], vectors_NMD[:, 1:].flatten(0, 1)
        distances_NC = (
            anchors_ND.square().sum(dim=1, keepdim=True)
            + others_CD.square().sum(dim=1)
            - 2.0 * anchors_ND @ others_CD.T
        )
        speakers_N = torch.arange(num_speakers, device=embeddings.device)
        own_NC = speakers_N[:, None] == speakers_N.repeat_interleave(num_utterances - 1)
        positive_NP = distances_NC.reshape(num_speakers, num_speakers, -1).diagonal().T
        negative_NP = distances_NC.gather(1, self._mined(distances_NC.detach(), own_NC, positive_NP.detach()))
        loss = (positive_NP - negative_NP + self.margin).clamp_min(0.0).mean()
        nearest_N1 = distances_NC.detach().masked_fill(own_NC, math.inf).amin(dim=1, keepdim=True)
        return LossOutput(loss, (positive_NP.detach() < nearest_N1).to(loss.dtype).mean())

    def _mined(self, distances_NC: Tensor, own_NC: Tensor, positive_NP: Tensor) -> Tensor:
        """Index in 0..C-1 of the negative of each triplet, (N, P)."""
        # Stable sorting, because argmin may return any of equal ones.
        nearest_N1 = distances_NC.masked_fill(own_NC, math.inf).sort(dim=1, stable=True).indices[:, :1]
        if self.mining == "hardest":
            return nearest_N1.expand_as(positive_NP)
        distances_NPC = distances_NC[:, None].expand(-1, positive_NP.shape[1], -1)
        own_N1C = own_NC[:, None]
        farther_NPC = (distances_NPC > positive_NP[:, :, None]) & ~own_N1C
        semi_hard = distances_NPC.masked_fill(~farther_NPC, math.inf).sort(dim=2, stable=True).indices[..., 0]
        farthest = (-distances_NPC).masked_fill(own_N1C, math.inf).sort(dim=2, stable=True).indices[..., 0]
        return torch.where(farther_NPC.any(dim=2), semi_hard, farthest)


def _check_margin(margin: float) -> None:
    if not 0.0 <= margin < 4.0:
        raise ConfigError(f"margin is {margin:g}; expected from 0 to below 4, the largest squared distance")
