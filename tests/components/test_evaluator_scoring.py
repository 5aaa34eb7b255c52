"""Each way to score, what it is trained and calibrated on, and that test speakers are strangers to it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluations import (
    HELD_OUT_FRACTION,
    NUM_TRAINING_SPEAKERS,
    Evaluations,
    Trained,
    job,
    speakers_of,
    with_training,
)
from evaluator.options import SCORINGS
from evaluator.scorers import PldaScorer
from voxsrc.corpus import read_trials
from voxsrc.embedding import Embeddings
from voxsrc.feature_set import FeatureSet
from voxsrc.metrics import equal_error_rate, error_rates
from voxsrc.models.stored import load_model
from voxsrc.scoring import Plda


def file_scores(path: Path) -> np.ndarray:
    return np.array([float(line.split()[0]) for line in path.read_text().splitlines()])


def vectors_of(trained: Trained, uri: str, names: list[str]) -> dict[str, np.ndarray]:
    """Embeddings made one by one, float64."""
    encoder, features = load_model(trained.model).encoder, FeatureSet.open(uri)
    with torch.inference_mode():
        return {
            name: encoder(torch.from_numpy(features.read(name)).T[None])[0].double().numpy() for name in names
        }


@pytest.mark.parametrize("quality", [False, True])
@pytest.mark.parametrize("scoring", SCORINGS)
def test_every_scoring_is_calibrated_on_speakers_that_training_held_out(
    scoring: str, quality: bool, trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    flags = ["--scoring", scoring, *(["--quality"] if quality else [])]
    metrics = evaluations.metrics(tmp_path, *with_training(trained, *flags))
    seen, held_out = trained.sides
    assert len(held_out) == round(HELD_OUT_FRACTION * NUM_TRAINING_SPEAKERS)

    of_training = [names for uri, names in evaluations.embedded if uri == trained.train]
    if scoring in ("as-norm", "plda"):
        assert speakers_of(of_training.pop(0)) == seen
    assert [speakers_of(names) for names in of_training] == [held_out]
    of_test = [names for uri, names in evaluations.embedded if uri == trained.test]
    assert of_test == [read_trials(trained.trials).utterance_ids()]

    calibration = metrics["calibration"]
    assert calibration["fitted_on"]["speakers"] == len(held_out)
    assert calibration["p_target"] == 0.05
    scores, llrs = (file_scores(tmp_path / f"{name}.txt") for name in ("scores", "log_likelihood_ratios"))
    assert np.isfinite(scores).all()
    if quality:
        assert calibration["inputs"][:2] == ["score", "log_duration_min"]
        assert ("cohort_mean_max" in calibration["inputs"]) == (scoring == "as-norm")
        np.testing.assert_array_equal(scores, llrs)
        assert metrics["scoring"] == f"{scoring} with quality"
    else:
        assert calibration["inputs"] == ["score"]
        np.testing.assert_allclose(llrs, calibration["weights"][0] * scores + calibration["bias"], atol=1e-9)
        assert metrics["scoring"] == scoring
    # For fusion, what the calibration was fitted on.
    trials = read_trials(str(tmp_path / "held_out_trials.txt"))
    assert speakers_of(trials.utterance_ids()) <= held_out
    held_out_scores = file_scores(tmp_path / "held_out_scores.txt")
    assert equal_error_rate(error_rates(held_out_scores, trials.labels)) == pytest.approx(
        calibration["fitted_on"]["eer"]
    )
    assert 0 < metrics["eer"] < 0.5
    assert math.isfinite(metrics["cllr"])
    assert metrics["warnings"] == []
    assert f"{len(held_out)} speakers whom training held out" in evaluations.reports[0].facts["Calibration"]


def test_the_calibration_minimises_the_cost_of_held_out_trials_alone(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    """At the minimum the gradient is zero, of cosines of embeddings that are made here one by one."""
    calibration = evaluations.metrics(tmp_path, *with_training(trained, "--p-target", 0.3))["calibration"]
    _, held_out = trained.sides
    index = FeatureSet.open(trained.train).index
    names = [
        name
        for name, speaker in zip(index.utterance_ids, index.speaker_ids, strict=True)
        if speaker in held_out
    ]
    vectors = vectors_of(trained, trained.train, names)
    units = np.array([vectors[name] / np.linalg.norm(vectors[name]) for name in names])
    first, second = np.triu_indices(len(names), 1)
    cosines = np.einsum("nd,nd->n", units[first], units[second])
    is_target = np.array(
        [names[a].split("/")[0] == names[b].split("/")[0] for a, b in zip(first, second, strict=True)]
    )
    assert calibration["fitted_on"]["targets"] == is_target.sum()
    (weight,), bias = calibration["weights"], calibration["bias"]

    def loss(scale: float) -> float:
        """All targets, and for expectation all others, of which as many were drawn."""
        log_odds = scale * weight * cosines + bias + math.log(0.3 / 0.7)
        missed, accepted = np.logaddexp(0, -log_odds[is_target]), np.logaddexp(0, log_odds[~is_target])
        return float(0.3 * missed.mean() + 0.7 * accepted.mean())

    assert loss(1.0) < min(loss(0.5), loss(2.0), loss(-1.0))


def test_as_norm_is_that_of_a_plain_loop(trained: Trained, evaluations: Evaluations, tmp_path: Path) -> None:
    flags = ["--scoring", "as-norm", "--top-cohort", 4, "--cohort-utterances", 3]
    evaluations.metrics(tmp_path, *with_training(trained, *flags))
    cohort_names = next(names for uri, names in evaluations.embedded if uri == trained.train)
    seen, _ = trained.sides
    counts = {speaker: sum(name.startswith(f"{speaker}/") for name in cohort_names) for speaker in seen}
    assert set(counts.values()) == {3}
    of_training = vectors_of(trained, trained.train, cohort_names)
    centre = np.mean(list(of_training.values()), axis=0)

    def unit(vector: np.ndarray) -> np.ndarray:
        return np.asarray(vector / np.linalg.norm(vector))

    means = [
        unit(
            np.mean(
                [unit(of_training[name] - centre) for name in cohort_names if name.startswith(speaker)],
                axis=0,
            )
        )
        for speaker in sorted(seen)
    ]
    trials = read_trials(trained.trials)
    tested = vectors_of(trained, trained.test, trials.utterance_ids())
    units = {name: unit(vector - centre) for name, vector in tested.items()}

    def normalised(score: float, name: str) -> float:
        nearest = sorted((float(units[name] @ mean) for mean in means), reverse=True)[:4]
        return float((score - np.mean(nearest)) / np.std(nearest))

    expected = []
    for first, second in zip(trials.enrollments, trials.tests, strict=True):
        score = float(units[first] @ units[second])
        expected.append((normalised(score, first) + normalised(score, second)) / 2)
    np.testing.assert_allclose(file_scores(tmp_path / "scores.txt"), expected, rtol=1e-4, atol=1e-4)
    assert "the 4 nearest of 10 training speakers" in evaluations.reports[0].facts["Scoring"]


def test_the_mean_distance_of_utterances_shorter_than_a_crop(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    """All ten crops of 400 frames are then the utterance, looped."""
    evaluations.metrics(tmp_path, *job(trained, "--scoring", "mean-distance"))
    encoder, features = load_model(trained.model).encoder, FeatureSet.open(trained.test)
    trials = read_trials(trained.trials)
    units = {}
    for name in trials.utterance_ids()[:5]:
        looped = np.resize(features.read(name), (400, 40))
        with torch.inference_mode():
            vector = encoder(torch.from_numpy(looped).T[None])[0].double().numpy()
        units[name] = vector / np.linalg.norm(vector)
    checked = 0
    for score, first, second in zip(
        file_scores(tmp_path / "scores.txt"), trials.enrollments, trials.tests, strict=True
    ):
        if first in units and second in units:
            assert score == pytest.approx(-np.linalg.norm(units[first] - units[second]), abs=2e-4)
            checked += 1
    assert checked >= 5


def test_plda_of_embeddings_that_fill_no_more_than_some_dimensions() -> None:
    """As of a wide last layer after a narrow pooling: scores are those of the space that they fill."""
    generator = np.random.default_rng(0)
    speakers = np.repeat(np.arange(20), 6)
    narrow = generator.normal(size=(20, 5))[speakers] + 0.5 * generator.normal(size=(120, 5))
    rotation = np.linalg.qr(generator.normal(size=(16, 16)))[0][:5]
    wide = (narrow @ rotation + generator.normal(size=16)).astype(np.float32)
    names = [f"id{speaker}" for speaker in speakers]
    first, second = np.triu_indices(120, 1)

    def embeddings(vectors: np.ndarray) -> Embeddings:
        return Embeddings(names, vectors.astype(np.float32), np.full(120, 50))

    scores = [
        PldaScorer.of(embeddings(vectors), names).scores(embeddings(vectors), first, second)
        for vectors in (narrow, wide)
    ]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-3)
    direct = Plda.fit(narrow, names).llr(narrow, first, second)
    np.testing.assert_allclose(scores[0], direct, atol=1e-3)
