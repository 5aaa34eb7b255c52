#!/usr/bin/env bash
# Deletes the cluster and, if asked to, the rest.
set -euo pipefail

# shellcheck source=lib/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/commands.sh"
# shellcheck source=lib/settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"

usage() {
  cat <<'TEXT'
Usage: gcp-cluster/delete_cluster.sh [options]

Deletes Kubeflow Pipelines with its disks (the history of runs), the cluster with all its
nodes, and the router with Cloud NAT that create_cluster.sh made. The bucket, the image
repository and the service accounts stay unless named. Asks for the cluster's name first.
A cluster of this name in another zone than VOXSRC_ZONE is an error, and nothing is deleted. What
an interrupted run has begun is waited for, and may fail; of a cluster that is not in working
order, Kubeflow Pipelines is not deleted first.

  --with-bucket      also delete the bucket with everything in it: audio, features,
                     checkpoints, models; asks for the bucket's name too
  --with-registry    also delete the image repository
  --with-identities  also delete the service accounts and their rights; an error if nodes of
                     another cluster of the project act as VOXSRC_NODE_SERVICE_ACCOUNT
  --skip-kfp         do not delete Kubeflow Pipelines first, if the cluster does not answer
                     or the namespace does not go away; its disks then stay, and
                     status.sh lists them
  --yes              do not ask
TEXT
}

begin "$@"
yes=false with_bucket=false with_registry=false with_identities=false skip_kfp=false
for argument in ${arguments[@]+"${arguments[@]}"}; do
  case "$argument" in
    --yes) yes=true ;;
    --with-bucket) with_bucket=true ;;
    --with-registry) with_registry=true ;;
    --with-identities) with_identities=true ;;
    --skip-kfp) skip_kfp=true ;;
    *) die "unexpected argument $argument; see --help" ;;
  esac
done
need gcloud
$skip_kfp || need kubectl gke-gcloud-auth-plugin
# A dry run prints what would be deleted if all of it existed.
dry_run_finds=true

# confirm KIND NAME
confirm() {
  local answer=''
  if $yes || $dry_run; then
    return
  fi
  printf 'This deletes the %s %s of project %s. Type its name to go on: ' "$1" "$2" "$VOXSRC_PROJECT" >&2
  read -r answer || true
  [[ "$answer" == "$2" ]] || die "not confirmed: found ${answer:-nothing}; expected $2. Nothing was deleted"
}

# Whether the nodes' account still has its role in the project.
has_node_role() {
  $dry_run && return
  local role
  role="$(gcloud projects get-iam-policy "$VOXSRC_PROJECT" '--flatten=bindings[].members' \
    "--filter=bindings.members=serviceAccount:$VOXSRC_NODE_SERVICE_ACCOUNT" '--format=value(bindings.role)')" ||
    die "could not read the IAM policy of $VOXSRC_PROJECT"
  grep -qx roles/container.defaultNodeServiceAccount <<<"$role"
}

# Ends the script if another cluster needs the accounts. Which pods act as the others, no list tells: where the nodes'
# account is shared, they are taken to be shared too.
check_accounts_are_unused() {
  local clusters name location accounts users=''
  $dry_run && return
  clusters="$(gcloud container clusters list "$at_project" \
    '--format=value[separator=|](name,location,nodePools[].config.serviceAccount.list())')" ||
    die "could not list the clusters of $VOXSRC_PROJECT"
  while IFS='|' read -r name location accounts; do
    if [[ "$name|$location" != "$VOXSRC_CLUSTER|$VOXSRC_ZONE" && ",$accounts," == *",$VOXSRC_NODE_SERVICE_ACCOUNT,"* ]]; then
      users+="${users:+, }$name ($location)"
    fi
  done <<<"$clusters"
  [[ -z "$users" ]] ||
    die "--with-identities: nodes of $users act as $VOXSRC_NODE_SERVICE_ACCOUNT too, and could pull no image without it:\
 leave the option out, or delete them first; nothing was deleted"
}

