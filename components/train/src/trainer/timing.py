"""Times this process of a training, for `timings.json`: what a start, a restore, a save and a step take."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import torch

from trainer.checkpoint import SaveReport
from trainer.distributed import World
from voxsrc import storage
from voxsrc.errors import ConfigError, NotFoundError
from voxsrc.processes import boot_id, process_started
from voxsrc.run_timings import TIMINGS_NAME, Attempt, RunTimings, read_timings

_log = logging.getLogger("trainer")


class Timing:
    """Collects the times of this process and writes them below those of the processes before it.

    Args:
        output_uri: Folder of the run.
        device: Where it trains.
        world: This process among all.
        num_steps: Of the whole training.
        num_frames: Of all its crops.
        monotonic: Seconds of a clock that never jumps.
    """

    def __init__(
        self,
        output_uri: str,
        device: torch.device,
        world: World,
        *,
        num_steps: int,
        num_frames: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output_uri = output_uri
        self._device = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        self._num_processes = world.size
        self._whole = (num_steps, num_frames)
        self._monotonic = monotonic
        self._uptime_s = _uptime_at_start_s(world)
        age_s = 0.0
        if self._uptime_s is not None:
            age_s = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - self._uptime_s)
        self._began = datetime.now(UTC) - timedelta(seconds=age_s)
        self._began_s = self._mark_s = monotonic() - age_s
        self._setup_s = self._restore_s = self._training_s = self._validation_s = self._save_s = 0.0
        self._first_step_s: float | None = None
        self._first_step = self._num_steps = self._num_frames = self._num_saves = self._save_bytes = 0
        self._earlier: tuple[Attempt, ...] | None = None
        self._earlier_whole: tuple[int, int] | None = None

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Around what a process does only because there may have been one before it."""
        began_s = self._monotonic()
        yield
        self._restore_s += self._monotonic() - began_s

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Around a validation, between two steps."""
        began_s = self._monotonic()
        yield
        took_s = self._monotonic() - began_s
        self._validation_s += took_s
        self._mark_s += took_s

    def loop_begins(self, first_step: int) -> None:
        """The first batch is asked for now; `first_step` steps were done before."""
        self._first_step = first_step
        self._mark_s = self._monotonic()
        self._setup_s = self._mark_s - self._began_s - self._restore_s

    def skip(self, num_steps: int, num_frames: int) -> None:
        """Steps that will not be done, as patience has run out."""
        self._whole = (self._whole[0] - num_steps, self._whole[1] - num_frames)

    def step_done(self, num_frames: int) -> None:
        """Counts a step on so many frames of crops; the first one apart, as it may compile."""
        before_s, self._mark_s = self._mark_s, self._monotonic()
        if self._first_step_s is None:
            self._first_step_s = self._mark_s - before_s
            return
        self._training_s += self._mark_s - before_s
        self._num_steps += 1
        self._num_frames += num_frames

    def saved(self, report: SaveReport) -> None:
        """Counts a save; one that failed tells nothing."""
        if report.error is None:
            self._num_saves += 1
            self._save_s += report.copy_s + report.write_s
            self._save_bytes = report.num_bytes

    def write(self, *, finished: bool = False) -> None:
        """Writes the file; only the process that holds the run's lease may.

        Raises:
            StorageError: It cannot be read or written.
        """
        if self._earlier is None:
            self._earlier = self._read_earlier()
        # A process that began after steps were skipped does not know of them, the one before it did.
        num_steps, num_frames = self._whole = min(self._whole, self._earlier_whole or self._whole)
        timings = RunTimings(
            num_steps=num_steps, num_frames=num_frames, attempts=(*self._earlier, self._attempt(finished))
        )
        storage.write_bytes(storage.join(self._output_uri, TIMINGS_NAME), timings.to_json())

    def _read_earlier(self) -> tuple[Attempt, ...]:
        try:
            earlier = read_timings(self._output_uri)
            self._earlier_whole = (earlier.num_steps, earlier.num_frames)
            return earlier.attempts
        except NotFoundError:
            return ()
        except ConfigError as error:
            _log.warning("the times of earlier processes are lost: %s", error)
            return ()

    def _attempt(self, finished: bool) -> Attempt:
        return Attempt(
            began=self._began.isoformat(timespec="seconds"),
            boot_id=boot_id(),
            uptime_s=None if self._uptime_s is None else _rounded(self._uptime_s),
            device=self._device,
            num_processes=self._num_processes,
            setup_s=_rounded(self._setup_s),
            restore_s=_rounded(self._restore_s),
            first_step=self._first_step,
            first_step_s=_rounded(self._first_step_s or 0.0),
            num_steps=self._num_steps,
            num_frames=self._num_frames,
            training_s=_rounded(self._training_s),
            validation_s=_rounded(self._validation_s),
            num_saves=self._num_saves,
            save_s=_rounded(self._save_s),
            save_bytes=self._save_bytes,
            held_s=_rounded(self._monotonic() - self._began_s),
            finished=finished,
        )


def _uptime_at_start_s(world: World) -> float | None:
    """How long the machine had been up when this process started, or the torchrun that started it."""
    ticks = process_started(os.getpid() if world.size == 1 else os.getppid())
    return int(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
