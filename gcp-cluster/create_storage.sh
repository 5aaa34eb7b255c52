#!/usr/bin/env bash
# Creates the bucket and the image repository.
set -euo pipefail

# shellcheck source=lib/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/commands.sh"
# shellcheck source=lib/settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"

usage() {
  cat <<'TEXT'
Usage: gcp-cluster/create_storage.sh [options]

Creates, in the cluster's region, the bucket (private, access by IAM alone; lifecycle.json
deletes checkpoints under runs/ after 60 days and never a model) and the Artifact Registry
repository (cleanup_policy.json deletes old images, keeping the ten newest of each).

A bucket that exists is left alone: other lifecycle rules than those, and other days for which
deleted objects are kept, are told with the command that sets them. So is a repository that
this script did not make; what it made gets the present cleanup policy, unless others have
been set.
TEXT
}

begin "$@"
no_arguments
need gcloud

soft_delete="--soft-delete-duration=${VOXSRC_SOFT_DELETE_DAYS}d"
lifecycle="--lifecycle-file=$gcp_cluster/lifecycle.json"
in_registry=("$registry_name" "$at_project" "$at_region")
set_policy=(gcloud artifacts repositories set-cleanup-policies "${in_registry[@]}"
  "--policy=$gcp_cluster/cleanup_policy.json" --no-dry-run)
# Tells a repository that this script has made from others.
description='Images of the voxsrc pipelines'

# compact: prints JSON without the white space outside of words.
compact() {
  tr -d ' \n'
}

# check_bucket: says what of the bucket, which `found` describes, is otherwise than the settings and lifecycle.json say.
check_bucket() {
  local location prevention uniform kept_s rules wanted
  local update=(gcloud storage buckets update "gs://$VOXSRC_BUCKET")
  IFS='|' read -r location prevention uniform kept_s <<<"$found"
  [[ -z "$location" || "$(tr '[:upper:]' '[:lower:]' <<<"$location")" == "$VOXSRC_REGION" ]] ||
    say "warning: it lies in $location, not in $VOXSRC_REGION: reading it from the cluster costs money and time"
  [[ "$prevention" == enforced && "$uniform" == True ]] ||
    say "warning: it may be made public, or has access lists of single objects; to close it: ${update[*]}\
 --public-access-prevention --uniform-bucket-level-access"
  ((${kept_s:-0} == VOXSRC_SOFT_DELETE_DAYS * 86400)) ||
    say "warning: it keeps deleted objects for $((${kept_s:-0} / 86400)) days; VOXSRC_SOFT_DELETE_DAYS says\
 $VOXSRC_SOFT_DELETE_DAYS: left alone. To change it: ${update[*]} $soft_delete"
  rules="$(gcloud storage buckets describe "gs://$VOXSRC_BUCKET" '--format=json(lifecycle_config)' | compact)" ||
    die "could not read the lifecycle rules of gs://$VOXSRC_BUCKET"
  rules="${rules#'{"lifecycle_config":'}"
  wanted="$(compact <"$gcp_cluster/lifecycle.json")"
  [[ "$rules" == "${wanted#'{"lifecycle":'}" ]] ||
    say "warning: its lifecycle rules are others than those of lifecycle.json, without which checkpoints stay for ever:\
 left alone. To replace them all: $(command_line "${update[@]}" "$lifecycle")"
}

# check_repository: makes the policy of the repository, which `found` describes, what cleanup_policy.json says, if this
# script has made it and nobody has set another.
check_repository() {
  local format named policies ours
  IFS='|' read -r format named policies <<<"$found"
  [[ -z "$format" || "$format" == DOCKER ]] ||
    die "repository $registry_name exists with format $format; expected DOCKER: set another VOXSRC_REGISTRY"
  say "repository $registry_name exists: left alone"
  policies="$(sorted_list "$policies")"
  ours="$(sorted_list "$(sed -n 's/^ *"name": "\(.*\)",$/\1/p' "$gcp_cluster/cleanup_policy.json" | tr '\n' ,)")"
  if [[ "$named" == "$description" && (-z "$policies" || "$policies" == "$ours") ]]; then
    run "${set_policy[@]}"
  elif [[ "$policies" != "$ours" ]]; then
    say "warning: its cleanup policies are ${policies:-none}; those of cleanup_policy.json are $ours: left alone, as they\
 delete old images, whoever's they are. To replace them all: $(command_line "${set_policy[@]}")"
  fi
}

if exists gcloud storage buckets describe "gs://$VOXSRC_BUCKET" \
  '--format=value[separator=|](location,public_access_prevention,uniform_bucket_level_access,soft_delete_policy.retentionDurationSeconds)'; then
  say "bucket $VOXSRC_BUCKET exists: left alone"
  check_bucket
else
  run gcloud storage buckets create "gs://$VOXSRC_BUCKET" "$at_project" "$at_region" \
    --default-storage-class=STANDARD --uniform-bucket-level-access --public-access-prevention "$lifecycle" "$soft_delete"
fi

if exists gcloud artifacts repositories describe "${in_registry[@]}" \
  '--format=value[separator=|](format,description,cleanupPolicies.list(show="keys"))'; then
  check_repository
else
  run gcloud artifacts repositories create "${in_registry[@]}" --repository-format=docker "--description=$description"
  run "${set_policy[@]}"
fi
