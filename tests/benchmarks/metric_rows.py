"""Rows of the metrics, each beside a plain way to the same number, measured in the same run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import metric_loops
import numpy as np
from evaluation_bench import EvaluationBench
from numpy.typing import NDArray
from report import Row, Target
from timing import Pairs, alternate

from voxsrc.metrics import (
    ErrorRates,
    Statistic,
    cllr_of_rates,
    equal_error_rate,
    error_rates,
    min_cllr_of_rates,
    min_dcf,
    resample,
)

_HEADLINE: dict[str, Statistic] = {
    "eer": equal_error_rate,
    "min_dcf_0.05": min_dcf,
    "min_dcf_0.01": partial(min_dcf, p_target=0.01),
}


@dataclass(frozen=True, eq=False)
class _Trials:
    """Random ones of N pairs of speakers, half of them target trials; scores are log-likelihood ratios."""

    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    speakers: NDArray[np.int64]


def rows(bench: EvaluationBench) -> Iterator[Row]:
    """All of them, on one core."""
    effort = bench.effort
    trials = _random_trials(effort.num_trials, num_speakers=1_251)
    yield _loop_row(
        bench,
        "error_rates",
        f"EER and two minDCFs of {effort.num_trials:,} trials",
        trials,
        _headline,
        metric_loops.headline,
        Target(0.2, of="ours", bound="at most"),
    )
    yield _loop_row(
        bench,
        "cllr",
        f"Cllr and min Cllr of {effort.num_trials:,} trials",
        trials,
        _both_cllrs,
        metric_loops.both_cllrs,
        Target(2, of="ours", bound="at most"),
    )
    yield _bootstrap_row(bench)


def _headline(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, ...]:
    rates = error_rates(scores, labels)
    return tuple(statistic(rates) for statistic in _HEADLINE.values())


def _both_cllrs(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, ...]:
    rates = error_rates(scores, labels)
    return cllr_of_rates(rates), min_cllr_of_rates(rates)


def _loop_row(
    bench: EvaluationBench,
    name: str,
    title: str,
    trials: _Trials,
    ours: Callable[[NDArray[np.float64], NDArray[np.int64]], tuple[float, ...]],
    loop: Callable[[list[float], list[int]], tuple[float, ...]],
    target: Target | None,
) -> Row:
    share = bench.effort.loop_trials
    # Lists: what a loop would have read from files, and faster to loop over.
    scores, labels = trials.scores[:share].tolist(), trials.labels[:share].tolist()
    pairs = alternate(
        lambda pair: ours(trials.scores, trials.labels),
        lambda pair: loop(scores, labels),
        bench.effort.num_fast_pairs,
    )
    found, expected = ours(trials.scores[:share], trials.labels[:share]), loop(scores, labels)
    difference = max(abs(a - b) for a, b in zip(found, expected, strict=True))
    scale = bench.effort.num_trials / share
    what = f"plain loop, {share:,} trials, time × {scale:g}"
    return _seconds_row(
        name, title, pairs, scale, what, target, {"max_difference": difference, "values": list(found)}
    )


def _bootstrap_row(bench: EvaluationBench) -> Row:
    effort = bench.effort
    trials = _random_trials(effort.small_trials, num_speakers=effort.small_speakers)
    ours = resample(
        _HEADLINE, trials.scores, trials.labels, trials.speakers, num_resamples=effort.num_resamples
    )
    afresh = _resampled_afresh(trials, effort.fresh_resamples)
    difference = max(
        float(np.abs(ours.values[name][: len(values)] - values).max()) for name, values in afresh.items()
    )
    pairs = alternate(
        lambda pair: resample(
            _HEADLINE, trials.scores, trials.labels, trials.speakers, num_resamples=effort.num_resamples
        ),
        lambda pair: _resampled_afresh(trials, effort.fresh_resamples),
        effort.num_pairs,
        warm_up=False,
    )
    scale = effort.num_resamples / effort.fresh_resamples
    return _seconds_row(
        "bootstrap",
        f"bootstrap of all three, {effort.num_resamples:,} resamples of {effort.small_trials:,} trials",
        pairs,
        scale,
        f"sorted afresh, {effort.fresh_resamples:,} resamples, time × {scale:g}",
        Target(30, of="ours", bound="at most"),
        {"max_difference": difference, "num_left_out": ours.num_left_out},
    )


def _resampled_afresh(trials: _Trials, num_resamples: int) -> dict[str, NDArray[np.float64]]:
    num_speakers = int(trials.speakers.max()) + 1
    first, second = trials.speakers.T
    generator = np.random.default_rng(0)
    values = []
    for _ in range(num_resamples):
        drawn = generator.integers(0, num_speakers, num_speakers)
        counts = np.bincount(drawn, minlength=num_speakers)
        weights = np.where(first == second, counts[first], counts[first] * counts[second])
        rates: ErrorRates = error_rates(trials.scores, trials.labels, weights)
        values.append([statistic(rates) for statistic in _HEADLINE.values()])
    return dict(zip(_HEADLINE, np.array(values).T, strict=True))


def _random_trials(num_trials: int, num_speakers: int) -> _Trials:
    generator = np.random.default_rng(0)
    speakers = generator.integers(0, num_speakers, (num_trials, 2))
    # Each speaker occurs, so that the plain way and ours number them alike.
    speakers[:num_speakers, 0] = np.arange(num_speakers)
    same = generator.random(num_trials) < 0.5
    speakers[same, 1] = speakers[same, 0]
    labels = (speakers[:, 0] == speakers[:, 1]).astype(np.int64)
    # Ratios of two normal distributions d apart: d²/2 on average for target trials, with variance d².
    distance = 4.0
    llrs = distance * (generator.standard_normal(num_trials) + distance * (labels - 0.5))
    return _Trials(llrs, labels, speakers)


def _seconds_row(
    name: str,
    title: str,
    pairs: Pairs,
    scale: float,
    reference_is: str,
    target: Target | None,
    details: dict[str, object],
) -> Row:
    """A row of seconds; the reference did 1 / `scale` of the work."""
    ratios = [ratio * scale for ratio in pairs.ratios]
    return Row(
        name,
        title,
        "s",
        ours=pairs.ours_s,
        reference=pairs.theirs_s * scale,
        reference_is=reference_is,
        ratio=pairs.ratio * scale,
        target=target,
        details={
            "num_pairs": len(ratios),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            "ratio_of_cpu_time": pairs.cpu_ratio * scale,
            "ours_cpu_s": min(spent.cpu_s for spent in pairs.ours),
            **details,
        },
    )
