# shellcheck shell=bash
# Reads gcp-cluster/pools.tsv; `gcp_cluster` is that folder.
# shellcheck disable=SC2154

pool_columns='pool provisioning gpu accelerator gpus driver machine_type vcpus memory_gib local_ssds boot_disk_gb labels taints automatic_labels quotas'

# machine_vcpus TYPE: prints the vCPUs that a machine type's name tells; fails if it tells none.
machine_vcpus() {
  if [[ "$1" =~ -(standard|highmem|highcpu)-([0-9]+)$ || "$1" =~ (^|-)custom-([0-9]+)-[0-9]+(-ext)?$ ]]; then
    echo "${BASH_REMATCH[2]}"
  elif [[ "$1" =~ ^e2-(micro|small|medium)$ ]]; then
    echo 2
  else
    return 1
  fi
}

# cpu_quotas TYPE: prints the metrics of the quota that cores of a machine type count in, as voxsrc.pipelines.machines
# has them. CPUS_PER_VM_FAMILY, that of younger families, is not among those that `gcloud compute` lists.
cpu_quotas() {
  local family="${1%%-*}"
  case "$family" in
    e2) echo CPUS E2_CPUS ;;
    n1 | f1 | g1 | g2 | a3 | custom) echo CPUS ;;
    n2 | n2d | c2 | c2d | c3 | t2d | a2) echo "$(tr '[:lower:]' '[:upper:]' <<<"$family")_CPUS" ;;
    *) echo CPUS_PER_VM_FAMILY ;;
  esac
}

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
