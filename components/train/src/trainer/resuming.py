"""Taking a training up again: from its newest checkpoint, or from the best one when patience has run out."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from trainer.checkpoint import CheckpointError, CheckpointStore, LoadedCheckpoint, State
from trainer.distributed import broadcast_module, broadcast_value
from trainer.errors import TrainingError
from trainer.initial_model import TRAINING_SPEAKERS
from trainer.recipe import differing_keys
from voxsrc import storage
from voxsrc.errors import NotFoundError
from voxsrc.models.stored import read_description

if TYPE_CHECKING:
    from trainer.training import Training

MODEL_FOLDER = "model"

_log = logging.getLogger("trainer")


def resume(training: "Training", store: CheckpointStore | None) -> int:
    """Loads the newest checkpoint into all ranks; returns the number of steps done, 0 without any.

    Raises:
        TrainingError: If the checkpoint was made by another recipe or from other features, or does not fit
            this version of the program.
        CheckpointError: If there are checkpoints and none can be loaded.
    """
    loaded = store.load(map_location="cpu") if store is not None else None
    step = 0
    if loaded is not None:
        step = _take_over(training, loaded)
    step = int(broadcast_value(step, training.world))
    if training.world.size > 1:
        state = broadcast_value(loaded.state if loaded else None, training.world)
        if state is not None and not training.world.is_first:
            training.state.load(state)
            training.history.resume(state["history"])
        broadcast_module(training.state.encoder, training.world)
        broadcast_module(training.state.loss, training.world)
    return step


def _take_over(training: "Training", loaded: LoadedCheckpoint) -> int:
    """Makes the training that of a checkpoint; returns the number of steps done."""
    with _of_this_version(loaded.entry.name):
        _check_identity(training, loaded.state)
        training.state.load(loaded.state)
        identity = loaded.state["identity"]
        if TRAINING_SPEAKERS in identity:
            # An initial model may be gone by now, and with it whom it knows.
            training.state.identity[TRAINING_SPEAKERS] = identity[TRAINING_SPEAKERS]
        training.history.resume(loaded.state["history"])
        return int(loaded.state["step"])


@contextmanager
def _of_this_version(name: str) -> Iterator[None]:
    """Says of a checkpoint whose parts are missing, or do not fit, what to do."""
    try:
        yield
    except torch.OutOfMemoryError:  # a RuntimeError, too
        raise
    except (KeyError, RuntimeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise TrainingError(
            f"checkpoint {name} does not fit this version of the program: {reason}; continue with the "
            "version that wrote it, or choose another --output"
        ) from error


def _check_identity(training: "Training", state: State) -> None:
    stored, ours = state["identity"], training.state.identity
    different = differing_keys(stored["recipe"], ours["recipe"])
    # The speakers follow from the rest, and earlier versions did not record them.
    names = (stored.keys() | ours.keys()) - {"recipe", TRAINING_SPEAKERS}
    different += [
        f"{name}: {stored.get(name)} → {ours.get(name)}"
        for name in sorted(names)
        if stored.get(name) != ours.get(name)
    ]
    if different:
        raise TrainingError(
            f"{training.output_uri} holds a training with another recipe or other features: "
            f"{'; '.join(different)}. Continue with what it was begun with, or choose another --output"
        )


def recorded_identity(output_uri: str) -> Mapping[str, Any]:
    """What the finished model in an output, or else its newest checkpoint, says that it was made of.

    Empty if there is neither.
    """
    try:
        return read_description(storage.join(output_uri, MODEL_FOLDER)).provenance
    except NotFoundError:
        loaded = CheckpointStore(output_uri).load()
    identity: Mapping[str, Any] = loaded.state["identity"] if loaded is not None else {}
    return identity


def load_for_export(training: "Training", which: str) -> int:
    """Takes over the newest or the best checkpoint, also of a training that is running.

    Returns:
        The number of steps after which it was saved.

    Raises:
        TrainingError: There is none, it was made by another recipe or from other features, or it does not
            fit this version of the program.
        CheckpointError: It cannot be loaded.
    """
    store = CheckpointStore(training.output_uri)
    loaded = store.load(best=which == "best")
    if loaded is None:
        raise TrainingError(
            f"{training.output_uri} has no checkpoint{' with a validation EER' * (which == 'best')} to export"
        )
    return _take_over(training, loaded)


def return_to_best(training: "Training", store: CheckpointStore | None) -> int | None:
    """Loads the weights and the optimizer of the best checkpoint into all ranks.

    Returns:
        The number of steps after which it was saved; None if there is none that can be loaded, of which is
        warned: the weights then stay as they are.

    Raises:
        TrainingError: If it does not fit this version of the program.
    """
    found: tuple[str, float | None, State] | None = None
    if store is not None:
        try:
            loaded = store.load(best=True)
        except CheckpointError as error:
            _log.warning("the best checkpoint cannot be loaded, the newest weights are taken: %s", error)
        else:
            if loaded is None:
                _log.warning("no checkpoint with a validation EER was saved, the newest weights are taken")
            else:
                found = (loaded.entry.name, loaded.entry.metric, loaded.state)
    found = broadcast_value(found, training.world)
    if found is None:
        return None
    name, best_eer, state = found
    with _of_this_version(name):
        training.state.load_weights(state)
        training.state.progress.best_eer = best_eer
        return int(state["step"])
