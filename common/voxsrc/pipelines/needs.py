"""What the steps of a package ask of a cluster, for given arguments.

Follows parameters from the pipeline through its DAGs to each container, as the backend's driver does
(backend/src/v2/driver of kubeflow/pipelines). Values that only a run knows, outputs of other steps and items
of loops, stay unknown; branches of conditions all count, as which is taken may depend on them.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from typing import Any

from voxsrc.errors import ConfigError
from voxsrc.pipelines.arguments import check_node_selector
from voxsrc.pipelines.package import Package
from voxsrc.pipelines.pools import GPU_RESOURCE, Taint

_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(m|[kKMGTP]i?)?")
_FACTORS = {"": 1.0, "m": 1e-3} | {
    f"{prefix}{binary}": (1024.0 if binary else 1000.0) ** power
    for power, prefixes in enumerate(("kK", "M", "G", "T", "P"), start=1)
    for prefix in prefixes
    for binary in ("", "i")
}


@dataclass(frozen=True, kw_only=True)
class StepNeeds:
    """One container step.

    Attributes:
        step: Names of the tasks that lead to it, joined by "/".
        title: The same with the names that the tasks were given for display.
        image: None if only the run knows it.
        node_selector: Labels that its node must have.
        tolerations: Taints that its node may have.
        gpus: Of one pod.
        cpus: That one pod requests, cores.
        memory_gib: That one pod requests, GiB.
        unknown: Fields that only the run knows.
    """

    step: str
    title: str
    image: str | None
    node_selector: Mapping[str, str]
    tolerations: tuple[Taint, ...]
    gpus: int
    cpus: float
    memory_gib: float
    unknown: tuple[str, ...] = ()


class _UnknownError(Exception):
    """A value that only the run knows."""


def step_needs(package: Package, arguments: Mapping[str, Any]) -> list[StepNeeds]:
    """The needs of every container step, in an order in which they may run.

    Raises:
        ConfigError: An argument is one that Kubernetes would refuse.
    """
    return list(_walk(package, package.spec["root"], package.effective(arguments), "", ""))


def _walk(
    package: Package, component: Mapping[str, Any], scope: Mapping[str, Any], path: str, titles: str
) -> Iterator[StepNeeds]:
    tasks = component["dag"]["tasks"]
    waits_for = {name: task.get("dependentTasks", ()) for name, task in tasks.items()}
    for name in TopologicalSorter(waits_for).static_order():
        task = tasks[name]
        inner = package.spec["components"][task["componentRef"]["name"]]
        inputs = _inputs(task, inner, scope)
        step, title = path + name, titles + str(task.get("taskInfo", {}).get("name", name))
        if "dag" in inner:
            yield from _walk(package, inner, inputs, f"{step}/", f"{title}/")
            continue
        label = inner["executorLabel"]
        container = package.spec["deploymentSpec"]["executors"][label].get("container")
        if container is not None:
            platform = package.platform.get(label, {})
            yield replace(_needs(step, container, platform, inputs, scope), title=title)


def _inputs(
    task: Mapping[str, Any], component: Mapping[str, Any], scope: Mapping[str, Any]
) -> dict[str, Any]:
    """The known parameters of a task's component."""
    declared = component.get("inputDefinitions", {}).get("parameters", {})
    known = {name: fields["defaultValue"] for name, fields in declared.items() if "defaultValue" in fields}
    constants = {}
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        known.pop(name, None)
        match source:
            case {"componentInputParameter": str(outer), **rest} if not rest and outer in scope:
                known[name] = scope[outer]
            case {"runtimeValue": {"constant": constant}}:
                constants[name] = constant
    for name, constant in constants.items():
        try:
            known[name] = _filled(constant, known)
        except _UnknownError:
            continue
    return known


def _filled(template: Any, values: Mapping[str, Any]) -> Any:
    """`template` with its placeholders replaced, keeping the type where it is nothing but one."""
    if not isinstance(template, str):
        return template
    names = _PLACEHOLDER.findall(template)
    if any(name not in values for name in names) or (not names and "{{" in template):
        raise _UnknownError
    if names and _PLACEHOLDER.fullmatch(template):
        return values[names[0]]
    return _PLACEHOLDER.sub(lambda match: str(values[match[1]]), template)


