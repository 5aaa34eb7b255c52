"""Checkpoints that another version of the program wrote."""

from pathlib import Path
from typing import Any

import pytest
import torch

from commands import Command
from steered_trainings import Arguments, interrupted
from trainer.state import TrainingState
from training_runs import Result

VALIDATION = {"fraction": 0.3, "interval_steps": 2, "crop_frames": 24}
# The best is the first, so that patience takes it again.
LOSING = {
    "learning_rate": {"kind": "constant", "initial": 0.5},
    "validation": {**VALIDATION, "patience": 2},
    "num_steps": 60,
}


def write_without(patch: pytest.MonkeyPatch, name: str) -> None:
    """Has checkpoints lack a part."""
    original = TrainingState.to_state

    def to_state(*arguments: Any) -> dict[str, Any]:
        state = original(*arguments)
        del state[name]
        return state

    patch.setattr(TrainingState, "to_state", to_state)


def test_one_that_does_not_tell_of_patience_goes_on(
    trainer: Command,
    arguments: Arguments,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    changes = {"num_steps": 2, "validation": VALIDATION}
    assert trainer(*arguments(output=tmp_path / "plain", **changes)).code == 0
    with monkeypatch.context() as earlier:
        write_without(earlier, "stopped_early")
        interrupted(trainer, arguments(**changes), monkeypatch)
    for more in (["--export", "newest"], ["--export", "best"], []):
        outcome = trainer(*arguments(*more, **changes))
        assert outcome.code == 0, outcome.error
    assert Result.of(tmp_path / "run").weights == Result.of(tmp_path / "plain").weights


@pytest.mark.parametrize("lacking", ["sums", "scaler", "identity"])
def test_one_that_lacks_a_part_is_one_line(
    trainer: Command,
    arguments: Arguments,
    monkeypatch: pytest.MonkeyPatch,
    lacking: str,
) -> None:
    changes = {"num_steps": 2, "validation": VALIDATION}
    write_without(monkeypatch, lacking)
    interrupted(trainer, arguments(**changes), monkeypatch)
    for more in ([], ["--export", "newest"], ["--export", "best"]):
        outcome = trainer(*arguments(*more, **changes))
        assert outcome.code == 1
        assert "step-000000002" in outcome.error
        assert "does not fit this version of the program" in outcome.error


def test_memory_that_is_full_is_no_other_version(
    trainer: Command, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: Any) -> None:
        raise torch.OutOfMemoryError("Tried to allocate 2 GiB")

    command = arguments(num_steps=2, validation=VALIDATION)
    interrupted(trainer, command, monkeypatch)
    monkeypatch.setattr(TrainingState, "load_weights", run_out)
    error = trainer(*command).error
    assert error.startswith("out of memory at batch_size 8")
    assert "this version" not in error
    with pytest.raises(torch.OutOfMemoryError):
        trainer(*command, "--export", "best")
    monkeypatch.setattr(TrainingState, "load", lambda *_: None)
    assert trainer(*arguments(output=command[5] + "-losing", **LOSING)).error.startswith("out of memory")


def test_the_best_one_too_when_patience_runs_out(
    trainer: Command, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_without(monkeypatch, "scaler")
    outcome = trainer(*arguments(**LOSING))
    assert outcome.code == 1
    assert "does not fit this version of the program: it has no 'scaler'" in outcome.error
