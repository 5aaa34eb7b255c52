"""Trying out, before the first step, what would otherwise fail after days: memory and compilation."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed

from trainer.batches import Batch
from trainer.distributed import World, sum_gradients
from trainer.errors import TrainingError
from trainer.recipe import Recipe
from voxsrc.errors import ConfigError

_log = logging.getLogger("trainer")


def rehearse(
    forward: nn.Module, batches: Sequence[Batch], *, world: World, autocast: Callable[[], torch.autocast]
) -> None:
    """Goes forward and backward on batches, and leaves weights, statistics and gradients as they were.

    Args:
        forward: The encoder, compiled or not, in training mode.
        batches: One of each crop length, as the training will have them.
        world: All ranks rehearse together.
        autocast: The training's precision.
    """
    statistics = {name: buffer.clone() for name, buffer in forward.named_buffers()}
    try:
        for batch in batches:
            with autocast():
                embeddings_BD = forward(batch.features)
            embeddings_BD.float().square().mean().backward()
            sum_gradients(forward, world)
            forward.zero_grad(set_to_none=True)
    finally:
        forward.zero_grad(set_to_none=True)
        for name, buffer in forward.named_buffers():
            buffer.copy_(statistics[name])


def compiled(
    encoder: nn.Module,
    batches: Sequence[Batch],
    *,
    required: bool,
    world: World,
    autocast: Callable[[], torch.autocast],
) -> nn.Module | None:
    """The encoder compiled by torch, and rehearsed; None, with a warning, where that fails.

    On a GPU, Triton needs a C compiler and Python's header files on the machine. Of several ranks none can go
    on alone, as the others may wait for it within the network: then it is an error.

    Args:
        encoder: Of batch statistics over all ranks.
        batches: See `rehearse`.
        required: Fail instead, as several ranks always do.
        world: See `rehearse`.
        autocast: See `rehearse`.

    Raises:
        ConfigError: It is required, or there are several ranks, and it cannot be compiled.
        torch.OutOfMemoryError: If a batch does not fit.
    """
    # For each crop length anew: what is compiled must not depend on what came before a restart.
    result: nn.Module = torch.compile(encoder, dynamic=False)  # type: ignore[assignment]
    try:
        rehearse(result, batches, world=world, autocast=autocast)
    except BackendCompilerFailed as error:
        reason = (
            f"torch.compile fails on this machine ({_first_line(error.inner_exception)}); a compiler and "
            "Python's header files may be missing (Debian: g++ python3-dev)"
        )
        if required or world.size > 1:
            raise ConfigError(f"{reason}, or --set compile=false") from error
        _log.warning("%s. Training goes on without it, more slowly", reason)
        return None
    return result


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def out_of_memory_advice(recipe: Recipe, world: World) -> Iterator[None]:
    """Says which batch size, precision and crops to try when the device's memory is full."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        unit = recipe.sampler.utterances_per_speaker * world.size
        smaller = max(unit, recipe.batch_size // 2 // unit * unit)
        tuning = recipe.fine_tuning
        crops = {"sampler.crop_frames": recipe.sampler.crop_frames}
        if tuning is not None:
            crops["fine_tuning.crop_frames"] = tuning.crop_frames
        key = max(crops, key=lambda key: crops[key])
        settings = [f"--set batch_size={smaller}"] if smaller < recipe.batch_size else []
        if recipe.precision == "fp32":
            settings.append("--set precision=bf16")
        settings.append(f"--set {key}=…")
        raise TrainingError(
            f"out of memory at batch_size {recipe.batch_size}, crops up to {crops[key]} frames, precision "
            f"{recipe.precision}: a GPU with more memory or more processes (--num-processes) continue this "
            f"output; in a new one try {', or '.join(settings)}; or --set data.placement=ram if the features "
            f"are in GPU memory ({error})"
        ) from error
