"""Checks that the project's quota lets the pools of a run have a node for each of its steps."""

from collections.abc import Iterator, Mapping, Sequence

from voxsrc.pipelines.checks import Check
from voxsrc.pipelines.cluster import Project
from voxsrc.pipelines.needs import StepNeeds
from voxsrc.pipelines.pools import Pool, fitting
from voxsrc.pipelines.settings import Settings

# Metric → usage and limit, as `Project.quotas` gives them.
Quotas = Mapping[str, tuple[float, float]]

# A project without quota of its own for Spot machines uses that of the others.
_ELSE = {"PREEMPTIBLE_CPUS": "CPUS", "PREEMPTIBLE_LOCAL_SSD_GB": "LOCAL_SSD_TOTAL_GB"}
_LOCAL_SSD_GB = 375
_GLOBAL = "GPUS_ALL_REGIONS"


def quota_checks(
    needs: Sequence[StepNeeds], pools: Sequence[Pool], project: Project, settings: Settings
) -> Iterator[Check]:
    """That the project may have the GPUs, cores and disks of one node for each step.

    A step that may run on several pools lacks nothing while there is quota for one of them.

    Args:
        needs: Of the package with its arguments.
        pools: Of gcp-cluster/pools.tsv.
        project: The project.
        settings: They name the region.
    """
    choices = [fitting(pools, need.node_selector, need.tolerations, need.gpus) for need in needs]
    asked = {metric for pools_of_step in choices for pool in pools_of_step for metric in _amounts(pool)}
    if not asked:
        return
    quotas = project.quotas()
    if quotas is None:
        yield Check(
            what=f"quota {', '.join(sorted(asked))}",
            state="unknown",
            found=project.trouble,
            remedy="see IAM & Admin → Quotas in the Google Cloud console",
        )
        return
    wanted: dict[str, float] = {}
    needed: set[str] = set()
    for pools_of_step in choices:
        amounts = [_counted(_amounts(pool), quotas) for pool in pools_of_step]
        served = any(all(_limit(quotas, m) >= amount for m, amount in of_pool.items()) for of_pool in amounts)
        for of_pool in amounts:
            for metric, amount in of_pool.items():
                wanted[metric] = max(wanted.get(metric, 0), amount)
            if not served:
                needed |= of_pool.keys()
    region = settings.get("VOXSRC_REGION") or "the region"
    for metric, amount in sorted(wanted.items()):
        yield _check(metric, amount, quotas, region, needed=metric in needed)


def _amounts(pool: Pool) -> dict[str, float]:
    """Metric → what one node of the pool takes of it."""
    amounts = {
        metric: float(pool.vcpus if metric.endswith("CPUS") else pool.gpus)
        for metric in pool.quotas
        # where the table names the disks' metrics too, their amounts are still those below
        if not metric.endswith("_GB")
    }
    if pool.local_ssds:
        kind = "PREEMPTIBLE_LOCAL_SSD_GB" if pool.provisioning == "spot" else "LOCAL_SSD_TOTAL_GB"
        amounts[kind] = float(pool.local_ssds * _LOCAL_SSD_GB)
    # balanced persistent disks count as SSDs
    amounts["SSD_TOTAL_GB"] = float(pool.boot_disk_gb)
    return amounts


def _counted(amounts: Mapping[str, float], quotas: Quotas) -> dict[str, float]:
    """The same under the metrics that count in this project."""
    return {
        _ELSE[metric] if metric in _ELSE and _limit(quotas, metric) == 0 else metric: amount
        for metric, amount in amounts.items()
    }


def _limit(quotas: Quotas, metric: str) -> float:
    # a metric that the project has none of is not listed
    return quotas.get(metric, (0.0, 0.0))[1]


def _check(metric: str, amount: float, quotas: Quotas, region: str, *, needed: bool) -> Check:
    usage, limit = quotas.get(metric, (0.0, 0.0))
    where = "globally" if metric == _GLOBAL else f"in {region}"
    what = f"quota {metric} {where}: {amount:g}"
    instead = next((own for own, other in _ELSE.items() if other == metric), None)
    found = f"{usage:g} of {limit:g} in use"
    if instead is not None and _limit(quotas, instead) == 0:
        found += f" ({instead} is 0, so Spot machines count here)"
    ask = f"ask for {metric} of at least {amount:g} {where}: IAM & Admin → Quotas in the Google Cloud console"
    if limit < amount:
        if not needed:
            found += "; another pool that the step may run on has quota"
        return Check(
            what=what,
            state="missing" if needed else "warning",
            found=found,
            remedy=f"{ask}; {_otherwise(metric)}",
        )
    if usage + amount > limit:
        remedy = f"the run waits until what uses it has ended, unless that is its own pool; or {ask}"
        return Check(what=what, state="warning", found=found, remedy=remedy)
    return Check(what=what, state="ok", found=found)


def _otherwise(metric: str) -> str:
    """What to do instead of asking for more."""
    if metric == _GLOBAL:
        return "it counts GPUs of every type, so that no other type helps"
    if metric.endswith("GPUS"):
        return "or choose another GPU type"
    column = {"CPUS": "machine_type", "SSD_TOTAL_GB": "boot_disk_gb"}
    name = next((column[end] for end in column if metric.endswith(end)), "local_ssds")
    return f"or make a pool that takes less (column {name} of gcp-cluster/pools.tsv)"
