"""`timings.json`, in the folder of a training: what its starts, restores, saves and steps took.

Written by the trainer at its start and with each checkpoint, read by `voxsrc cost --from-run`. An attempt is
a process of the training, from its start to its end or to the preemption that took its machine.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Self

from voxsrc import storage
from voxsrc.config import from_mapping
from voxsrc.errors import ConfigError

TIMINGS_NAME = "timings.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One process's times; those of its steps and saves are sums so far.

    Attributes:
        began: When the process started, ISO 8601, UTC.
        boot_id: Tells machines, and their boots, apart; "" if unknown.
        uptime_s: How long the machine had been up when the process started; None if unknown.
        device: The GPU's name, or `cpu`.
        num_processes: Which share each batch.
        setup_s: From the process's start to the training loop, without `restore_s`.
        restore_s: Waiting for the right to write, finding and loading the checkpoint.
        first_step: Steps that the checkpoint held; 0 if there was none.
        first_step_s: The first step, which may compile.
        num_steps: Steps after the first one.
        num_frames: Of these steps' crops.
        training_s: These steps took, without validations; saves go on beside them.
        validation_s: Validations took.
        num_saves: Checkpoints that were written.
        save_s: They took, from copy to file; the loop waits for the copy alone.
        save_bytes: Size of the last one.
        held_s: From the process's start to this record.
        finished: The training came to its end.
    """

    began: str
    boot_id: str
    uptime_s: float | None
    device: str
    num_processes: int
    setup_s: float
    restore_s: float
    first_step: int
    first_step_s: float
    num_steps: int
    num_frames: int
    training_s: float
    validation_s: float
    num_saves: int
    save_s: float
    save_bytes: int
    held_s: float
    finished: bool


@dataclass(frozen=True, kw_only=True)
class RunTimings:
    """The file's content.

    Attributes:
        num_steps: Of the whole training, less those that were skipped as patience ran out.
        num_frames: Of all its crops, likewise.
        attempts: Oldest first.
    """

    num_steps: int
    num_frames: int
    attempts: tuple[Attempt, ...]

    def to_json(self) -> bytes:
        """The file's bytes."""
        return (json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes, name: str) -> Self:
        """Reads the file's bytes.

        Raises:
            ConfigError: They are no such file, or one of another format.
        """
        try:
            fields = json.loads(content)
        except ValueError as error:
            raise ConfigError(f"{name}: not JSON, {error}") from error
        found = fields.pop("format", None) if isinstance(fields, dict) else None
        if found != _FORMAT:
            raise ConfigError(f"{name}: found format {found!r}, expected {_FORMAT}")
        return from_mapping(cls, fields, name)


def read_timings(run_uri: str) -> RunTimings:
    """What a training in this folder, local or gs://, has recorded.

    Raises:
        NotFoundError: Nothing: it has saved no checkpoint yet, or there is none.
        ConfigError: The file is damaged.
    """
    uri = storage.join(run_uri, TIMINGS_NAME)
    return RunTimings.from_json(storage.read_bytes(uri), uri)
