"""Trainings' records of their times, for tests of `voxsrc cost --from-run`."""

from pathlib import Path
from typing import Any

from voxsrc.run_timings import TIMINGS_NAME, Attempt, RunTimings


def attempt(**changed: Any) -> Attempt:
    """An hour on an L4, 100 steps long, some fields replaced."""
    fields: dict[str, Any] = {
        "began": "2026-01-02T03:04:05+00:00",
        "boot_id": "one",
        "uptime_s": 100.0,
        "device": "NVIDIA L4",
        "num_processes": 1,
        "setup_s": 10.0,
        "restore_s": 0.5,
        "first_step": 0,
        "first_step_s": 20.0,
        "num_steps": 99,
        "num_frames": 9_900,
        "training_s": 99.0,
        "validation_s": 9.9,
        "num_saves": 2,
        "save_s": 6.0,
        "save_bytes": 145_000_000,
        "held_s": 3600.0,
        "finished": False,
    }
    return Attempt(**{**fields, **changed})


def run_of(folder: Path, *attempts: Attempt, num_steps: int = 1000, num_frames: int = 200_000) -> str:
    """Writes the record of a training that needs 1,000 steps, or so many; returns its folder."""
    timings = RunTimings(num_steps=num_steps, num_frames=num_frames, attempts=attempts)
    (folder / TIMINGS_NAME).write_bytes(timings.to_json())
    return str(folder)
