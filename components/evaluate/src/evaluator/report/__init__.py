"""The report of an evaluation: one page that needs no network, and its plots beside it.

`write_report` makes it of `ReportData`. Within: `data` is checked on construction; `sections` compute what is
shown; `plots` draw; `page` holds template, style and script.
"""

from evaluator.report.data import (
    Comparison,
    Condition,
    Estimate,
    ReportData,
    ReportError,
    System,
)
from evaluator.report.metric import METRICS
from evaluator.report.writing import PLOT_NAME, REPORT_NAME, write_report

__all__ = [
    "METRICS",
    "PLOT_NAME",
    "REPORT_NAME",
    "Comparison",
    "Condition",
    "Estimate",
    "ReportData",
    "ReportError",
    "System",
    "write_report",
]
