"""The outputs of a Kubeflow Pipelines v2 task, written without the kfp package.

The launcher replaces `{{$}}` in a container's arguments by the executor input: a JSON object that names the
task's output parameters and artifacts and, in `outputs.outputFile`, the file from which it reads their values
when the container has ended (ExecutorInput and ExecutorOutput in kfp's pipeline_spec.proto). Only small
results go this way: the launcher copies every artifact, so large data are passed as URIs.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from voxsrc.errors import ConfigError

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


def write_executor_output(
    executor_input: str,
    *,
    metrics: Mapping[str, Mapping[str, float]] | None = None,
    artifacts: Mapping[str, Mapping[str, Json]] | None = None,
) -> Path:
    """Writes the executor output file that `executor_input` asks for, atomically; returns its path.

    Args:
        executor_input: JSON text of the ExecutorInput message, as the launcher puts it in place of `{{$}}`.
        metrics: For each output artifact of type `Metrics`, by name: its metrics, finite numbers.
        artifacts: For each other output artifact, by name: its metadata. Its content is the caller's to
            write, to the path that the component passes as `artifact.path`.

    Raises:
        ConfigError: The text is not an ExecutorInput, a name is no output of the task, a name is given both
            as metrics and as an artifact, a value cannot be stored in JSON, or the file cannot be written.
    """
    outputs = _outputs(executor_input)
    metadata: dict[str, Mapping[str, Json]] = dict(artifacts or {})
    for name, values in (metrics or {}).items():
        if name in metadata:
            raise ConfigError(
                f"output artifact {name!r} is given both as metrics and as an artifact; give it once"
            )
        metadata[name] = {metric: _finite(name, metric, value) for metric, value in values.items()}

    output: dict[str, Any] = {}
    declared_artifacts = _declared_artifacts(outputs)
    for name, fields in metadata.items():
        runtime_artifact = _runtime_artifact(declared_artifacts, name)
        # The launcher merges by position and overwrites name and URI: they must be its own.
        runtime_artifact["metadata"] = {**runtime_artifact["metadata"], **fields}
        output.setdefault("artifacts", {})[name] = {"artifacts": [runtime_artifact]}

    path = Path(outputs["outputFile"])
    _write_atomically(path, _dump(output))
    return path


def _outputs(executor_input: str) -> dict[str, Any]:
    try:
        message = json.loads(executor_input)
    except ValueError as error:
        raise ConfigError(
            f"--executor-input is not JSON ({error}): found {_shown(executor_input)}, expected what Kubeflow "
            "Pipelines puts in place of {{$}}; leave the option out when running by hand"
        ) from error
    outputs = message.get("outputs") if isinstance(message, dict) else None
    if not isinstance(outputs, dict):
        raise ConfigError(
            f"--executor-input has no object `outputs`: found {_shown(executor_input)}; expected an "
            "ExecutorInput message of Kubeflow Pipelines v2"
        )
    output_file = outputs.get("outputFile")
    if not isinstance(output_file, str) or not output_file:
        raise ConfigError(
            f"--executor-input: `outputs.outputFile` is {output_file!r}, expected the path of a file"
        )
    return outputs


def _declared_artifacts(outputs: Mapping[str, Any]) -> dict[str, Any]:
    # protobuf's JSON form leaves empty maps out
    value = outputs.get("artifacts", {})
    if not isinstance(value, dict):
        raise ConfigError(
            f"--executor-input: `outputs.artifacts` is {_shown(repr(value))}, expected an object"
        )
    return value


def _runtime_artifact(declared: Mapping[str, Any], name: str) -> dict[str, Any]:
    if name not in declared:
        known = ", ".join(sorted(declared)) or "none"
        raise ConfigError(
            f"the task has no output artifact {name!r} (it has: {known}); declare it in the component"
        )
    entry = declared[name]
    match entry:
        case {"artifacts": [{"uri": str(uri)} as first, *_]} if uri:
            metadata = first.get("metadata", {})
            if isinstance(metadata, dict):
                return {"name": str(first.get("name", "")), "uri": uri, "metadata": metadata}
    raise ConfigError(
        f"--executor-input: `outputs.artifacts.{name}` is {_shown(repr(entry))}, expected "
        '{"artifacts": [{"name": …, "uri": …}]}'
    )


def _finite(artifact: str, metric: str, value: float) -> float:
    if not math.isfinite(value):
        raise ConfigError(
            f"metric {artifact}.{metric} is {value}, expected a finite number; leave it out if unknown"
        )
    return value


def _dump(output: Mapping[str, Any]) -> str:
    try:
        return json.dumps(output, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"an output value cannot be stored in JSON: {error}") from error


def _write_atomically(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise ConfigError(
            f"--executor-input: `outputs.outputFile` {str(path)!r} cannot be written: {error}; the "
            "container's user needs the right to write there"
        ) from error


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}…")
