"""gcp-cluster's end: deletion after an interrupted run and beside other clusters, and what is left then."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_cli import CloudCli
from cloud_scripts import Cloud

NODES = "voxsrc-nodes@some-project.iam.gserviceaccount.com"
PIPELINE = "pipeline@some-project.iam.gserviceaccount.com"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    """A project with a cluster, of which no pool is known."""
    with CloudCli() as cli:
        cli.state["clusters"]["some-cluster"] = {"status": "RUNNING"}
        yield Cloud(tmp_path, cli)


def words_of_changes(cloud: Cloud) -> list[list[str]]:
    return [call[:4] for call in cloud.changing_calls()]


CREDENTIALS = ["gcloud", "container", "clusters", "get-credentials"]
NAMESPACE = ["kubectl", "delete", "namespace", "kubeflow"]
CLUSTER = ["gcloud", "container", "clusters", "delete"]


def test_a_cluster_that_is_being_made_is_waited_for_and_deleted(cloud: Cloud) -> None:
    cloud.state["clusters"]["some-cluster"]["status"] = "PROVISIONING"
    cloud.state["operations"] = {"operation-1": {}}
    done = cloud.run("delete_cluster", "--yes")
    assert done.returncode == 0, done.stderr
    assert "waiting for operation-1" in done.stderr
    assert words_of_changes(cloud) == [CREDENTIALS, NAMESPACE, CLUSTER]
    assert cloud.state["clusters"] == {}


def test_a_cluster_that_is_being_deleted_is_waited_for(cloud: Cloud) -> None:
    cloud.state["clusters"]["some-cluster"]["status"] = "STOPPING"
    cloud.state["operations"] = {"operation-1": {}}
    done = cloud.run("delete_cluster", "--yes")
    assert done.returncode == 0, done.stderr
    assert "no cluster some-cluster: nothing to delete" in done.stderr
    assert cloud.changing_calls() == []


def test_a_cluster_whose_creation_fails_while_it_is_waited_for_is_deleted(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = cloud.cli.call

    def call(command: list[str]) -> tuple[int, str, str]:
        if command[:4] != ["gcloud", "container", "operations", "wait"]:
            return others(command)
        cloud.state["operations"] = {}
        cloud.state["clusters"]["some-cluster"]["status"] = "ERROR"
        return 1, "", "ERROR: Operation [operation-1] finished with error: quota exceeded\n"

    monkeypatch.setattr(cloud.cli, "call", call)
    cloud.state["clusters"]["some-cluster"]["status"] = "PROVISIONING"
    cloud.state["operations"] = {"operation-1": {}}
    refused = cloud.run("create_cluster")
    assert refused.returncode == 1
    assert "operation operation-1 failed; see status.sh" in refused.stderr
    cloud.state["clusters"]["some-cluster"]["status"] = "PROVISIONING"
    cloud.state["operations"] = {"operation-1": {}}
    done = cloud.run("delete_cluster", "--yes")
    assert done.returncode == 0, done.stderr
    assert "operation operation-1 failed (its message is above): going on" in done.stderr
    assert words_of_changes(cloud) == [CLUSTER]
    assert cloud.state["clusters"] == {}


def test_a_cluster_that_failed_is_deleted_without_asking_it_anything(cloud: Cloud) -> None:
    cloud.state["clusters"]["some-cluster"]["status"] = "ERROR"
    done = cloud.run("delete_cluster", "--yes")
    assert done.returncode == 0, done.stderr
    assert "cluster some-cluster is ERROR: Kubeflow Pipelines is not deleted first" in done.stderr
    assert words_of_changes(cloud) == [CLUSTER]


def test_the_way_around_a_cluster_that_does_not_answer_is_told_from_the_beginning(cloud: Cloud) -> None:
    cloud.cli.fail_at = 1
    done = cloud.run("delete_cluster", "--yes")
    assert done.returncode == 1
    assert words_of_changes(cloud) == [CREDENTIALS]
    assert "delete the cluster all the same with --skip-kfp" in done.stderr


def test_disks_in_use_by_another_cluster_are_not_told_to_be_deleted(cloud: Cloud) -> None:
    cloud.state["disks"] = {"pvc-theirs": {"users": ["gke-other-cluster-1"]}, "pvc-left": {"users": []}}
    done = cloud.run("delete_cluster", "--yes")
    assert done.returncode == 0, done.stderr
    assert "cost money: pvc-left (gcloud compute disks delete NAME --zone=ZONE)" in done.stderr
    assert "They do not tell their cluster" in done.stderr
    assert "pvc-theirs" not in done.stderr


def test_accounts_that_another_cluster_uses_are_not_deleted(cloud: Cloud) -> None:
    cloud.state["accounts"] = {NODES: {"hidden": 0}, PIPELINE: {"hidden": 0}}
    other = {"status": "RUNNING", "flags": {"location": "europe-west4-b", "service-account": NODES}}
    cloud.state["clusters"]["other-cluster"] = other
    done = cloud.run("delete_cluster", "--with-identities", "--yes")
    assert done.returncode == 1
    assert f"nodes of other-cluster (europe-west4-b) act as {NODES} too" in done.stderr
    assert "leave the option out, or delete them first; nothing was deleted" in done.stderr
    assert cloud.changing_calls() == []
    other["flags"] = {"location": "europe-west4-b", "service-account": "default"}
    cloud.succeed("delete_cluster", "--with-identities", "--yes")
    assert cloud.state["accounts"] == {}
    assert cloud.state["clusters"].keys() == {"other-cluster"}


def test_after_the_clusters_end_all_that_costs_money_is_still_listed(cloud: Cloud) -> None:
    cloud.state["disks"] = {"pvc-left": {"users": []}}
    cloud.succeed("delete_cluster", "--yes")
    assert "pvc-left" in cloud.succeed("status")
