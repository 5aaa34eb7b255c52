"""Actual DCF, Cllr and min Cllr against hand-computed values and plain loops."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxsrc.metrics import MetricError, actual_dcf, cllr, error_rates, min_cllr, min_dcf

trials = st.lists(
    st.tuples(st.floats(-8, 8).map(lambda x: round(x, 1)), st.integers(0, 1)), min_size=2, max_size=60
).filter(lambda rows: {label for _, label in rows} == {0, 1})


def loop_cllr(llrs: Sequence[float], labels: Sequence[int]) -> float:
    targets = [math.log2(1 + math.exp(-llr)) for llr, label in zip(llrs, labels, strict=True) if label]
    others = [math.log2(1 + math.exp(llr)) for llr, label in zip(llrs, labels, strict=True) if not label]
    return (sum(targets) / len(targets) + sum(others) / len(others)) / 2


def isotonic(scores: Sequence[float], labels: Sequence[int]) -> list[float]:
    """The posteriors of isotonic regression by its max-min formula: no pools, no order of pooling."""
    values = sorted(set(scores))

    def mean(low: float, high: float) -> float:
        inside = [label for score, label in zip(scores, labels, strict=True) if low <= score <= high]
        return sum(inside) / len(inside)

    best = {
        value: max(min(mean(low, high) for high in values if high >= value) for low in values if low <= value)
        for value in values
    }
    return [best[score] for score in scores]


def loop_min_cllr(scores: Sequence[float], labels: Sequence[int]) -> float:
    prior = sum(labels) / len(labels)
    bits = [0.0, 0.0]
    for posterior, label in zip(isotonic(scores, labels), labels, strict=True):
        if 0 < posterior < 1:
            ratio = posterior / (1 - posterior) * (1 - prior) / prior
            bits[label] += math.log2(1 + (1 / ratio if label else ratio))
    return (bits[1] / sum(labels) + bits[0] / (len(labels) - sum(labels))) / 2


@settings(max_examples=60)
@given(rows=trials)
def test_both_agree_with_loops_and_keep_their_order(rows: list[tuple[float, int]]) -> None:
    llrs, labels = zip(*rows, strict=True)
    assert cllr(llrs, labels) == pytest.approx(loop_cllr(llrs, labels), abs=1e-9)
    assert min_cllr(llrs, labels) == pytest.approx(loop_min_cllr(llrs, labels), abs=1e-9)
    assert min_cllr(llrs, labels) <= min(cllr(llrs, labels), 1.0) + 1e-12


@settings(max_examples=60)
@given(rows=trials, p_target=st.sampled_from([0.01, 0.05, 0.5, 0.9]), c_miss=st.sampled_from([1.0, 10.0]))
def test_actual_dcf_counts_the_errors_of_the_bayes_decision(
    rows: list[tuple[float, int]], p_target: float, c_miss: float
) -> None:
    llrs, labels = zip(*rows, strict=True)
    errors = [0, 0]
    for llr, label in rows:
        posterior = 1 / (1 + math.exp(-llr) * (1 - p_target) / p_target)
        accept = c_miss * posterior >= 1 - posterior
        errors[label] += accept != bool(label)
    cost = c_miss * p_target * errors[1] / sum(labels)
    cost += (1 - p_target) * errors[0] / (len(labels) - sum(labels))
    found = actual_dcf(llrs, labels, p_target, c_miss)
    assert found == pytest.approx(cost / min(c_miss * p_target, 1 - p_target))
    assert found >= min_dcf(error_rates(llrs, labels), p_target, c_miss) - 1e-12


def test_hand_computed() -> None:
    # log(19) = 2.944: the first target trial and no other is accepted, exactly at the threshold too.
    llrs, labels = [3.0, 2.9, -1.0, 0.0], [1, 1, 0, 0]
    assert actual_dcf(llrs, labels) == pytest.approx(0.5)
    assert actual_dcf([math.log(0.95 / 0.05), -9.0], [1, 0]) == 0.0
    assert actual_dcf([9.0, 9.0], [1, 0]) == pytest.approx(19.0)
    assert cllr([0.0, 0.0, 0.0], [1, 0, 0]) == pytest.approx(1.0)
    # Odds of 3 for the truth: log2(4 / 3) for either kind.
    assert cllr([math.log(3), -math.log(3)], [1, 0]) == pytest.approx(math.log2(4 / 3))
    assert min_cllr([1, 2, 3, 4], [0, 0, 1, 1]) == 0.0
    assert min_cllr([4, 3, 2, 1], [0, 0, 1, 1]) == pytest.approx(1.0)
    assert min_cllr([1, 1, 1], [0, 1, 1]) == pytest.approx(1.0)
    # Pools {0}, {0 1}, {1}: half of either kind is free, the other half says nothing.
    assert min_cllr([1, 2, 2, 3], [0, 0, 1, 1]) == pytest.approx(0.5)
    # Pools {0 0 1}, {1}: half of the targets are free, the others have a likelihood ratio of 1/2.
    expected = (math.log2(3) / 2 + math.log2(1.5)) / 2
    assert min_cllr([2, 2, 2, 3], [0, 0, 1, 1]) == pytest.approx(expected)


def test_ratios_beyond_the_range_of_exp_cost_what_they_are_worth() -> None:
    assert cllr([-2000.0, 5.0, -5.0], [1, 1, 0]) == pytest.approx(2000 / math.log(2) / 4, rel=1e-3)
    assert cllr([2000.0, -2000.0], [1, 0]) == 0.0


def test_well_made_ratios_cost_little_more_than_the_least_and_scaled_ones_more() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 20_000)
    llrs = 3.0 * (generator.standard_normal(len(labels)) + 3.0 * (labels - 0.5))
    least = min_cllr(llrs, labels)
    assert least < cllr(llrs, labels) < least + 0.01
    assert cllr(4 * llrs, labels) > least + 0.1
    assert min_cllr(4 * llrs, labels) == pytest.approx(least, abs=1e-12)


@pytest.mark.parametrize("metric", [actual_dcf, cllr, min_cllr])
def test_infinite_ratios_and_missing_kinds_are_refused(metric: object) -> None:
    assert callable(metric)
    with pytest.raises(MetricError, match="score 0 is inf"):
        metric([np.inf, 0.0], [1, 0])
    with pytest.raises(MetricError, match="1 target and 0 non-target"):
        metric([0.0], [1])
