"""Many runs of a job, machine by machine: checks the closed form and shows how far a run may be from it."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxsrc.cost.job import Job, expected_on_spot, expected_with_fallback
from voxsrc.errors import ConfigError

_MOST_PREEMPTIONS = 100_000.0
_MOST_RUNS = 1_000_000


@dataclass(frozen=True)
class Runs:
    """What happened in each of N simulated runs.

    Attributes:
        wall_s: (N,) from submission to the end, seconds.
        spot_s: (N,) billed on Spot machines, seconds.
        on_demand_s: (N,) billed on demand, seconds.
        preemptions: (N,) how often the machine was taken.
    """

    wall_s: NDArray[np.float64]
    spot_s: NDArray[np.float64]
    on_demand_s: NDArray[np.float64]
    preemptions: NDArray[np.int64]


def simulate(job: Job, num_runs: int, *, seed: int, fallback_probability: float | None = None) -> Runs:
    """Simulates runs; each step of the loop is one machine's life, in all runs that have not ended.

    A machine lives for an exponential time; the segments that end within it, after start and restore, are
    saved. Waits are exponential with mean `job.wait_s`.

    Args:
        job: What to do.
        num_runs: N, at least 1.
        seed: Of the random numbers; equal arguments give equal runs.
        fallback_probability: None waits for Spot capacity; a number goes on demand at a start with this
            probability, to the end, and never waits.

    Raises:
        ConfigError: N is below 1 or above a million, the seed is negative, or the job is expected to be
            preempted more than 100,000 times.
    """
    if not 1 <= num_runs <= _MOST_RUNS:
        raise ConfigError(f"--simulate is {num_runs}; expected 1 to {_MOST_RUNS:,}")
    if seed < 0:
        raise ConfigError(f"--seed is {seed}; expected 0 or more")
    expected = (
        expected_on_spot(job)
        if fallback_probability is None
        else expected_with_fallback(job, fallback_probability)
    )
    if not expected.preemptions <= _MOST_PREEMPTIONS:
        raise ConfigError(
            f"{expected.preemptions:.3g} preemptions are expected, more than can be simulated; "
            "shorten the start or the checkpoint interval"
        )
    rng = np.random.default_rng(seed)
    segments_s = np.full(job.num_segments, job.segment_s)
    segments_s[-1] = job.last_segment_s
    ends_s = np.concatenate([[0.0], np.cumsum(segments_s)])
    runs = Runs(
        wall_s=np.zeros(num_runs),
        spot_s=np.zeros(num_runs),
        on_demand_s=np.zeros(num_runs),
        preemptions=np.zeros(num_runs, np.int64),
    )
    active = np.arange(num_runs)
    saved = np.zeros(num_runs, np.int64)  # segments, of the active runs
    while active.size:
        begins_s = job.start_s + job.restore_s * (saved > 0)
        if fallback_probability is None:
            runs.wall_s[active] += rng.exponential(job.wait_s, active.size)
        else:
            falls = rng.random(active.size) < fallback_probability
            runs.on_demand_s[active[falls]] = begins_s[falls] + ends_s[-1] - ends_s[saved[falls]]
            active, saved, begins_s = active[~falls], saved[~falls], begins_s[~falls]
        lives_s = _lifetimes_s(rng, job, active.size)
        reached = np.searchsorted(ends_s, ends_s[saved] + lives_s - begins_s, side="right") - 1
        reached = np.maximum(reached, saved)
        ended = reached == job.num_segments
        runs.spot_s[active] += np.where(ended, begins_s + ends_s[-1] - ends_s[saved], lives_s)
        runs.preemptions[active[~ended]] += 1
        active, saved = active[~ended], reached[~ended]
    runs.wall_s[:] += runs.spot_s + runs.on_demand_s
    return runs


def _lifetimes_s(rng: np.random.Generator, job: Job, count: int) -> NDArray[np.float64]:
    if math.isinf(job.mean_time_between_preemptions_s):
        return np.full(count, math.inf)
    return rng.exponential(job.mean_time_between_preemptions_s, count)
