"""Checks what the cluster's workflow controller does with pods that fail, and how long it remembers them.

Argo adds the `templateDefaults` of its configmap to each template that our packages compile to, which has a
limit and a backoff, and no policy of its own (`mergedTemplateDefaultsInto` and `processNodeRetries` in
workflow/controller/operator.go of argo-workflows 4.0.5).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from voxsrc.pipelines.checks import Check
from voxsrc.pipelines.cluster import Cluster, ClusterError

_CONTROLLER, _AGENT = "workflow-controller", "ml-pipeline-persistenceagent"
_CONFIG_MAP = "workflow-controller-configmap"
_PATTERN, _AGENT_TTL = "TRANSIENT_ERROR_PATTERN", "TTL_SECONDS_AFTER_WORKFLOW_FINISH"
_SHUT_DOWN = "Pod was terminated in response to imminent node shutdown."
_DELETED = "pod deleted"
_OWN = "main: Error (exit code 1)"
# From the evening before a weekend to the morning after it.
_LEAST_KEPT_S = 3 * 86400
_REMEDY = "gcp-cluster/install_kfp.sh (Kubeflow Pipelines 2.17.0 or newer), for runs that begin afterwards"


def retry_checks(cluster: Cluster) -> list[Check]:
    """That steps which lose their machines are tried again, and that the reasons of failures are kept.

    What may not be read is unknown.
    """
    what = "retries of steps whose machines are taken away"
    try:
        config = cluster.config_map(_CONFIG_MAP)
        pattern = (cluster.variables(_CONTROLLER) or {}).get(_PATTERN, "")
        agent_ttl = (cluster.variables(_AGENT) or {}).get(_AGENT_TTL)
    except ClusterError as error:
        return [_unknown(what, str(error))]
    if config is None:
        return [_unknown(what, f"no configmap {_CONFIG_MAP} in namespace {cluster.namespace}")]
    try:
        spec = _mapping(_mapping(config.get("workflowDefaults")).get("spec"))
        strategy = _mapping(_mapping(spec.get("templateDefaults")).get("retryStrategy"))
        kept_s = _kept_s(_mapping(spec.get("ttlStrategy")), agent_ttl)
        return [_retries(what, strategy, re.compile(pattern)), *_memory(kept_s)]
    except (ValueError, re.error) as error:
        return [_unknown(what, f"configmap {_CONFIG_MAP} is not as expected: {error}")]


def _unknown(what: str, found: str) -> Check:
    return Check(
        what=what,
        state="unknown",
        found=found,
        remedy=f"if nobody knows: {_REMEDY}; and follow the run with voxsrc pipeline watch --resubmit",
    )


def _retries(what: str, strategy: Mapping[str, Any], pattern: re.Pattern[str]) -> Check:
    """Whether the policy retries each of the two ways in which a machine goes, and nothing else."""
    # `RetryPolicyActual` of argo-workflows, and its default
    policy = strategy.get("retryPolicy") or ("Always" if strategy.get("expression") else "OnFailure")
    policies = ("Always", "OnError", "OnFailure", "OnTransientError")
    if policy not in policies:
        raise ValueError(f"retryPolicy {policy!r}; expected one of {', '.join(policies)}")
    if expression := strategy.get("expression"):
        return _unknown(what, f"retryPolicy {policy} with the expression {expression}")

    def retried(message: str, end: str) -> bool:
        if policy == "OnTransientError":
            return bool(pattern.pattern) and pattern.search(message) is not None
        return policy in ("Always", f"On{end}")

    shut_down, deleted = retried(_SHUT_DOWN, "Failure"), retried(_DELETED, "Error")
    own = retried(_OWN, "Failure")
    faults = [
        "a pod that is shut down is not tried again, and the run fails" * (not shut_down),
        "a deleted pod is not tried again, and the run fails" * (not deleted),
        "a program that fails by itself is tried again up to 50 times, on its GPU" * own,
    ]
    named = f"retryPolicy {policy}" + f" with {_PATTERN} {pattern.pattern!r}" * (policy == "OnTransientError")
    if not any(faults):
        return Check(
            what=what, state="ok", found=f"retryPolicy {policy}: shut down or deleted, and no others"
        )
    return Check(
        what=what,
        state="warning" if shut_down else "missing",
        found=f"{named}: {'; '.join(filter(None, faults))}",
        remedy=_REMEDY + "; until then voxsrc pipeline watch --resubmit" * (not (shut_down and deleted)),
    )


def _kept_s(ttl: Mapping[str, Any], agent_ttl: str | None) -> int | None:
    """Seconds after which a failed run's workflow is deleted, by Argo or Kubeflow's agent; None for never."""
    limits = [ttl.get("secondsAfterFailure", ttl.get("secondsAfterCompletion")), agent_ttl]
    return min((int(str(limit)) for limit in limits if limit is not None), default=None)


def _memory(kept_s: int | None) -> Iterator[Check]:
    what = "why pods ended, for watch --cluster and --resubmit"
    hours = "" if kept_s is None else f"kept for {kept_s / 3600:.3g} h after the run"
    if kept_s is None or kept_s >= _LEAST_KEPT_S:
        yield Check(what=what, state="ok", found=hours or "kept")
    else:
        yield Check(
            what=what,
            state="warning",
            found=f"{hours}: a run that fails overnight or over a weekend can then not be told from one that "
            "lost its machine, and is not submitted again",
            remedy=_REMEDY,
        )


def _mapping(value: Any) -> Mapping[str, Any]:
    """A value that is a mapping, or YAML of one; raises ValueError for another."""
    if isinstance(value, str):
        import yaml

        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"workflowDefaults is no YAML: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"found {value!r}; expected a mapping")
    return value
