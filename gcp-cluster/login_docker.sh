#!/usr/bin/env bash
# Lets Docker push to the image repository.
set -euo pipefail

# shellcheck source=lib/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/commands.sh"
# shellcheck source=lib/settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"

usage() {
  cat <<'TEXT'
Usage: gcp-cluster/login_docker.sh [options]

Lets Docker on this machine push to and pull from the host of VOXSRC_REGISTRY with your own
login: gcloud becomes the credential helper for that host in ~/.docker/config.json. No
password is stored. Needed once.
TEXT
}

begin "$@"
no_arguments
need gcloud

run gcloud auth configure-docker "${VOXSRC_REGISTRY%%/*}" --quiet
