"""`voxsrc metrics`: error rates of a score file, with intervals, and a test between two files."""

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from voxsrc.command import add_debug_flag, warn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from voxsrc.corpus import TrialList
    from voxsrc.metrics import Resamples
    from voxsrc.scores import MatchedScores

_LEVEL = 0.95
_SECOND_P_TARGET = 0.01


def add_commands(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `metrics`."""
    command = groups.add_parser(
        "metrics",
        help="EER and minDCF of a score file, with intervals",
        description=_metrics.__doc__,
    )
    command.add_argument("--scores", required=True, metavar="FILE", help="lines `score path path`")
    command.add_argument("--trials", required=True, metavar="FILE", help="lines `1|0 path path`")
    command.add_argument(
        "--compare",
        metavar="[NAME=]FILE",
        help="another system's scores of the same trials; its name is otherwise the file's, or the folder's "
        "of a scores.txt",
    )
    command.add_argument(
        "--speakers",
        metavar="LIST",
        help="lines `speaker path`, for the intervals (default: from paths `speaker/session/file`)",
    )
    command.add_argument(
        "--p-target", type=float, default=0.05, help="P_target of minDCF (default: %(default)s, as VoxSRC)"
    )
    command.add_argument(
        "--resamples",
        type=int,
        default=1000,
        metavar="N",
        help="draws of the speakers for the intervals, 0 for none (default: %(default)s)",
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(function=_metrics)
    add_debug_flag(command)


def _metrics(parsed: argparse.Namespace) -> None:
    """Prints EER and minDCF as the challenge defines them, with 95 % intervals over draws of the speakers."""
    summary = summarise(
        parsed.scores,
        parsed.trials,
        compare=parsed.compare,
        speakers=parsed.speakers,
        p_target=parsed.p_target,
        num_resamples=parsed.resamples,
    )
    for warning in summary["warnings"]:
        warn(warning)
    print(json.dumps(summary, indent=1, ensure_ascii=False) if parsed.json else _readable(summary))


def summarise(
    scores_uri: str,
    trials_uri: str,
    *,
    compare: str | None = None,
    speakers: str | None = None,
    p_target: float = 0.05,
    num_resamples: int = 1000,
) -> dict[str, Any]:
    """The figures that `--json` prints.

    Args:
        scores_uri: Lines `score path path`.
        trials_uri: Lines `1|0 path path`.
        compare: Another system's scores, `NAME=URI` or `URI`.
        speakers: List `speaker path` of the trials' utterances; by default the paths name the speakers.
        p_target: Of `min_dcf`; `min_dcf_p01` has 0.01.
        num_resamples: Draws of the speakers; 0 for no intervals.

    Raises:
        ConfigError: If `p_target` or `num_resamples` is out of range.
        VoxsrcError: If a file cannot be read or used, or one kind of trials is missing.
    """
    from voxsrc.corpus import read_trials
    from voxsrc.errors import ConfigError, CorpusError
    from voxsrc.metrics import told_left_out
    from voxsrc.scores import matched, named_scores, read_scores
    from voxsrc.trial_lists import recognise

    name, compare_uri = named_scores(compare) if compare else ("", "")
    if not 0 < p_target < 1:
        raise ConfigError(f"--p-target is {p_target:g}; expected a probability between 0 and 1")
    if num_resamples < 0:
        raise ConfigError(f"--resamples is {num_resamples}; expected at least 0")
    trials = read_trials(trials_uri)
    if trials.labels is None:
        raise CorpusError(f"{trials_uri} has no labels; error rates need lines `1|0 path path`")
    labels = trials.labels
    recognised = recognise(trials_uri)
    warnings = [recognised.caution] if recognised.caution else []
    pairs = _speakers(trials, speakers, warnings) if num_resamples else None

    def figures(uri: str) -> "tuple[dict[str, Any], Resamples | None]":
        file = read_scores(uri)
        found = matched(file, trials)
        _warn_of_scores(uri, found, labels, warnings)
        rates, resamples = _measure(found.scores, labels, pairs, p_target, num_resamples, warnings)
        counts = {"num_swapped": found.num_swapped, "num_extra": found.num_extra}
        return {"scores": uri, **rates, **counts, "num_duplicates": file.num_duplicates}, resamples

    measured, resamples = figures(scores_uri)
    summary = {
        "trials": trials_uri,
        "trial_list": recognised.name,
        "trial_list_description": recognised.description,
        "num_trials": len(trials),
        "num_targets": int(labels.sum()),
        "num_speakers": len({name for pair in pairs for name in pair}) if pairs else None,
        "p_target": p_target,
        "interval_level": _LEVEL,
        "num_resamples": num_resamples if resamples else 0,
        "num_resamples_left_out": resamples.num_left_out if resamples else 0,
        **measured,
    }
    if resamples and (told := told_left_out(resamples, num_resamples)):
        warnings.append(told)
    if compare_uri:
        other, other_resamples = figures(compare_uri)
        differences = _differences(resamples, other_resamples)
        summary["comparison"] = {"name": name, **other, "differences": differences}
    summary["warnings"] = list(dict.fromkeys(warnings))
    return summary


def _speakers(
    trials: "TrialList", speakers_uri: str | None, warnings: list[str]
) -> list[tuple[str, str]] | None:
    """The speakers of each trial, None if they cannot be known; says why in `warnings`."""
    from voxsrc.corpus import read_utterance_list
    from voxsrc.trial_lists import contradictions, speaker_pairs, told_contradictions, trusted_speakers

    if not speakers_uri:
        speaker_of, reason = trusted_speakers(trials)
        if speaker_of is None:
            warnings.append(f"no intervals: {reason}; give --speakers")
            return None
        return speaker_pairs(trials, speaker_of)
    listed = {u.utterance_id: u.speaker_id for u in read_utterance_list(speakers_uri)}
    pairs = speaker_pairs(trials, listed)
    if wrong := contradictions(trials, pairs):
        found = told_contradictions(trials, listed, wrong, speakers_uri)
        warnings.append(f"{found}; check the list, the intervals rely on it")
    return pairs


def _warn_of_scores(
    uri: str, found: "MatchedScores", labels: "NDArray[np.int8]", warnings: list[str]
) -> None:
    import numpy as np

    if found.num_swapped:
        warnings.append(
            f"{uri}: {found.num_swapped:,} trials have the score of their pair the other way round"
        )
    if np.array_equal(found.scores, labels):
        warnings.append(f"{uri}: every score equals the trial's label; is it a trial list?")


def _measure(
    scores: "NDArray[np.float64]",
    labels: "NDArray[np.int8]",
    pairs: list[tuple[str, str]] | None,
    p_target: float,
    num_resamples: int,
    warnings: list[str],
) -> "tuple[dict[str, Any], Resamples | None]":
    from voxsrc.metrics import (
        MetricError,
        Statistic,
        eer_point,
        equal_error_rate,
        error_rates,
        min_dcf,
        resample,
    )

    statistics: dict[str, Statistic] = {
        "eer": equal_error_rate,
        "min_dcf": lambda rates: min_dcf(rates, p_target),
        "min_dcf_p01": lambda rates: min_dcf(rates, _SECOND_P_TARGET),
    }
    rates = error_rates(scores, labels)
    resamples = None
    if pairs:
        try:
            resamples = resample(statistics, scores, labels, pairs, num_resamples=num_resamples)
        except MetricError as error:
            warnings.append(f"no intervals: {error}")
    figures: dict[str, Any] = {}
    for name, statistic in statistics.items():
        interval = resamples.interval(name, _LEVEL) if resamples else None
        figures[name] = statistic(rates)
        figures[f"{name}_interval"] = [interval.low, interval.high] if interval else None
    figures["eer_threshold"] = eer_point(rates).threshold
    if figures["eer"] > 0.5:
        warnings.append("EER above 50 %; are the scores distances? Higher must mean the same speaker")
    return figures, resamples


def _differences(first: "Resamples | None", second: "Resamples | None") -> dict[str, dict[str, Any]] | None:
    from voxsrc.metrics import paired_differences

    if first is None or second is None:
        return None
    return {
        name: {
            "difference": test.difference,
            "interval": [test.interval.low, test.interval.high],
            "p_value": test.p_value,
        }
        for name, test in paired_differences(first, second, _LEVEL).items()
    }


def _readable(summary: Mapping[str, Any]) -> str:
    others = summary["num_trials"] - summary["num_targets"]
    speakers = f", {summary['num_speakers']:,} speakers" if summary["num_speakers"] else ""
    lines = [
        f"trial list   {summary['trial_list_description']}",
        f"trials       {summary['num_targets']:,} target and {others:,} non-target{speakers}",
        *_figures(summary, summary["p_target"]),
    ]
    if summary["num_resamples"]:
        used = summary["num_resamples"] - summary["num_resamples_left_out"]
        resamples = f"{used:,} draws of the speakers"
        lines.append(f"[…] are {100 * summary['interval_level']:.0f} % intervals over {resamples}")
    other = summary.get("comparison")
    if other:
        lines += ["", *_figures(other, summary["p_target"])]
        for name, test in (other["differences"] or {}).items():
            unit, scale = (" points", 100) if name == "eer" else ("", 1)
            low, high = (scale * end for end in test["interval"])
            lines.append(
                f"{_title(name, summary['p_target']):<12} the first less {other['name']} "
                f"{scale * test['difference']:+.3f}{unit} [{low:+.3f}, {high:+.3f}], "
                f"p = {test['p_value']:.3g}"
            )
    return "\n".join(lines)


def _figures(figures: Mapping[str, Any], p_target: float) -> list[str]:
    counts = {
        "swapped": figures["num_swapped"],
        "not asked for": figures["num_extra"],
        "duplicated": figures["num_duplicates"],
    }
    odd = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    lines = [f"scores       {figures['scores']}{f' ({odd})' if odd else ''}"]
    for name in ("eer", "min_dcf", "min_dcf_p01"):
        value, interval, digits = figures[name], figures[f"{name}_interval"] or [], 4
        if name == "eer":
            value, interval, digits = 100 * value, [100 * end for end in interval], 3
        text = f"{value:.{digits}f}{' %' if name == 'eer' else ''}"
        ends = ", ".join(f"{end:.{digits}f}" for end in interval)
        threshold = f"  at threshold {figures['eer_threshold']:.4g}" if name == "eer" else ""
        lines.append(f"{_title(name, p_target):<12} {text}{f'  [{ends}]' if ends else ''}{threshold}")
    return lines


def _title(name: str, p_target: float) -> str:
    if name == "eer":
        return "EER"
    return f"minDCF {p_target if name == 'min_dcf' else _SECOND_P_TARGET:g}"
