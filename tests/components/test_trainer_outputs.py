"""What a training leaves: model, ONNX, history, TensorBoard, plot, calibration, and figures for Kubeflow."""

import contextlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from torch.nn import functional as F

from trainer import cli
from trainer.checkpoint import CheckpointStore
from trainer.recipe import Recipe
from training_runs import AAM, recipe_file, training_arguments, write_speakers
from voxsrc import storage
from voxsrc.config import from_mapping
from voxsrc.corpus import split_speakers
from voxsrc.feature_set import FeatureSet
from voxsrc.features import FbankSpec
from voxsrc.held_out import HeldOutTrials
from voxsrc.models.stored import load_model, read_description
from voxsrc.scoring import LogisticCalibration

VALIDATION = {"fraction": 0.3, "interval_steps": 4, "crop_frames": 24}


@dataclass(frozen=True)
class Run:
    """A finished training."""

    arguments: list[str]
    output: Path

    def again(self, *more: str) -> tuple[int, str, str]:
        text, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(errors):
            code = cli.main([*self.arguments, *more])
        return code, text.getvalue(), errors.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    features = write_speakers(folder / "features")
    recipe = recipe_file(folder / "recipe.yaml", AAM, validation=VALIDATION, onnx="log_mel")
    made = Run(training_arguments(recipe, features, folder / "output"), folder / "output")
    code, _, errors = made.again()
    assert code == 0, errors
    return made


def test_the_model_is_the_one_that_was_trained(run: Run) -> None:
    model = load_model(str(run.output / "model"))
    checkpoint = CheckpointStore(str(run.output)).load()
    assert checkpoint is not None
    assert checkpoint.entry.step == 24
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, checkpoint.state["encoder"][name]), name
    assert model.encoder(torch.randn(2, 40, 50)).shape == (2, 8)


def test_the_description_tells_all_but_the_time(run: Run) -> None:
    description = load_model(str(run.output / "model")).description
    rows = [json.loads(line) for line in (run.output / "history.jsonl").read_text().splitlines()]
    assert description.spec == FbankSpec()
    assert from_mapping(Recipe, description.recipe).encoder == description.encoder
    eers = [row["validation_eer"] for row in rows if "validation_eer" in row]
    assert description.metrics == {
        "steps": 24,
        "stopped_early": False,
        "loss": rows[-1]["loss"],
        "accuracy": rows[-1]["accuracy"],
        "validation_eer": eers[-1],
        "best_validation_eer": min(eers),
    }
    assert description.provenance["speakers"] == 6
    assert description.provenance["fbank_spec_hash"] == FbankSpec().hash
    text = (run.output / "model" / "model.yaml").read_text()
    keys = set(re.findall(r"^\s*(\w+):", text, re.MULTILINE))
    allowed = {"mean_time_between_preemptions_s", "num_time_masks", "rt60_s", "checkpoint_interval_s"}
    assert not {key for key in keys - allowed if re.search("time|date|host|when|_s$", key)}
    assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", text)


