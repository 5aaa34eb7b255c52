"""Recipes: those that come with the trainer, their round trip, and what is refused before any data."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.recipe import FREE_KEYS, Recipe, differing_keys
from trainer.stages import stages_of
from training_runs import AAM, ANGLEPROTO, recipe_file
from voxsrc.config import from_mapping, read_yaml, write_yaml
from voxsrc.errors import ConfigError, NotFoundError
from voxsrc.models.encoder import SpeakerEncoder
from voxsrc.recipes import shipped_recipes

README = Path(__file__).resolve().parents[2] / "components" / "train" / "README.md"


@pytest.fixture
def angleproto(tmp_path: Path) -> str:
    return recipe_file(tmp_path / "angleproto.yaml", ANGLEPROTO)


@pytest.fixture
def aam(tmp_path: Path) -> str:
    return recipe_file(tmp_path / "aam.yaml", AAM)


def test_the_recipes_that_come_with_the_trainer() -> None:
    assert list(shipped_recipes()) == ["demo", "ecapa_aam", "fast_resnet34_angleproto", "resnet34_aam"]


@pytest.mark.parametrize("name", list(shipped_recipes()))
def test_a_shipped_recipe_is_valid_and_survives_yaml_and_json(name: str) -> None:
    recipe = Recipe.load(name)
    assert from_mapping(Recipe, recipe.to_mapping()) == recipe
    assert from_mapping(Recipe, read_yaml(write_yaml(recipe.to_mapping()), name)) == recipe
    assert json.loads(json.dumps(recipe.to_mapping())) == recipe.to_mapping()
    encoder = SpeakerEncoder(recipe.encoder)
    for stage in stages_of(recipe.with_steps(1000)):
        assert stage.crop_frames >= encoder.min_frames
        last = stage.end_step - 1
        assert stage.learning_rate(last) < stage.learning_rate(
            stage.first_step + (last - stage.first_step) // 3
        )
    assert (recipe.fine_tuning is not None) == (name != "demo")


def test_the_readmes_own_recipe_is_whole_and_minimal(tmp_path: Path) -> None:
    text = README.read_text().partition("```yaml\n")[2].partition("```")[0]
    assert len(text.splitlines()) == 10
    (tmp_path / "own.yaml").write_text(text)
    recipe = Recipe.load(str(tmp_path / "own.yaml"))
    assert recipe.num_epochs == 20
    SpeakerEncoder(recipe.encoder)
    for key in read_yaml(text, "own.yaml"):
        fields = read_yaml(text, "own.yaml")
        del fields[key]
        with pytest.raises(ConfigError, match=key):
            from_mapping(Recipe, fields)


def test_all_that_a_recipe_lacks_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("num_steps: 10\nencoder: {name: ResNet_mini}\nbatchsize: 3\n")
    with pytest.raises(ConfigError) as caught:
        Recipe.load(str(tmp_path / "own.yaml"), ["learning_rate=0.1"])
    unknown, loss, encoder, rate = str(caught.value).splitlines()
    assert unknown.startswith("batchsize: unknown key, did you mean batch_size?")
    assert loss == "loss: missing, expected a mapping with name (optional: options)"
    assert encoder == "encoder.num_mels: missing, expected a whole number"
    assert rate.startswith(
        "learning_rate: found 0.1 (float), expected a mapping with kind (optional: initial,"
    )


@pytest.mark.parametrize("name", ["resnet34_aam", "ecapa_aam"])
def test_the_margin_reaches_its_end_and_grows_in_fine_tuning(name: str) -> None:
    first, second = stages_of(Recipe.load(name).with_steps(1000))
    assert first.margin(0) == 0.0
    assert first.margin(first.end_step - 1) == 0.2
    assert second.margin(second.first_step) == 0.5
    assert second.first_step == first.end_step


def test_the_free_keys_are_keys() -> None:
    mapping = from_mapping(Recipe, AAM).to_mapping()
    for key in FREE_KEYS:
        part: Any = mapping
        for name in key.split("."):
            assert name in part, key
            part = part[name]


def test_overrides(angleproto: str) -> None:
    recipe = Recipe.load(
        angleproto,
        ["num_steps=7", "optimizer.clip_norm=1e0", "augment.babble={probability: 0.5}", "seed = 3", "seed=4"],
    )
    assert recipe.num_steps == 7
    assert recipe.optimizer.clip_norm == 1.0
    assert recipe.optimizer.name == "adam"
    assert recipe.augment.babble.probability == 0.5
    assert recipe.seed == 4


@pytest.mark.parametrize(("override", "steps"), [("num_steps=9", 9), ("num_epochs=2", 20)])
def test_a_length_replaces_the_other_kind_of_length(override: str, steps: int, tmp_path: Path) -> None:
    for length in ({"num_steps": 5, "num_epochs": None}, {"num_steps": None, "num_epochs": 5}):
        recipe = Recipe.load(recipe_file(tmp_path / "recipe.yaml", ANGLEPROTO, **length), [override])
        assert recipe.with_steps(steps_per_epoch=10).num_steps == steps


def test_differing_keys() -> None:
    recipe = from_mapping(Recipe, ANGLEPROTO)
    free = {
        "device": "auto",
        "compile": True,
        "checkpoint_interval_s": 3.0,
        "onnx": "audio",
        "keep_checkpoints": 9,
    }
    assert differing_keys(recipe.to_mapping(), {**recipe.to_mapping(), **free}) == []
    assert differing_keys(recipe.to_mapping(), {**recipe.to_mapping(), "seed": 5}) == ["seed: 0 → 5"]
    other = from_mapping(
        Recipe,
        {
            **ANGLEPROTO,
            "augment": {"noise": {"probability": 0.2, "features": "moved"}},
            "fine_tuning": {"num_steps": 9, "learning_rate": {"kind": "constant", "initial": 1e-3}},
        },
    )
    probability, tuning = differing_keys(recipe.to_mapping(), other.to_mapping())
    assert probability == "augment.noise.probability: 0.0 → 0.2"
    assert tuning.startswith("fine_tuning: None → {'num_steps': 9, ")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learing_rate.kind=step", r"learing_rate: unknown key, did you mean learning_rate\?"),
        ("optimizer.clipnorm=1", r"optimizer.clipnorm: unknown key, did you mean clip_norm\?"),
        ("loss.options={margn: 0.2}", r"loss: options.margn: unknown key, did you mean margin\?"),
        ("encoder.options={chanels: [1]}", r"encoder: options.chanels: unknown key, did you mean channels\?"),
        ("loss.name=aamm", r"loss: .*'aamm', did you mean aam\?"),
        ("encoder.name=ResNet35", r"encoder: .*'ResNet35': did you mean ResNet34\?"),
        ("num_epochs=3.5", r"num_epochs: found 3.5 \(float\), expected a whole number"),
        ("num_steps=0", "num_steps is 0; expected at least 1"),
        ("batch_size=-4", "batch_size is -4; expected at least 1"),
        ("num_steps=null", "num_steps and num_epochs: neither given"),
        ("device=tpu", "device is 'tpu'; expected auto, cpu, cuda or cuda:N"),
        ("device=auto:1", "device is 'auto:1'; expected auto, cpu, cuda or cuda:N"),
        ("device='cuda:'", "device is 'cuda:'; expected"),
        ("precision=fp8", "precision: found 'fp8' .*expected one of fp32, bf16, fp16"),
        ("optimizer.clip_norm=0", "optimizer: clip_norm is 0.0; expected above 0"),
        ("optimizer.weight_decay=-1", "optimizer: weight_decay is -1.0; expected 0 or more"),
        ("augment.noise.probability=0.1", "augment.noise: .*features is null"),
        ("validation.fraction=1", "validation: fraction is 1.0; expected 0 to below 1"),
        ("fine_tuning.margin=2", "fine_tuning.margin does not fit the loss: margin is 2; expected"),
        ("fine_tuning.num_steps=0", "fine_tuning: num_steps is 0"),
        ("margin.initial=1.6", "margin.initial does not fit the loss: margin is 1.6"),
        ("margin.final=2.5", "margin.final does not fit the loss: margin is 2.5"),
        ("learning_rate.final=null", "learning_rate: final is absent"),
        ("seed", "override 'seed': expected KEY=VALUE"),
    ],
)
def test_one_wrong_key_or_value(aam: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe.load(aam, [override])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_epochs": 2}, "num_steps and num_epochs: both given; expected one of them"),
        ({"margin": {"final": 0.2}}, "margin: the loss angleproto has none"),
        (
            {"fine_tuning": {"num_steps": 1, "margin": 0.2, "learning_rate": {"kind": "constant"}}},
            "margin: the loss angleproto has none",
        ),
        ({"sampler": {"utterances_per_speaker": 1}}, "expected at least 2"),
    ],
)
def test_conflicts(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe.load(recipe_file(tmp_path / "recipe.yaml", ANGLEPROTO, **changes))


def test_two_lengths_by_override_are_a_conflict(angleproto: str) -> None:
    with pytest.raises(ConfigError, match="both given"):
        Recipe.load(angleproto, ["num_steps=5", "num_epochs=2"])


def test_an_unknown_recipe_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'demmo': did you mean demo\?"):
        Recipe.load("demmo")
    with pytest.raises(NotFoundError, match=r"my\.yaml"):
        Recipe.load("/nowhere/my.yaml")


def test_a_file_that_is_no_yaml(tmp_path: Path) -> None:
    binary, broken = tmp_path / "binary.yaml", tmp_path / "broken.yaml"
    binary.write_bytes(bytes(range(256)))
    broken.write_text("encoder: {name: [")
    for file in (binary, broken):
        with pytest.raises(ConfigError, match=rf"{file.name}.*not YAML"):
            Recipe.load(str(file))
