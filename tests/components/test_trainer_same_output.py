"""An output that another training has written or writes: continued, exported from, or refused."""

import logging
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from commands import Command, contents
from steered_trainings import Arguments, interrupted
from trainer.checkpoint import CheckpointStore
from training_runs import write_speakers
from voxsrc.models.stored import load_model


@pytest.mark.parametrize("finished", [False, True])
def test_another_training_in_the_same_output(
    trainer: Command,
    arguments: Arguments,
    features: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished: bool,
) -> None:
    if finished:
        assert trainer(*arguments(num_steps=2)).code == 0
    else:
        interrupted(trainer, arguments(num_steps=2), monkeypatch)
    before = contents(tmp_path / "run")
    outcome = trainer(*arguments(num_steps=3, batch_size=6))
    assert "batch_size: 8 → 6; num_steps: 2 → 3" in outcome.error
    assert "choose another --output" in outcome.error
    # The same utterances of the same lengths, but not the same sounds.
    other = write_speakers(tmp_path / "other", spread_nat=2.0)
    index = Path(other) / "utterances.parquet"
    assert index.read_bytes() == (Path(features) / "utterances.parquet").read_bytes()
    outcome = trainer(*arguments(num_steps=2, using=other))
    assert ("features: " if finished else "features_sha256: ") in outcome.error
    for name in (name for name in before if not name.endswith(("writer.json", "latest.json"))):
        assert (tmp_path / "run" / name).read_bytes() == before[name]
    # Where and how fast it runs may change.
    assert (
        trainer(*arguments("--set", "keep_checkpoints=5", num_steps=2, data={"placement": "ram"})).code == 0
    )


def test_resume_must_and_never(trainer: Command, arguments: Arguments, tmp_path: Path) -> None:
    outcome = trainer(*arguments("--resume", "must", num_steps=2))
    assert "--resume must" in outcome.error
    with CheckpointStore(str(tmp_path / "run")).open_for_writing("killed before its first checkpoint"):
        pass
    assert "holds no checkpoint" in trainer(*arguments("--resume", "must", num_steps=2)).error
    assert trainer(*arguments("--resume", "never", num_steps=2)).code == 0
    assert "--resume never" in trainer(*arguments("--resume", "never", num_steps=2)).error
    assert trainer(*arguments("--resume", "must", num_steps=2)).code == 0


def test_a_second_writer_is_refused(trainer: Command, arguments: Arguments, tmp_path: Path) -> None:
    with CheckpointStore(str(tmp_path / "run")).open_for_writing("pod-7"):
        outcome = trainer(*arguments(num_steps=2))
    assert outcome.code == 1
    assert "run 'pod-7'" in outcome.error
    assert not (tmp_path / "run" / "model").exists()


class TestNoise:
    @pytest.fixture
    def noise(self, tmp_path: Path) -> str:
        return write_speakers(tmp_path / "noise", num_speakers=1, first_speaker=90, spread_nat=0.0)

    def test_it_may_lie_elsewhere_but_not_change(
        self, trainer: Command, arguments: Arguments, tmp_path: Path, noise: str
    ) -> None:
        moved = tmp_path / "moved"

        def of(features: str | Path) -> list[str]:
            return arguments(num_steps=2, augment={"noise": {"probability": 0.5, "features": str(features)}})

        assert trainer(*of(noise)).code == 0
        Path(noise).rename(moved)
        assert "finished already" in trainer(*of(moved)).output
        (tmp_path / "run" / "model" / "model.yaml").unlink()
        assert trainer(*of(moved)).code == 0
        other = write_speakers(tmp_path / "other", num_speakers=1, first_speaker=91, spread_nat=0.0)
        assert "noise_sha256: " in trainer(*of(other)).error
        (tmp_path / "run" / "model" / "model.yaml").unlink()
        assert "noise_sha256: " in trainer(*of(other)).error

    def test_without_a_probability_it_is_said_that_there_is_none(
        self, trainer: Command, arguments: Arguments, noise: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            assert trainer(*arguments("--dry-run", augment={"noise": {"features": noise}})).code == 0
        assert "augment.noise.probability is 0: nothing is added" in caplog.text


def test_what_can_be_no_output_is_found_before_the_features_are_read(
    trainer: Command, arguments: Arguments, features: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    outcome = trainer(*arguments(output=tmp_path / "file", using=str(tmp_path / "nowhere")))
    assert "is a file; expected a folder" in outcome.error
    outcome = trainer(*arguments(output=features, using=str(tmp_path / "nowhere")))
    assert "is a feature set; choose another folder" in outcome.error
    assert not (Path(features) / "checkpoints").exists()


class TestExport:
    VALIDATION: ClassVar[dict[str, Any]] = {"fraction": 0.3, "interval_steps": 2, "crop_frames": 24}

    def test_the_model_of_a_checkpoint_while_another_run_writes(
        self, trainer: Command, arguments: Arguments, tmp_path: Path
    ) -> None:
        changes = {"num_steps": 8, "validation": self.VALIDATION}
        assert trainer(*arguments(**changes)).code == 0
        store = CheckpointStore(str(tmp_path / "run"))
        with store.open_for_writing("still running"):
            for which in ("newest", "best"):
                outcome = trainer(*arguments("--export", which, **changes))
                assert outcome.code == 0, outcome.errors
                loaded = store.load(best=which == "best")
                assert loaded is not None
                folder = tmp_path / "run" / "exported" / f"step-{loaded.entry.step:09d}"
                assert str(folder) in outcome.output
                model = load_model(str(folder))
                assert model.description.metrics["steps"] == loaded.entry.step
                for name, tensor in model.encoder.state_dict().items():
                    torch.testing.assert_close(tensor, loaded.state["encoder"][name], rtol=0, atol=0)
        newest = tmp_path / "run" / "exported" / "step-000000008"
        for name in ("model.safetensors", "model.yaml"):
            assert (newest / name).read_bytes() == (tmp_path / "run" / "model" / name).read_bytes()

    def test_nothing_to_export(self, trainer: Command, arguments: Arguments) -> None:
        assert "has no checkpoint to export" in trainer(*arguments("--export", "newest")).error
        assert trainer(*arguments(num_steps=2)).code == 0
        outcome = trainer(*arguments("--export", "best", num_steps=2))
        assert "has no checkpoint with a validation EER to export" in outcome.error
        outcome = trainer(*arguments("--export", "newest", num_steps=3))
        assert "num_steps: 2 → 3" in outcome.error
