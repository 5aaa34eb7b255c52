"""DET curves, score histograms, thresholds, calibration."""

from collections.abc import Mapping
from dataclasses import dataclass

from evaluator.report.analysis import Analysis
from evaluator.report.data import FloatArray
from evaluator.report.intervals import Band, affordable_resamples, det_band
from evaluator.report.operating import min_dcf_point, named_points
from evaluator.report.plots.calibration import calibration_plot
from evaluator.report.plots.det import det_plot
from evaluator.report.plots.drawing import Plot
from evaluator.report.plots.histogram import Scores, histogram_plot
from evaluator.report.tables import Cell, Column, Table, number_text, percent
from voxsrc.metrics import OperatingPoint, eer_point
from voxsrc.scoring.calibration import threshold as bayes_threshold

_MOST_PANELS = 4


@dataclass(frozen=True)
class Curves:
    """What the two sections show.

    Attributes:
        det: DET curves of all systems.
        histogram: Score histograms of the first systems.
        histogram_caption: Says which, and what the lines are.
        thresholds: Of the main system.
        thresholds_mean: What to do with them.
        calibration: Of the systems with log-likelihood ratios; None if there are none.
    """

    det: Plot
    histogram: Plot
    histogram_caption: str
    thresholds: Table
    thresholds_mean: str
    calibration: Plot | None


def curves(analysis: Analysis) -> Curves:
    """Draws what depends on scores and labels alone."""
    systems = analysis.data.systems
    scores = systems[0].scores

    def band_at(false_accepts: FloatArray) -> Band | None:
        num_resamples = affordable_resamples(len(scores))
        return det_band(scores, analysis.is_target, analysis.speakers.pairs, false_accepts, num_resamples)

    names = [system.name for system in systems]
    p_target = analysis.data.p_target
    det = det_plot(
        names, analysis.rates, analysis.num_targets, analysis.num_others, band_at, p_target=p_target
    )
    panels = [_panel(analysis, number) for number in range(min(len(systems), _MOST_PANELS))]
    calibrated = [number for number, rates in enumerate(analysis.llr_rates) if rates is not None]
    p_targets = dict.fromkeys((p_target, 0.01))
    return Curves(
        det=det,
        histogram=histogram_plot(panels, analysis.is_target, p_target),
        histogram_caption=_histogram_caption(len(systems)),
        thresholds=threshold_table(
            named_points(analysis.rates[0], analysis.llr_rates[0], p_targets),
            "score" if analysis.llr_rates[0] is None else "log-likelihood ratio",
        ),
        thresholds_mean=_thresholds_mean(analysis),
        calibration=calibration_plot(
            [names[number] for number in calibrated],
            [rates for rates in analysis.llr_rates if rates is not None],
            calibrated,
            p_target,
        )
        if calibrated
        else None,
    )


def threshold_table(points: Mapping[str, OperatingPoint], scale: str) -> Table:
    """A row a threshold.

    Args:
        points: By what each is the threshold of.
        scale: "score", or "log-likelihood ratio".
    """
    columns = (
        Column("threshold", is_number=False),
        Column(scale),
        Column("different speakers accepted"),
        Column("same speaker rejected"),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            Cell(name),
            Cell(number_text(point.threshold), point.threshold),
            percent(point.false_accepts),
            percent(point.false_rejects),
        )
        for name, point in points.items()
    ]
    return Table("Thresholds, and the errors made at each", columns, rows)


def _panel(analysis: Analysis, number: int) -> Scores:
    system, llr_rates = analysis.data.systems[number], analysis.llr_rates[number]
    if system.llrs is not None and llr_rates is not None:
        return Scores(
            system.name,
            system.llrs,
            True,
            eer_point(llr_rates).threshold,
            bayes_threshold(analysis.data.p_target),
        )
    rates = analysis.rates[number]
    least = min_dcf_point(rates, analysis.data.p_target).threshold
    return Scores(system.name, system.scores, False, eer_point(rates).threshold, least)


def _histogram_caption(num_systems: int) -> str:
    left_out = f" The first {_MOST_PANELS} of {num_systems} systems." if num_systems > _MOST_PANELS else ""
    return (
        "The less the two kinds overlap, the better. Both areas are equal, whatever the number of trials. "
        f"Trials at or right of a line are accepted with that threshold.{left_out}"
    )


def _thresholds_mean(analysis: Analysis) -> str:
    main = analysis.data.main.name
    if analysis.llr_rates[0] is None:
        return (
            f"Of {main}, found on these trials: elsewhere the same threshold may err otherwise. In "
            "brackets is how often the speaker is assumed to be the same."
        )
    return (
        f"Of {main}. A Bayes threshold follows from how often the speaker is assumed to be the same (in "
        "brackets) and was fixed before these trials were seen; the other thresholds were found on these "
        "trials, so they are only for comparison."
    )
