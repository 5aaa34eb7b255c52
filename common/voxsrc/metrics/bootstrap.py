"""How far numbers would be off with other speakers: intervals, and tests between systems.

Trials of one speaker are not independent, so resampling trials gives intervals that are too narrow. Here the
speakers are drawn anew, and a trial counts as often as its speakers were drawn: once for each draw of the
speaker of a pair of one speaker, the product of both for a pair of two (Poh and Bengio, "Estimating the
confidence interval of expected performance curve in biometric authentication using joint bootstrap", 2007).

It errs on the safe side: what is by chance in single trials rather than speakers counts up to three times in
the variance of pairs of two (Owen, "The pigeonhole bootstrap", 2007), so intervals are rather too wide and
p-values too high. It does not see that minDCF of few trials is optimistic, being a minimum.

The trials are sorted once; a resample is no more than other weights, cumulated. Letters: N trials,
R resamples.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxsrc.metrics.rates import FloatArray, IntArray, MetricError, SortedTrials, Statistic

_NOTABLE_SHARE = 0.05

# The speakers of enrollment and test of each trial: N pairs of names, or an (N, 2) array of numbers.
Speakers = Sequence[tuple[str, str]] | NDArray[np.integer]


@dataclass(frozen=True)
class Interval:
    """Where a number lies.

    Attributes:
        low: Lower end.
        high: Upper end.
        num_resamples: Resamples that it was taken from.
        num_left_out: Resamples that lacked one of the two kinds of trials, and were left out.
    """

    low: float
    high: float
    num_resamples: int
    num_left_out: int


@dataclass(frozen=True, eq=False)
class Resamples:
    """Statistics of one system under other draws of the speakers.

    Attributes:
        estimates: By name, the statistic of the trials as they are.
        values: By name, (R,) the statistic of each resample; those without both kinds of trials left out.
        num_left_out: How many those are.
        draws: Digest of labels, speakers and seed: where it is equal, so are the resamples.
    """

    estimates: Mapping[str, float]
    values: Mapping[str, FloatArray]
    num_left_out: int
    draws: str

    def interval(self, name: str, level: float = 0.95) -> Interval:
        """The percentile interval of a statistic.

        See Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.

        Raises:
            MetricError: If `level` is not between 0 and 1.
        """
        return _percentiles(self.values[name], self.num_left_out, level)


@dataclass(frozen=True)
class PairedDifference:
    """How much two systems differ on the same trials.

    Attributes:
        difference: The first system's number less the second's: negative where the first errs less.
        interval: Of the difference.
        p_value: Two-sided; see `paired_differences`.
    """

    difference: float
    interval: Interval
    p_value: float


def resample(
    statistics: Mapping[str, Statistic],
    scores: ArrayLike,
    labels: ArrayLike,
    speakers: Speakers,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Resamples:
    """Computes several statistics of the same resamples.

    Args:
        statistics: By name, functions of the operating points, such as `equal_error_rate`, `cllr_of_rates`,
            or `lambda rates: min_dcf(rates, 0.01)`.
        scores: (N,) scores; log-likelihood ratios for statistics of those.
        labels: (N,) 1 for target trials, 0 for non-target trials.
        speakers: N pairs, the speakers of enrollment and test.
        num_resamples: How often the speakers are drawn.
        seed: Seed of the draws. With the same labels, speakers and seed all systems get the same resamples.

    Raises:
        MetricError: See `error_rates`; or if there is but one speaker, or no resample had both kinds of
            trials.
    """
    if num_resamples < 1:
        raise MetricError(f"num_resamples is {num_resamples}; expected at least 1")
    trials = SortedTrials(scores, labels)
    rates = trials.rates()
    pairs, num_speakers = _numbered(speakers, trials.num_trials)
    if num_speakers < 2:
        raise MetricError(f"all trials are of {num_speakers} speaker; at least 2 are needed to draw others")
    estimates = {name: statistic(rates) for name, statistic in statistics.items()}
    values = []
    for weights in _weights(pairs[trials.order], num_speakers, num_resamples, seed):
        rates_or_none = trials.rates_if_both_kinds(weights)
        if rates_or_none is not None:
            values.append([statistic(rates_or_none) for statistic in statistics.values()])
    if not values:
        raise MetricError(
            f"none of {num_resamples} resamples of {num_speakers} speakers had both kinds of trials; "
            "more speakers with trials of both kinds are needed"
        )
    columns = np.array(values, np.float64).T
    is_target = np.empty(trials.num_trials, bool)
    is_target[trials.order] = trials.is_target
    drawn = hashlib.sha256(f"{num_speakers} {num_resamples} {seed}".encode())
    drawn.update(is_target.tobytes())
    drawn.update(pairs.tobytes())
    return Resamples(
        estimates,
        dict(zip(statistics, columns, strict=True)),
        num_resamples - len(values),
        drawn.hexdigest(),
    )


def told_left_out(resamples: Resamples, num_resamples: int) -> str:
    """A warning if over 5 % of the resamples were left out, else nothing."""
    if resamples.num_left_out <= _NOTABLE_SHARE * num_resamples:
        return ""
    return (
        f"{resamples.num_left_out:,} of {num_resamples:,} draws of the speakers lacked one kind of trials; "
        "the intervals are of the others, and too narrow: there are too few speakers"
    )


def paired_differences(
    first: Resamples, second: Resamples, level: float = 0.95
) -> dict[str, PairedDifference]:
    """Tests, for each statistic that both have, whether two systems differ.

    The p-value inverts the percentile interval of the difference (Efron and Tibshirani, 1993, section 15.4),
    with one added to both counts so that it is never 0 (Davison and Hinkley, "Bootstrap methods and their
    application", 1997, section 4.2): of R differences d,
    p = min(1, 2 min(1 + #{d ≤ 0}, 1 + #{d ≥ 0}) / (R + 1)). Its least value is 2 / (R + 1).

    Args:
        first: A system's resamples.
        second: Another's, of the same trials in the same order, with the same seed and number.
        level: Coverage of the intervals.

    Raises:
        MetricError: If they are not of the same trials and draws, or have no statistic in common.
    """
    if first.draws != second.draws:
        raise MetricError(
            "the two systems were resampled differently; give both the same trials in the same order, "
            "num_resamples and seed"
        )
    names = [name for name in first.values if name in second.values]
    if not names:
        raise MetricError(
            f"statistics {list(first.values)} and {list(second.values)}; expected one that both have"
        )
    tests = {}
    for name in names:
        differences = first.values[name] - second.values[name]
        rarer = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
        tests[name] = PairedDifference(
            first.estimates[name] - second.estimates[name],
            _percentiles(differences, first.num_left_out, level),
            min(1.0, 2 * (1 + rarer) / (len(differences) + 1)),
        )
    return tests


def _numbered(speakers: Speakers, num_trials: int) -> tuple[IntArray, int]:
    """(N, 2) numbers of the speakers from 0, in the order of their names, and how many there are."""
    if isinstance(speakers, np.ndarray):
        if speakers.shape != (num_trials, 2):
            raise MetricError(f"{speakers.shape} speakers for {num_trials} trials; expected a pair for each")
        names, numbers = np.unique(speakers, return_inverse=True)
        return numbers.reshape(num_trials, 2).astype(np.int64), len(names)
    if len(speakers) != num_trials:
        raise MetricError(f"{len(speakers)} pairs of speakers for {num_trials} trials; expected one for each")
    number = {name: place for place, name in enumerate(sorted({name for pair in speakers for name in pair}))}
    pairs = np.array([(number[a], number[b]) for a, b in speakers], np.int64)
    return pairs.reshape(num_trials, 2), len(number)


def _weights(pairs: IntArray, num_speakers: int, num_resamples: int, seed: int) -> Iterator[FloatArray]:
    """(N,) weights of the trials of each resample."""
    first = np.ascontiguousarray(pairs[:, 0])
    # A pair of one speaker counts as its draws: a further place, which is always 1, stands for its second.
    second = np.where(pairs[:, 0] == pairs[:, 1], num_speakers, pairs[:, 1])
    generator = np.random.default_rng(seed)
    counts = np.ones(num_speakers + 1)
    for _ in range(num_resamples):
        drawn = generator.integers(0, num_speakers, num_speakers)
        counts[:num_speakers] = np.bincount(drawn, minlength=num_speakers)
        yield counts[first] * counts[second]


def _percentiles(values: FloatArray, num_left_out: int, level: float) -> Interval:
    if not 0 < level < 1:
        raise MetricError(f"level is {level}; expected a coverage between 0 and 1")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), len(values), num_left_out)
