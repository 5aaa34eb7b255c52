"""What a training says of its stages, and of rates that go up."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from commands import Command
from steered_trainings import Arguments
from trainer.data import DeviceFeatures
from trainer.distributed import World
from trainer.recipe import Recipe
from trainer.stages import stages_of
from trainer.training import Training

README = Path(__file__).resolve().parents[2] / "components" / "train" / "README.md"

TUNING = {
    "num_steps": 4,
    "crop_frames": 30,
    "learning_rate": {"kind": "cosine", "initial": 1e-4, "final": 1e-6},
}


def test_each_stage_is_described(trainer: Command, arguments: Arguments) -> None:
    rates = {"kind": "exponential", "initial": 1e-2, "final": 1e-4, "warm_up": 6, "scale": 2.0}
    outcome = trainer(*arguments("--dry-run", learning_rate=rates, fine_tuning=TUNING))
    assert outcome.code == 0
    assert (
        "stage 1: 24 steps of 20 frames, exponential learning rate 0.02 to 0.000242, warm-up of 6 steps\n"
        in (outcome.output)
    )
    assert "stage 2: 4 steps of 30 frames, cosine learning rate 0.0001 to 1.55e-05\n" in outcome.output


def test_a_constant_rate_is_one_number(trainer: Command, arguments: Arguments) -> None:
    outcome = trainer(*arguments("--dry-run", learning_rate={"kind": "constant", "initial": 1e-3}))
    assert "stage 1: 24 steps of 20 frames, constant learning rate 0.001\n" in outcome.output
    assert "stage 2" not in outcome.output


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"learning_rate": {"kind": "exponential", "initial": 1e-5, "final": 5e-5}}, "learning_rate"),
        (
            {"fine_tuning": {**TUNING, "learning_rate": {"kind": "cosine", "initial": 1e-5, "final": 5e-5}}},
            "fine_tuning.learning_rate",
        ),
    ],
)
def test_a_rate_that_rises_is_warned_of(
    trainer: Command,
    arguments: Arguments,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
    key: str,
) -> None:
    with caplog.at_level(logging.WARNING, "trainer"):
        assert trainer(*arguments("--dry-run", **changes)).code == 0
    (message,) = caplog.messages
    assert message.startswith(f"{key} rises from 1e-05 to 5e-05; ")


def test_only_the_first_process_warns(
    features: str, arguments: Arguments, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rises = {"kind": "exponential", "initial": 1e-5, "final": 5e-5}
    recipe = Recipe.load(arguments(learning_rate=rises)[1])
    opened = DeviceFeatures.open(features)
    for rank in (0, 1):
        caplog.clear()
        training = Training(recipe, opened, features, str(tmp_path / "run"), World(rank, 2, rank))
        with caplog.at_level(logging.WARNING, "trainer"):
            training.open_inputs()
        assert len(caplog.messages) == (rank == 0)


def test_the_readmes_own_speakers_go_on_at_a_low_rate() -> None:
    _, _, section = README.read_text().partition("## Your own speakers")
    command = section.split("```")[1]
    (name,) = re.findall(r"--recipe (\S+)", command)
    recipe = Recipe.load(name, re.findall(r"--set (\S+)", command))
    rates = [
        stage.learning_rate(step)
        for stage in stages_of(recipe)
        for step in range(stage.first_step, stage.end_step)
    ]
    assert len(rates) == 2000
    assert max(rates) == 1e-5
    assert recipe.batch_size // recipe.sampler.utterances_per_speaker < 40, "few speakers"


def test_a_rate_that_falls_is_not(
    trainer: Command, arguments: Arguments, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "trainer"):
        assert trainer(*arguments("--dry-run", fine_tuning=TUNING)).code == 0
    assert caplog.messages == []
