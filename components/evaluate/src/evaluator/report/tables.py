"""Tables as text that is ready to be shown, and how numbers are written in them."""

import math
from dataclasses import dataclass

from evaluator.report.data import Estimate
from evaluator.report.metric import Metric

_NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Column:
    """One column; numbers are aligned at the right and sorted as such."""

    label: str
    is_number: bool = True


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: What is shown.
        key: What rows are sorted by; `text` if None. NaN comes last.
        note: A second line, smaller.
    """

    text: str
    key: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its heading.

    Attributes:
        caption: What it shows, in one phrase.
        columns: Its columns.
        rows: As many cells each as there are columns.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: list[tuple[Cell, ...]]


MISSING = Cell("–", math.nan)


def count(number: int) -> Cell:
    """A number of things."""
    return Cell(f"{number:,}", number)


def percent(rate: float) -> Cell:
    """A rate in [0, 1]."""
    return Cell(percentage(rate), rate)


def percentage(rate: float) -> str:
    """A rate in [0, 1] as text, with two digits after the point where it is small."""
    digits = 1 if rate >= 0.1 else 2
    return f"{100 * rate:.{digits}f}{_NO_BREAK}%"


def number_text(value: float) -> str:
    """A score or threshold."""
    if not math.isfinite(value):
        return "none" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    return f"{value:.3f}".replace("-", "−")


def metric_cell(metric: Metric, estimate: Estimate | None, *, signed: bool = False) -> Cell:
    """A value with its interval below it."""
    if estimate is None:
        return MISSING
    note = ""
    if estimate.has_interval:
        low, high = (metric.text(end, signed=signed) for end in (estimate.low, estimate.high))
        note = f"[{low},{_NO_BREAK}{high}]"
    return Cell(metric.text(estimate.value, signed=signed) + metric.unit, estimate.value, note)


def p_text(p_value: float) -> str:
    """A p value; very small ones are only bounded."""
    if math.isnan(p_value):
        return "–"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
