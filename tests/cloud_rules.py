"""What Google refuses of labels, taints and machines, whatever command asks for them.

From docs.cloud.google.com (compute: gpus, disks/local-ssd, accelerator-optimized-machines; kubernetes-engine:
how-to/gpus, concepts/spot-vms), kubernetes.io (labels, taints) and the client's own check of secure boot.
"""

import re
from typing import Any, NoReturn

State = dict[str, Any]
Flags = dict[str, str]

# Machine type → accelerator types and their numbers, numbers of local SSDs that it can have.
MACHINES: dict[str, tuple[dict[str, set[int]], set[int]]] = {
    "e2-standard-2": ({}, {0}),
    "e2-standard-4": ({}, {0}),
    "n2d-standard-8": ({}, {0, 1, 2, 4, 8, 16, 24}),
    "n1-standard-8": (
        {"nvidia-tesla-t4": {1, 2, 4}, "nvidia-tesla-v100": {1, 2, 4, 8}},
        {0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 24},
    ),
    "g2-standard-8": ({"nvidia-l4": {1}}, {0, 1}),
    "a2-highgpu-1g": ({"nvidia-tesla-a100": {1}}, {0, 1, 2, 4, 8}),
    "a2-ultragpu-1g": ({"nvidia-a100-80gb": {1}}, {1}),
    "a3-highgpu-1g": ({"nvidia-h100-80gb": {1}}, {2}),
}
GPU_MACHINES_WITH_BUILT_IN_GPUS = ("g2-", "a2-", "a3-")
# "You must create instances by using Spot VMs or Flex-start VMs."
SPOT_ONLY = {"a3-highgpu-1g"}


class RefusedError(Exception):
    """A call that the real program would refuse."""


def fail(message: str) -> NoReturn:
    raise RefusedError(f"ERROR: {message}\n")


def expect(condition: bool, message: str) -> None:
    if not condition:
        fail(message)


def projected(resource: dict[str, Any], form: str) -> str:
    """What gcloud prints of a resource for `--format=value(…)`, with the parts of it that the scripts use."""
    match = re.fullmatch(r"value(?:\[separator=(.)\])?\((.+)\)", form)
    expect(match is not None, f"--format={form}")
    separator, fields = (match[1] or "\t", match[2]) if match else ("", "")
    return separator.join(_field(resource, field.removesuffix(".list()")) for field in fields.split(","))


def flattened(resources: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The resources once for each item of their list `name`, as `--flatten=name[]` has them."""
    return [resource | {name: item} for resource in resources for item in resource.get(name, ())]


def _field(resource: Any, path: str) -> str:
    name, _, rest = path.partition(".")
    if rest == 'list(show="keys")':
        return ",".join((resource or {}).get(name) or ())
    found = (resource or {}).get(name.removesuffix("[]"))
    if name.endswith("[]"):
        return ",".join(_field(item, rest) for item in found or ())
    if rest:
        return _field(found, rest)
    return ",".join(found) if isinstance(found, list) else "" if found is None else str(found)


def check_labels(text: str) -> dict[str, str]:
    """`key=value,…` → the labels, by Kubernetes' syntax."""
    labels = dict(item.split("=", 1) for item in text.split(","))
    name = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
    for key, value in labels.items():
        expect(
            re.fullmatch(rf"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?{name}", key) is not None, f"label key {key}"
        )
        expect(re.fullmatch(name, value) is not None, f"label value {value}")
        expect("kubernetes.io" not in key, f"label key {key} is reserved")
    return labels


def check_taints(text: str) -> list[str]:
    taints = text.split(",") if text else []
    for taint in taints:
        key_value, _, effect = taint.partition(":")
        expect(effect in {"NoSchedule", "PreferNoSchedule", "NoExecute"}, f"taint effect {effect!r}")
        check_labels(key_value)
    return taints


def check_nodes(flags: Flags) -> None:
    """The rules on the machines of a cluster or pool."""
    machine = flags["machine-type"]
    expect(machine in MACHINES, f"code=400, message=Machine type {machine} not found")
    accelerators, ssd_counts = MACHINES[machine]
    accelerator = dict(item.split("=", 1) for item in flags.get("accelerator", "").split(",") if item)
    if accelerator:
        expect(accelerator.keys() <= {"type", "count", "gpu-driver-version"}, f"--accelerator: {accelerator}")
        expect(accelerator["type"] in accelerators, f"{machine} has no {accelerator['type']}")
        expect(int(accelerator["count"]) in accelerators[accelerator["type"]], f"{accelerator['count']} GPUs")
        expect(accelerator["gpu-driver-version"] in {"default", "latest", "disabled"}, "gpu-driver-version")
    expect(
        bool(accelerator) or not machine.startswith(GPU_MACHINES_WITH_BUILT_IN_GPUS), f"{machine} needs GPUs"
    )
    expect(machine not in SPOT_ONLY or "spot" in flags, f"{machine} is sold as Spot or Flex-start only")
    count = flags.get("ephemeral-storage-local-ssd", "count=0").removeprefix("count=")
    expect(int(count) in ssd_counts, f"{machine} cannot have {count} local SSDs")
    boot = {"shielded-secure-boot", "no-shielded-secure-boot"} & flags.keys()
    expect(
        bool(boot) == ("shielded-integrity-monitoring" in flags),
        "Must specify both or none of --shielded-secure-boot and --shielded-integrity-monitoring.",
    )
    expect(
        flags["image-type"] in {"COS_CONTAINERD", "UBUNTU_CONTAINERD"}, f"--image-type={flags['image-type']}"
    )
    expect(int(flags["disk-size"]) >= 10, "--disk-size")
    expect(re.fullmatch(r"\d+", flags["num-nodes"]) is not None, "--num-nodes")
    check_labels(flags.get("node-labels", "a=b"))
    check_taints(flags.get("node-taints", ""))
