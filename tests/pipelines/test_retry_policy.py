"""Which attempts are tried again, by the policy that is installed, and whether the preflight sees that."""

import re
from typing import Any

import kubernetes
import pytest
import yaml

from cloud_kubectl import KFP_DEFAULTS, KFP_VARIABLES
from cluster_objects import (
    AGENT,
    CONTROLLER,
    CONTROLLER_CONFIG,
    SETTINGS,
    Gcloud,
    deployment,
    installed,
)
from kubernetes_server import KubernetesServer
from voxsrc.pipelines.attempts import Attempt
from voxsrc.pipelines.checks import Check
from voxsrc.pipelines.cluster import Cluster, Project
from voxsrc.pipelines.preflight import preflight
from voxsrc.pipelines.retry_policy import retry_checks
from voxsrc.pipelines.settings import Settings

POD = "w(0).root(0).train(0).executor(0)"
# As kubelet, Kubernetes' pod garbage collector and Argo write them.
LOST_MACHINES = [
    ("Failed", "Pod was terminated in response to imminent node shutdown."),
    ("Failed", "Pod was rejected as the node is shutting down."),
    ("Failed", "Pod Pod was rejected as the node is shutting down."),
    (
        "Failed",
        "Pod was rejected: Allocate failed due to requested number of devices unavailable for nvidia.com/gpu"
        ". Requested: 1, Available: 0, which is unexpected",
    ),
    ("Failed", "Preempted in order to admit critical pod"),
    (
        "Failed",
        "main: ContainerStatusUnknown (exit code 137): The container could not be located when the pod was "
        "terminated",
    ),
    ("Failed", "main: Error (exit code 143)"),
    ("Failed", "main: Error (exit code 137)"),
    ("Failed", "pod failed: neither main nor wait container completed successfully"),
    ("Failed", "pod failed: wait container did not complete successfully"),
    ("Error", "Pod failed before main container starts due to PodInitializing: "),
    ("Error", "wait: Error (exit code 64): failed to save outputs: the server did not answer"),
    ("Error", "init: Error (exit code 64): failed to load artifacts: the server did not answer"),
    ("Error", "pod deleted"),
]
OWN_FAILURES = [
    ("Failed", "main: Error (exit code 1)"),
    ("Failed", "main: Error (exit code 2)"),
    ("Failed", "main: OOMKilled (exit code 137)"),
    ("Failed", "main: StartError (exit code 128): failed to create containerd task"),
    ("Failed", "The node was low on resource: memory. Threshold quantity: 100Mi, available: 9Mi."),
    ("Failed", "main: Error (exit code 64)"),
    ("Error", "wait: Error (exit code 1)"),
    ("Failed", ""),
]
HUNG = "Pod was active on the node longer than the specified deadline"


def found(kubernetes_server: KubernetesServer) -> list[Check]:
    configuration = kubernetes.client.Configuration(host=kubernetes_server.url)
    return retry_checks(Cluster(kubernetes.client.ApiClient(configuration), "kubeflow"))


def defaults(**spec: Any) -> dict[str, Any]:
    return {"data": {"workflowDefaults": yaml.safe_dump({"spec": spec})}}


def strategy(**fields: str) -> dict[str, Any]:
    return defaults(templateDefaults={"retryStrategy": fields})


def variables(name: str, **values: str) -> dict[str, Any]:
    env = [{"name": key, "value": value} for key, value in values.items()]
    return deployment({"name": name, "env": [*env, {"name": "NAMESPACE", "valueFrom": {}}]})


def pattern() -> re.Pattern[str]:
    (container,) = installed("workflow_controller")["spec"]["template"]["spec"]["containers"]
    (variable,) = container["env"]
    return re.compile(variable["value"])


@pytest.mark.parametrize(("phase", "message"), LOST_MACHINES)
def test_argo_tries_again_what_lost_its_machine_or_its_own_container_and_watch_counts_it(
    phase: str, message: str
) -> None:
    assert pattern().search(message)
    attempt = Attempt(POD, phase, message)
    assert attempt.preempted != attempt.deleted
    assert attempt.deleted == (message == "pod deleted")


