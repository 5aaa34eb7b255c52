"""A training that stops early gives its best weights."""

import json
import logging
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from commands import Command
from steered_trainings import Arguments, at_step, interrupted
from trainer.checkpoint import CheckpointStore
from trainer.losses import LossOutput
from trainer.training import Training
from trainer.validation import Validation
from training_runs import Result
from voxsrc import storage
from voxsrc.models.stored import load_model


class TestPatience:
    # The rate is so high that what is learned is lost again.
    CHANGES: ClassVar[dict[str, Any]] = {
        "learning_rate": {"kind": "constant", "initial": 0.5},
        "validation": {"fraction": 0.3, "interval_steps": 2, "crop_frames": 24, "patience": 2},
    }

    def test_the_best_weights_are_taken(self, trainer: Command, arguments: Arguments, tmp_path: Path) -> None:
        assert trainer(*arguments(num_steps=60, **self.CHANGES)).code == 0
        output = str(tmp_path / "run")
        rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
        judged = [(row["validation_eer"], row["step"]) for row in rows if "validation_eer" in row]
        eer, step = min(judged)
        assert step == rows[-1]["step"] - 2 * 2 < 56, "two validations later it was stopped"
        model = load_model(storage.join(output, "model"))
        metrics = model.description.metrics
        assert metrics["stopped_early"]
        assert (metrics["steps"], metrics["validation_eer"]) == (step, eer)
        assert metrics["best_validation_eer"] == eer
        best = CheckpointStore(output).load(best=True)
        assert best is not None
        assert best.entry.step == step
        for name, tensor in model.encoder.state_dict().items():
            torch.testing.assert_close(tensor, best.state["encoder"][name], rtol=0, atol=0)

    def test_they_are_taken_when_it_runs_out_with_the_last_step_also_after_a_kill(
        self, trainer: Command, arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        eers = {2: 0.1, 4: 0.3, 6: 0.2}
        judged = iter([*eers.values()] * 2)
        monkeypatch.setattr(Validation, "equal_error_rate", lambda *_: next(judged))
        outcomes = []
        for name in ("plain", "run"):
            command = arguments(output=tmp_path / name, num_steps=6, **self.CHANGES)
            if name == "run":
                interrupted(trainer, command, monkeypatch)
            assert trainer(*command).code == 0
            metrics = load_model(str(tmp_path / name / "model")).description.metrics
            assert (metrics["steps"], metrics["validation_eer"]) == (2, 0.1)
            assert metrics["stopped_early"]
            outcomes.append(Result.of(tmp_path / name))
        assert outcomes[0] == outcomes[1]

    def test_a_damaged_best_gives_way_to_the_next_best(
        self, trainer: Command, arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judged = iter([0.1, 0.3, 0.2])
        monkeypatch.setattr(Validation, "equal_error_rate", lambda *_: next(judged))
        command = arguments(num_steps=9, keep_checkpoints=9, **self.CHANGES)
        interrupted(trainer, command, monkeypatch)
        best = CheckpointStore(str(tmp_path / "run")).best
        assert best is not None
        assert best.step == 2
        (tmp_path / "run" / "checkpoints" / best.name).write_bytes(b"damaged")
        outcome = trainer(*command)
        assert outcome.code == 0, outcome.errors
        metrics = load_model(str(tmp_path / "run" / "model")).description.metrics
        assert (metrics["steps"], metrics["best_validation_eer"]) == (6, 0.2)

    def test_fine_tuning_begins_with_the_best_weights(
        self, trainer: Command, arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        output, seen = str(tmp_path / "run"), []

        def look(training: Training) -> None:
            best = CheckpointStore(output).load(best=True)
            assert best is not None
            for name, tensor in training.state.encoder.state_dict().items():
                torch.testing.assert_close(tensor, best.state["encoder"][name], rtol=0, atol=0)
            seen.append(best.entry.step)

        losses: list[float] = []
        original = Training._loss

        def noted(*arguments: Any) -> LossOutput:
            output = original(*arguments)
            losses.append(float(output.loss.detach()))
            return output

        monkeypatch.setattr(Training, "_loss", noted)
        at_step(monkeypatch, {60: look})
        tuning = {"num_steps": 3, "crop_frames": 30, "learning_rate": {"kind": "constant", "initial": 1e-6}}
        changes = {**self.CHANGES, "num_steps": 60, "fine_tuning": tuning, "log_interval_steps": 1000}
        assert trainer(*arguments(**changes)).code == 0
        rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
        steps = [row["step"] for row in rows]
        assert len(seen) == 1
        assert max(step for step in steps if step <= 60) == seen[0] + 4
        assert steps[-2:] == [62, 63], "patience begins anew"
        assert rows[-1]["loss"] == pytest.approx(sum(losses[-3:]) / 3), "of the second stage's steps alone"
        assert load_model(storage.join(output, "model")).description.metrics["stopped_early"]

    def test_with_nobody_held_out_it_has_no_effect_and_a_warning(
        self, trainer: Command, arguments: Arguments, caplog: pytest.LogCaptureFixture
    ) -> None:
        command = arguments(num_steps=2, validation={"fraction": 0.0, "patience": 1})
        with caplog.at_level(logging.WARNING, "trainer"):
            assert trainer(*command).code == 0
        message = caplog.messages[0]
        assert message.startswith(
            "validation.patience is 1, but validation.fraction is 0: nobody is held out"
        )
        assert "finished already" in trainer(*command).output
        assert trainer(*command, "--export", "newest").code == 0
