"""The estimate: work, prices and assumptions become cost and finish time, on demand, on Spot, and mixed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from voxsrc.checkpoint_interval import interval_s
from voxsrc.cost.assumptions import Assumption, Measurement, resolve
from voxsrc.cost.job import Expected, Job, expected_on_demand, expected_on_spot, expected_with_fallback
from voxsrc.cost.lines import Bill
from voxsrc.cost.prices import MachinePrice, Prices
from voxsrc.cost.simulation import Runs, simulate
from voxsrc.errors import ConfigError

LONGEST_H = 10 * 365 * 24.0  # no run is waited for so long
_HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked.

    Attributes:
        region: A region of the price file.
        gpu: A GPU type of it.
        num_gpus: In one machine.
        work_hours: Computing on that machine, without saves and starts.
        checkpoint_interval_s: None is Young's and Daly's optimum, as the trainer computes it.
        given: Values instead of `assumptions.DEFAULTS`, by key; None is the measured one, or the default.
        measured: By such a key, what a run has recorded.
    """

    region: str
    gpu: str
    num_gpus: int
    work_hours: float
    checkpoint_interval_s: float | None
    given: Mapping[str, float | None]
    measured: Mapping[str, Measurement] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One way to run the job: means over many runs.

    Attributes:
        name: Such as `Spot`.
        wall_hours: From submission to the end.
        billed_hours: Of the GPU machine.
        preemptions: How often the machine is taken.
        checkpoint_interval_s: Work between saves.
        lines: US dollars by what they are for.
    """

    name: str
    wall_hours: float
    billed_hours: float
    preemptions: float
    checkpoint_interval_s: float
    lines: Mapping[str, float]

    @property
    def total_usd(self) -> float:
        """The sum of all lines."""
        return sum(self.lines.values())


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What comes out at another preemption rate, with the checkpoint interval chosen for it.

    Attributes:
        rate_factor: Times the assumed rate.
        machine_ratio: Cost of the GPU machine, Spot to on demand; infinite if the run would not end.
        wall_hours: Finish time on Spot, likewise.
    """

    rate_factor: float
    machine_ratio: float
    wall_hours: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The whole answer.

    Attributes:
        request: What was asked.
        machine: The GPU machine's price.
        on_demand: Never taken, to be had at once.
        spot: Spot alone.
        fallback: Spot, then on demand to the end once no Spot machine is found.
        assumptions: Every number behind it.
        sensitivity: At half and twice the preemption rate.
        price_sources: What the price file's keys of sources mean.
    """

    request: Request
    machine: MachinePrice
    on_demand: Scenario
    spot: Scenario
    fallback: Scenario
    assumptions: tuple[Assumption, ...]
    sensitivity: tuple[Sensitivity, ...]
    price_sources: Mapping[str, str]

    @property
    def price_ratio(self) -> float:
        """Spot price by on-demand price of the GPU machine."""
        return self.machine.spot_usd_per_hour / self.machine.on_demand_usd_per_hour

    @property
    def time_ratio(self) -> float:
        """Billed hours, Spot by on demand: what preemptions cost."""
        return self.spot.billed_hours / self.on_demand.billed_hours

    @property
    def machine_ratio(self) -> float:
        """Cost of the GPU machine, Spot by on demand."""
        return self.price_ratio * self.time_ratio

    @property
    def total_ratio(self) -> float:
        """All cost, Spot by on demand."""
        return self.spot.total_usd / self.on_demand.total_usd


class Estimator:
    """Estimates one request.

    Args:
        request: What is asked.
        prices: The price file.

    Raises:
        ConfigError: Something that the price file lacks, or a number that cannot be used.
    """

    def __init__(self, request: Request, prices: Prices) -> None:
        if not 0 < request.work_hours <= LONGEST_H:
            raise ConfigError(
                f"the work is {request.work_hours:g} h; expected more than 0 and at most {LONGEST_H:g}"
            )
        fixed_s = request.checkpoint_interval_s
        if fixed_s is not None and not 0 < fixed_s < float("inf"):
            raise ConfigError(f"--checkpoint-interval is {fixed_s:g}; expected more than 0 seconds, or auto")
        self.request = request
        self._prices = prices
        self._values = resolve(request.given, request.measured)
        self._bill = Bill(
            region=prices.region(request.region),
            machine=prices.gpu(request.region, request.gpu, request.num_gpus),
            num_gpus=request.num_gpus,
            values=self._values,
        )

    def estimate(self) -> Estimate:
        """The answer; raises ConfigError if the run is not expected to end on Spot."""
        spot_job = self.job()
        spot = expected_on_spot(spot_job)
        if not spot.wall_s <= LONGEST_H * _HOUR_S:
            raise ConfigError(_endless(spot_job))
        on_demand_job = self.job(rate_factor=0.0)
        on_demand = expected_on_demand(on_demand_job)
        fallback = expected_with_fallback(spot_job, self._value("fallback_probability"))
        return Estimate(
            request=self.request,
            machine=self._bill.machine,
            on_demand=self._scenario("on demand", on_demand, on_demand_job),
            spot=self._scenario("Spot", spot, spot_job),
            fallback=self._scenario("Spot, else on demand", fallback, spot_job),
            assumptions=self._assumptions(spot_job),
            sensitivity=tuple(self._at_rate(factor, on_demand) for factor in (0.5, 2.0)),
            price_sources=self._prices.sources,
        )

    def job(self, *, rate_factor: float = 1.0) -> Job:
        """The job on Spot, at the assumed preemption rate times a factor; 0 is a machine never taken."""
        hours = self._value("mean_hours_between_preemptions")
        mean_s = hours * _HOUR_S / rate_factor if rate_factor else float("inf")
        save_s = self._value("save_seconds")
        fixed_s = self.request.checkpoint_interval_s
        return Job(
            work_s=self.request.work_hours * _HOUR_S,
            interval_s=interval_s(save_s, mean_s) if fixed_s is None else fixed_s,
            save_s=save_s,
            restore_s=self._value("restore_seconds"),
            start_s=self._value("start_seconds"),
            wait_s=self._value("wait_seconds"),
            mean_time_between_preemptions_s=mean_s,
        )

    def simulate(self, num_runs: int, *, seed: int) -> dict[str, dict[str, float]]:
        """Simulates runs on Spot and with fallback; median, 90th percentile, mean and its standard error.

        Returns:
            By scenario's name: `wall_hours_median`, `_p90`, `_mean`, `_error`; `usd_` the same.
        """
        fall = self._value("fallback_probability")
        return {
            name: self._summary(simulate(self.job(), num_runs, seed=seed, fallback_probability=probability))
            for name, probability in (("Spot", None), ("Spot, else on demand", fall))
        }

    def _summary(self, runs: Runs) -> dict[str, float]:
        wall_hours = runs.wall_s / _HOUR_S
        lines = self._bill.lines(
            wall_hours, runs.spot_s / _HOUR_S, runs.on_demand_s / _HOUR_S, extracts_on_spot=True
        )
        usd = np.sum([np.broadcast_to(line, wall_hours.shape) for line in lines.values()], axis=0)
        summary: dict[str, float] = {}
        for name, values in (("wall_hours", wall_hours), ("usd", usd)):
            summary[f"{name}_median"] = float(np.median(values))
            summary[f"{name}_p90"] = float(np.quantile(values, 0.9))
            summary[f"{name}_mean"] = float(values.mean())
            summary[f"{name}_error"] = float(values.std() / np.sqrt(max(1, len(values) - 1)))
        return summary

    def _value(self, key: str) -> float:
        return self._values[key].value

    def _scenario(self, name: str, expected: Expected, job: Job) -> Scenario:
        wall_hours = expected.wall_s / _HOUR_S
        spot_hours, on_demand_hours = expected.spot_s / _HOUR_S, expected.on_demand_s / _HOUR_S
        lines = self._bill.lines(
            wall_hours, spot_hours, on_demand_hours, extracts_on_spot=name != "on demand"
        )
        return Scenario(
            name=name,
            wall_hours=wall_hours,
            billed_hours=spot_hours + on_demand_hours,
            preemptions=expected.preemptions,
            checkpoint_interval_s=job.interval_s,
            lines={key: float(usd) for key, usd in lines.items()},
        )

    def _at_rate(self, factor: float, on_demand: Expected) -> Sensitivity:
        spot = expected_on_spot(self.job(rate_factor=factor))
        machine = self._bill.machine
        price_ratio = machine.spot_usd_per_hour / machine.on_demand_usd_per_hour
        return Sensitivity(
            rate_factor=factor,
            machine_ratio=price_ratio * spot.spot_s / on_demand.on_demand_s,
            wall_hours=spot.wall_s / _HOUR_S,
        )

    def _assumptions(self, job: Job) -> tuple[Assumption, ...]:
        fixed = self.request.checkpoint_interval_s is not None
        interval = Assumption(
            "checkpoint_interval_seconds",
            job.interval_s,
            "flag" if fixed else "computed",
            "" if fixed else "Young's and Daly's optimum within the trainer's limits, 30 s to 30 min",
        )
        return (interval, *self._values.values(), *self._bill.sources(self.request.gpu))


def compare_gpus(request: Request, prices: Prices) -> list[Estimate]:
    """The request for each GPU type of its region that a machine may have so many of.

    Raises:
        ConfigError: There is none, or what `Estimator` refuses.
    """
    gpus = [
        gpu for gpu, price in prices.region(request.region).gpus.items() if request.num_gpus in price.num_gpus
    ]
    if not gpus:
        raise ConfigError(f"no GPU type of {request.region} has machines with --gpus {request.num_gpus}")
    return [Estimator(replace(request, gpu=gpu), prices).estimate() for gpu in gpus]


def _endless(job: Job) -> str:
    needed_s = job.start_s + job.restore_s + job.segment_s
    return (
        f"on Spot this run is not expected to end: a start, a restore, an interval and a save take "
        f"{needed_s:g} s without a preemption, which come every {job.mean_time_between_preemptions_s:g} s on "
        "average. Shorten the start (image streaming), save more often, or run on demand"
    )
