"""What the report's tables and curves say, against hand-made cases and direct computation."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evaluator.report import Comparison, Condition, Estimate, System
from evaluator.report.analysis import Analysis
from evaluator.report.conditions import condition_results, grouped
from evaluator.report.confusion import (
    SpeakerErrors,
    SpeakerIndex,
    confused_pairs,
    rejected_speakers,
    worst_false_accepts,
    worst_false_rejects,
)
from evaluator.report.intervals import affordable_resamples, det_band
from evaluator.report.metric import METRICS, metrics_at
from evaluator.report.operating import min_dcf_point, named_points, point_at
from evaluator.report.plots.calibration import bayes_errors
from evaluator.report.sections.groups import by_condition, condition_table
from evaluator.report.sections.results import comparison_table, headline_table
from evaluator.report.sections.wrong import wrong_decisions
from evaluator.report.tables import number_text, p_text, percentage
from report_data import small_report
from voxsrc.metrics import (
    actual_dcf,
    eer_point,
    equal_error_rate,
    error_rates,
    min_dcf,
    resample,
)

NBSP = "\N{NO-BREAK SPACE}"

# Scores of four speakers' trials; accepted from 0.5 on.
TRIALS = [
    ("b", "a", 0, 0.9),
    ("a", "b", 0, 0.8),
    ("a", "b", 0, 0.1),
    ("c", "a", 0, 0.6),
    ("c", "d", 0, 0.2),
    ("d", "d", 1, 0.7),
    ("d", "d", 1, 0.3),
    ("a", "a", 1, 0.05),
    ("a", "a", 1, 0.4),
    ("c", "c", 1, 0.55),
]
SPEAKERS = [(a, b) for a, b, _, _ in TRIALS]
TARGET = np.array([label == 1 for _, _, label, _ in TRIALS])
SCORES = np.array([score for _, _, _, score in TRIALS])
ACCEPTED = SCORES >= 0.5


def test_confused_pairs_count_both_directions() -> None:
    index = SpeakerIndex.of(SPEAKERS)
    assert confused_pairs(index, TARGET, ACCEPTED, 10) == [
        SpeakerErrors(("a", "b"), 2, 3),
        SpeakerErrors(("a", "c"), 1, 1),
    ]
    assert len(confused_pairs(index, TARGET, ACCEPTED, 1)) == 1


def test_rejected_speakers() -> None:
    index = SpeakerIndex.of(SPEAKERS)
    found = rejected_speakers(index, TARGET, ACCEPTED, 10)
    assert found == [SpeakerErrors(("a",), 2, 2), SpeakerErrors(("d",), 1, 2)]
    assert [each.rate for each in found] == [1.0, 0.5]


def test_equal_numbers_of_errors_are_ordered_by_rate_then_name() -> None:
    speakers = [("x", "y"), ("x", "y"), ("b", "c"), ("a", "c"), ("b", "c")]
    index = SpeakerIndex.of(speakers)
    target = np.zeros(5, bool)
    found = confused_pairs(index, target, np.array([1, 0, 1, 1, 0], bool), 10)
    assert [each.speakers for each in found] == [("a", "c"), ("b", "c"), ("x", "y")]


def test_worst_errors() -> None:
    assert worst_false_accepts(SCORES, TARGET, ACCEPTED, 10) == [0, 1, 3]
    assert worst_false_accepts(SCORES, TARGET, ACCEPTED, 2) == [0, 1]
    assert worst_false_rejects(SCORES, TARGET, ACCEPTED, 10) == [7, 6, 8]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_confusions_agree_with_a_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    pairs = [(f"s{a}", f"s{b}") for a, b in generator.integers(0, 4, (60, 2))]
    target = np.array([a == b for a, b in pairs])
    accepted = generator.random(60) < 0.5
    errors: dict[tuple[str, ...], list[int]] = {}
    for pair, is_target, is_accepted in zip(pairs, target, accepted, strict=True):
        if not is_target:
            counts = errors.setdefault(tuple(sorted(pair)), [0, 0])
            counts[0] += int(is_accepted)
            counts[1] += 1
    found = confused_pairs(SpeakerIndex.of(pairs), target, accepted, 100)
    expected = {pair: tuple(counts) for pair, counts in errors.items() if counts[0]}
    assert {each.speakers: (each.errors, each.trials) for each in found} == expected
    assert [each.errors for each in found] == sorted((each.errors for each in found), reverse=True)


def test_wrong_decisions_are_at_the_threshold_of_equal_error() -> None:
    data = small_report(num_trials=300)
    analysis = Analysis(data)
    wrong = wrong_decisions(analysis)
    scores, target = data.main.scores, data.labels == 1
    point = eer_point(error_rates(scores, target))
    num_accepts = int((scores[~target] >= point.threshold).sum())
    assert num_accepts == round(point.false_accepts * 150)
    assert f"{num_accepts} of 150 trials of different speakers are accepted" in wrong.explanation
    listed = [row[2].key for row in wrong.confused.rows]
    assert 0 < sum(key for key in listed if key is not None) <= num_accepts
    worst = wrong.false_accepts[0]
    place = int(np.argmax(np.where(target, -np.inf, scores)))
    assert [side.utterance_id for side in worst.sides] == [data.enrollments[place], data.tests[place]]
    assert [side.speaker for side in worst.sides] == ["", ""]
    assert worst.score == number_text(scores[place])
    assert [trial.rank for trial in wrong.false_rejects] == list(range(1, 11))


def test_speakers_are_named_where_ids_do_not() -> None:
    data = small_report(num_trials=100, enrollments=[f"{n}.wav" for n in range(100)])
    speakers = data.speakers or []
    for trial in wrong_decisions(Analysis(data)).false_accepts:
        place = int(trial.sides[0].utterance_id.removesuffix(".wav"))
        assert trial.sides[0].speaker == speakers[place][0]
        assert trial.sides[1].speaker == ""


def test_speakers_without_names_are_not_known() -> None:
    for speakers, is_known in ((None, False), ([("", "")] * 40, False), ([("a", "")] * 40, True)):
        data = dataclasses.replace(small_report(num_trials=40), speakers=speakers)
        assert Analysis(data).speakers_are_known is is_known


def test_condition_metrics_are_those_of_the_trials_in_it() -> None:
    data = small_report(num_trials=600, num_systems=2)
    analysis = Analysis(data)
    room = data.conditions[1]
    results = condition_results(analysis, room, 2, num_resamples=100)
    assert [result.label for result in results] == ["hall", "kitchen"]
    threshold = eer_point(error_rates(data.main.scores, data.labels)).threshold
    for result in results:
        members = np.array([value == result.label for value in room.values])
        labels, scores = data.labels[members], data.main.scores[members]
        assert (result.num_targets, result.num_others) == (labels.sum(), (1 - labels).sum())
        assert result.false_rejects == np.mean(scores[labels == 1] < threshold)
        assert result.false_accepts == np.mean(scores[labels == 0] >= threshold)
        for system, errors in zip(data.systems, result.results, strict=True):
            rates = error_rates(system.scores[members], labels)
            assert errors.eer.value == equal_error_rate(rates)
            assert errors.min_dcf.value == min_dcf(rates, 0.05)
        assert data.speakers is not None
        speakers = [pair for pair, is_member in zip(data.speakers, members, strict=True) if is_member]
        drawn = resample({"eer": equal_error_rate}, scores, labels, speakers, num_resamples=100)
        interval = drawn.interval("eer")
        assert (result.results[0].eer.low, result.results[0].eer.high) == (interval.low, interval.high)


def test_too_few_trials_are_only_counted() -> None:
    labels = small_report().labels
    rooms = np.where(np.arange(400) < 18, "small", np.where(labels == 1, "same", "many")).tolist()
    section = by_condition(Analysis(small_report(conditions=[Condition("room", rooms)])))
    rows = {row[0].text: row for row in section.groups[0].table.rows}
    assert rows["small"][0].note == "9 same-speaker and 9 different-speaker trials: too few"
    assert rows["same"][0].note == "no different-speaker trials: too few"
    assert rows["many"][0].note == "no same-speaker trials: too few"
    assert [cell.text for cell in rows["small"][1:]] == ["9", "9", "–", "–"]
    assert rows["same"][1].note.endswith("% rejected")
    assert rows["same"][2].note == ""
    assert section.groups[0].plot is None


def test_text_groups() -> None:
    groups = grouped(Condition("room", ["b", "", "a", "b"]))
    assert groups.labels == ["a", "b", "unknown"]
    assert groups.members.tolist() == [1, 2, 0, 1]


def test_many_texts_are_gathered() -> None:
    values = [f"v{n:02d}" for n in range(30) for _ in range(n + 1)]
    groups = grouped(Condition("video", values))
    assert groups.labels == [*(f"v{n}" for n in range(19, 30)), "19 others"]
    assert np.bincount(groups.members).tolist() == [*range(20, 31), sum(range(1, 20))]


def test_few_numbers_stay_apart() -> None:
    groups = grouped(Condition("channels", [2, 1, None, 10, math.nan]))
    assert groups.labels == ["1", "2", "10", "unknown"]
    assert groups.members.tolist() == [1, 0, 3, 2, 3]


def test_quantile_labels() -> None:
    groups = grouped(Condition("seconds", [4.5, 5.0, 5.5, 6.75, 7.0, 8.5, 9.0, 11.0, 12.0]))
    assert [label.replace(NBSP, " ") for label in groups.labels] == [
        "< 5.5", "5.5 to 7.0", "7.0 to 9.0", "≥ 9.0",
    ]  # fmt: skip
    assert groups.members.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3]


@given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=200))
@example([0, 0, 1, 2, 3, 4, -1011, -1011, -1012])  # -1011 is rounded to -1010
@settings(max_examples=60)
def test_labels_of_bins_are_true(values: list[float]) -> None:
    """Every number is in a group whose label admits it, and no group is empty."""
    groups = grouped(Condition("x", values))
    assert sorted(set(groups.members.tolist())) == list(range(len(groups.labels)))
    for value, member in zip(values, groups.members, strict=True):
        label = groups.labels[member].replace(NBSP, " ")
        if math.isnan(value):
            assert label == "unknown"
        elif label.startswith("< "):
            assert value < float(label[2:])
        elif label.startswith("≥ "):
            assert value >= float(label[2:])
        elif " to " in label:
            low, high = map(float, label.split(" to "))
            assert low <= value < high
        else:
            assert label == "all" or float(label) == pytest.approx(value, rel=1e-4, abs=1e-9)


def test_condition_table_of_several_systems() -> None:
    data = small_report(num_systems=5)
    section = by_condition(Analysis(data))
    table = section.groups[1].table
    assert [column.label for column in table.columns] == [
        "room",
        "same-speaker trials",
        "different-speaker trials",
        "system 0: EER",
        f"system 0: minDCF (5{NBSP}%)",
        "system 1: EER",
        "system 2: EER",
    ]
    assert "The first 3 of 5 systems" in section.explanation
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert condition_table("x", [], ["a"], METRICS).rows == []


def test_headline_table_leaves_gaps() -> None:
    systems = [
        System("a", SCORES, None, {"eer": Estimate(0.0123, 0.01, 0.02), "cllr": Estimate(0.5)}),
        System("b", SCORES, None, {"eer": Estimate(0.5)}),
    ]
    table = headline_table(systems, {key: METRICS[key] for key in ("eer", "cllr")})
    assert [[(cell.text, cell.note) for cell in row] for row in table.rows] == [
        [("a", ""), (f"1.23{NBSP}%", f"[1.00,{NBSP}2.00]"), ("0.500", "")],
        [("b", ""), (f"50.00{NBSP}%", ""), ("–", "")],
    ]
    assert math.isnan(table.rows[1][2].key or 0.0)


def test_comparison_table() -> None:
    comparison = Comparison("a", "b", "min_dcf", Estimate(-0.0204, -0.041, 0.003), 0.0004)
    [row] = comparison_table([comparison], metrics_at(0.01)).rows
    assert [cell.text for cell in row] == ["a", "b", f"minDCF (1{NBSP}%)", "−0.020", "< 0.001"]
    assert row[3].note == f"[−0.041,{NBSP}+0.003]"


@pytest.mark.parametrize("p_target", [0.01, 0.05, 0.0101])
def test_no_two_metrics_have_one_label(p_target: float) -> None:
    metrics = metrics_at(p_target)
    labels = [metric.label for metric in metrics.values()]
    assert len(labels) == len(set(labels))
    assert set(METRICS) - set(metrics) == ({"min_dcf_p01"} if p_target == 0.01 else set())


def test_texts_of_numbers() -> None:
    assert [percentage(rate) for rate in (0.0123, 0.123)] == [f"1.23{NBSP}%", f"12.3{NBSP}%"]
    assert [number_text(x) for x in (-1.5, math.inf, -math.inf, math.nan)] == ["−1.500", "∞", "−∞", "none"]
    assert [p_text(p) for p in (0.0009, 0.05, math.nan)] == ["< 0.001", "0.050", "–"]


def test_operating_points() -> None:
    rates = error_rates(SCORES, TARGET)
    generator = np.random.default_rng(1)
    for threshold in [*SCORES, *generator.uniform(-0.1, 1.1, 20), math.inf]:
        point = point_at(rates, threshold)
        assert point.false_accepts == pytest.approx(np.mean(SCORES[~TARGET] >= threshold))
        assert point.false_rejects == pytest.approx(np.mean(SCORES[TARGET] < threshold))
    for p_target in (0.05, 0.5):
        point = min_dcf_point(rates, p_target)
        cost = p_target * point.false_rejects + (1 - p_target) * point.false_accepts
        assert cost / min(p_target, 1 - p_target) == pytest.approx(min_dcf(rates, p_target))
    assert list(named_points(rates, None, (0.05,))) == ["equal error rate", f"minDCF (5{NBSP}%)"]
    points = named_points(rates, rates, (0.05, 0.01))
    assert len(points) == 5
    assert points[f"Bayes threshold (5{NBSP}%)"].threshold == pytest.approx(math.log(19))


def test_bayes_errors_are_the_costs_of_all_priors() -> None:
    data = small_report()
    llrs = data.main.llrs
    assert llrs is not None
    rates = error_rates(llrs, data.labels)
    priors = np.array([0.001, 0.05, 0.5, 0.9])
    actual, best = bayes_errors(rates, priors)
    assert actual == pytest.approx([actual_dcf(llrs, data.labels, prior) for prior in priors])
    assert best == pytest.approx([min_dcf(rates, prior) for prior in priors])
    assert (best <= actual + 1e-12).all()


def test_det_band_holds_the_curve() -> None:
    data = small_report(num_trials=2000)
    index, target = SpeakerIndex.of(data.speakers or []), data.labels == 1
    at = np.array([0.01, 0.05, 0.2])
    band = det_band(data.main.scores, target, index.pairs, at, 200)
    assert band is not None
    rates = error_rates(data.main.scores, target)
    rejects = [rates.false_rejects[rates.false_accepts <= rate].min() for rate in at]
    assert (band.low < rejects).all()
    assert (band.high > rejects).all()
    assert (np.diff(band.high) < 0).all()
    assert det_band(data.main.scores, target, np.zeros((2000, 2), np.int64), at, 200) is None


def test_many_trials_get_fewer_resamples() -> None:
    assert affordable_resamples(1) == 500
    assert affordable_resamples(10**9) == 100
    assert 100 < affordable_resamples(400_000) < 500
