"""The error rates of groups of trials: by duration, by session, by whatever is known of them.

Letters: N trials, G groups.
"""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluator.report.analysis import Analysis
from evaluator.report.data import Condition, Estimate
from evaluator.report.intervals import group_estimates

FEWEST_TRIALS = 10
_QUANTILE_BINS = 4
_MOST_GROUPS = 12
_MOST_DISTINCT_NUMBERS = 6
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Groups:
    """Trials, grouped.

    Attributes:
        labels: G readable names: numbers in rising order, text by alphabet, what is unknown last.
        members: (N,) each trial's position in `labels`.
    """

    labels: list[str]
    members: NDArray[np.int64]


@dataclass(frozen=True)
class GroupErrors:
    """The error rates of one system in one group."""

    eer: Estimate
    min_dcf: Estimate


@dataclass(frozen=True)
class GroupResult:
    """One group of a condition.

    Attributes:
        label: Its name.
        num_targets: Target trials in it.
        num_others: Non-target trials.
        false_rejects: Share of its target trials that the main system rejects at its overall threshold.
        false_accepts: Share of its non-target trials accepted there; NaN where there is no such trial.
        results: One for each system; empty where there are too few trials.
        reason: Why there are no results; empty where there are.
    """

    label: str
    num_targets: int
    num_others: int
    false_rejects: float
    false_accepts: float
    results: tuple[GroupErrors, ...]
    reason: str


def grouped(condition: Condition) -> Groups:
    """Puts trials with equal text, or with numbers of one quantile bin, together."""
    numbers = _numbers(condition.values)
    return _by_text(condition.values) if numbers is None else _by_number(numbers)


def condition_results(
    analysis: Analysis, condition: Condition, num_systems: int, num_resamples: int
) -> list[GroupResult]:
    """Counts and error rates, with intervals over speakers, of every group.

    Args:
        analysis: The trials and systems.
        condition: By what they are grouped.
        num_systems: So many of the systems, from the first, are judged.
        num_resamples: Resamples of the speakers for each interval.
    """
    target, accepted = analysis.is_target, analysis.is_accepted
    results = []
    for label, members in _members(condition, target):
        num_targets = int(target[members].sum())
        num_others = len(members) - num_targets
        num_rejected = int((target & ~accepted)[members].sum())
        num_accepted = int((~target & accepted)[members].sum())
        reason = _too_few(num_targets, num_others)
        errors: list[GroupErrors] = []
        for system in () if reason else analysis.data.systems[:num_systems]:
            estimates = group_estimates(
                system.scores[members],
                target[members],
                analysis.speakers.pairs[members],
                analysis.data.p_target,
                num_resamples,
            )
            errors.append(GroupErrors(estimates["eer"], estimates["min_dcf"]))
        results.append(
            GroupResult(
                label,
                num_targets,
                num_others,
                num_rejected / num_targets if num_targets else math.nan,
                num_accepted / num_others if num_others else math.nan,
                tuple(errors),
                reason,
            )
        )
    return results


def _members(condition: Condition, is_target: NDArray[np.bool_]) -> list[tuple[str, NDArray[np.int64]]]:
    """The groups by name, each with the places of its trials."""
    if not condition.targets_only:
        groups = grouped(condition)
        return [(label, np.flatnonzero(groups.members == place)) for place, label in enumerate(groups.labels)]
    targets, others = np.flatnonzero(is_target), np.flatnonzero(~is_target)
    groups = grouped(replace(condition, values=np.asarray(condition.values, object)[targets]))
    return [
        (label, np.sort(np.concatenate([targets[groups.members == place], others])))
        for place, label in enumerate(groups.labels)
    ]


def _too_few(num_targets: int, num_others: int) -> str:
    few = [
        f"{count or 'no'} {kind}"
        for count, kind in ((num_targets, "same-speaker"), (num_others, "different-speaker"))
        if count < FEWEST_TRIALS
    ]
    return f"{' and '.join(few)} trials: too few" if few else ""


def _by_number(values: NDArray[np.float64]) -> Groups:
    """Bins with as equal numbers of trials as round edges allow; few distinct numbers stay apart."""
    known = np.isfinite(values)
    distinct = np.unique(values[known])
    members = np.full(len(values), -1, np.int64)
    if len(distinct) <= _MOST_DISTINCT_NUMBERS:
        members[known] = np.searchsorted(distinct, values[known])
        labels = [f"{value:.10g}" for value in distinct]
    else:
        quantiles = np.quantile(values[known], np.arange(1, _QUANTILE_BINS) / _QUANTILE_BINS)
        rounded = np.unique([float(f"{edge:.3g}") for edge in quantiles])
        # One edge for each cut between values: no bin is empty.
        cuts, first = np.unique(np.searchsorted(distinct, rounded), return_index=True)
        edges = rounded[first[(cuts > 0) & (cuts < len(distinct))]]
        members[known] = np.searchsorted(edges, values[known], side="right")
        labels = _interval_labels(edges.tolist())
    return _with_unknown(labels, members)


def _interval_labels(edges: Sequence[float]) -> list[str]:
    if not edges:
        return ["all"]
    texts = [f"{edge:g}" for edge in edges]
    if not any("e" in text for text in texts):
        digits = max(len(text.partition(".")[2]) for text in texts)
        texts = [f"{edge:.{digits}f}" for edge in edges]
    between = [f"{low} to {high}" for low, high in itertools.pairwise(texts)]
    labels = [f"< {texts[0]}", *between, f"≥ {texts[-1]}"]
    return [label.replace(" ", "\N{NO-BREAK SPACE}") for label in labels]


def _by_text(values: Sequence[Any] | NDArray[Any]) -> Groups:
    """One group a text; of very many texts the rarer ones go together."""
    texts = ["" if value is None else str(value) for value in values]
    counts = Counter(texts)
    counts.pop("", None)
    named = sorted(counts)
    num_rare = 0
    if len(named) > _MOST_GROUPS:
        named = sorted(text for text, _ in counts.most_common(_MOST_GROUPS - 1))
        num_rare = len(counts) - len(named)
    position = {text: number for number, text in enumerate(named)} | {"": -1}
    members = np.fromiter((position.get(text, len(named)) for text in texts), np.int64, len(texts))
    return _with_unknown([*named, f"{num_rare} others"] if num_rare else named, members)


def _with_unknown(labels: list[str], members: NDArray[np.int64]) -> Groups:
    """Gives the trials of no group (-1) one of their own."""
    unknown = members < 0
    if unknown.any():
        return Groups([*labels, _UNKNOWN], np.where(unknown, len(labels), members))
    return Groups(labels, members)


def _numbers(values: Sequence[Any] | NDArray[Any]) -> NDArray[np.float64] | None:
    """The values as numbers, None among them as NaN; None if any of them is none."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        return values.astype(np.float64)
    if not all(value is None or isinstance(value, int | float | np.number) for value in values):
        return None
    return np.array([math.nan if value is None else value for value in values], np.float64)
