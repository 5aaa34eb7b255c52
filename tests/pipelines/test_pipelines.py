"""The two pipelines as compiled: kfp accepts them, and gcp-cluster's pools have what their pods ask for."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

if not os.environ.get("VOXSRC_REQUIRE_KFP"):
    pytest.importorskip("kfp.kubernetes", reason="kfp is not installed (extra `pipelines`)")

from google.protobuf import json_format
from kfp import components
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from voxsrc.pipelines.needs import StepNeeds, step_needs
from voxsrc.pipelines.package import Package, load_package, package_path
from voxsrc.pipelines.pools import Pool, fitting, misfits, read_pools

PACKAGES = {name: load_package(package_path(name)) for name in ("extract", "train")}
POOLS = read_pools()
CPU_POOLS = [pool for pool in POOLS if pool.gpu == "none"]
GPU_POOLS = [pool for pool in POOLS if pool.gpu != "none"]
GPU_STEPS = {"train", "evaluate"}

every_package = pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)


def container_tasks(package: Package) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Executor label and task of every step with a container."""
    for component in [package.spec["root"], *package.spec["components"].values()]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            inner = package.spec["components"][task["componentRef"]["name"]]
            if "executorLabel" in inner:
                yield inner["executorLabel"], task


def kind_of(label: str) -> str:
    return label.removeprefix("exec-").removesuffix("-2")


@pytest.mark.parametrize("name", PACKAGES)
def test_kfp_accepts_the_package_and_what_it_says_to_kubernetes(name: str) -> None:
    package = PACKAGES[name]
    loaded = components.load_component_from_file(str(package_path(name)))
    assert set(loaded.component_spec.inputs) == set(package.parameters)
    message = json_format.ParseDict(package.spec, pipeline_spec_pb2.PipelineSpec())
    assert message.schema_version == "2.1.0"
    labels = set(package.spec["deploymentSpec"]["executors"])
    assert set(package.platform) == labels
    for label in labels:
        config = json_format.ParseDict(
            package.platform[label], kubernetes_executor_config_pb2.KubernetesExecutorConfig()
        )
        assert config.security_context.run_as_non_root
        assert config.security_context.run_as_user == 10001
        assert config.active_deadline_seconds >= 4 * 3600
        assert config.pod_metadata.labels["app.kubernetes.io/part-of"] == "voxsrc"


def test_each_pipeline_has_its_steps() -> None:
    steps = {name: [needs.step for needs in step_needs(package, {})] for name, package in PACKAGES.items()}
    of_a_set = ["finish-extraction", "for-loop-1/extract-part", "plan-extraction"]
    assert sorted(steps["extract"]) == of_a_set
    nested = [f"{dag}/{step}" for dag in ("voxsrc-extract", "voxsrc-extract-2") for step in of_a_set]
    assert sorted(steps["train"]) == sorted(["evaluate", "train", *nested])


def test_steps_wait_for_what_they_read() -> None:
    tasks = PACKAGES["train"].spec["root"]["dag"]["tasks"]
    assert tasks["train"]["dependentTasks"] == ["voxsrc-extract"]
    assert tasks["evaluate"]["dependentTasks"] == ["train", "voxsrc-extract-2"]
    inner = PACKAGES["extract"].spec["root"]["dag"]["tasks"]
    assert inner["for-loop-1"]["dependentTasks"] == ["plan-extraction"]
    assert inner["finish-extraction"]["dependentTasks"] == ["for-loop-1"]
    assert "dependentTasks" not in tasks["voxsrc-extract"] | tasks["voxsrc-extract-2"]


@every_package
def test_a_step_outlives_days_of_preemptions_and_is_never_cached(package: Package) -> None:
    tasks = list(container_tasks(package))
    assert len(tasks) == len(package.spec["deploymentSpec"]["executors"])
    for _, task in tasks:
        assert task["retryPolicy"] == {
            "maxRetryCount": 50,
            "backoffDuration": "30s",
            "backoffFactor": 1.0,
            "backoffMaxDuration": f"{14 * 24 * 3600}s",
        }
        assert task["cachingOptions"] == {}
    for component in [package.spec["root"], *package.spec["components"].values()]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            assert not task.get("cachingOptions", {}).get("enableCache")


@every_package
def test_no_step_has_an_artifact_as_input(package: Package) -> None:
    # The launcher would copy it to the pod.
    for component in package.spec["components"].values():
        assert "artifacts" not in component.get("inputDefinitions", {})