@pytest.mark.parametrize(("phase", "message"), OWN_FAILURES)
def test_what_fails_by_itself_is_not_tried_again(phase: str, message: str) -> None:
    assert not pattern().search(message)
    attempt = Attempt(POD, phase, message)
    assert (attempt.failed, attempt.preempted, attempt.deleted) == (True, False, False)


def test_an_attempt_that_hung_is_tried_again_but_lost_no_machine() -> None:
    assert pattern().search(HUNG)
    assert not Attempt(POD, "Failed", HUNG).preempted


def test_all_that_kubeflow_has_argo_retry_stays_so() -> None:
    theirs = KFP_VARIABLES["workflow-controller"]["TRANSIENT_ERROR_PATTERN"]
    for word in theirs.removeprefix("(?i)(").removesuffix(")").split("|"):
        assert pattern().search(f"so it was {word.upper()}, it says")


def test_what_the_script_installs_is_right(kubernetes_server: KubernetesServer) -> None:
    retries, memory = found(kubernetes_server)
    assert [retries.state, memory.state] == ["ok", "ok"]
    assert retries.found.startswith("retryPolicy OnTransientError")
    assert memory.found == "kept for 336 h after the run"


def test_the_preflight_makes_these_checks(kubernetes_server: KubernetesServer) -> None:
    kubernetes_server.objects[CONTROLLER_CONFIG] = strategy(retryPolicy="OnError")
    settings = Settings(SETTINGS, "cloud.env")
    cluster = Cluster(
        kubernetes.client.ApiClient(kubernetes.client.Configuration(host=kubernetes_server.url)), "kubeflow"
    )
    all_checks = preflight([], [], cluster, Project(settings, Gcloud()), settings)
    (faulty,) = [check for check in all_checks if check.state != "ok"]
    assert faulty.found.startswith("retryPolicy OnError")


def test_what_kubeflow_2_17_0_installs_is_not(kubernetes_server: KubernetesServer) -> None:
    kubernetes_server.objects[CONTROLLER_CONFIG] = defaults(**KFP_DEFAULTS)
    for path, name in ((CONTROLLER, "workflow-controller"), (AGENT, "ml-pipeline-persistenceagent")):
        kubernetes_server.objects[path] = variables(name, **KFP_VARIABLES[name])
    retries, memory = found(kubernetes_server)
    assert (retries.state, memory.state) == ("missing", "warning")
    assert (
        retries.found == "retryPolicy OnError: a pod that is shut down is not tried again, and the run fails"
    )
    assert memory.found.startswith("kept for 1 h after the run")
    for check in (retries, memory):
        assert check.remedy.startswith("gcp-cluster/install_kfp.sh")
    assert "--resubmit" in retries.remedy


@pytest.mark.parametrize(
    ("fields", "state", "faults"),
    [
        ({"retryPolicy": "Always"}, "warning", ["program"]),
        ({"retryPolicy": "OnFailure"}, "warning", ["deleted pod", "program"]),
        ({}, "warning", ["deleted pod", "program"]),
        ({"limit": "2"}, "warning", ["deleted pod", "program"]),
        ({"retryPolicy": "OnError"}, "missing", ["shut down"]),
        ({"retryPolicy": "OnTransientError"}, "ok", []),
        ({"expression": "lastRetry.exitCode != 1"}, "unknown", ["the expression lastRetry.exitCode != 1"]),
        ({"retryPolicy": "Never"}, "unknown", ["'Never'", "expected one of"]),
    ],
)
def test_each_policy_is_judged_by_what_it_does(
    kubernetes_server: KubernetesServer, fields: dict[str, str], state: str, faults: list[str]
) -> None:
    kubernetes_server.objects[CONTROLLER_CONFIG] = strategy(**fields)
    check = found(kubernetes_server)[0]
    assert check.state == state
    for fault in ("shut down is not", "deleted pod is not", "program that fails"):
        expected = any(fault.startswith(part) for part in faults)
        assert (fault in check.found) == expected, check.found
    assert all(fault in check.found for fault in faults)
    assert bool(check.remedy) == (state != "ok")


