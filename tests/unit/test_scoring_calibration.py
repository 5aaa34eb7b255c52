"""Calibration, quality measures and fusion."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from voxsrc.config import read_yaml, write_yaml
from voxsrc.corpus import TrialList
from voxsrc.errors import ConfigError
from voxsrc.scoring import (
    CohortStatistics,
    LogisticCalibration,
    ScoringError,
    SystemScores,
    fit_fusion,
    fuse,
    probability,
    quality_measures,
    threshold,
)

FloatArray = NDArray[np.float64]


def gaussian_scores(num_each: int, seed: int = 0) -> tuple[FloatArray, NDArray[np.int8]]:
    """Scores of which the log-likelihood ratio is 4 (s - 1): normal about 2 and 0, with variance ½."""
    generator = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [num_each, 4 * num_each]).astype(np.int8)
    return generator.normal(2.0 * labels, math.sqrt(0.5)), labels


@pytest.mark.parametrize("p_target", [0.01, 0.05, 0.5])
def test_the_true_ratio_is_found_at_any_prior(p_target: float) -> None:
    scores, labels = gaussian_scores(20_000)
    calibration = LogisticCalibration.fit(scores, labels, p_target=p_target)
    assert calibration.weights[0] == pytest.approx(4, rel=0.05)
    assert calibration.bias == pytest.approx(-4, rel=0.05)
    assert calibration.well_ordered
    np.testing.assert_allclose(
        calibration.llr(scores[:5]), calibration.weights[0] * scores[:5] + calibration.bias
    )


def test_nothing_is_lower_than_the_minimum() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, 300)
    inputs = generator.normal(size=(300, 3)) * [1, 100, 0.01] + labels[:, None] * [1, 50, 0.0] + [0, 7, 3]
    p_target, l2 = 0.1, 1e-6

    def cost(solution: FloatArray) -> float:
        llr = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0) @ solution[:3] + solution[3]
        log_odds = llr + math.log(p_target / (1 - p_target))
        target = np.logaddexp(0, -log_odds)[labels == 1].mean()
        other = np.logaddexp(0, log_odds)[labels == 0].mean()
        return float(p_target * target + (1 - p_target) * other + l2 / 2 * (solution[:3] ** 2).sum())

    best = minimize(cost, np.zeros(4), tol=1e-12).x
    expected = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0) @ best[:3] + best[3]
    calibration = LogisticCalibration.fit(inputs, labels, p_target=p_target, l2=l2)
    np.testing.assert_allclose(calibration.llr(inputs), expected, atol=1e-3)
    weights = np.array(calibration.weights) * inputs.std(axis=0)
    found = np.append(weights, calibration.bias + inputs.mean(axis=0) @ calibration.weights)
    assert cost(found) <= cost(best) + 1e-12


@settings(max_examples=30)
@given(slope=st.floats(1e-6, 1e6), offset=st.floats(-100, 100), repeat=st.integers(1, 3))
def test_units_and_repeated_trials_change_nothing(slope: float, offset: float, repeat: int) -> None:
    scores, labels = gaussian_scores(40)
    expected = LogisticCalibration.fit(scores, labels).llr(scores)
    mapped = slope * (scores + offset)
    calibration = LogisticCalibration.fit(np.tile(mapped, repeat), np.tile(labels, repeat))
    np.testing.assert_allclose(calibration.llr(mapped), expected, rtol=1e-6, atol=1e-6)
    # As many more targets, though not more non-targets: the prior is given, not counted.
    more = np.concatenate([mapped, *[mapped[labels == 1]] * repeat])
    more_labels = np.concatenate([labels, *[labels[labels == 1]] * repeat])
    more_expected = LogisticCalibration.fit(more, more_labels, l2=1e-12).llr(mapped)
    equal = LogisticCalibration.fit(mapped, labels, l2=1e-12).llr(mapped)
    np.testing.assert_allclose(more_expected, equal, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_each", [1, 2, 500])
def test_separable_trials_stay_finite(num_each: int) -> None:
    generator = np.random.default_rng(4)
    labels = np.repeat([1, 0], num_each)
    scores = labels * 10 + generator.uniform(0, 1, 2 * num_each)
    calibration = LogisticCalibration.fit(scores, labels)
    ratios = calibration.llr(scores)
    assert calibration.well_ordered
    assert (ratios[labels == 1] > 3).all() and (ratios[labels == 0] < -3).all()
    assert np.abs(ratios).max() < 30


def test_scores_that_fall_for_the_same_speaker_are_marked() -> None:
    scores, labels = gaussian_scores(200)
    calibration = LogisticCalibration.fit(-scores, labels)
    assert not calibration.well_ordered
    with pytest.raises(ScoringError, match="is positive: no score is the threshold"):
        calibration.score_at(0.0)
    quality = np.column_stack([scores, -scores + np.random.default_rng(0).normal(size=len(scores))])
    assert LogisticCalibration.fit(quality, labels).well_ordered
    with pytest.raises(ScoringError, match="compare log-likelihood ratios"):
        LogisticCalibration.fit(quality, labels).score_at(0.0)


def test_thresholds_and_probabilities() -> None:
    assert threshold(0.5) == 0.0
    assert threshold(0.05) == pytest.approx(math.log(19))
    assert threshold(0.01, c_miss=10, c_fa=1) == pytest.approx(math.log(9.9))
    assert probability([0.0], 0.05)[0] == pytest.approx(0.05)
    # At the threshold both decisions cost the same: C_miss P = C_fa (1 - P).
    assert probability([threshold(0.2, 3, 2)], 0.2)[0] == pytest.approx(2 / 5)
    np.testing.assert_array_equal(probability([-1e6, 1e6], 0.3), [0, 1])
    calibration = LogisticCalibration(("score",), (2.0,), -3.0)
    assert calibration.llr([calibration.score_at(threshold(0.05))])[0] == pytest.approx(math.log(19))
    for prior in (0.0, 1.0, math.nan):
        with pytest.raises(ScoringError, match="expected a probability between 0 and 1"):
            probability([0.0], prior)
        with pytest.raises(ScoringError, match="expected a probability between 0 and 1"):
            threshold(prior)
    with pytest.raises(ScoringError, match="costs: found c_miss 0"):
        threshold(0.5, c_miss=0)


@pytest.mark.parametrize(
    ("inputs", "labels", "options", "message"),
    [
        ([1.0, 2.0], [1, 1], {}, "found 2 target and 0 non-target trials, expected both"),
        ([1.0, 2.0], [1, 2], {}, "expected 0 and 1"),
        ([1.0, 2.0], [1], {}, "expected one for each of 2 trials"),
        ([1.0, np.nan], [1, 0], {}, "column 0 of trial 1 is nan"),
        ([[[1.0]], [[2.0]]], [1, 0], {}, "expected \\(N,\\) or \\(N, K\\)"),
        ([3.0, 3.0], [1, 0], {}, "input 'score': found 3.0 in every trial"),
        ([[1.0, 0], [2.0, 0]], [1, 0], {"names": ["s", "q"]}, "input 'q': found 0.0 in every trial"),
        ([1.0, 2.0], [1, 0], {"names": ["a", "b"]}, "expected one for each of 1"),
        ([1.0, 2.0], [1, 0], {"p_target": 1.0}, "found p_target 1.0"),
        ([1.0, 2.0], [1, 0], {"l2": 0.0}, "and l2 0.0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    inputs: Any, labels: list[int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ScoringError, match=message):
        LogisticCalibration.fit(inputs, labels, **options)


def test_dictionary_round_trip() -> None:
    scores, labels = gaussian_scores(100)
    facts = {"scoring": "cosine", "num_trials": 500, "cllr": 0.1}
    calibration = LogisticCalibration.fit(scores, labels, fitted_on=facts)
    for read in (
        json.loads(json.dumps(calibration.to_dict())),
        read_yaml(write_yaml(calibration.to_dict()), "f"),
    ):
        assert LogisticCalibration.from_dict(read) == calibration
    with pytest.raises(ScoringError, match="found 2 inputs, expected 1: score"):
        calibration.llr(np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": 1}, "calibration.weight: unknown key, did you mean weights"),
        ({"weights": ["high"]}, "calibration.weights.0: found 'high'"),
        ({"weights": [1.0, 2.0]}, "calibration: weights: found 2, expected one for each of 1"),
        ({"bias": math.inf}, "calibration: weights and bias: found"),
        ({"inputs": []}, "expected at least one name"),
        ({"num_scores": 2}, "num_scores: found 2, expected 1 to 1"),
        ({"p_target": 0.0}, "p_target: found 0.0"),
    ],
)
def test_a_bad_dictionary_is_refused(change: dict[str, Any], message: str) -> None:
    good = LogisticCalibration(("score",), (2.0,), -3.0).to_dict()
    with pytest.raises(ConfigError, match=message):
        LogisticCalibration.from_dict({**good, **change})
    with pytest.raises(ConfigError, match=r"calibration.bias: missing"):
        LogisticCalibration.from_dict({key: good[key] for key in ("inputs", "weights")})


def test_quality_measures_are_the_smaller_and_the_larger() -> None:
    cohort = CohortStatistics(np.array([0.1, 0.3, 0.2]), np.ones(3))
    found = quality_measures([100, 400, 200], [1.0, 2.0, 4.0], cohort, [0, 2], [1, 1])
    assert found.names == (
        *("log_duration_min", "log_duration_max", "log_magnitude_min", "log_magnitude_max"),
        *("cohort_mean_min", "cohort_mean_max"),
    )
    log = np.log
    np.testing.assert_allclose(
        found.values,
        [[log(100), log(400), 0, log(2), 0.1, 0.3], [log(200), log(400), log(2), log(4), 0.2, 0.3]],
    )
    swapped = quality_measures([100, 400, 200], [1.0, 2.0, 4.0], cohort, [1, 1], [0, 2])
    np.testing.assert_array_equal(swapped.values, found.values)
    names, values = found.with_score([5.0, 6.0])
    assert names[0] == "score" and values.shape == (2, 7) and values[1, 0] == 6
    assert quality_measures([1], [1.0], None, [0], [0]).values.shape == (1, 4)


def test_quality_tells_which_scores_to_believe() -> None:
    # Short utterances score lower whoever speaks, so that no threshold on the score alone fits all.
    generator = np.random.default_rng(5)
    frames = generator.choice([100, 1000], 400)
    first, second = generator.integers(0, 400, 4000), generator.integers(0, 400, 4000)
    labels = generator.integers(0, 2, 4000)
    measures = quality_measures(frames, generator.uniform(5, 6, 400), None, first, second)
    scores = labels + measures.values[:, 0] + generator.normal(0, 0.4, 4000)
    names, inputs = measures.with_score(scores)
    aware = LogisticCalibration.fit(inputs, labels, names=names)
    alone = LogisticCalibration.fit(scores, labels)

    def loss(ratios: FloatArray) -> float:
        return float(np.logaddexp(0, np.where(labels == 1, -ratios, ratios)).mean())

    assert loss(aware.llr(inputs)) < 0.7 * loss(alone.llr(scores))
    assert aware.inputs[1] == "log_duration_min" and aware.weights[1] < 0


@pytest.mark.parametrize(
    ("frames", "lengths", "message"),
    [
        ([0, 5], [1.0, 1.0], "num_frames: row 0 is 0.0"),
        ([5, 5], [1.0, np.nan], "magnitudes: row 1 is nan"),
        ([5], [1.0, 1.0], "expected the same of all"),
        ([[5, 5]], [1.0, 1.0], "expected \\(U,\\)"),
    ],
)
def test_bad_quality_is_refused(frames: Any, lengths: list[float], message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        quality_measures(frames, lengths, None, [0], [0])


def two_systems(num: int = 2000) -> tuple[TrialList, list[SystemScores]]:
    generator = np.random.default_rng(6)
    labels = generator.integers(0, 2, num).astype(np.int8)
    trials = TrialList(labels, [f"a{i}" for i in range(num)], [f"b{i}" for i in range(num)])
    return trials, [
        SystemScores(name, trials, scale * (labels + generator.normal(0, noise, num)))
        for name, scale, noise in (("cosine", 0.1, 0.6), ("plda", 30.0, 0.6))
    ]


def test_two_systems_are_better_than_one() -> None:
    trials, systems = two_systems()
    fusion = fit_fusion(systems)
    assert fusion.inputs == ("cosine", "plda") and fusion.num_scores == 2 and fusion.well_ordered
    fused = fuse(fusion, systems)
    assert trials.labels is not None
    target = trials.labels == 1
    for system in systems:
        alone = LogisticCalibration.fit(system.scores, trials.labels).llr(system.scores)
        assert ((fused > 0) == target).mean() > ((alone > 0) == target).mean()
    np.testing.assert_array_equal(fuse(fusion, systems[::-1]), fused)
    against = SystemScores("against", trials, -np.asarray(systems[1].scores))
    assert not fit_fusion([systems[0], against]).well_ordered


def test_fusion_refuses_what_does_not_belong_together() -> None:
    trials, (one, two) = two_systems(20)
    fusion = fit_fusion([one, two])
    swapped = TrialList(trials.labels, trials.tests[:1] + trials.enrollments[1:], trials.tests)
    relabelled = TrialList(1 - np.asarray(trials.labels), trials.enrollments, trials.tests)
    shorter = TrialList(None, trials.enrollments[:5], trials.tests[:5])
    blind = TrialList(None, trials.enrollments, trials.tests)
    others = {
        "have 20 and 5 trials": SystemScores("plda", shorter, np.ones(5)),
        "differ in 1 of 20 trials, the first at 0: a0 b0 and b0 b0": SystemScores(
            "plda", swapped, two.scores
        ),
        "have other labels in 20 trials": SystemScores("plda", relabelled, two.scores),
        "scores of system 'plda': found shape \\(3,\\)": SystemScores("plda", trials, np.ones(3)),
        "each name once": SystemScores("cosine", trials, two.scores),
    }
    for message, other in others.items():
        with pytest.raises(ScoringError, match=message):
            fit_fusion([one, other])
        with pytest.raises(ScoringError, match=message):
            fuse(fusion, [one, other])
    with pytest.raises(
        ScoringError, match="found the systems \\['cosine'\\], expected those it was fitted on"
    ):
        fuse(fusion, [one])
    with pytest.raises(ScoringError, match="trials without labels"):
        fit_fusion([SystemScores("x", blind, np.ones(20))])
    fused = fuse(fusion, [SystemScores(s.name, blind, s.scores) for s in (one, two)])
    np.testing.assert_array_equal(fused, fuse(fusion, [one, two]))
    with pytest.raises(ScoringError, match="at least one"):
        fit_fusion([])
