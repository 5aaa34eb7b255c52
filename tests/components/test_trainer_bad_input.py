"""What a training cannot be made with is one clear line before the first step."""

from pathlib import Path
from typing import Any

import pytest
import torch

from commands import Command
from steered_trainings import Arguments
from trainer.devices import prepare_device
from trainer.distributed import World
from trainer.recipe import Recipe
from training_runs import write_speakers
from voxsrc.device import chosen_device
from voxsrc.errors import ConfigError
from voxsrc.features import FbankSpec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": {"name": "ResNet_mini", "num_mels": 64}}, "has 40 mel bands, the recipe's encoder"),
        ({"sampler": {"utterances_per_speaker": 2, "crop_frames": 7}}, "sampler.crop_frames is 7; ResNet_"),
        (
            {"fine_tuning": {"num_steps": 2, "crop_frames": 5, "learning_rate": {"kind": "constant"}}},
            "fine_tuning.crop_frames is 5; ResNet_mini needs at least",
        ),
        ({"validation": {"fraction": 0.3, "crop_frames": 6}}, "validation.crop_frames is 6; ResNet_mini"),
        ({"validation": {"fraction": 0.3, "max_utterances": 1}}, "raise validation.fraction, or set it to 0"),
        ({"validation": {"fraction": 0.9}}, "features of more speakers, or set validation.fraction to 0"),
        (
            {
                "sampler": {"utterances_per_speaker": 2, "crop_frames": 12, "short_utterances": "refuse"},
                "fine_tuning": {"num_steps": 2, "crop_frames": 40, "learning_rate": {"kind": "constant"}},
            },
            "utterances are shorter than sampler.crop_frames, 40",
        ),
        ({"batch_size": 18}, "the training set has 8: set batch_size to at most 16"),
        ({"batch_size": 7}, "batch_size is 7; expected a multiple of sampler.utterances_per_speaker, 2"),
        ({"sampler": {"utterances_per_speaker": 6, "crop_frames": 12}, "batch_size": 12}, "id000 has 5"),
        ({"precision": "fp16"}, "precision is fp16, which needs a GPU; --set precision=fp32"),
        ({"data": {"placement": "gpu"}}, "data.placement is gpu, but the device is cpu"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_found_before_the_first_step(
    trainer: Command, arguments: Arguments, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    outcome = trainer(*arguments(**changes))
    assert outcome.code == 1
    assert message in outcome.error
    assert not (tmp_path / "run").exists()


def test_too_few_speakers(trainer: Command, arguments: Arguments, tmp_path: Path) -> None:
    one = write_speakers(tmp_path / "one", num_speakers=1)
    outcome = trainer(*arguments(using=one))
    assert "the training set has 1 speaker" in outcome.error
    three = write_speakers(tmp_path / "three", num_speakers=3)
    outcome = trainer(*arguments(using=three, validation={"fraction": 0.1}))
    assert f"{three}: 3 speakers cannot be split" in outcome.error


def test_features_that_are_not_there_or_of_another_kind(
    trainer: Command, arguments: Arguments, tmp_path: Path
) -> None:
    outcome = trainer(*arguments(using=str(tmp_path / "nowhere")))
    assert outcome.code == 1
    assert str(tmp_path / "nowhere") in outcome.error
    missing = str(tmp_path / "no noise")
    for kind in ("noise", "music"):
        outcome = trainer(*arguments(augment={kind: {"probability": 0.5, "features": missing}}))
        assert outcome.error.startswith(f"augment.{kind}.features: {missing} does not exist; ")
    noise = write_speakers(tmp_path / "noise", num_speakers=1, spec=FbankSpec(hop_ms=12.5))
    outcome = trainer(*arguments(augment={"noise": {"probability": 0.5, "features": noise}}))
    assert outcome.code == 1
    assert (
        f"augment.noise.features: {noise} has other features than asked for: hop_ms is 12.5" in outcome.error
    )


def test_cuda_asked_for_and_absent(
    trainer: Command, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "device is 'cuda', but torch" in trainer(*arguments(device="cuda")).error
    assert "sees no GPU; take cpu" in trainer(*arguments(device="cuda:1")).error
    assert chosen_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "there are 1 GPUs, from cuda:0 on" in trainer(*arguments(device="cuda:1")).error


def test_a_gpu_gets_its_number(monkeypatch: pytest.MonkeyPatch, arguments: Arguments) -> None:
    chosen: list[Any] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", chosen.append, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    recipe = Recipe.load(arguments()[1])
    for device, world in (("cuda", World()), ("cuda:1", World()), ("cuda", World(1, 2, 1))):
        chosen.append(prepare_device(torch.device(device), recipe, world))
    cuda = [torch.device("cuda", number) for number in range(2)]
    assert chosen == [0, cuda[0], 1, cuda[1], 1, cuda[1]]
    with pytest.raises(ConfigError, match="3 processes, but 2 GPUs"):
        prepare_device(torch.device("cuda"), recipe, World(2, 3, 2))


def test_a_dry_run_looks_at_the_noise_too(trainer: Command, arguments: Arguments, tmp_path: Path) -> None:
    noise = {"probability": 0.5, "features": str(tmp_path / "nowhere")}
    for more in (["--dry-run"], []):
        outcome = trainer(*arguments(*more, augment={"noise": noise}))
        assert outcome.code == 1
        assert "nowhere" in outcome.error
        assert not (tmp_path / "run").exists()
