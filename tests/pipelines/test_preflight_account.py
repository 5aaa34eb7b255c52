"""Preflight on a Kubernetes service account that the scripts of gcp-cluster do not make."""

import kubernetes
import pytest

from cluster_objects import ACCOUNT, SETTINGS, Gcloud
from kubernetes_server import KubernetesServer
from voxsrc.pipelines.cluster import Cluster, Project
from voxsrc.pipelines.pools import read_pools
from voxsrc.pipelines.preflight import preflight
from voxsrc.pipelines.settings import Settings


@pytest.mark.parametrize("is_there", [False, True])
def test_no_script_is_said_to_make_or_bind_another_account(
    is_there: bool, kubernetes_server: KubernetesServer, gcloud: Gcloud
) -> None:
    objects = kubernetes_server.objects
    objects[ACCOUNT.replace("pipeline-runner", "runner")] = {"metadata": {}} if is_there else 404
    settings = Settings(SETTINGS | {"VOXSRC_KUBERNETES_SERVICE_ACCOUNT": "runner"}, "cloud.env")
    configuration = kubernetes.client.Configuration(host=kubernetes_server.url)
    cluster = Cluster(kubernetes.client.ApiClient(configuration), "kubeflow")
    found = preflight([], read_pools(), cluster, Project(settings, gcloud), settings)
    (check,) = [check for check in found if check.state == "missing"]
    assert check.found == (
        "no annotation iam.gke.io/gcp-service-account" if is_there else "no such service account"
    )
    assert check.what.startswith("service account runner, ")
    assert ".sh" not in check.remedy
    assert "makes and binds pipeline-runner alone: correct VOXSRC_KUBERNETES_SERVICE_ACCOUNT" in check.remedy
