"""Checkpoints: exact, atomic, verified, written beside the training loop, and by one writer at a time.

Typical use, by the one process that saves:

    with CheckpointStore(output_uri).open_for_writing(run_id) as store, StopRequest() as stop:
        loaded = store.load(map_location=device)  # None: a fresh start
        schedule = SaveSchedule(fixed_s=config.checkpoint_interval_s)
        with AsyncSaver(store) as saver:
            ...
            if schedule.due() or stop.requested:
                saver.submit(step, state)
                schedule.started()
            for report in saver.take_reports():
                schedule.measured(report)

Only when to save depends on the clock; nothing of it enters a state.
"""

from trainer.checkpoint.errors import CheckpointError
from trainer.checkpoint.interval import SaveSchedule
from trainer.checkpoint.pointer import Entry
from trainer.checkpoint.saver import AsyncSaver, SaveReport
from trainer.checkpoint.state_file import State
from trainer.checkpoint.stopping import StopRequest
from trainer.checkpoint.store import CheckpointStore, LoadedCheckpoint, SkippedCheckpoint
from voxsrc.lease import Clock, LeaseLostError, WriterActiveError

__all__ = [
    "AsyncSaver",
    "CheckpointError",
    "CheckpointStore",
    "Clock",
    "Entry",
    "LeaseLostError",
    "LoadedCheckpoint",
    "SaveReport",
    "SaveSchedule",
    "SkippedCheckpoint",
    "State",
    "StopRequest",
    "WriterActiveError",
]
