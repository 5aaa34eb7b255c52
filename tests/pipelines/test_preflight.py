from collections.abc import Callable
from typing import Any

import kubernetes
import pytest

from cluster_objects import (
    ACCOUNT,
    DEPLOYMENTS,
    GCLOUD,
    IMAGE,
    SETTINGS,
    WORKFLOWS,
    Gcloud,
)
from kubernetes_server import KubernetesServer
from voxsrc.pipelines.checks import Check
from voxsrc.pipelines.cluster import Cluster, ClusterError, Project
from voxsrc.pipelines.needs import StepNeeds, step_needs
from voxsrc.pipelines.package import load_package, package_path
from voxsrc.pipelines.pools import read_pools
from voxsrc.pipelines.preflight import preflight
from voxsrc.pipelines.settings import Settings


def cluster_of(kubernetes_server: KubernetesServer) -> Cluster:
    configuration = kubernetes.client.Configuration(host=kubernetes_server.url)
    return Cluster(kubernetes.client.ApiClient(configuration), "kubeflow")


def needs_of(name: str = "train", **arguments: Any) -> list[StepNeeds]:
    package = load_package(package_path(name))
    given: dict[str, Any] = {key: "gs://b/x" for key, p in package.parameters.items() if p.required}
    for key in package.parameters:
        if key.endswith("_image"):
            given[key] = IMAGE.format(key.removesuffix("_image").replace("_", "-"))
    return step_needs(package, given | arguments)


def checks(kubernetes_server: KubernetesServer, gcloud: Gcloud, **arguments: Any) -> list[Check]:
    settings = Settings(SETTINGS, "cloud.env")
    project = Project(settings, gcloud)
    return preflight(needs_of(**arguments), read_pools(), cluster_of(kubernetes_server), project, settings)


def missing(kubernetes_server: KubernetesServer, gcloud: Gcloud, **arguments: Any) -> Check:
    """The one check that is not ok."""
    (check,) = [check for check in checks(kubernetes_server, gcloud, **arguments) if check.state != "ok"]
    assert check.remedy
    return check


def test_a_complete_cluster_lacks_nothing(kubernetes_server: KubernetesServer, gcloud: Gcloud) -> None:
    found = checks(kubernetes_server, gcloud)
    assert [check for check in found if check.state != "ok"] == []
    words = "\n".join(check.what for check in found)
    for part in (
        "Kubeflow",
        "service account",
        "cpu-spot",
        "gpu-spot-l4",
        "GPUS_ALL_REGIONS",
        "voxsrc-train@",
    ):
        assert part in words
    assert all("--project=my-project" in call and "--format=json" in call for call in gcloud.calls)


def test_a_gpu_pool_that_is_not_there_is_to_be_created(
    kubernetes_server: KubernetesServer, gcloud: Gcloud
) -> None:
    gcloud.answers["container node-pools list"].remove(gcloud.pool("gpu-spot-l4"))
    check = missing(kubernetes_server, gcloud)
    assert check.state == "missing"
    assert "train, evaluate" in check.what
    assert check.remedy == "gcp-cluster/create_node_pools.sh --gpu l4"


def test_another_gpu_type_is_another_pool_and_quota(
    kubernetes_server: KubernetesServer, gcloud: Gcloud
) -> None:
    found = checks(kubernetes_server, gcloud, gpu_node_selector={"voxsrc/pool": "gpu-spot-t4"})
    pools, quota = [check for check in found if check.state == "missing"]
    assert [check.state for check in found].count("ok") == len(found) - 2
    assert pools.remedy == "gcp-cluster/create_node_pools.sh --gpu t4"
    assert "PREEMPTIBLE_NVIDIA_T4_GPUS in europe-west4: 1" in quota.what
    assert quota.found == "0 of 0 in use"


def test_a_cpu_pool_that_is_not_there(kubernetes_server: KubernetesServer, gcloud: Gcloud) -> None:
    check = missing(
        kubernetes_server, gcloud, name="extract", cpu_node_selector={"voxsrc/pool": "cpu-on-demand"}
    )
    assert check.remedy == "gcp-cluster/create_node_pools.sh --gpu none"


