"""What an evaluation tells: metrics, report, Kubeflow's outputs, a summary on the terminal.

Letters: N trials.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

import voxsrc
from evaluator.clips import Clips
from evaluator.report import REPORT_NAME, Comparison, Estimate, ReportData, System, write_report
from evaluator.report.metric import Metric, metrics_at
from evaluator.results import Measured, as_json, measure, write_kubeflow_outputs, write_metrics
from evaluator.scored import Evaluation, Scores
from voxsrc import storage
from voxsrc.metrics import paired_differences, told_left_out

METRICS_NAME = "metrics.json"


def report(evaluation: Evaluation, labels: NDArray[Any], systems: Mapping[str, Scores], clips: Clips) -> None:
    """Measures the systems, the evaluated one first; writes and prints what was found.

    Args:
        evaluation: What was evaluated; warnings are added to it.
        labels: (N,) of the trials.
        systems: Scores by name.
        clips: Of the recordings, for the players.
    """
    options, trials = evaluation.options, evaluation.trials
    measured = {
        name: measure(
            scores,
            labels,
            evaluation.speakers,
            p_target=options.p_target,
            num_resamples=options.num_resamples,
        )
        for name, scores in systems.items()
    }
    comparisons = _comparisons(measured)
    main = measured[options.system_name]
    if main.no_intervals:
        evaluation.warnings.append(f"there are no intervals: {main.no_intervals}")
    if main.resamples is not None and (told := told_left_out(main.resamples, options.num_resamples)):
        evaluation.warnings.append(told)
    write_metrics(evaluation.uri(METRICS_NAME), _metrics_json(evaluation, measured, comparisons))
    data = ReportData(
        title=options.title,
        systems=[
            System(name, scores.raw, scores.llrs, measured[name].estimates)
            for name, scores in systems.items()
        ],
        labels=labels,
        enrollments=trials.enrollments,
        tests=trials.tests,
        speakers=evaluation.speakers,
        p_target=options.p_target,
        conditions=evaluation.conditions,
        comparisons=comparisons,
        facts=_facts(evaluation),
        warnings=evaluation.warnings,
        clips=clips,
    )
    write_report(options.output, data)
    if options.report_path:
        path = Path(options.report_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.write_bytes(str(path), storage.read_bytes(evaluation.uri(REPORT_NAME)))
    if options.executor_input:
        write_kubeflow_outputs(options.executor_input, main.estimates, evaluation.scores, labels)
    metrics = metrics_at(options.p_target)
    for key, metric in metrics.items():
        if key in main.estimates:
            print(f"{metric.label}: {_told(metric, main.estimates[key])}")
    print(f"report: {evaluation.uri(REPORT_NAME)}")


def _comparisons(measured: Mapping[str, Measured]) -> list[Comparison]:
    """The main system against each other, with intervals and p-values."""
    (main, of_main), *others = measured.items()
    found = []
    for name, of_other in others:
        if of_main.resamples is None or of_other.resamples is None:
            continue
        for key, test in paired_differences(of_main.resamples, of_other.resamples).items():
            difference = Estimate(test.difference, test.interval.low, test.interval.high)
            found.append(Comparison(main, name, key, difference, test.p_value))
    return found


def _facts(evaluation: Evaluation) -> dict[str, str]:
    options, model = evaluation.options, evaluation.model
    num_parameters = sum(parameter.numel() for parameter in model.encoder.parameters())
    steps = model.description.metrics.get("steps")
    return {
        "Trials": f"{options.trials}: {evaluation.recognition.description}",
        "Model": f"{model.description.encoder.name}, {num_parameters:,} parameters"
        + (f", {steps:,} steps" if isinstance(steps, int) else ""),
        "Model folder": f"{options.model} (SHA-256 {model.model_hash[:16]}…)",
        "Speech": evaluation.utterances.uri,
        "Scoring": evaluation.description,
        "Calibration": evaluation.calibration.source,
        "Version": f"voxsrc {voxsrc.__version__}",
    }


def _metrics_json(
    evaluation: Evaluation, measured: Mapping[str, Measured], comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    """`eer`, `min_dcf` and the rest with their intervals, and what they are of."""
    options, trials = evaluation.options, evaluation.trials
    main, *others = measured
    resamples = measured[main].resamples
    speakers = {name for pair in evaluation.speakers or () for name in pair}
    calibration = evaluation.calibration.map
    return {
        **as_json(measured[main].estimates),
        "p_target": options.p_target,
        "num_trials": len(trials),
        "num_targets": int(trials.labels.sum()) if trials.labels is not None else None,
        "num_speakers": len(speakers) or None,
        "num_resamples": options.num_resamples if resamples is not None else 0,
        "num_resamples_left_out": resamples.num_left_out if resamples is not None else 0,
        "trials": options.trials,
        "trial_list": evaluation.recognition.name,
        "model": options.model,
        "model_hash": evaluation.model.model_hash,
        "features": evaluation.utterances.uri,
        "scoring": options.system_name,
        "calibration": calibration.to_dict() if calibration is not None else None,
        "warnings": evaluation.warnings,
        "other_systems": {name: as_json(measured[name].estimates) for name in others},
        "comparisons": [
            {
                "system": comparison.system,
                "other": comparison.other,
                "metric": comparison.metric,
                "difference": comparison.difference.value,
                "interval": [comparison.difference.low, comparison.difference.high],
                "p_value": comparison.p_value,
            }
            for comparison in comparisons
        ],
        "voxsrc_version": voxsrc.__version__,
    }


def _told(metric: Metric, estimate: Estimate) -> str:
    value = f"{metric.text(estimate.value)}{metric.unit}"
    if not estimate.has_interval:
        return value
    return (
        f"{value} (95 % interval over speakers {metric.text(estimate.low)} to {metric.text(estimate.high)})"
    )
