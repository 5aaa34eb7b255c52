"""A checkpointed job on machines that are taken away: its expected time, in closed form.

The model. While a machine is held, preemptions come as a Poisson process of rate λ = 1/M: during work,
saves, restores and starts alike. The work T is cut into n = ⌈T/τ⌉ segments of τ (the last one shorter), each
followed by a save δ; a = τ + δ. What is not yet saved is lost. After a preemption the job waits W for
capacity, which is not billed, then holds a new machine, billed from its first second: B to start (boot,
driver, image, process), R to restore if there is a checkpoint, and the segment again. The first start is
like the others, without a checkpoint.

Expectations. Needing x uninterrupted seconds on a fresh machine, with a fresh one after each preemption,
takes E(x) = (e^{λx} - 1)/λ billed seconds: E = ∫₀ˣ λt e^{-λt} dt + (1 - e^{-λx}) E + x e^{-λx}. A running
machine that needs a more seconds holds for (1 - e^{-λa})/λ, and with probability 1 - e^{-λa} needs E(r + a)
after that, r = B + R:

    E_segment = (1 - e^{-λa})/λ + (1 - e^{-λa}) (e^{λ(r + a)} - 1)/λ = e^{λr} (e^{λa} - 1)/λ

which is Daly's M e^{R/M} (e^{(τ + δ)/M} - 1) ("A higher order estimate of the optimum checkpoint interval
for restart dumps", Future Generation Computer Systems 22, 2006), with B + R for his R. So

    E[billed] = E(B + a₁) + Σ_{k ≥ 2} e^{λ(B + R)} (e^{λa_k} - 1)/λ

and as preemptions come only while a machine is held, E[preemptions] = λ E[billed] (the compensated count
is a martingale), and E[wall-clock] = E[billed] + W (1 + E[preemptions]).

Conservative: the trainer saves beside the loop, here the loop waits. Left out: the minute that Compute Engine
bills at least, and validations, which save too.
"""

import math
from dataclasses import dataclass

from voxsrc.errors import ConfigError

MOST_SEGMENTS = 1_000_000
_ROUNDING = 1e-9  # of a segment


