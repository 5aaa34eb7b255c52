"""How the scores of same-speaker and of different-speaker trials are distributed.

Letters: N trials, H bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from evaluator.report.data import FloatArray
from evaluator.report.metric import share_text
from evaluator.report.plots.drawing import (
    INK,
    MUTED,
    SYSTEM_COLOURS,
    Plot,
    finish,
    legend_below,
    new_figure,
    shortened,
    styled,
)

_MOST_BINS = 60
_FEWEST_BINS = 12


@dataclass(frozen=True)
class Scores:
    """What one panel shows.

    Attributes:
        name: Of the system.
        values: (N,) scores or log-likelihood ratios.
        are_llrs: Which of the two.
        equal_error_threshold: Where both error rates are equal.
        cost_threshold: Where the cost is least: by Bayes' rule of log-likelihood ratios, otherwise as
            found on these trials.
    """

    name: str
    values: FloatArray
    are_llrs: bool
    equal_error_threshold: float
    cost_threshold: float


def histogram_plot(panels: Sequence[Scores], is_target: NDArray[np.bool_], p_target: float) -> Plot:
    """One panel a system, each with the densities of both kinds of trials and its thresholds.

    Args:
        panels: What the panels show.
        is_target: (N,) the kinds.
        p_target: Of the cost thresholds.
    """
    with styled():
        figure = new_figure(0.9 + 2.3 * len(panels) if len(panels) > 1 else 4.2)
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(len(panels), 1, number + 1)
            if len(panels) > 1:
                axes.set_title(shortened(panel.name, 60))
            _draw(axes, panel, is_target, number)
        legend_below(figure, _handles(panels, share_text(p_target)))
        alt = "; ".join(
            f"{panel.name}: median {_median(panel, is_target):.3g} for the same speaker, "
            f"{_median(panel, ~is_target):.3g} for different speakers, equal error at "
            f"{panel.equal_error_threshold:.3g}"
            for panel in panels
        )
        return finish(figure, "scores", f"Histograms of the scores. {alt}.")


def _draw(axes: Axes, panel: Scores, is_target: NDArray[np.bool_], number: int) -> None:
    edges = _edges(panel.values)
    for kind, members, colour in (("different", ~is_target, MUTED), ("same", is_target, SYSTEM_COLOURS[0])):
        density, _ = np.histogram(np.clip(panel.values[members], edges[0], edges[-1]), edges, density=True)
        axes.stairs(density, edges, color=colour, fill=True, alpha=0.25, linewidth=0)
        axes.stairs(density, edges, color=colour, linewidth=1.5, gid=f"density-{kind}-{number}")
    axes.axvline(panel.equal_error_threshold, color=INK, linewidth=1.1, gid=f"equal-error-{number}")
    axes.axvline(panel.cost_threshold, color=INK, linewidth=1.1, linestyle=(0, (3, 2)), gid=f"cost-{number}")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_ylabel("density")
    axes.set_xlabel("log-likelihood ratio (natural logarithm)" if panel.are_llrs else "score")


def _edges(values: FloatArray) -> FloatArray:
    """H + 1 edges; single far values share the outermost bins instead of squeezing all others."""
    low, high = np.quantile(values, [0.0005, 0.9995])
    if high <= low:
        low, high = float(values.min()) - 0.5, float(values.max()) + 0.5
    bins = int(np.clip(2 * len(values) ** (1 / 3), _FEWEST_BINS, _MOST_BINS))
    edges: FloatArray = np.linspace(low, high, bins + 1)
    return edges


def _median(panel: Scores, members: NDArray[np.bool_]) -> float:
    return float(np.median(panel.values[members]))


def _handles(panels: Sequence[Scores], share: str) -> list[Patch | Line2D]:
    cost = {True: f"Bayes threshold ({share})", False: f"threshold of minDCF ({share})"}
    kinds = sorted({panel.are_llrs for panel in panels}, reverse=True)
    return [
        Patch(facecolor=SYSTEM_COLOURS[0], alpha=0.45, label="same speaker"),
        Patch(facecolor=MUTED, alpha=0.45, label="different speakers"),
        Line2D([], [], color=INK, linewidth=1.1, label="threshold of equal error"),
        Line2D(
            [], [], color=INK, linewidth=1.1, linestyle=(0, (3, 2)), label=" or ".join(cost[k] for k in kinds)
        ),
    ]
