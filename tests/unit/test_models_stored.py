"""Stored models: what is written is read again, damage is named, and ONNX computes the same."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from voxsrc.config import read_yaml, write_yaml
from voxsrc.errors import NotFoundError
from voxsrc.features import FbankSpec
from voxsrc.features.torch_log_mel import LogMel
from voxsrc.models.encoder import EncoderConfig, SpeakerEncoder
from voxsrc.models.onnx_export import OnnxError, to_onnx
from voxsrc.models.stored import (
    DESCRIPTION_NAME,
    WEIGHTS_NAME,
    ModelDescription,
    ModelError,
    load_model,
    read_description,
    save_model,
)

CONFIG = EncoderConfig(
    name="ResNet_mini",
    num_mels=40,
    embedding_dim=8,
    normalisation="mean_variance",
    options={"channels": [2, 2, 4, 4], "se_reduction": 2},
)


def trained(config: EncoderConfig) -> SpeakerEncoder:
    """With statistics and scales of batch norms that are not those of a new network."""
    torch.manual_seed(1)
    encoder = SpeakerEncoder(config).train()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for _ in range(3):
            encoder(3 * torch.randn(8, config.num_mels, 60))
    return encoder.eval()


def description(config: EncoderConfig, **provenance: Any) -> ModelDescription:
    metrics = {"steps": 7, "loss": 1e-05, "stopped_early": False}
    return ModelDescription(config, FbankSpec(num_mels=config.num_mels), {"seed": 3}, metrics, provenance)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(str(tmp_path), trained(CONFIG), description(CONFIG))
    return tmp_path


def change(model: Path, fields: Mapping[str, Any]) -> None:
    path = model / DESCRIPTION_NAME
    path.write_text(write_yaml({**read_yaml(path.read_text(), "model.yaml"), **fields}))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    encoder = trained(CONFIG)
    # A commit of these digits is a number to YAML, unless it is quoted.
    saved = description(CONFIG, commit="12e4567", date="", features="gs://ümlaut/x")
    save_model(str(tmp_path), encoder, saved)
    loaded = load_model(str(tmp_path))
    assert loaded.description == saved
    assert not loaded.encoder.training
    crops = torch.randn(3, 40, 33)
    assert torch.equal(loaded.encoder(crops), encoder(crops))
    assert loaded.encoder.state_dict().keys() == encoder.state_dict().keys()
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(loaded.encoder.state_dict()[name], tensor), name


def test_equal_models_are_equal_bytes(tmp_path: Path) -> None:
    for place, memory_format in (("a", torch.contiguous_format), ("b", torch.channels_last)):
        encoder = trained(CONFIG).to(memory_format=memory_format)
        save_model(str(tmp_path / place), encoder, description(CONFIG))
    for name in (WEIGHTS_NAME, DESCRIPTION_NAME):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=DESCRIPTION_NAME):
        load_model(str(tmp_path))


def test_weights_that_are_missing(model: Path) -> None:
    (model / WEIGHTS_NAME).unlink()
    with pytest.raises(NotFoundError, match=WEIGHTS_NAME):
        load_model(str(model))


@pytest.mark.parametrize("damage", ["cut", "no safetensors", "of another network"])
def test_weights_that_are_damaged(model: Path, damage: str) -> None:
    weights = model / WEIGHTS_NAME
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif damage == "no safetensors":
        weights.write_bytes(b"\0" * 100)
    else:
        change(model, {"encoder": {**CONFIG.to_dict(), "embedding_dim": 9}})
    with pytest.raises(
        ModelError, match=rf"{WEIGHTS_NAME}: not the weights that {DESCRIPTION_NAME} describes"
    ):
        load_model(str(model))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format_version": 2}, "format version 2; this program reads 1"),
        ({"encoder": {"name": "ResNet_mini"}}, "encoder.num_mels: missing"),
        ({"encoder": {**CONFIG.to_dict(), "nome": 1}}, r"encoder.nome: unknown key, did you mean name\?"),
        ({"fbank_spec": {"num_mel": 3}}, r"fbank_spec.num_mel: unknown key, did you mean num_mels\?"),
        ({"fbank_spec": {"hop_ms": "ten"}}, r"fbank_spec.hop_ms: found 'ten' \(str\), expected a number"),
        ({"fbank_spec": ["lfb40"]}, r"fbank_spec: found \['lfb40'\] \(list\), expected a mapping"),
    ],
)
def test_a_description_that_cannot_be_used(model: Path, fields: dict[str, Any], message: str) -> None:
    change(model, fields)
    with pytest.raises(ModelError, match=rf"{DESCRIPTION_NAME}: .*{message}"):
        read_description(str(model))


@pytest.mark.parametrize("part", ["encoder", "fbank_spec", "recipe", "metrics", "provenance"])
def test_a_description_that_lacks_a_part(model: Path, part: str) -> None:
    path = model / DESCRIPTION_NAME
    fields = read_yaml(path.read_text(), "model.yaml")
    del fields[part]
    path.write_text(write_yaml(fields))
    with pytest.raises(ModelError, match=rf"has no '{part}'"):
        read_description(str(model))


@pytest.mark.parametrize("calibration", [None, {"inputs": ["score"], "weights": [9.5], "bias": -4.0}])
def test_a_calibration_is_kept_and_its_absence_leaves_no_key(
    tmp_path: Path, calibration: dict[str, Any] | None
) -> None:
    saved = dataclasses.replace(description(CONFIG), calibration=calibration)
    save_model(str(tmp_path), trained(CONFIG), saved)
    assert read_description(str(tmp_path)) == saved
    fields = read_yaml((tmp_path / DESCRIPTION_NAME).read_text(), "model.yaml")
    assert ("calibration" in fields) == (calibration is not None)


def test_a_calibration_that_is_no_mapping(model: Path) -> None:
    change(model, {"calibration": [1, 2]})
    with pytest.raises(ModelError, match=rf"{DESCRIPTION_NAME}: calibration is \[1, 2\]; expected a mapping"):
        read_description(str(model))


def test_the_hash_tells_models_apart_that_embed_otherwise(tmp_path: Path) -> None:
    def hash_of(config: EncoderConfig, encoder: SpeakerEncoder, **provenance: Any) -> str:
        save_model(str(tmp_path), encoder, description(config, **provenance))
        return load_model(str(tmp_path)).model_hash

    encoder = trained(CONFIG)
    original = hash_of(CONFIG, encoder)
    # Neither metrics nor origin change an embedding; weights and normalisation do.
    assert hash_of(CONFIG, encoder, commit="abc") == original
    assert hash_of(dataclasses.replace(CONFIG, normalisation="mean"), encoder) != original
    with torch.no_grad():
        next(encoder.parameters()).view(-1)[0] += 1e-6
    assert hash_of(CONFIG, encoder) != original
    assert len(original) == 64


def test_features_of_another_spec_are_refused(model: Path) -> None:
    loaded = load_model(str(model))
    loaded.check_spec(FbankSpec(num_mels=40), "gs://b/set")
    with pytest.raises(
        ModelError, match=r"gs://b/set has other features .*: hop_ms is 12.5, expected 10.0; extract"
    ):
        loaded.check_spec(FbankSpec(num_mels=40, hop_ms=12.5), "gs://b/set")


@pytest.mark.parametrize(
    ("source", "config", "spec"),
    [
        ("log_mel", CONFIG, FbankSpec()),
        (
            "audio",
            EncoderConfig(name="ECAPA_TDNN_512", num_mels=24, embedding_dim=8, options={"channels": 16}),
            FbankSpec(num_mels=24, window="povey", preemphasis_over="utterance_reflect", log_floor=1e-3),
        ),
    ],
)
def test_onnx_computes_the_same_for_any_batch_and_length(
    source: Any, config: EncoderConfig, spec: FbankSpec
) -> None:
    encoder = trained(config).train()
    content = to_onnx(encoder, spec, source)
    assert encoder.training
    encoder.eval()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert taken.name == ("audio" if source == "audio" else "features")
    assert given.name == "embedding"
    front_end = LogMel(spec)
    for batch, length in ((1, encoder.min_frames), (2, 61), (5, 400), (1, 1234)):
        if source == "audio":
            # Loud and soft: amplitudes as of speech.
            inputs = 0.2 * torch.randn(batch, (length + 3) * spec.hop_samples) * torch.rand(batch, 1)
            expected = encoder(front_end(inputs))
        else:
            inputs = 3 * torch.randn(batch, config.num_mels, length) - 4
            expected = encoder(inputs)
        (computed,) = session.run(None, {taken.name: inputs.numpy()})
        assert computed.shape == (batch, config.embedding_dim)
        np.testing.assert_allclose(computed, expected.detach().numpy(), atol=1e-4, rtol=0)
    onnx.checker.check_model(onnx.load_from_string(content))
    # Nothing of this machine, of which the exporter notes files and lines.
    for text in (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]), "File "):
        assert text.encode() not in content


def test_onnx_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def get_inputs(self) -> list[Any]:
            return [type("Input", (), {"name": "features"})]

        def run(self, _: None, inputs: dict[str, Any]) -> list[Any]:
            (features,) = inputs.values()
            return [np.zeros((len(features), 8), np.float32)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Wrong)
    monkeypatch.setattr("voxsrc.models.onnx_export._export", lambda *_: b"")
    with pytest.raises(OnnxError, match="embeddings of 1 × 277 frames differ"):
        to_onnx(trained(CONFIG), FbankSpec())
