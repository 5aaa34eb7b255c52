"""The equal error rate of each group of a condition, as dots with intervals.

Letters: G groups.
"""

from collections.abc import Sequence

import numpy as np

from evaluator.report.conditions import GroupResult
from evaluator.report.plots.drawing import (
    MUTED,
    PAPER,
    Plot,
    colour_of,
    finish,
    legend_below,
    new_figure,
    shortened,
    styled,
)

_MARKERS = "osD^vP"


def condition_plot(
    name: str, condition: str, groups: Sequence[GroupResult], systems: Sequence[str]
) -> Plot | None:
    """A row a group, in it a dot a system; None where no group has an equal error rate.

    Args:
        name: Of the plot's file.
        condition: What the trials are grouped by.
        groups: G groups with their results.
        systems: Names of the systems, in the order of the results.
    """
    shown = [group for group in groups if group.results]
    if not shown:
        return None
    with styled():
        figure = new_figure(1.25 + len(shown) * max(0.42, 0.22 * len(systems)) + 0.2 * (len(systems) > 1))
        axes = figure.subplots()
        offsets = (np.arange(len(systems)) - (len(systems) - 1) / 2) * min(0.24, 0.8 / len(systems))
        for number, (system, offset) in enumerate(zip(systems, offsets, strict=True)):
            eers = [group.results[number].eer for group in shown]
            values = 100 * np.array([eer.value for eer in eers])
            ends = 100 * np.array([[eer.low, eer.high] for eer in eers])
            rows = np.arange(len(shown)) + offset
            colour = colour_of(number)
            axes.hlines(rows, ends[:, 0], ends[:, 1], color=colour, linewidth=1.6, gid=f"interval-{number}")
            axes.plot(
                values,
                rows,
                color=colour,
                linestyle="",
                marker=_MARKERS[number % len(_MARKERS)],
                markersize=6.5,
                markeredgecolor=PAPER,
                markeredgewidth=0.8,
                label=shortened(system),
                gid=f"dots-{number}",
            )
        axes.set_yticks(np.arange(len(shown)), [shortened(group.label) for group in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("equal error rate, %")
        for row in range(1, len(shown)):
            axes.axhline(row - 0.5, color=MUTED, linewidth=0.3)
        if len(systems) > 1:
            legend_below(figure, axes.get_legend_handles_labels()[0])
        texts = (f"{group.label}: {100 * group.results[0].eer.value:.2f} %" for group in shown)
        return finish(figure, name, f"Equal error rate of {systems[0]} by {condition}. {'; '.join(texts)}.")
