#!/usr/bin/env bash
# Shows the project's quota beside what the pools want at their largest.
set -euo pipefail

# shellcheck source=lib/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/commands.sh"
# shellcheck source=lib/settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"
# shellcheck source=lib/pools.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/pools.sh"

usage() {
  cat <<'TEXT'
Usage: gcp-cluster/show_quota.sh [options]

Shows, for the permanent pool, the CPU pools and those of VOXSRC_GPU_TYPES, each quota that
counts: what they want with VOXSRC_SYSTEM_MAX_NODES, VOXSRC_CPU_MAX_NODES and
VOXSRC_GPU_MAX_NODES nodes at once, the project's limit and what is used (by this cluster,
too). Less works with fewer nodes. Ask for more under "IAM & Admin > Quotas".
Needs the compute API: enable_services.sh. Changes nothing.
TEXT
}

begin "$@"
no_arguments
need gcloud

# wants_of_nodes GROUP VCPUS NODES DISK_GB: what all nodes need, whatever runs on them.
wants_of_nodes() {
  echo "$1 SSD_TOTAL_GB $(($3 * $4))"
  [[ "$VOXSRC_PRIVATE_NODES" != no ]] || echo "$1 IN_USE_ADDRESSES $3"
  echo "$1 CPUS_ALL_REGIONS $(($2 * $3))"
}

# vcpus_of MACHINE_TYPE
vcpus_of() {
  machine_vcpus "$1" || say "warning: the name $1 does not tell its vCPUs: they are left out"
}

# wants_of_pool NAME
wants_of_pool() {
  local group=gpu nodes="$VOXSRC_GPU_MAX_NODES" cores metrics metric on=''
  # shellcheck disable=SC2154  # read_pool sets the columns
  {
    read_pool "$1"
    cores="$vcpus" metrics="${quotas//,/ }"
    if [[ "$gpu" == none ]]; then
      group=cpu nodes="$VOXSRC_CPU_MAX_NODES"
      if [[ -n "$VOXSRC_CPU_MACHINE_TYPE" ]]; then
        machine_type="$VOXSRC_CPU_MACHINE_TYPE"
        cores="$(vcpus_of "$machine_type")"
        metrics="$(cpu_quotas "$machine_type")"
        [[ "$provisioning" != spot ]] || metrics="PREEMPTIBLE_CPUS $metrics"
      fi
    fi
    for metric in $metrics; do
      case "$metric" in
        PREEMPTIBLE_CPUS) echo "$group $metric $((cores * nodes))"; on=' else' ;;
        *CPUS | CPUS_*) echo "$group $metric $((cores * nodes))$on" ;;
        *) echo "$group $metric $((gpus * nodes))" ;;
      esac
    done
    if [[ "$provisioning" == spot ]]; then
      echo "$group PREEMPTIBLE_LOCAL_SSD_GB $((375 * local_ssds * nodes))"
    else
      echo "$group LOCAL_SSD_TOTAL_GB $((375 * local_ssds * nodes))"
    fi
    wants_of_nodes "$group" "${cores:-0}" "$nodes" "$boot_disk_gb"
  }
}

# Prints `GROUP METRIC AMOUNT` for each metric that a pool counts against; with a fourth word, `else`, what counts only
# where PREEMPTIBLE_CPUS is 0. Pools of a group stand in for each other: the largest counts.
wants_of_pools() {
  local gpu_type pool_name metric cores
  cores="$(vcpus_of "$VOXSRC_SYSTEM_MACHINE_TYPE")"
  for metric in $(cpu_quotas "$VOXSRC_SYSTEM_MACHINE_TYPE"); do
    echo "system $metric $((cores * VOXSRC_SYSTEM_MAX_NODES))"
  done
  wants_of_nodes system "${cores:-0}" "$VOXSRC_SYSTEM_MAX_NODES" 50
  # Kubeflow Pipelines' two disks.
  echo 'kfp SSD_TOTAL_GB 40'
  [[ "$VOXSRC_PRIVATE_NODES" != yes ]] || echo 'nat IN_USE_ADDRESSES 1'
  for gpu_type in none ${VOXSRC_GPU_TYPES//,/ }; do
    for pool_name in $(pools_of_gpu "$gpu_type"); do
      wants_of_pool "$pool_name"
    done
  done
}

region=(gcloud compute regions describe "$VOXSRC_REGION" "$at_project" --flatten=quotas
  '--format=csv[no-heading](quotas.metric,quotas.limit,quotas.usage)')
everywhere=(gcloud compute project-info describe "$at_project" --flatten=quotas
  '--format=csv[no-heading](quotas.metric,quotas.limit,quotas.usage)')
if $dry_run; then
  run "${region[@]}"
  run "${everywhere[@]}"
  exit
fi
wants="$(wants_of_pools)"
of_region="$("${region[@]}")" || die "could not read the quota of $VOXSRC_REGION (its message is above)"
of_project="$("${everywhere[@]}")" || die "could not read the quota of $VOXSRC_PROJECT (its message is above)"
{
  printf '%s\n' "$wants"
  # What counts globally is the project's; what has the same name in both is the region's.
  {
    grep -v '_ALL_REGIONS,' <<<"$of_region" || true
    grep '_ALL_REGIONS,' <<<"$of_project" || true
  } | sed 's/^/limit,/' | tr , ' '
} | awk '
  $1 == "limit" { limit[$2] = $3; used[$2] = $4; next }
  $3 > 0 { line[++lines] = $0 }
  END {
    preemptible = ("PREEMPTIBLE_CPUS" in limit) && limit["PREEMPTIBLE_CPUS"] > 0
    for (i = 1; i <= lines; i++) {
      split(line[i], word, " ")
      if (word[4] == "else" && preemptible) continue
      name = word[2]
      if (!(name in want)) order[++count] = name
      more = word[3] - most[word[1], name]
      if (more > 0) { most[word[1], name] = word[3]; want[name] += more }
    }
    form = "%-36s %8s %8s %8s  %s\n"
    printf form, "quota", "wanted", "limit", "used", ""
    for (i = 1; i <= count; i++) {
      name = order[i]
      # Projects without these have no such limit.
      if ((name == "CPUS_ALL_REGIONS" || name == "E2_CPUS") && !(name in limit)) continue
      note = ""
      if (!(name in limit)) note = "not listed"
      else if (name == "PREEMPTIBLE_CPUS" && limit[name] == 0) note = "0: the other CPU quotas count"
      else if (limit[name] - used[name] < want[name]) note = "less than wanted"
      printf form, name, want[name], (name in limit) ? limit[name] + 0 : "-", (name in limit) ? used[name] + 0 : "-", note
    }
  }' | sed 's/ *$//'
