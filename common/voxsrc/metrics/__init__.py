"""The numbers that a verification system is judged by, and how sure they are. Imports nothing but NumPy.

`error_rates` makes operating points of scores; `equal_error_rate` and `min_dcf` read them, as the VoxSRC
challenge defines both, and `eer_point` gives the threshold of the first. `actual_dcf`, `cllr` and `min_cllr`
judge log-likelihood ratios. `resample` gives speaker-bootstrap intervals of any of them, and
`paired_differences` tests two systems on the same trials.
"""

from voxsrc.metrics.bootstrap import (
    Interval,
    PairedDifference,
    Resamples,
    Speakers,
    paired_differences,
    resample,
    told_left_out,
)
from voxsrc.metrics.curves import DetPoints, det_points, probit, roc_convex_hull, roc_points
from voxsrc.metrics.llr_costs import (
    actual_dcf,
    actual_dcf_of_rates,
    cllr,
    cllr_of_rates,
    min_cllr,
    min_cllr_of_rates,
)
from voxsrc.metrics.rates import (
    ErrorRates,
    MetricError,
    OperatingPoint,
    SortedTrials,
    Statistic,
    Ties,
    eer_point,
    equal_error_rate,
    error_rates,
    min_dcf,
)

__all__ = [
    "DetPoints",
    "ErrorRates",
    "Interval",
    "MetricError",
    "OperatingPoint",
    "PairedDifference",
    "Resamples",
    "SortedTrials",
    "Speakers",
    "Statistic",
    "Ties",
    "actual_dcf",
    "actual_dcf_of_rates",
    "cllr",
    "cllr_of_rates",
    "det_points",
    "eer_point",
    "equal_error_rate",
    "error_rates",
    "min_cllr",
    "min_cllr_of_rates",
    "min_dcf",
    "paired_differences",
    "probit",
    "resample",
    "roc_convex_hull",
    "roc_points",
    "told_left_out",
]
