"""Settings of a recipe that are allowed, and rarely meant."""

from collections.abc import Iterator, Sequence

from trainer.recipe import Recipe
from trainer.stages import Stage


def doubtful_settings(recipe: Recipe, stages: Sequence[Stage]) -> Iterator[str]:
    """What to warn of before a training with these stages."""
    validation = recipe.validation
    if validation.patience is not None and not validation.fraction:
        yield (
            f"validation.patience is {validation.patience}, but validation.fraction is 0: nobody is held out "
            "to judge by, so no stage ends early"
        )
    for key, stage in zip(("learning_rate", "fine_tuning.learning_rate"), stages, strict=False):
        rates = stage.rates
        if rates.rises:
            yield (
                f"{key} rises from {rates.initial:g} to {rates.final:g}; to go on at a low rate, lower "
                f"{key}.final, too"
            )
    for kind in ("noise", "music"):
        if getattr(recipe.augment, kind).features is not None and not recipe.augment.probability(kind):
            yield (f"augment.{kind}.features is given, but augment.{kind}.probability is 0: nothing is added")
