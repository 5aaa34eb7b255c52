"""What a training leaves: model, ONNX, history, TensorBoard, plot, test report, and figures for Kubeflow."""

import contextlib
import io
import json
import re
from dataclasses import dataclass
from itertools import pairwise
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
from voxsrc.feature_set import FeatureSet
from voxsrc.features import FbankSpec
from voxsrc.models.stored import load_model

VALIDATION = {"fraction": 0.3, "interval_steps": 4, "crop_frames": 24}


@dataclass(frozen=True)
class Run:
    """A finished training with a test report."""

    arguments: list[str]
    output: Path
    test_features: str
    trials: list[tuple[int, str, str]]
    text: str

    def again(self, *more: str) -> tuple[int, str, str]:
        text, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(errors):
            code = cli.main([*self.arguments, *more])
        return code, text.getvalue(), errors.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    features = write_speakers(folder / "features")
    test_features = write_speakers(folder / "test", num_speakers=5, first_speaker=50, frames=(30, 90), seed=1)
    index = FeatureSet.open(test_features).index
    pairs = [(a, b) for i, a in enumerate(index.utterance_ids) for b in index.utterance_ids[:i]][::3]
    trials = [(int(a.split("/")[0] == b.split("/")[0]), a, b) for a, b in pairs]
    (folder / "trials.txt").write_text("".join(f"{label} {a} {b}\n" for label, a, b in trials))
    recipe = recipe_file(folder / "recipe.yaml", AAM, validation=VALIDATION, onnx="log_mel")
    test = ["--test-features", test_features, "--test-trials", str(folder / "trials.txt")]
    made = Run(
        training_arguments(recipe, features, folder / "output", *test),
        folder / "output",
        test_features,
        trials,
        "",
    )
    code, text, errors = made.again()
    assert code == 0, errors
    return Run(made.arguments, made.output, test_features, trials, text)


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


def test_the_test_report_is_right(run: Run) -> None:
    """Computed again, without the trainer: features read one by one, EER by a sweep over all thresholds."""
    encoder = load_model(str(run.output / "model")).encoder
    features = FeatureSet.open(run.test_features)
    with torch.no_grad():
        embedded = {
            name: F.normalize(encoder(torch.from_numpy(read.T[None]))[0], dim=0) for name, read in features
        }
    labels = np.array([label for label, _, _ in run.trials])
    scores = np.array([float(embedded[a] @ embedded[b]) for _, a, b in run.trials])
    rates = [
        (float(np.mean(scores[labels == 0] >= at)), float(np.mean(scores[labels == 1] < at)))
        for at in [np.inf, *sorted(scores, reverse=True)]
    ]
    for (fa0, fr0), (fa1, fr1) in pairwise(rates):
        if fa1 >= fr1:
            part = (fr0 - fa0) / ((fr0 - fa0) - (fr1 - fa1))
            expected = 100 * (fa0 + part * (fa1 - fa0))
            break
    [line] = [line for line in run.text.splitlines() if line.startswith("test EER")]
    found = re.fullmatch(
        r"test EER ([\d.]+) % \(95 % interval over speakers ([\d.]+) to ([\d.]+)\), (\d+) trials", line
    )
    assert found is not None
    eer, low, high, count = map(float, found.groups())
    assert eer == pytest.approx(expected, abs=0.006)
    assert low <= eer <= high
    assert low < high
    assert count == len(run.trials)


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
    assert [line for line in text.splitlines() if line.startswith("test EER")] == [
        line for line in run.text.splitlines() if line.startswith("test EER")
    ]
    metrics = json.loads(executor_output.read_text())["artifacts"]["metrics"]["artifacts"][0]["metadata"]
    assert metrics["steps"] == 24
    assert 0 <= metrics["test_eer"] <= 1
    assert {"loss", "accuracy", "validation_eer", "best_validation_eer"} < metrics.keys()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("id050/s0/0.wav id051/s0/0.wav\n", "has no labels"),
        ("1 id050/s0/0.wav id050/s0/nothing.wav\n", "the first is id050/s0/nothing.wav"),
        ("1 id050/s0/0.wav\n", ":1"),
    ],
)
def test_trials_that_cannot_be_scored(run: Run, tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "trials.txt").write_text(lines)
    code, _, errors = run.again("--test-trials", str(tmp_path / "trials.txt"))
    assert code == 1
    assert f"error: {tmp_path / 'trials.txt'}" in errors
    assert message in errors


def test_test_features_of_another_spec(run: Run, tmp_path: Path) -> None:
    other = write_speakers(tmp_path / "other", num_speakers=2, spec=FbankSpec(hop_ms=12.5))
    code, _, errors = run.again("--test-features", other)
    assert code == 1
    assert f"error: {other} has other features than asked for: hop_ms is 12.5, expected 10.0" in errors


def test_utterances_too_short_for_the_model(run: Run, tmp_path: Path) -> None:
    short = write_speakers(tmp_path / "short", num_speakers=2, frames=(4, 8))
    (tmp_path / "trials.txt").write_text("1 id000/s0/0.wav id000/s1/1.wav\n0 id000/s0/0.wav id001/s0/0.wav\n")
    code, _, errors = run.again("--test-features", short, "--test-trials", str(tmp_path / "trials.txt"))
    assert code == 1
    assert "names 3 utterances of less than 9 frames" in errors
    assert "the first is id000/s0/0.wav" in errors


def test_a_test_of_known_speakers_is_warned_of(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert run.again()[0] == 0
    assert "test speakers" not in caplog.text
    features = run.arguments[run.arguments.index("--features") + 1]
    trials = Path(features).parent / "known.txt"
    trials.write_text("1 id000/s0/0.wav id000/s1/1.wav\n0 id000/s0/0.wav id001/s0/0.wav\n")
    assert run.again("--test-features", features, "--test-trials", str(trials))[0] == 0
    assert "2 of the test speakers are in the training features, too, the first is id000" in caplog.text


def test_trials_need_features_and_the_other_way_round(run: Run) -> None:
    end = run.arguments.index("--test-features")
    only_trials = Run(
        [*run.arguments[:end], *run.arguments[end + 2 :]], run.output, run.test_features, run.trials, ""
    )
    code, _, errors = only_trials.again()
    assert code == 1
    assert "error: --test-features and --test-trials belong together" in errors


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
