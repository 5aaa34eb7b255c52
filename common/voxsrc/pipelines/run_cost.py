"""What a run has cost so far, from how long its steps have held machines.

An upper bound of what the machines cost while steps held them: each pod is charged with a whole node, though
several pods for CPUs may share one, and for its step's time from the first attempt to the end or now, with
the waits for a machine between attempts, which are not billed; the API tells no more. Left out are the
minutes that a node stays before the autoscaler takes it, control plane, permanent pool, disks and bucket
(`voxsrc cost` has the latter four). Of machines without GPUs the price file has one: those of another size
cost about as much a core, as Google's prices do; of those of another type the cost is not known. One with
GPUs and other cores than the price file's costs about as much as that. What is told in this way is an
estimate, no bound. A run that was submitted again is one of several with its name, whose costs add up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from voxsrc.cost.prices import MachinePrice, Prices
from voxsrc.pipelines.machines import MachineSize, size_of_name
from voxsrc.pipelines.needs import StepNeeds
from voxsrc.pipelines.pools import Pool, fitting
from voxsrc.pipelines.progress import RunProgress, without_items

_HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Of one step.

    Attributes:
        step: As `StepProgress` names it.
        machine: Type.
        provisioning: spot, on-demand, or either where the step's node selector leaves it open.
        spot_usd: At Spot prices.
        on_demand_usd: At those on demand.
        priced_as: The machine of another size from whose price this is estimated; empty if it is this one's.
    """

    step: str
    machine: str
    provisioning: str
    spot_usd: float
    on_demand_usd: float
    priced_as: str = ""


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """Of a run so far.

    Attributes:
        steps: Those that have begun and whose machine is known.
        unknown: Steps that have begun on machines that no pool of ours describes, or that have no price.
    """

    steps: tuple[StepCost, ...]
    unknown: tuple[str, ...] = ()

    @property
    def spot_usd(self) -> float:
        """All at Spot prices."""
        return sum(step.spot_usd for step in self.steps)

    @property
    def on_demand_usd(self) -> float:
        """All on demand."""
        return sum(step.on_demand_usd for step in self.steps)

    @property
    def is_estimate(self) -> bool:
        """Whether the costs are no bound, as a price was told from another machine's."""
        return any(step.priced_as for step in self.steps)

    @property
    def most_usd(self) -> float:
        """As each step asks for; on demand where it may be either."""
        return sum(s.spot_usd if s.provisioning == "spot" else s.on_demand_usd for s in self.steps)


@dataclass(frozen=True, kw_only=True)
class NameCost:
    """Of all runs that have one name.

    Attributes:
        costs: Of those of which it is known.
        num_unknown: Runs of which it is not.
    """

    costs: tuple[RunCost, ...]
    num_unknown: int = 0

    @property
    def num_runs(self) -> int:
        """All of the name that the server has."""
        return len(self.costs) + self.num_unknown

    @property
    def spot_usd(self) -> float:
        """All at Spot prices."""
        return sum(cost.spot_usd for cost in self.costs)

    @property
    def on_demand_usd(self) -> float:
        """All on demand."""
        return sum(cost.on_demand_usd for cost in self.costs)

    @property
    def most_usd(self) -> float:
        """As each step asks for; on demand where it may be either."""
        return sum(cost.most_usd for cost in self.costs)

    @property
    def is_estimate(self) -> bool:
        """Whether one of them is."""
        return any(cost.is_estimate for cost in self.costs)

    @property
    def num_incomplete(self) -> int:
        """Runs with a step whose machine is not known."""
        return sum(bool(cost.unknown) for cost in self.costs)


