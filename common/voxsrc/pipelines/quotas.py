"""Checks that the project's quota lets the pools of a run have a node for each of its steps."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from voxsrc.pipelines.checks import Check
from voxsrc.pipelines.cluster import GcloudError, Project
from voxsrc.pipelines.machines import (
    CPUS_PER_VM_FAMILY,
    PREEMPTIBLE_CPUS,
    Machines,
    cpu_quotas,
    is_cpu_quota,
)
from voxsrc.pipelines.needs import StepNeeds
from voxsrc.pipelines.pools import Nodes, Pool, fitting
from voxsrc.pipelines.settings import Settings

# Metric → usage and limit, as `Project.quotas` gives them.
Quotas = Mapping[str, tuple[float, float]]

_LOCAL_SSD_GB = 375
# Of the permanent pool's nodes, as gcp-cluster/create_cluster.sh makes them.
_SYSTEM_DISK_GB = 50
_PREEMPTIBLE_SSD, _SSD = "PREEMPTIBLE_LOCAL_SSD_GB", "LOCAL_SSD_TOTAL_GB"
_ADDRESSES = "IN_USE_ADDRESSES"
_ALL_GPUS, _ALL_CPUS = "GPUS_ALL_REGIONS", "CPUS_ALL_REGIONS"
# Limits of some projects only; of any other metric that is not listed the project has nothing.
_OF_SOME = {_ALL_CPUS, "E2_CPUS"}


@dataclass(frozen=True)
class _Wanted:
    """What a run wants of one metric.

    Attributes:
        amount: At once.
        standing: What the permanent pool has of it, and keeps.
        instead_of: The metric of Spot machines that the project has none of; empty if there is none.
        needed: Whether no other pool of the step has quota.
    """

    amount: float
    standing: float
    instead_of: str
    needed: bool


def quota_checks(
    needs: Sequence[StepNeeds],
    pools: Sequence[Pool],
    project: Project,
    settings: Settings,
    permanent: Sequence[Nodes] = (),
    machines: Machines | None = None,
) -> Iterator[Check]:
    """That the project may have the GPUs, cores, disks and addresses of one node for each step.

    A step that may run on several pools lacks nothing while there is quota for one of them.

    Args:
        needs: Of the package with its arguments.
        pools: Of gcp-cluster/pools.tsv, with the machines that they have.
        project: The project.
        settings: They name the region, and say whether nodes have external addresses.
        permanent: The nodes that run whatever pipelines do: what they use stays used.
        machines: Sizes of the permanent nodes' machine types.
    """
    choices = [fitting(pools, need.node_selector, need.tolerations, need.gpus) for need in needs]
    public = settings.get("VOXSRC_PRIVATE_NODES") in (None, "no")
    asked = {metric for of_step in choices for pool in of_step for metric in _amounts(pool, public=public)}
    if not asked:
        return
    try:
        quotas = project.quotas()
    except GcloudError as error:
        yield Check(
            what=f"quota {', '.join(sorted(asked))}",
            state="unknown",
            found=str(error),
            remedy="see IAM & Admin → Quotas in the Google Cloud console",
        )
        return
    yield from _unknown(choices, quotas)
    standing = _standing(permanent, machines or Machines(pools, project), public=public)
    region = settings.get("VOXSRC_REGION") or "the region"
    for metric, wanted in sorted(_wanted(choices, quotas, standing, public=public).items()):
        yield _check(metric, wanted, quotas, region)


def _amounts(pool: Pool, *, public: bool) -> dict[str, float]:
    """Metric → what one node of the pool takes of it; without cores where nobody knows how many it has."""
    amounts: dict[str, float] = {}
    for metric in (*pool.quotas, _ALL_CPUS):
        # where the table names the disks' metrics too, their amounts are still those below
        if is_cpu_quota(metric) or metric == _ALL_CPUS:
            if pool.vcpus is not None and metric != CPUS_PER_VM_FAMILY:
                amounts[metric] = float(pool.vcpus)
        elif not metric.endswith("_GB"):
            amounts[metric] = float(pool.gpus)
    if pool.local_ssds:
        kind = _PREEMPTIBLE_SSD if pool.provisioning == "spot" else _SSD
        amounts[kind] = float(pool.local_ssds * _LOCAL_SSD_GB)
    # balanced persistent disks count as SSDs
    amounts["SSD_TOTAL_GB"] = float(pool.boot_disk_gb)
    if public:
        amounts[_ADDRESSES] = 1.0
    return amounts


def _standing(permanent: Sequence[Nodes], machines: Machines, *, public: bool) -> Mapping[str, float]:
    """Metric → what the permanent nodes take of it."""
    standing: Counter[str] = Counter()
    for node in permanent:
        size = machines.size(node.machine_type)
        for metric in (*cpu_quotas(node.machine_type), _ALL_CPUS):
            standing[metric] += size.vcpus if size else 0
        standing["SSD_TOTAL_GB"] += _SYSTEM_DISK_GB
        standing[_ADDRESSES] += int(public)
    return {metric: float(amount) for metric, amount in standing.items()}


def _counted(amounts: Mapping[str, float], quotas: Quotas) -> dict[str, tuple[float, str]]:
    """Metric that counts in this project → amount, and the metric in whose stead it counts.

    Without quota of its own for Spot machines a project uses that of the others.
    """
    counted = {metric: (amount, "") for metric, amount in amounts.items()}
    if PREEMPTIBLE_CPUS in amounts:
        others = [metric for metric in amounts if is_cpu_quota(metric) and metric != PREEMPTIBLE_CPUS]
        if _limit(quotas, PREEMPTIBLE_CPUS):
            for metric in others:
                del counted[metric]
        else:
            del counted[PREEMPTIBLE_CPUS]
            counted |= {metric: (amounts[metric], PREEMPTIBLE_CPUS) for metric in others}
    if _PREEMPTIBLE_SSD in amounts and not _limit(quotas, _PREEMPTIBLE_SSD):
        counted[_SSD] = (counted.pop(_PREEMPTIBLE_SSD)[0], _PREEMPTIBLE_SSD)
    return {metric: found for metric, found in counted.items() if metric in quotas or metric not in _OF_SOME}


def _wanted(
    choices: Sequence[Sequence[Pool]], quotas: Quotas, standing: Mapping[str, float], *, public: bool
) -> dict[str, _Wanted]:
    """What the steps want together: steps follow each other, so the most of any of them."""
    most: dict[str, tuple[float, str]] = {}
    needed: set[str] = set()
    for pools in choices:
        amounts = [_counted(_amounts(pool, public=public), quotas) for pool in pools]
        served = any(
            all(_limit(quotas, m) >= amount + standing.get(m, 0) for m, (amount, _) in of_pool.items())
            for of_pool in amounts
        )
        for of_pool in amounts:
            for metric, found in of_pool.items():
                most[metric] = max(most.get(metric, found), found)
            if not served:
                needed |= of_pool.keys()
    return {
        metric: _Wanted(amount, standing.get(metric, 0), instead_of, metric in needed)
        for metric, (amount, instead_of) in most.items()
    }


def _limit(quotas: Quotas, metric: str) -> float:
    return quotas.get(metric, (0.0, 0.0))[1]


def _unknown(choices: Sequence[Sequence[Pool]], quotas: Quotas) -> Iterator[Check]:
    """Machines whose cores cannot be compared with a quota."""
    spot_counts = _limit(quotas, PREEMPTIBLE_CPUS) > 0
    for pool in {pool.machine_type: pool for pools in choices for pool in pools}.values():
        found = f"nobody could tell how many cores a {pool.machine_type} has" if pool.vcpus is None else ""
        if CPUS_PER_VM_FAMILY in pool.quotas and not (PREEMPTIBLE_CPUS in pool.quotas and spot_counts):
            found = f"cores of {pool.machine_type} count in {CPUS_PER_VM_FAMILY}, which gcloud does not list"
        if found:
            yield Check(
                what=f"quota for the cores of {pool.machine_type}",
                state="unknown",
                found=found,
                remedy="see IAM & Admin → Quotas in the Google Cloud console",
            )


def _check(metric: str, wanted: _Wanted, quotas: Quotas, region: str) -> Check:
    usage, limit = quotas.get(metric, (0.0, 0.0))
    where = "globally" if metric in (_ALL_GPUS, _ALL_CPUS) else f"in {region}"
    what = f"quota {metric} {where}: {wanted.amount:g}"
    least = wanted.amount + wanted.standing
    if wanted.standing:
        what += f", besides {wanted.standing:g} of the permanent pool"
    found = f"{usage:g} of {limit:g} in use"
    if wanted.instead_of:
        found += f" ({wanted.instead_of} is 0, so Spot machines count here)"
    ask = f"ask for {metric} of at least {least:g} {where}: IAM & Admin → Quotas in the Google Cloud console"
    if limit < least:
        if not wanted.needed:
            found += "; another pool that the step may run on has quota"
        return Check(
            what=what,
            state="missing" if wanted.needed else "warning",
            found=found,
            remedy=f"{ask}; {_otherwise(metric)}",
        )
    if usage + wanted.amount > limit:
        remedy = f"the run waits until what uses it has ended, unless that is its own pool; or {ask}"
        return Check(what=what, state="warning", found=found, remedy=remedy)
    return Check(what=what, state="ok", found=found)


def _otherwise(metric: str) -> str:
    """What to do instead of asking for more."""
    if metric == _ALL_GPUS:
        return "it counts GPUs of every type, so that no other type helps"
    if metric == _ADDRESSES:
        return "or make a cluster whose nodes have no external addresses (VOXSRC_PRIVATE_NODES=yes)"
    if metric.endswith("GPUS"):
        return "or choose another GPU type"
    if metric == "SSD_TOTAL_GB":
        column = "boot_disk_gb"
    else:
        column = "machine_type" if is_cpu_quota(metric) or metric == _ALL_CPUS else "local_ssds"
    return f"or make a pool that takes less (column {column} of gcp-cluster/pools.tsv)"
