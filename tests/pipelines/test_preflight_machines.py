"""Preflight with machine types and quotas that are not those of gcp-cluster/pools.tsv."""

import subprocess
from typing import Any

import kubernetes
import pytest

from cluster_objects import IMAGE, SETTINGS, Gcloud
from kubernetes_server import KubernetesServer
from voxsrc.pipelines.checks import Check
from voxsrc.pipelines.cluster import Cluster, Project
from voxsrc.pipelines.machines import MachineSize, cpu_quotas, is_cpu_quota, size_of_name
from voxsrc.pipelines.needs import step_needs
from voxsrc.pipelines.package import load_package, package_path
from voxsrc.pipelines.pools import POOLS_FILE, read_pools
from voxsrc.pipelines.preflight import preflight
from voxsrc.pipelines.settings import Settings

DESCRIBE = "compute machine-types describe"


def checks(kubernetes_server: KubernetesServer, gcloud: Gcloud, **changes: str) -> list[Check]:
    """Of the train pipeline, which makes its features with 6 cores a pod."""
    package = load_package(package_path("train"))
    given: dict[str, Any] = {key: "gs://b/x" for key, p in package.parameters.items() if p.required}
    given |= {key: IMAGE.format("x") for key in package.parameters if key.endswith("_image")}
    settings = Settings(SETTINGS | changes, "cloud.env")
    api = kubernetes.client.ApiClient(kubernetes.client.Configuration(host=kubernetes_server.url))
    project = Project(settings, gcloud)
    needs = step_needs(package, given)
    return preflight(needs, read_pools(), Cluster(api, "kubeflow"), project, settings)


def on_cpus(found: list[Check]) -> Check:
    (check,) = [check for check in found if check.what.startswith("nodes for plan-extraction")]
    return check


def quotas(found: list[Check]) -> dict[str, Check]:
    return {check.what.split()[1]: check for check in found if check.what.startswith("quota ")}


@pytest.mark.parametrize(
    ("machine_type", "answer", "state", "words"),
    [
        ("n2d-standard-4", None, "missing", "cpu-spot has 4 vCPUs and 16 GiB a node"),
        ("n1-custom-16-4096", None, "missing", "cpu-spot has 16 vCPUs and 4 GiB a node"),
        ("n1-custom-16-65536", None, "ok", "pool cpu-spot"),
        ("x9-mega-3", {"guestCpus": 16, "memoryMb": 65536}, "ok", "pool cpu-spot"),
        ("x9-mega-3", {"guestCpus": 2, "memoryMb": 65536}, "missing", "cpu-spot has 2 vCPUs and 64 GiB"),
        (
            "x9-mega-3",
            "ERROR: not found",
            "unknown",
            "nobody could tell how large its machines are (x9-mega-3)",
        ),
    ],
)
def test_a_pool_of_another_machine_type_is_judged_by_its_own_size(
    machine_type: str,
    answer: Any,
    state: str,
    words: str,
    kubernetes_server: KubernetesServer,
    gcloud: Gcloud,
) -> None:
    gcloud.pool("cpu-spot")["config"]["machineType"] = machine_type
    if answer is not None:
        gcloud.answers[DESCRIBE] = answer
    check = on_cpus(checks(kubernetes_server, gcloud))
    assert (check.state, words in check.found) == (state, True), check
    asked = [call for call in gcloud.calls if " ".join(call).startswith(DESCRIBE)]
    assert [call[3:5] for call in asked] == [[machine_type, "--zone=europe-west4-a"]] * (answer is not None)


def test_cores_count_in_the_quota_of_the_machine_type_that_the_pool_has(
    kubernetes_server: KubernetesServer, gcloud: Gcloud
) -> None:
    gcloud.quota("PREEMPTIBLE_CPUS", 0, usage=0)
    by_table = quotas(checks(kubernetes_server, gcloud))
    assert {"N2D_CPUS", "CPUS"} <= by_table.keys()
    assert "PREEMPTIBLE_CPUS is 0" in by_table["N2D_CPUS"].found
    gcloud.pool("cpu-spot")["config"]["machineType"] = "n1-standard-16"
    found = quotas(checks(kubernetes_server, gcloud))
    assert "N2D_CPUS" not in found
    assert found["CPUS"].what == "quota CPUS in europe-west4: 16, besides 4 of the permanent pool"
    gcloud.quota("CPUS", 19)
    check = quotas(checks(kubernetes_server, gcloud))["CPUS"]
    assert check.state == "missing"
    assert check.remedy.startswith("ask for CPUS of at least 20 in europe-west4")
    gcloud.quota("CPUS", 20)
    assert quotas(checks(kubernetes_server, gcloud))["CPUS"].state == "ok"


