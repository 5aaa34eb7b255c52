"""The recipes that come with the trainer, by name, and what others must know of one.

They are data files: common imports no component's code.
"""

from importlib import resources
from importlib.resources.abc import Traversable

from voxsrc.config import suggestion
from voxsrc.errors import ConfigError

# The trainer's defaults of what decides how much a training computes.
BATCH_SIZE = 64
CROP_FRAMES = 200
FINE_TUNING_CROP_FRAMES = 600
VALIDATION_FRACTION = 0.02

_PACKAGE = "trainer.recipes"


def shipped_recipes() -> dict[str, Traversable]:
    """The recipes' YAML files by name, in order; none where there is no trainer."""
    try:
        files = sorted(resources.files(_PACKAGE).iterdir(), key=lambda file: file.name)
    except ModuleNotFoundError:
        return {}
    return {file.name.removesuffix(".yaml"): file for file in files if file.name.endswith(".yaml")}


def is_recipe_file(recipe: str) -> bool:
    """Whether a path or URI is meant, and not the name of a recipe that comes with the trainer.

    What lies in the current folder does not matter: a file `demo` is `./demo`.
    """
    return recipe.endswith((".yaml", ".yml")) or "/" in recipe


def read_recipe_text(recipe: str) -> str:
    """The YAML text of a recipe.

    Args:
        recipe: The name of one that comes with the trainer, or a file, by path or URI.

    Raises:
        ConfigError: No recipe has this name, or the file is no text.
        StorageError: The file cannot be read.
    """
    from voxsrc import storage

    if is_recipe_file(recipe):
        try:
            return storage.read_bytes(recipe).decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{recipe}: not YAML, not even text in UTF-8 ({error})") from error
    files = shipped_recipes()
    if not files:
        raise ConfigError(
            f"there is no trainer here to look up the recipe {recipe!r}; give the path of a YAML file"
        )
    if recipe not in files:
        raise ConfigError(
            f"there is no recipe {recipe!r}: {suggestion(recipe, files)}, or a YAML file by its path, which "
            "has a / in it or the ending .yaml"
        )
    return files[recipe].read_text()
