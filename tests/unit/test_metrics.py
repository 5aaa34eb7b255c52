"""Error rates against hand-computed values and a plain loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxsrc.metrics import MetricError, equal_error_rate, error_rates, min_dcf, speaker_bootstrap

trials = st.lists(
    st.tuples(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 2.0]), st.integers(0, 1)), min_size=2, max_size=40
).filter(lambda rows: {label for _, label in rows} == {0, 1})


def loop_rates(rows: list[tuple[float, int]]) -> list[tuple[float, float]]:
    """(false accepts, false rejects) with the threshold above all scores, then at each score, falling."""
    targets = [score for score, label in rows if label]
    others = [score for score, label in rows if not label]
    points = [(0.0, 1.0)]
    for threshold in sorted({score for score, _ in rows}, reverse=True):
        accepts = sum(score >= threshold for score in others) / len(others)
        rejects = sum(score < threshold for score in targets) / len(targets)
        points.append((accepts, rejects))
    return points


@settings(max_examples=200, deadline=None)
@given(rows=trials)
def test_rates_eer_and_min_dcf_agree_with_a_loop(rows: list[tuple[float, int]]) -> None:
    scores, labels = zip(*rows, strict=True)
    rates = error_rates(scores, labels)
    points = loop_rates(rows)
    np.testing.assert_allclose(np.c_[rates.false_accepts, rates.false_rejects], points, atol=1e-12)
    for p_target in (0.05, 0.01):
        costs = [p_target * rejects + (1 - p_target) * accepts for accepts, rejects in points]
        assert min_dcf(rates, p_target) == pytest.approx(min(costs) / min(p_target, 1 - p_target))
    # The ROC as a line through its points crosses the diagonal of equal errors once: find it by bisection.
    low, high = 0.0, float(len(points) - 1)
    for _ in range(80):
        middle = (low + high) / 2
        accepts, rejects = (np.interp(middle, range(len(points)), axis) for axis in zip(*points, strict=True))
        low, high = (middle, high) if rejects > accepts else (low, middle)
    expected = np.interp(high, range(len(points)), [accepts for accepts, _ in points])
    assert equal_error_rate(rates) == pytest.approx(expected, abs=1e-9)


def test_hand_computed() -> None:
    scores, labels = [0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1], [1, 1, 0, 1, 1, 0, 0, 0]
    rates = error_rates(scores, labels)
    assert equal_error_rate(rates) == pytest.approx(0.25)
    # At 0.8 and above: half of the targets are missed, nothing is accepted falsely.
    assert min_dcf(rates, 0.05) == pytest.approx(0.5)
    assert equal_error_rate(error_rates([1, 2, 3, 4], [0, 0, 1, 1])) == 0.0
    assert equal_error_rate(error_rates([4, 3, 2, 1], [0, 0, 1, 1])) == 1.0
    assert equal_error_rate(error_rates([1, 1, 1, 1], [0, 0, 1, 1])) == pytest.approx(0.5)


@settings(max_examples=50, deadline=None)
@given(rows=trials, counts=st.lists(st.integers(1, 3), min_size=40, max_size=40))
def test_a_weight_counts_a_trial_so_often(rows: list[tuple[float, int]], counts: list[int]) -> None:
    repeated = [row for row, count in zip(rows, counts, strict=False) for _ in range(count)]
    scores, labels = zip(*rows, strict=True)
    weighted = error_rates(scores, labels, counts[: len(rows)])
    expected = error_rates(*zip(*repeated, strict=True))
    np.testing.assert_allclose(weighted.false_accepts, expected.false_accepts, atol=1e-12)
    assert equal_error_rate(weighted) == pytest.approx(equal_error_rate(expected))


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([], [], "both kinds"),
        ([1.0, 2.0], [1, 1], "2 target and 0 non-target"),
        ([1.0, np.nan], [1, 0], "score 1 is nan"),
        ([1.0, np.inf], [1, 0], "score 1 is inf"),
        ([1.0, 2.0], [1, 2], "expected 0 and 1"),
        ([1.0], [1, 0], "expected equal"),
    ],
)
def test_what_has_no_error_rate_is_refused(scores: list[float], labels: list[int], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        error_rates(scores, labels)


def test_the_speaker_bootstrap_covers_and_repeats() -> None:
    generator = np.random.default_rng(1)
    speakers = [(f"s{a}", f"s{b}") for a in range(12) for b in range(12) for _ in range(4)]
    labels = np.array([a == b for a, b in speakers], int)
    # A bias of each speaker makes its trials alike, as in real scores.
    bias = {f"s{i}": value for i, value in enumerate(generator.normal(0, 0.5, 12))}
    scores = 2.0 * labels + generator.standard_normal(len(labels)) + [bias[a] + bias[b] for a, b in speakers]
    eer = equal_error_rate(error_rates(scores, labels))
    low, high = speaker_bootstrap(equal_error_rate, scores, labels, speakers, num_resamples=300)
    assert low < eer < high
    assert 0.01 < high - low < 0.3
    again = speaker_bootstrap(equal_error_rate, scores, labels, speakers, num_resamples=300)
    assert again == (low, high)
    with pytest.raises(MetricError, match="no resample"):
        speaker_bootstrap(equal_error_rate, [1.0], [1], [("a", "a")])
