"""What was measured: rows, printed as one table and written as JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from timing import Pairs


@dataclass(frozen=True)
class Target:
    """What a row must reach.

    Attributes:
        value: The bound.
        of: Which of the row's figures it bounds.
        bound: On which side.
    """

    value: float
    of: Literal["ours", "ratio"] = "ratio"
    bound: Literal["at least", "at most"] = "at least"

    def __str__(self) -> str:
        sign = "≥" if self.bound == "at least" else "≤"
        return f"{sign} {self.value:,g}" + (" ×" if self.of == "ratio" else "")


@dataclass(frozen=True)
class Row:
    """One thing measured.

    Attributes:
        name: Stable key in the JSON.
        title: What it is, for people.
        unit: Of `ours` and `reference`.
        ours: Our figure; None if it could not be measured here.
        reference: The figure that it is compared with, if any.
        reference_is: What that is.
        ratio: How much better ours is; of alternating runs the median of the pairs.
        target: What must be reached, if anything.
        details: Further figures.
        skipped: Why nothing was measured; empty if it was.
    """

    name: str
    title: str
    unit: str = ""
    ours: float | None = None
    reference: float | None = None
    reference_is: str = ""
    ratio: float | None = None
    target: Target | None = None
    details: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the target is reached; None without one, or if nothing was measured."""
        value = None if self.target is None else getattr(self, self.target.of)
        if self.target is None or value is None:
            return None
        # Four digits: an error of half a step exceeds it by float32's rounding.
        value = float(f"{value:.4g}")
        return bool(
            value >= self.target.value if self.target.bound == "at least" else value <= self.target.value
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "passed": self.passed}


def rate_row(
    name: str,
    title: str,
    pairs: Pairs,
    amount: tuple[float, float],
    *,
    unit: str = "× real time",
    reference_is: str,
    target: Target | None = None,
    details: dict[str, Any] | None = None,
) -> Row:
    """A row of two rates from alternating runs.

    Args:
        name: As in Row, like the other arguments that are not here.
        title: See Row.
        pairs: The runs.
        amount: What each run of ours and of the reference worked through, in units · seconds: of audio for
            `× real time`, in crops for `crops/s`.
        unit: See Row.
        reference_is: See Row.
        target: See Row.
        details: Added to those of the runs.
    """
    scale = amount[0] / amount[1]
    ratios = [ratio * scale for ratio in pairs.ratios]
    return Row(
        name,
        title,
        unit,
        ours=amount[0] / pairs.ours_s,
        reference=amount[1] / pairs.theirs_s,
        reference_is=reference_is,
        ratio=pairs.ratio * scale,
        target=target,
        details={
            "num_pairs": len(ratios),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            "ratio_of_cpu_time": pairs.cpu_ratio * scale,
            "ours_s": pairs.ours_s,
            "reference_s": pairs.theirs_s,
            **(details or {}),
        },
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    header = ("", "ours", "reference", "ratio (range)", "target", "")
    lines = [header, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(texts)


def write_json(path: Path, rows: Sequence[Row], conditions: dict[str, Any]) -> None:
    """Writes the rows and the conditions under which they were measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"conditions": conditions, "rows": [row.to_dict() for row in rows]}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _cells(row: Row) -> tuple[str, ...]:
    if row.skipped:
        return (row.title, f"not measured: {row.skipped}", "", "", str(row.target or ""), "")
    mark = {True: "pass", False: "FAIL", None: ""}[row.passed]
    reference = "" if row.reference is None else f"{_number(row.reference)} ({row.reference_is})"
    ratio = "" if row.ratio is None else _number(row.ratio)
    if "ratio_min" in row.details:
        ratio += f" ({_number(row.details['ratio_min'])}–{_number(row.details['ratio_max'])})"
    ours = "" if row.ours is None else f"{_number(row.ours)} {row.unit}"
    return (row.title, ours, reference, ratio, str(row.target or ""), mark)


def _number(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"
