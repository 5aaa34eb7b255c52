"""The files of an evaluation, and of what they are: none replaces another's without being told to.

`evaluation.json` says of which model, trials and scoring the other files are. It is deleted first and written
last, by one run at a time (see `voxsrc.lease`): where it stands, all of them are whole.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from evaluator.options import TRAINED_SCORINGS, EvaluationOptions
from evaluator.report import PLOT_NAME, REPORT_NAME
from evaluator.reporting import METRICS_NAME
from evaluator.utterances import UNUSABLE_NAME
from voxsrc import storage
from voxsrc.corpus import TrialList
from voxsrc.errors import ConfigError, NotFoundError
from voxsrc.feature_set import read_manifest
from voxsrc.scores import SCORES_NAME
from voxsrc.scoring.fusion import HELD_OUT_SCORES_NAME, HELD_OUT_TRIALS_NAME

SETTINGS_NAME = "evaluation.json"
LLRS_NAME = "log_likelihood_ratios.txt"
SUBMISSION_NAME = "submission.zip"
_NAMES = (
    SETTINGS_NAME,
    REPORT_NAME,
    METRICS_NAME,
    SUBMISSION_NAME,
    SCORES_NAME,
    LLRS_NAME,
    HELD_OUT_TRIALS_NAME,
    HELD_OUT_SCORES_NAME,
    UNUSABLE_NAME,
)

Settings = Mapping[str, Any]


def settings_of(options: EvaluationOptions, model_hash: str, trials: TrialList) -> dict[str, Any]:
    """What decides scores and metrics, by the flags' names: evaluations with equal settings agree.

    What has a content to compare is there as `uri` and `sha256`, of which only the second counts. Recordings
    have none: their URIs do.

    Raises:
        NotFoundError: If a feature set is not there or not finished.
        FeatureSetError: If its manifest is damaged.
    """
    trained = options.scoring in TRAINED_SCORINGS
    return {
        "model": {"uri": options.model, "sha256": model_hash},
        "trials": {"uri": options.trials, "sha256": _hash_of_trials(trials)},
        "features": _of_feature_set(options.features),
        "audio": [] if options.features is not None else list(options.audio),
        "train_features": _of_feature_set(options.train_features),
        "scoring": options.scoring,
        "quality": options.quality,
        "top_cohort": options.top_cohort if options.scoring == "as-norm" else None,
        "cohort_utterances": options.cohort_utterances if trained else None,
        "p_target": options.p_target,
    }


def check_replaceable(output_uri: str, settings: Settings) -> None:
    """Raises ConfigError, naming what differs, if a folder has the results of other settings.

    Results that are unfinished or damaged are nobody's.
    """
    earlier = _read_settings(output_uri)
    if earlier is None or earlier.keys() != settings.keys():
        return
    differences = [
        _told(f"--{name.replace('_', '-')}", earlier[name], value)
        for name, value in settings.items()
        if _identity(earlier[name]) != _identity(value)
    ]
    if differences:
        raise ConfigError(
            f"{output_uri} has the results of another evaluation: {'; '.join(differences)}. Choose another "
            "--output, or give --overwrite to replace them"
        )


def write_settings(output_uri: str, settings: Settings) -> None:
    """Says of what the results are, all of which must have been written."""
    content = json.dumps(settings, indent=1, ensure_ascii=False) + "\n"
    storage.write_bytes(storage.join(output_uri, SETTINGS_NAME), content.encode())


def delete_outputs(output_uri: str) -> None:
    """Deletes what an evaluation writes, but for the embeddings; what the rest is of first."""
    for name in _NAMES:
        storage.delete(storage.join(output_uri, name), missing_ok=True)
    try:
        written = [info.uri for info in storage.list_files(output_uri, recursive=False)]
    except NotFoundError:
        return  # the first evaluation here
    for uri in written:
        if PLOT_NAME.fullmatch(storage.name(uri)):
            storage.delete(uri, missing_ok=True)


def _read_settings(output_uri: str) -> Settings | None:
    """The settings of the results in a folder; None if there are no whole ones."""
    try:
        fields = json.loads(storage.read_bytes(storage.join(output_uri, SETTINGS_NAME)))
    except (NotFoundError, ValueError):
        return None
    return fields if isinstance(fields, dict) else None


def _of_feature_set(uri: str | None) -> dict[str, str] | None:
    return {"uri": uri, "sha256": read_manifest(uri).content_sha256} if uri is not None else None


def _hash_of_trials(trials: TrialList) -> str:
    """SHA-256 of labels and paths in their order, however the list's lines are written."""
    digest = hashlib.sha256(b"" if trials.labels is None else trials.labels.astype(np.int8).tobytes())
    for paths in (trials.enrollments, trials.tests):
        digest.update("\n".join(["", *paths]).encode())
    return digest.hexdigest()


def _identity(value: Any) -> Any:
    return value.get("sha256") if isinstance(value, dict) else value


def _told(flag: str, found: Any, wanted: Any) -> str:
    if isinstance(found, dict) and isinstance(wanted, dict) and found.get("uri") == wanted["uri"]:
        return f"{flag} {wanted['uri']} has changed since"
    return f"{flag} was {_shown(found)}, now {_shown(wanted)}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("uri"))
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "not given"
    return "not given" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