def test_a_pool_that_is_not_there_is_taken_as_the_settings_would_make_it(
    kubernetes_server: KubernetesServer, gcloud: Gcloud
) -> None:
    gcloud.answers["container node-pools list"].remove(gcloud.pool("cpu-spot"))
    found = quotas(checks(kubernetes_server, gcloud, VOXSRC_CPU_MACHINE_TYPE="n2-standard-64"))
    assert found["PREEMPTIBLE_CPUS"].what == "quota PREEMPTIBLE_CPUS in europe-west4: 64"
    gcloud.quota("PREEMPTIBLE_CPUS", 0, usage=0)
    gcloud.answers[DESCRIBE] = {"guestCpus": 8, "memoryMb": 30720}
    found = quotas(checks(kubernetes_server, gcloud, VOXSRC_CPU_MACHINE_TYPE="c4-standard-8"))
    assert found["for"].state == "unknown"
    assert "count in CPUS_PER_VM_FAMILY, which gcloud does not list" in found["for"].found


def test_what_the_permanent_pool_uses_stays_used(kubernetes_server: KubernetesServer, gcloud: Gcloud) -> None:
    gcloud.quota("CPUS_ALL_REGIONS", 12)
    found = quotas(checks(kubernetes_server, gcloud))
    assert (
        found["CPUS_ALL_REGIONS"].what
        == "quota CPUS_ALL_REGIONS globally: 8, besides 4 of the permanent pool"
    )
    assert found["IN_USE_ADDRESSES"].what.endswith(": 1, besides 1 of the permanent pool")
    assert found["SSD_TOTAL_GB"].what.endswith(": 100, besides 50 of the permanent pool")
    gcloud.quota("CPUS_ALL_REGIONS", 11)
    assert quotas(checks(kubernetes_server, gcloud))["CPUS_ALL_REGIONS"].state == "missing"


def test_limits_that_a_project_does_not_have_are_not_checked(
    kubernetes_server: KubernetesServer, gcloud: Gcloud
) -> None:
    listed = gcloud.answers["compute project-info describe"]["quotas"]
    listed[:] = [quota for quota in listed if quota["metric"] != "CPUS_ALL_REGIONS"]
    found = checks(kubernetes_server, gcloud)
    assert "CPUS_ALL_REGIONS" not in quotas(found)
    assert {check.state for check in found} == {"ok"}


@pytest.mark.parametrize("private", ["yes", "own-nat"])
def test_private_nodes_need_no_addresses(
    private: str, kubernetes_server: KubernetesServer, gcloud: Gcloud
) -> None:
    gcloud.quota("IN_USE_ADDRESSES", 0)
    assert quotas(checks(kubernetes_server, gcloud))["IN_USE_ADDRESSES"].state == "missing"
    assert "IN_USE_ADDRESSES" not in quotas(checks(kubernetes_server, gcloud, VOXSRC_PRIVATE_NODES=private))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("e2-standard-4", (4, 16)),
        ("n1-standard-8", (8, 30)),
        ("n1-highmem-2", (2, 13)),
        ("n2-highcpu-16", (16, 16)),
        ("c2d-highcpu-4", (4, 8)),
        ("custom-6-20480", (6, 20)),
        ("n2d-custom-4-66560-ext", (4, 65)),
        ("n2-highmem-128", None),
        ("c2-highmem-4", None),
        ("e2-medium", None),
        ("a2-highgpu-1g", None),
        ("n2d-standard-8-lssd", None),
        ("", None),
    ],
)
def test_a_name_tells_the_size_or_nothing(name: str, size: tuple[int, float] | None) -> None:
    assert size_of_name(name) == (size and MachineSize(*size))


def test_the_table_of_pools_agrees_with_the_rules_by_name() -> None:
    for pool in read_pools():
        size = size_of_name(pool.machine_type)
        assert size in (None, MachineSize(pool.vcpus or 0, pool.memory_gib or 0)), pool.name
        counted = [metric for metric in pool.quotas if is_cpu_quota(metric)]
        spot = ["PREEMPTIBLE_CPUS"] * (pool.provisioning == "spot")
        assert counted == [*spot, *cpu_quotas(pool.machine_type)], pool.name


def test_the_scripts_have_the_same_rules() -> None:
    names = [pool.machine_type for pool in read_pools()]
    names += [
        "e2-standard-4",
        "n2-highmem-8",
        "c2d-standard-4",
        "t2d-standard-1",
        "c4-standard-8",
        "a3-highgpu-1g",
    ]
    names += ["custom-6-20480", "n2d-custom-4-66560-ext", "n4-highcpu-2", "m3-ultramem-32"]
    script = 'source "$0"; for name; do cpu_quotas "$name"; machine_vcpus "$name" || echo none; done'
    library = POOLS_FILE.parent / "lib" / "pools.sh"
    done = subprocess.run(["bash", "-c", script, library, *names], capture_output=True, text=True, check=True)
    lines = iter(done.stdout.splitlines())
    for name in names:
        assert tuple(next(lines).split()) == cpu_quotas(name), name
        vcpus, size = next(lines), size_of_name(name)
        assert size is None or vcpus == str(size.vcpus), name
