"""Speaker-bootstrap intervals and the paired test."""

import numpy as np
import pytest
from numpy.typing import NDArray

from voxsrc.metrics import (
    Interval,
    MetricError,
    Resamples,
    Statistic,
    actual_dcf_of_rates,
    cllr_of_rates,
    equal_error_rate,
    error_rates,
    min_cllr_of_rates,
    min_dcf,
    paired_differences,
    resample,
)

Pairs = list[tuple[str, str]]

STATISTICS: dict[str, Statistic] = {
    "eer": equal_error_rate,
    "min_dcf": min_dcf,
    "actual_dcf": actual_dcf_of_rates,
    "cllr": cllr_of_rates,
    "min_cllr": min_cllr_of_rates,
}


def random_trials(
    num_speakers: int = 12, seed: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.int64], Pairs]:
    """Scores of two decimals, some equal, with a bias of each speaker that makes its trials alike."""
    generator = np.random.default_rng(seed)
    numbers = [(a, b) for a in range(num_speakers) for b in range(num_speakers) for _ in range(4)]
    labels = np.array([a == b for a, b in numbers], np.int64)
    bias = generator.normal(0, 0.5, num_speakers)
    scores = 2.0 * labels + generator.standard_normal(len(labels)) + [bias[a] + bias[b] for a, b in numbers]
    return np.round(scores, 2), labels, [(f"s{a:02}", f"s{b:02}") for a, b in numbers]


def test_values_are_those_of_rates_computed_afresh() -> None:
    scores, labels, speakers = random_trials()
    resamples = resample(STATISTICS, scores, labels, speakers, num_resamples=40, seed=5)
    assert resamples.num_left_out == 0
    names = sorted({name for pair in speakers for name in pair})
    generator = np.random.default_rng(5)
    for place in range(40):
        drawn = [names[i] for i in generator.integers(0, len(names), len(names))]
        weights = [drawn.count(a) * (1 if a == b else drawn.count(b)) for a, b in speakers]
        rates = error_rates(scores, labels, weights)
        for name, statistic in STATISTICS.items():
            assert resamples.values[name][place] == pytest.approx(statistic(rates), abs=1e-12), name
    plain = error_rates(scores, labels)
    for name, statistic in STATISTICS.items():
        assert resamples.estimates[name] == statistic(plain)
        interval = resamples.interval(name, 0.8)
        ends = np.quantile(resamples.values[name], [0.1, 0.9])
        np.testing.assert_allclose([interval.low, interval.high], ends, atol=1e-12)


def test_intervals_cover_repeat_and_widen_with_their_level() -> None:
    scores, labels, speakers = random_trials()

    def intervals_of(seed: int = 0, level: float = 0.95) -> dict[str, Interval]:
        drawn = resample(STATISTICS, scores, labels, speakers, num_resamples=300, seed=seed)
        return {name: drawn.interval(name, level) for name in STATISTICS}

    intervals = intervals_of()
    eer = equal_error_rate(error_rates(scores, labels))
    assert intervals["eer"].low < eer < intervals["eer"].high
    assert 0.01 < intervals["eer"].high - intervals["eer"].low < 0.3
    assert intervals_of() == intervals
    assert intervals_of(seed=1)["eer"] != intervals["eer"]
    narrow = intervals_of(level=0.5)
    for name in STATISTICS:
        assert intervals[name].low < narrow[name].low < narrow[name].high < intervals[name].high


def test_neither_the_order_of_trials_nor_what_speakers_are_called_matters() -> None:
    scores, labels, speakers = random_trials()
    expected = resample(STATISTICS, scores, labels, speakers, num_resamples=20)
    order = np.random.default_rng(0).permutation(len(scores))
    shuffled = resample(
        STATISTICS, scores[order], labels[order], [speakers[i] for i in order], num_resamples=20
    )
    numbers = np.array([(int(a[1:]) * 10 + 7, int(b[1:]) * 10 + 7) for a, b in speakers])
    renamed = resample(STATISTICS, scores, labels, numbers, num_resamples=20)
    for name in STATISTICS:
        np.testing.assert_allclose(shuffled.values[name], expected.values[name], atol=1e-12)
        np.testing.assert_array_equal(renamed.values[name], expected.values[name])
    assert renamed.draws == expected.draws != shuffled.draws


def test_resamples_without_one_of_the_kinds_are_left_out_and_counted() -> None:
    # Of two speakers, a draw of one of them twice has no non-target trial: half of the draws.
    scores, labels = [2.0, 1.0, 0.5, 1.5], [1, 1, 0, 0]
    speakers = [("a", "a"), ("b", "b"), ("a", "b"), ("b", "a")]
    drawn = resample({"eer": equal_error_rate}, scores, labels, speakers, num_resamples=200)
    interval = drawn.interval("eer")
    assert interval.num_left_out + interval.num_resamples == 200
    assert 70 < interval.num_left_out < 130
    assert interval.low == interval.high == equal_error_rate(error_rates(scores, labels))


