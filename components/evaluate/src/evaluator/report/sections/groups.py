"""Errors by condition: a plot and a table for each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluator.report.analysis import Analysis
from evaluator.report.conditions import FEWEST_TRIALS, GroupResult, condition_results
from evaluator.report.intervals import affordable_resamples
from evaluator.report.metric import Metric
from evaluator.report.plots.conditions import condition_plot
from evaluator.report.plots.drawing import Plot
from evaluator.report.tables import MISSING, Cell, Column, Table, metric_cell, percentage

_MOST_SYSTEMS = 3


@dataclass(frozen=True)
class Group:
    """What is shown of one condition; no plot where no group has enough trials."""

    name: str
    plot: Plot | None
    table: Table


@dataclass(frozen=True)
class ByCondition:
    """What the section shows.

    Attributes:
        groups: A plot and a table for each condition.
        explanation: What was done.
        caption: What the plots show.
    """

    groups: Sequence[Group]
    explanation: str
    caption: str


def by_condition(analysis: Analysis) -> ByCondition:
    """Judges the first systems in each group of each condition."""
    data = analysis.data
    names = [system.name for system in data.systems[:_MOST_SYSTEMS]]
    num_resamples = affordable_resamples(len(data.labels) * len(names) * len(data.conditions))
    groups = []
    for number, condition in enumerate(data.conditions, 1):
        found = condition_results(analysis, condition, len(names), num_resamples)
        plot = condition_plot(f"condition-{number}", condition.name, found, names)
        groups.append(
            Group(condition.name, plot, condition_table(condition.name, found, names, analysis.metrics))
        )
    left_out = len(data.systems) > len(names)
    first = f" The first {len(names)} of {len(data.systems)} systems." if left_out else ""
    drawn = f", with intervals from {num_resamples} draws of its speakers"
    intervals = drawn if analysis.speakers_are_known else ""
    of_targets = [condition.name for condition in data.conditions if condition.targets_only]
    compared = (
        f" By {' and '.join(of_targets)} same-speaker trials alone are divided; each group is compared with "
        "all different-speaker trials."
        if of_targets
        else ""
    )
    return ByCondition(
        groups,
        f"Shares rejected and accepted are of {data.main.name} at its threshold of equal error over all "
        f"trials; EER and minDCF of a group are at thresholds of its own{intervals}. Groups with fewer than "
        f"{FEWEST_TRIALS} trials of either kind get no EER.{compared}{first}",
        "Dots are equal error rates" + (", lines their 95 % intervals over speakers." if intervals else "."),
    )


def condition_table(
    condition: str,
    groups: Sequence[GroupResult],
    systems: Sequence[str],
    metrics: Mapping[str, Metric],
) -> Table:
    """A row a group: its trials, the main system's errors and the others' EER; or why there are none."""
    eer, cost = metrics["eer"], metrics["min_dcf"]
    main = f"{systems[0]}: " if len(systems) > 1 else ""
    columns = (
        Column(condition, is_number=False),
        Column("same-speaker trials"),
        Column("different-speaker trials"),
        Column(main + eer.label),
        Column(main + cost.label),
        *(Column(f"{system}: {eer.label}") for system in systems[1:]),
    )
    rows = []
    for position, group in enumerate(groups):
        cells = [
            Cell(group.label, position, group.reason),
            Cell(f"{group.num_targets:,}", group.num_targets, _rate_note(group.false_rejects, "rejected")),
            Cell(f"{group.num_others:,}", group.num_others, _rate_note(group.false_accepts, "accepted")),
        ]
        if group.results:
            first, *others = group.results
            cells += [metric_cell(eer, first.eer), metric_cell(cost, first.min_dcf)]
            cells += [metric_cell(eer, each.eer) for each in others]
        else:
            cells += [MISSING] * (1 + len(systems))
        rows.append(tuple(cells))
    return Table(f"Errors by {condition}", columns, rows)


def _rate_note(rate: float, decision: str) -> str:
    return "" if math.isnan(rate) else f"{percentage(rate)} {decision}"
