"""The trainer as a whole, in this process: it learns, and its state is exactly what is saved."""

import json
from pathlib import Path

import pytest
import torch

from commands import Command
from steered_trainings import Arguments
from trainer.checkpoint import CheckpointStore
from trainer.checkpoint.state_file import snapshot
from trainer.data import DeviceFeatures
from trainer.distributed import World
from trainer.recipe import Recipe
from trainer.state import TrainingState
from trainer.training import Training
from training_runs import AAM, ANGLEPROTO, recipe_file, write_speakers
from voxsrc.config import from_mapping


def test_it_learns(trainer: Command, tmp_path: Path) -> None:
    features = write_speakers(tmp_path / "speakers", num_speakers=40, num_utterances=8, frames=(40, 80))
    recipe = recipe_file(
        tmp_path / "recipe.yaml",
        ANGLEPROTO,
        encoder={
            "name": "ResNet_mini",
            "num_mels": 40,
            "embedding_dim": 32,
            "normalisation": "none",
            "options": {"channels": [4, 8, 8, 16], "se_reduction": 4},
        },
        sampler={"utterances_per_speaker": 2, "crop_frames": 32},
        batch_size=32,
        num_steps=60,
        learning_rate={"kind": "cosine", "initial": 0.02, "final": 1e-4, "warm_up": 0.1},
        validation={"fraction": 0.4, "interval_steps": 30, "crop_frames": 40},
    )
    untrained = Training(Recipe.load(recipe), DeviceFeatures.open(features), features, str(tmp_path), World())
    assert untrained.validation is not None
    before = untrained.validation.equal_error_rate(untrained.state.encoder)
    assert trainer("--recipe", recipe, "--features", features, "--output", str(tmp_path / "run")).code == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert rows[-1]["validation_eer"] < before / 2
    assert rows[-1]["loss"] < rows[0]["loss"] / 2


def test_a_dry_run_writes_nothing(trainer: Command, arguments: Arguments, tmp_path: Path) -> None:
    outcome = trainer(*arguments("--dry-run"))
    assert outcome.code == 0
    assert "ResNet_mini, 896 parameters, angleproto loss, fp32 on cpu, 24 steps" in outcome.output
    assert "dry run: nothing was written" in outcome.output
    assert not (tmp_path / "run").exists()


def test_a_first_step_that_overflows_in_half_precision_spoils_nothing() -> None:
    """The scaler skips it; a fused SGD would go on from a momentum that was never written."""
    recipe = from_mapping(Recipe, {**AAM, "precision": "fp16"})
    state = TrainingState.new(recipe, 4, torch.device("cpu"))
    state.set_learning_rate(0.1)
    state.scaler.scale(torch.ones(()))  # creates the scale
    for gradient in (float("inf"), 1.0, 1.0):
        for group in state.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.full_like(parameter, gradient)
        state.scaler.step(state.optimizer)
        state.scaler.update()
    assert state.is_finite()
    buffers = [values["momentum_buffer"] for values in state.optimizer.state.values()]
    assert buffers
    assert all(buffer.isfinite().all() for buffer in buffers)


def test_margins_of_the_first_stage_do_not_follow_those_of_the_second(features: str, tmp_path: Path) -> None:
    tuning = {**AAM["fine_tuning"], "margin": 0.5}
    recipe = recipe_file(
        tmp_path / "recipe.yaml",
        AAM,
        margin=None,
        fine_tuning=tuning,
        loss={"name": "aam", "options": {"margin": 0.1}},
    )
    training = Training(Recipe.load(recipe), DeviceFeatures.open(features), features, str(tmp_path), World())
    first, second = training.stages
    training._set_rates(first, 0)
    margins = [training.state.loss.get_buffer("margin").item()]
    training._set_rates(second, second.first_step)
    margins.append(training.state.loss.get_buffer("margin").item())
    assert margins == pytest.approx([0.1, 0.5])


def test_a_state_is_restored_to_the_bit(features: str, tmp_path: Path) -> None:
    recipe = Recipe.load(recipe_file(tmp_path / "recipe.yaml", AAM))
    states = [TrainingState.new(recipe, 6, torch.device("cpu")) for _ in range(2)]
    for seed, state in enumerate(states):
        torch.manual_seed(seed)
        for _ in range(2):
            output = state.loss(state.encoder(torch.randn(6, 40, 20)), torch.arange(6))
            output.loss.backward()
            state.set_learning_rate(0.1)
            state.optimizer.step()
        state.progress.sums += seed
    with CheckpointStore(str(tmp_path / "run")).open_for_writing("test") as store:
        first = store.save(2, snapshot(states[0].to_state(2, ""))).name
        other = store.save(2, snapshot(states[1].to_state(2, ""))).name
        loaded = store.load()
        assert loaded is not None
        states[0].load(loaded.state)
        assert store.save(2, snapshot(states[0].to_state(2, ""))).name == other != first
