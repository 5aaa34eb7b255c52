"""A cluster and a project with all that the pipelines ask for, for tests that take something away.

The objects in pipelines/recorded/ have the form that GKE, Kubeflow Pipelines 2.17.0 and gcloud give them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from kubernetes_server import KubernetesServer

INSTALLED = Path(__file__).resolve().parents[1] / "gcp-cluster" / "kubeflow"
RECORDED = Path(__file__).parent / "pipelines" / "recorded"
NODES = "/api/v1/nodes"
DEPLOYMENTS = "/apis/apps/v1/namespaces/kubeflow/deployments"
ACCOUNT = "/api/v1/namespaces/kubeflow/serviceaccounts/pipeline-runner"
WORKFLOWS = "/apis/argoproj.io/v1alpha1/namespaces/kubeflow/workflows"
CONTROLLER_CONFIG = "/api/v1/namespaces/kubeflow/configmaps/workflow-controller-configmap"
CONTROLLER = f"{DEPLOYMENTS}/workflow-controller"
AGENT = f"{DEPLOYMENTS}/ml-pipeline-persistenceagent"
IMAGE = "europe-west4-docker.pkg.dev/my-project/voxsrc/voxsrc-{}@sha256:" + "0" * 64
SETTINGS = {
    "VOXSRC_PROJECT": "my-project",
    "VOXSRC_REGION": "europe-west4",
    "VOXSRC_ZONE": "europe-west4-a",
    "VOXSRC_CLUSTER": "my-cluster",
    "VOXSRC_SERVICE_ACCOUNT": "voxsrc-pods@my-project.iam.gserviceaccount.com",
}
GCLOUD = {
    "container node-pools list": "node_pools.json",
    "compute regions describe": "region.json",
    "compute project-info describe": "project.json",
    "artifacts docker images describe": "image.json",
}


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_text())


class Gcloud:
    """Answers as `answers` says: a recorded object, or the words of an error."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {command: recorded(file) for command, file in GCLOUD.items()}
        self.calls: list[list[str]] = []

    def __call__(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        self.calls.append(list(arguments))
        for command, answer in self.answers.items():
            if " ".join(arguments).startswith(command):
                return (1, "", answer) if isinstance(answer, str) else (0, json.dumps(answer), "")
        raise AssertionError(arguments)

    def pool(self, name: str) -> dict[str, Any]:
        (found,) = [p for p in self.answers["container node-pools list"] if p["name"] == name]
        return dict[str, Any](found)

    def quota(self, metric: str, limit: float, usage: float | None = None) -> None:
        for place in ("compute regions describe", "compute project-info describe"):
            for quota in self.answers[place]["quotas"]:
                if quota["metric"] == metric:
                    quota["limit"] = limit
                    quota["usage"] = quota["usage"] if usage is None else usage


def installed(name: str) -> Any:
    """Objects of Kubeflow that have no more than what gcp-cluster/install_kfp.sh changes in them."""
    changed = yaml.safe_load((INSTALLED / f"{name}.yaml").read_text())
    return changed if "data" in changed else deployment(changed["spec"]["template"]["spec"]["containers"][0])


def deployment(container: dict[str, Any]) -> dict[str, Any]:
    labels = {"app": container["name"]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {"spec": {"selector": {"matchLabels": labels}, "template": template}}


def complete_cluster() -> KubernetesServer:
    """A server with all objects."""
    return KubernetesServer(
        {
            NODES: recorded("nodes.json"),
            DEPLOYMENTS: recorded("deployments.json"),
            ACCOUNT: recorded("service_account.json"),
            WORKFLOWS: recorded("workflows.json"),
            CONTROLLER_CONFIG: installed("workflow_defaults"),
            CONTROLLER: installed("workflow_controller"),
            AGENT: installed("persistence_agent"),
        }
    )
