"""What the trainer says of its recipes, of several processes, of damage and of Weights & Biases."""

import logging
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from checkpoints import damage
from commands import Command
from steered_trainings import Arguments, interrupted
from trainer import cli
from trainer.checkpoint import CheckpointStore
from trainer.data import DeviceFeatures
from trainer.distributed import World
from trainer.history import Boards
from trainer.recipe import Recipe
from trainer.validation import Validation, ValidationConfig
from training_runs import ANGLEPROTO, recipe_file
from voxsrc.errors import ConfigError
from voxsrc.models.encoder import SpeakerEncoder


def test_the_help_names_the_recipes_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "shipped_recipes", lambda: {"first": None, "second": None}, raising=False)
    assert "first, second, or a YAML file" in " ".join(cli.build_parser().format_help().split())


def test_only_one_process_exports_and_the_remedy_is_a_flag_that_there_is(
    features: str, tmp_path: Path
) -> None:
    recipe = Recipe.load(recipe_file(tmp_path / "recipe.yaml", ANGLEPROTO))
    parsed = Namespace(features=features, output=str(tmp_path), dry_run=False, export="newest")
    with pytest.raises(ConfigError, match="start it without torchrun"):
        cli._train_in_world(parsed, recipe, torch.device("cpu"), World(0, 2, 0))


def test_a_damaged_checkpoint_is_told_of_once(
    trainer: Command,
    arguments: Arguments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    command = arguments(num_steps=4, checkpoint_interval_s=0)
    interrupted(trainer, command, monkeypatch)
    store = CheckpointStore(str(tmp_path / "run"))
    newest, before = store.entries
    damage(store, newest)
    caplog.clear()
    assert trainer(*command).code == 0
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    [message] = [text for text in told if newest.name in text]
    assert message.startswith(f"checkpoint {newest.name} skipped, falling back to {before.name}: damaged")


def test_a_validation_that_fails_leaves_the_encoder_in_its_mode(
    features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SpeakerEncoder(Recipe.load(recipe_file(tmp_path / "recipe.yaml", ANGLEPROTO)).encoder)
    opened = DeviceFeatures.open(features)
    validation = Validation(
        opened, sorted(set(opened.index.speaker_ids))[:3], ValidationConfig(crop_frames=24)
    )

    def fail(self: SpeakerEncoder, features: Tensor) -> Tensor:
        assert not self.training
        raise MemoryError

    monkeypatch.setattr(SpeakerEncoder, "forward", fail)
    for training in (True, False):
        encoder.train(training)
        with pytest.raises(MemoryError):
            validation.equal_error_rate(encoder)
        assert encoder.training == training


def test_weights_and_biases_is_not_in_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError) as caught:
        Boards(str(tmp_path), first_step=0, wandb_project="speakers", recipe={})
    for told in ("wandb_project is 'speakers'", sys.executable, "pip install wandb", "train image", "null"):
        assert told in str(caught.value)
