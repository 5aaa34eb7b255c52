"""What calibration costs: the normalised Bayes error over all priors, as it is and as it could be.

Chosen over a reliability diagram because it needs no bins (which few trials leave empty), does not depend on
the list's own share of target trials, and shows several systems on one pair of axes. Letters: Q priors.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.lines import Line2D

from evaluator.report.data import FloatArray
from evaluator.report.metric import share_text
from evaluator.report.plots.drawing import (
    INK,
    MUTED,
    Plot,
    colour_of,
    finish,
    legend_below,
    new_figure,
    shortened,
    styled,
)
from voxsrc.metrics import ErrorRates, actual_dcf_of_rates, min_dcf, roc_convex_hull

_PRIOR_TICKS = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
_NUM_PRIORS = 161
_MINIMUM_DASHES = (0, (3, 2))


def bayes_errors(rates: ErrorRates, priors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Actual and minimum normalised Bayes error of log-likelihood ratios.

    The detection costs with C_miss = C_fa = 1 as functions of the prior (Brümmer and de Villiers, "The
    BOSARIS toolkit", 2011, section 5).

    Args:
        rates: The error rates of the log-likelihood ratios.
        priors: (Q,) probabilities of a target trial.

    Returns:
        Both (Q,).
    """
    hull = roc_convex_hull(rates)
    actual = np.array([actual_dcf_of_rates(rates, float(prior)) for prior in priors])
    return actual, np.array([min_dcf(hull, float(prior)) for prior in priors])


def calibration_plot(
    names: Sequence[str], rates: Sequence[ErrorRates], positions: Sequence[int], p_target: float
) -> Plot:
    """Actual error as a solid line, minimum as a dashed one.

    Args:
        names: Of the systems that have log-likelihood ratios.
        rates: The error rates of these.
        positions: Their positions in the report, for the colours.
        p_target: The prior that the report's costs assume.
    """
    log_odds = np.linspace(_log_odds(_PRIOR_TICKS[0]), _log_odds(_PRIOR_TICKS[-1]), _NUM_PRIORS)
    share = share_text(p_target)
    priors = 1 / (1 + np.exp(-log_odds))
    with styled():
        figure = new_figure(4.9)
        axes = figure.subplots()
        axes.axhline(1.0, color=MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
        axes.axvline(_log_odds(p_target), color=MUTED, linewidth=0.9)
        handles, texts, highest = [], [], 0.0
        for name, each, position in zip(names, rates, positions, strict=True):
            actual, best = bayes_errors(each, priors)
            colour = colour_of(position)
            axes.plot(log_odds, actual, color=colour, gid=f"actual-{position}")
            axes.plot(
                log_odds,
                best,
                color=colour,
                linestyle=_MINIMUM_DASHES,
                linewidth=1.3,
                gid=f"minimum-{position}",
            )
            if len(names) == 1:
                axes.fill_between(log_odds, best, actual, color=colour, alpha=0.10, linewidth=0)
            highest = max(highest, float(actual.max()))
            handles.append(Line2D([], [], color=colour, label=shortened(name)))
            (at_prior,), (best_there,) = bayes_errors(each, np.array([p_target]))
            texts.append(
                f"{name}: {at_prior:.3f} at a prior of {share}, {best_there:.3f} at the best threshold"
            )
        axes.set_xlim(log_odds[0], log_odds[-1])
        # An error far above 1 is off the plot: how far does not matter, and the others stay readable.
        axes.set_ylim(0, min(max(1.15, 1.05 * highest), 2.0))
        axes.set_xticks(
            [_log_odds(tick) for tick in _PRIOR_TICKS], [f"{100 * tick:g}" for tick in _PRIOR_TICKS]
        )
        axes.set_xlabel("prior probability of the same speaker, %")
        axes.set_ylabel("normalised Bayes error")
        axes.annotate(
            "deciding without listening",
            (1, 1),
            (0, 4),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            color=MUTED,
            fontsize=8.5,
        )
        handles += [
            Line2D([], [], color=INK, label="as calibrated"),
            Line2D(
                [], [], color=INK, linestyle=_MINIMUM_DASHES, linewidth=1.3, label="at the best threshold"
            ),
            Line2D([], [], color=MUTED, linewidth=0.9, label=f"prior of the costs, {share}"),
        ]
        legend_below(figure, handles)
        return finish(figure, "calibration", f"Normalised Bayes error over priors. {'; '.join(texts)}.")


def _log_odds(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))
