"""`voxsrc.cost`: the closed form against simulations, its limits, and the checkpoint interval."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxsrc.checkpoint_interval import (
    LONGEST_INTERVAL_S,
    SHORTEST_INTERVAL_S,
    interval_s,
)
from voxsrc.cost.job import Job, expected_on_demand, expected_on_spot, expected_with_fallback
from voxsrc.cost.simulation import simulate
from voxsrc.errors import ConfigError

HOUR = 3600.0
JOB = Job(
    work_s=10 * HOUR,
    interval_s=600,
    save_s=20,
    restore_s=60,
    start_s=300,
    wait_s=240,
    mean_time_between_preemptions_s=2 * HOUR,
)
# One segment and many, a short last one, no wait, starts as long as a machine's life, no restore, free saves.
GRID = {
    "typical": JOB,
    "rare": replace(JOB, mean_time_between_preemptions_s=50 * HOUR),
    "frequent": replace(JOB, mean_time_between_preemptions_s=0.3 * HOUR),
    "one segment": replace(JOB, work_s=500, mean_time_between_preemptions_s=900),
    "a short last segment": replace(JOB, work_s=3 * 600 + 7, mean_time_between_preemptions_s=1500),
    "long starts": replace(JOB, work_s=HOUR, start_s=1800, mean_time_between_preemptions_s=1500),
    "no restore, no wait": replace(JOB, restore_s=0, wait_s=0),
    "free saves": replace(JOB, save_s=0, interval_s=60),
    "saves as long as work": replace(JOB, work_s=HOUR, save_s=300, interval_s=300),
    "never taken": replace(JOB, mean_time_between_preemptions_s=math.inf),
}
FALLBACKS = (0.0, 0.1, 0.7, 1.0)


def close_to_mean(samples: np.ndarray, expected: float) -> bool:
    """Whether a closed form is within 4 standard errors of a simulated mean (1 of 16,000 is not)."""
    error = samples.std() / math.sqrt(len(samples))
    return bool(abs(samples.mean() - expected) <= 4 * error + 1e-9 * expected)


def wall_clock_by_events(job: Job, rng: random.Random) -> float:
    """One run, phase by phase, without anything that `simulation` shares with the closed form."""
    done_s, wall_s, saved_once = 0.0, 0.0, False
    while True:
        wall_s += job.wait_s
        left_s = rng.expovariate(job.rate)
        phases = [job.start_s] + ([job.restore_s] if saved_once else [])
        while True:
            step_s = min(job.interval_s, job.work_s - done_s)
            phases += [step_s, job.save_s]
            needed_s = sum(phases)
            if left_s < needed_s:
                wall_s += left_s
                break
            left_s -= needed_s
            wall_s += needed_s
            done_s, saved_once, phases = done_s + step_s, True, []
            if done_s >= job.work_s:
                return wall_s


class TestClosedForm:
    @pytest.mark.parametrize("name", GRID)
    def test_agrees_with_the_simulation(self, name: str) -> None:
        job = GRID[name]
        runs, expected = simulate(job, 20_000, seed=1), expected_on_spot(job)
        assert close_to_mean(runs.spot_s, expected.spot_s)
        assert close_to_mean(runs.wall_s, expected.wall_s)
        assert close_to_mean(runs.preemptions, expected.preemptions)
        assert not runs.on_demand_s.any()

    @pytest.mark.parametrize("probability", FALLBACKS)
    @pytest.mark.parametrize("name", ["typical", "frequent", "a short last segment", "never taken"])
    def test_agrees_with_the_simulation_of_fallback(self, name: str, probability: float) -> None:
        job = GRID[name]
        runs = simulate(job, 20_000, seed=2, fallback_probability=probability)
        expected = expected_with_fallback(job, probability)
        assert close_to_mean(runs.spot_s, expected.spot_s)
        assert close_to_mean(runs.on_demand_s, expected.on_demand_s)
        assert close_to_mean(runs.wall_s, expected.wall_s)
        assert close_to_mean(runs.preemptions, expected.preemptions)

    @pytest.mark.parametrize("name", ["typical", "one segment", "a short last segment", "long starts"])
    def test_agrees_with_a_run_phase_by_phase(self, name: str) -> None:
        job, rng = GRID[name], random.Random(3)
        samples = np.array([wall_clock_by_events(job, rng) for _ in range(1500)])
        assert close_to_mean(samples, expected_on_spot(job).wall_s)

    def test_is_what_one_segment_gives_by_hand(self) -> None:
        job = Job(
            work_s=90, interval_s=100, save_s=10, restore_s=7, start_s=0, mean_time_between_preemptions_s=100
        )
        assert expected_on_spot(job).spot_s == pytest.approx(100 * (math.e - 1))
        assert expected_on_spot(job).preemptions == pytest.approx(math.e - 1)

    def test_is_dalys_sum_over_equal_segments(self) -> None:
        mean_s, segment_s, again_s = 2 * HOUR, 620.0, 360.0
        first = mean_s * math.expm1((300 + segment_s) / mean_s)
        others = 59 * mean_s * math.exp(again_s / mean_s) * math.expm1(segment_s / mean_s)
        assert expected_on_spot(JOB).spot_s == pytest.approx(first + others)

    def test_without_preemptions_is_start_work_and_saves(self) -> None:
        job = GRID["never taken"]
        assert expected_on_spot(job).spot_s == pytest.approx(300 + 10 * HOUR + 60 * 20)
        assert expected_on_spot(job).wall_s == pytest.approx(240 + 300 + 10 * HOUR + 60 * 20)
        assert expected_on_demand(JOB).wall_s == pytest.approx(300 + 10 * HOUR + 60 * 20)
        rare = replace(JOB, mean_time_between_preemptions_s=1e12)
        assert expected_on_spot(rare).spot_s == pytest.approx(expected_on_spot(job).spot_s)

    def test_is_infinite_when_no_machine_lives_long_enough(self) -> None:
        hopeless = replace(JOB, mean_time_between_preemptions_s=0.5)
        assert expected_on_spot(hopeless).wall_s == math.inf
        assert expected_with_fallback(hopeless, 0.0).wall_s == math.inf
        assert expected_with_fallback(hopeless, 0.5).wall_s < 20 * HOUR

    def test_with_fallback_goes_from_spot_alone_to_on_demand_alone(self) -> None:
        without_wait = replace(JOB, wait_s=0)
        never, always = expected_with_fallback(JOB, 0.0), expected_with_fallback(JOB, 1.0)
        assert never.spot_s == pytest.approx(expected_on_spot(without_wait).spot_s)
        assert never.wall_s == pytest.approx(expected_on_spot(without_wait).wall_s)
        assert never.preemptions == pytest.approx(expected_on_spot(without_wait).preemptions)
        assert (never.on_demand_s, always.spot_s) == (0, 0)
        assert always.wall_s == pytest.approx(expected_on_demand(JOB).wall_s)


seconds = st.floats(1, 2000)
jobs = st.builds(
    Job,
    work_s=st.floats(60, 50_000),
    interval_s=st.floats(50, 4000),
    save_s=seconds,
    restore_s=seconds,
    start_s=seconds,
    wait_s=seconds,
    mean_time_between_preemptions_s=st.floats(1000, 1e6),
)


class TestMonotonicity:
    @given(jobs, st.sampled_from(["work_s", "save_s", "restore_s", "start_s", "wait_s"]), st.floats(1.01, 3))
    def test_more_of_anything_takes_longer(self, job: Job, name: str, factor: float) -> None:
        more = replace(job, **{name: factor * getattr(job, name)})
        assert expected_on_spot(more).wall_s >= expected_on_spot(job).wall_s * (1 - 1e-12)

    @given(jobs, st.floats(1.01, 3))
    def test_more_preemptions_take_longer(self, job: Job, factor: float) -> None:
        more = replace(job, mean_time_between_preemptions_s=job.mean_time_between_preemptions_s / factor)
        before, after = expected_on_spot(job), expected_on_spot(more)
        assert after.spot_s >= before.spot_s >= job.undisturbed_s * (1 - 1e-12)
        assert after.preemptions >= before.preemptions

    @given(jobs, st.floats(0, 0.5), st.floats(0.5, 1))
    def test_more_fallback_finishes_sooner(self, job: Job, less: float, more: float) -> None:
        assert expected_with_fallback(job, more).wall_s <= expected_with_fallback(job, less).wall_s * (
            1 + 1e-9
        )


class TestSimulation:
    def test_repeats_with_its_seed(self) -> None:
        runs, again, other = (simulate(JOB, 50, seed=seed) for seed in (5, 5, 6))
        assert np.array_equal(runs.wall_s, again.wall_s)
        assert not np.array_equal(runs.wall_s, other.wall_s)

    def test_refuses_what_has_no_end(self) -> None:
        with pytest.raises(ConfigError, match=r"more than can be simulated; shorten the start"):
            simulate(replace(JOB, mean_time_between_preemptions_s=20), 10, seed=0)
        with pytest.raises(ConfigError, match="--simulate is 0"):
            simulate(JOB, 0, seed=0)
        with pytest.raises(ConfigError, match="--seed is -1"):
            simulate(JOB, 1, seed=-1)


class TestJob:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("work_s", -1.0),
            ("save_s", math.inf),
            ("start_s", math.nan),
            ("interval_s", 0.0),
            ("mean_time_between_preemptions_s", 0.0),
        ],
    )
    def test_names_the_field_that_cannot_be_used(self, name: str, value: float) -> None:
        with pytest.raises(ConfigError, match=rf"^{name} is {value:g}; expected"):
            replace(JOB, **{name: value})

    def test_refuses_a_million_saves(self) -> None:
        with pytest.raises(ConfigError, match="save less often"):
            replace(JOB, interval_s=0.01)

    def test_rounding_adds_no_segment(self) -> None:
        assert replace(JOB, work_s=0.1 * 3, interval_s=0.1).num_segments == 3

    def test_refuses_what_is_no_probability(self) -> None:
        with pytest.raises(ConfigError, match=r"fallback_probability is 1\.5"):
            expected_with_fallback(JOB, 1.5)


class TestInterval:
    @pytest.mark.parametrize("mean_h", [0.5, 1, 4, 24])
    @pytest.mark.parametrize("save_s", [1, 5, 30])
    def test_is_near_the_numeric_optimum(self, mean_h: float, save_s: float) -> None:
        job = replace(JOB, work_s=100 * HOUR, save_s=save_s, mean_time_between_preemptions_s=mean_h * HOUR)
        chosen_s = interval_s(save_s, mean_h * HOUR, shortest_s=1, longest_s=1e9)
        tried = np.geomspace(chosen_s / 5, chosen_s * 5, 201)
        times = [expected_on_spot(replace(job, interval_s=float(tau))).spot_s for tau in tried]
        best = int(np.argmin(times))
        assert 0 < best < 200
        assert expected_on_spot(replace(job, interval_s=chosen_s)).spot_s <= 1.002 * times[best]
        assert chosen_s == pytest.approx(tried[best], rel=0.25)

    @given(st.floats(0, 5000), st.floats(1, 1e7))
    def test_keeps_within_limits_but_above_a_save(self, save_s: float, mean_s: float) -> None:
        chosen_s = interval_s(save_s, mean_s)
        assert max(SHORTEST_INTERVAL_S, save_s) <= chosen_s <= max(LONGEST_INTERVAL_S, save_s)

    def test_of_machines_that_are_never_taken_is_the_longest(self) -> None:
        assert interval_s(5, math.inf) == LONGEST_INTERVAL_S
        assert interval_s(0, math.inf) == SHORTEST_INTERVAL_S
