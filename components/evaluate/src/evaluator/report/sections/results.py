"""The headline: error rates with intervals, what they mean, and how systems compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluator.report.analysis import Analysis
from evaluator.report.data import Comparison, System
from evaluator.report.metric import Metric
from evaluator.report.tables import Cell, Column, Table, metric_cell, p_text

_TILES = ("eer", "min_dcf")
_FEW_SPEAKERS = 30


@dataclass(frozen=True)
class Tile:
    """One number of the main system, in large type."""

    label: str
    cell: Cell


@dataclass(frozen=True)
class Results:
    """What the section shows.

    Attributes:
        summary: What was asked of which system.
        tiles: The two numbers that the challenge ranks by.
        headline: All metrics of all systems; None if no metric was computed.
        intervals_mean: One plain sentence on the intervals; empty if there are none.
        comparisons: Of systems, two by two; None if there are none.
        glossary: The metrics that are shown.
    """

    summary: str
    tiles: Sequence[Tile]
    headline: Table | None
    intervals_mean: str
    comparisons: Table | None
    glossary: Sequence[Metric]


def results(analysis: Analysis) -> Results:
    """Sums up all systems."""
    data = analysis.data
    metrics = analysis.metrics
    shown = {
        key: metric
        for key, metric in metrics.items()
        if any(key in system.estimates for system in data.systems)
    }
    comparisons = [each for each in data.comparisons if each.metric in metrics]
    estimates = [each for system in data.systems for each in system.estimates.values()]
    tiles = [
        Tile(metrics[key].label, metric_cell(metrics[key], data.main.estimates[key]))
        for key in _TILES
        if key in data.main.estimates
    ]
    return Results(
        summary=_summary(analysis),
        tiles=tiles,
        headline=headline_table(data.systems, shown) if shown else None,
        intervals_mean=_intervals_mean(analysis) if any(each.has_interval for each in estimates) else "",
        comparisons=comparison_table(comparisons, metrics) if comparisons else None,
        glossary=list(shown.values()),
    )


def headline_table(systems: Sequence[System], metrics: Mapping[str, Metric]) -> Table:
    """A row a system, a column a metric."""
    columns = (Column("system", is_number=False), *(Column(metric.label) for metric in metrics.values()))
    rows: list[tuple[Cell, ...]] = [
        (
            Cell(system.name),
            *(metric_cell(metric, system.estimates.get(key)) for key, metric in metrics.items()),
        )
        for system in systems
    ]
    return Table("Error rates and costs; lower is better", columns, rows)


def comparison_table(comparisons: Sequence[Comparison], metrics: Mapping[str, Metric]) -> Table:
    """A row a comparison; the difference is negative where the first system is better."""
    columns = (
        Column("system", is_number=False),
        Column("compared with", is_number=False),
        Column("metric", is_number=False),
        Column("difference"),
        Column("p"),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            Cell(each.system),
            Cell(each.other),
            Cell(metrics[each.metric].label),
            metric_cell(metrics[each.metric], each.difference, signed=True),
            Cell(p_text(each.p_value), each.p_value),
        )
        for each in comparisons
    ]
    return Table("Differences between systems on the same trials", columns, rows)


def _summary(analysis: Analysis) -> str:
    data = analysis.data
    compared = len(data.systems) - 1
    others = f", compared with {compared} other system{'s' * (compared > 1)}" if compared else ""
    return (
        f"{data.main.name}{others}, on {len(data.labels):,} pairs of recordings: {analysis.num_targets:,} of "
        f"the same speaker, {analysis.num_others:,} of different speakers."
    )


def _intervals_mean(analysis: Analysis) -> str:
    num_speakers = len(analysis.speakers.names)
    in_targets = len(np.unique(analysis.speakers.pairs[analysis.is_target]))
    few = " So few speakers leave much open." if num_speakers < _FEW_SPEAKERS else ""
    return (
        f"In brackets: 95 % intervals over the {num_speakers:,} speakers ({in_targets:,} of them in "
        "same-speaker pairs). Had as many other speakers of the same kind been recorded, the value would be "
        f"expected between these two in 19 of 20 cases.{few}"
    )
