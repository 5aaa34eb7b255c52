"""Half precision: what needs a GPU for it, and what does not."""

import logging
from functools import partial
from pathlib import Path

import pytest
import torch

from commands import Command
from steered_trainings import Arguments
from trainer import devices
from trainer.data import DeviceFeatures
from trainer.recipe import Recipe
from voxsrc.errors import ConfigError


@pytest.fixture
def half(arguments: Arguments) -> Arguments:
    return partial(arguments, "--set", "precision=fp16", num_steps=2)


def test_a_cpu_does_not_train_in_fp16(trainer: Command, half: Arguments, tmp_path: Path) -> None:
    outcome = trainer(*half())
    assert outcome.code == 1
    assert "precision is fp16, which needs a GPU; --set precision=fp32" in outcome.error
    assert not (tmp_path / "run").exists()


def test_it_is_told_before_the_features_are_read(
    trainer: Command, half: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_features(*_: object, **__: object) -> None:
        pytest.fail("34 GB are read")

    monkeypatch.setattr(DeviceFeatures, "open", open_features)
    assert "precision is fp16" in trainer(*half()).error


def test_a_dry_run_needs_no_gpu_and_says_that_the_training_does(
    trainer: Command, half: Arguments, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "trainer"):
        outcome = trainer(*half("--dry-run"))
    assert outcome.code == 0, outcome.error
    assert "fp16 on cpu" in outcome.output
    assert caplog.messages == ["precision is fp16, which needs a GPU; --set precision=fp32 on a CPU"]


def test_what_a_gpu_trained_in_fp16_is_exported_and_finished_on_a_cpu(
    trainer: Command, half: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as gpu:
        # fp16 on a CPU is slow, not impossible.
        gpu.setattr(devices, "check_precision", lambda device, recipe: None)
        outcome = trainer(*half())
        assert outcome.code == 0, outcome.error
    again = trainer(*half())
    assert again.code == 0, again.error
    assert "finished already" in again.output
    exported = trainer(*half("--export", "newest"))
    assert exported.code == 0, exported.error
    written = (tmp_path / "run" / "exported" / "step-000000002" / "model.safetensors").read_bytes()
    assert written == (tmp_path / "run" / "model" / "model.safetensors").read_bytes()


def test_a_gpu_without_bf16_does_not_train_in_it(
    arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    recipe = Recipe.load(arguments()[1], ["precision=bf16"])
    for supported in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation, s=supported: s)
        if supported:
            devices.check_precision(torch.device("cuda:0"), recipe)
        else:
            with pytest.raises(ConfigError, match="bf16, which Old GPU lacks; --set precision=fp16"):
                devices.check_precision(torch.device("cuda:0"), recipe)
