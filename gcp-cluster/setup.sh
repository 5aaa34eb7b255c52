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
bind_identities.sh. Settings, arguments and programs are checked before the first of them.
Each leaves alone what exists, or makes it what the settings say: after a failure, run it
again.
TEXT
}

begin "$@"
need gcloud kubectl git gke-gcloud-auth-plugin
steps=(enable_services create_storage create_identities create_cluster create_node_pools install_kfp bind_identities)

# What else create_node_pools.sh takes would have it do something other than make the pools.
set -- ${arguments[@]+"${arguments[@]}"}
while (($#)); do
  case "$1" in
    --gpu | --zones)
      (($# > 1)) || die "$1: found nothing; expected a value; nothing was made"
      shift 2 ;;
    --gpu=* | --zones=*) shift ;;
    *) die "unexpected argument $1; see --help; nothing was made" ;;
  esac
done

# run_step NAME OPTIONS…
run_step() {
  local step_arguments=()
  [[ "$1" != create_node_pools ]] || step_arguments=(${arguments[@]+"${arguments[@]}"})
  "$gcp_cluster/$1.sh" ${step_arguments[@]+"${step_arguments[@]}"} "${@:2}"
}

# What a step refuses, its dry run refuses: before another step has made what costs money.
for step in "${steps[@]}"; do
  run_step "$step" "${common_options[@]}" --dry-run >/dev/null ||
    die "$step.sh cannot be run (its message is above); nothing was made"
done
for step in "${steps[@]}"; do
  $dry_run || say "$step"
  ! $dry_run || printf '\n# %s.sh\n' "$step"
  run_step "$step" "${common_options[@]}" ||
    die "$step.sh failed (its message is above); after correcting the cause, run setup.sh again: it continues"
done
$dry_run || say 'the cluster is ready'
