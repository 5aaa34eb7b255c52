"""What of a process's time is counted as what, by a clock that is set by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from trainer import timing
from trainer.checkpoint import SaveReport
from trainer.distributed import World
from trainer.timing import Timing
from voxsrc.errors import StorageError
from voxsrc.run_timings import Attempt, read_timings


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def passes(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Timing]:
    """A process that began 7 s ago on a machine that was up for 50 s then."""
    monkeypatch.setattr(timing, "_uptime_at_start_s", lambda _: 50.0)
    monkeypatch.setattr(timing.time, "clock_gettime", lambda _: 57.0)
    yield Timing(str(tmp_path), torch.device("cpu"), World(), num_steps=9, num_frames=900, monotonic=clock)


def written(timed: Timing, folder: Path) -> Attempt:
    timed.write()
    return read_timings(str(folder)).attempts[-1]


def test_all_time_has_one_place(timed: Timing, clock: Clock, tmp_path: Path) -> None:
    clock.passes(3)
    with timed.restoring():
        clock.passes(20)
    clock.passes(1)
    timed.loop_begins(4)
    for seconds in (30, 2, 2.5):
        clock.passes(seconds)
        timed.step_done(100)
        with timed.validating():
            clock.passes(8)
    clock.passes(0.25)
    attempt = written(timed, tmp_path)
    assert (attempt.uptime_s, attempt.setup_s, attempt.restore_s) == (50.0, 7 + 3 + 1, 20)
    assert (attempt.first_step, attempt.first_step_s, attempt.num_steps) == (4, 30, 2)
    assert (attempt.num_frames, attempt.training_s, attempt.validation_s) == (200, 4.5, 24)
    assert attempt.held_s == 7 + 3 + 20 + 1 + 34.5 + 24 + 0.25


def test_a_save_that_failed_tells_nothing(timed: Timing, tmp_path: Path) -> None:
    timed.saved(SaveReport(1, 0.5, 2.0, 1234, None))
    timed.saved(SaveReport(2, 9.0, 9.0, 9999, StorageError("the network is away")))
    attempt = written(timed, tmp_path)
    assert (attempt.num_saves, attempt.save_s, attempt.save_bytes) == (1, 2.5, 1234)


def test_writing_again_replaces_its_own_record(timed: Timing, tmp_path: Path) -> None:
    timed.write()
    timed.write(finished=True)
    assert [each.finished for each in read_timings(str(tmp_path)).attempts] == [True]


def test_a_system_that_does_not_tell_the_start(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "process_started", lambda _: "")
    timed = Timing(str(tmp_path), torch.device("cpu"), World(), num_steps=9, num_frames=900, monotonic=clock)
    clock.passes(2)
    attempt = written(timed, tmp_path)
    assert (attempt.uptime_s, attempt.held_s) == (None, 2)