@dataclass(frozen=True, kw_only=True)
class Job:
    """What has to be done, and what a preemption costs; all in seconds.

    Attributes:
        work_s: T, computing without saves, at least 0.
        interval_s: τ, work between saves, above 0.
        save_s: δ.
        restore_s: R.
        start_s: B, from the first billed second of a machine to the first step.
        wait_s: W, mean time until a machine is to be had.
        mean_time_between_preemptions_s: M = 1/λ, above 0; infinite on demand.
    """

    work_s: float
    interval_s: float
    save_s: float
    restore_s: float
    start_s: float
    wait_s: float = 0.0
    mean_time_between_preemptions_s: float = math.inf

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        for name in ("work_s", "save_s", "restore_s", "start_s", "wait_s"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name} is {value:g}; expected 0 or more seconds")
        if not 0 < self.interval_s < math.inf:
            raise ConfigError(f"interval_s is {self.interval_s:g}; expected more than 0 seconds")
        if not self.mean_time_between_preemptions_s > 0:
            raise ConfigError(
                f"mean_time_between_preemptions_s is {self.mean_time_between_preemptions_s:g}; "
                "expected more than 0, or infinity for machines that are never taken"
            )
        if self.work_s / self.interval_s > MOST_SEGMENTS:
            raise ConfigError(
                f"{self.work_s:g} s of work in intervals of {self.interval_s:g} s are more than "
                f"{MOST_SEGMENTS:,} saves; save less often"
            )

    @property
    def rate(self) -> float:
        """λ, preemptions a second."""
        return 1.0 / self.mean_time_between_preemptions_s

    @property
    def num_segments(self) -> int:
        """n; a job without work still saves once."""
        return max(1, math.ceil(self.work_s / self.interval_s - _ROUNDING))

    @property
    def segment_s(self) -> float:
        """a, of each segment but the last."""
        return self.interval_s + self.save_s

    @property
    def last_segment_s(self) -> float:
        """What is left of the work, and its save."""
        return self.work_s - (self.num_segments - 1) * self.interval_s + self.save_s

    @property
    def undisturbed_s(self) -> float:
        """Billed time without any preemption: start, work and saves."""
        return self.start_s + self.work_s + self.num_segments * self.save_s


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Means over many runs; infinite where the job is not expected to end.

    Attributes:
        wall_s: From submission to the end, seconds.
        spot_s: Billed on Spot machines, seconds.
        on_demand_s: Billed on demand, seconds.
        preemptions: How often a machine is taken.
    """

    wall_s: float
    spot_s: float
    on_demand_s: float
    preemptions: float


def expected_on_demand(job: Job) -> Expected:
    """On machines that are never taken, and to be had at once."""
    return Expected(wall_s=job.undisturbed_s, spot_s=0.0, on_demand_s=job.undisturbed_s, preemptions=0.0)


def expected_on_spot(job: Job) -> Expected:
    """On Spot machines alone; waits for capacity as long as it takes."""
    rate, num = job.rate, job.num_segments
    first_s = job.segment_s if num > 1 else job.last_segment_s
    spot_s = _fresh_s(rate, job.start_s + first_s)
    if num > 1:
        again = _exp(rate * (job.start_s + job.restore_s))
        spot_s += again * ((num - 2) * _fresh_s(rate, job.segment_s) + _fresh_s(rate, job.last_segment_s))
    preemptions = rate * spot_s
    return Expected(
        wall_s=spot_s + job.wait_s * (1.0 + preemptions),
        spot_s=spot_s,
        on_demand_s=0.0,
        preemptions=preemptions,
    )


def expected_with_fallback(job: Job, fallback_probability: float) -> Expected:
    """On Spot, but on demand to the end as soon as a start, also the first, finds no Spot machine.

    That is what a pod does that tolerates both pools. Nothing waits: `wait_s` is not used. Computed from the
    last segment backwards: with u Spot seconds and o on-demand seconds to go from a fresh start at segment
    k, v and w from a machine that runs, s = e^{-λ(r + a)} its chance to hold that long, f to fall back:

        u = (1 - f) ((1 - s)/λ + s v' + (1 - s) u),   o = f (r + rest) + (1 - f) (s w' + (1 - s) o)
        v = (1 - e^{-λa})/λ + e^{-λa} v' + (1 - e^{-λa}) u,   w = e^{-λa} w' + (1 - e^{-λa}) o

    Args:
        job: What to do.
        fallback_probability: f, in [0, 1].

    Raises:
        ConfigError: f is not a probability.
    """
    if not 0 <= fallback_probability <= 1:
        raise ConfigError(f"fallback_probability is {fallback_probability:g}; expected a number from 0 to 1")
    rate, num, fall = job.rate, job.num_segments, fallback_probability
    rest_s = running_spot_s = running_on_demand_s = 0.0
    for k in range(num - 1, -1, -1):
        segment_s = job.last_segment_s if k == num - 1 else job.segment_s
        rest_s += segment_s
        again_s = job.start_s + (job.restore_s if k else 0.0)
        holds = math.exp(-rate * (again_s + segment_s))
        starts = 1.0 - (1.0 - fall) * (1.0 - holds)
        if starts == 0.0:
            return Expected(wall_s=math.inf, spot_s=math.inf, on_demand_s=0.0, preemptions=math.inf)
        fresh_spot_s = (1 - fall) * (_held_s(rate, again_s + segment_s) + holds * running_spot_s) / starts
        fresh_on_demand_s = (fall * (again_s + rest_s) + (1 - fall) * holds * running_on_demand_s) / starts
        runs_on = math.exp(-rate * segment_s)
        running_spot_s = _held_s(rate, segment_s) + runs_on * running_spot_s + (1 - runs_on) * fresh_spot_s
        running_on_demand_s = runs_on * running_on_demand_s + (1 - runs_on) * fresh_on_demand_s
    return Expected(
        wall_s=fresh_spot_s + fresh_on_demand_s,
        spot_s=fresh_spot_s,
        on_demand_s=fresh_on_demand_s,
        preemptions=rate * fresh_spot_s,
    )


def _fresh_s(rate: float, needed_s: float) -> float:
    """(e^{λx} - 1)/λ: billed seconds until x of them came without a preemption."""
    if rate == 0.0:
        return needed_s
    try:
        return math.expm1(rate * needed_s) / rate
    except OverflowError:
        return math.inf


def _held_s(rate: float, needed_s: float) -> float:
    """(1 - e^{-λx})/λ: how long a machine is held of x seconds, on average."""
    return needed_s if rate == 0.0 else -math.expm1(-rate * needed_s) / rate


def _exp(exponent: float) -> float:
    try:
        return math.exp(exponent)
    except OverflowError:
        return math.inf
