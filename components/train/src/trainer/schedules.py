"""Learning rate and margin as pure functions of the step: nothing to save, nothing to get out of step.

Durations are a whole number of steps, or a fraction of the stage's steps in [0.0, 1.0], so that a recipe
keeps its shape if `num_steps` is changed: `1` is one step, `1.0` the whole stage.
"""

import math
from dataclasses import dataclass
from typing import Literal

from voxsrc.errors import ConfigError

Duration = int | float

# WeSpeaker, utils/schedulers.py: the exponential margin leaves 0.1 % for the last step.
_MARGIN_REST = 1e-3 / (1.0 + 1e-6)


@dataclass(frozen=True)
class LearningRateConfig:
    """A learning-rate schedule.

    The warm-up is a factor that multiplies the schedule, as in WeSpeaker: it rises linearly from
    `warm_up_from` to `scale` and stays there. WeSpeaker's `warm_from_zero` is `warm_up_from: 0`; without that
    it starts at 1.

    Attributes:
        kind: `exponential`, initial · (final / initial)^(i / I) at step i of I, over all steps; `cosine`,
            half a cosine from initial to final between warm-up and end; `step`, initial · decay_factor^n
            after n times `decay_every` since the warm-up; `constant`.
        initial: Learning rate at the start, above 0.
        final: Learning rate at the end: exponential (above 0) and cosine only.
        decay_every: Duration between two decays: step only.
        decay_factor: Factor of each decay, in (0, 1]: step only.
        warm_up: Duration of the warm-up.
        warm_up_from: Factor at step 0, if there is a warm-up; 0 or above.
        scale: Factor after the warm-up, above 0. WeSpeaker: (world size x batch size) / 64.
    """

    kind: Literal["exponential", "cosine", "step", "constant"]
    initial: float = 0.1
    final: float | None = None
    decay_every: Duration | None = None
    decay_factor: float | None = None
    warm_up: Duration = 0
    warm_up_from: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("exponential", "cosine", "step", "constant"):
            raise ConfigError(f"kind is {self.kind!r}; expected one of exponential, cosine, step, constant")
        uses = {
            "final": self.kind in ("exponential", "cosine"),
            "decay_every": self.kind == "step",
            "decay_factor": self.kind == "step",
        }
        for name, used in uses.items():
            given = getattr(self, name) is not None
            if used != given:
                state, remedy = ("absent", "a value") if used else ("given", "its absence")
                raise ConfigError(f"{name} is {state}; the {self.kind} schedule expects {remedy}")
        _check("initial", self.initial, 0.0 < self.initial < math.inf, "a number above 0")
        _check("scale", self.scale, 0.0 < self.scale < math.inf, "a number above 0")
        _check("warm_up_from", self.warm_up_from, 0.0 <= self.warm_up_from < math.inf, "0 or above")
        _check_duration("warm_up", self.warm_up)
        if self.final is not None:
            _check("final", self.final, 0.0 <= self.final < math.inf, "0 or above")
            _check(
                "final", self.final, self.final > 0.0 or self.kind == "cosine", "above 0, as it is a power"
            )
        if self.decay_every is not None and self.decay_factor is not None:
            _check_duration("decay_every", self.decay_every)
            _check("decay_every", self.decay_every, self.decay_every > 0, "above 0")
            _check("decay_factor", self.decay_factor, 0.0 < self.decay_factor <= 1.0, "above 0 and at most 1")

    @property
    def rises(self) -> bool:
        """Whether it ends above where it begins, which is rarely meant."""
        return self.final is not None and self.final > self.initial


@dataclass(frozen=True)
class MarginConfig:
    """A margin schedule: `initial` up to `start`, `final` from `end` on, rising between.

    Attributes:
        final: Margin at the end.
        initial: Margin at the start.
        start: Duration until the margin begins to rise.
        end: Duration until it is `final`; not before `start`.
        growth: `exponential`, initial + (final - initial) · (1 - 0.001^t) for t from 0 to 1 (WeSpeaker's); or
            `linear` in t.
    """

    final: float
    initial: float = 0.0
    start: Duration = 0
    end: Duration = 0
    growth: Literal["exponential", "linear"] = "exponential"

    def __post_init__(self) -> None:
        if self.growth not in ("exponential", "linear"):
            raise ConfigError(f"growth is {self.growth!r}; expected exponential or linear")
        _check("initial", self.initial, 0.0 <= self.initial < math.inf, "0 or above")
        _check("final", self.final, 0.0 <= self.final < math.inf, "0 or above")
        _check_duration("start", self.start)
        _check_duration("end", self.end)
        if type(self.start) is type(self.end):
            _check("end", self.end, self.end >= self.start, f"not before start, {self.start}")


def learning_rate(config: LearningRateConfig, step: int, num_steps: int) -> float:
    """The learning rate for the update of step `step`, 0..num_steps; beyond, that of num_steps."""
    step = _clipped(step, num_steps)
    warm_up = steps_of(config.warm_up, num_steps)
    if config.kind == "exponential" and config.final is not None:
        value = config.initial * math.exp(step / num_steps * math.log(config.final / config.initial))
    elif config.kind == "cosine" and config.final is not None:
        progress = max(0, step - warm_up) / max(1, num_steps - warm_up)
        value = config.final + (config.initial - config.final) * 0.5 * (1.0 + math.cos(math.pi * progress))
    elif config.decay_every is not None and config.decay_factor is not None:
        interval = max(1, steps_of(config.decay_every, num_steps))
        value = config.initial * config.decay_factor ** (max(0, step - warm_up) // interval)
    else:
        value = config.initial
    if step < warm_up:
        return value * (config.warm_up_from + (config.scale - config.warm_up_from) * step / warm_up)
    return value * config.scale


def margin(config: MarginConfig, step: int, num_steps: int) -> float:
    """The margin for the loss of step `step`, 0..num_steps; beyond, that of num_steps.

    Raises:
        ConfigError: `end` comes before `start`, one being a number of steps and the other a fraction.
    """
    step = _clipped(step, num_steps)
    start, end = steps_of(config.start, num_steps), steps_of(config.end, num_steps)
    if end < start:
        raise ConfigError(
            f"margin: end is {config.end} (step {end} of {num_steps}), expected not before start, "
            f"{config.start} (step {start})"
        )
    if step >= end:
        return config.final
    if step < start:
        return config.initial
    progress = (step - start) / (end - start)
    ratio = 1.0 - _MARGIN_REST**progress if config.growth == "exponential" else progress
    return config.initial + (config.final - config.initial) * ratio


def steps_of(duration: Duration, num_steps: int) -> int:
    """A duration in steps: an int as it is, a float as a fraction of `num_steps`, rounded."""
    return duration if isinstance(duration, int) else round(duration * num_steps)


def _clipped(step: int, num_steps: int) -> int:
    if num_steps < 1:
        raise ConfigError(f"num_steps is {num_steps}; expected 1 or more")
    if step < 0:
        raise ConfigError(f"step is {step}; expected 0 or more")
    return min(step, num_steps)


def _check(name: str, value: object, valid: bool, expected: str) -> None:
    if not valid:
        raise ConfigError(f"{name} is {value}; expected {expected}")


def _check_duration(name: str, duration: Duration) -> None:
    expected = "a whole number of steps from 0, or a fraction of all steps from 0.0 to 1.0"
    _check(name, duration, duration >= 0 and (isinstance(duration, int) or duration <= 1.0), expected)
