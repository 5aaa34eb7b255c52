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
repository (cleanup_policy.json deletes old images, keeping the ten newest of each). What
exists is kept; the lifecycle rules, the days for which deleted objects are kept and the
cleanup policy are set in any case.
TEXT
}

begin "$@"
no_arguments
need gcloud

if exists gcloud storage buckets describe "gs://$VOXSRC_BUCKET" \
  '--format=value[separator=|](location,public_access_prevention,uniform_bucket_level_access)'; then
  IFS='|' read -r location prevention uniform <<<"$found"
  say "bucket $VOXSRC_BUCKET exists: left alone, but for its rules"
  [[ -z "$location" || "$(tr '[:upper:]' '[:lower:]' <<<"$location")" == "$VOXSRC_REGION" ]] ||
    say "warning: it lies in $location, not in $VOXSRC_REGION: reading it from the cluster costs money and time"
  [[ "$prevention" == enforced && "$uniform" == True ]] ||
    say "warning: it may be made public, or has access lists of single objects; to close it: gcloud storage buckets update\
 gs://$VOXSRC_BUCKET --public-access-prevention --uniform-bucket-level-access"
else
  run gcloud storage buckets create "gs://$VOXSRC_BUCKET" "$at_project" "$at_region" \
    --default-storage-class=STANDARD --uniform-bucket-level-access --public-access-prevention \
    "--soft-delete-duration=${VOXSRC_SOFT_DELETE_DAYS}d"
fi
run gcloud storage buckets update "gs://$VOXSRC_BUCKET" "--lifecycle-file=$gcp_cluster/lifecycle.json" \
  "--soft-delete-duration=${VOXSRC_SOFT_DELETE_DAYS}d"

if exists gcloud artifacts repositories describe "$registry_name" "$at_project" "$at_region" '--format=value(format)'; then
  [[ -z "$found" || "$found" == DOCKER ]] ||
    die "repository $registry_name exists with format $found; expected DOCKER: set another VOXSRC_REGISTRY"
  say "repository $registry_name exists: left alone"
else
  run gcloud artifacts repositories create "$registry_name" "$at_project" "$at_region" \
    --repository-format=docker '--description=Images of the voxsrc pipelines'
fi
run gcloud artifacts repositories set-cleanup-policies "$registry_name" "$at_project" "$at_region" \
  "--policy=$gcp_cluster/cleanup_policy.json" --no-dry-run
