"""Losses and weights that are no numbers: the step is named, and no checkpoint holds them."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from commands import Command
from steered_trainings import Arguments, at_step
from trainer.checkpoint import CheckpointStore
from trainer.data import DeviceFeatures
from trainer.distributed import World
from trainer.losses import LossOutput
from trainer.recipe import Recipe
from trainer.training import Training


def all_finite(state: dict[str, Any]) -> bool:
    tensors = [*state["encoder"].values(), *state["loss"].values()]
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def test_a_loss_that_is_not_a_number(trainer: Command, arguments: Arguments, tmp_path: Path) -> None:
    # The warm-up lets some steps go well.
    rates = {"kind": "constant", "initial": 1e38, "warm_up": 1.0, "warm_up_from": 0.0}
    outcome = trainer(*arguments(learning_rate=rates, optimizer={"name": "sgd"}, log_interval_steps=100))
    assert outcome.code == 1
    checkpoint = CheckpointStore(str(tmp_path / "run")).load()
    assert checkpoint is not None
    assert all_finite(checkpoint.state)
    assert "is not finite" in outcome.error or "are not finite" in outcome.error
    assert f"The last good checkpoint is {tmp_path}/run/checkpoints/{checkpoint.entry.name}" in outcome.error
    assert "The batch's utterances: id0" in outcome.error
    assert outcome.error.count(".wav") == 8
    assert not (tmp_path / "run" / "model").exists()


def test_the_step_of_a_bad_loss_is_named_however_late_it_is_seen(
    trainer: Command, arguments: Arguments, features: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(training: Training) -> None:
        next(training.state.encoder.parameters()).data.fill_(math.nan)

    at_step(monkeypatch, {3: spoil})
    command = arguments("--set", "checkpoint_interval_s=1000")
    outcome = trainer(*command)
    assert "the loss of step 3 is not finite (learning rate 0.00562341, precision fp32)" in outcome.error
    assert "No checkpoint was saved before" in outcome.error
    training = Training(Recipe.load(command[1]), DeviceFeatures.open(features), features, "unused", World())
    rows = training.sampler.batch(3).rows
    names = ", ".join(training.features.index.utterance_ids[row] for row in rows)
    assert f"The batch's utterances: {names}." in outcome.error


def test_weights_that_are_no_numbers_are_never_saved(
    trainer: Command, arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finite loss may have a gradient that is none: its state must not become a checkpoint."""
    original, calls = Training._loss, 0

    def without_gradient(training: Training, embeddings: Tensor, batch: Any) -> LossOutput:
        nonlocal calls
        calls += 1
        output = original(training, embeddings, batch)
        if calls < 5:
            return output
        return LossOutput(output.loss + (0.0 * embeddings.sum()).abs().sqrt(), output.accuracy)

    monkeypatch.setattr(Training, "_loss", without_gradient)
    outcome = trainer(*arguments())
    assert "the weights after step 4 are not finite" in outcome.error
    checkpoint = CheckpointStore(str(tmp_path / "run")).load()
    assert checkpoint is not None
    assert checkpoint.entry.step == 4
    assert all_finite(checkpoint.state)
    assert checkpoint.entry.name in outcome.error


def test_weights_that_are_no_numbers_are_not_validated(
    trainer: Command, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their embeddings' scores would be what is complained of, without step and remedy."""

    def spoil(training: Training) -> None:
        next(training.state.encoder.parameters()).data.fill_(float("nan"))
        monkeypatch.setattr(Training, "_update", lambda *_: LossOutput(torch.ones(()), torch.ones(())))

    at_step(monkeypatch, {3: spoil})
    validation = {"fraction": 0.3, "interval_steps": 4, "crop_frames": 24}
    outcome = trainer(*arguments(validation=validation))
    assert outcome.code == 1
    assert "the weights after step 3 are not finite" in outcome.error
    assert "Lower learning_rate.initial" in outcome.error
