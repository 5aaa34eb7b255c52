"""The stand-in refuses what the cloud's own programs refuse; else the scripts' tests would say little."""

import copy

import pytest

from cloud_cli import CloudCli

POOL = {
    "project": "some-project",
    "cluster": "some-cluster",
    "location": "europe-west4-a",
    "node-locations": "europe-west4-a",
    "machine-type": "n1-standard-8",
    "accelerator": "type=nvidia-tesla-t4,count=1,gpu-driver-version=latest",
    "image-type": "COS_CONTAINERD",
    "disk-size": "100",
    "num-nodes": "0",
    "enable-autoscaling": None,
    "total-min-nodes": "0",
    "total-max-nodes": "2",
    "node-labels": "voxsrc/pool=some-pool",
    "node-taints": "nvidia.com/gpu=present:NoSchedule",
    "service-account": "nodes@some-project.iam.gserviceaccount.com",
}


def create_pool(**changes: str | bool | None) -> tuple[int, str, str]:
    """Asks for a pool whose flags are those of `POOL` with changes; False takes a flag away."""
    cli = CloudCli()
    cli.server.server_close()
    cli.state["clusters"]["some-cluster"] = {"status": "RUNNING"}
    cli.state["accounts"]["nodes@some-project.iam.gserviceaccount.com"] = {"hidden": 0}
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    flags = {name: value for name, value in (POOL | named).items() if value is not False}
    words = [f"--{name}" if value is None else f"--{name}={value}" for name, value in flags.items()]
    before = copy.deepcopy(cli.state)
    answer = cli.call(["gcloud", "container", "node-pools", "create", "some-pool", *words])
    assert (cli.state == before) == (answer[0] != 0)
    return answer


def test_a_right_pool_is_made() -> None:
    assert create_pool() == (0, "", "")
    assert create_pool(spot=None, machine_type="a3-highgpu-1g", **H100) == (0, "", "")


H100 = {
    "accelerator": "type=nvidia-h100-80gb,count=1,gpu-driver-version=latest",
    "ephemeral_storage_local_ssd": "count=2",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu": "t4"}, "unrecognized arguments: --gpu=t4"),
        ({"spot": "true"}, "argument --spot: ignored explicit argument"),
        ({"location_policy": "ALL"}, "argument --location-policy: Invalid choice: 'ALL'"),
        ({"workload_metadata": "gke"}, "Invalid choice: 'gke'"),
        ({"machine_type": "n1-standard-9"}, "Machine type n1-standard-9 not found"),
        ({"accelerator": "type=nvidia-tesla-t9,count=1,gpu-driver-version=latest"}, "has no nvidia-tesla-t9"),
        ({"accelerator": "type=nvidia-tesla-t4,count=3,gpu-driver-version=latest"}, "3 GPUs"),
        ({"accelerator": "type=nvidia-tesla-t4,count=1,gpu-driver-version=new"}, "gpu-driver-version"),
        ({"machine_type": "g2-standard-8", "accelerator": False}, "g2-standard-8 needs GPUs"),
        ({"machine_type": "a3-highgpu-1g", **H100}, "sold as Spot or Flex-start only"),
        ({"machine_type": "g2-standard-8"}, "g2-standard-8 has no nvidia-tesla-t4"),
        ({"ephemeral_storage_local_ssd": "count=5", "machine_type": "n1-standard-8"}, None),
        ({"ephemeral_storage_local_ssd": "count=9"}, "cannot have 9 local SSDs"),
        ({"shielded_integrity_monitoring": None}, "Must specify both or none"),
        ({"node_taints": "nvidia.com/gpu=present"}, "taint effect"),
        ({"node_labels": "-voxsrc/pool=a"}, "label key"),
        ({"node_labels": "voxsrc/pool=a b"}, "label value"),
        ({"node_locations": "europe-west1-b"}, "zone europe-west1-b"),
        ({"enable_autoscaling": False}, "--total-max-nodes needs --enable-autoscaling"),
        ({"service_account": "other@some-project.iam.gserviceaccount.com"}, "does not exist"),
        ({"cluster": "other"}, "code=404"),
    ],
)
def test_a_wrong_pool_is_refused(changes: dict[str, str | bool | None], message: str | None) -> None:
    status, _, errors = create_pool(**changes)
    assert (status, errors) == (0, "") if message is None else message in errors


@pytest.mark.parametrize(
    "command",
    [
        "gcloud container node-pool create a",
        "gcloud container clusters describe",
        "gcloud container clusters describe a b --location=europe-west4-a",
        "gcloud projects add-iam-policy-binding some-project --role=roles/owner",
        "gcloud storage buckets create gs://b -l europe-west4",
        "gcloud services enable compute",
        "gcloud compute routers create r --location=europe-west4 --network=default",
        "gcloud compute routers nats create n --region=europe-west4",
        "gcloud container clusters update c --location=europe-west4-a --master-authorised-networks=any",
        "kubectl apply -f file",
        "kubectl destroy namespace kubeflow",
        "kubectl wait crd/other --for=condition=established",
        "kubectl patch deployment workflow-controller --type=strategic --file=patch.yaml",
        "git clone",
    ],
)
def test_other_commands_are_refused(command: str) -> None:
    cli = CloudCli()
    cli.server.server_close()
    status, output, errors = cli.call(command.split())
    assert (status, output) == (1, "")
    assert errors.startswith("ERROR: ")
