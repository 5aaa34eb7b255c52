#!/usr/bin/env bash
# Lets the cluster's pods act as the Google service accounts.
set -euo pipefail

# shellcheck source=lib/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/commands.sh"
# shellcheck source=lib/settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"

usage() {
  cat <<'TEXT'
Usage: gcp-cluster/bind_identities.sh [options]

Binds Kubernetes service accounts of Kubeflow Pipelines to Google service accounts by
Workload Identity, so that no pod needs a key:
  VOXSRC_KUBERNETES_SERVICE_ACCOUNT  acts as VOXSRC_SERVICE_ACCOUNT; pipeline-runner, as
                                     Kubeflow Pipelines makes no other for pods of runs
  ml-pipeline, ml-pipeline-ui        act as VOXSRC_KFP_SERVICE_ACCOUNT
Needs the cluster (its identity pool) and the installed Kubeflow Pipelines (its accounts).
TEXT
}

begin "$@"
no_arguments
[[ "$VOXSRC_KUBERNETES_SERVICE_ACCOUNT" == pipeline-runner ]] ||
  die "VOXSRC_KUBERNETES_SERVICE_ACCOUNT: found $VOXSRC_KUBERNETES_SERVICE_ACCOUNT; expected pipeline-runner, the account\
 that KFP's manifests make, with the rights that pods of runs need"
need gcloud kubectl gke-gcloud-auth-plugin

# bind KUBERNETES_ACCOUNT GOOGLE_ACCOUNT
bind() {
  run_eventually gcloud iam service-accounts add-iam-policy-binding "$2" "$at_project" \
    --role=roles/iam.workloadIdentityUser \
    "--member=serviceAccount:$VOXSRC_PROJECT.svc.id.goog[$VOXSRC_KFP_NAMESPACE/$1]" --condition=None '--format=none'
  run kubectl annotate serviceaccount "$1" "iam.gke.io/gcp-service-account=$2" --overwrite \
    "--namespace=$VOXSRC_KFP_NAMESPACE" "--context=$context"
}

get_credentials
bind "$VOXSRC_KUBERNETES_SERVICE_ACCOUNT" "$VOXSRC_SERVICE_ACCOUNT"
bind ml-pipeline "$VOXSRC_KFP_SERVICE_ACCOUNT"
bind ml-pipeline-ui "$VOXSRC_KFP_SERVICE_ACCOUNT"
