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

Shows, for the CPU pools and those of VOXSRC_GPU_TYPES, each quota that counts: what the
pools want with VOXSRC_CPU_MAX_NODES and VOXSRC_GPU_MAX_NODES nodes, the project's limit
and what is used. Less works with fewer nodes. Ask for more under "IAM & Admin > Quotas".
Needs the compute API: enable_services.sh. Changes nothing.
TEXT
}

begin "$@"
no_arguments
need gcloud

# Prints `METRIC AMOUNT` for each metric that a pool counts against.
wants_of_pools() {
  local gpu_type pool_name metric nodes cpu_nodes=0 gpu_nodes=0
  # shellcheck disable=SC2154  # read_pool sets the columns
  for gpu_type in none ${VOXSRC_GPU_TYPES//,/ }; do
    for pool_name in $(pools_of_gpu "$gpu_type"); do
      read_pool "$pool_name"
      nodes="$VOXSRC_GPU_MAX_NODES"
      [[ "$gpu" != none ]] || nodes="$VOXSRC_CPU_MAX_NODES"
      for metric in ${quotas//,/ }; do
        case "$metric" in
          *CPUS) echo "$metric $((vcpus * nodes))" ;;
          *) echo "$metric $((gpus * nodes))" ;;
        esac
      done
      if [[ "$provisioning" == spot ]]; then
        echo "PREEMPTIBLE_LOCAL_SSD_GB $((375 * local_ssds * nodes))"
      else
        echo "LOCAL_SSD_TOTAL_GB $((375 * local_ssds * nodes))"
      fi
      if [[ "$gpu" == none ]]; then
        cpu_nodes=$((boot_disk_gb * nodes))
      elif ((boot_disk_gb * nodes > gpu_nodes)); then
        gpu_nodes=$((boot_disk_gb * nodes))
      fi
    done
  done
  echo "SSD_TOTAL_GB $((cpu_nodes + gpu_nodes + 50 * VOXSRC_SYSTEM_MAX_NODES))"
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
  # GPUS_ALL_REGIONS is the project's; what has the same name in both is the region's.
  printf '%s\n%s\n' "$of_region" "$(grep '^GPUS_ALL_REGIONS,' <<<"$of_project" || true)" | tr , ' '
} | awk '
  NF == 2 && $2 > 0 { if (!($1 in want)) order[++count] = $1; if ($2 + 0 > want[$1] + 0) want[$1] = $2 }
  NF == 3 { limit[$1] = $2; used[$1] = $3 }
  END {
    form = "%-36s %8s %8s %8s  %s\n"
    printf form, "quota", "wanted", "limit", "used", ""
    for (i = 1; i <= count; i++) {
      name = order[i]
      note = ""
      if (!(name in limit)) note = "not listed"
      else if (name == "PREEMPTIBLE_CPUS" && limit[name] == 0) note = "0: the other CPU quotas count"
      else if (limit[name] - used[name] < want[name]) note = "less than wanted"
      printf form, name, want[name], (name in limit) ? limit[name] + 0 : "-", (name in limit) ? used[name] + 0 : "-", note
    }
  }' | sed 's/ *$//'
