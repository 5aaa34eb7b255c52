"""A training that begins with the weights of another model."""

from pathlib import Path

import pytest
import torch

from commands import Command
from steered_trainings import Arguments, interrupted
from training_runs import ANGLEPROTO, write_speakers
from voxsrc.features import FbankSpec
from voxsrc.models.stored import load_model


class TestInitialModel:
    @pytest.fixture
    def model(self, trainer: Command, arguments: Arguments, tmp_path: Path) -> Path:
        assert trainer(*arguments(output=tmp_path / "first", num_steps=4)).code == 0
        return tmp_path / "first" / "model"

    def test_it_is_begun_with(
        self, trainer: Command, arguments: Arguments, tmp_path: Path, model: Path
    ) -> None:
        still = {"kind": "constant", "initial": 1e-12}
        changes = {"initial_model": str(model), "num_steps": 2, "learning_rate": still, "seed": 5}
        assert trainer(*arguments(**changes)).code == 0
        first, second = load_model(str(model)), load_model(str(tmp_path / "run" / "model"))
        assert second.description.provenance["initial_model"] == first.model_hash
        theirs = dict(first.encoder.named_parameters())
        for name, parameter in second.encoder.named_parameters():
            torch.testing.assert_close(parameter, theirs[name], rtol=0, atol=1e-9)

    def test_another_one_is_another_training(
        self, trainer: Command, arguments: Arguments, tmp_path: Path, model: Path
    ) -> None:
        assert trainer(*arguments(initial_model=str(model), num_steps=2)).code == 0
        (tmp_path / "run" / "model" / "model.yaml").unlink()
        assert trainer(*arguments(output=tmp_path / "other", num_steps=5)).code == 0
        for file in ("model.safetensors", "model.yaml"):
            (model / file).write_bytes((tmp_path / "other" / "model" / file).read_bytes())
        outcome = trainer(*arguments(initial_model=str(model), num_steps=2))
        assert outcome.code == 1
        assert "initial_model: " in outcome.error

    def test_it_may_be_gone_when_the_training_has_begun(
        self,
        trainer: Command,
        arguments: Arguments,
        tmp_path: Path,
        model: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        command = arguments(initial_model=str(model), num_steps=2)
        interrupted(trainer, command, monkeypatch)
        moved = model.rename(tmp_path / "moved")
        assert trainer(*command).code == 0
        description = load_model(str(tmp_path / "run" / "model")).description
        assert description.provenance["initial_model"] == load_model(str(moved)).model_hash
        assert "finished already" in trainer(*command).output
        assert str(model) in trainer(*arguments(initial_model=str(model), output=tmp_path / "new")).error

    def test_one_that_does_not_fit_is_refused(
        self, trainer: Command, arguments: Arguments, tmp_path: Path, model: Path
    ) -> None:
        encoder = {**ANGLEPROTO["encoder"], "embedding_dim": 9}
        outcome = trainer(*arguments(initial_model=str(model), encoder=encoder))
        assert outcome.code == 1
        assert "another encoder than the recipe: embedding_dim: 8 → 9" in outcome.error
        other = write_speakers(tmp_path / "others", spec=FbankSpec(preemphasis=0.0))
        outcome = trainer(*arguments(initial_model=str(model), using=other))
        assert outcome.code == 1
        assert "has other features than the model was trained on: preemphasis" in outcome.error
        assert not (tmp_path / "run").exists()
