#!/usr/bin/env bash
# Creates the GKE cluster with its small permanent pool.
set -euo pipefail

# shellcheck source=lib/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/commands.sh"
# shellcheck source=lib/settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"

usage() {
  cat <<'TEXT'
Usage: gcp-cluster/create_cluster.sh [options]

Creates a zonal, VPC-native GKE cluster with Workload Identity and shielded nodes, and a
small on-demand pool for Kubeflow Pipelines. An existing cluster is left alone; one that
is still being created is waited for.
TEXT
}

begin "$@"
no_arguments
need gcloud

describe=(gcloud container clusters describe "$VOXSRC_CLUSTER" "$at_project" "$at_zone" '--format=value(status)')
if exists "${describe[@]}"; then
  if [[ "$found" == PROVISIONING ]]; then
    wait_for_operations
    exists "${describe[@]}" || die "cluster $VOXSRC_CLUSTER vanished while it was waited for; run this again"
  fi
  case "$found" in
    RUNNING | RECONCILING) say "cluster $VOXSRC_CLUSTER exists: left alone" ;;
    *) die "cluster $VOXSRC_CLUSTER is $found; expected RUNNING: wait, or delete it with delete_cluster.sh, then run this again" ;;
  esac
else
  authorized=()
  if [[ -n "$VOXSRC_AUTHORIZED_NETWORKS" ]]; then
    authorized=(--enable-master-authorized-networks "--master-authorized-networks=$VOXSRC_AUTHORIZED_NETWORKS")
  fi
  # Pods' logs go to Cloud Logging: the autoscaler deletes nodes, and with them the logs that lie there.
  run gcloud container clusters create "$VOXSRC_CLUSTER" "$at_project" "$at_zone" \
    --release-channel=regular --enable-ip-alias "--workload-pool=$VOXSRC_PROJECT.svc.id.goog" \
    --enable-shielded-nodes --shielded-secure-boot --shielded-integrity-monitoring \
    --workload-metadata=GKE_METADATA "--service-account=$VOXSRC_NODE_SERVICE_ACCOUNT" --scopes=cloud-platform \
    "--machine-type=$VOXSRC_SYSTEM_MACHINE_TYPE" --image-type=COS_CONTAINERD --disk-type=pd-balanced --disk-size=50 \
    --num-nodes=1 --enable-autoscaling --min-nodes=1 "--max-nodes=$VOXSRC_SYSTEM_MAX_NODES" \
    --autoscaling-profile=optimize-utilization --enable-image-streaming --node-labels=voxsrc/pool=system \
    --logging=SYSTEM,WORKLOAD --monitoring=SYSTEM --no-enable-managed-prometheus \
    ${authorized[@]+"${authorized[@]}"}
fi
