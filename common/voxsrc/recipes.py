"""The recipes that come with the trainer, by name: data files, as common imports no component's code."""

from importlib import resources
from importlib.resources.abc import Traversable

_PACKAGE = "trainer.recipes"


def shipped_recipes() -> dict[str, Traversable]:
    """The recipes' YAML files by name, in order; none where there is no trainer."""
    try:
        files = sorted(resources.files(_PACKAGE).iterdir(), key=lambda file: file.name)
    except ModuleNotFoundError:
        return {}
    return {file.name.removesuffix(".yaml"): file for file in files if file.name.endswith(".yaml")}
