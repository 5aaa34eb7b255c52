"""The pods of a run are told from its workflow in each form in which Argo keeps them."""

import base64
import gzip
import json
from collections.abc import Callable
from typing import Any

import kubernetes
import pytest

from cluster_objects import WORKFLOWS
from kfp_server import KfpServer
from kubernetes_server import KubernetesServer
from pipeline_runs import ROOT, Clock, step, train_run, tree
from voxsrc.commands import pipeline_watch
from voxsrc.pipelines import attempts
from voxsrc.pipelines.attempts import AttemptsError
from voxsrc.pipelines.cluster import Cluster
from voxsrc.pipelines.kfp_api import KubeflowApi
from voxsrc.pipelines.resubmission import resubmit
from voxsrc.pipelines.watching import Watcher

Run = Callable[..., int]
ID = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def cluster(kubernetes_server: KubernetesServer) -> Cluster:
    configuration = kubernetes.client.Configuration(host=kubernetes_server.url)
    return Cluster(kubernetes.client.ApiClient(configuration), "kubeflow")


@pytest.fixture
def status(kubernetes_server: KubernetesServer) -> dict[str, Any]:
    """Of the one workflow, to change."""
    (workflow,) = kubernetes_server.objects[WORKFLOWS]["items"]
    changed: dict[str, Any] = workflow["status"]
    return changed


def compressed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content)).decode()


def test_nodes_of_a_large_workflow_are_compressed(cluster: Cluster, status: dict[str, Any]) -> None:
    """Beyond 1 MiB: `CompressWorkflowIfNeeded` of argo-workflows leaves `nodes` out."""
    before = cluster.attempts(ID)
    status["compressedNodes"] = compressed(json.dumps(status.pop("nodes")).encode())
    assert cluster.attempts(ID) == before
    assert [attempt.preempted for attempt in before] == [True, False]


def test_a_workflow_that_has_not_begun_has_no_pods(cluster: Cluster, status: dict[str, Any]) -> None:
    status["nodes"] = None
    assert cluster.attempts(ID) == []
    status["nodes"] = {}
    assert cluster.attempts(ID) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"offloadNodeStatusVersion": "fnv:123"}, "in a database, .*nodeStatusOffLoad"),
        ({"compressedNodes": "!"}, "compressedNodes"),
        ({"compressedNodes": base64.b64encode(b"no gzip").decode()}, "compressedNodes"),
        ({"compressedNodes": compressed(b"{}")[:-8]}, "compressedNodes"),
        ({"compressedNodes": compressed(b"{")}, "compressedNodes"),
        ({"compressedNodes": compressed(b"[]")}, "compressedNodes"),
        ({"compressedNodes": compressed(b'{"a":' + b" " * 2000 + b"1}")}, "more than 1000 bytes"),
    ],
)
def test_nodes_that_cannot_be_read_are_said(
    fields: dict[str, str],
    words: str,
    cluster: Cluster,
    status: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "MOST_BYTES", 1000)
    del status["nodes"]
    status |= fields
    with pytest.raises(AttemptsError, match=rf"workflow train-x7k2p.*{words}"):
        cluster.attempts(ID)


def test_a_run_whose_nodes_cannot_be_read_is_not_submitted_again(
    kfp_server: KfpServer, api: KubeflowApi, cluster: Cluster, status: dict[str, Any]
) -> None:
    """At once: waiting as for a cluster that does not answer would not help."""
    del status["nodes"]
    status["offloadNodeStatusVersion"] = "fnv:123"
    identity = kfp_server.add_run("r", "FAILED")
    pauses = list[float]()
    done = resubmit(api, identity, cluster.attempts, made=print, warn=print, pause=pauses.append)
    assert done.run_id is None
    assert "in a database" in done.reason
    assert pauses == []


def test_a_run_whose_nodes_cannot_be_read_is_watched_with_one_warning(
    watch: tuple[str, Watcher, Clock, list[str]],
    cluster: Cluster,
    status: dict[str, Any],
) -> None:
    identity, watcher, _, warnings = watch
    del status["nodes"]
    status["offloadNodeStatusVersion"] = "fnv:123"
    watcher.attempts = cluster.attempts
    assert [watcher.look().preemptions for _ in range(3)] == [None] * 3
    (warning,) = warnings
    assert "in a database" in warning
    watcher.turn_to(identity)
    watcher.look()
    assert len(warnings) == 2


def test_preemptions_of_a_large_workflow_are_counted(
    kfp_server: KfpServer,
    cluster: Cluster,
    status: dict[str, Any],
    voxsrc_pipeline: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status["compressedNodes"] = compressed(json.dumps(status.pop("nodes")).encode())
    monkeypatch.setattr(pipeline_watch, "open_cluster", lambda *_: cluster)
    identity = kfp_server.add_run("r", "RUNNING")
    kfp_server.answers[identity] = [train_run(tree(step(f"{ROOT}.train", "RUNNING", 6, None, 1)))]
    assert voxsrc_pipeline("watch", "r", "--once", "--cluster") == 4
    assert "1 retry, 1 by preemption" in capsys.readouterr().out
