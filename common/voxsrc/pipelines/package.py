"""A compiled pipeline package: its parameters, and the arguments that a run gives them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from voxsrc.config import apply_overrides, suggestion
from voxsrc.errors import ConfigError
from voxsrc.pipelines.arguments import OUR_PIPELINES, check_arguments, read_argument_files
from voxsrc.pipelines.settings import ROOT

# The two pipelines that this repository has, by the name that the command line gives them.
NAMED = {"extract": "extract_pipeline.yaml", "train": "train_pipeline.yaml"}
_EXPECTED = {
    "STRING": "text",
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "LIST": "a list such as [1, 2]",
    "STRUCT": "a mapping such as {a: 1}",
}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A pipeline's parameter.

    Attributes:
        kind: STRING, NUMBER_INTEGER, NUMBER_DOUBLE, BOOLEAN, LIST or STRUCT.
        required: Has no default.
        default: None if there is none.
        choices: The only values, if not empty.
        description: From the pipeline's docstring.
    """

    kind: str
    required: bool
    default: Any = None
    choices: tuple[Any, ...] = ()
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package in the v2 format.

    Attributes:
        origin: File, or what else it came from, for messages.
        spec: The PipelineSpec message as plain values.
        platform: What the Kubernetes executors get besides, by executor label.
    """

    origin: str
    spec: Mapping[str, Any]
    platform: Mapping[str, Mapping[str, Any]]

    @property
    def name(self) -> str:
        """Of the pipeline."""
        return str(self.spec["pipelineInfo"]["name"])

    @property
    def parameters(self) -> dict[str, Parameter]:
        """By name."""
        declared = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return {
            name: Parameter(
                kind=str(fields.get("parameterType", "STRING")),
                required=not fields.get("isOptional", False) and "defaultValue" not in fields,
                default=fields.get("defaultValue"),
                choices=tuple(fields.get("literals", ())),
                description=str(fields.get("description", "")),
            )
            for name, fields in declared.items()
        }

    def effective(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, and the defaults of all other parameters."""
        defaults = {name: parameter.default for name, parameter in self.parameters.items()}
        return {**{name: value for name, value in defaults.items() if value is not None}, **arguments}


def package_path(name: str) -> Path:
    """The file of `extract`, `train` or another package; raises ConfigError if it is missing."""
    path = ROOT / NAMED[name] if name in NAMED else Path(name)
    if not path.is_file():
        hint = "compile it: voxsrc pipeline compile" if name in NAMED else suggestion(name, NAMED)
        raise ConfigError(f"no pipeline package {path}; {hint}")
    return path


def load_package(path: Path) -> Package:
    """Reads a package; raises ConfigError if it is no compiled v2 pipeline."""
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML, {error}") from error
    platform = documents[1] if len(documents) > 1 else None
    return package_from(documents[0] if documents else None, platform, str(path))


def package_from(spec: Any, platform: Any, origin: str) -> Package:
    """A package from its two messages, of which the second may be absent; raises ConfigError."""
    match spec:
        case {"pipelineInfo": {"name": str()}, "root": {"dag": {}}}:
            pass
        case _:
            raise ConfigError(
                f"{origin}: no compiled pipeline (found no pipelineInfo.name and root.dag); expected what "
                "`voxsrc pipeline compile` or kfp's compiler writes"
            )
    kubernetes = ((platform or {}).get("platforms") or {}).get("kubernetes") or {}
    executors = (kubernetes.get("deploymentSpec") or {}).get("executors") or {}
    return Package(origin=origin, spec=spec, platform=executors)


def read_arguments(
    package: Package, sets: Iterable[str] = (), files: Iterable[str] = (), *, run_name: str | None = None
) -> dict[str, Any]:
    """The arguments of a run, typed and complete.

    Args:
        package: The pipeline.
        sets: `name=value`; they win over the files.
        files: YAML mappings of names to values, local or gs://, no name in two of them.
        run_name: Fills the parameter `run_name`, if the pipeline has it and it is not given.

    Raises:
        ConfigError: Unknown or missing parameters, all named at once, one in two files, a value of another
            type, or one with which no run can end.
    """
    given = read_argument_files(files)
    texts: dict[str, str] = {}
    for item in sets:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {item!r}: expected NAME=VALUE")
        texts[name.strip()] = text
    parameters = package.parameters
    names = given.keys() | texts.keys()
    if unknown := sorted(names - parameters.keys()):
        raise ConfigError(
            "; ".join(
                f"{name}: no parameter of pipeline {package.name}, {suggestion(name, parameters)}"
                for name in unknown
            )
        )
    if run_name is not None and "run_name" in parameters and "run_name" not in names:
        given["run_name"] = run_name
    missing = [name for name, p in parameters.items() if p.required and name not in given | texts]
    if missing:
        described = "; ".join(f"{name} ({_described(parameters[name])})" for name in missing)
        raise ConfigError(f"pipeline {package.name} needs, with --set or in --arguments: {described}")
    typed = {name: _typed(name, parameters[name], value) for name, value in given.items()}
    typed |= {name: _from_text(name, parameters[name], text) for name, text in texts.items()}
    check_arguments(typed, ours=package.name in OUR_PIPELINES)
    return typed


def _described(parameter: Parameter) -> str:
    expected = _EXPECTED.get(parameter.kind, parameter.kind)
    return f"{expected}: {parameter.description}" if parameter.description else expected


def _from_text(name: str, parameter: Parameter, text: str) -> Any:
    if parameter.kind == "STRING":
        return _typed(name, parameter, text)
    # the value alone, so that a dot in the name is none of a path
    return _typed(name, parameter, apply_overrides({}, [f"value={text}"])["value"])


def _typed(name: str, parameter: Parameter, value: Any) -> Any:
    """`value` as the API wants it; raises ConfigError."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match parameter.kind:
        case "STRING":
            fits = isinstance(value, str)
        case "NUMBER_INTEGER":
            fits = is_number and math.isfinite(value) and value == int(value)
            value = int(value) if fits else value
        case "NUMBER_DOUBLE":
            fits = is_number and math.isfinite(value)
            value = float(value) if fits else value
        case "BOOLEAN":
            fits = isinstance(value, bool)
        case "LIST":
            fits = isinstance(value, list)
        case "STRUCT":
            fits = isinstance(value, dict)
        case kind:
            raise ConfigError(f"{name}: parameters of type {kind} cannot be given")
    if not fits:
        expected = _EXPECTED[parameter.kind]
        quoted = "; quote it in the YAML file" if parameter.kind == "STRING" else ""
        raise ConfigError(f"{name}: found {value!r}, expected {expected}{quoted}")
    if parameter.choices and value not in parameter.choices:
        raise ConfigError(f"{name}: found {value!r}, {suggestion(str(value), map(str, parameter.choices))}")
    return value
