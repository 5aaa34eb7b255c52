"""Reads a cluster through the Kubernetes API, and the project through gcloud where it is at hand."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import kubernetes  # type: ignore[import-untyped]
import urllib3

from voxsrc.errors import VoxsrcError
from voxsrc.pipelines.attempts import Attempt, attempts_of
from voxsrc.pipelines.gcloud import run_gcloud
from voxsrc.pipelines.machines import MachineSize
from voxsrc.pipelines.pools import GPU_RESOURCE, Nodes, Taint
from voxsrc.pipelines.settings import Settings

TIMEOUT_S = 30.0
_RUN_LABEL = "pipeline/runid"
_POOL_LABEL = "cloud.google.com/gke-nodepool"
_MACHINE_LABEL = "node.kubernetes.io/instance-type"
_EFFECTS = {
    "NO_SCHEDULE": "NoSchedule",
    "PREFER_NO_SCHEDULE": "PreferNoSchedule",
    "NO_EXECUTE": "NoExecute",
}

# Runs gcloud with these arguments; returns its exit status, standard output and standard error.
GcloudRunner = Callable[[Sequence[str]], tuple[int, str, str]]


class ClusterError(VoxsrcError):
    """The cluster cannot be read."""


class GcloudError(VoxsrcError):
    """gcloud cannot tell something of the project; the message is why."""


class Cluster:
    """The Kubernetes API of one cluster.

    Args:
        api: A client, already configured.
        namespace: Of Kubeflow Pipelines.
    """

    def __init__(self, api: Any, namespace: str) -> None:
        self.namespace = namespace
        self._core = kubernetes.client.CoreV1Api(api)
        self._apps = kubernetes.client.AppsV1Api(api)
        self._custom = kubernetes.client.CustomObjectsApi(api)

    def nodes(self) -> list[Nodes]:
        """The nodes that there are now, with the name of their pool."""
        listed = self._ask("list nodes", lambda: self._core.list_node(_request_timeout=TIMEOUT_S))
        return [_node(node) for node in listed.items]

    def deployments(self) -> dict[str, tuple[int, int]]:
        """Name → replicas that are ready, and that are asked for, in the namespace."""
        listed = self._ask(
            "list deployments",
            lambda: self._apps.list_namespaced_deployment(self.namespace, _request_timeout=TIMEOUT_S),
        )
        return {
            found.metadata.name: (
                found.status.ready_replicas or 0,
                1 if found.spec.replicas is None else found.spec.replicas,
            )
            for found in listed.items
        }

    def service_account(self, name: str) -> Mapping[str, str] | None:
        """The annotations of a service account, None if there is none."""
        found = self._ask(
            f"read service account {name}",
            lambda: self._core.read_namespaced_service_account(
                name, self.namespace, _request_timeout=TIMEOUT_S
            ),
            absent=True,
        )
        return None if found is None else dict(found.metadata.annotations or {})

    def config_map(self, name: str) -> Mapping[str, str] | None:
        """What a configmap holds, None if there is none."""
        found = self._ask(
            f"read configmap {name}",
            lambda: self._core.read_namespaced_config_map(name, self.namespace, _request_timeout=TIMEOUT_S),
            absent=True,
        )
        return None if found is None else dict(found.data or {})

    def variables(self, deployment: str) -> Mapping[str, str] | None:
        """The variables of a deployment's containers that have a value, None if there is none."""
        found = self._ask(
            f"read deployment {deployment}",
            lambda: self._apps.read_namespaced_deployment(
                deployment, self.namespace, _request_timeout=TIMEOUT_S
            ),
            absent=True,
        )
        if found is None:
            return None
        variables = (one for container in found.spec.template.spec.containers for one in container.env or ())
        return {variable.name: variable.value for variable in variables if variable.value is not None}

    def attempts(self, run_id: str) -> list[Attempt]:
        """The pods of a run, as long as its workflow is kept.

        Raises:
            AttemptsError: The workflow does not say.
        """
        listed = self._ask(
            f"read the workflow of run {run_id}",
            lambda: self._custom.list_namespaced_custom_object(
                "argoproj.io",
                "v1alpha1",
                self.namespace,
                "workflows",
                label_selector=f"{_RUN_LABEL}={run_id}",
                _request_timeout=TIMEOUT_S,
            ),
        )
        return [attempt for workflow in listed["items"] for attempt in attempts_of(workflow)]

    def _ask(self, action: str, call: Callable[[], Any], *, absent: bool = False) -> Any:
        try:
            return call()
        except kubernetes.client.ApiException as error:
            if absent and error.status == 404:
                return None
            raise ClusterError(
                f"cannot {action} in namespace {self.namespace}: HTTP {error.status}, {error.reason}; log in "
                "(gcloud auth login, gcloud container clusters get-credentials) as a user who may read it"
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise ClusterError(
                f"cannot {action}: the cluster does not answer ({error}); does it exist, and may this "
                "machine reach it (VOXSRC_AUTHORIZED_NETWORKS)? See gcp-cluster/status.sh"
            ) from error


def connect(settings: Settings, context: str | None = None) -> Cluster:
    """Connects as kubectl would.

    Args:
        settings: They name the namespace, and the cluster.
        context: Of the kubeconfig; default the settings' cluster, else the current one.

    Raises:
        ClusterError: There is no such context.
    """
    chosen = context or settings.cluster_context()
    try:
        api = kubernetes.config.new_client_from_config(context=chosen)
    except kubernetes.config.ConfigException as error:
        raise ClusterError(
            f"kubeconfig has no usable context {chosen or '(current)'} ({error}); write it with: gcloud "
            "container clusters get-credentials CLUSTER --location=ZONE --project=PROJECT, or name another "
            "with --context"
        ) from error
    return Cluster(api, settings.get("VOXSRC_KFP_NAMESPACE") or "kubeflow")


def _node(node: Any) -> Nodes:
    labels = dict(node.metadata.labels or {})
    return Nodes(
        name=labels.get(_POOL_LABEL, node.metadata.name),
        labels=labels,
        taints=tuple(
            Taint(taint.key, taint.value or "", taint.effect)
            for taint in node.spec.taints or ()
            # passing conditions, such as not-ready, are not what the pool is
            if not taint.key.startswith("node.kubernetes.io/")
        ),
        gpus=int((node.status.allocatable or {}).get(GPU_RESOURCE, 0)),
        machine_type=labels.get(_MACHINE_LABEL, ""),
    )


class Project:
    """The Google Cloud project, through gcloud.

    Args:
        settings: They name it, and its cluster.
        run: Runs gcloud.
    """

    def __init__(self, settings: Settings, run: GcloudRunner = run_gcloud) -> None:
        self._run = run
        self._settings = settings

    def node_pools(self) -> list[Nodes]:
        """The cluster's pools, with those that have no node now; raises GcloudError."""
        cluster, zone = self._named("VOXSRC_CLUSTER"), self._named("VOXSRC_ZONE")
        if not cluster or not zone:
            raise GcloudError("VOXSRC_CLUSTER and VOXSRC_ZONE are not set")
        found = self._ask("container", "node-pools", "list", f"--cluster={cluster}", f"--location={zone}")
        return [_pool(pool) for pool in found]

    def quotas(self) -> dict[str, tuple[float, float]]:
        """Metric → usage and limit, of the region and of the project; raises GcloudError."""
        region = self._named("VOXSRC_REGION")
        if not region:
            raise GcloudError("VOXSRC_REGION is not set")
        regional = self._ask("compute", "regions", "describe", region)
        everywhere = self._ask("compute", "project-info", "describe")
        # Some metrics are in both lists: the region's count, but for those of all regions.
        counted = [
            *everywhere.get("quotas", ()),
            *(quota for quota in regional.get("quotas", ()) if not quota["metric"].endswith("_ALL_REGIONS")),
        ]
        return {quota["metric"]: (float(quota["usage"]), float(quota["limit"])) for quota in counted}

    def machine_size(self, machine_type: str) -> MachineSize | None:
        """The size of a machine type, as Google says; None if gcloud cannot tell."""
        zone = self._named("VOXSRC_ZONE")
        if not zone:
            return None
        try:
            found = self._ask("compute", "machine-types", "describe", machine_type, f"--zone={zone}")
        except GcloudError:
            return None
        return MachineSize(int(found["guestCpus"]), int(found["memoryMb"]) / 1024)

    def has_image(self, image: str) -> bool:
        """Whether Artifact Registry has an image; raises GcloudError."""
        try:
            self._ask("artifacts", "docker", "images", "describe", image)
        except GcloudError as error:
            if any(word in str(error).lower() for word in ("not_found", "not found")):
                return False
            raise
        return True

    def _named(self, name: str) -> str:
        return self._settings.get(name) or ""

    def _ask(self, *arguments: str) -> Any:
        project = self._named("VOXSRC_PROJECT")
        at_project = [f"--project={project}"] if project else []
        status, output, errors = self._run([*arguments, *at_project, "--format=json"])
        if status:
            raise GcloudError(next(iter(errors.strip().splitlines()[-1:]), f"exit status {status}"))
        return json.loads(output)


def _pool(pool: Mapping[str, Any]) -> Nodes:
    config = pool.get("config", {})
    labels = dict(config.get("labels", {})) | {_POOL_LABEL: pool["name"]}
    if config.get("spot"):
        labels["cloud.google.com/gke-spot"] = "true"
    accelerators = config.get("accelerators", ())
    for accelerator in accelerators:
        labels["cloud.google.com/gke-accelerator"] = accelerator["acceleratorType"]
    return Nodes(
        name=pool["name"],
        labels=labels,
        taints=tuple(_taints(config.get("taints", ()))),
        gpus=sum(int(accelerator["acceleratorCount"]) for accelerator in accelerators),
        most_nodes=_most_nodes(pool),
        machine_type=config.get("machineType", ""),
    )


def _taints(taints: Sequence[Mapping[str, str]]) -> Iterator[Taint]:
    for taint in taints:
        yield Taint(taint["key"], taint.get("value", ""), _EFFECTS.get(taint["effect"], taint["effect"]))


def _most_nodes(pool: Mapping[str, Any]) -> int:
    scaling = pool.get("autoscaling", {})
    if not scaling.get("enabled"):
        return int(pool.get("initialNodeCount", 0))
    total = int(scaling.get("totalMaxNodeCount", 0))
    return total or int(scaling.get("maxNodeCount", 0)) * len(pool.get("locations", ("",)))
