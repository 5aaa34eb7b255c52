#!/usr/bin/env bash
# Creates the Google service accounts and gives them the least rights that work.
set -euo pipefail

# shellcheck source=lib/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/commands.sh"
# shellcheck source=lib/settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"

usage() {
  cat <<'TEXT'
Usage: gcp-cluster/create_identities.sh [options]

Creates three Google service accounts, without keys, and their rights:
  VOXSRC_NODE_SERVICE_ACCOUNT  nodes: logs, metrics, image pulls from the one repository
  VOXSRC_SERVICE_ACCOUNT       pipeline pods: read and write objects of the one bucket
  VOXSRC_KFP_SERVICE_ACCOUNT   Kubeflow Pipelines: read objects of the bucket, to show artifacts
bind_identities.sh lets the cluster's pods act as the last two.
TEXT
}

begin "$@"
no_arguments
need gcloud

# account EMAIL DISPLAY_NAME: creates a service account unless it exists.
account() {
  if exists gcloud iam service-accounts describe "$1" "$at_project" '--format=value(email)'; then
    say "service account $1 exists: left alone"
  else
    run gcloud iam service-accounts create "${1%%@*}" "$at_project" "--display-name=$2"
  fi
}

account "$VOXSRC_NODE_SERVICE_ACCOUNT" 'voxsrc cluster nodes'
account "$VOXSRC_SERVICE_ACCOUNT" 'voxsrc pipeline pods'
account "$VOXSRC_KFP_SERVICE_ACCOUNT" 'Kubeflow Pipelines of voxsrc'

# Adding a binding that exists changes nothing.
run_eventually gcloud projects add-iam-policy-binding "$VOXSRC_PROJECT" \
  "--member=serviceAccount:$VOXSRC_NODE_SERVICE_ACCOUNT" --role=roles/container.defaultNodeServiceAccount \
  --condition=None '--format=none'
run_eventually gcloud artifacts repositories add-iam-policy-binding "$registry_name" "$at_project" "$at_region" \
  "--member=serviceAccount:$VOXSRC_NODE_SERVICE_ACCOUNT" --role=roles/artifactregistry.reader '--format=none'
run_eventually gcloud storage buckets add-iam-policy-binding "gs://$VOXSRC_BUCKET" \
  "--member=serviceAccount:$VOXSRC_SERVICE_ACCOUNT" --role=roles/storage.objectUser '--format=none'
run_eventually gcloud storage buckets add-iam-policy-binding "gs://$VOXSRC_BUCKET" \
  "--member=serviceAccount:$VOXSRC_KFP_SERVICE_ACCOUNT" --role=roles/storage.objectViewer '--format=none'
