"""Error rates against hand-computed values, plain loops, and the challenge's published way."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from voxsrc.metrics import (
    MetricError,
    Statistic,
    actual_dcf_of_rates,
    cllr_of_rates,
    equal_error_rate,
    error_rates,
    min_cllr_of_rates,
    min_dcf,
)

Rows = list[tuple[float, int]]

trials = st.lists(
    st.tuples(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 2.0]), st.integers(0, 1)), min_size=2, max_size=40
).filter(lambda rows: {label for _, label in rows} == {0, 1})


def random_set(seed: int) -> tuple[list[float], list[int]]:
    """Scores of one decimal, so that many are equal, also of target and non-target trials."""
    generator = np.random.default_rng(seed)
    labels = np.append(generator.integers(0, 2, generator.integers(20, 300)), [0, 1])
    scores = np.round(generator.uniform(0, 3) * labels + generator.standard_normal(len(labels)), 1)
    return scores.tolist(), labels.tolist()


def loop_rates(scores: Sequence[float], labels: Sequence[int]) -> list[tuple[float, float]]:
    """(false accepts, false rejects) with the threshold above all scores, then at each score, falling."""
    targets = [score for score, label in zip(scores, labels, strict=True) if label]
    others = [score for score, label in zip(scores, labels, strict=True) if not label]
    points = [(0.0, 1.0)]
    for threshold in sorted(set(scores), reverse=True):
        accepts = sum(score >= threshold for score in others) / len(others)
        rejects = sum(score < threshold for score in targets) / len(targets)
        points.append((accepts, rejects))
    return points


def challenge_eer(points: Sequence[tuple[float, float]]) -> float:
    """The root of 1 - x - TPR(x), found without a formula for where the curve crosses."""

    def true_accepts(x: float) -> float:
        below, above = points[0], points[-1]
        for point in points:
            if point[0] <= x:
                below = point
        for point in reversed(points):
            if point[0] > x:
                above = point
        if above[0] <= below[0]:
            return 1 - below[1]
        part = (x - below[0]) / (above[0] - below[0])
        return 1 - (below[1] + part * (above[1] - below[1]))

    return float(brentq(lambda x: 1.0 - x - true_accepts(x), 0.0, 1.0))


def challenge_min_dcf(scores: Sequence[float], labels: Sequence[int], p_target: float) -> float:
    """Trials rejected one by one, lowest first, in the order listed where equal, as NIST SRE and Kaldi do."""
    num_targets = sum(labels)
    num_others = len(labels) - num_targets
    missed, accepted, least = 0, num_others, float("inf")
    for place in sorted(range(len(scores)), key=lambda place: scores[place]):
        missed += labels[place]
        accepted -= 1 - labels[place]
        cost = p_target * missed / num_targets + (1 - p_target) * accepted / num_others
        least = min(least, cost)
    return least / min(p_target, 1 - p_target)


@settings(max_examples=200)
@given(rows=trials)
def test_rates_agree_with_a_loop(rows: Rows) -> None:
    scores, labels = zip(*rows, strict=True)
    rates = error_rates(scores, labels)
    points = loop_rates(scores, labels)
    np.testing.assert_allclose(np.c_[rates.false_accepts, rates.false_rejects], points, atol=1e-12)
    assert rates.thresholds.tolist() == [np.inf, *sorted(set(scores), reverse=True)]


@pytest.mark.parametrize("seed", range(50))
def test_eer_and_min_dcf_are_the_challenges_on_sets_with_ties(seed: int) -> None:
    scores, labels = random_set(seed)
    assert len(set(scores)) < len(scores)
    rates, points = error_rates(scores, labels), loop_rates(scores, labels)
    assert equal_error_rate(rates) == pytest.approx(challenge_eer(points), abs=1e-6)
    listed = error_rates(scores, labels, ties="as_listed")
    for p_target in (0.05, 0.01, 0.5):
        costs = [p_target * rejects + (1 - p_target) * accepts for accepts, rejects in points]
        expected = min(costs) / min(p_target, 1 - p_target)
        assert min_dcf(rates, p_target) == pytest.approx(expected, abs=1e-6)
        as_printed = challenge_min_dcf(scores, labels, p_target)
        assert min_dcf(listed, p_target) == pytest.approx(as_printed, abs=1e-6)
        # Whoever listed the trials cannot raise the cost by separating what no threshold does.
        assert as_printed <= expected + 1e-12


def test_without_ties_across_the_kinds_the_order_of_the_list_does_not_matter() -> None:
    scores, labels = random_set(0)
    apart = [score + 0.05 * label for score, label in zip(scores, labels, strict=True)]
    for p_target in (0.05, 0.01):
        expected = pytest.approx(challenge_min_dcf(apart, labels, p_target), abs=1e-12)
        assert min_dcf(error_rates(apart, labels), p_target) == expected


def test_the_script_s_answer_depends_on_the_order_and_ours_does_not() -> None:
    scores, labels = [0.0, 0.0, 0.0, 0.0], [0, 0, 1, 1]
    assert min_dcf(error_rates(scores, labels)) == 1.0
    assert min_dcf(error_rates(scores, labels, ties="as_listed")) == 0.0
    assert min_dcf(error_rates(scores, labels[::-1])) == 1.0
    assert min_dcf(error_rates(scores, labels[::-1], ties="as_listed")) == 1.0


def test_hand_computed() -> None:
    scores, labels = [0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1], [1, 1, 0, 1, 1, 0, 0, 0]
    rates = error_rates(scores, labels)
    assert equal_error_rate(rates) == pytest.approx(0.25)
    # At 0.8 and above: half of the targets are missed, nothing is accepted falsely.
    assert min_dcf(rates, 0.05) == pytest.approx(0.5)
    # At 0.4 and above, with a false reject ten times as dear: 0.95 × 0.25 / 0.5.
    assert min_dcf(rates, 0.05, c_miss=10.0) == pytest.approx(0.475)
    assert equal_error_rate(error_rates([1, 2, 3, 4], [0, 0, 1, 1])) == 0.0
    assert equal_error_rate(error_rates([4, 3, 2, 1], [0, 0, 1, 1])) == 1.0
    assert equal_error_rate(error_rates([1, 1, 1, 1], [0, 0, 1, 1])) == pytest.approx(0.5)


@settings(max_examples=50)
@given(rows=trials, counts=st.lists(st.integers(1, 3), min_size=40, max_size=40))
@pytest.mark.parametrize(
    "statistic", [equal_error_rate, min_dcf, actual_dcf_of_rates, cllr_of_rates, min_cllr_of_rates]
)
def test_a_weight_counts_a_trial_so_often(statistic: Statistic, rows: Rows, counts: list[int]) -> None:
    repeated = [row for row, count in zip(rows, counts, strict=False) for _ in range(count)]
    scores, labels = zip(*rows, strict=True)
    weighted = error_rates(scores, labels, counts[: len(rows)])
    expected = error_rates(*zip(*repeated, strict=True))
    np.testing.assert_allclose(weighted.false_accepts, expected.false_accepts, atol=1e-12)
    assert statistic(weighted) == pytest.approx(statistic(expected), abs=1e-12)


@settings(max_examples=50)
@given(rows=trials)
@pytest.mark.parametrize("increasing", [np.exp, np.cbrt, lambda x: 3 * x - 7])
def test_eer_min_dcf_and_min_cllr_know_only_the_order(
    increasing: Callable[[np.ndarray], np.ndarray], rows: Rows
) -> None:
    scores, labels = zip(*rows, strict=True)
    before, after = error_rates(scores, labels), error_rates(increasing(np.array(scores)), labels)
    for statistic in (equal_error_rate, min_dcf, min_cllr_of_rates):
        assert statistic(after) == pytest.approx(statistic(before), abs=1e-12)
        assert 0 <= statistic(before) <= 1 + 1e-12


def test_rates_of_1_and_0_stand_at_the_ends_whatever_the_weights() -> None:
    weights = [0.1, 0.7, 0.2, 0.3, 0.0]
    rates = error_rates([0.3, 0.1, 0.4, 0.1, 0.9], [1, 0, 1, 0, 1], weights)
    assert (rates.false_accepts[0], rates.false_rejects[0]) == (0.0, 1.0)
    assert (rates.false_accepts[-1], rates.false_rejects[-1]) == (1.0, 0.0)
    assert (np.diff(rates.false_accepts) >= 0).all() and (np.diff(rates.false_rejects) <= 0).all()


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([], [], "0 target and 0 non-target"),
        ([1.0, 2.0], [1, 1], "2 target and 0 non-target"),
        ([1.0, 2.0], [0, 0], "0 target and 2 non-target"),
        ([1.0, np.nan], [1, 0], "score 1 is nan"),
        ([1.0, np.inf], [1, 0], "score 1 is inf"),
        ([1.0, -np.inf, np.nan], [1, 0, 1], "score 1 is -inf, 2 of 3 are not finite"),
        ([1.0, 2.0], [1, 2], "expected 0 and 1"),
        ([1.0], [1, 0], "expected two equal lengths"),
        ([[1.0, 2.0]], [[1, 0]], "expected two equal lengths"),
    ],
)
def test_what_has_no_error_rate_is_refused(scores: list[float], labels: list[int], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        error_rates(scores, labels)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "expected one for each"),
        ([1.0, np.nan], "weight 1 is nan"),
        ([1.0, -0.5], "weight 1 is -0.5"),
        ([1.0, 0.0], "1 target and 1 non-target trials, weighted"),
    ],
)
def test_weights_that_count_nothing_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        error_rates([1.0, 2.0], [1, 0], weights)


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ({"p_target": 0.0}, "p_target is 0"),
        ({"p_target": 1.0}, "p_target is 1"),
        ({"p_target": np.nan}, "p_target is nan"),
        ({"c_miss": 0.0}, "c_miss is 0"),
        ({"c_fa": -1.0}, "c_fa is -1"),
        ({"c_fa": np.inf}, "c_fa is inf"),
    ],
)
@pytest.mark.parametrize("statistic", [min_dcf, actual_dcf_of_rates])
def test_costs_without_a_meaning_are_refused(
    statistic: Callable[..., float], costs: dict[str, float], message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        statistic(error_rates([1.0, 2.0], [1, 0]), **costs)
