"""Why the pods of a run ended, by what the Argo workflow keeps of them: a path, a phase and a message.

A machine that is taken away leaves one of these messages, by how far Kubernetes comes with its pod. Phase
Failed, from kubelet:

- "Pod was terminated in response to imminent node shutdown.", in time;
- "Pod was rejected as the node is shutting down.", of a pod that came too late;
- "Pod was rejected: Allocate failed due to …", on a new node of the old name that has no GPUs yet;
- "main: ContainerStatusUnknown (exit code 137): The container could not be located when the pod was
  terminated", there too, of a pod from before.

Phase Failed, from Argo:

- "main: Error (exit code 143)", or 137: a signal has ended the pod, which is about to be deleted. A program's
  own failure has code 1, as the launcher ends so; one out of memory is "OOMKilled (exit code 137)";
- "pod failed: neither main nor wait container completed successfully": Kubernetes marks a pod as failed whose
  node is gone, before it deletes it.

Phase Error, from Argo:

- "Pod failed before main container starts due to PodInitializing: ", of one that had not begun;
- "init: Error (exit code 64): …", or wait: the container with which Argo prepares a pod or reports its
  outputs could not go on, as where a server does not answer. No code of a step runs in it;
- "pod deleted", of one that was gone before Argo looked.

Sources: `inferFailedReason` and `podReconciliation` in workflow/controller/operator.go of argo-workflows
4.0.5, and its cmd/argoexec/main.go (code 64); `rejectPod`, the container statuses and the node shutdown
manager of kubelet; `markFailedAndDeletePod` of Kubernetes' pod garbage collector.
gcp-cluster/kubeflow/workflow_controller.yaml has Argo retry all these.
"""

import base64
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voxsrc.errors import VoxsrcError
from voxsrc.pipelines.progress import step_of

# Of a workflow's nodes as JSON; compressed they are at most the 1.5 MiB that Kubernetes takes of an object.
MOST_BYTES = 64 * 2**20
_GZIP = 16 + zlib.MAX_WBITS

_TAKEN = re.compile(
    r"node shutdown|node is shutting down|preempt|evict|node is not ready|node was terminated"
    r"|pod was rejected|could not be located when the pod"
    r"|neither main nor wait container completed|container did not complete successfully"
    r"|pod failed before|main: error \(exit code (137|143)\)|(init|wait): error \(exit code 64\)",
    re.IGNORECASE,
)


class AttemptsError(VoxsrcError):
    """A workflow does not say what pods it had, and will not when it is asked again."""


@dataclass(frozen=True)
class Attempt:
    """One pod of a run, as the Argo workflow remembers it.

    Attributes:
        path: Its node's path, as in `voxsrc.pipelines.progress`.
        phase: Pending, Running, Succeeded, Failed or Error.
        message: Why it ended or waits.
    """

    path: str
    phase: str
    message: str

    @property
    def step(self) -> str:
        """The step, as `StepProgress` names it; empty of a driver."""
        return step_of(self.path.rpartition(".executor")[0])

    @property
    def failed(self) -> bool:
        """Whether it ended without success."""
        return self.phase in ("Failed", "Error")

    @property
    def preempted(self) -> bool:
        """Whether its machine was taken away, or Argo's own part of it failed, by what is then written."""
        return self.failed and _TAKEN.search(self.message) is not None

    @property
    def deleted(self) -> bool:
        """Whether the pod vanished: with its machine, or as somebody deleted it; Argo does not tell which."""
        return self.failed and not self.preempted and "pod deleted" in self.message.lower()


def attempts_of(workflow: Mapping[str, Any]) -> list[Attempt]:
    """The pods of an Argo workflow, as `kubectl get workflow --output=json` has it.

    Beyond 1 MiB Argo keeps its nodes compressed, or in a database where it has one (workflow/packer/packer.go
    and workflow/hydrator/hydrator.go of argo-workflows 4.0.5).

    Raises:
        AttemptsError: They are in a database, or cannot be read.
    """
    status = workflow.get("status") or {}
    nodes = status.get("nodes") or {}
    name = f"workflow {workflow.get('metadata', {}).get('name', '')}"
    if not nodes and (packed := status.get("compressedNodes")):
        nodes = _unpacked(packed, name)
    elif not nodes and status.get("offloadNodeStatusVersion"):
        raise AttemptsError(
            f"{name} keeps what became of its pods in a database, as its cluster's workflow controller has "
            "nodeStatusOffLoad in its configmap's key persistence: why they ended is not known here; see the "
            "run's page"
        )
    return [
        Attempt(str(node["name"]), str(node.get("phase", "")), str(node.get("message", "")))
        for node in nodes.values()
        if node.get("type") == "Pod"
    ]


def _unpacked(packed: str, name: str) -> Mapping[str, Any]:
    """The nodes by id, from base64 of gzip of JSON; raises AttemptsError."""
    gzip = zlib.decompressobj(_GZIP)
    try:
        content = gzip.decompress(base64.b64decode(packed, validate=True), MOST_BYTES)
        if gzip.unconsumed_tail:
            raise AttemptsError(f"{name}: its status.compressedNodes hold more than {MOST_BYTES} bytes")
        if not gzip.eof:
            raise ValueError("its end is missing")
        nodes = json.loads(content)
        if not isinstance(nodes, dict):
            raise ValueError(f"found {type(nodes).__name__}, expected an object")
    except (ValueError, zlib.error) as error:
        raise AttemptsError(
            f"{name}: its status.compressedNodes are not base64 of gzip of a JSON object ({error})"
        ) from error
    return nodes
