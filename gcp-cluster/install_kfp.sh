#!/usr/bin/env bash
# Installs Kubeflow Pipelines in the cluster.
set -euo pipefail

# shellcheck source=lib/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/commands.sh"
# shellcheck source=lib/settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"

usage() {
  cat <<'TEXT'
Usage: gcp-cluster/install_kfp.sh [options]

Installs Kubeflow Pipelines VOXSRC_KFP_VERSION from its own manifests, keeps artifacts in
the bucket under pipeline-root/, and waits until everything runs. It gets no public address:
connect.sh reaches it.

Steps whose machines are taken away are then tried again, however their pods end, and steps that
fail by themselves are not; what became of a failed run can be looked at for 14 days. This holds
for runs that are submitted afterwards: others keep what they began with. Run again, no pod
starts with the manifests' own values in between.
TEXT
}

# Earlier releases give no template a retry policy, and cannot show artifacts of those that have one.
retries_every_template() {
  local major minor
  IFS=. read -r major minor _ <<<"$VOXSRC_KFP_VERSION"
  ((major > 2 || (major == 2 && minor >= 17)))
}

# patch KIND NAME TYPE FILE
patch() {
  run kubectl patch "$1" "$2" "--type=$3" "--patch-file=$gcp_cluster/kubeflow/$4" "${in_namespace[@]}"
}

# hold DEPLOYMENT: keeps the pods of a deployment that exists as they are, until its patch ends this (`paused`). The
# manifests undo the patch: with their values runs would be forgotten after a day, and not all lost machines retried.
hold() {
  if exists kubectl get deployment "$1" --output=name "${in_namespace[@]}"; then
    run kubectl patch deployment "$1" --type=merge '--patch={"spec":{"paused":true}}' "${in_namespace[@]}"
  fi
}

begin "$@"
no_arguments
[[ "$VOXSRC_KFP_NAMESPACE" == kubeflow ]] ||
  die "VOXSRC_KFP_NAMESPACE: found $VOXSRC_KFP_NAMESPACE; expected kubeflow, the namespace written in KFP's manifests"
# kubectl fetches the manifests with git, and logs in with the plug-in.
need gcloud kubectl git gke-gcloud-auth-plugin

manifests=https://github.com/kubeflow/pipelines/manifests/kustomize
in_namespace=("--namespace=$VOXSRC_KFP_NAMESPACE" "--context=$context")

get_credentials
run kubectl apply "--kustomize=$manifests/cluster-scoped-resources?ref=$VOXSRC_KFP_VERSION" "--context=$context"
run kubectl wait crd/applications.app.k8s.io --for=condition=established --timeout=60s "--context=$context"
hold ml-pipeline-persistenceagent
! retries_every_template || hold workflow-controller
run kubectl apply "--kustomize=$manifests/env/platform-agnostic?ref=$VOXSRC_KFP_VERSION" "--context=$context"
patch deployment ml-pipeline-persistenceagent strategic persistence_agent.yaml
# The manifests' own value is a store inside the cluster, which goes with it.
run kubectl patch configmap kfp-launcher --type=merge \
  "--patch={\"data\":{\"defaultPipelineRoot\":\"gs://$VOXSRC_BUCKET/pipeline-root\"}}" "${in_namespace[@]}"
if retries_every_template; then
  patch configmap workflow-controller-configmap merge workflow_defaults.yaml
  patch deployment workflow-controller strategic workflow_controller.yaml
  # It has seen the manifests' configmap just now.
  run kubectl rollout restart deployment/workflow-controller "${in_namespace[@]}"
  run kubectl rollout status deployment/workflow-controller --timeout=5m "${in_namespace[@]}"
fi
run kubectl wait deployment --all --for=condition=Available --timeout=15m "${in_namespace[@]}"

say 'Kubeflow Pipelines is reached through gcp-cluster/connect.sh, while that runs'