cluster_exists=(exists gcloud container clusters describe "$VOXSRC_CLUSTER" "$at_project" "$at_zone" '--format=value(status)')
"${cluster_exists[@]}" || check_other_zones '; nothing was deleted'
! $with_identities || check_accounts_are_unused
confirm cluster "$VOXSRC_CLUSTER"
! $with_bucket || confirm bucket "$VOXSRC_BUCKET"

# GKE does one thing at a time: what is under way may be this cluster's creation, or its deletion. One that fails has
# ended, too.
wait_for_operations may-fail
if "${cluster_exists[@]}"; then
  if ! $dry_run && [[ "$found" != RUNNING && "$found" != RECONCILING ]]; then
    say "cluster $VOXSRC_CLUSTER is $found: Kubeflow Pipelines is not deleted first; disks that it has are named below"
    skip_kfp=true
  fi
  # A cluster's disks outlive it; those of deleted claims do not.
  if ! $skip_kfp; then
    hint='if the cluster does not answer, or the namespace does not go away, delete the cluster all the same with --skip-kfp'
    get_credentials
    run kubectl delete namespace "$VOXSRC_KFP_NAMESPACE" --ignore-not-found --timeout=10m "--context=$context"
    hint=''
  fi
  run gcloud container clusters delete "$VOXSRC_CLUSTER" "$at_project" "$at_zone" --quiet
else
  say "no cluster $VOXSRC_CLUSTER: nothing to delete"
fi
# The NAT goes with its router, whatever VOXSRC_PRIVATE_NODES says by now; one that holds anything else is not ours.
named_router=("$router_name" "$at_project" "$in_region")
if exists gcloud compute routers describe "${named_router[@]}" '--format=value(nats[].name.list())'; then
  if $dry_run || [[ "$found" == "$nat_name" ]]; then
    run gcloud compute routers delete "${named_router[@]}" --quiet
  else
    say "warning: router $router_name has ${found:-no NAT}; expected $nat_name alone, as create_cluster.sh makes it:\
 left alone. To delete it: gcloud compute routers delete ${named_router[*]}"
  fi
fi
if $with_bucket; then
  if exists gcloud storage buckets describe "gs://$VOXSRC_BUCKET" '--format=value(name)'; then
    run gcloud storage rm --recursive "gs://$VOXSRC_BUCKET"
  else
    say "no bucket $VOXSRC_BUCKET: nothing to delete"
  fi
fi
if $with_registry; then
  if exists gcloud artifacts repositories describe "$registry_name" "$at_project" "$at_region" '--format=value(name)'; then
    run gcloud artifacts repositories delete "$registry_name" "$at_project" "$at_region" --quiet
  else
    say "no repository $registry_name: nothing to delete"
  fi
fi
if $with_identities; then
  for email in "$VOXSRC_NODE_SERVICE_ACCOUNT" "$VOXSRC_SERVICE_ACCOUNT" "$VOXSRC_KFP_SERVICE_ACCOUNT"; do
    if ! exists gcloud iam service-accounts describe "$email" "$at_project" '--format=value(email)'; then
      say "no service account $email: nothing to delete"
      continue
    fi
    # A binding would stay behind as one of a deleted account.
    if [[ "$email" == "$VOXSRC_NODE_SERVICE_ACCOUNT" ]] && has_node_role; then
      run gcloud projects remove-iam-policy-binding "$VOXSRC_PROJECT" "--member=serviceAccount:$email" \
        --role=roles/container.defaultNodeServiceAccount --condition=None '--format=none'
    fi
    run gcloud iam service-accounts delete "$email" "$at_project" --quiet
  done
fi
if ! $dry_run; then
  # Those of another cluster are attached to its machines, as long as its Kubeflow Pipelines runs.
  left="$(gcloud compute disks list "$at_project" "--filter=$kfp_disks AND -users:*" '--format=value(name)' | tr '\n' ' ')" ||
    die 'could not list the disks that are left; look with status.sh'
  [[ -z "$left" ]] ||
    say "warning: disks of Kubeflow Pipelines are left that no machine uses, and cost money: $left(gcloud compute disks\
 delete NAME --zone=ZONE). They do not tell their cluster: in a project with several, make sure that it is gone"
fi
$with_bucket || say "the bucket $VOXSRC_BUCKET is kept, and costs money: delete it with --with-bucket"
