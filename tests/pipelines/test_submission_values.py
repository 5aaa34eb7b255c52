"""Values of arguments with which no run could end are refused before it is submitted."""

from collections.abc import Callable
from dataclasses import fields
from functools import cache

import pytest

from voxsrc import recipes
from voxsrc.errors import ConfigError
from voxsrc.pipelines.arguments import (
    OUR_PIPELINES,
    RECIPE_KEYS,
    SCORINGS,
    check_arguments,
)
from voxsrc.pipelines.package import Package, load_package, package_from, package_path, read_arguments


@cache
def package_of(name: str) -> Package:
    return load_package(package_path(name))


def given(name: str, **arguments: str) -> list[str]:
    """`--set` items for all required parameters of a pipeline of ours, and these."""
    parameters = package_of(name).parameters
    required = {key: "gs://b/x" for key, parameter in parameters.items() if parameter.required}
    return [f"{key}={value}" for key, value in (required | arguments).items()]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("true", 'has the bool true, .*quote it: {cloud.google.com/gke-spot: "true"}'),
        ("1", 'has the int 1, .*quote it: {cloud.google.com/gke-spot: "1"}'),
        ("", "has the NoneType"),
    ],
)
def test_labels_that_the_backend_could_not_read_are_refused(value: str, words: str) -> None:
    for name in ("cpu_node_selector", "gpu_node_selector"):
        selector = {name: f"{{cloud.google.com/gke-spot: {value}}}"}
        with pytest.raises(ConfigError, match=f"^{name}: label cloud.google.com/gke-spot {words}"):
            read_arguments(package_of("train"), given("train", **selector))
    quoted = given("extract", cpu_node_selector='{cloud.google.com/gke-spot: "true"}')
    read = read_arguments(package_of("extract"), quoted)
    assert read["cpu_node_selector"] == {"cloud.google.com/gke-spot": "true"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"parts": '["0/2"]'}, "without 1/2; their shards would never be made"),
        ({"parts": '["0/3", "2/3"]'}, "without 1/3;"),
        ({"parts": '["0/2", "1/2", "1/2"]'}, "expected each of 0/2 to 1/2 once"),
        ({"parts": '["0/2", "1/3"]'}, "below one N"),
        ({"parts": '["0/2", "2/2"]'}, "without 1/2"),
        ({"parts": "[]"}, "below one N"),
        ({"parts": "[0, 1]"}, "below one N"),
        ({"preset": "lfb4"}, "found 'lfb4', did you mean lfb40"),
        ({"scoring": "cosin"}, "found 'cosin', did you mean cosine"),
        ({"num_gpus": "one"}, "found 'one'; expected the GPUs of one node"),
        ({"num_gpus": "0"}, "found '0'; expected the GPUs of one node"),
        ({"num_workers": "0"}, "found 0; expected 1 or more"),
        ({"num_shards": "-1"}, "found -1; expected 0 or more"),
        ({"max_rejected": "7"}, "found 7; expected a fraction from 0 to 1"),
        ({"p_target": "5"}, "found 5; expected a share between 0 and 1"),
        ({"p_target": "1"}, "found 1; expected a share"),
        ({"num_resamples": "-3"}, "found -3; expected 0 or more"),
        ({"recipe": "fast_resnet34_angelproto"}, "did you mean fast_resnet34_angleproto"),
        ({"recipe": ""}, "found ''.* or a YAML file's gs:// URI"),
        ({"overrides": "batchsize=3"}, "batchsize: no key of a recipe, did you mean batch_size"),
        ({"overrides": "num_steps=5; optimiser.name=sgd"}, "optimiser: no key .* did you mean optimizer"),
        (
            {"overrides": "num_steps=5, batch_size=3"},
            'semicolons between entries: "num_steps=5; batch_size=3"',
        ),
        ({"overrides": "num_steps=5,optimizer.name=sgd"}, 'entries: "num_steps=5; optimizer.name=sgd"'),
        ({"overrides": "num_steps"}, "override 'num_steps': expected KEY=VALUE"),
        ({"overrides": "num_steps=[1"}, "not YAML"),
    ],
)
def test_arguments_with_which_no_run_could_end_are_refused(arguments: dict[str, str], words: str) -> None:
    (name,) = arguments
    with pytest.raises(ConfigError, match=rf"^{name}: .*{words}"):
        read_arguments(package_of("train"), given("train", **arguments))


def test_arguments_that_are_in_order_are_taken_and_other_pipelines_have_their_own() -> None:
    arguments = {"parts": '["1/2", "0/2"]', "preset": "kaldi80", "scoring": "plda", "num_gpus": "8"}
    read = read_arguments(package_of("train"), given("train", **arguments))
    assert read["parts"] == ["1/2", "0/2"]
    declared = {"parts": {"parameterType": "LIST"}, "scoring": {"parameterType": "STRING"}}
    root = {"dag": {"tasks": {}}, "inputDefinitions": {"parameters": declared}}
    other = package_from({"pipelineInfo": {"name": "p"}, "root": root}, None, "p.yaml")
    assert read_arguments(other, ['parts=["0/2"]', "scoring=own"])["scoring"] == "own"


def test_the_defaults_of_our_pipelines_pass_their_own_checks() -> None:
    for name, pipeline in (("extract", "voxsrc-extract"), ("train", "voxsrc-train")):
        loaded = package_of(name)
        assert loaded.name == pipeline
        assert pipeline in OUR_PIPELINES
        check_arguments(loaded.effective({}), ours=True)


def test_the_scorings_are_those_of_the_evaluator() -> None:
    options = pytest.importorskip("evaluator.options")
    assert SCORINGS == options.SCORINGS


@pytest.mark.parametrize(
    "arguments",
    [
        {"p_target": "0.01", "num_resamples": "0", "num_shards": "0", "max_rejected": "1"},
        {"recipe": "ecapa_aam"},
        {"recipe": "gs://b/own.yaml"},
        {"overrides": "num_steps = 5; \n optimizer.momentum=0.5;"},
        {"overrides": "loss.options={margin: 0.2, scale: 30}; data=null"},
        {"overrides": 'wandb_project="a, b=c"'},
    ],
)
def test_arguments_with_which_a_run_can_end_are_taken(arguments: dict[str, str]) -> None:
    read = read_arguments(package_of("train"), given("train", **arguments))
    assert read.keys() >= arguments.keys()


def test_what_is_known_of_recipes_is_what_the_trainer_says() -> None:
    recipe = pytest.importorskip("trainer.recipe")
    assert [field.name for field in fields(recipe.Recipe)] == list(RECIPE_KEYS)


def test_where_the_recipes_are_not_at_hand_any_name_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recipes, "_PACKAGE", "no_such_trainer.recipes")
    check_arguments({"recipe": "of_my_image"}, ours=True)
    with pytest.raises(ConfigError, match="recipe: found ' '"):
        check_arguments({"recipe": " "}, ours=True)


@pytest.mark.parametrize("field", ["p_target", "num_resamples"])
@pytest.mark.parametrize("value", [-1, 0, 0.5, 1])
def test_ranges_are_those_of_the_evaluator(field: str, value: float) -> None:
    options = pytest.importorskip("evaluator.options")

    def refuses(check: Callable[[], object]) -> bool:
        try:
            check()
        except ConfigError:
            return True
        return False

    ours = refuses(lambda: check_arguments({field: value}, ours=True))
    kept = {"model": "m", "trials": "t", "output": "o", "features": "f", field: value}
    theirs = refuses(lambda: options.EvaluationOptions(**kept))
    assert ours == theirs
