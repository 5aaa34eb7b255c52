# shellcheck shell=bash
# Reads gcp-cluster/pools.tsv; `gcp_cluster` is that folder.
# shellcheck disable=SC2154

pool_columns='pool provisioning gpu accelerator gpus driver machine_type vcpus memory_gib local_ssds boot_disk_gb labels taints automatic_labels quotas'

# Prints the pools, without comments and heading.
list_pools() {
  local heading
  heading="$(grep -v '^#' "$gcp_cluster/pools.tsv" | head -n 1 | tr '\t' ' ')"
  [[ "$heading" == "$pool_columns" ]] ||
    die "pools.tsv: found the columns $heading; expected: $pool_columns"
  grep -v '^#' "$gcp_cluster/pools.tsv" | tail -n +2
}

# Prints the names of the pools whose GPU type is $1 (`none` for the CPU pools).
pools_of_gpu() {
  list_pools | awk -F '\t' -v gpu="$1" '$3 == gpu {print $1}'
}

# read_pool NAME: sets a variable for each column.
read_pool() {
  local line
  line="$(list_pools | awk -F '\t' -v name="$1" '$1 == name')"
  [[ -n "$line" ]] || die "no pool $1 in pools.tsv; it has: $(list_pools | cut -f 1 | tr '\n' ' ')"
  # shellcheck disable=SC2034,SC2086,SC2229  # each column is a variable of its name
  IFS=$'\t' read -r $pool_columns <<<"$line"
}
