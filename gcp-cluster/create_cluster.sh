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
small on-demand pool for Kubeflow Pipelines; with VOXSRC_PRIVATE_NODES=yes also a router
with Cloud NAT, by which nodes without external addresses reach other networks.

A cluster that is still being created is waited for. Of an existing one,
VOXSRC_AUTHORIZED_NETWORKS and VOXSRC_SYSTEM_MAX_NODES are set to what the settings say;
another network (of the router too), private or public nodes, or another nodes' account are
an error, as they cannot be changed; other differences are told with the command that
removes them, and so is Cloud NAT that the settings no longer ask for.
TEXT
}

begin "$@"
no_arguments
check_machine VOXSRC_SYSTEM_MACHINE_TYPE
need gcloud

networks=controlPlaneEndpointsConfig.ipEndpointsConfig.authorizedNetworksConfig
old_networks=masterAuthorizedNetworksConfig
# Google's API is about to name some fields otherwise: one of the two names is filled in.
fields="status,network,subnetwork,networkConfig.defaultEnablePrivateNodes,privateClusterConfig.enablePrivateNodes,\
$networks.enabled,$networks.cidrBlocks[].cidrBlock.list(),$old_networks.enabled,$old_networks.cidrBlocks[].cidrBlock.list()"
describe=(gcloud container clusters describe "$VOXSRC_CLUSTER" "$at_project" "$at_zone"
  "--format=value[separator=|]($fields)")
pool='default-pool'
in_cluster=("$at_project" "--cluster=$VOXSRC_CLUSTER" "$at_zone")

named_router=("$router_name" "$at_project" "$in_region")
named_nat=("$nat_name" "$at_project" "$in_region" "--router=$router_name")
nat_exists=(exists gcloud compute routers nats describe "${named_nat[@]}" '--format=value(name)')

# Cloud NAT for nodes without external addresses. It costs money only while it is there.
create_nat() {
  if exists gcloud compute routers describe "${named_router[@]}" '--format=value(network)'; then
    [[ "${found##*/}" == "$VOXSRC_NETWORK" ]] ||
      die "router $router_name is in network ${found##*/}, and gives no other a way out; VOXSRC_NETWORK says\
 $VOXSRC_NETWORK: delete the router (gcloud compute routers delete ${named_router[*]}), then run this again, or correct\
 the setting"
    say "router $router_name exists: left alone"
  else
    run gcloud compute routers create "${named_router[@]}" "--network=$VOXSRC_NETWORK"
  fi
  if "${nat_exists[@]}"; then
    say "NAT $nat_name exists: left alone"
  else
    run gcloud compute routers nats create "${named_nat[@]}" --auto-allocate-nat-external-ips --nat-all-subnet-ip-ranges
  fi
}

# The NAT of settings that were `yes` before: nodes may have no other way out yet.
report_unused_nat() {
  ! "${nat_exists[@]}" ||
    say "warning: NAT $nat_name is there and costs money; VOXSRC_PRIVATE_NODES says $VOXSRC_PRIVATE_NODES: left alone.\
 To delete it with its router, once nodes need it no more: gcloud compute routers delete ${named_router[*]}"
}

update_nat() {
  if [[ "$VOXSRC_PRIVATE_NODES" == yes ]]; then
    create_nat
  else
    report_unused_nat
  fi
}

create_cluster() {
  local flags=("--network=$VOXSRC_NETWORK")
  [[ -z "$VOXSRC_SUBNETWORK" ]] || flags+=("--subnetwork=$VOXSRC_SUBNETWORK")
  [[ "$VOXSRC_PRIVATE_NODES" == no ]] || flags+=(--enable-private-nodes)
  [[ -z "$VOXSRC_AUTHORIZED_NETWORKS" ]] ||
    flags+=(--enable-master-authorized-networks "--master-authorized-networks=$VOXSRC_AUTHORIZED_NETWORKS")
  # Pods' logs go to Cloud Logging: the autoscaler deletes nodes, and with them the logs that lie there.
  run gcloud container clusters create "$VOXSRC_CLUSTER" "$at_project" "$at_zone" \
    --release-channel=regular --enable-ip-alias "--workload-pool=$VOXSRC_PROJECT.svc.id.goog" \
    --enable-shielded-nodes --shielded-secure-boot --shielded-integrity-monitoring \
    --workload-metadata=GKE_METADATA "--service-account=$VOXSRC_NODE_SERVICE_ACCOUNT" --scopes=cloud-platform \
    "--machine-type=$VOXSRC_SYSTEM_MACHINE_TYPE" --image-type=COS_CONTAINERD --disk-type=pd-balanced --disk-size=50 \
    --num-nodes=1 --enable-autoscaling --min-nodes=1 "--max-nodes=$VOXSRC_SYSTEM_MAX_NODES" \
    --autoscaling-profile=optimize-utilization --enable-image-streaming --node-labels=voxsrc/pool=system \
    --logging=SYSTEM,WORKLOAD --monitoring=SYSTEM --no-enable-managed-prometheus "${flags[@]}"
}