def test_a_pool_with_another_label_is_to_be_made_anew(
    kubernetes_server: KubernetesServer, gcloud: Gcloud
) -> None:
    gcloud.pool("gpu-spot-l4")["config"]["labels"]["voxsrc/pool"] = "mine"
    check = missing(kubernetes_server, gcloud)
    assert "label voxsrc/pool is mine, asked for gpu-spot-l4" in check.found
    assert "node-pools delete gpu-spot-l4" in check.remedy


def test_a_taint_that_nothing_tolerates(kubernetes_server: KubernetesServer, gcloud: Gcloud) -> None:
    taint = {"key": "team", "value": "a", "effect": "NO_SCHEDULE"}
    gcloud.pool("cpu-spot")["config"]["taints"].append(taint)
    assert "taint team=a:NoSchedule is not tolerated" in missing(kubernetes_server, gcloud).found
    taint["effect"] = "PREFER_NO_SCHEDULE"
    assert all(check.state == "ok" for check in checks(kubernetes_server, gcloud))


def test_pods_with_gpus_tolerate_the_gpu_taint_by_themselves(
    kubernetes_server: KubernetesServer, gcloud: Gcloud
) -> None:
    gpu = gcloud.pool("gpu-spot-l4")["config"]
    gpu["taints"].append({"key": "nvidia.com/gpu", "value": "other", "effect": "NO_SCHEDULE"})
    assert all(check.state == "ok" for check in checks(kubernetes_server, gcloud))


def test_more_gpus_than_a_node_has(kubernetes_server: KubernetesServer, gcloud: Gcloud) -> None:
    check = missing(kubernetes_server, gcloud, num_gpus="4")
    assert "1 GPUs a node, asked for 4" in check.found
    assert "add a line with these labels and 4 GPUs a node" in check.remedy


def test_a_pool_that_may_not_grow(kubernetes_server: KubernetesServer, gcloud: Gcloud) -> None:
    gcloud.pool("cpu-spot")["autoscaling"]["totalMaxNodeCount"] = 0
    assert "may have no node" in missing(kubernetes_server, gcloud).found


def test_a_pod_that_is_larger_than_the_machine(kubernetes_server: KubernetesServer, gcloud: Gcloud) -> None:
    settings = Settings(SETTINGS, "cloud.env")
    (need,) = [need for need in needs_of() if need.title == "train"]
    larger = StepNeeds(**{**vars(need), "memory_gib": 32.0})
    found = preflight(
        [larger], read_pools(), cluster_of(kubernetes_server), Project(settings, gcloud), settings
    )
    (check,) = [check for check in found if check.state == "missing"]
    assert "8 vCPUs and 32 GiB a node" in check.found
    gcloud.pool("gpu-spot-l4")["config"]["machineType"] = "g2-standard-16"
    found = preflight(
        [larger], read_pools(), cluster_of(kubernetes_server), Project(settings, gcloud), settings
    )
    assert all(check.state == "ok" for check in found)


@pytest.mark.parametrize(
    ("metric", "limit", "otherwise"),
    [
        ("PREEMPTIBLE_NVIDIA_L4_GPUS", 0, "or choose another GPU type"),
        ("GPUS_ALL_REGIONS", 0, "no other type helps"),
        ("PREEMPTIBLE_CPUS", 7, "column machine_type"),
        ("CPUS_ALL_REGIONS", 11, "column machine_type"),
        ("IN_USE_ADDRESSES", 1, "VOXSRC_PRIVATE_NODES=yes"),
        ("PREEMPTIBLE_LOCAL_SSD_GB", 374, "column local_ssds"),
        ("SSD_TOTAL_GB", 99, "column boot_disk_gb"),
    ],
)
def test_a_quota_that_is_too_small(
    metric: str, limit: float, otherwise: str, kubernetes_server: KubernetesServer, gcloud: Gcloud
) -> None:
    gcloud.quota(metric, limit)
    check = missing(kubernetes_server, gcloud)
    assert check.state == "missing"
    assert f"ask for {metric} of at least" in check.remedy
    assert otherwise in check.remedy
    assert ("GPU type" in check.remedy) == (metric == "PREEMPTIBLE_NVIDIA_L4_GPUS")


