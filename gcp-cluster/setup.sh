#!/usr/bin/env bash
# Makes everything that the pipelines need, from an empty project.
set -euo pipefail

# shellcheck source=lib/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/commands.sh"
# shellcheck source=lib/settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"

usage() {
  cat <<'TEXT'
Usage: gcp-cluster/setup.sh [--gpu TYPE,TYPE…] [--zones ZONE,ZONE…] [options]

Runs, in this order: enable_services.sh, create_storage.sh, create_identities.sh,
create_cluster.sh, create_node_pools.sh (with --gpu and --zones), install_kfp.sh,
bind_identities.sh. Each leaves alone what exists: after a failure, run it again.
TEXT
}

begin "$@"
for step in enable_services create_storage create_identities create_cluster create_node_pools install_kfp bind_identities; do
  step_arguments=()
  [[ "$step" != create_node_pools ]] || step_arguments=(${arguments[@]+"${arguments[@]}"})
  $dry_run || say "$step"
  ! $dry_run || printf '\n# %s.sh\n' "$step"
  "$gcp_cluster/$step.sh" ${step_arguments[@]+"${step_arguments[@]}"} "${common_options[@]}" ||
    die "$step.sh failed (its message is above); after correcting the cause, run setup.sh again: it continues"
done
$dry_run || say 'the cluster is ready'
