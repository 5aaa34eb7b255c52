"""What a training has recorded (`voxsrc.run_timings`), as numbers for an estimate."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from voxsrc.cost.assumptions import MACHINE_START_S, Measurement
from voxsrc.errors import ConfigError, NotFoundError
from voxsrc.run_timings import Attempt, RunTimings, read_timings

# A machine that was up for longer before the training began had other work first.
_FRESH_S = 1800.0
_MEGABYTE = 1e6


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """A training's own numbers.

    Attributes:
        device: The GPU's name, or `cpu`, that its last process used.
        num_processes: One a GPU.
        values: By key of `assumptions.DEFAULTS`, those of it that could be measured.
        work_hours: Of the whole training on this device, steps and validations; extrapolated by the frames
            of the crops if it has not ended. None if no step was timed.
        work_basis: What `work_hours` rests on.
        finished: Whether the training came to its end.
        interruptions: How often a process ended before the training did; of one that has not ended, the last
            process, which may be running, does not count.
        held_hours: That processes lived.
    """

    device: str
    num_processes: int
    values: Mapping[str, Measurement]
    work_hours: float | None
    work_basis: str
    finished: bool
    interruptions: int
    held_hours: float

    @property
    def machine(self) -> str:
        """The device, in words, with how many there were."""
        return self.device if self.num_processes == 1 else f"{self.num_processes} × {self.device}"

    def describe(self) -> str:
        """A line or two for people."""
        text = (
            f"The run: {self.held_hours:.3g} h on {self.machine}, "
            f"{_counted(self.interruptions, 'interruption')}{'' if self.finished else ', not finished'}"
        )
        if self.work_hours is not None:
            text += f"; {self.work_hours:.4g} h of work, from {self.work_basis}"
        if self.interruptions:
            mean_hours = self.held_hours / self.interruptions
            text += (
                f"; if they were preemptions, --mean-hours-between-preemptions {mean_hours:.3g} says so "
                f"({_interval_words(self.interruptions, self.held_hours)})"
            )
        return text


def measured_run(run_uri: str) -> MeasuredRun:
    """Reads what a training in this folder, local or gs://, has recorded.

    Raises:
        ConfigError: Nothing is recorded there, or the file is damaged.
    """
    try:
        timings = read_timings(run_uri)
    except NotFoundError as error:
        raise ConfigError(
            f"--from-run {run_uri}: no times are recorded there ({error}); expected the --output of a "
            "training that has saved a checkpoint"
        ) from error
    if not timings.attempts:
        raise ConfigError(f"--from-run {run_uri}: its timings.json lists no process")
    last = timings.attempts[-1]
    # Times of another kind of machine would not be this one's.
    alike = [
        each
        for each in timings.attempts
        if (each.device, each.num_processes) == (last.device, last.num_processes)
    ]
    work_hours, work_basis = _work(timings, alike)
    return MeasuredRun(
        device=last.device,
        num_processes=last.num_processes,
        values={
            key: value
            for key, value in (
                ("save_seconds", _save(alike)),
                ("restore_seconds", _restore(alike)),
                ("start_seconds", _start(alike)),
            )
            if value is not None
        },
        work_hours=work_hours,
        work_basis=work_basis,
        finished=last.finished,
        interruptions=len(timings.attempts) - 1,
        held_hours=sum(each.held_s for each in timings.attempts) / 3600.0,
    )


def gpu_type_of(device: str, gpu_types: Iterable[str]) -> str | None:
    """The GPU type of a price file, such as `A100-40`, that torch calls `device`; None if none fits.

    The number after the dash is the memory in GB, which the device's name must state then.
    """
    for gpu in gpu_types:
        family, _, memory = gpu.partition("-")
        if re.search(rf"\b{re.escape(family)}\b", device) and (
            not memory or re.search(rf"\b{re.escape(memory)}GB\b", device)
        ):
            return gpu
    return None


def _save(attempts: Sequence[Attempt]) -> Measurement | None:
    num_saves = sum(each.num_saves for each in attempts)
    if not num_saves:
        return None
    megabytes = next(each.save_bytes for each in reversed(attempts) if each.num_saves) / _MEGABYTE
    mean_s = sum(each.save_s for each in attempts) / num_saves
    return Measurement(mean_s, f"mean of {_counted(num_saves, 'save')} of {megabytes:.3g} MB")


def _restore(attempts: Sequence[Attempt]) -> Measurement | None:
    restores = [each.restore_s for each in attempts if each.first_step]
    if not restores:
        return None
    return Measurement(
        sum(restores) / len(restores),
        f"mean of {_counted(len(restores), 'restart')}, with watching whether the one before still lived",
    )


def _start(attempts: Sequence[Attempt]) -> Measurement | None:
    """The process's part is always known, the machine's only from machines that were started for it."""
    stepped = [each.setup_s + each.first_step_s for each in attempts if each.first_step_s]
    if not stepped:
        return None
    process_s = sum(stepped) / len(stepped)
    process = f"{process_s:.3g} s from the process's start to its first step, mean of {len(stepped)}"
    fresh, seen = [], set[str]()
    for each in attempts:
        is_first = each.boot_id not in seen
        seen.add(each.boot_id)
        if each.boot_id and is_first and each.uptime_s is not None and each.uptime_s <= _FRESH_S:
            fresh.append(each.uptime_s)
    if not fresh:
        return Measurement(
            MACHINE_START_S + process_s,
            f"{process}; {MACHINE_START_S:g} s assumed for VM, driver and image, as the machine had been "
            f"up for more than {_FRESH_S / 60:g} min",
        )
    machine_s = sum(fresh) / len(fresh)
    return Measurement(
        machine_s + process_s,
        f"{process}; {machine_s:.3g} s from the machine's boot to the process, mean of "
        f"{_counted(len(fresh), 'machine')}; the seconds billed before its kernel ran are not seen",
    )


def _work(timings: RunTimings, attempts: Sequence[Attempt]) -> tuple[float | None, str]:
    num_steps = sum(each.num_steps for each in attempts)
    num_frames = sum(each.num_frames for each in attempts)
    if not num_frames:
        return None, ""
    training_s = sum(each.training_s for each in attempts) / num_frames * timings.num_frames
    validation_s = sum(each.validation_s for each in attempts) / num_steps * timings.num_steps
    basis = f"{num_steps:,} timed steps of {timings.num_steps:,}"
    return (training_s + validation_s) / 3600.0, basis


def _interval_words(events: int, hours: float) -> str:
    """How sure a rate from so few events is: 90 % limits of a Poisson count, by Wilson and Hilferty.

    χ²(p, n) ≈ n (1 - 2/9n + z √(2/9n))³; the limits of the count are χ²(0.05, 2k)/2 and χ²(0.95, 2k + 2)/2.
    """
    z = 1.6448536269514722

    def half_chi_square(num: float, sign: int) -> float:
        part = 2.0 / (9.0 * num)
        root: float = 1.0 - part + sign * z * math.sqrt(part)
        return 0.5 * num * root**3

    least, most = half_chi_square(2.0 * events, -1), half_chi_square(2.0 * events + 2.0, 1)
    return f"90 % interval {hours / most:.2g} to {hours / max(least, 1e-9):.2g} h"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"
