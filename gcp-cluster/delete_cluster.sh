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
A cluster of this name in another zone than VOXSRC_ZONE is an error, and nothing is deleted.

  --with-bucket      also delete the bucket with everything in it: audio, features,
                     checkpoints, models; asks for the bucket's name too
  --with-registry    also delete the image repository
  --with-identities  also delete the service accounts and their rights
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

confirm cluster "$VOXSRC_CLUSTER"
! $with_bucket || confirm bucket "$VOXSRC_BUCKET"

if exists gcloud container clusters describe "$VOXSRC_CLUSTER" "$at_project" "$at_zone" '--format=value(status)'; then
  # A cluster's disks outlive it; those of deleted claims do not.
  if ! $skip_kfp; then
    get_credentials
    hint='if the cluster does not answer, or the namespace does not go away, delete the cluster all the same with --skip-kfp'
    run kubectl delete namespace "$VOXSRC_KFP_NAMESPACE" --ignore-not-found --timeout=10m "--context=$context"
    hint=''
  fi
  run gcloud container clusters delete "$VOXSRC_CLUSTER" "$at_project" "$at_zone" --quiet
else
  check_other_zones '; nothing was deleted'
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
  left="$(gcloud compute disks list "$at_project" "--filter=$kfp_disks" '--format=value(name)' | tr '\n' ' ')" ||
    die 'could not list the disks that are left; look with status.sh'
  [[ -z "$left" ]] ||
    say "warning: disks of Kubeflow Pipelines are left, and cost money: $left(gcloud compute disks delete NAME --zone=ZONE)"
fi
$with_bucket || say "the bucket $VOXSRC_BUCKET is kept, and costs money: delete it with --with-bucket"
