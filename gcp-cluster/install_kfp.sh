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
TEXT
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
run kubectl apply "--kustomize=$manifests/env/platform-agnostic?ref=$VOXSRC_KFP_VERSION" "--context=$context"
# The manifests' own value is a store inside the cluster, which goes with it.
run kubectl patch configmap kfp-launcher --type=merge \
  "--patch={\"data\":{\"defaultPipelineRoot\":\"gs://$VOXSRC_BUCKET/pipeline-root\"}}" "${in_namespace[@]}"
run kubectl wait deployment --all --for=condition=Available --timeout=15m "${in_namespace[@]}"

say 'Kubeflow Pipelines is reached through gcp-cluster/connect.sh, while that runs'
