"""What kubectl needs, changes and prints in the cluster of `cloud_cli`.

From kubernetes.io/docs/reference/kubectl/generated.
"""

import json
import re

from cloud_rules import State, expect

# What Kubeflow Pipelines' manifests make: kustomize build of env/platform-agnostic at 2.17.0.
KFP_ACCOUNTS = ["ml-pipeline", "ml-pipeline-ui", "pipeline-runner"]
MANIFESTS = r"https://github\.com/kubeflow/pipelines/manifests/kustomize/([a-z/-]+)\?ref=\d+\.\d+\.\d+"
KUBECTL = {
    "apply": {"kustomize"},
    "wait": {"for", "timeout", "all"},
    "patch": {"type", "patch"},
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
    if verb == "patch":
        expect(words == ["configmap", "kfp-launcher"] and flags["type"] == "merge", f"{words} not found")
        cluster["launcher"] = json.loads(flags["patch"])["data"]
    elif verb == "wait":
        expect(words == ["deployment"] and flags["for"] == "condition=Available", f"{words} not found")
    else:
        expect(words[0] == "serviceaccount" and words[1] in cluster["accounts"], f"{words[:2]} not found")
        key, _, value = words[2].partition("=")
        cluster.setdefault("annotations", {})[words[1]] = {key: value}
    return ""
