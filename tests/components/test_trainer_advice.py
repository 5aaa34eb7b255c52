"""What is advised when memory is full can be followed."""

from typing import Any

import pytest
import torch

from steered_trainings import Arguments
from trainer.distributed import World
from trainer.errors import TrainingError
from trainer.recipe import Recipe
from trainer.rehearsal import out_of_memory_advice

TUNING = {"num_steps": 2, "crop_frames": 30, "learning_rate": {"kind": "constant"}}


def advice(arguments: Arguments, world: World | None = None, **changes: Any) -> str:
    recipe = Recipe.load(arguments(**changes)[1])
    with (
        pytest.raises(TrainingError) as told,
        out_of_memory_advice(recipe, world or World()),
    ):
        raise torch.OutOfMemoryError("full")
    return str(told.value)


def test_shorter_crops_are_those_of_the_longest_stage(arguments: Arguments) -> None:
    assert "--set fine_tuning.crop_frames=…" in advice(arguments, fine_tuning=TUNING)
    assert "--set sampler.crop_frames=…" in advice(arguments)
    assert "fine_tuning" not in advice(arguments)
    long = {"utterances_per_speaker": 2, "crop_frames": 40}
    assert "--set sampler.crop_frames=…" in advice(arguments, fine_tuning=TUNING, sampler=long)


@pytest.mark.parametrize(
    ("batch_size", "world", "smaller"),
    [(8, World(), 4), (8, World(0, 2), 4), (4, World(0, 2), None), (2, World(), None)],
)
def test_a_smaller_batch_is_smaller(
    arguments: Arguments, batch_size: int, world: World, smaller: int | None
) -> None:
    told = advice(arguments, world, batch_size=batch_size)
    assert ("--set batch_size=" in told) == (smaller is not None)
    if smaller is not None:
        assert f"in a new one try --set batch_size={smaller}, or --set " in told


def test_what_cannot_be_lowered_leaves_no_gap(arguments: Arguments) -> None:
    assert "try --set precision=bf16, or --set sampler.crop_frames=…; or" in advice(arguments, batch_size=2)
    half = advice(arguments, batch_size=2, precision="bf16")
    assert "in a new one try --set sampler.crop_frames=…; or --set data.placement=ram" in half
