"""`voxsrc.config`: recipes in YAML and overrides become typed configurations, or errors that name the key."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxsrc.config import apply_overrides, from_mapping, read_yaml, suggestion, to_mapping, write_yaml
from voxsrc.errors import ConfigError


@dataclass(frozen=True)
class Optimizer:
    name: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate is {self.learning_rate:g}; expected a number above 0")


@dataclass(frozen=True)
class Stage:
    num_steps: int
    margin: float | None = None


@dataclass(frozen=True)
class Recipe:
    num_steps: int
    optimizer: Optimizer = Optimizer()
    compiled: bool = False
    output: Path | None = None
    title: str = ""
    milestones: tuple[int, ...] = ()
    stages: tuple[Stage, ...] = ()
    names: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    interval: int | Literal["auto"] = "auto"
    warm_up: Stage | None = None
    version: int = field(default=1, init=False)


def test_a_whole_recipe_is_read() -> None:
    text = """
num_steps: 1e6
optimizer: {name: adam, learning_rate: 1e-3, betas: [0, .98]}
compiled: true
output: runs/1
title: "2"
milestones: [10, 20]
stages: [{num_steps: 3}, {num_steps: 4, margin: 0.5}]
names: [a, b]
options: {inner: {deep: [1, null]}}
weights: {noise: 1}
interval: 30
warm_up: {num_steps: 1, margin: null}
"""
    recipe = from_mapping(Recipe, read_yaml(text, "recipe.yaml"))
    assert recipe == Recipe(
        num_steps=1_000_000,
        optimizer=Optimizer(name="adam", learning_rate=0.001, betas=(0.0, 0.98)),
        compiled=True,
        output=Path("runs/1"),
        title="2",
        milestones=(10, 20),
        stages=(Stage(3), Stage(4, 0.5)),
        names=["a", "b"],
        options={"inner": {"deep": [1, None]}},
        weights={"noise": 1.0},
        interval=30,
        warm_up=Stage(1),
    )
    assert type(recipe.num_steps) is int
    assert type(recipe.weights["noise"]) is float
    assert type(recipe.optimizer.betas[0]) is float


def test_defaults_stand_for_absent_fields() -> None:
    assert from_mapping(Recipe, {"num_steps": 3}) == Recipe(num_steps=3)


def test_a_nested_dataclass_may_be_given_as_an_object() -> None:
    given_object = Optimizer(learning_rate=2)
    assert from_mapping(Recipe, {"num_steps": 3, "optimizer": given_object}).optimizer is given_object


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "num_steps: missing, expected a whole number"),
        ({"num_step": 3}, "num_step: unknown key, did you mean num_steps? (known: compiled, interval,"),
        ({"num_steps": 3, "version": 1}, "version: unknown key, known: compiled,"),
        ({"num_steps": 3, 7: 1}, "Recipe: found the key 7 (int), expected a name"),
        ({"num_steps": 2.5}, "num_steps: found 2.5 (float), expected a whole number"),
        ({"num_steps": True}, "num_steps: found True (bool), expected a whole number"),
        ({"num_steps": "3"}, "num_steps: found '3' (str), expected a whole number"),
        ({"num_steps": math.inf}, "num_steps: found inf (float), expected a whole number"),
        ({"num_steps": None}, "num_steps: found nothing (null), expected a whole number"),
        ({"num_steps": 3, "compiled": 1}, "compiled: found 1 (int), expected true or false"),
        ({"num_steps": 3, "title": 2}, "title: found 2 (int), expected text"),
        ({"num_steps": 3, "output": 2}, "output: found 2 (int), expected a path"),
        ({"num_steps": 3, "interval": "atuo"}, "expected a whole number or auto"),
        (
            {"num_steps": 3, "optimizer": None},
            "found nothing (null), expected a mapping (optional: name, learning_rate, betas)",
        ),
        ({"num_steps": 3, "optimizer": {"momentum": 1}}, "optimizer.momentum: unknown key, known: betas"),
        (
            {"num_steps": 3, "optimizer": {"name": "adamm"}},
            "optimizer.name: found 'adamm' (str), expected one of sgd, adam; did you mean adam?",
        ),
        ({"num_steps": 3, "optimizer": {"betas": [1]}}, "optimizer.betas: found 1 elements, expected 2"),
        ({"num_steps": 3, "optimizer": {"betas": 1}}, "optimizer.betas: found 1 (int), expected a list"),
        (
            {"num_steps": 3, "optimizer": {"betas": [1, "x"]}},
            "optimizer.betas.1: found 'x' (str), expected a nu",
        ),
        (
            {"num_steps": 3, "optimizer": {"learning_rate": math.nan}},
            "optimizer.learning_rate: found nan (float), expected a number",
        ),
        (
            {"num_steps": 3, "optimizer": {"learning_rate": 10**400}},
            "(int), expected a number",
        ),
        (
            {"num_steps": 3, "optimizer": {"learning_rate": 0}},
            "optimizer: learning_rate is 0; expected a number above 0",
        ),
        ({"num_steps": 3, "stages": [{"num_steps": 1}, {}]}, "stages.1.num_steps: missing"),
        ({"num_steps": 3, "warm_up": {"margin": 1}}, "warm_up.num_steps: missing"),
        (
            {"num_steps": 3, "warm_up": 4},
            "warm_up: found 4 (int), expected a mapping with num_steps (optional: margin)",
        ),
        ({"num_steps": 3, "options": []}, "options: found [] (list), expected a mapping"),
        (
            {"num_steps": 3, "weights": {"noise": "loud"}},
            "weights.noise: found 'loud' (str), expected a number",
        ),
        ({"num_steps": 3, "names": "abc"}, "names: found 'abc' (str), expected a list"),
    ],
)
def test_errors_name_the_key_what_was_found_and_what_was_expected(
    mapping: dict[Any, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_mapping(Recipe, mapping)


def test_all_problems_of_a_mapping_and_those_within_it_are_told_together() -> None:
    @dataclass(frozen=True)
    class Training:
        recipe: Recipe

    fields = {
        "num_step": 3,
        "optimizer": {"learning_rate": 0, "betas": ["x", "y"]},
        "stages": [{}, {"num_steps": 1}, 5],
        "weights": {"noise": "loud", "music": 1, "babble": None},
        "title": "well",
    }
    with pytest.raises(ConfigError) as caught:
        from_mapping(Training, {"recipe": fields})
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("recipe.num_step: unknown key, did you mean num_steps? (known: ")
    assert lines[1:] == [
        "recipe.num_steps: missing, expected a whole number",
        "recipe.optimizer.betas.0: found 'x' (str), expected a number",
        "recipe.optimizer.betas.1: found 'y' (str), expected a number",
        "recipe.stages.0.num_steps: missing, expected a whole number",
        "recipe.stages.2: found 5 (int), expected a mapping with num_steps (optional: margin)",
        "recipe.weights.noise: found 'loud' (str), expected a number",
        "recipe.weights.babble: found nothing (null), expected a number",
    ]


def test_all_problems_that_a_dataclass_finds_itself_have_its_path() -> None:
    @dataclass(frozen=True)
    class Loss:
        def __post_init__(self) -> None:
            from_mapping(Optimizer, {"nmae": 1, "beta": 2}, "options")

    @dataclass(frozen=True)
    class Training:
        loss: Loss

    with pytest.raises(ConfigError) as caught:
        from_mapping(Training, {"loss": {}})
    first, second = str(caught.value).splitlines()
    assert first.startswith("loss: options.nmae: unknown key, did you mean name?")
    assert second.startswith("loss: options.beta: unknown key, did you mean betas?")


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "0.001", "+.1e-2", " 1e-3 "])
def test_numbers_are_numbers_from_any_yaml_reader(text: str) -> None:
    """PyYAML follows YAML 1.1, in which `1e-3` is text."""
    for mapping in ({"learning_rate": text}, read_yaml(f"learning_rate: {text}", "r")):
        assert from_mapping(Optimizer, mapping).learning_rate == pytest.approx(0.001)


@pytest.mark.parametrize("text", ["1e", "e3", "1-3", "0x1e-3", "nan", "1e-3s", ""])
def test_what_only_looks_like_a_number_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"learning_rate: found .* expected a number"):
        from_mapping(Optimizer, {"learning_rate": text})


def test_a_number_in_scientific_notation_is_one_where_no_type_is_known() -> None:
    assert read_yaml("options: {eps: 1e-6, name: e6, date: 1e6x}", "r") == {
        "options": {"eps": 1e-6, "name": "e6", "date": "1e6x"}
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "recipe.yaml:3: not YAML, the key 'a' is given twice"),
        ("a: {b: 1, b: 1}", "the key 'b' is given twice"),
        ("a: [1", "recipe.yaml:1: not YAML"),
        ("a: 1\n  b: 2", "recipe.yaml:2: not YAML"),
        ("- 1", "recipe.yaml: found [1] (list), expected a mapping"),
        ("1: 2", "recipe.yaml: found the key 1 (int), expected a name"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: 2020-13-40", "recipe.yaml: not YAML, month must be in 1..12"),
        ("a: \x00", "recipe.yaml: not YAML"),
    ],
)
def test_yaml_errors_name_file_and_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_yaml(text, "recipe.yaml")


def test_empty_yaml_is_an_empty_mapping() -> None:
    assert read_yaml("# nothing\n", "r") == {}


def test_a_merged_key_may_be_replaced() -> None:
    assert read_yaml("a: &a {b: 1, c: 2}\nd: {<<: *a, b: 3}", "r")["d"] == {"b": 3, "c": 2}


def test_overrides_replace_add_and_leave_the_original() -> None:
    recipe = {"a": {"b": 1, "c": 2}, "stages": [{"x": 1}, {"x": 2}], "none": None}
    before = json.dumps(recipe)
    changed = apply_overrides(
        recipe,
        ["a.b=1e-2", "new.deep.key=[1, two]", "stages.1.x=5", "none.q=true", "a.c=null", "a.c = x=y", "t="],
    )
    assert changed == {
        "a": {"b": 0.01, "c": "x=y"},
        "stages": [{"x": 1}, {"x": 5}],
        "none": {"q": True},
        "new": {"deep": {"key": [1, "two"]}},
        "t": None,
    }
    assert json.dumps(recipe) == before


def test_an_override_does_not_reach_through_a_yaml_anchor() -> None:
    recipe = read_yaml("a: &a {x: 1}\nb: *a", "r")
    assert apply_overrides(recipe, ["a.x=2"]) == {"a": {"x": 2}, "b": {"x": 1}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a.b", "override 'a.b': expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("a..b=3", "expected KEY=VALUE"),
        ("", "expected KEY=VALUE"),
        ("n.b=3", "override n.b: n is 1 (int), which has no keys"),
        ("l.2=3", "override l.2: l is a list; found the index '2' of 2 elements"),
        ("l.-1=3", "override l.-1: l is a list"),
        ("a=[1", "override 'a=[1':1: not YAML"),
    ],
)
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        apply_overrides({"n": 1, "l": [1, 2]}, [override])


def test_suggestion_lists_all_and_names_the_near() -> None:
    assert suggestion("rms", ["sgd", "adam"]) == "known: adam, sgd"
    assert suggestion("adma", ["sgd", "adam"]) == "did you mean adam? (known: adam, sgd)"
    assert suggestion("x", []) == "none is known here"


def test_a_field_type_that_cannot_be_configured_is_a_programming_error() -> None:
    @dataclass
    class Wrong:
        stride: complex = 0j

    with pytest.raises(TypeError, match=r"stride.*complex"):
        from_mapping(Wrong, {"stride": 1})
    with pytest.raises(TypeError, match="is not a dataclass"):
        from_mapping(int, {})


finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(), lambda inner: st.lists(inner, max_size=3)
)
stages = st.builds(Stage, num_steps=st.integers(), margin=st.none() | finite)
recipes = st.builds(
    Recipe,
    num_steps=st.integers(),
    optimizer=st.builds(
        Optimizer,
        name=st.sampled_from(["sgd", "adam"]),
        learning_rate=st.floats(1e-9, 1e9),
        betas=st.tuples(finite, finite),
    ),
    compiled=st.booleans(),
    output=st.none() | st.sampled_from([Path("a/b"), Path("1"), Path("null")]),
    title=st.text(),
    milestones=st.lists(st.integers(), max_size=3).map(tuple),
    stages=st.lists(stages, max_size=3).map(tuple),
    names=st.lists(st.text(), max_size=3),
    options=st.dictionaries(st.text(), plain, max_size=3),
    weights=st.dictionaries(st.text(), finite, max_size=3),
    interval=st.integers() | st.just("auto"),
    warm_up=st.none() | stages,
)


@given(recipes)
def test_a_config_survives_yaml_and_json(recipe: Recipe) -> None:
    mapping = to_mapping(recipe)
    assert "version" not in mapping
    assert from_mapping(Recipe, json.loads(json.dumps(mapping))) == recipe
    assert from_mapping(Recipe, read_yaml(write_yaml(mapping), "resolved.yaml")) == recipe


def test_text_that_looks_like_a_number_is_written_in_quotes() -> None:
    assert write_yaml({"code_version": "1234e56", "x": "1.", "n": "12"}) == (
        "code_version: '1234e56'\nx: '1.'\nn: '12'\n"
    )


def test_order_is_kept_and_no_anchor_is_written() -> None:
    shared = [1]
    assert write_yaml({"b": shared, "a": shared}) == "b:\n- 1\na:\n- 1\n"


def test_to_mapping_is_independent_of_the_config() -> None:
    recipe = Recipe(num_steps=1, options={"a": [1]})
    to_mapping(recipe)["options"]["a"].append(2)
    assert recipe.options == {"a": [1]}
    assert dataclasses.replace(recipe, num_steps=2) != recipe
