"""What all losses share: the interface, the checks of shapes and labels, and safe unit vectors.

Letters: B utterances of a batch, N speakers of a batch, M utterances of each, D embedding, S speakers in all.
"""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from voxsrc.errors import ConfigError

# A vector shorter than this has no direction: it counts as zero and gets no gradient, where x / max(|x|, eps)
# would give one of size 1 / eps.
MIN_NORM = 1e-6


class LossOutput(NamedTuple):
    """What a loss returns.

    Attributes:
        loss: Scalar to be minimised, the mean over the batch.
        accuracy: Scalar in [0, 1] without gradient: the part of the batch whose own speaker scores highest,
            margins left out so that a margin schedule does not bend the curve.
    """

    loss: Tensor
    accuracy: Tensor


class SpeakerLoss(nn.Module):
    """Base of the losses; a subclass has a frozen dataclass `Config` of its options.

    Calculates in float32 (float64 for float64 embeddings) whatever the autocast around it: bfloat16 has three
    digits, and a margin of 0.2 at cosine 0.99 needs more.

    Attributes:
        needs_groups: Embeddings come as (N, M, D), each speaker's utterances together, and no speaker twice;
            otherwise as (B, D).
        needs_classes: The loss has a weight per training speaker and needs labels.
    """

    Config: ClassVar[type[Any]]
    needs_groups: ClassVar[bool]
    needs_classes: ClassVar[bool]
    min_utterances: ClassVar[int] = 2

    def __init__(self, embedding_dim: int, num_speakers: int) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.num_speakers = num_speakers

    def forward(self, embeddings: Tensor, labels: Tensor | None = None) -> LossOutput:
        """The loss and the accuracy of a batch.

        Args:
            embeddings: (B, D), or (N, M, D) if `needs_groups`; any floating dtype.
            labels: int64 indices of speakers, 0..S-1: (B,), or (N,) if `needs_groups`; may be None unless
                `needs_classes`.

        Raises:
            ConfigError: Shapes or labels are not as said. Labels on an accelerator, or within torch.compile,
                are not looked at (that would wait for the device): call `check_labels` on the CPU's copy.
        """
        self._check_shapes(embeddings, labels)
        if labels is not None and labels.device.type == "cpu" and not torch.compiler.is_compiling():
            self.check_labels(labels)
        if labels is None:
            labels = torch.arange(len(embeddings), device=embeddings.device)
        with torch.autocast(device_type=embeddings.device.type, enabled=False):
            return self.evaluate(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), labels)

    @abstractmethod
    def evaluate(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        """The loss of checked float32 or float64 embeddings, autocast off."""

    def set_margin(self, margin: float) -> None:
        """Sets the margin from now on; raises ConfigError where the loss has none or not such a one."""
        raise ConfigError(f"the loss {type(self).__name__} has no margin; remove the margin schedule")

    def check_labels(self, labels: Tensor) -> None:
        """Raises ConfigError if a label is no index of a speaker, or a group's speaker comes twice."""
        if labels.dtype != torch.int64:
            raise ConfigError(f"labels are {labels.dtype}; expected torch.int64")
        if self.needs_classes and labels.numel():
            lowest, highest = int(labels.min()), int(labels.max())
            if lowest < 0 or highest >= self.num_speakers:
                wrong = lowest if lowest < 0 else highest
                raise ConfigError(
                    f"a label is {wrong}; expected 0..{self.num_speakers - 1}: the loss was built for "
                    f"{self.num_speakers} speakers, so it belongs to another training list"
                )
        ordered = labels.sort().values
        repeated = ordered[1:][ordered.diff() == 0]
        if self.needs_groups and len(repeated):
            raise ConfigError(
                f"the speaker {int(repeated[0])} is twice in a batch of {len(labels)} groups; expected "
                "distinct speakers, because the others of a batch are taken as impostors"
            )

    def _check_shapes(self, embeddings: Tensor, labels: Tensor | None) -> None:
        name, shape = type(self).__name__, tuple(embeddings.shape)
        expected = (
            "(speakers, utterances, embedding)" if self.needs_groups else "(utterances, embedding)"
        ) + f" with embedding {self.embedding_dim}"
        if len(shape) != 2 + self.needs_groups or shape[-1] != self.embedding_dim:
            raise ConfigError(f"{name}: embeddings have the shape {shape}; expected {expected}")
        if not embeddings.is_floating_point():
            raise ConfigError(f"{name}: embeddings are {embeddings.dtype}; expected a floating type")
        if self.needs_groups:
            if shape[0] < 2:
                raise ConfigError(f"{name}: a batch has {shape[0]} speakers; expected 2 or more to compare")
            if shape[1] < self.min_utterances:
                raise ConfigError(
                    f"{name}: a batch has {shape[1]} utterances per speaker; expected {self.min_utterances} "
                    "or more"
                )
        elif shape[0] == 0:
            raise ConfigError(f"{name}: the batch is empty; expected {expected}")
        if labels is None:
            if self.needs_classes:
                raise ConfigError(f"{name}: labels are missing; expected one per {self._label_unit}")
        elif tuple(labels.shape) != shape[:1]:
            raise ConfigError(
                f"{name}: labels have the shape {tuple(labels.shape)}; expected one per {self._label_unit}, "
                f"{shape[:1]}"
            )

    @property
    def _label_unit(self) -> str:
        return "speaker of the batch" if self.needs_groups else "utterance"


def unit_vectors(vectors: Tensor) -> Tensor:
    """Vectors (…, D) scaled to length 1; those shorter than MIN_NORM become zero, with zero gradient."""
    norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    long = ~(norms <= MIN_NORM)  # NaN is kept, for the trainer to see it in the loss
    # The inner `where` keeps 0 / 0 out of the backward pass, in which it would be NaN even if not selected.
    return torch.where(long, vectors / torch.where(long, norms, torch.ones_like(norms)), 0.0)


def accuracy(scores: Tensor, targets: Tensor) -> Tensor:
    """Part of the rows of scores (B, S) whose highest column is that of targets (B,); no gradient."""
    return (scores.detach().argmax(dim=1) == targets).to(scores.dtype).mean()
