"""Several processes: the batches, gradients and losses of one process, and checkpoints for any number."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from trainer.checkpoint import CheckpointStore
from trainer.data import DeviceFeatures
from trainer.distributed import World
from trainer.recipe import Recipe
from trainer.training import Training
from training_runs import (
    AAM,
    ANGLEPROTO,
    Trainings,
    recipe_file,
    training_arguments,
)
from voxsrc.errors import ConfigError

# One step along the gradient itself: the weights afterwards show it.
ONE_STEP: dict[str, Any] = {
    "num_steps": 1,
    "learning_rate": {"kind": "constant", "initial": 1.0},
    "optimizer": {"name": "sgd", "momentum": 0.0},
    "validation": {"fraction": 0.0},
    "margin": None,
    "fine_tuning": None,
}


def losses(output: Path) -> list[float]:
    rows = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def weights(output: Path) -> dict[str, torch.Tensor]:
    loaded = CheckpointStore(str(output)).load()
    assert loaded is not None
    return {
        f"{part}.{name}": tensor
        for part in ("encoder", "loss")
        for name, tensor in loaded.state[part].items()
    }


@pytest.mark.parametrize("fields", [ANGLEPROTO, AAM], ids=["groups", "classes"])
def test_each_step_has_the_same_crops_and_augmentation(
    fields: dict[str, Any], features: str, tmp_path: Path
) -> None:
    augment = {**AAM["augment"], "noise": {"probability": 0.4, "features": features}}
    recipe = Recipe.load(recipe_file(tmp_path / "recipe.yaml", fields, augment=augment))
    opened = DeviceFeatures.open(features)

    def batches(world: World) -> list[tuple[Any, ...]]:
        training = Training(recipe, opened, features, str(tmp_path), world)
        return [
            (batch.plan.step, batch.plan.rows, batch.plan.first_frames, batch.labels, batch.features)
            for stage in training.stages
            for batch in training.loader(stage).batches(stage.first_step, stage.end_step)
        ]

    alone, first, second = batches(World()), batches(World(0, 2, 0)), batches(World(1, 2, 1))
    assert [step for step, *_ in alone] == list(range(24))
    for one, *halves in zip(alone, first, second, strict=True):
        assert one[0] == halves[0][0] == halves[1][0]
        for whole, *parts in zip(one[1:], *(half[1:] for half in halves), strict=True):
            # A draw that differed would be far off; an exponential may differ in its last bit.
            np.testing.assert_allclose(whole, np.concatenate(parts), rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "fields"),
    [
        ("angleproto", ANGLEPROTO),
        ("softmaxproto", ANGLEPROTO),
        ("aam", AAM),
    ],
)
def test_gradients_are_those_of_one_process(
    trainings: Trainings, features: str, tmp_path: Path, loss: str, fields: dict[str, Any]
) -> None:
    recipe = recipe_file(tmp_path / "recipe.yaml", fields, **ONE_STEP, loss={"name": loss})
    trained = []
    for processes in (1, 2):
        output = tmp_path / str(processes)
        ended = trainings.run(training_arguments(recipe, features, output), processes=processes)
        assert ended.succeeded, ended.text
        trained.append(weights(output))
    untrained = Training(
        Recipe.load(recipe), DeviceFeatures.open(features), features, str(tmp_path), World()
    ).state
    before = {
        **{f"encoder.{name}": tensor for name, tensor in untrained.encoder.state_dict().items()},
        **{f"loss.{name}": tensor for name, tensor in untrained.loss.state_dict().items()},
    }
    moved = 0
    for name, alone in trained[0].items():
        gradient, shared = before[name] - alone, before[name] - trained[1][name]
        # Of a sum of large numbers that cancel, rounding leaves more than of the largest gradient.
        assert (gradient - shared).abs().max() <= 1e-3 * gradient.abs().max() + 1e-5, name
        moved += not torch.equal(alone, before[name])
    assert moved > 0.8 * len(before)


@pytest.mark.parametrize("fields", [ANGLEPROTO, AAM], ids=["angleproto", "aam"])
def test_from_one_process_to_two_and_back(
    trainings: Trainings, features: str, tmp_path: Path, fields: dict[str, Any]
) -> None:
    """The losses over all steps, however many processes share them; restarts in between."""
    recipe = recipe_file(tmp_path / "recipe.yaml", fields, log_interval_steps=1)
    alone, mixed = tmp_path / "alone", tmp_path / "mixed"
    assert trainings.run(training_arguments(recipe, features, alone)).succeeded
    for processes, lives in ((1, 5), (2, 6), (1, 5), (2, 0)):
        ended = trainings.run(
            training_arguments(recipe, features, mixed),
            processes=processes,
            signal_at_call=("trainer.training:Training._loss", lives, signal.SIGKILL) if lives else None,
        )
        assert ended.killed if lives else ended.succeeded, ended.text
    expected = losses(alone)
    assert len(expected) == 24
    np.testing.assert_allclose(losses(mixed), expected, rtol=1e-4)
    ours, theirs = weights(mixed), weights(alone)
    for name, tensor in theirs.items():
        if name != "loss.score.bias":  # cancels in the loss: Adam follows the sign of rounding errors
            assert torch.allclose(ours[name], tensor, rtol=1e-3, atol=1e-4), name


def test_torchrun(features: str, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path / "recipe.yaml", ANGLEPROTO, num_steps=6, log_interval_steps=3)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run(
        [*torchrun, "-m", "trainer", *training_arguments(recipe, features, tmp_path / "run")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("model: ") == 1  # the first process alone speaks
    assert len(losses(tmp_path / "run")) == 2
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_an_error_of_the_first_process_ends_all(trainings: Trainings, features: str, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path / "recipe.yaml", ANGLEPROTO, num_steps=2)
    with CheckpointStore(str(tmp_path / "run")).open_for_writing("other"):
        ended = trainings.run(training_arguments(recipe, features, tmp_path / "run"), processes=2)
    assert ended.codes[0] == 1
    assert all(ended.codes)
    assert "run 'other'" in ended.text


def test_sigterm_to_one_of_two_saves(trainings: Trainings, features: str, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path / "recipe.yaml", ANGLEPROTO)
    ended = trainings.run(
        training_arguments(recipe, features, tmp_path / "run"),
        processes=2,
        signal_at_call=("trainer.training:Training._loss", 3, signal.SIGTERM),
    )
    assert ended.codes[0] == 1
    assert all(ended.codes)
    assert "stopped by SIGTERM after step 3, which is saved" in ended.text


def test_sigterm_to_both_is_told_once(trainings: Trainings, features: str, tmp_path: Path) -> None:
    """A machine that is preempted tells all; the second process then misses the first one."""
    recipe = recipe_file(tmp_path / "recipe.yaml", ANGLEPROTO)
    ended = trainings.run(
        training_arguments(recipe, features, tmp_path / "run"),
        processes=2,
        signal_at_call=("trainer.training:Training._loss", 3, signal.SIGTERM),
        signal_ranks=(0, 1),
    )
    assert ended.codes == [1, 1]
    assert ended.text.count("error: ") == 1
    assert "error: stopped by SIGTERM after step 3, which is saved; the same command continues" in ended.text
    assert "Traceback" not in ended.text
    assert "Connection closed" not in ended.text


def test_a_process_that_misses_the_first_one_without_sigterm_says_so(
    trainings: Trainings, features: str, tmp_path: Path
) -> None:
    recipe = recipe_file(tmp_path / "recipe.yaml", ANGLEPROTO)
    ended = trainings.run(
        training_arguments(recipe, features, tmp_path / "run"),
        processes=2,
        signal_at_call=("trainer.training:Training._loss", 3, signal.SIGKILL),
    )
    assert ended.codes[0] == -signal.SIGKILL
    assert ended.codes[1] > 0
    assert "Traceback" in ended.text


def test_a_batch_that_cannot_be_shared_is_refused(features: str, tmp_path: Path) -> None:
    recipe = Recipe.load(recipe_file(tmp_path / "recipe.yaml", ANGLEPROTO, batch_size=6))
    with pytest.raises(ConfigError, match="batch_size is 6; expected a multiple of 4: 2 processes × sampler"):
        Training(recipe, DeviceFeatures.open(features), features, str(tmp_path), World(0, 2, 0))


def test_one_process_keeps_torchs_own_batch_norm() -> None:
    from trainer.distributed import with_global_batch_norm

    module = nn.Sequential(nn.Conv1d(3, 3, 1), nn.BatchNorm1d(3))
    assert with_global_batch_norm(module, World()) is module
    assert type(module[1]) is nn.BatchNorm1d
    keys = list(module.state_dict())
    assert list(with_global_batch_norm(module, World(0, 2, 0)).state_dict()) == keys
