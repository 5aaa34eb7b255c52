"""The numbers of an evaluation, and the forms in which they are handed on."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluator.report import Estimate
from evaluator.scored import Scores
from voxsrc import storage
from voxsrc.metrics import (
    MetricError,
    Resamples,
    Statistic,
    actual_dcf_of_rates,
    cllr_of_rates,
    equal_error_rate,
    error_rates,
    min_cllr_of_rates,
    min_dcf,
    resample,
    roc_points,
)

FloatArray = NDArray[np.float64]
_SEED = 0
_MAX_ROC_POINTS = 200


@dataclass(frozen=True, eq=False)
class Measured:
    """The metrics of one system.

    Attributes:
        estimates: By keys of `report.data.METRICS`.
        resamples: Of its scores; None without intervals.
        no_intervals: Why there are none though they were asked for; empty otherwise.
    """

    estimates: Mapping[str, Estimate]
    resamples: Resamples | None
    no_intervals: str = ""


def measure(
    scores: Scores,
    labels: NDArray[Any],
    speakers: Sequence[tuple[str, str]] | None,
    *,
    p_target: float,
    num_resamples: int,
) -> Measured:
    """All metrics of a system, with 95 % intervals over speakers if these are known.

    Args:
        scores: Of the system; without calibrated ones, what needs them is left out.
        labels: (N,) 1 or 0.
        speakers: N pairs; None gives no intervals.
        p_target: Of minDCF and actual DCF.
        num_resamples: Of the speakers; 0 gives no intervals.

    Raises:
        MetricError: If a score is not finite or one kind of trials is missing.
    """
    of_scores: dict[str, Statistic] = {
        "eer": equal_error_rate,
        "min_dcf": lambda rates: min_dcf(rates, p_target),
        "min_dcf_p01": lambda rates: min_dcf(rates, 0.01),
        "min_cllr": min_cllr_of_rates,
    }
    of_llrs: dict[str, Statistic] = {
        "actual_dcf": lambda rates: actual_dcf_of_rates(rates, p_target),
        "cllr": cllr_of_rates,
    }
    drawn, of_drawn, reason = None, None, ""
    if speakers is not None and num_resamples:
        try:
            drawn = resample(of_scores, scores.raw, labels, speakers, num_resamples=num_resamples, seed=_SEED)
            if scores.llrs is not None:
                of_drawn = resample(
                    of_llrs, scores.llrs, labels, speakers, num_resamples=num_resamples, seed=_SEED
                )
        except MetricError as error:
            # Too few speakers to draw others. Were the scores at fault, the metrics below would say so.
            reason = str(error)
    estimates = _estimates(of_scores, scores.raw, labels, drawn)
    if scores.llrs is not None:
        estimates |= _estimates(of_llrs, scores.llrs, labels, of_drawn)
    return Measured(estimates, drawn, reason)


def _estimates(
    statistics: Mapping[str, Statistic], scores: FloatArray, labels: NDArray[Any], drawn: Resamples | None
) -> dict[str, Estimate]:
    if drawn is None:
        rates = error_rates(scores, labels)
        return {name: Estimate(statistic(rates)) for name, statistic in statistics.items()}
    intervals = {name: drawn.interval(name) for name in statistics}
    return {
        name: Estimate(drawn.estimates[name], intervals[name].low, intervals[name].high)
        for name in statistics
    }


def as_json(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """`eer`, `eer_interval`, …; an interval is [low, high], or null where there is none."""
    fields: dict[str, Any] = {}
    for name, estimate in estimates.items():
        fields[name] = estimate.value
        fields[f"{name}_interval"] = [estimate.low, estimate.high] if estimate.has_interval else None
    return fields


def write_metrics(uri: str, fields: Mapping[str, Any]) -> None:
    """Writes `metrics.json`."""
    storage.write_bytes(uri, (json.dumps(fields, indent=1, ensure_ascii=False) + "\n").encode())


def write_kubeflow_outputs(
    executor_input: str, estimates: Mapping[str, Estimate], scores: FloatArray, labels: NDArray[Any]
) -> None:
    """Hands Kubeflow the metrics and the ROC; the report's file lies where the launcher looks for it.

    Raises:
        ConfigError: If the executor input is none, or names no such outputs.
    """
    from voxsrc.kfp_output import write_executor_output

    metrics = {
        name: value
        for name, estimate in estimates.items()
        for name, value in (
            (name, estimate.value),
            (f"{name}_low", estimate.low),
            (f"{name}_high", estimate.high),
        )
        if math.isfinite(value)
    }
    write_executor_output(
        executor_input,
        metrics={"metrics": metrics},
        artifacts={"roc": {"confidenceMetrics": _roc(scores, labels)}, "report": {}},
    )


def _roc(scores: FloatArray, labels: NDArray[Any]) -> list[dict[str, float]]:
    """The ROC as ClassificationMetrics has it, thinned: its thresholds must be finite."""
    points = roc_points(error_rates(scores, labels), _MAX_ROC_POINTS)
    return [
        {
            "confidenceThreshold": float(threshold),
            "falsePositiveRate": float(accepts),
            "recall": float(1 - rejects),
        }
        for threshold, accepts, rejects in zip(
            points.thresholds, points.false_accepts, points.false_rejects, strict=True
        )
        if math.isfinite(threshold)
    ]
