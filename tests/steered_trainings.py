"""Trainings in the test's own process whose course the test decides."""

from collections.abc import Callable
from typing import Any

import pytest

from commands import Command
from trainer.training import Training
from voxsrc.errors import VoxsrcError

Arguments = Callable[..., list[str]]


def at_step(patch: pytest.MonkeyPatch, actions: dict[int, Callable[[Training], object]]) -> None:
    """Has these things done when the training comes to these steps."""
    original = Training._set_rates

    def acting(training: Training, stage: Any, step: int) -> None:
        if step in actions:
            actions[step](training)
        original(training, stage, step)

    patch.setattr(Training, "_set_rates", acting)


def interrupted(trainer: Command, command: list[str], patch: pytest.MonkeyPatch) -> None:
    """Trains to the end, but for the model."""

    def fail(*_: Any, **__: Any) -> None:
        raise VoxsrcError("interrupted")

    with patch.context() as within:
        within.setattr("trainer.finishing.write_outputs", fail)
        assert trainer(*command).error == "interrupted"
