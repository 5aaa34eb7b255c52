"""Reads a run's arguments from files, and makes the checks of them that their types do not make.

The packages declare texts, lists and mappings; what else a value must be, so that a step can begin and end,
the steps know only hours later.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from voxsrc.config import read_yaml, suggestion
from voxsrc.errors import ConfigError

OUR_PIPELINES = ("voxsrc-extract", "voxsrc-train")
# As the evaluator has them.
SCORINGS = ("cosine", "mean-distance", "as-norm", "plda")
_PART = re.compile(r"(0|[1-9]\d*)/([1-9]\d*)")
_SELECTOR_ENDING = "node_selector"


def read_argument_files(files: Iterable[str]) -> dict[str, Any]:
    """The values of several files together, not typed yet.

    Args:
        files: YAML mappings of names to values, local or gs://.

    Raises:
        ConfigError: A file cannot be used, or a name is in two files: which of them was meant, nobody knows.
        StorageError: A file cannot be read.
    """
    from voxsrc import storage

    given: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for file in files:
        values = read_yaml(storage.read_bytes(file).decode("utf-8"), file)
        if twice := sorted(values.keys() & given.keys()):
            raise ConfigError(
                "; ".join(f"{name}: given in {origin[name]} and in {file}" for name in twice)
                + "; expected each parameter in one of the files given with --arguments, as no file "
                "wins over another (--set wins over all)"
            )
        given |= values
        origin |= dict.fromkeys(values, file)
    return given


def check_arguments(arguments: Mapping[str, Any], *, ours: bool) -> None:
    """Checks the arguments that a run is given.

    Args:
        arguments: Typed.
        ours: Whether the pipeline is one of this repository, whose parameters are known by name.

    Raises:
        ConfigError: A node selector with values that are no texts, of any pipeline; in ours also parts that
            are not all of the shards, an unknown preset or scoring, or numbers out of their range.
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


def _one_of(name: str, value: str, choices: "Sequence[str] | Mapping[str, Any]") -> None:
    if value not in choices:
        raise ConfigError(f"{name}: found {value!r}, {suggestion(value, choices)}")


def _num_gpus(name: str, value: str) -> None:
    if not re.fullmatch(r"[1-9]\d*", value):
        raise ConfigError(f"{name}: found {value!r}; expected the GPUs of one node, a whole number from 1")


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name}: found {value}; expected 1 or more")


_CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    "parts": _parts,
    "preset": _preset,
    "scoring": _scoring,
    "num_gpus": _num_gpus,
    "num_workers": _at_least_one,
}