def _needs(
    step: str,
    container: Mapping[str, Any],
    platform: Mapping[str, Any],
    inputs: Mapping[str, Any],
    scope: Mapping[str, Any],
) -> StepNeeds:
    unknown: list[str] = []

    def filled(field: str, template: Any, default: Any) -> Any:
        try:
            return _filled(template, inputs)
        except _UnknownError:
            unknown.append(field)
            return default

    resources = container.get("resources", {})
    accelerator = resources.get("accelerator", {})
    resource_type = filled(
        "accelerator type",
        accelerator.get("resourceType", accelerator.get("type", GPU_RESOURCE)),
        GPU_RESOURCE,
    )
    count = filled("GPUs", accelerator.get("resourceCount", accelerator.get("count", 0)), 0)
    if accelerator and resource_type != GPU_RESOURCE and _quantity(step, "GPUs", count):
        raise ConfigError(
            f"step {step}: accelerator type {resource_type!r}; expected the resource {GPU_RESOURCE}: "
            "Kubernetes knows no other, and the GPU's type is chosen by a node selector"
        )
    memory = filled("memory", _requested(resources, "Memory"), 0)
    return StepNeeds(
        step=step,
        title=step,
        image=filled("image", container["image"], None),
        node_selector=_selector(step, platform, scope, unknown),
        tolerations=tuple(_tolerations(step, platform, scope, unknown)),
        gpus=math.ceil(_quantity(step, "GPUs", count)),
        cpus=_quantity(step, "CPU", filled("CPU", _requested(resources, "Cpu"), 0)),
        memory_gib=_quantity(step, "memory", memory) / 1024**3,
        unknown=tuple(unknown),
    )


def _requested(resources: Mapping[str, Any], kind: str) -> Any:
    """The request, else the limit, which Kubernetes takes for it."""
    return resources.get(f"resource{kind}Request", resources.get(f"resource{kind}Limit", 0))


def _quantity(step: str, field: str, value: Any) -> float:
    """A Kubernetes quantity such as 500m, 16Gi or 2 as a number; an empty one is 0."""
    match = _QUANTITY.fullmatch(str(value).strip() or "0")
    if match is None:
        raise ConfigError(f"step {step}: {field} is {value!r}; expected a quantity such as 2, 500m or 16Gi")
    return float(match[1]) * _FACTORS[match[2] or ""]


def _from_scope(source: Any, scope: Mapping[str, Any]) -> Any:
    """What an InputParameterSpec of the platform leads to: JSON, as text or as a value."""
    match source:
        case {"componentInputParameter": str(name)} if name in scope:
            value = scope[name]
        case {"runtimeValue": {"constant": constant}}:
            value = _filled(constant, scope)
        case _:
            raise _UnknownError
    return json.loads(value) if isinstance(value, str) else value


def _selector(
    step: str, platform: Mapping[str, Any], scope: Mapping[str, Any], unknown: list[str]
) -> dict[str, str]:
    selector = platform.get("nodeSelector", {})
    labels = dict(selector.get("labels", {}))
    if "nodeSelectorJson" in selector:
        try:
            given = _from_scope(selector["nodeSelectorJson"], scope)
        except _UnknownError:
            unknown.append("node selector")
            return labels
        except ValueError as error:
            raise ConfigError(f"step {step}: its node selector is not JSON, {error}") from error
        check_node_selector(f"step {step}: its node selector", given)
        labels |= given
    return labels


def _tolerations(
    step: str, platform: Mapping[str, Any], scope: Mapping[str, Any], unknown: list[str]
) -> Iterator[Taint]:
    for toleration in platform.get("tolerations", ()):
        given = [toleration]
        if "tolerationJson" in toleration:
            try:
                value = _from_scope(toleration["tolerationJson"], scope)
            except _UnknownError:
                unknown.append("tolerations")
                continue
            except ValueError as error:
                raise ConfigError(f"step {step}: a toleration is not JSON, {error}") from error
            given = value if isinstance(value, list) else [value]
        for fields in filter(None, given):
            if not isinstance(fields, Mapping):
                raise ConfigError(
                    f"step {step}: toleration {fields!r}; expected key, operator, value and effect"
                )
            yield Taint(
                key=str(fields.get("key", "")),
                value=str(fields.get("value", "")),
                effect=str(fields.get("effect", "")),
                operator=str(fields.get("operator") or "Equal"),
            )
