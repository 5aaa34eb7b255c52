"""Which arguments of a run name places: those that its steps read, and those that they write.

Told from the package, so that no list of parameters grows stale: each is followed to the components' inputs
that it reaches whole. Into what a component calls `output` the run writes; a feature set that the run makes
is such a place, and so none of its inputs.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from voxsrc.config import apply_overrides
from voxsrc.errors import ConfigError, VoxsrcError
from voxsrc.pipelines.arguments import OUR_PIPELINES, override_entries
from voxsrc.pipelines.package import Package
from voxsrc.recipes import is_recipe_file
from voxsrc.sources import audio_uris

Kind = Literal["audio", "features", "file", "recipe", "model", "output"]

# The last word of a component's input → what it names.
_KINDS: Mapping[str, Kind] = {
    "audio": "audio",
    "features": "features",
    "list": "file",
    "trials": "file",
    "metadata": "file",
    "recipe": "recipe",
    "output": "output",
}
# The one step that reads audio to make a feature set; it does not once the set is finished.
_PLANNING = "exec-plan-extraction"


@dataclass(frozen=True, kw_only=True)
class Place:
    """One place that an argument names.

    Attributes:
        parameter: Which argument, and within a recipe which key.
        uri: A path or URI; empty where a step needs one and has none.
        kind: What it must be; `output` needs not be there.
        feature_set: If not empty, the set for which alone it is read: not any more when that is finished.
    """

    parameter: str
    uri: str
    kind: Kind
    feature_set: str = ""


@dataclass(frozen=True, kw_only=True)
class _Use:
    """An input of a container step that a pipeline's parameter reaches."""

    name: str
    required: bool
    planned_set: str | None

    @property
    def kind(self) -> Kind | None:
        return _KINDS.get(self.name.rpartition("_")[2])


def run_places(package: Package, arguments: Mapping[str, Any]) -> list[Place]:
    """The places that the arguments name, in the order of the package's parameters.

    Args:
        package: The pipeline. Only of ours is it known what a component's input means; of others, none.
        arguments: As `read_arguments` gives them.

    Raises:
        ConfigError: An argument that may hold several sources of audio names one twice.
    """
    if package.name not in OUR_PIPELINES:
        return []
    values = package.effective(arguments)
    uses: dict[str, list[_Use]] = defaultdict(list)
    whole = {name: name for name in package.parameters}
    for parameter, use in _uses(package, package.spec["root"], whole):
        uses[parameter].append(use)
    return [
        place
        for parameter in package.parameters
        if isinstance(value := values.get(parameter), str)
        for place in _places(parameter, value, uses[parameter], values)
    ]


def recipe_places(recipe: Mapping[str, Any], overrides: str) -> list[Place]:
    """What a training reads besides the speech: noise, music, a model to begin with.

    Args:
        recipe: As its file has it; empty for one that comes with the trainer, as none of those names a place.
        overrides: The parameter of that name.

    Raises:
        ConfigError: An override is none.
    """
    entries = override_entries(overrides)
    try:
        given = {key for key, _, _ in _recipe_uris(apply_overrides({}, entries))}
        changed = apply_overrides(recipe, entries)
    except ConfigError as error:
        raise ConfigError(f"overrides: {error}") from error
    return [
        Place(parameter=f"{'overrides' if key in given else 'recipe'}: {key}", uri=uri, kind=kind)
        for key, uri, kind in _recipe_uris(changed)
    ]


def _uses(
    package: Package, component: Mapping[str, Any], parameters: Mapping[str, str]
) -> Iterator[tuple[str, _Use]]:
    """Pipeline's parameter and use, for each input of each container step below a component.

    Args:
        package: The pipeline.
        component: One with a DAG.
        parameters: Its inputs → the pipeline's parameters that they are.
    """
    for task in component["dag"]["tasks"].values():
        inner = package.spec["components"][task["componentRef"]["name"]]
        passed = {}
        for name, source in task.get("inputs", {}).get("parameters", {}).items():
            match source:
                case {"componentInputParameter": str(outer), **rest} if not rest and outer in parameters:
                    passed[name] = parameters[outer]
        if "dag" in inner:
            yield from _uses(package, inner, passed)
            continue
        planned = passed.get("output") if inner["executorLabel"].startswith(_PLANNING) else None
        for name, fields in inner.get("inputDefinitions", {}).get("parameters", {}).items():
            if name in passed:
                required = not fields.get("isOptional", False)
                yield passed[name], _Use(name=name, required=required, planned_set=planned)


def _places(parameter: str, value: str, uses: list[_Use], values: Mapping[str, Any]) -> Iterator[Place]:
    kinds = [use.kind for use in uses if use.kind is not None]
    if not kinds:
        return
    kind: Kind = "output" if "output" in kinds else kinds[0]
    if kind == "recipe" and not is_recipe_file(value):
        return  # one that comes with the trainer
    sets = {use.planned_set for use in uses}
    planned = sets.pop() if kind == "audio" and len(sets) == 1 else None
    feature_set = str(values.get(planned, "")) if planned is not None else ""
    if not value and not any(use.required for use in uses):
        return
    uris: Sequence[str] = [value]
    if kind == "audio" and value:
        try:
            uris = audio_uris([value])
        except VoxsrcError as error:
            raise ConfigError(f"{parameter}: {error}") from error
    for uri in uris:
        yield Place(parameter=parameter, uri=uri, kind=kind, feature_set=feature_set)


def _recipe_uris(recipe: Mapping[str, Any]) -> Iterator[tuple[str, str, Kind]]:
    """Key, URI and kind of each place that a recipe reads."""
    if isinstance(model := recipe.get("initial_model"), str):
        yield "initial_model", model, "model"
    for key, uri in _feature_sets(recipe):
        yield key, uri, "features"


def _feature_sets(recipe: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Key and URI of each feature set in a recipe, but for those that are never drawn."""
    if recipe.get("probability") == 0:
        return
    for key, value in recipe.items():
        if key == "features" and isinstance(value, str):
            yield path + key, value
        elif isinstance(value, Mapping):
            yield from _feature_sets(value, f"{path}{key}.")
