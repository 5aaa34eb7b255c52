#!/usr/bin/env bash
# Switches on the Google APIs that the cluster needs.
set -euo pipefail

# shellcheck source=lib/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/commands.sh"
# shellcheck source=lib/settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"

usage() {
  cat <<'TEXT'
Usage: gcp-cluster/enable_services.sh [options]

Switches on the Google APIs that the other scripts and the cluster need. Costs nothing.
TEXT
}

begin "$@"
no_arguments
need gcloud

# containerfilesystem: image streaming, by which a pod starts before the whole image has arrived.
services=(
  artifactregistry.googleapis.com
  cloudresourcemanager.googleapis.com
  compute.googleapis.com
  container.googleapis.com
  containerfilesystem.googleapis.com
  iam.googleapis.com
  iamcredentials.googleapis.com
  logging.googleapis.com
  monitoring.googleapis.com
  storage.googleapis.com
)
enabled=''
if ! $dry_run; then
  enabled="$(gcloud services list --enabled "$at_project" '--format=value(config.name)')" ||
    die "could not list the services of $VOXSRC_PROJECT; log in (gcloud auth login), and check the project and its billing"
fi
missing=()
for service in "${services[@]}"; do
  grep -qx -- "$service" <<<"$enabled" || missing+=("$service")
done
if ((${#missing[@]})); then
  run gcloud services enable "${missing[@]}" "$at_project"
else
  say 'all services are enabled: left alone'
fi