@pytest.mark.parametrize(
    ("own", "other", "limit"),
    [("PREEMPTIBLE_CPUS", "CPUS", 200), ("PREEMPTIBLE_LOCAL_SSD_GB", "LOCAL_SSD_TOTAL_GB", 375)],
)
def test_spot_machines_count_with_the_others_where_there_is_no_quota_for_them(
    own: str, other: str, limit: float, kubernetes_server: KubernetesServer, gcloud: Gcloud
) -> None:
    gcloud.quota(own, 0, usage=0)
    gcloud.quota(other, limit, usage=0)
    found = checks(kubernetes_server, gcloud)
    assert {check.state for check in found} == {"ok"}
    (counted,) = [check for check in found if check.what.startswith(f"quota {other} ")]
    assert f"{own} is 0, so Spot machines count here" in counted.found
    assert not any(own in check.what for check in found)
    gcloud.quota(other, 1)
    assert f"ask for {other} of at least" in missing(kubernetes_server, gcloud).remedy


def test_a_quota_in_use_is_a_warning(kubernetes_server: KubernetesServer, gcloud: Gcloud) -> None:
    gcloud.quota("PREEMPTIBLE_NVIDIA_L4_GPUS", 1, usage=1)
    check = missing(kubernetes_server, gcloud)
    assert (check.state, check.found) == ("warning", "1 of 1 in use")
    assert check.remedy.startswith("the run waits until")


def test_a_step_that_may_run_on_two_pools_needs_quota_for_one(
    kubernetes_server: KubernetesServer, gcloud: Gcloud
) -> None:
    either = {"gpu_node_selector": {"voxsrc/gpu": "l4"}}
    gcloud.quota("NVIDIA_L4_GPUS", 0)
    check = missing(kubernetes_server, gcloud, **either)
    assert check.state == "warning"
    assert "another pool that the step may run on has quota" in check.found
    gcloud.quota("PREEMPTIBLE_NVIDIA_L4_GPUS", 0)
    states = [check.state for check in checks(kubernetes_server, gcloud, **either)]
    assert states.count("missing") == 2


def test_the_taint_of_the_pool_on_demand_is_tolerated_and_should_be_there(
    kubernetes_server: KubernetesServer, gcloud: Gcloud
) -> None:
    config = gcloud.pool("cpu-spot")["config"] | {
        "labels": {"voxsrc/pool": "cpu-on-demand", "voxsrc/kind": "cpu"},
        "taints": [{"key": "voxsrc/pool", "value": "cpu-on-demand", "effect": "NO_SCHEDULE"}],
        "spot": False,
    }
    pool = gcloud.pool("cpu-spot") | {"name": "cpu-on-demand", "config": config}
    gcloud.answers["container node-pools list"].append(pool)
    for label in ({"voxsrc/pool": "cpu-on-demand"}, {"voxsrc/kind": "cpu"}):
        found = checks(kubernetes_server, gcloud, cpu_node_selector=label)
        assert {check.state for check in found} == {"ok"}
        assert any("pool cpu-on-demand" in check.found for check in found)
    config["taints"] = []
    check = missing(kubernetes_server, gcloud, cpu_node_selector={"voxsrc/pool": "cpu-on-demand"})
    assert check.state == "warning"
    assert "lacks the taint voxsrc/pool=cpu-on-demand:NoSchedule" in check.found
    assert "node-pools delete cpu-on-demand" in check.remedy


def test_nodes_stand_in_where_gcloud_cannot_tell(kubernetes_server: KubernetesServer, gcloud: Gcloud) -> None:
    gcloud.answers = dict.fromkeys(GCLOUD, "ERROR\n(gcloud) PERMISSION_DENIED")
    found = {check.what.partition(" {")[0]: check for check in checks(kubernetes_server, gcloud)}
    states = {what.partition(":")[0]: check.state for what, check in found.items()}
    assert states["nodes for plan-extraction, extract-part, finish-extraction"] == "ok"
    assert states["nodes for train, evaluate"] == "unknown"
    assert "missing" not in states.values()
    unknown = [check for check in found.values() if check.state == "unknown"]
    assert all("PERMISSION_DENIED" in check.found for check in unknown)


