"""The stages of a training: each step's learning rate, margin and crop length, by its number alone."""

from dataclasses import dataclass

from trainer import schedules
from trainer.recipe import Recipe
from trainer.schedules import LearningRateConfig, MarginConfig


@dataclass(frozen=True)
class Stage:
    """Steps first_step … end_step - 1 of a training.

    Attributes:
        first_step: Its first step.
        end_step: The step after its last.
        crop_frames: Frames of each crop.
        augment: Whether crops are augmented.
        rates: Learning-rate schedule over its steps.
        margins: Margin schedule over its steps; None leaves the loss's own margin.
    """

    first_step: int
    end_step: int
    crop_frames: int
    augment: bool
    rates: LearningRateConfig
    margins: MarginConfig | None

    @property
    def num_steps(self) -> int:
        """How many steps it has."""
        return self.end_step - self.first_step

    def describe(self) -> str:
        """Its steps, crops and learning rate in a few words."""
        rates = self.rates
        first, last = rates.initial * rates.scale, self.learning_rate(self.end_step - 1)
        warm_up = schedules.steps_of(rates.warm_up, self.num_steps)
        return (
            f"{self.num_steps:,} steps of {self.crop_frames} frames, {rates.kind} learning rate {first:g}"
            f"{f' to {last:.3g}' if rates.kind != 'constant' else ''}"
            f"{f', warm-up of {warm_up:,} steps' if warm_up else ''}"
        )

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step of the training."""
        return schedules.learning_rate(self.rates, step - self.first_step, self.num_steps)

    def margin(self, step: int) -> float | None:
        """The margin of a step of the training; None leaves the loss's own."""
        if self.margins is None:
            return None
        return schedules.margin(self.margins, step - self.first_step, self.num_steps)


def stages_of(recipe: Recipe) -> list[Stage]:
    """The stages of a recipe whose number of steps is known."""
    num_steps = recipe.num_steps
    if num_steps is None:
        raise ValueError("the recipe counts epochs; turn them into steps first (Recipe.with_steps)")
    stages = [Stage(0, num_steps, recipe.sampler.crop_frames, True, recipe.learning_rate, recipe.margin)]
    tuning = recipe.fine_tuning
    if tuning is not None:
        margins = recipe.margin
        if tuning.margin is not None:
            margins = MarginConfig(final=tuning.margin)
        elif margins is not None:
            margins = MarginConfig(final=margins.final)
        stages.append(
            Stage(
                num_steps,
                num_steps + tuning.num_steps,
                tuning.crop_frames,
                tuning.augment,
                tuning.learning_rate,
                margins,
            )
        )
    return stages
