"""A whole evaluation: every output, and every number recomputed in a plain way."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluations import Evaluations, Trained, job, results, write_trials
from voxsrc.corpus import read_trials
from voxsrc.feature_set import FeatureSet
from voxsrc.models.stored import load_model


def scores_of(path: Path) -> list[float]:
    return [float(line.split()[0]) for line in path.read_text().splitlines()]


def plain_cosines(trained: Trained) -> list[float]:
    """Of the trials, from embeddings made one by one."""
    model, features, trials = (
        load_model(trained.model),
        FeatureSet.open(trained.test),
        read_trials(trained.trials),
    )
    vectors = {}
    for name in trials.utterance_ids():
        with torch.inference_mode():
            vectors[name] = model.encoder(torch.from_numpy(features.read(name)).T[None])[0].double()
    return [
        float(torch.nn.functional.cosine_similarity(vectors[first], vectors[second], dim=0))
        for first, second in zip(trials.enrollments, trials.tests, strict=True)
    ]


def plain_errors(scores: list[float], labels: list[int]) -> list[tuple[float, float]]:
    """False accepts and false rejects at every threshold, from accepting nothing to accepting all."""
    targets = [score for score, label in zip(scores, labels, strict=True) if label]
    others = [score for score, label in zip(scores, labels, strict=True) if not label]
    return [
        (
            sum(score >= threshold for score in others) / len(others),
            sum(score < threshold for score in targets) / len(targets),
        )
        for threshold in [math.inf, *sorted(set(scores), reverse=True)]
    ]


def plain_eer(errors: list[tuple[float, float]]) -> float:
    """Where the line through the points on either side has equal errors."""
    for (accepts, rejects), (more, fewer) in itertools.pairwise(errors):
        if more >= fewer:
            share = (rejects - accepts) / ((rejects - accepts) + (more - fewer))
            return accepts + share * (more - accepts)
    raise AssertionError("the errors never cross")


def test_a_whole_evaluation(trained: Trained, evaluations: Evaluations, tmp_path: Path) -> None:
    evaluations.whole = True
    output = tmp_path / "output"
    outcome = evaluations(*job(trained), "--output", output, "--num-resamples", 200)
    assert outcome.code == 0, outcome.errors
    metrics = json.loads((output / "metrics.json").read_text())
    trials = read_trials(trained.trials)
    assert trials.labels is not None
    labels = trials.labels.tolist()

    lines = [line.split() for line in (output / "scores.txt").read_text().splitlines()]
    assert [line[1:] for line in lines] == [
        [first, second] for first, second in zip(trials.enrollments, trials.tests, strict=True)
    ]
    cosines = scores_of(output / "scores.txt")
    assert cosines == pytest.approx(plain_cosines(trained), abs=1e-6)
    calibration = load_model(trained.model).description.calibration
    assert calibration is not None
    assert metrics["calibration"] == calibration
    (weight,), bias = calibration["weights"], calibration["bias"]
    llrs = scores_of(output / "log_likelihood_ratios.txt")
    assert llrs == pytest.approx([weight * score + bias for score in cosines], abs=1e-9)

    errors = plain_errors(cosines, labels)
    assert metrics["eer"] == pytest.approx(plain_eer(errors), abs=1e-9)
    for key, prior in (("min_dcf", 0.05), ("min_dcf_p01", 0.01)):
        cost = min(prior * rejects + (1 - prior) * accepts for accepts, rejects in errors) / prior
        assert metrics[key] == pytest.approx(cost, abs=1e-9)
    threshold = math.log(0.95 / 0.05)
    is_target, accepted = np.array(labels) == 1, np.array(llrs) >= threshold
    actual = (0.05 * (~accepted)[is_target].mean() + 0.95 * accepted[~is_target].mean()) / 0.05
    assert metrics["actual_dcf"] == pytest.approx(actual, abs=1e-9)
    bits = [math.log2(1 + math.exp(-llr if label else llr)) for llr, label in zip(llrs, labels, strict=True)]
    cllr = (np.mean(np.array(bits)[is_target]) + np.mean(np.array(bits)[~is_target])) / 2
    assert metrics["cllr"] == pytest.approx(cllr, abs=1e-9)
    assert metrics["min_cllr"] <= metrics["cllr"]

    for key in ("eer", "min_dcf", "min_dcf_p01", "min_cllr", "actual_dcf", "cllr"):
        low, high = metrics[f"{key}_interval"]
        assert 0 <= low <= high
    assert metrics["num_trials"] == len(labels)
    assert metrics["num_targets"] == sum(labels)
    assert metrics["num_speakers"] == 6
    assert metrics["num_resamples"] == 200
    assert metrics["trial_list"] is None
    assert metrics["warnings"] == []
    assert f"EER: {100 * metrics['eer']:.2f}" in outcome.output
    assert f"report: {output / 'report.html'}" in outcome.output

    page = (output / "report.html").read_text()
    assert "cosine of whole utterances" in page
    assert "Errors by session" in page
    for name in ("det", "scores", "calibration", "condition-1", "condition-2"):
        with Image.open(output / f"{name}.png") as image:
            image.load()
    (folder,) = (output / "embeddings").iterdir()
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]


def test_run_again_it_computes_nothing_and_writes_the_same(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    evaluations.whole = True
    output = tmp_path / "output"

    def run() -> dict[str, bytes]:
        assert evaluations(*job(trained), "--output", output).code == 0
        return results(output)

    first = run()
    assert evaluations.num_batches > 0
    evaluations.num_batches = 0
    assert run() == first
    assert evaluations.num_batches == 0


def test_another_output_may_share_the_kept_embeddings(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    shared = ["--cache", tmp_path / "kept"]
    evaluations.metrics(tmp_path / "first", *job(trained, *shared))
    evaluations.num_batches = 0
    evaluations.metrics(tmp_path / "second", *job(trained, *shared))
    assert evaluations.num_batches == 0
    assert not (tmp_path / "second" / "embeddings").exists()


def test_a_share_of_targets_of_ones_own(trained: Trained, evaluations: Evaluations, tmp_path: Path) -> None:
    outcome = evaluations(*job(trained), "--output", tmp_path, "--p-target", 0.2)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    labels = read_trials(trained.trials).labels
    assert labels is not None
    errors = plain_errors(scores_of(tmp_path / "scores.txt"), labels.tolist())
    cost = min(0.2 * rejects + 0.8 * accepts for accepts, rejects in errors) / 0.2
    assert metrics["min_dcf"] == pytest.approx(cost, abs=1e-9)
    assert metrics["p_target"] == 0.2
    assert evaluations.reports[0].p_target == 0.2
    assert "minDCF (20" in outcome.output


def test_without_resamples_there_are_no_intervals(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    metrics = evaluations.metrics(tmp_path, *job(trained, "--num-resamples", 0))
    assert metrics["eer_interval"] is None
    assert metrics["num_resamples"] == 0
    assert metrics["warnings"] == []


def test_of_one_speaker_there_are_no_intervals_and_it_says_so(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    names = [name for name in FeatureSet.open(trained.test).index.utterance_ids if name.startswith("id050")]
    trials = tmp_path / "trials.txt"
    trials.write_text(f"1 {names[0]} {names[1]}\n0 {names[0]} {names[2]}\n")
    metrics = evaluations.metrics(tmp_path / "output", *job(trained, "--trials", trials))
    assert metrics["eer_interval"] is None
    assert metrics["num_resamples"] == 0
    assert any("no intervals: all trials are of 1 speaker" in warning for warning in metrics["warnings"])


def test_what_other_options_left_behind_is_deleted(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    names = FeatureSet.open(trained.test).index.utterance_ids
    blind = write_trials(tmp_path / "blind.txt", names, blind=True)

    def files() -> set[str]:
        return {path.name for path in output.iterdir()} - {"embeddings", "writer.json"}

    def evaluate(*more: str | Path) -> int:
        return evaluations(*job(trained, *more), "--output", output, "--overwrite").code

    missing = tmp_path / "missing.txt"
    missing.write_text(f"1 {names[0]} {names[1]}\n0 {names[0]} nobody/s0/0.wav\n")
    assert evaluate("--trials", missing) == 1
    assert files() == {"unusable_utterances.txt"}
    assert evaluate() == 0
    assert files() == {"evaluation.json", "scores.txt", "log_likelihood_ratios.txt", "metrics.json"}
    assert evaluate("--scoring", "mean-distance") == 0
    assert files() == {"evaluation.json", "scores.txt", "metrics.json"}
    (output / "report.html").write_text("of before")
    assert evaluate("--trials", blind) == 0
    assert files() == {"evaluation.json", "scores.txt", "log_likelihood_ratios.txt", "submission.zip"}
    assert evaluate() == 0
    assert files() == {"evaluation.json", "scores.txt", "log_likelihood_ratios.txt", "metrics.json"}