def test_the_onnx_model_computes_the_same(run: Run) -> None:
    encoder = load_model(str(run.output / "model")).encoder
    session = onnxruntime.InferenceSession(
        (run.output / "model" / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"]
    )
    for batch, frames in ((1, 30), (4, 217)):
        crops = 3 * torch.randn(batch, 40, frames) - 4
        (computed,) = session.run(None, {"features": crops.numpy()})
        np.testing.assert_allclose(computed, encoder(crops).detach().numpy(), atol=1e-4, rtol=0)


def test_the_history_has_the_rows_that_are_due_and_no_times(run: Run) -> None:
    rows = [json.loads(line) for line in (run.output / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(3, 25, 3))
    assert [row["step"] for row in rows if "validation_eer" in row] == list(range(4, 25, 4))
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    known = {"step", "epoch", "loss", "accuracy", "learning_rate", "margin", "validation_eer"}
    assert {key for row in rows for key in row} == known
    assert all(0 <= row["accuracy"] <= 1 for row in rows if "loss" in row)


def test_tensorboard_and_the_plot(run: Run) -> None:
    events = EventAccumulator(str(run.output / "tensorboard"))
    events.Reload()
    rows = [json.loads(line) for line in (run.output / "history.jsonl").read_text().splitlines()]
    for key in ("loss", "accuracy", "learning_rate", "margin", "validation_eer"):
        shown = {event.step: event.value for event in events.Scalars(f"training/{key}")}
        assert shown == pytest.approx({row["step"]: row[key] for row in rows if key in row})
    assert all(event.value > 0 for event in events.Scalars("speed/crops_per_s"))
    assert all(0 <= event.value <= 100 for event in events.Scalars("speed/data_wait_percent"))
    with Image.open(run.output / "training.png") as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) > 400


def test_figures_for_kubeflow(run: Run, tmp_path: Path) -> None:
    """A finished run reports again: the step that is repeated has the same outputs."""
    executor_output = tmp_path / "executor_output.json"
    artifact = {"name": "metrics", "type": {"schemaTitle": "system.Metrics"}, "uri": "x", "metadata": {}}
    message = {
        "inputs": {},
        "outputs": {
            "outputFile": str(executor_output),
            "artifacts": {"metrics": {"artifacts": [artifact]}},
        },
    }
    code, text, errors = run.again("--executor-input", json.dumps(message))
    assert code == 0, errors
    assert "finished already" in text
    metrics = json.loads(executor_output.read_text())["artifacts"]["metrics"]["artifacts"][0]["metadata"]
    assert metrics["steps"] == 24
    assert {"loss", "accuracy", "validation_eer", "best_validation_eer"} < metrics.keys()


def test_all_of_it_in_a_bucket(run: Run, bucket: str, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path / "recipe.yaml", AAM, validation=VALIDATION)
    features = run.arguments[run.arguments.index("--features") + 1]
    output = f"{bucket}/runs/first"
    assert cli.main(training_arguments(recipe, features, output)) == 0
    names = [info.uri.removeprefix(f"{output}/") for info in storage.list_files(output)]
    assert {"history.jsonl", "training.png", "model/model.safetensors", "model/model.yaml"} < set(names)
    assert [name for name in names if name.startswith("tensorboard/events")]
    assert storage.read_bytes(f"{output}/history.jsonl") == (run.output / "history.jsonl").read_bytes()
    weights: Any = storage.read_bytes(f"{output}/model/model.safetensors")
    assert weights == (run.output / "model" / "model.safetensors").read_bytes()


def test_scores_are_calibrated_on_held_out_speakers(run: Run) -> None:
    """Computed again: cosines of whole utterances of the speakers that the split holds out."""
    model = load_model(str(run.output / "model"))
    assert model.description.calibration is not None
    calibration = LogisticCalibration.from_dict(model.description.calibration)
    features = FeatureSet.open(run.arguments[run.arguments.index("--features") + 1])
    _, held_out = split_speakers(features.index.speaker_ids, copies={}, validation_fraction=0.3)
    trials = HeldOutTrials.of(features.index, held_out, copies={})
    with torch.no_grad():
        whole = [features.read(features.index.utterance_ids[row]).T for row in trials.rows]
        vectors = [F.normalize(model.encoder(torch.from_numpy(one[None]))[0], dim=0) for one in whole]
    scores = [float(vectors[a] @ vectors[b]) for a, b in zip(trials.first, trials.second, strict=True)]
    expected = LogisticCalibration.fit(scores, trials.labels)
    assert calibration.weights == pytest.approx(expected.weights, rel=1e-3)
    assert calibration.bias == pytest.approx(expected.bias, rel=1e-3)
    assert calibration.fitted_on["speakers"] == len(held_out)


def test_without_held_out_speakers_there_is_no_calibration(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = recipe_file(tmp_path / "recipe.yaml", AAM, validation={"fraction": 0.0}, onnx="none")
    features = run.arguments[run.arguments.index("--features") + 1]
    assert cli.main(training_arguments(recipe, features, tmp_path / "output")) == 0
    assert read_description(str(tmp_path / "output/model")).calibration is None
    assert "the model has no calibration, as no speakers were held out" in caplog.text
