#!/usr/bin/env bash
# Shows what exists and what costs money now.
set -euo pipefail

# shellcheck source=lib/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/commands.sh"
# shellcheck source=lib/settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"

usage() {
  cat <<'TEXT'
Usage: gcp-cluster/status.sh [options]

Shows the cluster, its pools, its machines that run now, its router with Cloud NAT, and
Kubeflow Pipelines' disks (of all clusters of the project): all that costs money besides the
bucket and the images. Changes nothing.
TEXT
}

begin "$@"
no_arguments
need gcloud

run gcloud container clusters list "$at_project" "--filter=name=$VOXSRC_CLUSTER" \
  '--format=table(name,location,status,currentNodeCount)'
# `node-pools list` fails once the cluster is deleted, which is when the rest of this is wanted.
run gcloud container clusters list "$at_project" "--filter=name=$VOXSRC_CLUSTER" '--flatten=nodePools[]' \
  '--format=table(nodePools.name:label=POOL,nodePools.config.machineType,nodePools.config.spot,nodePools.autoscaling.totalMaxNodeCount,nodePools.status)'
run gcloud compute instances list "$at_project" "--filter=name~^gke-$VOXSRC_CLUSTER-" \
  '--format=table(name,zone.basename(),machineType.basename(),scheduling.provisioningModel,status,creationTimestamp)'
run gcloud compute routers list "$at_project" "--filter=name=$router_name" \
  '--format=table(name,region.basename(),nats[].name.list():label=NAT)'
run gcloud compute disks list "$at_project" "--filter=$kfp_disks" \
  '--format=table(name,zone.basename(),sizeGb,type.basename(),users.basename())'
