"""What the report's DET plot draws, in the coordinates of its axes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluator.report.plots import det
from evaluator.report.plots.drawing import Plot
from voxsrc.metrics import eer_point, error_rates, min_dcf, probit


def useless_scores(num_of_each: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels by which it is best to decide without listening: the surest are all wrong."""
    scores = np.random.default_rng(0).standard_normal(2 * num_of_each)
    labels = np.arange(2 * num_of_each) % 2
    num_sure = 2 * (num_of_each // 5)
    scores[:num_sure] = np.where(labels[:num_sure] == 1, -5, 5)
    return scores, labels


class Drawn:
    """The axes of a DET plot of one system; its lines by their ids."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        scores: Sequence[float] | np.ndarray,
        labels: Sequence[int] | np.ndarray,
        p_target: float = 0.05,
    ) -> None:
        figures: list[Figure] = []

        def kept(figure: Figure, name: str, alt: str) -> Plot:
            figures.append(figure)
            return Plot(name, alt, "", b"")

        monkeypatch.setattr(det, "finish", kept)
        labels = np.asarray(labels)
        rates = error_rates(np.asarray(scores, float), labels)
        num_targets = int(labels.sum())
        det.det_plot(
            ["x"], [rates], num_targets, len(labels) - num_targets, lambda _: None, p_target=p_target
        )
        [figure] = figures
        self.axes: Axes = figure.axes[0]
        self.x_ends, self.y_ends = self.axes.get_xlim(), self.axes.get_ylim()
        self.lines: dict[Any, Any] = {line.get_gid(): line for line in self.axes.lines}

    def place(self, gid: str) -> tuple[float, float]:
        """Where a marker stands."""
        [[x, y]] = self.lines[gid].get_xydata()
        return x, y

    def ticks(self) -> list[list[str]]:
        """The labels of both axes."""
        shown = (self.axes.get_xticklabels(), self.axes.get_yticklabels())
        return [[label.get_text() for label in labels] for labels in shown]


@pytest.mark.parametrize(
    ("p_target", "x_end", "y_end"), [(0.05, 0, 1), (0.95, 1, 0)], ids=["reject all", "accept all"]
)
def test_a_useless_system_is_not_drawn_as_perfect(
    p_target: float, x_end: int, y_end: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, labels = useless_scores(1000)
    rates = error_rates(scores, labels)
    assert min_dcf(rates, p_target) == 1
    drawn = Drawn(monkeypatch, scores, labels, p_target)
    assert drawn.place("least-cost-0") == pytest.approx((drawn.x_ends[x_end], drawn.y_ends[y_end]))
    equal = eer_point(rates)
    assert drawn.place("equal-error-0") == pytest.approx(
        tuple(probit([equal.false_accepts, equal.false_rejects]))
    )


@pytest.mark.parametrize(
    ("scores", "labels", "x_end", "y_end"),
    [
        ([0, 1], [0, 1], 0, 0),
        ([1, 0], [0, 1], 0, 1),
        ([0, 0], [0, 1], 0, 1),
        ([0, 0, 0, 1], [0, 0, 0, 1], 0, 0),
        ([*range(2000), -1], [0] * 2000 + [1], 0, 1),
    ],
    ids=["right", "wrong", "equal", "3 and 1", "2000 and 1"],
)
def test_few_trials_have_axes(
    scores: list[float], labels: list[int], x_end: int, y_end: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Drawn(monkeypatch, scores, labels)
    for low, high in (drawn.x_ends, drawn.y_ends):
        assert low <= probit([0.1])[0] + 1e-9
        assert high >= probit([0.4])[0] - 1e-9
    assert all({"10", "20", "40"} <= set(ticks) for ticks in drawn.ticks())
    assert drawn.place("least-cost-0") == pytest.approx((drawn.x_ends[x_end], drawn.y_ends[y_end]))


def test_rates_beyond_the_axes_are_drawn_beyond_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a curve goes on past an end, it does not stop before it."""
    drawn = Drawn(monkeypatch, [1, 0, 3, 2], [0, 1, 0, 1])
    curve = drawn.lines["curve-0"].get_xydata()
    assert (curve.min(axis=0) < [drawn.x_ends[0], drawn.y_ends[0]]).all()
    assert (curve.max(axis=0) > [drawn.x_ends[1], drawn.y_ends[1]]).all()