@pytest.mark.parametrize(
    ("given", "state"),
    [(None, "missing"), ("", "missing"), ("(?i)pod deleted", "missing"), ("(?i)(node shutdown)", "warning")],
)
def test_transient_errors_are_those_of_the_controllers_pattern(
    kubernetes_server: KubernetesServer, given: str | None, state: str
) -> None:
    kubernetes_server.objects[CONTROLLER] = variables(
        "workflow-controller", **({} if given is None else {"TRANSIENT_ERROR_PATTERN": given})
    )
    check = found(kubernetes_server)[0]
    assert check.state == state
    assert f"TRANSIENT_ERROR_PATTERN {given or ''!r}" in check.found


@pytest.mark.parametrize(
    ("ttl", "agent", "words"),
    [
        ({"secondsAfterFailure": 3600, "secondsAfterSuccess": 9**9}, "1209600", "kept for 1 h"),
        ({"secondsAfterCompletion": 7200}, "1209600", "kept for 2 h"),
        ({"secondsAfterSuccess": 60}, "1209600", None),
        ({"secondsAfterFailure": 1209600}, "86400", "kept for 24 h"),
        ({}, "86400", "kept for 24 h"),
        ({}, None, None),
    ],
)
def test_the_shorter_of_two_limits_counts(
    kubernetes_server: KubernetesServer, ttl: dict[str, int], agent: str | None, words: str | None
) -> None:
    strategies = KFP_DEFAULTS["templateDefaults"]
    kubernetes_server.objects[CONTROLLER_CONFIG] = defaults(ttlStrategy=ttl, templateDefaults=strategies)
    kubernetes_server.objects[AGENT] = (
        variables("ml-pipeline-persistenceagent", TTL_SECONDS_AFTER_WORKFLOW_FINISH=agent) if agent else 404
    )
    memory = found(kubernetes_server)[1]
    assert memory.state == ("ok" if words is None else "warning")
    assert words is None or memory.found.startswith(words)


@pytest.mark.parametrize(
    ("path", "answer", "words"),
    [
        (
            CONTROLLER_CONFIG,
            403,
            "cannot read configmap workflow-controller-configmap in namespace kubeflow: ",
        ),
        (CONTROLLER, 403, "cannot read deployment workflow-controller in namespace kubeflow: HTTP 403"),
        (AGENT, 403, "cannot read deployment ml-pipeline-persistenceagent"),
        (CONTROLLER_CONFIG, 404, "no configmap workflow-controller-configmap in namespace kubeflow"),
        (CONTROLLER_CONFIG, {"data": {"workflowDefaults": "a: [b"}}, "is not as expected"),
        (CONTROLLER_CONFIG, {"data": {"workflowDefaults": "spec: 3"}}, "found 3; expected a mapping"),
        (CONTROLLER_CONFIG, defaults(ttlStrategy={"secondsAfterFailure": []}), "is not as expected"),
        (CONTROLLER, variables("workflow-controller", TRANSIENT_ERROR_PATTERN="("), "is not as expected"),
    ],
)
def test_what_cannot_be_read_is_unknown_and_said_so(
    kubernetes_server: KubernetesServer, path: str, answer: Any, words: str
) -> None:
    kubernetes_server.objects[path] = answer
    (check,) = found(kubernetes_server)
    assert check.state == "unknown"
    assert words in check.found
    assert "install_kfp.sh" in check.remedy


def test_a_configmap_without_defaults_retries_failures_alone_and_keeps_as_long_as_kubeflow(
    kubernetes_server: KubernetesServer,
) -> None:
    kubernetes_server.objects[CONTROLLER_CONFIG] = {"data": None}
    retries, memory = found(kubernetes_server)
    assert (retries.state, memory.state) == ("warning", "ok")
    assert "OnFailure" in retries.found
