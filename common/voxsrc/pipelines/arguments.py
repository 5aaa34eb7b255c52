"""Reads a run's arguments from files, and makes the checks of them that their types do not make.

The packages declare texts, lists and mappings; what else a value must be, so that a step can begin and end,
the steps know only hours later.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from voxsrc.config import apply_overrides, read_yaml, suggestion
from voxsrc.errors import ConfigError
from voxsrc.recipes import is_recipe_file, shipped_recipes
from voxsrc.speeds import check_speeds, parse_speeds

OUR_PIPELINES = ("voxsrc-extract", "voxsrc-train")
# As the evaluator has them.
SCORINGS = ("cosine", "mean-distance", "as-norm", "plda")
# The fields of `trainer.recipe.Recipe`, which needs PyTorch to be imported.
RECIPE_KEYS = (
    "encoder",
    "loss",
    "learning_rate",
    "initial_model",
    "num_steps",
    "num_epochs",
    "batch_size",
    "sampler",
    "augment",
    "optimizer",
    "margin",
    "fine_tuning",
    "validation",
    "seed",
    "device",
    "precision",
    "compile",
    "channels_last",
    "deterministic",
    "data",
    "log_interval_steps",
    "checkpoint_interval_s",
    "mean_time_between_preemptions_s",
    "keep_checkpoints",
    "onnx",
    "wandb_project",
)
# What divides two entries in no list of overrides, and stands in no value but text.
_COMMA_KEY = re.compile(r",\s*([A-Za-z_][\w.]*)\s*=")
_PART = re.compile(r"(0|[1-9]\d*)/([1-9]\d*)")
_SELECTOR_ENDING = "node_selector"


def read_argument_files(files: Iterable[str]) -> dict[str, Any]:
    """The values of several files together, not typed yet.

    Args:
        files: YAML mappings of names to values, local or gs://.

    Raises:
        ConfigError: A file cannot be used, or holds nothing, as the redirected output of a command that
            failed; or a name is in two files: which of them was meant, nobody knows.
        StorageError: A file cannot be read.
    """
    from voxsrc import storage

    given: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for file in files:
        values = read_yaml(storage.read_bytes(file).decode("utf-8"), file)
        if not values:
            raise ConfigError(
                f"{file}: found no parameters; expected lines NAME: VALUE. If a command wrote it (>{file}), "
                "that has failed: run it again, or leave the file out"
            )
        if twice := sorted(values.keys() & given.keys()):
            raise ConfigError(
                "; ".join(f"{name}: given in {origin[name]} and in {file}" for name in twice)
                + "; expected each parameter in one of the files given with --arguments, as no file "
                "wins over another (--set wins over all)"
            )
        given |= values
        origin |= dict.fromkeys(values, file)
    return given


def override_entries(overrides: str) -> list[str]:
    """The entries of the parameter `overrides`, divided by semicolons alone as the trainer does."""
    return [entry.strip() for entry in overrides.split(";") if entry.strip()]


def check_arguments(arguments: Mapping[str, Any], *, ours: bool) -> None:
    """Checks the arguments that a run is given.

    Args:
        arguments: Typed.
        ours: Whether the pipeline is one of this repository, whose parameters are known by name.

    Raises:
        ConfigError: A node selector with values that are no texts, of any pipeline; in ours also parts that
            are not all of the shards, an unknown preset, scoring or recipe, overrides of unknown keys, speeds
            that are none, or numbers out of their range.
    """
    for name, value in arguments.items():
        if name.endswith(_SELECTOR_ENDING):
            check_node_selector(name, value)
        elif ours and name in _CHECKS:
            _CHECKS[name](name, value)


def check_node_selector(name: str, selector: Any) -> None:
    """That labels and values are texts: of any other value the backend can make no pod.

    Raises:
        ConfigError: They are not.
    """
    if not isinstance(selector, Mapping):
        raise ConfigError(f"{name}: found {selector!r}; expected a mapping of labels to values")
    for label, value in selector.items():
        if not isinstance(label, str) or not isinstance(value, str):
            written = str(value).lower() if isinstance(value, bool) else str(value)
            raise ConfigError(
                f"{name}: label {label} has the {type(value).__name__} {written}, and Kubernetes takes "
                f'nothing but text; quote it: {{{label}: "{written}"}}'
            )


def _parts(name: str, parts: Sequence[Any]) -> None:
    found = [_PART.fullmatch(part) if isinstance(part, str) else None for part in parts]
    counts = {match[2] for match in found if match is not None}
    if None in found or len(counts) != 1:
        raise ConfigError(f'{name}: found {list(parts)}; expected "I/N" for each I below one N, as text')
    count = int(counts.pop())
    indices = [int(match[1]) for match in found if match is not None]
    if absent := sorted(set(range(count)) - set(indices)):
        raise ConfigError(
            f"{name}: found {', '.join(parts)}, without {', '.join(f'{index}/{count}' for index in absent)}; "
            "their shards would never be made, so that the set could not be finished"
        )
    if len(indices) > count:
        raise ConfigError(
            f"{name}: found {', '.join(parts)}; expected each of 0/{count} to {count - 1}/{count} once"
        )


def _preset(name: str, value: str) -> None:
    from voxsrc.features import PRESETS

    _one_of(name, value, PRESETS)


def _scoring(name: str, value: str) -> None:
    _one_of(name, value, SCORINGS)


def _recipe(name: str, value: str) -> None:
    if is_recipe_file(value):
        return
    names = shipped_recipes()
    if not value.strip() or (names and value not in names):
        raise ConfigError(f"{name}: found {value!r}, {suggestion(value, names)}; or a YAML file's gs:// URI")


def _overrides(name: str, value: str) -> None:
    entries = override_entries(value)
    for entry in entries:
        key, equals, text = entry.partition("=")
        if _COMMA_KEY.search(text) and not text.lstrip().startswith(('"', "'")):
            divided = key + equals + _COMMA_KEY.sub(r"; \1=", text)
            raise ConfigError(
                f'{name}: found "{entry}"; expected semicolons between entries: "{divided}" '
                "(text that is meant to hold a comma and = is put in quotes)"
            )
        first = key.strip().partition(".")[0]
        if equals and first and first not in RECIPE_KEYS:
            raise ConfigError(f"{name}: {first}: no key of a recipe, {suggestion(first, RECIPE_KEYS)}")
    try:
        apply_overrides({}, entries)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _one_of(name: str, value: str, choices: "Sequence[str] | Mapping[str, Any]") -> None:
    if value not in choices:
        raise ConfigError(f"{name}: found {value!r}, {suggestion(value, choices)}")


def _speed(name: str, value: str) -> None:
    try:
        check_speeds(parse_speeds(value))
    except ConfigError as error:
        raise ConfigError(
            f"{name}: found {value!r}; expected speeds from 0.5 to 2, such as 0.9,1.1, with three decimals "
            "at most, each once; empty for none"
        ) from error


def _step(name: str, value: float) -> None:
    from voxsrc.feature_set.encoding import Encoding
    from voxsrc.features import FbankSpec

    try:
        Encoding.for_spec(FbankSpec(), value)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _num_gpus(name: str, value: str) -> None:
    if not re.fullmatch(r"[1-9]\d*", value):
        raise ConfigError(f"{name}: found {value!r}; expected the GPUs of one node, a whole number from 1")


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name}: found {value}; expected 1 or more")


def _not_negative(name: str, value: int) -> None:
    if value < 0:
        raise ConfigError(f"{name}: found {value}; expected 0 or more")


def _share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{name}: found {value:g}; expected a share between 0 and 1, such as 0.05")


def _fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name}: found {value:g}; expected a fraction from 0 to 1")


_CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    "parts": _parts,
    "preset": _preset,
    "speed": _speed,
    "step": _step,
    "scoring": _scoring,
    "num_gpus": _num_gpus,
    "num_workers": _at_least_one,
    "num_shards": _not_negative,
    "max_rejected": _fraction,
    "recipe": _recipe,
    "overrides": _overrides,
    "p_target": _share,
    "num_resamples": _not_negative,
}
