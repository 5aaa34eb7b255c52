#!/usr/bin/env bash
# Creates the node pools that scale from zero.
set -euo pipefail

# shellcheck source=lib/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/commands.sh"
# shellcheck source=lib/settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"
# shellcheck source=lib/pools.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/pools.sh"

usage() {
  cat <<'TEXT'
Usage: gcp-cluster/create_node_pools.sh [--gpu TYPE,TYPE…] [--zones ZONE,ZONE…] [options]

Creates the pools of pools.tsv, Spot and on-demand, each scaling from zero nodes: those for
CPUs and those of the GPU types asked for. Of an existing pool, the most nodes are set to
what the settings say; another nodes' account is an error; another machine type or other
zones are told, with the command that changes them.

  --gpu TYPES    t4, l4, v100, a100-40gb, a100-80gb, h100 or none; repeatable, or separated
                 by commas; default: VOXSRC_GPU_TYPES
  --zones ZONES  default: VOXSRC_NODE_ZONES; every zone must offer the machine types:
                 gcloud compute accelerator-types list, machine-types list
  --list         print the pools of pools.tsv
TEXT
}

begin "$@"
asked=''
set -- ${arguments[@]+"${arguments[@]}"}
while (($#)); do
  case "$1" in
    --gpu) asked+="${asked:+,}${2:?--gpu needs a type}"; shift 2 ;;
    --gpu=*) asked+="${asked:+,}${1#--gpu=}"; shift ;;
    --zones) VOXSRC_NODE_ZONES="${2:?--zones needs zones}"; shift 2 ;;
    --zones=*) VOXSRC_NODE_ZONES="${1#--zones=}"; shift ;;
    --list) list_pools; exit ;;
    *) die "unexpected argument $1; see --help" ;;
  esac
done
IFS=, read -r -a gpu_types <<<"${asked:-$VOXSRC_GPU_TYPES}"
problems=''
compare_settings
[[ -z "$problems" ]] || die "$problems"
check_machine VOXSRC_CPU_MACHINE_TYPE
need gcloud

pools="$(pools_of_gpu none)"
# A type that is asked for twice makes its pools once.
for gpu_type in $(printf '%s\n' "${gpu_types[@]}" | sort -u); do
  [[ "$gpu_type" != none ]] || continue
  of_type="$(pools_of_gpu "$gpu_type")"
  [[ -n "$of_type" ]] ||
    die "--gpu: found $gpu_type; expected one of: $(list_pools | cut -f 3 | sort -u | tr '\n' ' ')"
  pools+=$'\n'"$of_type"
done

# create_pool NAME
create_pool() {
  local flags=() max_nodes="$VOXSRC_CPU_MAX_NODES" pool_machine
  # shellcheck disable=SC2154  # read_pool sets the columns
  {
    read_pool "$1"
    pool_machine="$machine_type"
    if [[ "$gpu" == none ]]; then
      pool_machine="${VOXSRC_CPU_MACHINE_TYPE:-$machine_type}"
      flags+=(--shielded-secure-boot)
    else
      max_nodes="$VOXSRC_GPU_MAX_NODES"
      # GPU drivers are kernel modules that GKE installs when the node starts: secure boot stays off, as not all
      # of them are signed. An upgrade takes a node away first: GPU quota has no room for one more.
      flags+=("--accelerator=type=$accelerator,count=$gpus,gpu-driver-version=$driver"
        --no-shielded-secure-boot --max-surge-upgrade=0 --max-unavailable-upgrade=1)
    fi
    [[ "$provisioning" != spot ]] || flags+=(--spot)
    [[ "$taints" == none ]] || flags+=("--node-taints=$taints")
    ((local_ssds == 0)) || flags+=("--ephemeral-storage-local-ssd=count=$local_ssds")
    run gcloud container node-pools create "$1" "$at_project" "--cluster=$VOXSRC_CLUSTER" "$at_zone" \
      "--node-locations=$VOXSRC_NODE_ZONES" "--machine-type=$pool_machine" "${flags[@]}" \
      --num-nodes=0 --enable-autoscaling --total-min-nodes=0 "--total-max-nodes=$max_nodes" --location-policy=ANY \
      "--node-labels=$labels" --image-type=COS_CONTAINERD --enable-image-streaming \
      --disk-type=pd-balanced "--disk-size=$boot_disk_gb" \
      --workload-metadata=GKE_METADATA "--service-account=$VOXSRC_NODE_SERVICE_ACCOUNT" --scopes=cloud-platform \
      --shielded-integrity-monitoring
  }
}

# check_pool NAME: makes the existing pool, which `found` describes, what the settings say, or says how.
check_pool() {
  local pool_machine zones account found_nodes max_nodes wanted_machine
  local named=("$1" "$at_project" "--cluster=$VOXSRC_CLUSTER" "$at_zone")
  local anew="delete it (gcloud container node-pools delete ${named[*]}), then run this again"
  IFS='|' read -r _ pool_machine found_nodes zones account <<<"$found"
  # shellcheck disable=SC2154  # read_pool sets the columns
  {
    read_pool "$1"
    wanted_machine="$machine_type" max_nodes="$VOXSRC_GPU_MAX_NODES"
    if [[ "$gpu" == none ]]; then
      wanted_machine="${VOXSRC_CPU_MACHINE_TYPE:-$machine_type}" max_nodes="$VOXSRC_CPU_MAX_NODES"
    fi
  }
  [[ -z "$account" || "$account" == "$VOXSRC_NODE_SERVICE_ACCOUNT" ]] ||
    die "nodes of pool $1 act as $account; VOXSRC_NODE_SERVICE_ACCOUNT says $VOXSRC_NODE_SERVICE_ACCOUNT: $anew"
  if [[ "$found_nodes" != "$max_nodes" ]]; then
    say "pool $1 has at most ${found_nodes:-another number of} nodes; the settings say $max_nodes: changed"
    run gcloud container node-pools update "${named[@]}" \
      --enable-autoscaling --total-min-nodes=0 "--total-max-nodes=$max_nodes"
  fi
  [[ "$pool_machine" == "$wanted_machine" ]] ||
    say "warning: machines of pool $1 are $pool_machine; the settings say $wanted_machine: left alone; to change them, $anew"
  [[ "$(sorted_list "$zones")" == "$(sorted_list "$VOXSRC_NODE_ZONES")" ]] ||
    say "warning: pool $1 is in $(sorted_list "$zones"); the settings say $(sorted_list "$VOXSRC_NODE_ZONES"): left alone.\
 To change it: gcloud container node-pools update ${named[*]} --node-locations=$VOXSRC_NODE_ZONES"
}

# A cluster makes one pool at a time: what an interrupted earlier run began comes first.
wait_for_operations must-succeed
pool_fields='--format=value[separator=|](status,config.machineType,autoscaling.totalMaxNodeCount,locations.list(),config.serviceAccount)'
for pool_name in $pools; do
  if exists gcloud container node-pools describe "$pool_name" "$at_project" "--cluster=$VOXSRC_CLUSTER" "$at_zone" \
    "$pool_fields"; then
    case "${found%%|*}" in
      RUNNING | RUNNING_WITH_ERROR | RECONCILING | PROVISIONING)
        say "pool $pool_name exists: compared with the settings"
        check_pool "$pool_name" ;;
      *) die "pool $pool_name is ${found%%|*}; expected RUNNING: delete it (gcloud container node-pools delete $pool_name \
--cluster=$VOXSRC_CLUSTER $at_zone $at_project), then run this again" ;;
    esac
  else
    create_pool "$pool_name"
  fi
done
