"""An ONNX model that is asked for when the training has ended."""

from pathlib import Path

import pytest

from commands import Command, identities
from steered_trainings import Arguments
from voxsrc.features import FbankSpec
from voxsrc.models.encoder import SpeakerEncoder
from voxsrc.models.stored import read_description


@pytest.fixture(autouse=True)
def quick_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that depend on all that a real export depends on."""

    def to_onnx(encoder: SpeakerEncoder, spec: FbankSpec, kind: str) -> bytes:
        assert not encoder.training
        weights = [(name, tensor.tolist()) for name, tensor in encoder.state_dict().items()]
        return repr((kind, spec, weights)).encode()

    monkeypatch.setattr("trainer.finishing.to_onnx", to_onnx)


@pytest.fixture
def model(trainer: Command, arguments: Arguments, tmp_path: Path) -> Path:
    assert trainer(*arguments(num_steps=2)).code == 0
    return tmp_path / "run" / "model"


def test_it_is_written_from_the_stored_weights(
    trainer: Command, arguments: Arguments, tmp_path: Path, model: Path
) -> None:
    assert not (model / "model.onnx").exists()
    outcome = trainer(*arguments(num_steps=2, onnx="log_mel"))
    assert outcome.code == 0, outcome.error
    assert "finished already" in outcome.output
    assert "model.onnx was written" in outcome.output
    assert trainer(*arguments(output=tmp_path / "both", num_steps=2, onnx="log_mel")).code == 0
    for name in ("model.safetensors", "model.yaml", "model.onnx"):
        assert (model / name).read_bytes() == (tmp_path / "both" / "model" / name).read_bytes(), name


def test_another_input_replaces_it(trainer: Command, arguments: Arguments, model: Path) -> None:
    weights = identities(model)["model.safetensors"]
    for onnx in ("log_mel", "audio"):
        assert trainer(*arguments(num_steps=2, onnx=onnx)).code == 0
        assert read_description(str(model)).recipe["onnx"] == onnx
        assert (model / "model.onnx").read_text().startswith(f"('{onnx}', ")
    assert identities(model)["model.safetensors"] == weights, "they are the same, and are not written again"


def test_it_is_not_written_twice(trainer: Command, arguments: Arguments, model: Path) -> None:
    assert trainer(*arguments(num_steps=2, onnx="log_mel")).code == 0
    before = {path.name: path.stat().st_mtime_ns for path in model.iterdir()}
    for onnx in ("log_mel", "none"):
        outcome = trainer(*arguments(num_steps=2, onnx=onnx))
        assert outcome.code == 0
        assert "was written" not in outcome.output
    assert {path.name: path.stat().st_mtime_ns for path in model.iterdir()} == before
