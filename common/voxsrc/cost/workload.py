"""Hours of work in a training recipe, from the size of the training set and a measured throughput."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voxsrc.config import from_mapping, read_yaml
from voxsrc.errors import ConfigError
from voxsrc.recipes import (
    BATCH_SIZE,
    CROP_FRAMES,
    FINE_TUNING_CROP_FRAMES,
    VALIDATION_FRACTION,
    read_recipe_text,
)


@dataclass(frozen=True, kw_only=True)
class _Sampler:
    """The recipe's `sampler`, as far as it decides the number of steps."""

    crop_frames: int = CROP_FRAMES
    max_utterances_per_speaker: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """The recipe's `fine_tuning`, likewise."""

    num_steps: int
    crop_frames: int = FINE_TUNING_CROP_FRAMES


@dataclass(frozen=True, kw_only=True)
class _Validation:
    """The recipe's `validation`, likewise."""

    fraction: float = VALIDATION_FRACTION


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """A recipe, likewise; the trainer checks the rest."""

    batch_size: int = BATCH_SIZE
    num_steps: int | None = None
    num_epochs: int | None = None
    sampler: _Sampler = _Sampler()
    fine_tuning: _Stage | None = None
    validation: _Validation = _Validation()

    def __post_init__(self) -> None:
        """Raises ConfigError unless the recipe has one length."""
        if (self.num_steps is None) == (self.num_epochs is None):
            raise ConfigError("found both or neither of num_steps and num_epochs, expected one of them")


def work_hours(
    recipe: str, *, num_utterances: int, crops_per_second: float, num_speakers: int | None = None
) -> float:
    """Hours that a training computes, by its number of crops.

    Steps of an epoch are its utterances (or `max_utterances_per_speaker` of each speaker) without the part
    held out for validation, by the batch size. A crop of fine-tuning counts by its length. Validation, saves
    and starts are not in it.

    Args:
        recipe: The name of a recipe of the trainer, or a YAML file, local or gs://.
        num_utterances: In the feature set.
        crops_per_second: Of the first stage, all GPUs together, as the trainer's progress bar shows it.
        num_speakers: In the feature set; needed if the recipe limits the utterances of a speaker.

    Raises:
        ConfigError: No such recipe, or a number that cannot be used.
    """
    if num_utterances < 1:
        raise ConfigError(f"--utterances is {num_utterances}; expected 1 or more")
    if not 0 < crops_per_second < math.inf:
        raise ConfigError(f"--crops-per-second is {crops_per_second:g}; expected more than 0")
    fields = _read(recipe)
    num_steps = fields.num_steps
    if num_steps is None:
        used = num_utterances
        limit = fields.sampler.max_utterances_per_speaker
        if limit is not None:
            if num_speakers is None:
                raise ConfigError(
                    f"{recipe} takes at most {limit} utterances of a speaker in an epoch: "
                    "give --speakers, the number of speakers"
                )
            used = min(used, limit * num_speakers)
        per_epoch = math.ceil(used * (1.0 - fields.validation.fraction) / fields.batch_size)
        num_steps = (fields.num_epochs or 0) * per_epoch
    crops = float(num_steps)
    if fields.fine_tuning is not None:
        tuning = fields.fine_tuning
        crops += tuning.num_steps * tuning.crop_frames / fields.sampler.crop_frames
    return crops * fields.batch_size / crops_per_second / 3600.0


def _read(recipe: str) -> _Recipe:
    mapping = read_yaml(read_recipe_text(recipe), recipe)
    fields = {
        key: mapping[key] for key in ("batch_size", "num_steps", "num_epochs") if mapping.get(key) is not None
    }
    fields["sampler"] = _part(mapping, "sampler", ("crop_frames", "max_utterances_per_speaker"))
    if mapping.get("fine_tuning") is not None:
        fields["fine_tuning"] = _part(mapping, "fine_tuning", ("num_steps", "crop_frames"))
    fields["validation"] = _part(mapping, "validation", ("fraction",))
    try:
        return from_mapping(_Recipe, fields)
    except ConfigError as error:
        raise ConfigError(f"recipe {recipe}: {error}") from error


def _part(mapping: Mapping[str, Any], key: str, names: tuple[str, ...]) -> dict[str, Any]:
    part = mapping.get(key) or {}
    if not isinstance(part, Mapping):
        raise ConfigError(f"{key}: found {part!r}, expected a mapping")
    return {name: part[name] for name in names if name in part}