@every_package
def test_images_and_node_selectors_are_parameters(package: Package) -> None:
    given = {
        name: f"registry.example/{name}@sha256:{'0' * 64}"
        for name in package.parameters
        if name.endswith("_image")
    }
    selectors = {name: {"pool": name} for name in package.parameters if name.endswith("_node_selector")}
    for needs in step_needs(package, {**given, **selectors}):
        kind = needs.step.rpartition("/")[2]
        image = f"{kind}_image" if kind in GPU_STEPS else "feature_extractor_image"
        assert needs.image == given[image]
        assert needs.node_selector == {"pool": f"{'gpu' if kind in GPU_STEPS else 'cpu'}_node_selector"}
        assert needs.unknown == ()


def test_only_training_and_evaluation_ask_for_gpus_and_training_for_as_many_as_it_has_processes() -> None:
    package = PACKAGES["train"]
    gpus = {needs.step: needs.gpus for needs in step_needs(package, {"num_gpus": "4"})}
    assert {step: count for step, count in gpus.items() if count} == {"train": 4, "evaluate": 1}
    # Of a number the backend makes an empty text, and asks for no GPU.
    assert package.parameters["num_gpus"].kind == "STRING"
    task = package.spec["root"]["dag"]["tasks"]["train"]
    assert task["inputs"]["parameters"]["num_processes"] == {"componentInputParameter": "num_gpus"}


def test_steps_with_gpus_have_shared_memory() -> None:
    platform = PACKAGES["train"].platform
    with_mounts = {kind_of(label): config.get("emptyDirMounts") for label, config in platform.items()}
    assert {kind for kind, mounts in with_mounts.items() if mounts} == GPU_STEPS
    for kind in GPU_STEPS:
        (mount,) = with_mounts[kind] or []
        assert (mount["mountPath"], mount["medium"]) == ("/dev/shm", "Memory")


def needs_on(pool: Pool) -> Iterator[StepNeeds]:
    """The steps that the selector of this pool is for."""
    label = {"voxsrc/pool": pool.labels["voxsrc/pool"]}
    kind = "cpu" if pool in CPU_POOLS else "gpu"
    for needs in step_needs(PACKAGES["train"], {f"{kind}_node_selector": label}):
        if (needs.step in GPU_STEPS) == (kind == "gpu"):
            yield needs


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.name)
def test_every_pool_takes_the_steps_that_its_label_chooses(pool: Pool) -> None:
    chosen = list(needs_on(pool))
    assert chosen
    for needs in chosen:
        assert misfits(pool, needs.node_selector, needs.tolerations, needs.gpus) == []
        # Kubernetes and the node's own pods take a part.
        assert 0 < needs.cpus <= 0.85 * pool.vcpus
        assert 0 < needs.memory_gib <= 0.8 * pool.memory_gib
        others = [other for other in POOLS if other.labels["voxsrc/pool"] != pool.labels["voxsrc/pool"]]
        assert all(misfits(other, needs.node_selector, needs.tolerations, needs.gpus) for other in others)


@pytest.mark.parametrize(
    ("selectors", "steps"),
    [
        ({"cpu_node_selector": {"voxsrc/kind": "cpu"}}, "cpu"),
        ({"gpu_node_selector": {"voxsrc/gpu": "l4"}}, "gpu"),
    ],
)
def test_one_label_selects_spot_and_on_demand(selectors: dict[str, Any], steps: str) -> None:
    for needs in step_needs(PACKAGES["train"], selectors):
        if (needs.step in GPU_STEPS) != (steps == "gpu"):
            continue
        found = fitting(POOLS, needs.node_selector, needs.tolerations, needs.gpus)
        assert {pool.provisioning for pool in found} == {"spot", "on-demand"}
        assert len({pool.machine_type for pool in found}) == 1
    description = PACKAGES["train"].parameters[next(iter(selectors))].description
    ((label, value),) = next(iter(selectors.values())).items()
    assert f"{{{label}: {value}}} is" in description.replace("  ", " ")


@every_package
def test_by_default_all_runs_on_spot_nodes(package: Package) -> None:
    for needs in step_needs(package, {}):
        (pool,) = (
            pool for pool in POOLS if not misfits(pool, needs.node_selector, needs.tolerations, needs.gpus)
        )
        assert pool.provisioning == "spot"
        assert (pool in GPU_POOLS) == (needs.step in GPU_STEPS)


@every_package
def test_every_parameter_is_explained(package: Package) -> None:
    assert [name for name, parameter in package.parameters.items() if not parameter.description] == []


def test_parts_are_all_of_the_shards() -> None:
    parts = PACKAGES["extract"].parameters["parts"].default
    assert parts == [f"{index}/{len(parts)}" for index in range(len(parts))]
