"""The losses by name: `build_loss("aam", embedding_dim=256, num_speakers=5994, margin=0.2)`."""

from typing import Any

from trainer.losses.base import LossOutput, SpeakerLoss
from trainer.losses.classification import AAMSoftmax, AMSoftmax, Softmax
from trainer.losses.ge2e import GE2E
from trainer.losses.prototypical import AngularProto, Proto, SoftmaxProto
from trainer.losses.triplet import Triplet
from voxsrc.config import from_mapping, suggestion
from voxsrc.errors import ConfigError

__all__ = ["LOSSES", "LossOutput", "SpeakerLoss", "build_loss", "check_loss"]

LOSSES: dict[str, type[SpeakerLoss]] = {
    "softmax": Softmax,
    "am": AMSoftmax,
    "aam": AAMSoftmax,
    "proto": Proto,
    "angleproto": AngularProto,
    "softmaxproto": SoftmaxProto,
    "ge2e": GE2E,
    "triplet": Triplet,
}


def check_loss(name: str, options: dict[str, Any], path: str = "loss") -> Any:
    """The loss's `Config`, before any data are touched.

    Raises:
        ConfigError: Unknown name or option, or an option's value that cannot be used; `path` is named.
    """
    if name not in LOSSES:
        raise ConfigError(f"{path}: there is no loss {name!r}, {suggestion(name, LOSSES)}")
    return from_mapping(LOSSES[name].Config, options, path)


def build_loss(name: str, *, embedding_dim: int, num_speakers: int, **options: Any) -> SpeakerLoss:
    """The loss of this name; its weights are drawn from torch's default generator.

    Args:
        name: A key of LOSSES.
        embedding_dim: D of the encoder.
        num_speakers: S, speakers of the training list; labels are 0..S-1. Metric losses do not depend on it.
        options: Fields of the loss's `Config`.

    Raises:
        ConfigError: See `check_loss`; or fewer than 2 speakers, or no embedding dimension.
    """
    config = check_loss(name, options)
    if embedding_dim < 1:
        raise ConfigError(f"loss: embedding_dim is {embedding_dim}; expected 1 or more")
    if num_speakers < 2:
        raise ConfigError(
            f"loss: the training list has {num_speakers} speakers; expected 2 or more to tell apart"
        )
    build: Any = LOSSES[name]
    loss: SpeakerLoss = build(embedding_dim, num_speakers, config)
    return loss