@pytest.mark.parametrize(
    ("change", "found", "remedy"),
    [
        (lambda items: items.clear(), "no deployment ml-pipeline", "gcp-cluster/install_kfp.sh"),
        (lambda items: items.pop(4), "no deployment ml-pipeline", "gcp-cluster/install_kfp.sh"),
        (lambda items: items[10]["status"].pop("readyReplicas"), "mysql (0 of 1 ready)", "kubectl get pods"),
        (lambda items: items[4]["spec"].update(replicas=0), None, ""),
    ],
)
def test_kubeflow_pipelines_must_be_there_and_ready(
    change: Callable[[Any], Any],
    found: str | None,
    remedy: str,
    kubernetes_server: KubernetesServer,
    gcloud: Gcloud,
) -> None:
    change(kubernetes_server.objects[DEPLOYMENTS]["items"])
    if found is None:
        assert all(check.state == "ok" for check in checks(kubernetes_server, gcloud))
        return
    check = missing(kubernetes_server, gcloud)
    assert found in check.found
    assert remedy in check.remedy


def test_a_needed_deployment_scaled_to_none_is_not_ready(
    kubernetes_server: KubernetesServer, gcloud: Gcloud
) -> None:
    workflow_controller = kubernetes_server.objects[DEPLOYMENTS]["items"][-1]
    workflow_controller["spec"]["replicas"] = 0
    workflow_controller["status"] = {}
    assert "workflow-controller (0 of 0 ready)" in missing(kubernetes_server, gcloud).found


@pytest.mark.parametrize(
    ("annotations", "found"),
    [
        (None, "no annotation iam.gke.io/gcp-service-account"),
        ({"iam.gke.io/gcp-service-account": "x@y"}, "bound to x@y"),
    ],
)
def test_the_service_account_must_be_bound(
    annotations: dict[str, str] | None, found: str, kubernetes_server: KubernetesServer, gcloud: Gcloud
) -> None:
    kubernetes_server.objects[ACCOUNT]["metadata"]["annotations"] = annotations
    check = missing(kubernetes_server, gcloud)
    assert (check.found, check.remedy) == (found, "gcp-cluster/bind_identities.sh")


def test_the_service_account_must_exist(kubernetes_server: KubernetesServer, gcloud: Gcloud) -> None:
    kubernetes_server.objects[ACCOUNT] = 404
    assert missing(kubernetes_server, gcloud).found == "no such service account"


def test_images_must_be_in_the_registry(kubernetes_server: KubernetesServer, gcloud: Gcloud) -> None:
    gcloud.answers["artifacts docker images describe"] = "ERROR: (gcloud) Image not found."
    found = [check for check in checks(kubernetes_server, gcloud) if check.state == "missing"]
    assert {check.remedy for check in found} == {
        f"components/{name}/build_image.sh --push" for name in ("feature-extractor", "train", "evaluate")
    }


@pytest.mark.parametrize(
    ("image", "state"), [("voxsrc-train:0.1.0", "missing"), ("registry.example/x/voxsrc-train:1", "unknown")]
)
def test_images_elsewhere(
    image: str, state: str, kubernetes_server: KubernetesServer, gcloud: Gcloud
) -> None:
    check = missing(kubernetes_server, gcloud, train_image=image)
    assert check.state == state
    assert image in check.what


def test_a_cluster_that_may_not_be_read_says_so(kubernetes_server: KubernetesServer, gcloud: Gcloud) -> None:
    kubernetes_server.objects[DEPLOYMENTS] = 403
    with pytest.raises(ClusterError, match=r"cannot list deployments.*HTTP 403.*get-credentials"):
        checks(kubernetes_server, gcloud)


def test_a_cluster_that_is_gone_says_so(gcloud: Gcloud) -> None:
    with KubernetesServer({}) as gone:
        cluster = cluster_of(gone)
    cluster._core.api_client.configuration.retries = False
    with pytest.raises(ClusterError, match="the cluster does not answer"):
        cluster.deployments()


def test_attempts_are_the_pods_of_the_run_s_workflow(kubernetes_server: KubernetesServer) -> None:
    first, second = cluster_of(kubernetes_server).attempts("11111111-2222-3333-4444-555555555555")
    assert kubernetes_server.queries[WORKFLOWS] == {
        "labelSelector": "pipeline/runid=11111111-2222-3333-4444-555555555555"
    }
    assert (first.step, first.phase, first.preempted) == ("train", "Failed", True)
    assert (second.step, second.phase, second.preempted) == ("train", "Running", False)
