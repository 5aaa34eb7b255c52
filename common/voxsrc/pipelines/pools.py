"""The node pools that gcp-cluster makes, and whether a step fits on nodes with given labels and taints."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxsrc.errors import ConfigError
from voxsrc.pipelines.settings import ROOT

POOLS_FILE = ROOT / "gcp-cluster" / "pools.tsv"
GPU_RESOURCE = "nvidia.com/gpu"
# Taints with other effects do not keep a pod away.
_KEEPS_AWAY = {"NoSchedule", "NoExecute"}


@dataclass(frozen=True)
class Taint:
    """Of a node, or what a step tolerates if `operator` says so.

    Attributes:
        key: Empty in a toleration of everything.
        value: Of the taint, or the one tolerated.
        effect: NoSchedule, PreferNoSchedule or NoExecute; empty in a toleration of all of them.
        operator: Of a toleration, Equal or Exists.
    """

    key: str
    value: str = ""
    effect: str = ""
    operator: str = "Equal"

    def tolerates(self, taint: "Taint") -> bool:
        """Whether this toleration is one of `taint`, by Kubernetes' rules."""
        if self.effect not in ("", taint.effect):
            return False
        if not self.key:
            return self.operator == "Exists"
        return self.key == taint.key and (self.operator == "Exists" or self.value == taint.value)

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}"


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """What all nodes of a pool have.

    Attributes:
        name: Of the pool.
        labels: With those that GKE sets itself.
        taints: Those that keep pods away and others.
        gpus: A node.
        most_nodes: That the pool can have; None if unknown.
        machine_type: As Google names it; empty if unknown.
    """

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...] = ()
    gpus: int = 0
    most_nodes: int | None = None
    machine_type: str = ""


@dataclass(frozen=True, kw_only=True)
class Pool(Nodes):
    """A pool of gcp-cluster/pools.tsv.

    Attributes:
        provisioning: spot or on-demand.
        gpu: Type as the scripts name it, or none.
        vcpus: A node; None where the settings name another machine type, of a size that is not known.
        memory_gib: A node, likewise.
        local_ssds: A node, of 375 GB each.
        boot_disk_gb: A node.
        quotas: Metrics of the project's quota for its cores and GPUs. Cores count in PREEMPTIBLE_CPUS, if it
            is there, and in the others only where the project has none of that one.
    """

    provisioning: str
    gpu: str
    vcpus: int | None
    memory_gib: float | None
    local_ssds: int
    boot_disk_gb: int
    quotas: tuple[str, ...]


def read_pools(path: Path = POOLS_FILE) -> list[Pool]:
    """Reads the table of pools; raises ConfigError if it is missing or not as expected."""
    if not path.is_file():
        raise ConfigError(
            f"no table of node pools {path}; run from a checkout of the repository, which has it"
        )
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    heading = lines[0].split("\t")
    rows = [dict(zip(heading, line.split("\t"), strict=True)) for line in lines[1:]]
    try:
        return [_pool(row) for row in rows]
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{path}: {error!r}; expected the columns that its comment explains") from error


def _pool(row: Mapping[str, str]) -> Pool:
    return Pool(
        name=row["pool"],
        provisioning=row["provisioning"],
        gpu=row["gpu"],
        gpus=int(row["gpus"]),
        machine_type=row["machine_type"],
        vcpus=int(row["vcpus"]),
        memory_gib=float(row["memory_gib"]),
        local_ssds=int(row["local_ssds"]),
        boot_disk_gb=int(row["boot_disk_gb"]),
        labels=_labels(row["labels"]) | _labels(row["automatic_labels"]),
        taints=tuple(_taint(text) for text in _items(row["taints"])),
        quotas=tuple(_items(row["quotas"])),
    )


def _items(text: str) -> list[str]:
    return [] if text == "none" else text.split(",")


def _labels(text: str) -> dict[str, str]:
    pairs = (item.partition("=") for item in _items(text))
    return {key: value for key, _, value in pairs}


def _taint(text: str) -> Taint:
    key_value, _, effect = text.partition(":")
    key, _, value = key_value.partition("=")
    return Taint(key, value, effect)


def misfits(
    nodes: Nodes, node_selector: Mapping[str, str], tolerations: Sequence[Taint], gpus: int
) -> list[str]:
    """Why a step cannot run on these nodes; empty if it can.

    GKE lets pods that ask for GPUs tolerate the GPU taint by itself (ExtendedResourceToleration).
    """
    found = [
        f"label {key} is {nodes.labels.get(key, 'missing')}, asked for {value}"
        for key, value in node_selector.items()
        if nodes.labels.get(key) != value
    ]
    for taint in nodes.taints:
        tolerated = (gpus > 0 and taint.key == GPU_RESOURCE) or any(t.tolerates(taint) for t in tolerations)
        if taint.effect in _KEEPS_AWAY and not tolerated:
            found.append(f"taint {taint} is not tolerated")
    if nodes.gpus < gpus:
        found.append(f"{nodes.gpus} GPUs a node, asked for {gpus}")
    if nodes.most_nodes == 0:
        found.append("the pool may have no node at all")
    return found


def fitting(
    pools: Iterable[Pool], node_selector: Mapping[str, str], tolerations: Sequence[Taint], gpus: int
) -> list[Pool]:
    """The pools on which such a step can run."""
    return [pool for pool in pools if not misfits(pool, node_selector, tolerations, gpus)]
