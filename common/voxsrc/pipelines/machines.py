"""Sizes of Google's machine types, and the quota that their cores count in."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from voxsrc.pipelines.pools import Nodes, Pool
from voxsrc.pipelines.settings import Settings

# GiB a vCPU (docs.cloud.google.com/compute: machine families).
_GIB_PER_VCPU = {
    "e2": {"standard": 4.0, "highmem": 8.0, "highcpu": 1.0},
    "n1": {"standard": 3.75, "highmem": 6.5, "highcpu": 0.9},
    "n2": {"standard": 4.0, "highmem": 8.0, "highcpu": 1.0},
    "n2d": {"standard": 4.0, "highmem": 8.0, "highcpu": 1.0},
    "c2": {"standard": 4.0},
    "c2d": {"standard": 4.0, "highmem": 8.0, "highcpu": 2.0},
    "t2d": {"standard": 4.0},
    "g2": {"standard": 4.0},
}
# It has 864 GB, by none of these rules.
_EXCEPTIONS = {"n2-highmem-128"}
_PREDEFINED = re.compile(r"([a-z]\d[a-z]?)-(standard|highmem|highcpu)-(\d+)")
_CUSTOM = re.compile(r"(?:[a-z]\d[a-z]?-)?custom-(\d+)-(\d+)(?:-ext)?")

PREEMPTIBLE_CPUS = "PREEMPTIBLE_CPUS"
# Of younger families; `gcloud compute regions describe` does not list it.
CPUS_PER_VM_FAMILY = "CPUS_PER_VM_FAMILY"
_OWN_QUOTA = {"n2", "n2d", "c2", "c2d", "c3", "t2d", "a2"}
_SHARED_QUOTA = {"n1", "f1", "g1", "g2", "a3", "custom"}


@dataclass(frozen=True)
class MachineSize:
    """What one machine has.

    Attributes:
        vcpus: Virtual cores.
        memory_gib: Memory, GiB.
    """

    vcpus: int
    memory_gib: float


class Describes(Protocol):
    """Knows machine types, as `voxsrc.pipelines.cluster.Project` does."""

    def machine_size(self, machine_type: str) -> MachineSize | None:
        """The size of a machine type; None if it cannot tell."""
        ...


def size_of_name(machine_type: str) -> MachineSize | None:
    """The size that a machine type's name tells; None for names by no rule that is known here."""
    if match := _CUSTOM.fullmatch(machine_type):
        return MachineSize(int(match[1]), int(match[2]) / 1024)
    match = _PREDEFINED.fullmatch(machine_type)
    if match is None or machine_type in _EXCEPTIONS:
        return None
    gib_per_vcpu = _GIB_PER_VCPU.get(match[1], {}).get(match[2])
    return None if gib_per_vcpu is None else MachineSize(int(match[3]), int(match[3]) * gib_per_vcpu)


def cpu_quotas(machine_type: str) -> tuple[str, ...]:
    """The metrics of the quota that its cores count in; gcp-cluster/lib/pools.sh has the same rule."""
    family = machine_type.partition("-")[0]
    if family == "e2":
        return ("CPUS", "E2_CPUS")
    if family in _SHARED_QUOTA:
        return ("CPUS",)
    return (f"{family.upper()}_CPUS",) if family in _OWN_QUOTA else (CPUS_PER_VM_FAMILY,)


def is_cpu_quota(metric: str) -> bool:
    """Whether a metric counts cores."""
    return metric.endswith("CPUS") or metric == CPUS_PER_VM_FAMILY


class Machines:
    """Sizes of machine types: the table's, else by their names, else as Google says.

    Args:
        pools: Of gcp-cluster/pools.tsv.
        project: Asked for what neither tells.
    """

    def __init__(self, pools: Sequence[Pool], project: Describes) -> None:
        self._known: dict[str, MachineSize | None] = {
            pool.machine_type: MachineSize(pool.vcpus, pool.memory_gib)
            for pool in pools
            if pool.vcpus is not None and pool.memory_gib is not None
        }
        self._project = project

    def size(self, machine_type: str) -> MachineSize | None:
        """Of one machine; None if nobody can tell."""
        if machine_type not in self._known:
            size = size_of_name(machine_type)
            if size is None and machine_type:
                size = self._project.machine_size(machine_type)
            self._known[machine_type] = size
        return self._known[machine_type]

    def as_made(self, pools: Sequence[Pool], there: Sequence[Nodes], settings: Settings) -> list[Pool]:
        """The table's pools with the machines that they have, or would have by the settings.

        Args:
            pools: Of gcp-cluster/pools.tsv.
            there: The cluster's.
            settings: Their VOXSRC_CPU_MACHINE_TYPE is that of CPU pools to be made.
        """
        own = {nodes.name: nodes.machine_type for nodes in there}
        for_cpus = settings.get("VOXSRC_CPU_MACHINE_TYPE")
        made = []
        for pool in pools:
            machine_type = own.get(pool.name) or (for_cpus if pool.gpu == "none" else None)
            if machine_type is None or machine_type == pool.machine_type:
                made.append(pool)
                continue
            size = self.size(machine_type)
            spot = (PREEMPTIBLE_CPUS,) if pool.provisioning == "spot" else ()
            others = [metric for metric in pool.quotas if not is_cpu_quota(metric)]
            made.append(
                replace(
                    pool,
                    machine_type=machine_type,
                    vcpus=size.vcpus if size else None,
                    memory_gib=size.memory_gib if size else None,
                    quotas=(*spot, *cpu_quotas(machine_type), *others),
                )
            )
        return made
