"""The recipe: everything that decides a training, as a YAML file with overrides, checked before any data."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from trainer.augment_config import AugmentConfig
from trainer.losses import LOSSES, SpeakerLoss, check_loss
from trainer.placement import DataConfig
from trainer.sampler import SamplerConfig
from trainer.schedules import LearningRateConfig, MarginConfig
from trainer.validation import ValidationConfig
from voxsrc.checkpoint_interval import MEAN_TIME_BETWEEN_PREEMPTIONS_S
from voxsrc.config import apply_overrides, from_mapping, read_yaml, to_mapping
from voxsrc.errors import ConfigError
from voxsrc.models.encoder import EncoderConfig
from voxsrc.recipes import BATCH_SIZE, FINE_TUNING_CROP_FRAMES, read_recipe_text

# These change where and how fast a training runs, not what it computes: a restart may set them anew. What is
# read is compared by its content, wherever it lies.
FREE_KEYS = frozenset(
    {
        "augment.noise.features",
        "augment.music.features",
        "initial_model",
        "device",
        "data",
        "compile",
        "checkpoint_interval_s",
        "mean_time_between_preemptions_s",
        "keep_checkpoints",
        "wandb_project",
        "onnx",
    }
)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The loss.

    Attributes:
        name: A key of `trainer.losses.LOSSES`.
        options: Fields of that loss's own config.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ConfigError on an unknown loss or option."""
        check_loss(self.name, self.options, "options")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer.

    Attributes:
        name: `adam` (weight decay added to the gradient, as voxceleb_trainer), `adamw` or `sgd`.
        weight_decay: Its strength.
        momentum: Of sgd.
        nesterov: Of sgd.
        clip_norm: Gradients are scaled down to this norm; None leaves them.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: float = 0.0
    momentum: float = 0.9
    nesterov: bool = True
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        for name in ("weight_decay", "momentum"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ConfigError(f"clip_norm is {self.clip_norm}; expected above 0, or null")


@dataclass(frozen=True, kw_only=True)
class FineTuningConfig:
    """Large-margin fine-tuning: a second stage with longer crops and a larger margin, at a low rate.

    Thienpondt et al., "The IDLab VoxSRC-20 submission: large margin fine-tuning and quality-aware score
    calibration", 2021.

    Attributes:
        num_steps: Steps of this stage, after the first one's.
        learning_rate: Schedule over these steps.
        crop_frames: Frames of each crop.
        margin: The margin, throughout; None keeps the first stage's last one.
        augment: Whether the first stage's augmentation goes on.
    """

    num_steps: int
    learning_rate: LearningRateConfig
    crop_frames: int = FINE_TUNING_CROP_FRAMES
    margin: float | None = None
    augment: bool = True

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        for name in ("num_steps", "crop_frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training.

    Attributes:
        encoder: The model.
        loss: What is minimised.
        learning_rate: Its schedule over the first stage's steps.
        initial_model: URI of a trained model of the same encoder and features, whose weights it begins with;
            None draws them from the seed.
        num_steps: Steps of the first stage; None takes `num_epochs`.
        num_epochs: Epochs of the first stage, if `num_steps` is not given.
        batch_size: Crops in a batch of all processes together.
        sampler: How batches are made.
        augment: What is done to crops; nothing by default.
        optimizer: How the weights are changed.
        margin: Margin schedule over the first stage's steps, for the losses that have one.
        fine_tuning: A second stage; None is without.
        validation: What a model is judged by while it trains.
        seed: Seed of weights, batches and augmentation.
        device: `cuda`, `cpu`, or `auto`: a GPU if there is one.
        precision: `fp32`; `bf16` or `fp16` compute most of the network in half precision (autocast).
        compile: `torch.compile`; `auto` does on a GPU.
        channels_last: Memory layout that is faster for 2-D convolutions.
        deterministic: On a GPU, bit-exact at the cost of speed. A CPU always is.
        data: How features reach the device.
        log_interval_steps: Steps between rows of the history.
        checkpoint_interval_s: Seconds between checkpoints; None is Young's and Daly's optimum.
        mean_time_between_preemptions_s: What that optimum expects of the machines.
        keep_checkpoints: Newest checkpoints kept, beside the best.
        onnx: Input of the exported ONNX model; `none` exports none.
        wandb_project: Weights & Biases project, where wandb is installed, which our extra and image do not;
            None is without.
    """

    encoder: EncoderConfig
    loss: LossConfig
    learning_rate: LearningRateConfig
    initial_model: str | None = None
    num_steps: int | None = None
    num_epochs: int | None = None
    batch_size: int = BATCH_SIZE
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    margin: MarginConfig | None = None
    fine_tuning: FineTuningConfig | None = None
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    seed: int = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool | Literal["auto"] = "auto"
    channels_last: bool = True
    deterministic: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    log_interval_steps: int = 50
    checkpoint_interval_s: float | None = None
    mean_time_between_preemptions_s: float = MEAN_TIME_BETWEEN_PREEMPTIONS_S
    keep_checkpoints: int = 3
    onnx: Literal["log_mel", "audio", "none"] = "log_mel"
    wandb_project: str | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the key, on a value or a combination that cannot be used."""
        if (self.num_steps is None) == (self.num_epochs is None):
            given = "both" if self.num_steps is not None else "neither"
            raise ConfigError(f"num_steps and num_epochs: {given} given; expected one of them")
        for name in ("num_steps", "num_epochs", "batch_size", "log_interval_steps", "keep_checkpoints"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; expected at least 1")
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", self.device):
            raise ConfigError(f"device is {self.device!r}; expected auto, cpu, cuda or cuda:N")
        loss, groups = LOSSES[self.loss.name], self.sampler.utterances_per_speaker
        if loss.needs_groups and groups < loss.min_utterances:
            raise ConfigError(
                f"sampler.utterances_per_speaker is {groups}; the loss {self.loss.name} compares "
                "utterances of "
                f"one speaker: expected at least {loss.min_utterances}"
            )
        has_margin = self.margin is not None or (
            self.fine_tuning is not None and self.fine_tuning.margin is not None
        )
        if has_margin and loss.set_margin is SpeakerLoss.set_margin:
            raise ConfigError(
                f"margin: the loss {self.loss.name} has none; leave margin out, or take aam or am"
            )
        self._check_margins()

    def _check_margins(self) -> None:
        """Those of later stages, too: they must not be found wrong after days."""
        margins: dict[str, float] = {}
        if self.margin is not None:
            margins |= {"margin.initial": self.margin.initial, "margin.final": self.margin.final}
        if self.fine_tuning is not None and self.fine_tuning.margin is not None:
            margins["fine_tuning.margin"] = self.fine_tuning.margin
        for key, margin in margins.items():
            try:
                check_loss(self.loss.name, {**self.loss.options, "margin": margin}, "loss")
            except ConfigError as error:
                raise ConfigError(f"{key} does not fit the {error}") from error

    @classmethod
    def load(cls, name_or_file: str, overrides: Sequence[str] = ()) -> Self:
        """Reads a recipe that comes with the trainer, by name, or a YAML file, by path or URI.

        Args:
            name_or_file: Such as `demo`, or `my/recipe.yaml`.
            overrides: `key=value`, with dots for keys within keys, in order.

        Raises:
            ConfigError: On an unknown recipe or key, or a value that cannot be used.
        """
        fields = apply_overrides(read_yaml(read_recipe_text(name_or_file), name_or_file), overrides)
        lengths = {"num_steps", "num_epochs"}
        given = lengths & {override.partition("=")[0].strip() for override in overrides}
        if len(given) == 1:
            (replaced,) = lengths - given
            fields.pop(replaced, None)
        return from_mapping(cls, fields)

    def to_mapping(self) -> dict[str, Any]:
        """All keys as YAML- and JSON-ready values: `from_mapping` gives the recipe back."""
        return to_mapping(self)

    def with_steps(self, steps_per_epoch: int) -> Self:
        """The recipe with its epochs turned into steps."""
        if self.num_epochs is None:
            return self
        return replace(self, num_steps=self.num_epochs * steps_per_epoch, num_epochs=None)


def differing_keys(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The keys, not among `FREE_KEYS` or below one, by which two recipes differ, with both values."""
    return list(_differences(stored, wanted, ""))


def _differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in sorted(stored.keys() | wanted.keys()):
        key, ours, theirs = f"{path}{name}", stored.get(name), wanted.get(name)
        if key in FREE_KEYS or ours == theirs:
            continue
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            yield from _differences(ours, theirs, f"{key}.")
        else:
            yield f"{key}: {ours!r} → {theirs!r}"