def test_too_few_speakers_for_any_resample_are_named() -> None:
    statistics = {"eer": equal_error_rate}
    with pytest.raises(MetricError, match="1 speaker; at least 2"):
        resample(statistics, [1.0, 0.0], [1, 0], [("a", "a"), ("a", "a")])
    # With this seed, one draw of two speakers is the same one twice.
    scores, labels, speakers = [1.0, 0.0], [1, 0], [("a", "a"), ("a", "b")]
    seeds = [seed for seed in range(9) if len(set(np.random.default_rng(seed).integers(0, 2, 2))) == 1]
    with pytest.raises(MetricError, match="none of 1 resamples of 2 speakers"):
        resample(statistics, scores, labels, speakers, num_resamples=1, seed=seeds[0])


@pytest.mark.parametrize(
    ("scores", "labels", "speakers", "message"),
    [
        ([], [], [], "0 target and 0 non-target"),
        ([1.0], [1], [("a", "a")], "1 target and 0 non-target"),
        ([1.0, np.nan], [1, 0], [("a", "a"), ("a", "b")], "score 1 is nan"),
        ([1.0, -np.inf], [1, 0], [("a", "a"), ("a", "b")], "score 1 is -inf"),
        ([1.0, 0.0], [1, 0], [("a", "a")], "1 pairs of speakers for 2 trials"),
        ([1.0, 0.0], [1, 0], np.zeros((2, 3), int), "expected a pair for each"),
    ],
)
def test_what_cannot_be_resampled_is_refused(
    scores: list[float], labels: list[int], speakers: Pairs, message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        resample({"eer": equal_error_rate}, scores, labels, speakers)


def test_options_out_of_range_are_refused() -> None:
    scores, labels, speakers = random_trials(3)
    with pytest.raises(MetricError, match="num_resamples is 0"):
        resample(STATISTICS, scores, labels, speakers, num_resamples=0)
    drawn = resample(STATISTICS, scores, labels, speakers, num_resamples=5)
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(MetricError, match="level is"):
            drawn.interval("eer", level)


def test_a_better_system_is_told_from_a_worse_and_from_itself() -> None:
    scores, labels, speakers = random_trials(20)
    noisy = scores + np.random.default_rng(9).normal(0, 3, len(scores))
    good, bad = (
        resample(STATISTICS, values, labels, speakers, num_resamples=199) for values in (scores, noisy)
    )
    test = paired_differences(good, bad)["eer"]
    assert test.difference == good.estimates["eer"] - bad.estimates["eer"] < 0
    assert test.interval.low < test.difference < test.interval.high < 0
    assert test.p_value == pytest.approx(2 / 200)
    reverse = paired_differences(bad, good)["eer"]
    assert (reverse.difference, reverse.p_value) == (-test.difference, test.p_value)
    assert reverse.interval.low == pytest.approx(-test.interval.high)
    same = paired_differences(good, good)
    assert list(same) == list(STATISTICS)
    assert all(each.difference == 0 and each.p_value == 1.0 for each in same.values())


def test_pairing_makes_small_differences_plain() -> None:
    scores, labels, speakers = random_trials(20)
    # A little worse on every trial of a kind: far less than other speakers would change either system.
    worse = scores - 0.15 * labels
    good, bad = (
        resample(STATISTICS, values, labels, speakers, num_resamples=199) for values in (scores, worse)
    )
    assert bad.interval("min_cllr").low < good.interval("min_cllr").high
    assert paired_differences(good, bad)["min_cllr"].p_value < 0.05


def test_the_p_value_is_its_formula() -> None:
    def made(differences: list[float]) -> Resamples:
        return Resamples({"eer": 0.1}, {"eer": np.array(differences)}, 3, "draws")

    nothing = made([0.0] * 9)
    for differences, expected in (
        ([1.0] * 9, 2 / 10),
        ([1.0] * 8 + [-1.0], 4 / 10),
        ([1.0] * 7 + [-1.0, 0.0], 6 / 10),
        ([1.0, -1.0] * 4 + [0.0], 1.0),
    ):
        test = paired_differences(made(differences), nothing)["eer"]
        assert test.p_value == pytest.approx(expected)
        assert (test.interval.num_resamples, test.interval.num_left_out) == (9, 3)


def test_systems_of_other_trials_or_draws_are_not_compared() -> None:
    scores, labels, speakers = random_trials(4)
    first = resample(STATISTICS, scores, labels, speakers, num_resamples=5)
    flipped = labels.copy()
    flipped[[0, 4]] = flipped[[4, 0]]
    others = [
        resample(STATISTICS, scores, labels, speakers, num_resamples=5, seed=1),
        resample(STATISTICS, scores, labels, speakers, num_resamples=6),
        resample(STATISTICS, scores, flipped, speakers, num_resamples=5),
        resample(STATISTICS, scores[:-1], labels[:-1], speakers[:-1], num_resamples=5),
        resample(STATISTICS, scores, labels, [*speakers[:-1], speakers[0]], num_resamples=5),
    ]
    for other in others:
        with pytest.raises(MetricError, match="same trials in the same order"):
            paired_differences(first, other)
    unnamed = resample({"other": min_dcf}, scores, labels, speakers, num_resamples=5)
    with pytest.raises(MetricError, match="expected one that both have"):
        paired_differences(first, unnamed)