def cost_so_far(
    progress: RunProgress,
    needs: Sequence[StepNeeds],
    pools: Sequence[Pool],
    prices: Prices,
    region: str,
    now: datetime,
) -> RunCost:
    """The cost of the steps' machines, at most where no price is estimated.

    Args:
        progress: The run.
        needs: Of its package with its arguments.
        pools: Of gcp-cluster, with the machines of its settings (`Machines.as_made`).
        prices: A price file.
        region: One of its regions; raises ConfigError, with what there is, if it is none.
        now: The time, for steps that run.
    """
    by_step = {need.step: need for need in needs}
    known, unknown = [], []
    for step in progress.steps:
        hours = step.seconds(now) / _HOUR_S
        if not step.attempts or not hours:
            continue
        need = by_step.get(without_items(step.step))
        fits = fitting(pools, need.node_selector, need.tolerations, need.gpus) if need is not None else []
        # A selector that says nothing matches pools of all GPU types: their prices are no answer.
        if need is None or not fits or len({pool.machine_type for pool in fits}) > 1:
            unknown.append(step.step)
            continue
        price, num_prices = _price(fits[0], prices, region)
        if num_prices is None:
            unknown.append(step.step)
            continue
        # of a machine with GPUs the price is for one GPU
        of_another = fits[0].vcpus != num_prices * price.vcpus if fits[0].gpus else num_prices != 1
        provisionings = {pool.provisioning for pool in fits}
        known.append(
            StepCost(
                step=step.step,
                machine=fits[0].machine_type,
                provisioning=provisionings.pop() if len(provisionings) == 1 else "either",
                spot_usd=hours * num_prices * price.spot_usd_per_hour,
                on_demand_usd=hours * num_prices * price.on_demand_usd_per_hour,
                priced_as=price.machine if of_another else "",
            )
        )
    return RunCost(steps=tuple(known), unknown=tuple(unknown))


def cpu_price_ratio(machine_type: str, price: MachinePrice) -> float | None:
    """What a machine without GPUs costs beside the one of the price file, by its cores.

    Args:
        machine_type: As Google names it.
        price: Its `machine` begins with such a name.

    Returns:
        1 for the same machine; None for one of another type, such as n2-standard or n2d-highmem beside
        n2d-standard, whose cores cost otherwise, or whose size its name does not tell.
    """
    priced = price.machine.partition(" ")[0]
    if machine_type == priced:
        return 1.0
    size = size_of_name(machine_type)
    is_other = machine_type.rpartition("-")[0] != priced.rpartition("-")[0]
    if size is None or is_other or "custom" in machine_type:
        return None
    return size.vcpus / price.vcpus


def _price(pool: Pool, prices: Prices, region: str) -> tuple[MachinePrice, float | None]:
    """The price of a machine, or of one of its GPUs, and how often it is paid for a node, None if unknown."""
    if pool.gpus:
        return prices.gpu(region, pool.gpu, pool.gpus), pool.gpus
    price = prices.region(region).extraction
    return price, cpu_price_ratio(pool.machine_type, price)


class NobodyToAsk:
    """For `Machines`: sizes are told by names alone, without asking Google."""

    def machine_size(self, machine_type: str) -> MachineSize | None:
        """None, of any."""
        return None


def as_mapping(cost: RunCost) -> Mapping[str, object]:
    """For JSON."""
    return {
        **_sums(cost),
        "unknown_steps": list(cost.unknown),
        "steps": {
            step.step: {
                "machine": step.machine,
                "priced_as": step.priced_as or None,
                "provisioning": step.provisioning,
                "usd_spot": round(step.spot_usd, 4),
                "usd_on_demand": round(step.on_demand_usd, 4),
            }
            for step in cost.steps
        },
    }


def name_mapping(cost: NameCost) -> Mapping[str, object]:
    """For JSON."""
    return {
        "runs": cost.num_runs,
        **_sums(cost),
        "runs_with_unknown_steps": cost.num_incomplete,
        "runs_without_cost": cost.num_unknown,
    }


def _sums(cost: RunCost | NameCost) -> Mapping[str, float | None]:
    most = round(cost.most_usd, 4)
    return {
        "usd_at_most": None if cost.is_estimate else most,
        "usd_estimated": most if cost.is_estimate else None,
        "usd_all_on_spot": round(cost.spot_usd, 4),
        "usd_all_on_demand": round(cost.on_demand_usd, 4),
    }
