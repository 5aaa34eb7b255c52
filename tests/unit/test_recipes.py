"""A recipe is found by one rule, and its length is counted by the trainer's own defaults."""

from pathlib import Path

import pytest

from voxsrc import recipes
from voxsrc.cost.workload import work_hours
from voxsrc.errors import ConfigError, NotFoundError

OWN = """
encoder: {name: ResNet_mini, num_mels: 40}
loss: {name: angleproto}
learning_rate: {kind: constant, initial: 0.001}
num_epochs: 10
sampler: {utterances_per_speaker: 2}
fine_tuning: {num_steps: 20000, learning_rate: {kind: constant, initial: 0.0001}}
"""


def test_the_trainers_defaults_are_those_that_hours_are_counted_by(tmp_path: Path) -> None:
    trainer = pytest.importorskip("trainer.recipe")
    file = tmp_path / "own.yaml"
    file.write_text(OWN)
    recipe = trainer.Recipe.load(str(file))
    assert recipe.batch_size == recipes.BATCH_SIZE
    assert recipe.sampler.crop_frames == recipes.CROP_FRAMES
    assert recipe.fine_tuning.crop_frames == recipes.FINE_TUNING_CROP_FRAMES
    assert recipe.validation.fraction == recipes.VALIDATION_FRACTION


def test_the_hours_of_a_recipe_that_leaves_all_to_defaults(tmp_path: Path) -> None:
    """10 epochs of ⌈1000 × 0.98 / 64⌉ steps, and 20,000 of three times the length."""
    file = tmp_path / "own.yaml"
    file.write_text(OWN)
    hours = work_hours(str(file), num_utterances=1000, crops_per_second=500)
    assert hours == pytest.approx((10 * 16 + 3 * 20_000) * 64 / 500 / 3600)


@pytest.mark.parametrize(
    ("recipe", "is_file"),
    [
        ("gs://b/recipes/own", True),
        ("own.yaml", True),
        ("own.yml", True),
        ("./own", True),
        ("demo", False),
        ("own", False),
    ],
)
def test_a_name_with_a_slash_or_the_ending_of_yaml_is_a_file(recipe: str, is_file: bool) -> None:
    assert recipes.is_recipe_file(recipe) == is_file


def test_a_file_in_the_folder_does_not_stand_for_the_recipe_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text("num_steps: 1")
    assert recipes.read_recipe_text("demo") == recipes.shipped_recipes()["demo"].read_text()
    assert recipes.read_recipe_text("./demo") == "num_steps: 1"


def test_what_is_no_recipe_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'demmo': did you mean demo\?.*a YAML file"):
        recipes.read_recipe_text("demmo")
    with pytest.raises(NotFoundError, match=r"absent\.yaml"):
        recipes.read_recipe_text(str(tmp_path / "absent.yaml"))
    (tmp_path / "model.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"model\.yaml: not YAML, not even text in UTF-8"):
        recipes.read_recipe_text(str(tmp_path / "model.yaml"))
    monkeypatch.setattr(recipes, "_PACKAGE", "no_such_trainer.recipes")
    with pytest.raises(ConfigError, match="no trainer here to look up the recipe 'demo'"):
        recipes.read_recipe_text("demo")
