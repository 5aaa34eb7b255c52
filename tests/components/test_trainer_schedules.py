"""`trainer.schedules`: learning rate and margin by step, by hand and against WeSpeaker's formulas."""

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.schedules import LearningRateConfig, MarginConfig, learning_rate, margin, steps_of
from voxsrc.config import from_mapping
from voxsrc.errors import ConfigError


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("from_zero", [True, False])
def test_exponential_is_wespeakers(scale: float, from_zero: bool) -> None:
    """scale · lr0 · exp((i / I) ln(lrT / lr0)), the scale growing from 0 or 1 during the warm-up."""
    config = LearningRateConfig(
        "exponential",
        initial=0.1,
        final=5e-5,
        warm_up=60,
        warm_up_from=0.0 if from_zero else min(1.0, scale),
        scale=scale,
    )
    for step in range(0, 1501, 7):
        factor = scale
        if step < 60 and from_zero:
            factor = scale * step / 60
        elif step < 60 and scale > 1:
            factor = (scale - 1) * step / 60 + 1
        expected = factor * 0.1 * math.exp(step / 1500 * math.log(5e-5 / 0.1))
        assert learning_rate(config, step, 1500) == pytest.approx(expected, rel=1e-12)


def test_exponential_by_hand() -> None:
    config = LearningRateConfig("exponential", initial=1.0, final=0.01, warm_up=0.25)
    values = [learning_rate(config, step, 8) for step in (0, 1, 2, 4, 8, 9)]
    assert values == pytest.approx([0.0, 0.5 * 0.01**0.125, 0.01**0.25, 0.1, 0.01, 0.01])


def test_cosine_by_hand() -> None:
    config = LearningRateConfig("cosine", initial=1.0, final=0.0, warm_up=4, warm_up_from=0.5)
    values = [learning_rate(config, step, 12) for step in (0, 2, 4, 8, 10, 12, 100)]
    assert values == pytest.approx([0.5, 0.75, 1.0, 0.5, 0.5 - math.sqrt(0.125), 0.0, 0.0])


def test_step_by_hand() -> None:
    """voxceleb_trainer: 0.95 every so many epochs, from the first step."""
    config = LearningRateConfig("step", initial=1e-3, decay_every=10, decay_factor=0.95)
    values = [learning_rate(config, step, 100) for step in (0, 9, 10, 19, 20, 99)]
    assert values == pytest.approx([1e-3, 1e-3, 0.95e-3, 0.95e-3, 0.95**2 * 1e-3, 0.95**9 * 1e-3])
    delayed = LearningRateConfig("step", initial=1.0, decay_every=0.1, decay_factor=0.5, warm_up=5)
    assert [learning_rate(delayed, step, 100) for step in (1, 5, 14, 15)] == pytest.approx([0.2, 1, 1, 0.5])


def test_constant_with_warm_up() -> None:
    config = LearningRateConfig("constant", initial=0.2, warm_up=2, scale=3.0)
    assert [learning_rate(config, step, 10) for step in range(4)] == pytest.approx([0.0, 0.3, 0.6, 0.6])


def test_a_warm_up_longer_than_the_training_never_ends() -> None:
    config = LearningRateConfig("cosine", initial=1.0, final=0.1, warm_up=100)
    assert [learning_rate(config, step, 10) for step in (0, 5, 10)] == pytest.approx([0.0, 0.05, 0.1])


configs = st.one_of(
    st.builds(LearningRateConfig, st.sampled_from(["exponential", "cosine"]), final=st.floats(1e-6, 0.1)),
    st.builds(
        LearningRateConfig,
        st.just("step"),
        decay_every=st.integers(1, 50) | st.floats(1e-6, 1.0),
        decay_factor=st.floats(0.9, 1.0),
    ),
    st.just(LearningRateConfig("constant")),
)


@given(configs, st.integers(1, 1000), st.integers(0, 1100), st.integers(0, 300) | st.floats(0.0, 1.0))
def test_without_final_above_initial_it_falls_and_warm_up_only_lowers_it(
    config: LearningRateConfig, num_steps: int, step: int, warm_up: int | float
) -> None:
    now, later = learning_rate(config, step, num_steps), learning_rate(config, step + 1, num_steps)
    assert 0.0 < later <= now * (1 + 1e-12)
    assert now <= config.initial * (1 + 1e-12)
    warmed = LearningRateConfig(
        config.kind,
        final=config.final,
        decay_every=config.decay_every,
        decay_factor=config.decay_factor,
        warm_up=warm_up,
    )
    value = learning_rate(warmed, step, num_steps)
    assert 0.0 <= value <= config.initial * (1 + 1e-12)
    assert value > 0.0 or step == 0


@pytest.mark.parametrize("growth", ["exponential", "linear"])
def test_margin_is_wespeakers(growth: Any) -> None:
    """0 until epoch 20, 0.2 from epoch 40 on; epochs count from 1, with 10 steps each."""
    config = MarginConfig(final=0.2, start=190, end=390, growth=growth)
    for step in range(0, 600, 7):
        if step < 190:
            expected = 0.0
        elif step >= 390:
            expected = 0.2
        else:
            done = (step - 190) / 200
            exponential = 1.0 - math.exp(done * math.log(1e-3 / (1.0 + 1e-6)))
            expected = 0.2 * (exponential if growth == "exponential" else done)
        assert margin(config, step, 1500) == pytest.approx(expected, rel=1e-12)


