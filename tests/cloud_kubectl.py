"""What kubectl needs, changes and prints in the cluster of `cloud_cli`.

From kubernetes.io/docs/reference/kubectl/generated.
"""

import copy
import re
from pathlib import Path
from typing import Any

import yaml

from cloud_rules import State, expect

# What Kubeflow Pipelines' manifests make: kustomize build of env/platform-agnostic at 2.17.0.
KFP_ACCOUNTS = ["ml-pipeline", "ml-pipeline-ui", "pipeline-runner"]
KFP_DEFAULTS = {
    "ttlStrategy": dict.fromkeys(
        ["secondsAfterCompletion", "secondsAfterSuccess", "secondsAfterFailure"], 3600
    ),
    "templateDefaults": {"retryStrategy": {"limit": "2", "retryPolicy": "OnError"}},
}
KFP_VARIABLES = {
    "workflow-controller": {
        "TRANSIENT_ERROR_PATTERN": "(?i)(imminent node shutdown|node is shutting down|preempt|evict|spot|"
        "pod deleted)"
    },
    "ml-pipeline-persistenceagent": {"TTL_SECONDS_AFTER_WORKFLOW_FINISH": "86400"},
}
MANIFESTS = r"https://github\.com/kubeflow/pipelines/manifests/kustomize/([a-z/-]+)\?ref=\d+\.\d+\.\d+"
KUBECTL = {
    "apply": {"kustomize"},
    "get": {"output"},
    "wait": {"for", "timeout", "all"},
    "patch": {"type", "patch", "patch-file"},
    "rollout": {"timeout"},
    "annotate": {"overwrite"},
    "delete": {"ignore-not-found", "timeout"},
    "port-forward": set(),
}


def kubectl(state: State, arguments: list[str]) -> str:
    """Runs one kubectl command on `state`; returns what it prints."""
    verb, words, flags = arguments[0], [], dict[str, str]()
    for word in arguments[1:]:
        name, _, value = word.removeprefix("--").partition("=")
        if word.startswith("-"):
            expect(word.startswith("--"), f"unknown shorthand flag: {word}")
            expect(name in KUBECTL.get(verb, set()) | {"context", "namespace"}, f"unknown flag: --{name}")
            flags[name] = value
        else:
            words.append(word)
    expect(verb in KUBECTL, f'unknown command "{verb}"')
    cluster = state["kubernetes"]
    expect(flags.get("context") == cluster.get("context"), f'context "{flags.get("context")}" does not exist')
    if verb == "apply":
        match = re.fullmatch(MANIFESTS, flags["kustomize"])
        expect(match is not None, f"accumulating resources from {flags['kustomize']}")
        expect(
            bool(cluster.get("crds")) or (match and match[1]) == "cluster-scoped-resources",
            "no matches for kind",
        )
        cluster["crds"] = True
        if match and match[1] == "env/platform-agnostic":
            cluster.update(namespace="kubeflow", accounts=KFP_ACCOUNTS)
            cluster["workflow_defaults"] = {"spec": copy.deepcopy(KFP_DEFAULTS)}
            cluster["variables"] = copy.deepcopy(KFP_VARIABLES)
            _roll_out(cluster)
        return ""
    found = {"crds": "crd/applications.app.k8s.io"}
    if words[0] == found["crds"]:
        expect(bool(cluster.get("crds")) and flags["for"] == "condition=established", f"{words[0]} not found")
        return ""
    if verb == "delete":
        expect(words == ["namespace", "kubeflow"], f"deletes {words}")
        cluster.pop("namespace", None)
        return ""
    expect(
        flags.get("namespace") == cluster.get("namespace"), f"namespace {flags.get('namespace')} not found"
    )
    if verb == "port-forward":
        expect(words[0] == "service/ml-pipeline-ui", f"{words[0]} not found")
        match = re.fullmatch(r"(\d+):80", words[1])
        expect(match is not None and state["forwards"] > 0, "unable to listen on any of the requested ports")
        state["forwards"] -= 1
        return f"Forwarding from 127.0.0.1:{match and match[1]} -> 3000\nHandling connection for {words[1]}\n"
    if verb == "get":
        expect(words[0] == "deployment" and words[1] in cluster["variables"], f"{words} not found")
        return f"deployment.apps/{words[1]}\n"
    if verb == "patch":
        expect(len({"patch", "patch-file"} & flags.keys()) == 1, "must specify --patch or --patch-file")
        change = flags["patch"] if "patch" in flags else Path(flags["patch-file"]).read_text()
        _patch(cluster, words, flags["type"], yaml.safe_load(change))
    elif verb == "rollout":
        expect(words[0] in ("restart", "status"), f"unknown command rollout {words[0]}")
        name = words[1].removeprefix("deployment/")
        expect(name in cluster["variables"], f"{words[1]} not found")
        expect(name not in cluster["paused"], f"{name} is paused: run rollout resume first")
    elif verb == "wait":
        expect(words == ["deployment"] and flags["for"] == "condition=Available", f"{words} not found")
    else:
        expect(words[0] == "serviceaccount" and words[1] in cluster["accounts"], f"{words[:2]} not found")
        key, _, value = words[2].partition("=")
        cluster.setdefault("annotations", {})[words[1]] = {key: value}
    return ""


def _patch(cluster: State, words: list[str], kind: str, change: dict[str, Any]) -> None:
    if words == ["configmap", "kfp-launcher"] and kind == "merge":
        cluster["launcher"] = change["data"]
        return
    if words == ["configmap", "workflow-controller-configmap"] and kind == "merge":
        expect(change["data"].keys() == {"workflowDefaults"}, f"changes {change['data'].keys()}")
        # the values of a configmap are texts
        cluster["workflow_defaults"] = yaml.safe_load(change["data"]["workflowDefaults"])
        return
    expect(words[0] == "deployment" and words[1] in cluster["variables"], f"{words} not found")
    template = change["spec"].get("template", {"spec": {"containers": []}})
    for container in template["spec"]["containers"]:
        # a list is merged by the containers' names, and another name would be another container
        expect(kind == "strategic" and container["name"] == words[1], f"adds a container to {words[1]}")
        given = {variable["name"]: variable["value"] for variable in container["env"]}
        expect(all(isinstance(value, str) for value in given.values()), "cannot unmarshal env")
        cluster["variables"][words[1]] |= given
    paused = set(cluster["paused"]) - {words[1]}
    if change["spec"].get("paused", words[1] in cluster["paused"]):
        paused.add(words[1])
    cluster["paused"] = sorted(paused)
    _roll_out(cluster)


def _roll_out(cluster: State) -> None:
    """Adds to `started`, for each deployment that is not paused, the variables with which new pods start."""
    cluster.setdefault("paused", [])
    started = cluster.setdefault("started", {name: [] for name in cluster["variables"]})
    for name, values in cluster["variables"].items():
        if name not in cluster["paused"] and started[name][-1:] != [values]:
            started[name].append(dict(values))
