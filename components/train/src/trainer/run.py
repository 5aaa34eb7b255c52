"""A training from its last checkpoint to its end, and all that is open meanwhile."""

import logging
from contextlib import ExitStack

from trainer.checkpoint import AsyncSaver, CheckpointStore, StopRequest
from trainer.errors import DivergedError, PreemptedError
from trainer.history import Boards, draw_curves
from trainer.meter import Meter
from trainer.rehearsal import out_of_memory_advice
from trainer.resuming import resume
from trainer.training import Training
from voxsrc import storage

_log = logging.getLogger("trainer")


def train(training: Training, run_id: str, *, show_progress: bool) -> int:
    """Runs a training from its last checkpoint to its end.

    Args:
        training: Set up.
        run_id: Names this run to others who try to write into the same output.
        show_progress: Draw a progress bar.

    Returns:
        The number of steps after which the weights were as they are now: fewer than were done if patience ran
        out and the best were taken.

    Raises:
        WriterActiveError: If another run writes into the output.
        TrainingError: If the loss is not a number, memory is full, or the output is another training's.
        PreemptedError: On SIGTERM, after a checkpoint; in the other processes, as the first is gone then.
    """
    recipe, world = training.recipe, training.world
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        store = saver = None
        with training.timing.restoring(), out_of_memory_advice(recipe, world):
            if world.is_first:
                store = CheckpointStore(training.output_uri, keep_last=recipe.keep_checkpoints)
                stack.enter_context(store.open_for_writing(run_id))
            first_step = resume(training, store)
        if store is not None:
            saver = stack.enter_context(AsyncSaver(store))
            training.boards = Boards(
                training.output_uri,
                first_step=first_step,
                wandb_project=recipe.wandb_project,
                recipe=recipe.to_mapping(),
            )
            stack.callback(training.boards.close)
        if first_step:
            _log.info("continuing after step %d of %d", first_step, training.num_steps)
        meter = Meter(first_step, training.num_steps, training.boards, show=show_progress and world.is_first)
        stack.enter_context(meter)
        stack.enter_context(out_of_memory_advice(recipe, world))
        try:
            weights_step = training.run(first_step, store, saver, stop, meter)
        except DivergedError as error:
            raise DivergedError(f"{error}. {_last_good(store, saver)}".strip()) from error
        except RuntimeError as error:
            if world.is_first or not stop.requested:
                raise
            raise PreemptedError("stopped by SIGTERM, as the first process has") from error
        if saver is not None:
            report = saver.wait()
            if report is not None and report.error is not None:
                raise report.error
            for ended in saver.take_reports():
                training.timing.saved(ended)
            training.history.write()
            training.timing.write(finished=True)
            draw_curves(training.output_uri, training.history.rows)
        return weights_step


def _last_good(store: CheckpointStore | None, saver: AsyncSaver | None) -> str:
    """The newest checkpoint, in words; the empty text to others than the first process."""
    if store is None or saver is None:
        return ""
    saver.wait()
    if not store.entries:
        return "No checkpoint was saved before"
    return f"The last good checkpoint is {storage.join(store.folder_uri, store.entries[0].name)}"