def test_margin_by_hand() -> None:
    config = MarginConfig(final=0.5, initial=0.1, start=0.2, end=0.6, growth="linear")
    values = [margin(config, step, 10) for step in (0, 2, 3, 4, 6, 10, 11)]
    assert values == pytest.approx([0.1, 0.1, 0.2, 0.3, 0.5, 0.5, 0.5])


def test_a_margin_without_a_rise_is_final_at_once() -> None:
    assert margin(MarginConfig(final=0.2), 0, 10) == 0.2
    steep = MarginConfig(final=0.2, start=5, end=5)
    assert [margin(steep, step, 10) for step in (4, 5)] == [0.0, 0.2]


@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 500),
    st.integers(0, 500),
    st.sampled_from(["exponential", "linear"]),
    st.integers(0, 600),
)
def test_margin_moves_one_way_between_its_ends(
    initial: float, final: float, start: int, length: int, growth: Any, step: int
) -> None:
    config = MarginConfig(final=final, initial=initial, start=start, end=start + length, growth=growth)
    values = [margin(config, i, 1000) for i in (step, step + 1)]
    low, high = sorted((initial, final))
    assert all(low - 1e-12 <= value <= high + 1e-12 for value in values)
    assert (values[1] - values[0]) * (final - initial) >= -1e-12


def test_durations_are_steps_or_a_fraction() -> None:
    assert [steps_of(duration, 1000) for duration in (1, 1.0, 0, 0.0, 0.04, 2000)] == [
        1,
        1000,
        0,
        0,
        40,
        2000,
    ]


def test_a_recipe_gives_durations_of_either_kind() -> None:
    read = from_mapping(MarginConfig, {"final": 0.2, "start": 100, "end": 0.5})
    assert (type(read.start), type(read.end)) == (int, float)
    with pytest.raises(
        ConfigError, match=re.escape("schedule.start: found True (bool), expected a whole nu")
    ):
        from_mapping(MarginConfig, {"final": 0.2, "start": True}, "schedule")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "schedule.kind: missing, expected one of exponential, cosine, step, constant"),
        ({"kind": "exponential"}, "schedule: final is absent; the exponential schedule expects a value"),
        ({"kind": "step", "final": 0.1}, "final is given; the step schedule expects its absence"),
        ({"kind": "step", "decay_every": 3}, "decay_factor is absent; the step schedule expects a value"),
        (
            {"kind": "constant", "decay_every": 3},
            "decay_every is given; the constant schedule expects its abs",
        ),
        ({"kind": "exponential", "final": 0}, "final is 0.0; expected above 0, as it is a power"),
        ({"kind": "cosine", "final": -1}, "final is -1.0; expected 0 or above"),
        ({"kind": "constant", "initial": 0}, "initial is 0.0; expected a number above 0"),
        ({"kind": "constant", "scale": math.inf}, "scale is inf; expected a number above 0"),
        ({"kind": "constant", "warm_up": -1}, "warm_up is -1; expected a whole number of steps from 0, or a"),
        ({"kind": "constant", "warm_up": 1.5}, "warm_up is 1.5; expected a whole number of steps from 0, or"),
        ({"kind": "constant", "warm_up_from": -0.1}, "warm_up_from is -0.1; expected 0 or above"),
        ({"kind": "step", "decay_every": 0, "decay_factor": 0.5}, "decay_every is 0; expected above 0"),
        (
            {"kind": "step", "decay_every": 1, "decay_factor": 1.5},
            "decay_factor is 1.5; expected above 0 and at",
        ),
        ({"kind": "linear"}, "schedule.kind: found 'linear' (str), expected one of exponential, cosine"),
    ],
)
def test_a_wrong_learning_rate_schedule_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_mapping(LearningRateConfig, fields, "schedule")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"final": -0.1}, "final is -0.1; expected 0 or above"),
        ({"final": 0.2, "initial": math.inf}, "initial is inf; expected 0 or above"),
        ({"final": 0.2, "start": 5, "end": 4}, "end is 4; expected not before start, 5"),
        ({"final": 0.2, "start": 0.5, "end": 0.4}, "end is 0.4; expected not before start, 0.5"),
        ({"final": 0.2, "end": 1.1}, "end is 1.1; expected a whole number of steps from 0, or a fraction"),
        ({"final": 0.2, "growth": "exp"}, "growth: found 'exp' (str), expected one of exponential, linear"),
    ],
)
def test_a_wrong_margin_schedule_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_mapping(MarginConfig, fields, "margin")


def test_a_start_in_steps_after_an_end_in_fractions_is_refused_when_the_steps_are_known() -> None:
    config = MarginConfig(final=0.2, start=500, end=0.5)
    assert margin(config, 0, 1000) == 0.0
    with pytest.raises(ConfigError, match=r"end is 0\.5 \(step 50 of 100\), expected not before start, 500"):
        margin(config, 0, 100)


@pytest.mark.parametrize(("step", "num_steps"), [(-1, 10), (0, 0)])
def test_steps_outside_any_training_are_refused(step: int, num_steps: int) -> None:
    with pytest.raises(ConfigError, match="expected"):
        learning_rate(LearningRateConfig("constant"), step, num_steps)
    with pytest.raises(ConfigError, match="expected"):
        margin(MarginConfig(final=0.2), step, num_steps)
