"""Detection error trade-off: both error rates of every threshold on probit axes.

On these axes the curve of normally distributed scores is a straight line (Martin et al., "The DET curve in
assessment of detection task performance", 1997).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedFormatter, FixedLocator

from evaluator.report.data import FloatArray
from evaluator.report.intervals import Band
from evaluator.report.metric import share_text
from evaluator.report.operating import min_dcf_point
from evaluator.report.plots.drawing import (
    INK,
    MUTED,
    PAPER,
    Plot,
    colour_of,
    dashes_of,
    finish,
    legend_below,
    new_figure,
    shortened,
    styled,
)
from voxsrc.metrics import ErrorRates, OperatingPoint, det_points, eer_point, equal_error_rate, probit

_TICKS_PERCENT = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90)
_MOST_POINTS = 600
_BAND_POINTS = 60
_MOST_LOW_LIMIT_PERCENT = 10


class _Limits(NamedTuple):
    """Rates at the axes' ends; both end at `high`."""

    low_x: float
    low_y: float
    high: float


def det_plot(
    names: Sequence[str],
    rates: Sequence[ErrorRates],
    num_targets: int,
    num_others: int,
    band_at: Callable[[FloatArray], Band | None],
    *,
    p_target: float,
) -> Plot:
    """The curves of all systems, with the points of equal error and of least cost.

    Args:
        names: Of the systems.
        rates: Their error rates.
        num_targets: Target trials: no smaller share than one of them can be told from none.
        num_others: Non-target trials.
        band_at: Gives the interval of the first system's curve at false-accept rates.
        p_target: Of the point of least cost.
    """
    marks = [(eer_point(each), min_dcf_point(each, p_target)) for each in rates]
    limits = _Limits(_low_limit(num_others), _low_limit(num_targets), _high_limit(marks))
    unseen = min(limits.low_x, limits.low_y, 1 - limits.high) / 2
    with styled():
        figure = new_figure(5.9)
        axes = figure.subplots()
        _set_axes(axes, limits)
        handles: list[Line2D | Patch] = []
        for number, (name, each, (equal, least)) in enumerate(zip(names, rates, marks, strict=True)):
            colour, dashes = colour_of(number), dashes_of(number)
            curve = det_points(each, _MOST_POINTS, limit=unseen)
            axes.plot(
                curve.probit_false_accepts,
                curve.probit_false_rejects,
                color=colour,
                linestyle=dashes,
                gid=f"curve-{number}",
            )
            _mark(axes, limits, equal, "o", colour, f"equal-error-{number}")
            _mark(axes, limits, least, "D", colour, f"least-cost-{number}")
            handles.append(Line2D([], [], color=colour, linestyle=dashes, label=shortened(name)))
        band = band_at(_band_rates(limits.low_x, limits.high))
        if band is not None:
            _draw_band(axes, band, unseen)
            handles.insert(1, Patch(facecolor=colour_of(0), alpha=0.2, label="its 95 % interval"))
        for marker, label in (("o", "equal error rate"), ("D", f"minDCF ({share_text(p_target)})")):
            handles.append(
                Line2D([], [], color=INK, marker=marker, linestyle="", markerfacecolor=PAPER, label=label)
            )
        axes.set_xlabel("different speakers accepted, %")
        axes.set_ylabel("same speaker rejected, %")
        legend_below(figure, handles)
        eers = (
            f"{name}: equal error rate {100 * equal_error_rate(each):.2f} %"
            for name, each in zip(names, rates, strict=True)
        )
        return finish(figure, "det", f"DET curves on probit axes. {'; '.join(eers)}.")


def _low_limit(num_trials: int) -> float:
    """The tick at or below one trial's share, low enough for the axis to have a length."""
    share_percent = min(max(100 / num_trials, _TICKS_PERCENT[0]), _MOST_LOW_LIMIT_PERCENT)
    return max(tick for tick in _TICKS_PERCENT if tick <= share_percent * (1 + 1e-9)) / 100


def _high_limit(marks: Sequence[tuple[OperatingPoint, OperatingPoint]]) -> float:
    most = max(max(point.false_accepts, point.false_rejects) for pair in marks for point in pair)
    return min(max(0.4, 1.3 * most), 0.97)


def _band_rates(low: float, high: float) -> FloatArray:
    # Evenly in logits, which is nearly so on the axis.
    start, end = (np.log(rate / (1 - rate)) for rate in (low, high))
    rates: FloatArray = 1 / (1 + np.exp(-np.linspace(start, end, _BAND_POINTS)))
    return rates


def _set_axes(axes: Axes, limits: _Limits) -> None:
    for axis, low in ((axes.xaxis, limits.low_x), (axes.yaxis, limits.low_y)):
        shown = _shown_ticks(low, limits.high)
        axis.set_major_locator(FixedLocator(probit(np.array(shown) / 100).tolist()))
        axis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in shown]))
    left, bottom, end = probit(limits)
    axes.set_xlim(left, end)
    axes.set_ylim(bottom, end)
    start = max(left, bottom)
    axes.plot([start, end], [start, end], color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)), gid="equal")


def _shown_ticks(low: float, high: float) -> list[float]:
    """The ticks within the axis, in percent, without those whose labels would touch the next higher one."""
    start, end = probit([low, high])
    shown: list[float] = []
    for tick in reversed(_TICKS_PERCENT):
        place = float(probit([tick / 100])[0])
        is_within = low <= tick / 100 * (1 + 1e-9) and tick / 100 <= high
        if is_within and (not shown or probit([shown[0] / 100])[0] - place > 0.06 * (end - start)):
            shown.insert(0, tick)
    return shown


def _draw_band(axes: Axes, band: Band, unseen: float) -> None:
    low, high = (probit(np.clip(edge, unseen, 1 - unseen)) for edge in (band.low, band.high))
    axes.fill_between(
        probit(band.false_accepts), low, high, color=colour_of(0), alpha=0.14, linewidth=0, gid="band"
    )


def _mark(axes: Axes, limits: _Limits, point: OperatingPoint, marker: str, colour: str, gid: str) -> None:
    """A point; one beyond the axes stands at their end."""
    x, y = probit(
        np.clip([point.false_accepts, point.false_rejects], [limits.low_x, limits.low_y], limits.high)
    )
    axes.plot(
        [x],
        [y],
        marker=marker,
        markersize=6.5,
        markerfacecolor=PAPER,
        markeredgecolor=colour,
        markeredgewidth=1.6,
        linestyle="",
        clip_on=False,
        zorder=4,
        gid=gid,
    )
