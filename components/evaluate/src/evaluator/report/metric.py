"""The metrics that a report knows, and how their values are written."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        label: Its name in tables.
        meaning: One sentence for a reader who does not know it.
        percent: Shown in percent, as error rates are.
    """

    label: str
    meaning: str
    percent: bool = False

    def text(self, value: float, *, signed: bool = False) -> str:
        """A value, without its unit."""
        if not math.isfinite(value):
            return "–"
        sign = "+" if signed else ""
        number = f"{100 * value:{sign}.2f}" if self.percent else f"{value:{sign}.3f}"
        return number.replace("-", "−")

    @property
    def unit(self) -> str:
        """What follows a value."""
        return "\N{NO-BREAK SPACE}%" if self.percent else ""


def share_text(share: float) -> str:
    """A share in percent, as short as it can be: 5 %, 0.1 %."""
    return f"{100 * share:.4g}\N{NO-BREAK SPACE}%"


def metrics_at(p_target: float) -> Mapping[str, Metric]:
    """The metrics by key, in the order to be shown, where minDCF and actual DCF assume a share of targets.

    `min_dcf_p01` is left out where it would be `min_dcf` again.
    """
    share = share_text(p_target)
    metrics = {
        "eer": Metric(
            "EER",
            "Equal error rate: the share of wrong decisions at the threshold where as large a share of "
            "same-speaker trials is rejected as of different-speaker trials is accepted.",
            percent=True,
        ),
        "min_dcf": Metric(
            f"minDCF ({share})",
            f"The challenge's cost of errors where {share} of all trials are of the same speaker, at the "
            "threshold that is best for these trials; 1 is no better than deciding without listening.",
        ),
        "min_dcf_p01": Metric(
            f"minDCF ({share_text(0.01)})",
            f"The same cost where {share_text(0.01)} of all trials are of the same speaker.",
        ),
        "actual_dcf": Metric(
            f"actual DCF ({share})",
            "The cost at the threshold that the calibrated scores themselves prescribe. By as much as it "
            "exceeds minDCF, calibration is off.",
        ),
        "cllr": Metric(
            "Cllr",
            "How much the log-likelihood ratios mislead over all thresholds, in bits; 0 is perfect, 1 says "
            "nothing.",
        ),
        "min_cllr": Metric("min Cllr", "Cllr after the best monotonic recalibration on these very trials."),
    }
    if share == share_text(0.01):
        del metrics["min_dcf_p01"]
    return metrics


METRICS = metrics_at(0.05)