# Sets `private` and `authorized` (networks, or `any`), and the variables of the fields, from what was found.
read_cluster() {
  local enabled listed old_enabled old_listed is_private was_private
  IFS='|' read -r status network subnetwork is_private was_private enabled listed old_enabled old_listed <<<"$found"
  network="${network##*/}" subnetwork="${subnetwork##*/}" private=no
  [[ "$is_private" != True && "$was_private" != True ]] || private=yes
  authorized=any
  [[ "$enabled" != True && "$old_enabled" != True ]] || authorized="$(sorted_list "${listed:-$old_listed}")"
}

# Ends the script where the cluster lies or is exposed otherwise than the settings say, for good.
check_cluster() {
  local remedy="delete the cluster (delete_cluster.sh) to make it anew, or correct the setting"
  local wants_private=yes
  [[ "$VOXSRC_PRIVATE_NODES" != no ]] || wants_private=no
  [[ -z "$network" || "$network" == "$VOXSRC_NETWORK" ]] ||
    die "cluster $VOXSRC_CLUSTER is in network $network; VOXSRC_NETWORK says $VOXSRC_NETWORK: $remedy"
  [[ -z "$VOXSRC_SUBNETWORK" || -z "$subnetwork" || "$subnetwork" == "$VOXSRC_SUBNETWORK" ]] ||
    die "cluster $VOXSRC_CLUSTER is in subnetwork $subnetwork; VOXSRC_SUBNETWORK says $VOXSRC_SUBNETWORK: $remedy"
  [[ "$private" == "$wants_private" ]] ||
    die "private nodes of cluster $VOXSRC_CLUSTER: $private; VOXSRC_PRIVATE_NODES says $VOXSRC_PRIVATE_NODES: $remedy"
}

update_cluster() {
  local wanted
  wanted="$(sorted_list "$VOXSRC_AUTHORIZED_NETWORKS")"
  if [[ -n "$wanted" && "$authorized" != "$wanted" ]]; then
    say "networks that reach the API of cluster $VOXSRC_CLUSTER: $authorized; the settings say $wanted: changed"
    wait_for_operations must-succeed
    run gcloud container clusters update "$VOXSRC_CLUSTER" "$at_project" "$at_zone" \
      --enable-master-authorized-networks "--master-authorized-networks=$VOXSRC_AUTHORIZED_NETWORKS"
  elif [[ -z "$wanted" && "$authorized" != any ]]; then
    say "warning: only ${authorized:-Google} reaches the API of cluster $VOXSRC_CLUSTER;\
 VOXSRC_AUTHORIZED_NETWORKS is empty, which means any: left alone. To open it: gcloud container clusters update\
 $VOXSRC_CLUSTER $at_project $at_zone --no-enable-master-authorized-networks"
  fi
}

# The permanent pool: its size follows the settings; its machine type would restart Kubeflow Pipelines.
update_pool() {
  local machine_type max_nodes account
  if ! exists gcloud container node-pools describe "$pool" "${in_cluster[@]}" \
    '--format=value[separator=|](config.machineType,autoscaling.maxNodeCount,config.serviceAccount)'; then
    say "warning: cluster $VOXSRC_CLUSTER has no pool $pool: VOXSRC_SYSTEM_MACHINE_TYPE and VOXSRC_SYSTEM_MAX_NODES\
 change nothing"
    return
  fi
  IFS='|' read -r machine_type max_nodes account <<<"$found"
  [[ -z "$account" || "$account" == "$VOXSRC_NODE_SERVICE_ACCOUNT" ]] ||
    die "nodes of pool $pool act as $account; VOXSRC_NODE_SERVICE_ACCOUNT says $VOXSRC_NODE_SERVICE_ACCOUNT: delete the\
 cluster (delete_cluster.sh) to make it anew, or correct the setting"
  if [[ "$max_nodes" != "$VOXSRC_SYSTEM_MAX_NODES" ]]; then
    say "pool $pool has at most ${max_nodes:-its present} nodes; the settings say $VOXSRC_SYSTEM_MAX_NODES: changed"
    wait_for_operations must-succeed
    run gcloud container node-pools update "$pool" "${in_cluster[@]}" \
      --enable-autoscaling --min-nodes=1 "--max-nodes=$VOXSRC_SYSTEM_MAX_NODES"
  fi
  [[ "$machine_type" == "$VOXSRC_SYSTEM_MACHINE_TYPE" ]] ||
    say "warning: machines of pool $pool are $machine_type; the settings say $VOXSRC_SYSTEM_MACHINE_TYPE: left alone, as\
 a change restarts Kubeflow Pipelines. To change them, while nothing runs: gcloud container node-pools update $pool\
 ${in_cluster[*]} --machine-type=$VOXSRC_SYSTEM_MACHINE_TYPE"
}

status='' network='' subnetwork='' private='' authorized=''
if exists "${describe[@]}"; then
  read_cluster
  if [[ "$status" == PROVISIONING ]]; then
    wait_for_operations must-succeed
    exists "${describe[@]}" || die "cluster $VOXSRC_CLUSTER vanished while it was waited for; run this again"
    read_cluster
  fi
  case "$status" in
    RUNNING | RECONCILING) say "cluster $VOXSRC_CLUSTER exists: compared with the settings" ;;
    *) die "cluster $VOXSRC_CLUSTER is $status; expected RUNNING: wait, or delete it with delete_cluster.sh, then run this again" ;;
  esac
  check_cluster
  update_nat
  update_cluster
  update_pool
else
  check_other_zones ', where it would be a second one'
  update_nat
  create_cluster
fi
